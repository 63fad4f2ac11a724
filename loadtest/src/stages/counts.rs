//! What one event costs: CPU time, system calls, commands and bytes of Redis.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::watch::{Seen, SystemCalls};
use crate::compare::commands::Watched;

/// For each event; those by kind are of all processes of that kind together.
#[derive(Debug, Serialize)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) kinds: BTreeMap<String, Kind>,
    /// How system calls were counted.
    pub(super) system_calls_by: &'static str,
    pub(super) events_per_flush: f64,
    pub(super) events_per_commit: f64,
    pub(super) events_per_push: f64,
    /// Commands that were sent to Redis.
    pub(super) commands_sent: f64,
    /// Commands that its scripts made.
    pub(super) commands_in_scripts: f64,
    pub(super) redis_bytes_in: f64,
    pub(super) redis_bytes_out: f64,
}

/// One kind of process.
#[derive(Debug, Default, Serialize)]
pub(super) struct Kind {
    pub(super) cpu_us: f64,
    pub(super) system_calls: f64,
    /// It gave its core up.
    pub(super) sleeps: f64,
    /// Its core was taken from it.
    pub(super) preemptions: f64,
}

impl Counts {
    pub(super) fn of(seen: &Seen, calls: &SystemCalls, monitored: &Watched) -> Result<Self> {
        ensure!(seen.events > 0 && calls.events > 0, "no events came while it was counted");
        let events = seen.events as f64;
        let kinds = seen.costs.iter().map(|(kind, cost)| {
            let system_calls = calls.by_kind.get(kind).map_or(0.0, |count| *count as f64 / calls.events as f64);
            let (sleeps, preemptions) = (cost.slept as f64 / events, cost.preempted as f64 / events);
            (kind.clone(), Kind { cpu_us: cost.cpu.as_secs_f64() * 1e6 / events, system_calls, sleeps, preemptions })
        });
        let all: u64 = seen.calls.values().sum();
        let sent = monitored.sent(&BTreeMap::new(), &seen.calls);
        Ok(Self {
            events: seen.events,
            kinds: kinds.collect(),
            system_calls_by: calls.how,
            events_per_flush: events / seen.flushes.max(1) as f64,
            events_per_commit: events / seen.commits.max(1) as f64,
            events_per_push: events / seen.pushes.max(1) as f64,
            commands_sent: sent / events,
            commands_in_scripts: (all as f64 - sent) / events,
            redis_bytes_in: seen.redis_bytes[0] as f64 / events,
            redis_bytes_out: seen.redis_bytes[1] as f64 / events,
        })
    }

    pub(super) fn cpu_us(&self) -> f64 {
        self.kinds.values().map(|kind| kind.cpu_us).sum()
    }
}
