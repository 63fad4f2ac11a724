//! Restores a stored room: its snapshot, then the recorded verdicts after it. A pure function.

use std::collections::HashMap;

use bytes::Bytes;

use crate::engine::{self, Held, Known, RULES_FAILED, Record, Resequencer, Room};
use crate::journal::StoredRoom;
use crate::rules::Rules;
use crate::types::{Entry, Flags, Incarnation, Moment, Outcome, ProgramId, RoomId, Seed, StreamId, Verdict, VerdictKind};
use crate::wire::{DecodeError, entry, verdicts};

/// A restored room.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// None if the journal has no such room.
    pub(super) room: Option<Box<Room>>,
    pub(super) cursor: StreamId,
    /// The `seq`, the cursor and the size of the snapshot.
    pub(super) snapshot: Option<(u64, StreamId, usize)>,
    /// The entries that the lane has yet to read.
    pub(super) entries: Vec<(StreamId, Result<Entry, DecodeError>)>,
    /// Recorded verdicts that the rules decide otherwise now. The record stands.
    pub(super) deviations: Vec<String>,
    pub(super) deaths: u32,
    pub(super) attempts: u32,
    pub(super) trims: Vec<(StreamId, u64)>,
}

/// A stored room as it was created. The version before gave its rooms no seed: theirs is 0.
pub(crate) fn created(room: &RoomId, era: u64, seed: Option<Seed>, (rules, push): (Box<dyn Rules>, u64)) -> Room {
    let mut created = Room::with_seed(era, seed.map_or(0, |seed| seed.of(room)), rules);
    created.take_push(push);
    created
}

/// Gives new rules by the text that a record names.
pub(crate) type Open<'a> = &'a dyn Fn(ProgramId) -> Result<Box<dyn Rules>, String>;

/// Restores a room from its snapshot and the recorded verdicts after it, in their recorded order. It follows the record, and
/// compares it with what the rules decide now (rule C4). `progress` is called with the `seq` of each verdict.
pub(super) fn restore_room(
    room: &RoomId,
    stored: StoredRoom,
    rules: (Box<dyn Rules>, u64),
    open: Open<'_>,
    progress: impl Fn(u64),
) -> Result<Loaded, String> {
    let mut entries: Vec<(StreamId, Result<Entry, DecodeError>)> =
        stored.entries.iter().map(|(at, bytes)| (*at, entry::decode(bytes))).collect();
    if stored.era == 0 {
        return Ok(Loaded { entries, ..Loaded::default() });
    }
    let mut room = match &stored.snapshot {
        Some(snapshot) => Room::restore_by(&snapshot.bytes, rules.0, open).map_err(|e| e.to_string())?,
        None => created(room, stored.era, stored.seed, rules),
    };
    let replayed = replay(&mut room, &entries, &stored.verdicts, Programs::Followed, open, |_, v| progress(v.seq));
    let (recorded, deviations) = replayed.map_err(|e| e.to_string())?;
    if let Some(program) = &stored.program {
        room.take_up_program_state(program)?;
    }
    // Nothing of it belongs into the next commit.
    let _ = room.take_decided(room.seq());
    if room.seq() != stored.seq {
        return Err(format!("{recorded} verdicts lead to seq {}, the journal says {}", room.seq(), stored.seq));
    }
    // A room that was rolled back is in another era than its snapshot.
    room.begin_era(stored.era);
    let snapshot = stored.snapshot.map(|s| (s.seq, s.cursor, s.bytes.len()));
    let (cursor, deaths, attempts, trims) = (stored.cursor, stored.deaths, stored.attempts, stored.trims);
    // The room has what is resolved. The lane needs resolved deaths for their stretch (rule R7), and unreadable entries, which may
    // have come without a bell.
    entries.retain(|(at, entry)| *at > cursor || !matches!(entry, Ok(entry) if !entry.death));
    Ok(Loaded { room: Some(Box::new(room)), cursor, snapshot, entries, deviations, deaths, attempts, trims })
}

/// Why recorded events cannot be resolved again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    /// The event of this verdict. Events may be trimmed before their verdicts are.
    #[error("the event of verdict {0} is not in the stream")]
    NoEvent(u64),
    /// One line.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Unresolved {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// What becomes of decisions that programs outside have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Programs {
    /// The record says them.
    Followed,
    /// They are asked again.
    Asked,
}

/// The events of a room's entries.
pub(crate) struct Events(HashMap<(Incarnation, u64), Held>);

impl Events {
    /// Read as the worker has read them, so that the same entries count as duplicates.
    pub(crate) fn of(room: &Room, entries: &[(StreamId, Result<Entry, DecodeError>)]) -> Self {
        let marks: Vec<_> = room.marks().collect();
        let mut hold = Resequencer::resume(std::iter::empty(), marks.into_iter(), &[]);
        for (at, entry) in entries {
            match entry {
                Ok(entry) => hold.read(*at, entry, Moment::default(), 0),
                Err(error) => hold.read_unreadable(*at, error.to_string()),
            }
        }
        let all = hold.release(usize::MAX, |_| Moment { timeline: u32::MAX, ns: u64::MAX });
        Self(all.into_iter().map(|held| ((held.stamp.incarnation, held.stamp.ordinal), held)).collect())
    }

    /// The event of a recorded verdict, with the flags that the resequencer had set.
    ///
    /// # Errors
    /// [`Unresolved::NoEvent`]: it is not among the entries.
    pub(crate) fn take(&mut self, recorded: &Verdict) -> Result<Held, Unresolved> {
        let held = self.0.remove(&(recorded.stamp.incarnation, recorded.stamp.ordinal));
        let mut held = held.ok_or(Unresolved::NoEvent(recorded.seq))?;
        held.arrival.flags = Flags(recorded.flags.0 & !Flags::PHOTO_FINISH.0);
        Ok(held)
    }
}

/// Resolves recorded events again, in the recorded order. Returns how many, and the deviations from the record. `seen` is called
/// with each new verdict, and the room after it.
///
/// # Errors
/// [`Unresolved`]: a recorded event is not among the entries, or a program cannot be opened.
pub(crate) fn replay(
    room: &mut Room,
    entries: &[(StreamId, Result<Entry, DecodeError>)],
    batches: &[Bytes],
    programs: Programs,
    open: Open<'_>,
    mut seen: impl FnMut(&Room, &Verdict),
) -> Result<(usize, Vec<String>), Unresolved> {
    room.follow(true);
    let mut events = Events::of(room, entries);
    let (mut count, mut deviations) = (0, Vec::new());
    let mut told = false;
    for bytes in batches {
        let batch = verdicts::decode(bytes).map_err(|e| e.to_string())?;
        let mut epoch = batch.epoch;
        let record = batch.decided.as_ref().map(|bytes| Record::read(bytes)).transpose().map_err(|e| e.to_string())?;
        let ends = batch.verdicts.last().map_or(0, |last| last.seq);
        if ends <= room.seq() {
            continue;
        }
        // What another version decided cannot be asked of the one that runs.
        let other = record.as_ref().filter(|_| programs == Programs::Asked).and_then(|record| record.other_program(room));
        let follows = programs == Programs::Followed || other.is_some();
        let decided = record.as_ref().filter(|record| follows && matches!(record, Record::Outside { .. }));
        if let Some(other) = other.filter(|_| !std::mem::replace(&mut told, true)) {
            deviations.push(format!("from verdict {}: {other}: not resolved again", batch.verdicts.first().map_or(0, |v| v.seq)));
        }
        if let Some(Record::File { program, push, .. }) = record
            && !batch.is_change()
        {
            room.is_decided_by(program, push, open)?;
        }
        for recorded in batch.verdicts {
            if recorded.seq <= room.seq() {
                continue;
            }
            room.begin_era(batch.era);
            if let Some(epoch) = epoch.take() {
                room.take_epoch(recorded.stamp.moment.timeline, epoch);
            }
            let again = if let Some(change) = &recorded.change {
                let again = match recorded.outcome {
                    Outcome::Granted if change.program == ProgramId::NONE => room.change_outside_again(change, record.as_ref()),
                    Outcome::Granted => open(change.program).and_then(|next| room.change_again(change, Some(next))),
                    _ => room.change_again(change, None),
                };
                match again {
                    Err(why) if programs == Programs::Asked => {
                        deviations.push(why);
                        return Ok((count, deviations));
                    }
                    again => again?,
                }
            } else {
                let decision = decided.and_then(|decided| decided.decision(&recorded));
                let taken = match &decided {
                    Some(_) => engine::known(&recorded, decision.as_ref()),
                    None => known(&recorded, verdicts::remembers_otherwise(bytes)),
                };
                if recorded.kind == VerdictKind::Timer {
                    let (seq, fire) = (recorded.seq, &recorded.fire);
                    let again = room.fire_again(&recorded, taken);
                    again.ok_or_else(|| format!("the timer of verdict {seq} is not set, or not due then: {fire:?}"))?
                } else {
                    let held = events.take(&recorded)?;
                    if let Some(name) = room.passed_over(recorded.stamp.moment).filter(|_| recorded.kind == VerdictKind::Data) {
                        let seq = recorded.seq;
                        deviations.push(format!("verdict {seq}: the timer {name:?} was due before it and has not fired"));
                    }
                    room.resolve(&held, taken)
                }
            };
            compare(&recorded, &again, &mut deviations);
            seen(room, &again);
            count += 1;
        }
        // It was told and kept when the verdicts were made.
        drop(room.take_trouble());
        if let Some(why) = record.and_then(|record| room.differs(&record)) {
            deviations.push(format!("verdict {ends}: {why}"));
        }
    }
    room.follow(false);
    Ok((count, deviations))
}

fn compare(recorded: &Verdict, again: &Verdict, deviations: &mut Vec<String>) {
    if again != recorded {
        deviations.push(format!("verdict {}: {}", recorded.seq, difference(recorded, again)));
    }
}

/// The differences between two verdicts, in words.
fn difference(recorded: &Verdict, again: &Verdict) -> String {
    let fields = |v: &Verdict| {
        [
            ("seq", format!("{:?}", v.seq)),
            ("event", format!("{:?} of session {} by {:?}", v.kind, v.session, v.player)),
            ("id", format!("{:?}", v.id)),
            ("contest", format!("{:?} round {}", v.contest, v.round)),
            ("outcome", format!("{:?}", v.outcome)),
            ("stamp", format!("{:?} ± {} raw {:?}", v.stamp, v.uncertainty_ns, v.raw_ns)),
            ("behind", format!("{:?}", v.behind_ns)),
            ("flags", format!("{:?}", v.flags)),
            ("audience", format!("{:?}", v.audience)),
            ("body", format!("{:?}", v.body)),
            ("timer", format!("{:?}", v.fire)),
            ("program", format!("{:?}", v.change)),
        ]
    };
    let pairs = fields(recorded).into_iter().zip(fields(again)).filter(|(was, is)| was != is);
    let lines: Vec<String> = pairs.map(|((name, was), (_, is))| format!("{name} recorded {was}, now {is}")).collect();
    lines.join("; ")
}

/// What is taken from a recorded verdict instead of being resolved again.
fn known(recorded: &Verdict, earlier: bool) -> Option<Known<'_>> {
    match &recorded.outcome {
        _ if earlier => Some(Known::Earlier(recorded)),
        Outcome::Void(reason) if reason == RULES_FAILED => Some(Known::Void(RULES_FAILED)),
        _ => None,
    }
}
