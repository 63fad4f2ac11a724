//! What a gateway reads from its rooms' verdict streams: the reads in flight, the sessions that wait, and the pages they hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::limits::FIRSTS_MAX;
use crate::types::{RoomId, Verdict};
use crate::wire::client::VerdictFrames;

/// What a session that catches up is waiting for.
#[derive(Debug, Default)]
pub(super) enum Wait {
    /// Nothing: it is not catching up.
    #[default]
    Nothing,
    /// Its outbox has to drain.
    Outbox,
    /// The page with its next verdict has to be read.
    Page,
    /// Its turn at this page has to come.
    Turn(Arc<Page>),
    /// The first verdict on an action that it repeated has to be read.
    First(Box<Repeating>),
}

/// A repeated action whose first verdict is being read.
#[derive(Debug)]
pub(super) struct Repeating {
    /// The `seq` of the first verdict.
    pub(super) of: u64,
    pub(super) repeat: Verdict,
    /// The page that the repeat was in. The session goes on with it.
    pub(super) page: Option<Arc<Page>>,
}

/// A part of a room's verdict stream, decoded once for all sessions.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) room: RoomId,
    pub(super) era: u64,
    /// The `seq` after which it begins.
    pub(super) after: u64,
    /// Its last `seq`.
    pub(super) to: u64,
    pub(super) verdicts: Vec<Arc<VerdictFrames>>,
}

impl Page {
    /// Whether it has the verdict after `place`.
    pub(super) fn has(&self, room: &RoomId, era: u64, place: u64) -> bool {
        (self.after..self.to).contains(&place) && self.era == era && self.room == *room
    }
}

/// Why a read is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The room's pushes had a gap.
    Gap,
    /// Sessions catch up.
    Page,
    /// The session with this number repeated an action.
    First(u64),
}

/// A read whose answer is awaited.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) room: RoomId,
    pub(super) after: u64,
    pub(super) purpose: Purpose,
}

/// The reads of a gateway.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The last read's number. No number is used twice, so answers that are waited for no more match nothing.
    pub(super) last_number: u64,
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    /// Rooms whose gap waits to be read.
    pub(super) gaps: VecDeque<RoomId>,
    /// Rooms whose gap could not be read.
    pub(super) damaged: BTreeSet<RoomId>,
    /// Sessions that wait for a first verdict.
    pub(super) firsts: VecDeque<u64>,
    /// Sessions that wait for a page, each at most once. Some were served by another's page since, or are gone.
    pub(super) behind: VecDeque<u64>,
    /// Sessions that wait for their turn.
    pub(super) turns: VecDeque<u64>,
    /// The pages that sessions hold.
    pub(super) pages: Vec<Weak<Page>>,
    pub(super) known: Firsts,
    /// Whether the rest after a turn is not over.
    pub(super) resting: bool,
    /// The deliveries that the next turn should take, before its bounds; 0 before the first.
    pub(super) turn: usize,
}

impl Reads {
    /// How many reads in flight have such a purpose.
    pub(super) fn count(&self, which: impl Fn(Purpose) -> bool) -> usize {
        self.in_flight.values().filter(|read| which(read.purpose)).count()
    }

    /// The answers to reads of these rooms would come to other sessions than asked.
    pub(super) fn forget(&mut self, rooms: &BTreeSet<RoomId>) {
        self.in_flight.retain(|_, read| !rooms.contains(&read.room));
        self.gaps.retain(|room| !rooms.contains(room));
        self.damaged.retain(|room| !rooms.contains(room));
    }

    /// The page that a session holds and that has the verdict after `place`.
    pub(super) fn page_of(&self, room: &RoomId, era: u64, place: u64) -> Option<Arc<Page>> {
        self.pages.iter().filter_map(Weak::upgrade).find(|page| page.has(room, era, place))
    }
}

/// The first verdicts that were read last, by room, era and `seq`: a client that repeats an action often repeats it again.
#[derive(Debug, Default)]
pub(super) struct Firsts {
    pub(super) verdicts: HashMap<(RoomId, u64, u64), Verdict>,
    order: VecDeque<(RoomId, u64, u64)>,
}

impl Firsts {
    pub(super) fn keep(&mut self, place: (RoomId, u64, u64), verdict: Verdict) {
        if self.verdicts.insert(place.clone(), verdict).is_none() {
            self.order.push_back(place);
        }
        if self.order.len() > FIRSTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
    }
}
