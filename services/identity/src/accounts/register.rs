//! Registering. The answer is the same, and takes as long, whether or not the address has an account already: whoever owns
//! the address learns by mail which of both it was.
//!
//! An account that nobody has confirmed is its maker's only as long as nobody else wants it: whoever registers with somebody
//! else's address has chosen its password. So the code of the first mail confirms what it belongs to, and as soon as the
//! address is met once more, that code is worth nothing, and the next mail has one by which the password is chosen anew.

use std::time::Duration;

use kernel::{CommandId, Problem};
use projections::identity::{Kind, NewCode};
use projections::mail::Mail;
use rest::Origin;
use runtime::clock;
use serde_json::json;
use tokio::time::Instant;

use super::tries::Reason;
use super::{Accounts, Inner};
use crate::crypto;
use crate::names::{Email, Username};
use crate::password::Password;
use crate::person::{PASSWORD, Register, State};

/// Answers that may not tell by their time what happened come at multiples of this after they were asked for.
pub(crate) const BEAT: Duration = Duration::from_millis(400);
/// How long a link to confirm an address works.
const CONFIRM_SECONDS: f64 = 86_400.0;
pub(crate) const CONFIRM: &str = "confirm-email";

/// What somebody typed to register.
#[derive(Debug)]
pub struct Registration {
    /// Their address.
    pub email: Email,
    /// A name to log in by.
    pub username: Option<Username>,
    /// The password.
    pub password: Password,
    /// What they are called.
    pub name: Option<String>,
    /// The caller's idempotency key.
    pub key: Option<CommandId>,
}

/// Waits for the next beat after `began`.
pub(crate) async fn on_the_beat(began: Instant) {
    let beats = began.elapsed().as_millis() / BEAT.as_millis() + 1;
    tokio::time::sleep_until(began + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)).await;
}

impl Accounts {
    /// Registers, or tells the owner of the address by mail that somebody tried to.
    ///
    /// # Errors
    /// 422 for a weak password, 429, 503. Never whether there is an account.
    pub async fn register(&self, wanted: Registration, from: &Origin) -> Result<(), Problem> {
        let began = Instant::now();
        self.count_from("register", from).await?;
        let username = wanted.username.as_ref().map_or("", Username::typed);
        let context = ["airstream", wanted.email.typed(), username, wanted.name.as_deref().unwrap_or_default()];
        wanted.password.check(&context).map_err(|reason| Problem::new(422, "weak_password", reason))?;
        let hash = self.hasher.hash(wanted.password.clone()).await?;
        let done = self.enter(&wanted, &hash).await;
        on_the_beat(began).await;
        done
    }
}

impl Inner {
    async fn enter(&self, wanted: &Registration, hash: &str) -> Result<(), Problem> {
        let email = self.handle(Kind::Email, wanted.email.normal());
        let person = match &wanted.key {
            Some(key) => {
                crypto::derived_id("usr_", &self.digests.derived, &format!("person {key} {}", wanted.email.normal()))
            }
            None => clock::fresh_id("usr_"),
        };
        if let Err(holder) = self.claim(Kind::Email, &email, &person).await? {
            return self.tell_holder(&holder, &wanted.email).await;
        }
        // With the same key one goes on with what one began; with another password it is somebody else.
        self.credentials.enrol(&person, Some(hash)).await?;
        let enrolled = self.credentials.of(&person).await?.and_then(|row| row.password_hash);
        if enrolled.as_deref() != Some(hash) && !self.hasher.verify(wanted.password.clone(), enrolled).await? {
            return self.tell_holder(&person, &wanted.email).await;
        }
        let username = match &wanted.username {
            None => None,
            Some(username) => {
                let digest = self.handle(Kind::Username, username.normal());
                let claimed = self.claim(Kind::Username, &digest, &person).await?.is_ok();
                claimed.then_some((username, digest))
            }
        };
        let sealed = |field, text| self.seal(&person, field, text);
        let registered = events::person::Registered {
            email: sealed("email", wanted.email.typed()).await?,
            username: match &username {
                Some((username, _)) => Some(sealed("username", username.typed()).await?),
                None => None,
            },
            name: match wanted.name.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
                Some(name) => Some(sealed("name", name).await?),
                None => None,
            },
            method: PASSWORD.to_owned(),
        };
        let code = self.first_code(&person).await?;
        let register = Register { person: registered, link: None, email_confirmed: false };
        self.record(&person, "register", &register, &format!("{person}.register")).await?;
        self.handles.hold(Kind::Email, &email, &person).await?;
        if let Some((_, digest)) = &username {
            self.handles.hold(Kind::Username, digest, &person).await?;
        }
        let lost = wanted.username.is_some() && username.is_none();
        self.send_confirmation(&person, &wanted.email, &code, lost).await
    }

    /// The code that confirms an account as it was registered. It is kept before anybody can meet the account, and not again:
    /// once worthless, it stays so, whoever goes on with this registration.
    async fn first_code(&self, person: &str) -> Result<String, Problem> {
        let code = crypto::derived_secret("aco_", &self.digests.derived, &format!("confirm {person}"));
        if matches!(self.state(person).await?, State::Unknown) {
            let kept = NewCode {
                digest: self.digests.code.digest(code.as_bytes()),
                purpose: CONFIRM,
                person: Some(person.to_owned()),
                detail: json!({}),
                lifetime_seconds: CONFIRM_SECONDS,
            };
            self.codes.keep(&kept).await?;
        }
        Ok(code)
    }

    /// The address has an account: its owner hears of it, nobody else does.
    ///
    /// # Errors
    /// 429 `busy` while nobody can say whether it has one: somebody is registering with it, or was interrupted, and then it is free a
    /// minute later.
    pub(super) async fn tell_holder(&self, holder: &str, email: &Email) -> Result<(), Problem> {
        match self.person(holder).await? {
            None => Err(Problem::busy("This address cannot be registered right now; try again.", 5_000)),
            Some(person) if !person.email_confirmed => self.send_choice(holder, &person, email).await,
            Some(_) if self.may_mail(Reason::AccountExists, email.normal()).await? => {
                let text = "Somebody tried to register an Airstream account with this address. It has one already.\n\n\
                            If it was you: log in, or ask for a new password. If it was not, there is nothing to do.\n";
                self.mail(holder, email.typed(), "account-exists", "You have an account already", text).await
            }
            _ => Ok(()),
        }
    }

    /// Sends the code that shows that the address is theirs, once.
    async fn send_confirmation(&self, person: &str, email: &Email, code: &str, lost: bool) -> Result<(), Problem> {
        if !self.may_mail(Reason::Registered, email.normal()).await? {
            return Ok(());
        }
        let note = match lost {
            true => "\nThe username that you asked for belongs to somebody else; choose another one in your profile.\n",
            false => "",
        };
        let text = format!(
            "Confirm that this address is yours with this code, within a day:\n\n    {code}\n\n\
             In a terminal: airstream login --confirm {code}\n\
             Over HTTP:     POST /v1/auth/verify-email {{\"code\": \"{code}\"}}\n{note}\n\
             If you did not register, ignore this message.\n"
        );
        let id = clock::derived_id("mail_", &format!("{person} confirm-email"));
        self.put_mail(id, person, email.typed(), "confirm-email", "Confirm your e-mail address", &text).await
    }

    /// Puts a message to a person into the outbox.
    pub(crate) async fn mail(
        &self,
        person: &str,
        to: &str,
        kind: &'static str,
        subject: &str,
        text: &str,
    ) -> Result<(), Problem> {
        self.put_mail(clock::fresh_id("mail_"), person, to, kind, subject, text).await
    }

    /// Tells a person what has happened to their account, at their address. Of the same happening, whoever is interrupted tells
    /// once.
    pub(crate) async fn notify(&self, person: &str, happening: &str, subject: &str, text: &str) -> Result<(), Problem> {
        let Some(found) = self.person(person).await? else { return Ok(()) };
        let Some(to) = self.open(&found.email, "email").await? else { return Ok(()) };
        let id = clock::derived_id("mail_", &format!("{person} {happening}"));
        self.put_mail(id, person, &to, "notice", subject, text).await
    }

    async fn put_mail(
        &self,
        id: String,
        person: &str,
        to: &str,
        kind: &'static str,
        subject: &str,
        text: &str,
    ) -> Result<(), Problem> {
        let mail = Mail {
            id,
            to: to.to_owned(),
            kind,
            subject: subject.to_owned(),
            text: text.to_owned(),
            about: Some(person.to_owned()),
        };
        Ok(self.outbox.put(mail).await?)
    }
}
