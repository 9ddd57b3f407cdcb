//! `airstream migrate`: brings the tables up to date. `up` and `serve` do the same at their start.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Context;
use crate::config::{Flag, without_password};
use crate::failure::{Exit, Failure, Outcome};
use crate::paths;
use crate::state_file::Running;

/// The flags of `migrate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Examples:\n  \
    airstream migrate --status\n  \
    airstream migrate --postgres postgres://u:p@127.0.0.1/airstream")]
pub(crate) struct Arguments {
    /// The database [default: postgres.url, else the local stack's]
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Only show what has been applied and what is missing; exit code 6 when something is
    #[arg(long)]
    status: bool,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    let console = context.console;
    let flag = arguments.postgres.clone().map(|value| Flag { name: "--postgres", key: "postgres.url", value });
    let config = context.config(flag.as_slice())?.config;
    let url = if config.postgres.url.is_empty() {
        Running::required(&paths::data_dir(&config)?)?.postgres
    } else {
        config.postgres.url
    };
    let database = projections::Database::open(&url, 2).await;
    let database = database.with_context(|| format!("PostgreSQL at {}", without_password(&url)))?;
    if !arguments.status {
        let migrated = projections::migrate(database.pool()).await;
        let migrated = migrated.map_err(|error| Failure::because(Exit::Failed, &error))?;
        database.close().await;
        console.say(&format!("{} applied, {} in all", migrated.applied, migrated.total));
        if console.is_json() {
            console.json(&json!({"applied": migrated.applied, "total": migrated.total}))?;
        }
        return Ok(());
    }
    let states = projections::migration_state(database.pool()).await;
    let states = states.map_err(|error| Failure::because(Exit::Failed, &error))?;
    database.close().await;
    let items: Vec<Value> = states.iter().map(|state| json!({"name": state.name, "applied": state.applied})).collect();
    if console.is_json() {
        console.json(&json!({"items": items}))?;
    } else {
        let rows = states
            .iter()
            .map(|state| vec![state.name.clone(), if state.applied { "applied" } else { "missing" }.to_owned()]);
        console.table(&["migration", "state"], rows.collect())?;
    }
    if states.iter().all(|state| state.applied) { Ok(()) } else { Err(Failure::silent(Exit::Findings)) }
}
