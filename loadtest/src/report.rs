//! What a run says in the end.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::audit::Faults;
use crate::record::Quantiles;
use crate::run::RunConfig;
use crate::tally::Counts;

/// What was run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setting {
    sessions: u32,
    rooms: u32,
    gateways: usize,
    rate: u32,
    duration_s: f64,
    encoding: &'static str,
}

impl Setting {
    /// As it was asked for.
    pub(crate) fn of(config: &RunConfig) -> Self {
        Self {
            sessions: config.sessions,
            rooms: config.rooms,
            gateways: config.urls.len(),
            rate: config.rate,
            duration_s: config.duration.as_secs_f64(),
            encoding: config.encoding.subprotocol(),
        }
    }
}

/// The figures and the audit of a run; its serialized form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    setting: Setting,
    /// Whether the audit found nothing.
    passed: bool,
    /// Actions that were given to their sockets.
    sent: u64,
    /// Of them, those that a verdict came to.
    verdicts: u64,
    verdicts_per_s: f64,
    /// Intended send to verdict.
    latency_us: Quantiles,
    #[serde(flatten)]
    faults: Faults,
    /// The generator fell behind its own schedule: the latencies say as much about it as about the system.
    generator_saturated: bool,
    /// Intended send to actual send.
    send_lateness_us: Quantiles,
    /// Actions that were due and did not fit their session's outbox.
    unsent: u64,
    /// Verdicts by outcome.
    outcomes: BTreeMap<String, u64>,
    /// Of them, those that were not granted, by reason.
    reasons: BTreeMap<String, u64>,
    /// Refusals by error code.
    refused: BTreeMap<String, u64>,
    /// Sessions that ended before the run did.
    broken_sessions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_broken: Option<String>,
}

impl Report {
    /// The report of a run that is over.
    pub(crate) fn new(setting: Setting, counts: &Counts) -> Self {
        let record = &counts.record;
        let (faults, verdicts) = (counts.audit.faults(), record.latency.count());
        let mut report = Self {
            passed: false,
            sent: counts.audit.sent_count(),
            verdicts,
            verdicts_per_s: per_second(verdicts, counts.last_verdict.as_secs_f64()),
            latency_us: record.latency.quantiles(),
            faults,
            generator_saturated: record.saturated(counts.unsent),
            send_lateness_us: record.lateness.quantiles(),
            unsent: counts.unsent,
            outcomes: counts.outcomes.clone(),
            reasons: counts.reasons.clone(),
            refused: counts.refused.clone(),
            broken_sessions: counts.broken,
            first_broken: counts.first_broken.clone(),
            setting,
        };
        report.passed = report.failure().is_none();
        report
    }

    /// What the audit found, in one line; None when everything was as promised.
    pub(crate) fn failure(&self) -> Option<String> {
        let Faults { lost, doubled, gaps, two_winners } = self.faults;
        let counted = [(lost, "lost"), (doubled, "doubled"), (gaps, "gaps"), (two_winners, "two winners")];
        let mut faults: Vec<String> =
            counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if self.broken_sessions > 0 {
            let first = self.first_broken.as_deref().unwrap_or_default();
            faults.push(format!("{} sessions broke, first {first}", self.broken_sessions));
        }
        if self.sent == 0 {
            faults.push("nothing was sent".to_owned());
        }
        (!faults.is_empty()).then(|| format!("audit failed: {}", faults.join(", ")))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { sessions, rooms, gateways, rate, duration_s, encoding } = &self.setting;
        writeln!(f, "{sessions} sessions in {rooms} rooms over {gateways} gateways, {rate}/s for {duration_s} s, {encoding}")?;
        writeln!(f, "sent      {}  verdicts {}  ({}/s)", self.sent, self.verdicts, self.verdicts_per_s)?;
        let line = |f: &mut fmt::Formatter<'_>, what, q: &Quantiles| {
            writeln!(f, "{what}  p50 {}  p90 {}  p99 {}  p99.9 {}  max {} µs", q.p50, q.p90, q.p99, q.p999, q.max)
        };
        line(f, "latency ", &self.latency_us)?;
        line(f, "lateness", &self.send_lateness_us)?;
        for (what, counts) in [("outcomes", &self.outcomes), ("reasons ", &self.reasons), ("refused ", &self.refused)] {
            if !counts.is_empty() {
                let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
                writeln!(f, "{what}  {}", counts.join("  "))?;
            }
        }
        let Faults { lost, doubled, gaps, two_winners } = self.faults;
        write!(f, "audit     lost {lost}  doubled {doubled}  gaps {gaps}  two winners {two_winners}")?;
        if self.generator_saturated {
            write!(f, "\nthe generator was saturated: it fell behind its own schedule, so these latencies are partly its own")?;
        }
        Ok(())
    }
}
