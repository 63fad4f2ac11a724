//! How a lane takes part in the shard's commits.

use bytes::Bytes;

use super::{Caution, Lane, State, Turn};
use crate::journal::{AheadName, AheadPart, CommitSnapshot, FailedEvents, RoomCommit};
use crate::limits::{Bounds, ROOM_POKES_MAX};
use crate::types::{Incarnation, RoomId, RoomTime, StreamId};
use crate::worker::job::Resolved;

/// A lane's part of a commit.
#[derive(Debug)]
pub(in crate::worker) struct Departure {
    pub(in crate::worker) commit: RoomCommit,
    pub(in crate::worker) resolved: Option<Resolved>,
    /// How long each of its verdicts has waited for this commit.
    pub(in crate::worker) waited_ns: u64,
    /// For a snapshot that is too large for a commit: its size, and its first part, to be written ahead.
    pub(in crate::worker) ahead: Option<(usize, AheadPart)>,
}

impl Turn {
    /// Takes the first part of the result, and when it was resolved. With the last part comes the cursor after the result.
    fn take_part(&mut self) -> Option<(Resolved, u64, Option<StreamId>)> {
        let Self::Resolved { parts, cursor, resolved_ns, .. } = self else { return None };
        let (part, cursor, resolved_ns) = (parts.pop_front()?, *cursor, *resolved_ns);
        if !parts.is_empty() {
            return Some((part, resolved_ns, None));
        }
        if let Self::Resolved { room, .. } = std::mem::replace(self, Self::Busy) {
            *self = Self::idle(room);
        }
        Some((part, resolved_ns, Some(cursor)))
    }
}

impl Lane {
    /// Marks the lane as queued for the next commit. Returns false if it was already.
    pub(in crate::worker) fn queue_commit(&mut self) -> bool {
        !std::mem::replace(&mut self.to_commit, true)
    }

    /// Whether the lane has read only duplicates since its last commit, so that the cursor moves without a verdict.
    pub(in crate::worker) fn has_only_moved(&self) -> bool {
        let idle = matches!(self.state, State::Live { turn: Turn::Idle(_), reading: None });
        idle && self.hold.is_empty() && !self.committing && self.cursor < self.position
    }

    /// Gives its part to the next commit, if it has one: a part of a result, a cursor that moved, or a snapshot. A lane whose job
    /// runs has none; it queues again when the job is done.
    pub(in crate::worker) fn depart(
        &mut self,
        room: &RoomId,
        now_ns: u64,
        bounds: &Bounds,
        retention_ms: u64,
        pattern_of: impl FnOnce() -> String,
    ) -> Option<Departure> {
        self.to_commit = false;
        let State::Live { turn, .. } = &mut self.state else { return None };
        let state = turn.room().filter(|_| !self.committing)?;
        let (era, seq, mut due_ms) = (state.era(), state.seq(), state.next_due().map(RoomTime::ms));
        let (mut resolved, waited_ns, cursor) = match turn.take_part() {
            // The cursor stays until the last part: the next owner resolves again what is not final.
            Some((part, at_ns, cursor)) => {
                // What the rest sets and cancels is told with the last part. Until then the room is active.
                due_ms = if cursor.is_some() { due_ms } else { self.told_due };
                (Some(part), now_ns.saturating_sub(at_ns), cursor.unwrap_or(self.cursor))
            }
            None => (None, 0, self.hold.cursor(self.position).max(self.cursor)),
        };
        if resolved.is_none() && cursor <= self.cursor && !self.snapshots.is_written() {
            return None;
        }
        let taken = resolved.as_mut().and_then(|part| part.snapshot.take());
        let program = resolved.as_mut().and_then(|part| part.program.take());
        let failed =
            resolved.as_mut().and_then(|part| failed_events(std::mem::take(&mut part.failed), self.keep.failed, pattern_of));
        let (from, to, verdicts) = match &resolved {
            Some(part) => (part.from, part.to, part.verdicts.clone()),
            None => (seq, seq, Bytes::new()),
        };
        let (mut ahead, mut at) = (None, (cursor, to));
        let snapshot = match taken {
            Some(whole) if whole.len() <= bounds.snapshot_part_bytes => {
                self.snapshots.remember(to, whole.len());
                Some(CommitSnapshot::Whole(whole))
            }
            // The verdicts do not wait for the snapshot.
            Some(large) => {
                let (name, bytes) = (AheadName { lane: self.token, seq: to }, large.len());
                ahead = Some((bytes, self.snapshots.begin_ahead(name, (era, cursor), large, bounds)));
                None
            }
            None => self.snapshots.take_ahead().map(|(name, cursor, count)| {
                at = (cursor, name.seq);
                CommitSnapshot::Parts { name, cursor, count }
            }),
        };
        let (trim, trims) = match snapshot {
            Some(_) => self.snapshots.trim((self.position.ms, to), at, retention_ms, self.keep.done),
            None => (None, None),
        };
        let gateways = resolved.as_ref().and_then(|part| self.tell_inside(part.inside.as_deref()?));
        let due = (std::mem::replace(&mut self.told_due, due_ms) != due_ms).then_some(due_ms);
        self.committing = true;
        self.cursor = cursor;
        let room = room.clone();
        let commit = RoomCommit { room, era, from, to, verdicts, cursor, snapshot, trim, trims, gateways, due, program, failed };
        Some(Departure { commit, resolved, waited_ns, ahead })
    }

    /// The gateways inside, if the next commit must tell the journal about a change. A single gateway has no others to ask, so
    /// the journal is told that there is none.
    fn tell_inside(&mut self, inside: &[Incarnation]) -> Option<Vec<Incarnation>> {
        let inside = if inside.len() > 1 { &inside[..inside.len().min(ROOM_POKES_MAX)] } else { &[] };
        if self.told_inside.as_deref() == Some(inside) {
            return None;
        }
        self.told_inside = Some(inside.to_vec());
        self.told_inside.clone()
    }

    /// A part of a snapshot was written ahead. Returns the next part.
    pub(in crate::worker) fn written_ahead(&mut self, part: &AheadPart) -> Option<AheadPart> {
        self.snapshots.written_ahead(part)
    }

    /// Whether a result, or a snapshot that was written ahead, waits for a commit.
    pub(in crate::worker) fn has_more(&self) -> bool {
        matches!(self.state, State::Live { turn: Turn::Resolved { .. }, .. }) || self.snapshots.is_written()
    }

    /// The commit in flight is final. Changes nothing in a lane that began anew since the commit left.
    pub(in crate::worker) fn committed(&mut self) {
        if !std::mem::take(&mut self.committing) {
            return;
        }
        self.failures = 0;
        if let Caution::Watched(until) | Caution::Suspect(until) = self.caution
            && self.cursor >= until
        {
            self.caution = Caution::None;
        }
        if !self.is_failed() {
            self.poisoned.clear();
        }
    }
}

/// What the journal is to keep of these failed events: the newest.
fn failed_events(mut records: Vec<Bytes>, keep: u32, pattern_of: impl FnOnce() -> String) -> Option<FailedEvents> {
    let over = records.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    records.drain(..over);
    (!records.is_empty()).then(|| FailedEvents { pattern: pattern_of(), keep, records })
}
