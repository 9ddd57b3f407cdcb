//! Rows of a projection from a restored log: folded by the projector's own code, up to its restored checkpoint.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use kernel::Position;
use runtime::consume::{HandleError, everything_at_last};
use runtime::{Log, Recorded};
use sqlx::{AssertSqlSafe, Connection};

use super::REACHED;
use crate::projector::{Projector, schema, set_search_path, wanted};
use crate::{Database, machinery};

const BATCH: usize = 1_000;
const PARKED: &str = "SELECT position FROM airstream.parked WHERE consumer = $1";

/// Fills a projection's tables with what the log says up to the checkpoint that it has for the log of this name. What is
/// parked or skipped stays out, as it was. `progress` hears how many messages are read, of how many. Nobody else may be at work on the projection. How far it came; zero when it has no
/// such checkpoint, and then it will begin at the log's beginning by itself.
///
/// # Errors
/// When the log or Postgres cannot be read, or a commit cannot be projected that was not parked.
pub async fn refill<P: Projector>(
    database: &Database,
    log: &Arc<dyn Log>,
    of_log: &str,
    progress: impl Fn(u64, u64) + Send,
) -> Result<Position, HandleError> {
    let failed = |error| machinery::our_error("refill a projection", error);
    let unreadable = |error: runtime::LogError| HandleError::Transient(error.to_string());
    let consumer = schema::<P>();
    let mut connection = database.dedicated().await.map_err(failed)?;
    set_search_path(&mut connection, &consumer).await.map_err(failed)?;
    // The restore ends with a commit that waits for the disk; until then everything may be done again.
    sqlx::query("SET synchronous_commit = off").execute(&mut connection).await.map_err(failed)?;
    let empty = format!("TRUNCATE {}", P::TABLES.join(", "));
    sqlx::raw_sql(AssertSqlSafe(empty)).execute(&mut connection).await.map_err(failed)?;
    let until: Option<i64> = sqlx::query_scalar(REACHED)
        .bind(&consumer)
        .bind(of_log)
        .fetch_optional(&mut connection)
        .await
        .map_err(failed)?;
    let until = machinery::position(until.unwrap_or_default());
    let parked: Vec<i64> =
        sqlx::query_scalar(PARKED).bind(&consumer).fetch_all(&mut connection).await.map_err(failed)?;
    let parked: HashSet<Position> = parked.into_iter().map(machinery::position).collect();

    let mut at = Position::START;
    if at < until {
        let commits = everything_at_last(log, at);
        // How many there are is known, so every batch but the last can be a full one.
        let messages = usize::try_from(until.sequence()).unwrap_or(usize::MAX);
        let mut chunks = commits.take(messages).chunks(BATCH);
        while at < until {
            let chunk = chunks.next().await.ok_or_else(|| HandleError::Transient("the read ended".to_owned()))?;
            let commits = chunk.into_iter().collect::<Result<Vec<Recorded>, _>>().map_err(unreadable)?;
            let mut fitting = Vec::with_capacity(commits.len());
            for recorded in &commits {
                if recorded.position != at.next() {
                    return Err(HandleError::Lost(format!("after {at} the log hands out {}", recorded.position)));
                }
                at = recorded.position;
                if !parked.contains(&recorded.position) {
                    fitting.push(recorded);
                }
            }
            let facts = wanted::<P>(&fitting)?;
            if !facts.is_empty() {
                let mut transaction = connection.begin().await.map_err(failed)?;
                P::apply(&facts, &mut transaction).await?;
                transaction.commit().await.map_err(failed)?;
            }
            progress(at.sequence(), until.sequence());
        }
    }
    machinery::release(connection).await;
    Ok(until)
}
