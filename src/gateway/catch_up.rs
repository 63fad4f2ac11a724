//! Sessions that are behind their room: they read its verdict stream from where they are, as fast as they read.
//!
//! ```text
//!   live ── outbox full, own repeat ──► behind: outbox has room ──► page of the place ──► turn ──► at the head: live
//!                                               (each is waited for)                        └──► own repeat: first verdict
//! ```
//! A page serves all sessions of the room whose place lies in it. What is under way and what is held is bounded for the
//! gateway as a whole, and each waits in the order in which it came.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::core::{Action, Core};
use super::deliver::View;
use crate::journal::VerdictPage;
use crate::limits::{
    CATCH_UP_ENTRIES_MAX, CATCH_UP_WAIT_MAX, DELIVERIES_PER_TURN_MAX, FIRST_READS_MAX, FIRSTS_MAX, GAP_READS_MAX,
};
use crate::types::{Audience, Outcome, Role, RoomId, SessionId, Verdict};
use crate::wire::client::{VerdictFrames, close};
use crate::wire::{DecodeError, verdicts};

/// What a session that is behind waits for.
#[derive(Debug, Default)]
pub(super) enum Wait {
    /// It is not behind.
    #[default]
    Nothing,
    /// Its outbox to drain.
    Outbox,
    /// The page with its place.
    Page,
    /// Its turn at that.
    Turn(Arc<Page>),
    /// The first verdict on an action that it repeated.
    First(Box<Repeating>),
}

/// A repeat whose first verdict is read, and the page that goes on behind it.
#[derive(Debug)]
pub(super) struct Repeating {
    of: u64,
    repeat: Verdict,
    page: Option<Arc<Page>>,
}

/// A stretch of a room's verdict stream, decoded once for all.
#[derive(Debug)]
pub(super) struct Page {
    room: RoomId,
    era: u64,
    after: u64,
    to: u64,
    verdicts: Vec<Arc<VerdictFrames>>,
}

impl Page {
    fn has(&self, room: &RoomId, era: u64, place: u64) -> bool {
        (self.after..self.to).contains(&place) && self.era == era && self.room == *room
    }
}

/// Names a read that is under way: its answer comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    number: u64,
    /// A room's pushes had a gap.
    pub(crate) gap: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The room's pushes had a gap.
    Gap,
    /// Sessions are behind.
    Page,
    /// A session repeated an action.
    First(u64),
}

#[derive(Debug)]
struct UnderWay {
    room: RoomId,
    after: u64,
    purpose: Purpose,
}

/// What a gateway reads of its rooms' verdict streams.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Read numbers are never given again, so that answers to an earlier identity are known.
    pub(super) next: u64,
    under_way: BTreeMap<u64, UnderWay>,
    gaps: VecDeque<RoomId>,
    /// Rooms whose gap could not be read.
    damaged: BTreeSet<RoomId>,
    firsts: VecDeque<u64>,
    behind: VecDeque<u64>,
    turns: VecDeque<u64>,
    /// The pages that sessions hold.
    pages: Vec<Weak<Page>>,
    known: Firsts,
    /// Between two turns.
    resting: bool,
    /// Deliveries of the next turn; 0 before the first.
    turn: usize,
}

impl Reads {
    fn count(&self, which: impl Fn(Purpose) -> bool) -> usize {
        self.under_way.values().filter(|read| which(read.purpose)).count()
    }

    fn page_of(&self, room: &RoomId, era: u64, place: u64) -> Option<Arc<Page>> {
        self.pages.iter().filter_map(Weak::upgrade).find(|page| page.has(room, era, place))
    }
}

/// First verdicts that were asked for lately, by room, era and `seq`: clients repeat what they repeated before.
#[derive(Debug, Default)]
struct Firsts {
    verdicts: HashMap<(RoomId, u64, u64), Verdict>,
    order: VecDeque<(RoomId, u64, u64)>,
}

impl Firsts {
    fn keep(&mut self, place: (RoomId, u64, u64), verdict: Verdict) {
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

fn visible(verdict: &Verdict, session: SessionId, role: Role) -> bool {
    role == Role::Server
        || match verdict.audience {
            Audience::Room => true,
            Audience::Session => verdict.session_id() == session,
            Audience::Server => false,
        }
}

impl Core {
    /// A session has taken `taken` deliveries out of its outbox, all in all, as [`Action::AskOutbox`] asked.
    pub(crate) fn drained(&mut self, number: u64, taken: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        (session.asked, session.taken) = (false, taken.clamp(session.taken, session.sent));
        if matches!(session.wait, Wait::Outbox) {
            self.proceed(number);
        }
    }

    /// Asks once for when at most `level` deliveries wait in a session's outbox.
    pub(super) fn ask_outbox(&mut self, number: u64, level: usize) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if !std::mem::replace(&mut session.asked, true) {
            self.act_on(Action::AskOutbox { session: number, level });
        }
    }

    /// From here on a session reads for itself: it was looked at everything up to `read_to` for it.
    pub(super) fn fall_behind(&mut self, number: u64, read_to: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.view = View::CatchingUp { read_to };
        self.proceed(number);
    }

    /// Nothing more is read for a session.
    pub(super) fn forget_reads(&mut self, number: u64) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.wait = Wait::Nothing;
        }
        self.read_pages();
    }

    /// What a session that is behind does next.
    fn proceed(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let View::CatchingUp { read_to } = session.view else { return };
        session.seen = session.seen.max(read_to);
        session.wait = Wait::Nothing;
        if read_to >= self.rooms.get(&session.room).and_then(|view| view.head).unwrap_or(0) {
            session.view = View::Live;
        } else if session.queued() >= self.bounds.catch_up_messages_max {
            session.wait = Wait::Outbox;
            self.ask_outbox(number, self.bounds.catch_up_messages_max / 4);
        } else if let Some(page) = self.reads.page_of(&session.room, session.era, read_to) {
            self.take_turns(number, page);
        } else {
            session.wait = Wait::Page;
            self.reads.behind.push_back(number);
            self.read_pages();
        }
    }

    fn take_turns(&mut self, number: u64, page: Arc<Page>) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.wait = Wait::Turn(page);
        self.reads.turns.push_back(number);
        self.turn();
    }

    /// The rest after a turn is over, as [`Action::Rest`] asked. `waited` is how long whoever was ready to run then had to wait
    /// for the gateway: turns grow while nobody waits for long, and shrink when somebody does.
    pub(crate) fn rested(&mut self, waited: Duration) {
        self.reads.resting = false;
        let (least, most) = (DELIVERIES_PER_TURN_MAX.min(self.bounds.catch_up_turn_max), self.bounds.catch_up_turn_max);
        let turn = self.reads.turn.max(least);
        self.reads.turn = if waited > CATCH_UP_WAIT_MAX { turn / 2 } else { turn.saturating_mul(2) }.clamp(least, most);
        self.turn();
        self.read_pages();
    }

    /// Serves those whose turn it is, so much that nobody else waits for long.
    fn turn(&mut self) {
        if std::mem::replace(&mut self.reads.resting, true) {
            return;
        }
        let least = DELIVERIES_PER_TURN_MAX.min(self.bounds.catch_up_turn_max);
        let (mut left, mut served) = (self.reads.turn.max(least), false);
        while left > 0
            && let Some(number) = self.reads.turns.pop_front()
        {
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            let Wait::Turn(page) = &session.wait else { continue };
            let page = Arc::clone(page);
            session.wait = Wait::Nothing;
            served = true;
            left = left.saturating_sub(self.serve(number, &page, left).max(1));
        }
        match served {
            true => self.act_on(Action::Rest),
            false => self.reads.resting = false,
        }
    }

    /// Sends a session what comes next in a page; how many deliveries that took.
    fn serve(&mut self, number: u64, page: &Arc<Page>, most: usize) -> usize {
        let (me, bounds) = (SessionId { gateway: self.incarnation, number }, self.bounds);
        let Some(session) = self.sessions.get_mut(&number) else { return 0 };
        let View::CatchingUp { mut read_to } = session.view else { return 0 };
        let Some((open_seq, _)) = session.open else { return 0 };
        if page.era != session.era {
            self.close_stale(number);
            return 1;
        }
        let most = most.min(DELIVERIES_PER_TURN_MAX).min(bounds.catch_up_messages_max.saturating_sub(session.queued()).max(1));
        let (resuming, role) = (session.since.is_some(), session.role);
        let next = page.verdicts.partition_point(|frames| frames.verdict().seq <= read_to);
        let rest = page.verdicts.get(next..).unwrap_or_default();
        if rest.first().is_none_or(|frames| frames.verdict().seq > read_to.saturating_add(1)) {
            if resuming {
                // What it missed is gone: it starts from its own Open, like a new session.
                session.covered = open_seq;
                self.welcome(number, page.era, false, true);
                self.fall_behind(number, open_seq);
            } else {
                let reason = format!("verdicts after seq {read_to} are no longer kept: connect again with since");
                self.dismiss(number, close::SLOW, reason);
            }
            return 1;
        }
        if resuming {
            self.welcome(number, page.era, true, false);
            if let Some(session) = self.sessions.get_mut(&number) {
                session.view = View::CatchingUp { read_to };
            }
        }
        let mut sent = 0;
        for frames in rest {
            let verdict = frames.verdict();
            if let Outcome::Repeat { of } = verdict.outcome
                && verdict.session_id() == me
            {
                self.repeat(number, of, verdict.clone(), Some(Arc::clone(page)));
                return sent + 1;
            }
            read_to = verdict.seq;
            if visible(verdict, me, role) {
                self.send(number, read_to, Arc::clone(frames));
                sent += 1;
                if sent >= most {
                    break;
                }
            }
        }
        self.fall_behind(number, read_to);
        sent
    }

    /// A repeated action gets its first verdict again. While that is read the session is behind, so that its frames stay in
    /// order.
    pub(super) fn repeat(&mut self, number: u64, of: u64, repeat: Verdict, page: Option<Arc<Page>>) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if let Some(first) = self.reads.known.verdicts.get(&(session.room.clone(), session.era, of)).cloned() {
            let (seq, live) = (repeat.seq, session.view == View::Live);
            self.send_first(number, of, repeat, Some(first));
            if !live {
                self.fall_behind(number, seq);
            }
            return;
        }
        session.view = View::CatchingUp { read_to: repeat.seq };
        session.wait = Wait::First(Box::new(Repeating { of, repeat, page }));
        self.reads.firsts.push_back(number);
        self.read_firsts();
    }

    fn send_first(&mut self, number: u64, of: u64, repeat: Verdict, first: Option<Verdict>) {
        let seq = repeat.seq;
        let frames = match first {
            Some(mut first) => {
                // Under the repeating session's name, so that it knows its own action again.
                first.seq = seq;
                first.session = number;
                first.stamp.incarnation = self.incarnation;
                VerdictFrames::new(first, Some(of))
            }
            // No longer kept: the repeat itself is the answer.
            None => VerdictFrames::new(repeat, None),
        };
        self.send(number, seq, Arc::new(frames));
    }

    /// A room's pushes have a gap: it is read as soon as there is a place for it.
    pub(super) fn read_gap(&mut self, room: RoomId) {
        self.reads.gaps.push_back(room);
        self.read_gaps();
    }

    /// Before the heads are compared: what could not be read is read again if it is still missing.
    pub(super) fn try_gaps_again(&mut self) {
        for room in std::mem::take(&mut self.reads.damaged) {
            if let Some(view) = self.rooms.get_mut(&room) {
                view.filling = false;
            }
        }
    }

    fn read_gaps(&mut self) {
        while self.reads.count(|purpose| purpose == Purpose::Gap) < GAP_READS_MAX
            && let Some(room) = self.reads.gaps.pop_front()
        {
            let Some(view) = self.rooms.get(&room).filter(|view| view.filling) else { continue };
            let Some(head) = view.head else { continue };
            self.read(room, head, Purpose::Gap);
        }
    }

    fn read_firsts(&mut self) {
        while self.reads.count(|purpose| matches!(purpose, Purpose::First(_))) < FIRST_READS_MAX
            && let Some(number) = self.reads.firsts.pop_front()
        {
            let Some(session) = self.sessions.get(&number) else { continue };
            let Wait::First(repeating) = &session.wait else { continue };
            let (room, after) = (session.room.clone(), repeating.of.saturating_sub(1));
            self.read(room, after, Purpose::First(number));
        }
    }

    fn read_pages(&mut self) {
        while !self.reads.behind.is_empty() {
            self.reads.pages.retain(|page| page.strong_count() > 0);
            let count = self.reads.pages.len() + self.reads.count(|purpose| purpose == Purpose::Page);
            if count >= self.bounds.catch_up_pages_max {
                return;
            }
            let Some(number) = self.reads.behind.pop_front() else { return };
            let Some(session) = self.sessions.get(&number).filter(|session| matches!(session.wait, Wait::Page)) else { continue };
            let View::CatchingUp { read_to } = session.view else { continue };
            let room = session.room.clone();
            let same = |read: &UnderWay| read.purpose == Purpose::Page && read.after == read_to && read.room == room;
            // The answer to that one finds all who wait.
            if !self.reads.under_way.values().any(same) {
                self.read(room, read_to, Purpose::Page);
            }
        }
    }

    fn read(&mut self, room: RoomId, after: u64, purpose: Purpose) {
        self.reads.next += 1;
        let number = self.reads.next;
        self.reads.under_way.insert(number, UnderWay { room, after, purpose });
        self.ask(number);
    }

    fn ask(&mut self, number: u64) {
        let Some(UnderWay { room, after, purpose }) = self.reads.under_way.get(&number) else { return };
        let entries_max = if matches!(purpose, Purpose::First(_)) { 1 } else { CATCH_UP_ENTRIES_MAX };
        let reading = Reading { number, gap: *purpose == Purpose::Gap };
        let read = Action::Read { room: room.clone(), after: *after, entries_max, reading };
        self.act_on(read);
    }

    /// The answer to [`Action::Read`].
    ///
    /// # Errors
    /// When the page holds something unreadable: as [`Core::unreadable`].
    pub(crate) fn page(&mut self, room: &RoomId, after: u64, reading: Reading, page: &VerdictPage) -> Result<(), DecodeError> {
        // Of an earlier identity it is nobody's.
        let Some(purpose) = self.reads.under_way.get(&reading.number).map(|read| read.purpose) else { return Ok(()) };
        let shard = self.shard_of(room);
        if !self.hears(shard, page.server, page.commit) {
            // Asked for again while the gateway is on its way to another server.
            if self.shards[usize::from(shard.0)].is_registering() {
                self.ask(reading.number);
            } else {
                self.reads.under_way.remove(&reading.number);
            }
            return Ok(());
        }
        let batches = page.batches.iter();
        let read = match purpose {
            Purpose::Gap => batches.map(verdicts::decode).collect::<Result<Vec<_>, _>>().map(|batches| {
                self.reads.under_way.remove(&reading.number);
                self.fill(room, after, page, batches);
                self.read_gaps();
            }),
            Purpose::Page => batches.map(verdicts::decode).collect::<Result<Vec<_>, _>>().map(|batches| {
                self.reads.under_way.remove(&reading.number);
                let verdicts = batches.into_iter().flat_map(|batch| batch.verdicts).filter(|verdict| verdict.seq > after);
                let verdicts: Vec<_> = verdicts.map(|verdict| Arc::new(VerdictFrames::new(verdict, None))).collect();
                let to = verdicts.last().map_or(after, |frames| frames.verdict().seq);
                self.hand_out(&Arc::new(Page { room: room.clone(), era: page.era, after, to, verdicts }));
                self.read_pages();
            }),
            Purpose::First(session) => self.first(room, session, page).map(|()| {
                self.reads.under_way.remove(&reading.number);
                self.read_firsts();
                // It may have held a page, which is another's place now.
                self.read_pages();
            }),
        };
        if read.is_err() {
            self.unreadable(&reading);
        }
        read
    }

    /// Everyone who waits for what is in a page takes turns at it.
    fn hand_out(&mut self, page: &Arc<Page>) {
        self.reads.pages.push(Arc::downgrade(page));
        let Some(view) = self.rooms.get(&page.room) else { return };
        for number in view.sessions.clone() {
            let Some(session) = self.sessions.get(&number).filter(|session| matches!(session.wait, Wait::Page)) else { continue };
            let View::CatchingUp { read_to } = session.view else { continue };
            // Who waits at its beginning asked for it, and takes what it says, or that it says nothing.
            if read_to == page.after || page.has(&page.room, session.era, read_to) {
                self.take_turns(number, Arc::clone(page));
            }
        }
    }

    fn first(&mut self, room: &RoomId, number: u64, page: &VerdictPage) -> Result<(), DecodeError> {
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(()) };
        let (Wait::First(repeating), era) = (&session.wait, session.era) else { return Ok(()) };
        if page.era != era {
            self.close_stale(number);
            return Ok(());
        }
        let of = repeating.of;
        let first = page.batches.first().map(|batch| verdicts::find(batch, of)).transpose()?.flatten();
        if let Some(first) = &first {
            // A part of the batch would hold all of it.
            let body = first.body.as_deref().map(Bytes::copy_from_slice);
            self.reads.known.keep((room.clone(), era, of), Verdict { body, ..first.clone() });
        }
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(()) };
        let Wait::First(repeating) = std::mem::take(&mut session.wait) else { return Ok(()) };
        // The page, if there is one, is held until the session goes on in it.
        let (repeat, _page) = (repeating.repeat, repeating.page);
        let seq = repeat.seq;
        self.send_first(number, of, repeat, first);
        self.fall_behind(number, seq);
        Ok(())
    }

    /// What was to be read is damaged: who waits for it is sent away; a room whose gap it is stays where it is until the
    /// heads are compared.
    pub(crate) fn unreadable(&mut self, reading: &Reading) {
        let Some(UnderWay { room, after, purpose }) = self.reads.under_way.remove(&reading.number) else { return };
        let waits = |session: &super::core::Session| match (purpose, &session.wait) {
            (Purpose::Page, Wait::Page) => session.view == (View::CatchingUp { read_to: after }),
            (Purpose::First(_), Wait::First(_)) => true,
            _ => false,
        };
        let candidates = match purpose {
            Purpose::Gap => Vec::new(),
            Purpose::First(session) => vec![session],
            Purpose::Page => self.rooms.get(&room).map_or(Vec::new(), |view| view.sessions.clone()),
        };
        if purpose == Purpose::Gap {
            self.reads.damaged.insert(room);
        }
        for number in candidates {
            if self.sessions.get(&number).is_some_and(waits) {
                self.dismiss(number, close::TRY_AGAIN, "what is stored of this room is damaged: try again later");
            }
        }
        self.read_gaps();
        self.read_firsts();
        self.read_pages();
    }
}
