//! The way out: verdicts reach the sessions that may see them, in `seq` order, without gap or repeat.

use std::sync::Arc;

use super::core::Core;
use super::state::{Session, ShardOut, View, shard_of};
use super::step::{Command, Delivery};
use crate::journal::{RoomHead, VerdictPage};
use crate::limits::ROOM_SESSIONS_MAX;
use crate::types::{
    Audience, Incarnation, Outcome, ROOM_FULL, Role, RoomId, SessionId, ShardId, Verdict, VerdictBatch, VerdictKind,
};
use crate::wire::client::{VerdictFrames, Welcome, close};
use crate::wire::push::{Push, RoomPush};

impl Core {
    pub(super) fn pushed(&mut self, push: Push) {
        match push {
            Push::Verdicts { shard, server, commit, rooms } => {
                if !self.hears(shard, server, commit) {
                    return;
                }
                for room in rooms {
                    self.pushed_room(room);
                }
            }
            Push::Probe { shard, until } => self.probed(shard, until),
            Push::Moving { shard, number, host, url, within_ms } => self.moving(shard, number, host, url, within_ms),
            Push::Home { shard, home } => self.has_moved(shard, home),
            Push::Free { .. } | Push::Programs | Push::Give { .. } => {}
            Push::Halted { room, known, .. } => self.halted(&room, known),
            Push::Heads { shard, server, rooms } => {
                if !self.hears(shard, server, 0) {
                    return;
                }
                for (room, era, seq) in rooms {
                    self.heard(&room, era, seq);
                }
            }
        }
    }

    fn pushed_room(&mut self, push: RoomPush) {
        let RoomPush { room, from, to, batch } = push;
        let Some(view) = self.rooms.get_mut(&room) else { return };
        if batch.era < view.era {
            return;
        }
        if batch.era > view.era {
            self.begin_era(&room, batch.era);
        }
        let Some(view) = self.rooms.get_mut(&room) else { return };
        view.heard = view.heard.max(to);
        // The first acknowledged Open says where to begin. Before it, a push may follow one that was lost.
        let Some(head) = view.head else { return };
        if view.filling || to <= head {
            return;
        }
        if from > head {
            view.filling = true;
            self.read_gap(room);
        } else {
            self.deliver(&room, batch.verdicts, to);
        }
    }

    /// Learns where the room stood when the journal took this gateway's first Open. Its sessions need only what follows.
    pub(super) fn learn(&mut self, room: &RoomId, era: u64, seq: u64) {
        let Some(view) = self.rooms.get_mut(room) else { return };
        if era > view.era {
            self.begin_era(room, era);
        }
        let Some(view) = self.rooms.get_mut(room) else { return };
        // A push of a later era may have come before this answer. Then the room keeps its head.
        if view.head.is_none() {
            view.head = Some(seq);
            self.check_gap(room);
        }
    }

    /// The room has a new era, or is heard of for the first time. Sessions of the earlier era are dismissed: the room ended
    /// because this gateway was declared dead.
    fn begin_era(&mut self, room: &RoomId, era: u64) {
        let Some(view) = self.rooms.get_mut(room) else { return };
        let again = view.head.is_some();
        (view.era, view.heard, view.filling) = (era, 0, false);
        if !again {
            return;
        }
        view.head = Some(0);
        self.unresolved = self.unresolved.saturating_sub(std::mem::take(&mut view.unresolved));
        for number in view.sessions.clone() {
            if self.sessions.get(&number).is_some_and(|s| matches!(s.view, View::Live | View::CatchingUp { .. })) {
                self.close_stale(number);
            }
        }
    }

    /// Rule G3: a session that saw verdicts that no longer exist is told so.
    pub(super) fn close_stale(&mut self, number: u64) {
        self.dismiss(
            number,
            close::ROLLED_BACK,
            "verdicts of this room were lost, or it began a new era: connect again with since",
        );
    }

    /// Takes over a room as the journal's new server has it. In the same era no delivered verdict is lost. In another era all
    /// delivered verdicts are void, and the room goes on from what the server has.
    pub(super) fn moved(&mut self, head: &RoomHead) {
        let Some(view) = self.rooms.get_mut(&head.room) else { return };
        let again = view.era != head.era && view.head.is_some();
        view.era = head.era;
        view.heard = head.seq;
        if again {
            view.head = view.head.map(|seq| seq.min(head.seq));
            for number in view.sessions.clone() {
                if self.sessions.get(&number).is_some_and(|s| matches!(s.view, View::Live | View::CatchingUp { .. })) {
                    self.close_stale(number);
                }
            }
        }
        self.check_gap(&head.room);
    }

    /// The rooms of a shard that this gateway follows.
    pub(super) fn rooms_of(&self, shard: ShardId) -> Vec<RoomId> {
        self.shards.get(usize::from(shard.0)).map_or(Vec::new(), |out| out.followed.iter().cloned().collect())
    }

    /// Stops following a room: none of its sessions is here any more.
    pub(super) fn unfollow(&mut self, room: &RoomId) {
        let Some(view) = self.rooms.remove(room) else { return };
        self.unresolved = self.unresolved.saturating_sub(view.unresolved);
        if let Some(out) = self.shards.get_mut(usize::from(view.shard.0)) {
            out.followed.remove(room);
        }
    }

    /// Delivers a room's next verdicts to its sessions, and moves its head to `to`.
    fn deliver(&mut self, room: &RoomId, batch: Vec<Verdict>, to: u64) {
        let Some(view) = self.rooms.get_mut(room) else { return };
        let head = view.head.unwrap_or(0);
        (view.head, view.at_rest) = (Some(to), false);
        let me = self.shards[usize::from(view.shard.0)].turn;
        for verdict in batch {
            if verdict.seq <= head {
                continue;
            }
            let own = verdict.stamp.incarnation == me;
            if own
                && let Some(view) = self.rooms.get_mut(room)
                && view.unresolved > 0
            {
                view.unresolved -= 1;
                self.unresolved -= 1;
            }
            if own && verdict.kind == VerdictKind::Open {
                self.joined(room, &verdict);
            }
            if own
                && verdict.kind == VerdictKind::Data
                && let Some(session) = self.sessions.get_mut(&verdict.session)
            {
                session.unanswered = session.unanswered.saturating_sub(1);
            }
            self.fan_out(room, verdict, own);
        }
        if self.rooms.get(room).is_some_and(|view| view.sessions.is_empty() && view.unresolved == 0) {
            self.unfollow(room);
        }
    }

    fn fan_out(&mut self, room: &RoomId, verdict: Verdict, own: bool) {
        let Some(view) = self.rooms.get(room) else { return };
        let mut targets = match &verdict.audience {
            Audience::Room => view.sessions.clone(),
            Audience::Session | Audience::Server => view.servers.clone(),
            Audience::Players(players) => {
                let named = |session: &Session| session.role == Role::Server || players.contains(&session.player);
                let sees = |number: &u64| self.sessions.get(number).is_some_and(named);
                view.sessions.iter().copied().filter(sees).collect()
            }
        };
        if own && let Outcome::Repeat { of } = verdict.outcome {
            // The session that repeated gets the first verdict. Server sessions get the repeat itself.
            targets.retain(|number| *number != verdict.session);
            self.repeat_live(of, &verdict);
        } else if matches!(verdict.audience, Audience::Session | Audience::Players(_))
            && own
            && !targets.contains(&verdict.session)
        {
            targets.push(verdict.session);
        }
        let (seq, frames) = (verdict.seq, Arc::new(VerdictFrames::new(verdict, None)));
        for number in targets {
            match self.sessions.get(&number) {
                Some(session) if !session.follows(seq) => {}
                Some(session) if session.queued() < self.bounds.outbox_messages_max => self.send(number, seq, frames.clone()),
                Some(_) => self.fall_behind(number, seq.saturating_sub(1)),
                None => {}
            }
        }
    }

    /// A session repeated an action. Only a live one is answered here.
    fn repeat_live(&mut self, of: u64, repeat: &Verdict) {
        let number = repeat.session;
        match self.sessions.get(&number).filter(|session| session.follows(repeat.seq)) {
            Some(session) if session.queued() < self.bounds.outbox_messages_max => self.repeat(number, of, repeat.clone(), None),
            // It will find the repeat when it catches up.
            Some(_) => self.fall_behind(number, repeat.seq.saturating_sub(1)),
            None => {}
        }
    }

    pub(super) fn send(&mut self, number: u64, seq: u64, frames: Arc<VerdictFrames>) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let from = Some(session.covered.saturating_add(1)).filter(|first| *first < seq);
        session.covered = seq;
        session.sent += 1;
        let half = self.bounds.outbox_messages_max / 2;
        let ask = session.queued() >= half && !session.asked;
        self.issue(Command::Deliver(number, Delivery::Verdict { from, frames }));
        if ask {
            self.ask_outbox(number, half);
        }
    }

    /// A session's own Open was resolved: from now on it follows the room.
    fn joined(&mut self, room: &RoomId, verdict: &Verdict) {
        let era = self.rooms.get(room).map_or(0, |view| view.era);
        let number = verdict.session;
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if session.view != View::Joining {
            return;
        }
        // Only the room's bound voids an Open with this reason. Rules that deny with it still let the session in.
        if matches!(&verdict.outcome, Outcome::Void(reason) if reason == ROOM_FULL) {
            let reason = format!("room {room} is full: it holds {ROOM_SESSIONS_MAX} sessions; connect again later");
            self.dismiss(number, close::TRY_AGAIN, reason);
            return;
        }
        session.open = Some((verdict.seq, verdict.body.clone()));
        session.era = era;
        match session.since {
            Some(since) if since.era == era && since.seq >= verdict.seq => {
                let reason = format!("since {since} is ahead of the room, which is at {era}.{}", verdict.seq.saturating_sub(1));
                self.dismiss(number, close::SINCE_AHEAD, reason);
            }
            Some(since) if since.era == era && since.seq.checked_add(1) == Some(verdict.seq) => {
                session.covered = since.seq;
                self.welcome(number, era, true, false);
            }
            Some(since) if since.era == era => {
                session.covered = since.seq;
                self.fall_behind(number, since.seq);
            }
            since => {
                session.covered = verdict.seq;
                self.welcome(number, era, false, since.is_some());
            }
        }
    }

    /// Sends the welcome and makes the session live.
    pub(super) fn welcome(&mut self, number: u64, era: u64, resumed: bool, gone: bool) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let home = self.shards[usize::from(shard_of(&self.shards, &session.room).0)].home.unwrap_or_default();
        session.view = View::Live;
        session.since = None;
        session.sent += 1;
        // Taken out: as a slice of its batch, it would keep the whole batch in memory.
        let state = session.open.as_mut().and_then(|(_, body)| body.take()).filter(|_| !resumed);
        let welcome = Welcome {
            session: SessionId { gateway: session.turn, number },
            player: session.player.clone(),
            role: session.role,
            era,
            home,
            seq: session.covered,
            resumed,
            gone,
            state,
            clock: self.clock,
            uncertainty_ns: self.precision_ns,
        };
        self.issue(Command::Deliver(number, Delivery::Welcome(Box::new(welcome))));
    }

    /// A room's gap after `after` was read.
    pub(super) fn fill(&mut self, room: &RoomId, after: u64, page: &VerdictPage, batches: Vec<VerdictBatch>) {
        let Some(view) = self.rooms.get_mut(room) else { return };
        view.filling = false;
        if page.era != view.era {
            // The room ended meanwhile. It was empty, so no session here misses anything of the earlier era.
            self.heard(room, page.era, page.seq);
            return;
        }
        let head = view.head.unwrap_or(0);
        if after > head {
            // This was asked for before the room went back or began a new era. The page lacks what lies between.
            self.check_gap(room);
            return;
        }
        let first = batches.iter().find_map(|batch| batch.verdicts.first());
        let trimmed_to = first.map_or(page.seq, |verdict| verdict.seq.saturating_sub(1));
        if trimmed_to > head {
            self.skip_trimmed(room, head, trimmed_to);
        }
        for batch in batches {
            if let Some(to) = batch.verdicts.last().map(|v| v.seq) {
                self.deliver(room, batch.verdicts, to);
            }
        }
        self.check_gap(room);
    }

    /// The journal no longer keeps verdicts that this gateway has not seen. It dismisses the sessions that need them, since no
    /// frame may cover a range that hides them. It cannot tell which events they decided, so it counts none as unresolved.
    fn skip_trimmed(&mut self, room: &RoomId, head: u64, to: u64) {
        let Some(view) = self.rooms.get_mut(room) else { return };
        self.unresolved = self.unresolved.saturating_sub(std::mem::take(&mut view.unresolved));
        for number in view.sessions.clone() {
            // A session that catches up finds the gap by itself. The Open of a joining one may lie in it.
            let misses = |s: &Session| s.view == View::Joining || s.follows(to);
            if self.sessions.get(&number).is_some_and(misses) {
                let reason = format!("verdicts after seq {head} are no longer kept: connect again with since");
                self.dismiss(number, close::SLOW, reason);
            }
        }
        self.deliver(room, Vec::new(), to);
    }

    fn check_gap(&mut self, room: &RoomId) {
        let Some(view) = self.rooms.get_mut(room) else { return };
        if let Some(head) = view.head
            && head < view.heard
            && !view.filling
        {
            view.filling = true;
            self.read_gap(room.clone());
        }
    }

    fn heard(&mut self, room: &RoomId, era: u64, seq: u64) {
        let Some(view) = self.rooms.get_mut(room) else { return };
        if view.sessions.is_empty() && era != view.era {
            self.unfollow(room);
            return;
        }
        if era > view.era {
            self.begin_era(room, era);
        }
        let Some(view) = self.rooms.get_mut(room) else { return };
        if era == view.era {
            view.heard = view.heard.max(seq);
            self.check_gap(room);
        }
    }

    pub(super) fn heads(&mut self, shard: ShardId, server: Incarnation, heads: &[RoomHead]) {
        if !self.hears(shard, server, 0) {
            return;
        }
        for head in heads {
            self.heard(&head.room, head.era, head.seq);
        }
    }

    /// Compares the rooms of these shards with the journal: all after each new subscription to the pushes, and periodically those
    /// whose turn it is (rule C5).
    pub(super) fn check_heads(&mut self, shards: &[ShardId]) {
        self.beat(shards);
        self.try_gaps_again();
        for shard in shards {
            self.read_heads(*shard);
        }
    }

    pub(super) fn read_heads(&mut self, shard: ShardId) {
        let rooms = self.rooms_of(shard);
        if !rooms.is_empty() {
            self.issue(Command::ReadHeads(shard, rooms));
        }
    }

    /// The shards that this gateway is in, or as many of them as it may check at once: each has its turn. All of them after a fence.
    pub(super) fn next_to_check(&mut self) -> Vec<ShardId> {
        let (last, first) = self.all_shards().into_iter().partition::<Vec<_>, _>(|shard| *shard <= self.checked);
        let is_in = |shard: &ShardId| self.shards.get(usize::from(shard.0)).is_some_and(ShardOut::is_registered);
        let count_max = if std::mem::take(&mut self.check_all) { usize::MAX } else { self.bounds.checked_shards_max };
        let next: Vec<ShardId> = first.into_iter().chain(last).filter(is_in).take(count_max).collect();
        self.checked = next.last().copied().unwrap_or(self.checked);
        next
    }

    pub(crate) fn all_shards(&self) -> Vec<ShardId> {
        (0..).map(ShardId).take(self.shards.len()).collect()
    }
}
