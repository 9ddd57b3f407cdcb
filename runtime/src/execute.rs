//! The executor: hands every command to the one writer of its shard and waits for the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kernel::{
    CommandId, Commit, Decider, Draft, Envelope, EventId, Position, PrincipalId, Problem, SHARDS, StreamName, Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::folded::BoxState;
use crate::shard::{Ask, Job, Shard};
use crate::{CommitIndex, Log, Registry, SnapshotCache, clock, telemetry, trace};

/// Limits of an executor. Every one of them exists so that overload is answered rather than suffered.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commands that may wait or run per shard before callers are told to come back later.
    pub queue_per_shard: usize,
    /// Folded streams kept in memory per shard.
    pub streams_per_shard: usize,
    /// Bytes of memory that the folded streams kept may take per shard: whichever limit is reached first. States are weighed,
    /// see [`Registry::with_snapshots`]; what is being worked on is not counted.
    pub cache_bytes_per_shard: usize,
    /// Command ids of a folded stream's newest commits that are kept with it, 16 bytes each: beyond them the index answers.
    pub ids_per_stream: usize,
    /// How long a command may take, waiting included, before its caller is told that the outcome is unknown.
    pub deadline: Duration,
    /// How often a command is decided again after losing to another writer.
    pub conflict_retries: u32,
    /// Largest body, in bytes. A commit must fit into one message of the log (1 MiB), envelope included.
    pub max_body_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_per_shard: 4_096,
            streams_per_shard: 2_048,
            cache_bytes_per_shard: 6 * 1024 * 1024,
            // Retries come seconds, at most minutes, after the first try; even a busy stream rarely makes more commits in
            // that time.
            ids_per_stream: 128,
            deadline: Duration::from_secs(10),
            conflict_retries: 16,
            max_body_bytes: 512 * 1024,
        }
    }
}

/// A command as a door hands it in.
#[derive(Debug, Clone)]
pub struct Request {
    /// The stream it addresses.
    pub stream: StreamName,
    /// Wire name.
    pub command: String,
    /// JSON body; empty counts as `{}`.
    pub body: Bytes,
    /// Idempotency key; without one a retry is a new command.
    pub id: Option<CommandId>,
    /// Who asks, as the door established.
    pub principal: PrincipalId,
    /// Whether the platform itself asks: only then are internal commands taken.
    pub internal: bool,
    /// Decide only if the stream has exactly this version.
    pub expected_version: Option<u64>,
    /// The chain this belongs to; the command's own id when absent.
    pub correlation: Option<String>,
    /// The event that led to it; the command's own id when absent.
    pub causation: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl Request {
    /// A command from outside, without optional parts.
    pub fn new(stream: StreamName, command: &str, body: impl Into<Bytes>, principal: PrincipalId) -> Self {
        Self {
            stream,
            command: command.to_owned(),
            body: body.into(),
            id: None,
            principal,
            internal: false,
            expected_version: None,
            correlation: None,
            causation: None,
            traceparent: None,
        }
    }

    /// A command of the platform itself.
    pub fn internal(stream: StreamName, command: &str, body: impl Into<Bytes>) -> Self {
        Self { internal: true, ..Self::new(stream, command, body, PrincipalId::system()) }
    }

    /// With an idempotency key.
    #[must_use]
    pub fn with_id(mut self, id: CommandId) -> Self {
        self.id = Some(id);
        self
    }
}

/// Accepted. The same command id gives an equal answer for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Always true: a refusal is a problem document.
    pub accepted: bool,
    /// The command's id; remember it when you let us make it.
    pub command_id: CommandId,
    /// `tenant/category/id`.
    pub stream: String,
    /// Where the commit stands in the log; for a command that changed nothing, where the stream stood.
    pub position: Position,
    /// The stream's version after the command.
    pub version: u64,
    /// What happened; empty when nothing had to.
    pub events: Vec<AnswerEvent>,
    /// Whether this answer repeats an earlier one. Not part of the document: it must stay equal.
    #[serde(skip)]
    pub repeated: bool,
}

/// One event of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerEvent {
    /// Wire name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The event's id.
    pub id: String,
    /// The stream's version after it.
    pub version: u64,
    /// When the command was taken.
    pub time: Timestamp,
}

impl AnswerEvent {
    fn of(event: &Envelope<'_>) -> Self {
        Self {
            type_name: event.type_name.to_string(),
            id: event.id.to_string(),
            version: event.streamversion,
            time: event.time,
        }
    }
}

impl Answer {
    /// The answer to a command whose commit has just been written. Read back from the log it gives an equal one, see
    /// [`Answer::of`].
    pub(crate) fn to(draft: &Draft, position: Position) -> Self {
        let events = draft.events.iter().enumerate().map(|(index, event)| AnswerEvent {
            type_name: event.type_name.to_owned(),
            id: EventId { commit: draft.id.clone(), index: index as u32 }.to_string(),
            version: draft.version_before + 1 + index as u64,
            time: draft.at,
        });
        Self {
            accepted: true,
            command_id: draft.id.clone(),
            stream: draft.stream.to_string(),
            position,
            version: draft.version_before + draft.events.len() as u64,
            events: events.collect(),
            repeated: false,
        }
    }

    /// The answer that a commit in the log stands for.
    pub(crate) fn of(stream: &StreamName, id: &CommandId, commit: &Commit<'_>, position: Position) -> Self {
        Self {
            accepted: true,
            command_id: id.clone(),
            stream: stream.to_string(),
            position,
            version: commit.version_after(),
            events: commit.events.iter().map(AnswerEvent::of).collect(),
            repeated: false,
        }
    }
}

/// A stream's state as the executor sees it.
#[derive(Debug, Clone)]
pub struct Inspected<S> {
    /// The folded state.
    pub state: S,
    /// The stream's version; 0 when it does not exist.
    pub version: u64,
    /// Position of its last commit.
    pub position: Position,
}

/// Whoever can execute commands. Reactors report through it.
#[async_trait]
pub trait Commands: Send + Sync + 'static {
    /// Executes one command.
    ///
    /// # Errors
    /// A [`Problem`]: a refusal, or why the outcome is not known.
    async fn execute(&self, request: Request) -> Result<Answer, Problem>;
}

pub(crate) struct Environment {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) index: Arc<dyn CommitIndex>,
    pub(crate) registry: Registry,
    pub(crate) snapshots: Option<SnapshotCache>,
    pub(crate) options: Options,
}

struct Inner {
    environment: Arc<Environment>,
    shards: entrance::Shards,
    tasks: TaskTracker,
}

mod entrance {
    use super::{Job, mpsc};
    use std::sync::RwLock;

    /// A shard's two entrances.
    #[derive(Clone)]
    pub(super) struct Entrance {
        pub(super) commands: mpsc::Sender<Job>,
        /// Commands in hand may have to look at other streams before they can go on: were they to queue behind other
        /// commands, a full shard could wait for itself.
        pub(super) inspections: mpsc::Sender<Job>,
    }

    impl Entrance {
        pub(super) fn waiting(&self) -> usize {
            self.commands.max_capacity() - self.commands.capacity()
        }
    }

    /// The shards' entrances; emptied to close them.
    pub(super) struct Shards(RwLock<Vec<Entrance>>);

    impl Shards {
        pub(super) fn new(entrances: Vec<Entrance>) -> Self {
            Self(RwLock::new(entrances))
        }

        pub(super) fn get(&self, shard: u8) -> Option<Entrance> {
            self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(usize::from(shard)).cloned()
        }

        pub(super) fn close(&self) {
            self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        }
    }
}

/// Takes commands. Cheap to clone; all clones share the shards.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

impl Executor {
    /// Starts one writer per shard.
    pub fn start(log: Arc<dyn Log>, index: Arc<dyn CommitIndex>, registry: Registry, options: Options) -> Self {
        Self::start_with_snapshots(log, index, registry, None, options)
    }

    /// As [`Executor::start`], with a cache of snapshots for the categories that the registry names.
    pub fn start_with_snapshots(
        log: Arc<dyn Log>,
        index: Arc<dyn CommitIndex>,
        registry: Registry,
        snapshots: Option<SnapshotCache>,
        options: Options,
    ) -> Self {
        let environment = Arc::new(Environment { log, index, registry, snapshots, options });
        let tasks = TaskTracker::new();
        Self(Arc::new_cyclic(|executor| {
            let entrances = (0..SHARDS).map(|_| {
                let (commands, jobs) = mpsc::channel(environment.options.queue_per_shard);
                let (inspections, asides) = mpsc::channel(environment.options.queue_per_shard);
                tasks.spawn(Shard::new(Arc::clone(&environment), ExecutorRef(executor.clone()), jobs, asides).run());
                entrance::Entrance { commands, inspections }
            });
            let shards = entrance::Shards::new(entrances.collect());
            Inner { environment: Arc::clone(&environment), shards, tasks: tasks.clone() }
        }))
    }

    /// Every category with its commands.
    pub fn catalogue(&self) -> impl Iterator<Item = (&'static str, &'static [kernel::CommandSpec])> + '_ {
        self.0.environment.registry.catalogue()
    }

    /// Largest body taken, in bytes.
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        self.0.environment.options.max_body_bytes
    }

    /// Commands that wait in front of the shards.
    #[must_use]
    pub fn waiting(&self) -> usize {
        (0..SHARDS).filter_map(|shard| self.0.shards.get(shard)).map(|entrance| entrance.waiting()).sum()
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.0.environment
    }

    /// Takes no more commands and waits until those already taken are answered.
    pub async fn close(&self) {
        self.0.shards.close();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// A stream's current state.
    ///
    /// # Errors
    /// 503 when the log cannot be read now, 500 when the stream's history cannot be decoded.
    pub async fn inspect<D: Decider>(&self, stream: &StreamName) -> Result<Inspected<D::State>, Problem> {
        let (reply, answer) = oneshot::channel();
        self.hand_over(stream.clone(), Ask::Inspect { replies: vec![reply] })?;
        let found: Inspected<BoxState> = self.answered(answer).await?;
        let state =
            found.state.downcast::<D::State>().map_err(|_| defect("the category belongs to another decider"))?;
        Ok(Inspected { state: *state, version: found.version, position: found.position })
    }

    fn hand_over(&self, stream: StreamName, ask: Ask) -> Result<(), Problem> {
        let Some(entrance) = self.0.shards.get(stream.shard()) else {
            return Err(Problem::unavailable("This instance is shutting down; ask again.", 500));
        };
        // The writer knows better than we do why it took too long, so it is to answer first.
        let deadline = self.0.environment.options.deadline;
        let job = Job { stream, ask, until: tokio::time::Instant::now() + deadline - deadline / 50 };
        let queue = match job.ask {
            Ask::Execute { .. } => entrance.commands,
            Ask::Inspect { .. } => entrance.inspections,
        };
        queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Problem::busy("Too many commands are waiting for this shard; ask again with the same command id.", 250)
            }
            mpsc::error::TrySendError::Closed(_) => {
                Problem::unavailable("This instance is shutting down; ask again.", 500)
            }
        })
    }

    async fn answered<T>(&self, answer: oneshot::Receiver<Result<T, Problem>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.0.environment.options.deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(defect("the command's handler ended without an answer")),
            Err(_) => Err(outcome_unknown("it took too long; if that goes on, /readyz tells what is wrong")),
        }
    }
}

#[async_trait]
impl Commands for Executor {
    async fn execute(&self, mut request: Request) -> Result<Answer, Problem> {
        let began = Instant::now();
        let max = self.0.environment.options.max_body_bytes;
        let category = request.stream.category.clone();
        // Only names that exist become labels: anything else would let callers make up metrics without end.
        let known = self.0.environment.registry.find(category.as_str(), &request.command, true).is_ok();
        let labels = if known { (category.as_str().to_owned(), request.command.clone()) } else { Default::default() };
        let span = tracing::info_span!(
            target: trace::TARGET,
            parent: None,
            "command",
            otel.name = format!("command {}.{}", labels.0, labels.1),
            outcome = tracing::field::Empty,
        );
        trace::step(&span, &mut request.traceparent);
        let result = if request.body.len() > max {
            let detail = format!("The body has {} bytes; at most {max} are taken.", request.body.len());
            Err(Problem::new(413, "too_large", detail))
        } else {
            let (reply, answer) = oneshot::channel();
            let stream = request.stream.clone();
            let ask = Ask::Execute { request: Box::new(request), taken_at: clock::now(), reply };
            match self.hand_over(stream, ask) {
                Ok(()) => self.answered(answer).await,
                Err(problem) => Err(problem),
            }
        };
        let outcome = match &result {
            Ok(answer) if answer.repeated => "duplicate".to_owned(),
            Ok(answer) if answer.events.is_empty() => "nothing".to_owned(),
            Ok(_) => "accepted".to_owned(),
            Err(problem) => problem.code.to_string(),
        };
        span.record("outcome", outcome.as_str());
        metrics::histogram!(telemetry::COMMAND_DURATION_SECONDS).record(began.elapsed().as_secs_f64());
        let labels = [("category", labels.0), ("command", labels.1), ("outcome", outcome)];
        metrics::counter!(telemetry::COMMANDS_TOTAL, &labels).increment(1);
        result
    }
}

/// The executor as its own writers see it: they must not keep it alive.
#[derive(Clone)]
pub(crate) struct ExecutorRef(std::sync::Weak<Inner>);

impl ExecutorRef {
    pub(crate) fn get(&self) -> Result<Executor, Problem> {
        let gone = || Problem::unavailable("This instance is shutting down; ask again.", 500);
        self.0.upgrade().map(Executor).ok_or_else(gone)
    }
}

pub(crate) fn defect(what: &str) -> Problem {
    tracing::error!(what, "defect");
    Problem::new(500, "defect", "Something of ours broke while answering; it has been logged. Nothing is half-written.")
}

pub(crate) fn outcome_unknown(why: &str) -> Problem {
    let detail = format!(
        "Whether the command was accepted is not known, because {why}. Ask again with the same command id: it counts once."
    );
    Problem::new(503, "outcome_unknown", detail).retry_after(1_000)
}
