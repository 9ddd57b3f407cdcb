//! Mails on their way out: put here by whoever has something to say to a person, taken from here by whoever talks to mail
//! servers. Text and address are sealed and go when the mail has gone.

mod queue;

use std::sync::Arc;

use kernel::{Problem, Sealed, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::types::Json;
use tokio::sync::Notify;
use vault::{Vault, VaultError};

use crate::{Database, Failure};

pub(crate) use queue::STATEMENTS;
pub use queue::{Claimed, Waiting};

/// What is sealed is sealed as this.
const FIELD: &str = "mail";
/// Under whose key, when the mail is about nobody we know: an invitation to an address without an account.
const NOBODY: &str = "outbox";

pub(crate) const PUT: &str = "
    INSERT INTO mail.outbox (id, kind, about, content) VALUES ($1, $2, $3, $4)
    ON CONFLICT (id) DO NOTHING";
pub(crate) const FOR_PERSON: &str = "
    SELECT id, kind, content, created_at FROM mail.outbox WHERE about = $1 AND settled_at IS NULL ORDER BY created_at";
pub(crate) const ERASE: &str = "DELETE FROM mail.outbox WHERE about = $1";

/// A mail to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Putting the same id again, within a month, puts nothing: a retried command sends one mail.
    pub id: String,
    /// The address. One, without a name.
    pub to: String,
    /// What sort of mail it is, such as `verify-email`.
    pub kind: &'static str,
    /// The line that its reader sees first.
    pub subject: String,
    /// What it says, as plain text.
    pub text: String,
    /// The person whose key seals it and who takes it along when they are erased: the one that the address belongs to.
    pub about: Option<String>,
}

/// A mail that waits, as whoever it is for may see it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Unsent {
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
}

/// Why a mail is not in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Postgres cannot be asked.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// It cannot be sealed.
    #[error("could not seal a mail")]
    Vault(#[source] VaultError),
}

impl From<MailError> for Problem {
    fn from(error: MailError) -> Self {
        match error {
            MailError::Failure(failure) => failure.into(),
            MailError::Vault(VaultError::Keyring(error)) => {
                tracing::warn!(%error, "a mail could not be sealed");
                Self::unavailable("The store of keys cannot be reached right now.", 1_000)
            }
            MailError::Vault(error) => {
                tracing::error!(%error, "a mail could not be sealed");
                Self::new(500, "defect", "A mail could not be sealed; it has been logged.")
            }
        }
    }
}

/// The table `mail.outbox`. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    pool: PgPool,
    vault: Vault,
    /// Tells a sender in this process that there is something to send.
    put: Arc<Notify>,
}

/// What is sealed of a mail.
#[derive(Serialize, Deserialize)]
struct Content {
    to: String,
    subject: String,
    text: String,
}

impl Outbox {
    /// In the migrated database. Share one (by cloning) among those who put and the one who sends: so mails leave at once.
    #[must_use]
    pub fn new(database: &Database, vault: Vault) -> Self {
        Self { pool: database.pool().clone(), vault, put: Arc::default() }
    }

    /// Has a mail sent, soon and at least once. A mail about somebody who was erased is dropped: nothing may be kept about
    /// them.
    ///
    /// # Errors
    /// [`MailError`]; then no mail will be sent, and the same id may be put again.
    pub async fn put(&self, mail: Mail) -> Result<(), MailError> {
        let Mail { id, to, kind, subject, text, about } = mail;
        let content = serde_json::to_string(&Content { to, subject, text }).unwrap_or_default();
        let content = match self.vault.seal(about.as_deref().unwrap_or(NOBODY), FIELD, &content).await {
            Ok(content) => content,
            Err(VaultError::Erased { .. }) => return Ok(()),
            Err(error) => return Err(MailError::Vault(error)),
        };
        let put = sqlx::query(PUT).bind(id).bind(kind).bind(about).bind(Json(content)).execute(&self.pool).await;
        put.map_err(Failure::attempting("put a mail into the outbox"))?;
        self.put.notify_one();
        Ok(())
    }

    /// What waits to be sent to a person, opened.
    ///
    /// # Errors
    /// [`MailError`].
    pub async fn waiting_for(&self, person: &str) -> Result<Vec<Unsent>, MailError> {
        let rows: Vec<(String, String, Json<Sealed>, Timestamp)> = sqlx::query_as(FOR_PERSON)
            .bind(person)
            .fetch_all(&self.pool)
            .await
            .map_err(Failure::attempting("list somebody's mails"))?;
        let mut mails = Vec::with_capacity(rows.len());
        for (id, kind, Json(sealed), created_at) in rows {
            let opened = self.vault.open(&sealed, FIELD).await.map_err(MailError::Vault)?;
            let content = opened.text().and_then(|text| serde_json::from_str::<Content>(&text).ok());
            if let Some(Content { to, subject, text }) = content {
                mails.push(Unsent { id, kind, to, subject, text, created_at });
            }
        }
        Ok(mails)
    }

    /// Forgets every mail about a person who is erased; what was not sent is not sent.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn erase(&self, person: &str) -> Result<(), Failure> {
        let erased = sqlx::query(ERASE).bind(person).execute(&self.pool).await;
        erased.map(drop).map_err(Failure::attempting("forget mails"))
    }
}
