//! One loop per instance that takes, prolongs and gives up its leases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kernel::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Claim, Lease, LeaseStore, Term, Turn, Until};
use crate::{clock, telemetry};

/// How leases are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a lease lasts without being prolonged: how long the others wait for an instance that hangs.
    pub lasting: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { lasting: Duration::from_secs(5) }
    }
}

/// Turns per lease time: a lost one, or a slow store, does not cost the lease.
const TURNS: u32 = 5;

type Terms = BTreeMap<String, watch::Sender<Option<Term>>>;

/// What this instance holds and where the rest is. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    instance: Arc<str>,
    terms: Arc<Terms>,
    holders: watch::Receiver<Arc<BTreeMap<String, String>>>,
}

impl Leases {
    /// Our own name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// One of the leases that this instance wants.
    ///
    /// # Panics
    /// When it was not among those: whoever waited for it would wait for ever.
    #[must_use]
    pub fn lease(&self, name: &str) -> Lease {
        let terms = self.terms.get(name).unwrap_or_else(|| panic!("nobody here keeps the lease `{name}`"));
        Lease { name: name.into(), terms: terms.subscribe() }
    }

    /// Who held a lease when we last looked; perhaps nobody.
    #[must_use]
    pub fn holder(&self, name: &str) -> Option<String> {
        self.holders.borrow().get(name).cloned()
    }

    /// Whether this instance holds a lease now.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.terms.get(name).is_some_and(|terms| terms.borrow().is_some_and(Term::lasts))
    }
}

/// Begins to keep leases; the future runs until `stop` and then says good-bye.
pub fn keep(
    store: Arc<dyn LeaseStore>,
    instance: String,
    wants: Vec<String>,
    options: Options,
    stop: CancellationToken,
) -> (Leases, impl Future<Output = ()> + Send) {
    let terms: Arc<Terms> = Arc::new(wants.iter().map(|name| (name.clone(), watch::Sender::new(None))).collect());
    let (announce, holders) = watch::channel(Arc::default());
    let leases = Leases { instance: instance.as_str().into(), terms: Arc::clone(&terms), holders };
    let keeper = Keeper { store, claim: Claim { instance, wants, lasting: options.lasting }, terms, announce };
    (leases, keeper.run(stop))
}

struct Keeper {
    store: Arc<dyn LeaseStore>,
    claim: Claim,
    terms: Arc<Terms>,
    announce: watch::Sender<Arc<BTreeMap<String, String>>>,
}

impl Keeper {
    async fn run(self, stop: CancellationToken) {
        let every = self.claim.lasting / TURNS;
        let mut granted: Option<Until> = None;
        let mut away = false;
        while !stop.is_cancelled() {
            // What we are granted is counted from before the question: the store can only count from later.
            let (asked, time) = (Instant::now(), clock::now());
            match tokio::time::timeout(self.claim.lasting, self.store.turn(&self.claim)).await {
                Ok(Ok(turn)) => {
                    // Only now: an instance may also be paused between the question and its answer.
                    if granted.is_some_and(|until| !until.is_ahead()) {
                        tracing::warn!(
                            lease_ms = self.claim.lasting.as_millis() as u64,
                            "this instance has not run, or could not reach the record of leases, for longer than its leases \
                             last: they have run out, and what was begun under them is given up"
                        );
                    }
                    // One that has come too late says so once.
                    granted = Some(Until::after(asked, time, self.claim.lasting)).filter(|until| until.is_ahead());
                    away = false;
                    self.publish(&turn, asked, time);
                }
                failed => {
                    let reason = match &failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer in time".to_owned(),
                    };
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(reason, "leases cannot be prolonged now; what is done under them pauses");
                    }
                    // With our session the store may have taken us for dead, and given to others what was ours.
                    self.give_up();
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep_until(asked + every) => {}
            }
        }
        self.give_up();
        let leaving = self.store.leave(&self.claim.instance);
        if !matches!(tokio::time::timeout(every, leaving).await, Ok(Ok(()))) {
            tracing::debug!("could not say good-bye; the leases run out by themselves");
        }
    }

    fn give_up(&self) {
        for terms in self.terms.values() {
            terms.send_if_modified(|term| term.take().is_some());
        }
    }

    fn publish(&self, turn: &Turn, asked: Instant, time: Timestamp) {
        for (name, terms) in self.terms.iter() {
            let before = *terms.borrow();
            let until = Some(Until::after(asked, time, self.claim.lasting));
            let term = turn.held.get(name).map(|epoch| match before {
                Some(before) if before.epoch == *epoch && before.lasts() => Term { until, ..before },
                _ => Term { epoch: *epoch, since: asked, until },
            });
            note_change(name, before, term, turn.holders.get(name).map(String::as_str));
            if before != term {
                terms.send_replace(term);
            }
        }
        if **self.announce.borrow() != turn.holders {
            self.announce.send_replace(Arc::new(turn.holders.clone()));
        }
    }
}

fn note_change(name: &str, before: Option<Term>, after: Option<Term>, holder: Option<&str>) {
    let changed = |change: &'static str| {
        metrics::counter!(telemetry::LEASE_CHANGES_TOTAL, "change" => change).increment(1);
        metrics::gauge!(telemetry::LEASE_HELD, "lease" => name.to_owned()).set(f64::from(u8::from(after.is_some())));
    };
    match (before, after) {
        (None, Some(term)) => {
            changed("acquired");
            tracing::debug!(lease = name, epoch = term.epoch, "acquired");
        }
        (Some(before), Some(term)) if !before.is(&term) => {
            changed("lost");
            changed("acquired");
            let elsewhere = before.epoch != term.epoch;
            tracing::warn!(lease = name, epoch = term.epoch, elsewhere, "it ran out and was acquired again");
        }
        // It ran out before anybody could tell us: that is a loss. A term given up in time is fair sharing.
        (Some(before), None) if !before.lasts() => {
            changed("lost");
            tracing::warn!(
                lease = name,
                holder,
                "lost: another instance has it now, and what we still write under it is refused"
            );
        }
        (Some(_), None) => {
            changed("released");
            tracing::debug!(lease = name, holder, "given up");
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
}
