//! Group commit. While one group is being flushed to disk, the next one gathers: many commits share the price of one
//! flush, and a lone commit does not wait for company. Under load the next one does not wait for the one before to come
//! back either: their streams differ, and each commit has its own guard.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use kernel::Position;
use runtime::{Append, AppendError, telemetry, trace};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinSet};
use tracing::{Instrument as _, Span};

use crate::Connection;
use crate::ack::Outcome;
use crate::batch::{MAX_BATCH, publish, publish_together};

/// Below this many, plain publishes side by side are quicker than the fixed price of a batch: 4 flushes and a staging
/// area on one replica, against one flush each (the lines were measured to cross between eight and ten).
const MIN_BATCH: usize = 8;

/// Bytes in one batch: what the server may have to hold back until the batch is complete.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A commit that waits to be written.
pub(crate) struct Waiting {
    pub(crate) commit: Append,
    pub(crate) reply: oneshot::Sender<Result<Position, AppendError>>,
}

/// Groups under way at once: while the server flushes one, the next is built and sent.
const MAX_UNDER_WAY: usize = 2;

/// Commits that are worth flushes of their own while another group is under way. Fewer than these wait for it to come
/// back, and for company: two small groups cost the disk twice what one costs.
const WORTH_DEPARTING: usize = 100;

/// A group that is not answered by then does not hold up the others any more: what was sent to a server that is gone is
/// waited for in vain.
const LATE: Duration = Duration::from_millis(500);

/// Late groups at once: enough for one per [`LATE`] until the first one is given up.
const MAX_LATE: usize = 8;

/// Runs until every sender is gone and everything taken is answered.
pub(crate) async fn run(connection: Connection, mut inbox: mpsc::Receiver<Waiting>) {
    let mut gathered: Vec<Waiting> = Vec::new();
    let mut under_way = JoinSet::new();
    let mut departures: HashMap<task::Id, Instant> = HashMap::new();
    let mut open = true;
    while open || !gathered.is_empty() || !under_way.is_empty() {
        while gathered.len() < MAX_BATCH
            && let Ok(waiting) = inbox.try_recv()
        {
            gathered.push(waiting);
        }
        let in_time = departures.values().filter(|departed| departed.elapsed() < LATE);
        let (expected, oldest) = (in_time.clone().count(), in_time.min().copied());
        let departs = under_way.len() < MAX_UNDER_WAY + MAX_LATE
            && match expected {
                0 => !gathered.is_empty(),
                MAX_UNDER_WAY.. => false,
                _ => gathered.len() >= WORTH_DEPARTING,
            };
        if departs {
            let departing = under_way.spawn(timed(connection.clone(), take_group(&mut gathered)));
            departures.insert(departing.id(), Instant::now());
            continue;
        }
        let next_late = oldest.map(|departed| (departed + LATE).into());
        tokio::select! {
            Some(back) = under_way.join_next_with_id() => {
                let id = back.map_or_else(|error| error.id(), |(id, ())| id);
                departures.remove(&id);
            }
            received = inbox.recv(), if open && gathered.len() < MAX_BATCH => match received {
                Some(waiting) => gathered.push(waiting),
                None => open = false,
            },
            () = tokio::time::sleep_until(next_late.unwrap_or_else(tokio::time::Instant::now)), if next_late.is_some() => {}
        }
    }
}

async fn timed(connection: Connection, group: Vec<Waiting>) {
    let began = Instant::now();
    metrics::histogram!(telemetry::GROUP_COMMIT_SIZE).record(group.len() as f64);
    let span = span_of(&group);
    write(&connection, group).instrument(span).await;
    metrics::histogram!(telemetry::APPEND_DURATION_SECONDS).record(began.elapsed().as_secs_f64());
}

/// Everything that waits, up to the limits, at most one commit per stream: a batch takes one literal guard per subject.
/// A commit whose stream is in a group that is under way may go along: its guard decides, as it would have later.
fn take_group(gathered: &mut Vec<Waiting>) -> Vec<Waiting> {
    let mut group: Vec<Waiting> = Vec::new();
    let (mut later, mut bytes, mut streams) = (Vec::new(), 0, HashSet::new());
    for waiting in gathered.drain(..) {
        // Whoever gave up waiting has said so to its caller: written now, it would come behind what was decided since.
        if waiting.reply.is_closed() {
            continue;
        }
        let size = waiting.commit.payload.len();
        let fits = group.is_empty() || bytes + size <= MAX_BATCH_BYTES;
        if fits && streams.insert(waiting.commit.stream.clone()) {
            bytes += size;
            group.push(waiting);
        } else {
            later.push(waiting);
        }
    }
    *gathered = later;
    group
}

/// A group has as many parents as members: it is a trace of its own, linked to theirs, if any of them is recorded.
fn span_of(group: &[Waiting]) -> Span {
    if !trace::enabled() {
        return Span::none();
    }
    let members: Vec<_> = group.iter().filter_map(|waiting| trace::sampled_in(&waiting.commit.payload)).collect();
    if members.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!(target: trace::TARGET, parent: None, "group commit", size = group.len());
    members.iter().for_each(|member| trace::links(&span, member));
    span
}

async fn write(connection: &Connection, group: Vec<Waiting>) {
    if group.len() >= MIN_BATCH {
        let commits: Vec<&Append> = group.iter().map(|waiting| &waiting.commit).collect();
        match publish_together(connection, &commits).await {
            Outcome::Written(last) => {
                connection.note_trouble(None);
                // A batch is written without gaps, so the others' places follow from the last one's.
                let first = last + 1 - group.len() as u64;
                for (index, waiting) in group.into_iter().enumerate() {
                    let _ = waiting.reply.send(Ok(Position::at(first + index as u64)));
                }
                return;
            }
            Outcome::Failed(error) => {
                connection.note_trouble(trouble(&error));
                for waiting in group {
                    let _ = waiting.reply.send(Err(error.clone()));
                }
                return;
            }
            // Somebody's guard did not hold. The answer does not say whose, so each one asks for itself.
            turned_down => tracing::debug!(?turned_down, "a batch was turned down; going one by one"),
        }
    }
    let outcomes = join_all(group.iter().map(|waiting| publish(connection, &waiting.commit))).await;
    for (waiting, outcome) in group.into_iter().zip(outcomes) {
        let result = outcome.position();
        connection.note_trouble(result.as_ref().err().and_then(trouble));
        let _ = waiting.reply.send(result);
    }
}

/// What an operator should know of: a log that does not answer, or refuses. A conflict is an answer.
fn trouble(error: &AppendError) -> Option<String> {
    match error {
        AppendError::Conflict | AppendError::TooLarge { .. } => None,
        AppendError::Ambiguous(_) | AppendError::Refused(_) | AppendError::Unavailable(_) => Some(error.to_string()),
    }
}
