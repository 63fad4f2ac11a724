//! What a run on several hosts says in the end.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::HostsConfig;
use super::fleet::Kind;
use super::race::Races;
use crate::chaos::judge::{Faults, Findings};
use crate::chaos::record::{Record, RoomRecord};

/// What was done to a host.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// From the start of the run.
    pub(super) at: Duration,
    pub(super) kind: Kind,
    pub(super) host: usize,
    /// The rooms that were at home there, as indexes.
    pub(super) rooms: Vec<usize>,
    /// The next fault comes then.
    pub(super) until: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
struct Told {
    kind: &'static str,
    host: usize,
    at_s: f64,
    rooms: usize,
    /// Rooms in which nobody played on before the next fault.
    stuck: usize,
    /// From the fault to a room's first verdict on what was sent after it: of all rooms the median, the 99th percentile, the longest.
    plays_on_ms: [u64; 3],
    /// The longest that an answer took of all actions that were sent from the fault to the next one, with all that its player had to do for
    /// it.
    longest_answer_ms: u64,
}

/// The figures and the audit of a run; its serialized form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HostsReport {
    seed: u64,
    duration_s: f64,
    hosts: usize,
    /// The size of the cluster that is the journal, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    gateways: usize,
    workers: usize,
    players: usize,
    rooms: usize,
    profile: &'static str,
    cpus: usize,
    passed: bool,
    races: Races,
    actions: usize,
    resent: usize,
    events: usize,
    #[serde(flatten)]
    faults: Faults,
    did: Vec<Told>,
    ended_by_themselves: usize,
    /// The first faults, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    told: Vec<String>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Told {
    fn of(fault: &Fault, records: &[Record]) -> Self {
        let inside = |room: usize| records.iter().filter(move |record| record.room == room).flat_map(|record| &record.acted);
        let sent = |room| inside(room).filter(|acted| (fault.at..fault.until).contains(&acted.sent));
        let next =
            |room: &usize| sent(*room).filter_map(|acted| acted.answer).map(|answer| answer.at.saturating_sub(fault.at)).min();
        let each: Vec<Option<Duration>> = fault.rooms.iter().map(next).collect();
        let mut took: Vec<u64> = each.iter().flatten().map(|took| ms(*took)).collect();
        took.sort_unstable();
        let quantile =
            |of_100: usize| took.get((took.len() * of_100).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        let answers = fault.rooms.iter().flat_map(|room| sent(*room));
        let answers = answers.filter_map(|acted| Some(ms(acted.answer?.at.saturating_sub(acted.sent))));
        Self {
            kind: fault.kind.name(),
            host: fault.host + 1,
            at_s: fault.at.as_secs_f64(),
            rooms: fault.rooms.len(),
            stuck: each.iter().filter(|took| took.is_none()).count(),
            plays_on_ms: [quantile(50), quantile(99), quantile(100)],
            longest_answer_ms: answers.max().unwrap_or_default(),
        }
    }
}

impl HostsReport {
    pub(super) fn new(
        config: &HostsConfig,
        faults: &[Fault],
        records: &[Record],
        rooms: &[RoomRecord],
        findings: Findings,
        races: Races,
        ended_by_themselves: usize,
    ) -> Self {
        let acted = || records.iter().flat_map(|record| &record.acted);
        let mut report = Self {
            seed: config.seed,
            duration_s: config.duration.as_secs_f64(),
            hosts: config.hosts,
            cluster: config.cluster.map(|nodes| nodes.to_string()),
            gateways: config.gateways,
            workers: config.workers,
            players: config.players,
            rooms: config.rooms,
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            passed: false,
            races,
            actions: acted().count(),
            resent: acted().filter(|acted| acted.sends > 1).count(),
            events: rooms.iter().map(|room| room.verdicts.len()).sum(),
            faults: findings.faults,
            did: faults.iter().map(|fault| Told::of(fault, records)).collect(),
            ended_by_themselves,
            told: findings.told,
        };
        report.passed = report.failure().is_none();
        report
    }

    /// What the audit found, in one line; None when everything was as promised.
    pub(crate) fn failure(&self) -> Option<String> {
        let races = [
            ("races wrong and unflagged", self.races.wrong_unflagged),
            ("races without one winner", self.races.not_one_winner),
            ("race actions lost", self.races.lost),
            ("rooms that did not play on", self.did.iter().map(|told| told.stuck as u64).sum()),
            ("supervisors ended by themselves", self.ended_by_themselves as u64),
        ];
        let found = self.faults.failures().into_iter().chain(races).filter(|(_, count)| *count > 0);
        let mut failures: Vec<String> = found.map(|(what, count)| format!("{count} {what}")).collect();
        if self.actions == 0 || self.races.close == 0 {
            failures.push("nobody played".to_owned());
        }
        (!failures.is_empty()).then(|| format!("audit failed, seed {}: {}", self.seed, failures.join(", ")))
    }
}

impl fmt::Display for HostsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, {} s: {} hosts of {} gateways and {} workers{}, {} players in {} rooms",
            self.seed,
            self.duration_s,
            self.hosts,
            self.gateways,
            self.workers,
            self.cluster.as_ref().map_or_else(String::new, |size| format!(" on a cluster of {size}")),
            self.players,
            self.rooms
        )?;
        writeln!(f, "actions   {}  resent {}  events {}", self.actions, self.resent, self.events)?;
        let Races { close, wrong, wrong_unflagged, flagged, broken, not_one_winner, lost } = self.races;
        writeln!(
            f,
            "races     {close} close  wrong {wrong}  wrong and unflagged {wrong_unflagged}  flagged {flagged}  with a broken connection {broken}  \
             not one winner {not_one_winner}  lost {lost}"
        )?;
        writeln!(f, "fault         host  rooms  plays on after p50 ms      p99      max  longest answer ms  stuck")?;
        for told in &self.did {
            let [p50, p99, max] = told.plays_on_ms;
            writeln!(
                f,
                "{:<12}  {:>4}  {:>5}  {p50:>21}  {p99:>7}  {max:>7}  {:>17}  {:>5}",
                told.kind, told.host, told.rooms, told.longest_answer_ms, told.stuck
            )?;
        }
        for told in &self.told {
            writeln!(f, "{told}")?;
        }
        write!(f, "audit    ")?;
        for (what, count) in self.faults.failures() {
            write!(f, " {what} {count} ")?;
        }
        write!(f, " rolled back {}  unproven {}  clamped {}", self.faults.rolled_back, self.faults.unproven, self.faults.clamped)
    }
}
