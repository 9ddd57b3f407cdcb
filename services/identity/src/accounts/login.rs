//! Signing in by address or username. No answer, and no time that it takes, tells whether there is an account.

use kernel::{Problem, Timestamp};
use projections::identity::{Kind, NewSession};
use rest::Origin;
use runtime::clock;
use serde_json::json;

use super::{Accounts, Inner, Me};
use crate::names::Login;
use crate::password::Password;
use crate::person::MAX_SESSIONS;
use crate::refresh::RefreshToken;
use crate::token::{Claims, LIFETIME_SECONDS};

/// What somebody typed to sign in.
#[derive(Debug)]
pub struct Credential {
    /// Who they say they are; nothing that could be anybody is a wrong login like any other.
    pub login: Option<Login>,
    /// The password.
    pub password: Password,
    /// The code of an authenticator.
    pub totp: Option<String>,
    /// A recovery code in its place.
    pub recovery: Option<String>,
    /// The tenant to work in.
    pub tenant: Option<String>,
}

/// Somebody is signed in.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// For the next ten minutes.
    pub access_token: String,
    /// For the next access token.
    pub refresh_token: String,
    /// Seconds that the access token lasts.
    pub expires_in: i64,
    /// The tenant that is worked in.
    pub tenant: Option<String>,
    /// Who they are.
    pub user: Me,
}

fn wrong() -> Problem {
    Problem::new(401, "invalid_credentials", "The login or the password is wrong.")
}

impl Accounts {
    /// Signs in.
    ///
    /// # Errors
    /// 401 `invalid_credentials` or `second_factor_required`, 403 `email_not_confirmed` (after the right password only), 429,
    /// 503.
    pub async fn log_in(&self, credential: Credential, from: &Origin) -> Result<LoggedIn, Problem> {
        let who = match &credential.login {
            Some(Login::Email(email)) => email.normal().to_owned(),
            Some(Login::Username(name)) => name.normal().to_owned(),
            None => String::new(),
        };
        self.count_try("login", &who, from).await?;
        let kind = if matches!(credential.login, Some(Login::Username(_))) { Kind::Username } else { Kind::Email };
        let holder = self.handles.holder(kind, &self.handle(kind, &who)).await?;
        // The same questions and the same work for nobody.
        let person = holder.unwrap_or_else(|| "usr_nobody".to_owned());
        let row = self.credentials.of(&person).await?;
        let hash = row.as_ref().and_then(|row| row.password_hash.clone());
        if !self.hasher.verify(credential.password.clone(), hash.clone()).await? {
            return Err(wrong());
        }
        let Some((row, hash)) = row.zip(hash) else { return Err(wrong()) };
        let Some(found) = self.person(&person).await? else { return Err(wrong()) };
        if !found.email_confirmed {
            let detail = "Confirm your e-mail address first: `POST /v1/auth/verify-email/resend` sends another mail.";
            return Err(Problem::new(403, "email_not_confirmed", detail));
        }
        let mut amr = vec!["pwd".to_owned()];
        if row.totp_enabled {
            amr.extend(self.second_factor(&person, &row, &credential, from).await?);
        }
        self.forgive("login", &who, from).await?;
        if self.hasher.is_weak(&hash) {
            let better = self.hasher.hash(credential.password).await?;
            self.credentials.rehash(&person, &hash, &better).await?;
        }
        let opening = Opening {
            tenant: self.tenant_for(&person, credential.tenant.as_deref()).await?,
            person,
            session: None,
            amr,
            auth_time: clock::now(),
            password_number: Some(row.password_number),
        };
        self.open_session(opening, from).await
    }
}

/// A session to be opened.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Whose.
    pub(crate) person: String,
    /// Its id, for somebody who asks again with the same one until they are answered.
    pub(crate) session: Option<String>,
    /// How they have shown who they are.
    pub(crate) amr: Vec<String>,
    /// And when.
    pub(crate) auth_time: Timestamp,
    /// The tenant to work in.
    pub(crate) tenant: Option<String>,
    /// The password that they have shown, or had then: whoever comes after it was replaced does not come in.
    pub(crate) password_number: Option<u32>,
}

impl Inner {
    /// Opens a session for somebody who has shown who they are.
    ///
    /// # Errors
    /// 401 when the password was replaced meanwhile, 503.
    pub(crate) async fn open_session(&self, opening: Opening, from: &Origin) -> Result<LoggedIn, Problem> {
        let Opening { person, session, amr, auth_time, tenant, password_number } = opening;
        let comes_again = session.is_some();
        // First, because it may fail: a session that nobody hears of is of no use.
        let user = self.me(&person).await?;
        let session = session.unwrap_or_else(|| clock::fresh_id("ses_"));
        let origin = json!({ "address": from.address, "agent": from.agent });
        let origin = self.seal(&person, "origin", &origin.to_string()).await?;
        let new = NewSession {
            session: session.clone(),
            person: person.clone(),
            amr: amr.clone(),
            origin: origin.clone(),
            tenant: tenant.clone(),
            lifetime_seconds: self.lifetimes.session.as_secs_f64(),
            auth_time,
            password_number,
        };
        if !self.sessions.open(&new).await? {
            return Err(wrong());
        }
        let opened = events::person::SessionOpened { session: session.clone(), method: method(&amr), origin };
        if let Err(problem) = self.record(&person, "open-session", &opened, &format!("{session}.open")).await {
            if !comes_again {
                // Nobody has its tokens, and its owner would wonder what it is.
                let _ = self.sessions.end(&person, &session, "not_recorded").await;
            }
            return Err(problem);
        }
        self.ended(&person, &self.sessions.end_oldest(&person, &session, MAX_SESSIONS).await?);
        self.tokens(&session, 0, amr, auth_time, tenant, user)
    }

    /// The tokens of a session.
    pub(crate) fn tokens(
        &self,
        session: &str,
        counter: i64,
        amr: Vec<String>,
        auth_time: Timestamp,
        tenant: Option<String>,
        user: Me,
    ) -> Result<LoggedIn, Problem> {
        let refresh = self.refresh.sign(&RefreshToken { session: session.to_owned(), counter });
        let refresh_token =
            refresh.ok_or_else(|| Problem::new(500, "defect", "A session has an id of another kind."))?;
        let access_token = self.access_token(&user.id, session, amr, auth_time, tenant.clone());
        Ok(LoggedIn { access_token, refresh_token, expires_in: LIFETIME_SECONDS, tenant, user })
    }

    pub(crate) fn access_token(
        &self,
        person: &str,
        session: &str,
        amr: Vec<String>,
        auth_time: Timestamp,
        tenant: Option<String>,
    ) -> String {
        let names = self.signing.names();
        let now = clock::now().timestamp();
        self.signing.sign(&Claims {
            iss: names.issuer.clone(),
            aud: names.audience.clone(),
            sub: person.to_owned(),
            sid: session.to_owned(),
            tid: tenant,
            scope: None,
            jti: clock::fresh_id("tok_"),
            iat: now,
            exp: now + LIFETIME_SECONDS,
            auth_time: auth_time.timestamp(),
            amr,
        })
    }
}

/// How the history calls a way to sign in.
fn method(amr: &[String]) -> String {
    let has = |name: &str| amr.iter().any(|method| method == name);
    let name = match amr.first().map_or("", String::as_str) {
        "pwd" if has("otp") => "password+totp",
        "pwd" if has("recovery") => "password+recovery",
        "pwd" => "password",
        other => other,
    };
    name.to_owned()
}
