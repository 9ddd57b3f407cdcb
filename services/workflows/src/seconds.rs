//! Seconds, as people write them, and milliseconds, as we keep them.

use chrono::{DateTime, TimeDelta, Utc};
use kernel::Timestamp;

/// 30 days: longest timeout and longest pause before a retry. Longer ones are usually milliseconds by mistake.
pub(crate) const MAX_TIMEOUT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Rounds to milliseconds; `None` below zero, beyond `max_ms`, and for what is not a number.
pub(crate) fn to_ms(seconds: f64, max_ms: u64) -> Option<u64> {
    // Exact enough: the limit is far below 2^53.
    (seconds >= 0.0 && seconds <= max_ms as f64 / 1000.0).then(|| (seconds * 1000.0).round() as u64)
}

/// So many milliseconds later; the end of time at the latest.
pub(crate) fn later(at: Timestamp, ms: u64) -> Timestamp {
    let pause = i64::try_from(ms).ok().and_then(TimeDelta::try_milliseconds);
    pause.and_then(|pause| at.checked_add_signed(pause)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
