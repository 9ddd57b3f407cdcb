//! Loading: a long stream that nobody has in memory begins where its snapshot ends, if the log agrees.

use kernel::StreamName;

use super::{Codec, LOAD_TIMEOUT, Snapshot, SnapshotCache, SnapshotKey, count};
use crate::LogError;
use crate::execute::Environment;
use crate::folded::{Folded, Weighed};

/// Why a snapshot is not used.
enum Unusable {
    /// It is wrong, and will stay so.
    Wrong(String),
    /// The log could not be asked; what the caller does next will tell it.
    Unknown(LogError),
}

impl Environment {
    /// A stream as of its snapshot; `None` when there is none that can be used and leads beyond a version.
    pub(crate) async fn load_snapshot(&self, stream: &StreamName, beyond_version: u64) -> Option<Folded> {
        let cache = self.snapshots.as_ref().filter(|cache| cache.every_commits > 0)?;
        let codec = self.registry.codec(stream.category.as_str())?;
        let key = cache.key(stream);
        let snapshot = cache.ask(&key).await?;
        if snapshot.version <= beyond_version {
            count("behind");
            return None;
        }
        match self.confirmed(codec, stream, &snapshot).await {
            Ok(folded) => {
                count("used");
                Some(folded)
            }
            Err(Unusable::Unknown(error)) => {
                tracing::debug!(%stream, %error, "a snapshot could not be compared with the log");
                None
            }
            Err(Unusable::Wrong(reason)) => {
                count("refused");
                tracing::debug!(%stream, reason, "a snapshot is deleted; the stream is folded from its first commit");
                cache.forget(&key).await;
                None
            }
        }
    }

    /// The log decides: the commit that the snapshot ends with must stand where the snapshot says, with the same id and
    /// the same version. It does not when the log was restored to a moment before, or lost its end and grew another one.
    async fn confirmed(&self, codec: Codec, stream: &StreamName, snapshot: &Snapshot) -> Result<Folded, Unusable> {
        let wrong = |reason: &str| Unusable::Wrong(reason.to_owned());
        let parts = codec.decode(&snapshot.body).map_err(Unusable::Wrong)?;
        let found = self.log.at(snapshot.position).await.map_err(Unusable::Unknown)?;
        let found = found.ok_or_else(|| wrong("the log does not reach as far"))?;
        let (owner, commit) =
            found.history().map_err(Unusable::Wrong)?.ok_or_else(|| wrong("it ends with a foreign message"))?;
        if owner != stream
            || commit.version_after() != snapshot.version
            || !parts.recent.ends_with(commit.id(), snapshot.position)
        {
            return Err(wrong("the log has another commit where it ends"));
        }
        let (version, position) = (snapshot.version, snapshot.position);
        let (state, bytes) = (parts.state, parts.bytes);
        let recent = parts.recent.limited_to(self.options.ids_per_stream);
        Ok(Folded { state, version, position, recent, bytes, weighed: Weighed::default(), unsaved_commits: 0 })
    }
}

impl SnapshotCache {
    async fn ask(&self, key: &SnapshotKey) -> Option<Snapshot> {
        match tokio::time::timeout(LOAD_TIMEOUT, self.store.load(key)).await {
            Ok(Ok(Some(snapshot))) => Some(snapshot),
            Ok(Ok(None)) => {
                count("absent");
                None
            }
            Ok(Err(error)) => {
                count("unreachable");
                tracing::debug!(stream = %key.stream, %error, "no snapshot; the stream is folded from its first commit");
                None
            }
            Err(_) => {
                count("unreachable");
                tracing::debug!(stream = %key.stream, "a snapshot came late; the stream is folded from its first commit");
                None
            }
        }
    }

    /// Failing to delete is no harm: whoever loads it next finds it wrong again.
    async fn forget(&self, key: &SnapshotKey) {
        if !matches!(tokio::time::timeout(LOAD_TIMEOUT, self.store.remove(key)).await, Ok(Ok(()))) {
            tracing::debug!(stream = %key.stream, "a wrong snapshot could not be deleted");
        }
    }
}
