//! Confirming that an address is one's own, and changing to another one.

use kernel::{Problem, Sealed};
use projections::identity::{Kind, NewCode};
use rest::Origin;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::proof::{Enough, Proof};
use super::register::{CONFIRM, on_the_beat};
use super::tries::Reason;
use super::{Accounts, Inner};
use crate::names::Email;

/// A code to another address.
pub(super) const CHANGE: &str = "change-email";
const CHANGE_SECONDS: f64 = 1_800.0;

/// What is to be known when the code to another address comes back.
#[derive(Serialize, Deserialize)]
struct Change {
    email: Sealed,
}

/// The one answer to a code that does not work, whatever the reason.
pub(crate) fn invalid_code() -> Problem {
    Problem::new(422, "invalid_code", "The code is wrong, was used already, or is too old; ask for another one.")
}

impl Accounts {
    /// Takes the code of a confirmation: of the address that somebody registered with, or of another one that they asked for.
    ///
    /// # Errors
    /// 409 `email_taken`, 422 `invalid_code`, 429, 503. After a 503 the same code may be sent again.
    pub async fn confirm_email(&self, code: &str, from: &Origin) -> Result<(), Problem> {
        self.count_from("code", from).await?;
        let digest = self.digests.code.digest(code.trim().as_bytes());
        if let Some((Some(person), detail)) = self.codes.peek(&digest, CHANGE).await? {
            let change = serde_json::from_value(detail).map_err(|_| invalid_code())?;
            return self.adopt(&person, change, &digest).await;
        }
        let found = self.codes.peek(&digest, CONFIRM).await?;
        let person = found.and_then(|(person, _)| person).ok_or_else(invalid_code)?;
        let id = format!("{person}.confirm-email.{}", hex(&digest));
        // First what may be done twice: a code that is spent for nothing would have to be asked for again.
        self.record(&person, "confirm-email", &json!({}), &id).await?;
        self.settle_names(&person).await?;
        self.codes.take(&digest, CONFIRM).await?;
        Ok(())
    }

    /// Sends another mail, if there is an account that nobody has confirmed. Whoever asks may be somebody else than who
    /// registered, so its code chooses the password anew, and confirms the address with it.
    ///
    /// # Errors
    /// 429, 503. Never whether there is an account.
    pub async fn resend_confirmation(&self, email: &Email, from: &Origin) -> Result<(), Problem> {
        let began = Instant::now();
        self.count_from("resend", from).await?;
        let sent = self.send_again(email).await;
        on_the_beat(began).await;
        sent
    }

    /// Sends a code to another address, which becomes theirs when the code comes back. The address of now hears of it. Whether
    /// somebody else has the other one, only that somebody hears.
    ///
    /// # Errors
    /// 403 as [`Proof`] is not enough, 429, 503.
    pub async fn change_email(&self, person: &str, email: &Email, proof: Proof, from: &Origin) -> Result<(), Problem> {
        let began = Instant::now();
        self.prove(person, proof, Enough::Password, from).await?;
        let asked = self.ask_new_address(person, email).await;
        on_the_beat(began).await;
        asked
    }
}

impl Inner {
    /// Whoever registered and was interrupted just then may hold nothing yet of what their stream says is theirs; and nobody
    /// signs in by what is not held.
    pub(super) async fn settle_names(&self, person: &str) -> Result<(), Problem> {
        self.settle(person, Kind::Email).await?;
        self.settle(person, Kind::Username).await
    }

    async fn send_again(&self, email: &Email) -> Result<(), Problem> {
        let digest = self.handle(Kind::Email, email.normal());
        let Some(person) = self.handles.holder(Kind::Email, &digest).await? else { return Ok(()) };
        match self.person(&person).await? {
            Some(found) if !found.email_confirmed => self.send_choice(&person, &found, email).await,
            _ => Ok(()),
        }
    }

    async fn ask_new_address(&self, person: &str, email: &Email) -> Result<(), Problem> {
        let text = "Somebody asked to change the address of your Airstream account to another one. It changes when the code \
                    that was sent there comes back.\n\nIf it was not you: set a new password at once; then nothing changes.\n";
        self.notify(person, &runtime::clock::fresh_id("address."), "Your address is to change", text).await?;
        match self.handles.holder(Kind::Email, &self.handle(Kind::Email, email.normal())).await? {
            Some(holder) if holder != person => self.tell_holder(&holder, email).await,
            _ => self.send_change(person, email).await,
        }
    }

    async fn send_change(&self, person: &str, email: &Email) -> Result<(), Problem> {
        if !self.may_mail(Reason::Change, email.normal()).await? {
            return Ok(());
        }
        let code = crate::crypto::secret("aco_");
        let kept = NewCode {
            digest: self.digests.code.digest(code.as_bytes()),
            purpose: CHANGE,
            person: Some(person.to_owned()),
            detail: json!(Change { email: self.seal(person, "email", email.typed()).await? }),
            lifetime_seconds: CHANGE_SECONDS,
        };
        // Only the last address that was asked for counts.
        self.codes.void(person, CHANGE).await?;
        self.codes.keep(&kept).await?;
        let text = format!(
            "Make this the address of your Airstream account with this code, within half an hour:\n\n    {code}\n\n\
             Over HTTP: POST /v1/auth/verify-email {{\"code\": \"{code}\"}}\n\n\
             If you did not ask for it, ignore this message.\n"
        );
        self.mail(person, email.typed(), "change-email", "Confirm your new e-mail address", &text).await
    }

    /// Somebody has shown that another address is theirs.
    async fn adopt(&self, person: &str, change: Change, code: &[u8]) -> Result<(), Problem> {
        let typed = self.open(&change.email, "email").await?.ok_or_else(invalid_code)?;
        let email = Email::parse(&typed).map_err(|_| invalid_code())?;
        if self.claim(Kind::Email, &self.handle(Kind::Email, email.normal()), person).await?.is_err() {
            return Err(Problem::new(409, "email_taken", "Somebody else has registered with this address meanwhile."));
        }
        let id = format!("{person}.change-email.{}", hex(code));
        self.record(person, "change-email", &change, &id).await?;
        self.settle(person, Kind::Email).await?;
        // What was mailed to the address of before opens nothing any more.
        self.void_mailed(person).await?;
        Ok(())
    }

    /// Makes everything worthless that was mailed to a person and not used.
    async fn void_mailed(&self, person: &str) -> Result<(), Problem> {
        for purpose in [CONFIRM, super::passwords::RESET, CHANGE] {
            self.codes.void(person, purpose).await?;
        }
        Ok(())
    }
}

/// The beginning of a hash, for ids of commands.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
