//! Turns, and what to say of many samples.

use std::time::Duration;

use indicatif::ProgressBar;

/// Figures of several rounds, or of many single events.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    #[cfg(test)]
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        Self(values.into_iter().collect())
    }

    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that this share of the samples does not exceed; 0 when there are none.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        // Rounded up: a p99 of few samples is their maximum rather than something nicer.
        let index = (last as f64 * share).ceil() as usize;
        sorted.get(index.min(last)).copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match (sorted.get(middle), sorted.len().is_multiple_of(2) && middle > 0) {
            (Some(upper), true) => sorted.get(middle - 1).map_or(*upper, |lower| (lower + upper) / 2.0),
            (found, _) => found.copied().unwrap_or_default(),
        }
    }

    /// The smallest and the largest.
    pub(super) fn spread(&self) -> [f64; 2] {
        [self.quantile(0.0), self.quantile(1.0)]
    }

    /// Sample by sample, this divided by that.
    pub(super) fn over(&self, other: &Samples) -> Samples {
        Samples(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }
}

/// Which side begins a round: they take turns in that, too.
pub(super) fn ours_first(round: u32) -> bool {
    round.is_multiple_of(2)
}

/// Work per second.
pub(super) fn rate(done: usize, took: Duration) -> f64 {
    done as f64 / took.as_secs_f64().max(f64::EPSILON)
}

/// A bar for rounds of two turns.
pub(super) fn bar(console: &crate::output::Console, what: &str, turns: u32) -> ProgressBar {
    let bar = console.bar(what);
    bar.set_length(u64::from(turns));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred_and_a_median_lies_in_the_middle() {
        let samples = Samples::of([3.0, 1.0, 2.0, 4.0]);
        assert_eq!((samples.median(), samples.quantile(0.99), samples.spread()), (2.5, 4.0, [1.0, 4.0]));
        assert_eq!(Samples::of([7.0]).median(), 7.0);
        assert_eq!((Samples::default().median(), Samples::default().quantile(0.5)), (0.0, 0.0));
        let hundred = Samples::of((0..=100).map(f64::from));
        assert_eq!((hundred.quantile(0.5), hundred.quantile(0.99)), (50.0, 99.0));
    }
}
