//! The log on JetStream.

use async_nats::jetstream::context::GetStreamError;
use async_nats::jetstream::stream::Info;
use async_trait::async_trait;
use kernel::{Position, StreamName};
use runtime::{Append, AppendError, Filter, Freshness, Log, LogError, Page, Reader, Recorded};
use tokio::sync::{mpsc, oneshot};

use crate::backup::RESTORED;
use crate::committer::{self, Waiting};
use crate::patience::ONE_READ;
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

    async fn info(&self, attempt: &'static str) -> Result<Info, LogError> {
        let ask = || async {
            let stream = self.connection.context.get_stream(topology::EVENTS).await?;
            Ok::<_, GetStreamError>(stream.cached_info().clone())
        };
        self.connection.read(attempt, ONE_READ, ask).await
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
        // The server keeps the moment over restarts and gives a new one to a stream that is made anew. One that was restored has
        // our mark as well: servers before 2.15 give it the moment of the one that was backed up.
        let info = self.info("ask which log this is").await?;
        let restored = info.config.metadata.get(RESTORED).map(|mark| format!("_{mark}")).unwrap_or_default();
        Ok(format!("log_{:x}{restored}", info.created.timestamp_micros()))
    }

    async fn head(&self) -> Result<Position, LogError> {
        let info = self.info("ask for the log's head").await?;
        Ok(Position::at(info.state.last_sequence))
    }
}
