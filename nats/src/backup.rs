//! Streams as bytes: written out while they are in use, read back under the same sequences.
//!
//! The server does both over plain requests. What comes out is its own archive (compressed, with a mark at its end), opaque to
//! us and readable by `nats stream restore`, too. Consumers stay out: ours are in memory, or made anew by their owner.

mod load;
mod save;

pub use load::load;
pub use save::{Snapshot, save};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connection::Connection;
use crate::topology;

/// The streams in the order in which they are backed up: **the log last**. A message leaves a queue only when what became of it
/// is in the log, so whatever a queue's copy lacks is in a copy of the log that was begun later.
pub const STREAMS: [&str; 3] = [topology::COMMANDS, topology::TASKS, topology::EVENTS];

/// The mark of a restored log, in the metadata of its stream. Servers before 2.15 give a restored stream the age of the one
/// that was backed up; with the mark it is another log on every server.
pub(crate) const RESTORED: &str = "airstream-restored";

/// A stream could not be written out or read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not {attempt} the stream {stream}: {reason}")]
pub struct BackupError {
    /// What was being attempted.
    pub attempt: &'static str,
    /// Which stream.
    pub stream: String,
    /// What the server or the network said.
    pub reason: String,
}

impl BackupError {
    fn of(attempt: &'static str, stream: &str) -> impl Fn(&dyn ToString) -> Self {
        move |reason| Self { attempt, stream: stream.to_owned(), reason: reason.to_string() }
    }
}

/// A stream as the server described it when its copy was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Its name.
    pub stream: String,
    /// Its settings, in the server's own words.
    pub config: Value,
    /// Its extent, in the server's own words: what a restore is told.
    pub state: Value,
}

impl Description {
    /// Messages. Of a queue at most so many: what is finished during the copy is left out of it.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.number("messages")
    }

    /// Their size in the server's store, in bytes: about what the copy takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.number("bytes")
    }

    /// The oldest message; one more than [`Description::last`] when there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.number("first_seq")
    }

    /// The newest message; the next one comes behind it, also after a restore.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.number("last_seq")
    }

    fn number(&self, name: &str) -> u64 {
        self.state.get(name).and_then(Value::as_u64).unwrap_or_default()
    }
}

/// What a server has under a stream's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Messages that are there.
    pub messages: u64,
    /// The oldest one.
    pub first: u64,
    /// The newest one ever.
    pub last: u64,
}

impl Extent {
    /// Whether nothing has ever been written.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.last == 0
    }
}

/// Asks what is there; `None` when there is no such stream.
///
/// # Errors
/// When the server does not answer.
pub async fn extent(connection: &Connection, stream: &'static str) -> Result<Option<Extent>, BackupError> {
    match connection.context.get_stream(stream).await {
        Ok(found) => {
            let state = &found.cached_info().state;
            Ok(Some(Extent { messages: state.messages, first: state.first_sequence, last: state.last_sequence }))
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(BackupError::of("look at", stream)(&error)),
        },
    }
}

/// Removes a stream with everything in it, if it is there. For what a restore made and did not finish.
///
/// # Errors
/// When the server refuses.
pub async fn remove(connection: &Connection, stream: &'static str) -> Result<(), BackupError> {
    if extent(connection, stream).await?.is_none() {
        return Ok(());
    }
    let removed = connection.context.delete_stream(stream).await;
    removed.map(drop).map_err(|error| BackupError::of("remove", stream)(&error))
}

/// The server's refusal inside an answer of its API, as a sentence.
fn refusal(answer: &Value) -> Option<String> {
    let error = answer.get("error")?;
    let said = error.get("description").and_then(Value::as_str).unwrap_or("it gave no reason");
    let code = error.get("err_code").and_then(Value::as_u64).unwrap_or_default();
    Some(format!("{said} ({code})"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_log_is_copied_last() {
        assert_eq!(STREAMS.last(), Some(&topology::EVENTS));
        let every: Vec<String> = topology::streams(1).into_iter().map(|config| config.name).collect();
        assert!(every.iter().all(|name| STREAMS.contains(&name.as_str())), "{every:?} are not all backed up");
    }

    #[test]
    fn a_refusal_is_told_with_its_code() {
        let answer = json!({"error": {"code": 500, "err_code": 10130, "description": "stream name already in use"}});
        assert_eq!(refusal(&answer).as_deref(), Some("stream name already in use (10130)"));
        assert_eq!(refusal(&json!({"deliver_subject": "x"})), None);
    }
}
