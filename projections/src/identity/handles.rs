//! Reservations of what only one person can have: an address, a username, an identity of a provider.

use std::sync::Arc;

use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{Database, Failure};

// Whoever comes second hears who was first, also while that one has not committed yet.
pub(crate) const CLAIM: &str = "
    INSERT INTO identity.handles AS handle (kind, digest, person) VALUES ($1, $2, $3)
    ON CONFLICT (kind, digest) DO UPDATE SET kind = excluded.kind
    RETURNING person, held, claimed_at < now() - make_interval(secs => $4)";
pub(crate) const TAKE_OVER: &str = "
    UPDATE identity.handles SET person = $4, claimed_at = now()
    WHERE kind = $1 AND digest = $2 AND person = $3 AND NOT held AND claimed_at < now() - make_interval(secs => $5)";
pub(crate) const HOLD: &str = "UPDATE identity.handles SET held = true WHERE kind = $1 AND digest = $2 AND person = $3";
pub(crate) const RELEASE: &str = "DELETE FROM identity.handles WHERE kind = $1 AND digest = $2 AND person = $3";
pub(crate) const RELEASE_OTHERS: &str =
    "DELETE FROM identity.handles WHERE kind = $1 AND digest <> $2 AND person = $3 AND held";
pub(crate) const ALONE: &str = "SELECT pg_advisory_xact_lock(hashtextextended('identity.handles/' || $1, 0))";
pub(crate) const RELEASE_ALL: &str = "DELETE FROM identity.handles WHERE person = $1";
pub(crate) const FIND: &str = "SELECT person, held FROM identity.handles WHERE kind = $1 AND digest = $2";

/// What is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A name to log in by.
    Username,
    /// An identity at Google.
    Google,
    /// An identity at GitHub.
    Github,
}

impl Kind {
    /// Its name in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Username => "username",
            Self::Google => "google",
            Self::Github => "github",
        }
    }
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is ours, now or since before.
    Ours,
    /// Somebody holds it.
    Held {
        /// Who.
        person: String,
    },
    /// Somebody has claimed it, and whether they still want it is not known.
    Claimed {
        /// Who.
        person: String,
        /// Whether that was so long ago that they have probably given up.
        old: bool,
    },
}

/// The table `identity.handles`.
#[derive(Clone)]
pub struct Handles {
    pool: PgPool,
    /// Whoever settles holds a connection and may need another one, so there is one at a time of each instance: many would take
    /// all connections and wait for each other.
    settling: Arc<Mutex<()>>,
}

/// What a person has is being settled, by nobody else at the same time, on whatever instance. Dropped, it changes nothing.
pub struct Settling {
    transaction: Transaction<'static, Postgres>,
    person: String,
    _turn: OwnedMutexGuard<()>,
}

impl Settling {
    /// Makes this last, and gives back what the person has held of the kind before. What they have only claimed is still being
    /// decided.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then nothing has changed.
    pub async fn keep_only(mut self, kind: Kind, digest: &[u8]) -> Result<(), Failure> {
        let kept = async {
            for statement in [HOLD, RELEASE_OTHERS] {
                let change = sqlx::query(statement).bind(kind.as_str()).bind(digest).bind(&self.person);
                change.execute(&mut *self.transaction).await?;
            }
            self.transaction.commit().await
        };
        kept.await.map_err(Failure::attempting("settle a person's names"))
    }
}

/// After so many seconds, whoever has claimed something and not come to an end has been interrupted.
pub const OLD_AFTER_SECONDS: f64 = 60.0;

impl Handles {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone(), settling: Arc::default() }
    }

    /// Claims something for a person.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn claim(&self, kind: Kind, digest: &[u8], person: &str) -> Result<Claim, Failure> {
        let (owner, held, old): (String, bool, bool) = sqlx::query_as(CLAIM)
            .bind(kind.as_str())
            .bind(digest)
            .bind(person)
            .bind(OLD_AFTER_SECONDS)
            .fetch_one(&self.pool)
            .await
            .map_err(Failure::attempting("reserve a name"))?;
        Ok(match (owner == person, held) {
            (true, _) => Claim::Ours,
            (false, true) => Claim::Held { person: owner },
            (false, false) => Claim::Claimed { person: owner, old },
        })
    }

    /// Takes an old claim from somebody who never registered. `false`: somebody was quicker.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn take_over(&self, kind: Kind, digest: &[u8], from: &str, to: &str) -> Result<bool, Failure> {
        let taken = sqlx::query(TAKE_OVER)
            .bind(kind.as_str())
            .bind(digest)
            .bind(from)
            .bind(to)
            .bind(OLD_AFTER_SECONDS)
            .execute(&self.pool)
            .await
            .map_err(Failure::attempting("take over the reservation of a name"))?;
        Ok(taken.rows_affected() == 1)
    }

    /// Makes a claim last: the person's stream says that it is theirs.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn hold(&self, kind: Kind, digest: &[u8], person: &str) -> Result<(), Failure> {
        self.change(HOLD, kind, digest, person, "keep a name").await
    }

    /// Gives something back.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn release(&self, kind: Kind, digest: &[u8], person: &str) -> Result<(), Failure> {
        self.change(RELEASE, kind, digest, person, "give a name back").await
    }

    /// Begins to settle what a person has. Whatever says what that is, is to be read after this: of two who settle, the one that
    /// comes second then knows no less than the first.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn settle(&self, person: &str) -> Result<Settling, Failure> {
        let turn = Arc::clone(&self.settling).lock_owned().await;
        let begun = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(ALONE).bind(person).execute(&mut *transaction).await?;
            Ok(transaction)
        };
        let transaction = begun.await.map_err(Failure::attempting("settle a person's names"))?;
        Ok(Settling { transaction, person: person.to_owned(), _turn: turn })
    }

    /// Gives back everything that a person has.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn release_all(&self, person: &str) -> Result<(), Failure> {
        let released = sqlx::query(RELEASE_ALL).bind(person).execute(&self.pool).await;
        released.map(drop).map_err(Failure::attempting("give all names back"))
    }

    /// Who holds something; a claim counts for nothing.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn holder(&self, kind: Kind, digest: &[u8]) -> Result<Option<String>, Failure> {
        let found: Option<(String, bool)> = sqlx::query_as(FIND)
            .bind(kind.as_str())
            .bind(digest)
            .fetch_optional(&self.pool)
            .await
            .map_err(Failure::attempting("look up a name"))?;
        Ok(found.and_then(|(person, held)| held.then_some(person)))
    }

    async fn change(
        &self,
        statement: &'static str,
        kind: Kind,
        digest: &[u8],
        person: &str,
        attempt: &'static str,
    ) -> Result<(), Failure> {
        let changed = sqlx::query(statement).bind(kind.as_str()).bind(digest).bind(person).execute(&self.pool).await;
        changed.map(drop).map_err(Failure::attempting(attempt))
    }
}
