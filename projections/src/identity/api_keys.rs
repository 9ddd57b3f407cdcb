//! Keys of programs. A secret is written down first, then the key's stream says that it exists, and only then, settled, it
//! counts: of no crash in between comes a secret that works and that the log does not know.

use kernel::Timestamp;
use sqlx::{PgConnection, PgPool};

use crate::row::from_row;
use crate::{Database, Failure};

pub(crate) const MAKE: &str = "
    INSERT INTO identity.api_keys AS made (key, tenant, owner, name, scopes) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (key) DO UPDATE SET key = excluded.key
    RETURNING made.name = $4 AND made.scopes = $5";
pub(crate) const ADD_SECRET: &str = "
    INSERT INTO identity.api_key_secrets AS secret (digest, key, prefix, expires_at, overlap_until)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4), now() + make_interval(secs => $5))
    ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest
    RETURNING created_at, expires_at, overlap_until, now() - created_at > interval '1 day' AS old,
        expires_at = created_at + make_interval(secs => $4)
            AND overlap_until IS NOT DISTINCT FROM created_at + make_interval(secs => $5) AS same";
pub(crate) const LOCK: &str = "SELECT key FROM identity.api_keys WHERE key = $1 FOR UPDATE";
pub(crate) const NUMBER: &str = "
    UPDATE identity.api_key_secrets SET version = $3 WHERE key = $1 AND prefix = $2 AND version IS NULL";
// Each secret goes on for as long as the first one after it has said, in whatever order they were settled.
pub(crate) const SHORTEN: &str = "
    UPDATE identity.api_key_secrets AS older
    SET replaced_at = (
        SELECT min(newer.overlap_until) FROM identity.api_key_secrets AS newer
        WHERE newer.key = older.key AND newer.version > older.version)
    WHERE older.key = $1 AND older.version IS NOT NULL";
pub(crate) const BY_SECRET: &str = "
    SELECT key.key, key.tenant, key.owner, key.scopes, least(secret.expires_at, secret.replaced_at) AS expires_at
    FROM identity.api_key_secrets AS secret JOIN identity.api_keys AS key USING (key)
    WHERE secret.digest = $1 AND secret.version IS NOT NULL AND least(secret.expires_at, secret.replaced_at) > now()
        AND key.revoked_at IS NULL";
pub(crate) const LIST: &str = "
    SELECT key.key, key.owner, key.name, key.scopes, key.created_at, key.last_used_at,
        current.prefix, current.expires_at, older.goes_on AS older_until
    FROM identity.api_keys AS key
    CROSS JOIN LATERAL (
        SELECT prefix, expires_at, version FROM identity.api_key_secrets AS secret
        WHERE secret.key = key.key AND version IS NOT NULL ORDER BY version DESC LIMIT 1) AS current
    LEFT JOIN LATERAL (
        SELECT max(least(expires_at, replaced_at)) AS goes_on FROM identity.api_key_secrets AS secret
        WHERE secret.key = key.key AND secret.version < current.version
            AND least(expires_at, replaced_at) > now()) AS older ON true
    WHERE key.tenant = $1 AND key.revoked_at IS NULL AND ($2::text IS NULL OR key.key = $2) AND key.key > $3
    ORDER BY key.key LIMIT $4";
// One whose maker was interrupted counts for as long as they may come back.
pub(crate) const COUNT: &str = "
    SELECT count(*) FROM identity.api_keys AS made WHERE tenant = $1 AND revoked_at IS NULL AND key <> $2
        AND (created_at > now() - interval '1 hour' OR EXISTS (
            SELECT FROM identity.api_key_secrets AS secret WHERE secret.key = made.key AND secret.version IS NOT NULL))";
pub(crate) const REVOKE: &str = "
    UPDATE identity.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key = $1 AND tenant = $2";
pub(crate) const OF_OWNER: &str = "
    SELECT key FROM identity.api_keys WHERE owner = $1 AND tenant = $2 AND created_at <= $3 AND revoked_at IS NULL";
pub(crate) const USED: &str = "
    UPDATE identity.api_keys AS key SET last_used_at = greatest(key.last_used_at, used.at)
    FROM unnest($1::text[], $2::timestamptz[]) AS used (key, at) WHERE key.key = used.key";
pub(crate) const SWEEP: &str = "
    DELETE FROM identity.api_key_secrets WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity.api_key_secrets AS secret WHERE expires_at < now() - interval '30 days'
            AND (version IS NULL OR EXISTS (SELECT FROM identity.api_key_secrets AS newer
                WHERE newer.key = secret.key AND newer.version > secret.version)) LIMIT 1000))";

// The log has never heard of them. Their secrets go with them.
pub(crate) const SWEEP_UNMADE: &str = "
    DELETE FROM identity.api_keys WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity.api_keys AS made WHERE created_at < now() - interval '30 days' AND NOT EXISTS (
            SELECT FROM identity.api_key_secrets AS secret WHERE secret.key = made.key AND secret.version IS NOT NULL)
        LIMIT 1000))";

/// A key that is to be made.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Its id.
    pub key: String,
    /// Whose data it is for.
    pub tenant: String,
    /// Who makes it.
    pub owner: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
}

/// A secret that is to be given out.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// Its keyed hash.
    pub digest: Vec<u8>,
    /// Its first characters.
    pub prefix: String,
    /// How long it lasts, in seconds.
    pub lifetime_seconds: f64,
    /// How long the secrets before it go on beside it, in seconds.
    pub overlap_seconds: Option<f64>,
}

/// A secret that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// When it was, first.
    pub created_at: Timestamp,
    /// After which it is worth nothing.
    pub expires_at: Timestamp,
    /// How long the secrets before it go on.
    pub overlap_until: Option<Timestamp>,
    /// Whether that was more than a day ago.
    pub old: bool,
    /// Whether it was written down with the same times.
    pub same: bool,
}

/// What a secret opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opens {
    /// The key.
    pub key: String,
    /// Whose data it is for.
    pub tenant: String,
    /// Who made it.
    pub owner: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// After which this secret is worth nothing.
    pub expires_at: Timestamp,
}

/// A key as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRow {
    /// Its id.
    pub key: String,
    /// Who made it.
    pub owner: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was used last, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// The first characters of its newest secret.
    pub prefix: String,
    /// When that expires.
    pub expires_at: Timestamp,
    /// Until when an older secret goes on.
    pub older_until: Option<Timestamp>,
}

from_row!(SecretRow { created_at, expires_at, overlap_until, old, same });
from_row!(Opens { key, tenant, owner, scopes, expires_at });
from_row!(ApiKeyRow { key, owner, name, scopes, created_at, last_used_at, prefix, expires_at, older_until });

/// The tables `identity.api_keys` and `identity.api_key_secrets`.
#[derive(Clone)]
pub struct ApiKeys {
    pool: PgPool,
}

impl ApiKeys {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Writes down a key with its first secret. Both are worth nothing until [`ApiKeys::settle`]. Again with the same id and
    /// secret it changes nothing, and tells whether it was the same key.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then nothing is written.
    pub async fn make(&self, new: &NewApiKey, secret: &NewSecret) -> Result<SecretRow, Failure> {
        let made = async {
            let mut transaction = self.pool.begin().await?;
            let same: bool = sqlx::query_scalar(MAKE)
                .bind(&new.key)
                .bind(&new.tenant)
                .bind(&new.owner)
                .bind(&new.name)
                .bind(&new.scopes)
                .fetch_one(&mut *transaction)
                .await?;
            let row = add(&mut transaction, &new.key, secret).await?;
            transaction.commit().await?;
            Ok(SecretRow { same: same && row.same, ..row })
        };
        made.await.map_err(Failure::attempting("make an API key"))
    }

    /// Writes down another secret of a key; worth nothing until [`ApiKeys::settle`].
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn add_secret(&self, key: &str, secret: &NewSecret) -> Result<SecretRow, Failure> {
        let failed = Failure::attempting("write down a secret of an API key");
        let added = async { add(&mut *self.pool.acquire().await?, key, secret).await };
        added.await.map_err(failed)
    }

    /// Makes a secret count, as the key's stream says at `version`; older ones go on for as long as it says. Any number of
    /// times, in any order.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn settle(&self, key: &str, prefix: &str, version: i64) -> Result<(), Failure> {
        let settled = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(LOCK).bind(key).execute(&mut *transaction).await?;
            sqlx::query(NUMBER).bind(key).bind(prefix).bind(version).execute(&mut *transaction).await?;
            sqlx::query(SHORTEN).bind(key).execute(&mut *transaction).await?;
            transaction.commit().await
        };
        settled.await.map_err(Failure::attempting("settle a secret of an API key"))
    }

    /// What a secret opens, if it counts now.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn by_secret(&self, digest: &[u8]) -> Result<Option<Opens>, Failure> {
        let found = sqlx::query_as(BY_SECRET).bind(digest).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("look for an API key"))
    }

    /// The keys of a tenant that were not revoked, after one of them, by id.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn list(&self, tenant: &str, after: &str, limit: i64) -> Result<Vec<ApiKeyRow>, Failure> {
        let none: Option<&str> = None;
        let query = sqlx::query_as(LIST).bind(tenant).bind(none).bind(after).bind(limit);
        query.fetch_all(&self.pool).await.map_err(Failure::attempting("list API keys"))
    }

    /// A key of a tenant, if it was not revoked.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn get(&self, tenant: &str, key: &str) -> Result<Option<ApiKeyRow>, Failure> {
        let query = sqlx::query_as(LIST).bind(tenant).bind(key).bind("").bind(1_i64);
        query.fetch_optional(&self.pool).await.map_err(Failure::attempting("read an API key"))
    }

    /// How many keys a tenant has, but this one: those that count, and those that are being made.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn count(&self, tenant: &str, but: &str) -> Result<i64, Failure> {
        let count = sqlx::query_scalar(COUNT).bind(tenant).bind(but).fetch_one(&self.pool).await;
        count.map_err(Failure::attempting("count API keys"))
    }

    /// Makes a key worthless. `false`: the tenant has no such key.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn revoke(&self, tenant: &str, key: &str) -> Result<bool, Failure> {
        let revoked = sqlx::query(REVOKE).bind(key).bind(tenant).execute(&self.pool).await;
        revoked.map(|revoked| revoked.rows_affected() == 1).map_err(Failure::attempting("revoke an API key"))
    }

    /// The keys that somebody has made in a tenant until a moment, and that were not revoked.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn of_owner(&self, owner: &str, tenant: &str, until: Timestamp) -> Result<Vec<String>, Failure> {
        let found = sqlx::query_scalar(OF_OWNER).bind(owner).bind(tenant).bind(until).fetch_all(&self.pool).await;
        found.map_err(Failure::attempting("list somebody's API keys"))
    }

    /// Notes when keys were used.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn used(&self, keys: &[String], at: &[Timestamp]) -> Result<(), Failure> {
        let noted = sqlx::query(USED).bind(keys).bind(at).execute(&self.pool).await;
        noted.map(drop).map_err(Failure::attempting("note the use of API keys"))
    }

    /// Forgets secrets that have been replaced, or never counted, long ago, and keys that were never made to the end; a thousand
    /// of each at most.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        let mut swept = 0;
        for statement in [SWEEP, SWEEP_UNMADE] {
            let done = sqlx::query(statement).execute(&self.pool).await;
            swept += done.map_err(Failure::attempting("forget old secrets of API keys"))?.rows_affected();
        }
        Ok(swept)
    }
}

async fn add(connection: &mut PgConnection, key: &str, secret: &NewSecret) -> Result<SecretRow, sqlx::Error> {
    sqlx::query_as(ADD_SECRET)
        .bind(&secret.digest)
        .bind(key)
        .bind(&secret.prefix)
        .bind(secret.lifetime_seconds)
        .bind(secret.overlap_seconds)
        .fetch_one(connection)
        .await
}
