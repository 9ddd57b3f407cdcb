//! Where a measurement happens: servers of its own, or a place on somebody else's that holds nothing yet and holds
//! nothing afterwards.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use embedded::{Child, Stack};
use nats::{Connection, Credentials, JetStreamLog, topology};
use projections::{Database, migrate};
use runtime::Log;
use serde_json::{Map, Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tempfile::TempDir;

use super::{Common, Sync};
use crate::commands::Context;
use crate::config::{Config, Limits};
use crate::failure::{Failure, Outcome};
use crate::platform::Addresses;
use crate::{paths, up};

/// A limit that nobody comes near.
pub(super) const WIDE: &str = "100000000/60";

/// What is measured is the doors with their limits on; these are wide enough not to close them.
pub(super) fn widen(limits: &mut Limits) {
    for each in [&mut limits.address, &mut limits.user, &mut limits.tenant] {
        for limit in [&mut each.auth, &mut each.read, &mut each.write] {
            WIDE.clone_into(limit);
        }
    }
}

/// Servers, streams and a database without any history.
pub(super) struct Place {
    pub(super) config: Config,
    pub(super) addresses: Addresses,
    servers: Servers,
}

enum Servers {
    /// Dropped in this order: the servers, then their folder.
    Ours { stack: Box<Stack>, folder: TempDir, sync: Sync },
    /// `admin` is the address that was configured; our database is another one on the same server.
    Theirs { admin: String, database: String },
}

impl Place {
    /// Starts servers, or makes room on those that are configured.
    pub(super) async fn open(context: &Context<'_>, common: &Common) -> Outcome<Place> {
        let config = context.config(&[])?.config;
        let none_configured = config.nats.url.is_empty() && config.postgres.url.is_empty();
        if common.ephemeral || none_configured {
            Self::on_ours(config, common).await
        } else {
            Self::on_theirs(config, common).await
        }
    }

    async fn on_ours(mut config: Config, common: &Common) -> Outcome<Place> {
        // Not an `ephemeral` stack: that would wait for the disk nowhere.
        let folder = folder_on_the_measured_disk(&config)?;
        (config.nats.url, config.postgres.url) = (String::new(), String::new());
        config.stack.data_dir = Some(folder.path().join("data"));
        let options =
            embedded::Options { nats_sync_always: common.sync == Sync::Always, ..up::stack_options(&config, false)? };
        let stack = embedded::start(options, |_| {}).await?;
        let addresses = up::addresses(&config, &stack);
        Ok(Place { config, addresses, servers: Servers::Ours { stack: Box::new(stack), folder, sync: common.sync } })
    }

    async fn on_theirs(config: Config, common: &Common) -> Outcome<Place> {
        if config.nats.url.is_empty() || config.postgres.url.is_empty() {
            return Err(Failure::usage("bench needs both nats.url and postgres.url, or neither")
                .hint("--ephemeral uses servers of its own, whatever is configured"));
        }
        if common.sync == Sync::Default {
            return Err(Failure::usage("--sync is about servers of our own; theirs sync as they are configured to"));
        }
        let database = runtime::clock::fresh_id("bench_");
        let options = PgConnectOptions::from_str(&config.postgres.url).context("postgres.url is not an address")?;
        let nats = &config.nats;
        let addresses = Addresses {
            nats_url: nats.url.clone(),
            nats_user: nats.user.clone(),
            nats_password: nats.password.clone(),
            system_user: nats.system_user.clone(),
            system_password: nats.system_password.clone(),
            tenants: nats.tenants(),
            postgres_url: options.database(&database).to_url_lossy().to_string(),
        };
        let admin = config.postgres.url.clone();
        let place =
            Place { config, addresses, servers: Servers::Theirs { admin: admin.clone(), database: database.clone() } };
        place.refuse_a_log_with_history().await?;
        let made = admin_statement(&admin, &format!("CREATE DATABASE {database}")).await;
        made.context("bench makes a database of its own, and could not: give it a role with CREATEDB")?;
        Ok(place)
    }

    /// What we write must not become part of anybody's log, and what we remove afterwards must have been ours.
    async fn refuse_a_log_with_history(&self) -> anyhow::Result<()> {
        let connection = self.connection().await?;
        for wanted in topology::streams(1) {
            let found = connection.jetstream().get_stream(&wanted.name).await;
            ensure!(
                found.is_err(),
                "the NATS account has a stream {} already, and bench writes into no log but its own: \
                 point it at an account without streams, or use --ephemeral",
                wanted.name
            );
        }
        Ok(())
    }

    /// A connection of its own.
    pub(super) async fn connection(&self) -> anyhow::Result<Connection> {
        let (user, password) = (self.addresses.nats_user.clone(), self.addresses.nats_password.clone());
        let found =
            Connection::open(&self.addresses.nats_url, &Credentials { user, password }, "airstream-bench").await;
        found.with_context(|| format!("NATS at {} is needed for measuring", self.addresses.nats_url))
    }

    /// The log, made now if it is not there.
    pub(super) async fn log(&self) -> anyhow::Result<Arc<dyn Log>> {
        let connection = self.connection().await?;
        topology::ensure(&connection, self.config.nats.replicas).await?;
        Ok(Arc::new(JetStreamLog::new(connection)))
    }

    /// The database, migrated.
    pub(super) async fn database(&self) -> anyhow::Result<Database> {
        let database =
            Database::open(&self.addresses.postgres_url, 8).await.context("PostgreSQL is needed for measuring")?;
        migrate(database.pool()).await.context("could not make the tables")?;
        Ok(database)
    }

    /// The folder on the measured disk; `None` on servers that are not ours.
    pub(super) fn folder(&self) -> Option<&Path> {
        match &self.servers {
            Servers::Ours { folder, .. } => Some(folder.path()),
            Servers::Theirs { .. } => None,
        }
    }

    /// The process of one of our servers.
    pub(super) fn pid(&self, which: Child) -> Option<u32> {
        match &self.servers {
            Servers::Ours { stack, .. } => stack.child_pid(which),
            Servers::Theirs { .. } => None,
        }
    }

    /// What should stand beside the figures.
    pub(super) fn facts(&self) -> Map<String, Value> {
        let facts = match &self.servers {
            Servers::Ours { stack, sync, .. } => json!({
                "nats_server": stack.nats().version,
                "postgres": stack.postgres().version,
                "sync": sync.word(),
            }),
            Servers::Theirs { .. } => json!({ "servers": "configured ones", "sync": "as configured there" }),
        };
        facts.as_object().cloned().unwrap_or_default()
    }

    /// Ends what was started, removes what was made.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        let connection = match &self.servers {
            Servers::Ours { .. } => None,
            Servers::Theirs { .. } => Some(self.connection().await?),
        };
        match (self.servers, connection) {
            (Servers::Ours { stack, folder, .. }, _) => {
                stack.stop().await;
                folder.close().context("could not remove the temporary folder")
            }
            (Servers::Theirs { admin, database }, connection) => {
                for made in connection.iter().flat_map(|_| topology::streams(1)) {
                    if let Some(connection) = &connection {
                        // Not every measurement makes all of them.
                        let _ = connection.jetstream().delete_stream(&made.name).await;
                    }
                }
                let statement = format!("DROP DATABASE {database} WITH (FORCE)");
                admin_statement(&admin, &statement)
                    .await
                    .with_context(|| format!("could not drop the database {database}"))
            }
        }
    }
}

/// A temporary folder on the disk that a stack would use, because that disk is what is measured.
pub(super) fn folder_on_the_measured_disk(config: &Config) -> Outcome<TempDir> {
    let data_dir = paths::data_dir(config)?;
    let beside = data_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let mut made = tempfile::Builder::new();
    let made = made.prefix("airstream-bench-").tempdir_in(beside);
    let folder = made.with_context(|| format!("could not make a temporary folder in {}", beside.display()))?;
    // The servers of root are another user's, who has to get in.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .context("could not open a temporary folder to the servers")?;
    Ok(folder)
}

async fn admin_statement(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
    connection.close().await
}
