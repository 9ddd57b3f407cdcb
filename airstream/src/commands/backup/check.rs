//! What a restored backup has to look like: as many messages as were written down, sequences and versions without a hole, every
//! commit readable, and nobody ahead of the log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use embedded::Stack;
use futures::{StreamExt, TryStreamExt};
use kernel::Position;
use nats::backup::Extent;
use nats::{Connection, Credentials, JetStreamLog, topology};
use projections::backup::Table;
use runtime::Log;
use runtime::consume::everything_at_last;
use serde::Serialize;
use uuid::Uuid;

use super::folder::Folder;
use super::manifest::Stream;
use super::piece;
use crate::output::Console;

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// The file or stream.
    pub(super) part: String,
    pub(super) problem: String,
}

impl Finding {
    pub(super) fn new(part: &str, problem: impl Into<String>) -> Finding {
        Finding { part: part.to_owned(), problem: problem.into() }
    }
}

/// What was read.
#[derive(Debug, Default, Serialize)]
pub(super) struct Seen {
    pub(super) commits: u64,
    pub(super) streams: u64,
    /// Messages that no writer of ours wrote. They have no meaning and are kept all the same.
    pub(super) foreign: u64,
    /// Commits that could not be read before the backup either, and that somebody knows of.
    pub(super) unreadable_and_known: u64,
    pub(super) queued: u64,
    pub(super) tasks: u64,
}

/// Restores the streams into this server, which must be a private and empty one, and reads everything.
pub(super) async fn read_through(
    console: &Console,
    folder: &Folder,
    stack: &Stack,
) -> anyhow::Result<(Vec<Finding>, Seen)> {
    let address = stack.nats();
    let credentials = Credentials {
        user: address.user.clone().unwrap_or_default(),
        password: address.password.clone().unwrap_or_default(),
    };
    let connection = Connection::open(&address.url, &credentials, "airstream backup verify").await?;
    let (mut findings, mut seen) = (Vec::new(), Seen::default());
    for stream in &folder.manifest.streams {
        let name = &stream.description.stream;
        let bar = console.bytes_bar(&format!("restoring {name}"), Some(stream.piece.bytes));
        let archive = piece::read(&folder.path.join(&stream.piece.file));
        let stored = |bytes| bar.set_position(bytes);
        let loaded = nats::backup::load(&connection, &stream.description, 1, "verify", archive, &stored).await;
        bar.finish_and_clear();
        if let Err(error) = loaded {
            findings.push(Finding::new(&stream.piece.file, error.to_string()));
            continue;
        }
        let extent = extent(&connection, name).await?;
        findings.extend(compare(stream, extent).map(|problem| Finding::new(name, problem)));
        match name.as_str() {
            topology::COMMANDS => seen.queued = extent.messages,
            topology::TASKS => seen.tasks = extent.messages,
            _ => {}
        }
    }
    let known = tables(folder, &mut findings).await;
    if findings.is_empty() {
        let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(connection));
        read_log(console, folder, &log, &known, &mut findings, &mut seen).await?;
    }
    Ok((findings, seen))
}

async fn extent(connection: &Connection, name: &str) -> anyhow::Result<Extent> {
    let name = nats::backup::STREAMS.into_iter().find(|known| *known == name);
    let found = match name {
        Some(name) => nats::backup::extent(connection, name).await?,
        None => None,
    };
    found.ok_or_else(|| anyhow::anyhow!("the server restored a stream and has none"))
}

/// What differs from what was written down; `None` when nothing does.
pub(crate) fn compare(stream: &Stream, found: Extent) -> Option<String> {
    let wanted = &stream.description;
    if found.last != wanted.last() {
        return Some(format!("its last message is {}, it was {}", found.last, wanted.last()));
    }
    if wanted.stream != topology::EVENTS {
        // What was finished while the copy was made is not in it.
        return (found.messages > wanted.messages())
            .then(|| format!("it has {} messages, it had {}", found.messages, wanted.messages()));
    }
    let whole = (found.last + 1).saturating_sub(found.first.max(1));
    if found.messages != wanted.messages() || found.messages != whole {
        let (first, last) = (found.first, found.last);
        return Some(format!(
            "it has {} messages from {first} to {last}, it had {}",
            found.messages,
            wanted.messages()
        ));
    }
    None
}

/// Commits that are parked or skipped, and how far each consumer is; findings when one is beyond the log.
struct Known {
    parked: HashSet<u64>,
    handled: u64,
}

async fn tables(folder: &Folder, findings: &mut Vec<Finding>) -> Known {
    let (manifest, mut known) = (&folder.manifest, Known { parked: HashSet::new(), handled: 0 });
    for table in manifest.tables.iter().filter(|table| ["checkpoints", "parked"].contains(&table.table.as_str())) {
        // Small: a line per consumer, and one per commit that waits for a person.
        let bytes: Vec<u8> = match piece::read(&folder.path.join(&table.piece.file)).try_collect::<Vec<_>>().await {
            Ok(pieces) => pieces.concat(),
            Err(error) => {
                findings.push(Finding::new(&table.piece.file, format!("it cannot be read: {error}")));
                continue;
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        if text.lines().count() as u64 != table.rows {
            findings.push(Finding::new(&table.piece.file, format!("it has not the {} rows it had", table.rows)));
        }
        for line in text.lines() {
            let Some((consumer, position)) = Table::place(line) else {
                findings.push(Finding::new(&table.piece.file, "a row cannot be read"));
                continue;
            };
            if table.table == "parked" {
                known.parked.insert(position);
            } else if line.split('\t').nth(2) == Some(&manifest.log.identity) {
                known.handled = known.handled.max(position);
                if position > manifest.log.last {
                    let last = manifest.log.last;
                    let problem = format!("{consumer} has handled {position} commits, the log has {last}");
                    findings.push(Finding::new(&table.piece.file, problem));
                }
            }
        }
    }
    known
}

async fn read_log(
    console: &Console,
    folder: &Folder,
    log: &Arc<dyn Log>,
    known: &Known,
    findings: &mut Vec<Finding>,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let (first, last) = (folder.manifest.log.first.max(1), folder.manifest.log.last);
    // A stream's version by a hash of its name: sixteen bytes, however long names are.
    let mut versions: HashMap<Uuid, u64> = HashMap::new();
    let mut at = Position::at(first - 1);
    if at < Position::at(last) {
        let bar = console.bar("reading commits");
        bar.set_length(last);
        let mut commits = everything_at_last(log, at);
        while at < Position::at(last) {
            let Some(recorded) = commits.next().await.transpose()? else { anyhow::bail!("the read of the log ended") };
            if recorded.position != at.next() {
                findings.push(Finding::new(topology::EVENTS, format!("after {at} comes {}", recorded.position)));
            }
            at = recorded.position;
            bar.set_position(at.sequence());
            match recorded.history() {
                Ok(None) => seen.foreign += 1,
                Ok(Some((stream, commit))) => {
                    seen.commits += 1;
                    let version = versions.entry(Uuid::new_v5(&Uuid::NAMESPACE_OID, stream.to_string().as_bytes()));
                    let version = version.or_default();
                    let begins = commit.first().streamversion;
                    if begins != *version + 1 {
                        let problem = format!("{at}: {stream} goes on with version {begins} after {version}");
                        findings.push(Finding::new(topology::EVENTS, problem));
                    }
                    *version = commit.version_after();
                }
                // Somebody knows, or nobody has come there yet.
                Err(_) if known.parked.contains(&at.sequence()) || at.sequence() > known.handled => {
                    seen.unreadable_and_known += 1;
                }
                Err(reason) => findings.push(Finding::new(topology::EVENTS, format!("{at}: {reason}"))),
            }
            // One hole makes many; the first ones tell enough.
            if findings.len() > 100 {
                break;
            }
        }
        bar.finish_and_clear();
    }
    seen.streams = versions.len() as u64;
    Ok(())
}
