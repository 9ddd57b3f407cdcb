//! Memory adapters of the ports, for tests and for the simulation. They pass the same suites as the real ones.

mod leases;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use kernel::{CommandId, Position, StreamName};
use tokio::sync::Notify;

use crate::consume::{Begin, Released};
use crate::effects::surviving;
use crate::{
    Append, AppendError, CommitIndex, EffectRow, EffectState, EffectStore, Filter, Freshness, Log, LogError, Lookup,
    Page, Parked, ParkedState, Planned, Reader, Recorded, Settlement, StoreError, clock,
};

pub use leases::MemoryLeases;
pub use snapshots::MemorySnapshots;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log in memory.
pub struct MemoryLog {
    commits: Arc<Mutex<Vec<Recorded>>>,
    /// Wakes readers. (A `watch` would wake them in an order of its own choosing, and no simulation could be repeated.)
    arrived: Arc<Notify>,
    identity: String,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self { commits: Arc::default(), arrived: Arc::default(), identity: clock::fresh_id("log_") }
    }

    /// Appends bytes that nobody has checked, as a faulty writer would.
    pub fn append_raw(&self, stream: &StreamName, payload: &'static [u8]) -> Position {
        let append = Append {
            stream: stream.clone(),
            id: CommandId::new("raw").expect("a valid id"),
            expected: Position::START,
            payload: bytes::Bytes::from_static(payload),
            types: String::new(),
        };
        self.push(&mut locked(&self.commits), append, true)
    }

    /// Puts a message into a stream that no writer wrote, as a server's misdirected answer would be.
    pub fn append_foreign(&self, stream: &StreamName, payload: bytes::Bytes) -> Position {
        let id = CommandId::new("foreign").expect("a valid id");
        let append = Append { stream: stream.clone(), id, expected: Position::START, payload, types: String::new() };
        self.push(&mut locked(&self.commits), append, false)
    }

    fn push(&self, commits: &mut Vec<Recorded>, append: Append, guarded: bool) -> Position {
        let position = Position::at(commits.len() as u64 + 1);
        commits.push(Recorded {
            position,
            subject: append.stream.to_string(),
            stream: Some(append.stream),
            recorded_at: clock::now(),
            payload: append.payload,
            remaining: 0,
            guarded,
        });
        self.arrived.notify_waiters();
        position
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(&self, commit: Append) -> Result<Position, AppendError> {
        let mut commits = locked(&self.commits);
        let last = commits.iter().rev().find(|recorded| recorded.stream.as_ref() == Some(&commit.stream));
        let last = last.map_or(Position::START, |recorded| recorded.position);
        if last != commit.expected {
            return Err(AppendError::Conflict);
        }
        Ok(self.push(&mut commits, commit, true))
    }

    async fn read_stream(&self, stream: &StreamName, after: Position, _: Freshness) -> Result<Page, LogError> {
        let commits = locked(&self.commits);
        let newer = commits.iter().skip(after.sequence() as usize);
        let own = newer.filter(|recorded| recorded.stream.as_ref() == Some(stream));
        // Small pages, so that every test of a caller also tests its paging.
        let page: Vec<_> = own.take(3).cloned().collect();
        Ok(Page { more: page.len() == 3, commits: page })
    }

    async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError> {
        let Some(index) = position.sequence().checked_sub(1) else { return Ok(None) };
        Ok(locked(&self.commits).get(index as usize).cloned())
    }

    async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError> {
        let admits = {
            let filter = filter.clone();
            move |recorded: &Recorded| match &recorded.stream {
                Some(stream) => filter.admits(stream),
                None => filter == Filter::default(),
            }
        };
        let waiting = {
            let commits = locked(&self.commits);
            commits.iter().skip(after.sequence() as usize).filter(|recorded| admits(recorded)).count() as u64
        };
        let (commits, arrived) = (Arc::clone(&self.commits), Arc::clone(&self.arrived));
        let stream = futures::stream::unfold((commits, arrived, after), move |(commits, arrived, after)| {
            let admits = admits.clone();
            async move {
                let mut after = after.sequence();
                loop {
                    let mut more = std::pin::pin!(arrived.notified());
                    more.as_mut().enable();
                    let found = {
                        let all = locked(&commits);
                        let mut rest = all.iter().skip(after as usize).filter(|recorded| admits(recorded));
                        let found = rest.next().cloned();
                        let remaining = rest.count() as u64;
                        after = found.as_ref().map_or(all.len() as u64, |recorded| recorded.position.sequence());
                        found.map(|recorded| Recorded { remaining, ..recorded })
                    };
                    if let Some(recorded) = found {
                        return Some((Ok(recorded), (commits, Arc::clone(&arrived), Position::at(after))));
                    }
                    more.await;
                }
            }
        });
        Ok(Reader { waiting, commits: stream.boxed() })
    }

    async fn identity(&self) -> Result<String, LogError> {
        Ok(self.identity.clone())
    }

    async fn head(&self) -> Result<Position, LogError> {
        Ok(Position::at(locked(&self.commits).len() as u64))
    }
}

#[derive(Default)]
struct Known {
    commits: HashMap<(StreamName, CommandId), Position>,
    covers: Position,
}

/// An index that knows what it was told, and how far that reaches.
#[derive(Default)]
pub struct MemoryIndex {
    known: Mutex<Known>,
}

impl MemoryIndex {
    /// Reads the log up to its head.
    ///
    /// # Errors
    /// [`LogError`] when the log cannot be read.
    pub async fn catch_up(&self, log: &dyn Log) -> Result<(), LogError> {
        let head = log.head().await?;
        let from = locked(&self.known).covers.next().sequence();
        for sequence in from..=head.sequence() {
            let Some(recorded) = log.at(Position::at(sequence)).await? else { continue };
            let mut known = locked(&self.known);
            if let Ok(Some((stream, commit))) = recorded.history()
                && let Ok(id) = CommandId::new(commit.id())
            {
                known.commits.insert((stream.clone(), id), recorded.position);
            }
            known.covers = recorded.position;
        }
        Ok(())
    }
}

#[async_trait]
impl CommitIndex for MemoryIndex {
    async fn find(&self, stream: &StreamName, id: &CommandId) -> Result<Lookup, LogError> {
        let known = locked(&self.known);
        let found = known.commits.get(&(stream.clone(), id.clone()));
        Ok(found.map_or(Lookup::Absent { covers: known.covers }, |position| Lookup::Found(*position)))
    }
}

#[derive(Default)]
struct Consumer {
    log: Option<String>,
    /// Of the newest owner: older ones cannot write any more.
    epoch: u64,
    checkpoint: Position,
    effects: BTreeMap<(StreamName, String), (EffectRow, EffectState)>,
    parked: BTreeMap<Position, Parked>,
    released: BTreeSet<String>,
    revived: BTreeSet<(StreamName, String)>,
}

impl Consumer {
    fn check(&self, epoch: u64) -> Result<(), StoreError> {
        if epoch < self.epoch {
            return Err(StoreError::Lost(format!("its epoch is {}, ours is {epoch}", self.epoch)));
        }
        Ok(())
    }
}

/// A record of effects in memory.
#[derive(Default)]
pub struct MemoryEffects {
    consumers: Mutex<HashMap<String, Consumer>>,
}

impl MemoryEffects {
    /// What a person does who wants a stream's parked commits handled.
    pub fn release(&self, consumer: &str, subject: &str) {
        locked(&self.consumers).entry(consumer.to_owned()).or_default().released.insert(subject.to_owned());
    }

    /// What a person does who wants a parked effect tried again.
    pub fn revive(&self, consumer: &str, stream: &StreamName, name: &str) {
        let mut consumers = locked(&self.consumers);
        consumers.entry(consumer.to_owned()).or_default().revived.insert((stream.clone(), name.to_owned()));
    }

    /// Every effect of a consumer with its state.
    pub fn effects(&self, consumer: &str) -> Vec<(EffectRow, EffectState)> {
        let consumers = locked(&self.consumers);
        consumers.get(consumer).map(|found| found.effects.values().cloned().collect()).unwrap_or_default()
    }

    /// How far a consumer has come.
    pub fn checkpoint(&self, consumer: &str) -> Position {
        locked(&self.consumers).get(consumer).map_or(Position::START, |found| found.checkpoint)
    }

    /// What a consumer has parked.
    pub fn parked(&self, consumer: &str) -> Vec<Parked> {
        let consumers = locked(&self.consumers);
        consumers.get(consumer).map(|found| found.parked.values().cloned().collect()).unwrap_or_default()
    }
}

fn add(consumer: &mut Consumer, name: &str, plans: &[Planned]) {
    let (rows, cancelled) = surviving(name, plans);
    for key in cancelled {
        if consumer.effects.get(&key).is_some_and(|(_, state)| *state == EffectState::Scheduled) {
            consumer.effects.remove(&key);
        }
    }
    for row in rows {
        let key = (row.stream.clone(), row.name.clone());
        // The same event again changes nothing; a later one calls for the effect anew.
        if consumer.effects.get(&key).is_none_or(|(known, _)| known.event != row.event) {
            consumer.effects.insert(key, (row, EffectState::Scheduled));
        }
    }
}

#[async_trait]
impl EffectStore for MemoryEffects {
    async fn begin(&self, consumer: &str, log: &str, epoch: u64) -> Result<Begin, StoreError> {
        let mut consumers = locked(&self.consumers);
        let found = consumers.entry(consumer.to_owned()).or_default();
        found.check(epoch)?;
        found.epoch = epoch;
        let known = found.log.get_or_insert_with(|| log.to_owned());
        if known != log {
            return Err(StoreError::Lost(format!("its checkpoint belongs to the log {known}, this is {log}")));
        }
        let parked = found.parked.values().map(|parked| parked.subject.clone()).collect();
        Ok(Begin { checkpoint: found.checkpoint, parked })
    }

    async fn record(
        &self,
        consumer: &str,
        epoch: u64,
        from: Position,
        to: Position,
        plans: &[Planned],
        parked: &[Parked],
    ) -> Result<(), StoreError> {
        let mut consumers = locked(&self.consumers);
        let found = consumers.entry(consumer.to_owned()).or_default();
        found.check(epoch)?;
        if found.checkpoint != from {
            return Err(StoreError::Lost(format!("the checkpoint is at {}, not {from}", found.checkpoint)));
        }
        add(found, consumer, plans);
        found.parked.extend(parked.iter().map(|parked| (parked.position, parked.clone())));
        found.checkpoint = to;
        Ok(())
    }

    async fn pending(&self, consumer: &str) -> Result<Vec<EffectRow>, StoreError> {
        let effects = self.effects(consumer).into_iter();
        Ok(effects.filter(|(_, state)| *state == EffectState::Scheduled).map(|(row, _)| row).collect())
    }

    async fn settle(&self, consumer: &str, epoch: u64, settlements: &[Settlement]) -> Result<(), StoreError> {
        let mut consumers = locked(&self.consumers);
        let found = consumers.entry(consumer.to_owned()).or_default();
        let current = epoch >= found.epoch;
        for settlement in settlements {
            let done = settlement.state == EffectState::Done;
            if let Some((row, state)) = found.effects.get_mut(&(settlement.stream.clone(), settlement.name.clone()))
                && row.event == settlement.event
                && (done || (current && *state == EffectState::Scheduled))
            {
                *state = settlement.state.clone();
                if let Some(due) = settlement.due {
                    row.due = due;
                    row.attempts += 1;
                }
            }
        }
        Ok(())
    }

    async fn released(&self, consumer: &str, epoch: u64) -> Result<Vec<Released>, StoreError> {
        let mut consumers = locked(&self.consumers);
        let found = consumers.entry(consumer.to_owned()).or_default();
        found.check(epoch)?;
        let subjects = std::mem::take(&mut found.released);
        let of = |subject: &str| {
            found.parked.values().filter(|parked| parked.subject == subject).map(|parked| parked.position).collect()
        };
        Ok(subjects.into_iter().map(|subject| Released { positions: of(&subject), subject }).collect())
    }

    async fn unpark(
        &self,
        consumer: &str,
        epoch: u64,
        position: Position,
        plans: &[Planned],
    ) -> Result<(), StoreError> {
        let mut consumers = locked(&self.consumers);
        let found = consumers.entry(consumer.to_owned()).or_default();
        found.check(epoch)?;
        add(found, consumer, plans);
        found.parked.remove(&position);
        Ok(())
    }

    async fn park_again(&self, consumer: &str, epoch: u64, position: Position, reason: &str) -> Result<(), StoreError> {
        let mut consumers = locked(&self.consumers);
        let found = consumers.entry(consumer.to_owned()).or_default();
        found.check(epoch)?;
        if let Some(parked) = found.parked.get_mut(&position) {
            parked.state = ParkedState::Cause;
            parked.reason = reason.to_owned();
        }
        Ok(())
    }

    async fn revived(&self, consumer: &str, epoch: u64) -> Result<Vec<EffectRow>, StoreError> {
        let mut consumers = locked(&self.consumers);
        let found = consumers.entry(consumer.to_owned()).or_default();
        found.check(epoch)?;
        let keys = std::mem::take(&mut found.revived);
        let mut rows = Vec::new();
        for key in keys {
            if let Some((row, state)) = found.effects.get_mut(&key)
                && *state == EffectState::Parked
            {
                *state = EffectState::Scheduled;
                row.due = clock::now();
                rows.push(row.clone());
            }
        }
        Ok(rows)
    }
}
