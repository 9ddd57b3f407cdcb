//! Asking a server that may be about to change. A cluster that loses a server elects new leaders within four to nine
//! seconds (constants of nats-server), and until then nobody answers for the streams that the lost one led. Callers should
//! not notice: what can safely be asked again is asked again here, what cannot is told apart for the writer to settle.

use std::time::Duration;

use async_nats::{Message, Request, RequestErrorKind, StatusCode};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use runtime::LogError;
use tokio::time::Instant;

use crate::Connection;

/// How long a read is tried before it fails: an election, and a moment more. A writer's own deadline may end it earlier.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long one try of a read may take: it waits for no flush.
pub(crate) const ONE_READ: Duration = Duration::from_secs(1);

/// When the next try of a read begins beside one that is not answered yet.
const NEXT_READ: Duration = Duration::from_millis(250);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Nobody has got it.
    NotTaken(String),
    /// Somebody may have got it.
    Unknown(String),
    /// It can never be sent as it is.
    Impossible(&'static str),
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotTaken(reason) | Self::Unknown(reason) => f.write_str(reason),
            Self::Impossible(reason) => f.write_str(reason),
        }
    }
}

impl Connection {
    /// One request and its answer, given up as soon as the connection is lost: its answer would have come on that one.
    pub(crate) async fn request(
        &self,
        subject: String,
        request: Request,
        within: Duration,
    ) -> Result<Message, Unanswered> {
        let deadline = Instant::now() + within;
        if !self.is_up_by(deadline).await {
            return Err(Unanswered::NotTaken("the connection to NATS is down".to_owned()));
        }
        let lost = self.lost();
        let asked = self.client.send_request(subject, request.timeout(None));
        let answer = tokio::select! {
            answer = tokio::time::timeout_at(deadline, asked) => answer,
            () = lost => return Err(Unanswered::Unknown("the connection to NATS was lost".to_owned())),
        };
        match answer {
            Err(_) => Err(Unanswered::Unknown("no answer in time".to_owned())),
            Ok(Ok(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => Err(nobody()),
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => nobody(),
                RequestErrorKind::MaxPayloadExceeded => {
                    Unanswered::Impossible("the commit is larger than a message may be")
                }
                RequestErrorKind::InvalidSubject => Unanswered::Impossible("the subject is not valid"),
                RequestErrorKind::TimedOut | RequestErrorKind::Other => Unanswered::Unknown(error.to_string()),
            }),
        }
    }

    /// Reads something, again and again until there is an answer or [`PATIENCE`] has run out. A try that is not answered
    /// soon is not waited for before the next one begins: it may have gone to a leader that is gone.
    pub(crate) async fn read<T, E, F>(
        &self,
        attempt: &'static str,
        one_try: Duration,
        ask: impl Fn() -> F,
    ) -> Result<T, LogError>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        self.again(attempt, NEXT_READ, one_try, ask).await
    }

    /// Makes something that may be made again, one try after the other.
    pub(crate) async fn make<T, E, F>(
        &self,
        attempt: &'static str,
        one_try: Duration,
        ask: impl Fn() -> F,
    ) -> Result<T, LogError>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        self.again(attempt, one_try, one_try, ask).await
    }

    async fn again<T, E, F>(
        &self,
        attempt: &'static str,
        every: Duration,
        one_try: Duration,
        ask: impl Fn() -> F,
    ) -> Result<T, LogError>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut reason = "the connection to NATS is down".to_owned();
        while self.is_up_by(deadline).await {
            let mut lost = std::pin::pin!(self.lost());
            let mut tries = FuturesUnordered::new();
            // Until the connection is lost, or all tries have failed.
            loop {
                tries.push(tokio::time::timeout(one_try, ask()));
                let mut next = std::pin::pin!(tokio::time::sleep(every));
                let failed = loop {
                    tokio::select! {
                        Some(answer) = tries.next() => {
                            reason = match answer {
                                Ok(Ok(found)) => return Ok(found),
                                Ok(Err(error)) => error.to_string(),
                                Err(_) => "no answer in time".to_owned(),
                            };
                            if tries.is_empty() {
                                break true;
                            }
                        }
                        () = &mut lost => {
                            reason = "the connection to NATS was lost".to_owned();
                            break true;
                        }
                        () = &mut next => break false,
                    }
                };
                if failed || Instant::now() >= deadline {
                    break;
                }
            }
            if Instant::now() + PAUSE >= deadline {
                break;
            }
            tracing::debug!(attempt, reason, "trying again");
            tokio::time::sleep(PAUSE).await;
        }
        Err(LogError { attempt, reason })
    }
}

fn nobody() -> Unanswered {
    Unanswered::NotTaken("no JetStream answers".to_owned())
}
