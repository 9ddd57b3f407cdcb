//! The doors on NATS. They stand in the tenants' account, which shares no subject with the platform's own: whoever comes in
//! there sees our subscriptions and nothing of what is behind them. Somebody else's server may have no such account; then
//! they stand in the platform's, and its configuration is all that says who may do what.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gateway::limits::{Limiter, limited};
use nats::{Connection, Connections, Credentials, Signer, WorkQueue, topology};
use rest::Access;
use runtime::lease::Leases;
use runtime::{Commands, Log};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use workflows::work::WorkDoor;

use super::Addresses;

/// The way into the tenants' account.
#[derive(Clone)]
pub(crate) struct Tenants {
    /// The account's name.
    pub(crate) account: String,
    /// Who may do everything there.
    pub(crate) door: Credentials,
    /// `None` where nobody comes in who is not in the server's configuration.
    pub(crate) callout: Option<Callout>,
}

/// Where servers ask who somebody is, and the key that vouches for the answers.
#[derive(Clone)]
pub(crate) struct Callout {
    pub(crate) login: Credentials,
    pub(crate) seed: String,
}

/// How long somebody stays connected without being asked about again. Who loses rights is cut off at once.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// The same where nobody can be cut off, for want of a user of the system account.
const LONGEST_UNWATCHED: Duration = Duration::from_secs(600);

/// What the doors lead to.
pub(super) struct Bus<'a> {
    pub(super) addresses: &'a Addresses,
    /// In the platform's account.
    pub(super) connection: &'a Connection,
    pub(super) log: &'a Arc<dyn Log>,
    pub(super) work: &'a WorkDoor,
    pub(super) commands: &'a Arc<dyn Commands>,
    pub(super) access: &'a Arc<dyn Access>,
    pub(super) leases: &'a Leases,
    pub(super) limiter: Option<&'a Arc<Limiter>>,
    pub(super) tasks: &'a TaskTracker,
    pub(super) stop: &'a CancellationToken,
}

impl Bus<'_> {
    /// Opens all of them.
    pub(super) async fn open(&self) -> anyhow::Result<()> {
        let door = match &self.addresses.tenants {
            None => self.connection.clone(),
            Some(tenants) => self.open_to(tenants).await?,
        };
        let ask = gateway::bus::commands(Arc::clone(self.commands), Arc::clone(self.access));
        let ask = limited(self.limiter, ask);
        let asking = nats::serve(&door, "cmd.>", ask, self.stop.clone()).await.context("the bus door cannot open")?;
        let tasks = limited(self.limiter, self.work.clone().handle(Arc::clone(self.access)));
        let working =
            nats::serve(&door, "work.>", tasks, self.stop.clone()).await.context("the door for workers cannot open")?;
        self.tasks.spawn(async move { drop(tokio::join!(asking, working)) });
        self.tasks.spawn(gateway::queue::run(
            self.queue(),
            self.leases.lease(gateway::queue::LEASE),
            Arc::clone(self.commands),
            Arc::clone(self.access),
            self.stop.clone(),
        ));
        Ok(())
    }

    fn queue(&self) -> WorkQueue {
        WorkQueue::new(self.connection.clone(), topology::COMMANDS)
    }

    /// What there is for tenants only: the way into the queue, the live feed, and who may come in.
    async fn open_to(&self, tenants: &Tenants) -> anyhow::Result<Connection> {
        let url = &self.addresses.nats_url;
        let door = Connection::open(url, &tenants.door, "airstream doors")
            .await
            .with_context(|| format!("the user of the tenants' account is not let in by NATS at {url}"))?;
        let lease = self.leases.lease(gateway::queue::LEASE);
        self.tasks.spawn(gateway::intake::run(
            door.clone(),
            self.queue(),
            self.limiter.cloned(),
            lease,
            self.stop.clone(),
        ));
        let lease = self.leases.lease(gateway::feed::LEASE);
        self.tasks.spawn(gateway::feed::run(Arc::clone(self.log), door.clone(), lease, self.stop.clone()));
        if let Some(callout) = &tenants.callout {
            self.answer_for(tenants, callout).await?;
        }
        Ok(door)
    }

    async fn answer_for(&self, tenants: &Tenants, callout: &Callout) -> anyhow::Result<()> {
        let url = &self.addresses.nats_url;
        let signer = Signer::new(&callout.seed, &tenants.account)?;
        let system = &self.addresses.system();
        let watched = !system.user.is_empty();
        if watched {
            // First: who is let in from here on can be cut off.
            let connections = Connections::open(url, system, &tenants.account, &tenants.door.user)
                .await
                .with_context(|| format!("the user of the system account is not let in by NATS at {url}"))?;
            self.tasks.spawn(gateway::cut::run(connections, Arc::clone(self.access), self.stop.clone()));
        }
        let asked = Connection::open(url, &callout.login, "airstream callout")
            .await
            .with_context(|| format!("the user of the authorisation callout is not let in by NATS at {url}"))?;
        let longest = if watched { LONGEST } else { LONGEST_UNWATCHED };
        let admit = gateway::admit(Arc::clone(self.access), longest);
        let answering = nats::serve_callout(&asked, signer, admit, self.stop.clone()).await;
        self.tasks.spawn(answering.context("the authorisation callout cannot be answered")?);
        Ok(())
    }
}
