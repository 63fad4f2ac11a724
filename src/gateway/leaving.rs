//! How sessions end, and how a gateway is drained.
//!
//! A dismissed session has [`CLOSE_TIMEOUT`] to leave. Then the core ends it, so that no room or drain waits for a session that stays.

use super::core::Core;
use super::state::{Leaving, Session, View, shard_of};
use super::step::{Command, Delivery};
use crate::limits::{CLOSE_TIMEOUT, WELCOME_TIMEOUT};
use crate::types::{Arrival, Incarnation, ShardId};
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

    pub(super) fn close_all(&mut self, code: u16, reason: &str) {
        let all: Vec<u64> = self.sessions.keys().copied().collect();
        for number in all {
            self.dismiss(number, code, reason);
        }
    }

    /// Whether all sessions are gone and all accepted events are in the journal.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.sessions.is_empty() && self.shards.iter().all(|shard| shard.left || shard.is_empty())
    }

    /// Ends this gateway once it is drained. Returns the shards in which its registration must be removed, and its turns there.
    pub(crate) fn leave(&mut self) -> Vec<(ShardId, Incarnation)> {
        let known = (0..).map(ShardId).zip(&mut self.shards).filter(|(_, shard)| shard.is_registered());
        let left = known.map(|(id, shard)| {
            shard.left = true;
            (id, shard.turn)
        });
        left.collect()
    }

    /// Takes back what sessions said that have ended before their shard had a home: as it had none for long, nobody waits for them.
    fn withdraw_late(&mut self, now_ns: u64) {
        let shards = &self.shards;
        let late = |s: &Session| {
            matches!(s.view, View::Closed)
                && now_ns.saturating_sub(s.opened_at_ns) > nanos(WELCOME_TIMEOUT)
                && shards[usize::from(shard_of(shards, &s.room).0)].home.is_none()
        };
        let late: Vec<u64> = self.sessions.iter().filter(|(_, session)| late(session)).map(|(number, _)| *number).collect();
        for number in late {
            let Some(session) = self.sessions.remove(&number) else { continue };
            let shard = shard_of(&self.shards, &session.room);
            self.shards[usize::from(shard.0)].pending.retain(|event| event.session != number);
            let Some(view) = self.rooms.get_mut(&session.room) else { continue };
            // Only its Open had left for the shard.
            view.unresolved = view.unresolved.saturating_sub(1);
            self.unresolved = self.unresolved.saturating_sub(1);
            view.at_rest = true;
            self.let_go(&session.room);
        }
    }

    /// Dismisses sessions that got no welcome in time, because no worker resolves their room. Ends dismissed sessions that
    /// stayed too long.
    pub(super) fn tick(&mut self, now_ns: u64) {
        self.now(now_ns);
        let late =
            |s: &Session| matches!(s.view, View::Joining) && now_ns.saturating_sub(s.opened_at_ns) > nanos(WELCOME_TIMEOUT);
        let late: Vec<u64> = self.sessions.iter().filter(|(_, s)| late(s)).map(|(n, _)| *n).collect();
        for number in late {
            self.dismiss(number, close::TRY_AGAIN, "no worker resolves this room right now: try again");
        }
        self.withdraw_late(now_ns);
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
    use super::super::homes::Loss;
    use super::super::step::{Command, Input, Joining};
    use super::*;
    use crate::journal::memory::Store;
    use crate::journal::{Appended, Seen};
    use crate::types::{Action, Moment, PlayerId, RoomId};

    const MS: u64 = 1_000_000;

    /// A gateway of two shards, registered in both.
    fn gateway() -> (Core, Store) {
        let (mut core, mut store) = (Core::new(Incarnation(1), 2, "test", 0), Store::at_home(2));
        for shard in [ShardId(0), ShardId(1)] {
            core.probed(shard, Moment::default());
            let (answer, _) = store.register(shard, Incarnation(1), Seen::default(), &[]).expect("a shard");
            core.registered(shard, Incarnation(1), &answer);
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

    fn action() -> Action {
        let args = bytes::Bytes::from_static(&[0xc0]);
        Action { op: "hit".to_owned(), id: "1".to_owned(), contest: None, player: None, seen: None, args }
    }

    /// Registers where the core wants to, and appends what is pending. The shard `fenced` answers that the gateway is fenced. Returns
    /// the rooms that were appended to, and by which turn.
    fn perform(core: &mut Core, store: &mut Store, now_ns: u64, fenced: Option<ShardId>) -> Vec<(RoomId, Incarnation)> {
        let mut appended = Vec::new();
        for round in 0..3 {
            core.settled(now_ns + round);
            for command in core.take_commands() {
                match command {
                    Command::Append { flush, .. } if Some(flush.shard) == fenced => {
                        core.appended(&flush, &Appended::Fenced, false, now_ns + round);
                    }
                    Command::Append { flush, .. } => {
                        let answer = store.append(&flush, crate::types::Seed(1), 1).expect("a flush").0;
                        assert!(matches!(answer, Appended::Stored(_)), "{answer:?}");
                        appended.extend(flush.entries.iter().map(|entry| (entry.room.clone(), flush.incarnation)));
                        core.appended(&flush, &answer, false, now_ns + round);
                    }
                    Command::Register { shard, gateway, seen, rooms, .. } => {
                        core.registered(shard, gateway, &store.register(shard, gateway, seen, &rooms).expect("a shard").0);
                    }
                    _ => {}
                }
            }
        }
        appended
    }

    /// N12: what an idle gateway sends does not grow with the shards. After a new subscription it looks at all of them.
    #[test]
    fn a_gateway_in_many_shards_checks_them_in_turns() {
        let (mut core, mut store) = gateway();
        core.bounds.checked_shards_max = 1;
        let [first, second] = [ShardId(0), ShardId(1)];
        for shard in [first, second] {
            join(&mut core, shard).expect("a session");
        }
        perform(&mut core, &mut store, 2_000, None);
        let mut checked = |core: &mut Core, input| {
            let asks = |core: &Core| core.shards.iter().map(|out| out.probed > out.watermark).collect::<Vec<_>>();
            core.apply(input);
            let asks = asks(core);
            let of = |command: &Command| if let Command::ReadHeads(shard, _) = command { Some(*shard) } else { None };
            let read: Vec<ShardId> = core.take_commands().iter().filter_map(of).collect();
            perform(core, &mut store, 3_000 + core.turns as u64, None);
            (asks, read)
        };
        assert_eq!(checked(&mut core, Input::CheckHeads), (vec![false, true], vec![second]));
        assert_eq!(checked(&mut core, Input::CheckHeads), (vec![true, false], vec![first]));
        assert_eq!(checked(&mut core, Input::CheckHeads), (vec![false, true], vec![second]));
        assert_eq!(checked(&mut core, Input::Subscribed), (vec![true, true], vec![first, second]));
    }

    /// Rule C5: who was declared dead in one shard may be dead in others, where nobody acts.
    #[test]
    fn a_gateway_that_was_fenced_looks_at_all_shards_at_once() {
        let (mut core, mut store) = gateway();
        core.bounds.checked_shards_max = 1;
        core.lose(ShardId(0), Loss::Dead);
        for shard in [ShardId(0), ShardId(1)] {
            join(&mut core, shard).expect("a session");
        }
        perform(&mut core, &mut store, 2_000, None);
        let mut looked_at = || {
            core.apply(Input::CheckHeads);
            core.take_commands().iter().filter(|command| matches!(command, Command::ReadHeads(..))).count()
        };
        assert_eq!([looked_at(), looked_at()], [2, 1]);
    }

    /// Rule C5: a push between the registration with another server and the subscription there is not missed.
    #[test]
    fn heads_are_read_after_a_registration_with_another_server() {
        let (mut core, mut store) = gateway();
        let shard = ShardId(0);
        join(&mut core, shard).expect("a session");
        perform(&mut core, &mut store, 2_000, None);
        for (server, count) in [(Incarnation(8), 1), (Incarnation(8), 0), (Incarnation(9), 1)] {
            core.register(shard);
            let seen = core.take_commands().into_iter().find_map(|command| match command {
                Command::Register { seen, rooms, .. } => Some((seen, rooms)),
                _ => None,
            });
            let (seen, rooms) = seen.expect("a registration");
            let (mut answer, _) = store.register(shard, core.turn_in(shard), seen, &rooms).expect("a shard");
            let crate::journal::Homed::Here(registered) = &mut answer else { panic!("{answer:?}") };
            registered.server = server;
            core.registered(shard, core.turn_in(shard), &answer);
            let read = core.take_commands().iter().filter(|command| matches!(command, Command::ReadHeads(..))).count();
            assert_eq!(read, count, "{server}");
        }
    }

    /// Rule W1: the fence of one shard closes its sessions, and no other's. Who comes back joins at once, under another turn.
    #[test]
    fn a_fence_ends_the_sessions_of_its_shard_alone() {
        for fenced in [ShardId(0), ShardId(1)] {
            let (mut core, mut store) = gateway();
            let other = ShardId(1 - fenced.0);
            let (lost, stays) = (join(&mut core, fenced).expect("a session"), join(&mut core, other).expect("a session"));
            let before = core.session_id(lost);
            perform(&mut core, &mut store, 2_000, Some(fenced));
            assert_eq!((core.turn_in(other), core.turn_in(fenced)), (Incarnation(1), Incarnation(1).turn(1)));
            assert!(core.sessions[&lost].leaving.is_some() && core.sessions[&stays].leaving.is_none());
            let back = join(&mut core, fenced).expect("at once");
            let now = Arrival::at(3_000, 0);
            for session in [lost, stays] {
                core.act(session, &action(), now).expect("taken in");
            }
            let appended = perform(&mut core, &mut store, 4_000, None);
            assert_eq!(
                appended.iter().map(|(_, turn)| *turn).collect::<std::collections::BTreeSet<_>>(),
                [Incarnation(1), Incarnation(1).turn(1)].into()
            );
            assert_ne!(before.gateway, core.session_id(back).gateway);
            // What the lost session still says is of no turn.
            core.end(lost, 1000, now);
            core.close(lost, now);
            assert_eq!(perform(&mut core, &mut store, 5_000, None), []);
            assert_eq!(core.session_count(), 2);
            assert_eq!(core.unresolved, 3, "two Opens and an action");
        }
    }

    /// Rule G2: the journal has less than this gateway was told of, and no home any more. The next turn says what was told.
    #[test]
    fn what_was_told_of_commits_outlives_a_turn() {
        let (mut core, _) = gateway();
        let shard = ShardId(0);
        assert!(core.hears(shard, Incarnation(1), 7));
        core.lose(shard, Loss::Dead);
        core.take_commands();
        core.probed(shard, Moment::default());
        let register = core.take_commands().into_iter().find_map(|command| match command {
            Command::Register { seen, .. } => Some(seen),
            _ => None,
        });
        assert_eq!(register, Some(Seen { server: Incarnation(1), flush: 0, commit: 7, home: 0 }));
    }

    #[test]
    fn turns_are_used_once() {
        let (mut core, _) = gateway();
        let mut turns = vec![core.turn_in(ShardId(0))];
        for shard in [ShardId(0), ShardId(1), ShardId(0), ShardId(0), ShardId(1)] {
            core.lose(shard, Loss::Dead);
            turns.push(core.turn_in(shard));
            assert_eq!(core.turn_in(shard).process(), Incarnation(1));
        }
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), 6);
    }

    #[test]
    fn a_session_that_does_not_go_holds_up_no_drain() {
        let (mut core, mut store) = gateway();
        join(&mut core, ShardId(0)).expect("a session");
        core.drain(close::GOING_AWAY, "bye");
        let drained = (1..60).find(|second| {
            core.tick(second * 1_000 * MS);
            perform(&mut core, &mut store, second * 1_000 * MS, None);
            core.is_drained()
        });
        assert!(drained.is_some_and(|seconds| seconds < 10));
        assert_eq!(core.leave(), [0, 1].map(|shard| (ShardId(shard), Incarnation(1))));
    }

    /// Its room was let go before: nothing else remembers that the session is of the turn that is over.
    #[test]
    fn a_session_that_ended_before_its_open_was_stored_ends_with_its_turn() {
        for in_flight in [true, false] {
            let (mut core, _) = gateway();
            let ann = join(&mut core, ShardId(0)).expect("a session");
            let room = core.sessions[&ann].room.clone();
            if in_flight {
                core.settled(2_000);
            }
            core.halted(&room, true);
            core.end(ann, 1000, Arrival::at(3_000, 0));
            core.close(ann, Arrival::at(3_000, 0));
            assert!(core.rooms.is_empty() && core.session_count() == 1, "its Open may be stored");
            core.lose(ShardId(0), Loss::Dead);
            assert_eq!(core.session_count(), 0);
            core.drain(close::GOING_AWAY, "bye");
            assert!(core.is_drained());
        }
    }

    #[test]
    fn a_gateway_that_is_fenced_while_it_goes_down_takes_nobody_in() {
        let (mut core, mut store) = gateway();
        join(&mut core, ShardId(0)).expect("a session");
        core.drain(close::GOING_AWAY, "bye");
        perform(&mut core, &mut store, 2_000, Some(ShardId(0)));
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
