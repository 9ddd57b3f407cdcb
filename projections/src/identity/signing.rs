//! Keys that sign access tokens.

use kernel::Timestamp;
use sqlx::PgPool;

use crate::row::from_row;
use crate::{Database, Failure};

pub(crate) const LIST: &str = "
    SELECT kid, public, wrapped, created_at, signs_from, until FROM identity.signing_keys
    WHERE until IS NULL OR until > now() ORDER BY signs_from, kid";
// The first key of all signs at once; of several instances that start together, one makes it.
pub(crate) const ADD: &str = "
    INSERT INTO identity.signing_keys (kid, public, wrapped, signs_from)
    SELECT $1, $2, $3, now() + make_interval(secs => $4)
    WHERE $5 OR NOT EXISTS (SELECT FROM identity.signing_keys WHERE until IS NULL OR until > now())
    ON CONFLICT (kid) DO NOTHING";
pub(crate) const RETIRE: &str = "
    UPDATE identity.signing_keys SET until = now() + make_interval(secs => $2) WHERE kid <> $1 AND until IS NULL";
// One advisory lock for whoever changes the set.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('identity.signing_keys', 0))";

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct SigningKeyRow {
    /// Its name.
    pub kid: String,
    /// The public half.
    pub public: Vec<u8>,
    /// The private half, wrapped.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it signs.
    pub signs_from: Timestamp,
    /// Until when its signatures count.
    pub until: Option<Timestamp>,
}

from_row!(SigningKeyRow { kid, public, wrapped, created_at, signs_from, until });

/// The table `identity.signing_keys`.
#[derive(Clone)]
pub struct SigningKeys {
    pool: PgPool,
}

impl SigningKeys {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// The keys whose signatures count, the oldest first.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn list(&self) -> Result<Vec<SigningKeyRow>, Failure> {
        sqlx::query_as(LIST).fetch_all(&self.pool).await.map_err(Failure::attempting("read the keys of tokens"))
    }

    /// Keeps a key if there is none yet; it signs at once.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn first(&self, kid: &str, public: &[u8], wrapped: &[u8]) -> Result<(), Failure> {
        self.add(kid, public, wrapped, 0.0, None).await
    }

    /// Keeps another key. It signs after so many seconds, and signatures of those before it count for so many.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn next(
        &self,
        kid: &str,
        public: &[u8],
        wrapped: &[u8],
        signs_after_seconds: f64,
        others_for_seconds: f64,
    ) -> Result<(), Failure> {
        self.add(kid, public, wrapped, signs_after_seconds, Some(others_for_seconds)).await
    }

    async fn add(
        &self,
        kid: &str,
        public: &[u8],
        wrapped: &[u8],
        after: f64,
        others_for: Option<f64>,
    ) -> Result<(), Failure> {
        let added = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(LOCK).execute(&mut *transaction).await?;
            sqlx::query(ADD)
                .bind(kid)
                .bind(public)
                .bind(wrapped)
                .bind(after)
                .bind(others_for.is_some())
                .execute(&mut *transaction)
                .await?;
            if let Some(seconds) = others_for {
                sqlx::query(RETIRE).bind(kid).bind(seconds).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        added.await.map_err(Failure::attempting("keep a key of tokens"))
    }
}
