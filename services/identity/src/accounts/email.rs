//! Confirming that an address is one's own.

use kernel::Problem;
use rest::Origin;
use tokio::time::Instant;

use super::Accounts;
use super::register::{CONFIRM, on_the_beat};
use crate::names::Email;
use projections::identity::Kind;

/// The one answer to a code that does not work, whatever the reason.
pub(crate) fn invalid_code() -> Problem {
    Problem::new(422, "invalid_code", "The code is wrong, was used already, or is too old; ask for another one.")
}

impl Accounts {
    /// Takes the code of a confirmation.
    ///
    /// # Errors
    /// 422 `invalid_code`, 429, 503.
    pub async fn confirm_email(&self, code: &str, from: &Origin) -> Result<(), Problem> {
        self.count_from("code", from).await?;
        let digest = self.digests.code.digest(code.trim().as_bytes());
        let found = self.codes.peek(&digest, CONFIRM).await?;
        let person = found.and_then(|(person, _)| person).ok_or_else(invalid_code)?;
        let id = format!("{person}.confirm-email.{}", hex(&digest));
        // First what may be done twice: a code that is spent for nothing would have to be asked for again.
        self.record(&person, "confirm-email", &serde_json::json!({}), &id).await?;
        self.codes.take(&digest, CONFIRM).await?;
        Ok(())
    }

    /// Sends the code again, if there is an account that has not confirmed.
    ///
    /// # Errors
    /// 429, 503. Never whether there is an account.
    pub async fn resend_confirmation(&self, email: &Email, from: &Origin) -> Result<(), Problem> {
        let began = Instant::now();
        self.count_from("resend", from).await?;
        let digest = self.digests.email.digest(email.normal().as_bytes());
        if let Some(person) = self.handles.holder(Kind::Email, &digest).await?
            && self.person(&person).await?.is_some_and(|person| !person.email_confirmed)
        {
            self.send_confirmation(&person, email, false).await?;
        }
        on_the_beat(began).await;
        Ok(())
    }
}

/// The beginning of a hash, for ids of commands.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
