//! All slices of this instance, and the one task that asks for more.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use projections::budgets::Slice as Asked;
use runtime::telemetry;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::budgets::{Budgets, Failed};
use super::slice::{Slice, Spent};
use super::{Class, Rate, Rates, Terms, Who};

/// So many budgets are remembered; who has not come for longest is forgotten, which costs a question and nothing else.
const MOST_REMEMBERED: usize = 32_768;
const SHARDS: usize = 16;

/// Questions that wait; with more of them, whoever asks goes on alone.
const MOST_WAITING: usize = 4_096;

/// Questions in one statement.
const BATCH: usize = 256;

/// Whoever has to wait for Postgres waits so long.
const PATIENCE: Duration = Duration::from_millis(250);

const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Whose budget, for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    who: Who,
    class: Class,
}

impl Key {
    /// The budget's name: a hash, because addresses are nobody's business.
    fn bucket(&self) -> [u8; 16] {
        let text = format!("{}/{}/{}", Who::KINDS[self.who.kind()], self.class.word(), self.who.name());
        let mut bucket = [0; 16];
        bucket.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
        bucket
    }
}

/// What a budget says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is no such limit.
    Unlimited,
    /// It may pass.
    Admitted(Standing),
    /// It may not.
    Refused(Standing),
    /// That cannot be told from memory: [`Limiter::admit`] asks.
    Unknown,
}

/// How somebody stands with a limit, as far as this instance knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// `user-read`.
    pub policy: &'static str,
    /// The limit.
    pub rate: Rate,
    /// How many more may pass now.
    pub remaining: u32,
    /// When there is one more.
    pub next: Duration,
}

struct Question {
    key: Key,
    terms: Terms,
    wanted: u32,
}

struct Policy {
    name: &'static str,
    rate: Rate,
    terms: Terms,
}

/// Decides how often somebody may ask.
pub struct Limiter {
    policies: Vec<Option<Policy>>,
    shards: Vec<Mutex<LruCache<Key, Slice>>>,
    hasher: RandomState,
    questions: mpsc::Sender<Question>,
    /// Counts the answers, for those who wait for one.
    answered: watch::Sender<u64>,
    sharers: AtomicU32,
}

const NAMES: [[&str; 3]; 4] = [
    ["address-auth", "address-read", "address-write"],
    ["user-auth", "user-read", "user-write"],
    ["key-auth", "key-read", "key-write"],
    ["tenant-auth", "tenant-read", "tenant-write"],
];

impl Limiter {
    /// Begins to ask for slices as they are needed, until `stop`.
    #[must_use]
    pub fn start(rates: &Rates, budgets: Arc<dyn Budgets>, stop: CancellationToken) -> Arc<Self> {
        let policy = |kind: usize, class: Class| {
            let rate = rates.of(kind, class)?;
            let name = NAMES[kind][class as usize];
            // There from the start: a counter that appears with its first increment hides it.
            metrics::counter!(telemetry::RATE_LIMITED_TOTAL, "policy" => name).increment(0);
            Some(Policy { name, rate, terms: Terms::of(rate) })
        };
        let policies = (0..Who::KINDS.len()).flat_map(|kind| Class::ALL.map(|class| policy(kind, class))).collect();
        let each = NonZeroUsize::new(MOST_REMEMBERED / SHARDS).unwrap_or(NonZeroUsize::MIN);
        let (questions, asked) = mpsc::channel(MOST_WAITING);
        let limiter = Arc::new(Self {
            policies,
            shards: (0..SHARDS).map(|_| Mutex::new(LruCache::new(each))).collect(),
            hasher: RandomState::new(),
            questions,
            answered: watch::Sender::new(0),
            sharers: AtomicU32::new(1),
        });
        tokio::spawn(ask(Arc::clone(&limiter), budgets, asked, stop));
        limiter
    }

    fn policy(&self, key: &Key) -> Option<&Policy> {
        self.policies.get(key.who.kind() * Class::ALL.len() + key.class as usize)?.as_ref()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, LruCache<Key, Slice>> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides in memory, and counts the request if it is admitted. When the slice runs low the next one is asked for in the
    /// background.
    #[must_use]
    pub fn decide(&self, who: &Who, class: Class) -> Decision {
        self.decide_at(&Key { who: who.clone(), class }, Instant::now())
    }

    fn decide_at(&self, key: &Key, now: Instant) -> Decision {
        let Some(policy) = self.policy(key) else { return Decision::Unlimited };
        let terms = &policy.terms;
        let mut shard = self.shard(key);
        let slice = match shard.get_mut(key) {
            Some(slice) => slice,
            None => shard.get_or_insert_mut(key.clone(), || Slice::new(terms, now)),
        };
        let (spent, wanted) = slice.spend(terms, now);
        let remaining = slice.remaining(terms, now);
        if let Some(wanted) = wanted
            && self.questions.try_send(Question { key: key.clone(), terms: *terms, wanted }).is_err()
        {
            slice.unreachable(self.share(terms), now);
        }
        drop(shard);
        let standing = |remaining, next| Standing { policy: policy.name, rate: policy.rate, remaining, next };
        match spent {
            Spent::Admitted => Decision::Admitted(standing(remaining, terms.step)),
            Spent::Refused(wait) => {
                metrics::counter!(telemetry::RATE_LIMITED_TOTAL, "policy" => policy.name).increment(1);
                Decision::Refused(standing(0, wait))
            }
            Spent::Unknown => Decision::Unknown,
        }
    }

    /// How many budgets this instance remembers.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn share(&self, terms: &Terms) -> Terms {
        terms.share(self.sharers.load(Ordering::Relaxed))
    }

    /// As [`Limiter::decide`], and asks the budget where that is needed: never [`Decision::Unknown`]. Waits for at most a
    /// quarter of a second; when there is no answer by then, this instance goes on alone, with its share of the limit.
    pub async fn admit(&self, who: &Who, class: Class) -> Decision {
        let key = Key { who: who.clone(), class };
        let mut answers = self.answered.subscribe();
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            // Before it is looked at, so that no answer is missed.
            answers.mark_unchanged();
            match self.decide_at(&key, Instant::now()) {
                Decision::Unknown => {}
                decision => return decision,
            }
            if !matches!(tokio::time::timeout_at(until, answers.changed()).await, Ok(Ok(()))) {
                self.unreachable(&key);
            }
        }
    }

    fn unreachable(&self, key: &Key) {
        let (Some(policy), mut shard) = (self.policy(key), self.shard(key)) else { return };
        if let Some(slice) = shard.get_mut(key) {
            slice.unreachable(self.share(&policy.terms), Instant::now());
        }
    }

    /// Sweeps, and looks how many share the budgets: each of them would keep to its part without Postgres.
    async fn look_after(&self, budgets: &dyn Budgets) {
        match tokio::time::timeout(PATIENCE, async { (budgets.sweep().await, budgets.sharers().await) }).await {
            Ok((Ok(()), Ok(sharers))) => self.sharers.store(sharers.max(1), Ordering::Relaxed),
            other => tracing::debug!(?other, "budgets were not swept"),
        }
    }

    /// Asks for a batch and passes on what was given.
    async fn settle(&self, budgets: &dyn Budgets, batch: BTreeMap<[u8; 16], Question>) -> Result<(), Failed> {
        let asked = |(bucket, question): (&[u8; 16], &Question)| Asked {
            bucket: *bucket,
            wanted: question.wanted,
            step: question.terms.step,
            room: question.terms.room(),
        };
        let slices: Vec<Asked> = batch.iter().map(asked).collect();
        // A slice's time runs from before the budget can have given it.
        let asked_at = Instant::now();
        let late = |_| Failed("no answer in time".to_owned());
        let given = tokio::time::timeout(PATIENCE, budgets.take(&slices)).await.map_err(late).flatten();
        let now = Instant::now();
        let (given, outcome) = match given {
            Ok(given) => (given.into_iter().map(|given| (given.bucket, given)).collect(), Ok(())),
            Err(error) => (BTreeMap::new(), Err(error)),
        };
        for (bucket, question) in batch {
            let mut shard = self.shard(&question.key);
            let Some(slice) = shard.get_mut(&question.key) else { continue };
            match given.get(&bucket) {
                Some(given) => {
                    slice.given(&question.terms, given.granted, given.left, given.wait, asked_at, now);
                }
                None => slice.unreachable(self.share(&question.terms), now),
            }
        }
        self.answered.send_modify(|answers| *answers += 1);
        outcome
    }
}

/// The task that asks: one question at a time, for everybody who has one.
async fn ask(
    limiter: Arc<Limiter>,
    budgets: Arc<dyn Budgets>,
    mut questions: mpsc::Receiver<Question>,
    stop: CancellationToken,
) {
    let mut sweep = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP_EVERY, SWEEP_EVERY);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut alone = false;
    limiter.look_after(&*budgets).await;
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => {
                limiter.look_after(&*budgets).await;
                continue;
            }
            question = questions.recv() => match question {
                Some(question) => question,
                None => return,
            },
        };
        let mut batch = BTreeMap::from([(first.key.bucket(), first)]);
        while batch.len() < BATCH
            && let Ok(question) = questions.try_recv()
        {
            batch.insert(question.key.bucket(), question);
        }
        let settled = limiter.settle(&*budgets, batch).await;
        match &settled {
            Ok(()) if alone => tracing::info!("rate limits are shared with the other instances again"),
            Err(error) if !alone => {
                tracing::warn!(%error, "rate limits cannot be shared now; every instance keeps to its part of them");
            }
            _ => {}
        }
        alone = settled.is_err();
    }
}
