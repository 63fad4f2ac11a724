//! A lane's snapshots: when one is due, how a large one is written ahead of its commit, and what the journal may trim.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::journal::{AheadName, AheadPart};
use crate::limits::{Bounds, SNAPSHOT_QUICK_BYTES_MAX, TRIM_POINTS_MAX};
use crate::types::StreamId;

/// Each event since the last snapshot pays for this many bytes of the next one: the larger a snapshot, the rarer it is.
const EVENT_BYTES: u64 = 64;

/// A position of the room's stream, and the `seq` there.
pub(super) type TrimPoint = (StreamId, u64);

/// A lane's snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The `seq` and the size of the last snapshot.
    seq: u64,
    bytes: u64,
    /// The snapshot that is being written ahead.
    ahead: Option<Ahead>,
    /// Positions of snapshots, oldest first. Entries before one of them may be trimmed when it is older than the retention.
    trims: VecDeque<TrimPoint>,
}

/// A snapshot that is written ahead of its commit, part by part, while the room goes on.
#[derive(Debug)]
struct Ahead {
    name: AheadName,
    era: u64,
    cursor: StreamId,
    bytes: Bytes,
    part_bytes: usize,
    /// How many parts are written.
    written: u32,
}

impl Ahead {
    /// Where the next part begins.
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

impl Snapshots {
    /// Whether the next commit should carry a snapshot: enough events came since the last one to be worth its size, or so many
    /// that resolving them again would take too long.
    pub(super) fn is_due(&self, seq: u64, bounds: &Bounds) -> bool {
        let events = seq.saturating_sub(self.seq);
        let paid = events >= bounds.snapshot_events && events.saturating_mul(EVENT_BYTES) >= self.bytes;
        self.ahead.is_none() && (paid || events >= bounds.snapshot_events_max)
    }

    /// Whether a snapshot takes so long that it would hold up other rooms.
    pub(super) fn is_slow(&self) -> bool {
        self.bytes > SNAPSHOT_QUICK_BYTES_MAX
    }

    /// Notes the last snapshot: one that was just taken, or the one that the room was restored from.
    pub(super) fn remember(&mut self, seq: u64, bytes: usize) {
        (self.seq, self.bytes) = (seq, bytes as u64);
    }

    /// Begins to write a snapshot ahead. Returns its first part.
    pub(super) fn begin_ahead(
        &mut self,
        name: AheadName,
        (era, cursor): (u64, StreamId),
        bytes: Bytes,
        bounds: &Bounds,
    ) -> AheadPart {
        let part_bytes = bounds.snapshot_part_bytes;
        self.ahead.insert(Ahead { name, era, cursor, bytes, part_bytes, written: 0 }).next()
    }

    /// A part was written. Returns the next one, if there is one.
    pub(super) fn written_ahead(&mut self, part: &AheadPart) -> Option<AheadPart> {
        let ahead = self.ahead.as_mut().filter(|ahead| ahead.name == part.name && ahead.written == part.index)?;
        ahead.written += 1;
        (!ahead.is_written()).then(|| ahead.next())
    }

    /// Whether a snapshot is being written ahead.
    pub(super) fn is_writing(&self) -> bool {
        self.ahead.is_some()
    }

    /// Whether all parts of a snapshot are written, so that the next commit can refer to them.
    pub(super) fn is_written(&self) -> bool {
        self.ahead.as_ref().is_some_and(Ahead::is_written)
    }

    /// Takes the snapshot that was written ahead, for the next commit: its name, its cursor, and how many parts it has.
    pub(super) fn take_ahead(&mut self) -> Option<(AheadName, StreamId, u32)> {
        let ahead = self.ahead.take_if(|ahead| ahead.is_written())?;
        self.remember(ahead.name.seq, ahead.bytes.len());
        Some((ahead.name, ahead.cursor, ahead.written))
    }

    /// Takes over the positions that an earlier owner has stored.
    pub(super) fn resume_trims(&mut self, trims: Vec<TrimPoint>) {
        self.trims = trims.into();
    }

    /// The next commit carries a snapshot, and the room's `seq` is `to` after it. Returns the last position that is older than the
    /// retention, when the stream's own clock is at `now_ms`, or the first behind which at most `keep_done` verdicts lie: the
    /// journal may trim what lies before it. It is that of an earlier snapshot, so that gateways can read what they have missed.
    /// Also returns all positions from there on, if they have changed. A trim may remove only a part, so the following snapshots
    /// name the same position, until the next one is due.
    pub(super) fn trim(
        &mut self,
        (now_ms, to): (u64, u64),
        (cursor, seq): TrimPoint,
        retention_ms: u64,
        keep_done: Option<u64>,
    ) -> (Option<TrimPoint>, Option<Vec<TrimPoint>>) {
        let (limit, least) = (now_ms.saturating_sub(retention_ms), keep_done.map_or(0, |most| to.saturating_sub(most)));
        let count = self.trims.len();
        while let (Some((_, seq)), Some((next, _))) = (self.trims.front(), self.trims.get(1))
            && (next.ms <= limit || *seq < least)
        {
            self.trims.pop_front();
        }
        let last = self.trims.front().copied().filter(|(cursor, _)| cursor.ms <= limit || least > 0);
        let mut changed = self.trims.len() < count;
        let part_of = |whole: u64| whole / TRIM_POINTS_MAX as u64;
        let due = self.trims.back().is_none_or(|(last, last_seq)| {
            cursor.ms.saturating_sub(last.ms) > part_of(retention_ms)
                || keep_done.is_some_and(|most| seq.saturating_sub(*last_seq) > part_of(most))
        });
        if due && self.trims.len() < TRIM_POINTS_MAX {
            self.trims.push_back((cursor, seq));
            changed = true;
        }
        (last, changed.then(|| self.trims.iter().copied().collect()))
    }
}
