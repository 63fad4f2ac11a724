//! What a gateway keeps until the journal has it, in bytes: each event holds its share, and gives it back when it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::KEPT_EVENT_BYTES;
use crate::types::EventKind;

/// The sum of all shares.
#[derive(Debug, Default)]
pub(super) struct Kept(Arc<AtomicUsize>);

/// An event's part of it.
#[derive(Debug)]
pub(super) struct Share {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Kept {
    /// Bytes that are kept now.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes an event's share, whatever is kept already.
    pub(super) fn share(&self, kind: &EventKind) -> Share {
        let bytes = bytes_of(kind);
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Share { bytes, of: Arc::clone(&self.0) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What an event counts as.
pub(super) fn bytes_of(kind: &EventKind) -> usize {
    KEPT_EVENT_BYTES + if let EventKind::Data(action) = kind { action.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::core::{Action, Core, Joining};
    use super::*;
    use crate::journal::memory::Store;
    use crate::journal::{Appended, Flush, Seen};
    use crate::limits::Bounds;
    use crate::types::{Action as PlayerAction, Arrival, Incarnation, PlayerId, RoomId, ShardId};
    use crate::wire::client::ErrorCode;

    const SHARD: ShardId = ShardId(0);

    /// A gateway that may keep about ten large actions, and its journal.
    struct Away {
        core: Core,
        store: Store,
        now: u64,
    }

    impl Away {
        fn new() -> Self {
            let bounds = Bounds { kept_bytes_max: 10 * (4000 + KEPT_EVENT_BYTES), ..Bounds::default() };
            let (mut core, mut store) = (Core::new(Incarnation(1), 1, 1, "test", 0).bounded(bounds), Store::new(1));
            core.probed(SHARD, crate::types::Moment::default());
            let (answer, _) = store.register(SHARD, Incarnation(1), Seen::default(), &[]).expect("a shard");
            core.registered(SHARD, &answer);
            core.take_actions();
            Self { core, store, now: 1_000 }
        }

        fn tick(&mut self) -> Arrival {
            self.now += 1_000;
            Arrival::at(self.now, 0)
        }

        fn join(&mut self, player: &str) -> u64 {
            let joining = Joining::new(RoomId::new("pit").expect("a name"), PlayerId::new(player).expect("a name"));
            let at = self.tick();
            self.core.open(joining, at).expect("a session").number
        }

        /// Acts until it is refused; tells how often it was not, and what the refusal says.
        fn act(&mut self, session: u64) -> (usize, String) {
            for taken in 0..100 {
                let args = Bytes::from([&[0xc5, 0x0f, 0x80][..], &[0; 3968]].concat());
                let action = PlayerAction { op: "hit".to_owned(), id: format!("{taken}"), contest: None, player: None, args };
                let at = self.tick();
                if let Err(refusal) = self.core.act(session, &action, at) {
                    assert_eq!((refusal.code, refusal.id), (ErrorCode::Busy, Some(action.id)));
                    return (taken, refusal.message);
                }
            }
            panic!("never refused: {} bytes", self.core.kept.bytes());
        }

        /// What leaves for the journal now.
        fn flush(&mut self) -> Arc<Flush> {
            self.tick();
            self.core.settled(self.now);
            let flush = |action| if let Action::Append { flush, .. } = action { Some(flush) } else { None };
            self.core.take_actions().into_iter().find_map(flush).expect("something to append")
        }

        fn append(&mut self, flush: &Flush) {
            let (answer, _) = self.store.append(flush, 1).expect("a flush");
            self.core.appended(flush, &answer, false, self.now);
        }
    }

    #[test]
    fn what_waits_for_the_journal_is_bounded_in_bytes() {
        let mut away = Away::new();
        let ann = away.join("ann");
        let open = away.flush();
        away.append(&open);
        assert_eq!(away.core.kept.bytes(), 0);
        let (taken, message) = away.act(ann);
        assert!((8..=10).contains(&taken), "{taken}");
        assert!(message.contains(&away.core.bounds.kept_bytes_max.to_string()), "it names the limit: {message}");
        // What is in flight counts until the journal has it; an Open, and a Close, always get in.
        let flush = away.flush();
        assert_eq!(away.act(ann).0, 0);
        let bob = away.join("bob");
        let at = away.tick();
        away.core.close(bob, at);
        assert!(away.core.kept.bytes() > away.core.bounds.kept_bytes_max - 4000);
        away.append(&flush);
        let flush = away.flush();
        away.append(&flush);
        // Bob left before his Open was in: his Close follows it.
        let flush = away.flush();
        away.append(&flush);
        assert_eq!(away.core.kept.bytes(), 0);
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
        // The gateway is fenced: everything goes.
        let flush = away.flush();
        away.core.appended(&flush, &Appended::Fenced, false, away.now);
        for session in [ann, eve] {
            let at = away.tick();
            away.core.close(session, at);
        }
        assert_eq!(away.core.kept.bytes(), 0);
    }
}
