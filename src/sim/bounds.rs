//! Which bounds a history has reached: what was not reached was not played.

use std::collections::BTreeSet;

use super::world::World;
use crate::journal::{Commit, Flush};
use crate::limits::{BACKLOG_EVENT_BYTES, Bounds, ROOM_PART_OF_FREE};
use crate::wire::entry;

/// Bounds that no seed shows from outside, and the scenario that reaches each.
const ELSEWHERE: [(&str, &str, &str); 2] = [
    ("shard_bells_max", "bells_that_were_not_kept_are_looked_up", include_str!("scenarios/order.rs")),
    ("checked_shards_max", "a_gateway_in_many_shards_checks_them_in_turns", include_str!("../gateway/leaving.rs")),
];

/// Panics unless every bound that the cores keep was reached, here or elsewhere.
pub(super) fn all_reached(reached: &BTreeSet<&'static str>) {
    // Whoever adds a bound says here that it is to be reached: without that this does not compile.
    let Bounds {
        sessions_max: _,
        waiting_actions_max: _,
        unresolved_per_room_max: _,
        unresolved_max: _,
        backlog_bytes_max: _,
        room_reserve_events: _,
        room_reserve_bytes: _,
        flush_events_max: _,
        flush_bytes_max: _,
        resolve_events_max: _,
        shard_bells_max: _,
        survey_rooms: _,
        checked_shards_max: _,
        commit_verdicts_max: _,
        commit_bytes_max: _,
        snapshot_events: _,
        // Not seen from outside: a snapshot is due for either reason.
        snapshot_events_max: _,
        snapshot_part_bytes: _,
        page_bytes: _,
        page_entries_max: _,
        // Not looked for yet: what catching up takes in one turn.
        outbox_messages_max: _,
        catch_up_messages_max: _,
        catch_up_turn_max: _,
        catch_up_pages_max: _,
        check_interval_ns: _,
        forget_ns: _,
        move_quiet_ns: _,
        // Told to clients, and kept by none; how long nobody is asked again, is tested beside `offer_moves`.
        move_within_ns: _,
        move_again_ns: _,
    } = Bounds::default();
    let wanted = [
        "sessions_max",
        "waiting_actions_max",
        "unresolved_per_room_max",
        "unresolved_max",
        "backlog_bytes_max",
        "room_reserve_events",
        "room_reserve_bytes",
        "flush_events_max",
        "flush_bytes_max",
        "resolve_events_max",
        "shard_bells_max",
        "survey_rooms",
        "checked_shards_max",
        "commit_verdicts_max",
        "commit_bytes_max",
        "snapshot_events",
        "snapshot_part_bytes",
        "page_bytes",
        "page_entries_max",
        "check_interval_ns",
        "forget_ns",
        "move_quiet_ns",
        "drain window",
        "even_moves_per_second",
        "kept messages",
        // What happens to those who move, and to a supervisor's processes.
        "moves",
        "moves after a pause",
        "moves during a move",
        "moves whose old connection ended first",
        "moves offered to even out",
        "next connections that failed",
        "sessions closed as moved",
        "gateways that left",
        "workers that left",
        "reloads",
        "children killed by their supervisor",
        "processes that hang",
        "supervisors killed",
        "supervisors that stood still",
        "retention",
        "failed events",
    ];
    let elsewhere = |bound: &str| ELSEWHERE.iter().any(|(of, test, file)| *of == bound && file.contains(&format!("fn {test}()")));
    let missing: Vec<&str> = wanted.into_iter().filter(|bound| !reached.contains(bound) && !elsewhere(bound)).collect();
    assert!(missing.is_empty(), "no seed has reached {missing:?}: it is not played");
}

impl World {
    /// An action was refused with these words.
    pub(super) fn refused_for(&mut self, message: &str) {
        let numbers = message.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<usize>().ok());
        let numbers: Vec<usize> = numbers.collect();
        // A room has its reserve where a fair part of what is left is less.
        let free = if let [.., all, limit] = numbers[..] { limit.saturating_sub(all) } else { 0 };
        let bounds = self.options.bounds;
        let mut reached = |bound| self.ledger.reached.insert(bound);
        if message.contains("sessions, its limit") {
            reached("sessions_max");
        } else if message.contains("wait for the welcome") {
            reached("waiting_actions_max");
        } else if message.contains("not resolved yet, its limit") {
            reached("unresolved_per_room_max");
        } else if message.contains("not resolved yet, and all rooms") {
            reached("unresolved_max");
            if free / ROOM_PART_OF_FREE <= bounds.room_reserve_events {
                reached("room_reserve_events");
            }
        } else if message.contains("bytes here that wait for the journal") {
            reached("backlog_bytes_max");
            if free / ROOM_PART_OF_FREE <= bounds.room_reserve_bytes {
                reached("room_reserve_bytes");
            }
        }
    }

    /// A flush was stored.
    pub(super) fn flushed(&mut self, flush: &Flush) {
        let bounds = self.options.bounds;
        let entries: Vec<_> = flush.entries.iter().filter_map(|entry| entry::decode(&entry.bytes).ok()).collect();
        let events: usize = entries.iter().map(|entry| entry.events.len()).sum();
        let last_ns = entries.iter().flat_map(|entry| &entry.events).map(|event| event.arrival.ns).max();
        if events >= bounds.flush_events_max {
            self.ledger.reached.insert("flush_events_max");
        }
        // One that leaves something behind promises no more than its last event; not for their number, and another would not fit.
        let bytes: usize = flush.entries.iter().map(|entry| entry.bytes.len()).sum();
        let full = bytes + (events + 1) * BACKLOG_EVENT_BYTES > bounds.flush_bytes_max;
        if full && events < bounds.flush_events_max && last_ns == Some(flush.watermark.ns) {
            self.ledger.reached.insert("flush_bytes_max");
        }
    }

    /// A commit was stored.
    pub(super) fn resolved(&mut self, commit: &Commit) {
        super::timers::committed(self, commit);
        let bounds = self.options.bounds;
        let each = || commit.rooms.iter().map(|part| usize::try_from(part.to - part.from).unwrap_or(usize::MAX));
        if each().any(|verdicts| verdicts >= bounds.resolve_events_max) {
            self.ledger.reached.insert("resolve_events_max");
        }
        if each().sum::<usize>() >= bounds.commit_verdicts_max {
            self.ledger.reached.insert("commit_verdicts_max");
        }
        if commit.rooms.iter().map(|part| part.verdicts.len()).sum::<usize>() >= bounds.commit_bytes_max {
            self.ledger.reached.insert("commit_bytes_max");
        }
        if commit.rooms.iter().any(|part| part.snapshot.is_some()) {
            self.ledger.reached.insert("snapshot_events");
        }
    }
}
