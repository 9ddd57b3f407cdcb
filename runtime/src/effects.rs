//! The port to the record of effects: what is to be done in the world, written down before it is done.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use async_trait::async_trait;
use kernel::{Position, StreamName, Timestamp};
use serde_json::Value;

use crate::consume::{Begin, Released};

/// A store operation that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Worth another try as it is: a connection, a lock, a full disk.
    #[error("the store is not available: {0}")]
    Transient(String),
    /// It will not work as it is, however often it is tried.
    #[error("the store does not take it: {0}")]
    Poison(String),
    /// Somebody else owns the consumer now, or the checkpoint is not where we left it: begin again.
    #[error("the consumer is no longer ours: {0}")]
    Lost(String),
}

/// What an event calls for.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Do something, now or at a time.
    Do {
        /// The effect's own within its stream, and the same whenever the event is read: with reactor and stream it forms
        /// the effect's idempotency key. A later event that plans under the same name calls for the effect anew.
        name: String,
        /// Not before this moment; at once when absent.
        due: Option<Timestamp>,
        /// What to do: whatever the reactor needs to do it later.
        request: Value,
    },
    /// What was planned under this name on the same stream need not be done any more. If it is being done or has been
    /// done already, this changes nothing.
    Cancel {
        /// The name it was planned under.
        name: String,
    },
}

/// A plan with the stream it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The event's stream.
    pub stream: StreamName,
    /// The commit that called for it.
    pub position: Position,
    /// The event's id: what a report names as its cause.
    pub event: String,
    /// The chain the event belongs to.
    pub correlation: String,
    /// W3C trace context of the commit.
    pub traceparent: Option<String>,
    /// What to do.
    pub plan: Plan,
}

/// A recorded effect.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectRow {
    /// The reactor's name.
    pub consumer: String,
    /// The stream whose event called for it.
    pub stream: StreamName,
    /// See [`Plan::Do`].
    pub name: String,
    /// See [`Planned::event`].
    pub event: String,
    /// See [`Planned::correlation`].
    pub correlation: String,
    /// Not before this moment.
    pub due: Timestamp,
    /// What to do.
    pub request: Value,
    /// How often it has been tried and put off.
    pub attempts: u32,
    /// W3C trace context of the commit that called for it. Not stored: an effect that outlives its owner begins a trace of
    /// its own, with the same correlation.
    pub traceparent: Option<String>,
}

impl EffectRow {
    /// The key to hand to whoever acts: the same for every try of this effect, different from every other effect's.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        let full = format!("{}/{}/{}", self.consumer, self.stream, self.name);
        let uuid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, full.as_bytes());
        format!("fx_{}", uuid.simple())
    }
}

/// Where a recorded effect stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectState {
    /// Waiting for its time.
    Scheduled,
    /// Done and reported.
    Done,
    /// Set aside for a person.
    Parked,
}

/// How a try of an effect ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// Which effect.
    pub stream: StreamName,
    /// Which effect of the stream.
    pub name: String,
    /// See [`EffectRow::event`]: an effect that a later event has called for again is not settled by an earlier try.
    pub event: String,
    /// Its new state.
    pub state: EffectState,
    /// When to try again, for `Scheduled`.
    pub due: Option<Timestamp>,
    /// What came of it, or why not; for people.
    pub note: String,
}

/// Why something lies in the parking lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkedState {
    /// It could not be handled.
    Cause,
    /// An earlier commit of the same stream could not, so this one has to wait for its turn.
    Behind,
}

/// A commit that a consumer set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its place in the log.
    pub position: Position,
    /// The subject it stands under; commits under one subject are handled in order.
    pub subject: String,
    /// Cause or behind.
    pub state: ParkedState,
    /// Why, for people.
    pub reason: String,
}

/// The record of effects of all reactors, their checkpoints and what they parked.
///
/// Everything that `record` writes is written together or not at all: a crash leaves either an event that will be read
/// again or effects that will be found by `pending`.
#[async_trait]
pub trait EffectStore: Send + Sync + 'static {
    /// Becomes the owner of a consumer of a log, in the term of a lease. From now on nobody with an older epoch can record.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when the consumer has read another log than this one, or has had an owner of a newer epoch.
    async fn begin(&self, consumer: &str, log: &str, epoch: u64) -> Result<Begin, StoreError>;

    /// Records what commits call for, sets some aside, and moves the checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when the checkpoint is not at `from` any more, or another owner has begun.
    async fn record(
        &self,
        consumer: &str,
        epoch: u64,
        from: Position,
        to: Position,
        plans: &[Planned],
        parked: &[Parked],
    ) -> Result<(), StoreError>;

    /// Every effect that is scheduled, due or not.
    ///
    /// # Errors
    /// [`StoreError::Transient`].
    async fn pending(&self, consumer: &str) -> Result<Vec<EffectRow>, StoreError>;

    /// Records how tries ended. What is done is done, whoever says so; that it was put off or parked counts only from the
    /// current owner, and only while nobody has said that it is done.
    ///
    /// # Errors
    /// [`StoreError::Transient`].
    async fn settle(&self, consumer: &str, epoch: u64, settlements: &[Settlement]) -> Result<(), StoreError>;

    /// Streams whose parked commits a person wants handled now.
    ///
    /// # Errors
    /// [`StoreError::Transient`].
    async fn released(&self, consumer: &str, epoch: u64) -> Result<Vec<Released>, StoreError>;

    /// A parked commit was handled after all: records its plans and takes it out of the lot.
    ///
    /// # Errors
    /// [`StoreError::Transient`]; [`StoreError::Lost`] when another owner has begun.
    async fn unpark(&self, consumer: &str, epoch: u64, position: Position, plans: &[Planned])
    -> Result<(), StoreError>;

    /// A released commit failed again: it and everything behind it stay.
    ///
    /// # Errors
    /// [`StoreError::Transient`].
    async fn park_again(&self, consumer: &str, epoch: u64, position: Position, reason: &str) -> Result<(), StoreError>;

    /// Parked effects that a person wants tried now; they are scheduled again by this call.
    ///
    /// # Errors
    /// [`StoreError::Transient`].
    async fn revived(&self, consumer: &str, epoch: u64) -> Result<Vec<EffectRow>, StoreError>;
}

/// The rows that remain: a plan and its cancellation in one batch leave nothing, and of several calls for one effect only
/// that of the newest event is left.
#[must_use]
pub fn surviving(consumer: &str, plans: &[Planned]) -> (Vec<EffectRow>, Vec<(StreamName, String)>) {
    let mut rows: Vec<Option<EffectRow>> = Vec::new();
    let mut cancelled = Vec::new();
    // Where the newest call for an effect stands among the rows.
    let mut newest: HashMap<(StreamName, String), usize> = HashMap::new();
    for planned in plans {
        match &planned.plan {
            Plan::Do { name, due, request } => {
                let row = EffectRow {
                    consumer: consumer.to_owned(),
                    stream: planned.stream.clone(),
                    name: name.clone(),
                    event: planned.event.clone(),
                    correlation: planned.correlation.clone(),
                    due: due.unwrap_or(Timestamp::UNIX_EPOCH),
                    request: request.clone(),
                    attempts: 0,
                    traceparent: planned.traceparent.clone(),
                };
                match newest.entry((planned.stream.clone(), name.clone())) {
                    Entry::Vacant(place) => {
                        place.insert(rows.len());
                        rows.push(Some(row));
                    }
                    // The same event again changes nothing.
                    Entry::Occupied(place) => {
                        let earlier = &mut rows[*place.get()];
                        if earlier.as_ref().is_none_or(|earlier| earlier.event != row.event) {
                            *earlier = Some(row);
                        }
                    }
                }
            }
            Plan::Cancel { name } => {
                let key = (planned.stream.clone(), name.clone());
                // A later event may call for it again.
                if let Some(place) = newest.remove(&key) {
                    rows[place] = None;
                }
                cancelled.push(key);
            }
        }
    }
    (rows.into_iter().flatten().collect(), cancelled)
}
