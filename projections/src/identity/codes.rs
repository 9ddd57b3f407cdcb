//! Links and codes that work once: to confirm an address, to set a new password, to come back from a provider.

use kernel::Timestamp;
use serde_json::Value;
use sqlx::PgPool;

use crate::{Database, Failure};

pub(crate) const KEEP_CODE: &str = "
    INSERT INTO identity.codes (digest, purpose, person, detail, expires_at)
    VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
    ON CONFLICT (digest) DO NOTHING";
pub(crate) const USE_CODE: &str = "
    UPDATE identity.codes SET used_at = now()
    WHERE digest = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > now()
    RETURNING person, detail";
pub(crate) const PEEK_CODE: &str = "
    SELECT person, detail FROM identity.codes
    WHERE digest = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > now()";
pub(crate) const VOID_CODES: &str =
    "UPDATE identity.codes SET used_at = now() WHERE person = $1 AND purpose = $2 AND used_at IS NULL";
pub(crate) const ERASE_CODES: &str = "DELETE FROM identity.codes WHERE person = $1";
pub(crate) const SWEEP_CODES: &str = "
    DELETE FROM identity.codes WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity.codes WHERE expires_at < now() - interval '1 day' LIMIT 1000))";
// The virtual arrival time of GCRA: a try is let in while it lies no further ahead than the burst allows.
pub(crate) const ATTEMPT: &str = "
    INSERT INTO identity.attempts AS attempt (digest, tat) VALUES ($1, now() + make_interval(secs => $2))
    ON CONFLICT (digest) DO UPDATE
    SET tat = greatest(attempt.tat, now()) + make_interval(secs => $2)
    WHERE attempt.tat <= now() + make_interval(secs => $3)
    RETURNING tat";
pub(crate) const NEXT_ATTEMPT: &str = "SELECT tat FROM identity.attempts WHERE digest = $1";
pub(crate) const FORGIVE: &str = "DELETE FROM identity.attempts WHERE digest = $1";
pub(crate) const SWEEP_ATTEMPTS: &str = "
    DELETE FROM identity.attempts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity.attempts WHERE tat < now() LIMIT 1000))";

/// A code to be sent out. Only its hash is kept.
#[derive(Debug, Clone)]
pub struct NewCode {
    /// The hash.
    pub digest: Vec<u8>,
    /// What it is for: a code works for nothing else.
    pub purpose: &'static str,
    /// For whom.
    pub person: Option<String>,
    /// What is to be known when it comes back. No personal data in clear.
    pub detail: Value,
    /// How long it works, in seconds.
    pub lifetime_seconds: f64,
}

/// How often something may be tried: `burst` times at once, and then once in `every_seconds`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Tries at once.
    pub burst: u32,
    /// Seconds from one try to the next after that.
    pub every_seconds: f64,
}

/// The tables `identity.codes` and `identity.attempts`.
#[derive(Clone)]
pub struct Codes {
    pool: PgPool,
}

impl Codes {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Keeps a code; one with the same hash stays as it is.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn keep(&self, code: &NewCode) -> Result<(), Failure> {
        let kept = sqlx::query(KEEP_CODE)
            .bind(&code.digest)
            .bind(code.purpose)
            .bind(&code.person)
            .bind(&code.detail)
            .bind(code.lifetime_seconds)
            .execute(&self.pool)
            .await;
        kept.map(drop).map_err(Failure::attempting("keep a code"))
    }

    /// Uses a code: for whom it was, and what was to be known. Of many who use it at once, one gets it.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn take(&self, digest: &[u8], purpose: &str) -> Result<Option<(Option<String>, Value)>, Failure> {
        let taken = sqlx::query_as(USE_CODE).bind(digest).bind(purpose).fetch_optional(&self.pool).await;
        taken.map_err(Failure::attempting("use a code"))
    }

    /// As [`Codes::take`], and the code goes on: for what may be done twice, and is to be done before the code is spent.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn peek(&self, digest: &[u8], purpose: &str) -> Result<Option<(Option<String>, Value)>, Failure> {
        let found = sqlx::query_as(PEEK_CODE).bind(digest).bind(purpose).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("look at a code"))
    }

    /// Makes all codes of a person for a purpose worthless.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn void(&self, person: &str, purpose: &str) -> Result<(), Failure> {
        let voided = sqlx::query(VOID_CODES).bind(person).bind(purpose).execute(&self.pool).await;
        voided.map(drop).map_err(Failure::attempting("make codes worthless"))
    }

    /// Removes all codes of a person.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn erase(&self, person: &str) -> Result<(), Failure> {
        let erased = sqlx::query(ERASE_CODES).bind(person).execute(&self.pool).await;
        erased.map(drop).map_err(Failure::attempting("remove codes"))
    }

    /// Counts a try. `Err` inside: it is one too many; come back then.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn attempt(&self, digest: &[u8], pace: Pace) -> Result<Result<(), Timestamp>, Failure> {
        let failed = Failure::attempting("count an attempt");
        let ahead = pace.every_seconds * f64::from(pace.burst.saturating_sub(1));
        let attempted = async {
            let let_in: Option<Timestamp> = sqlx::query_scalar(ATTEMPT)
                .bind(digest)
                .bind(pace.every_seconds)
                .bind(ahead)
                .fetch_optional(&self.pool)
                .await?;
            if let_in.is_some() {
                return Ok(Ok(()));
            }
            let tat: Option<Timestamp> =
                sqlx::query_scalar(NEXT_ATTEMPT).bind(digest).fetch_optional(&self.pool).await?;
            let wait = tat.map(|tat| tat - std::time::Duration::from_secs_f64(ahead));
            Ok(wait.map_or(Ok(()), Err))
        };
        attempted.await.map_err(failed)
    }

    /// Forgets the tries: whoever tried was right.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn forgive(&self, digest: &[u8]) -> Result<(), Failure> {
        let forgiven = sqlx::query(FORGIVE).bind(digest).execute(&self.pool).await;
        forgiven.map(drop).map_err(Failure::attempting("forget attempts"))
    }

    /// Forgets codes and tries of long ago, a thousand of each at most.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        let mut swept = 0;
        for statement in [SWEEP_CODES, SWEEP_ATTEMPTS] {
            let done = sqlx::query(statement).execute(&self.pool).await;
            swept += done.map_err(Failure::attempting("forget old codes"))?.rows_affected();
        }
        Ok(swept)
    }
}
