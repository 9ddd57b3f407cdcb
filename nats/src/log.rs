//! The log on JetStream.

use async_trait::async_trait;
use kernel::{Position, StreamName};
use runtime::{Append, AppendError, Filter, Freshness, Log, LogError, Page, Reader, Recorded};
use tokio::sync::{mpsc, oneshot};

use crate::committer::{self, Waiting};
use crate::{Connection, read, topology};

/// The log as the stream `EVENTS`.
pub struct JetStreamLog {
    connection: Connection,
    committer: mpsc::Sender<Waiting>,
}

impl JetStreamLog {
    /// Commits that may wait for the committer. Writers hold at most one per stream they work on; when this is full they
    /// wait here, their inboxes fill, and callers are told.
    const QUEUE: usize = 4_096;

    /// Begins to write and read. The topology must exist.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        let (committer, inbox) = mpsc::channel(Self::QUEUE);
        tokio::spawn(committer::run(connection.clone(), inbox));
        Self { connection, committer }
    }
}

#[async_trait]
impl Log for JetStreamLog {
    async fn append(&self, commit: Append) -> Result<Position, AppendError> {
        // A message over the limit would cost us the connection; headers and subject count, too.
        const HEADERS: usize = 4 * 1024;
        let (bytes, limit) = (commit.payload.len(), self.connection.client.max_payload().saturating_sub(HEADERS));
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        let (reply, answer) = oneshot::channel();
        let gone = || AppendError::Unavailable("the committer has stopped".to_owned());
        self.committer.send(Waiting { commit, reply }).await.map_err(|_| gone())?;
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(AppendError::Ambiguous("the committer has stopped".to_owned())),
        }
    }

    async fn read_stream(&self, stream: &StreamName, after: Position, fresh: Freshness) -> Result<Page, LogError> {
        match fresh {
            Freshness::Any => read::page(&self.connection, topology::EVENTS, stream, after).await,
            Freshness::Leader => read::tail(&self.connection, topology::EVENTS, stream, after).await,
        }
    }

    async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        read::at(&self.connection, topology::EVENTS, position).await
    }

    async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError> {
        read::follow(&self.connection, topology::EVENTS, after, filter).await
    }

    async fn identity(&self) -> Result<String, LogError> {
        // The server keeps it over restarts and gives a new one to a stream that is made anew or restored.
        let failed = |reason: String| LogError { attempt: "ask which log this is", reason };
        let stream = self.connection.context.get_stream(topology::EVENTS).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        Ok(format!("log_{:x}", stream.cached_info().created.timestamp_micros()))
    }

    async fn head(&self) -> Result<Position, LogError> {
        let failed = |reason: String| LogError { attempt: "ask for the log's head", reason };
        let stream =
            self.connection.context.get_stream(topology::EVENTS).await.map_err(|error| failed(error.to_string()))?;
        let info = stream.cached_info();
        Ok(Position::at(info.state.last_sequence))
    }
}
