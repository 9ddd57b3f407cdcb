//! The restore itself, in two halves: everything, and the moment from which it counts.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use nats::backup::{STREAMS, extent, load, remove};
use nats::{Connection, JetStreamLog};
use projections::Database;
use projections::backup::{Restoring, Table, forget, target, unfinished};
use runtime::{Log, clock};

use super::Done;
use crate::commands::backup::{Folder, Stream, Way, compare, read};
use crate::config::Config;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::Console;
use crate::platform::refills;

/// What the servers' lists of sessions call us.
const NAME: &str = "airstream restore";

/// Says what would happen.
pub(super) async fn explain(console: &Console, folder: &Folder, way: &Way) -> Outcome {
    let (connection, database) = (way.nats(NAME).await?, way.postgres(NAME).await?);
    check_empty(console, &connection, &database).await?;
    console.say("the target is empty; it would be filled with");
    for stream in &folder.manifest.streams {
        let description = &stream.description;
        console.say(&format!("  {:12} {} messages", description.stream, description.messages()));
    }
    for table in &folder.manifest.tables {
        console.say(&format!("  {:12} {} rows", table.table, table.rows));
    }
    console.say("and the rows of the projections, folded from the log");
    Ok(())
}

/// Fills an empty target with everything. Nothing starts on it yet.
pub(super) async fn fill(console: &Console, config: &Config, folder: &Folder, way: &Way) -> Outcome<Done> {
    let (connection, database) = (way.nats(NAME).await?, way.postgres(NAME).await?);
    check_empty(console, &connection, &database).await?;
    let done = copy_in(console, config, folder, &connection, &database).await;
    database.close().await;
    done.map_err(begins_anew)
}

/// Looks at everything once more, as the servers have it now, and lets it count.
pub(super) async fn finish(folder: &Folder, way: &Way, done: Done) -> Outcome<Done> {
    let finish = async {
        let (connection, database) = (way.nats(NAME).await?, way.postgres(NAME).await?);
        let Some(restoring) = Restoring::resume(&database).await? else {
            bail!("another process of Airstream is connected to this database: stop it first");
        };
        for part in &folder.manifest.streams {
            check_stream(&connection, part).await?;
        }
        let identity = JetStreamLog::new(connection).identity().await?;
        if done.log.as_ref() != Some(&identity) {
            bail!("the log is not the one that was restored");
        }
        restoring.finish(&folder.manifest.log.identity, &identity).await?;
        database.close().await;
        anyhow::Ok(())
    };
    finish.await.map_err(begins_anew)?;
    Ok(done)
}

fn begins_anew(error: anyhow::Error) -> Failure {
    let failure = Failure::from(error);
    if failure.hint.is_some() {
        return failure;
    }
    failure.hint("nothing starts on an unfinished restore: ask for it again, and it begins anew")
}

/// A restore must not mix two histories. What an unfinished one has left is its own.
async fn check_empty(console: &Console, connection: &Connection, database: &Database) -> Outcome {
    if let Some(backup) = unfinished(database.pool()).await.map_err(anyhow::Error::from)? {
        console.say(&format!("a restore of {backup} was begun here and did not finish: what it has left is replaced"));
        return Ok(());
    }
    let mut found = Vec::new();
    for stream in STREAMS {
        if let Some(extent) = extent(connection, stream).await.map_err(anyhow::Error::from)?
            && !extent.is_untouched()
        {
            found
                .push(format!("the stream {stream} has {} messages, the last one is {}", extent.messages, extent.last));
        }
    }
    let trace = target(database.pool()).await.map_err(anyhow::Error::from)?;
    if !trace.is_none() {
        found.push(format!(
            "the database knows {} consumers that have read something, {} parked commits and {} effects",
            trace.consumers, trace.parked, trace.effects
        ));
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Conflict, "the target is not empty: nothing was restored").details(found).hint(
        "name a new folder with --data-dir, or an account of NATS without streams and an empty database; \
         what is here stays as it is",
    ))
}

async fn copy_in(
    console: &Console,
    config: &Config,
    folder: &Folder,
    connection: &Connection,
    database: &Database,
) -> anyhow::Result<Done> {
    let manifest = &folder.manifest;
    projections::migrate(database.pool()).await.context("could not bring the database to the newest migration")?;
    let backup = folder.path.display().to_string();
    let Some(mut restoring) = Restoring::begin(database, &backup).await? else {
        bail!("another process of Airstream is connected to this database: stop it first");
    };
    for stream in STREAMS {
        remove(connection, stream).await?;
    }
    for part in &manifest.tables {
        let table = Table::named(&part.table).ok_or_else(|| anyhow!("there is no table `{}`", part.table))?;
        let rows = restoring.fill(table, read(&folder.path.join(&part.piece.file))).await?;
        if rows != part.rows {
            bail!("{} of {} rows of `{}` came in", rows, part.rows, part.table);
        }
    }
    let mark = format!("{:x}", clock::now().timestamp_micros());
    for part in &manifest.streams {
        let description = &part.description;
        let bar = console.bytes_bar(&description.stream, Some(part.piece.bytes));
        let archive = read(&folder.path.join(&part.piece.file));
        let stored = |bytes| bar.set_position(bytes);
        let loaded = load(connection, description, config.nats.replicas, &mark, archive, &stored).await;
        bar.finish_and_clear();
        loaded?;
        check_stream(connection, part).await?;
    }
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(connection.clone()));
    let identity = log.identity().await?;
    let projections = refill(console, database, &log, &manifest.log.identity).await?;
    // The tables are older than the log, or than what was destroyed since.
    let erased = forget(database, &log).await.context("what was erased could not be destroyed again")?;
    if erased > 0 {
        console.say(&format!("{erased} people were erased: their keys are destroyed again"));
    }
    Ok(Done { log: Some(identity), projections })
}

async fn check_stream(connection: &Connection, part: &Stream) -> anyhow::Result<()> {
    let name = &part.description.stream;
    let found = match STREAMS.into_iter().find(|known| known == name) {
        Some(known) => extent(connection, known).await?,
        None => None,
    };
    let found = found.ok_or_else(|| anyhow!("the stream {name} did not come back"))?;
    match compare(part, found) {
        Some(difference) => bail!("the stream {name} is not what was backed up: {difference}"),
        None => Ok(()),
    }
}

async fn refill(
    console: &Console,
    database: &Database,
    log: &Arc<dyn Log>,
    of_log: &str,
) -> anyhow::Result<Vec<(String, String)>> {
    let bar = console.bar("");
    let shown = bar.clone();
    let heard = Arc::new(move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
    });
    let mut filled = Vec::new();
    for (name, work) in refills(database, log, of_log, heard) {
        bar.set_message(format!("rows of {name}"));
        let position = work.await.map_err(|error| anyhow!("the rows of {name} could not be folded: {error}"))?;
        filled.push((name.to_owned(), position.to_string()));
    }
    bar.finish_and_clear();
    Ok(filled)
}
