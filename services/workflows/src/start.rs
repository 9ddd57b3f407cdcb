//! Starting a run needs the definition it will follow. It is read from the definition's own stream, not from a lagging
//! view, so a run started right after `define` follows what was defined. It becomes part of the run's first event.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use kernel::{Problem, Rejection, Stamp, StreamName};
use lru::LruCache;
use runtime::{Executor, Prepare};
use tokio::sync::Semaphore;

use crate::definition::{self, ResolvedDefinition, Wanted, Workflow};
use crate::run::Command;

/// Versions of long ago that are held: a version never changes.
const HELD: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// How many of them may be looked for in the log at once: each look holds a page of it.
const LOOKS: usize = 4;

/// Fills in the definition.
pub struct Resolve {
    held: Mutex<LruCache<(StreamName, u32), ResolvedDefinition>>,
    looks: Semaphore,
}

impl Default for Resolve {
    fn default() -> Self {
        Self { held: Mutex::new(LruCache::new(HELD)), looks: Semaphore::new(LOOKS) }
    }
}

impl Resolve {
    /// A version that the workflow's state no longer remembers, out of the log.
    async fn recall(
        &self,
        stream: &StreamName,
        version: u32,
        executor: &Executor,
    ) -> Result<ResolvedDefinition, Problem> {
        let away = || Problem::unavailable("That version cannot be read from the log right now.", 1_000);
        let key = (stream.clone(), version);
        let held = || self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(found) = held() {
            return Ok(found);
        }
        let _look = self.looks.acquire().await.map_err(|_| away())?;
        // Whoever was before us has probably looked for the same one.
        if let Some(found) = held() {
            return Ok(found);
        }
        let found = executor.recall::<Workflow, _>(stream, |state| definition::version(state, version)).await?;
        let found = found.ok_or_else(away)?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).put(key.clone(), found.clone());
        Ok(found)
    }
}

#[async_trait]
impl Prepare<Command> for Resolve {
    async fn prepare(&self, command: Command, stamp: &Stamp, executor: &Executor) -> Result<Command, Problem> {
        let Command::Start { workflow, version, input, definition: None, at } = command else { return Ok(command) };
        let stream = StreamName::new(stamp.stream.tenant.as_str(), events::workflow::CATEGORY, &workflow)?;
        let found = executor.inspect::<Workflow>(&stream).await?;
        let resolved = match definition::resolve(&found.state, version).map_err(|rejection| rejection.problem())? {
            Wanted::Found(resolved) => resolved,
            Wanted::Older(version) => self.recall(&stream, version, executor).await?,
        };
        Ok(Command::Start { workflow, version, input, definition: Some(resolved), at })
    }
}
