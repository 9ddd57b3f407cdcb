//! Snapshots: folded streams kept beside the log, so that a long one need not be folded from its first commit.
//!
//! They are a **cache**. Any of them may be missing at any time; a store that is slow, away or full of nonsense costs a
//! little time and changes no answer. One is used only if the same code made it ([`SnapshotKey::fold`]), of the same log,
//! and if the log confirms the commit that it ends with.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kernel::{Position, StreamName};
use tokio::sync::Semaphore;

mod codec;
mod load;
mod store;

pub(crate) use codec::Codec;

/// Which snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SnapshotKey {
    /// Whose.
    pub stream: StreamName,
    /// Of which log, see [`crate::Log::identity`]: positions of one log mean nothing in another.
    pub log: String,
    /// A hash of the code that folded it. Two versions of the code, side by side during an upgrade, keep one each.
    pub fold: String,
}

/// A folded stream, written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The stream's version.
    pub version: u64,
    /// Where the newest commit in it stands.
    pub position: Position,
    /// State and recent command ids; only the code that wrote it can read it.
    pub body: Bytes,
}

/// A store that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not {attempt}: {reason}")]
pub struct SnapshotError {
    /// What was being attempted.
    pub attempt: &'static str,
    /// What the store said.
    pub reason: String,
}

/// Keeps snapshots. It may forget any of them whenever it likes.
#[async_trait]
pub trait Snapshots: Send + Sync + 'static {
    /// The snapshot with exactly this key.
    ///
    /// # Errors
    /// [`SnapshotError`] when the store could not be asked.
    async fn load(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, SnapshotError>;

    /// Keeps a snapshot in the place of an older one, and of one of another log. One that is newer stays: two processes
    /// may write in any order.
    ///
    /// # Errors
    /// [`SnapshotError`] when the store could not be asked.
    async fn store(&self, key: &SnapshotKey, snapshot: &Snapshot) -> Result<(), SnapshotError>;

    /// Forgets a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] when the store could not be asked.
    async fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError>;
}

/// How long a load may wait for the store. Folding thousands of events takes no longer, so waiting more cannot pay.
const LOAD_TIMEOUT: Duration = Duration::from_millis(150);
/// How long storing may take. It is nobody's answer, but it holds one of the places.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// Snapshots being stored at once. When all places are taken the stream tries again with its next commit: a queue would
/// hold states in memory for a store that is slow.
const STORING_AT_ONCE: usize = 4;
/// Largest snapshot, in bytes. One that is larger than the history it stands for is not kept either.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// What an executor needs to keep and use snapshots.
pub struct SnapshotCache {
    store: Arc<dyn Snapshots>,
    log: String,
    fold: String,
    every_commits: u32,
    places: Arc<Semaphore>,
}

impl SnapshotCache {
    /// Snapshots of the log with this identity, made by the code with this hash: one each time a stream has grown by so
    /// many commits. With 0 none are kept or used.
    #[must_use]
    pub fn new(store: Arc<dyn Snapshots>, log: String, fold: String, every_commits: u32) -> Self {
        let places = Arc::new(Semaphore::new(STORING_AT_ONCE));
        Self { store, log, fold, every_commits, places }
    }

    fn key(&self, stream: &StreamName) -> SnapshotKey {
        SnapshotKey { stream: stream.clone(), log: self.log.clone(), fold: self.fold.clone() }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(crate::telemetry::SNAPSHOTS_TOTAL, "outcome" => outcome).increment(1);
}
