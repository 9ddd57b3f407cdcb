//! Work queues: messages that stay until their work is done.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{AckKind, ErrorCode, Message};
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use kernel::Timestamp;
use tokio::time::Instant;

use crate::Connection;
use crate::ack::{self, Outcome};
use crate::connection::REQUEST_TIMEOUT;
use crate::patience::PATIENCE;

/// How long one request may wait for a message. The server that holds it may go away meanwhile, and does not say so.
const ONE_PULL: Duration = Duration::from_secs(5);

/// A queue operation that failed; it can be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not {attempt}: {reason}")]
pub struct QueueError {
    /// What was being attempted.
    pub attempt: &'static str,
    /// What the server or the network said.
    pub reason: String,
}

fn failed(attempt: &'static str, reason: impl ToString) -> QueueError {
    QueueError { attempt, reason: reason.to_string() }
}

/// A message that somebody has to deal with.
pub struct Delivery(Message);

impl Delivery {
    /// The subject it was published to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.message.subject
    }

    /// Its body.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.0.message.payload
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Its place in the queue, and when it came in. Together they name the message for ever.
    ///
    /// # Errors
    /// When the server's delivery data cannot be read.
    pub fn place(&self) -> Result<(u64, Timestamp), QueueError> {
        let info = self.0.info().map_err(|error| failed("read a delivery", error))?;
        Ok((info.stream_sequence, info.published))
    }

    /// Its work is done: it leaves the queue. Waits until the server has confirmed.
    ///
    /// # Errors
    /// When the server did not confirm; the message may come again.
    pub async fn done(&self) -> Result<(), QueueError> {
        // Not the library's own: it takes any answer for a confirmation, also the one that nobody is there.
        const ATTEMPT: &str = "acknowledge a message";
        let to = self.0.message.reply.clone().ok_or_else(|| failed(ATTEMPT, "it has no reply subject"))?;
        let ack = Request::new().payload("+ACK".into()).timeout(Some(REQUEST_TIMEOUT));
        self.0.context.client().send_request(to, ack).await.map_err(|error| failed(ATTEMPT, error))?;
        Ok(())
    }

    /// Its work takes longer: do not hand it to somebody else yet.
    pub async fn still_working(&self) {
        if let Err(error) = self.0.ack_with(AckKind::Progress).await {
            tracing::debug!(%error, "could not ask for more time");
        }
    }

    /// Give it to somebody else after a while.
    pub async fn return_after(&self, delay: Duration) {
        if let Err(error) = self.0.ack_with(AckKind::Nak(Some(delay))).await {
            tracing::debug!(%error, "could not return a message");
        }
    }
}

fn is_missing_consumer(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// One work-queue stream.
#[derive(Clone)]
pub struct WorkQueue {
    connection: Connection,
    stream: &'static str,
}

impl WorkQueue {
    /// A queue on one of the streams of the topology.
    #[must_use]
    pub fn new(connection: Connection, stream: &'static str) -> Self {
        Self { connection, stream }
    }

    /// How many messages wait in it or are being worked on.
    ///
    /// # Errors
    /// When the server did not say.
    pub async fn depth(&self) -> Result<u64, QueueError> {
        let stream = self.connection.context.get_stream(self.stream).await;
        let stream = stream.map_err(|error| failed("ask how full the queue is", error))?;
        Ok(stream.cached_info().state.messages)
    }

    /// Puts a message into the queue. With the same `id` again within two minutes it is kept once.
    ///
    /// # Errors
    /// When the server did not confirm; trying again with the same id is safe.
    pub async fn put(&self, subject: String, id: &str, payload: Bytes) -> Result<(), QueueError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let request = Request::new().headers(headers).payload(payload);
        match ack::read(self.connection.request(subject, request, REQUEST_TIMEOUT).await, false) {
            Outcome::Written(_) | Outcome::Seen => Ok(()),
            Outcome::Failed(error) => Err(failed("put a message into the queue", error)),
            Outcome::BatchTurnedDown(reason) => Err(failed("put a message into the queue", reason)),
        }
    }

    /// Hands a message over, with no other headers than these; what has become of it is told by the inner future: its place.
    /// Messages that are handed over one after the other stand in the queue in that order.
    pub(crate) async fn hand_over(
        &self,
        subject: String,
        kept: HeaderMap,
        payload: Bytes,
    ) -> impl Future<Output = Result<u64, QueueError>> + Send + 'static {
        const ATTEMPT: &str = "put a message into the queue";
        let sent = self.connection.context.publish_with_headers(subject, kept, payload).await;
        let lost = self.connection.lost();
        async move {
            let answer = sent.map_err(|error| failed(ATTEMPT, error))?;
            tokio::select! {
                answer = answer => answer.map(|ack| ack.sequence).map_err(|error| failed(ATTEMPT, error)),
                () = lost => Err(failed(ATTEMPT, "the connection to NATS was lost")),
            }
        }
    }

    /// Which stream it stands on.
    pub(crate) fn stream(&self) -> &'static str {
        self.stream
    }

    /// Everything in the queue from its beginning, in order, including what an earlier reader took and did not finish.
    /// For a queue with a single reader.
    ///
    /// # Errors
    /// When the consumer could not be prepared.
    pub async fn all_in_order(
        &self,
        name: &str,
    ) -> Result<BoxStream<'static, Result<Delivery, QueueError>>, QueueError> {
        const ATTEMPT: &str = "read the queue";
        let stream = self.connection.context.get_stream(self.stream).await.map_err(|error| failed(ATTEMPT, error))?;
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            deliver_policy: DeliverPolicy::All,
            ack_wait: Duration::from_secs(60),
            max_ack_pending: 2_000,
            ..pull::Config::default()
        };
        // What a dead reader had taken would come again only after its time is up, and after newer messages of the same
        // stream. A new consumer hands everything out anew, oldest first; the messages themselves stay in the queue. A
        // reset would do that, too, but leave the dead reader's own requests standing.
        if let Err(error) = stream.delete_consumer(name).await
            && !is_missing_consumer(&error)
        {
            return Err(failed(ATTEMPT, error));
        }
        let consumer = stream.create_consumer(config).await.map_err(|error| failed(ATTEMPT, error))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(500)
            .expires(Duration::from_secs(30))
            .heartbeat(Duration::from_secs(2))
            .messages()
            .await
            .map_err(|error| failed(ATTEMPT, error))?;
        let renewed = Box::pin(self.connection.renewed());
        let deliveries = futures::stream::unfold((messages, renewed, 0_u64, false), |state| async move {
            let (mut messages, mut renewed, seen, ended) = state;
            if ended {
                return None;
            }
            let next = tokio::select! {
                biased;
                () = &mut renewed => None,
                next = messages.next() => next,
            };
            let result = match next {
                None => Err(failed(ATTEMPT, "the consumer ended")),
                Some(Err(error)) => Err(failed(ATTEMPT, error)),
                // A delivery that went elsewhere would let those behind it overtake it.
                Some(Ok(message)) => match message.info().map(|info| info.consumer_sequence) {
                    Ok(sequence) if sequence == seen + 1 => Ok(Delivery(message)),
                    Ok(_) => Err(failed(ATTEMPT, format!("delivery {} is missing", seen + 1))),
                    Err(error) => Err(failed(ATTEMPT, error)),
                },
            };
            let ended = result.is_err();
            Some((result, (messages, renewed, seen + 1, ended)))
        });
        Ok(deliveries.boxed())
    }

    /// The next message under a subject, waiting up to `wait` for one. Readers of the same subject share its messages.
    ///
    /// # Errors
    /// When the queue could not be asked, also not after the time in which a cluster elects new leaders.
    pub async fn next(&self, name: &str, subject: &str, wait: Duration) -> Result<Option<Delivery>, QueueError> {
        let (until, patient_until) = (Instant::now() + wait, Instant::now() + PATIENCE);
        loop {
            let wait = until.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), ONE_PULL);
            match self.pull(name, subject, wait).await {
                Ok(None) if Instant::now() < until => {}
                Err(error) if Instant::now() < patient_until => {
                    tracing::debug!(%error, "trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other,
            }
        }
    }

    async fn pull(&self, name: &str, subject: &str, wait: Duration) -> Result<Option<Delivery>, QueueError> {
        const ATTEMPT: &str = "take a message from the queue";
        let lost = self.connection.lost();
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 10_000,
            max_waiting: 10_000,
            filter_subject: subject.to_owned(),
            // Anybody may ask for any name: what nobody asks for any more goes away. The messages stay.
            inactive_threshold: Duration::from_secs(3_600),
            ..pull::Config::default()
        };
        let pulled = async {
            let stream = self.connection.context.get_stream_no_info(self.stream).await;
            let stream = stream.map_err(|error| failed(ATTEMPT, error))?;
            let consumer = stream.get_or_create_consumer(name, config).await.map_err(|error| failed(ATTEMPT, error))?;
            let batch = consumer.batch().max_messages(1).expires(wait).messages().await;
            match batch.map_err(|error| failed(ATTEMPT, error))?.next().await {
                None => Ok(None),
                Some(Ok(message)) => Ok(Some(Delivery(message))),
                Some(Err(error)) => Err(failed(ATTEMPT, error)),
            }
        };
        tokio::select! {
            pulled = pulled => pulled,
            () = lost => Err(failed(ATTEMPT, "the connection to NATS was lost")),
        }
    }
}
