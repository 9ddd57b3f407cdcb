//! `airstream restore`: a backup becomes a stack again.
//!
//! In this order, so that a restore that ends in the middle leaves nothing that could be taken for a stack: the mark in the
//! database, the tables, the queues, the log, the rows of the projections, and last the checkpoints' new log and the mark's
//! removal, together. Asked again it begins anew.

mod steps;
mod target;

use std::path::PathBuf;

use serde_json::json;

use super::Context;
use super::backup::{Folder, Servers};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::bytes;
use crate::up::invocation;
use crate::{master_key, paths};
use target::Target;

/// The flags of `restore`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_long_help = "The stack must be new or empty, and nothing may run on it. With nats.url and postgres.url set \
    (or --nats and --postgres) those servers are filled; else private ones are started in the data directory, filled and \
    stopped again.\n\nExamples:\n  \
    airstream restore /mnt/backups/today --dry-run\n  \
    airstream restore /mnt/backups/today --data-dir /var/lib/airstream-new"
)]
pub(crate) struct Arguments {
    /// The backup's folder
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Check the backup and the target, say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    servers: Servers,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    let console = context.console;
    let config = arguments.servers.config(context)?;
    let folder = open(context, arguments).await?;
    let manifest = &folder.manifest;
    console.say(&format!(
        "the backup of {}: {}, the log up to {}",
        manifest.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        bytes(manifest.bytes()),
        manifest.position()
    ));
    let done = match Target::open(console, &config, arguments.dry_run).await? {
        None => {
            let data_dir = paths::data_dir(&config)?;
            console.say(&format!("there is no stack in {} yet: one would be made and filled", data_dir.display()));
            Done::default()
        }
        Some(target) if arguments.dry_run => {
            let said = steps::explain(console, &folder, &target.way).await;
            target.close().await;
            said?;
            Done::default()
        }
        Some(target) => {
            let (target, filled) = match steps::fill(console, &config, &folder, &target.way).await {
                Ok(filled) => (target.settle(console, &config).await?, filled),
                Err(failure) => {
                    target.close().await;
                    return Err(failure);
                }
            };
            let done = steps::finish(&folder, &target.way, filled).await;
            target.close().await;
            done?
        }
    };
    let data_dir = paths::data_dir(&config)?;
    if arguments.dry_run {
        console.say("nothing was changed");
    } else {
        let wrapped = ["identity.subject_keys", "identity.signing_keys"];
        let sealed = manifest.tables.iter().any(|table| wrapped.contains(&table.table.as_str()) && table.rows > 0);
        if sealed && master_key::configured(&config)?.is_none() && !data_dir.join("master.key").exists() {
            console.say(&format!(
                "what is personal or secret in it is sealed: put the master key of the old stack at {} before the start",
                data_dir.join("master.key").display()
            ));
        }
        console.say(&format!(
            "restored. Start it with `{} up`, or with `serve` where the servers are your own",
            invocation(&data_dir)
        ));
    }
    if console.is_json() {
        return console.json(&json!({
            "dry_run": arguments.dry_run,
            "position": manifest.position(),
            "old_log": manifest.log.identity,
            "new_log": done.log,
            "projections": done.projections,
        }));
    }
    Ok(())
}

/// A backup whose every file is as it was written. Nothing else is worth beginning with.
async fn open(context: &Context<'_>, arguments: &Arguments) -> Outcome<Folder> {
    let path = &arguments.path;
    if !path.is_dir() {
        return Err(Failure::new(Exit::NotFound, format!("{} is not a folder", path.display())));
    }
    let damaged = |details: Vec<String>| {
        Failure::new(Exit::Findings, format!("{} is not a good backup: nothing was restored", path.display()))
            .details(details)
            .hint("`airstream backup ls` lists others")
    };
    let folder = Folder::open(path).map_err(|problem| damaged(vec![problem]))?;
    let bar = context.console.bytes_bar("checking", Some(folder.manifest.bytes()));
    let faults = folder.faults(|done| bar.set_position(done)).await;
    bar.finish_and_clear();
    if faults.is_empty() {
        return Ok(folder);
    }
    Err(damaged(faults.into_iter().map(|(file, fault)| format!("{file}: {fault}")).collect()))
}

/// What a restore came to.
#[derive(Debug, Default)]
struct Done {
    /// The identity of the restored log.
    log: Option<String>,
    /// Each projection with the position up to which it was refilled.
    projections: Vec<(String, String)>,
}
