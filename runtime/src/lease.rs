//! Leases: which instance does what, when there are several.
//!
//! A lease is for a while and has an epoch. The while lets others go on when an instance hangs: it ends by the holder's own
//! clock before anybody else may take it. The epoch lets the store refuse whoever has not noticed: it grows with every new
//! holder, and a write under an older one is turned down. An instance that is *dead*, and not only silent, is recognised by
//! the store at once, so nobody waits for a lease of the dead to run out.
//!
//! For shards a lease is for speed only: what two writers of one stream may do, the log's guard decides.

mod assign;
mod keeper;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kernel::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{StoreError, clock};

pub use assign::{Assignment, Claimed, Contender, assign};
pub use keeper::{Leases, Options, keep};

/// What one instance asks of the store, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name, different from every other's and from its own after a restart.
    pub instance: String,
    /// What it is able to do, as lease names `<kind>/<name>`. Instances share the leases of a kind evenly.
    pub wants: Vec<String>,
    /// How long what it gets is to last.
    pub lasting: Duration,
}

/// How things stand after a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// What the claimant holds, with the epoch of each.
    pub held: BTreeMap<String, u64>,
    /// Who holds what, as far as anybody does: the claimant and the others.
    pub holders: BTreeMap<String, String>,
}

/// The port to the record of leases. One clock, the store's, decides when a lease is over for others.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Says that the instance is there, prolongs what it holds, takes what is free up to its share, and gives up what is
    /// beyond it. Several instances may ask at once; a lease goes to one of them.
    ///
    /// # Errors
    /// [`StoreError::Transient`].
    async fn turn(&self, claim: &Claim) -> Result<Turn, StoreError>;

    /// Says good-bye: everything the instance holds is free at once.
    ///
    /// # Errors
    /// [`StoreError::Transient`]; then the leases run out by themselves.
    async fn leave(&self, instance: &str) -> Result<(), StoreError>;
}

/// One uninterrupted time of holding a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Grows with every holder; goes with every write that the store shall be able to refuse.
    pub epoch: u64,
    /// When it began here. A lease that ran out and was prolonged after all, because nobody else had taken it, keeps its epoch;
    /// but who saw it run out has given up what was begun, so it is another term.
    since: Instant,
    /// Until when it is ours without another word from the store; prolonged while we hold it. `None`: for good.
    until: Option<Until>,
}

/// The end of a lease, by two clocks: the monotonic one stands still while a machine is suspended or a virtual one is frozen,
/// the other one may be set. Whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Until {
    instant: Instant,
    time: Timestamp,
}

impl Until {
    /// So long from a moment that is just past.
    fn after(asked: Instant, time: Timestamp, lasting: Duration) -> Self {
        Self { instant: asked + lasting, time: time + lasting }
    }

    fn is_ahead(self) -> bool {
        Instant::now() < self.instant && clock::now() < self.time
    }
}

impl Term {
    fn is(&self, other: &Term) -> bool {
        self.epoch == other.epoch && self.since == other.since
    }

    fn lasts(self) -> bool {
        self.until.is_none_or(Until::is_ahead)
    }
}

/// One lease, as whoever works under it sees it.
#[derive(Debug, Clone)]
pub struct Lease {
    name: Arc<str>,
    terms: watch::Receiver<Option<Term>>,
}

impl Lease {
    /// A lease that nobody else wants: for tools and tests with one instance.
    #[must_use]
    pub fn permanent(name: &str) -> Self {
        Self::of_epoch(name, 1)
    }

    /// A lease that its holder believes in for good, whatever others do.
    #[must_use]
    pub fn of_epoch(name: &str, epoch: u64) -> Self {
        let (sender, terms) = watch::channel(Some(Term { epoch, since: Instant::now(), until: None }));
        drop(sender);
        Self { name: name.into(), terms }
    }

    /// What it is for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The current term, if there is one and it has not run out. Our own clock is asked, so an instance that was paused
    /// knows before it has spoken to anybody.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.terms.borrow().filter(|term| term.lasts())
    }

    /// Whether this term still lasts.
    #[must_use]
    pub fn lasts(&self, term: &Term) -> bool {
        self.term().is_some_and(|current| current.is(term))
    }

    /// Waits until the lease is ours.
    pub async fn begun(&mut self) -> Term {
        loop {
            let term = *self.terms.borrow_and_update();
            if let Some(term) = term.filter(|term| term.lasts()) {
                return term;
            }
            if self.terms.changed().await.is_err() {
                // The keeper is gone, and with it whoever could give us the lease.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a term is over: taken by another, given up, or run out.
    pub async fn ended(&mut self, term: &Term) {
        let mut kept = true;
        loop {
            let current = *self.terms.borrow_and_update();
            let Some(current) = current.filter(|current| current.is(term) && current.lasts()) else { return };
            tokio::select! {
                biased;
                changed = self.terms.changed(), if kept => kept = changed.is_ok(),
                () = until(current.until) => {}
            }
        }
    }
}

async fn until(until: Option<Until>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.instant).await,
        None => std::future::pending().await,
    }
}
