//! The port to the log: an append with a guard, reads of one stream, and reads of everything in order.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use kernel::{CommandId, Commit, MalformedCommit, Position, StreamName, Timestamp};

/// One commit to be written.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where it goes.
    pub stream: StreamName,
    /// The commit's id; adapters may use it to recognise a repeat, callers must not rely on that.
    pub id: CommandId,
    /// The guard: position of the stream's last commit as the writer knows it, [`Position::START`] for a new stream.
    pub expected: Position,
    /// The commit as bytes.
    pub payload: Bytes,
    /// Event types for the message's header, comma-separated: people filter and read by it.
    pub types: String,
}

/// Why an append did not simply succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The stream has moved on; nothing was written.
    #[error("the stream has moved on since it was read")]
    Conflict,
    /// Nobody knows whether it was written: read the stream's tail and look for the commit's id.
    #[error("the log did not say whether it took the commit: {0}")]
    Ambiguous(String),
    /// The log will not take it, now or later, as it is; nothing was written.
    #[error("the log refuses the commit: {0}")]
    Refused(String),
    /// The commit has more bytes than a message of the log may have; nothing was written.
    #[error("the commit has {bytes} bytes, the log takes {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that the log takes.
        limit: usize,
    },
    /// The log could not be asked; nothing was written.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
}

/// A read that failed. Reads can always be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not {attempt}: {reason}")]
pub struct LogError {
    /// What was being attempted.
    pub attempt: &'static str,
    /// What the log or the network said.
    pub reason: String,
}

/// A commit as the log returns it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its place. Positions have no holes below the head.
    pub position: Position,
    /// Whose history it belongs to; `None` when the message stands under a subject that we did not write.
    pub stream: Option<StreamName>,
    /// The subject itself, for messages that nobody can make sense of.
    pub subject: String,
    /// When the log took it.
    pub recorded_at: Timestamp,
    /// The commit as bytes.
    pub payload: Bytes,
    /// How many messages the reader had still to deliver after this one.
    pub remaining: u64,
    /// Whether it was written under a guard, as everything that a writer of ours writes is.
    pub guarded: bool,
}

impl Recorded {
    /// Reads the envelope, whoever wrote it.
    ///
    /// # Errors
    /// [`MalformedCommit`] when the bytes are not a commit.
    pub fn commit(&self) -> Result<Commit<'_>, MalformedCommit> {
        Commit::parse(&self.payload)
    }

    /// Reads the message as a part of its stream's history; `None` when it is foreign to it.
    ///
    /// A message system lets callers choose where answers go, and some of its own answers cannot be kept out of our
    /// subjects. What came without a guard, or is a commit of another stream, was not written here by us: it has no
    /// meaning, and must not be able to spoil a history. What *was* written by us and cannot be read is another matter.
    ///
    /// # Errors
    /// A sentence, when a message of ours cannot be read.
    pub fn history(&self) -> Result<Option<(&StreamName, Commit<'_>)>, String> {
        if !self.guarded {
            return Ok(None);
        }
        let stream = self.stream.as_ref().ok_or_else(|| format!("`{}` is not a subject of ours", self.subject))?;
        let commit = self.commit().map_err(|error| error.to_string())?;
        let first = commit.first();
        let ours = first.tenantid == stream.tenant.as_str()
            && first.category() == stream.category.as_str()
            && first.subject == stream.id.as_str();
        Ok(ours.then_some((stream, commit)))
    }
}

/// How fresh a read of one stream must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Any replica may answer: fast, fine when a guard will catch a stale decision.
    Any,
    /// The leader answers: after a conflict or an ambiguous append.
    Leader,
}

/// Some commits of one stream.
#[derive(Debug, Default)]
pub struct Page {
    /// In order.
    pub commits: Vec<Recorded>,
    /// Whether the stream may have more after these.
    pub more: bool,
}

/// Which commits to read; `None` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this tenant's.
    pub tenant: Option<kernel::TenantId>,
    /// Only of this category.
    pub category: Option<kernel::Category>,
    /// Only of this stream of the category.
    pub id: Option<kernel::StreamId>,
}

impl Filter {
    /// Whether a stream passes.
    #[must_use]
    pub fn admits(&self, stream: &StreamName) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == stream.tenant)
            && self.category.as_ref().is_none_or(|category| *category == stream.category)
            && self.id.as_ref().is_none_or(|id| *id == stream.id)
    }
}

/// An endless, ordered read.
pub struct Reader {
    /// How many messages were waiting when the read began; 0 means: caught up, the next one is new.
    pub waiting: u64,
    /// The commits. It ends only with an error.
    pub commits: BoxStream<'static, Result<Recorded, LogError>>,
}

/// The log. The only truth.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Writes one commit if the stream's last position is still the expected one. Adapters may write waiting commits of
    /// several callers together.
    ///
    /// # Errors
    /// See [`AppendError`]; only `Ambiguous` leaves open what happened.
    async fn append(&self, commit: Append) -> Result<Position, AppendError>;

    /// The commits of one stream after a position, in order, as many as the adapter likes to return at once.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be asked.
    async fn read_stream(&self, stream: &StreamName, after: Position, fresh: Freshness) -> Result<Page, LogError>;

    /// The commit at a position, from the leader; `None` beyond the head.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be asked.
    async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError>;

    /// Everything after a position that passes the filter, in order, for ever.
    ///
    /// # Errors
    /// [`LogError`] when the read could not begin.
    async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError>;

    /// Which log this is: the same for its whole life, another one after it was made anew or restored. Positions of one log
    /// mean nothing in another.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be asked.
    async fn identity(&self) -> Result<String, LogError>;

    /// The newest position.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be asked.
    async fn head(&self) -> Result<Position, LogError>;
}
