//! How long to pause before another attempt.

use events::workflow::Retry;

/// The pause after the failed attempt `attempt` (counted from 1), in milliseconds: `delay * factor^(attempt - 1)`, at
/// most `max_delay`, and of that a share between 50 % and 100 %, so that a thousand runs which failed together do not
/// come back together. The share follows from the names alone: the same decision made twice comes out the same.
pub(super) fn pause_ms(retry: &Retry, run: &str, step: &str, attempt: u32) -> u64 {
    let longest = retry.max_delay_ms as f64;
    let mut pause = (retry.delay_ms as f64).min(longest);
    for _ in 1..attempt.min(1_000) {
        pause = (pause * retry.factor).min(longest);
    }
    let pause = pause as u64;
    let half = pause / 2;
    pause - spread(run, step, attempt) % (half + 1)
}

/// FNV-1a over the names, then a finaliser: neighbouring attempts shall not have neighbouring values.
fn spread(run: &str, step: &str, attempt: u32) -> u64 {
    let attempt = attempt.to_be_bytes();
    let bytes = [run.as_bytes(), b"/", step.as_bytes(), b"/", &attempt].concat();
    let mut hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { max: 3, delay_ms: 1_000, factor: 2.0, max_delay_ms: 5_000 };

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_at_least_half_of_it() {
        for run in (0..200).map(|n| format!("run_{n}")) {
            for (attempt, longest) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (100, 5_000), (u32::MAX, 5_000)]
            {
                let pause = pause_ms(&RETRY, &run, "1", attempt);
                assert!((longest / 2..=longest).contains(&pause), "attempt {attempt} of {run} pauses {pause} ms");
            }
        }
    }

    #[test]
    fn runs_that_failed_together_come_back_spread_out() {
        let mut pauses: Vec<u64> = (0..1_000).map(|n| pause_ms(&RETRY, &format!("run_{n}"), "1", 3)).collect();
        pauses.sort_unstable();
        let (first, middle, last) = (pauses[50], pauses[500], pauses[950]);
        assert!(first < 2_300 && (2_800..3_200).contains(&middle) && last > 3_700, "{first} {middle} {last}");
    }

    #[test]
    fn no_delay_is_no_pause() {
        assert_eq!(pause_ms(&Retry { delay_ms: 0, ..RETRY }, "r", "1", 3), 0);
        assert_eq!(pause_ms(&Retry { max_delay_ms: 0, ..RETRY }, "r", "1", 3), 0);
    }
}
