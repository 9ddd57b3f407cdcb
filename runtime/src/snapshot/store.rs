//! Storing: in the background, after the answer, and only so many at once.

use kernel::StreamName;

use super::codec::NotEncoded;
use super::{MAX_BODY_BYTES, STORE_TIMEOUT, Snapshot, count};
use crate::execute::Environment;
use crate::folded::Folded;

impl Environment {
    /// Takes a snapshot if the stream has grown enough since the last one. Costs its caller a copy of the state.
    pub(crate) fn keep_snapshot(&self, stream: &StreamName, folded: &mut Folded) {
        let Some(cache) = &self.snapshots else { return };
        if cache.every_commits == 0 || folded.unsaved_commits < cache.every_commits {
            return;
        }
        let category = stream.category.as_str();
        let (Some(codec), Some(decider)) = (self.registry.codec(category), self.registry.owner(category)) else {
            return;
        };
        // The stream's last message may be a foreign one, which is no part of its history.
        let Some(position) = folded.recent.newest() else { return };
        let Ok(place) = std::sync::Arc::clone(&cache.places).try_acquire_owned() else {
            count("skipped");
            return;
        };
        // Also when it fails: the next try comes with the next so many commits, not with each.
        folded.unsaved_commits = 0;
        let (store, key, version) = (std::sync::Arc::clone(&cache.store), cache.key(stream), folded.version);
        let (state, recent, bytes) = (decider.clone_state(&folded.state), folded.recent.clone(), folded.bytes);
        tokio::spawn(async move {
            let limit = bytes.min(MAX_BODY_BYTES);
            // Writing out megabytes would hold up whatever else this thread has to answer.
            let encoded = tokio::task::spawn_blocking(move || codec.encode(&recent, bytes, &state, limit)).await;
            let body = match encoded {
                Ok(Ok(body)) => body.into(),
                Ok(Err(NotEncoded::TooLarge)) => return count("too_large"),
                Ok(Err(NotEncoded::Unwritable(reason))) => {
                    tracing::warn!(stream = %key.stream, reason, "a state cannot be written out");
                    return count("not_stored");
                }
                Err(error) => {
                    tracing::warn!(stream = %key.stream, %error, "a state cannot be written out");
                    return count("not_stored");
                }
            };
            let snapshot = Snapshot { version, position, body };
            match tokio::time::timeout(STORE_TIMEOUT, store.store(&key, &snapshot)).await {
                Ok(Ok(())) => count("stored"),
                Ok(Err(error)) => {
                    tracing::debug!(stream = %key.stream, %error, "a snapshot was not stored");
                    count("not_stored");
                }
                Err(_) => {
                    tracing::debug!(stream = %key.stream, "storing a snapshot took too long");
                    count("not_stored");
                }
            }
            drop(place);
        });
    }
}
