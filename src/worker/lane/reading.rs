//! What a lane reads: its stored room, bells, and entries from the journal.

use bytes::Bytes;

use super::unread::Unread;
use super::{Caution, Lane, State, Turn};
use crate::engine::{HostClock, Resequencer, Room};
use crate::journal::{Gathering, Place, StoredPage};
use crate::types::{Incarnation, Moment, RoomTime, StreamId};
use crate::wire::entry;
use crate::worker::restore::Loaded;

/// A room is suspect after this many owners in a row died before its next verdict. One is not enough: every crash leaves that
/// mark on all rooms that were busy.
const DEATHS_SUSPICIOUS: u32 = 2;

/// What follows from a page of the stored room.
#[derive(Debug)]
pub(in crate::worker) enum Paged {
    /// The lane does not wait for it.
    Discarded,
    /// The next page begins at this place.
    More(Place),
    /// It was the last page: a job restores the room from them.
    All(Box<Gathering>),
}

/// What follows from a job that has restored the room.
#[derive(Debug)]
pub(in crate::worker) enum Restored {
    /// The lane does not wait for it.
    Discarded,
    /// The lane is live, and reads on from this position if there is more to read.
    Live(Option<StreamId>),
    /// There is no such room, but a bell rang meanwhile: the lane loads it again.
    LookAgain,
    /// There is no such room.
    Gone,
}

impl Lane {
    /// Takes the page of the stored room that begins at `place`.
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

    /// Takes the room that a job has restored.
    pub(in crate::worker) fn restored(
        &mut self,
        loaded: Loaded,
        (clock, now_ns): (HostClock, u64),
        watermark_of: impl Fn(Incarnation) -> Moment,
    ) -> Restored {
        let State::Restoring { unread } = &mut self.state else { return Restored::Discarded };
        let unread = std::mem::take(unread);
        let Some(room) = loaded.room else {
            // The room ended. Bells since then belong to a life that began after the load, and another load finds it. The state
            // is new, so that only later bells lead to a third one.
            self.state = State::loading();
            return if unread.came() { Restored::LookAgain } else { Restored::Gone };
        };
        self.hold = Resequencer::resume(room.sessions().map(|(s, _)| s), room.marks(), room.unproven());
        self.cursor = loaded.cursor;
        self.told_due = room.next_due().map(RoomTime::ms);
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
        let reading = self.catch_up(unread, now_ns, watermark_of);
        self.position = self.position.max(loaded.cursor);
        // A timer that is due may be what its last owner died of.
        let fires = room.next_fire(clock).is_some_and(|place| place <= Moment { timeline: clock.timeline, ns: now_ns });
        let unresolved = Some(self.position).filter(|tail| self.cursor < *tail || fires);
        let suspect = self.is_suspect() || loaded.deaths >= DEATHS_SUSPICIOUS || loaded.attempts > 0;
        self.caution = match unresolved {
            Some(tail) if suspect => Caution::Suspect(tail),
            Some(tail) if loaded.deaths > 0 => Caution::Watched(tail),
            _ => Caution::None,
        };
        Restored::Live(self.go_live(room, reading))
    }

    /// Takes in the entries that came by bell. Returns them instead if another read must come first.
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

    /// The room is in memory. Returns the position to read on from, if there is more to read.
    pub(super) fn go_live(&mut self, room: Box<Room>, reading: Option<Unread>) -> Option<StreamId> {
        let after = reading.is_some().then_some(self.position);
        self.state = State::Live { turn: Turn::idle(room), reading };
        after
    }

    /// Takes in an entry that came by bell, or keeps it until the entries before it are read.
    pub(in crate::worker) fn read(
        &mut self,
        at: StreamId,
        bytes: &Bytes,
        now_ns: u64,
        watermark_of: impl Fn(Incarnation) -> Moment,
    ) {
        match &mut self.state {
            // The entry is in the journal when the room is loaded.
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
        self.empty_since_ns = None;
        match entry::decode(bytes) {
            Ok(entry) => self.hold.read(at, &entry, watermark_of(entry.incarnation), now_ns),
            Err(error) => self.hold.read_unreadable(at, error.to_string()),
        }
    }

    /// A survey found that there is more to read. Returns the position to read from. Returns None if a read is in flight: it may be
    /// older than the survey, so another follows it.
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

    /// Takes a page of entries from the journal. Returns the position of the next one; nothing is released before the last page.
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
        self.tail = self.looking_since.take().max(self.tail);
        let State::Live { reading, .. } = &mut self.state else { return None };
        let unread = reading.take()?;
        let rest = self.catch_up(unread, now_ns, watermark_of);
        let State::Live { reading, .. } = &mut self.state else { return None };
        *reading = rest;
        reading.is_some().then_some(self.position)
    }
}
