//! The queue door: fire and forget. A message in `COMMANDS` is executed once, and in order with the others for its
//! stream, however long it had to wait. A refusal is written to the inbox, where people find it.
//!
//! One instance at a time reads the queue; the others stand by. Streams are worked on side by side, each one message
//! after the other, and a command that cannot be executed *now* is tried until it can: nothing overtakes it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kernel::{CommandId, Problem, StreamName, TenantId, Timestamp};
use nats::{Delivery, WorkQueue, headers};
use runtime::lease::{Lease, Term};
use runtime::retry::Backoff;
use runtime::{Commands, Request, trace};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use rest::Access;

use crate::bus;

/// The durable consumer's name.
const CONSUMER: &str = "queued-commands";

/// The lease under which the queue is read.
pub const LEASE: &str = "queue/commands";

/// How often messages in hand are prolonged; the server hands them out again after 60 s without a word.
const PROLONG: Duration = Duration::from_secs(15);

/// Reads the queue until `stop`, whenever the lease is ours, and then until what is being executed is done.
pub async fn run(
    queue: WorkQueue,
    mut lease: Lease,
    commands: Arc<dyn Commands>,
    access: Arc<dyn Access>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    // Each term of ownership ends on its own: commands that still wait when it is lost are the next owner's.
    while !stop.is_cancelled() {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = lease.begun() => term,
        };
        let work = Arc::new(Work {
            commands: Arc::clone(&commands),
            access: Arc::clone(&access),
            lease: lease.clone(),
            term,
            stop: stop.child_token(),
        });
        let reason = match read(&queue, &work, &mut lease, &mut backoff).await {
            _ if stop.is_cancelled() => return,
            Ok(()) => "its lease has ended".to_owned(),
            Err(reason) => reason,
        };
        tracing::warn!(reason, "the command queue is not read any more here; will begin again when it is ours");
        tokio::select! {
            () = stop.cancelled() => return,
            () = backoff.wait() => {}
        }
    }
}

type Lane = String;

async fn read(queue: &WorkQueue, work: &Arc<Work>, lease: &mut Lease, backoff: &mut Backoff) -> Result<(), String> {
    let mut deliveries = queue.all_in_order(CONSUMER).await.map_err(|error| error.to_string())?;
    let mut waiting: HashMap<Lane, VecDeque<Arc<Delivery>>> = HashMap::new();
    let mut running: FuturesUnordered<BoxFuture<'static, Lane>> = FuturesUnordered::new();
    let mut in_hand: HashMap<u64, Arc<Delivery>> = HashMap::new();
    let mut prolong = tokio::time::interval(PROLONG);
    let ended = loop {
        tokio::select! {
            () = work.stop.cancelled() => break Ok(()),
            () = lease.ended(&work.term) => break Ok(()),
            delivery = deliveries.next() => {
                let delivery = match delivery {
                    Some(Ok(delivery)) => Arc::new(delivery),
                    Some(Err(error)) => break Err(error.to_string()),
                    None => break Err("the consumer ended".to_owned()),
                };
                backoff.reset();
                let Ok((sequence, _)) = delivery.place() else { break Err("a delivery without a place".to_owned()) };
                // The server may hand a message out again while we still have it.
                if in_hand.contains_key(&sequence) {
                    continue;
                }
                in_hand.insert(sequence, Arc::clone(&delivery));
                let lane = lane(delivery.subject());
                match waiting.get_mut(&lane) {
                    Some(others) => others.push_back(delivery),
                    None => {
                        waiting.insert(lane.clone(), VecDeque::new());
                        running.push(begin(work, lane, delivery));
                    }
                }
            }
            Some(lane) = running.next() => {
                let next = waiting.get_mut(&lane).and_then(VecDeque::pop_front);
                match next {
                    Some(delivery) => running.push(begin(work, lane, delivery)),
                    None => { waiting.remove(&lane); }
                }
                // What is no longer referenced by a lane is done.
                in_hand.retain(|_, delivery| Arc::strong_count(delivery) > 1);
            }
            _ = prolong.tick() => {
                for delivery in in_hand.values() {
                    delivery.still_working().await;
                }
            }
        }
    };
    // What runs is finished, what waits (for its turn, or for a log that is away) stays in the queue for the next reader.
    drop(deliveries);
    work.stop.cancel();
    while running.next().await.is_some() {}
    ended
}

/// Messages of one lane keep their order: tenant, category and stream of the subject, whatever it looks like.
fn lane(subject: &str) -> Lane {
    let mut tokens = subject.split('.').skip(1);
    let tenant = tokens.next().unwrap_or_default();
    let (category, id) = (tokens.nth(1).unwrap_or_default(), tokens.next().unwrap_or_default());
    format!("{tenant}/{category}/{id}")
}

fn begin(work: &Arc<Work>, lane: Lane, delivery: Arc<Delivery>) -> BoxFuture<'static, Lane> {
    let work = Arc::clone(work);
    Box::pin(async move {
        work.perform(&delivery).await;
        lane
    })
}

struct Work {
    commands: Arc<dyn Commands>,
    access: Arc<dyn Access>,
    lease: Lease,
    term: Term,
    stop: CancellationToken,
}

impl Work {
    async fn perform(&self, delivery: &Delivery) {
        let Ok((sequence, taken_at)) = delivery.place() else { return };
        // The same name whenever this message is handed out, so that without a command id it still counts once.
        let name = format!("queue_{sequence:x}_{:x}", taken_at.timestamp_micros());
        let header = |name: &str| delivery.header(name).map(str::to_owned);
        let (subject, payload) = (delivery.subject(), delivery.payload());
        let request = || bus::request(subject, payload.clone(), &*self.access, &header);
        let Some(request) = self.until_told(subject, request).await else { return };
        let span = tracing::info_span!(
            target: trace::TARGET,
            parent: None,
            "queue",
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.destination.name = delivery.subject(),
        );
        let outcome = match request {
            Ok(mut request) => {
                trace::step(&span, &mut request.traceparent);
                let id = request.id.clone().map_or_else(|| CommandId::new(&name), Ok);
                match id {
                    Ok(id) => self.until_decided(request.with_id(id)).await,
                    Err(error) => Some(Err(error.into())),
                }
            }
            Err(problem) => Some(Err(problem)),
        };
        let settled = match outcome {
            // Stopping: the message stays in the queue.
            None => false,
            Some(Ok(())) => true,
            Some(Err(problem)) => self.tell_inbox(delivery, &name, taken_at, &problem).await,
        };
        // The lane waits for the confirmation: a refusal leaves no trace under its id, so a message that came again later
        // could be accepted then, after those behind it.
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while settled && let Err(error) = delivery.done().await {
            tracing::debug!(%error, "a command was executed but is still in the queue");
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    /// Executes until there is a yes or a no. `None` when we have to stop first.
    async fn until_decided(&self, request: Request) -> Option<Result<(), Problem>> {
        let subject = request.stream.to_string();
        let told = self.until_told(&subject, || self.commands.execute(request.clone())).await?;
        Some(told.map(drop))
    }

    /// Asks until there is an answer. `None` when we have to stop first.
    async fn until_told<T, F>(&self, about: &str, ask: impl Fn() -> F + Send + Sync) -> Option<Result<T, Problem>>
    where
        F: Future<Output = Result<T, Problem>> + Send,
    {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            // Asked right before: after a pause the next owner may be beyond this command, and what was refused in its turn
            // must not be accepted now.
            if self.stop.is_cancelled() || !self.lease.lasts(&self.term) {
                // Nothing may follow it in its lane, either.
                self.stop.cancel();
                return None;
            }
            match ask().await {
                // What is refused *for now* by a business rule is refused: waiting for it would hold up everybody else.
                Err(problem) if problem.is_transient() || problem.code == "contended" => {
                    tracing::debug!(about, %problem, "a queued command has to wait");
                    tokio::select! {
                        () = self.stop.cancelled() => return None,
                        () = backoff.wait() => {}
                    }
                }
                told => return Some(told),
            }
        }
    }

    /// Writes the refusal down. `true` when the message may leave the queue.
    async fn tell_inbox(&self, delivery: &Delivery, name: &str, taken_at: Timestamp, problem: &Problem) -> bool {
        let tokens: Vec<&str> = delivery.subject().split('.').collect();
        let token = |index: usize| tokens.get(index).copied().unwrap_or_default();
        let tenant = TenantId::new(token(1));
        let Ok(tenant) = tenant else {
            tracing::warn!(subject = delivery.subject(), %problem, "a queued command without a tenant was dropped");
            return true;
        };
        match self.until_told(delivery.subject(), || self.access.knows(&tenant)).await {
            None => return false,
            Some(Ok(true)) => {}
            Some(known) => {
                let subject = delivery.subject();
                tracing::warn!(subject, %problem, ?known, "a queued command of an unknown tenant was dropped");
                return true;
            }
        }
        let rejected = json!({
            // An id that cannot be one is exactly what may have been refused: it is shown, cut to what can be shown.
            "command_id": delivery.header(headers::COMMAND_ID).map_or_else(|| name.to_owned(), printable),
            "category": token(3),
            "id": token(4),
            "command": token(5),
            "principal": token(2),
            "status": problem.status,
            "code": problem.code,
            "detail": problem.detail,
            "body": body_to_keep(delivery.payload()),
            "taken_at": taken_at,
        });
        let Ok(stream) = StreamName::new(tenant.as_str(), events::inbox::CATEGORY, name) else { return true };
        let Ok(id) = CommandId::new(name) else { return true };
        let word = |name: &str| delivery.header(name).filter(|text| kernel::storable::is_word(text)).map(str::to_owned);
        let request = Request {
            correlation: word(headers::CORRELATION_ID),
            traceparent: word(headers::TRACEPARENT),
            ..Request::internal(stream, "reject", rejected.to_string()).with_id(id)
        };
        match self.until_decided(request).await {
            None => false,
            Some(Ok(())) => true,
            Some(Err(problem)) => {
                tracing::error!(%problem, subject = delivery.subject(), "a refusal could not be written down");
                true
            }
        }
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// A small body is worth keeping for whoever looks at the refusal; it must be readable from the log again.
fn body_to_keep(payload: &[u8]) -> Value {
    const KEEP_BYTES: usize = 8 * 1024;
    match serde_json::from_slice::<Value>(payload) {
        Ok(value) if payload.len() <= KEEP_BYTES && kernel::storable::complaint_about(&value).is_none() => value,
        _ => Value::Null,
    }
}
