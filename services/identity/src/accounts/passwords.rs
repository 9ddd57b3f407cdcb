//! Another password: by somebody who knows the one before, or who reads the mail.

use kernel::{Problem, Sealed};
use projections::identity::{Kind, NewCode};
use rest::Origin;
use runtime::clock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::email::{CHANGE, invalid_code};
use super::proof::wrong_password;
use super::register::{CONFIRM, on_the_beat};
use super::tries::Reason;
use super::{Accounts, Inner};
use crate::names::Email;
use crate::password::Password;
use crate::person::{ChangePassword, Person};

pub(super) const RESET: &str = "reset-password";
/// How long a code for another password works.
const RESET_SECONDS: f64 = 1_800.0;

/// What is to be known when the code comes back: it replaces this password, of whoever has this address, and no other.
#[derive(Serialize, Deserialize)]
struct Reset {
    number: u32,
    email: Sealed,
}

/// What a mail with such a code says around it.
struct Letter {
    subject: &'static str,
    before: &'static str,
    after: &'static str,
}

impl Accounts {
    /// Sends a code for another password to an address, if there is an account.
    ///
    /// # Errors
    /// 429, 503. Never whether there is an account.
    pub async fn forgot_password(&self, email: &Email, from: &Origin) -> Result<(), Problem> {
        let began = Instant::now();
        self.count_from("forgot", from).await?;
        let sent = self.send_reset(email).await;
        on_the_beat(began).await;
        sent
    }

    /// Sets another password by a code that was mailed. It ends all sessions and opens none.
    ///
    /// # Errors
    /// 422 `invalid_code` or `weak_password`, 429, 503. After a 503 the same request may be sent again.
    pub async fn reset_password(&self, code: &str, password: Password, from: &Origin) -> Result<(), Problem> {
        self.count_from("code", from).await?;
        let digest = self.digests.code.digest(code.trim().as_bytes());
        let (person, detail) = self.codes.peek(&digest, RESET).await?.ok_or_else(invalid_code)?;
        let person = person.ok_or_else(invalid_code)?;
        let Reset { number, email } = serde_json::from_value(detail).map_err(|_| invalid_code())?;
        let found = self.person(&person).await?.filter(|found| found.email == email).ok_or_else(invalid_code)?;
        self.check_new(&found, &password).await?;
        let hash = self.hasher.hash(password.clone()).await?;
        // Whoever came by a provider has no credentials yet.
        self.credentials.enrol(&person, None).await?;
        // Of many who use the code at once, one replaces the password that it is for. Whoever comes again after a failure finds
        // it replaced by their own.
        let replaced = self.replace(&person, number, &hash, None).await?;
        if !replaced && !self.is_password(&person, number + 1, password).await? {
            return Err(invalid_code());
        }
        self.record_password(&person, number + 1, "reset", None).await?;
        let id = format!("{person}.confirm-email.{}", super::email::hex(&digest));
        self.record(&person, "confirm-email", &json!({}), &id).await?;
        self.settle_names(&person).await?;
        self.forgive_login(&found, from).await?;
        self.tell_of_password(&person, number + 1).await?;
        Ok(self.codes.void(&person, RESET).await?)
    }

    /// Sets another password for somebody who knows the one before. The session in which it is done goes on, others end.
    ///
    /// # Errors
    /// 403 `wrong_password`, 409 `no_password`, 422 `weak_password`, 429, 503. After a 503 the same request may be sent again.
    pub async fn change_password(
        &self,
        person: &str,
        session: &str,
        current: Password,
        new: Password,
        from: &Origin,
    ) -> Result<(), Problem> {
        let found = self.existing(person).await?;
        self.check_new(&found, &new).await?;
        self.count_try("password", person, from).await?;
        let row = self.credentials.of(person).await?;
        let Some((number, hash)) = row.and_then(|row| Some((row.password_number, row.password_hash?))) else {
            let detail = "You have no password yet: `POST /v1/auth/password/forgot` sends a code to set one.";
            return Err(Problem::new(409, "no_password", detail));
        };
        let number = match self.hasher.verify(current, Some(hash.clone())).await? {
            true => {
                let better = self.hasher.hash(new.clone()).await?;
                if !self.replace(person, number, &better, Some(session)).await? {
                    return Err(Problem::new(409, "password_changed", "The password was changed meanwhile."));
                }
                number + 1
            }
            // Perhaps it is so already, and an answer got lost. What is compared here could be a guess as well.
            false => {
                self.count_try("password", person, from).await?;
                if !self.hasher.verify(new, Some(hash)).await? {
                    return Err(wrong_password());
                }
                number
            }
        };
        self.forgive("password", person, from).await?;
        self.record_password(person, number, "known", Some(session)).await?;
        self.codes.void(person, RESET).await?;
        self.tell_of_password(person, number).await
    }
}

impl Inner {
    async fn send_reset(&self, email: &Email) -> Result<(), Problem> {
        let may_mail = self.may_mail(Reason::Forgot, email.normal()).await?;
        let digest = self.handle(Kind::Email, email.normal());
        let Some(person) = self.handles.holder(Kind::Email, &digest).await? else { return Ok(()) };
        let Some(found) = self.person(&person).await? else { return Ok(()) };
        // An address that somebody had before opens nothing any more, though it may not have been given back yet.
        if self.current(&found, Kind::Email).await?.as_ref() != Some(&digest) {
            return Ok(());
        }
        if !found.email_confirmed {
            // Whoever asks need not be who registered.
            self.codes.void(&person, CONFIRM).await?;
        }
        if !may_mail {
            return Ok(());
        }
        let letter = Letter {
            subject: "Set a new password",
            before: "Set a new password with this code, within half an hour:",
            after: "All your sessions end then. If you did not ask for it, ignore this message: your password stays as it is.",
        };
        self.mail_reset(&person, &found, &letter).await
    }

    /// Sends a code to choose a password to an address that was met once more before anybody had confirmed it. Whoever reads
    /// its mail does not confirm a password that somebody else has chosen.
    pub(super) async fn send_choice(&self, person: &str, found: &Person, email: &Email) -> Result<(), Problem> {
        self.codes.void(person, CONFIRM).await?;
        if !self.may_mail(Reason::Unconfirmed, email.normal()).await? {
            return Ok(());
        }
        let letter = Letter {
            subject: "Choose a password",
            before: "An Airstream account was registered with this address before, and nobody has confirmed it. It may have been \
                     somebody else, who knows its password: choose another one with this code, within half an hour. That \
                     confirms the address as well.",
            after: "The code of any mail before this one does not work any more. If you did not register, ignore this message.",
        };
        self.mail_reset(person, found, &letter).await
    }

    async fn mail_reset(&self, person: &str, found: &Person, letter: &Letter) -> Result<(), Problem> {
        let code = crate::crypto::secret("apw_");
        let number = self.credentials.of(person).await?.map_or(0, |row| row.password_number);
        let kept = NewCode {
            digest: self.digests.code.digest(code.as_bytes()),
            purpose: RESET,
            person: Some(person.to_owned()),
            detail: json!(Reset { number, email: found.email.clone() }),
            lifetime_seconds: RESET_SECONDS,
        };
        self.codes.keep(&kept).await?;
        let Letter { subject, before, after } = letter;
        let text = format!(
            "{before}\n\n    {code}\n\n\
             POST /v1/auth/password/reset {{\"code\": \"{code}\", \"password\": \"…\"}}\n\n\
             {after}\n"
        );
        // To the address as its owner wrote it, never as somebody else has typed it.
        let to = self.open(&found.email, "email").await?.unwrap_or_default();
        self.mail(person, &to, "reset-password", subject, &text).await
    }

    async fn check_new(&self, person: &Person, password: &Password) -> Result<(), Problem> {
        let email = self.open(&person.email, "email").await?.unwrap_or_default();
        let username = self.open_if(person.username.as_ref(), "username").await?.unwrap_or_default();
        let name = self.open_if(person.name.as_ref(), "name").await?.unwrap_or_default();
        let checked = password.check(&["airstream", &email, &username, &name]);
        checked.map_err(|reason| Problem::new(422, "weak_password", reason))
    }

    /// Replaces a password and ends sessions, in one transaction. `false`: it has been replaced meanwhile.
    async fn replace(&self, person: &str, number: u32, hash: &str, keep: Option<&str>) -> Result<bool, Problem> {
        let ended = self.credentials.set_password(person, number, hash, keep).await?;
        self.ended(person, ended.as_deref().unwrap_or_default());
        Ok(ended.is_some())
    }

    async fn is_password(&self, person: &str, number: u32, password: Password) -> Result<bool, Problem> {
        let row = self.credentials.of(person).await?.filter(|row| row.password_number == number);
        self.hasher.verify(password, row.and_then(|row| row.password_hash)).await
    }

    /// Writes down that there is another password. What was begun by whoever knew the one before comes to nothing.
    async fn record_password(&self, person: &str, number: u32, by: &str, keep: Option<&str>) -> Result<(), Problem> {
        let change = ChangePassword { number, by: by.to_owned(), keep: keep.map(str::to_owned) };
        self.record(person, "change-password", &change, &clock::fresh_id("cmd_")).await?;
        self.withdraw(person).await?;
        Ok(self.codes.void(person, CHANGE).await?)
    }

    async fn tell_of_password(&self, person: &str, number: u32) -> Result<(), Problem> {
        let text = "The password of your Airstream account was changed.\n\n\
                    If it was not you: ask for a new password at once, and look at your sessions.\n";
        self.notify(person, &format!("password.{number}"), "Your password was changed", text).await
    }
}
