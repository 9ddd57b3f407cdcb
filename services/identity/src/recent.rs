//! What was looked up a moment ago. An entry lasts until somebody says that it changed, and a few seconds at most.

use std::borrow::Borrow;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// Who ends a session says so on the log, and everybody hears of it within milliseconds. Only when the log cannot be written
/// or heard, others believe what they saw for so long.
const LASTS: Duration = Duration::from_secs(30);

/// Values by key.
pub(crate) struct Recent<K, V>(Mutex<Inner<K, V>>);

struct Inner<K, V> {
    entries: LruCache<K, (V, Instant)>,
    /// Counts what was forgotten: what was looked up before that is not kept after it.
    forgotten: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    pub(crate) fn new(entries: NonZeroUsize) -> Self {
        Self(Mutex::new(Inner { entries: LruCache::new(entries), forgotten: 0 }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key, looked up if it is not remembered.
    pub(crate) async fn get<Q, E>(&self, key: &Q, look_up: impl Future<Output = Result<V, E>>) -> Result<V, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let now = Instant::now();
        let before = {
            let mut inner = self.inner();
            if let Some((value, until)) = inner.entries.get(key)
                && *until > now
            {
                return Ok(value.clone());
            }
            inner.forgotten
        };
        let value = look_up.await?;
        let mut inner = self.inner();
        if inner.forgotten == before {
            inner.entries.put(key.to_owned(), (value.clone(), now + LASTS));
        }
        Ok(value)
    }

    /// A key's value has changed.
    pub(crate) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut inner = self.inner();
        inner.forgotten += 1;
        inner.entries.pop(key);
    }

    /// Whatever has such a value may have changed.
    pub(crate) fn forget_where(&self, is: impl Fn(&V) -> bool) {
        let mut inner = self.inner();
        inner.forgotten += 1;
        let found: Vec<K> =
            inner.entries.iter().filter(|(_, (value, _))| is(value)).map(|(key, _)| key.clone()).collect();
        for key in found {
            inner.entries.pop(&key);
        }
    }

    /// Any value may have changed.
    pub(crate) fn forget_all(&self) {
        let mut inner = self.inner();
        inner.forgotten += 1;
        inner.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look(recent: &Recent<String, u32>, value: u32) -> u32 {
        recent.get("a", async { Ok::<_, ()>(value) }).await.expect("a value")
    }

    fn recent() -> Recent<String, u32> {
        Recent::new(NonZeroUsize::MIN)
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_remembered_until_it_changes_and_not_for_long() {
        let recent = recent();
        assert_eq!((look(&recent, 1).await, look(&recent, 2).await), (1, 1));
        recent.forget("a");
        assert_eq!(look(&recent, 3).await, 3);
        recent.forget_where(|value| *value == 9);
        assert_eq!(look(&recent, 9).await, 3);
        recent.forget_where(|value| *value == 3);
        assert_eq!(look(&recent, 2).await, 2);
        recent.forget_all();
        assert_eq!(look(&recent, 4).await, 4);
        tokio::time::advance(LASTS).await;
        assert_eq!(look(&recent, 5).await, 5);
    }

    #[tokio::test]
    async fn what_was_looked_up_before_a_change_is_not_kept_after_it() {
        let recent = recent();
        let during = async {
            recent.forget("a");
            Ok::<_, ()>(1)
        };
        assert_eq!(recent.get("a", during).await, Ok(1));
        assert_eq!(look(&recent, 2).await, 2);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let recent = recent();
        assert!(recent.get("a", async { Err::<u32, _>("away") }).await.is_err());
        assert_eq!(look(&recent, 2).await, 2);
    }
}
