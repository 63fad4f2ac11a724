//! Sessions that catch up with their room. They read its verdict stream from their own place, at their own pace.
//!
//! ```text
//!   live ── outbox full, own repeat ──► waits for: room in its outbox ──► a page ──► its turn ──► at the head: live
//!                                                                                           └──► own repeat: first verdict
//! ```
//! One page serves all sessions of the room whose place is in it. Reads in flight and pages in memory are bounded for the
//! whole gateway. Sessions wait in the order in which they came, each in one place.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::core::Core;
use super::reads::{InFlight, Page, Purpose, Repeating, Wait};
use super::state::{Session, View, shard_of};
use super::step::{Command, ReadId};
use crate::journal::VerdictPage;
use crate::limits::{CATCH_UP_ENTRIES_MAX, CATCH_UP_WAIT_MAX, DELIVERIES_PER_TURN_MAX, FIRST_READS_MAX, GAP_READS_MAX};
use crate::types::{Audience, Outcome, PlayerId, Role, RoomId, SessionId, Verdict};
use crate::wire::client::{VerdictFrames, close};
use crate::wire::{DecodeError, verdicts};

/// Whether the session may see the verdict.
fn visible(verdict: &Verdict, session: SessionId, player: &PlayerId, role: Role) -> bool {
    role == Role::Server
        || match &verdict.audience {
            Audience::Room => true,
            Audience::Session => verdict.session_id() == session,
            Audience::Server => false,
            Audience::Players(players) => players.contains(player) || verdict.session_id() == session,
        }
}

impl Core {
    pub(super) fn outbox_drained(&mut self, number: u64, taken: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        (session.asked, session.taken) = (false, taken.clamp(session.taken, session.sent));
        if matches!(session.wait, Wait::Outbox) {
            self.proceed(number);
        }
    }

    /// Asks to be told when a session's outbox holds at most `level` deliveries, unless that was asked already.
    pub(super) fn ask_outbox(&mut self, number: u64, level: usize) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if !std::mem::replace(&mut session.asked, true) {
            self.issue(Command::AskOutbox { session: number, level });
        }
    }

    /// From now on a session catches up. Everything up to `read_to` was considered for it.
    pub(super) fn fall_behind(&mut self, number: u64, read_to: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.view = View::CatchingUp { read_to };
        self.proceed(number);
    }

    /// Stops reading for a session.
    pub(super) fn forget_reads(&mut self, number: u64) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.wait = Wait::Nothing;
        }
        self.read_pages();
    }

    /// The next step of a session that catches up.
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
            // It may still have the place of an earlier wait that another's page ended. With two, those who share would crowd out
            // those who cannot.
            if !std::mem::replace(&mut session.in_line, true) {
                self.reads.behind.push_back(number);
            }
            self.read_pages();
        }
    }

    fn take_turns(&mut self, number: u64, page: Arc<Page>) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.wait = Wait::Turn(page);
        self.reads.turns.push_back(number);
        self.turn();
    }

    /// The rest is over. Turns grow while others wait for a short time, and shrink when they wait for long.
    pub(super) fn rested(&mut self, waited: Duration) {
        self.reads.resting = false;
        self.reads.turn = if waited > CATCH_UP_WAIT_MAX { self.next_turn() / 2 } else { self.next_turn().saturating_mul(2) };
        self.turn();
        self.read_pages();
    }

    /// How many deliveries the next turn may take.
    fn next_turn(&self) -> usize {
        self.reads.turn.max(DELIVERIES_PER_TURN_MAX).min(self.bounds.catch_up_turn_max)
    }

    /// Serves the sessions whose turn it is, within a bound, so that live sessions do not wait long.
    fn turn(&mut self) {
        if std::mem::replace(&mut self.reads.resting, true) {
            return;
        }
        let (mut left, mut served) = (self.next_turn(), false);
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
            true => self.issue(Command::Rest),
            false => self.reads.resting = false,
        }
    }

    /// Sends a session the next verdicts of a page. Returns how many deliveries that took.
    fn serve(&mut self, number: u64, page: &Arc<Page>, most: usize) -> usize {
        let (me, bounds) = (self.session_id(number), self.bounds);
        let Some(session) = self.sessions.get_mut(&number) else { return 0 };
        let View::CatchingUp { mut read_to } = session.view else { return 0 };
        let Some((open_seq, _)) = session.open else { return 0 };
        if page.era != session.era {
            self.close_stale(number);
            return 1;
        }
        let most = most.min(DELIVERIES_PER_TURN_MAX).min(bounds.catch_up_messages_max.saturating_sub(session.queued()).max(1));
        let (resuming, player, role) = (session.since.is_some(), session.player.clone(), session.role);
        let next = page.verdicts.partition_point(|frames| frames.verdict().seq <= read_to);
        let rest = page.verdicts.get(next..).unwrap_or_default();
        if rest.first().is_none_or(|frames| frames.verdict().seq > read_to.saturating_add(1)) {
            if resuming {
                // The verdicts that it missed are no longer kept: it starts at its own Open, like a new session.
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
            if visible(verdict, me, &player, role) {
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

    /// Answers a repeated action with its first verdict. While that is read the session catches up, so that its frames stay
    /// in order.
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
                // It names the repeating session, whose client recognizes its own action by that.
                first.seq = seq;
                first.session = number;
                first.stamp.incarnation = self.session_id(number).gateway;
                VerdictFrames::new(first, Some(of))
            }
            // The first verdict is no longer kept: the repeat itself is the answer.
            None => VerdictFrames::new(repeat, None),
        };
        self.send(number, seq, Arc::new(frames));
    }

    /// A room's pushes have a gap. It is read as soon as the bound on such reads allows it.
    pub(super) fn read_gap(&mut self, room: RoomId) {
        self.reads.gaps.push_back(room);
        self.read_gaps();
    }

    /// Lets gaps that could not be read be read again. The comparison of heads finds those that are still there.
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
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            session.in_line = false;
            let (Wait::Page, View::CatchingUp { read_to }) = (&session.wait, session.view) else { continue };
            let room = session.room.clone();
            let same = |read: &InFlight| read.purpose == Purpose::Page && read.after == read_to && read.room == room;
            // The answer to that read serves all sessions that wait.
            if !self.reads.in_flight.values().any(same) {
                self.read(room, read_to, Purpose::Page);
            }
        }
    }

    fn read(&mut self, room: RoomId, after: u64, purpose: Purpose) {
        self.reads.last_number += 1;
        let read = ReadId { number: self.reads.last_number, gap: purpose == Purpose::Gap };
        let entries_max = if matches!(purpose, Purpose::First(_)) { 1 } else { CATCH_UP_ENTRIES_MAX };
        self.reads.in_flight.insert(read.number, InFlight { room: room.clone(), after, purpose });
        self.issue(Command::Read { room, after, entries_max, read });
    }

    pub(super) fn page(&mut self, read: &ReadId, page: &VerdictPage) {
        // An answer to an earlier turn is discarded.
        let Some(InFlight { room, after, purpose }) = self.reads.in_flight.remove(&read.number) else { return };
        let shard = shard_of(&self.shards, &room);
        if !self.hears(shard, page.server, page.commit) {
            // The gateway is registering with another server, which is asked again.
            if self.shards[usize::from(shard.0)].is_registering() {
                self.read(room, after, purpose);
            }
            return;
        }
        let batches = || page.batches.iter().map(verdicts::decode).collect::<Result<Vec<_>, _>>();
        let done = match purpose {
            Purpose::Gap => batches().map(|batches| self.fill(&room, after, page, batches)),
            Purpose::Page => batches().map(|batches| {
                let verdicts = batches.into_iter().flat_map(|batch| batch.verdicts).filter(|verdict| verdict.seq > after);
                let verdicts: Vec<_> = verdicts.map(|verdict| Arc::new(VerdictFrames::new(verdict, None))).collect();
                let to = verdicts.last().map_or(after, |frames| frames.verdict().seq);
                self.hand_out(&Arc::new(Page { room: room.clone(), era: page.era, after, to, verdicts }));
            }),
            Purpose::First(session) => self.first(&room, session, page),
        };
        match done {
            Ok(()) => self.read_more(),
            Err(error) => self.give_up(InFlight { room, after, purpose }, error.to_string()),
        }
    }

    pub(super) fn read_more(&mut self) {
        self.read_gaps();
        self.read_firsts();
        self.read_pages();
    }

    /// Gives a page to all sessions that wait for it.
    fn hand_out(&mut self, page: &Arc<Page>) {
        self.reads.pages.push(Arc::downgrade(page));
        let Some(view) = self.rooms.get(&page.room) else { return };
        for number in view.sessions.clone() {
            let Some(session) = self.sessions.get(&number).filter(|session| matches!(session.wait, Wait::Page)) else { continue };
            let View::CatchingUp { read_to } = session.view else { continue };
            // A session at the page's beginning asked for it, and takes it even when it is empty.
            if read_to == page.after || page.has(&page.room, session.era, read_to) {
                self.take_turns(number, Arc::clone(page));
            }
        }
    }

    /// The batch with a first verdict was read.
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
            // Copied: a slice would keep the whole batch in memory.
            let body = first.body.as_deref().map(Bytes::copy_from_slice);
            self.reads.known.keep((room.clone(), era, of), Verdict { body, ..first.clone() });
        }
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(()) };
        let Wait::First(repeating) = std::mem::take(&mut session.wait) else { return Ok(()) };
        // Holds the page, if there is one, until the session goes on with it.
        let (repeat, _page) = (repeating.repeat, repeating.page);
        let seq = repeat.seq;
        self.send_first(number, of, repeat, first);
        self.fall_behind(number, seq);
        Ok(())
    }

    pub(super) fn unreadable(&mut self, read: &ReadId, why: String) {
        if let Some(read) = self.reads.in_flight.remove(&read.number) {
            self.give_up(read, why);
        }
    }

    /// The page of a read is damaged. The sessions that wait for it are dismissed. A room with a gap stays where it is until the
    /// heads are compared.
    fn give_up(&mut self, read: InFlight, why: String) {
        let InFlight { room, after, purpose } = read;
        let waits = |session: &Session| match (purpose, &session.wait) {
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
            self.reads.damaged.insert(room.clone());
        }
        self.issue(Command::Unreadable { room, why });
        for number in candidates {
            if self.sessions.get(&number).is_some_and(waits) {
                self.dismiss(number, close::TRY_AGAIN, "what is stored of this room is damaged: try again later");
            }
        }
        self.read_more();
    }
}

#[cfg(test)]
mod tests;
