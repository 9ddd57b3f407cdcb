//! What people ask about consumers: how far they are, what is being done to them.

use kernel::{Position, Timestamp};
use sqlx::PgPool;
use sqlx::types::Json;

use crate::{Failure, machinery};

/// A consumer's checkpoint.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct ConsumerRow {
    /// Its name.
    #[schema(example = "runs_v1")]
    pub consumer: String,
    /// The last position it has handled or parked.
    #[schema(value_type = String, example = "p1-2a")]
    pub position: Position,
    /// When it last moved.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Commits in its parking lot.
    #[schema(example = 0)]
    pub parked: i64,
    /// Since when the oldest of them, or of its parked effects, has been waiting for a person.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub parked_since: Option<Timestamp>,
    /// Effects that wait for their time or their turn.
    #[schema(example = 0)]
    pub effects_scheduled: i64,
    /// Effects that wait for a person.
    #[schema(example = 0)]
    pub effects_parked: i64,
    /// A rebuild or a verification of it.
    pub fold: Option<FoldRow>,
    /// Rows that a rebuild has switched out, and that `rollback` would bring back.
    pub kept: Option<KeptRow>,
}

/// A rebuild or a verification.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct FoldRow {
    /// `rebuild` or `verify`.
    #[schema(example = "rebuild")]
    pub verb: String,
    /// What it is doing: `fold`, `index`, `compare`, `catch_up`, `switch`.
    #[schema(example = "fold")]
    pub phase: String,
    /// Commits folded.
    #[schema(example = 20000)]
    pub done: i64,
    /// Commits to fold, as known now.
    #[schema(example = 50000)]
    pub total: i64,
    /// Commits folded per second.
    #[schema(example = 12000.0)]
    pub per_second: f64,
    /// How long the folding will take from now, in seconds.
    #[schema(example = 2.5)]
    pub eta_seconds: Option<f64>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Whether it still runs. If not, it was killed; the next one drops what it left behind.
    pub running: bool,
}

/// Rows that are kept.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct KeptRow {
    /// Where they stand in the log.
    #[schema(value_type = String, example = "p1-29")]
    pub position: Position,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub kept_at: Timestamp,
}

pub(crate) const CONSUMERS: &str = "
    SELECT consumer, position, updated_at,
        (SELECT count(*) FROM airstream.parked p WHERE p.consumer = c.consumer AND p.state <> 'skipped'),
        LEAST((SELECT min(parked_at) FROM airstream.parked p WHERE p.consumer = c.consumer AND p.state <> 'skipped'),
              (SELECT min(settled_at) FROM airstream.effects e WHERE e.consumer = c.consumer AND e.state = 'parked')),
        (SELECT count(*) FROM airstream.effects e WHERE e.consumer = c.consumer AND e.state = 'scheduled'),
        (SELECT count(*) FROM airstream.effects e WHERE e.consumer = c.consumer AND e.state = 'parked'),
        (SELECT to_jsonb(f) || jsonb_build_object('running', EXISTS (
            SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (classid::bigint << 32) | objid::bigint = hashtextextended('airstream fold ' || f.projection, 0)))
         FROM airstream.folds f WHERE f.projection = c.consumer),
        (SELECT position FROM airstream.kept k WHERE k.projection = c.consumer),
        (SELECT kept_at FROM airstream.kept k WHERE k.projection = c.consumer)
    FROM airstream.checkpoints c ORDER BY consumer";

/// Every consumer.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn consumers(pool: &PgPool) -> Result<Vec<ConsumerRow>, Failure> {
    type Columns = (
        String,
        i64,
        Timestamp,
        i64,
        Option<Timestamp>,
        i64,
        i64,
        Option<Json<FoldRow>>,
        Option<i64>,
        Option<Timestamp>,
    );
    let rows: Vec<Columns> =
        sqlx::query_as(CONSUMERS).fetch_all(pool).await.map_err(Failure::attempting("list consumers"))?;
    let row =
        |(consumer, position, updated_at, parked, since, scheduled, effects_parked, fold, kept, kept_at): Columns| {
            ConsumerRow {
                consumer,
                position: machinery::position(position),
                updated_at,
                parked,
                parked_since: since,
                effects_scheduled: scheduled,
                effects_parked,
                fold: fold.map(|Json(fold)| fold),
                kept: kept
                    .zip(kept_at)
                    .map(|(position, kept_at)| KeptRow { position: machinery::position(position), kept_at }),
            }
        };
    Ok(rows.into_iter().map(row).collect())
}
