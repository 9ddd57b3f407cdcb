//! `airstream backup create`.
//!
//! The order of the copies makes them one cut: the tables, the queues, the log. Each says of something that it was handed to
//! the next, and the next is copied later: what a checkpoint or a settled effect counts on is in the log, and a queued command
//! that has left its queue is in the log as well. What is in two of them is recognised when it comes again, by position, by
//! command id, or by looking an effect up.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use nats::{Connection, JetStreamLog};
use projections::backup::{Source, TABLES};
use runtime::{Log as _, clock};
use serde_json::json;

use super::folder::Making;
use super::manifest::{FORMAT, Log, Manifest, Stream, Table, Versions};
use super::piece::{self, Written};
use super::servers::{Servers, Way};
use crate::commands::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Console, bytes};
use crate::paths;
use crate::signals::Signals;

pub(super) async fn run(context: &Context<'_>, to: Option<&Path>, servers: &Servers) -> Outcome {
    let console = context.console;
    let config = servers.config(context)?;
    let way = Way::to_running(&config)?;
    let to = match to {
        Some(to) => std::path::absolute(to).map_err(|error| Failure::usage(format!("{}: {error}", to.display())))?,
        None => free(&paths::backups(&paths::data_dir(&config)?)),
    };
    let mut signals = Signals::new()?;
    // Dropped unfinished, its folder goes.
    let making = Making::begin(&to)?;
    let (path, manifest) = tokio::select! {
        made = create(console, &way, making) => made?,
        () = signals.next() => {
            return Err(Failure::new(Exit::Interrupted, "interrupted; nothing of the backup is kept"));
        }
    };
    console.say(&format!(
        "backed up to {}: {}, the log up to {}",
        path.display(),
        bytes(manifest.bytes()),
        manifest.position()
    ));
    console.say("copy it to another machine; `airstream backup verify` reads it through");
    if console.is_json() {
        return console.json(&json!({"path": path, "position": manifest.position(), "manifest": manifest}));
    }
    console.line(&path.display().to_string())
}

/// A name for now that is not taken.
fn free(parent: &Path) -> PathBuf {
    let name = clock::now().format("%Y-%m-%dT%H-%M-%SZ").to_string();
    let mut names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
    names.find_map(|name| Some(parent.join(name)).filter(|path| !path.exists())).unwrap_or_else(|| parent.join(name))
}

async fn create(console: &Console, way: &Way, making: Making) -> anyhow::Result<(PathBuf, Manifest)> {
    let began = Instant::now();
    let created_at = clock::now();
    let (connection, database) = (way.nats("airstream backup").await?, way.postgres("airstream backup").await?);
    let migrations = projections::migration_state(database.pool()).await?;
    let log = JetStreamLog::new(connection.clone());
    let identity = log.identity().await?;

    let mut source = Source::of(&database).await?;
    let postgres = source.server_version().await?;
    let handled = source.farthest(&identity).await?;
    let mut tables = Vec::new();
    for table in &TABLES {
        let bar = console.bytes_bar(table.name, None);
        let rows = source.rows(table).await?;
        let file = format!("{}.copy", table.name);
        let Written { piece, lines } = piece::write(&making.path, file, rows, |bytes| bar.set_position(bytes)).await?;
        bar.finish_and_clear();
        tables.push(Table { table: table.name.to_owned(), rows: lines, piece });
    }
    drop(source);

    let mut streams = Vec::new();
    for stream in nats::backup::STREAMS {
        streams.push(copy(console, &connection, stream, &making.path).await?);
    }
    if log.identity().await? != identity {
        anyhow::bail!("the log was made anew during the copy: begin again");
    }
    let (first, last) = match streams.last() {
        Some(events) => (events.description.first(), events.description.last()),
        None => (0, 0),
    };
    if handled > last {
        anyhow::bail!(
            "a consumer has handled {handled} commits and the log has {last}: this log has lost some. Look at \
             `airstream projections status` before anything else"
        );
    }
    let manifest = Manifest {
        format: FORMAT,
        created_at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        versions: Versions {
            airstream: env!("CARGO_PKG_VERSION").to_owned(),
            nats: connection.server_version(),
            postgres,
        },
        log: Log { identity, first, last, handled },
        migrations: migrations.into_iter().filter(|state| state.applied).map(|state| state.name).collect(),
        streams,
        tables,
    };
    let path = making.finish(&manifest)?;
    Ok((path, manifest))
}

async fn copy(
    console: &Console,
    connection: &Connection,
    stream: &'static str,
    folder: &Path,
) -> anyhow::Result<Stream> {
    let snapshot = nats::backup::save(connection, stream).await?;
    let description = snapshot.description;
    let bar = console.bytes_bar(stream, Some(description.bytes()));
    let file = format!("{stream}.snapshot");
    let written = piece::write(folder, file, snapshot.pieces, |bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    let Written { piece, .. } = written.with_context(|| format!("the copy of {stream} was not finished"))?;
    Ok(Stream { description, piece })
}
