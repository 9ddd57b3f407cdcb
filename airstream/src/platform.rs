//! The composition: the only place that knows every name. What stands here is what runs.

mod access;
mod bus;
mod demo;
mod durability;
mod fold;
mod identity;
mod leases;
mod mail;
mod metrics;
mod projections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::identity::caretaker::Caretaker;
use ::identity::keeper::Keeper;
use ::projections::commits::PgCommitIndex;
use ::projections::{Database, PgEffects, PgSnapshots, migrate};
use anyhow::Context;
use gateway::{HttpOptions, Parts};
use kernel::TenantId;
use nats::{Connection, Credentials, JetStreamLog, WorkQueue, topology};
use runtime::forward::Routed;
use runtime::lease::Leases;
use runtime::react::Reactor;
use runtime::{Commands, EffectStore, Executor, Log, Registry, SnapshotCache, react};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vault::MasterKey;
use workflows::reactor::Steps;
use workflows::work::{Tasks, WorkDoor};

use crate::config::Config;
use crate::roles::Roles;
use bus::Bus;

use self::identity::People;
pub(crate) use self::projections::refills;
pub(crate) use access::{READER, inbox, nats_doors, nats_users};
pub(crate) use bus::{Callout, Tenants};

/// Where the servers are and who we are there.
pub(crate) struct Addresses {
    pub(crate) nats_url: String,
    pub(crate) nats_user: String,
    pub(crate) nats_password: String,
    pub(crate) system_user: String,
    pub(crate) system_password: String,
    /// The account for everybody else; `None` on a server that has none.
    pub(crate) tenants: Option<Tenants>,
    pub(crate) postgres_url: String,
}

/// What nobody may know.
pub(crate) struct Secrets {
    /// Whoever has it operates a development stack; empty: nobody.
    pub(crate) token: String,
    /// Wraps all keys of people. The doors need it.
    pub(crate) master: Option<MasterKey>,
}

impl Addresses {
    /// The user of the system account; without a name where there is none.
    pub(crate) fn system(&self) -> Credentials {
        Credentials { user: self.system_user.clone(), password: self.system_password.clone() }
    }
}

/// What the start has got to.
pub(crate) enum Step {
    /// The database is at the newest migration.
    Migrated { applied: usize, total: usize },
    /// The streams are ready; what is worth knowing about them and about the server's durability.
    Topology { notices: Vec<String> },
    /// The HTTP door is open.
    Listening { http: SocketAddr },
    /// These roles have begun.
    Roles(Vec<&'static str>),
}

/// Everything that runs.
pub(crate) struct Platform {
    instance: String,
    http: Option<SocketAddr>,
    executor: Executor,
    database: Database,
    /// Ends the doors: nothing new is taken.
    doors: CancellationToken,
    door_tasks: TaskTracker,
    /// Ends the consumers, once nobody waits for them any more.
    consumers: CancellationToken,
    consumer_tasks: TaskTracker,
    /// Ends the keeping of leases, when nothing is done under them any more.
    leases: CancellationToken,
    lease_tasks: TaskTracker,
}

/// What the doors lead to.
struct Doors<'a> {
    config: &'a Config,
    addresses: &'a Addresses,
    token: &'a str,
    people: &'a People,
    connection: &'a Connection,
    log: &'a Arc<dyn Log>,
    work: &'a WorkDoor,
    /// Executes here or where the shard is.
    commands: &'a Arc<dyn Commands>,
    leases: &'a Leases,
}

/// Deciders, one line each.
fn registry() -> Registry {
    Registry::new()
        .with::<gateway::decider::Inbox>()
        .with::<workflows::definition::Workflow>()
        .with_prepared::<workflows::run::Run>(workflows::start::Resolve::default())
        .with::<::identity::person::People>()
        .with::<::identity::tenant::Tenants>()
        .with::<::identity::key::Keys>()
        .with_snapshots::<workflows::definition::Workflow>()
        .with_snapshots::<workflows::run::Run>()
        .with_snapshots::<::identity::person::People>()
        .with_snapshots::<::identity::tenant::Tenants>()
}

impl Platform {
    /// Migrates, prepares the streams, starts what the roles say.
    pub(crate) async fn start(
        config: &Config,
        addresses: &Addresses,
        roles: Roles,
        demo: bool,
        secrets: &Secrets,
        on_step: &(dyn Fn(Step) + Send + Sync),
    ) -> anyhow::Result<Self> {
        // A door that cannot open should say so before anything else has moved.
        let listener = match roles.api {
            true => {
                let bound = TcpListener::bind(&config.http.bind).await;
                Some(bound.with_context(|| format!("could not listen on {} for HTTP", config.http.bind))?)
            }
            false => None,
        };
        let recorder = metrics::recorder()?;
        let database =
            Database::open(&addresses.postgres_url, config.postgres.max_connections).await.with_context(|| {
                let address = crate::config::without_password(&addresses.postgres_url);
                format!("PostgreSQL at {address} is needed for reading and for recording effects")
            })?;
        let migrated =
            migrate(database.pool()).await.context("could not bring the database to the newest migration")?;
        on_step(Step::Migrated { applied: migrated.applied, total: migrated.total });
        if let Some(backup) = ::projections::backup::unfinished(database.pool()).await? {
            anyhow::bail!(
                "a restore of {backup} was begun here and did not come to its end: let it finish, or ask for it again \
                 with `airstream restore`"
            );
        }

        let credentials = Credentials { user: addresses.nats_user.clone(), password: addresses.nats_password.clone() };
        let connection = Connection::open(&addresses.nats_url, &credentials, "airstream")
            .await
            .with_context(|| format!("NATS at {} is needed for the log", addresses.nats_url))?;
        let drift = topology::ensure(&connection, config.nats.replicas).await?;
        let mut notices: Vec<String> = drift.iter().map(ToString::to_string).collect();
        notices.extend(durability::notice(config, addresses).await?);
        on_step(Step::Topology { notices });

        let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(connection.clone()));
        let identity = log.identity().await?;
        let index = Arc::new(PgCommitIndex::new(&database, identity.clone()));
        let executor = Executor::start_with_snapshots(
            Arc::clone(&log),
            index,
            registry(),
            Some(SnapshotCache::new(
                Arc::new(PgSnapshots::new(&database)),
                identity,
                fold::HASH.to_owned(),
                config.executor.snapshot_every_commits,
            )),
            executor_options(config),
        );
        let mut platform = Self {
            instance: String::new(),
            http: None,
            executor: executor.clone(),
            database: database.clone(),
            doors: CancellationToken::new(),
            door_tasks: TaskTracker::new(),
            consumers: CancellationToken::new(),
            consumer_tasks: TaskTracker::new(),
            leases: CancellationToken::new(),
            lease_tasks: TaskTracker::new(),
        };
        let wants = leases::wants(config, roles, addresses.tenants.is_some());
        let leases = leases::keep(config, &database, wants, &platform.lease_tasks, &platform.leases);
        platform.instance = leases.instance().to_owned();
        let peers = Arc::new(nats::Peers::new(connection.clone()));
        let routed: Arc<dyn Commands> = Arc::new(Routed::new(executor.clone(), leases.clone(), peers));

        let queues = [("queue", topology::COMMANDS), ("work", topology::TASKS)]
            .map(|(door, stream)| (door, WorkQueue::new(connection.clone(), stream)));
        let sampling = metrics::sample(recorder, queues, database.clone(), platform.consumers.clone());
        platform.consumer_tasks.spawn(sampling);
        let mut begun = Vec::new();
        if roles.projector {
            projections::start(&database, &leases, &log, &platform.consumer_tasks, &platform.consumers);
            begun.push("projector");
        }
        let work = WorkQueue::new(connection.clone(), topology::TASKS);
        let work = WorkDoor::new(work, executor.clone(), Arc::clone(&routed), platform.doors.clone());
        let http = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let people = match (roles.api || roles.reactor, &secrets.master) {
            (false, _) => None,
            (true, None) => anyhow::bail!("doors and reactors need identity.master_key"),
            (true, Some(master)) => {
                let (database, commands) = (&database, &routed);
                let ground =
                    identity::Ground { config, master, database, executor: &executor, commands, log: &log, http };
                Some(People::new(ground).await?)
            }
        };
        if let Some(people) = people.as_ref().filter(|_| roles.reactor) {
            let tasks = Arc::new(Tasks::new(WorkQueue::new(connection.clone(), topology::TASKS)));
            let steps =
                Steps::new(executor.clone(), tasks, config.workflows.reach()).context("no HTTP client can be made")?;
            let store: Arc<dyn EffectStore> = Arc::new(PgEffects::new(database.clone()));
            let keeper = Keeper::new(&database, Arc::clone(&routed));
            platform.react(steps, &leases, &log, &store, &routed, config);
            platform.react(keeper, &leases, &log, &store, &routed, config);
            platform.react(Caretaker::new(people.privacy.clone()), &leases, &log, &store, &routed, config);
            begun.push("reactor");
        }
        if let Some((listener, people)) = listener.zip(people.as_ref()) {
            let doors = Doors {
                config,
                addresses,
                token: &secrets.token,
                people,
                connection: &connection,
                log: &log,
                work: &work,
                commands: &routed,
                leases: &leases,
            };
            platform.open_doors(listener, doors).await?;
            begun.push("api");
        }
        if demo {
            let tenant = TenantId::new(&config.development.tenant)?;
            demo::start(work, routed, tenant, config, &platform.door_tasks, &platform.doors)?;
            begun.push("demo workers");
        }
        if let Some(http) = platform.http {
            on_step(Step::Listening { http });
        }
        on_step(Step::Roles(begun));
        Ok(platform)
    }

    fn react<R: Reactor>(
        &self,
        reactor: R,
        leases: &Leases,
        log: &Arc<dyn Log>,
        store: &Arc<dyn EffectStore>,
        commands: &Arc<dyn Commands>,
        config: &Config,
    ) {
        self.consumer_tasks.spawn(react::run(
            reactor,
            leases.lease(&react::lease::<R>()),
            Arc::clone(log),
            Arc::clone(store),
            Arc::clone(commands),
            reactor_options(config),
            self.consumers.clone(),
        ));
    }

    async fn open_doors(&mut self, listener: TcpListener, doors: Doors<'_>) -> anyhow::Result<()> {
        let Doors { config, addresses, token, people, connection, log, work, commands, leases } = doors;
        let http = listener.local_addr()?;
        let access = people.start(config, token, log, &self.consumer_tasks, &self.consumers)?;
        let mailbox = mail::start(config, &people.outbox, leases, &self.consumer_tasks, &self.consumers)?;
        let here: Arc<dyn Commands> = Arc::new(self.executor.clone());
        let for_peers = nats::serve_peers(connection, leases.instance(), here, self.doors.clone());
        self.door_tasks.spawn(for_peers.await.context("the door for other instances cannot open")?);
        let limiter = config.limits.rates().map(|rates| {
            let budgets = Arc::new(::projections::budgets::Budgets::new(&self.database));
            gateway::limits::Limiter::start(&rates, budgets, self.doors.clone())
        });
        let bus = Bus {
            addresses,
            connection,
            log,
            work,
            commands,
            access: &access,
            leases,
            limiter: limiter.as_ref(),
            tasks: &self.door_tasks,
            stop: &self.doors,
        };
        bus.open().await?;

        self.http = Some(http);
        let parts = Parts {
            executor: self.executor.clone(),
            commands: Arc::clone(commands),
            log: Arc::clone(log),
            database: self.database.clone(),
            connection: connection.clone(),
            access,
            operations: Arc::new(projections::Operators::new(self.database.clone(), Arc::clone(log))),
            metrics: metrics::page(
                metrics::recorder()?,
                self.executor.clone(),
                connection.clone(),
                self.database.clone(),
            ),
            limiter,
            digester: people.digester.clone(),
            quotas: Arc::new(rest::Unmetered),
            services: [
                workflows::routes::router(Arc::clone(commands), self.database.clone()),
                ::identity::routes::router(people.accounts.clone()),
                ::identity::routes::privacy(people.privacy.clone()),
            ]
            .into_iter()
            .chain(mailbox)
            .collect(),
        };
        enough_files(config.http.max_connections);
        let options = HttpOptions {
            body_limit_bytes: config.http.body_limit_bytes,
            request_timeout: Duration::from_millis(config.http.request_timeout_ms),
            header_timeout: Duration::from_millis(config.http.header_timeout_ms),
            max_connections: config.http.max_connections,
            proxies: config.http.proxies(),
            browsers: config.http.browsers(),
        };
        let stop = self.doors.clone();
        self.door_tasks.spawn(gateway::serve(listener, parts, options, stop));
        Ok(())
    }

    /// What this instance calls itself among others.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Where HTTP is served.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Stops from the outside in: doors, then commands in hand, then consumers, so that everything taken is finished.
    pub(crate) async fn stop(self) {
        self.doors.cancel();
        self.door_tasks.close();
        if tokio::time::timeout(Duration::from_secs(10), self.door_tasks.wait()).await.is_err() {
            tracing::warn!("some requests were still being answered after ten seconds; going on without them");
        }
        self.consumers.cancel();
        self.consumer_tasks.close();
        if tokio::time::timeout(Duration::from_secs(10), self.consumer_tasks.wait()).await.is_err() {
            tracing::warn!("some effects were still being performed after ten seconds; they will be done again");
        }
        self.executor.close().await;
        self.leases.cancel();
        self.lease_tasks.close();
        self.lease_tasks.wait().await;
        self.database.close().await;
    }
}

/// Files and sockets of a process besides its connections of HTTP: its servers, its peers, its requests into the world.
const OTHER_FILES: u64 = 1_024;

/// Many systems let a process have 1,024 files unless it asks for more.
fn enough_files(connections: usize) {
    let wanted = OTHER_FILES.saturating_add(connections as u64);
    match crate::process::allow_files(wanted) {
        Ok(allowed) if allowed >= wanted => {}
        Ok(allowed) => tracing::warn!(allowed, wanted, "too few files may be open for http.max_connections"),
        Err(error) => tracing::warn!(%error, "how many files may be open cannot be told"),
    }
}

fn executor_options(config: &Config) -> runtime::Options {
    let executor = &config.executor;
    runtime::Options {
        queue_per_shard: executor.queue_per_shard,
        streams_per_shard: executor.streams_per_shard,
        cache_bytes_per_shard: executor.cache_bytes_per_shard,
        deadline: Duration::from_millis(executor.deadline_ms),
        conflict_retries: executor.conflict_retries,
        max_body_bytes: executor.max_body_bytes,
        ..runtime::Options::default()
    }
}

fn reactor_options(config: &Config) -> react::Options {
    react::Options {
        concurrency: config.reactor.concurrency,
        longest_retry: Duration::from_millis(config.reactor.longest_retry_ms),
        ..react::Options::default()
    }
}
