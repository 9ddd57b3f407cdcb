//! Which servers are meant: those of the configuration, else those of the stack that runs here.

use anyhow::Context as _;
use nats::{Connection, Credentials};
use projections::Database;

use crate::commands::Context;
use crate::config::{Config, Flag, without_password};
use crate::failure::Outcome;
use crate::paths;
use crate::state_file::Running;

/// Servers given by flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Servers {
    /// The NATS server [default: nats.url, else the local stack's]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The PostgreSQL server [default: postgres.url, else the local stack's]
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

impl Servers {
    /// The configuration with these flags on top.
    pub(crate) fn config(&self, context: &Context<'_>) -> Outcome<Config> {
        let nats = self.nats.clone().map(|value| Flag { name: "--nats", key: "nats.url", value });
        let postgres = self.postgres.clone().map(|value| Flag { name: "--postgres", key: "postgres.url", value });
        Ok(context.config(&[nats, postgres].into_iter().flatten().collect::<Vec<_>>())?.config)
    }
}

/// The platform's own way to both servers.
pub(crate) struct Way {
    pub(crate) nats_url: String,
    pub(crate) credentials: Credentials,
    pub(crate) postgres_url: String,
}

impl Way {
    /// To servers that run: the configured ones, the local stack's where there are none.
    pub(super) fn to_running(config: &Config) -> Outcome<Way> {
        let (nats, postgres) = (&config.nats, &config.postgres);
        if !nats.url.is_empty() && !postgres.url.is_empty() {
            return Ok(Way {
                nats_url: nats.url.clone(),
                credentials: Credentials { user: nats.user.clone(), password: nats.password.clone() },
                postgres_url: postgres.url.clone(),
            });
        }
        let data_dir = paths::data_dir(config)?;
        let running = Running::required(&data_dir)?;
        let login = |user: &str, password: &str| Credentials { user: user.to_owned(), password: password.to_owned() };
        let (nats_url, credentials) = if !nats.url.is_empty() {
            (nats.url.clone(), login(&nats.user, &nats.password))
        } else {
            // The login of the running stack is the development user's, who may not copy streams, unless the server is somebody
            // else's and has one user only.
            let ours = embedded::nats_login(&data_dir).filter(|_| running.nats.user == running.principal);
            let (user, password) = ours.unwrap_or((running.nats.user, running.nats.password));
            (running.nats.url, login(&user, &password))
        };
        let postgres_url = if postgres.url.is_empty() { running.postgres } else { postgres.url.clone() };
        Ok(Way { nats_url, credentials, postgres_url })
    }

    /// Connects to NATS.
    pub(crate) async fn nats(&self, name: &str) -> anyhow::Result<Connection> {
        let connection = Connection::open(&self.nats_url, &self.credentials, name).await;
        connection.with_context(|| format!("NATS at {}", without_password(&self.nats_url)))
    }

    /// Connects to PostgreSQL under a name that the server shows.
    pub(crate) async fn postgres(&self, name: &str) -> anyhow::Result<Database> {
        let database = Database::open_as(name, &self.postgres_url, 2).await;
        database.with_context(|| format!("PostgreSQL at {}", without_password(&self.postgres_url)))
    }
}
