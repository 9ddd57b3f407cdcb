//! Asking once more who somebody is, before something that a borrowed session must not be enough for.

use std::time::Duration;

use kernel::{Problem, Timestamp};
use rest::Origin;
use runtime::clock;

use super::Inner;
use crate::password::Password;

/// So long after signing in nobody is asked again.
const FRESH: Duration = Duration::from_secs(600);

/// What somebody shows.
#[derive(Debug)]
pub struct Proof {
    /// When they last signed in.
    pub auth_time: Timestamp,
    /// Their password.
    pub password: Option<Password>,
}

/// What is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enough {
    /// The password; of whoever has none, to have signed in a moment ago.
    Password,
    /// The password, or to have signed in a moment ago.
    Fresh,
}

/// The one answer to a password that is not the right one.
pub(crate) fn wrong_password() -> Problem {
    Problem::new(403, "wrong_password", "The password is wrong.")
}

impl Inner {
    /// Lets pass who has shown enough.
    ///
    /// # Errors
    /// 403 `wrong_password` or `reauthentication_required`, 429, 503.
    pub(crate) async fn prove(&self, person: &str, proof: Proof, enough: Enough, from: &Origin) -> Result<(), Problem> {
        let hash = self.credentials.of(person).await?.and_then(|row| row.password_hash);
        if let Some(password) = proof.password {
            self.count_try("password", person, from).await?;
            if !self.hasher.verify(password, hash).await? {
                return Err(wrong_password());
            }
            return self.forgive("password", person, from).await;
        }
        let fresh = proof.auth_time + FRESH >= clock::now();
        if fresh && (enough == Enough::Fresh || hash.is_none()) {
            return Ok(());
        }
        let detail = match hash {
            Some(_) => "Send your `password` along.",
            None => "Log in again first.",
        };
        Err(Problem::new(403, "reauthentication_required", detail))
    }
}
