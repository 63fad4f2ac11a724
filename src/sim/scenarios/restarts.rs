//! The journal has another server, and less than it had: one interleaving each.

use super::*;
use crate::journal::Registered;

impl ScriptedGateway {
    /// It finds out that the journal has another server, and registers there.
    fn find_back(&mut self, store: &mut Store) -> Registered {
        self.check_heads(store);
        self.registration(store).expect("another server has answered")
    }

    /// Carries out the registration that it wants, if it does.
    fn registration(&mut self, store: &mut Store) -> Option<Registered> {
        let (shard, seen, rooms) = self.registering.take()?;
        let (answer, _) = store.register(shard, self.core.turn_in(shard), seen, &rooms).expect("a shard");
        self.core.apply(GatewayInput::Registered(shard, self.core.turn_in(shard), answer.clone()));
        self.collect();
        answer.here()
    }

    fn is_closed(&self, session: u64) -> bool {
        self.told.iter().any(|(s, d)| *s == session && matches!(d, Delivery::Close { .. }))
    }
}

fn era(store: &mut Store) -> u64 {
    store.heads(SHARD, &[room()]).expect("a head")[0].era
}

/// Ann's action is in the journal, and resolved behind the state that is returned beside it: there a restart leads back.
fn with_something_to_lose() -> (Stage, ScriptedGateway, Store) {
    let (mut stage, mut a) = alone();
    stage.push(&mut a);
    a.act(1, "a", 1_030 * MS);
    let bell = a.flush(&mut stage.store, 1_031 * MS, false);
    let before = stage.store.clone();
    stage.bell(bell);
    stage.settle();
    (stage, a, before)
}

/// Rule G3: a verdict was delivered and is lost, the rooms begin a new era, and the next restart loses that. It shows: the earlier
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

/// Rule G3: a push of the old server is still under way when the gateway has registered with the new one, which has lost what it
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
