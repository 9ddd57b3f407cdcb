//! Snapshots of streams in Postgres.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use runtime::{Snapshot, SnapshotError, SnapshotKey, Snapshots};
use sqlx::PgPool;

use crate::{Database, machinery};

pub(crate) const LOAD: &str = "
    SELECT version, position, body FROM airstream.snapshots
    WHERE tenant_id = $1 AND category = $2 AND stream_id = $3 AND fold = $4 AND log = $5";
pub(crate) const STORE: &str = "
    INSERT INTO airstream.snapshots AS kept (tenant_id, category, stream_id, fold, log, version, position, body)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (tenant_id, category, stream_id, fold) DO UPDATE
    SET log = EXCLUDED.log, version = EXCLUDED.version, position = EXCLUDED.position, body = EXCLUDED.body, stored_at = now()
    WHERE kept.log <> EXCLUDED.log OR kept.position < EXCLUDED.position";
pub(crate) const REMOVE: &str = "
    DELETE FROM airstream.snapshots
    WHERE tenant_id = $1 AND category = $2 AND stream_id = $3 AND fold = $4 AND log = $5";
// A day is longer than an upgrade takes; and a stream that has not grown for a month is seldom loaded. So many at once that
// sweeping outruns storing, and so few that it never takes long.
pub(crate) const SWEEP: &str = "
    DELETE FROM airstream.snapshots WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM airstream.snapshots
        WHERE stored_at < now() - interval '30 days' OR (fold <> $1 AND stored_at < now() - interval '1 day')
        LIMIT 5000))";

/// Stores between two sweeps; the first one sweeps, too.
const SWEEP_EVERY: u64 = 1_000;

/// The table `airstream.snapshots`. What was folded by code that is gone, or long ago, is swept out while storing.
pub struct PgSnapshots {
    pool: PgPool,
    stored: AtomicU64,
}

impl PgSnapshots {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone(), stored: AtomicU64::new(0) }
    }
}

fn failed(attempt: &'static str) -> impl FnOnce(sqlx::Error) -> SnapshotError {
    move |error| SnapshotError { attempt, reason: error.to_string() }
}

#[async_trait]
impl Snapshots for PgSnapshots {
    async fn load(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, SnapshotError> {
        let found: Option<(i64, i64, Vec<u8>)> = sqlx::query_as(LOAD)
            .bind(key.stream.tenant.as_str())
            .bind(key.stream.category.as_str())
            .bind(key.stream.id.as_str())
            .bind(&key.fold)
            .bind(&key.log)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("load a snapshot"))?;
        Ok(found.map(|(version, position, body)| Snapshot {
            version: u64::try_from(version).unwrap_or_default(),
            position: machinery::position(position),
            body: body.into(),
        }))
    }

    async fn store(&self, key: &SnapshotKey, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        sqlx::query(STORE)
            .bind(key.stream.tenant.as_str())
            .bind(key.stream.category.as_str())
            .bind(key.stream.id.as_str())
            .bind(&key.fold)
            .bind(&key.log)
            .bind(i64::try_from(snapshot.version).unwrap_or(i64::MAX))
            .bind(machinery::number(snapshot.position))
            .bind(&snapshot.body[..])
            .execute(&self.pool)
            .await
            .map_err(failed("store a snapshot"))?;
        if self.stored.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            let swept = sqlx::query(SWEEP).bind(&key.fold).execute(&self.pool).await;
            tracing::debug!(?swept, "old snapshots were swept out");
        }
        Ok(())
    }

    async fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        sqlx::query(REMOVE)
            .bind(key.stream.tenant.as_str())
            .bind(key.stream.category.as_str())
            .bind(key.stream.id.as_str())
            .bind(&key.fold)
            .bind(&key.log)
            .execute(&self.pool)
            .await
            .map_err(failed("delete a snapshot"))?;
        Ok(())
    }
}
