//! What is shown of a moment: the processes as the supervisor lists them, and latencies of the last seconds.

use std::collections::VecDeque;

use serde::Serialize;

use super::super::ask::Process;
use super::super::host;
use super::scrape::{Histogram, Scrape};
use crate::limits::{TOP_HISTORY, TOP_WINDOW};

/// A latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// A process, and how fast it is. None where nothing came.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) process: Process,
    /// How long a worker held events until all gateways had passed their stamps.
    pub(super) hold: Option<Latency>,
    /// How long actions took to their verdicts, at a gateway.
    pub(super) verdict: Option<Latency>,
}

/// All of them together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Totals {
    pub(super) cpu: f64,
    pub(super) memory_bytes: u64,
    pub(super) sessions: u64,
    /// Of the gateways; of the workers, if there are no gateways.
    pub(super) actions_per_s: f64,
    pub(super) crashes: u64,
    pub(super) hold: Option<Latency>,
    pub(super) verdict: Option<Latency>,
}

/// A moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Snapshot {
    /// How many processes are ready, and who has failed: one line.
    pub(super) status: String,
    pub(super) processes: Vec<Line>,
    pub(super) totals: Totals,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The last ones, the newest at the end.
    scrapes: VecDeque<Scrape>,
    /// Actions a second, and the p99 of verdicts in milliseconds; the newest at the end.
    pub(super) history: VecDeque<(f64, Option<f64>)>,
}

impl Watch {
    /// The next moment, a second after the one before. Without metrics it has no latencies.
    pub(super) fn take(&mut self, processes: Vec<Process>, metrics: Option<&str>) -> Snapshot {
        let snapshot = match metrics.map(Scrape::of) {
            Some(scrape) => {
                let snapshot = snapshot(processes, self.scrapes.front().map(|earlier| (&scrape, earlier)));
                self.scrapes.push_back(scrape);
                snapshot
            }
            None => snapshot(processes, None),
        };
        while self.scrapes.len() > TOP_WINDOW {
            self.scrapes.pop_front();
        }
        self.history.push_back((snapshot.totals.actions_per_s, snapshot.totals.verdict.map(|latency| latency.p99_ms)));
        while self.history.len() > TOP_HISTORY {
            self.history.pop_front();
        }
        snapshot
    }
}

/// The role in a name: `gateway` of `eu/gateway-1`.
fn role(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.rsplit_once('-').map_or(name, |(role, _)| role)
}

fn snapshot(processes: Vec<Process>, between: Option<(&Scrape, &Scrape)>) -> Snapshot {
    let status = host::status(&processes);
    let (mut holds, mut verdicts) = (Histogram::default(), Histogram::default());
    if let Some((now, before)) = between {
        now.hold.iter().for_each(|(name, histogram)| holds.add(&histogram.since(before.hold.get(name))));
        now.verdict.iter().for_each(|(name, histogram)| verdicts.add(&histogram.since(before.verdict.get(name))));
    }
    let latency =
        |histogram: &Histogram| Some(Latency { p50_ms: histogram.quantile_ms(0.5)?, p99_ms: histogram.quantile_ms(0.99)? });
    let lines = processes.into_iter().map(|process| {
        // Of a replacement's pair, the new one has answered.
        let between = between.filter(|_| process.phase == "ready");
        let hold = between.and_then(|(now, before)| latency(&now.hold.get(&process.name)?.since(before.hold.get(&process.name))));
        let verdict =
            between.and_then(|(now, before)| latency(&now.verdict.get(&process.name)?.since(before.verdict.get(&process.name))));
        Line { process, hold, verdict }
    });
    let processes: Vec<Line> = lines.collect();
    let all = || processes.iter().map(|line| &line.process);
    let has_gateways = all().any(|process| role(&process.name) == "gateway");
    let acts = |process: &&Process| role(&process.name) == if has_gateways { "gateway" } else { "worker" };
    let totals = Totals {
        cpu: all().map(|process| process.cpu).sum(),
        memory_bytes: all().map(|process| process.memory_bytes).sum(),
        sessions: all().map(|process| process.sessions).sum(),
        actions_per_s: all().filter(acts).map(|process| process.actions_per_s).sum(),
        crashes: all().map(|process| process.crashes).sum(),
        hold: latency(&holds),
        verdict: latency(&verdicts),
    };
    Snapshot { status, processes, totals }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, phase: &str, actions_per_s: f64) -> Process {
        Process { name: name.to_owned(), phase: phase.to_owned(), actions_per_s, crashes: 1, sessions: 2, ..Process::default() }
    }

    fn metrics(count: u64) -> String {
        ["lasthit_verdict_seconds_bucket{process=\"eu/gateway-1\"", "lasthit_hold_seconds_bucket{process=\"eu/worker-1\""]
            .map(|name| format!("{name},le=\"0.001\"}} {count}\n{name},le=\"+Inf\"}} {count}\n"))
            .concat()
    }

    #[test]
    fn latencies_are_those_of_the_last_seconds_and_totals_count_each_action_once() {
        let processes = || {
            vec![
                process("eu/gateway-1", "leaving", 10.0),
                process("eu/gateway-1", "ready", 20.0),
                process("eu/worker-1", "ready", 30.0),
            ]
        };
        let mut watch = Watch::default();
        let first = watch.take(processes(), Some(&metrics(100)));
        assert!(first.processes.iter().all(|line| line.hold.is_none() && line.verdict.is_none()), "nothing to compare with");
        let second = watch.take(processes(), Some(&metrics(200)));
        let expected = Some(Latency { p50_ms: 0.5, p99_ms: 0.99 });
        let latencies: Vec<_> = second.processes.iter().map(|line| (line.hold, line.verdict)).collect();
        assert_eq!(latencies, [(None, None), (None, expected), (expected, None)]);
        let totals = &second.totals;
        assert_eq!((&*second.status, totals.actions_per_s, totals.crashes), ("2 of 2 processes ready, 6 sessions", 30.0, 3));
        assert_eq!((totals.verdict, totals.hold), (expected, expected));
        assert_eq!(watch.take(processes(), None).totals.verdict, None);
        for _ in 0..TOP_HISTORY {
            watch.take(processes(), Some(&metrics(200)));
        }
        assert_eq!(watch.take(processes(), Some(&metrics(200))).totals.verdict, None, "nothing came for so long");
        assert_eq!((watch.history.len(), watch.scrapes.len()), (TOP_HISTORY, TOP_WINDOW));
        let alone = snapshot(vec![process("worker-1", "ready", 5.0)], None);
        assert_eq!(alone.totals.actions_per_s, 5.0, "gateways run elsewhere");
    }
}
