//! A door on the bus: requests in, one answer out for each, always. Overload is an answer, too.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use kernel::Problem;
use runtime::telemetry;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Connection, headers, subjects};

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
pub struct Incoming {
    message: Message,
    /// How much of the subject's beginning says which door it is, and not what is asked.
    skip: usize,
}

impl Incoming {
    /// The subject it was sent to.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.message.subject.get(self.skip..).unwrap_or_default()
    }

    /// Its body.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }
}

/// Answers the messages of a subject.
pub type Handle = Arc<dyn Fn(Incoming) -> BoxFuture<'static, Reply> + Send + Sync>;

/// As [`Handle`], where order matters: the next message is taken when the outer future is done, the inner one is the answer.
pub type InOrder = Arc<dyn Fn(Incoming) -> BoxFuture<'static, BoxFuture<'static, Reply>> + Send + Sync>;

/// Serves a subject until `stop`, and then until what was taken is answered. Several instances share the messages.
///
/// In a cluster it listens on every server, for `door.<server name>.<subject>` as well: the servers are configured to map
/// their callers' requests to that (`nats/cluster/README.md`), so that these are heard and answered on the server they
/// came in on. A server that dies or stands still is then nobody's but its own callers' concern.
///
/// # Errors
/// When the subscription could not be made.
pub async fn serve(
    connection: &Connection,
    subject: &'static str,
    handle: Handle,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, async_nats::SubscribeError> {
    let side_by_side: InOrder = Arc::new(move |message| Box::pin(std::future::ready(handle(message))));
    serve_in_order(connection, subject, side_by_side, stop).await
}

/// As [`serve`], taking the messages of each caller in the order in which they were sent, as long as nobody else serves the
/// same subject.
///
/// # Errors
/// When the subscription could not be made.
pub async fn serve_in_order(
    connection: &Connection,
    subject: &'static str,
    handle: InOrder,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, async_nats::SubscribeError> {
    let clients = connection.doors().await;
    let mut listening = JoinSet::new();
    let mut open = Vec::new();
    for client in clients {
        let ways = Ways { own: client.clone(), other: connection.client().clone() };
        let door = Door { ways, handle: Arc::clone(&handle), stop: stop.clone(), skip: 0 };
        if clients.len() > 1 {
            let (opened, wait) = oneshot::channel();
            open.push(wait);
            listening.spawn(door.clone().listen_locally(subject, opened));
        }
        let messages = subscribe(client, subject.to_owned()).await?;
        listening.spawn(door.listen(messages));
    }
    // A server that is away now gets its door when it is back.
    let _ = tokio::time::timeout(CONFIRM, futures::future::join_all(open)).await;
    Ok(tokio::spawn(async move { while listening.join_next().await.is_some() {} }))
}

/// How long a server may take to confirm a subscription.
const CONFIRM: Duration = Duration::from_secs(2);

async fn subscribe(client: &Client, subject: String) -> Result<Subscriber, async_nats::SubscribeError> {
    let messages = client.queue_subscribe(subject.clone(), "airstream".to_owned()).await?;
    // The server has seen the subscription once it answers this.
    let confirmed = tokio::time::timeout(CONFIRM, client.flush()).await;
    if !matches!(confirmed, Ok(Ok(()))) {
        tracing::warn!(subject, "a server has not confirmed a subscription yet");
    }
    Ok(messages)
}

/// Where answers go out.
#[derive(Clone)]
struct Ways {
    /// The connection that the request came in on: its server knows the caller, or the way there.
    own: Client,
    /// For when that one is lost meanwhile.
    other: Client,
}

impl Ways {
    fn best(&self) -> &Client {
        if self.own.connection_state() == State::Connected { &self.own } else { &self.other }
    }
}

/// One subject on one connection.
#[derive(Clone)]
struct Door {
    ways: Ways,
    handle: InOrder,
    stop: CancellationToken,
    skip: usize,
}

impl Door {
    /// Listens for what this connection's server maps to itself. Its name is known once it is there.
    async fn listen_locally(mut self, subject: &'static str, opened: oneshot::Sender<()>) {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while self.ways.own.connection_state() != State::Connected {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = look.tick() => {}
            }
        }
        let prefix = format!("door.{}.", self.ways.own.server_info().server_name);
        self.skip = prefix.len();
        match subscribe(&self.ways.own, format!("{prefix}{subject}")).await {
            Ok(messages) => {
                let _ = opened.send(());
                self.listen(messages).await;
            }
            Err(error) => tracing::warn!(%error, prefix, "no door can be opened on one of the NATS servers"),
        }
    }

    async fn listen(self, mut messages: Subscriber) {
        let tasks = TaskTracker::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => {
                    // Others take over; what the server has handed to us already is still ours.
                    if let Err(error) = messages.drain().await {
                        tracing::debug!(%error, "could not drain");
                    }
                    let rest = async { while let Some(message) = messages.next().await { self.begin(&tasks, message).await; } };
                    let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
                    break;
                }
                message = messages.next() => match message {
                    Some(message) => self.begin(&tasks, message).await,
                    None => break,
                },
            }
        }
        tasks.close();
        tasks.wait().await;
        let _ = tokio::time::timeout(CONFIRM, self.ways.best().flush()).await;
    }

    async fn begin(&self, tasks: &TaskTracker, message: Message) {
        let to = message.reply.clone();
        let incoming = Incoming { message, skip: self.skip };
        // The server checks where a caller may publish, not where it wants its answer.
        if to.as_ref().is_some_and(|to| !subjects::is_own_inbox(incoming.subject(), to)) {
            tracing::warn!(
                subject = incoming.subject(),
                "a request wants its answer outside its own inbox; it gets none"
            );
            return;
        }
        let in_hand = telemetry::InHand::at("bus");
        let answer = (self.handle)(incoming).await;
        let ways = self.ways.clone();
        tasks.spawn(async move {
            let _in_hand = in_hand;
            let reply = answer.await;
            if let Some(to) = to {
                send(ways.best(), to, reply).await;
            }
        });
    }
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
        // On an inbox of its own: the client keeps a place for an answer on its shared one until that comes, and here none does.
        let request = Request::new().inbox(client.new_inbox()).headers(map).payload(reply.body.into());
        let request = request.timeout(Some(NOBODY_THERE));
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
