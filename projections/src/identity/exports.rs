//! Archives of everything that is stored about somebody: asked for, made, and kept sealed for a week.

use kernel::Timestamp;
use sqlx::PgPool;

use crate::row::from_row;
use crate::{Database, Failure};

pub(crate) const ASK: &str = "
    INSERT INTO identity.exports (export, person, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))
    ON CONFLICT (export) DO NOTHING";
pub(crate) const WITHDRAW: &str = "DELETE FROM identity.exports WHERE export = $1 AND ready_at IS NULL";
// Whoever makes it a second time, after a crash, has made the same; the first one counts.
pub(crate) const KEEP: &str = "
    UPDATE identity.exports
    SET archive = $3, bytes = $4, ready_at = now(), expires_at = now() + make_interval(secs => $5), failure = NULL
    WHERE export = $1 AND person = $2 AND ready_at IS NULL AND expires_at > now()";
pub(crate) const FAIL: &str = "UPDATE identity.exports SET failure = $2 WHERE export = $1 AND ready_at IS NULL";
pub(crate) const GET: &str = "
    SELECT export, requested_at, ready_at, failure, bytes, expires_at FROM identity.exports
    WHERE export = $2 AND person = $1 AND expires_at > now()";
pub(crate) const ARCHIVE: &str = "
    SELECT archive FROM identity.exports
    WHERE export = $2 AND person = $1 AND archive IS NOT NULL AND expires_at > now()";
pub(crate) const RECENT: &str = "SELECT count(*) FROM identity.exports WHERE person = $1 AND export <> $2 AND requested_at > now() - interval '1 day'";
pub(crate) const KEYS: &str = "SELECT tenant, key FROM identity.api_keys WHERE owner = $1 ORDER BY key";
pub(crate) const SWEEP: &str = "
    DELETE FROM identity.exports WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity.exports WHERE expires_at < now() LIMIT 1000))";

/// How long an archive can be had, in seconds.
pub const EXPORT_SECONDS: f64 = 7.0 * 86_400.0;

/// An archive, without what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRow {
    /// Which.
    pub export: String,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Since when it can be had.
    pub ready_at: Option<Timestamp>,
    /// Why there is none.
    pub failure: Option<String>,
    /// How large it is, unsealed.
    pub bytes: Option<i64>,
    /// Until when it can be had.
    pub expires_at: Timestamp,
}

from_row!(ExportRow { export, requested_at, ready_at, failure, bytes, expires_at });

/// The table `identity.exports`.
#[derive(Clone)]
pub struct Exports {
    pool: PgPool,
}

impl Exports {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Notes that somebody wants one; what is noted stays as it is.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn ask(&self, export: &str, person: &str) -> Result<(), Failure> {
        let asked = sqlx::query(ASK).bind(export).bind(person).bind(EXPORT_SECONDS).execute(&self.pool).await;
        asked.map(drop).map_err(Failure::attempting("note an export"))
    }

    /// Forgets one that is not made.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn withdraw(&self, export: &str) -> Result<(), Failure> {
        let withdrawn = sqlx::query(WITHDRAW).bind(export).execute(&self.pool).await;
        withdrawn.map(drop).map_err(Failure::attempting("forget an export"))
    }

    /// How many somebody has asked for within a day, but this one.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn recent(&self, person: &str, but: &str) -> Result<i64, Failure> {
        let count = sqlx::query_scalar(RECENT).bind(person).bind(but).fetch_one(&self.pool).await;
        count.map_err(Failure::attempting("count exports"))
    }

    /// Keeps a sealed archive, whose content has so many bytes. `false`: nobody wants it any more, or it is there already.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn keep(&self, export: &str, person: &str, archive: &[u8], bytes: usize) -> Result<bool, Failure> {
        let kept = sqlx::query(KEEP)
            .bind(export)
            .bind(person)
            .bind(archive)
            .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
            .bind(EXPORT_SECONDS)
            .execute(&self.pool)
            .await;
        kept.map(|kept| kept.rows_affected() == 1).map_err(Failure::attempting("keep an export"))
    }

    /// Notes why there will be none.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn fail(&self, export: &str, reason: &str) -> Result<(), Failure> {
        let failed = sqlx::query(FAIL).bind(export).bind(reason).execute(&self.pool).await;
        failed.map(drop).map_err(Failure::attempting("note why an export failed"))
    }

    /// One of somebody's, while it can be had.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn get(&self, person: &str, export: &str) -> Result<Option<ExportRow>, Failure> {
        let found = sqlx::query_as(GET).bind(person).bind(export).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("look for an export"))
    }

    /// A sealed archive of somebody's, while it can be had.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn archive(&self, person: &str, export: &str) -> Result<Option<Vec<u8>>, Failure> {
        let found = sqlx::query_scalar(ARCHIVE).bind(person).bind(export).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("read an export"))
    }

    /// The keys of programs that somebody has made: tenant and key.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn keys_of(&self, person: &str) -> Result<Vec<(String, String)>, Failure> {
        let found = sqlx::query_as(KEYS).bind(person).fetch_all(&self.pool).await;
        found.map_err(Failure::attempting("list somebody's keys"))
    }

    /// Removes what cannot be had any more, a thousand at most.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        let swept = sqlx::query(SWEEP).execute(&self.pool).await;
        swept.map(|swept| swept.rows_affected()).map_err(Failure::attempting("remove old exports"))
    }
}
