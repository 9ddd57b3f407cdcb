//! Rebuild and verify: the log folded once more, beside the live rows, while the live projection goes on.
//!
//! ```text
//! fold      the log up to the live checkpoint, into tables with keys only; again, until little is missing
//! index     the other indexes, and statistics
//! compare   one REPEATABLE READ transaction sees the live rows, their checkpoint and their parking lot as of one moment;
//!           the second schema is brought to exactly that position inside it, and both are equal or not
//! catch up  with what came meanwhile, until a handful of commits is missing
//! switch    hold the live checkpoint's row, fold the handful, rename
//! ```
//! Only the last step holds the live projection still, and it does nothing that grows with the tables. A live transaction
//! writes rows, checkpoint and parking lot together, so one snapshot of the three agrees with itself; and a transaction
//! sees what it wrote itself, so the second schema can be completed inside the snapshot.
//!
//! Dropping the future of a fold stops it: what it made is dropped as well.

mod beside;
mod compare;
mod feed;
mod meter;
mod rollback;
mod switch;
mod write;

use std::sync::Arc;

use kernel::Position;
use runtime::Log;
use runtime::consume::HandleError;
use serde_json::Value;

use crate::projector::{Projector, schema};
use crate::{Database, machinery};
use beside::{Beside, CleanUp};
use meter::Meter;

pub use meter::{Phase, Progress};
pub use rollback::{RolledBack, roll_back};

pub(crate) use beside::{FOLD_LOCK, GUARDS, INDEXES, MARK, TERMINATE};
pub(crate) use compare::KEY;
pub(crate) use meter::{ENDED, STARTED, TICK};
pub(crate) use rollback::{KEPT, MOVE, RESTORE, SHAPE_DIFFERS, UNPARK_ALL};
pub(crate) use switch::KEEP;

/// Rows that are not as the log says.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct Difference {
    /// Which table.
    pub table: String,
    /// Rows that the live table has and the log does not lead to.
    pub only_live: i64,
    /// Rows that the log leads to and the live table does not have.
    pub only_log: i64,
    /// A few of them, for people.
    pub examples: Vec<Value>,
}

/// What a rebuild or a verification came to.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct Fold {
    /// `name_vN`.
    pub projection: String,
    /// Where both stood when they were compared.
    #[schema(value_type = String)]
    pub position: Position,
    /// Rows folded, of all tables.
    pub rows: i64,
    /// What differed.
    pub differences: Vec<Difference>,
    /// Commits that are in neither, because they are parked and wait for a person. What a person has skipped is not
    /// counted: that was decided.
    pub parked: i64,
    /// How long the live projection was held still, in milliseconds; 0 for a verification.
    pub held_ms: f64,
}

/// What a fold is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Compare,
    Switch,
}

impl Goal {
    fn verb(self) -> &'static str {
        match self {
            Self::Compare => "verify",
            Self::Switch => "rebuild",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Compare => "check",
            Self::Switch => "next",
        }
    }
}

/// Folds the log into a second schema and compares it with the live rows.
///
/// # Errors
/// When the log or Postgres cannot be read, another fold of this projection is running, or a commit cannot be projected
/// that the live projection has not parked.
pub async fn verify<P: Projector>(
    database: &Database,
    log: &Arc<dyn Log>,
    progress: impl Fn(Progress) + Send,
) -> Result<Fold, HandleError> {
    fold::<P>(database, log, Box::new(progress), Goal::Compare).await
}

/// Folds the log into a second schema and lets it take the place of the live one, which is kept for [`roll_back`]. What
/// the live rows differed in is reported.
///
/// # Errors
/// As [`verify`]. The live rows are untouched then.
pub async fn rebuild<P: Projector>(
    database: &Database,
    log: &Arc<dyn Log>,
    progress: impl Fn(Progress) + Send,
) -> Result<Fold, HandleError> {
    fold::<P>(database, log, Box::new(progress), Goal::Switch).await
}

async fn fold<P: Projector>(
    database: &Database,
    log: &Arc<dyn Log>,
    progress: Box<dyn Fn(Progress) + Send + '_>,
    goal: Goal,
) -> Result<Fold, HandleError> {
    let mut connection = database.dedicated().await.map_err(failed("connect"))?;
    let live = schema::<P>();
    if let Err(error) = beside::alone(&mut connection, &live).await {
        machinery::release(connection).await;
        return Err(error);
    }
    let clean_up = CleanUp::arm(database, &mut connection, &live).await?;
    let meter = Meter::start(database.pool(), &live, goal.verb(), progress).await?;
    let result = async {
        let mut beside = Beside::<P>::create(&mut connection, log, meter, goal).await?;
        let mut fold = beside.bring_close_and_compare(&mut connection).await?;
        if goal == Goal::Switch {
            fold.held_ms = beside.switch(&mut connection).await?.as_secs_f64() * 1e3;
        }
        Ok(fold)
    }
    .await;
    clean_up.now(connection).await;
    result
}

fn failed(attempt: &'static str) -> impl Fn(sqlx::Error) -> HandleError {
    move |error| HandleError::Transient(format!("could not {attempt}: {error}"))
}
