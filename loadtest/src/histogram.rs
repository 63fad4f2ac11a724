//! Histograms in the metrics of processes: counts by upper bound, their sum, and the total count.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Counts by upper bound in nanoseconds, each with those below it, `u64::MAX` for what has no bound; and the sum of the times.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    buckets: BTreeMap<u64, u64>,
    sum_s: f64,
}

impl Histogram {
    /// Out of a process's metrics; empty when it has none of that name.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self> {
        let mut histogram = Self::default();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            if let Some((bound, count)) = rest.strip_prefix("_bucket{le=\"").and_then(|rest| rest.split_once("\"} ")) {
                let bound = match bound {
                    "+Inf" => u64::MAX,
                    seconds => nanos(seconds.parse().with_context(|| format!("bucket {line:?}"))?),
                };
                histogram.buckets.insert(bound, count.trim().parse().with_context(|| format!("bucket {line:?}"))?);
            } else if let Some(sum) = rest.strip_prefix("_sum ") {
                histogram.sum_s = sum.trim().parse().with_context(|| format!("sum {line:?}"))?;
            }
        }
        Ok(histogram)
    }

    /// All of `other`'s, too: what several processes say together.
    pub(crate) fn add(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += count;
        }
        self.sum_s += other.sum_s;
    }

    /// What came since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (bound, count) in &mut self.buckets {
            *count = count.saturating_sub(before.buckets.get(bound).copied().unwrap_or(0));
        }
        self.sum_s = (self.sum_s - before.sum_s).max(0.0);
        self
    }

    /// How many times there are.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.values().next_back().copied().unwrap_or(0)
    }

    /// Their mean in microseconds; None when there are none.
    pub(crate) fn mean_us(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_s * 1e6 / count as f64)
    }

    /// One quantile in microseconds to the tenth, as if the times of a bucket lay evenly in it; 0 when there are none.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        let wanted = quantile * self.count() as f64;
        let (mut low, mut below) = (0, 0);
        for (bound, count) in &self.buckets {
            if *count > below && *count as f64 >= wanted {
                // Past the last bound nothing more is known.
                let high = if *bound == u64::MAX { low } else { *bound };
                let part = (wanted - below as f64) / (count - below) as f64;
                return ((low as f64 + part * (high - low) as f64) / 100.0).round() / 10.0;
            }
            (low, below) = (*bound, *count);
        }
        0.0
    }
}

fn nanos(seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds of buckets: seconds, not negative")]
    let nanos = (seconds * 1e9).round() as u64;
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "lasthit_hold_seconds";

    fn histogram(counts: [u64; 4], sum_s: f64) -> Histogram {
        let bounds = ["0.0001", "0.0003", "0.003", "+Inf"];
        let line = |(bound, count)| format!("{NAME}_bucket{{le=\"{bound}\"}} {count}\n");
        let lines: String = bounds.into_iter().zip(counts).map(line).collect();
        let text = format!(
            "# TYPE {NAME} histogram\n{lines}{NAME}_sum {sum_s}\n{NAME}_count {}\n{NAME}_more_bucket{{le=\"0.5\"}} 9\n{NAME}_more_sum 77\n",
            counts[3]
        );
        Histogram::parse(&text, NAME).expect("histogram")
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        // Of 100 since then: 20 up to 100 µs, 40 up to 300 µs, 39 up to 3 ms, one beyond.
        let since = histogram([120, 260, 300, 301], 9.0).since(&histogram([100, 200, 201, 201], 8.98));
        let at = |quantile| since.quantile_us(quantile);
        assert_eq!((since.count(), at(0.5), at(0.99), at(0.999)), (100, 250.0, 3000.0, 3000.0));
        assert!((since.mean_us().expect("a mean") - 200.0).abs() < 1e-6, "{since:?}");
        assert_eq!(histogram([4, 4, 4, 4], 0.0).quantile_us(0.5), 50.0);
        let none = Histogram::default();
        assert_eq!((none.count(), none.mean_us(), none.quantile_us(0.99)), (0, None, 0.0));
    }

    #[test]
    fn what_several_say_adds_up() {
        let mut all = histogram([1, 2, 3, 4], 0.5);
        all.add(&histogram([1, 2, 3, 4], 0.25));
        assert_eq!(all, histogram([2, 4, 6, 8], 0.75));
    }

    #[test]
    fn garbage_is_named() {
        let error = Histogram::parse("a_bucket{le=\"0.1\"} many\n", "a").expect_err("no count");
        assert!(format!("{error:#}").contains("many"), "{error:#}");
    }
}
