//! What came of faults of nodes and hosts: when the rooms of one went on, what those of all others noticed, and what explains new eras.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use lasthit::types::{RoomId, ShardId};
use serde::Serialize;
use tokio::time::Instant;

use super::judge::Findings;
use super::layout::Layout;
use super::plan::Kind;
use super::record::Record;
use super::servers::Hit;
use super::{in_ms, rude};

/// A fault of a node or a host, with the rooms that it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) kind: Kind,
    /// From the start of the run.
    pub(super) from: Duration,
    /// All was as before again.
    pub(super) until: Duration,
    /// The rooms of its shards, as indexes.
    pub(super) rooms: Vec<usize>,
    /// Those that have another server since, as often as that happened to them.
    pub(super) doubted: Vec<usize>,
}

impl Happened {
    pub(super) fn new(kind: Kind, hit: &Hit, start: Instant, rooms: &[RoomId], shards: u16) -> Self {
        let shards: Vec<ShardId> = rooms.iter().map(|room| ShardId::of(room, shards)).collect();
        let of = |hit: &ShardId| shards.iter().enumerate().filter(|(_, shard)| *shard == hit).map(|(n, _)| n).collect::<Vec<_>>();
        let within = |hit: &[ShardId]| hit.iter().flat_map(of).collect();
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
    /// New eras of rooms: each room counts once for each of its own.
    pub(super) rooms_rolled_back: u64,
    /// Of them, those that nothing explains: whenever a shard gets another server, each of its rooms may begin one.
    pub(super) rolled_back_unexplained: u64,
    pub(super) kinds: BTreeMap<String, Came>,
}

/// What was sent so long before a fault may be under way when it comes.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// See [`Nodes`]; nothing was broken in the `quiet` stretch.
pub(super) fn figures(happened: &[Happened], records: &[Record], quiet: Range<Duration>, findings: &Findings) -> Nodes {
    let mut kinds: BTreeMap<String, Vec<&Happened>> = BTreeMap::new();
    happened.iter().for_each(|happened| kinds.entry(happened.kind.name()).or_default().push(happened));
    Nodes {
        before_p99_ms: rude::p99(records, quiet).map(in_ms),
        rooms_rolled_back: findings.renewed.len() as u64,
        rolled_back_unexplained: unexplained(happened, &findings.renewed),
        kinds: kinds.into_iter().map(|(kind, all)| (kind, came(&all, records))).collect(),
    }
}

/// New eras that nothing explains: of each room, those beyond as many as it had doubts before.
fn unexplained(happened: &[Happened], renewed: &BTreeMap<(usize, u64), Duration>) -> u64 {
    let mut rooms: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    renewed.iter().for_each(|((room, _), seen)| rooms.entry(*room).or_default().push(*seen));
    let mut unexplained = 0;
    for (room, mut seen) in rooms {
        seen.sort_unstable();
        let of = |happened: &Happened| happened.doubted.iter().filter(|doubted| **doubted == room).count();
        let mut explained = 0;
        for seen in seen {
            let doubts: usize = happened.iter().filter(|happened| happened.from <= seen).map(of).sum();
            if explained < doubts {
                explained += 1;
            } else {
                unexplained += 1;
            }
        }
    }
    unexplained
}

/// The rooms that may have lost what was acknowledged, because a replica of their node may have taken over.
pub(super) fn may_have_lost(happened: &[Happened], layout: Layout) -> BTreeSet<usize> {
    let elections = happened.iter().filter(|happened| happened.kind.may_take_back(layout));
    elections.flat_map(|happened| happened.rooms.iter().copied()).collect()
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
        let renewed = [((0, 2), ms(1400)), ((0, 3), ms(1600)), ((1, 5), ms(900)), ((2, 2), ms(4000))];
        let findings = Findings { renewed: renewed.into(), ..Findings::default() };
        let back = Happened { kind: Kind::SlotThereAndBack, from: ms(1500), doubted: vec![1, 0, 1], ..kill.clone() };
        let nodes = figures(std::slice::from_ref(&kill), &records, ms(0)..ms(1000), &findings);
        assert_eq!((nodes.before_p99_ms, nodes.rooms_rolled_back), (None, 4));
        assert_eq!(nodes.rolled_back_unexplained, 3, "once too often in room 0, too early in room 1, and room 2 kept its server");
        let both = [kill.clone(), back];
        assert_eq!(unexplained(&both, &findings.renewed), 2, "room 0 has had three servers");
        assert_eq!(may_have_lost(&both, Layout::Sentinel), [0, 1].into());
        assert_eq!(may_have_lost(&both[1..], Layout::Sentinel), [].into(), "a slot that moves loses nothing");
        let came = &nodes.kinds["node-kill"];
        assert_eq!((came.faults, came.rooms, came.plays_on_ms, came.longest_answer_ms), (1, 2, [2000, 3100], 3010));
        assert_eq!(came.others_p99_ms, Some(8.0));
    }
}
