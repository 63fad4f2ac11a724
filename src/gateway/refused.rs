//! Rooms that the journal refuses, because what it holds of them is damaged: the flush goes out without them, their sessions
//! are sent away, and the room is told of those that left once it is mended.

use std::sync::Arc;

use super::core::{Action, Core};
use super::settle::PendingEvent;
use crate::journal::Flush;
use crate::metrics::Waits;
use crate::types::{Arrival, EventKind, RoomId};
use crate::wire::client::close;
use crate::wire::entry;

impl Core {
    /// Nothing of `flush` was written, because of these rooms.
    pub(super) fn refused(&mut self, flush: &Flush, rooms: &[RoomId]) {
        let out = &mut self.shards[usize::from(flush.shard.0)];
        let mut rest = flush.clone();
        for entry in rest.entries.extract_if(.., |entry| rooms.contains(&entry.room)) {
            // Its own bytes: they decode. Who never got in owes no goodbye.
            let events = entry::decode(&entry.bytes).map(|entry| entry.events).unwrap_or_default();
            for event in events.iter().filter(|event| matches!(event.kind, EventKind::Close)) {
                if !out.opening.contains(&event.session) {
                    out.owed.entry(entry.room.clone()).or_default().insert(event.session);
                }
            }
        }
        let rest = Arc::new(rest);
        out.in_flight = Some(rest.clone());
        let mut never_in = Vec::new();
        for number in std::mem::take(&mut out.opening) {
            match self.sessions.get(&number) {
                Some(session) if rooms.contains(&session.room) => never_in.push(number),
                _ => out.opening.push(number),
            }
        }
        for room in rooms {
            let Some(view) = self.rooms.get_mut(room) else { continue };
            view.at_rest = true;
            self.unresolved = self.unresolved.saturating_sub(std::mem::take(&mut view.unresolved));
            for number in view.sessions.clone() {
                self.dismiss(number, close::TRY_AGAIN, "what is stored of this room is damaged: try again later");
            }
        }
        // Told to go, and over: nothing of them is the room's to know.
        for number in never_in {
            if let Some(session) = self.sessions.remove(&number)
                && let Some(view) = self.rooms.get_mut(&session.room)
            {
                view.leave(number);
            }
        }
        rooms.iter().for_each(|room| self.let_go(room));
        self.act_on(Action::Append { flush: rest, waits: Waits::default() });
    }

    /// Nobody resolves the room for now: its sessions are sent away. What was accepted of them waits for whoever does.
    pub(super) fn halted(&mut self, room: &RoomId, known: bool) {
        let reason = match known {
            true => "this room cannot be continued right now: try again later",
            false => "nobody has rules for this room: try another, or later",
        };
        let Some(view) = self.rooms.get_mut(room) else { return };
        view.at_rest = true;
        // Nobody knows when they are resolved: till then they take no place from other rooms' events.
        self.unresolved = self.unresolved.saturating_sub(std::mem::take(&mut view.unresolved));
        for number in view.sessions.clone() {
            self.dismiss(number, close::TRY_AGAIN, reason);
        }
        self.let_go(room);
    }

    /// A room that rests is followed no longer than someone is in it: no verdict may ever come that says that it is over.
    pub(super) fn let_go(&mut self, room: &RoomId) {
        if self.rooms.get(room).is_some_and(|view| view.at_rest && view.sessions.is_empty()) {
            self.unfollow(room);
        }
    }

    /// Tries to tell the rooms who left them.
    pub(super) fn tell_owed(&mut self) {
        for out in &mut self.shards {
            let ns = out.first_free_ns().max(1);
            for (room, sessions) in std::mem::take(&mut out.owed) {
                for session in sessions {
                    self.read_count += 1;
                    let order = (ns, ns, self.read_count);
                    let (room, arrival, kind) = (room.clone(), Arrival::at(ns, 0), EventKind::Close);
                    let share = self.kept.share(&kind);
                    out.pend(PendingEvent { order, room, session, arrival, kind, share });
                }
            }
        }
    }
}
