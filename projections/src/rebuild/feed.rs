//! Commits out of the log for a fold, in batches as large as Postgres likes them.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{BoxStream, Fuse};
use futures::{FutureExt, StreamExt};
use kernel::Position;
use runtime::consume::{self, HandleError};
use runtime::{Log, LogError, Recorded};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Most commits in a batch. One batch is in memory while it is written, the next one while it is put together, and what waits
/// between the tasks. Nothing is written while the first one is read and nothing read while the last one is written, so larger
/// ones are no gain.
const BATCH: usize = 4_000;
/// Most bytes in a batch: a commit may have a megabyte.
const BYTES: usize = 16 * 1024 * 1024;

/// Commits that change hands together, and their bytes. Waking somebody for each would cost more than reading it.
const PORTION: usize = 256;
const PORTION_BYTES: usize = 1024 * 1024;
/// Portions that may wait: about a batch.
const PORTIONS: usize = 16;

/// Commits in order, and at their end perhaps why there are no more.
type Portion = Vec<Result<Recorded, LogError>>;

/// One read of the whole log.
pub(super) struct Feed {
    commits: Portions,
    /// Read already, and beyond what was asked for.
    waiting: VecDeque<Recorded>,
    /// The last position handed out or waiting.
    read: Position,
}

impl Feed {
    pub(super) fn new(log: &Arc<dyn Log>) -> Self {
        Self { commits: Portions::read(log), waiting: VecDeque::new(), read: Position::START }
    }

    /// The next commits up to a position that the log has; empty when that has been reached.
    pub(super) async fn batch(&mut self, until: Position) -> Result<Vec<Recorded>, HandleError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH && bytes < BYTES {
            if self.waiting.is_empty() {
                if self.read >= until {
                    break;
                }
                self.fill().await?;
            }
            if self.waiting.front().is_none_or(|next| next.position > until) {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += next.payload.len();
            batch.push(next);
        }
        Ok(batch)
    }

    /// Takes in what has arrived, at least one commit.
    async fn fill(&mut self) -> Result<(), HandleError> {
        let ended = || HandleError::Transient("the read of the log ended".to_owned());
        for arrived in self.commits.next().await.ok_or_else(ended)? {
            let commit = arrived.map_err(|error| HandleError::Transient(error.to_string()))?;
            if commit.position != self.read.next() {
                let reason = format!("after {} the log handed out {}", self.read, commit.position);
                return Err(HandleError::Transient(reason));
            }
            self.read = commit.position;
            self.waiting.push_back(commit);
        }
        Ok(())
    }
}

/// A read by a task of its own, so that it goes on while a batch is folded.
struct Portions {
    arriving: mpsc::Receiver<Portion>,
    _reading: AbortOnDropHandle<()>,
}

impl Portions {
    fn read(log: &Arc<dyn Log>) -> Self {
        let (portions, arriving) = mpsc::channel(PORTIONS);
        // A portion ends at the end of the read, and the next one asks once more.
        let mut commits = consume::everything_at_last(log, Position::START).fuse();
        let reading = tokio::spawn(async move {
            while let Some(portion) = portion(&mut commits).await {
                if portions.send(portion).await.is_err() {
                    return;
                }
            }
        });
        Self { arriving, _reading: AbortOnDropHandle::new(reading) }
    }

    async fn next(&mut self) -> Option<Portion> {
        self.arriving.recv().await
    }
}

/// What is there, at least one; nothing once the read has ended.
async fn portion(commits: &mut Fuse<BoxStream<'static, Result<Recorded, LogError>>>) -> Option<Portion> {
    let (mut portion, mut bytes) = (Vec::new(), 0);
    let mut next = Some(commits.next().await?);
    while let Some(commit) = next {
        bytes += commit.as_ref().map_or(0, |commit| commit.payload.len());
        portion.push(commit);
        let full = portion.len() >= PORTION || bytes >= PORTION_BYTES;
        next = if full { None } else { commits.next().now_or_never().flatten() };
    }
    Some(portion)
}
