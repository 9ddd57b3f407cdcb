//! When keys were used. A use is noted in memory and written by a task of its own, once a minute per key at most, so that no
//! request waits for it.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::Timestamp;
use lru::LruCache;
use runtime::clock;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;

/// A key's use is not written again for so long.
const EVERY: Duration = Duration::from_secs(60);

/// Uses that are still to be written.
pub(crate) struct Uses {
    inner: Mutex<Inner>,
    noted: Notify,
}

struct Inner {
    recently: LruCache<String, Instant>,
    /// A key is in here once, and again only when it has been written and a minute has passed.
    waiting: HashMap<String, Timestamp>,
}

impl Uses {
    /// Remembers so many keys.
    pub(crate) fn new(keys: NonZeroUsize) -> Self {
        let inner = Inner { recently: LruCache::new(keys), waiting: HashMap::new() };
        Self { inner: Mutex::new(inner), noted: Notify::new() }
    }

    /// A key was used just now.
    pub(crate) fn note(&self, key: &str) {
        let now = Instant::now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.recently.get(key).is_some_and(|at| now < *at + EVERY) {
            return;
        }
        inner.recently.put(key.to_owned(), now);
        // While Postgres is away, no more than what is remembered waits.
        if inner.waiting.len() < inner.recently.cap().get() {
            inner.waiting.insert(key.to_owned(), clock::now());
            self.noted.notify_one();
        }
    }

    fn take(&self) -> (Vec<String>, Vec<Timestamp>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut inner.waiting).into_iter().unzip()
    }
}

/// Writes until `stop`, and then what is left.
pub async fn write(accounts: Accounts, stop: CancellationToken) {
    loop {
        let stopped = stop.run_until_cancelled(accounts.memory.uses.noted.notified()).await.is_none();
        let (keys, at) = accounts.memory.uses.take();
        // Lost uses are noted again in a minute, if there are any then.
        if !keys.is_empty()
            && let Err(error) = accounts.api_keys.used(&keys, &at).await
        {
            tracing::warn!(%error, "when API keys were used is not written");
        }
        if stopped {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_always_in_use_is_written_once_a_minute() {
        let uses = Uses::new(NonZeroUsize::MIN.saturating_add(9));
        for _ in 0..1_000 {
            uses.note("key_1");
        }
        uses.note("key_2");
        let mut keys = uses.take().0;
        keys.sort();
        assert_eq!(keys, ["key_1", "key_2"]);
        uses.note("key_1");
        assert_eq!(uses.take().0.len(), 0);
        tokio::time::advance(EVERY).await;
        uses.note("key_1");
        assert_eq!(uses.take().0, ["key_1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_writes_no_more_wait_than_are_remembered() {
        let uses = Uses::new(NonZeroUsize::MIN.saturating_add(1));
        for n in 0..100 {
            uses.note(&format!("key_{n}"));
        }
        assert_eq!(uses.take().0.len(), 2);
    }
}
