//! A door on the bus: requests in, one answer out for each, always. Overload is an answer, too.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, Subject};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use kernel::Problem;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Connection, headers};

/// What a subject's handler gives back: a status, a body, and whether it repeats an earlier answer.
pub struct Reply {
    /// HTTP status that fits.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
    /// Whether it repeats an earlier answer.
    pub repeated: bool,
    /// What to do when nobody is there to hear it any more.
    pub unheard: Option<Unheard>,
}

/// Undoes what an answer that nobody heard has done.
pub type Unheard = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// How long the server may take to tell that nobody listens on an inbox.
const NOBODY_THERE: Duration = Duration::from_millis(500);

impl Reply {
    /// A problem document.
    #[must_use]
    pub fn problem(problem: &Problem) -> Self {
        Self::of(problem.status, problem, false)
    }

    /// A JSON document.
    pub fn of(status: u16, document: &impl Serialize, repeated: bool) -> Self {
        Self { status, body: serde_json::to_vec(document).unwrap_or_default(), repeated, unheard: None }
    }
}

/// A request that somebody sent.
pub struct Incoming(Message);

impl Incoming {
    /// The subject it was sent to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Its body.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }
}

/// Answers the messages of a subject.
pub type Handle = Arc<dyn Fn(Incoming) -> BoxFuture<'static, Reply> + Send + Sync>;

/// Serves a subject until `stop`, and then until what was taken is answered. Several instances share the messages.
///
/// # Errors
/// When the subscription could not be made.
pub async fn serve(
    connection: &Connection,
    subject: &'static str,
    handle: Handle,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, async_nats::SubscribeError> {
    let client = connection.client().clone();
    let mut messages = client.queue_subscribe(subject, "airstream".to_owned()).await?;
    // The server has seen the subscription once it answers this.
    if let Err(error) = client.flush().await {
        tracing::warn!(%error, subject, "the server has not confirmed a subscription yet");
    }
    Ok(tokio::spawn(async move {
        let tasks = TaskTracker::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    // Others take over; what the server has handed to us already is still ours.
                    if let Err(error) = messages.drain().await {
                        tracing::debug!(%error, subject, "could not drain");
                    }
                    let rest = async { while let Some(message) = messages.next().await { begin(&tasks, &client, &handle, message); } };
                    let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
                    break;
                }
                message = messages.next() => match message {
                    Some(message) => begin(&tasks, &client, &handle, message),
                    None => break,
                },
            }
        }
        tasks.close();
        tasks.wait().await;
        let _ = client.flush().await;
    }))
}

fn begin(tasks: &TaskTracker, client: &Client, handle: &Handle, message: Message) {
    let (client, handle) = (client.clone(), Arc::clone(handle));
    tasks.spawn(async move {
        // The server checks where a caller may publish, not where it wants its answer. Ours would be published with our
        // rights, so it goes to inboxes only: anywhere else a caller could have us write into the log.
        let to = message.reply.clone().filter(|to| to.starts_with("_INBOX."));
        if to.is_none() && message.reply.is_some() {
            tracing::warn!(subject = %message.subject, "a request wants its answer outside the inboxes; it gets none");
            return;
        }
        let reply = handle(Incoming(message)).await;
        if let Some(to) = to {
            send(&client, to, reply).await;
        }
    });
}

async fn send(client: &Client, to: Subject, reply: Reply) {
    let mut map = HeaderMap::new();
    map.insert(headers::STATUS, reply.status.to_string());
    map.insert("Content-Type", if reply.status < 400 { "application/json" } else { "application/problem+json" });
    if reply.repeated {
        map.insert(headers::REPEATED, "true");
    }
    if let Some(undo) = reply.unheard {
        // Sent as a request that nobody answers: silence means that it was delivered.
        let request = Request::new().headers(map).payload(reply.body.into()).timeout(Some(NOBODY_THERE));
        if let Err(error) = client.send_request(to, request).await
            && error.kind() == RequestErrorKind::NoResponders
        {
            undo().await;
        }
        return;
    }
    if let Err(error) = client.publish_with_headers(to, map, reply.body.into()).await {
        // The caller's retry with the same command id will find the answer.
        tracing::warn!(%error, "an answer could not be sent");
    }
}
