//! Sessions and their refresh tokens. A refresh is decided under the lock of its row: two at the same time are one after the
//! other, on however many instances.

use kernel::{Sealed, Timestamp};
use sqlx::PgPool;
use sqlx::types::Json;

use crate::{Database, Failure};

// The lock waits for a password that is being changed: whoever has shown the one before does not come in after that.
pub(crate) const OPEN: &str = "
    INSERT INTO identity.sessions (session, person, amr, origin, tenant, expires_at, auth_time)
    SELECT $1, $2, $3, $4, $5, now() + make_interval(secs => $6), $7
    WHERE $8::integer IS NULL OR EXISTS (
        SELECT FROM identity.credentials WHERE person = $2 AND password_number = $8 FOR SHARE)
    ON CONFLICT (session) DO NOTHING";
pub(crate) const LOCK: &str = "
    SELECT person, counter, rotated_at >= now() - make_interval(secs => $2), amr, auth_time, tenant, expires_at
    FROM identity.sessions
    WHERE session = $1 AND ended_at IS NULL AND expires_at > now() AND seen_at > now() - make_interval(secs => $3)
    FOR UPDATE";
pub(crate) const ROTATE: &str = "
    UPDATE identity.sessions SET counter = counter + 1, rotated_at = now(), seen_at = now() WHERE session = $1";
pub(crate) const END: &str = "
    UPDATE identity.sessions SET ended_at = now(), reason = $3
    WHERE session = $1 AND person = $2 AND ended_at IS NULL";
pub(crate) const END_ALL: &str = "
    UPDATE identity.sessions SET ended_at = now(), reason = $3
    WHERE person = $1 AND session IS DISTINCT FROM $2 AND ended_at IS NULL RETURNING session";
pub(crate) const END_OLDEST: &str = "
    UPDATE identity.sessions SET ended_at = now(), reason = 'too_many'
    WHERE session IN (
        SELECT session FROM identity.sessions WHERE person = $1 AND ended_at IS NULL
        ORDER BY session = $2 DESC, session DESC OFFSET $3)
    RETURNING session";
pub(crate) const OF_PERSON: &str = "
    SELECT session, amr, origin, tenant, created_at, seen_at, expires_at FROM identity.sessions
    WHERE person = $1 AND ended_at IS NULL AND expires_at > now() ORDER BY created_at DESC";
pub(crate) const LIVE: &str = "
    SELECT person FROM identity.sessions WHERE session = $1 AND ended_at IS NULL AND expires_at > now()";
pub(crate) const WORKING_IN: &str = "
    SELECT person, tenant FROM identity.sessions
    WHERE session = $1 AND ended_at IS NULL AND expires_at > now() AND seen_at > now() - make_interval(secs => $2)";
pub(crate) const CHOOSE: &str = "
    UPDATE identity.sessions SET tenant = $3 WHERE session = $1 AND person = $2 AND ended_at IS NULL
    RETURNING amr, auth_time";
pub(crate) const SWEEP: &str = "
    DELETE FROM identity.sessions WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity.sessions WHERE expires_at < now() - interval '30 days' LIMIT 1000))";

/// An answer may get lost, and several tabs may ask at once: for so long the token before the current one gets the current
/// one once more.
pub const GRACE_SECONDS: f64 = 10.0;

/// A session to be opened.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub session: String,
    /// Whose.
    pub person: String,
    /// By what its holder showed who they are.
    pub amr: Vec<String>,
    /// From where, as JSON.
    pub origin: Sealed,
    /// The tenant that is worked in.
    pub tenant: Option<String>,
    /// When it ends however often it is refreshed, in seconds from now.
    pub lifetime_seconds: f64,
    /// When its holder showed who they are.
    pub auth_time: Timestamp,
    /// Which password they have shown: it must not have been replaced. `None`: none.
    pub password_number: Option<u32>,
}

/// What a refresh came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Refreshed {
    /// The token with this counter is the current one.
    Current {
        /// Whose session it is.
        person: String,
        /// See [`NewSession`].
        amr: Vec<String>,
        /// When its holder showed who they are.
        auth_time: Timestamp,
        /// See [`NewSession`].
        tenant: Option<String>,
        /// Which token to give out.
        counter: i64,
        /// When the session ends.
        expires_at: Timestamp,
    },
    /// A token came that was replaced long ago. The session has ended: somebody has what is not theirs.
    Reused {
        /// Whose session it was.
        person: String,
    },
    /// There is no such session, or it is over.
    Over,
}

/// A session as its owner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// Its id.
    pub session: String,
    /// By what its holder showed who they are.
    pub amr: Vec<String>,
    /// From where, as JSON.
    pub origin: Sealed,
    /// The tenant that is worked in.
    pub tenant: Option<String>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub seen_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// The table `identity.sessions`.
#[derive(Clone)]
pub struct Sessions {
    pool: PgPool,
    /// A session that is not refreshed for so long is over, in seconds.
    idle_seconds: f64,
}

type Locked = (String, i64, bool, Vec<String>, Timestamp, Option<String>, Timestamp);

impl Sessions {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database, idle_seconds: f64) -> Self {
        Self { pool: database.pool().clone(), idle_seconds }
    }

    /// Opens a session; one that is open already stays as it is. `false`: the password has been replaced meanwhile, or the
    /// session has ended before.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn open(&self, new: &NewSession) -> Result<bool, Failure> {
        let number = new.password_number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
        let opened = sqlx::query(OPEN)
            .bind(&new.session)
            .bind(&new.person)
            .bind(&new.amr)
            .bind(Json(&new.origin))
            .bind(&new.tenant)
            .bind(new.lifetime_seconds)
            .bind(new.auth_time)
            .bind(number)
            .execute(&self.pool)
            .await
            .map_err(Failure::attempting("open a session"))?;
        Ok(opened.rows_affected() == 1 || self.holder(&new.session).await?.as_ref() == Some(&new.person))
    }

    /// Takes a refresh token with this counter, whose signature is right.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then nothing has changed.
    pub async fn refresh(&self, session: &str, counter: i64) -> Result<Refreshed, Failure> {
        let failed = Failure::attempting("refresh a session");
        self.try_refresh(session, counter).await.map_err(failed)
    }

    async fn try_refresh(&self, session: &str, counter: i64) -> Result<Refreshed, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let found: Option<Locked> = sqlx::query_as(LOCK)
            .bind(session)
            .bind(GRACE_SECONDS)
            .bind(self.idle_seconds)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some((person, current, fresh, amr, auth_time, tenant, expires_at)) = found else {
            return Ok(Refreshed::Over);
        };
        // Counters, not times: two refreshes within one tick of any clock are still two.
        let given = match current - counter {
            0 => {
                sqlx::query(ROTATE).bind(session).execute(&mut *transaction).await?;
                current + 1
            }
            1 if fresh => current,
            _ => {
                sqlx::query(END).bind(session).bind(&person).bind("refresh_reused").execute(&mut *transaction).await?;
                transaction.commit().await?;
                return Ok(Refreshed::Reused { person });
            }
        };
        transaction.commit().await?;
        Ok(Refreshed::Current { person, amr, auth_time, tenant, counter: given, expires_at })
    }

    /// Ends a session of a person. `false`: there was none.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn end(&self, person: &str, session: &str, reason: &str) -> Result<bool, Failure> {
        let ended = sqlx::query(END).bind(session).bind(person).bind(reason).execute(&self.pool).await;
        ended.map(|ended| ended.rows_affected() == 1).map_err(Failure::attempting("end a session"))
    }

    /// Ends all sessions of a person, but perhaps one: returns which.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn end_all(&self, person: &str, keep: Option<&str>, reason: &str) -> Result<Vec<String>, Failure> {
        let ended = sqlx::query_scalar(END_ALL).bind(person).bind(keep).bind(reason).fetch_all(&self.pool).await;
        ended.map_err(Failure::attempting("end all sessions"))
    }

    /// Ends the oldest sessions of a person, so that so many are left, the one that was just opened among them: returns which.
    /// Ids are in the order of time.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn end_oldest(&self, person: &str, opened: &str, most: usize) -> Result<Vec<String>, Failure> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let ended = sqlx::query_scalar(END_OLDEST).bind(person).bind(opened).bind(most).fetch_all(&self.pool).await;
        ended.map_err(Failure::attempting("end the oldest sessions"))
    }

    /// Whose session this is, as long as it goes on.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn holder(&self, session: &str) -> Result<Option<String>, Failure> {
        let found = sqlx::query_scalar(LIVE).bind(session).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("look for a session"))
    }

    /// Whose session this is and in which tenant it works, as long as it may be refreshed.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn working_in(&self, session: &str) -> Result<Option<(String, Option<String>)>, Failure> {
        let found = sqlx::query_as(WORKING_IN).bind(session).bind(self.idle_seconds).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("look for a session"))
    }

    /// Chooses the tenant that a session works in: how and when its holder showed who they are, or nothing when it is over.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn choose(
        &self,
        person: &str,
        session: &str,
        tenant: Option<&str>,
    ) -> Result<Option<(Vec<String>, Timestamp)>, Failure> {
        let chosen = sqlx::query_as(CHOOSE).bind(session).bind(person).bind(tenant).fetch_optional(&self.pool).await;
        chosen.map_err(Failure::attempting("choose a session's tenant"))
    }

    /// The sessions of a person that go on, the newest first.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn of(&self, person: &str) -> Result<Vec<SessionRow>, Failure> {
        type Row = (String, Vec<String>, Json<Sealed>, Option<String>, Timestamp, Timestamp, Timestamp);
        let rows: Vec<Row> = sqlx::query_as(OF_PERSON)
            .bind(person)
            .fetch_all(&self.pool)
            .await
            .map_err(Failure::attempting("list sessions"))?;
        let row = |(session, amr, Json(origin), tenant, created_at, seen_at, expires_at)| SessionRow {
            session,
            amr,
            origin,
            tenant,
            created_at,
            seen_at,
            expires_at,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Forgets sessions that ended long ago, a thousand at most.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        let swept = sqlx::query(SWEEP).execute(&self.pool).await;
        swept.map(|swept| swept.rows_affected()).map_err(Failure::attempting("forget old sessions"))
    }
}
