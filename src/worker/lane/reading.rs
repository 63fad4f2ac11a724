//! What comes into a lane: its stored room, bells, and the entries that lie unread in the journal.

use bytes::Bytes;

use super::unread::Unread;
use super::{Caution, Lane, State, Turn};
use crate::engine::{Resequencer, Room};
use crate::journal::{Gathering, Place, StoredPage};
use crate::types::{Incarnation, Moment, StreamId};
use crate::wire::entry;
use crate::worker::restore::Loaded;

/// Owners lost in a row without a verdict in between, from which on a room's events are resolved alone. One is what every
/// crash leaves in the rooms that were busy: they go on in batches.
const DEATHS_SUSPICIOUS: u32 = 2;

/// What a page of the stored room leads to.
#[derive(Debug)]
pub(in crate::worker) enum Paged {
    /// The lane does not wait for it.
    Discarded,
    /// The next page is here.
    More(Place),
    /// A job brings the room back from these.
    All(Box<Gathering>),
}

/// What a room that was brought back leads to.
#[derive(Debug)]
pub(in crate::worker) enum Restored {
    /// The lane does not wait for it.
    Discarded,
    /// It is live, and reads on after this position if it is not at the tail that counts.
    Live(Option<StreamId>),
    /// It is not there, but a bell rang meanwhile: the lane looks again.
    LookAgain,
    /// It is not there.
    Gone,
}

impl Lane {
    /// A page of the stored room, from `place` on.
    pub(in crate::worker) fn page(&mut self, place: Place, page: StoredPage) -> Paged {
        let State::Loading { pages, unread } = &mut self.state else { return Paged::Discarded };
        if pages.place() != place {
            return Paged::Discarded;
        }
        if !pages.add(page) {
            return Paged::More(pages.place());
        }
        let (pages, unread) = (std::mem::take(pages), std::mem::take(unread));
        self.state = State::Restoring { unread };
        Paged::All(pages)
    }

    /// A job has brought the room back.
    pub(in crate::worker) fn restored(
        &mut self,
        loaded: Loaded,
        now_ns: u64,
        watermark_of: impl Fn(Incarnation) -> Moment,
    ) -> Restored {
        let State::Restoring { unread } = &mut self.state else { return Restored::Discarded };
        let unread = std::mem::take(unread);
        let Some(room) = loaded.room else {
            // It ended meanwhile. What came in by bell belongs to a life that began after it was read, and what is asked for
            // now has it: if not, the room is not there, and only what comes after this is a reason to look again.
            self.state = State::loading();
            return if unread.came() { Restored::LookAgain } else { Restored::Gone };
        };
        self.hold = Resequencer::resume(room.sessions().map(|(s, _)| s), room.marks(), room.unproven());
        self.cursor = loaded.cursor;
        self.snapshots.resume_trims(loaded.trims);
        self.position = StreamId::default();
        if let Some((seq, cursor, bytes)) = loaded.snapshot {
            self.snapshots.remember(seq, bytes);
            self.position = cursor;
        }
        for (at, entry) in loaded.entries {
            if at <= self.position {
                continue;
            }
            self.position = at;
            match entry {
                Ok(entry) => self.hold.read(at, &entry, watermark_of(entry.incarnation), now_ns),
                Err(error) => self.hold.read_unreadable(at, error.to_string()),
            }
        }
        // Between a stale read and the bells that came after it something may be missing.
        let reading = self.catch_up(unread, now_ns, watermark_of);
        self.position = self.position.max(loaded.cursor);
        let unresolved = Some(self.position).filter(|tail| self.cursor < *tail);
        let suspect = self.is_suspect() || loaded.deaths >= DEATHS_SUSPICIOUS || loaded.attempts > 0;
        self.caution = match unresolved {
            Some(tail) if suspect => Caution::Suspect(tail),
            Some(tail) if loaded.deaths > 0 => Caution::Watched(tail),
            _ => Caution::None,
        };
        Restored::Live(self.go_live(room, reading))
    }

    /// Takes in what came by bell; what waits for another read, if one is needed first.
    pub(super) fn catch_up(
        &mut self,
        unread: Unread,
        now_ns: u64,
        watermark_of: impl Fn(Incarnation) -> Moment,
    ) -> Option<Unread> {
        match unread.caught_up() {
            Err(unread) => return Some(unread),
            Ok(entries) => entries.iter().for_each(|(at, bytes)| self.take_in(*at, bytes, now_ns, &watermark_of)),
        }
        None
    }

    /// The room is in memory. Where it reads on.
    pub(super) fn go_live(&mut self, room: Box<Room>, reading: Option<Unread>) -> Option<StreamId> {
        let after = reading.is_some().then_some(self.position);
        self.state = State::Live { turn: Turn::idle(room), reading };
        after
    }

    /// Takes in an entry, unless it was read before or has to wait for the journal's.
    pub(in crate::worker) fn read(
        &mut self,
        at: StreamId,
        bytes: &Bytes,
        now_ns: u64,
        watermark_of: impl Fn(Incarnation) -> Moment,
    ) {
        match &mut self.state {
            // It is loaded later, with all that is in the journal then.
            State::Failed | State::Quarantined { .. } => {}
            State::Live { reading: None, .. } => self.take_in(at, bytes, now_ns, watermark_of),
            State::Loading { unread, .. }
            | State::Restoring { unread }
            | State::Live { reading: Some(unread), .. }
            | State::Ending { unread, .. } => unread.keep(at, bytes),
        }
    }

    fn take_in(&mut self, at: StreamId, bytes: &Bytes, now_ns: u64, watermark_of: impl Fn(Incarnation) -> Moment) {
        if at <= self.position {
            return;
        }
        self.position = at;
        if let State::Live { turn: Turn::Idle { empty_since_ns, .. }, .. } = &mut self.state {
            *empty_since_ns = None;
        }
        match entry::decode(bytes) {
            Ok(entry) => self.hold.read(at, &entry, watermark_of(entry.incarnation), now_ns),
            Err(error) => self.hold.read_unreadable(at, error.to_string()),
        }
    }

    /// A survey says that there is something to read. Where it is to be read from, unless a read is under way: that one may be
    /// older than the survey, and another follows it.
    pub(in crate::worker) fn surveyed(&mut self) -> Option<StreamId> {
        match &mut self.state {
            State::Live { reading: reading @ None, .. } => {
                *reading = Some(Unread::default());
                return Some(self.position);
            }
            State::Loading { unread, .. }
            | State::Restoring { unread }
            | State::Live { reading: Some(unread), .. }
            | State::Ending { unread, .. } => unread.outdate(),
            State::Failed | State::Quarantined { .. } => {}
        }
        None
    }

    /// A page of the entries that lie unread in the journal. Where they are read on; nothing is released before the last one,
    /// which ends at the tail.
    pub(in crate::worker) fn read_page(
        &mut self,
        page: &StoredPage,
        now_ns: u64,
        watermark_of: impl Fn(Incarnation) -> Moment,
    ) -> Option<StreamId> {
        let State::Live { reading: Some(_), .. } = &self.state else { return None };
        for (at, bytes) in &page.entries {
            self.take_in(*at, bytes, now_ns, &watermark_of);
        }
        if let Some(Place::Entries(after)) = page.next {
            return Some(after);
        }
        let State::Live { reading, .. } = &mut self.state else { return None };
        let unread = reading.take()?;
        let rest = self.catch_up(unread, now_ns, watermark_of);
        let State::Live { reading, .. } = &mut self.state else { return None };
        *reading = rest;
        reading.is_some().then_some(self.position)
    }
}
