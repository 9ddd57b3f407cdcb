//! Several instances, one writer per shard: a command goes to the instance that has the lease of its shard, because that one
//! has the stream in memory and its commits share a flush.
//!
//! This is for speed only. When the holder cannot be reached, or nobody is known to be it, the command is executed here: the
//! log's guard and the command's id keep that correct, also when the holder executes it after all. Only a no is not certain
//! then: what the holder has begun may yet arrive.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::{CommandId, Problem, SHARDS};

use crate::execute::outcome_unknown;
use crate::lease::Leases;
use crate::{Answer, Commands, Executor, Request, clock};

/// Why an instance could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the instance could not be asked: {reason}")]
pub struct Unreachable {
    /// What happened.
    pub reason: String,
    /// Whether it may have taken the command nevertheless, and may be executing it.
    pub perhaps_taken: bool,
}

/// The port to the other instances.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Has another instance execute a command.
    ///
    /// # Errors
    /// [`Unreachable`] when no answer came.
    async fn ask(&self, instance: &str, request: &Request) -> Result<Result<Answer, Problem>, Unreachable>;
}

/// The lease of a shard.
#[must_use]
pub fn shard_lease(shard: u8) -> String {
    format!("shard/{shard:02}")
}

/// The leases of all shards.
pub fn shard_leases() -> impl Iterator<Item = String> {
    (0..SHARDS).map(shard_lease)
}

/// Executes here what is ours, and elsewhere what is another's.
pub struct Routed {
    here: Executor,
    leases: Leases,
    peers: Arc<dyn Peers>,
}

impl Routed {
    /// The executor is this instance's own.
    #[must_use]
    pub fn new(here: Executor, leases: Leases, peers: Arc<dyn Peers>) -> Self {
        Self { here, leases, peers }
    }

    fn elsewhere(&self, request: &Request) -> Option<String> {
        let lease = shard_lease(request.stream.shard());
        if self.leases.holds(&lease) {
            return None;
        }
        self.leases.holder(&lease).filter(|holder| holder != self.leases.instance())
    }
}

#[async_trait]
impl Commands for Routed {
    async fn execute(&self, mut request: Request) -> Result<Answer, Problem> {
        let Some(holder) = self.elsewhere(&request) else { return self.here.execute(request).await };
        // Two instances may end up executing it: the id makes it one command.
        if request.id.is_none() {
            request.id = Some(CommandId::new(&clock::fresh_id("cmd_"))?);
        }
        let perhaps_taken = match self.peers.ask(&holder, &request).await {
            // It knows of nothing wrong with the command, only with itself.
            Ok(Err(problem)) if problem.code == "unavailable" => {
                tracing::debug!(holder, %problem, "the holder of the shard cannot; executing here");
                false
            }
            Ok(answer) => return answer,
            Err(error) => {
                tracing::debug!(holder, %error, "executing here");
                error.perhaps_taken
            }
        };
        let outcome = self.here.execute(request).await;
        let is_written = outcome.as_ref().is_ok_and(|answer| !answer.events.is_empty());
        match perhaps_taken && !is_written {
            // A fact may have changed since the holder began, so it may write what we refuse.
            true => Err(outcome_unknown("the instance that was asked first has not answered")),
            false => outcome,
        }
    }
}
