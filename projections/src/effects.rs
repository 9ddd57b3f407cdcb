//! The record of effects in Postgres.

use async_trait::async_trait;
use kernel::{Position, StreamName, Timestamp};
use runtime::consume::{Begin, HandleError, Released};
use runtime::effects::surviving;
use runtime::{EffectRow, EffectState, EffectStore, Parked, Planned, Settlement, StoreError};
use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, Postgres};

use crate::failure::storable;
use crate::{Database, Failure, machinery};

// The same event again changes nothing; a later one calls for the effect anew, whatever became of it before.
pub(crate) const RECORD: &str = "
    INSERT INTO airstream.effects
        (tenant_id, consumer, category, stream_id, name, event_id, correlation, due, request)
    SELECT tenant_id, $1, category, stream_id, name, event_id, correlation, due, request
    FROM UNNEST($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::jsonb[])
        AS new (tenant_id, category, stream_id, name, event_id, correlation, due, request)
    ON CONFLICT (tenant_id, consumer, category, stream_id, name) DO UPDATE
    SET event_id = EXCLUDED.event_id, correlation = EXCLUDED.correlation, due = EXCLUDED.due, request = EXCLUDED.request,
        attempts = 0, state = 'scheduled', note = '', revive = false, recorded_at = now(), settled_at = NULL
    WHERE airstream.effects.event_id <> EXCLUDED.event_id";
// A cancelled effect has not happened and will not: nothing is worth keeping of it.
pub(crate) const CANCEL: &str = "
    DELETE FROM airstream.effects AS effect
    USING UNNEST($2::text[], $3::text[], $4::text[], $5::text[]) AS gone (tenant_id, category, stream_id, name)
    WHERE effect.consumer = $1 AND effect.state = 'scheduled' AND effect.tenant_id = gone.tenant_id
        AND effect.category = gone.category AND effect.stream_id = gone.stream_id AND effect.name = gone.name";
pub(crate) const PENDING: &str = "
    SELECT tenant_id, category, stream_id, name, event_id, correlation, due, request, attempts
    FROM airstream.effects WHERE consumer = $1 AND state = 'scheduled'";
pub(crate) const SETTLE: &str = "
    UPDATE airstream.effects AS effect
    SET state = new.state, due = COALESCE(new.due, effect.due), note = new.note,
        attempts = effect.attempts + CASE WHEN new.state = 'scheduled' THEN 1 ELSE 0 END,
        settled_at = CASE WHEN new.state = 'scheduled' THEN NULL ELSE now() END
    FROM UNNEST($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::text[])
        AS new (tenant_id, category, stream_id, name, event_id, state, due, note)
    WHERE effect.consumer = $1 AND effect.tenant_id = new.tenant_id AND effect.category = new.category
        AND effect.stream_id = new.stream_id AND effect.name = new.name AND effect.event_id = new.event_id
        AND CASE WHEN new.state = 'done' THEN effect.state <> 'done'
            ELSE effect.state = 'scheduled'
                AND $10 >= (SELECT epoch FROM airstream.checkpoints WHERE consumer = $1) END";
pub(crate) const REVIVED: &str = "
    UPDATE airstream.effects SET state = 'scheduled', revive = false, due = now()
    WHERE consumer = $1 AND state = 'parked' AND revive
        AND $2 >= (SELECT epoch FROM airstream.checkpoints WHERE consumer = $1)
    RETURNING tenant_id, category, stream_id, name, event_id, correlation, due, request, attempts";

type Columns = (String, String, String, String, String, String, Timestamp, Value, i32);

/// Effects, checkpoints and parking lots of all reactors. Who may write is decided by the epoch, not by a connection.
pub struct PgEffects {
    database: Database,
}

impl PgEffects {
    /// On the migrated database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    async fn connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        Ok(self.database.pool().acquire().await.map_err(Failure::attempting("connect to Postgres"))?)
    }
}

/// Whatever a consumer's own statements fail with, its walk begins again from the checkpoint; a broken connection too.
fn store_error(error: HandleError) -> StoreError {
    match error {
        HandleError::Poison(reason) => StoreError::Poison(reason),
        HandleError::Lost(reason) | HandleError::Transient(reason) => StoreError::Lost(reason),
    }
}

fn row(consumer: &str, columns: Columns) -> Result<EffectRow, StoreError> {
    let (tenant, category, id, name, event, correlation, due, request, attempts) = columns;
    let stream = StreamName::new(&tenant, &category, &id).map_err(|error| StoreError::Transient(error.to_string()))?;
    let attempts = u32::try_from(attempts).unwrap_or_default();
    let (consumer, traceparent) = (consumer.to_owned(), None);
    Ok(EffectRow { consumer, stream, name, event, correlation, due, request, attempts, traceparent })
}

fn column<T>(items: &[T], of: impl Fn(&T) -> String) -> Vec<String> {
    items.iter().map(of).collect()
}

async fn write(connection: &mut PgConnection, consumer: &str, plans: &[Planned]) -> Result<(), HandleError> {
    let failed = |error| machinery::handle_error("record effects", error);
    let (rows, cancelled) = surviving(consumer, plans);
    if !cancelled.is_empty() {
        sqlx::query(CANCEL)
            .bind(consumer)
            .bind(column(&cancelled, |(stream, _)| stream.tenant.to_string()))
            .bind(column(&cancelled, |(stream, _)| stream.category.to_string()))
            .bind(column(&cancelled, |(stream, _)| stream.id.to_string()))
            .bind(column(&cancelled, |(_, name)| name.clone()))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
    if !rows.is_empty() {
        sqlx::query(RECORD)
            .bind(consumer)
            .bind(column(&rows, |row| row.stream.tenant.to_string()))
            .bind(column(&rows, |row| row.stream.category.to_string()))
            .bind(column(&rows, |row| row.stream.id.to_string()))
            .bind(column(&rows, |row| row.name.clone()))
            .bind(column(&rows, |row| row.event.clone()))
            .bind(column(&rows, |row| storable(&row.correlation)))
            .bind(rows.iter().map(|row| row.due).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.request.clone()).collect::<Vec<_>>())
            .execute(connection)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

#[async_trait]
impl EffectStore for PgEffects {
    async fn begin(&self, consumer: &str, log: &str, epoch: u64) -> Result<Begin, StoreError> {
        let mut connection = self.connection().await?;
        let begin = machinery::begin(&mut connection, consumer, log, epoch).await;
        begin.map_err(|error| match error {
            HandleError::Lost(reason) => StoreError::Lost(reason),
            other => StoreError::Transient(other.to_string()),
        })
    }

    async fn record(
        &self,
        consumer: &str,
        epoch: u64,
        from: Position,
        to: Position,
        plans: &[Planned],
        parked: &[Parked],
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let result = async {
            let mut transaction = connection.begin().await.map_err(|error| machinery::our_error("begin", error))?;
            machinery::advance(&mut transaction, consumer, epoch, from, to).await?;
            write(&mut transaction, consumer, plans).await?;
            machinery::park(&mut transaction, consumer, parked).await?;
            transaction.commit().await.map_err(|error| machinery::our_error("commit", error))
        };
        result.await.map_err(store_error)
    }

    async fn pending(&self, consumer: &str) -> Result<Vec<EffectRow>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(PENDING)
            .bind(consumer)
            .fetch_all(self.database.pool())
            .await
            .map_err(Failure::attempting("list effects to do"))?;
        rows.into_iter().map(|columns| row(consumer, columns)).collect()
    }

    async fn settle(&self, consumer: &str, epoch: u64, settlements: &[Settlement]) -> Result<(), StoreError> {
        let state = |settlement: &Settlement| match settlement.state {
            EffectState::Scheduled => "scheduled".to_owned(),
            EffectState::Done => "done".to_owned(),
            EffectState::Parked => "parked".to_owned(),
        };
        sqlx::query(SETTLE)
            .bind(consumer)
            .bind(column(settlements, |settlement| settlement.stream.tenant.to_string()))
            .bind(column(settlements, |settlement| settlement.stream.category.to_string()))
            .bind(column(settlements, |settlement| settlement.stream.id.to_string()))
            .bind(column(settlements, |settlement| settlement.name.clone()))
            .bind(column(settlements, |settlement| settlement.event.clone()))
            .bind(column(settlements, state))
            .bind(settlements.iter().map(|settlement| settlement.due).collect::<Vec<_>>())
            .bind(column(settlements, |settlement| storable(&settlement.note)))
            .bind(machinery::signed(epoch))
            .execute(self.database.pool())
            .await
            .map_err(Failure::attempting("settle effects"))?;
        Ok(())
    }

    async fn released(&self, consumer: &str, epoch: u64) -> Result<Vec<Released>, StoreError> {
        machinery::released(&mut *self.connection().await?, consumer, epoch).await.map_err(store_error)
    }

    async fn unpark(
        &self,
        consumer: &str,
        epoch: u64,
        position: Position,
        plans: &[Planned],
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let result = async {
            let mut transaction = connection.begin().await.map_err(|error| machinery::our_error("begin", error))?;
            machinery::hold_as(&mut transaction, consumer, epoch).await?;
            write(&mut transaction, consumer, plans).await?;
            machinery::unpark(&mut transaction, consumer, position).await?;
            transaction.commit().await.map_err(|error| machinery::our_error("commit", error))
        };
        result.await.map_err(store_error)
    }

    async fn park_again(&self, consumer: &str, epoch: u64, position: Position, reason: &str) -> Result<(), StoreError> {
        machinery::park_again(&mut *self.connection().await?, consumer, epoch, position, reason)
            .await
            .map_err(store_error)
    }

    async fn revived(&self, consumer: &str, epoch: u64) -> Result<Vec<EffectRow>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(REVIVED)
            .bind(consumer)
            .bind(machinery::signed(epoch))
            .fetch_all(self.database.pool())
            .await
            .map_err(Failure::attempting("look for revived effects"))?;
        rows.into_iter().map(|columns| row(consumer, columns)).collect()
    }
}
