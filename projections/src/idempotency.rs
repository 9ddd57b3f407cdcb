//! What idempotency keys stood for when they were used first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::PgPool;

use crate::{Database, Failure};

pub(crate) const USE_KEY: &str = "
    INSERT INTO airstream.idempotency_keys (digest, request) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
pub(crate) const KEY_STOOD_FOR: &str = "SELECT request FROM airstream.idempotency_keys WHERE digest = $1";
pub(crate) const FORGET_KEY: &str = "DELETE FROM airstream.idempotency_keys WHERE digest = $1 AND request = $2";
pub(crate) const SWEEP_KEYS: &str = "
    DELETE FROM airstream.idempotency_keys WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM airstream.idempotency_keys WHERE used_at < now() - interval '1 day' LIMIT 5000))";

/// Uses between two sweeps; the first one sweeps, too.
const SWEEP_EVERY: u64 = 1_000;

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// This is its first use.
    First,
    /// It has been used for the same.
    Again,
    /// It has been used for something else.
    Otherwise,
}

/// The table `airstream.idempotency_keys`. Keys are forgotten after a day.
#[derive(Clone)]
pub struct IdempotencyKeys {
    pool: PgPool,
    uses: Arc<AtomicU64>,
}

impl IdempotencyKeys {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone(), uses: Arc::default() }
    }

    /// Notes what a key stands for, or tells what it has stood for until now. Of two at once, one is the first.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn use_for(&self, digest: &[u8], request: &str) -> Result<Used, Failure> {
        let failed = |error| Failure::attempting("look up an idempotency key")(error);
        if self.uses.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            let swept = sqlx::query(SWEEP_KEYS).execute(&self.pool).await;
            tracing::debug!(?swept, "old idempotency keys were swept out");
        }
        let noted = sqlx::query(USE_KEY).bind(digest).bind(request).execute(&self.pool).await.map_err(failed)?;
        if noted.rows_affected() == 1 {
            return Ok(Used::First);
        }
        let before: Option<String> =
            sqlx::query_scalar(KEY_STOOD_FOR).bind(digest).fetch_optional(&self.pool).await.map_err(failed)?;
        // Swept or forgotten in between: it stands for nothing any more.
        Ok(if before.is_none_or(|before| before == request) { Used::Again } else { Used::Otherwise })
    }

    /// Forgets a key that has stood for this: what was refused has not been done, and may be asked in another way.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn forget(&self, digest: &[u8], request: &str) -> Result<(), Failure> {
        let forgotten = sqlx::query(FORGET_KEY).bind(digest).bind(request).execute(&self.pool).await;
        forgotten.map(drop).map_err(Failure::attempting("forget an idempotency key"))
    }
}
