//! Checkpoints and the parking lot: the statements that projections and effects share.

use std::collections::HashSet;

use kernel::Position;
use runtime::consume::{Begin, HandleError, Released};
use runtime::{Parked, ParkedState};
use sqlx::{Connection, PgConnection};

use crate::failure::{is_transient, storable};

pub(crate) const BEGIN: &str =
    "INSERT INTO airstream.checkpoints (consumer, log) VALUES ($1, $2) ON CONFLICT DO NOTHING";
pub(crate) const OWN: &str =
    "UPDATE airstream.checkpoints SET epoch = $2 WHERE consumer = $1 AND epoch <= $2 RETURNING position, log";
pub(crate) const CHECKPOINT: &str = "SELECT position FROM airstream.checkpoints WHERE consumer = $1";
pub(crate) const HOLD: &str = "SELECT position FROM airstream.checkpoints WHERE consumer = $1 FOR UPDATE";
pub(crate) const PARKED_SUBJECTS: &str =
    "SELECT DISTINCT subject FROM airstream.parked WHERE consumer = $1 AND state <> 'skipped'";
pub(crate) const HOLD_AS: &str =
    "SELECT position FROM airstream.checkpoints WHERE consumer = $1 AND epoch = $2 AND moved = $3 FOR UPDATE";
pub(crate) const ADVANCE: &str = "
    UPDATE airstream.checkpoints SET position = $3, updated_at = now()
    WHERE consumer = $1 AND position = $2 AND epoch = $4 AND moved = $5";
pub(crate) const PARK: &str = "
    INSERT INTO airstream.parked (consumer, position, subject, tenant_id, state, reason)
    SELECT $1, * FROM UNNEST($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
    ON CONFLICT (consumer, position) DO NOTHING";
pub(crate) const RELEASED: &str = "
    SELECT subject, array_agg(position ORDER BY position) FROM airstream.parked
    WHERE consumer = $1 AND state <> 'skipped' AND subject IN
        (SELECT subject FROM airstream.parked WHERE consumer = $1 AND released)
    GROUP BY subject";
pub(crate) const UNPARK: &str =
    "DELETE FROM airstream.parked WHERE consumer = $1 AND position = $2 AND state <> 'skipped'";
pub(crate) const PARK_AGAIN: &str = "
    UPDATE airstream.parked AS parked
    SET released = false,
        state = CASE WHEN parked.position = $2 THEN 'cause' ELSE parked.state END,
        reason = CASE WHEN parked.position = $2 THEN $3 ELSE parked.reason END,
        tries = parked.tries + CASE WHEN parked.position = $2 THEN 1 ELSE 0 END
    WHERE consumer = $1
        AND subject = (SELECT subject FROM airstream.parked WHERE consumer = $1 AND position = $2)
        AND $4 >= (SELECT epoch FROM airstream.checkpoints WHERE consumer = $1)";
pub(crate) const CLEAR_RELEASED: &str = "
    UPDATE airstream.parked SET released = false
    WHERE consumer = $1 AND state = 'skipped' AND released AND subject = ANY($2)
        AND $3 >= (SELECT epoch FROM airstream.checkpoints WHERE consumer = $1)";

/// Classifies a failure while handling commits.
pub(crate) fn handle_error(attempt: &str, error: sqlx::Error) -> HandleError {
    let said = format!("could not {attempt}: {error}");
    if is_transient(&error) { HandleError::Transient(said) } else { HandleError::Poison(said) }
}

/// Like [`handle_error`] where the commits cannot be to blame.
pub(crate) fn our_error(attempt: &str, error: sqlx::Error) -> HandleError {
    HandleError::Transient(format!("could not {attempt}: {error}"))
}

/// Becomes the owner: from now on nobody with an older epoch can move the checkpoint.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    consumer: &str,
    log: &str,
    epoch: u64,
) -> Result<Begin, HandleError> {
    let failed = |error| our_error("begin", error);
    sqlx::query(BEGIN).bind(consumer).bind(log).execute(&mut *connection).await.map_err(failed)?;
    let owned: Option<(i64, String)> = sqlx::query_as(OWN)
        .bind(consumer)
        .bind(signed(epoch))
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
    let Some((checkpoint, known)) = owned else { return Err(lost_to_another(consumer)) };
    if known != log {
        let reason = format!(
            "its checkpoint belongs to {known}, but this is {log}: positions of one log mean nothing in another. \
             Point it at its own log, or begin anew with an empty database"
        );
        return Err(HandleError::Lost(reason));
    }
    let parked: Vec<String> =
        sqlx::query_scalar(PARKED_SUBJECTS).bind(consumer).fetch_all(&mut *connection).await.map_err(failed)?;
    Ok(Begin { checkpoint: position(checkpoint), parked: HashSet::from_iter(parked) })
}

/// Gives up what this connection owns, and the connection. Closing alone would free the locks a moment later, when the
/// server notices; the next owner, often we ourselves, would stand by for nothing.
pub(crate) async fn release(mut connection: PgConnection) {
    let _ = sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut connection).await;
    let _ = connection.close().await;
}

/// Under what a consumer is run. What its runner knows is void when either has changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// The lease's epoch.
    pub(crate) epoch: u64,
    /// How often somebody else had moved the consumer when the runner began. Nobody moves a reactor.
    pub(crate) moved: i64,
}

impl From<u64> for Owner {
    fn from(epoch: u64) -> Self {
        Self { epoch, moved: 0 }
    }
}

fn lost_to_another(consumer: &str) -> HandleError {
    let reason = "another instance owns it now, under a newer lease, or it was rolled back";
    HandleError::Lost(format!("`{consumer}`: {reason}; nothing was written"))
}

/// Moves the checkpoint. First in every transaction: it locks the row, so that a rebuild's switch and this cannot cross.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    consumer: &str,
    owner: impl Into<Owner>,
    from: Position,
    to: Position,
) -> Result<(), HandleError> {
    let owner = owner.into();
    let moved = sqlx::query(ADVANCE)
        .bind(consumer)
        .bind(number(from))
        .bind(number(to))
        .bind(signed(owner.epoch))
        .bind(owner.moved)
        .execute(&mut *connection)
        .await
        .map_err(|error| our_error("move the checkpoint", error))?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let found = hold_as(connection, consumer, owner).await?;
    Err(HandleError::Lost(format!("its checkpoint is at {found}, not at {from}")))
}

/// Sets commits aside.
pub(crate) async fn park(connection: &mut PgConnection, consumer: &str, parked: &[Parked]) -> Result<(), HandleError> {
    if parked.is_empty() {
        return Ok(());
    }
    let tenant = |parked: &Parked| parked.subject.split('.').nth(2).unwrap_or_default().to_owned();
    let state = |parked: &Parked| match parked.state {
        ParkedState::Cause => "cause",
        ParkedState::Behind => "behind",
    };
    sqlx::query(PARK)
        .bind(consumer)
        .bind(parked.iter().map(|parked| number(parked.position)).collect::<Vec<_>>())
        .bind(parked.iter().map(|parked| parked.subject.clone()).collect::<Vec<_>>())
        .bind(parked.iter().map(tenant).collect::<Vec<_>>())
        .bind(parked.iter().map(state).collect::<Vec<_>>())
        .bind(parked.iter().map(|parked| storable(&parked.reason)).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map_err(|error| our_error("park commits", error))?;
    Ok(())
}

/// What people have released. A subject of which everything was skipped comes back empty, so that it is unparked.
pub(crate) async fn released(
    connection: &mut PgConnection,
    consumer: &str,
    epoch: u64,
) -> Result<Vec<Released>, HandleError> {
    let failed = |error| our_error("look for released commits", error);
    let rows: Vec<(String, Vec<i64>)> =
        sqlx::query_as(RELEASED).bind(consumer).fetch_all(&mut *connection).await.map_err(failed)?;
    let mut released: Vec<Released> = rows
        .into_iter()
        .map(|(subject, positions)| Released { subject, positions: positions.into_iter().map(position).collect() })
        .collect();
    let skipped: Vec<String> =
        sqlx::query_scalar(SKIPPED_ALONE).bind(consumer).fetch_all(&mut *connection).await.map_err(failed)?;
    if !skipped.is_empty() {
        let cleared = sqlx::query(CLEAR_RELEASED).bind(consumer).bind(&skipped).bind(signed(epoch));
        // A former owner must not take the news from the next one.
        if cleared.execute(&mut *connection).await.map_err(failed)?.rows_affected() == 0 {
            return Err(lost_to_another(consumer));
        }
        for subject in skipped {
            if !released.iter().any(|known| known.subject == subject) {
                released.push(Released { subject, positions: Vec::new() });
            }
        }
    }
    Ok(released)
}

// Only where nothing waits behind it any more: otherwise those behind would be overtaken.
pub(crate) const SKIPPED_ALONE: &str = "
    SELECT DISTINCT subject FROM airstream.parked AS skipped
    WHERE consumer = $1 AND state = 'skipped' AND released AND NOT EXISTS
        (SELECT 1 FROM airstream.parked AS other
         WHERE other.consumer = skipped.consumer AND other.subject = skipped.subject AND other.state <> 'skipped')";

/// Takes a commit out of the lot.
pub(crate) async fn unpark(connection: &mut PgConnection, consumer: &str, at: Position) -> Result<(), HandleError> {
    let gone = sqlx::query(UNPARK)
        .bind(consumer)
        .bind(number(at))
        .execute(connection)
        .await
        .map_err(|error| our_error("take a commit out of the parking lot", error))?;
    match gone.rows_affected() {
        1 => Ok(()),
        _ => Err(HandleError::Lost(format!("the commit at {at} is not parked any more: it was skipped just now"))),
    }
}

/// Takes the checkpoint's row: whoever holds a projection still, to compare or to switch it, holds this.
pub(crate) async fn hold(connection: &mut PgConnection, consumer: &str) -> Result<Position, HandleError> {
    let found: Option<i64> = sqlx::query_scalar(HOLD)
        .bind(consumer)
        .fetch_optional(connection)
        .await
        .map_err(|error| our_error("take the checkpoint", error))?;
    Ok(position(found.unwrap_or_default()))
}

/// Takes the checkpoint's row as its owner.
pub(crate) async fn hold_as(
    connection: &mut PgConnection,
    consumer: &str,
    owner: impl Into<Owner>,
) -> Result<Position, HandleError> {
    let owner = owner.into();
    let found: Option<i64> = sqlx::query_scalar(HOLD_AS)
        .bind(consumer)
        .bind(signed(owner.epoch))
        .bind(owner.moved)
        .fetch_optional(connection)
        .await
        .map_err(|error| our_error("take the checkpoint", error))?;
    found.map(position).ok_or_else(|| lost_to_another(consumer))
}

/// A released commit failed again.
pub(crate) async fn park_again(
    connection: &mut PgConnection,
    consumer: &str,
    epoch: u64,
    at: Position,
    reason: &str,
) -> Result<(), HandleError> {
    sqlx::query(PARK_AGAIN)
        .bind(consumer)
        .bind(number(at))
        .bind(storable(reason))
        .bind(signed(epoch))
        .execute(connection)
        .await
        .map_err(|error| our_error("park a commit again", error))?;
    Ok(())
}

/// Postgres has no unsigned numbers; a log of 2^63 messages would take longer than the disk lasts.
pub(crate) fn number(position: Position) -> i64 {
    signed(position.sequence())
}

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn position(number: i64) -> Position {
    Position::at(u64::try_from(number).unwrap_or_default())
}

/// How often a consumer was moved by somebody other than its owner.
pub(crate) const MOVED: &str = "SELECT moved FROM airstream.checkpoints WHERE consumer = $1";

/// See [`MOVED`]. A consumer that is not there has not been moved.
pub(crate) async fn moved(connection: &mut PgConnection, consumer: &str) -> Result<i64, HandleError> {
    let found: Option<i64> = sqlx::query_scalar(MOVED)
        .bind(consumer)
        .fetch_optional(connection)
        .await
        .map_err(|error| our_error("look whether the consumer was moved", error))?;
    Ok(found.unwrap_or_default())
}
