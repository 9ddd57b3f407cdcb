//! JetStream's answers to a publish, read by us: the client library maps only one of the two conflict codes.

use async_nats::Message;
use kernel::Position;
use runtime::AppendError;
use serde::Deserialize;

use crate::patience::Unanswered;

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
pub(crate) fn read(answer: Result<Message, Unanswered>, batch: bool) -> Outcome {
    let message = match answer {
        Ok(message) => message,
        Err(Unanswered::NotTaken(reason)) => return Outcome::Failed(AppendError::Unavailable(reason)),
        Err(Unanswered::Unknown(reason)) => return Outcome::Failed(AppendError::Ambiguous(reason)),
        Err(Unanswered::Impossible(reason)) => return Outcome::Failed(AppendError::Refused(reason.to_owned())),
    };
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
        // 429: the leader of a stream holds back more than it likes to (three replicas).
        code if TEMPORARY.contains(&code) || [429, 503].contains(&error.code) => {
            Outcome::Failed(AppendError::Unavailable(said))
        }
        _ if error.code == 500 => Outcome::Failed(AppendError::Ambiguous(said)),
        _ => Outcome::Failed(AppendError::Refused(said)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(payload: &str, batch: bool) -> Outcome {
        let message = Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        read(Ok(message), batch)
    }

    fn error(code: u64, err_code: u64) -> String {
        format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"said"}}}}"#)
    }

    #[test]
    fn whatever_a_server_says_to_a_repeat_leads_to_the_streams_tail() {
        // One server; three servers; three servers while the first try is still in process, in its two forms.
        let said = [error(400, 10071), r#"{"seq":7,"duplicate":true}"#.into(), error(400, 10164), error(409, 10158)];
        for said in said {
            let outcome = answered(&said, false).position();
            assert!(matches!(outcome, Err(AppendError::Conflict | AppendError::Ambiguous(_))), "{said}: {outcome:?}");
        }
        assert!(matches!(answered(&error(400, 10201), true), Outcome::BatchTurnedDown(_)));
    }

    #[test]
    fn a_cluster_without_a_leader_has_taken_nothing_or_does_not_say() {
        for said in [error(503, 10008), error(503, 10076), error(429, 10167)] {
            assert!(matches!(answered(&said, false), Outcome::Failed(AppendError::Unavailable(_))), "{said}");
        }
        for said in [error(500, 10009), error(503, 10077)] {
            assert!(matches!(answered(&said, false), Outcome::Failed(AppendError::Ambiguous(_))), "{said}");
        }
        let lost = read(Err(Unanswered::Unknown("lost".into())), false);
        assert!(matches!(lost, Outcome::Failed(AppendError::Ambiguous(_))));
        let nobody = read(Err(Unanswered::NotTaken("nobody".into())), true);
        assert!(matches!(nobody, Outcome::Failed(AppendError::Unavailable(_))));
    }
}
