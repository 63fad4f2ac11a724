//! The comparison on the terminal.

use std::fmt;

use super::Comparison;
use super::ratios::{Figures, Reached, TARGETS, Target};
use crate::draw::svg::grouped;

/// What is listed, in this order: the name in the figures, and in words.
pub(super) const SYSTEMS: [(&str, &str); 9] = [
    ("echo", "bare echo (decides nothing)"),
    ("floor", "Redis floor (no sockets)"),
    ("ws_room", "one ws process, rooms in its memory"),
    ("memory", "lasthit serve, in memory"),
    ("one_gateway", "lasthit on Redis, one gateway"),
    ("two_gateways", "lasthit on Redis, two gateways"),
    ("peer_1", "usual stack, concurrency 1"),
    ("peer_4", "usual stack, concurrency 4"),
    ("peer_16", "usual stack, concurrency 16"),
];

/// The same for what works without sockets.
pub(super) const QUEUES: [(&str, &str); 7] = [
    ("queue_lasthit", "lasthit through the embedding API"),
    ("queue_groupmq_4", "groupmq, concurrency 4"),
    ("queue_groupmq_16", "groupmq, concurrency 16"),
    ("queue_groupmq_100", "groupmq, concurrency 100"),
    ("queue_groupmq", "groupmq, latency run"),
    ("queue_bullmq_rooms", "BullMQ, a queue per room"),
    ("queue_bullmq", "BullMQ, one queue, concurrency 16"),
];

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let medians = self.medians();
        writeln!(f, "{:<40} {:>12} {:>12} {:>12}", "", "verdicts/s", "p50", "p99")?;
        list(f, &medians, &SYSTEMS, "verdicts_per_s")?;
        writeln!(f, "\n{:<40} {:>12} {:>12} {:>12}", "without sockets", "events/s", "p50", "p99")?;
        list(f, &medians, &QUEUES, "jobs_per_s")?;
        writeln!(f, "\n{:<72} {:>10} {:>10} {:>10}", "", "measured", "required", "goal")?;
        for target in &TARGETS {
            let (value, told) = match target.value(&self.rounds) {
                None => ("-".to_owned(), ""),
                Some(value) => (shown(target, value), told(target.reached(value))),
            };
            let [required, goal] = [target.required, target.goal].map(|value| shown(target, value));
            writeln!(f, "{:<72} {value:>10} {required:>10} {goal:>10}{told}", target.what)?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let [before, after] = self.load_average;
        write!(f, "{}; load average {before:.1} before, {after:.1} after", self.rounds_told())
    }
}

fn list(f: &mut fmt::Formatter<'_>, medians: &Figures, systems: &[(&str, &str)], rate: &str) -> fmt::Result {
    for (key, name) in systems {
        let of = |figure: &str| medians.get(&format!("{key}.{figure}")).copied();
        let (rate, p50, p99) = (of(rate), of("p50_us"), of("p99_us"));
        if rate.or(p50).is_some() {
            let rate = rate.map_or_else(String::new, whole);
            let [p50, p99] = [p50, p99].map(|us| us.map_or_else(String::new, time));
            writeln!(f, "{name:<40} {rate:>12} {p50:>12} {p99:>12}")?;
        }
    }
    Ok(())
}

/// A rate, with commas between its thousands.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and far below 2^64")]
pub(super) fn whole(rate: f64) -> String {
    grouped(rate.round() as u64)
}

/// A time that is given in microseconds.
pub(super) fn time(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.1} ms", us / 1000.0),
        us => format!("{:.0} ms", us / 1000.0),
    }
}

fn told(reached: Reached) -> &'static str {
    match reached {
        Reached::Goal => "  reaches the goal",
        Reached::Required => "  reaches what is required",
        Reached::Nothing => "  MISSES what is required",
    }
}

/// A value of a figure, with its unit.
fn shown(target: &Target, value: f64) -> String {
    match (value, target.unit) {
        (value, "x") if value < 0.95 => format!("1/{:.1}", 1.0 / value),
        (value, unit) if value < 10.0 => format!("{value:.2}{unit}"),
        (value, unit) => format!("{value:.0}{unit}"),
    }
}
