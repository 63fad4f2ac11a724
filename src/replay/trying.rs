//! What another program would have decided of a recorded room: the same events in the same order, decided by it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Recording, ReplayError};
use crate::engine::{Known, Room};
use crate::limits::TRIED_FIRES_MAX;
use crate::rules::Rules;
use crate::rules::js::{Checking, JsRules, Program};
use crate::types::{ProgramId, Verdict, VerdictKind};
use crate::wire::{entry, verdicts};
use crate::worker::{self, Unresolved};

/// A program, tried on a recorded room.
#[derive(Debug)]
pub(crate) struct Tried {
    /// The first verdict that was decided again: 1 unless the beginning was trimmed.
    pub(crate) from: u64,
    /// The last one.
    pub(crate) to: u64,
    /// How many verdicts were decided again.
    pub(crate) verdicts: usize,
    /// What comes out otherwise, in order.
    pub(crate) otherwise: Vec<Otherwise>,
}

/// A verdict that comes out otherwise.
#[derive(Debug)]
pub(crate) struct Otherwise {
    /// None for a timer that did not fire then.
    pub(crate) recorded: Option<Verdict>,
    /// None for a timer that would not fire.
    pub(crate) now: Option<Verdict>,
    /// What the program fails on.
    pub(crate) error: Option<String>,
}

impl Recording {
    /// Decides the room by `program`, from its beginning if that was kept, otherwise from the last snapshot, whose state the program takes
    /// over. Recorded changes of programs are passed over.
    ///
    /// # Errors
    /// As [`Recording::resolve`]; when the program does not take over the state of the snapshot; when more than [`TRIED_FIRES_MAX`]
    /// timers would fire that have not.
    pub(crate) fn try_program(&self, program: &Arc<Program>) -> Result<Tried, ReplayError> {
        self.try_within(program, TRIED_FIRES_MAX)
    }

    /// [`Recording::try_program`], with so many timers at most.
    pub(super) fn try_within(&self, program: &Arc<Program>, fires_max: usize) -> Result<Tried, ReplayError> {
        let unresolvable = |why: String| ReplayError::Unresolvable { room: self.room.clone(), why };
        let fresh = || -> Box<dyn Rules> { Box::new(JsRules::new(program.clone(), Checking::Off)) };
        let recorded = self.without_holes()?;
        if recorded.first().map_or(self.seq == 0, |first| first.seq == 1) {
            match self.try_from(worker::created(&self.room, self.era, self.seed, (fresh(), 0)), &recorded, fires_max) {
                Err(Unresolved::NoEvent(_)) if self.snapshot.is_some() => {}
                done => return done.map_err(|why| unresolvable(why.to_string())),
            }
        }
        let Some(snapshot) = &self.snapshot else {
            let first = recorded.first().map_or(1, |v| v.seq);
            return Err(unresolvable(format!("the verdicts before {first} were trimmed, and there is no snapshot")));
        };
        let open = |id: ProgramId| -> Result<Box<dyn Rules>, String> {
            Ok(Box::new(JsRules::new(self.kept(id, &format!("{id}.js"))?, Checking::Off)))
        };
        let room = Room::restore_by(&snapshot.bytes, fresh(), open).map_err(|e| e.to_string()).and_then(|mut room| {
            room.follow(true);
            room.try_with(fresh())?;
            Ok(room)
        });
        let tried = self.try_from(room.map_err(unresolvable)?, &recorded, fires_max);
        tried.map_err(|why| unresolvable(why.to_string()))
    }

    fn try_from(&self, mut room: Room, recorded: &[Verdict], fires_max: usize) -> Result<Tried, Unresolved> {
        let from = room.seq().saturating_add(1);
        let tried = catch_unwind(AssertUnwindSafe(|| self.tried(&mut room, fires_max)));
        let (verdicts, otherwise) = tried.unwrap_or_else(|_| Err("the program panicked".to_owned().into()))?;
        Ok(Tried { from, to: recorded.last().map_or(self.seq, |last| last.seq), verdicts, otherwise })
    }

    /// How many verdicts were decided again, and what came out otherwise.
    fn tried(&self, room: &mut Room, fires_max: usize) -> Result<(usize, Vec<Otherwise>), Unresolved> {
        room.follow(true);
        let entries: Vec<_> = self.entries.iter().map(|(at, bytes)| (*at, entry::decode(bytes))).collect();
        let mut events = worker::Events::of(room, &entries);
        let (mut count, mut fires, mut otherwise) = (0, 0, Vec::new());
        for bytes in &self.verdicts {
            let batch = verdicts::decode(bytes).map_err(|e| e.to_string())?;
            let mut epoch = batch.epoch;
            if batch.verdicts.last().map_or(0, |last| last.seq) <= room.seq() {
                continue;
            }
            let earlier = verdicts::remembers_otherwise(bytes);
            for recorded in batch.verdicts {
                if recorded.seq <= room.seq() {
                    continue;
                }
                room.begin_era(batch.era);
                if let Some(epoch) = epoch.take() {
                    room.take_epoch(recorded.stamp.moment.timeline, epoch);
                }
                if recorded.kind == VerdictKind::Rules {
                    room.count_as(recorded.seq);
                    continue;
                }
                let fire = recorded.fire.as_deref();
                let limit = fire.map_or_else(|| room.time_at(recorded.stamp.moment), |fire| fire.due);
                while let Some(now) = room.fire_before(limit, fire.map(|fire| &*fire.name)) {
                    fires += 1;
                    if fires > fires_max {
                        return Err(format!("more than {fires_max} timers would fire that have not").into());
                    }
                    otherwise.push(Otherwise { error: failed(room), recorded: None, now: Some(now) });
                    room.count_as(recorded.seq.saturating_sub(1));
                }
                // What the program of then failed on is decided like everything else.
                let known = earlier.then_some(Known::Earlier(&recorded));
                let now = match recorded.kind {
                    VerdictKind::Timer => room.fire_again(&recorded, known),
                    _ => Some(room.resolve(&events.take(&recorded)?, known)),
                };
                room.count_as(recorded.seq);
                let error = failed(room);
                if now.as_ref().is_none_or(|now| differs(&recorded, now)) {
                    otherwise.push(Otherwise { recorded: Some(recorded), now, error });
                }
                count += 1;
            }
        }
        Ok((count, otherwise))
    }
}

fn failed(room: &mut Room) -> Option<String> {
    room.take_trouble().failures.into_iter().next().map(|failed| failed.error)
}

/// Whether the decision is another one. When that is, and how exactly its margin is known, is not the program's.
fn differs(recorded: &Verdict, now: &Verdict) -> bool {
    let decided = |v: &Verdict| (v.outcome.clone(), v.contest.clone(), v.round, v.audience.clone(), v.body.clone());
    decided(recorded) != decided(now)
}
