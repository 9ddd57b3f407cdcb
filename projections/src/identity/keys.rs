//! Wrapped keys of data subjects.

use async_trait::async_trait;
use sqlx::PgPool;
use vault::{Keyring, KeyringError};

use crate::Database;

pub(crate) const GET: &str = "SELECT wrapped FROM identity.subject_keys WHERE subject = $1";
// Whoever comes second gets the row of who came first, also while that one has not committed yet.
pub(crate) const GET_OR_KEEP: &str = "
    INSERT INTO identity.subject_keys (subject, wrapped) VALUES ($1, $2)
    ON CONFLICT (subject) DO UPDATE SET subject = excluded.subject
    RETURNING wrapped";
// A row stays behind, so that no key can be made for the same subject again.
pub(crate) const DESTROY: &str = "
    INSERT INTO identity.subject_keys AS key (subject, destroyed_at) VALUES ($1, now())
    ON CONFLICT (subject) DO UPDATE SET wrapped = NULL, destroyed_at = coalesce(key.destroyed_at, now())";

/// The table `identity.subject_keys`.
pub struct PgKeyring {
    pool: PgPool,
}

impl PgKeyring {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }
}

fn failed(error: sqlx::Error) -> KeyringError {
    KeyringError(Box::new(error))
}

#[async_trait]
impl Keyring for PgKeyring {
    async fn get(&self, subject: &str) -> Result<Option<Vec<u8>>, KeyringError> {
        let found: Option<Option<Vec<u8>>> =
            sqlx::query_scalar(GET).bind(subject).fetch_optional(&self.pool).await.map_err(failed)?;
        Ok(found.flatten())
    }

    async fn get_or_keep(&self, subject: &str, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, KeyringError> {
        sqlx::query_scalar(GET_OR_KEEP).bind(subject).bind(wrapped).fetch_one(&self.pool).await.map_err(failed)
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyringError> {
        sqlx::query(DESTROY).bind(subject).execute(&self.pool).await.map_err(failed)?;
        Ok(())
    }
}
