//! A recorded room, resolved again: the same events in the same order must give the same verdicts.
//!
//! A [`Recording`] is what the journal has stored of a room, [`dump`] writes it into a file, [`Replayed`] is the result of
//! resolving it again, and [`timeline`] shows one contest. [`command`] runs `lasthit replay`, `dump` and `timeline`.

pub(crate) mod command;
pub mod dump;
pub(crate) mod named;
mod picture;
#[cfg(test)]
mod tests;
pub(crate) mod timeline;
pub(crate) mod trying;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::engine::{self, Room, SnapshotError};
use crate::journal::{Journal, JournalError, PageSize, Place, StoredHead, StoredSnapshot, pages};
use crate::limits::{READ_ENTRIES_MAX, RECORDING_BYTES_MAX};
use crate::rules::js::{Budget, Program};
use crate::rules::{FileRules, Rules, RulesBook};
use crate::types::{Flags, ProgramId, RoomId, Seed, Stamp, StreamId, Verdict, VerdictKind};
use crate::wire::{DecodeError, entry, verdicts};
use crate::worker::{self, Unresolved};

/// Why a room could not be resolved again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The journal does not work.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is no such room.
    #[error(
        "room {0} does not exist: there never was one of this name, or it has ended (a room ends some time after its last session left)"
    )]
    NoRoom(RoomId),
    /// The room began a new era while it was read.
    #[error("room {0} ended and began again while it was read: try again")]
    Changed(RoomId),
    /// Parts of the recording were trimmed while it was read.
    #[error("room {0} was trimmed faster than it was read: try again, or give its workers a longer retention")]
    Overtaken(RoomId),
    /// The recording is too large for memory.
    #[error("the recording of room {0} has more than {mib} MiB: use a shorter retention", mib = RECORDING_BYTES_MAX >> 20)]
    TooLarge(RoomId),
    /// Recorded bytes that cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A snapshot that cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No rules for the room.
    #[error("room {0} has no rules: add a [[rooms]] table whose pattern matches to the file of --config")]
    NoRules(RoomId),
    /// The record has no beginning, or has a hole.
    #[error("room {room} cannot be resolved again: {why}")]
    Unresolvable {
        room: RoomId,
        /// What is missing.
        why: String,
    },
    /// There is no such contest.
    #[error("no contest {contest:?}{round} in the {verdicts} recorded verdicts of room {room}", round = .round.map(|r| format!(" with round {r}")).unwrap_or_default())]
    NoContest {
        room: RoomId,
        contest: String,
        /// The round, when one was asked for.
        round: Option<u64>,
        /// Verdicts that there are.
        verdicts: usize,
    },
    /// The rules' program cannot be started.
    #[error(transparent)]
    Programs(#[from] worker::ProgramsError),
    /// A dump that cannot be read or written.
    #[error(transparent)]
    Dump(#[from] dump::DumpError),
}

/// How often a snapshot may be replaced while it is read.
const SNAPSHOT_TRIES: usize = 8;

/// What a journal has stored of one era of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The room.
    pub room: RoomId,
    /// Its era.
    pub era: u64,
    /// The last recorded verdict's number.
    pub seq: u64,
    /// See [`StoredRoom::seed`](crate::journal::StoredRoom::seed).
    pub seed: Option<Seed>,
    /// The last snapshot.
    pub snapshot: Option<StoredSnapshot>,
    /// Encoded verdict batches, all that are stored, in order.
    pub verdicts: Vec<Bytes>,
    /// Encoded entries, all that are stored, in stream order.
    pub entries: Vec<(StreamId, Bytes)>,
    /// The texts of the programs in files that decided it, as far as they are kept.
    pub programs: BTreeMap<ProgramId, Bytes>,
}

/// The result of resolving a recording again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    pub room: String,
    /// Its era.
    pub era: u64,
    /// The first verdict that was resolved again: 1 unless the beginning was trimmed.
    pub from: u64,
    /// The last verdict that was resolved again.
    pub to: u64,
    /// The count of verdicts that were resolved again.
    pub verdicts: usize,
    /// Verdicts that differ from the record, and actions whose recorded order is not that of their stamps: one line each.
    pub deviations: Vec<String>,
    /// Contests' winners, as far as they were resolved again.
    #[serde(skip)]
    winners: Vec<Stamp>,
}

impl Recording {
    /// Reads a room page by page, while it may be in use.
    ///
    /// # Errors
    /// When the journal does not work, the room does not exist or is too large; [`ReplayError::Changed`] or
    /// [`ReplayError::Overtaken`] if the room changes so much while it is read that the pages do not fit together.
    pub async fn read(journal: &dyn Journal, room: &RoomId) -> Result<Self, ReplayError> {
        Self::read_paged(journal, room, PageSize::default(), || {}).await
    }

    /// [`Recording::read`], in pages of this size; `turn` is called before each but the first.
    async fn read_paged(
        journal: &dyn Journal,
        room: &RoomId,
        size: PageSize,
        mut turn: impl FnMut(),
    ) -> Result<Self, ReplayError> {
        let mut bytes = 0;
        let mut check = |more: usize| {
            bytes += more;
            if bytes > RECORDING_BYTES_MAX { Err(ReplayError::TooLarge(room.clone())) } else { Ok(()) }
        };
        let (head, snapshot) = Self::read_snapshot(journal, room, size, &mut turn).await?;
        check(snapshot.as_ref().map_or(0, |s| s.bytes.len()))?;
        let mut batches = Vec::new();
        let take = |page: Vec<Bytes>| {
            check(page.iter().map(Bytes::len).sum())?;
            batches.extend(page);
            Ok(())
        };
        let seq = Self::read_batches(journal, room, (head.era, size), &mut turn, take).await?;
        // Entries are read after the verdicts, so that they include the event of every verdict.
        let (mut entries, mut place): (Vec<(StreamId, Bytes)>, _) = (Vec::new(), Some(Place::Entries(StreamId::default())));
        while let Some(from) = place {
            turn();
            let page = journal.load(room, from, size).await?;
            if page.head.era != head.era {
                return Err(ReplayError::Changed(room.clone()));
            }
            check(page.entries.iter().map(|(_, bytes)| bytes.len()).sum())?;
            entries.extend(page.entries);
            place = page.next;
        }
        // Entries have no numbers that would show a gap. While the first one is still stored, none was trimmed.
        if let Some((first, _)) = entries.first().filter(|_| entries.len() > 1) {
            turn();
            let one = PageSize { bytes: 1, entries: 1 };
            let page = journal.load(room, Place::Entries(StreamId::default()), one).await?;
            if page.head.era != head.era {
                return Err(ReplayError::Changed(room.clone()));
            }
            if page.entries.first().is_none_or(|(still, _)| still != first) {
                return Err(ReplayError::Overtaken(room.clone()));
            }
        }
        let (seq, programs) = (seq.max(head.seq), BTreeMap::new());
        let mut read =
            Self { room: room.clone(), era: head.era, seq, seed: head.seed, snapshot, verdicts: batches, entries, programs };
        let mut named = named::named_in(&read.verdicts)?;
        // A snapshot that cannot be read is told when the room is resolved from it.
        named.extend(read.snapshot.as_ref().and_then(|snapshot| engine::program_of(&snapshot.bytes).ok()?));
        for program in named {
            if let Some(text) = journal.program(program).await? {
                check(text.len())?;
                read.programs.insert(program, text);
            }
        }
        Ok(read)
    }

    /// Gives `take` the recorded batches of an era, page by page. Returns the `seq` of the last one.
    async fn read_batches(
        journal: &dyn Journal,
        room: &RoomId,
        (era, size): (u64, PageSize),
        turn: &mut impl FnMut(),
        mut take: impl FnMut(Vec<Bytes>) -> Result<(), ReplayError>,
    ) -> Result<u64, ReplayError> {
        let mut seq = 0;
        loop {
            turn();
            let page = journal.verdicts(room, seq, READ_ENTRIES_MAX.min(size.entries)).await?;
            if page.era != era {
                return Err(ReplayError::Changed(room.clone()));
            }
            let Some(last) = page.batches.last() else { return Ok(seq) };
            seq = verdicts::decode(last)?.verdicts.last().map_or(seq, |v| v.seq);
            take(page.batches)?;
            if seq >= page.seq {
                return Ok(seq);
            }
        }
    }

    /// The room's head and its snapshot. If a worker replaces the snapshot while it is read, the new one is read.
    async fn read_snapshot(
        journal: &dyn Journal,
        room: &RoomId,
        size: PageSize,
        turn: &mut impl FnMut(),
    ) -> Result<(StoredHead, Option<StoredSnapshot>), ReplayError> {
        'again: for _ in 0..SNAPSHOT_TRIES {
            let mut page = journal.load(room, Place::default(), size).await?;
            let head = page.head.clone();
            if head.era == 0 {
                return Err(ReplayError::NoRoom(room.clone()));
            }
            let mut pieces = std::mem::take(&mut page.snapshot);
            while let Some(place @ Place::Snapshot(_)) = page.next {
                turn();
                page = journal.load(room, place, size).await?;
                if page.head.era != head.era {
                    return Err(ReplayError::Changed(room.clone()));
                }
                if page.head.snapshot != head.snapshot {
                    continue 'again;
                }
                pieces.append(&mut page.snapshot);
            }
            let bytes = pages::joined(pieces);
            let snapshot = head.snapshot.map(|(seq, cursor)| StoredSnapshot { seq, cursor, bytes });
            return Ok((head, snapshot));
        }
        Err(ReplayError::Overtaken(room.clone()))
    }

    /// The recorded verdicts, in order.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn decode_verdicts(&self) -> Result<Vec<Verdict>, ReplayError> {
        let mut all = Vec::new();
        for batch in &self.verdicts {
            all.extend(verdicts::decode(batch)?.verdicts);
        }
        Ok(all)
    }

    /// Resolves the room again, from its beginning if that was kept, otherwise from the last snapshot.
    ///
    /// # Errors
    /// When there is neither, or something between was trimmed or cannot be read.
    pub fn resolve(&self, rules: &RulesBook) -> Result<Replayed, ReplayError> {
        let unresolvable = |why: String| ReplayError::Unresolvable { room: self.room.clone(), why };
        let recorded = self.without_holes()?;
        let open = |program| self.open(rules, program);
        let rules = || rules.rules_for(&self.room).ok_or_else(|| ReplayError::NoRules(self.room.clone()));
        let mut before = None;
        if recorded.first().map_or(self.seq == 0, |first| first.seq == 1) {
            match self.resolve_from(worker::created(&self.room, self.era, self.seed, (rules()?, 0)), &open, &recorded) {
                // The events of the first verdicts may be trimmed before the verdicts are.
                Err(Unresolved::NoEvent(_)) if self.snapshot.is_some() => {}
                Err(why) if self.snapshot.is_some() => before = Some(why),
                done => return done.map_err(|why| unresolvable(why.to_string())),
            }
        }
        let Some(snapshot) = &self.snapshot else {
            let first = recorded.first().map_or(1, |v| v.seq);
            return Err(unresolvable(format!("the verdicts before {first} were trimmed, and there is no snapshot")));
        };
        let room = Room::restore_by(&snapshot.bytes, rules()?, open).map_err(|e| unresolvable(e.to_string()))?;
        let mut replayed = self.resolve_from(room, &open, &recorded).map_err(|why| unresolvable(why.to_string()))?;
        if let Some(why) = before {
            replayed.deviations.insert(0, format!("resolved from the last snapshot only: {why}"));
        }
        Ok(replayed)
    }

    /// The recorded verdicts, of which none may be missing between two others.
    fn without_holes(&self) -> Result<Vec<Verdict>, ReplayError> {
        let recorded = self.decode_verdicts()?;
        let hole = recorded.windows(2).find(|pair| Some(pair[1].seq) != pair[0].seq.checked_add(1));
        hole.map_or(Ok(()), |hole| {
            let why = format!("verdict {} is followed by {}", hole[0].seq, hole[1].seq);
            Err(ReplayError::Unresolvable { room: self.room.clone(), why })
        })?;
        Ok(recorded)
    }

    /// New rules by a program that the record names.
    fn open(&self, rules: &RulesBook, program: ProgramId) -> Result<Box<dyn Rules>, String> {
        let file = rules
            .file_of(&self.room)
            .ok_or("a program in a file decided it, the configuration says otherwise: give it rules = { file }")?;
        if file.program.id() == program {
            return Ok(file.new_room());
        }
        let of_then = self.kept(program, file.program.file())?;
        Ok(FileRules { program: of_then, ..file.clone() }.new_room())
    }

    /// A program that the record names. It has decided then, perhaps in a larger budget than is configured now.
    fn kept(&self, program: ProgramId, file: &str) -> Result<Arc<Program>, String> {
        let text = self.programs.get(&program).ok_or_else(|| format!("the program {program} is not kept"))?;
        Program::load(file, text, Budget::most()).map_err(|error| error.to_string())
    }

    fn resolve_from(&self, mut room: Room, open: worker::Open<'_>, recorded: &[Verdict]) -> Result<Replayed, Unresolved> {
        let from = room.seq().saturating_add(1);
        let entries: Vec<_> = self.entries.iter().map(|(at, bytes)| (*at, entry::decode(bytes))).collect();
        let mut winners = Vec::new();
        let replay = AssertUnwindSafe(|| {
            worker::replay(
                &mut room,
                &entries,
                &self.verdicts,
                worker::Programs::Asked,
                open,
                |room: &Room, verdict: &Verdict| {
                    if verdict.contest.as_deref().is_some_and(|contest| room.is_winner(contest, verdict.stamp)) {
                        winners.push(verdict.stamp);
                    }
                },
            )
        });
        let replayed = catch_unwind(replay).unwrap_or_else(|_| Err("the rules panicked".to_owned().into()));
        let (verdicts, mut deviations) = replayed?;
        if room.seq() != self.seq {
            deviations.push(format!("{verdicts} verdicts lead to {}, the record says {}", room.seq(), self.seq));
        }
        deviations.extend(disorder(recorded.iter().filter(|v| v.seq >= from)));
        Ok(Replayed { room: self.room.to_string(), era: self.era, from, to: room.seq(), verdicts, deviations, winners })
    }
}

/// Actions and timers that were decided before one with a lower stamp. An Open or Close may lie below what was resolved, because it changes
/// which gateways count.
fn disorder<'a>(recorded: impl Iterator<Item = &'a Verdict>) -> Vec<String> {
    let (mut lines, mut last): (Vec<String>, Option<&Verdict>) = (Vec::new(), None);
    for verdict in recorded.filter(|v| matches!(v.kind, VerdictKind::Data | VerdictKind::Timer) && !v.flags.has(Flags::UNPROVEN))
    {
        if let Some(before) = last.filter(|before| before.stamp > verdict.stamp) {
            lines.push(format!("verdict {}: its stamp lies before that of verdict {}", verdict.seq, before.seq));
        } else {
            last = Some(verdict);
        }
    }
    lines
}
