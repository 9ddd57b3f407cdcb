//! Who holds a token, and what they may do now: asked with every request, answered out of memory nearly always.
//!
//! What is remembered are signatures, which do not change, and sessions, tenants and keys, which [`crate::follow`] forgets as
//! soon as the log says that they changed.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use kernel::{PrincipalId, Problem, TenantId, Timestamp};
use projections::identity::{Kind, Opens};
use rest::{Access, Holder, Level, Signed};
use runtime::clock;
use tokio::sync::broadcast;

use crate::accounts::Accounts;
use crate::api_key::ApiSecret;
use crate::names::Email;
use crate::recent::Recent;
use crate::tenant::Tenant;
use crate::token::{Claims, Refused};
use crate::uses::Uses;
use events::tenant::Role;

const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// What was looked up a moment ago.
pub(crate) struct Memory {
    /// Claims of tokens whose signature was right, by a hash of the token.
    pub(crate) tokens: Recent<Vec<u8>, Arc<Claims>>,
    /// Whose a session is, as long as it goes on.
    pub(crate) sessions: Recent<String, Option<String>>,
    /// What secrets of API keys open, by their keyed hash.
    pub(crate) keys: Recent<Vec<u8>, Arc<Opens>>,
    /// When keys were used.
    pub(crate) uses: Uses,
    /// Open tenants.
    pub(crate) tenants: Recent<TenantId, Option<Arc<Tenant>>>,
    /// Who runs the platform.
    pub(crate) operators: Recent<String, bool>,
    pub(crate) lessened: broadcast::Sender<PrincipalId>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            tokens: Recent::new(REMEMBERED),
            sessions: Recent::new(REMEMBERED),
            keys: Recent::new(REMEMBERED),
            uses: Uses::new(REMEMBERED),
            tenants: Recent::new(REMEMBERED),
            operators: Recent::new(REMEMBERED),
            lessened: broadcast::channel(1_024).0,
        }
    }
}

impl Memory {
    /// Anything may have changed.
    pub(crate) fn forget_all(&self) {
        self.sessions.forget_all();
        self.keys.forget_all();
        self.tenants.forget_all();
        self.operators.forget_all();
    }

    /// Sessions of somebody have ended.
    pub(crate) fn forget_sessions_of(&self, person: &str) {
        self.sessions.forget_where(|holder| holder.as_deref() == Some(person));
        self.lessen(person);
    }

    /// A key has other secrets, or none.
    pub(crate) fn forget_key(&self, key: &str) {
        self.keys.forget_where(|opens| opens.key == key);
    }

    /// A principal may do less than before.
    pub(crate) fn lessen(&self, principal: &str) {
        if let Ok(principal) = PrincipalId::new(principal) {
            // Nobody may be listening.
            let _ = self.lessened.send(principal);
        }
    }
}

/// People and programs.
pub struct PlatformAccess {
    accounts: Accounts,
    operators: Vec<Email>,
}

fn unauthenticated(detail: &str) -> Problem {
    Problem::new(401, "unauthenticated", detail)
}

/// What a role may do.
#[must_use]
pub fn level(role: Role) -> Level {
    match role {
        Role::Viewer => Level::Read,
        Role::Member => Level::Write,
        Role::Admin => Level::Admin,
        Role::Owner => Level::Own,
    }
}

impl PlatformAccess {
    /// `operators`: whoever holds one of these addresses, confirmed, runs the platform.
    #[must_use]
    pub fn new(accounts: Accounts, operators: Vec<Email>) -> Self {
        Self { accounts, operators }
    }

    async fn person(&self, token: &str) -> Result<Signed, Problem> {
        let claims = self.claims(token).await?;
        let (person, session) = (&claims.sub, &claims.sid);
        let accounts = &self.accounts;
        let holder = async { accounts.sessions.holder(session).await };
        let holder = accounts.memory.sessions.get(session.as_str(), holder).await?;
        if holder.as_ref() != Some(person) {
            return Err(unauthenticated("The session of this token is over; log in again."));
        }
        let tenant = claims.tid.as_deref().map(TenantId::new).transpose()?;
        let level = match &tenant {
            None => None,
            Some(tenant) => match self.role(tenant, person).await? {
                Some(role) => Some(level(role)),
                // The token outlives the membership; the session goes on without the tenant.
                None => {
                    let detail = "You are not a member of this token's tenant any more: `POST /v1/auth/tenant` gives another token.";
                    return Err(unauthenticated(detail));
                }
            },
        };
        let time = |seconds| Timestamp::from_timestamp(seconds, 0).unwrap_or_default();
        Ok(Signed {
            principal: PrincipalId::new(person)?,
            holder: Holder::Person {
                session: session.clone(),
                auth_time: time(claims.auth_time),
                amr: claims.amr.clone(),
            },
            tenant,
            level,
            scopes: None,
            operator: self.operates(person).await?,
            expires_at: Some(time(claims.exp)),
        })
    }

    /// A key acts for who made it: with their role as it is now, narrowed by its own scopes.
    async fn program(&self, token: &str) -> Result<Signed, Problem> {
        let accounts = &self.accounts;
        let invalid = || unauthenticated("The API key is not valid: it is wrong, has expired, or was revoked.");
        let secret = ApiSecret::parse(token).ok_or_else(invalid)?;
        let digest = accounts.digests.api_key.digest(secret.reveal().as_bytes());
        // Only what opens something is remembered: a key that was just made counts at once.
        let look_up = async {
            let opens = accounts.api_keys.by_secret(&digest).await?.ok_or_else(invalid)?;
            // Erasing somebody takes a moment; their keys end before.
            accounts.person(&opens.owner).await?.ok_or_else(invalid)?;
            Ok::<_, Problem>(Arc::new(opens))
        };
        let opens = accounts.memory.keys.get(&digest, look_up).await?;
        if opens.expires_at <= clock::now() {
            return Err(invalid());
        }
        let tenant = TenantId::new(&opens.tenant)?;
        let Some(role) = self.role(&tenant, &opens.owner).await? else {
            return Err(unauthenticated("Whoever made this API key is not a member of its tenant any more."));
        };
        accounts.memory.uses.note(&opens.key);
        Ok(Signed {
            principal: PrincipalId::new(&opens.key)?,
            holder: Holder::Program,
            tenant: Some(tenant),
            level: Some(level(role)),
            scopes: Some(opens.scopes.iter().cloned().collect()),
            operator: false,
            expires_at: Some(opens.expires_at),
        })
    }

    async fn claims(&self, token: &str) -> Result<Arc<Claims>, Problem> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref().to_vec();
        let verified = async { self.accounts.signing.verify(token).map(Arc::new) };
        let verified = self.accounts.memory.tokens.get(&digest, verified).await;
        // A token that is remembered may have ended since.
        let current = verified.and_then(|claims| match claims.exp + 5 > clock::now().timestamp() {
            true => Ok(claims),
            false => Err(Refused::Expired),
        });
        current.map_err(|refused| match refused {
            Refused::Expired => unauthenticated("The token has expired: refresh it, or log in again."),
            // Which of the others it was helps only whoever made it up.
            _ => unauthenticated("The token is not valid."),
        })
    }

    async fn role(&self, tenant: &TenantId, person: &str) -> Result<Option<Role>, Problem> {
        Ok(self.tenant(tenant).await?.and_then(|found| found.members.get(person).copied()))
    }

    async fn tenant(&self, tenant: &TenantId) -> Result<Option<Arc<Tenant>>, Problem> {
        let look_up = async { self.accounts.tenant(tenant).await.map(|found| found.map(Arc::new)) };
        self.accounts.memory.tenants.get(tenant, look_up).await
    }

    async fn operates(&self, person: &str) -> Result<bool, Problem> {
        if self.operators.is_empty() {
            return Ok(false);
        }
        let accounts = &self.accounts;
        let look_up = async {
            for email in &self.operators {
                let digest = accounts.handle(Kind::Email, email.normal());
                let holder = accounts.handles.holder(Kind::Email, &digest).await?;
                if holder.as_deref() == Some(person) {
                    // They may have given it up and been interrupted: their own stream says what is theirs.
                    let found = accounts.person(person).await?.filter(|person| person.email_confirmed);
                    return match found {
                        Some(found) => Ok(accounts.current(&found, Kind::Email).await?.as_ref() == Some(&digest)),
                        None => Ok(false),
                    };
                }
            }
            Ok::<_, Problem>(false)
        };
        accounts.memory.operators.get(person, look_up).await
    }
}

#[async_trait]
impl Access for PlatformAccess {
    async fn bearer(&self, token: &str) -> Result<Arc<Signed>, Problem> {
        let signed = if ApiSecret::claims(token) { self.program(token).await } else { self.person(token).await };
        Ok(Arc::new(signed?))
    }

    async fn knows(&self, tenant: &TenantId) -> Result<bool, Problem> {
        Ok(self.tenant(tenant).await?.is_some())
    }

    fn lessened(&self) -> broadcast::Receiver<PrincipalId> {
        self.accounts.memory.lessened.subscribe()
    }
}
