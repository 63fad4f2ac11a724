//! What really happened, kept outside of the processes: what the journal took in and made final, and the true arrivals.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::engine::RULES_FAILED;
use crate::journal::{Bell, Commit, CommitSnapshot, RoomCommit};
use crate::types::{Incarnation, Outcome, PlayerId, RoomId, ShardId, StreamId, Verdict};
use crate::wire::{failed, verdicts};

/// One life of a room.
#[derive(Debug, Default, Clone)]
pub(super) struct RoomLog {
    pub(super) entries: Vec<(StreamId, Bytes)>,
    pub(super) batches: Vec<Bytes>,
    pub(super) verdicts: Vec<Verdict>,
    /// Cursors and numbers of its snapshots.
    snapshots: Vec<(StreamId, u64)>,
    /// The number of the shard's home when a gateway's death was written. What the journal loses of a room is lost here too: a death
    /// may be written once more under an earlier number, which another host had.
    pub(super) deaths: BTreeMap<Incarnation, u32>,
    /// Verdicts up to here were no longer in the journal at some time.
    pub(super) trimmed: u64,
}

/// A message that a gateway took with it: whose, where, when it arrived.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) incarnation: Incarnation,
    pub(super) room: RoomId,
    pub(super) timeline: u32,
    pub(super) arrival_ns: u64,
}

/// Every life of a room, by its era.
pub(super) type Rooms = BTreeMap<(RoomId, u64), RoomLog>;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) rooms: Rooms,
    /// True arrivals of each action, once per time that it was sent: at which host, and by its clock.
    pub(super) arrivals: BTreeMap<(RoomId, PlayerId, String), BTreeSet<(u32, u64)>>,
    pub(super) lost: Vec<Lost>,
    /// Lives of rooms of which the journal has lost something.
    pub(super) shortened: BTreeSet<(RoomId, u64)>,
    /// Lives of rooms that went on in another era.
    pub(super) left: BTreeSet<(RoomId, u64)>,
    /// Watermarks of gateways that the journal has forgotten.
    pub(super) forgotten: BTreeMap<(ShardId, Incarnation), u64>,
    /// The journal's server that each shard was claimed on the last time.
    pub(super) claims: BTreeMap<ShardId, Incarnation>,
    /// Times that the journal came back with less than it had.
    pub(super) losses: u64,
    /// Bounds that somebody came up against.
    pub(super) reached: BTreeSet<&'static str>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Ledger {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn appended(&mut self, bell: &Bell, era_of: impl Fn(&RoomId) -> u64) {
        for (room, at, bytes) in &bell.entries {
            self.rooms.entry((room.clone(), era_of(room))).or_default().entries.push((*at, bytes.clone()));
        }
    }

    /// The journal has come back with what it had then.
    pub(super) fn rolled_back(&mut self, mut rooms: Rooms) {
        for (room, log) in &self.rooms {
            if rooms.get(room).is_none_or(|then| then.verdicts.len() < log.verdicts.len()) {
                self.shortened.insert(room.clone());
            }
        }
        for (life, log) in &self.rooms {
            if let Some(then) = rooms.get_mut(life) {
                then.trimmed = then.trimmed.max(log.trimmed);
            }
        }
        (self.rooms, self.losses) = (rooms, self.losses + 1);
    }

    /// A room goes on in another era, with everything that it has.
    pub(super) fn renewed(&mut self, room: &RoomId, old: u64, new: u64) {
        let log = self.rooms.get(&(room.clone(), old)).cloned().unwrap_or_default();
        let earlier = self.rooms.insert((room.clone(), new), log);
        assert!(
            earlier.is_none() && !self.shortened.contains(&(room.clone(), new)),
            "rolled back: era {new} of {room} comes twice"
        );
        self.left.insert((room.clone(), old));
        self.count("rooms that went back");
    }

    /// A commit took effect, and of the room's verdicts the journal has those after `trimmed`. Retention: at a snapshot, what
    /// lies before one that is older than twice the retention is gone, whoever owned the shard meanwhile.
    pub(super) fn kept(&mut self, part: &RoomCommit, trimmed: u64, retention_ms: u64) {
        let log = self.rooms.entry((part.room.clone(), part.era)).or_default();
        log.trimmed = log.trimmed.max(trimmed);
        let (cursor, to) = match &part.snapshot {
            None => return,
            Some(CommitSnapshot::Whole(_)) => (part.cursor, part.to),
            // It was taken before, and is put to use now.
            Some(CommitSnapshot::Parts { name, cursor, .. }) => (*cursor, name.seq),
        };
        let older = |than: StreamId| log.snapshots.iter().rev().find(|(at, _)| at.ms + retention_ms <= than.ms).copied();
        if let Some((_, seq)) = older(cursor).and_then(|(middle, _)| older(middle)) {
            let (room, era) = (&part.room, part.era);
            assert!(
                trimmed >= seq,
                "retention: room {room}.{era} has its verdicts after {trimmed}, those up to {seq} are too old"
            );
        }
        log.snapshots.push((cursor, to));
        if trimmed > 0 {
            self.reached.insert("retention");
            self.count("trimmed histories");
        }
    }

    /// A commit took effect.
    pub(super) fn committed(&mut self, commit: &Commit) {
        for part in commit.rooms.iter().filter(|part| part.to > part.from) {
            let log = self.rooms.entry((part.room.clone(), part.era)).or_default();
            let batch = verdicts::decode(&part.verdicts).expect("a committed batch");
            let next = log.verdicts.len() as u64;
            assert_eq!(part.from, next, "contiguity: room {} is at {next}, the commit begins at {}", part.room, part.from);
            for (verdict, seq) in batch.verdicts.iter().zip(part.from + 1..) {
                assert_eq!(verdict.seq, seq, "contiguity: room {} commits seq {} in the place of {seq}", part.room, verdict.seq);
            }
            let void = batch.verdicts.iter().filter(|v| matches!(&v.outcome, Outcome::Void(reason) if reason == RULES_FAILED));
            let void: Vec<u64> = void.map(|v| v.seq).collect();
            let kept = part.failed.iter().flat_map(|kept| &kept.records).map(|record| failed::decode(record).expect("a record"));
            let kept: Vec<u64> = kept
                .map(|(room, _, failed)| {
                    assert_eq!((&room, failed.era), (&part.room, part.era), "failed: kept for another room");
                    failed.seq
                })
                .collect();
            assert_eq!(kept, void, "failed: what is kept of {} is not what is void", part.room);
            if !void.is_empty() {
                self.reached.insert("failed events");
            }
            log.verdicts.extend(batch.verdicts);
            assert_eq!(log.verdicts.len() as u64, part.to, "contiguity: room {} commits up to {}", part.room, part.to);
            log.batches.push(part.verdicts.clone());
        }
    }
}
