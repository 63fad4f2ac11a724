//! Latencies out of the metrics of all processes: histograms that only grow, so that two of them tell what came between.

use std::collections::BTreeMap;

/// The histograms of interest, by process.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scrape {
    /// How long workers held events.
    pub(super) hold: BTreeMap<String, Histogram>,
    /// How long actions took to their verdicts, at gateways.
    pub(super) verdict: BTreeMap<String, Histogram>,
}

/// Upper bounds in seconds, ascending, and how much lies at or below each since the process began.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Histogram(Vec<(f64, u64)>);

impl Scrape {
    /// Reads what `/metrics` of a supervisor says. What is none of it is skipped.
    pub(super) fn of(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once('{') else { continue };
            let kind = match name {
                "lasthit_hold_seconds_bucket" => &mut all.hold,
                "lasthit_verdict_seconds_bucket" => &mut all.verdict,
                _ => continue,
            };
            let label = |name: &str| rest.split_once(&format!("{name}=\""))?.1.split_once('"').map(|(value, _)| value);
            let (Some(process), Some(bound)) = (label("process"), label("le")) else { continue };
            let count = rest.rsplit_once(' ').and_then(|(_, count)| count.parse().ok());
            // `+Inf` is read as infinity.
            let (Ok(bound), Some(count)) = (bound.parse(), count) else { continue };
            kind.entry(process.to_owned()).or_default().0.push((bound, count));
        }
        all
    }
}

impl Histogram {
    /// What came since `earlier`. Everything, if that was another process.
    pub(super) fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier.filter(|earlier| earlier.is_before(self)) else { return self.clone() };
        Self(self.0.iter().zip(&earlier.0).map(|((bound, now), (_, before))| (*bound, now - before)).collect())
    }

    fn is_before(&self, later: &Self) -> bool {
        let same = |((a, before), (b, now)): (&(f64, u64), &(f64, u64))| a.total_cmp(b).is_eq() && before <= now;
        self.0.len() == later.0.len() && self.0.iter().zip(&later.0).all(same)
    }

    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.clone_from(other);
        } else if self.0.len() == other.0.len() {
            self.0.iter_mut().zip(&other.0).for_each(|((_, count), (_, more))| *count += more);
        }
    }

    /// A quantile in milliseconds, between the bounds of its bucket by its place there. None when nothing came.
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds are far below 2^52")]
    pub(super) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let all = self.0.last()?.1;
        let wanted = quantile * all as f64;
        let at = self.0.iter().position(|(_, count)| *count > 0 && *count as f64 >= wanted)?;
        let (bound, count) = self.0[at];
        let (low, below) = at.checked_sub(1).map_or((0.0, 0), |before| self.0[before]);
        // Beyond the last bound nothing is known but that.
        let high = if bound.is_finite() { bound } else { low };
        Some((low + (high - low) * (wanted - below as f64) / (count - below).max(1) as f64) * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[u64]) -> Histogram {
        Histogram([0.001, 0.002, 0.01, f64::INFINITY].into_iter().zip(counts.iter().copied()).collect())
    }

    #[test]
    fn buckets_are_read_by_process_and_garbage_is_skipped() {
        let text = "# TYPE lasthit_hold_seconds histogram\n\
            lasthit_hold_seconds_bucket{process=\"worker-1\",le=\"0.001\"} 3\n\
            lasthit_hold_seconds_bucket{process=\"worker-1\",le=\"+Inf\"} 4\n\
            lasthit_hold_seconds_sum{process=\"worker-1\"} 0.5\n\
            lasthit_verdict_seconds_bucket{process=\"eu/gateway-1\",le=\"0.001\"} 7\n\
            lasthit_verdict_seconds_bucket{process=\"eu/gateway-1\",le=\"many\"} 7\n\
            lasthit_verdict_seconds_bucket{le=\"1\"} 7\nlasthit_verdict_seconds_bucket{\n{\n";
        let scrape = Scrape::of(text);
        assert_eq!(scrape.hold, BTreeMap::from([("worker-1".to_owned(), Histogram(vec![(0.001, 3), (f64::INFINITY, 4)]))]));
        assert_eq!(scrape.verdict, BTreeMap::from([("eu/gateway-1".to_owned(), Histogram(vec![(0.001, 7)]))]));
    }

    #[test]
    fn quantiles_are_those_of_what_came_between() {
        let (before, now) = (histogram(&[100, 100, 100, 100]), histogram(&[150, 190, 199, 200]));
        let between = now.since(Some(&before));
        assert_eq!(between, histogram(&[50, 90, 99, 100]));
        assert_eq!(between.quantile_ms(0.5), Some(1.0));
        assert_eq!(between.quantile_ms(0.7), Some(1.5));
        assert_eq!(between.quantile_ms(0.99), Some(10.0));
        assert_eq!(between.quantile_ms(1.0), Some(10.0), "it is not known how much more");
        assert_eq!(now.since(Some(&now)).quantile_ms(0.5), None);
        assert_eq!(Histogram::default().quantile_ms(0.5), None);
        // Another process of the name began anew.
        assert_eq!(before.since(Some(&now)), before);
        assert_eq!(before.since(None), before);
        let mut both = Histogram::default();
        both.add(&between);
        both.add(&between);
        assert_eq!(both, histogram(&[100, 180, 198, 200]));
    }
}
