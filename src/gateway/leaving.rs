//! How sessions end, and how a gateway is drained, fenced and reborn.
//!
//! A dismissed session has [`CLOSE_TIMEOUT`] to leave. Then the core ends it, so that no room, drain or rebirth waits for a
//! session that stays.

use super::core::Core;
use super::state::{Leaving, Session, View, shard_of};
use super::step::{Command, Delivery};
use crate::limits::{CLOSE_TIMEOUT, WELCOME_TIMEOUT};
use crate::types::{Arrival, Incarnation, RoomId, ShardId};
use crate::wire::client::close;

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// Tells a session to go. It is sent nothing more.
    pub(super) fn dismiss(&mut self, number: u64, code: u16, reason: impl Into<String>) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if matches!(session.view, View::Leaving | View::Closed) {
            return;
        }
        session.view = View::Leaving;
        session.leaving = Some(Leaving { code, by_ns: None });
        self.issue(Command::Deliver(number, Delivery::Close { code, reason: reason.into() }));
        self.forget_reads(number);
    }

    /// Refuses new sessions and dismisses all others.
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

    /// Whether all sessions are gone and all accepted events are in the journal.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.sessions.is_empty() && self.shards.iter().all(|shard| shard.fenced || shard.is_empty())
    }

    /// This incarnation may append nothing more in `shard`. All sessions are dismissed. Once the other shards have everything,
    /// the gateway starts again under a new identity.
    pub(super) fn fence(&mut self, shard: ShardId) {
        self.shards[usize::from(shard.0)].fence();
        if !self.fenced {
            self.fenced = true;
            self.close_all(close::RESTARTED, "this gateway was declared dead and starts again: connect again with since");
        }
        // Sessions whose shard is fenced have nothing left to wait for.
        self.check_reborn();
    }

    pub(super) fn check_reborn(&mut self) {
        if !self.fenced {
            return;
        }
        let lost = |room: &RoomId| self.shards[usize::from(shard_of(&self.shards, room).0)].fenced;
        self.sessions.retain(|_, session| !(matches!(session.view, View::Closed) && lost(&session.room)));
        if self.is_drained() {
            for shard in self.leave() {
                self.issue(Command::Leave(shard, self.incarnation));
            }
            self.issue(Command::Rebirth);
        }
    }

    /// Ends this incarnation once it is drained. Returns the shards in which its registration must be removed.
    pub(crate) fn leave(&mut self) -> Vec<ShardId> {
        let known = (0..).map(ShardId).zip(&mut self.shards).filter(|(_, shard)| shard.is_registered());
        known.map(|(id, shard)| (id, shard.fence()).0).collect()
    }

    /// Starts again under a new identity, after [`Command::Rebirth`]. A gateway that is stopping goes on stopping.
    pub(crate) fn reborn(&mut self, incarnation: Incarnation) {
        #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
        let shards = self.shards.len() as u16;
        let born = Self::new(incarnation, self.timeline, shards, self.clock, self.precision_ns);
        let old = std::mem::replace(self, born);
        (self.next_session, self.reads.last_number) = (old.next_session, old.reads.last_number);
        (self.bounds, self.draining, self.commands) = (old.bounds, old.draining, old.commands);
    }

    /// Dismisses sessions that got no welcome in time, because no worker resolves their room. Ends dismissed sessions that
    /// stayed too long.
    pub(super) fn tick(&mut self, now_ns: u64) {
        let late =
            |s: &Session| matches!(s.view, View::Joining) && now_ns.saturating_sub(s.opened_at_ns) > nanos(WELCOME_TIMEOUT);
        let late: Vec<u64> = self.sessions.iter().filter(|(_, s)| late(s)).map(|(n, _)| *n).collect();
        for number in late {
            self.dismiss(number, close::TRY_AGAIN, "no worker resolves this room right now: try again");
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
    use super::super::step::Joining;
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
        core.take_commands();
        (core, store)
    }

    fn join(core: &mut Core, shard: ShardId) -> Option<u64> {
        let mut names = (0..100).map(|n| RoomId::new(&format!("pit{n}")).expect("a name"));
        let room = names.find(|room| ShardId::of(room, 2) == shard).expect("a room of the shard");
        let joining = Joining::new(room, PlayerId::new("ann").expect("a name"));
        core.open(joining, Arrival::at(1_000, 0)).ok().map(|session| session.number)
    }

    /// Appends what is pending. The shard `fenced` answers that the gateway is fenced. Returns whether the core asks for rebirth.
    fn perform(core: &mut Core, store: &mut Store, now_ns: u64, fenced: ShardId) -> bool {
        core.settled(now_ns);
        let mut reborn = false;
        for command in core.take_commands() {
            match command {
                Command::Append { flush, .. } if flush.shard == fenced => {
                    core.appended(&flush, &Appended::Fenced, false, now_ns);
                }
                Command::Append { flush, .. } => {
                    let answer = store.append(&flush, crate::types::Seed(1), 1).expect("a flush").0;
                    core.appended(&flush, &answer, false, now_ns);
                }
                Command::Rebirth => reborn = true,
                _ => {}
            }
        }
        reborn
    }

    /// Ticks for a minute at most. Returns the number of ticks until the rebirth.
    fn until_reborn(core: &mut Core, store: &mut Store, fenced: ShardId) -> Option<u64> {
        (1..60).find(|second| {
            let now_ns = second * 1_000 * MS;
            core.tick(now_ns);
            // Once for what the core asks for, once for what follows from the answers.
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
        let told = |command: &Command| matches!(command, Command::Deliver(_, Delivery::Close { .. }));
        assert_eq!(core.take_commands().iter().filter(|command| told(command)).count(), 1);
    }
}
