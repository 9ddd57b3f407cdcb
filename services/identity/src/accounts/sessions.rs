//! Going on with a session, and ending it.

use kernel::{Problem, Timestamp};
use projections::identity::Refreshed;
use runtime::clock;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Accounts, Inner, LoggedIn, Me};
use rest::Origin;

/// A session as its owner sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SessionView {
    /// Its id.
    #[schema(example = "ses_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub id: String,
    /// Whether it is the one that asks.
    pub current: bool,
    /// Where it was opened.
    #[schema(example = "203.0.113.7")]
    pub address: Option<String>,
    /// By what program.
    #[schema(example = "Mozilla/5.0 (X11; Linux x86_64)")]
    pub device: Option<String>,
    /// How its owner showed who they are (RFC 8176).
    #[schema(example = json!(["pwd"]))]
    pub amr: Vec<String>,
    /// The tenant that is worked in.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub tenant: Option<String>,
    /// When it was opened.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last refreshed.
    #[schema(value_type = String, format = DateTime)]
    pub last_used_at: Timestamp,
    /// When it ends, however often it is refreshed.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

fn over() -> Problem {
    Problem::new(401, "session_over", "This session is over; log in again.")
}

impl Accounts {
    /// Gives out the next tokens of a session.
    ///
    /// # Errors
    /// 401 `session_over`, 503.
    pub async fn refresh(&self, token: &str, from: &Origin) -> Result<LoggedIn, Problem> {
        let read = self.refresh.read(token.trim()).ok_or_else(over)?;
        // Whatever may fail comes first: a token that is spent for nothing looks stolen when it comes again.
        let ready = self.ready(&read.session).await?;
        match self.sessions.refresh(&read.session, read.counter).await? {
            Refreshed::Over => Err(over()),
            Refreshed::Reused { person } => {
                tracing::warn!(session = read.session, "a refresh token came twice; its session has ended");
                self.ended(&person, std::slice::from_ref(&read.session));
                let origin = json!({ "address": from.address, "agent": from.agent });
                let origin = self.seal(&person, "origin", &origin.to_string()).await?;
                let reused = events::person::RefreshReused { session: read.session.clone(), origin };
                self.record(&person, "report-reuse", &reused, &format!("{}.reused", read.session)).await?;
                Err(over())
            }
            Refreshed::Current { amr, auth_time, counter, .. } => {
                let (tenant, user) = ready.ok_or_else(over)?;
                self.tokens(&read.session, counter, amr, auth_time, tenant, user)
            }
        }
    }

    /// Ends the session that a token belongs to, be it a refresh or an access token. A token that is none ends nothing, and
    /// nobody is told.
    ///
    /// # Errors
    /// 503.
    pub async fn log_out(&self, token: &str) -> Result<(), Problem> {
        let refresh = self.refresh.read(token.trim()).map(|read| read.session);
        let session = refresh.or_else(|| self.signing.verify(token.trim()).ok().map(|claims| claims.sid));
        let Some(session) = session else { return Ok(()) };
        match self.sessions.holder(&session).await? {
            Some(person) => self.end(&person, &session, "logout").await.map(drop),
            None => Ok(()),
        }
    }

    /// Chooses the tenant that a session works in, and gives an access token for it.
    ///
    /// # Errors
    /// 403 `not_a_member`, 401 `session_over`, 503.
    pub async fn choose_tenant(&self, person: &str, session: &str, tenant: Option<&str>) -> Result<String, Problem> {
        let tenant = match tenant {
            Some(tenant) => Some(self.member_of(person, tenant).await?),
            None => None,
        };
        let chosen = self.sessions.choose(person, session, tenant.as_deref()).await?;
        let (amr, auth_time) = chosen.ok_or_else(over)?;
        Ok(self.access_token(person, session, amr, auth_time, tenant))
    }

    /// The sessions of a person that go on.
    ///
    /// # Errors
    /// 503.
    pub async fn sessions_of(&self, person: &str, current: &str) -> Result<Vec<SessionView>, Problem> {
        let mut views = Vec::new();
        for row in self.sessions.of(person).await? {
            let origin = self.open(&row.origin, "origin").await?.unwrap_or_default();
            let origin: serde_json::Value = serde_json::from_str(&origin).unwrap_or_default();
            let part = |name: &str| origin.get(name).and_then(|part| part.as_str()).map(str::to_owned);
            views.push(SessionView {
                current: row.session == current,
                id: row.session,
                address: part("address").filter(|text| !text.is_empty()),
                device: part("agent").filter(|text| !text.is_empty()),
                amr: row.amr,
                tenant: row.tenant,
                created_at: row.created_at,
                last_used_at: row.seen_at,
                expires_at: row.expires_at,
            });
        }
        Ok(views)
    }
}

impl Inner {
    /// What the next tokens of a session say: the tenant that is worked in, and who it is. What has changed since the last time
    /// counts now: whoever was removed works in no tenant. `None`: it is over.
    async fn ready(&self, session: &str) -> Result<Option<(Option<String>, Me)>, Problem> {
        let Some((person, tenant)) = self.sessions.working_in(session).await? else { return Ok(None) };
        let tenant = self.still_member_of(&person, tenant.as_deref()).await?;
        Ok(Some((tenant, self.me(&person).await?)))
    }

    /// Sessions of a person have ended: here it counts at once. Their connections are cut also when the log, by which everybody
    /// else hears of it, cannot be written and nobody asks again.
    pub(crate) fn ended(&self, person: &str, sessions: &[String]) {
        for session in sessions {
            self.memory.sessions.forget(session.as_str());
        }
        if !sessions.is_empty() {
            self.memory.lessen(person);
        }
    }

    /// Ends a session of a person. `false`: there was none.
    pub(crate) async fn end(&self, person: &str, session: &str, reason: &str) -> Result<bool, Problem> {
        let ended = self.sessions.end(person, session, reason).await?;
        self.ended(person, &[session.to_owned()]);
        // Recorded also when it had ended before: whoever ended it may have been interrupted here.
        let body = json!({ "session": session, "reason": reason });
        self.record(person, "end-session", &body, &format!("{session}.end")).await?;
        Ok(ended)
    }

    /// Takes back what would open sessions of a person that nobody sees yet: devices that were let in and have not come, and
    /// sign-ins that wait for a second factor.
    pub(crate) async fn withdraw(&self, person: &str) -> Result<(), Problem> {
        self.devices.withdraw(person).await?;
        Ok(self.codes.void(person, super::outside::CONTINUE).await?)
    }

    /// Ends all sessions of a person, but perhaps one. Returns how many.
    pub(crate) async fn end_all(&self, person: &str, keep: Option<&str>, reason: &str) -> Result<usize, Problem> {
        self.withdraw(person).await?;
        let ended = self.sessions.end_all(person, keep, reason).await?;
        self.ended(person, &ended);
        let body = json!({ "keep": keep, "reason": reason });
        self.record(person, "end-sessions", &body, &clock::fresh_id("cmd_")).await?;
        Ok(ended.len())
    }
}

impl Accounts {
    /// Ends one session of a person.
    ///
    /// # Errors
    /// 404 when it is not one of theirs, 503.
    pub async fn revoke(&self, person: &str, session: &str) -> Result<(), Problem> {
        let known = self.sessions.holder(session).await?.is_some_and(|holder| holder == person);
        match known {
            true => {
                // Whose session it was may have let a device in with it.
                self.withdraw(person).await?;
                self.end(person, session, "revoked").await.map(drop)
            }
            false => Err(Problem::not_found("You have no such session, or it is over already.")),
        }
    }

    /// Ends all sessions of a person, but perhaps one.
    ///
    /// # Errors
    /// 503.
    pub async fn revoke_all(&self, person: &str, keep: Option<&str>) -> Result<usize, Problem> {
        self.end_all(person, keep, "revoked").await
    }
}
