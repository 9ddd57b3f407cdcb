//! `airstream serve`: the platform, or parts of it, against servers that are there already.

use super::Context;
use crate::config::{Config, Flag};
use crate::failure::{Failure, Outcome};
use crate::platform::{Addresses, Platform, Secrets, Step};
use crate::roles::Roles;
use crate::signals::Signals;
use crate::traces::Traces;
use crate::{listen, logging, master_key};

/// The flags of `serve`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Logs go to stderr, as JSON unless it is a terminal.\n\nExamples:\n  \
    airstream serve --config /etc/airstream.toml\n  \
    airstream serve --roles projector,reactor --nats nats://nats:4222 --postgres postgres://u@pg/airstream")]
pub(crate) struct Arguments {
    /// The parts to run, separated by commas: api, projector, reactor
    #[arg(long, value_parser = Roles::parse, default_value = "all")]
    roles: Roles,
    /// The NATS server; the same as nats.url
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The PostgreSQL server; the same as postgres.url
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    let nats = arguments.nats.clone().map(|value| Flag { name: "--nats", key: "nats.url", value });
    let postgres = arguments.postgres.clone().map(|value| Flag { name: "--postgres", key: "postgres.url", value });
    let flags: Vec<Flag> = [nats, postgres].into_iter().flatten().collect();
    let config = context.config(&flags)?.config;
    let addresses = addresses(&config)?;
    if arguments.roles.api {
        listen::exactly(&config.http.bind)?;
    }
    let master = master_key::configured(&config)?;
    if (arguments.roles.api || arguments.roles.reactor) && master.is_none() {
        return Err(Failure::usage("doors and reactors need the master key, and identity.master_key is empty").hint(
            "set AIRSTREAM__IDENTITY__MASTER_KEY (make one with `head -c 32 /dev/urandom | base64`, and keep it: without \
             it personal data cannot be read), or leave the roles `api` and `reactor` out",
        ));
    }
    let secrets = Secrets { token: config.development.token.clone(), master };
    let traces = Traces::start(&config.telemetry)?;
    logging::to_stderr(&config.log, context.console.verbose(), &traces);
    let mut signals = Signals::new()?;
    let platform = tokio::select! {
        started = Platform::start(&config, &addresses, arguments.roles, false, &secrets, &log_step) => started?,
        () = signals.next() => return Ok(()),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), instance = platform.instance(), "ready");
    signals.next().await;
    tracing::info!("stopping: what was taken is finished");
    signals.exit_at_next();
    platform.stop().await;
    traces.finish().await;
    tracing::info!("stopped");
    Ok(())
}

fn addresses(config: &Config) -> Outcome<Addresses> {
    let needed = |name: &str, flag: &str, url: &str| {
        if url.is_empty() {
            let hint = format!("give {flag}, or set {name}.url; `airstream up` starts servers of its own");
            return Err(Failure::usage(format!("`serve` starts no servers, and {name}.url is empty")).hint(hint));
        }
        Ok(url.to_owned())
    };
    let nats = &config.nats;
    Ok(Addresses {
        nats_url: needed("nats", "--nats", &nats.url)?,
        nats_user: nats.user.clone(),
        nats_password: nats.password.clone(),
        system_user: nats.system_user.clone(),
        system_password: nats.system_password.clone(),
        tenants: nats.tenants(),
        postgres_url: needed("postgres", "--postgres", &config.postgres.url)?,
    })
}

fn log_step(step: Step) {
    match step {
        Step::Migrated { applied, total } => tracing::info!(applied, total, "the tables are up to date"),
        Step::Topology { notices } => {
            for notice in notices {
                tracing::warn!("{notice}");
            }
        }
        Step::Listening { http } => tracing::info!(%http, "HTTP listens"),
        Step::Roles(roles) => tracing::info!(roles = roles.join(","), "the roles run"),
    }
}
