//! Accounts and those who are known elsewhere.
//!
//! Somebody is recognised by the provider's own id for them and by nothing else. An address that a provider confirmed makes a
//! new account, and never leads into one that is there: whoever has that address here may be somebody else, who registered
//! with it first, confirmed or not. Both come together only from inside, by somebody who is signed in.

use kernel::Problem;
use projections::identity::{Kind, NewCode};
use rest::Origin;
use runtime::clock;
use serde_json::json;

use super::{Accounts, Inner, LoggedIn, Me};
use crate::accounts::login::{Credential, Opening};
use crate::names::Email;
use crate::oauth::{Outside, Provider};
use crate::password::Password;
use crate::person::{Person, Register};

/// Longest name that is taken over, in characters.
const MAX_NAME_CHARS: usize = 100;
/// How long somebody may look for their second factor.
const CONTINUE_SECONDS: f64 = 300.0;
pub(super) const CONTINUE: &str = "oauth-continue";

/// Somebody who is known elsewhere was let in, nearly.
#[derive(Debug, Clone)]
pub enum Arrived {
    /// They are signed in.
    In(Box<LoggedIn>),
    /// Their account asks for a second factor: this is sent with it.
    Asked {
        /// Works for five minutes, and until it has led somewhere.
        continuation: String,
    },
}

/// What somebody sends who was asked for a second factor.
#[derive(Debug)]
pub struct Continuation {
    /// What they were given.
    pub continuation: String,
    /// The code of an authenticator.
    pub totp: Option<String>,
    /// A recovery code in its place.
    pub recovery: Option<String>,
}

fn kind(provider: Provider) -> Kind {
    match provider {
        Provider::Google => Kind::Google,
        Provider::Github => Kind::Github,
    }
}

impl Accounts {
    /// Signs somebody in who is linked to an account, or makes one for who is not.
    ///
    /// # Errors
    /// 403 `email_not_verified`, 409 `account_exists`, 429, 503.
    pub(crate) async fn arrive(&self, outside: &Outside, from: &Origin) -> Result<Arrived, Problem> {
        let provider = outside.provider;
        if let Some(person) = self.linked_to(outside).await? {
            return self.let_in(&person, provider, from).await;
        }
        let person = self.enter_from(outside).await?;
        let amr = vec![provider.as_str().to_owned()];
        Ok(Arrived::In(Box::new(self.open_session(self.opening(person, amr).await?, from).await?)))
    }

    /// Signs somebody in who was asked for a second factor.
    ///
    /// # Errors
    /// 401 `second_factor_required`, 422 `invalid_code`, 429, 503.
    pub async fn go_on(&self, continuation: Continuation, from: &Origin) -> Result<LoggedIn, Problem> {
        let Continuation { continuation, totp, recovery } = continuation;
        self.count_from("oauth", from).await?;
        let digest = self.digests.code.digest(continuation.trim().as_bytes());
        let found = self.codes.peek(&digest, CONTINUE).await?;
        let (person, detail) = found.ok_or_else(super::email::invalid_code)?;
        let person = person.ok_or_else(super::email::invalid_code)?;
        self.count_try("second", &person, from).await?;
        let row = self.credentials.of(&person).await?.ok_or_else(super::email::invalid_code)?;
        let provider = detail["provider"].as_str().unwrap_or_default().to_owned();
        // Unlinked since: nobody comes in by it any more.
        if !self.existing(&person).await?.links.contains_key(&provider) {
            return Err(super::email::invalid_code());
        }
        let mut amr = vec![provider];
        if row.totp_enabled {
            let credential = Credential { login: None, password: Password::from(""), totp, recovery, tenant: None };
            amr.extend(self.second_factor(&person, &row, &credential, from).await?);
        }
        // Of two who come with it at once, one is let in.
        self.codes.take(&digest, CONTINUE).await?.ok_or_else(super::email::invalid_code)?;
        self.forgive("second", &person, from).await?;
        self.open_session(self.opening(person, amr).await?, from).await
    }

    /// Lets somebody who is signed in sign in by this as well.
    ///
    /// # Errors
    /// 403 `email_not_confirmed`, 409 `linked_to_another` or `linked_elsewhere`, 503.
    pub(crate) async fn link(&self, person: &str, outside: &Outside) -> Result<Me, Problem> {
        let found = self.may_link(person).await?;
        let (kind, digest) = (kind(outside.provider), self.digest_of(outside.provider, &outside.subject));
        if self.claim(kind, &digest, person).await?.is_err() {
            let detail = format!("This {} account is linked to another account here.", outside.provider.title());
            return Err(Problem::new(409, "linked_to_another", detail));
        }
        let subject = self.seal(person, "subject", &outside.subject).await?;
        let linked = events::person::IdentityLinked { provider: outside.provider.as_str().to_owned(), subject };
        let again = found.links.get(&linked.provider) == Some(&linked.subject);
        let recorded = self.record(person, "link", &linked, &clock::fresh_id("cmd_")).await;
        if let Err(problem) = recorded {
            if !problem.is_transient() {
                self.handles.release(kind, &digest, person).await?;
            }
            return Err(problem);
        }
        self.handles.hold(kind, &digest, person).await?;
        if !again {
            self.tell_of_link(person, &found, outside.provider, "can be used to sign in now").await?;
        }
        self.me(person).await
    }

    /// Lets nobody sign in by this provider any more.
    ///
    /// # Errors
    /// 404 `not_linked`, 409 `last_way_in`, 503.
    pub async fn unlink(&self, person: &str, provider: Provider) -> Result<Me, Problem> {
        let found = self.existing(person).await?;
        let unlinked = events::person::IdentityUnlinked { provider: provider.as_str().to_owned() };
        self.withdraw(person).await?;
        // What is unlinked lets nobody in from here on, whether or not its reservation is still there.
        self.record(person, "unlink", &unlinked, &clock::fresh_id("cmd_")).await?;
        if let Some(subject) = self.open_if(found.links.get(provider.as_str()), "subject").await? {
            self.handles.release(kind(provider), &self.digest_of(provider, &subject), person).await?;
        }
        self.tell_of_link(person, &found, provider, "cannot be used to sign in any more").await?;
        self.me(person).await
    }
}

impl Inner {
    /// Somebody who may link: their own address is confirmed, so that nobody links to an account that is not theirs to keep.
    pub(super) async fn may_link(&self, person: &str) -> Result<Person, Problem> {
        let found = self.existing(person).await?;
        match found.email_confirmed {
            true => Ok(found),
            false => Err(Problem::new(403, "email_not_confirmed", "Confirm your own e-mail address first.")),
        }
    }

    /// The session of somebody whom a provider vouches for.
    async fn opening(&self, person: String, amr: Vec<String>) -> Result<Opening, Problem> {
        let tenant = self.tenant_for(&person, None).await?;
        Ok(Opening { person, session: None, amr, auth_time: clock::now(), tenant, password_number: None })
    }

    fn digest_of(&self, provider: Provider, subject: &str) -> Vec<u8> {
        self.handle(kind(provider), subject)
    }

    /// Whose account this is: the reservation finds them, and their own stream says whether it is still so.
    async fn linked_to(&self, outside: &Outside) -> Result<Option<String>, Problem> {
        let (kind, digest) = (kind(outside.provider), self.digest_of(outside.provider, &outside.subject));
        let Some(person) = self.handles.holder(kind, &digest).await? else { return Ok(None) };
        let linked = match self.person(&person).await? {
            Some(found) => self.open_if(found.links.get(outside.provider.as_str()), "subject").await?,
            None => None,
        };
        if linked.as_deref() == Some(&outside.subject) {
            return Ok(Some(person));
        }
        // Somebody unlinked it, or was erased, and was interrupted.
        self.handles.release(kind, &digest, &person).await?;
        Ok(None)
    }

    async fn let_in(&self, person: &str, provider: Provider, from: &Origin) -> Result<Arrived, Problem> {
        let row = self.credentials.of(person).await?;
        if row.is_some_and(|row| row.totp_enabled) {
            let continuation = crate::crypto::secret("aoc_");
            let kept = NewCode {
                digest: self.digests.code.digest(continuation.as_bytes()),
                purpose: CONTINUE,
                person: Some(person.to_owned()),
                detail: json!({ "provider": provider.as_str() }),
                lifetime_seconds: CONTINUE_SECONDS,
            };
            self.codes.keep(&kept).await?;
            return Ok(Arrived::Asked { continuation });
        }
        let amr = vec![provider.as_str().to_owned()];
        Ok(Arrived::In(Box::new(self.open_session(self.opening(person.to_owned(), amr).await?, from).await?)))
    }

    /// Makes an account for somebody whom nobody knows here.
    async fn enter_from(&self, outside: &Outside) -> Result<String, Problem> {
        let title = outside.provider.title();
        let Some((email, true)) = &outside.email else {
            let detail = format!(
                "{title} does not vouch for your e-mail address. Confirm it there, or register here and link {title} then."
            );
            return Err(Problem::new(403, "email_not_verified", detail));
        };
        let person = clock::fresh_id("usr_");
        let (kind, digest) = (kind(outside.provider), self.digest_of(outside.provider, &outside.subject));
        if self.claim(kind, &digest, &person).await?.is_err() {
            return Err(Problem::busy("An account is being made for you right now.", 1_000));
        }
        let address = self.digests.email.digest(email.normal().as_bytes());
        if self.claim(Kind::Email, &address, &person).await?.is_err() {
            self.handles.release(kind, &digest, &person).await?;
            let detail = format!(
                "There is an account with your e-mail address. Sign in to it (set a new password if need be), and link \
                 {title} there: `POST /v1/me/links/{}`.",
                outside.provider.as_str()
            );
            return Err(Problem::new(409, "account_exists", detail));
        }
        self.credentials.enrol(&person, None).await?;
        let name = outside.name.as_deref().map(str::trim).filter(|name| {
            !name.is_empty() && name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control)
        });
        let register = Register {
            person: events::person::Registered {
                email: self.seal(&person, "email", email.typed()).await?,
                username: None,
                name: match name {
                    Some(name) => Some(self.seal(&person, "name", name).await?),
                    None => None,
                },
                method: outside.provider.as_str().to_owned(),
            },
            link: Some(events::person::IdentityLinked {
                provider: outside.provider.as_str().to_owned(),
                subject: self.seal(&person, "subject", &outside.subject).await?,
            }),
            email_confirmed: true,
        };
        self.record(&person, "register", &register, &format!("{person}.register")).await?;
        self.handles.hold(Kind::Email, &address, &person).await?;
        self.handles.hold(kind, &digest, &person).await?;
        Ok(person)
    }

    /// Whoever did not do it themselves should know.
    async fn tell_of_link(&self, person: &str, found: &Person, provider: Provider, what: &str) -> Result<(), Problem> {
        let Some(email) = self.open(&found.email, "email").await?.and_then(|text| Email::parse(&text).ok()) else {
            return Ok(());
        };
        let title = provider.title();
        let text = format!(
            "A {title} account {what} for your Airstream account.\n\n\
             If it was not you who did that, set a new password and look at your sessions.\n"
        );
        let subject = format!("Your {title} account {what}");
        self.mail(person, email.typed(), "account-link", &subject, &text).await
    }
}
