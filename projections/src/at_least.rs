//! Reading one's own writes: wait until a projection has come as far as a command's position.

use std::time::{Duration, Instant};

use kernel::{Position, Problem};
use sqlx::PgPool;

use crate::projector::{Projector, schema};
use crate::{Failure, machinery};

/// The projection did not come that far in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the read model is at {reached}, not yet at the position asked for")]
pub struct NotReached {
    /// How far it has come.
    pub reached: Position,
}

/// How long somebody who reads waits for their own write.
const PATIENCE: Duration = Duration::from_secs(5);

/// As [`wait_until`], for a route: `at_least` is a position as a caller has it; without one, whatever is there is fresh enough.
///
/// # Errors
/// 400 `invalid_position`, 504 `not_yet_visible` after five seconds, 503 when Postgres cannot be asked.
pub async fn fresh<P: Projector>(pool: &PgPool, at_least: Option<&str>) -> Result<(), Problem> {
    let Some(position) = at_least else { return Ok(()) };
    match wait_until::<P>(pool, position.parse()?, PATIENCE).await {
        Ok(_) => Ok(()),
        Err(Ok(late)) => Err(Problem::new(504, "not_yet_visible", format!("{late}; ask again.")).retry_after(500)),
        Err(Err(failure)) => Err(failure.into()),
    }
}

/// Waits until a projection has handled everything up to a position. Gives its checkpoint, which tells how fresh the
/// rows are.
///
/// # Errors
/// `Err(Ok(NotReached))` when the deadline passed, `Err(Err(Failure))` when Postgres could not be asked.
pub async fn wait_until<P: Projector>(
    pool: &PgPool,
    at_least: Position,
    deadline: Duration,
) -> Result<Position, Result<NotReached, Failure>> {
    let until = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    loop {
        let found: Option<i64> = sqlx::query_scalar(machinery::CHECKPOINT)
            .bind(schema::<P>())
            .fetch_optional(pool)
            .await
            .map_err(|error| Err(Failure::attempting("read a checkpoint")(error)))?;
        let reached = machinery::position(found.unwrap_or_default());
        if reached >= at_least {
            return Ok(reached);
        }
        if Instant::now() + pause > until {
            return Err(Ok(NotReached { reached }));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
