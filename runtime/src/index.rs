//! The port to the index of commit ids: the memory beyond a stream's recent commits.

use async_trait::async_trait;
use kernel::{CommandId, Position, StreamName};

use crate::LogError;

/// What the index knows about a command id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// It became the commit at this position.
    Found(Position),
    /// It is not among the commits up to this position. The index is a read model and may lag: what came later has to be
    /// read in the log, which decides.
    Absent {
        /// How far the index has read the log.
        covers: Position,
    },
}

/// Finds old commits by command id.
#[async_trait]
pub trait CommitIndex: Send + Sync + 'static {
    /// Looks for a command id in the history of a stream.
    ///
    /// # Errors
    /// [`LogError`] when the index could not be asked.
    async fn find(&self, stream: &StreamName, id: &CommandId) -> Result<Lookup, LogError>;
}
