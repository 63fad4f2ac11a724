//! Rooms that the journal refuses, because what it holds of them is damaged: the flush goes out without them, their sessions
//! are sent away, and the room is told of those that left once it is mended.

use std::sync::Arc;

use super::core::{Action, Core};
use super::deliver::View;
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
            // Its own bytes: they decode.
            for event in entry::decode(&entry.bytes).map(|entry| entry.events).unwrap_or_default() {
                if matches!(event.kind, EventKind::Close) {
                    out.owed.entry(entry.room.clone()).or_default().insert(event.session);
                }
            }
        }
        let rest = Arc::new(rest);
        out.in_flight = Some(rest.clone());
        for number in std::mem::take(&mut out.opening) {
            match self.sessions.get_mut(&number) {
                // It never gets in, so that nothing of it has to wait.
                Some(session) if rooms.contains(&session.room) => {
                    session.opened = true;
                    session.waiting.clear();
                    if matches!(session.view, View::Closed) {
                        self.sessions.remove(&number);
                    }
                }
                _ => self.shards[usize::from(flush.shard.0)].opening.push(number),
            }
        }
        for room in rooms {
            let Some(view) = self.rooms.get_mut(room) else { continue };
            self.unresolved = self.unresolved.saturating_sub(std::mem::take(&mut view.unresolved));
            for number in view.sessions.clone() {
                self.dismiss(number, close::TRY_AGAIN, "what is stored of this room is damaged: try again later");
            }
        }
        self.act_on(Action::Append { flush: rest, waits: Waits::default() });
    }

    /// Nobody resolves the room for now: its sessions are sent away. What was accepted of them waits for whoever does.
    pub(super) fn halted(&mut self, room: &RoomId, known: bool) {
        let reason = match known {
            true => "this room cannot be continued right now: try again later",
            false => "nobody has rules for this room: try another, or later",
        };
        let sessions = self.rooms.get(room).map(|view| view.sessions.clone()).unwrap_or_default();
        for number in sessions {
            self.dismiss(number, close::TRY_AGAIN, reason);
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
