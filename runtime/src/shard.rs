//! The loop of a shard: it keeps folded streams in memory, and works on many streams at once and on each stream one
//! command at a time.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use kernel::{Problem, StreamName, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::execute::{Environment, ExecutorRef};
use crate::folded::{BoxState, Folded};
use crate::writer::Work;
use crate::{Answer, Inspected, Request};

/// Something to do on one stream.
pub(crate) struct Job {
    pub(crate) stream: StreamName,
    pub(crate) ask: Ask,
    /// Just before the caller is told that it took too long: until then, what fails for now is tried again.
    pub(crate) until: Instant,
}

pub(crate) enum Ask {
    Execute {
        request: Box<Request>,
        taken_at: Timestamp,
        reply: oneshot::Sender<Result<Answer, Problem>>,
    },
    /// One look answers everybody who asked before it began.
    Inspect {
        replies: Vec<Looking>,
    },
}

/// Somebody who waits for a stream's state.
pub(crate) type Looking = oneshot::Sender<Result<Inspected<BoxState>, Problem>>;

/// What a finished job leaves: the folded stream, unless its state is in doubt.
type Finished = (StreamName, Option<Folded>);

/// One shard's loop. It owns the cache; a running job owns the one entry it works on, so there is nothing to lock.
pub(crate) struct Shard {
    environment: Arc<Environment>,
    executor: ExecutorRef,
    inbox: mpsc::Receiver<Job>,
    /// Inspections: never held back, because commands in hand may be waiting for them.
    asides: mpsc::Receiver<Job>,
    cache: Cache,
    /// Streams being worked on, with the jobs that wait for them.
    busy: HashMap<StreamName, VecDeque<Job>>,
    running: FuturesUnordered<BoxFuture<'static, Finished>>,
    outstanding: usize,
}

impl Shard {
    pub(crate) fn new(
        environment: Arc<Environment>,
        executor: ExecutorRef,
        inbox: mpsc::Receiver<Job>,
        asides: mpsc::Receiver<Job>,
    ) -> Self {
        let options = &environment.options;
        let cache = Cache::new(options.streams_per_shard, options.cache_bytes_per_shard);
        Self {
            environment,
            executor,
            inbox,
            asides,
            cache,
            busy: HashMap::new(),
            running: FuturesUnordered::new(),
            outstanding: 0,
        }
    }

    /// Runs until the inbox is closed and everything taken is answered.
    pub(crate) async fn run(mut self) {
        let limit = self.environment.options.queue_per_shard;
        let mut open = true;
        while open || self.outstanding > 0 {
            // What is finished goes first: it frees its stream and its place, and there is never more of it than is in hand.
            // Inspections come before commands, because commands in hand wait for them; whoever asks for one waits for its
            // answer, so they cannot come without end. Commands are last: their queue is where overload shows.
            tokio::select! {
                biased;
                Some((stream, folded)) = self.running.next() => self.put_back(stream, folded),
                Some(job) = self.asides.recv() => self.take(job),
                // Past the limit jobs stay in the inbox, which is bounded: that is where callers learn of overload.
                job = self.inbox.recv(), if open && self.outstanding < limit => match job {
                    Some(job) => self.take(job),
                    None => open = false,
                },
            }
        }
    }

    fn take(&mut self, job: Job) {
        self.outstanding += 1;
        match self.busy.get_mut(&job.stream) {
            Some(waiting) => waiting.push_back(job),
            None => {
                let folded = self.cache.take(&job.stream);
                self.busy.insert(job.stream.clone(), VecDeque::new());
                self.begin(job, folded);
            }
        }
    }

    fn begin(&mut self, job: Job, folded: Option<Folded>) {
        let stream = job.stream.clone();
        let (environment, executor) = (Arc::clone(&self.environment), self.executor.clone());
        let work = Work { environment, executor, stream, until: job.until };
        let done = job.stream.clone();
        // A panic in a decider is a defect of that decider: its caller hears of it, the shard goes on.
        let guarded = AssertUnwindSafe(async move { work.perform(job.ask, folded).await }).catch_unwind();
        self.running.push(guarded.map(move |result| (done, result.unwrap_or(None))).boxed());
    }

    fn put_back(&mut self, stream: StreamName, folded: Option<Folded>) {
        self.outstanding -= 1;
        let waiting = self.busy.get_mut(&stream);
        match waiting.and_then(|waiting| waiting.pop_front().map(|next| together(next, waiting))) {
            Some((next, joined)) => {
                self.outstanding -= joined;
                self.begin(next, folded);
            }
            None => {
                self.busy.remove(&stream);
                if let Some(folded) = folded {
                    self.cache.keep(stream, folded);
                }
            }
        }
    }
}

/// Inspections that wait one behind the other become one: it begins after the last of them was asked, so it is as fresh for
/// each as its own would be. A stream that every command looks at (a definition that is started a thousand times a second)
/// would otherwise be read as often, one read after the other.
fn together(mut next: Job, waiting: &mut VecDeque<Job>) -> (Job, usize) {
    let mut joined = 0;
    if let Ask::Inspect { replies } = &mut next.ask {
        while let Some(Job { ask: Ask::Inspect { replies: others }, until, .. }) =
            waiting.pop_front_if(|job| matches!(job.ask, Ask::Inspect { .. }))
        {
            replies.extend(others);
            next.until = next.until.max(until);
            joined += 1;
        }
    }
    (next, joined)
}
