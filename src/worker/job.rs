//! The work that a lane does outside the worker's loop: resolving a batch, or bringing a stored room back.
//! Pure functions of what they are given; they may run on any thread.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parking_lot::Mutex;

use super::restore::{Loaded, bring_back};
use crate::engine::{Held, Known, RULES_FAILED, Room};
use crate::journal::Gathering;
use crate::rules::Rules;
use crate::types::{Audience, Flags, Incarnation, Outcome, RoomId, ShardId, Stamp, Verdict, VerdictBatch, VerdictKind};
use crate::wire::verdicts;

/// Bytes that a verdict counts as beside its body: its names, numbers and stamp.
const VERDICT_BYTES: usize = 256;

/// How far a job has come, for whoever watches it from another thread.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<At>);

/// Where a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum At {
    /// No thread has it yet.
    #[default]
    Waiting,
    /// So many recorded verdicts were resolved again.
    BringingBack(u64),
    /// The rules have this event.
    Event(Stamp),
    /// The room's state is written down.
    Snapshot,
}

impl Progress {
    pub(crate) fn at(&self) -> At {
        *self.0.lock()
    }

    pub(super) fn is(&self, at: At) {
        *self.0.lock() = at;
    }
}

/// Which lane a job is of. A lane has one job at a time.
#[derive(Debug, Clone)]
pub(crate) struct LaneId {
    pub(super) shard: ShardId,
    /// Of the lease: an earlier ownership of the shard has another.
    pub(super) epoch: u64,
    pub(super) room: RoomId,
    /// A room that is loaded again has another.
    pub(super) token: u64,
}

/// A lane's turn.
#[derive(Debug)]
pub(crate) enum Job {
    /// Resolve released events.
    Resolve(Resolving),
    /// Bring a stored room back.
    Load(Box<Loading>),
}

/// Released events of one room.
#[derive(Debug)]
pub(crate) struct Resolving {
    pub(super) of: LaneId,
    pub(super) room: Box<Room>,
    pub(super) events: Vec<Held>,
    /// Events that the rules failed on before: they get a void verdict.
    pub(super) poisoned: BTreeSet<Stamp>,
    pub(super) snapshot: bool,
    /// Bytes of verdicts and pushes in one part of what comes of it.
    pub(super) bytes_max: usize,
    /// It may not come back: never in the worker's own thread, however quick its rules.
    pub(super) watched: bool,
}

/// A stored room.
pub(crate) struct Loading {
    pub(super) of: LaneId,
    pub(super) stored: Gathering,
    pub(super) rules: Box<dyn Rules>,
}

impl Loading {
    /// Whether it takes long enough to hold up others.
    pub(super) fn is_large(&self) -> bool {
        self.stored.is_large()
    }
}

impl std::fmt::Debug for Loading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loading").field("room", &self.of.room).finish_non_exhaustive()
    }
}

/// What came of a job; goes back to the core as `Input::Done`.
#[derive(Debug)]
pub(crate) struct Done {
    pub(super) of: LaneId,
    pub(super) outcome: DoneOutcome,
}

#[derive(Debug)]
pub(super) enum DoneOutcome {
    /// What was resolved, in parts that a commit can carry; at least one.
    Resolved(Box<Room>, VecDeque<Resolved>),
    /// The rules panicked on this event; the room's state is lost and is loaded again.
    Panicked {
        stamp: Stamp,
        message: String,
    },
    Loaded(Box<Loaded>),
    /// The stored room cannot be continued.
    Unloadable(String),
}

/// Verdicts by what they say, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) granted: u64,
    pub(crate) denied: u64,
    pub(crate) void: u64,
    pub(crate) repeat: u64,
    pub(crate) clamped: u64,
    pub(crate) unproven: u64,
    pub(crate) photo_finish: u64,
    /// How long they waited, together, from their resolution until their commit left.
    pub(crate) waited_ns: u64,
}

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        *match verdict.outcome {
            Outcome::Granted => &mut self.granted,
            Outcome::Denied(_) => &mut self.denied,
            Outcome::Void(_) => &mut self.void,
            Outcome::Repeat { .. } => &mut self.repeat,
        } += 1;
        self.clamped += u64::from(verdict.flags.has(Flags::CLAMPED));
        self.unproven += u64::from(verdict.flags.has(Flags::UNPROVEN));
        self.photo_finish += u64::from(verdict.flags.has(Flags::PHOTO_FINISH));
    }

    pub(crate) fn total(&self) -> usize {
        usize::try_from(self.granted + self.denied + self.void + self.repeat).unwrap_or(usize::MAX)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.granted += other.granted;
        self.denied += other.denied;
        self.void += other.void;
        self.repeat += other.repeat;
        self.clamped += other.clamped;
        self.unproven += other.unproven;
        self.photo_finish += other.photo_finish;
        self.waited_ns = self.waited_ns.saturating_add(other.waited_ns);
    }
}

/// Verdicts of one room that are committed together.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) verdicts: Bytes,
    pub(super) tally: Tally,
    /// Per gateway with sessions inside: the verdicts that it has an audience for.
    pub(super) pushes: Vec<(Incarnation, Bytes)>,
    /// Gateways with sessions inside after it; None where another part follows.
    pub(super) inside: Option<Vec<Incarnation>>,
    pub(super) snapshot: Option<Bytes>,
}

impl Resolved {
    /// Bytes that a commit carries for it.
    pub(super) fn bytes(&self) -> usize {
        let pushes: usize = self.pushes.iter().map(|(_, push)| push.len()).sum();
        self.verdicts.len() + pushes + self.snapshot.as_ref().map_or(0, Bytes::len)
    }
}

impl Job {
    /// Whether it is a matter of microseconds an event.
    pub(crate) fn is_quick(&self) -> bool {
        matches!(self, Self::Resolve(job) if job.room.is_quick() && !job.watched)
    }

    /// Which lane it is of.
    pub(crate) fn of(&self) -> &LaneId {
        match self {
            Self::Resolve(job) => &job.of,
            Self::Load(job) => &job.of,
        }
    }

    /// The events that it resolves, in their order.
    pub(crate) fn events(&self) -> &[Held] {
        if let Self::Resolve(job) = self { &job.events } else { &[] }
    }

    /// Does it, and nobody watches.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn run(self) -> Done {
        self.run_watched(&Progress::default())
    }

    /// Does it, and shows how far it has come.
    #[must_use]
    pub(crate) fn run_watched(self, progress: &Progress) -> Done {
        match self {
            Self::Resolve(job) => job.run(progress),
            Self::Load(job) => job.run(progress),
        }
    }
}

impl Resolving {
    fn run(self, progress: &Progress) -> Done {
        let Self { of, mut room, events, poisoned, snapshot, bytes_max, watched: _ } = self;
        let from = room.seq();
        let before: Vec<Incarnation> = gateways(&room);
        let mut watching = room.watching();
        let mut batch = VerdictBatch { era: room.era(), verdicts: Vec::with_capacity(events.len()) };
        for held in &events {
            let known = poisoned.contains(&held.stamp).then_some(Known::Void(RULES_FAILED));
            progress.is(At::Event(held.stamp));
            // The room is thrown away when the rules panic, so nobody sees it half changed.
            match catch_unwind(AssertUnwindSafe(|| room.resolve(held, known))) {
                Ok(verdict) => batch.verdicts.push(verdict),
                Err(panic) => {
                    let message = panic.downcast_ref::<String>().cloned();
                    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
                    return Done { of, outcome: DoneOutcome::Panicked { stamp: held.stamp, message } };
                }
            }
        }
        let inside = gateways(&room);
        let mut concerned = inside.clone();
        concerned.extend(before);
        concerned.sort_unstable();
        concerned.dedup();
        // Also those whose only session may not join: they wait for what becomes of its events.
        for verdict in &batch.verdicts {
            if let Err(place) = concerned.binary_search(&verdict.stamp.incarnation) {
                concerned.insert(place, verdict.stamp.incarnation);
            }
        }
        // A game server that leaves with this batch may see what came before that.
        watching.extend(room.watching());
        let mut parts: VecDeque<Resolved> = split(batch, bytes_max / (1 + concerned.len()), from)
            .map(|(from, to, batch)| {
                let mut tally = Tally::default();
                batch.verdicts.iter().for_each(|verdict| tally.count(verdict));
                let verdicts = verdicts::encode(&batch);
                let push = |gateway: &Incarnation| (*gateway, push_for(*gateway, watching.contains(gateway), &batch, &verdicts));
                let pushes = concerned.iter().map(push).collect();
                Resolved { from, to, verdicts, tally, pushes, inside: None, snapshot: None }
            })
            .collect();
        if let Some(last) = parts.back_mut() {
            last.inside = Some(inside);
            last.snapshot = snapshot.then(|| {
                progress.is(At::Snapshot);
                room.snapshot()
            });
        }
        Done { of, outcome: DoneOutcome::Resolved(room, parts) }
    }
}

/// A batch in parts of so many bytes at most, or of one verdict; each with the `seq` before and after it. What the resequencer
/// releases together stays together: of a death that is decided in part, whoever takes over takes the rest for stale.
fn split(batch: VerdictBatch, bytes_max: usize, from: u64) -> impl Iterator<Item = (u64, u64, VerdictBatch)> {
    let era = batch.era;
    let (mut rest, mut seq) = (VecDeque::from(batch.verdicts), from);
    std::iter::from_fn(move || {
        let (mut bytes, mut state) = (0, None);
        let fits = |verdict: &&Verdict| {
            // A state that the Open before it found is not written again.
            let again = verdict.kind == VerdictKind::Open && std::mem::replace(&mut state, verdict.body.clone()) == verdict.body;
            bytes += VERDICT_BYTES + verdict.body.as_ref().filter(|_| !again).map_or(0, Bytes::len);
            bytes <= bytes_max
        };
        let mut count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        while let (Some(last), Some(next)) = (rest.get(count.wrapping_sub(1)), rest.get(count))
            && belong_together(last, next)
        {
            count += 1;
        }
        let verdicts: Vec<Verdict> = rest.drain(..count).collect();
        let before = std::mem::replace(&mut seq, verdicts.last()?.seq);
        Some((before, seq, VerdictBatch { era, verdicts }))
    })
}

/// As [`Resequencer::release`] has it: a death's events bear one stamp, and none of them acts.
fn belong_together(one: &Verdict, other: &Verdict) -> bool {
    let leaves = |v: &Verdict| matches!(v.kind, VerdictKind::End | VerdictKind::Error | VerdictKind::Close);
    let stamp = |v: &Verdict| (v.stamp.moment, v.stamp.incarnation);
    leaves(one) && leaves(other) && stamp(one) == stamp(other)
}

fn gateways(room: &Room) -> Vec<Incarnation> {
    let mut gateways: Vec<Incarnation> = room.sessions().map(|(session, _)| session.gateway).collect();
    gateways.dedup();
    gateways
}

/// The part of a batch that concerns a gateway; the whole batch's bytes where that is everything. What an Open says goes to the
/// gateway whose session joins.
fn push_for(gateway: Incarnation, watches: bool, batch: &VerdictBatch, whole: &Bytes) -> Bytes {
    let concerns = |v: &Verdict| watches || v.audience == Audience::Room || v.stamp.incarnation == gateway;
    let tells_others = |v: &Verdict| v.kind == VerdictKind::Open && v.body.is_some() && v.stamp.incarnation != gateway;
    if batch.verdicts.iter().all(|v| concerns(v) && !tells_others(v)) {
        return whole.clone();
    }
    let verdicts = batch.verdicts.iter().filter(|v| concerns(v)).map(|v| {
        let body = v.body.clone().filter(|_| !tells_others(v));
        Verdict { body, ..v.clone() }
    });
    verdicts::encode(&VerdictBatch { era: batch.era, verdicts: verdicts.collect() })
}

impl Loading {
    fn run(self, progress: &Progress) -> Done {
        let Self { of, stored, rules } = self;
        progress.is(At::BringingBack(0));
        let outcome =
            match catch_unwind(AssertUnwindSafe(|| bring_back(stored.room(), rules, |seq| progress.is(At::BringingBack(seq))))) {
                Ok(Ok(loaded)) => DoneOutcome::Loaded(Box::new(loaded)),
                Ok(Err(why)) => DoneOutcome::Unloadable(why),
                Err(_) => DoneOutcome::Unloadable("the rules panicked while the room was brought back".to_owned()),
            };
        Done { of, outcome }
    }
}

#[cfg(test)]
mod tests;
