//! The runner: performs recorded effects when they are due. No polling: it sleeps until the next due time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kernel::{StreamName, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::perform::{Finished, perform};
use super::{News, Options, Reactor};
use crate::lease::{Lease, Term};
use crate::retry::Backoff;
use crate::{Commands, EffectRow, EffectState, EffectStore, Settlement, StoreError, clock, telemetry};

/// Longest sleep. The monotonic clock stands still while a machine is suspended; due times do not.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A store that has not answered by then may never do so: its connection may be gone without a word.
const LONGEST_SETTLING: Duration = Duration::from_secs(10);

pub(super) type Key = (StreamName, String);

fn key_of(row: &EffectRow) -> Key {
    (row.stream.clone(), row.name.clone())
}

/// An effect and the event that called for it: a later event may call for the same effect again.
type Call = (Key, String);

fn call_of(row: &EffectRow) -> Call {
    (key_of(row), row.event.clone())
}

/// A call that is being done.
struct InHand {
    /// The event that called.
    event: String,
    /// In which it was begun.
    epoch: u64,
    /// How often it had been put off, as the store knows it, while the store has it scheduled. `None` when it has not, or we
    /// cannot say: cancelled, called for anew by a later event, or settled by another owner. Then it is not tried again.
    scheduled: Option<u32>,
}

/// What is to be done when: what the store has scheduled, as far as we have heard of it. The heap and the queue hold keys, the
/// map the effects: a cancelled timer leaves the map, and its key is passed over when it comes up.
#[derive(Default)]
struct Agenda {
    due: BinaryHeap<Reverse<(Timestamp, Key)>>,
    /// Of each effect the newest call.
    waiting: HashMap<Key, EffectRow>,
    /// Outward effects whose time has come, waiting for a permit of their kind.
    outward: VecDeque<Call>,
    /// Being done: of each effect mostly one call, and older ones that are not done yet.
    in_hand: HashMap<Key, Vec<InHand>>,
    /// The term in which we own the consumer, when we do.
    owner: Option<Term>,
    /// Ended since the ownership was last in doubt: the store's list may be older than that. With the epoch in which it was
    /// settled, and whether it is done: the store takes any other word only from its newest owner.
    ended: HashMap<Call, (u64, bool)>,
}

impl Agenda {
    fn hear(&mut self, news: News) {
        match news {
            News::OwnerUnknown(heard) => {
                let _ = heard.send(());
                self.owner = None;
                self.due.clear();
                self.waiting.clear();
                self.outward.clear();
                self.ended.clear();
                // Another owner may settle what is in hand here. If we are the owner once more, the store says what is left.
                self.in_hand.values_mut().flatten().for_each(|call| call.scheduled = None);
            }
            News::Owner { term, rows } => {
                self.owner = Some(term);
                let ended = std::mem::take(&mut self.ended);
                let has_ended = |call: &Call| ended.get(call).is_some_and(|(of, done)| *done || *of == term.epoch);
                rows.into_iter().filter(|row| !has_ended(&call_of(row))).for_each(|row| self.add(row));
            }
            News::Recorded { rows, cancelled } => {
                for key in cancelled {
                    self.waiting.remove(&key);
                    self.in_hand.get_mut(&key).into_iter().flatten().for_each(|call| call.scheduled = None);
                }
                rows.into_iter().for_each(|row| self.add(row));
            }
        }
    }

    /// Takes in what the store has scheduled: of each effect one call, so any other one is history.
    fn add(&mut self, row: EffectRow) {
        let key = key_of(&row);
        let mut is_in_hand = false;
        for call in self.in_hand.get_mut(&key).into_iter().flatten() {
            let same = call.event == row.event;
            call.scheduled = same.then_some(row.attempts);
            is_in_hand |= same;
        }
        if is_in_hand {
            // One try at a time; how this one ends says what comes next.
            self.waiting.remove(&key);
        } else {
            self.due.push(Reverse((row.due, key.clone())));
            self.waiting.insert(key, row);
        }
    }

    /// The next effect whose time has come.
    fn take_due(&mut self) -> Option<EffectRow> {
        while let Some(Reverse((at, _))) = self.due.peek()
            && *at <= clock::now()
        {
            let Reverse((at, key)) = self.due.pop()?;
            // A key that was put off meanwhile has a later entry of its own.
            if self.waiting.get(&key).is_some_and(|row| row.due == at) {
                return self.waiting.remove(&key);
            }
        }
        None
    }

    /// Keeps an outward effect until there is a permit.
    fn queue(&mut self, row: EffectRow) {
        self.outward.push_back(call_of(&row));
        self.waiting.insert(key_of(&row), row);
    }

    /// The next outward effect that waits for a permit.
    fn take_outward(&mut self) -> Option<EffectRow> {
        while let Some((key, event)) = self.outward.pop_front() {
            if self.waiting.get(&key).is_some_and(|row| row.event == event) {
                return self.waiting.remove(&key);
            }
        }
        None
    }

    fn until_next(&self) -> Option<Duration> {
        let Reverse((at, _)) = self.due.peek()?;
        Some((*at - clock::now()).to_std().unwrap_or_default().min(LONGEST_SLEEP))
    }

    /// Notes that an effect is being done.
    fn begin(&mut self, (key, event): Call, attempts: u32) {
        let epoch = self.owner.map_or(0, |term| term.epoch);
        self.in_hand.entry(key).or_default().push(InHand { event, epoch, scheduled: Some(attempts) });
    }

    /// What was in hand is not any more.
    fn put_down(&mut self, (key, event): &Call) -> Option<InHand> {
        let calls = self.in_hand.get_mut(key)?;
        let call = calls.iter().position(|call| call.event == *event).map(|place| calls.swap_remove(place));
        if calls.is_empty() {
            self.in_hand.remove(key);
        }
        call
    }

    /// Ends a try, and says in which epoch to settle it. While the ownership is in doubt that is the one in which it was
    /// begun: if nobody has come since, its outcome counts, whatever it is.
    fn end(&mut self, finished: Finished) -> (u64, Settlement) {
        let Finished { settlement, again } = finished;
        let call = ((settlement.stream.clone(), settlement.name.clone()), settlement.event.clone());
        let (begun, scheduled) = self.put_down(&call).map_or((0, None), |call| (call.epoch, call.scheduled));
        let epoch = self.owner.map_or(begun, |term| term.epoch);
        match (again, scheduled) {
            (Some(row), Some(attempts)) => self.add(EffectRow { attempts: attempts + 1, ..row }),
            // The store has other plans, and takes no notice. Who owns the consumer by then will find them there.
            (Some(_), None) => {}
            (None, _) if self.owner.is_none() => {
                self.ended.insert(call, (epoch, settlement.state == EffectState::Done));
            }
            (None, _) => {}
        }
        (epoch, settlement)
    }
}

/// Performs what a reactor planned.
pub(super) struct Runner<R> {
    reactor: Arc<R>,
    lease: Lease,
    store: Arc<dyn EffectStore>,
    commands: Arc<dyn Commands>,
    options: Options,
    quick: Arc<Semaphore>,
    outward: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl<R: Reactor> Runner<R> {
    pub(super) fn new(
        reactor: Arc<R>,
        lease: Lease,
        store: Arc<dyn EffectStore>,
        commands: Arc<dyn Commands>,
        options: Options,
    ) -> Self {
        for outcome in ["done", "retry", "parked"] {
            metrics::counter!(telemetry::EFFECTS_TOTAL, "consumer" => R::NAME, "outcome" => outcome).increment(0);
        }
        let permits = || Arc::new(Semaphore::new(options.concurrency.max(1)));
        let (quick, outward) = (permits(), permits());
        Self { reactor, lease, store, commands, options, quick, outward, tasks: TaskTracker::new() }
    }

    /// Runs until nobody sends news any more, and then until what is in hand has ended.
    pub(super) async fn run(self, mut arriving: mpsc::Receiver<News>, stop: CancellationToken) {
        let (finished, mut finishing) = mpsc::channel::<Finished>(2 * self.options.concurrency.max(1));
        let mut agenda = Agenda::default();
        let mut settled: Vec<(u64, Settlement)> = Vec::new();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            // An instance that was paused finds its lease run out before it has heard anything: what is due is not its
            // business any more. The news that it owns the consumer again, or that another does, follows.
            let ours = agenda.owner.is_some_and(|term| self.lease.lasts(&term));
            if ours {
                self.begin_what_is_due(&mut agenda, &finished, &stop);
            }
            let next = agenda.until_next().filter(|_| ours);
            // Without a permit nothing can begin; the next free one announces itself through `finishing`.
            let blocked = self.quick.available_permits() == 0;
            // News first, since an ownership in doubt must be heard before anything else begins. They cannot hold up the rest:
            // each has cost its sender a transaction, and what is due begins above, whichever branch was taken.
            tokio::select! {
                biased;
                news = arriving.recv() => match news {
                    Some(news) => agenda.hear(news),
                    None => break,
                },
                Some(done) = finishing.recv() => {
                    settled.push(agenda.end(done));
                    while let Ok(done) = finishing.try_recv() {
                        settled.push(agenda.end(done));
                    }
                }
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() && !blocked => {}
            }
            self.flush(&mut settled, &mut backoff, &stop).await;
        }
        // Stopping: what is in hand is finished and settled, what waits stays recorded.
        self.tasks.close();
        drop(finished);
        while let Some(done) = finishing.recv().await {
            settled.push(agenda.end(done));
        }
        self.flush(&mut settled, &mut backoff, &stop).await;
    }

    fn begin_what_is_due(&self, agenda: &mut Agenda, finished: &mpsc::Sender<Finished>, stop: &CancellationToken) {
        while let Some(permit) = permit(&self.outward)
            && let Some(row) = agenda.take_outward()
        {
            self.begin(agenda, row, permit, finished, stop);
        }
        while let Some(quick) = permit(&self.quick)
            && let Some(row) = agenda.take_due()
        {
            if !self.reactor.is_outward(&row) {
                self.begin(agenda, row, quick, finished, stop);
            } else if let Some(permit) = permit(&self.outward) {
                self.begin(agenda, row, permit, finished, stop);
            } else {
                agenda.queue(row);
            }
        }
    }

    fn begin(
        &self,
        agenda: &mut Agenda,
        row: EffectRow,
        permit: OwnedSemaphorePermit,
        finished: &mpsc::Sender<Finished>,
        stop: &CancellationToken,
    ) {
        let call = call_of(&row);
        agenda.begin(call.clone(), row.attempts);
        let (reactor, commands) = (Arc::clone(&self.reactor), Arc::clone(&self.commands));
        let (finished, stop, longest) = (finished.clone(), stop.clone(), self.options.longest_retry);
        self.tasks.spawn(async move {
            let trying = AssertUnwindSafe(perform(&*reactor, &*commands, row, longest, &stop)).catch_unwind();
            let done = trying.await.unwrap_or_else(|_| {
                let note = "performing it panicked: a defect of ours".to_owned();
                let ((stream, name), event) = call;
                let settlement = Settlement { stream, name, event, state: EffectState::Parked, due: None, note };
                Finished { settlement, again: None }
            });
            drop(permit);
            let _ = finished.send(done).await;
        });
    }

    async fn flush(&self, settled: &mut Vec<(u64, Settlement)>, backoff: &mut Backoff, stop: &CancellationToken) {
        while let Some((epoch, _)) = settled.first() {
            let epoch = *epoch;
            let of_epoch = settled.iter().filter(|(of, _)| *of == epoch).map(|(_, settlement)| settlement.clone());
            let of_epoch: Vec<Settlement> = of_epoch.collect();
            // A former owner still says what it has done.
            let settling = tokio::time::timeout(LONGEST_SETTLING, self.store.settle(R::NAME, epoch, &of_epoch));
            let slow = || StoreError::Transient("it did not answer in time".to_owned());
            match settling.await.unwrap_or_else(|_| Err(slow())) {
                Ok(()) => {
                    settled.retain(|(of, _)| *of != epoch);
                    backoff.reset();
                }
                // Unsettled effects are performed again at the next start: safe, by key and command id.
                Err(_) if stop.is_cancelled() => return,
                // One of them cannot be written as it is: the note is for people, the state is what counts.
                Err(StoreError::Poison(reason)) if backoff.tries() < 5 => {
                    tracing::error!(consumer = R::NAME, reason, "a note on an effect could not be kept");
                    for (_, settlement) in settled.iter_mut() {
                        settlement.note = "its note could not be stored".to_owned();
                    }
                    backoff.wait().await;
                }
                Err(error) => {
                    tracing::warn!(consumer = R::NAME, %error, "cannot settle effects yet");
                    backoff.wait().await;
                }
            }
        }
    }
}

fn permit(of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(of).try_acquire_owned().ok()
}
