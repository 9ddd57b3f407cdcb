//! Reads: one stream by direct get, everything by an ordered consumer without acknowledgements.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind};
use async_nats::{HeaderMap, StatusCode, jetstream};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use kernel::{Position, StreamName, Timestamp};
use runtime::{Filter, LogError, Page, Reader, Recorded};
use serde_json::json;

use crate::connection::Connection;
use crate::patience::ONE_READ;
use crate::subjects;

/// Commits asked for at once when a stream is loaded.
const PAGE: usize = 500;

fn failed(attempt: &'static str, reason: impl ToString) -> LogError {
    LogError { attempt, reason: reason.to_string() }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(async_nats::HeaderValue::as_str)
}

/// The header that every append of ours carries; the server has checked it when it took the message.
fn is_guarded(headers: &HeaderMap) -> bool {
    headers.get(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE).is_some()
}

fn recorded(subject: &str, sequence: u64, at: Timestamp, payload: Bytes, guarded: bool, remaining: u64) -> Recorded {
    Recorded {
        guarded,
        position: Position::at(sequence),
        stream: subjects::stream(subject),
        subject: subject.to_owned(),
        recorded_at: at,
        payload,
        remaining,
    }
}

/// A page of one stream from any replica.
pub(crate) async fn page(
    connection: &Connection,
    log: &str,
    stream: &StreamName,
    after: Position,
) -> Result<Page, LogError> {
    let ask = || page_once(connection, log, stream, after);
    connection.read("read a stream", ONE_PAGE, ask).await
}

/// How long one try of a page may take; it may have many megabytes.
const ONE_PAGE: Duration = Duration::from_secs(5);

/// One request, many answers (NATS ADR-31).
async fn page_once(connection: &Connection, log: &str, stream: &StreamName, after: Position) -> Result<Page, LogError> {
    const ATTEMPT: &str = "read a stream";
    let client = &connection.client;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(ATTEMPT, error))?;
    let ask = json!({ "seq": after.next().sequence(), "batch": PAGE, "next_by_subj": subjects::commit(stream) });
    let subject = format!("$JS.API.DIRECT.GET.{log}");
    client.publish_with_reply(subject, inbox, ask.to_string().into()).await.map_err(|error| failed(ATTEMPT, error))?;
    let mut page = Page::default();
    loop {
        let answer = tokio::time::timeout(ONE_READ, answers.next()).await;
        let message = match answer {
            Ok(Some(message)) => message,
            Ok(None) => return Err(failed(ATTEMPT, "the connection closed")),
            Err(_) => return Err(failed(ATTEMPT, "no answer in time")),
        };
        match message.status {
            // 404 says that there is nothing (more); 204 ends a batch, which may be short because its messages are large.
            Some(StatusCode::NOT_FOUND) => return Ok(page),
            Some(status) if status.as_u16() == 204 => {
                let pending = message.headers.as_ref().and_then(|headers| header(headers, "Nats-Num-Pending"));
                page.more = pending.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) > 0;
                return Ok(page);
            }
            Some(StatusCode::NO_RESPONDERS) => return Err(failed(ATTEMPT, "no JetStream answers")),
            Some(status) => return Err(failed(ATTEMPT, format!("the server said {status}"))),
            None => {}
        }
        let headers = message.headers.unwrap_or_default();
        let sequence = header(&headers, "Nats-Sequence").and_then(|text| text.parse().ok());
        let subject = header(&headers, "Nats-Subject");
        let (Some(sequence), Some(subject)) = (sequence, subject) else {
            return Err(failed(ATTEMPT, "an answer without sequence or subject"));
        };
        let at = header(&headers, "Nats-Time-Stamp").and_then(|text| text.parse().ok()).unwrap_or_default();
        let guarded = is_guarded(&headers);
        page.commits.push(recorded(subject, sequence, at, message.payload, guarded, 0));
    }
}

/// The stream's commits after a position, each asked from the leader. For tails: they are short.
pub(crate) async fn tail(
    connection: &Connection,
    log: &str,
    stream: &StreamName,
    after: Position,
) -> Result<Page, LogError> {
    const ATTEMPT: &str = "read a stream's tail";
    let stream_subject = subjects::commit(stream);
    let handle = connection.context.get_stream_no_info(log).await.map_err(|error| failed(ATTEMPT, error))?;
    let mut page = Page::default();
    let mut next = after.next().sequence();
    while page.commits.len() < PAGE {
        let ask = || async {
            found(handle.raw_message_builder().sequence(next).next_by_subject(&stream_subject).send().await)
        };
        match connection.read(ATTEMPT, ONE_READ, ask).await? {
            Some(message) => {
                next = message.sequence + 1;
                page.commits.push(of_raw(message));
            }
            None => return Ok(page),
        }
    }
    page.more = true;
    Ok(page)
}

/// The message at a sequence, from the leader.
pub(crate) async fn at(connection: &Connection, log: &str, position: Position) -> Result<Option<Recorded>, LogError> {
    const ATTEMPT: &str = "read a commit";
    if position == Position::START {
        return Ok(None);
    }
    let handle = connection.context.get_stream_no_info(log).await.map_err(|error| failed(ATTEMPT, error))?;
    let ask = || async { found(handle.get_raw_message(position.sequence()).await) };
    Ok(connection.read(ATTEMPT, ONE_READ, ask).await?.map(of_raw))
}

/// That there is no such message is an answer.
fn found(answer: Result<StreamMessage, RawMessageError>) -> Result<Option<StreamMessage>, RawMessageError> {
    match answer {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn of_raw(message: StreamMessage) -> Recorded {
    let guarded = is_guarded(&message.headers);
    recorded(&message.subject, message.sequence, message.time, message.payload, guarded, 0)
}

/// How long the making of a consumer may take: it is an agreement of several servers.
const ONE_CONSUMER: Duration = Duration::from_secs(3);

/// Messages asked for at once; half of them are asked for again when half of them are here.
const PULL: usize = 2_000;

/// Everything after a position, in order, for ever. No acknowledgements: the reader's own checkpoint is the truth, and
/// a hole in the consumer's sequence means that something was lost on the way, so the read ends and begins again.
pub(crate) async fn follow(
    connection: &Connection,
    log: &str,
    after: Position,
    filter: &Filter,
) -> Result<Reader, LogError> {
    const ATTEMPT: &str = "follow the log";
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.next().sequence() },
        ack_policy: AckPolicy::None,
        filter_subject: subjects::pattern(filter),
        inactive_threshold: Duration::from_secs(60),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let make = || connection.context.create_consumer_on_stream(config.clone(), log);
    let consumer = connection.make(ATTEMPT, ONE_CONSUMER, make).await?;
    let waiting = consumer.cached_info().num_pending;
    let messages = consumer
        .stream()
        // So many that whoever writes a batch of a thousand finds the next one here when he is done. Many small commits or
        // few large ones: what waits in our memory stays bounded.
        .max_messages_per_batch(PULL)
        .max_bytes_per_batch(16 * 1024 * 1024)
        .expires(Duration::from_secs(30))
        .heartbeat(Duration::from_secs(2))
        .messages()
        .await
        .map_err(|error| failed(ATTEMPT, error))?;
    // The server would tell by silence that our consumer is gone; a new connection tells at once.
    let commits = Following { messages, renewed: Box::pin(connection.renewed()), seen: 0, ended: false };
    Ok(Reader { waiting, commits: commits.boxed() })
}

/// A read under way. The consumer lives as long as its messages are read.
struct Following {
    messages: pull::Stream,
    renewed: BoxFuture<'static, ()>,
    /// Messages of the read so far.
    seen: u64,
    ended: bool,
}

impl Following {
    const ATTEMPT: &'static str = "follow the log";

    fn taken(&mut self, message: jetstream::Message) -> Result<Recorded, LogError> {
        let info = message.info().map_err(|error| failed(Self::ATTEMPT, error))?;
        if info.consumer_sequence != self.seen + 1 {
            return Err(failed(Self::ATTEMPT, format!("message {} of the read is missing", self.seen + 1)));
        }
        self.seen += 1;
        let (sequence, at, pending) = (info.stream_sequence, info.published, info.pending);
        let guarded = message.headers.as_ref().is_some_and(is_guarded);
        let async_nats::Message { subject, payload, .. } = message.message;
        Ok(recorded(&subject, sequence, at, payload, guarded, pending))
    }
}

impl Stream for Following {
    type Item = Result<Recorded, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let result = match self.messages.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(message))) => self.taken(message),
            Poll::Ready(Some(Err(error))) => Err(failed(Self::ATTEMPT, error)),
            Poll::Ready(None) => Err(failed(Self::ATTEMPT, "the consumer ended")),
            // Only when nothing has arrived: what has is of the old connection, in order, and whole.
            Poll::Pending => match self.renewed.poll_unpin(context) {
                Poll::Ready(()) => Err(failed(Self::ATTEMPT, "the consumer ended")),
                Poll::Pending => return Poll::Pending,
            },
        };
        self.ended = result.is_err();
        Poll::Ready(Some(result))
    }
}
