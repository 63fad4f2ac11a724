//! What a run says in the end.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::audit::Faults;
use super::health::Usage;
use super::moves::Moves;
use super::record::{Distribution, Quantiles, Second};
use super::service::Service;
use super::tally::Counts;
use super::terms::{Load, Pace};
use crate::environment::Environment;
use crate::speak::dialect::Audience;

/// What was run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setting {
    pub(crate) dialect: &'static str,
    pub(crate) sessions: u32,
    pub(crate) rooms: u32,
    pub(crate) gateways: usize,
    /// Actions a second, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<u32>,
    /// Actions of a session that waited for their answers at a time, where that was bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outstanding: Option<u32>,
    pub(crate) contenders: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) audience: &'static str,
    pub(crate) warm_up_s: f64,
    pub(crate) duration_s: f64,
}

impl Setting {
    /// As it was asked for.
    fn of(load: &Load) -> Self {
        let (rate, outstanding) = match load.pace {
            Pace::Open { rate } => (Some(rate), load.waiting_max),
            Pace::Closed { outstanding } => (None, Some(outstanding)),
        };
        Self {
            dialect: load.dialect.name(),
            sessions: load.sessions,
            rooms: load.rooms,
            gateways: load.urls.len(),
            rate,
            outstanding,
            contenders: load.contenders,
            payload_bytes: load.payload_bytes,
            audience: match load.audience {
                Audience::Sender => "sender",
                Audience::Room => "room",
            },
            warm_up_s: load.warm_up.as_secs_f64(),
            duration_s: load.duration.as_secs_f64(),
        }
    }
}

impl Setting {
    /// Who plays where.
    pub(crate) fn seats(&self) -> String {
        let counted = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (sessions, rooms) = (counted(u64::from(self.sessions), "session"), counted(u64::from(self.rooms), "room"));
        format!("{sessions} in {rooms} over {}", counted(self.gateways as u64, "gateway"))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dialect, duration_s, warm_up_s, .. } = self;
        write!(f, "{}, ", self.seats())?;
        match (self.rate, self.outstanding) {
            (Some(rate), None) => write!(f, "open loop, {rate}/s")?,
            (Some(rate), Some(most)) => write!(f, "open loop, {rate}/s, {most} outstanding a session at most,")?,
            (None, outstanding) => write!(f, "closed loop, {} outstanding a session", outstanding.unwrap_or(1))?,
        }
        write!(f, " for {duration_s} s after {warm_up_s} s, {dialect}")
    }
}

/// What the generator itself did.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Generator {
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// From when a send was due to when the generator turned to it.
    pub(crate) lateness_us: Quantiles,
}

/// The figures and the audit of a run; its serialized form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) setting: Setting,
    /// Whether the audit found nothing.
    pub(crate) passed: bool,
    /// Actions of the measured time that were given to their sockets.
    pub(crate) sent: u64,
    /// Of them, those that a verdict came to.
    pub(crate) verdicts: u64,
    /// Verdicts that came within the measured time.
    pub(crate) verdicts_per_s: f64,
    /// Intended send to verdict.
    pub(crate) latency_us: Quantiles,
    /// Actual send to verdict.
    pub(crate) service_us: Quantiles,
    #[serde(flatten)]
    pub(crate) faults: Faults,
    /// Actions of the whole run, the warm-up too, that were audited.
    pub(crate) audited: u64,
    pub(crate) generator: Generator,
    /// Actions that were due while their session's socket took nothing more.
    pub(crate) unsent: u64,
    /// Verdicts by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Of them, those that were not granted, by reason.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Refusals by error code, in the whole run.
    pub(crate) refused: BTreeMap<String, u64>,
    /// How sessions changed over to other gateways.
    pub(crate) moves: Moves,
    /// What was done to the system meanwhile, and the further connections.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<Service>,
    /// Sessions that ended before the run did.
    pub(crate) broken_sessions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_broken: Option<String>,
    pub(crate) series: Vec<Second>,
    /// Percent and microseconds.
    pub(crate) latency_distribution: Distribution,
    pub(crate) service_distribution: Distribution,
    pub(crate) environment: Environment,
}

impl Report {
    /// The report of a run that is over.
    pub(crate) fn new(load: &Load, counts: &Counts, usage: Usage) -> Self {
        let record = &counts.record;
        let mut report = Self {
            setting: Setting::of(load),
            passed: false,
            sent: counts.sent,
            verdicts: record.latency.count(),
            verdicts_per_s: per_second(counts.came, load.duration.as_secs_f64()),
            latency_us: record.latency.quantiles(),
            service_us: record.service.quantiles(),
            faults: counts.audit.faults(),
            audited: counts.audit.sent_count(),
            generator: Generator { usage, lateness_us: record.lateness.quantiles() },
            unsent: counts.unsent,
            outcomes: counts.outcomes.clone(),
            reasons: counts.reasons.clone(),
            refused: counts.refused.clone(),
            moves: counts.moves,
            service: counts.phases.as_ref().map(|phases| Service::of(phases, &counts.moves, load.connects > 0)),
            broken_sessions: counts.broken,
            first_broken: counts.first_broken.clone(),
            series: record.series.seconds(),
            latency_distribution: record.latency.distribution(),
            service_distribution: record.service.distribution(),
            environment: Environment::read(),
        };
        report.passed = report.failure().is_none();
        report
    }

    /// What the audit found, in one line; None when everything was as promised.
    pub(crate) fn failure(&self) -> Option<String> {
        let Faults { lost, doubled, gaps, two_winners, overtaken } = self.faults;
        let counted = [
            (lost, "lost"),
            (doubled, "doubled"),
            (gaps, "gaps"),
            (two_winners, "two winners"),
            (overtaken, "overtaken"),
            (self.unsent, "not sent, because the gateways did not read or answer"),
        ];
        let mut faults: Vec<String> =
            counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if self.broken_sessions > 0 {
            let first = self.first_broken.as_deref().unwrap_or_default();
            faults.push(format!("{} sessions broke, the first: {first}", self.broken_sessions));
        }
        faults.extend(self.service.iter().flat_map(Service::broken));
        if self.sent == 0 {
            faults.push("nothing was sent".to_owned());
        }
        (!faults.is_empty()).then(|| format!("audit failed: {}", faults.join(", ")))
    }

    /// What was promised and not kept, if anything: an answer that is there twice, a gap or a second winner at whatever load; a
    /// lost answer when the others came within `p99_max_us`, since a system that is behind may still have it under way. (A
    /// session that a gateway closed because it was taken for dead would come back and send again: what it lost is lost to
    /// this run only.)
    pub(crate) fn broken(&self, p99_max_us: f64) -> Option<Broken> {
        let is_lost = self.faults.lost > 0 && self.broken_sessions == 0 && self.latency_us.p99 <= p99_max_us;
        self.failure().filter(|_| is_lost || self.faults.contradict()).map(Broken)
    }

    /// Refusals of the whole run.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// lasthit did not do what it promises: nothing that came out beside it counts.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.setting)?;
        writeln!(f, "sent      {}  verdicts {}  ({}/s)\n", self.sent, self.verdicts, self.verdicts_per_s)?;
        writeln!(f, "µs                             p50         p90         p99       p99.9         max")?;
        let mut line =
            |what: &str, q: &Quantiles| writeln!(f, "{what:22}{:12}{:12}{:12}{:12}{:12}", q.p50, q.p90, q.p99, q.p999, q.max);
        if self.setting.rate.is_some() {
            line("from intended send", &self.latency_us)?;
            line("from actual send", &self.service_us)?;
            line("sends were late by", &self.generator.lateness_us)?;
        } else {
            // A stalled system is sent less, so that the worst of it is never asked for.
            line("from send", &self.service_us)?;
        }
        writeln!(f)?;
        for (what, counts) in [("outcomes", &self.outcomes), ("reasons ", &self.reasons), ("refused ", &self.refused)] {
            if !counts.is_empty() {
                let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
                writeln!(f, "{what}  {}", counts.join("  "))?;
            }
        }
        writeln!(f, "generator {}", self.generator.usage)?;
        if self.moves.any() {
            writeln!(f, "moves     {}", self.moves)?;
        }
        if let Some(service) = &self.service {
            write!(f, "{service}")?;
        }
        let Faults { lost, doubled, gaps, two_winners, overtaken } = self.faults;
        write!(f, "audit     lost {lost}  doubled {doubled}  gaps {gaps}  two winners {two_winners}  overtaken {overtaken}  ")?;
        write!(f, "of {} sent", self.audited)
    }
}
