//! A lane's jobs: to resolve a batch of events, or to restore a stored room. They are pure functions and run on any thread.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

mod parts;

use self::parts::{gateways, is_of_death, push_for, split};
use super::restore::{Loaded, restore_room};
use crate::engine::{Held, HostClock, Known, Room, Trouble, Unproven};
use crate::journal::Gathering;
use crate::rules::{Fault, Library, Rules, RulesFactory, Unopened};
use crate::types::{Flags, Incarnation, Moment, Outcome, ProgramId, RoomId, ShardId, Stamp, Verdict, VerdictBatch};
use crate::wire::{failed, verdicts};

/// The size of a verdict without its body, roughly: its names, numbers and stamp.
const VERDICT_BYTES: usize = 256;

/// How far a job has come. The watchdog reads it from another thread.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<At>);

/// Where a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum At {
    /// It has not begun.
    #[default]
    Waiting,
    /// It restores the room, up to the verdict with this `seq` so far.
    Restoring(u64),
    /// A program outside is asked about this event, and perhaps the next ones. Its budget bounds the time that it takes, not the watchdog.
    Asking(Stamp),
    /// The rules resolve this event.
    Event(Stamp),
    /// The result is put together, and the rules write their state.
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

/// Which lane a job belongs to. A lane has one job at a time.
#[derive(Debug, Clone)]
pub(crate) struct LaneId {
    pub(super) shard: ShardId,
    /// The lease's epoch, which differs from that of an earlier ownership.
    pub(super) epoch: u64,
    pub(super) room: RoomId,
    /// The lane's token, which differs from that of an earlier lane of the room.
    pub(super) token: u64,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most jobs resolve: they are not worth an allocation each")]
pub(crate) enum Job {
    Resolve(Resolving),
    Load(Box<Loading>),
}

/// A job that resolves released events of one room.
pub(crate) struct Resolving {
    pub(super) of: LaneId,
    pub(super) room: Box<Room>,
    /// The push that the room is to change to first, and its rules.
    pub(super) change: Option<(u64, Box<dyn Rules>)>,
    pub(super) events: Vec<Held>,
    /// The clocks of this host, and the time now.
    pub(super) clock: HostClock,
    pub(super) now_ns: u64,
    /// After the events, timers fire up to here. Those that are due before an event fire before it.
    pub(super) until: Option<Moment>,
    /// The most timers that fire. Events that come after the next one are handed back.
    pub(super) fires_max: usize,
    /// The stretches of dead gateways, in which a fire is not proven (rule T2).
    pub(super) unproven: Vec<Unproven>,
    /// Events on which the rules failed before, and what they did: their verdicts are void.
    pub(super) poisoned: BTreeMap<Stamp, String>,
    /// Whether to take a snapshot after them.
    pub(super) snapshot: bool,
    /// The most bytes of verdicts and pushes in one part of the result.
    pub(super) bytes_max: usize,
    /// Whether it must run on a thread that is watched, however quick its rules are: it may hang.
    pub(super) watched: bool,
}

impl std::fmt::Debug for Resolving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolving").field("room", &self.of.room).field("events", &self.events.len()).finish_non_exhaustive()
    }
}

/// A job that restores a stored room.
pub(crate) struct Loading {
    pub(super) of: LaneId,
    pub(super) stored: Gathering,
    /// What a new room begins with, and the number of its push.
    pub(super) rules: RulesFactory,
    pub(super) push: u64,
    pub(super) library: Arc<dyn Library>,
}

impl Loading {
    /// Whether it takes so long that small rooms should not queue behind it.
    pub(super) fn is_large(&self) -> bool {
        self.stored.is_large()
    }
}

impl std::fmt::Debug for Loading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loading").field("room", &self.of.room).finish_non_exhaustive()
    }
}

/// A job's result. The core takes it as `Input::Done`.
#[derive(Debug)]
pub(crate) struct Done {
    pub(super) of: LaneId,
    pub(super) outcome: DoneOutcome,
    /// What the room's program had trouble with.
    pub(super) trouble: Trouble,
    /// Why a program outside did not decide the events that came back.
    pub(super) fault: Option<Fault>,
}

impl Done {
    /// The job panicked there.
    fn panicked(of: LaneId, at: At, panic: &(dyn std::any::Any + Send)) -> Self {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        let outcome = match at {
            At::Asking(stamp) | At::Event(stamp) => DoneOutcome::Panicked { stamp, message },
            At::Restoring(_) => DoneOutcome::Unloadable("the rules panicked while the room was restored".to_owned()),
            At::Waiting | At::Snapshot => DoneOutcome::Unloadable(format!("its job panicked: {message}")),
        };
        Self { of, outcome, trouble: Trouble::default(), fault: None }
    }
}

#[derive(Debug)]
pub(super) enum DoneOutcome {
    /// The room after the events, and the result in parts that a commit can carry: none if nothing was to be done. The last
    /// events were not resolved if more timers are due before them than one job lets fire.
    Resolved(Box<Room>, VecDeque<Resolved>, Vec<Held>),
    /// The rules panicked on this event. The room's state is lost; it must be loaded again.
    Panicked {
        stamp: Stamp,
        message: String,
    },
    Loaded(Box<Loaded>),
    /// The stored room cannot be continued.
    Unloadable(String),
    /// To restore the room, this program is to be read first.
    Wants(ProgramId, Box<Loading>),
}

/// Counts of verdicts, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) granted: u64,
    pub(crate) denied: u64,
    pub(crate) void: u64,
    pub(crate) repeat: u64,
    pub(crate) clamped: u64,
    pub(crate) unproven: u64,
    pub(crate) photo_finish: u64,
    /// The sum of their waits, from their resolution until their commit was sent.
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
    /// For each gateway process that is concerned: the verdicts that its sessions may see.
    pub(super) pushes: Vec<(Incarnation, Bytes)>,
    /// The gateways with sessions inside after it. None if another part follows.
    pub(super) inside: Option<Vec<Incarnation>>,
    pub(super) snapshot: Option<Bytes>,
    /// The state of the program outside that decides the room, if it has changed.
    pub(super) program: Option<Bytes>,
    /// What the rules failed on in it, as the journal keeps it.
    pub(super) failed: Vec<Bytes>,
}

impl Resolved {
    /// How many bytes it adds to a commit.
    pub(super) fn bytes(&self) -> usize {
        let pushes: usize = self.pushes.iter().map(|(_, push)| push.len()).sum();
        let others = [&self.snapshot, &self.program].into_iter().flatten().chain(&self.failed).map(Bytes::len).sum::<usize>();
        self.verdicts.len() + pushes + others
    }
}

impl Job {
    /// Whether it takes microseconds an event, so that the worker's own loop may run it.
    pub(crate) fn is_quick(&self) -> bool {
        matches!(self, Self::Resolve(job) if job.room.is_quick() && !job.watched)
    }

    /// Whether a program inside the worker decides, which has threads of its own.
    pub(crate) fn is_program(&self) -> bool {
        match self {
            Self::Resolve(job) => job.room.program_name().is_some(),
            Self::Load(job) => (job.rules)().is_program(),
        }
    }

    /// The name of the program inside the worker whose events it resolves, if it does.
    pub(crate) fn program(&self) -> Option<String> {
        if let Self::Resolve(job) = self { job.room.program_name().map(str::to_owned) } else { None }
    }

    /// The lane that it belongs to.
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

    /// Runs it unwatched.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn run(self) -> Done {
        self.run_watched(&Progress::default())
    }

    /// Runs it, and reports how far it has come.
    #[must_use]
    pub(crate) fn run_watched(self, progress: &Progress) -> Done {
        let of = self.of().clone();
        // A room whose job panics is dropped with the job: nothing sees it half changed.
        let done = catch_unwind(AssertUnwindSafe(|| match self {
            Self::Resolve(job) => job.run(progress),
            Self::Load(job) => job.run(progress),
        }));
        done.unwrap_or_else(|panic| Done::panicked(of, progress.at(), panic.as_ref()))
    }
}

impl Resolving {
    /// The names of its events; of the change or else the next fire, if it has none.
    pub(super) fn names(&self) -> Vec<Stamp> {
        match (self.events.iter().map(|held| held.stamp).collect::<Vec<_>>(), &self.change) {
            (names, Some((push, _))) if names.is_empty() => vec![self.room.change_name(*push)],
            (names, None) if names.is_empty() => vec![self.room.fire_name()],
            (names, _) => names,
        }
    }

    fn run(self, progress: &Progress) -> Done {
        let Self {
            of,
            mut room,
            change,
            events,
            clock,
            now_ns,
            until,
            fires_max,
            unproven,
            mut poisoned,
            snapshot,
            bytes_max,
            watched: _,
        } = self;
        let from = room.seq();
        let before: Vec<Incarnation> = gateways(&room);
        let mut watching = room.watching();
        let mut batches: Vec<VerdictBatch> = Vec::with_capacity(1);
        let mut events = VecDeque::from(events);
        let proof = until.max(events.back().map(|held| held.stamp.moment));
        // The state of a program outside goes with the commit of what led to it: its result has one part.
        let (outside, mut bytes, mut fault) = (room.asks_ahead(), 0, None);
        let bytes_most = bytes_max / (1 + before.len());
        let mut fires = 0;
        if let Some((push, next)) = change {
            let name = room.change_name(push);
            let known = poisoned.get(&name).map(|why| Known::Failed(why));
            progress.is(At::Event(name));
            let verdict = room.change_to(push, next, known);
            batches.extend(verdict.map(|verdict| VerdictBatch::of(room.era(), verdict)));
        }
        // What is void asks no program.
        let is_void = match events.front() {
            Some(held) => poisoned.contains_key(&held.stamp),
            None => poisoned.contains_key(&room.fire_name()),
        };
        match if is_void { Ok(None) } else { room.change_outside() } {
            Ok(None) => {}
            Ok(Some(verdict)) => batches.push(VerdictBatch::of(room.era(), verdict)),
            Err(other) => fault = Some(other),
        }
        // The state goes with the commit of what led to it: what follows has another one.
        let changes_only = outside && (fault.is_some() || !batches.is_empty());
        loop {
            if changes_only {
                break;
            }
            if let Some(proof) = proof.filter(|_| room.next_due().is_some() && !poisoned.contains_key(&room.fire_name())) {
                progress.is(At::Event(room.fire_name()));
                room.thin_out(clock, proof, events.front().map(|held| held.stamp.moment));
            }
            let limit = events.front().map(|held| held.stamp.moment).or(until);
            let place = limit.and_then(|limit| room.next_fire_by(clock, limit));
            // Until it has fired, a timer's place may move. So a fire is known by its number alone.
            let (stamp, name, held) = match place {
                Some(_) if fires == fires_max => break,
                Some(place) => (room.fire_stamp(place), room.fire_name(), None),
                None => match events.pop_front() {
                    Some(held) => (held.stamp, held.stamp, Some(held)),
                    None => break,
                },
            };
            let moment = if held.is_none() { room.next_moment(clock) } else { None };
            let kept = room.time_kept();
            let epoch = room.keep_time(clock, stamp.moment);
            // A batch has one timeline, and one epoch.
            let same =
                |last: &VerdictBatch| last.verdicts.last().is_some_and(|v| v.stamp.moment.timeline == stamp.moment.timeline);
            let anew =
                epoch.is_some() || !batches.last().is_some_and(same) || batches.last().is_some_and(VerdictBatch::is_change);
            if outside {
                progress.is(At::Asking(name));
                let last = batches.last().and_then(|batch| batch.verdicts.last());
                let amid = last.zip(held.as_ref()).is_some_and(|(last, held)| is_of_death(last, held));
                let full = last.is_some() && bytes >= bytes_most && !amid;
                let asked = match &held {
                    _ if full || anew && !batches.is_empty() => None,
                    Some(next) => {
                        Some(room.ask_ahead(next, events.iter(), room.next_fire(clock), |stamp| poisoned.contains_key(&stamp)))
                    }
                    None if poisoned.contains_key(&name) => Some(Ok(())),
                    None => Some(room.ask_for_fire(stamp.moment, (clock, now_ns))),
                };
                if let (Some(Err(fault)), true) = (&asked, amid) {
                    // A death is not cut: what the program did not decide of it is void.
                    poisoned.insert(name, fault.why().to_owned());
                } else if !matches!(asked, Some(Ok(()))) {
                    fault = asked.and_then(Result::err);
                    room.put_time_back(kept);
                    held.into_iter().for_each(|held| events.push_front(held));
                    break;
                }
            }
            if anew {
                let verdicts = Vec::with_capacity(events.len() + 1);
                batches.push(VerdictBatch { era: room.era(), epoch, decided: None, verdicts });
            }
            let known = poisoned.get(&name).map(|why| Known::Failed(why));
            progress.is(At::Event(name));
            let verdict = match &held {
                Some(held) => Some(room.resolve(held, known)),
                None => {
                    let covers = |moment| unproven.iter().any(|stretch| stretch.covers(Stamp { moment, ..stamp }));
                    let unproven = covers(stamp.moment) || moment.is_some_and(covers);
                    let flags = if unproven { Flags::UNPROVEN } else { Flags::default() };
                    room.fire(stamp.moment, (clock, now_ns), flags, known)
                }
            };
            fires += usize::from(held.is_none());
            let size = |v: &Verdict| VERDICT_BYTES + v.body.as_ref().map_or(0, Bytes::len) + room.failed_bytes(v.seq);
            bytes += verdict.as_ref().map_or(0, size);
            if let Some(batch) = batches.last_mut() {
                batch.verdicts.extend(verdict);
            }
        }
        progress.is(At::Snapshot);
        let inside = gateways(&room);
        // A process takes what it is told for all its turns: one push has what any of them may see.
        let mut concerned: Vec<Incarnation> = inside.iter().chain(&before).map(|gateway| gateway.process()).collect();
        concerned.sort_unstable();
        concerned.dedup();
        // Also gateways whose only session was not let in: they wait for the verdicts on its events.
        for gateway in batches.iter().flat_map(|batch| &batch.verdicts).map(|verdict| verdict.stamp.incarnation.process()) {
            if gateway != Incarnation::NONE
                && let Err(place) = concerned.binary_search(&gateway)
            {
                concerned.insert(place, gateway);
            }
        }
        // A game server that leaves within this batch sees the verdicts before that.
        watching.extend(room.watching());
        let watching: BTreeSet<Incarnation> = watching.into_iter().map(Incarnation::process).collect();
        let trouble = room.take_trouble();
        let wall_ms = if clock.epoch_ns == 0 { 0 } else { clock.epoch_ns.saturating_add(now_ns) / 1_000_000 };
        let mut seq = from;
        let part_bytes = if outside { usize::MAX } else { bytes_max / (1 + concerned.len()) };
        let all = batches.into_iter().flat_map(|batch| {
            let to = batch.verdicts.last().map_or(seq, |v| v.seq);
            let from = std::mem::replace(&mut seq, to);
            split(batch, part_bytes, from, |seq| trouble.failures_of(seq).map(failed::bytes_of).sum())
        });
        let mut parts: VecDeque<Resolved> = all
            .map(|(from, to, batch)| {
                let mut tally = Tally::default();
                batch.verdicts.iter().for_each(|verdict| tally.count(verdict));
                let verdicts = verdicts::encode(&batch);
                let push = |gateway: &Incarnation| (*gateway, push_for(*gateway, watching.contains(gateway), &batch, &verdicts));
                let pushes = concerned.iter().map(push).collect();
                let verdicts = match room.take_decided(to) {
                    Some(decided) => verdicts::encode(&VerdictBatch { decided: Some(decided), ..batch }),
                    None => verdicts,
                };
                let failures = trouble.failures.iter().filter(|failed| (from + 1..=to).contains(&failed.seq));
                let failed = failures.map(|failed| failed::encode(&of.room, wall_ms, failed)).collect();
                Resolved { from, to, verdicts, tally, pushes, inside: None, snapshot: None, program: None, failed }
            })
            .collect();
        if let Some(last) = parts.back_mut() {
            last.inside = Some(inside);
            last.program = room.take_program_state();
            last.snapshot = snapshot.then(|| room.snapshot());
        }
        Done { of, outcome: DoneOutcome::Resolved(room, parts, events.into()), trouble, fault }
    }
}

impl Loading {
    fn run(self, progress: &Progress) -> Done {
        progress.is(At::Restoring(0));
        let (stored, wanted) = (self.stored.clone(), Cell::new(None));
        let (of, rules, push, library) = (self.of.clone(), (self.rules)(), self.push, &self.library);
        let open = |program| {
            library.open(&of.room, program).map_err(|unopened| match unopened {
                Unopened::Failed(why) => why,
                Unopened::Unread => {
                    wanted.set(Some(program));
                    String::new()
                }
            })
        };
        let loaded = restore_room(&of.room, stored.room(), (rules, push), &open, |seq| progress.is(At::Restoring(seq)));
        let outcome = match (loaded, wanted.take()) {
            (Ok(loaded), _) => DoneOutcome::Loaded(Box::new(loaded)),
            (Err(_), Some(program)) => DoneOutcome::Wants(program, Box::new(self)),
            (Err(why), None) => DoneOutcome::Unloadable(why),
        };
        Done { of, outcome, trouble: Trouble::default(), fault: None }
    }
}

#[cfg(test)]
mod tests;
