//! Snapshots in memory.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use kernel::StreamName;

use super::locked;
use crate::{Snapshot, SnapshotError, SnapshotKey, Snapshots};

type Kept = HashMap<(StreamName, String), (String, Snapshot)>;

/// A store that loses nothing until it is told to.
#[derive(Default)]
pub struct MemorySnapshots {
    kept: Mutex<Kept>,
}

impl MemorySnapshots {
    /// How many it keeps.
    #[must_use]
    pub fn len(&self) -> usize {
        locked(&self.kept).len()
    }

    /// Whether it keeps none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything, as may happen at any time.
    pub fn clear(&self) {
        locked(&self.kept).clear();
    }
}

fn place(key: &SnapshotKey) -> (StreamName, String) {
    (key.stream.clone(), key.fold.clone())
}

#[async_trait]
impl Snapshots for MemorySnapshots {
    async fn load(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, SnapshotError> {
        let kept = locked(&self.kept);
        Ok(kept.get(&place(key)).filter(|(log, _)| *log == key.log).map(|(_, snapshot)| snapshot.clone()))
    }

    async fn store(&self, key: &SnapshotKey, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let mut kept = locked(&self.kept);
        let stays =
            kept.get(&place(key)).is_some_and(|(log, old)| *log == key.log && old.position >= snapshot.position);
        if !stays {
            kept.insert(place(key), (key.log.clone(), snapshot.clone()));
        }
        Ok(())
    }

    async fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        let mut kept = locked(&self.kept);
        if kept.get(&place(key)).is_some_and(|(log, _)| *log == key.log) {
            kept.remove(&place(key));
        }
        Ok(())
    }
}
