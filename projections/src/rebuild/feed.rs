//! Commits out of the log for a fold, in batches as large as Postgres likes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use kernel::Position;
use runtime::consume::{self, HandleError};
use runtime::retry::Backoff;
use runtime::{Log, LogError, Recorded};

/// Most commits in a batch. Two batches are in memory: one being written, the next being read.
const BATCH: usize = 10_000;
/// Most bytes in a batch: a commit may have a megabyte.
const BYTES: usize = 16 * 1024 * 1024;
/// How often a read that breaks is begun again before the fold gives up.
const TRIES: u32 = 8;

/// One read of the log, taken up again where it broke.
pub(super) struct Feed {
    log: Arc<dyn Log>,
    commits: Option<BoxStream<'static, Result<Recorded, LogError>>>,
    /// Read already, and beyond what was asked for.
    waiting: VecDeque<Recorded>,
    /// The last position handed out or waiting.
    read: Position,
    backoff: Backoff,
}

impl Feed {
    pub(super) fn new(log: &Arc<dyn Log>) -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        Self { log: Arc::clone(log), commits: None, waiting: VecDeque::new(), read: Position::START, backoff }
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
        loop {
            match self.arrived().await {
                Ok(commit) if commit.position == self.read.next() => {
                    self.read = commit.position;
                    self.waiting.push_back(commit);
                    self.backoff.reset();
                    return Ok(());
                }
                // The log has no holes: if one shows, the read is broken.
                Ok(commit) => self.again(format!("after {} the log handed out {}", self.read, commit.position)).await?,
                Err(error) => self.again(error.to_string()).await?,
            }
        }
    }

    async fn arrived(&mut self) -> Result<Recorded, LogError> {
        let commits = match &mut self.commits {
            Some(commits) => commits,
            none => none.insert(consume::everything(&self.log, self.read).await?),
        };
        let ended = || LogError { attempt: "follow the log", reason: "the read ended".to_owned() };
        commits.next().await.unwrap_or_else(|| Err(ended()))
    }

    async fn again(&mut self, reason: String) -> Result<(), HandleError> {
        self.commits = None;
        if self.backoff.tries() >= TRIES {
            return Err(HandleError::Transient(reason));
        }
        tracing::warn!(after = self.read.sequence(), reason, "a fold reads on after a break");
        self.backoff.wait().await;
        Ok(())
    }
}
