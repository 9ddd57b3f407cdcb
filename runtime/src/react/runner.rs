//! The runner: performs recorded effects when they are due. No polling: it sleeps until the next due time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agenda::{Agenda, call_of};
use super::perform::{Finished, perform};
use super::{News, Options, Reactor};
use crate::lease::Lease;
use crate::retry::Backoff;
use crate::{Commands, EffectRow, EffectState, EffectStore, Settlement, StoreError, telemetry};

/// A store that has not answered by then may never do so: its connection may be gone without a word.
const LONGEST_SETTLING: Duration = Duration::from_secs(10);

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
