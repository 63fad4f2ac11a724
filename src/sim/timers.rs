//! What must hold of timers, told from the record alone: what was set when, and what fired.

use std::collections::BTreeMap;

use super::ledger::RoomLog;
use super::rules::Said;
use super::world::{MS, World};
use crate::journal::{Commit, PageSize, Place};
use crate::limits::FIRES_ALONE_MAX;
use crate::types::{Epoch, Moment, Outcome, RoomId, ShardId, Verdict, VerdictKind};
use crate::wire::verdicts;

/// How much later than it is due a timer may fire while nothing goes wrong, in virtual time: its worker wakes up a little later.
const LATE_NS: u64 = 50 * MS;
/// How long after the last fault timers may be later than that: a worker comes back, and has the rooms to load first.
const SETTLED_NS: u64 = 3_000 * MS;

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
            let of = || format!("{room}: seq {} fires {fire:?} at {moment:?}, the room's time is {now}", verdict.seq);
            let set = self.set.get(&fire.name).cloned();
            let set = set.unwrap_or_else(|| panic!("timer once: {}: no such timer is set", of()));
            match set.every {
                None => assert_eq!((set.due, 0), (fire.due.0, fire.missed), "timer once: {}", of()),
                Some(every) => {
                    let skipped =
                        fire.due.0.checked_sub(set.due).unwrap_or_else(|| panic!("timer once: {}: due at {}", of(), set.due));
                    assert_eq!(skipped % every, 0, "timer once: {}: not one of its moments", of());
                    assert_eq!(fire.missed, skipped / every, "timer once: {}: skipped", of());
                }
            }
            assert!(now >= fire.due.0, "timer early: {}", of());
            assert!(moment >= self.last, "timer order: {}: the room was at {:?}", of(), self.last);
            let other =
                self.set.iter().find(|(name, other)| **name != fire.name && other.due < fire.due.0 && other.every.is_none());
            assert!(other.is_none(), "timer order: {}: {other:?} was due before", of());
            match set.every {
                None => drop(self.set.remove(&fire.name)),
                Some(every) => self.set.get_mut(&fire.name).expect("it is set").due = fire.due.0 + every,
            }
            self.now = now.max(fire.due.0);
            self.alone += u32::from(set.every.is_none());
        } else {
            // A change of program is no event: whoever is inside has not acted.
            if verdict.kind == VerdictKind::Rules {
                return;
            }
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

/// Timer once, timer order, timer early. Liveness: what is due fires, if its room lives on.
pub(super) fn record(world: &World, (room, era): (&RoomId, u64), log: &RoomLog) {
    let timers = read(&format!("room {room}.{era}"), log);
    if world.ledger.left.contains(&(room.clone(), era)) {
        return;
    }
    let shard = ShardId::of(room, world.store.shards());
    let here = world.home_host(shard).map_or(0, |host| host.local(world.now));
    let now = timers.time_at(Moment { timeline: world.store.home(shard), ns: here });
    let ended = !world.lives(room, era);
    for (name, set) in &timers.set {
        let kept = set.every.is_none() && timers.alone <= FIRES_ALONE_MAX;
        assert!(!ended || !kept, "liveness: room {room}.{era} has ended, and {name} is due at {}", set.due);
        assert!(ended || set.due + SETTLED_NS > now, "liveness: room {room}.{era}: {name} was due at {}, it is {now}", set.due);
    }
}

/// A shard has a new owner, and the last one died: in each room with a timer that was due by then, that death counts (rule C6).
pub(super) fn owner_died(world: &World, shard: ShardId, wall_ms: u64) {
    let of_shard = |room: &RoomId| ShardId::of(room, world.store.shards()) == shard;
    for ((room, era), log) in world.ledger.rooms.iter().filter(|((room, _), _)| of_shard(room)) {
        if world.lives(room, *era)
            && let Some(due) = read(room.as_str(), log).set.values().map(|set| set.due).min()
            && due / MS <= wall_ms
        {
            let deaths = world.store.load(room, Place::default(), PageSize::default()).head.deaths;
            assert!(
                deaths > 0,
                "deaths: the owner of room {room}.{era} died when a timer was due at {due}, and it does not count"
            );
        }
    }
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

/// Timer early: nothing fires before its moment has come for the host. Liveness: what is due fires soon while nothing goes wrong.
pub(super) fn committed(world: &World, commit: &Commit) {
    let host = world.home_host(commit.shard);
    let settled = world.calm_since.zip(host).map(|(since, host)| host.wall(since) + SETTLED_NS);
    for part in commit.rooms.iter().filter(|part| !part.verdicts.is_empty()) {
        let batch = verdicts::decode(&part.verdicts).expect("a batch");
        for verdict in batch.verdicts.iter().filter(|v| v.kind == VerdictKind::Timer) {
            let now = Moment { timeline: commit.lease.home, ns: host.map_or(u64::MAX, |host| host.local(world.now)) };
            assert!(verdict.stamp.moment <= now, "timer early: {}: seq {} at {now:?}", part.room, verdict.seq);
            let fire = verdict.fire.as_ref().expect("a fire");
            let soon = settled.is_none_or(|settled| fire.due.0 < settled || fire.late_ns < LATE_NS);
            assert!(soon, "liveness: {}: seq {} fires {fire:?}, that is too late", part.room, verdict.seq);
        }
    }
}
