//! Who somebody is: accounts, access, and what follows the log for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gateway::DevelopmentAccess;
use identity::access::PlatformAccess;
use identity::accounts::{Accounts, Lifetimes, Parts};
use identity::names::Email;
use identity::oauth::{Github, Google, Providers};
use identity::password::Hasher;
use identity::privacy::Privacy;
use identity::signing::{Names, Signing};
use kernel::{PrincipalId, TenantId};
use projections::Database;
use projections::identity::PgKeyring;
use projections::mail::Outbox;
use rest::Access;
use runtime::{Commands, Executor, Log};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vault::{Digester, MasterKey, Vault};

use crate::config::{self, Config};

/// So long somebody waits for their password to be checked, when many others are checked at the same time.
const WAITING: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(86_400);

/// What identity stands on.
pub(super) struct Ground<'a> {
    pub(super) config: &'a Config,
    pub(super) master: &'a MasterKey,
    pub(super) database: &'a Database,
    pub(super) executor: &'a Executor,
    pub(super) commands: &'a Arc<dyn Commands>,
    pub(super) log: &'a Arc<dyn Log>,
    /// Where the doors are, if this instance has any.
    pub(super) http: Option<SocketAddr>,
}

/// The people of the platform, for doors and for reactors.
pub(super) struct People {
    pub(super) accounts: Accounts,
    pub(super) privacy: Privacy,
    pub(super) outbox: Outbox,
    /// For what is kept of requests.
    pub(super) digester: Digester,
    signing: Arc<Signing>,
}

/// Opens and seals what is personal.
fn vault(database: &Database, master: &MasterKey) -> Vault {
    Vault::new(master.clone(), Arc::new(PgKeyring::new(database)))
}

/// Who vouches for people elsewhere: those that know us.
fn providers(settings: &config::OAuth) -> Result<Providers, String> {
    let config::OAuth { google, github } = settings;
    let google = (!google.client_id.is_empty())
        .then(|| Google::new(&google.client_id, &google.client_secret, &google.issuer))
        .transpose()?;
    let github = (!github.client_id.is_empty())
        .then(|| {
            let config::Github { client_id, client_secret, authorize_url, token_url, api_url } = github;
            Github::new(client_id, client_secret, authorize_url, token_url, api_url)
        })
        .transpose()?;
    Ok(Providers { google, github })
}

impl People {
    pub(super) async fn new(ground: Ground<'_>) -> anyhow::Result<Self> {
        let Ground { config, master, database, executor, commands, log, http } = ground;
        let settings = &config.identity;
        let issuer = match (settings.public_url.as_str(), http) {
            ("", Some(http)) => format!("http://{http}"),
            // Who has no door gives out no token.
            ("", None) => "http://localhost".to_owned(),
            (url, _) => url.to_owned(),
        };
        let names = Names { audience: format!("{issuer}/v1"), issuer };
        let signing = Arc::new(Signing::load(database, master, names).await.context("access tokens cannot be signed")?);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let at_once = if settings.hashes_at_once == 0 { cores } else { settings.hashes_at_once };
        let vault = vault(database, master);
        let outbox = Outbox::new(database, vault.clone());
        let accounts = Accounts::new(Parts {
            commands: Arc::clone(commands),
            executor: executor.clone(),
            database: database.clone(),
            master: master.clone(),
            vault,
            hasher: Hasher::new(at_once, WAITING),
            signing: Arc::clone(&signing),
            outbox: outbox.clone(),
            providers: providers(&config.oauth).map_err(anyhow::Error::msg)?,
            lifetimes: Lifetimes { session: DAY * settings.session_days, idle: DAY * settings.idle_days },
        });
        let privacy = Privacy::new(accounts.clone(), Arc::clone(log));
        Ok(Self { accounts, privacy, outbox, digester: master.digester("idempotency"), signing })
    }

    /// Begins what follows the log and the clock for them, and says who may come in.
    pub(super) fn start(
        &self,
        config: &Config,
        token: &str,
        log: &Arc<dyn Log>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Arc<dyn Access>> {
        let accounts = &self.accounts;
        tasks.spawn(Arc::clone(&self.signing).keep(stop.clone()));
        tasks.spawn(identity::follow::follow(accounts.clone(), Arc::clone(log), stop.clone()));
        tasks.spawn(identity::uses::write(accounts.clone(), stop.clone()));
        tasks.spawn(identity::accounts::sweep(accounts.clone(), stop.clone()));
        let operators = config.identity.operators.iter().map(|text| Email::parse(text));
        let operators: Vec<Email> =
            operators.collect::<Result<_, _>>().map_err(|error| anyhow::anyhow!("identity.operators: {error}"))?;
        let people: Arc<dyn Access> = Arc::new(PlatformAccess::new(accounts.clone(), operators));
        let development = &config.development;
        let access = DevelopmentAccess::new(
            TenantId::new(&development.tenant)?,
            PrincipalId::new(&development.principal)?,
            token.to_owned(),
            people,
        );
        Ok(Arc::new(access))
    }
}
