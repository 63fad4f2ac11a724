//! The journal has another server, and less than it had: one interleaving each.

use super::*;
use crate::journal::Registered;

impl Gateway {
    /// It finds out that the journal has another server, and registers there.
    fn find_back(&mut self, store: &mut Store) -> Registered {
        self.check_heads(store);
        self.registration(store).expect("another server has answered")
    }

    /// Carries out the registration that it wants, if it does.
    fn registration(&mut self, store: &mut Store) -> Option<Registered> {
        let (shard, seen, rooms) = self.registering.take()?;
        let (answer, _) = store.register(shard, self.core.incarnation(), seen, &rooms).expect("a shard");
        self.core.registered(shard, &answer);
        self.collect();
        Some(answer)
    }

    fn is_closed(&self, session: u64) -> bool {
        self.told.iter().any(|(s, d)| *s == session && matches!(d, Delivery::Close { .. }))
    }
}

fn era(store: &mut Store) -> u64 {
    store.heads(SHARD, &[room()]).expect("a head")[0].era
}

/// Ann's action is in the journal, and resolved behind the state that is returned beside it: there a restart leads back.
fn with_something_to_lose() -> (Stage, Gateway, Store) {
    let (mut stage, mut a) = alone();
    stage.push(&mut a);
    a.act(1, "a", 1_030 * MS);
    let bell = a.flush(&mut stage.store, 1_031 * MS, false);
    let before = stage.store.clone();
    stage.bell(bell);
    stage.settle();
    (stage, a, before)
}

/// G3: a verdict was delivered and is lost, the rooms begin a new era, and the next restart loses that. It shows: the earlier
/// era, in which the verdict was delivered, does not go on.
#[test]
fn a_new_era_that_is_lost_itself_is_followed_by_another() {
    let (mut stage, mut a, before) = with_something_to_lose();
    stage.push(&mut a);
    assert_eq!(a.seqs(1), [2], "it was delivered");
    let delivered_in = era(&mut stage.store);
    let mut store = before.clone();
    store.restart(Incarnation(1_002));
    assert_eq!(a.find_back(&mut store).renewed, 1);
    let second = era(&mut store);
    assert!(second != delivered_in && a.is_closed(1));
    let mut store = before;
    store.restart(Incarnation(1_003));
    assert_eq!(a.find_back(&mut store).renewed, 1);
    assert!(![delivered_in, second].contains(&era(&mut store)), "no era comes twice");
}

/// G3: a push of the old server is still under way when the gateway has registered with the new one, which has lost what it
/// tells. It is not delivered.
#[test]
fn a_late_push_of_the_old_server_is_not_delivered() {
    let (mut stage, mut a, mut store) = with_something_to_lose();
    store.restart(Incarnation(1_002));
    assert_eq!(a.find_back(&mut store).renewed, 0, "nobody has seen what is lost");
    stage.push(&mut a);
    a.read(&store);
    assert!(a.seqs(1).is_empty() && !a.is_closed(1));
    // It asks who serves the journal now, and goes on.
    assert_eq!(a.registration(&mut store).map(|answer| answer.renewed), Some(0));
    assert_eq!(era(&mut store), era(&mut stage.store));
}

/// G1: a gateway was fenced, and the journal has lost that. The worker that knew it writes it again, before anything else.
#[test]
fn a_fence_that_was_lost_is_written_again() {
    let (mut stage, mut a, _b) = two_inside();
    let mut store = stage.store.clone();
    stage.fence(a.core.incarnation());
    store.restart(Incarnation(1_002));
    stage.store = store;
    // Another server answers: the shard is let go, and claimed there.
    stage.survey();
    for action in stage.take(|action| matches!(action, WorkerAction::Renew { .. })) {
        let WorkerAction::Renew { shard, seen } = action else { unreachable!("only renewals") };
        let rooms = stage.store.renew(shard, seen).expect("a shard");
        stage.worker.renewed(shard, rooms, stage.now);
    }
    let from = stage.store.owners()[0];
    let lease = stage.store.claim(SHARD, from, Incarnation(100)).expect("a shard");
    stage.worker.claimed(SHARD, Some(lease), stage.now);
    stage.collect();
    stage.subscribe();
    stage.survey();
    for action in stage.take(|action| matches!(action, WorkerAction::Fence { .. })) {
        let WorkerAction::Fence { shard, lease, gateway } = action else { unreachable!("only fences") };
        stage.store.fence(shard, lease, gateway).expect("a shard");
    }
    a.find_back(&mut stage.store);
    assert!(a.is_closed(1), "it is fenced there too");
}
