//! The time from a kill until everything that it affected works again: until the last affected room (or player, if a gateway was
//! killed) has a verdict on an action that was sent after the kill.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::plan::Kind;
use super::record::Record;

/// The rooms or players that a kill affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Affected {
    /// The rooms of a worker's shards, as indexes.
    Rooms(Vec<usize>),
    /// The players on a gateway, as indexes.
    Players(Vec<usize>),
    /// It could not be found out: Redis did not say who owned what.
    Unknown,
}

/// One kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Killed {
    /// From the start of the run.
    pub(crate) at: Duration,
    /// The kind of the killed process.
    pub(crate) kind: Kind,
    /// The affected rooms or players.
    pub(crate) affected: Affected,
}

/// Recovery times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Recovery {
    /// Kills that touched somebody and whose recovery was seen.
    pub(crate) kills: usize,
    /// Of them, the median.
    pub(crate) p50: u64,
    /// The longest.
    pub(crate) max: u64,
}

/// One kill, for the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Recovered {
    at_s: f64,
    kind: String,
    /// None when nobody was touched, or when it is not known who, or when the run ended before.
    recovery_ms: Option<u64>,
}

/// Every kill.
pub(crate) fn recovered(killed: &[Killed], records: &[Record]) -> Vec<Recovered> {
    let one = |kill: &Killed| Recovered {
        at_s: kill.at.as_secs_f64(),
        kind: kill.kind.name(),
        recovery_ms: took(kill, records).map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
    };
    killed.iter().map(one).collect()
}

/// Of all kills together, and by kind.
pub(crate) fn recovery(killed: &[Killed], records: &[Record]) -> (Recovery, BTreeMap<String, Recovery>) {
    let mut by_kind: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for kill in killed {
        if let Some(took) = took(kill, records) {
            by_kind.entry(kill.kind.name()).or_default().push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
    }
    let all = by_kind.values().flatten().copied().collect();
    (quantiles(all), by_kind.into_iter().map(|(kind, took)| (kind, quantiles(took))).collect())
}

/// None when nobody was touched, or when the run ended before the last of them went on.
fn took(kill: &Killed, records: &[Record]) -> Option<Duration> {
    let next = |record: &Record| {
        let after = record.acted.iter().filter(|acted| acted.sent >= kill.at);
        after.filter_map(|acted| acted.answer.map(|answer| answer.at.saturating_sub(kill.at))).min()
    };
    let each: Vec<Option<Duration>> = match &kill.affected {
        Affected::Rooms(rooms) => {
            let played = |room: &usize| records.iter().filter(|r| r.room == *room).collect::<Vec<_>>();
            rooms.iter().map(played).map(|players| players.into_iter().filter_map(next).min()).collect()
        }
        Affected::Players(players) => players.iter().map(|n| records.get(*n).and_then(next)).collect(),
        Affected::Unknown => Vec::new(),
    };
    each.into_iter().collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn quantiles(mut took: Vec<u64>) -> Recovery {
    took.sort_unstable();
    let at = |index: usize| took.get(index).copied().unwrap_or_default();
    Recovery { kills: took.len(), p50: at(took.len().saturating_sub(1) / 2), max: at(took.len().saturating_sub(1)) }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Acted, Answer};
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A player whose actions were sent and answered at these times.
    fn player(room: usize, acted: &[(u64, u64)]) -> Record {
        let acted = acted.iter().map(|(sent, at)| Acted {
            id: String::new(),
            sent: ms(*sent),
            sends: 1,
            answer: (*at > 0).then_some(Answer { at: ms(*at), seq: 1 }),
        });
        Record { room, acted: acted.collect(), ..Record::default() }
    }

    fn killed(kind: Kind, affected: Affected) -> Killed {
        Killed { at: ms(1000), kind, affected }
    }

    #[test]
    fn the_slowest_room_counts_by_its_first_verdict_on_what_was_sent_after_the_kill() {
        let records =
            [player(0, &[(900, 1001), (1100, 1900)]), player(0, &[(1050, 1800)]), player(1, &[(1200, 2300), (1300, 0)])];
        let worker = |rooms: &[usize]| killed(Kind::WorkerKill, Affected::Rooms(rooms.to_vec()));
        let kills = [worker(&[0]), worker(&[0, 1]), worker(&[]), killed(Kind::WorkerKill, Affected::Unknown)];
        let (all, by_kind) = recovery(&kills, &records);
        assert_eq!(all, Recovery { kills: 2, p50: 800, max: 1300 });
        assert_eq!(by_kind.into_iter().collect::<Vec<_>>(), [("worker-kill".to_owned(), all)]);
    }

    #[test]
    fn every_player_of_a_gateway_counts() {
        let records = [player(0, &[(1100, 1200)]), player(0, &[(1100, 1600)]), player(0, &[(500, 600)])];
        let gateway = |players: &[usize]| killed(Kind::GatewayKill, Affected::Players(players.to_vec()));
        assert_eq!(recovery(&[gateway(&[0, 1])], &records).0, Recovery { kills: 1, p50: 600, max: 600 });
        // One that was not seen to go on is none that went on at once.
        assert_eq!(recovery(&[gateway(&[0, 2])], &records).0.kills, 0);
    }
}
