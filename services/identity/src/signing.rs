//! The keys of access tokens as they are now: loaded from Postgres, looked after again every minute, changed without anybody
//! noticing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kernel::Problem;
use projections::identity::{SigningKeyRow, SigningKeys};
use projections::{Database, Failure};
use runtime::clock;
use tokio_util::sync::CancellationToken;
use vault::MasterKey;

use crate::token::{Claims, Keys, LIFETIME_SECONDS, Refused, SigningKey};

/// How often every instance looks for new keys.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A new key is known everywhere before it signs: two looks of every instance, and caches of those who fetch our keys.
pub const SIGNS_AFTER_SECONDS: f64 = 300.0;

/// What tells whose tokens they are.
#[derive(Debug, Clone)]
pub struct Names {
    /// Who signs: our own address.
    pub issuer: String,
    /// For whom: the interface under it.
    pub audience: String,
}

/// Signs and verifies with the keys of now.
pub struct Signing {
    table: SigningKeys,
    master: MasterKey,
    names: Names,
    keys: RwLock<Arc<Keys>>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// Postgres cannot be asked.
    #[error(transparent)]
    Postgres(#[from] Failure),
    /// The key was wrapped with another master key.
    #[error(
        "the key `{0}` of access tokens cannot be unwrapped: the master key is not the one that this database was made with"
    )]
    AnotherMasterKey(String),
}

impl Signing {
    /// Loads the keys; makes the first one if there is none.
    ///
    /// # Errors
    /// See [`SigningError`].
    pub async fn load(database: &Database, master: &MasterKey, names: Names) -> Result<Self, SigningError> {
        let table = SigningKeys::new(database);
        let mut rows = table.list().await?;
        if rows.is_empty() {
            let fresh = SigningKey::generate();
            table.first(fresh.kid(), fresh.public(), &master.wrap_secret(fresh.kid(), fresh.pkcs8())).await?;
            rows = table.list().await?;
        }
        let keys = RwLock::new(Arc::new(assemble(&rows, master, &names)?));
        Ok(Self { table, master: master.clone(), names, keys })
    }

    /// The keys of now.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who signs, and for whom.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        self.keys().sign(claims)
    }

    /// Reads a token of ours.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn verify(&self, token: &str) -> Result<Claims, Refused> {
        self.keys().verify(token)
    }

    /// Makes another key: it is published at once, signs in a few minutes, and what its predecessors signed counts until all
    /// of their tokens are over. Returns its name.
    ///
    /// # Errors
    /// 503 when Postgres cannot be asked.
    pub async fn rotate(&self) -> Result<String, Problem> {
        let fresh = SigningKey::generate();
        let wrapped = self.master.wrap_secret(fresh.kid(), fresh.pkcs8());
        #[allow(clippy::cast_precision_loss, reason = "ten minutes")]
        let others_for = SIGNS_AFTER_SECONDS + LIFETIME_SECONDS as f64 + 60.0;
        self.table.next(fresh.kid(), fresh.public(), &wrapped, SIGNS_AFTER_SECONDS, others_for).await?;
        self.look().await.map_err(|error| {
            tracing::warn!(%error, "keys of tokens");
            Problem::unavailable("The key was made, and cannot be read right now.", 1_000)
        })?;
        Ok(fresh.kid().to_owned())
    }

    /// The keys whose signatures count, the oldest first, and the name of the one that signs.
    ///
    /// # Errors
    /// 503 when Postgres cannot be asked.
    pub async fn list(&self) -> Result<(Vec<SigningKeyRow>, String), Problem> {
        Ok((self.table.list().await?, self.keys().signs().to_owned()))
    }

    async fn look(&self) -> Result<(), SigningError> {
        let rows = self.table.list().await?;
        let keys = Arc::new(assemble(&rows, &self.master, &self.names)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Looks for new keys until `stop`. While Postgres is away the keys of before go on.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "could not look for new keys of tokens; those of before go on");
            }
        }
    }
}

/// The newest key that may sign does; the signatures of all count.
fn assemble(rows: &[SigningKeyRow], master: &MasterKey, names: &Names) -> Result<Keys, SigningError> {
    let now = clock::now();
    // The first one signs if none may yet: a clock of ours that goes slow must not keep everybody out.
    let row = rows.iter().rfind(|row| row.signs_from <= now).or_else(|| rows.first());
    let missing = || SigningError::AnotherMasterKey("-".to_owned());
    let row = row.ok_or_else(missing)?;
    let unwrapped = master.unwrap_secret(&row.kid, &row.wrapped);
    let signing = unwrapped.and_then(|pkcs8| SigningKey::from_pkcs8(&pkcs8).ok());
    let signing = signing.ok_or_else(|| SigningError::AnotherMasterKey(row.kid.clone()))?;
    let others = rows.iter().map(|row| row.public.clone());
    Ok(Keys::new(&names.issuer, &names.audience, signing, others))
}
