//! The stages on the terminal.

use std::fmt;

use super::breakdown::{Breakdown, Mark, Place, Stage};
use super::choice::Choice;
use super::{Rate, Stages};

/// How far below 0 the difference of two points may be, as a share of the whole, before the report warns about it.
const BELOW_MIN: f64 = -0.02;

impl Place {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Redis => "Redis",
            Self::Way => "on the way",
            Self::Worker => "worker",
            Self::Elsewhere => "outside",
        }
    }
}

impl Stages {
    /// What was measured, in one line.
    pub(super) fn line(&self) -> String {
        let s = &self.setting;
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let mut line = format!("{} sessions in {} rooms over {} gateway{}", s.sessions, s.rooms, s.gateways, plural(s.gateways));
        for (name, value) in &s.settings {
            line += &format!(", {name}={value}");
        }
        if s.tcp {
            line += ", Redis over TCP";
        }
        line
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {} s each", self.line(), self.setting.duration_s)?;
        for rate in &self.rates {
            write!(f, "\n{rate}")?;
        }
        let [before, after] = self.load_average;
        write!(f, "\nload average {before:.1} before, {after:.1} after")
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = self.latency_us;
        writeln!(f, "{} events/s (from intended send: p50 {p50:.0} µs, p99 {p99:.0} µs)", self.events_per_s)?;
        let Breakdown { service_us, stages, marks } = &self.breakdown;
        writeln!(f, "{:<12}{:<12}{:<36}{:>10}{:>8}{:>10}{:>10}", "stage", "where", "", "median µs", "share", "mean", "p99")?;
        for Stage { name, place, what, time, p99_us } in stages {
            let share = 100.0 * time.median_us / service_us.median_us.max(f64::MIN_POSITIVE);
            let p99 = p99_us.map_or_else(String::new, |us| format!("{us:.1}"));
            let place = place.name();
            writeln!(f, "{name:<12}{place:<12}{what:<36}{:>10.1}{share:>7.1}%{:>10.1}{p99:>10}", time.median_us, time.mean_us)?;
        }
        writeln!(f, "{:<60}{:>10.1}{:>7.1}%{:>10.1}", "from send to verdict", service_us.median_us, 100.0, service_us.mean_us)?;
        if stages.iter().any(|stage| stage.time.median_us < BELOW_MIN * service_us.median_us) {
            writeln!(f, "a stage is negative: its two ends were measured on different events. Measure again")?;
        }
        writeln!(f, "\n{:<60}{:>10}{:>8}{:>10}{:>10}", "since its arrival, when", "median µs", "", "mean", "p99")?;
        for Mark { what, time, p99_us } in marks {
            writeln!(f, "{what:<60}{:>10.1}{:>8}{:>10.1}{p99_us:>10.1}", time.median_us, "", time.mean_us)?;
        }
        let counts = &self.counts;
        writeln!(f, "\n{:<12}{:>12}{:>14}{:>12}{:>14}", "an event", "CPU µs", "system calls", "sleeps", "preemptions")?;
        for (kind, c) in &counts.kinds {
            writeln!(f, "{kind:<12}{:>12.1}{:>14.2}{:>12.2}{:>14.3}", c.cpu_us, c.system_calls, c.sleeps, c.preemptions)?;
        }
        let calls: f64 = counts.kinds.values().map(|kind| kind.system_calls).sum();
        writeln!(f, "{:<12}{:>12.1}{calls:>14.2}", "all", counts.cpu_us())?;
        writeln!(f, "system calls by {}", counts.system_calls_by)?;
        writeln!(
            f,
            "events a flush {:.2}, a commit {:.2}, a push {:.2}",
            counts.events_per_flush, counts.events_per_commit, counts.events_per_push
        )?;
        writeln!(
            f,
            "Redis, an event: {:.3} commands sent, {:.2} by scripts, {:.0} bytes in, {:.0} bytes out",
            counts.commands_sent, counts.commands_in_scripts, counts.redis_bytes_in, counts.redis_bytes_out
        )
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&String> = self.rows.first().map(|row| row.cpu_us.keys().collect()).unwrap_or_default();
        write!(f, "{:>10}  {:<24}", "events/s", self.name)?;
        for kind in &kinds {
            write!(f, "{kind:>10}")?;
        }
        writeln!(f, "{:>10}{:>18}{:>10}{:>10}", "CPU µs", "least to most", "p50 µs", "p99 µs")?;
        for row in &self.rows {
            write!(f, "{:>10}  {:<24}", row.events_per_s, row.value)?;
            for kind in &kinds {
                write!(f, "{:>10.2}", row.cpu_us.get(*kind).copied().unwrap_or(0.0))?;
            }
            let [least, most] = row.cpu_us_range;
            let range = format!("{least:.2} to {most:.2}");
            writeln!(f, "{:>10.2}{range:>18}{:>10.0}{:>10.0}", row.cpu_us_total, row.p50_us, row.p99_us)?;
        }
        let [before, after] = self.load_average;
        write!(
            f,
            "CPU time an event; medians of {} rounds in turns; load average {before:.1} before, {after:.1} after",
            self.rounds
        )
    }
}
