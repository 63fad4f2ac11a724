//! How sessions, and a gateway's identity, come to their end.
//!
//! Who is told to go has [`CLOSE_TIMEOUT`] for it. Then the session is over, whether its driver let go of it or not: a room,
//! a drain and a rebirth wait for no one who does not.

use super::core::{Action, Core, Delivery, Session};
use super::deliver::View;
use crate::limits::{CLOSE_TIMEOUT, WELCOME_TIMEOUT};
use crate::types::{Arrival, Incarnation, RoomId, ShardId};
use crate::wire::client::close;

/// A session that was told to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    code: u16,
    /// Known from the first tick on.
    by_ns: Option<u64>,
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// Tells a session to go: the last that it is sent.
    pub(super) fn dismiss(&mut self, number: u64, code: u16, reason: impl Into<String>) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if matches!(session.view, View::Leaving | View::Closed) {
            return;
        }
        session.view = View::Leaving;
        session.leaving = Some(Leaving { code, by_ns: None });
        self.act_on(Action::Deliver(number, Delivery::Close { code, reason: reason.into() }));
        self.forget_reads(number);
    }

    /// Stops taking in sessions and tells those inside to go.
    pub(crate) fn drain(&mut self, code: u16, reason: &str) {
        self.draining = true;
        self.close_all(code, reason);
    }

    fn close_all(&mut self, code: u16, reason: &str) {
        let all: Vec<u64> = self.sessions.keys().copied().collect();
        for number in all {
            self.dismiss(number, code, reason);
        }
    }

    /// Whether every session is gone and everything that was accepted is in the journal.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.sessions.is_empty() && self.shards.iter().all(|shard| shard.fenced || shard.is_empty())
    }

    /// This incarnation may append no more in `shard`: its sessions go, and once the other shards have everything the
    /// gateway starts again under a new identity.
    pub(super) fn fence(&mut self, shard: ShardId) {
        self.shards[usize::from(shard.0)].fence();
        if !self.fenced {
            self.fenced = true;
            self.close_all(close::RESTARTED, "this gateway was taken for dead and starts again: connect again with since");
        }
        // Sessions whose Open never got in, or whose shard is gone, have nothing left to wait for.
        self.check_reborn();
    }

    pub(super) fn check_reborn(&mut self) {
        if !self.fenced {
            return;
        }
        let shards = &self.shards;
        let lost =
            |room: &RoomId| shards[usize::from(ShardId::of(room, u16::try_from(shards.len()).unwrap_or(u16::MAX)).0)].fenced;
        self.sessions.retain(|_, session| !(matches!(session.view, View::Closed) && lost(&session.room)));
        if self.is_drained() {
            for shard in self.leave() {
                self.act_on(Action::Leave(shard, self.incarnation));
            }
            self.act_on(Action::Rebirth);
        }
    }

    /// Says nothing more, once it is drained; tells where its registration is to be taken back.
    pub(crate) fn leave(&mut self) -> Vec<ShardId> {
        let known = (0..).map(ShardId).zip(&mut self.shards).filter(|(_, shard)| shard.is_registered());
        known.map(|(id, shard)| (id, shard.fence()).0).collect()
    }

    /// Starts again under a new identity, after [`Action::Rebirth`]. One that goes down goes on going down.
    pub(crate) fn reborn(&mut self, incarnation: Incarnation) {
        #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
        let shards = self.shards.len() as u16;
        let born = Self::new(incarnation, self.timeline, shards, self.clock, self.precision_ns);
        let old = std::mem::replace(self, born);
        (self.next_session, self.reads.next) = (old.next_session, old.reads.next);
        (self.bounds, self.draining, self.actions) = (old.bounds, old.draining, old.actions);
    }

    /// Sends sessions away that got no welcome in time, for nobody resolves their room, and closes those that were sent
    /// away and did not go. Call about once a second.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        let late =
            |s: &Session| matches!(s.view, View::Joining) && now_ns.saturating_sub(s.opened_at_ns) > nanos(WELCOME_TIMEOUT);
        let late: Vec<u64> = self.sessions.iter().filter(|(_, s)| late(s)).map(|(n, _)| *n).collect();
        for number in late {
            self.dismiss(number, close::TRY_AGAIN, "nobody resolves this room right now: try again");
        }
        let mut stayed = Vec::new();
        for (number, session) in &mut self.sessions {
            let Some(leaving) = session.leaving.as_mut().filter(|_| session.view == View::Leaving) else { continue };
            if now_ns > *leaving.by_ns.get_or_insert(now_ns.saturating_add(nanos(CLOSE_TIMEOUT))) {
                stayed.push((*number, leaving.code));
            }
        }
        for (number, code) in stayed {
            self.end(number, code, Arrival::at(now_ns, 0));
            self.close(number, Arrival::at(now_ns, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::core::Joining;
    use super::*;
    use crate::journal::memory::Store;
    use crate::journal::{Appended, Seen};
    use crate::types::{Moment, PlayerId};

    const MS: u64 = 1_000_000;

    /// A gateway of two shards, registered in both.
    fn gateway() -> (Core, Store) {
        let (mut core, mut store) = (Core::new(Incarnation(1), 1, 2, "test", 0), Store::new(2));
        for shard in [ShardId(0), ShardId(1)] {
            core.probed(shard, Moment::default());
            let (answer, _) = store.register(shard, Incarnation(1), Seen::default(), &[]).expect("a shard");
            core.registered(shard, &answer);
        }
        core.take_actions();
        (core, store)
    }

    fn join(core: &mut Core, shard: ShardId) -> Option<u64> {
        let mut names = (0..100).map(|n| RoomId::new(&format!("pit{n}")).expect("a name"));
        let room = names.find(|room| ShardId::of(room, 2) == shard).expect("a room of the shard");
        let joining = Joining::new(room, PlayerId::new("ann").expect("a name"));
        core.open(joining, Arrival::at(1_000, 0)).ok().map(|session| session.number)
    }

    /// Appends what there is; `fenced` is answered so. True when the gateway is to be born again.
    fn perform(core: &mut Core, store: &mut Store, now_ns: u64, fenced: ShardId) -> bool {
        core.settled(now_ns);
        let mut reborn = false;
        for action in core.take_actions() {
            match action {
                Action::Append { flush, .. } if flush.shard == fenced => {
                    core.appended(&flush, &Appended::Fenced, false, now_ns);
                }
                Action::Append { flush, .. } => {
                    let answer = store.append(&flush, 1).expect("a flush").0;
                    core.appended(&flush, &answer, false, now_ns);
                }
                Action::Rebirth => reborn = true,
                _ => {}
            }
        }
        reborn
    }

    /// Ticks for a minute at most; how many it took.
    fn until_reborn(core: &mut Core, store: &mut Store, fenced: ShardId) -> Option<u64> {
        (1..60).find(|second| {
            let now_ns = second * 1_000 * MS;
            core.tick(now_ns);
            // Once for what it asks for, once for what follows from the answers.
            perform(core, store, now_ns, fenced) || perform(core, store, now_ns + MS, fenced)
        })
    }

    #[test]
    fn a_session_that_does_not_go_holds_up_no_rebirth() {
        for fenced in [ShardId(0), ShardId(1)] {
            let (mut core, mut store) = gateway();
            join(&mut core, ShardId(0)).expect("a session");
            join(&mut core, ShardId(1)).expect("a session");
            assert!(until_reborn(&mut core, &mut store, fenced).is_some_and(|seconds| seconds < 10));
            core.reborn(Incarnation(2));
            assert_eq!(core.session_count(), 0);
        }
    }

    #[test]
    fn a_session_that_does_not_go_holds_up_no_drain() {
        let (mut core, mut store) = gateway();
        join(&mut core, ShardId(0)).expect("a session");
        core.drain(close::GOING_AWAY, "bye");
        let nobody = ShardId(9);
        assert_eq!(until_reborn(&mut core, &mut store, nobody), None);
        assert!(core.is_drained());
    }

    #[test]
    fn a_gateway_that_is_born_again_while_it_goes_down_takes_nobody_in() {
        let (mut core, mut store) = gateway();
        join(&mut core, ShardId(0)).expect("a session");
        core.drain(close::GOING_AWAY, "bye");
        until_reborn(&mut core, &mut store, ShardId(0)).expect("born again");
        core.reborn(Incarnation(2));
        assert_eq!(join(&mut core, ShardId(0)), None);
    }

    #[test]
    fn who_was_told_to_go_is_told_once() {
        let (mut core, _) = gateway();
        let ann = join(&mut core, ShardId(0)).expect("a session");
        (0..3).for_each(|_| core.dismiss(ann, close::TRY_AGAIN, "later"));
        let told = |action: &Action| matches!(action, Action::Deliver(_, Delivery::Close { .. }));
        assert_eq!(core.take_actions().iter().filter(|action| told(action)).count(), 1);
    }
}
