//! Starting a run needs the definition it will follow. It is read from the definition's own stream, not from a lagging
//! view, so a run started right after `define` follows what was defined. It becomes part of the run's first event.

use async_trait::async_trait;
use kernel::{Problem, Rejection, Stamp, StreamName};
use runtime::{Executor, Prepare};

use crate::definition::{self, Wanted, Workflow};
use crate::run::Command;

/// Fills in the definition.
pub struct Resolve;

#[async_trait]
impl Prepare<Command> for Resolve {
    async fn prepare(&self, command: Command, stamp: &Stamp, executor: &Executor) -> Result<Command, Problem> {
        let Command::Start { workflow, version, input, definition: None, at } = command else { return Ok(command) };
        let stream = StreamName::new(stamp.stream.tenant.as_str(), events::workflow::CATEGORY, &workflow)?;
        let found = executor.inspect::<Workflow>(&stream).await?;
        let resolved = match definition::resolve(&found.state, version).map_err(|rejection| rejection.problem())? {
            Wanted::Found(resolved) => resolved,
            Wanted::Older(version) => {
                let recalled =
                    executor.recall::<Workflow, _>(&stream, |state| definition::version(state, version)).await?;
                recalled
                    .ok_or_else(|| Problem::unavailable("That version cannot be read from the log right now.", 1_000))?
            }
        };
        Ok(Command::Start { workflow, version, input, definition: Some(resolved), at })
    }
}
