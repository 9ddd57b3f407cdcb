//! How long to wait before trying again.

use std::time::Duration;

use crate::clock;

/// Exponential backoff with a cap, spread by a little noise so that many waiters do not return together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Starts at `first`, doubles up to `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, tries: 0 }
    }

    /// The wait before the next try: between half of and the whole current step.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.first.saturating_mul(1_u32 << self.tries.min(16)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        step / 2 + (step / 2).mul_f64(clock::noise())
    }

    /// Waits.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How often `next_delay` was asked since the last success.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_grows_to_its_cap_and_starts_over() {
        let (first, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, cap);
        assert!((first / 2..=first).contains(&backoff.next_delay()));
        let last = (0..40).map(|_| backoff.next_delay()).last().expect("forty delays");
        assert!((cap / 2..=cap).contains(&last));
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
