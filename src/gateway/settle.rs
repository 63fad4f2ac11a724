//! The way in: events are admitted, settle, leave as flushes, and are acknowledged. The journal refuses a flush that names a
//! damaged room: it is sent again without that room, and the room's sessions are dismissed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backlog::bytes_of;
use super::core::Core;
use super::homes::Loss;
use super::state::{PendingEvent, Registration, ShardOut, View, shard_of};
use super::step::Command;
use crate::journal::{Appended, Flush, FlushEntry, Homed, Registered, RoomHead};
use crate::limits::ROOM_PART_OF_FREE;
use crate::metrics::Waits;
use crate::types::{Arrival, Entry, Event, EventKind, Incarnation, Moment, RoomId, ShardId};
use crate::wire::client::close;
use crate::wire::entry;

impl Core {
    /// Checks whether a session's action fits; the error says which limit it meets. A room may use a part of what all rooms
    /// have left, and always its own reserve: however many rooms are flooded, the next room is served.
    pub(super) fn admit(&self, number: u64, kind: &EventKind) -> Result<(), String> {
        let Some((room, view)) = self.sessions.get(&number).and_then(|s| self.rooms.get_key_value(&s.room)) else {
            return Ok(());
        };
        let (bounds, count, all) = (&self.bounds, view.unresolved, self.unresolved);
        let (limit, limit_all) = (bounds.unresolved_per_room_max, bounds.unresolved_max);
        if count >= limit {
            return Err(format!("room {room} has {count} events here that are not resolved yet, its limit"));
        }
        let most = |all: usize, limit: usize, reserve: usize| (limit.saturating_sub(all) / ROOM_PART_OF_FREE).max(reserve);
        if count >= most(all, limit_all, bounds.room_reserve_events) {
            return Err(format!(
                "room {room} has {count} events here that are not resolved yet, and all rooms have {all} of at most {limit_all}"
            ));
        }
        let (bytes, all, limit_all) = (view.backlog.bytes(), self.backlog.bytes(), bounds.backlog_bytes_max);
        if bytes + bytes_of(kind) > most(all, limit_all, bounds.room_reserve_bytes) {
            return Err(format!(
                "room {room} has {bytes} bytes here that wait for the journal, and all rooms have {all} of at most {limit_all}"
            ));
        }
        Ok(())
    }

    /// Whether anything waits for [`Core::settled`].
    #[must_use]
    pub(crate) fn wants_settling(&self) -> bool {
        self.shards.iter().any(ShardOut::wants_settling)
    }

    /// Everything that arrived at or before `until_ns` has been read. The pending events up to then leave, in one flush per
    /// shard that carries the watermark.
    pub(crate) fn settled(&mut self, until_ns: u64) {
        for index in 0..self.shards.len() {
            let Some(timeline) = self.shards[index].home else { continue };
            let until = Moment { timeline, ns: until_ns };
            if self.shards[index].wants_settling() && until > self.shards[index].watermark {
                self.flush(index, until);
            }
        }
    }

    fn flush(&mut self, index: usize, until: Moment) {
        let shard = &mut self.shards[index];
        shard.pending.sort_unstable_by_key(|event| event.order);
        let settled = shard.pending.partition_point(|event| event.arrival.ns <= until.ns);
        let (mut bytes, bytes_max) = (0, self.bounds.flush_bytes_max);
        let mut fits = |event: &PendingEvent| {
            bytes += event.share.bytes();
            bytes <= bytes_max
        };
        let fitting = shard.pending[..settled.min(self.bounds.flush_events_max)].iter().take_while(|event| fits(event)).count();
        let taken = fitting.max(settled.min(1));
        let watermark = match shard.pending[..taken].last() {
            Some(last) if taken < settled => Moment { ns: last.arrival.ns, ..until },
            _ => until,
        };
        // An event that has the flush's last stamp and did not fit is moved to the next stamp (rule W2).
        for event in shard.pending[taken..].iter_mut().take_while(|event| event.arrival.ns <= watermark.ns) {
            event.arrival = event.arrival.clamped_to(watermark.ns.saturating_add(1));
            event.order.0 = event.arrival.ns;
        }
        // Whoever asks for more meanwhile is answered with the next flush.
        if taken == 0 && (shard.probed <= shard.watermark || shard.asked > watermark) {
            return;
        }
        if shard.asked <= watermark {
            shard.asked = shard.probed;
        }
        let mut rooms: BTreeMap<RoomId, Vec<Event>> = BTreeMap::new();
        shard.opening.clear();
        let mut waits = Waits::default();
        for event in shard.pending.drain(..taken) {
            shard.ordinal += 1;
            waits.add(event.arrival.raw_ns.unwrap_or(event.arrival.ns));
            if matches!(event.kind, EventKind::Open { .. }) {
                shard.opening.push(event.session);
            }
            shard.shares_in_flight.push(event.share);
            let (session, arrival, kind) = (event.session, event.arrival, event.kind);
            rooms.entry(event.room).or_default().push(Event { session, ordinal: shard.ordinal, arrival, kind });
        }
        let (incarnation, timeline) = (shard.turn, until.timeline);
        let entries = rooms.into_iter().map(|(room, events)| {
            let entry = Entry { incarnation, timeline, death: false, events };
            FlushEntry { room, top: entry.top(), bytes: entry::encode(&entry) }
        });
        #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
        let flush = Arc::new(Flush {
            shard: ShardId(index as u16),
            server: shard.server,
            incarnation,
            number: shard.number + 1,
            previous: shard.watermark,
            watermark,
            entries: entries.collect(),
        });
        shard.number += 1;
        shard.watermark = watermark;
        shard.in_flight = Some(flush.clone());
        self.issue(Command::Append { flush, waits });
    }

    /// A worker asks for a watermark of at least `until`.
    pub(super) fn probed(&mut self, shard: ShardId, until: Moment) {
        let Some(out) = self.shards.get_mut(usize::from(shard.0)) else { return };
        // What is asked of another turn, under another home, is nothing that this one could promise.
        if out.home.is_some_and(|home| home != until.timeline) {
            return;
        }
        out.ask(until);
        if out.registration == Registration::Unknown {
            self.register(shard);
        }
    }

    /// Registers with the journal's server, and tells it what an earlier server had confirmed (rule G2). From now on the
    /// gateway delivers nothing more of the earlier server: it has told the new server all that it has seen.
    pub(super) fn register(&mut self, shard: ShardId) {
        let out = &mut self.shards[usize::from(shard.0)];
        out.registration = Registration::Asked;
        let (gateway, seen) = (out.turn, out.seen());
        let rooms = self.rooms_of(shard);
        self.issue(Command::Register { shard, gateway, seen, rooms });
    }

    /// Whether a message of `server` about a shard counts. When this gateway is registered with another server, it registers
    /// again first: the new server may have lost what the old one said, or contradict it.
    pub(super) fn hears(&mut self, shard: ShardId, server: Incarnation, commit: u64) -> bool {
        let Some(out) = self.shards.get_mut(usize::from(shard.0)) else { return false };
        if !out.is_registered() {
            return false;
        }
        if out.server != server {
            self.register(shard);
            return false;
        }
        out.commit = out.commit.max(commit);
        true
    }

    /// A slow heartbeat in these shards: an idle gateway learns that it was fenced.
    pub(super) fn beat(&mut self, shards: &[ShardId]) {
        for shard in shards {
            let out = &mut self.shards[usize::from(shard.0)];
            out.ask(out.watermark.plus(1));
        }
        self.send_owed_closes();
    }

    pub(super) fn registered(&mut self, shard: ShardId, gateway: Incarnation, answer: &Homed<Registered>) {
        let out = &mut self.shards[usize::from(shard.0)];
        if gateway != out.turn || !out.is_registering() {
            return;
        }
        let answer = match answer {
            Homed::Here(answer) => answer,
            Homed::Elsewhere(home) => return self.is_elsewhere(shard, home.as_ref()),
        };
        let record = &answer.record;
        // The journal has less than it confirmed, so this turn's watermarks do not hold.
        if record.fenced || !(out.seen().flush..=out.number).contains(&record.number) {
            self.lose(shard, Loss::Dead);
            return;
        }
        let had_another = !matches!(out.server, Incarnation::NONE) && out.server != answer.server;
        (out.registration, out.server, out.commit) = (Registration::Done, answer.server, answer.commit);
        (out.home, out.known) = (Some(answer.home), None);
        if out.probed.timeline != answer.home {
            // Asked before the home was known; who waits asks again.
            (out.probed, out.asked) = (out.watermark, out.watermark);
        }
        if let Some(flush) = out.in_flight.take() {
            let flush = Arc::new(Flush { server: answer.server, ..Arc::unwrap_or_clone(flush) });
            (out.in_flight, out.resent) = (Some(flush.clone()), true);
            self.issue(Command::Append { flush, waits: Waits::default() });
        }
        for head in &answer.rooms {
            self.moved(head);
        }
        // The answer may be older than the subscription to this server's pushes, and heads that were read meanwhile were not taken.
        if had_another {
            self.read_heads(shard);
        }
    }

    pub(super) fn appended(&mut self, flush: &Flush, answer: &Appended, repeated: bool, now_ns: u64) {
        self.now(now_ns);
        let out = &mut self.shards[usize::from(flush.shard.0)];
        let expected = |f: &Arc<Flush>| (f.number, f.server) == (flush.number, flush.server);
        if flush.incarnation != out.turn
            || out.registration != Registration::Done
            || !out.in_flight.as_ref().is_some_and(expected)
        {
            return;
        }
        match answer {
            Appended::Stored(heads) => {
                out.in_flight = None;
                out.shares_in_flight.clear();
                let repeated = std::mem::take(&mut out.resent) || repeated;
                let opening = std::mem::take(&mut out.opening);
                for head in heads {
                    self.learn(&head.room, head.era, if repeated { 0 } else { head.seq });
                }
                for number in opening {
                    self.acknowledge(number, heads, now_ns);
                }
                self.let_go_of(flush.shard);
            }
            Appended::Moved => self.register(flush.shard),
            Appended::Gap { .. } | Appended::Fenced => self.lose(flush.shard, Loss::Dead),
            Appended::Elsewhere(home) => self.refused(flush.shard, home.as_ref()),
            Appended::Refused(rooms) => {
                self.resend_without(flush, rooms, "what is stored of this room is damaged: try again later");
            }
            Appended::Full(rooms) => {
                self.resend_without(flush, rooms, "the deployment has no place for another room like this: try again later");
            }
        }
    }

    /// Rule S7: from now on the session's stamps lie above this moment and above everything in the room.
    fn acknowledge(&mut self, number: u64, heads: &[RoomHead], now_ns: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let home = self.shards[usize::from(shard_of(&self.shards, &session.room).0)].home;
        // Rule H4: what another host's clock has stamped is below everything that comes now.
        let head = heads.iter().find(|head| head.room == session.room && Some(head.top.timeline) == home);
        let top = head.map_or(0, |head| head.top.ns);
        session.opened = true;
        session.floor_ns = now_ns.max(top.saturating_add(1));
        let waiting = std::mem::take(&mut session.waiting);
        let closed = matches!(session.view, View::Closed);
        for (kind, arrival, share) in waiting {
            self.pend(number, kind, arrival, share);
        }
        if closed {
            self.sessions.remove(&number);
        }
    }

    /// Nothing of `flush` was written, because of these rooms. Sends it again without them.
    fn resend_without(&mut self, flush: &Flush, rooms: &[RoomId], why: &'static str) {
        let out = &mut self.shards[usize::from(flush.shard.0)];
        let mut rest = flush.clone();
        for entry in rest.entries.extract_if(.., |entry| rooms.contains(&entry.room)) {
            // These are our own bytes, so they decode. A session whose Open was not written owes no Close.
            let events = entry::decode(&entry.bytes).map(|entry| entry.events).unwrap_or_default();
            for event in events.iter().filter(|event| matches!(event.kind, EventKind::Close)) {
                if !out.opening.contains(&event.session) {
                    out.owed_closes.entry(entry.room.clone()).or_default().insert(event.session);
                }
            }
        }
        let rest = Arc::new(rest);
        out.in_flight = Some(rest.clone());
        let mut never_joined = Vec::new();
        for number in std::mem::take(&mut out.opening) {
            match self.sessions.get(&number) {
                Some(session) if rooms.contains(&session.room) => never_joined.push(number),
                _ => out.opening.push(number),
            }
        }
        for room in rooms {
            let Some(view) = self.rooms.get_mut(room) else { continue };
            view.at_rest = true;
            self.unresolved = self.unresolved.saturating_sub(std::mem::take(&mut view.unresolved));
            for number in view.sessions.clone() {
                self.dismiss(number, close::TRY_AGAIN, why);
            }
        }
        // These sessions are dismissed and over. The room never learns of them.
        for number in never_joined {
            if let Some(session) = self.sessions.remove(&number)
                && let Some(view) = self.rooms.get_mut(&session.room)
            {
                view.leave(number);
            }
        }
        rooms.iter().for_each(|room| self.let_go(room));
        self.issue(Command::Append { flush: rest, waits: Waits::default() });
    }

    /// No worker resolves the room for now. Its sessions are dismissed; their accepted events stay in the journal.
    pub(super) fn halted(&mut self, room: &RoomId, known: bool) {
        let reason = match known {
            true => "this room cannot be continued right now: try again later",
            false => "nobody has rules for this room: try another, or later",
        };
        let Some(view) = self.rooms.get_mut(room) else { return };
        view.at_rest = true;
        // They may stay unresolved for long, so they no longer count against the bound of all rooms.
        self.unresolved = self.unresolved.saturating_sub(std::mem::take(&mut view.unresolved));
        for number in view.sessions.clone() {
            self.dismiss(number, close::TRY_AGAIN, reason);
        }
        self.let_go(room);
    }

    /// Unfollows a room at rest once nobody is in it: no verdict may ever come to end it.
    pub(super) fn let_go(&mut self, room: &RoomId) {
        if self.rooms.get(room).is_some_and(|view| view.at_rest && view.sessions.is_empty()) {
            self.unfollow(room);
        }
    }

    /// Sends the Closes that damaged rooms have not been told yet. They may be repaired by now.
    pub(super) fn send_owed_closes(&mut self) {
        for out in &mut self.shards {
            let ns = out.first_free_ns().max(1);
            for (room, sessions) in std::mem::take(&mut out.owed_closes) {
                for session in sessions {
                    self.read_count += 1;
                    let order = (ns, ns, self.read_count);
                    let (room, arrival, kind) = (room.clone(), Arrival::at(ns, 0), EventKind::Close);
                    let share = self.backlog.share(&kind);
                    out.pend(PendingEvent { order, room, session, arrival, kind, share });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
