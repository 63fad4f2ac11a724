//! What must hold of timers, told from the record alone: what was set when, and what fired.

use std::collections::BTreeMap;

use super::ledger::RoomLog;
use super::rules::Said;
use super::world::{MS, World};
use crate::journal::Commit;
use crate::limits::FIRES_ALONE_MAX;
use crate::types::{Epoch, Moment, Outcome, ShardId, Verdict, VerdictKind};
use crate::wire::verdicts;

/// How much later than it is due a timer may fire while nothing goes wrong, in virtual time: a tick of a worker that does
/// not know of it, and a room that is loaded first.
const LATE_NS: u64 = 3_000 * MS;

#[derive(Debug, Clone)]
struct Set {
    due: u64,
    every: Option<u64>,
}

/// What a room's record says of its timers up to some verdict.
#[derive(Debug, Default)]
struct Timers {
    epoch: Option<(u32, Epoch)>,
    now: u64,
    last: Moment,
    set: BTreeMap<String, Set>,
    alone: u32,
}

impl Timers {
    /// The room's time at a moment.
    fn time_at(&self, moment: Moment) -> u64 {
        match self.epoch {
            Some((timeline, epoch)) if timeline == moment.timeline => self.now.max(epoch.ns + moment.ns),
            _ => self.now,
        }
    }

    fn take(&mut self, room: &str, verdict: &Verdict) {
        let moment = verdict.stamp.moment;
        let now = self.time_at(moment);
        if let Some(fire) = &verdict.fire {
            let of = format!("{room}: seq {} fires {fire:?} at {moment:?}, the room's time is {now}", verdict.seq);
            let set = self.set.get(&fire.name).cloned().unwrap_or_else(|| panic!("timer once: {of}: no such timer is set"));
            match set.every {
                None => assert_eq!((set.due, 0), (fire.due.0, fire.missed), "timer once: {of}"),
                Some(every) => {
                    let skipped =
                        fire.due.0.checked_sub(set.due).unwrap_or_else(|| panic!("timer once: {of}: due at {}", set.due));
                    assert_eq!(skipped % every, 0, "timer once: {of}: not one of its moments");
                    assert_eq!(fire.missed, skipped / every, "timer once: {of}: skipped");
                }
            }
            assert!(now >= fire.due.0, "timer early: {of}");
            assert!(moment >= self.last, "timer order: {of}: the room was at {:?}", self.last);
            let other =
                self.set.iter().find(|(name, other)| **name != fire.name && other.due < fire.due.0 && other.every.is_none());
            assert!(other.is_none(), "timer order: {of}: {other:?} was due before");
            match set.every {
                None => drop(self.set.remove(&fire.name)),
                Some(every) => self.set.get_mut(&fire.name).expect("it is set").due = fire.due.0 + every,
            }
            self.now = now.max(fire.due.0);
            self.alone += u32::from(set.every.is_none());
        } else {
            if verdict.kind == VerdictKind::Data {
                let passed = self.set.iter().find(|(_, set)| set.due < now && set.every.is_none());
                assert!(passed.is_none(), "timer order: {room}: seq {} at {moment:?} ({now}) passes {passed:?}", verdict.seq);
            }
            (self.now, self.alone) = (now, 0);
        }
        self.last = self.last.max(moment);
        if matches!(verdict.kind, VerdictKind::Data | VerdictKind::Timer)
            && !matches!(verdict.outcome, Outcome::Void(_) | Outcome::Repeat { .. })
            && let Some(body) = &verdict.body
        {
            let (name, after, repeats): Said = rmp_serde::from_slice(body).expect("what is said of a timer");
            match after {
                0 => drop(self.set.remove(&name)),
                _ => drop(self.set.insert(name, Set { due: self.now + after, every: repeats.then_some(after) })),
            }
        }
    }
}

/// Timer once, timer order, timer early.
pub(super) fn record(room: &str, log: &RoomLog) {
    read(room, log);
}

fn read(room: &str, log: &RoomLog) -> Timers {
    let mut timers = Timers::default();
    for bytes in &log.batches {
        let batch = verdicts::decode(bytes).expect("a batch");
        if let (Some(epoch), Some(first)) = (batch.epoch, batch.verdicts.first()) {
            timers.epoch = Some((first.stamp.moment.timeline, epoch));
            let turned = timers.time_at(first.stamp.moment);
            assert!(turned >= timers.now, "timer order: {room}: the room's time goes back at seq {}", first.seq);
        }
        for verdict in &batch.verdicts {
            timers.take(room, verdict);
        }
    }
    timers
}

/// Timer early: nothing fires before its moment has come for the host.
pub(super) fn committed(world: &World, commit: &Commit) {
    for part in commit.rooms.iter().filter(|part| !part.verdicts.is_empty()) {
        let batch = verdicts::decode(&part.verdicts).expect("a batch");
        for verdict in batch.verdicts.iter().filter(|v| v.kind == VerdictKind::Timer) {
            let now = Moment { timeline: world.timeline, ns: world.now };
            assert!(verdict.stamp.moment <= now, "timer early: {}: seq {} at {now:?}", part.room, verdict.seq);
        }
    }
}

/// Liveness: what is due fires, if its room lives on.
pub(super) fn liveness(world: &World) {
    let mut store = world.store.clone();
    for ((room, era), log) in world.ledger.rooms.iter().filter(|(life, _)| !world.ledger.left.contains(life)) {
        let timers = read(room.as_str(), log);
        let shard = ShardId::of(room, store.shards());
        let ended = store.heads(shard, std::slice::from_ref(room)).expect("a head").remove(0).era != *era;
        let now = timers.time_at(Moment { timeline: world.timeline, ns: world.now });
        for (name, set) in &timers.set {
            let kept = set.every.is_none() && timers.alone <= FIRES_ALONE_MAX;
            assert!(!ended || !kept, "liveness: room {room}.{era} has ended, and {name} is due at {}", set.due);
            assert!(ended || set.due + LATE_NS > now, "liveness: room {room}.{era}: {name} was due at {}, it is {now}", set.due);
        }
    }
}
