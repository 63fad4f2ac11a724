//! Rooms of which the journal holds something else than was written there: one interleaving each.

use super::*;

/// The journal refuses a room with its first Open. Whoever never got in says no goodbye there once the room is mended: it would be
/// resolved without a session, below what others had resolved meanwhile.
#[test]
fn who_never_got_into_a_damaged_room_owes_it_no_goodbye() {
    never_gets_in(Appended::Refused(vec![room()]));
}

/// The same where the shard has no place for a new room.
#[test]
fn who_never_got_into_a_full_shard_owes_its_room_no_goodbye() {
    never_gets_in(Appended::Full(vec![room()]));
}

fn never_gets_in(answer: Appended) {
    let mut store = Store::at_home(1);
    let mut a = gateway(&mut store, 1);
    let ann = a.join("ann", None, 1_010 * MS);
    let hasty = a.join("bob", None, 1_011 * MS);
    a.core.close(hasty, Arrival::at(1_012 * MS, 0));
    a.core.settled(1_020 * MS);
    a.collect();
    let flush = a.flush.take().expect("two Opens");
    a.appended(flush, answer, false, 1_021 * MS);
    a.collect();
    let rest = a.flush.take().expect("the same flush without them");
    let (answer, _) = store.append(&rest, crate::types::Seed(1), 1_022).expect("a flush");
    a.appended(rest, answer, true, 1_022 * MS);
    assert!(a.told.iter().any(|(s, d)| *s == ann && matches!(d, Delivery::Close { .. })), "{:?}", a.told);
    a.core.end(ann, 1_013, Arrival::at(1_030 * MS, 0));
    a.core.close(ann, Arrival::at(1_030 * MS, 0));
    a.core.apply(GatewayInput::CheckHeads);
    a.core.settled(1_040 * MS);
    a.collect();
    let flush = a.flush.take().expect("its heartbeat");
    assert_eq!(flush.entries, []);
    assert_eq!(a.core.session_count(), 0);
}
