//! A stored room, page by page: no step reads more than one page of it, however large it is.

use bytes::Bytes;

use super::{JournalError, StoredRoom, StoredSnapshot, WorkerJournal};
use crate::limits::{Bounds, PAGE_BYTES, PAGE_ENTRIES_MAX};
use crate::types::{RoomId, Seed, StreamId};

/// The limits of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize {
    /// Bytes after which the page ends. A page holds at least one piece. At least 1.
    pub bytes: usize,
    /// Most entries and verdict batches. At least 1.
    pub entries: usize,
}

impl Default for PageSize {
    fn default() -> Self {
        Self { bytes: PAGE_BYTES, entries: PAGE_ENTRIES_MAX }
    }
}

impl PageSize {
    pub(crate) fn of(bounds: &Bounds) -> Self {
        Self { bytes: bounds.page_bytes, entries: bounds.page_entries_max }
    }

    /// What still fits beside pieces of so many bytes; None if the page is full.
    pub(super) fn less(self, bytes: usize) -> Option<Self> {
        let (bytes, entries) = (self.bytes.checked_sub(bytes)?, self.entries.checked_sub(1)?);
        (bytes > 0 && entries > 0).then_some(Self { bytes, entries })
    }
}

/// Where a page begins. A room is read in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// After so many pieces of its snapshot.
    Snapshot(u32),
    /// After this `seq`.
    Verdicts(u64),
    /// After this position.
    Entries(StreamId),
}

impl Default for Place {
    fn default() -> Self {
        Self::Snapshot(0)
    }
}

/// The part of a room that every page of it repeats. Pages with different heads are from different moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredHead {
    /// Its era; 0 if the room does not exist.
    pub era: u64,
    /// Its last committed `seq`.
    pub seq: u64,
    /// Every entry at or before this is resolved.
    pub cursor: StreamId,
    /// The room's `seq` and cursor when its snapshot was taken.
    pub snapshot: Option<(u64, StreamId)>,
    /// See [`StoredRoom::deaths`].
    pub deaths: u32,
    /// See [`StoredRoom::attempts`].
    pub attempts: u32,
    /// See [`StoredRoom::trims`].
    pub trims: Vec<(StreamId, u64)>,
    /// See [`StoredRoom::seed`].
    pub seed: Option<Seed>,
}

/// A page of a stored room, as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredPage {
    /// The room.
    pub head: StoredHead,
    /// Pieces of the snapshot, in order.
    pub snapshot: Vec<Bytes>,
    /// See [`StoredRoom::program`]. Only the first page has it.
    pub program: Option<Bytes>,
    /// Encoded verdict batches.
    pub verdicts: Vec<Bytes>,
    /// Encoded entries.
    pub entries: Vec<(StreamId, Bytes)>,
    /// Where the next page begins; None if this page ends at the stream's tail.
    pub next: Option<Place>,
}

#[cfg(test)]
impl From<StoredRoom> for StoredPage {
    fn from(room: StoredRoom) -> Self {
        let StoredRoom { era, seq, cursor, snapshot, verdicts, entries, deaths, attempts, trims, seed, program } = room;
        let head = StoredHead {
            era,
            seq,
            cursor,
            snapshot: snapshot.as_ref().map(|s| (s.seq, s.cursor)),
            deaths,
            attempts,
            trims,
            seed,
        };
        Self { head, snapshot: snapshot.into_iter().map(|s| s.bytes).collect(), program, verdicts, entries, next: None }
    }
}

/// The pages of a room that were read so far. The reader owns the room's shard, so nobody commits in the meantime, and new
/// entries come after the tail. If the room changes nevertheless (it begins a new era), it is read again from its beginning.
#[derive(Debug, Clone, Default)]
pub struct Gathering {
    head: Option<StoredHead>,
    place: Place,
    snapshot: Vec<Bytes>,
    program: Option<Bytes>,
    verdicts: Vec<Bytes>,
    entries: Vec<(StreamId, Bytes)>,
}

impl Gathering {
    /// Where the next page has to begin.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether restoring the room takes long.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.snapshot.len() > 1 || self.verdicts.len() + self.entries.len() > 4 * PAGE_ENTRIES_MAX
    }

    /// Adds the page that begins at [`Gathering::place`]. Returns true if it is the last one.
    pub fn add(&mut self, page: StoredPage) -> bool {
        if self.head.as_ref().is_some_and(|head| *head != page.head) {
            *self = Self::default();
            return false;
        }
        self.head = Some(page.head);
        self.snapshot.extend(page.snapshot);
        self.program = self.program.take().or(page.program);
        self.verdicts.extend(page.verdicts);
        self.entries.extend(page.entries);
        self.place = page.next.unwrap_or_default();
        page.next.is_none()
    }

    /// The room, once all pages were read. It copies a snapshot of several pieces: do not call it where others wait.
    #[must_use]
    pub fn room(mut self) -> StoredRoom {
        let StoredHead { era, seq, cursor, snapshot, deaths, attempts, trims, seed } = self.head.take().unwrap_or_default();
        let Self { snapshot: pieces, verdicts, entries, program, .. } = self;
        let bytes = joined(pieces);
        let snapshot = snapshot.map(|(seq, cursor)| StoredSnapshot { seq, cursor, bytes });
        StoredRoom { era, seq, cursor, snapshot, verdicts, entries, deaths, attempts, trims, seed, program }
    }
}

/// Joins pieces.
pub(crate) fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() < 2 { pieces.pop().unwrap_or_default() } else { pieces.concat().into() }
}

/// Reads all of a room, page by page. Only for its owner: if somebody else commits meanwhile, it may start again and again.
///
/// # Errors
/// When the journal does not work, or what it holds of the room is damaged.
pub async fn load(journal: &dyn WorkerJournal, room: &RoomId, size: PageSize) -> Result<StoredRoom, JournalError> {
    let mut gathering = Gathering::default();
    while !gathering.add(journal.load(room, gathering.place(), size).await?) {}
    Ok(gathering.room())
}

/// Reads a room's entries after a position, up to the tail, page by page.
///
/// # Errors
/// When the journal does not work, or what it holds of the room is damaged.
pub async fn entries(
    journal: &dyn WorkerJournal,
    room: &RoomId,
    after: StreamId,
    size: PageSize,
) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
    let (mut all, mut next) = (Vec::new(), Some(Place::Entries(after)));
    while let Some(place) = next {
        let page = journal.load(room, place, size).await?;
        all.extend(page.entries);
        next = page.next;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(era: u64, seq: u64, entry: &'static str, next: Option<Place>) -> StoredPage {
        let head = StoredHead { era, seq, ..StoredHead::default() };
        let entries = vec![(StreamId { ms: 1, seq }, Bytes::from_static(entry.as_bytes()))];
        StoredPage { head, entries, next, ..StoredPage::default() }
    }

    #[test]
    fn pages_of_two_moments_are_never_put_together() {
        let behind = Some(Place::Entries(StreamId { ms: 1, seq: 0 }));
        for (era, seq) in [(2, 5), (1, 6), (0, 0)] {
            let mut gathering = Gathering::default();
            assert!(!gathering.add(page(1, 5, "old", behind)));
            assert_eq!(Some(gathering.place()), behind);
            assert!(!gathering.add(page(era, seq, "new", None)), "era {era}, seq {seq}");
            assert_eq!(gathering.place(), Place::default(), "it begins again");
            assert!(gathering.add(page(era, seq, "new", None)));
            let room = gathering.room();
            assert_eq!((room.era, room.seq, room.entries.len()), (era, seq, 1));
        }
    }
}
