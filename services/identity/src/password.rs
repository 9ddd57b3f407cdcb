//! Passwords: what may be one, and their hashes.
//!
//! Hashing takes 19 MiB and some 20 ms of a core, on purpose. It runs on threads that may block, and never more at once than
//! there are cores: whoever sends a thousand logins waits in a queue rather than taking the machine down.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};
use kernel::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zxcvbn::Score;

/// Shortest password, in characters. No other rule on its composition: they make passwords worse (NIST SP 800-63B, 5.1.1.2).
pub const MIN_CHARS: usize = 8;
/// Longest password, in bytes: nothing is cut off, and nobody hashes a book.
pub const MAX_BYTES: usize = 1_024;

/// A password as it was typed. It is not printed, not even for debugging.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(***)")
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Password {
    /// Checks a new password. `context` is what an attacker would try first: the address, the username, our name.
    ///
    /// # Errors
    /// A sentence for whoever typed it.
    pub fn check(&self, context: &[&str]) -> Result<(), &'static str> {
        if self.0.chars().count() < MIN_CHARS {
            return Err("A password has at least 8 characters.");
        }
        if self.0.len() > MAX_BYTES {
            return Err("A password has at most 1,024 bytes.");
        }
        // Its effort grows with the length, and what is guessed quickly is guessed by its beginning.
        let beginning: String = self.0.chars().take(ESTIMATED_CHARS).collect();
        let parts = context.iter().flat_map(|text| text.split(|sign: char| !sign.is_alphanumeric()));
        let known: Vec<&str> = parts.filter(|part| part.len() > 2).chain(context.iter().copied()).collect();
        match zxcvbn::zxcvbn(&beginning, &known).score() {
            Score::Zero | Score::One => {
                Err("This password is guessed quickly: it is common, or your own name. Add words.")
            }
            _ => Ok(()),
        }
    }
}

/// So much of a password is looked at when its strength is estimated.
const ESTIMATED_CHARS: usize = 100;

/// Hashes and verifies. Cheap to clone.
#[derive(Clone)]
pub struct Hasher(Arc<Inner>);

struct Inner {
    places: Arc<Semaphore>,
    waiting: Duration,
    argon2: Argon2<'static>,
    /// The hash of a password that nobody knows: verified when there is no account, so that it takes as long.
    nobody: String,
}

impl Hasher {
    /// argon2id with 19 MiB, two passes, one lane: the least that OWASP's Password Storage Cheat Sheet allows. So many at once;
    /// whoever does not get a place in time is told to come back.
    #[must_use]
    pub fn new(at_once: usize, waiting: Duration) -> Self {
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::DEFAULT);
        let nobody = hash(&argon2, &runtime::clock::fresh_id("nobody"));
        Self(Arc::new(Inner { places: Arc::new(Semaphore::new(at_once.max(1))), waiting, argon2, nobody }))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = tokio::time::timeout(self.0.waiting, Arc::clone(&self.0.places).acquire_owned()).await;
        let place = place.ok().and_then(Result::ok);
        place.ok_or_else(|| Problem::busy("Too many passwords are being checked right now.", 1_000))
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> Result<T, Problem> {
        let place = self.place().await?;
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&inner);
            drop(place);
            done
        });
        done.await.map_err(|_| Problem::unavailable("The password could not be checked.", 1_000))
    }

    /// Hashes a new password, as a PHC string.
    ///
    /// # Errors
    /// 429 when too many others are waiting.
    pub async fn hash(&self, password: Password) -> Result<String, Problem> {
        self.blocking(move |inner| hash(&inner.argon2, &password.0)).await
    }

    /// Whether this is the password. `None` stands for an account that does not exist, or has no password: the answer is no,
    /// and takes as long.
    ///
    /// # Errors
    /// 429 when too many others are waiting.
    pub async fn verify(&self, password: Password, hash: Option<String>) -> Result<bool, Problem> {
        self.blocking(move |inner| {
            let exists = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&inner.nobody);
            let right = PasswordHash::new(hash).is_ok_and(|hash| {
                password.0.len() <= MAX_BYTES && inner.argon2.verify_password(password.0.as_bytes(), &hash).is_ok()
            });
            exists && right
        })
        .await
    }

    /// Whether a hash was made with weaker parameters than today's: it is replaced at the next login.
    #[must_use]
    pub fn is_weak(&self, hash: &str) -> bool {
        let parameters = PasswordHash::new(hash).ok().and_then(|hash| Params::try_from(&hash).ok());
        let today = self.0.argon2.params();
        parameters.is_none_or(|made| made.m_cost() < today.m_cost() || made.t_cost() < today.t_cost())
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> String {
    let hash = argon2.hash_password(password.as_bytes());
    // Parameters and lengths are checked, and the operating system gives random bytes.
    hash.map(|hash| hash.to_string()).expect("argon2 with its default parameters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> Hasher {
        Hasher::new(2, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_password_is_verified_and_nothing_else_is() {
        let hasher = hasher();
        let hash = hasher.hash("correct horse".into()).await.expect("a hash");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash("correct horse".into()).await.expect("a hash"), "no salt");
        assert!(hasher.verify("correct horse".into(), Some(hash.clone())).await.expect("an answer"));
        for wrong in ["correct horsf", "", "correct horse ", "Correct horse"] {
            assert!(!hasher.verify(wrong.into(), Some(hash.clone())).await.expect("an answer"), "{wrong:?}");
        }
        assert!(!hasher.verify("correct horse".into(), None).await.expect("an answer"));
        assert!(!hasher.verify("correct horse".into(), Some("no hash".into())).await.expect("an answer"));
    }

    #[tokio::test]
    async fn a_hash_of_less_effort_is_told() {
        let hasher = hasher();
        let cheap = Params::new(8 * 1_024, 1, 1, None).expect("parameters");
        let cheap = hash(&Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap), "x");
        assert!(hasher.is_weak(&cheap));
        assert!(hasher.is_weak("no hash"));
        assert!(!hasher.is_weak(&hasher.hash("x".into()).await.expect("a hash")));
    }

    #[tokio::test]
    async fn whoever_finds_no_place_is_told_to_come_back() {
        let hasher = Hasher::new(1, Duration::from_millis(10));
        let _place = hasher.place().await.expect("a place");
        let problem = hasher.hash("x".into()).await.expect_err("there is no place");
        assert_eq!((problem.status, problem.retry_after_ms), (429, Some(1_000)));
    }

    #[test]
    fn what_everybody_tries_first_is_no_password() {
        let context = ["ann.bee@example.org", "annabee", "airstream"];
        let refused = |text: &str| Password::from(text).check(&context).is_err();
        for bad in
            ["short", "password", "Password1", "12345678", "aaaaaaaaaa", "annabee!", "AIRSTREAM1", "example1", ""]
        {
            assert!(refused(bad), "{bad:?}");
        }
        for good in ["correct horse battery", "пароль для всех", "x8#kQ2!v", "my airstream is a fine caravan"]
        {
            assert!(!refused(good), "{good:?}");
        }
        assert!(!refused(&"ab cd".repeat(100)));
        assert!(refused(&"ab cd".repeat(1_000)));
        assert_eq!(format!("{:?}", Password::from("secret")), "Password(***)");
    }
}
