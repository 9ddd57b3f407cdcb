//! The one place that knows what time it is, that makes up ids and that throws dice. Deciders never come here: they are
//! told.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::time::SystemTime;

use kernel::Timestamp;

/// Now, to the microsecond: what Postgres can store, so that every copy of a time is equal.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    if let Some(simulated) = SIMULATED.with_borrow(|simulated| simulated.as_ref().map(Simulated::now)) {
        return simulated;
    }
    let now = Timestamp::from(SystemTime::now());
    Timestamp::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

/// 32 random bits, for names that only have to differ.
#[must_use]
pub fn random() -> u32 {
    let simulated = SIMULATED.with_borrow_mut(|simulated| simulated.as_mut().map(Simulated::random));
    simulated.map_or_else(|| uuid::Uuid::now_v7().as_u128() as u32, |bits| bits as u32)
}

/// A fresh id: UUIDv7 as 32 hexadecimal digits, so ids made later sort later.
#[must_use]
pub fn fresh_id(prefix: &str) -> String {
    match SIMULATED.with_borrow_mut(|simulated| simulated.as_mut().map(Simulated::fresh)) {
        Some(simulated) => format!("{prefix}{simulated:032x}"),
        None => format!("{prefix}{}", uuid::Uuid::now_v7().simple()),
    }
}

/// An id that follows from a text: the same text gives the same id (UUIDv5).
#[must_use]
pub fn derived_id(prefix: &str, from: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, from.as_bytes()).simple())
}

/// A number from 0 to 1, good enough to keep waiters from returning together.
pub(crate) fn noise() -> f64 {
    f64::from(random()) / f64::from(u32::MAX)
}

thread_local! {
    static SIMULATED: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

/// Time and chance of this thread follow from a seed for as long as it lives.
#[must_use = "the thread is back in the real world as soon as this is dropped"]
pub struct Simulation(PhantomData<*const ()>);

/// Takes this thread out of the real world: time is tokio's own (which a simulation pauses, so that it passes only when
/// everybody waits), ids and noise follow from the seed. For simulations only; this is the one way in. Call it inside the
/// paused tokio runtime, and keep everything that shall be simulated on this thread.
///
/// # Panics
/// When this thread is simulated already.
pub fn simulated(seed: u64) -> Simulation {
    let began = tokio::time::Instant::now();
    let before = SIMULATED.replace(Some(Simulated { began, state: seed, made: 0 }));
    assert!(before.is_none(), "one simulation at a time: time cannot follow two seeds");
    Simulation(PhantomData)
}

impl Drop for Simulation {
    fn drop(&mut self) {
        SIMULATED.set(None);
    }
}

struct Simulated {
    began: tokio::time::Instant,
    state: u64,
    made: u64,
}

impl Simulated {
    /// 2026-01-01T00:00:00Z, where every simulated history begins.
    const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_timestamp_micros(Self::EPOCH_MICROS.saturating_add(passed)).unwrap_or_default()
    }

    /// Later ids sort later, as real ones do.
    fn fresh(&mut self) -> u128 {
        self.made += 1;
        let noise = self.random();
        (u128::from(self.began.elapsed().as_millis() as u64) << 80) | (u128::from(self.made) << 64) | u128::from(noise)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_thread_follows_its_seed_until_the_guard_is_dropped() {
        let story = |seed| {
            let _simulation = simulated(seed);
            (fresh_id("a_"), noise().to_bits(), now().timestamp() / 60)
        };
        assert_eq!((story(1).1, story(1).2), (story(1).1, 29_453_760));
        assert_ne!(story(1).1, story(2).1);
        assert!(now().timestamp() / 60 != 29_453_760, "still simulated");
    }
}
