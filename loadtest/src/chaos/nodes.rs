//! What came of faults of nodes: when the rooms of a node went on, and what those of all others noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use lasthit::types::{RoomId, ShardId};
use serde::Serialize;
use tokio::time::Instant;

use super::judge::Findings;
use super::plan::Kind;
use super::record::Record;
use super::servers::Hit;
use super::{in_ms, rude};

/// A fault of a node, with the rooms that it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) kind: Kind,
    /// From the start of the run.
    pub(super) from: Duration,
    /// All was as before again.
    pub(super) until: Duration,
    /// The rooms of its shards, as indexes.
    pub(super) rooms: Vec<usize>,
    /// Those that have another server since.
    pub(super) doubted: Vec<usize>,
}

impl Happened {
    pub(super) fn new(kind: Kind, hit: &Hit, start: Instant, rooms: &[RoomId], shards: u16) -> Self {
        let within = |hit: &[ShardId]| (0..rooms.len()).filter(|n| hit.contains(&ShardId::of(&rooms[*n], shards))).collect();
        Self {
            kind,
            from: hit.from.saturating_duration_since(start),
            until: hit.until.saturating_duration_since(start),
            rooms: within(&hit.shards),
            doubted: within(&hit.doubted),
        }
    }
}

/// What came of all faults of a kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Came {
    pub(super) faults: usize,
    /// Rooms that it happened to, each time that it did.
    pub(super) rooms: usize,
    /// From the fault to a room's first verdict on what was sent after it: of all rooms the median and the longest.
    pub(super) plays_on_ms: [u64; 2],
    /// The longest that an answer took in these rooms, of what was sent from just before the fault until all was as before.
    pub(super) longest_answer_ms: u64,
    /// Of all other rooms meanwhile, the 99th percentile of answers; None when there are too few.
    pub(super) others_p99_ms: Option<f64>,
}

/// What nodes did to the rooms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Nodes {
    /// The 99th percentile of all rooms before the first fault.
    pub(super) before_p99_ms: Option<f64>,
    /// Players that were told of a new era of a room whose shard never had another server.
    pub(super) rolled_back_unexplained: u64,
    pub(super) kinds: BTreeMap<String, Came>,
}

/// What was sent so long before a fault may be under way when it comes.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// See [`Nodes`]; nothing was broken in the `quiet` stretch.
pub(super) fn figures(happened: &[Happened], records: &[Record], quiet: Range<Duration>, findings: &Findings) -> Nodes {
    let doubted: BTreeSet<usize> = happened.iter().flat_map(|happened| happened.doubted.iter().copied()).collect();
    let unexplained = findings.renewed.iter().filter(|(room, _)| !doubted.contains(room)).map(|(_, times)| times).sum();
    let mut kinds: BTreeMap<String, Vec<&Happened>> = BTreeMap::new();
    happened.iter().for_each(|happened| kinds.entry(happened.kind.name()).or_default().push(happened));
    Nodes {
        before_p99_ms: rude::p99(records, quiet).map(in_ms),
        rolled_back_unexplained: unexplained,
        kinds: kinds.into_iter().map(|(kind, all)| (kind, came(&all, records))).collect(),
    }
}

fn came(all: &[&Happened], records: &[Record]) -> Came {
    let (mut played, mut longest, mut others) = (Vec::new(), Duration::ZERO, Vec::new());
    for happened in all {
        let mut first: BTreeMap<usize, Duration> = BTreeMap::new();
        for record in records {
            let is_hit = happened.rooms.contains(&record.room);
            for (sent, answered) in record.acted.iter().filter_map(|acted| Some((acted.sent, acted.answer?.at))) {
                let took = answered.saturating_sub(sent);
                let meanwhile = (happened.from.saturating_sub(UNDER_WAY)..happened.until).contains(&sent);
                if is_hit && sent >= happened.from {
                    let first = first.entry(record.room).or_insert(Duration::MAX);
                    *first = (*first).min(answered.saturating_sub(happened.from));
                }
                if is_hit && meanwhile {
                    longest = longest.max(took);
                } else if meanwhile {
                    others.push(took);
                }
            }
        }
        played.extend(first.into_values());
    }
    played.sort_unstable();
    let ms = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let at = |index: usize| played.get(index).copied().map_or(0, ms);
    Came {
        faults: all.len(),
        rooms: all.iter().map(|happened| happened.rooms.len()).sum(),
        plays_on_ms: [at(played.len().saturating_sub(1) / 2), at(played.len().saturating_sub(1))],
        longest_answer_ms: ms(longest),
        others_p99_ms: rude::of_100(others, 99).map(in_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Acted, Answer};
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn player(room: usize, acted: impl Iterator<Item = (u64, u64)>) -> Record {
        let acted = acted.map(|(sent, at)| Acted {
            id: String::new(),
            sent: ms(sent),
            sends: 1,
            answer: Some(Answer { at: ms(at), seq: 1 }),
        });
        Record { room, acted: acted.collect(), ..Record::default() }
    }

    #[test]
    fn the_rooms_of_a_node_are_apart_from_the_others() {
        let records = [
            player(0, [(990, 4000), (1500, 4100), (4200, 4250)].into_iter()),
            player(1, [(1100, 3000)].into_iter()),
            player(2, (0..400).map(|n| (1000 + n, 1002 + n + n % 100 / 99 * 6))),
        ];
        let kill = Happened { kind: Kind::NodeKill, from: ms(1000), until: ms(5000), rooms: vec![0, 1], doubted: vec![0, 1] };
        let findings = Findings { renewed: [(0, 3), (2, 2)].into(), ..Findings::default() };
        let nodes = figures(&[kill], &records, ms(0)..ms(1000), &findings);
        assert_eq!((nodes.before_p99_ms, nodes.rolled_back_unexplained), (None, 2), "room 2 kept its server");
        let came = &nodes.kinds["node-kill"];
        assert_eq!((came.faults, came.rooms, came.plays_on_ms, came.longest_answer_ms), (1, 2, [2000, 3100], 3010));
        assert_eq!(came.others_p99_ms, Some(8.0));
    }
}
