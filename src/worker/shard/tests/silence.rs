//! Which gateways are fenced for their silence, and which rooms a bell advances.

use std::collections::BTreeSet;

use super::*;
use crate::journal::{Beats, ShardOwner, WorkerRecord};
use crate::limits::{GATEWAY_TIMEOUT, REDIS_RESPONSE_TIMEOUT, RESUBSCRIBE_DELAY_MAX, RETRY_MAX};
use crate::types::Home;

/// A shard that is at home here.
fn owner(lease: Option<Lease>) -> ShardOwner {
    ShardOwner { lease, home: Some(Home { number: 1, host: limits().host, address: String::new() }), next: None }
}

/// A worker with a room in which B's event at 200 waits for A.
fn waiting_for_a() -> Core {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    core.apply(Input::Surveyed(SHARD, survey(1, &room, 100)), 1);
    perform(&mut core);
    let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 200))];
    core.stored_room(SHARD, room, StoredRoom { era: 1, entries, ..StoredRoom::default() }, 2);
    core
}

/// Ticks until A is to be fenced. Returns how long that took.
fn fenced_after(core: &mut Core, from_ns: u64) -> Option<u64> {
    (from_ns..from_ns + 10_000_000_000).step_by(20_000_000).find_map(|now_ns| {
        core.apply(Input::Tick, now_ns);
        perform(core).iter().any(|a| matches!(a, Command::Fence { gateway: A, .. })).then_some(now_ns - from_ns)
    })
}

/// When the worker reaches the journal again, a gateway may still wait for an answer on a silent connection.
#[test]
fn a_gateway_is_excused_until_it_may_have_found_back() {
    let start = |failed: Option<bool>| {
        let mut core = waiting_for_a();
        core.apply(Input::Tick, 3);
        perform(&mut core);
        if let Some(silent) = failed {
            let error = if silent { JournalError::Silent } else { JournalError::Unreachable };
            core.apply(Input::Failed(Failure::new("ping", Scope::Ping, error("away".to_owned()))), 3);
        }
        fenced_after(&mut core, 4).expect("it is fenced in the end")
    };
    let (usual, broken, excused) = (start(None), start(Some(false)), start(Some(true)));
    let patience = u64::try_from((REDIS_RESPONSE_TIMEOUT + RETRY_MAX).as_nanos()).expect("a bound");
    assert!(usual < 1_100_000_000, "{usual}");
    assert!((patience..patience + 1_200_000_000).contains(&excused), "{excused}");
    let patience = u64::try_from((RESUBSCRIBE_DELAY_MAX + RETRY_MAX + GATEWAY_TIMEOUT).as_nanos()).expect("a bound");
    assert!((patience..patience + 100_000_000).contains(&broken), "{broken}: whose connection broke looks for another at once");
}

/// A step that keeps failing because of one room or record keeps no dead gateway alive.
#[test]
fn trouble_of_one_room_or_record_excuses_no_gateway() {
    let fenced_beside = |scope: Scope, error: fn(String) -> JournalError| {
        let mut core = waiting_for_a();
        (3..10_000_000_000).step_by(20_000_000).find(|now_ns| {
            core.apply(Input::Tick, *now_ns);
            core.apply(Input::Failed(Failure::new("ping", scope, error("again".to_owned()))), *now_ns);
            perform(&mut core).iter().any(|a| matches!(a, Command::Fence { gateway: A, .. }))
        })
    };
    for (scope, error) in [
        (Scope::Room, JournalError::Silent as fn(String) -> JournalError),
        (Scope::Room, JournalError::Unexpected),
        (Scope::Room, JournalError::Refused),
        (Scope::Shared, JournalError::Unexpected),
        (Scope::Shared, JournalError::Damaged),
    ] {
        let after = fenced_beside(scope, error);
        assert!(after.is_some_and(|ns| ns < 1_100_000_000), "{scope:?} {}: {after:?}", error(String::new()));
    }
    for (scope, error) in [
        (Scope::Ping, JournalError::Unexpected as fn(String) -> JournalError),
        (Scope::Shared, JournalError::Silent),
        (Scope::Shared, JournalError::Refused),
        (Scope::Room, JournalError::Unreachable),
    ] {
        assert_eq!(fenced_beside(scope, error), None, "{scope:?} {}", error(String::new()));
    }
}

/// A gateway with an unreadable record is fenced at once.
#[test]
fn a_gateway_with_a_damaged_record_is_fenced() {
    let (mut core, room) = (worker(), RoomId::new("pit").expect("name"));
    let damaged = |gateway| Survey { damaged_gateways: vec![gateway], ..survey(1, &room, 100) };
    let dead = Incarnation(3);
    core.apply(Input::Surveyed(SHARD, damaged(dead)), 1);
    let fences = |commands: Vec<Command>| {
        commands.into_iter().filter(|a| matches!(a, Command::Fence { gateway, .. } if *gateway == dead)).count()
    };
    assert_eq!(fences(perform(&mut core)), 1);
    core.apply(Input::Subscribed(SHARD), 2);
    core.apply(Input::Surveyed(SHARD, damaged(dead)), 2);
    assert_eq!(fences(perform(&mut core)), 1, "its answer may have been lost with the bells");
    fenced(&mut core, dead, 2);
    core.apply(Input::Subscribed(SHARD), 3);
    core.apply(Input::Surveyed(SHARD, damaged(dead)), 3);
    assert_eq!(fences(perform(&mut core)), 0);
}

/// A fence that failed is asked for again when the gateway was silent for another timeout.
#[test]
fn a_fence_that_failed_is_asked_for_again() {
    let mut core = waiting_for_a();
    let first = fenced_after(&mut core, 3).expect("it is fenced");
    let failure = Failure::new("fence", Scope::Shared, JournalError::Unexpected("again".to_owned()));
    core.apply(Input::FenceFailed { shard: SHARD, gateway: A, failure }, 4 + first);
    let again = fenced_after(&mut core, 4 + first).expect("it is asked for again");
    assert!((1_000_000_000..1_100_000_000).contains(&again), "{again}");
}

fn passed(append: u64, incarnation: Incarnation, watermark_ns: u64, entries: Vec<(RoomId, StreamId, Bytes)>) -> Bell {
    let watermark = Moment { timeline: 1, ns: watermark_ns };
    Bell { shard: SHARD, append, incarnation, number: append, watermark, entries, poked: vec![] }
}

/// A bell advances the rooms that it names and those that wait for its gateway. A tick advances none.
#[test]
fn a_bell_advances_what_it_changes_and_nothing_else() {
    let mut core = worker();
    let rooms: Vec<RoomId> = (0..20).map(|i| RoomId::new(&format!("room-{i}")).expect("name")).collect();
    let mut found = survey(1, &rooms[0], 0);
    found.active = rooms.clone();
    core.apply(Input::Surveyed(SHARD, found), 1);
    // Half of the rooms wait for A, the others for B; each holds the other's event.
    for (i, room) in rooms.iter().enumerate() {
        let (first, held) = if i % 2 == 0 { (A, B) } else { (B, A) };
        let entries = vec![(at(1), open(first, 40)), (at(2), open(held, 50))];
        core.stored_room(SHARD, room.clone(), StoredRoom { era: 1, entries, ..StoredRoom::default() }, 1);
    }
    perform(&mut core);
    let advanced = |core: &mut Core| std::mem::take(&mut core.shard_mut(SHARD).advanced);
    advanced(&mut core);

    core.apply(Input::Tick, 1);
    core.apply(Input::Tick, 20_000_001);
    assert_eq!(advanced(&mut core), 0, "a tick changes no room");
    let third = Incarnation(3);
    let named = RoomId::new("named").expect("name");
    core.apply(Input::Bell(passed(2, third, 60, vec![(named.clone(), at(3), open(third, 55))])), 2);
    core.stored_room(
        SHARD,
        named.clone(),
        StoredRoom { era: 1, entries: vec![(at(3), open(third, 55))], ..StoredRoom::default() },
        2,
    );
    let commands = perform(&mut core);
    assert_eq!(committed(&commands), Some(vec![third]));
    assert!(advanced(&mut core) < 6, "the room that the bell named");

    // All rooms wait for both until both have passed 50.
    core.apply(Input::Bell(passed(3, A, 45, vec![])), 3);
    assert_eq!(advanced(&mut core), rooms.len(), "they waited for A");
    core.apply(Input::Bell(passed(4, A, 50, vec![])), 4);
    assert_eq!(advanced(&mut core), rooms.len(), "they still did");
    core.apply(Input::Bell(passed(5, A, 90, vec![])), 4);
    assert_eq!(advanced(&mut core), 0, "they do no more");
    core.apply(Input::Bell(passed(6, B, 50, vec![])), 5);
    assert_eq!(advanced(&mut core), rooms.len());
}

/// A gateway that owes its watermark, and whose lock is free, is fenced long before its time-out.
#[test]
fn a_gateway_whose_lock_is_free_is_fenced_at_once() {
    let mut core = waiting_for_a();
    let looked = (3..200_000_000).step_by(20_000_000).find_map(|now_ns| {
        core.apply(Input::Tick, now_ns);
        let look = perform(&mut core).into_iter().find_map(|a| if let Command::Look(who) = a { Some(who) } else { None });
        look.map(|who| (now_ns, who))
    });
    let (now_ns, who) = looked.expect("it is looked at");
    assert!(who.contains(&A) && now_ns <= 60_000_000, "{who:?} after {now_ns} ns");
    let fences = |core: &mut Core| perform(core).iter().filter(|a| matches!(a, Command::Fence { gateway: A, .. })).count();
    core.apply(Input::Gone(vec![A, Incarnation(77)]), now_ns);
    assert_eq!(fences(&mut core), 1);
    core.apply(Input::Gone(vec![A]), now_ns);
    assert_eq!(fences(&mut core), 0, "it is being fenced");
    let failure = Failure::new("fence", Scope::Shared, JournalError::Damaged(String::new()));
    core.apply(Input::FenceFailed { shard: SHARD, gateway: A, failure }, now_ns);
    core.apply(Input::Gone(vec![A]), now_ns);
    assert_eq!(fences(&mut core), 0, "a journal that refuses the fence is not asked again and again");
    for now_ns in (now_ns..now_ns + limits().gateway_timeout_ns - 100_000_000).step_by(20_000_000) {
        core.apply(Input::Tick, now_ns);
        let looks = perform(&mut core).into_iter().find(|a| matches!(a, Command::Look(who) if who.contains(&A)));
        assert!(looks.is_none(), "nor is its lock looked at: {looks:?} at {now_ns}");
        core.apply(Input::Gone(Vec::new()), now_ns);
    }
    let later_ns = now_ns + limits().gateway_timeout_ns;
    core.apply(Input::Gone(vec![A]), later_ns);
    assert_eq!(fences(&mut core), 1, "it is asked for again");
    let failure = Failure::new("fence", Scope::Shared, JournalError::Unreachable(String::new()));
    core.apply(Input::FenceFailed { shard: SHARD, gateway: A, failure }, later_ns);
    core.apply(Input::Gone(vec![A]), later_ns + limits().look_interval_ns);
    assert_eq!(fences(&mut core), 1, "a journal that was out of reach is asked again soon");
}

/// A worker whose lock is free owns nothing, although its heartbeat is still good.
#[test]
fn a_worker_whose_lock_is_free_owns_nothing() {
    let (me, other, lease) =
        (Incarnation(9), Incarnation(8), Lease { epoch: 4, owner: Incarnation(8), server: Incarnation(1), home: 1 });
    let mut core = Core::new(me, 1, limits());
    let living = || vec![WorkerRecord { incarnation: other, shards: vec![SHARD] }];
    core.apply(Input::Alive { living: living(), beats: Beats::default(), failure: None }, 1);
    core.apply(Input::Tick, 60_000_000);
    let commands = perform(&mut core);
    assert!(commands.iter().any(|a| matches!(a, Command::Look(who) if *who == [other])), "{commands:?}");
    assert!(!commands.iter().any(|a| matches!(a, Command::ReadOwners)), "it lives: {commands:?}");
    core.apply(Input::Gone(vec![other]), 60_000_001);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Command::Heartbeat(_))), "it asks what the living own");
    // Its heartbeat, of before its death, comes in once more.
    core.apply(Input::Alive { living: living(), beats: Beats::default(), failure: None }, 60_000_002);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Command::ReadOwners)));
    core.apply(Input::Owners(vec![owner(Some(lease))]), 60_000_003);
    let commands = perform(&mut core);
    assert!(commands.iter().any(|a| matches!(a, Command::Claim { from: Some(from), .. } if *from == lease)), "{commands:?}");
}

/// A worker whose lock is free and that beats on lives. From then on its heartbeats alone tell.
#[test]
fn a_worker_that_beats_on_lives_whatever_its_lock_says() {
    let (me, other) = (Incarnation(9), Incarnation(8));
    let mut core = Core::new(me, 1, limits());
    let living = |shards| vec![WorkerRecord { incarnation: other, shards }];
    let lists = |shards| Input::Alive { living: living(shards), beats: Beats::default(), failure: None };
    core.apply(lists(vec![SHARD]), 1);
    core.apply(Input::Gone(vec![other]), 2);
    // However long its last heartbeat is good.
    for now_ns in [3, 60_000_000_000] {
        core.apply(lists(vec![SHARD]), now_ns);
        assert!(perform(&mut core).iter().any(|a| matches!(a, Command::ReadOwners)), "it is gone");
        core.apply(Input::Owners(vec![owner(None)]), now_ns);
        core.apply(Input::Claimed(SHARD, None), now_ns);
        perform(&mut core);
    }
    // It has noticed that its shard is lost.
    core.apply(lists(Vec::new()), 60_000_000_001);
    let commands = perform(&mut core);
    assert!(commands.iter().any(|a| matches!(a, Command::Warn(text) if text.contains("lives"))), "{commands:?}");
    core.apply(Input::Tick, 61_000_000_000);
    assert!(!perform(&mut core).iter().any(|a| matches!(a, Command::Look(_))));
}

/// More than one look can take in have their turns.
#[test]
fn every_suspect_is_looked_at_in_its_turn() {
    let mut core = Core::new(Incarnation(9), 1, limits());
    let others: Vec<Incarnation> = (1000..1200).map(Incarnation).collect();
    let living = others.iter().map(|incarnation| WorkerRecord { incarnation: *incarnation, shards: Vec::new() }).collect();
    core.apply(Input::Alive { living, beats: Beats::default(), failure: None }, 1);
    let mut looked = BTreeSet::new();
    for now_ns in [60_000_000, 120_000_000] {
        core.apply(Input::Tick, now_ns);
        for command in perform(&mut core) {
            if let Command::Look(who) = command {
                looked.extend(who);
                core.apply(Input::Gone(Vec::new()), now_ns);
            }
        }
    }
    assert_eq!(looked.len(), others.len());
}

/// With one node of a cluster dead for long, gateways of the other nodes' shards must still be fenced: their rooms would wait for ever.
#[test]
fn a_node_that_is_away_excuses_the_gateways_of_its_own_shards_alone() {
    let fenced_while_away = |shards: Option<Vec<ShardId>>| {
        let mut core = waiting_for_a();
        (3..10_000_000_000).step_by(20_000_000).find(|now_ns| {
            core.apply(Input::Tick, *now_ns);
            let away = || JournalError::Unreachable("away".to_owned());
            match &shards {
                None => core.apply(Input::Failed(Failure::new("ping", Scope::Ping, away())), *now_ns),
                Some(shards) => core.apply(Input::Away(vec![(shards.clone(), away())]), *now_ns),
            }
            perform(&mut core).iter().any(|a| matches!(a, Command::Fence { gateway: A, .. }))
        })
    };
    assert_eq!((fenced_while_away(None), fenced_while_away(Some(vec![ShardId(7), SHARD]))), (None, None));
    let after = fenced_while_away(Some(vec![ShardId(7), ShardId(9)]));
    assert!(after.is_some_and(|ns| ns < 1_100_000_000), "{after:?}");
}
