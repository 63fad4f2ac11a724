//! How long things took: HDR histograms, in nanoseconds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limits::LATENCY_MAX;

/// Times of one kind, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

/// What is told of them, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// The mean.
    pub(crate) mean: f64,
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

/// In nanoseconds; 584 years at most.
pub(crate) fn nanos(time: Duration) -> u64 {
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
        let mean = (self.0.mean() / 100.0).round() / 10.0;
        Quantiles { mean, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: tenths(self.0.max()) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "ten minutes in hundreds of nanoseconds are exact in 53 bits")]
fn tenths(nanos: u64) -> f64 {
    ((nanos + 50) / 100) as f64 / 10.0
}

/// Times as a curve: of each share of them (in percent, from 0 to 100), the longest, in microseconds.
pub(crate) type Distribution = Vec<(f64, f64)>;

impl Times {
    /// The curve, finer towards its end, as HdrHistogram's percentile plots have it.
    pub(crate) fn distribution(&self) -> Distribution {
        let points = self.0.iter_quantiles(PLOT_STEPS).map(|step| (step.quantile() * 100.0, tenths(step.value_iterated_to())));
        let mut points: Distribution = points.collect();
        points.dedup_by_key(|(percent, _)| *percent);
        points
    }

    /// Empties it.
    fn clear(&mut self) {
        self.0.reset();
    }
}

/// Points of a curve for each halving of what is left.
const PLOT_STEPS: u32 = 5;

/// The times of a run.
#[derive(Debug)]
pub(crate) struct Record {
    /// From the intended send to the verdict's being read, so that a stall counts for all who waited behind it.
    pub(crate) latency: Times,
    /// From the actual send to the verdict's being read: what a client would see that waits for the server before it sends.
    pub(crate) service: Times,
    /// From when a send was due to when the generator turned to it: its own fault.
    pub(crate) lateness: Times,
    /// Second by second.
    pub(crate) series: Series,
}

impl Record {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { latency: Times::new(), service: Times::new(), lateness: Times::new(), series: Series::new() }
    }
}

/// One second of a run, counted from the end of the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Second {
    /// Actions that left in it.
    pub(crate) sent: u64,
    /// Verdicts that came in it.
    pub(crate) verdicts: u64,
    /// Of these verdicts, from the intended send.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// How late the generator turned to what was due.
    pub(crate) lateness_p99_us: f64,
}

/// The seconds of a run. What is recorded comes in the order of time.
#[derive(Debug)]
pub(crate) struct Series {
    over: Vec<Second>,
    sent: u64,
    latency: Times,
    lateness: Times,
}

impl Series {
    fn new() -> Self {
        Self { over: Vec::new(), sent: 0, latency: Times::new(), lateness: Times::new() }
    }

    /// An action left, so long after the warm-up.
    pub(crate) fn sent(&mut self, at: Duration) {
        self.reach(at);
        self.sent += 1;
    }

    /// The generator turned to an action that was due.
    pub(crate) fn late(&mut self, at: Duration, late: Duration) {
        self.reach(at);
        self.lateness.record(late);
    }

    /// A verdict came.
    pub(crate) fn verdict(&mut self, at: Duration, latency: Duration) {
        self.reach(at);
        self.latency.record(latency);
    }

    /// All seconds, the last of them as far as it went.
    pub(crate) fn seconds(&self) -> Vec<Second> {
        let mut all = self.over.clone();
        if self.sent + self.latency.count() > 0 {
            all.push(self.second());
        }
        all
    }

    fn second(&self) -> Second {
        Second {
            sent: self.sent,
            verdicts: self.latency.count(),
            p50_us: self.latency.quantile_us(0.5),
            p99_us: self.latency.quantile_us(0.99),
            lateness_p99_us: self.lateness.quantile_us(0.99),
        }
    }

    /// Ends the seconds before `at`.
    fn reach(&mut self, at: Duration) {
        while (self.over.len() as u64) < at.as_secs() {
            self.over.push(self.second());
            self.sent = 0;
            self.latency.clear();
            self.lateness.clear();
        }
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
    fn a_series_has_its_seconds_also_the_empty_ones() {
        let mut series = Series::new();
        let ms = Duration::from_millis;
        assert_eq!(series.seconds(), []);
        series.sent(ms(100));
        series.verdict(ms(900), ms(5));
        series.verdict(ms(1000), ms(7));
        series.sent(ms(3999));
        series.late(ms(3999), ms(2));
        let seconds = series.seconds();
        let counts: Vec<(u64, u64)> = seconds.iter().map(|s| (s.sent, s.verdicts)).collect();
        assert_eq!(counts, [(1, 1), (0, 1), (0, 0), (1, 0)]);
        let near = |got: f64, want: f64| (got - want).abs() <= want / 500.0;
        assert!(near(seconds[0].p99_us, 5000.0) && near(seconds[1].p50_us, 7000.0), "{seconds:?}");
        assert!(near(seconds[3].lateness_p99_us, 2000.0) && seconds[2].p99_us == 0.0, "{seconds:?}");
    }

    #[test]
    fn a_distribution_rises_to_the_longest() {
        let mut times = Times::new();
        (1..=10_000).for_each(|us| times.record(Duration::from_micros(us)));
        let points = times.distribution();
        assert!(points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{points:?}");
        let (percent, us) = points[points.len() - 1];
        assert!(percent == 100.0 && us >= 10_000.0 && points.len() > 30, "{points:?}");
        assert!(points.iter().any(|(percent, us)| (99.0..99.9).contains(percent) && (9_800.0..10_010.0).contains(us)));
    }
}
