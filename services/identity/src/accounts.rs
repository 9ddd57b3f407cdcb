//! What people do about their accounts: each file here is one thing, from what was typed to what is answered.
//!
//! Facts become events through the deciders; what must be decided under a lock is decided in Postgres first
//! (`docs/adr/0020-what-of-identity-is-history.md`).

mod api_keys;
mod departure;
mod devices;
mod email;
mod handles;
mod invites;
mod login;
mod outside;
mod passwords;
mod profile;
mod proof;
mod register;
mod sessions;
mod sweep;
mod tenancy;
mod tenants;
mod totp;
mod tries;

use std::sync::Arc;
use std::time::Duration;

use kernel::{CommandId, PrincipalId, Problem, Sealed, StreamName};
use projections::Database;
use projections::identity::{ApiKeys, Codes, Credentials, Devices, Handles, Invites, Sessions};
use projections::mail::Outbox;
use runtime::{Answer, Commands, Executor, Request};
use serde::Serialize;
use vault::{Digester, MasterKey, Opened, Vault, VaultError};

use crate::access::Memory;
use crate::oauth::Providers;
use crate::password::Hasher;
use crate::person::{People, Person, State};
use crate::refresh::RefreshTokens;
use crate::signing::Signing;

pub use api_keys::{KeyView, MAX_EXPIRES_DAYS, MAX_OVERLAP_SECONDS, MadeKey, NewKey};
pub use departure::Departure;
pub(crate) use departure::{Came, ROUND_SECONDS, Return, name_of};
pub use devices::{Asked, Asking, Deciding, Waiting};
pub use invites::{InviteView, Invited};
pub use login::{Credential, LoggedIn};
pub use outside::{Arrived, Continuation};
pub use profile::{Me, ProfileEdit};
pub(crate) use proof::Enough;
pub use proof::Proof;
pub use register::Registration;
pub use sessions::SessionView;
pub use sweep::sweep;
pub(crate) use tenancy::stream_of as tenant_stream;
pub use tenants::{MemberView, TenantView};
pub use totp::Setup;

/// Whose streams people are: a tenant that nobody can make or join.
pub const PLATFORM: &str = "airstream";

/// How long things last.
#[derive(Debug, Clone)]
pub struct Lifetimes {
    /// A session, however often it is refreshed.
    pub session: Duration,
    /// A session that is not used.
    pub idle: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { session: Duration::from_secs(30 * 86_400), idle: Duration::from_secs(7 * 86_400) }
    }
}

/// What [`Accounts`] are made of.
pub struct Parts {
    /// Takes commands, here or where their shard is.
    pub commands: Arc<dyn Commands>,
    /// Reads folded streams.
    pub executor: Executor,
    /// For state under locks.
    pub database: Database,
    /// Wraps all other keys.
    pub master: MasterKey,
    /// Seals and opens texts.
    pub vault: Vault,
    /// Passwords.
    pub hasher: Hasher,
    /// Access tokens.
    pub signing: Arc<Signing>,
    /// Mail.
    pub outbox: Outbox,
    /// Who vouches for people elsewhere.
    pub providers: Providers,
    /// How long things last.
    pub lifetimes: Lifetimes,
}

/// Accounts of people. Cheap to clone.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

/// What [`Accounts`] share.
pub struct Inner {
    pub(crate) commands: Arc<dyn Commands>,
    pub(crate) executor: Executor,
    pub(crate) database: Database,
    pub(crate) master: MasterKey,
    pub(crate) vault: Vault,
    pub(crate) hasher: Hasher,
    pub(crate) signing: Arc<Signing>,
    pub(crate) outbox: Outbox,
    pub(crate) providers: Providers,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) handles: Handles,
    pub(crate) credentials: Credentials,
    pub(crate) sessions: Sessions,
    pub(crate) codes: Codes,
    pub(crate) invites: Invites,
    pub(crate) api_keys: ApiKeys,
    pub(crate) devices: Devices,
    pub(crate) refresh: RefreshTokens,
    pub(crate) digests: Digests,
    pub(crate) memory: Memory,
}

/// Keyed hashes, one per purpose.
pub(crate) struct Digests {
    pub(crate) email: Digester,
    pub(crate) username: Digester,
    pub(crate) subject: Digester,
    pub(crate) code: Digester,
    pub(crate) attempt: Digester,
    /// Secrets of API keys, to find them by.
    pub(crate) api_key: Digester,
    /// What a caller may get a second time, because their first answer was lost, follows from their request.
    pub(crate) derived: Digester,
}

impl std::ops::Deref for Accounts {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Accounts {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { commands, executor, database, master, vault, hasher, signing, outbox, providers, lifetimes } =
            parts;
        Self(Arc::new(Inner {
            handles: Handles::new(&database),
            credentials: Credentials::new(&database),
            sessions: Sessions::new(&database, lifetimes.idle.as_secs_f64()),
            codes: Codes::new(&database),
            invites: Invites::new(&database),
            api_keys: ApiKeys::new(&database),
            devices: Devices::new(&database),
            refresh: RefreshTokens::new(&master),
            digests: Digests {
                email: master.digester("email"),
                username: master.digester("username"),
                subject: master.digester("subject"),
                code: master.digester("code"),
                attempt: master.digester("attempt"),
                api_key: master.digester("api key"),
                derived: master.digester("derived secret"),
            },
            memory: Memory::default(),
            master,
            commands,
            executor,
            database,
            vault,
            hasher,
            signing,
            outbox,
            providers,
            lifetimes,
        }))
    }
}

/// The stream of a person.
pub(crate) fn stream_of(person: &str) -> Result<StreamName, Problem> {
    Ok(StreamName::new(PLATFORM, events::person::CATEGORY, person)?)
}

impl Inner {
    /// Records what happened to a person. The same `id` again changes nothing.
    pub(crate) async fn record(
        &self,
        person: &str,
        command: &str,
        body: &impl Serialize,
        id: &str,
    ) -> Result<Answer, Problem> {
        let body = serde_json::to_vec(body).map_err(|_| Problem::malformed("This cannot be written as JSON."))?;
        let stream = stream_of(person)?;
        // Who they are about is who did it: the audit says so.
        let request = Request { principal: PrincipalId::new(person)?, ..Request::internal(stream, command, body) };
        self.commands.execute(request.with_id(CommandId::new(id)?)).await
    }

    /// A person, as their own stream says now; `None`: never registered, or erased.
    pub(crate) async fn person(&self, person: &str) -> Result<Option<Person>, Problem> {
        Ok(match self.state(person).await? {
            State::Registered(person) => Some(*person),
            State::Unknown | State::Erased => None,
        })
    }

    pub(crate) async fn state(&self, person: &str) -> Result<State, Problem> {
        Ok(self.executor.inspect::<People>(&stream_of(person)?).await?.state)
    }

    /// As [`Inner::person`], for whom a token says is there.
    pub(crate) async fn existing(&self, person: &str) -> Result<Person, Problem> {
        let found = self.person(person).await?;
        found.ok_or_else(|| Problem::new(410, "erased", "This account was erased."))
    }

    /// Seals a text about a person.
    pub(crate) async fn seal(&self, person: &str, field: &str, text: &str) -> Result<Sealed, Problem> {
        self.vault.seal(person, field, text).await.map_err(unsealed)
    }

    /// Opens a text; `None`: its person was erased.
    pub(crate) async fn open(&self, sealed: &Sealed, field: &str) -> Result<Option<String>, Problem> {
        self.vault.open(sealed, field).await.map(Opened::text).map_err(unsealed)
    }

    pub(crate) async fn open_if(&self, sealed: Option<&Sealed>, field: &str) -> Result<Option<String>, Problem> {
        match sealed {
            None => Ok(None),
            Some(sealed) => Ok(self.open(sealed, field).await?.filter(|text| !text.is_empty())),
        }
    }
}

/// The vault's no as a caller gets it.
pub(crate) fn unsealed(error: VaultError) -> Problem {
    match error {
        VaultError::Keyring(error) => {
            tracing::warn!(error = %error, "keys of people");
            Problem::unavailable("Personal data cannot be read right now.", 1_000)
        }
        VaultError::Erased { .. } => Problem::new(410, "erased", "This account was erased."),
        VaultError::Unreadable { .. } => {
            tracing::error!(error = %error, "personal data cannot be opened");
            Problem::new(500, "unreadable", "Personal data of ours cannot be opened; it has been logged.")
        }
    }
}
