//! The arithmetic of a budget: GCRA (the generic cell rate algorithm), in whole microseconds.

use std::time::Duration;

use super::Rate;

/// A slice lasts for this part of the window, and at most for [`LONGEST`].
const PARTS: u64 = 12;
const LONGEST: Duration = Duration::from_secs(5);

/// What a limit means for its budget in Postgres and for slices of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// The time in which the budget grows by one; rounded up, so never more than the limit says.
    pub(super) step: Duration,
    /// The most that can be taken at once. Less than the limit by what grows while a slice lasts: whoever spends a slice at
    /// its very end does not meet a budget that has filled up behind it.
    pub(super) most: u32,
    /// How long a slice may be used, from the moment before it was asked for.
    pub(super) lasts: Duration,
    /// The smallest slice that is asked for: so little that instances which let it expire do not count.
    pub(super) least: u32,
}

impl Terms {
    /// The terms of a limit.
    pub(super) fn of(rate: Rate) -> Self {
        let (requests, window_us) = (u64::from(rate.requests), u64::from(rate.seconds) * 1_000_000);
        let lasts = Duration::from_micros(window_us / PARTS).min(LONGEST);
        let grows = (requests * lasts.as_micros() as u64).div_ceil(window_us);
        Self {
            step: Duration::from_micros(window_us.div_ceil(requests)),
            most: u32::try_from(requests.saturating_sub(grows).max(1)).unwrap_or(u32::MAX),
            lasts,
            least: (rate.requests / 1_024).clamp(1, 16),
        }
    }

    /// How much time the full budget takes to grow.
    pub(super) fn room(&self) -> Duration {
        self.step * self.most
    }

    /// As one of so many instances that cannot ask how much there is: each keeps to its share.
    pub(super) fn share(&self, instances: u32) -> Self {
        let instances = instances.max(1);
        Self { step: self.step * instances, most: (self.most / instances).max(1), ..*self }
    }
}

/// A budget as a point in time, the theoretical arrival time: when it will be full again, counted from any fixed moment.
/// `None`: it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Budget {
    full_at: Duration,
}

impl Budget {
    /// Takes up to so many, and tells how many there were and how many are left.
    pub(super) fn take(&mut self, terms: &Terms, now: Duration, wanted: u32) -> (u32, u32) {
        let from = self.full_at.max(now);
        let there = count(terms, (now + terms.room()).saturating_sub(from));
        let taken = wanted.min(there);
        self.full_at = from + terms.step * taken;
        (taken, there - taken)
    }

    /// How long until there is one, if nothing is left.
    pub(super) fn wait(&self, terms: &Terms, now: Duration) -> Duration {
        (self.full_at + terms.step).saturating_sub(now + terms.room())
    }
}

fn count(terms: &Terms, time: Duration) -> u32 {
    u32::try_from(time.as_micros() / terms.step.as_micros().max(1)).unwrap_or(u32::MAX)
}
