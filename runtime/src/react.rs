//! Reactors: they act on the world. What an event calls for is recorded first, then done, then reported by command.
//!
//! ```text
//! event → plan (pure) → record + checkpoint, one transaction → perform → report by command → settle
//! ```
//! A crash after any arrow repeats what follows it: the effect carries the same idempotency key and the report the same
//! command id, so the world may see a repeat and can tell, and the log counts it once.

mod agenda;
mod perform;
mod runner;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kernel::{Envelope, FactError, Position, StreamName};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::consume::{self, Begin, HandleError, Handler, Released};
use crate::effects::surviving;
use crate::lease::{Lease, Term};
use crate::{Commands, EffectRow, EffectStore, Log, Parked, Plan, Planned, Recorded};
use runner::Runner;

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

    /// Whether an effect may take as long as somebody outside likes. Such effects have permits of their own, so that slow
    /// endpoints never hold up timers.
    fn is_outward(&self, _: &EffectRow) -> bool {
        false
    }

    /// Does it. May be called again for the same effect after a crash: pass on
    /// [`EffectRow::idempotency_key`], or look whether the effect is still wanted.
    async fn perform(&self, effect: &EffectRow) -> Verdict;
}

/// Limits of a reactor.
#[derive(Debug, Clone)]
pub struct Options {
    /// Effects being performed at the same time; as many again of those that are outward.
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

/// The lease of a reactor.
#[must_use]
pub fn lease<R: Reactor>() -> String {
    format!("reactor/{}", R::NAME)
}

/// Runs a reactor until `stop`, whenever the lease is ours, and then until the effects in hand are done.
pub async fn run<R: Reactor>(
    reactor: R,
    lease: Lease,
    log: Arc<dyn Log>,
    store: Arc<dyn EffectStore>,
    commands: Arc<dyn Commands>,
    options: Options,
    stop: CancellationToken,
) {
    let reactor = Arc::new(reactor);
    let (planned, arriving) = mpsc::channel(NEWS);
    let runner = Runner::new(Arc::clone(&reactor), lease.clone(), Arc::clone(&store), commands, options.clone());
    let handler = Recorder { reactor, lease: lease.clone(), store, planned, epoch: 0 };
    let stopped = stop.clone();
    tokio::join!(consume::run(handler, lease, log, options.consume, stop), runner.run(arriving, stopped));
}

/// Batches of news that may wait for the runner; past it the walk along the log waits, too.
const NEWS: usize = 64;

/// News for the runner.
pub(crate) enum News {
    /// Whether we are still the owner is open: perform nothing that has not begun. Answered when it is heard, and what has
    /// ended until then is settled.
    OwnerUnknown(oneshot::Sender<()>),
    /// We are the owner, in this term; here is what the store has.
    Owner { term: Term, rows: Vec<EffectRow> },
    /// Recorded just now.
    Recorded { rows: Vec<EffectRow>, cancelled: Vec<(StreamName, String)> },
}

/// The reactor's side of the walk: it only plans and records.
struct Recorder<R> {
    reactor: Arc<R>,
    lease: Lease,
    store: Arc<dyn EffectStore>,
    planned: mpsc::Sender<News>,
    epoch: u64,
}

impl<R: Reactor> Recorder<R> {
    fn plans(&self, commits: &[&Recorded]) -> Result<Vec<Planned>, HandleError> {
        let mut plans = Vec::new();
        for recorded in commits {
            let poison = |reason: String| HandleError::Poison(format!("commit {}: {reason}", recorded.position));
            // Before anything is read: what another category wrote is not our concern.
            if recorded.stream.as_ref().is_some_and(|stream| !R::CATEGORIES.contains(&stream.category.as_str())) {
                continue;
            }
            let Some((stream, commit)) = recorded.history().map_err(poison)? else { continue };
            for event in &commit.events {
                let wanted = self.reactor.plan(event).map_err(|error| poison(error.to_string()))?;
                plans.extend(wanted.into_iter().map(|plan| Planned {
                    stream: stream.clone(),
                    position: recorded.position,
                    event: event.id.to_string(),
                    correlation: event.correlationid.to_string(),
                    traceparent: event.traceparent.as_deref().map(str::to_owned),
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

    async fn begin(&mut self, log: &str, epoch: u64) -> Result<Begin, HandleError> {
        // Whatever comes of this, what the runner holds may be somebody else's by now.
        let (heard, hears) = oneshot::channel();
        let _ = self.planned.send(News::OwnerUnknown(heard)).await;
        // Only then is the store's list as new as what the runner knows: an effect that has just ended would be done again.
        let _ = hears.await;
        let term = self.lease.term().filter(|term| term.epoch == epoch);
        let term = term.ok_or_else(|| HandleError::Lost("its lease has ended".to_owned()))?;
        let begin = self.store.begin(R::NAME, log, epoch).await?;
        self.epoch = epoch;
        let rows = self.store.pending(R::NAME).await?;
        let _ = self.planned.send(News::Owner { term, rows }).await;
        Ok(begin)
    }

    async fn handle(
        &mut self,
        from: Position,
        to: Position,
        commits: &[&Recorded],
        parked: &[Parked],
    ) -> Result<(), HandleError> {
        let plans = self.plans(commits)?;
        self.store.record(R::NAME, self.epoch, from, to, &plans, parked).await?;
        self.announce(&plans).await;
        Ok(())
    }

    async fn released(&mut self) -> Result<Vec<Released>, HandleError> {
        let revived = self.store.revived(R::NAME, self.epoch).await?;
        if !revived.is_empty() {
            let _ = self.planned.send(News::Recorded { rows: revived, cancelled: Vec::new() }).await;
        }
        Ok(self.store.released(R::NAME, self.epoch).await?)
    }

    async fn handle_released(&mut self, commit: &Recorded) -> Result<(), HandleError> {
        let plans = self.plans(&[commit])?;
        self.store.unpark(R::NAME, self.epoch, commit.position, &plans).await?;
        self.announce(&plans).await;
        Ok(())
    }

    async fn park_again(&mut self, position: Position, reason: &str) -> Result<(), HandleError> {
        Ok(self.store.park_again(R::NAME, self.epoch, position, reason).await?)
    }
}
