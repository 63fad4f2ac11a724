//! What a chaos run says in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::fleet::Had;
use super::judge::{Faults, Findings};
use super::nodes::Nodes;
use super::plan::Fault;
use super::record::{Record, RoomRecord};
use super::recovery::{Killed, Recovered, Recovery, recovered, recovery};
use super::{ChaosConfig, Durability};

/// What else is known of a run.
pub(super) struct Run {
    pub(super) drained: Duration,
    /// What came of the faults of nodes, where there are several.
    pub(super) nodes: Option<Nodes>,
    pub(super) reconnects: u64,
    pub(super) own_ends: u64,
    pub(super) crashes: usize,
    pub(super) panics: Vec<String>,
    /// What a supervisor did, if there was one.
    pub(super) supervisor: Option<Had>,
    /// Why not all that it looks after was ready in the end.
    pub(super) unready: Option<String>,
    pub(super) rude: Option<Rude>,
    pub(super) redis_version: String,
}

/// The session that took no heed of anybody, and what the others had of it: their 99th percentile over a stretch before the
/// first fault without it, and over one with it. None where too little was answered to tell.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Rude {
    pub(super) joins: u64,
    pub(super) actions: u64,
    pub(super) others_p99_ms_without: Option<f64>,
    pub(super) others_p99_ms_with: Option<f64>,
}

/// On what it was run.
#[derive(Debug, Clone, Serialize)]
struct Environment {
    lasthit: &'static str,
    profile: &'static str,
    redis: String,
    /// On what kind of Redis.
    journal: String,
    cpus: usize,
    os: &'static str,
    arch: &'static str,
    gateways: usize,
    workers: usize,
    /// Gateways and workers of a supervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    supervised: Option<(usize, usize)>,
    /// Hosts, each with so many gateways and workers; 0 for none.
    hosts: usize,
    players: usize,
    rooms: usize,
    rate: u32,
}

/// The figures and the audit of a run; its serialized form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChaosReport {
    seed: u64,
    durability: Durability,
    /// The program that decided, if it was not the built-in claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<String>,
    duration_s: f64,
    /// Whether the audit found nothing.
    passed: bool,
    /// Processes that were killed.
    kills: usize,
    kills_by_kind: BTreeMap<String, usize>,
    /// Everything that was done, kills included.
    faults_by_kind: BTreeMap<String, usize>,
    /// Actions that players sent, each counted once.
    actions: usize,
    /// Of them, those that were sent more than once.
    resent: usize,
    /// Verdicts that the journal has.
    events: usize,
    /// Verdicts that players saw.
    seen: usize,
    #[serde(flatten)]
    faults: Faults,
    recovery_ms: Recovery,
    recovery_ms_by_kind: BTreeMap<String, Recovery>,
    killed: Vec<Recovered>,
    /// Times that players connected again.
    reconnects: u64,
    /// Processes that ended without being told to, and were started again.
    own_ends: u64,
    /// Of them, those that had started.
    crashes: usize,
    /// Log lines about panics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    panics: Vec<String>,
    /// What a supervisor did, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    supervisor: Option<Had>,
    /// Why not all that it looks after was ready in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    unready: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rude: Option<Rude>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Nodes>,
    /// Whether a new era fails the run.
    #[serde(skip)]
    keeps_eras: bool,
    /// From the end of the faults until the last player had its last answer.
    drain_ms: u64,
    environment: Environment,
    /// The first faults, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    told: Vec<String>,
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

impl ChaosReport {
    pub(super) fn new(
        config: &ChaosConfig,
        faults: &[Fault],
        killed: &[Killed],
        records: &[Record],
        rooms: &[RoomRecord],
        findings: Findings,
        run: Run,
    ) -> Self {
        let (recovery_ms, recovery_ms_by_kind) = recovery(killed, records);
        let acted = || records.iter().flat_map(|record| &record.acted);
        let mut report = Self {
            seed: config.seed,
            durability: config.durability,
            rules: config.rules.as_ref().map(|path| path.display().to_string()),
            duration_s: config.duration.as_secs_f64(),
            passed: false,
            kills: killed.len(),
            kills_by_kind: count(killed.iter().map(|kill| kill.kind.name())),
            faults_by_kind: count(faults.iter().map(|fault| fault.kind.name())),
            actions: acted().count(),
            resent: acted().filter(|acted| acted.sends > 1).count(),
            events: rooms.iter().map(|room| room.verdicts.len()).sum(),
            seen: records.iter().map(|record| record.told.len()).sum(),
            faults: findings.faults,
            recovery_ms,
            recovery_ms_by_kind,
            killed: recovered(killed, records),
            reconnects: run.reconnects,
            own_ends: run.own_ends,
            crashes: run.crashes,
            panics: run.panics,
            supervisor: run.supervisor,
            unready: run.unready,
            rude: run.rude,
            nodes: run.nodes,
            keeps_eras: config.layout.keeps_eras(config.durability),
            drain_ms: u64::try_from(run.drained.as_millis()).unwrap_or(u64::MAX),
            environment: Environment {
                lasthit: env!("CARGO_PKG_VERSION"),
                profile: if cfg!(debug_assertions) { "debug" } else { "release" },
                redis: run.redis_version,
                journal: config.layout.to_string(),
                cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
                os: std::env::consts::OS,
                arch: std::env::consts::ARCH,
                gateways: config.gateways,
                workers: config.workers,
                supervised: config.supervised,
                hosts: config.hosts,
                players: config.players,
                rooms: config.rooms,
                rate: config.rate,
            },
            told: findings.told,
        };
        report.passed = report.failure().is_none();
        report
    }

    /// What the audit found, in one line; None when everything was as promised.
    pub(crate) fn failure(&self) -> Option<String> {
        let found = self.faults.failures().into_iter().filter(|(_, count)| *count > 0);
        let mut faults: Vec<String> = found.map(|(what, count)| format!("{count} {what}")).collect();
        if self.crashes > 0 {
            faults.push(format!("{} processes ended by themselves", self.crashes));
        }
        if let Some(first) = self.panics.first() {
            faults.push(format!("{} panics, first {first}", self.panics.len()));
        }
        faults.extend(self.unready.clone());
        if self.faults.rolled_back > 0 && self.keeps_eras {
            faults.push(format!("{} rolled back", self.faults.rolled_back));
        }
        if let Some(unexplained) = self.nodes.as_ref().map(|nodes| nodes.rolled_back_unexplained).filter(|count| *count > 0) {
            faults.push(format!("{unexplained} rooms rolled back although nothing happened to the server of their shard"));
        }
        if self.rules.is_some() && self.faults.fires == 0 {
            faults.push("no timer fired: does the program have the actions of examples/rules/arena.js?".to_owned());
        }
        if self.actions == 0 {
            faults.push("nothing was sent".to_owned());
        }
        (!faults.is_empty()).then(|| format!("audit failed, seed {}: {}", self.seed, faults.join(", ")))
    }
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Environment { gateways, workers, supervised, hosts, players, rooms, rate, journal, .. } = &self.environment;
        let on_hosts = if *hosts > 0 { format!(" on each of {hosts} hosts") } else { String::new() };
        let supervised = supervised
            .map_or_else(String::new, |(gateways, workers)| format!(", and {gateways} and {workers} under a supervisor"));
        writeln!(
            f,
            "seed {}, {} s at {} on {journal}: {players} players in {rooms} rooms over {gateways} gateways and {workers} workers{on_hosts}{supervised}, {rate}/s",
            self.seed,
            self.duration_s,
            self.durability.name()
        )?;
        let counted = |counts: &BTreeMap<String, usize>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join("  ")
        };
        writeln!(f, "kills     {}  {}", self.kills, counted(&self.kills_by_kind))?;
        writeln!(f, "faults    {}", counted(&self.faults_by_kind))?;
        writeln!(
            f,
            "actions   {}  resent {}  events {}  seen {}  reconnects {}  drained in {} ms",
            self.actions, self.resent, self.events, self.seen, self.reconnects, self.drain_ms
        )?;
        if self.own_ends > 0 {
            writeln!(f, "ended     {} processes ended by themselves and were started again", self.own_ends)?;
        }
        if let Some(Had { starts, done, undone }) = &self.supervisor {
            let done: Vec<String> = done.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            writeln!(f, "supervisor started {starts} times, did {}; did not do {} things", done.join("  "), undone.len())?;
            undone.first().map_or(Ok(()), |first| writeln!(f, "           the first: {first}"))?;
        }
        if let Some(rude) = &self.rude {
            write!(f, "rude      joined {} times, sent {}", rude.joins, rude.actions)?;
            if let (Some(without), Some(with)) = (rude.others_p99_ms_without, rude.others_p99_ms_with) {
                write!(f, "; p99 of the others {without:.1} ms without it, {with:.1} ms with it, {:.2}x", with / without)?;
            }
            writeln!(f)?;
        }
        if let Some(nodes) = &self.nodes {
            let p99 = |p99: Option<f64>| p99.map_or_else(|| "-".to_owned(), |p99| format!("{p99:.1}"));
            writeln!(f, "nodes     p99 before the first fault {} ms", p99(nodes.before_p99_ms))?;
            writeln!(f, "fault               times  rooms  plays on after p50 ms      max  longest answer ms  p99 of others ms")?;
            for (kind, came) in &nodes.kinds {
                let [p50, max] = came.plays_on_ms;
                let (faults, rooms, longest, others) = (came.faults, came.rooms, came.longest_answer_ms, p99(came.others_p99_ms));
                writeln!(f, "{kind:<18}  {faults:>5}  {rooms:>5}  {p50:>21}  {max:>7}  {longest:>17}  {others:>16}")?;
            }
        }
        let line = |f: &mut fmt::Formatter<'_>, what: &str, r: &Recovery| {
            writeln!(f, "recovery  {what}: p50 {} ms  max {} ms  of {} kills", r.p50, r.max, r.kills)
        };
        for (kind, recovery) in &self.recovery_ms_by_kind {
            line(f, kind, recovery)?;
        }
        for told in &self.told {
            writeln!(f, "{told}")?;
        }
        write!(f, "audit    ")?;
        for (what, count) in self.faults.failures() {
            write!(f, " {what} {count} ")?;
        }
        let Faults { rolled_back, taken_back, fires, unproven, clamped, .. } = self.faults;
        write!(f, " rolled back {rolled_back}  unproven {unproven}  clamped {clamped}")?;
        if let Some(nodes) = &self.nodes {
            let Nodes { rooms_rolled_back, rolled_back_unexplained, .. } = nodes;
            write!(f, "  taken back {taken_back}  rooms rolled back {rooms_rolled_back}, unexplained {rolled_back_unexplained}")?;
        }
        if self.rules.is_some() { write!(f, "  timers fired {fires}") } else { Ok(()) }
    }
}
