//! Reactors: they act on the world. What an event calls for is recorded first, then done, then reported by command.
//!
//! ```text
//! event → plan (pure) → record + checkpoint, one transaction → perform → report by command → settle
//! ```
//! A crash after any arrow repeats what follows it: the effect carries the same idempotency key and the report the same
//! command id, so the world may see a repeat and can tell, and the log counts it once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kernel::{CommandId, Envelope, FactError, Position, Problem, StreamName, Timestamp};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::consume::{self, Begin, HandleError, Handler, Released};
use crate::effects::surviving;
use crate::retry::Backoff;
use crate::{
    Commands, EffectRow, EffectState, EffectStore, Log, Parked, Plan, Planned, Recorded, Request, Settlement, clock,
    telemetry,
};

/// A command that a reactor sends about what it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The stream it concerns.
    pub to: StreamName,
    /// The command's wire name.
    pub command: &'static str,
    /// Its body.
    pub body: Value,
}

/// How a try of an effect ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is done, or need not be done any more.
    Done {
        /// One line for people who look at the record.
        note: String,
        /// What to tell the log.
        report: Option<Report>,
    },
    /// Try again later.
    Retry {
        /// Why.
        reason: String,
        /// How long to wait; by the usual backoff when absent.
        after: Option<Duration>,
    },
    /// Only a person can help.
    Park {
        /// Why.
        reason: String,
    },
}

/// Acts on the world for one concern.
#[async_trait]
pub trait Reactor: Send + Sync + 'static {
    /// Unique among consumers, for ever: effects and checkpoints carry it.
    const NAME: &'static str;
    /// The categories it listens to.
    const CATEGORIES: &'static [&'static str];

    /// What an event calls for. Pure.
    ///
    /// # Errors
    /// When the event cannot be read: the commit will be parked.
    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError>;

    /// Does it. May be called again for the same effect after a crash: pass on
    /// [`EffectRow::idempotency_key`], or look whether the effect is still wanted.
    async fn perform(&self, effect: &EffectRow) -> Verdict;
}

/// Limits of a reactor.
#[derive(Debug, Clone)]
pub struct Options {
    /// Effects being performed at the same time.
    pub concurrency: usize,
    /// Longest wait between two tries of an effect.
    pub longest_retry: Duration,
    /// Limits of the walk along the log.
    pub consume: consume::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 256, longest_retry: Duration::from_secs(60), consume: consume::Options::default() }
    }
}

/// Runs a reactor until `stop`, and then until the effects in hand are done.
pub async fn run<R: Reactor>(
    reactor: R,
    log: Arc<dyn Log>,
    store: Arc<dyn EffectStore>,
    commands: Arc<dyn Commands>,
    options: Options,
    stop: CancellationToken,
) {
    let reactor = Arc::new(reactor);
    let (planned, arriving) = mpsc::channel(NEWS);
    let runner = Runner {
        reactor: Arc::clone(&reactor),
        store: Arc::clone(&store),
        commands,
        options: options.clone(),
        permits: Arc::new(Semaphore::new(options.concurrency)),
        tasks: TaskTracker::new(),
    };
    let handler = Recorder { reactor, store, planned };
    let stopped = stop.clone();
    tokio::join!(consume::run(handler, log, options.consume, stop), runner.run(arriving, stopped));
}

/// Batches of news that may wait for the runner; past it the walk along the log waits, too.
const NEWS: usize = 64;

/// News for the runner.
enum News {
    /// We have become the owner: forget what was known, here is what the store has.
    Owner(Vec<EffectRow>),
    /// Recorded just now.
    Recorded { rows: Vec<EffectRow>, cancelled: Vec<(StreamName, String)> },
}

/// The reactor's side of the walk: it only plans and records.
struct Recorder<R> {
    reactor: Arc<R>,
    store: Arc<dyn EffectStore>,
    planned: mpsc::Sender<News>,
}

impl<R: Reactor> Recorder<R> {
    fn plans(&self, commits: &[&Recorded]) -> Result<Vec<Planned>, HandleError> {
        let mut plans = Vec::new();
        for recorded in commits {
            let poison = |reason: String| HandleError::Poison(format!("commit {}: {reason}", recorded.position));
            let Some(stream) = &recorded.stream else {
                return Err(poison(format!("`{}` is not a subject of ours", recorded.subject)));
            };
            if !R::CATEGORIES.contains(&stream.category.as_str()) {
                continue;
            }
            let commit = recorded.commit().map_err(|error| poison(error.to_string()))?;
            for event in &commit.events {
                let wanted = self.reactor.plan(event).map_err(|error| poison(error.to_string()))?;
                plans.extend(wanted.into_iter().map(|plan| Planned {
                    stream: stream.clone(),
                    position: recorded.position,
                    event: event.id.to_string(),
                    correlation: event.correlationid.to_string(),
                    plan,
                }));
            }
        }
        Ok(plans)
    }

    async fn announce(&self, plans: &[Planned]) {
        let (rows, cancelled) = surviving(R::NAME, plans);
        if !rows.is_empty() || !cancelled.is_empty() {
            // The runner ends only after this handler.
            let _ = self.planned.send(News::Recorded { rows, cancelled }).await;
        }
    }
}

#[async_trait]
impl<R: Reactor> Handler for Recorder<R> {
    fn name(&self) -> String {
        R::NAME.to_owned()
    }

    async fn begin(&mut self) -> Result<Option<Begin>, HandleError> {
        let Some(begin) = self.store.begin(R::NAME).await? else { return Ok(None) };
        let _ = self.planned.send(News::Owner(self.store.pending(R::NAME).await?)).await;
        Ok(Some(begin))
    }

    async fn handle(
        &mut self,
        from: Position,
        to: Position,
        commits: &[&Recorded],
        parked: &[Parked],
    ) -> Result<(), HandleError> {
        let plans = self.plans(commits)?;
        self.store.record(R::NAME, from, to, &plans, parked).await?;
        self.announce(&plans).await;
        Ok(())
    }

    async fn released(&mut self) -> Result<Vec<Released>, HandleError> {
        let revived = self.store.revived(R::NAME).await?;
        if !revived.is_empty() {
            let _ = self.planned.send(News::Recorded { rows: revived, cancelled: Vec::new() }).await;
        }
        Ok(self.store.released(R::NAME).await?)
    }

    async fn handle_released(&mut self, commit: &Recorded) -> Result<(), HandleError> {
        let plans = self.plans(&[commit])?;
        self.store.unpark(R::NAME, commit.position, &plans).await?;
        self.announce(&plans).await;
        Ok(())
    }

    async fn park_again(&mut self, position: Position, reason: &str) -> Result<(), HandleError> {
        Ok(self.store.park_again(R::NAME, position, reason).await?)
    }
}

type Key = (StreamName, String);

/// Performs effects when they are due. The heap holds keys, the map the effects: a cancelled timer leaves the map and
/// its key is skipped when it comes up. No polling: the loop sleeps until the next due time.
struct Runner<R> {
    reactor: Arc<R>,
    store: Arc<dyn EffectStore>,
    commands: Arc<dyn Commands>,
    options: Options,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// A finished try.
struct Finished {
    settlement: Settlement,
    /// The effect again, when it is to be tried later.
    again: Option<EffectRow>,
}

impl<R: Reactor> Runner<R> {
    async fn run(self, mut arriving: mpsc::Receiver<News>, stop: CancellationToken) {
        let (finished, mut finishing) = mpsc::channel::<Finished>(self.options.concurrency.max(1));
        let mut due: BinaryHeap<Reverse<(Timestamp, Key)>> = BinaryHeap::new();
        let mut waiting: HashMap<Key, EffectRow> = HashMap::new();
        let mut settled: Vec<Settlement> = Vec::new();
        // Effects in hand. Becoming owner again lists them as pending; they are not begun a second time.
        let mut in_hand: HashSet<Key> = HashSet::new();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            while let Some(Reverse((at, _))) = due.peek()
                && *at <= clock::now()
                && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
            {
                let Some(Reverse((at, key))) = due.pop() else { break };
                // A key that was rescheduled meanwhile has a later entry of its own.
                if waiting.get(&key).is_none_or(|row| row.due != at) {
                    continue;
                }
                if let Some(row) = waiting.remove(&key) {
                    in_hand.insert(key);
                    self.begin(row, permit, finished.clone());
                }
            }
            let next = due.peek().map(|Reverse((at, _))| until(*at));
            let blocked = self.permits.available_permits() == 0;
            tokio::select! {
                news = arriving.recv() => match news {
                    Some(News::Owner(rows)) => {
                        due.clear();
                        waiting.clear();
                        let idle = rows.into_iter().filter(|row| !in_hand.contains(&key_of(row)));
                        insert(&mut due, &mut waiting, idle.collect());
                    }
                    Some(News::Recorded { rows, cancelled }) => {
                        for key in cancelled {
                            waiting.remove(&key);
                        }
                        insert(&mut due, &mut waiting, rows);
                    }
                    None => break,
                },
                Some(done) = finishing.recv() => {
                    let mut next = Some(done);
                    while let Some(Finished { settlement, again }) = next {
                        in_hand.remove(&(settlement.stream.clone(), settlement.name.clone()));
                        settled.push(settlement);
                        insert(&mut due, &mut waiting, again.into_iter().collect());
                        next = finishing.try_recv().ok();
                    }
                }
                // With every permit taken, the next free one announces itself through `finishing`.
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() && !blocked => {}
            }
            self.flush(&mut settled, &mut backoff, &stop).await;
        }
        // Stopping: what is in hand is finished and settled, what waits stays recorded.
        self.tasks.close();
        drop(finished);
        while let Some(Finished { settlement, .. }) = finishing.recv().await {
            settled.push(settlement);
        }
        self.flush(&mut settled, &mut backoff, &stop).await;
    }

    async fn flush(&self, settled: &mut Vec<Settlement>, backoff: &mut Backoff, stop: &CancellationToken) {
        while !settled.is_empty() {
            match self.store.settle(R::NAME, settled).await {
                Ok(()) => {
                    settled.clear();
                    backoff.reset();
                }
                // Unsettled effects are performed again at the next start: safe, by key and command id.
                Err(_) if stop.is_cancelled() => return,
                Err(error) => {
                    tracing::warn!(consumer = R::NAME, %error, "cannot settle effects yet");
                    backoff.wait().await;
                }
            }
        }
    }

    fn begin(
        &self,
        row: EffectRow,
        permit: tokio::sync::OwnedSemaphorePermit,
        finished: mpsc::Sender<Finished>,
    ) {
        let (reactor, commands) = (Arc::clone(&self.reactor), Arc::clone(&self.commands));
        let longest = self.options.longest_retry;
        self.tasks.spawn(async move {
            let done = perform(&*reactor, &*commands, row, longest).await;
            drop(permit);
            let _ = finished.send(done).await;
        });
    }
}

fn insert(
    due: &mut BinaryHeap<Reverse<(Timestamp, Key)>>,
    waiting: &mut HashMap<Key, EffectRow>,
    rows: Vec<EffectRow>,
) {
    for row in rows {
        let key = key_of(&row);
        due.push(Reverse((row.due, key.clone())));
        waiting.insert(key, row);
    }
}

fn key_of(row: &EffectRow) -> Key {
    (row.stream.clone(), row.name.clone())
}

fn until(at: Timestamp) -> Duration {
    (at - clock::now()).to_std().unwrap_or_default()
}

async fn perform<R: Reactor>(reactor: &R, commands: &dyn Commands, mut row: EffectRow, longest: Duration) -> Finished {
    let verdict = reactor.perform(&row).await;
    let verdict = match verdict {
        Verdict::Done { note, report: Some(report) } => match tell(commands, &row, report).await {
            Ok(told) => Verdict::Done { note: format!("{note}; {told}"), report: None },
            Err(problem) => Verdict::Retry {
                reason: format!("done, but could not be reported: {problem}"),
                after: problem.retry_after_ms.map(Duration::from_millis),
            },
        },
        other => other,
    };
    let (state, due, note, outcome) = match verdict {
        Verdict::Done { note, .. } => (EffectState::Done, None, note, "done"),
        Verdict::Retry { reason, after } => {
            let wait = after.unwrap_or_else(|| {
                let step = Duration::from_millis(200).saturating_mul(1_u32 << row.attempts.min(16));
                step.min(longest)
            });
            let due = clock::now() + chrono::Duration::from_std(wait).unwrap_or_default();
            (EffectState::Scheduled, Some(due), reason, "retry")
        }
        Verdict::Park { reason } => (EffectState::Parked, None, reason, "parked"),
    };
    metrics::counter!(telemetry::EFFECTS_TOTAL, "consumer" => R::NAME, "outcome" => outcome).increment(1);
    if outcome != "done" {
        tracing::warn!(consumer = R::NAME, stream = %row.stream, effect = row.name, reason = note, outcome, "effect not done");
    }
    let settlement = Settlement { stream: row.stream.clone(), name: row.name.clone(), state, due, note };
    let again = due.map(|due| {
        row.due = due;
        row.attempts += 1;
        row
    });
    Finished { settlement, again }
}

/// Sends the report. A refusal is an answer: the stream has moved on without this effect.
async fn tell(commands: &dyn Commands, row: &EffectRow, report: Report) -> Result<String, Problem> {
    let id = CommandId::new(&row.idempotency_key())?;
    let body = serde_json::to_vec(&report.body).map_err(|error| Problem::malformed(error.to_string()))?;
    let request = Request {
        correlation: Some(row.correlation.clone()),
        causation: Some(row.event.clone()),
        ..Request::internal(report.to, report.command, body).with_id(id)
    };
    match commands.execute(request).await {
        Ok(_) => Ok(format!("reported by `{}`", report.command)),
        // Another body under the same id means that an earlier try has been reported: that one counts.
        Err(problem) if !problem.is_transient() && problem.retry_after_ms.is_none() && problem.status < 500 => {
            Ok(format!("`{}` was refused: {}", report.command, problem.code))
        }
        Err(problem) => Err(problem),
    }
}
