//! Pauses between retries: doubling, bounded, and spread so that clients do not march in step.

use std::time::Duration;

/// Counts failures and says how long to pause after each.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Backoff {
        Backoff {
            first,
            max,
            failures: 0,
        }
    }

    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        // Between 80 and 100 percent: never above the maximum that was promised.
        doubled
            .min(self.max)
            .mul_f64(0.8 + 0.2 * rand::random::<f64>())
    }

    /// Whether the last attempt failed.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// A success: the next pause is the first one again.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
        let pauses: Vec<u128> = (0..5).map(|_| backoff.next().as_millis()).collect();
        for (pause, (low, high)) in
            pauses
                .iter()
                .zip([(15, 20), (31, 40), (63, 80), (79, 100), (79, 100)])
        {
            assert!((low..=high).contains(pause), "{pauses:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(20));
    }
}
