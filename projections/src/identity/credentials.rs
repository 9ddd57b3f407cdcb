//! What somebody shows to sign in: a password, codes of an authenticator, recovery codes.

use kernel::Sealed;
use sqlx::PgPool;
use sqlx::types::Json;

use super::sessions;
use crate::{Database, Failure};

pub(crate) const ENROL: &str = "
    INSERT INTO identity.credentials (person, password_number, password_hash)
    VALUES ($1, CASE WHEN $2::text IS NULL THEN 0 ELSE 1 END, $2)
    ON CONFLICT (person) DO NOTHING";
pub(crate) const READ: &str = "
    SELECT password_number, password_hash, totp_secret, totp_enabled, recovery_number,
        (SELECT count(*) FROM identity.recovery_codes AS code WHERE code.person = $1 AND code.used_at IS NULL)
    FROM identity.credentials WHERE person = $1";
pub(crate) const SET_PASSWORD: &str = "
    UPDATE identity.credentials SET password_number = password_number + 1, password_hash = $3, changed_at = now()
    WHERE person = $1 AND password_number = $2";
pub(crate) const REHASH: &str =
    "UPDATE identity.credentials SET password_hash = $3 WHERE person = $1 AND password_hash = $2";
pub(crate) const PREPARE_TOTP: &str =
    "UPDATE identity.credentials SET totp_secret = $2, totp_step = 0 WHERE person = $1 AND NOT totp_enabled";
pub(crate) const ACCEPT_TOTP: &str = "
    UPDATE identity.credentials SET totp_step = $2, totp_enabled = totp_enabled OR $3
    WHERE person = $1 AND totp_step < $2 AND totp_secret = $4";
pub(crate) const DISABLE_TOTP: &str = "
    UPDATE identity.credentials SET totp_enabled = false, totp_secret = NULL, totp_step = 0 WHERE person = $1";
pub(crate) const RENEW_CODES: &str = "
    UPDATE identity.credentials SET recovery_number = recovery_number + 1 WHERE person = $1 RETURNING recovery_number";
pub(crate) const DROP_CODES: &str = "DELETE FROM identity.recovery_codes WHERE person = $1";
pub(crate) const KEEP_CODES: &str =
    "INSERT INTO identity.recovery_codes (person, digest) SELECT $1, digest FROM UNNEST($2::bytea[]) AS digest";
pub(crate) const USE_RECOVERY: &str = "
    UPDATE identity.recovery_codes SET used_at = now() WHERE person = $1 AND digest = $2 AND used_at IS NULL";
pub(crate) const ERASE: &str = "DELETE FROM identity.credentials WHERE person = $1";

/// What is known of somebody's credentials.
#[derive(Debug, Clone, PartialEq)]
pub struct CredentialsRow {
    /// Which password it is; 0: there is none.
    pub password_number: u32,
    /// Its hash.
    pub password_hash: Option<String>,
    /// The secret of the authenticator, once there is one.
    pub totp_secret: Option<Sealed>,
    /// Whether its codes are asked for.
    pub totp_enabled: bool,
    /// How many sets of recovery codes there have been.
    pub recovery_number: u32,
    /// How many codes of the last one are left.
    pub recovery_left: u64,
}

/// The tables `identity.credentials` and `identity.recovery_codes`.
#[derive(Clone)]
pub struct Credentials {
    pool: PgPool,
}

type Row = (i32, Option<String>, Option<Json<Sealed>>, bool, i32, i64);

impl Credentials {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Keeps the first credentials of a person, with or without a password; whoever has some already keeps those.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn enrol(&self, person: &str, hash: Option<&str>) -> Result<(), Failure> {
        let enrolled = sqlx::query(ENROL).bind(person).bind(hash).execute(&self.pool).await;
        enrolled.map(drop).map_err(Failure::attempting("keep credentials"))
    }

    /// What is known of a person's credentials.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn of(&self, person: &str) -> Result<Option<CredentialsRow>, Failure> {
        let found: Option<Row> = sqlx::query_as(READ)
            .bind(person)
            .fetch_optional(&self.pool)
            .await
            .map_err(Failure::attempting("read credentials"))?;
        let row =
            |(password_number, password_hash, totp_secret, totp_enabled, recovery_number, left): Row| CredentialsRow {
                password_number: u32::try_from(password_number).unwrap_or_default(),
                password_hash,
                totp_secret: totp_secret.map(|Json(sealed)| sealed),
                totp_enabled,
                recovery_number: u32::try_from(recovery_number).unwrap_or_default(),
                recovery_left: u64::try_from(left).unwrap_or_default(),
            };
        Ok(found.map(row))
    }

    /// Replaces the password with this number, and ends all sessions but perhaps one with it: returns which. `None`: it has
    /// been replaced meanwhile.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then nothing has changed.
    pub async fn set_password(
        &self,
        person: &str,
        number: u32,
        hash: &str,
        keep: Option<&str>,
    ) -> Result<Option<Vec<String>>, Failure> {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let set = async {
            let mut transaction = self.pool.begin().await?;
            let set = sqlx::query(SET_PASSWORD).bind(person).bind(number).bind(hash).execute(&mut *transaction).await?;
            if set.rows_affected() == 0 {
                return Ok(None);
            }
            let ended = sqlx::query_scalar(sessions::END_ALL)
                .bind(person)
                .bind(keep)
                .bind("password_changed")
                .fetch_all(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(Some(ended))
        };
        set.await.map_err(Failure::attempting("keep a password"))
    }

    /// Keeps the same password with another hash.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn rehash(&self, person: &str, old: &str, new: &str) -> Result<(), Failure> {
        let rehashed = sqlx::query(REHASH).bind(person).bind(old).bind(new).execute(&self.pool).await;
        rehashed.map(drop).map_err(Failure::attempting("keep a better hash"))
    }

    /// Keeps the secret of an authenticator that is being set up. `false`: one is in use already.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn prepare_totp(&self, person: &str, secret: &Sealed) -> Result<bool, Failure> {
        let prepared = sqlx::query(PREPARE_TOTP).bind(person).bind(Json(secret)).execute(&self.pool).await;
        prepared.map(|done| done.rows_affected() == 1).map_err(Failure::attempting("set up an authenticator"))
    }

    /// Accepts the code of a time step, which was right for this secret; `enable`s the authenticator with it. `false`: a code of
    /// this step, or a later one, was accepted before; or there is another secret meanwhile.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn accept_totp(&self, person: &str, secret: &Sealed, step: i64, enable: bool) -> Result<bool, Failure> {
        let accept = sqlx::query(ACCEPT_TOTP).bind(person).bind(step).bind(enable).bind(Json(secret));
        let accepted = accept.execute(&self.pool).await;
        accepted.map(|done| done.rows_affected() == 1).map_err(Failure::attempting("accept a code"))
    }

    /// Forgets the authenticator.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn disable_totp(&self, person: &str) -> Result<(), Failure> {
        let disabled = sqlx::query(DISABLE_TOTP).bind(person).execute(&self.pool).await;
        disabled.map(drop).map_err(Failure::attempting("forget an authenticator"))
    }

    /// Replaces the recovery codes, by their hashes: returns the number of the new set.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then the old ones go on.
    pub async fn renew_codes(&self, person: &str, digests: &[Vec<u8>]) -> Result<Option<u32>, Failure> {
        let renewed = async {
            let mut transaction = self.pool.begin().await?;
            let number: Option<i32> =
                sqlx::query_scalar(RENEW_CODES).bind(person).fetch_optional(&mut *transaction).await?;
            if number.is_some() {
                sqlx::query(DROP_CODES).bind(person).execute(&mut *transaction).await?;
                sqlx::query(KEEP_CODES).bind(person).bind(digests).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(number.and_then(|number| u32::try_from(number).ok()))
        };
        renewed.await.map_err(Failure::attempting("renew recovery codes"))
    }

    /// Uses a recovery code. `false`: there is none like it, or it was used.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn use_code(&self, person: &str, digest: &[u8]) -> Result<bool, Failure> {
        let used = sqlx::query(USE_RECOVERY).bind(person).bind(digest).execute(&self.pool).await;
        used.map(|used| used.rows_affected() == 1).map_err(Failure::attempting("use a recovery code"))
    }

    /// Removes everything.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn erase(&self, person: &str) -> Result<(), Failure> {
        let erased = sqlx::query(ERASE).bind(person).execute(&self.pool).await;
        erased.map(drop).map_err(Failure::attempting("remove credentials"))
    }
}
