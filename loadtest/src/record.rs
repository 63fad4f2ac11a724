//! How long things took: HDR histograms, in nanoseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limits::{LATENCY_MAX, LATENESS_P99_MAX};

/// Times of one kind, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

/// What is told of them, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// The median.
    pub(crate) p50: f64,
    /// 90 %.
    pub(crate) p90: f64,
    /// 99 %.
    pub(crate) p99: f64,
    /// 99.9 %.
    pub(crate) p999: f64,
    /// The longest.
    pub(crate) max: f64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Times {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, nanos(LATENCY_MAX), 3);
        Self(histogram.expect("1 ns to ten minutes in three digits are bounds that a histogram takes"))
    }

    /// One more; what is over [`LATENCY_MAX`] counts as that.
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(nanos(time));
    }

    /// All of `other`'s, too.
    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        self.0 += &other.0;
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// One quantile, in microseconds to the tenth; 0 when there is nothing.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        tenths(self.0.value_at_quantile(quantile))
    }

    /// The usual ones.
    pub(crate) fn quantiles(&self) -> Quantiles {
        let at = |quantile| self.quantile_us(quantile);
        Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: tenths(self.0.max()) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "ten minutes in hundreds of nanoseconds are exact in 53 bits")]
fn tenths(nanos: u64) -> f64 {
    ((nanos + 50) / 100) as f64 / 10.0
}

/// The times of a run.
#[derive(Debug)]
pub(crate) struct Record {
    /// From the intended send to the verdict's being read, so that a stall counts for all who waited behind it.
    pub(crate) latency: Times,
    /// From the intended send to the actual one.
    pub(crate) lateness: Times,
}

impl Record {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { latency: Times::new(), lateness: Times::new() }
    }

    /// Whether the generator fell behind its own schedule, so that its figures say more about it than about the
    /// system under test. `unsent` actions were due and never left.
    pub(crate) fn saturated(&self, unsent: u64) -> bool {
        unsent > 0 || self.lateness.quantile_us(0.99) > tenths(nanos(LATENESS_P99_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_microseconds() {
        let mut times = Times::new();
        for us in 1..=1000 {
            times.record(Duration::from_micros(us));
        }
        let q = times.quantiles();
        let near = |got: f64, want: f64| (got - want).abs() <= want / 500.0;
        assert!(near(q.p50, 500.0) && near(q.p90, 900.0) && near(q.p99, 990.0) && near(q.max, 1000.0), "{q:?}");
        assert_eq!(times.count(), 1000);
    }

    #[test]
    fn times_add_up() {
        let (mut all, mut more) = (Times::new(), Times::new());
        all.record(Duration::from_micros(10));
        more.record(LATENCY_MAX);
        all.add(&more);
        assert_eq!((all.count(), more.count()), (2, 1));
        assert!(all.quantiles().p50 < 11.0 && all.quantiles().max > 599e6);
    }

    #[test]
    fn nothing_and_too_much_are_no_panic() {
        let mut times = Times::new();
        assert_eq!(times.quantiles().p99, 0.0);
        times.record(Duration::ZERO);
        times.record(Duration::MAX);
        assert!(times.quantiles().max >= 599e6);
    }

    #[test]
    fn a_late_generator_is_saturated() {
        let mut record = Record::new();
        for _ in 0..99 {
            record.lateness.record(Duration::from_micros(60));
        }
        record.lateness.record(LATENESS_P99_MAX * 2);
        assert!(!record.saturated(0), "one percent may be late");
        assert!(record.saturated(1));
        record.lateness.record(LATENESS_P99_MAX * 2);
        assert!(record.saturated(0));
    }
}
