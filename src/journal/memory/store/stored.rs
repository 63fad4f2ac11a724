//! A stored room: how it is read page by page, and how a large snapshot is written ahead.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Room, Snapshot, Store};
use crate::journal::{
    AheadPart, CommitSnapshot, JournalError, Lease, Leased, PageSize, Place, RoomCommit, StoredHead, StoredPage, check,
};
use crate::types::{RoomId, ShardId};

impl Room {
    fn stored_head(&self, shift: u64) -> StoredHead {
        StoredHead {
            era: self.era + shift,
            seq: self.seq,
            cursor: self.cursor,
            snapshot: self.snapshot.as_ref().map(|s| (s.seq, s.cursor)),
            deaths: self.deaths.at(self.seq),
            attempts: self.attempts.at(self.seq),
            trims: self.trims.clone(),
            seed: self.seed,
        }
    }

    /// A page of verdicts.
    pub(super) fn batches_after(&self, seq: u64, entries_max: usize) -> Vec<Bytes> {
        let batches = self.out_after(seq).take(entries_max).map(|(_, batch)| batch);
        fill(&mut PageSize { entries: entries_max, ..PageSize::default() }, batches, Bytes::len).0
    }

    /// Whether all parts of a commit's snapshot are stored.
    pub(super) fn has(&self, snapshot: Option<&CommitSnapshot>, epoch: u64) -> bool {
        let Some(CommitSnapshot::Parts { name, count, .. }) = snapshot else { return true };
        self.ahead.get(&(epoch, *name)).is_some_and(|parts| parts.keys().copied().eq(0..*count))
    }

    /// Makes a commit's snapshot the valid one.
    pub(super) fn put(&mut self, part: &RoomCommit, epoch: u64) {
        let (seq, cursor, pieces) = match &part.snapshot {
            None => return,
            Some(CommitSnapshot::Whole(bytes)) => (part.to, part.cursor, vec![bytes.clone()]),
            Some(CommitSnapshot::Parts { name, cursor, .. }) => {
                (name.seq, *cursor, self.ahead.remove(&(epoch, *name)).into_iter().flat_map(BTreeMap::into_values).collect())
            }
        };
        self.ahead.clear();
        self.snapshot = Some(Snapshot { seq, cursor, pieces });
    }
}

/// As many as still fit into the page, and whether it is full then.
fn fill<T>(left: &mut PageSize, items: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> (Vec<T>, bool) {
    let mut taken = Vec::new();
    for item in items {
        let rest = left.less(bytes(&item));
        taken.push(item);
        match rest {
            Some(rest) => *left = rest,
            None => return (taken, true),
        }
    }
    (taken, false)
}

impl Store {
    /// A page of what is needed to continue a room.
    #[must_use]
    pub(crate) fn load(&self, room: &RoomId, mut place: Place, size: PageSize) -> StoredPage {
        let Some(stored) = self.room(room) else { return StoredPage::default() };
        let mut page = StoredPage {
            head: stored.stored_head(self.shards[usize::from(ShardId::of(room, self.shards()).0)].shift),
            ..StoredPage::default()
        };
        let (seq, cursor) = page.head.snapshot.unwrap_or_default();
        let mut left = size;
        if place == Place::default() {
            page.program.clone_from(&stored.program);
        }
        if let Place::Snapshot(read) = place {
            // A snapshot that was stored as a whole is read in pieces, too.
            let pieces = stored.snapshot.iter().flat_map(|s| &s.pieces).flat_map(|piece| {
                let count = piece.len().div_ceil(size.bytes).max(1);
                (0..count).map(|n| piece.slice(n * size.bytes..piece.len().min((n + 1) * size.bytes)))
            });
            let (count, behind) = (pieces.clone().count(), usize::try_from(read).unwrap_or(usize::MAX));
            let (taken, full) = fill(&mut left, pieces.skip(behind), Bytes::len);
            let read = read.saturating_add(u32::try_from(taken.len()).unwrap_or(u32::MAX));
            place =
                if usize::try_from(read).is_ok_and(|read| read < count) { Place::Snapshot(read) } else { Place::Verdicts(seq) };
            page.snapshot = taken;
            if full {
                page.next = Some(place);
                return page;
            }
        }
        if let Place::Verdicts(behind) = place {
            let (taken, full) = fill(&mut left, stored.out_after(behind), |(_, batch)| batch.len());
            let last = taken.last().map_or(behind, |(seq, _)| *seq);
            page.verdicts = taken.into_iter().map(|(_, batch)| batch).collect();
            if full {
                page.next = Some(Place::Verdicts(last));
                return page;
            }
            place = Place::Entries(cursor);
        }
        if let Place::Entries(behind) = place {
            let (taken, full) = fill(&mut left, stored.after(behind), |(_, entry)| entry.len());
            page.next = taken.last().filter(|_| full).map(|(last, _)| Place::Entries(*last));
            page.entries = taken;
        }
        page
    }

    /// A room's entries after a position.
    #[cfg(test)]
    pub(crate) fn read(&self, room: &RoomId, after: crate::types::StreamId) -> Vec<(crate::types::StreamId, Bytes)> {
        self.room(room).map_or_else(Vec::new, |stored| stored.after(after).collect())
    }

    /// Stores a part of a snapshot for a later commit.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for a shard that does not exist, or a room of another one.
    pub(crate) fn write_ahead(
        &mut self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        part: &AheadPart,
    ) -> Result<Leased<()>, JournalError> {
        check::room(room, shard, self.shards())?;
        let Some(state) = self.leased(shard, lease)? else { return Ok(Leased::Lost) };
        let shift = state.shift;
        let Some(stored) = state.rooms.get_mut(room).filter(|stored| stored.era + shift == part.era) else {
            return Ok(Leased::Done(()));
        };
        if stored.snapshot.as_ref().is_none_or(|s| s.seq < part.name.seq) {
            let name = (lease.epoch, part.name);
            if part.index == 0 {
                stored.ahead.retain(|other, _| *other == name);
            }
            stored.ahead.entry(name).or_default().insert(part.index, part.bytes.clone());
        }
        Ok(Leased::Done(()))
    }
}
