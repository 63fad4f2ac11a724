//! The serial executor of one room inside a worker: what it has read, what it holds, what it resolved.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::job::Resolved;
use super::state::Shared;
use crate::engine::{Resequencer, Room};
use crate::journal::{AheadName, AheadPart, Gathering};
use crate::limits::{
    Bounds, LANE_BUFFER_BYTES_MAX, LANE_BUFFER_ENTRIES_MAX, ROOM_POKES_MAX, SNAPSHOT_QUICK_BYTES_MAX, TRIM_POINTS_MAX,
};
use crate::types::{Incarnation, Moment, RoomId, ShardId, Stamp, StreamId};
use crate::wire::entry;

/// Bytes of a snapshot that one event pays for. An id that a snapshot keeps takes about 14, so that of a room that is full of
/// them each event writes four or five again.
const EVENT_BYTES: u64 = 64;

/// A position of the room's stream, and the `seq` there.
type TrimPoint = (StreamId, u64);

/// Entries that wait for what comes before them. Bounded: what is dropped is in the journal.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    entries: Vec<(StreamId, Bytes)>,
    bytes: usize,
}

impl Buffer {
    /// False when all that came before was dropped for it.
    fn keep(&mut self, at: StreamId, bytes: &Bytes) -> bool {
        let fits = self.entries.len() < LANE_BUFFER_ENTRIES_MAX && self.bytes + bytes.len() <= LANE_BUFFER_BYTES_MAX;
        if !fits {
            *self = Self::default();
        }
        self.bytes += bytes.len();
        self.entries.push((at, bytes.clone()));
        fits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What it kept; it is empty then.
    pub(super) fn take(&mut self) -> Vec<(StreamId, Bytes)> {
        std::mem::take(self).entries
    }
}

/// What a lane is doing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The room is not in memory; its stored form is being read or brought back.
    Loading,
    /// The room is in memory.
    Idle,
    /// A job has the room.
    Busy,
    /// The rules panicked: the room is loaded again once its last commit is through.
    Failed,
    /// The room is empty and being ended.
    Ending,
    /// The stored room cannot be continued; tried again after a while, or never where this worker has no rules for it.
    Quarantined { until_ns: u64 },
}

/// A snapshot that is written ahead, part by part, while the room goes on.
#[derive(Debug)]
struct Ahead {
    name: AheadName,
    era: u64,
    cursor: StreamId,
    bytes: Bytes,
    part_bytes: usize,
    /// Parts.
    written: u32,
}

impl Ahead {
    fn begins(&self) -> usize {
        usize::try_from(self.written).unwrap_or(usize::MAX).saturating_mul(self.part_bytes).min(self.bytes.len())
    }

    fn is_written(&self) -> bool {
        self.begins() == self.bytes.len()
    }

    fn next(&self) -> AheadPart {
        let (from, to) = (self.begins(), self.begins().saturating_add(self.part_bytes).min(self.bytes.len()));
        AheadPart { name: self.name, era: self.era, index: self.written, bytes: self.bytes.slice(from..to) }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    /// Names this lane: what a job of an earlier lane of the room brings is nobody's.
    pub(super) token: u64,
    pub(super) phase: Phase,
    pub(super) room: Option<Box<Room>>,
    /// What was read of the stored room while it is loading.
    pub(super) gathering: Gathering,
    /// Entries lie unread in the journal: nothing is released before they are read.
    pub(super) reading: bool,
    /// What is being read or loaded was asked for before the last survey: it is read again, to the tail that counts (rule R2).
    pub(super) stale: bool,
    /// Entries that came by bell meanwhile.
    pub(super) buffer: Buffer,
    /// How often in a row the room could not be continued.
    pub(super) failures: u32,
    pub(super) hold: Resequencer,
    /// How far the stream was read.
    pub(super) position: StreamId,
    /// How far it was committed.
    pub(super) cursor: StreamId,
    /// Resolved, and waiting for the next commits: one takes the first part.
    pub(super) results: VecDeque<Resolved>,
    pub(super) result_cursor: StreamId,
    /// When it came.
    pub(super) resolved_ns: u64,
    pub(super) committing: bool,
    /// In the queue for a permit.
    pub(super) queued: bool,
    /// The last owner was lost with this unresolved: until the cursor is here, no event is resolved in the worker's own thread.
    pub(super) watched: Option<StreamId>,
    /// Something in here may have killed its worker, or has kept its rules for too long: until the cursor is here, events
    /// are resolved one at a time, no other suspect beside them, and each attempt is counted in the journal first.
    pub(super) alone: Option<StreamId>,
    /// Such an attempt is being counted.
    pub(super) attempting: bool,
    /// Events that the rules failed on: their verdicts are void.
    pub(super) poisoned: BTreeSet<Stamp>,
    /// In the queue for the next commit.
    pub(super) to_commit: bool,
    /// Gateways whose death was written here, and the last ordinal that was read of them then: once more was read, that
    /// death came too early and counts as a duplicate.
    pub(super) deaths: BTreeMap<Incarnation, u64>,
    pub(super) empty_since_ns: Option<u64>,
    /// A snapshot that is being written ahead.
    ahead: Option<Ahead>,
    /// What the journal was last told about who is inside; None: unknown.
    told: Option<Vec<Incarnation>>,
    snapshot_seq: u64,
    snapshot_bytes: u64,
    /// Where snapshots were taken, oldest first: what lies before one of them may be trimmed after the retention.
    trims: VecDeque<TrimPoint>,
}

impl Lane {
    /// A lane whose room is not in memory; `token` is no other lane's of this worker.
    pub(super) fn new(token: u64) -> Self {
        Self {
            token,
            phase: Phase::Loading,
            room: None,
            gathering: Gathering::default(),
            reading: false,
            stale: false,
            buffer: Buffer::default(),
            failures: 0,
            hold: Resequencer::default(),
            position: StreamId::default(),
            cursor: StreamId::default(),
            results: VecDeque::new(),
            result_cursor: StreamId::default(),
            resolved_ns: 0,
            committing: false,
            queued: false,
            watched: None,
            alone: None,
            attempting: false,
            poisoned: BTreeSet::new(),
            to_commit: false,
            deaths: BTreeMap::new(),
            empty_since_ns: None,
            ahead: None,
            told: None,
            snapshot_seq: 0,
            snapshot_bytes: 0,
            trims: VecDeque::new(),
        }
    }

    /// Takes in an entry, unless it was read before or has to wait for the journal's.
    pub(super) fn read(&mut self, at: StreamId, bytes: &Bytes, now_ns: u64, last_watermark: impl Fn(Incarnation) -> Moment) {
        match self.phase {
            // It is loaded later, with all that is in the journal then.
            Phase::Failed | Phase::Quarantined { .. } => {}
            Phase::Idle | Phase::Busy if !self.reading => self.take_in(at, bytes, now_ns, last_watermark),
            _ => self.stale |= !self.buffer.keep(at, bytes),
        }
    }

    pub(super) fn take_in(&mut self, at: StreamId, bytes: &Bytes, now_ns: u64, last_watermark: impl Fn(Incarnation) -> Moment) {
        if at <= self.position {
            return;
        }
        self.position = at;
        self.empty_since_ns = None;
        match entry::decode(bytes) {
            Ok(entry) => self.hold.read(at, &entry, last_watermark(entry.incarnation), now_ns),
            Err(error) => self.hold.read_unreadable(at, error.to_string()),
        }
    }

    /// Whether what is held, and what it waits for, says anything: not while the room, or something in it, is yet to be read.
    pub(super) fn may_advance(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Busy) && !self.reading
    }

    /// Whether a job may start on what is held.
    pub(super) fn can_resolve(&self) -> bool {
        self.phase == Phase::Idle && !self.reading && self.results.is_empty() && !self.queued && !self.attempting
    }

    /// It has something to resolve: it waits for a permit, or, a suspect, for its trial.
    pub(super) fn enqueue(&mut self, shard: ShardId, room: &RoomId, shared: &mut Shared) {
        self.queued = true;
        shared.permits.enqueue(shard, room, self.alone.is_some());
    }

    /// A lane of the same room in place of this one, which is loaded anew: what is not in the journal, or is about it, is kept.
    pub(super) fn replace(&mut self, token: u64) {
        let (alone, failures, poisoned) = (self.alone, self.failures, std::mem::take(&mut self.poisoned));
        *self = Self { alone, failures, poisoned, ..Self::new(token) };
    }

    /// Whether the next commit should carry a snapshot: enough happened, and no less than the snapshot weighs, or more than
    /// is to be resolved again.
    pub(super) fn snapshot_due(&self, seq: u64, bounds: &Bounds) -> bool {
        let events = seq.saturating_sub(self.snapshot_seq);
        let paid = events >= bounds.snapshot_events && events.saturating_mul(EVENT_BYTES) >= self.snapshot_bytes;
        self.ahead.is_none() && (paid || events >= bounds.snapshot_events_max)
    }

    /// Whether taking one would hold others up.
    pub(super) fn is_snapshot_slow(&self) -> bool {
        self.snapshot_bytes > SNAPSHOT_QUICK_BYTES_MAX
    }

    /// Begins to write a snapshot ahead.
    pub(super) fn begin_ahead(&mut self, era: u64, seq: u64, cursor: StreamId, bytes: Bytes, bounds: &Bounds) -> AheadPart {
        let (name, part_bytes) = (AheadName { lane: self.token, seq }, bounds.snapshot_part_bytes);
        let ahead = Ahead { name, era, cursor, bytes, part_bytes, written: 0 };
        self.ahead.insert(ahead).next()
    }

    /// A part of it is written: the next one, if there is one.
    pub(super) fn written_ahead(&mut self, part: &AheadPart) -> Option<AheadPart> {
        let ahead = self.ahead.as_mut().filter(|ahead| ahead.name == part.name && ahead.written == part.index)?;
        ahead.written += 1;
        (!ahead.is_written()).then(|| ahead.next())
    }

    /// Whether the next commit can put to use what was written ahead.
    pub(super) fn is_ahead_written(&self) -> bool {
        self.ahead.as_ref().is_some_and(Ahead::is_written)
    }

    /// What was written ahead, for the next commit: its name, cursor, count of parts.
    pub(super) fn take_ahead(&mut self) -> Option<(AheadName, StreamId, u32)> {
        let ahead = self.ahead.take_if(|ahead| ahead.is_written())?;
        self.remember_snapshot(ahead.name.seq, ahead.bytes.len());
        Some((ahead.name, ahead.cursor, ahead.written))
    }

    pub(super) fn remember_snapshot(&mut self, seq: u64, bytes: usize) {
        self.snapshot_seq = seq;
        self.snapshot_bytes = bytes as u64;
    }

    /// What an earlier owner knew.
    pub(super) fn resume_trims(&mut self, trims: Vec<TrimPoint>) {
        self.trims = trims.into();
    }

    /// A snapshot leaves with the next commit: what may be trimmed with it, as the stream's own clock tells, namely what lies
    /// before the last place that is older than the retention; and all places from there on, if they have changed. That place
    /// stays until the next one is as old: one trim may remove no more than a part, and the next snapshots name it again.
    pub(super) fn trim(&mut self, seq: u64, cursor: StreamId, retention_ms: u64) -> (Option<TrimPoint>, Option<Vec<TrimPoint>>) {
        let limit = self.position.ms.saturating_sub(retention_ms);
        let count = self.trims.len();
        while self.trims.get(1).is_some_and(|(cursor, _)| cursor.ms <= limit) {
            self.trims.pop_front();
        }
        let last = self.trims.front().copied().filter(|(cursor, _)| cursor.ms <= limit);
        let mut changed = self.trims.len() < count;
        let apart = retention_ms / TRIM_POINTS_MAX as u64;
        let due = self.trims.back().is_none_or(|(last, _)| cursor.ms.saturating_sub(last.ms) > apart);
        if due && self.trims.len() < TRIM_POINTS_MAX {
            self.trims.push_back((cursor, seq));
            changed = true;
        }
        (last, changed.then(|| self.trims.iter().copied().collect()))
    }

    /// What the next commit tells the journal about who is inside: nothing while it is as before. A gateway alone asks
    /// nobody, so that it counts as no one.
    pub(super) fn tell(&mut self, inside: &[Incarnation]) -> Option<Vec<Incarnation>> {
        let inside = if inside.len() > 1 { &inside[..inside.len().min(ROOM_POKES_MAX)] } else { &[] };
        if self.told.as_deref() == Some(inside) {
            return None;
        }
        self.told = Some(inside.to_vec());
        self.told.clone()
    }

    /// Nobody inside, nothing unresolved, nothing uncommitted, no snapshot half written.
    pub(super) fn is_deserted(&self) -> bool {
        self.phase == Phase::Idle
            && self.hold.is_empty()
            && self.hold.gateways().next().is_none()
            && self.results.is_empty()
            && !self.committing
            && !self.reading
            && !self.queued
            && !self.attempting
            && self.ahead.is_none()
    }
}
