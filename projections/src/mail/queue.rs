//! The sender's side of the outbox.

use std::time::Duration;

use kernel::{Sealed, Timestamp};
use sqlx::types::Json;
use vault::VaultError;

use super::{Content, FIELD, MailError, Outbox};
use crate::Failure;

/// Every statement of the outbox.
pub(crate) const STATEMENTS: &[&str] =
    &[super::PUT, super::FOR_PERSON, super::ERASE, CLAIM, SENT, FAILED, GIVEN_UP, WAITING, SWEEP];

// One that is being sent by somebody else is passed over, now by its lock and later by when it is due.
pub(crate) const CLAIM: &str = "
    UPDATE mail.outbox SET tries = tries + 1, due_at = now() + make_interval(secs => $2)
    WHERE id = ANY(ARRAY(
        SELECT id FROM mail.outbox WHERE settled_at IS NULL AND due_at <= now()
        ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING id, kind, content, created_at, tries, extract(epoch FROM now() - created_at)::double precision";
// Each speaks of the try that it was told about: who was thought dead and comes back late changes nothing.
pub(crate) const SENT: &str = "
    UPDATE mail.outbox SET content = NULL, settled_at = now(), sent = true, reason = NULL
    WHERE id = $1 AND settled_at IS NULL";
pub(crate) const FAILED: &str = "
    UPDATE mail.outbox SET due_at = now() + make_interval(secs => $3), reason = $4
    WHERE id = $1 AND tries = $2 AND settled_at IS NULL";
pub(crate) const GIVEN_UP: &str = "
    UPDATE mail.outbox SET content = NULL, settled_at = now(), reason = $3
    WHERE id = $1 AND tries = $2 AND settled_at IS NULL";
pub(crate) const WAITING: &str = "
    SELECT count(*), extract(epoch FROM now() - min(created_at))::double precision,
        extract(epoch FROM min(due_at) - now())::double precision
    FROM mail.outbox WHERE settled_at IS NULL";
pub(crate) const SWEEP: &str = "
    DELETE FROM mail.outbox WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM mail.outbox WHERE settled_at < now() - interval '30 days' LIMIT 1000))";

/// A mail that is ours to send for a while.
#[derive(Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The one it was put with.
    pub id: String,
    /// What sort of mail it is.
    pub kind: String,
    /// The address.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
    /// When it was put.
    pub created_at: Timestamp,
    /// How long ago that is.
    pub age: Duration,
    /// Which try this is, from 1.
    pub tries: i32,
}

// What it says is for one person.
impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claimed").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What waits in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Waiting {
    /// So many mails.
    pub mails: i64,
    /// How long the oldest one has been waiting.
    pub oldest: Duration,
    /// How long until the next one is due; `None` when there is none.
    pub next_due: Option<Duration>,
}

type Row = (String, String, Json<Sealed>, Timestamp, i32, f64);

impl Outbox {
    /// Waits until something is put in this process.
    pub async fn next_put(&self) {
        self.put.notified().await;
    }

    /// Takes mails that are due, for so long: whoever does not settle them by then lets others try. Mails that nobody can
    /// read any more are given up here.
    ///
    /// # Errors
    /// [`MailError`].
    pub async fn claim(&self, most: i64, lasting: Duration) -> Result<Vec<Claimed>, MailError> {
        let claimed = sqlx::query_as(CLAIM).bind(most).bind(lasting.as_secs_f64()).fetch_all(&self.pool).await;
        let rows: Vec<Row> = claimed.map_err(Failure::attempting("take mails from the outbox"))?;
        let mut mails = Vec::with_capacity(rows.len());
        for (id, kind, Json(content), created_at, tries, age) in rows {
            let opened = match self.vault.open(&content, FIELD).await {
                Ok(opened) => opened.text().ok_or_else(|| "the person it is about was erased".to_owned()),
                Err(VaultError::Keyring(error)) => return Err(MailError::Vault(error.into())),
                Err(error) => Err(error.to_string()),
            };
            let read = opened.and_then(|text| {
                serde_json::from_str::<Content>(&text).map_err(|error| format!("it cannot be read: {error}"))
            });
            let age = Duration::try_from_secs_f64(age).unwrap_or_default();
            match read {
                Ok(Content { to, subject, text }) => {
                    mails.push(Claimed { id, kind, to, subject, text, created_at, age, tries });
                }
                Err(reason) => self.given_up(&id, tries, &reason).await?,
            }
        }
        Ok(mails)
    }

    /// It was sent: what it said is forgotten.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then it will be sent once more.
    pub async fn sent(&self, id: &str) -> Result<(), Failure> {
        let done = sqlx::query(SENT).bind(id).execute(&self.pool).await;
        done.map(drop).map_err(Failure::attempting("note that a mail was sent"))
    }

    /// This try failed; another is due after a while.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then the claim runs out by itself.
    pub async fn failed(&self, id: &str, tries: i32, wait: Duration, reason: &str) -> Result<(), Failure> {
        let query = sqlx::query(FAILED).bind(id).bind(tries).bind(wait.as_secs_f64()).bind(reason);
        query.execute(&self.pool).await.map(drop).map_err(Failure::attempting("put a mail off"))
    }

    /// It will not be sent; what it said is forgotten.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then the claim runs out by itself.
    pub async fn given_up(&self, id: &str, tries: i32, reason: &str) -> Result<(), Failure> {
        let done = sqlx::query(GIVEN_UP).bind(id).bind(tries).bind(reason).execute(&self.pool).await;
        done.map(drop).map_err(Failure::attempting("give a mail up"))
    }

    /// What waits.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn waiting(&self) -> Result<Waiting, Failure> {
        let row: (i64, Option<f64>, Option<f64>) = sqlx::query_as(WAITING)
            .fetch_one(&self.pool)
            .await
            .map_err(Failure::attempting("count the mails that wait"))?;
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or_default();
        Ok(Waiting { mails: row.0, oldest: row.1.map(seconds).unwrap_or_default(), next_due: row.2.map(seconds) })
    }

    /// Forgets mails that were settled more than a month ago, a thousand at most.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        let swept = sqlx::query(SWEEP).execute(&self.pool).await;
        Ok(swept.map_err(Failure::attempting("forget old mails"))?.rows_affected())
    }
}
