//! JetStream's answers to a publish, read by us: the client library maps only one of the two conflict codes.

use async_nats::{Message, RequestError, RequestErrorKind, StatusCode};
use kernel::Position;
use runtime::AppendError;
use serde::Deserialize;

/// The guard did not hold; the answer knows the actual sequence.
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// The guard did not hold against something still in flight (three replicas), or a second guard in one batch.
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10164;
/// A message of the batch carries an id that is in the duplicate window.
const BATCH_HAS_DUPLICATE: u64 = 10201;
/// Too many batches are open; nothing of ours was written.
const BATCH_TOO_MANY_IN_FLIGHT: u64 = 10210;
/// The batch lost its beginning, as after a reconnect; nothing of it was written.
const BATCH_INCOMPLETE: u64 = 10176;
/// An earlier try with this id is still in process (three replicas): it may yet be written.
const DUPLICATE_IN_PROCESS: u64 = 10158;
/// The store failed. A full stream says so, too, and in that case nothing was written.
const STORE_FAILED: u64 = 10077;
/// JetStream itself is not ready: no leader yet, or shutting down.
const TEMPORARY: [u64; 3] = [10008, 10039, 10076];

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What a publish came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Written; for a batch, the sequence of its last message.
    Written(u64),
    /// The batch as a whole was turned down, nothing of it was written: send its messages one by one to learn which.
    BatchTurnedDown(String),
    /// The server has seen this message id within its window, and wrote nothing now.
    Seen,
    /// See the error.
    Failed(AppendError),
}

/// Reads the answer to a plain publish or to a batch's last message.
pub(crate) fn read(answer: Result<Message, RequestError>, batch: bool) -> Outcome {
    let message = match answer {
        Ok(message) => message,
        Err(error) => return Outcome::Failed(of_request(&error)),
    };
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Outcome::Failed(AppendError::Unavailable("no JetStream answers".to_owned()));
    }
    let answer: Answer = match serde_json::from_slice(&message.payload) {
        Ok(answer) => answer,
        Err(error) => return Outcome::Failed(AppendError::Ambiguous(format!("its answer is not readable: {error}"))),
    };
    match answer.error {
        None if answer.duplicate => Outcome::Seen,
        None if answer.seq == 0 => Outcome::Failed(AppendError::Ambiguous("its answer has no sequence".to_owned())),
        None => Outcome::Written(answer.seq),
        Some(error) => of_api(&error, batch),
    }
}

fn of_api(error: &ApiError, batch: bool) -> Outcome {
    let said = format!("{} ({})", error.description, error.err_code);
    match error.err_code {
        WRONG_LAST_SEQUENCE
        | WRONG_LAST_SEQUENCE_CONSTANT
        | BATCH_HAS_DUPLICATE
        | BATCH_INCOMPLETE
        | BATCH_TOO_MANY_IN_FLIGHT
        | DUPLICATE_IN_PROCESS
            if batch =>
        {
            Outcome::BatchTurnedDown(said)
        }
        WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT => Outcome::Failed(AppendError::Conflict),
        STORE_FAILED if error.description.contains("maximum") => Outcome::Failed(AppendError::Refused(said)),
        DUPLICATE_IN_PROCESS | STORE_FAILED => Outcome::Failed(AppendError::Ambiguous(said)),
        code if TEMPORARY.contains(&code) || error.code == 503 => Outcome::Failed(AppendError::Unavailable(said)),
        _ if error.code == 500 => Outcome::Failed(AppendError::Ambiguous(said)),
        _ => Outcome::Failed(AppendError::Refused(said)),
    }
}

fn of_request(error: &RequestError) -> AppendError {
    match error.kind() {
        RequestErrorKind::NoResponders => AppendError::Unavailable("no JetStream answers".to_owned()),
        RequestErrorKind::MaxPayloadExceeded => {
            AppendError::Refused("the commit is larger than a message may be".to_owned())
        }
        RequestErrorKind::InvalidSubject => AppendError::Refused("the subject is not valid".to_owned()),
        RequestErrorKind::TimedOut | RequestErrorKind::Other => AppendError::Ambiguous(error.to_string()),
    }
}

impl Outcome {
    pub(crate) fn position(self) -> Result<Position, AppendError> {
        match self {
            Self::Written(sequence) => Ok(Position::at(sequence)),
            Self::Seen => Err(AppendError::Ambiguous("it has seen this commit id".to_owned())),
            Self::BatchTurnedDown(reason) => Err(AppendError::Ambiguous(reason)),
            Self::Failed(error) => Err(error),
        }
    }
}
