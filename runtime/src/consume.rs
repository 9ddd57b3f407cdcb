//! The walk along the log that projectors and reactors share: read in order, hand over in batches, and when something
//! cannot be handled, find the culprit, set it aside with what follows it on its stream, and go on.
//!
//! ```text
//! transient failure  → the same batch again, with backoff, for ever: never skipped
//! anything else      → halve the batch until one commit is alone; try it a few times; park it
//! parked stream      → its later commits are parked behind it, in order
//! released by people → handled in order, between two batches
//! ```

mod everything;
mod gather;
mod gauges;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use kernel::Position;
use tokio_util::sync::CancellationToken;

use crate::lease::Lease;
use crate::retry::Backoff;
use crate::{Log, Parked, ParkedState, Recorded, StoreError, trace};
use gauges::Gauges;

pub use everything::{everything, everything_at_last};

/// Why a batch was not handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The same batch may succeed later.
    #[error("{0}")]
    Transient(String),
    /// Some commit of the batch cannot be handled as it is.
    #[error("{0}")]
    Poison(String),
    /// Another owner has taken over, or the connection that made us owner is gone.
    #[error("{0}")]
    Lost(String),
}

impl From<StoreError> for HandleError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Transient(reason) => Self::Transient(reason),
            StoreError::Poison(reason) => Self::Poison(reason),
            StoreError::Lost(reason) => Self::Lost(reason),
        }
    }
}

/// Where a consumer begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    /// The last commit it has handled or parked.
    pub checkpoint: Position,
    /// Subjects with parked commits.
    pub parked: HashSet<String>,
}

/// A subject whose parked commits shall be handled now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The subject.
    pub subject: String,
    /// Its parked commits, in order.
    pub positions: Vec<Position>,
}

/// What is specific to a consumer. One loop calls it; it needs no locks.
#[async_trait]
pub trait Handler: Send {
    /// Unique among consumers.
    fn name(&self) -> String;

    /// Becomes the owner, in the term of a lease, and says where to begin in the log of that identity. Whatever is written
    /// from now on is written under this epoch, and refused once there is an owner with a newer one.
    ///
    /// # Errors
    /// [`HandleError::Lost`] when the checkpoint belongs to another log, or to an owner of a newer epoch.
    async fn begin(&mut self, log: &str, epoch: u64) -> Result<Begin, HandleError>;

    /// Handles commits and moves the checkpoint from `from` to `to`, all or nothing. `parked` are commits of the same
    /// range that have to be set aside.
    ///
    /// # Errors
    /// See [`HandleError`]. After an error nothing has changed.
    async fn handle(
        &mut self,
        from: Position,
        to: Position,
        commits: &[&Recorded],
        parked: &[Parked],
    ) -> Result<(), HandleError>;

    /// Which parked subjects a person has released.
    ///
    /// # Errors
    /// See [`HandleError`].
    async fn released(&mut self) -> Result<Vec<Released>, HandleError>;

    /// Handles one commit that was parked, and takes it out of the lot.
    ///
    /// # Errors
    /// See [`HandleError`].
    async fn handle_released(&mut self, commit: &Recorded) -> Result<(), HandleError>;

    /// A released commit failed again.
    ///
    /// # Errors
    /// See [`HandleError`].
    async fn park_again(&mut self, position: Position, reason: &str) -> Result<(), HandleError>;
}

/// Limits of the walk.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most commits handed over at once.
    pub batch: usize,
    /// Under load, the least time from one batch to the next. It is what a commit may have to wait for company, and saves a
    /// transaction for each one that comes along.
    pub pace: Duration,
    /// How often a lone commit is tried before it is parked.
    pub tries_before_parking: u32,
    /// How often to look for released commits, and to show that the loop is alive.
    pub heartbeat: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: 1_000,
            pace: Duration::from_millis(4),
            tries_before_parking: 3,
            heartbeat: Duration::from_millis(500),
        }
    }
}

/// Runs a consumer until `stop`, whenever the lease is ours. It ends only then: whatever fails is tried again.
pub async fn run(
    mut handler: impl Handler,
    mut lease: Lease,
    log: Arc<dyn Log>,
    options: Options,
    stop: CancellationToken,
) {
    let name = handler.name();
    let gauges = Gauges::of(&name);
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    while !stop.is_cancelled() {
        if lease.term().is_none() {
            gauges.standing_by();
        }
        let term = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            term = lease.begun() => term,
        };
        // Whatever hangs, such as a connection to a database that is gone without a word: when the lease ends, so does this.
        let mut watching = lease.clone();
        let ended = || HandleError::Lost("its lease has ended".to_owned());
        let beginning = async {
            match log.identity().await {
                Ok(identity) => handler.begin(&identity, term.epoch).await,
                Err(error) => Err(HandleError::Transient(error.to_string())),
            }
        };
        let begin = tokio::select! {
            biased;
            begin = beginning => begin,
            () = watching.ended(&term) => Err(ended()),
        };
        let begin = match begin {
            Ok(begin) => begin,
            Err(error) => {
                tracing::warn!(consumer = name, %error, "cannot begin; will try again");
                gauges.grow_older();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = backoff.wait() => continue,
                }
            }
        };
        tracing::debug!(
            consumer = name,
            checkpoint = begin.checkpoint.sequence(),
            parked = begin.parked.len(),
            "begins"
        );
        let mut walk = Walk {
            name: &name,
            handler: &mut handler,
            log: &log,
            options: &options,
            stop: &stop,
            gauges: gauges.clone(),
            checkpoint: begin.checkpoint,
            parked: begin.parked,
        };
        let before = walk.checkpoint;
        let walked = tokio::select! {
            biased;
            walked = walk.go() => walked,
            () = watching.ended(&term) => Err(ended()),
        };
        match walked {
            Ok(()) => return,
            Err(error) => {
                if walk.checkpoint > before {
                    backoff.reset();
                }
                tracing::warn!(consumer = name, %error, "stopped; will begin again from the checkpoint");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = backoff.wait() => {}
                }
            }
        }
    }
}

struct Walk<'a, H> {
    name: &'a str,
    handler: &'a mut H,
    log: &'a Arc<dyn Log>,
    options: &'a Options,
    stop: &'a CancellationToken,
    gauges: Gauges,
    checkpoint: Position,
    parked: HashSet<String>,
}

impl<H: Handler> Walk<'_, H> {
    async fn go(&mut self) -> Result<(), HandleError> {
        let unreadable = |error: crate::LogError| HandleError::Transient(error.to_string());
        let head = self.log.head().await.map_err(unreadable)?;
        if self.checkpoint > head {
            let reason = format!(
                "its checkpoint {} is beyond the log's head {}: this is not the log it has read. Rebuild it",
                self.checkpoint, head
            );
            return Err(HandleError::Lost(reason));
        }
        let commits = everything(self.log, self.checkpoint).await.map_err(unreadable)?;
        let mut chunks = gather::gather(commits, self.options.batch, self.options.pace).boxed();
        let mut heartbeat = tokio::time::interval(self.options.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.gauges.came_to(self.checkpoint, head.sequence() - self.checkpoint.sequence(), None, self.parked.len());
        loop {
            // The heartbeat before the log: under load there is always another chunk, and people who released something
            // would wait for the first quiet moment.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                _ = heartbeat.tick() => {
                    self.gauges.turned(self.parked.len());
                    self.release().await?;
                    // The next one is a whole period away, however long this one took: the log has its turn in between.
                    heartbeat.reset();
                }
                chunk = chunks.next() => {
                    let gather::Gathered { commits, failed } =
                        chunk.ok_or_else(|| HandleError::Transient("the read ended".to_owned()))?;
                    self.take(&commits).await?;
                    if let Some(error) = failed {
                        return Err(unreadable(error));
                    }
                }
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Handles a run of commits: all of them in one go when nothing is wrong.
    async fn take(&mut self, commits: &[Recorded]) -> Result<(), HandleError> {
        for foreign in commits.iter().filter(|recorded| !recorded.guarded) {
            let (position, subject) = (foreign.position.sequence(), foreign.subject.as_str());
            tracing::warn!(consumer = self.name, position, subject, "a message that no writer wrote is passed over");
            self.gauges.foreign();
        }
        // The log has no holes. If one shows, or a commit comes twice, the read is broken, and going on would lose events
        // silently or count them twice: what came before it is handled, the rest is read again.
        let expected = (self.checkpoint.next().sequence()..).map(Position::at);
        let sound = commits.iter().zip(expected).take_while(|(commit, expected)| commit.position == *expected).count();
        let (commits, broken) = commits.split_at(sound);
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
        let mut tries = 0;
        let mut rest = vec![commits];
        while let Some(slice) = rest.pop() {
            let (Some(first), Some(last)) = (slice.first(), slice.last()) else { continue };
            let gauges = self.gauges.clone();
            let handling = self.hand_over(slice, last.position);
            match gauges.during(first.recorded_at, Duration::from_secs(1), handling).await {
                Ok(()) => {
                    self.checkpoint = last.position;
                    self.gauges.came_to(last.position, last.remaining, Some(last.recorded_at), self.parked.len());
                    backoff.reset();
                    tries = 0;
                }
                Err(HandleError::Poison(_)) if slice.len() > 1 => {
                    let (left, right) = slice.split_at(slice.len() / 2);
                    rest.push(right);
                    rest.push(left);
                }
                Err(HandleError::Poison(reason)) if tries + 1 >= self.options.tries_before_parking => {
                    self.park(first, reason).await?;
                    backoff.reset();
                    tries = 0;
                }
                Err(HandleError::Lost(reason)) => return Err(HandleError::Lost(reason)),
                Err(error) => {
                    // Only its own failures count against a commit, not those of a database that was away.
                    tries += u32::from(matches!(error, HandleError::Poison(_)));
                    tracing::warn!(consumer = self.name, position = first.position.sequence(), %error, "will try again");
                    self.gauges.waiting_since(Some(first.recorded_at));
                    rest.push(slice);
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Ok(()),
                        () = backoff.wait() => {}
                    }
                }
            }
        }
        match broken.first() {
            None => Ok(()),
            Some(commit) => {
                let reason = format!("after {} the log handed out {}", self.checkpoint, commit.position);
                Err(HandleError::Transient(reason))
            }
        }
    }

    async fn hand_over(&mut self, slice: &[Recorded], to: Position) -> Result<(), HandleError> {
        let (behind, commits): (Vec<_>, Vec<_>) =
            slice.iter().partition(|recorded| self.parked.contains(&recorded.subject));
        let behind: Vec<_> = behind
            .into_iter()
            .map(|recorded| Parked {
                position: recorded.position,
                subject: recorded.subject.clone(),
                state: ParkedState::Behind,
                reason: "waits behind an earlier commit of its stream".to_owned(),
            })
            .collect();
        let spans = trace::handling(self.name, &commits);
        let result = guarded(self.handler.handle(self.checkpoint, to, &commits, &behind)).await;
        trace::handled(&spans, result.is_ok());
        result
    }

    async fn park(&mut self, commit: &Recorded, reason: String) -> Result<(), HandleError> {
        tracing::error!(
            consumer = self.name,
            subject = commit.subject,
            position = commit.position.sequence(),
            reason,
            "parked; later commits of this stream will wait behind it"
        );
        let parked =
            Parked { position: commit.position, subject: commit.subject.clone(), state: ParkedState::Cause, reason };
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
        loop {
            match guarded(self.handler.handle(self.checkpoint, commit.position, &[], std::slice::from_ref(&parked)))
                .await
            {
                Ok(()) => break,
                Err(HandleError::Transient(reason)) if !self.stop.is_cancelled() => {
                    tracing::warn!(consumer = self.name, reason, "cannot park yet");
                    backoff.wait().await;
                }
                Err(error) => return Err(error),
            }
        }
        self.parked.insert(commit.subject.clone());
        self.checkpoint = commit.position;
        Ok(())
    }

    /// Handles what people have released, in order, as far as it goes.
    async fn release(&mut self) -> Result<(), HandleError> {
        for released in self.handler.released().await? {
            let mut all = true;
            for position in &released.positions {
                let read = self.log.at(*position).await.map_err(|error| HandleError::Transient(error.to_string()))?;
                let Some(commit) = read else {
                    self.handler.park_again(*position, "the log has no commit there any more").await?;
                    all = false;
                    break;
                };
                match guarded(self.handler.handle_released(&commit)).await {
                    Ok(()) => {}
                    Err(HandleError::Poison(reason)) => {
                        tracing::error!(
                            consumer = self.name,
                            position = position.sequence(),
                            reason,
                            "still cannot be handled"
                        );
                        self.handler.park_again(*position, &reason).await?;
                        all = false;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if all {
                self.parked.remove(&released.subject);
            }
        }
        Ok(())
    }
}

/// A panic while handling is the handler's defect; the commit that provokes it is poison, not the end of the loop.
async fn guarded<F: Future<Output = Result<(), HandleError>>>(handling: F) -> Result<(), HandleError> {
    match AssertUnwindSafe(handling).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(HandleError::Poison(format!("it panicked: {text}")))
        }
    }
}
