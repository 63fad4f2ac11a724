//! The bytes that wait for the journal. Each event holds its share of the backlog and returns it when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::BACKLOG_EVENT_BYTES;
use crate::types::EventKind;

/// The sum of all shares of a room, or of all rooms.
#[derive(Debug, Default)]
pub(super) struct Backlog(Arc<Sum>);

#[derive(Debug, Default)]
struct Sum {
    bytes: AtomicUsize,
    above: Option<Arc<Sum>>,
}

/// One event's part of a backlog.
#[derive(Debug)]
pub(super) struct Share {
    bytes: usize,
    of: Arc<Sum>,
}

impl Backlog {
    /// Creates a backlog whose shares also count in this one.
    pub(super) fn within(&self) -> Self {
        Self(Arc::new(Sum { bytes: AtomicUsize::new(0), above: Some(Arc::clone(&self.0)) }))
    }

    /// The bytes that wait now.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Takes an event's share. It checks no bound.
    pub(super) fn share(&self, kind: &EventKind) -> Share {
        let bytes = bytes_of(kind);
        self.0.with_those_above(|sum| sum.fetch_add(bytes, Ordering::Relaxed));
        Share { bytes, of: Arc::clone(&self.0) }
    }
}

impl Share {
    /// The bytes that its event counts for: at least its part of a bell.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Sum {
    fn with_those_above(&self, f: impl Fn(&AtomicUsize) -> usize) {
        f(&self.bytes);
        if let Some(above) = &self.above {
            f(&above.bytes);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.with_those_above(|sum| sum.fetch_sub(self.bytes, Ordering::Relaxed));
    }
}

/// The bytes that an event counts for.
pub(super) fn bytes_of(kind: &EventKind) -> usize {
    let own = match kind {
        EventKind::Data(action) => action.len(),
        EventKind::Error { reason } => reason.len(),
        EventKind::Open { .. } | EventKind::End { .. } | EventKind::Close => 0,
    };
    BACKLOG_EVENT_BYTES + own
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::core::Core;
    use super::super::step::{Command, Joining};
    use super::*;
    use crate::journal::memory::Store;
    use crate::journal::{Appended, Flush, Seen};
    use crate::limits::Bounds;
    use crate::types::{Action, Arrival, Incarnation, PlayerId, RoomId, ShardId};
    use crate::wire::client::ErrorCode;
    use crate::wire::push::Push;

    const SHARD: ShardId = ShardId(0);

    /// A gateway that may keep about ten large actions of a room, and its journal.
    struct Away {
        core: Core,
        store: Store,
        now: u64,
    }

    impl Away {
        fn new() -> Self {
            Self::bounded(Bounds { backlog_bytes_max: 46 * (4000 + BACKLOG_EVENT_BYTES), ..Bounds::default() })
        }

        fn bounded(bounds: Bounds) -> Self {
            let (mut core, mut store) = (Core::new(Incarnation(1), 1, "test", 0).bounded(bounds), Store::at_home(1));
            core.probed(SHARD, crate::types::Moment::default());
            let (answer, _) = store.register(SHARD, Incarnation(1), Seen::default(), &[]).expect("a shard");
            core.registered(SHARD, Incarnation(1), &answer);
            core.take_commands();
            Self { core, store, now: 1_000 }
        }

        fn tick(&mut self) -> Arrival {
            self.now += 1_000;
            Arrival::at(self.now, 0)
        }

        fn join(&mut self, player: &str) -> u64 {
            self.join_room("pit", player)
        }

        fn join_room(&mut self, room: &str, player: &str) -> u64 {
            let joining = Joining::new(RoomId::new(room).expect("a name"), PlayerId::new(player).expect("a name"));
            let at = self.tick();
            self.core.open(joining, at).expect("a session").number
        }

        /// Acts until it is refused. Returns how many actions were accepted, and the refusal's message.
        fn act(&mut self, session: u64) -> (usize, String) {
            for taken in 0..100 {
                let args = Bytes::from([&[0xc5, 0x0f, 0x80][..], &[0; 3968]].concat());
                let action =
                    Action { op: "hit".to_owned(), id: format!("{taken}"), contest: None, player: None, seen: None, args };
                let at = self.tick();
                if let Err(refusal) = self.core.act(session, &action, at) {
                    assert_eq!((refusal.code, refusal.id), (ErrorCode::Busy, Some(action.id)));
                    return (taken, refusal.message);
                }
            }
            panic!("never refused: {} bytes", self.core.backlog.bytes());
        }

        /// The flush that leaves for the journal now.
        fn flush(&mut self) -> Arc<Flush> {
            self.tick();
            self.core.settled(self.now);
            let flush = |action| if let Command::Append { flush, .. } = action { Some(flush) } else { None };
            self.core.take_commands().into_iter().find_map(flush).expect("something to append")
        }

        fn append(&mut self, flush: &Flush) {
            let (answer, _) = self.store.append(flush, crate::types::Seed(1), 1).expect("a flush");
            self.core.appended(flush, &answer, false, self.now);
        }
    }

    #[test]
    fn what_waits_for_the_journal_is_bounded_in_bytes() {
        let mut away = Away::new();
        let ann = away.join("ann");
        let open = away.flush();
        away.append(&open);
        assert_eq!(away.core.backlog.bytes(), 0);
        let (taken, message) = away.act(ann);
        assert!((8..=10).contains(&taken), "{taken}");
        assert!(message.contains(&away.core.bounds.backlog_bytes_max.to_string()), "it names the limit: {message}");
        // A flush in flight counts until the journal has it. An Open and a Close are always accepted.
        let flush = away.flush();
        assert_eq!(away.act(ann).0, 0);
        let bob = away.join("bob");
        let at = away.tick();
        away.core.close(bob, at);
        assert!(away.core.backlog.bytes() > 8 * 4000);
        away.append(&flush);
        let flush = away.flush();
        away.append(&flush);
        // Bob left before the journal had his Open. His Close follows it.
        let flush = away.flush();
        away.append(&flush);
        assert_eq!(away.core.backlog.bytes(), 0);
        assert_eq!(away.act(ann).0, taken);
    }

    #[test]
    fn what_waits_for_the_welcome_counts_as_well() {
        let mut away = Away::new();
        let ann = away.join("ann");
        let (taken, message) = away.act(ann);
        assert!((8..=10).contains(&taken) && message.contains("bytes"), "{taken}: {message}");
        let eve = away.join("eve");
        assert_eq!(away.act(eve).0, 0, "one bound for all sessions");
        // The gateway is fenced, so everything is dropped.
        let flush = away.flush();
        away.core.appended(&flush, &Appended::Fenced, false, away.now);
        for session in [ann, eve] {
            let at = away.tick();
            away.core.close(session, at);
        }
        assert_eq!(away.core.backlog.bytes(), 0);
    }

    /// Floods rooms one after the other. Returns how many actions each accepted, and the last room's refusal.
    fn flood(away: &mut Away, rooms: usize) -> (Vec<usize>, String) {
        let sessions: Vec<u64> = (0..rooms).map(|n| away.join_room(&format!("pit{n}"), "ann")).collect();
        let open = away.flush();
        away.append(&open);
        let told: Vec<(usize, String)> = sessions.into_iter().map(|session| away.act(session)).collect();
        let last = told.last().map(|(_, message)| message.clone()).unwrap_or_default();
        (told.into_iter().map(|(taken, _)| taken).collect(), last)
    }

    #[test]
    fn however_many_rooms_are_flooded_the_next_one_is_served() {
        let rooms = 20;
        let counts = Bounds { unresolved_per_room_max: 32, unresolved_max: 400, ..Bounds::default() };
        let bytes = Bounds { backlog_bytes_max: 400 * (4000 + BACKLOG_EVENT_BYTES), ..counts };
        let bytes = Bounds { unresolved_per_room_max: 99, unresolved_max: 10_000, ..bytes };
        for (bounds, word, limit) in [(counts, "events", counts.unresolved_max), (bytes, "bytes", bytes.backlog_bytes_max)] {
            let (taken, message) = flood(&mut Away::bounded(bounds), rooms);
            assert!(taken.iter().all(|taken| *taken > 0), "{word}: {taken:?}");
            assert!(message.contains(word) && message.contains(&limit.to_string()), "the limit that it met: {message}");
            assert!(message.contains("pit19"), "{message}");
        }
    }

    /// A room dismisses its sessions each time someone joins. Nothing of them keeps a place that others need.
    #[test]
    fn who_is_sent_away_from_a_room_takes_no_place_from_others() {
        for damaged in [false, true] {
            let mut away = Away::new();
            let room = RoomId::new("pit").expect("a name");
            for _ in 0..3 {
                let ann = away.join("ann");
                let flush = away.flush();
                if damaged {
                    away.core.appended(&flush, &Appended::Refused(vec![room.clone()]), false, away.now);
                    let flush = away.flush();
                    away.append(&flush);
                } else {
                    away.append(&flush);
                    let halted = Push::Halted { shard: SHARD, room: room.clone(), known: true };
                    away.core.pushed(halted);
                }
                let at = away.tick();
                away.core.end(ann, 1013, at);
                away.core.close(ann, at);
                if !damaged {
                    let bye = away.flush();
                    away.append(&bye);
                }
                assert_eq!((away.core.unresolved, away.core.rooms.len()), (0, 0), "damaged: {damaged}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_limit_that_was_met() {
        let bounds = Bounds { unresolved_per_room_max: 9, unresolved_max: 100, ..Bounds::default() };
        let (taken, message) = flood(&mut Away::bounded(bounds), 1);
        assert_eq!(taken, [8], "the Open counts as well");
        assert!(message.starts_with("room pit0 has 9 events here that are not resolved yet, its limit"), "{message}");
    }
}
