//! Rooms that cannot be continued, or take long to load: what they cost.

use super::*;
use crate::limits::{LANE_BUFFER_ENTRIES_MAX, QUARANTINE_MAX, QUARANTINE_MIN};
use crate::worker::job::Loading;

const HOUR_NS: u64 = 3_600_000_000_000;

fn pit() -> RoomId {
    RoomId::new("pit").expect("name")
}

/// The `n`th bell: an event of A in the room.
fn bell(n: u64) -> Bell {
    let event = Event { session: 1, ordinal: n, arrival: Arrival::at(n, 0), kind: EventKind::Data(Bytes::new()) };
    let bytes = entry::encode(&Entry { incarnation: A, timeline: 1, death: false, events: vec![event] });
    let (watermark, entries) = (Moment { timeline: 1, ns: n }, vec![(pit(), at(n), bytes)]);
    Bell { shard: SHARD, append: n, incarnation: A, number: n, watermark, entries, poked: vec![] }
}

fn loads(commands: &[Command]) -> usize {
    commands.iter().filter(|a| matches!(a, Command::Load { .. })).count()
}

/// The gateways that the commands tell that the room is quarantined, and whether there are rules for it.
fn told(commands: &[Command]) -> Vec<(Incarnation, bool)> {
    let told = commands.iter().filter_map(|command| match command {
        Command::Publish { gateway, push, .. } => match push::decode(push) {
            Ok(push::Push::Halted { room, known, .. }) if room == pit() => Some((*gateway, known)),
            _ => None,
        },
        _ => None,
    });
    told.collect()
}

#[test]
fn a_room_that_cannot_be_continued_is_tried_less_and_less_often_and_keeps_nothing() {
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, survey(0, &pit(), 0)), 1);
    assert_eq!(loads(&perform(&mut core)), 1);
    core.damaged(SHARD, &pit(), "damaged", 1);
    assert_eq!(told(&perform(&mut core)), [(A, true), (B, true)], "all gateways: nobody knows who is inside");

    let (mut tries, mut last_ns, mut longest_ns) = (0, 1, 0);
    for (n, now_ns) in (1..).zip((1..HOUR_NS).step_by(200_000_000)) {
        core.apply(Input::Tick, now_ns);
        let commands = perform(&mut core);
        if loads(&commands) > 0 {
            (tries, longest_ns, last_ns) = (tries + 1, longest_ns.max(now_ns - last_ns), now_ns);
            core.damaged(SHARD, &pit(), "damaged", now_ns);
            perform(&mut core);
        }
        core.apply(Input::Bell(bell(n)), now_ns);
        assert_eq!(told(&perform(&mut core)), [(A, true)], "whoever brings something");
        assert!(core.shard_mut(SHARD).lanes[&pit()].unread_count() == 0);
    }
    let most_ns = u64::try_from(QUARANTINE_MAX.as_nanos()).expect("a bound");
    assert!((10..25).contains(&tries), "{tries} tries in an hour");
    assert!((most_ns..most_ns + 2_000_000_000).contains(&longest_ns), "{longest_ns}");
}

/// Several steps on a room may be in flight when its keys are spoiled. Their answers count as one failure.
#[test]
fn one_failure_that_several_steps_tell_of_is_one() {
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, survey(0, &pit(), 0)), 1);
    perform(&mut core);
    let token = core.token(SHARD, &pit());
    for now_ns in 1..=4 {
        core.apply(Input::Damaged { shard: SHARD, room: pit(), token, why: "damaged".to_owned() }, now_ns);
    }
    let until_ns = 1 + u64::try_from(QUARANTINE_MIN.as_nanos()).expect("a bound");
    core.apply(Input::Tick, until_ns - 2_000_000_000);
    assert_eq!(loads(&perform(&mut core)), 0);
    core.apply(Input::Tick, until_ns + 1);
    assert_eq!(loads(&perform(&mut core)), 1);
}

/// A worker without rules for a room never loads it.
#[test]
fn a_room_without_rules_costs_no_step_and_its_gateways_are_told() {
    let mut core = worker_limited(|limits| limits.rules = RulesBook::new().room("claim-*", || Claim::new(Audience::Room)));
    core.apply(Input::Surveyed(SHARD, survey(0, &pit(), 0)), 1);
    let commands = perform(&mut core);
    assert_eq!((loads(&commands), told(&commands)), (0, vec![(A, false), (B, false)]));
    core.apply(Input::Bell(bell(1)), 2);
    assert_eq!(told(&perform(&mut core)), [(A, false)]);
    for now_ns in (1..HOUR_NS).step_by(10_000_000_000) {
        core.apply(Input::Tick, now_ns);
        assert_eq!(loads(&perform(&mut core)), 0);
    }
    assert_eq!(core.quarantined_count(), 1);
}

/// More entries ring while a room is loaded than the lane keeps. They are read from the journal, in order, and none twice.
#[test]
fn what_a_room_in_loading_cannot_keep_is_read_from_the_journal() {
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, survey(0, &pit(), 0)), 1);
    perform(&mut core);
    let count = 2 * LANE_BUFFER_ENTRIES_MAX as u64 + 10;
    let (mut all, mut bells) = (Vec::new(), (1..=count).map(bell));
    for bell in bells.by_ref().take(LANE_BUFFER_ENTRIES_MAX + 5) {
        all.push((bell.entries[0].1, bell.entries[0].2.clone()));
        core.apply(Input::Bell(bell), 2);
        assert!(core.shard_mut(SHARD).lanes[&pit()].unread_count() <= LANE_BUFFER_ENTRIES_MAX);
    }
    core.stored_room(SHARD, pit(), StoredRoom { era: 1, ..StoredRoom::default() }, 2);
    let commands = perform(&mut core);
    let read = commands.iter().find_map(|a| if let Command::Read { after, .. } = a { Some(*after) } else { None });
    assert_eq!(read, Some(StreamId::default()), "what was dropped is asked for: {commands:?}");
    for bell in bells {
        all.push((bell.entries[0].1, bell.entries[0].2.clone()));
        core.apply(Input::Bell(bell), 3);
    }
    let (mut committed, mut from) = (0, LANE_BUFFER_ENTRIES_MAX);
    core.read_entries(SHARD, &pit(), &all[..from], 4);
    loop {
        let commands = perform(&mut core);
        if commands.is_empty() {
            break;
        }
        for command in commands {
            match command {
                Command::Read { .. } => {
                    from = all.len();
                    core.read_entries(SHARD, &pit(), &all[..from], 5);
                }
                Command::Commit(commit) => {
                    committed = commit.rooms[0].to;
                    done(&mut core, &commit, 5);
                }
                _ => {}
            }
        }
    }
    assert_eq!(committed, count);
}

/// A bell names a room that does not exist. It is loaded once more after that bell, and then not until the next one.
#[test]
fn a_room_that_is_not_there_is_looked_for_once_for_what_came_by_bell() {
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, survey(0, &pit(), 0)), 1);
    assert_eq!(loads(&perform(&mut core)), 1);
    for n in [1, 2] {
        core.apply(Input::Bell(bell(n)), 1);
        perform(&mut core);
        core.stored_room(SHARD, pit(), StoredRoom::default(), 1);
        assert_eq!(loads(&perform(&mut core)), 1, "it may have begun behind the last look");
    }
    core.stored_room(SHARD, pit(), StoredRoom::default(), 1);
    assert_eq!(loads(&perform(&mut core)), 0, "what the bells brought would be in the journal");
    assert!(!core.shard_mut(SHARD).lanes.contains_key(&pit()));
    core.apply(Input::Bell(bell(3)), 1);
    assert_eq!(loads(&perform(&mut core)), 1);
}

/// A room is loaded anew while steps of its earlier lane are in flight. Their answers are discarded; those to the new lane count.
#[test]
fn answers_to_an_earlier_lane_are_discarded() {
    let (mut core, now_ns) = (worker(), 60_000_000_000);
    let asked = |commands: &[Command]| {
        let mut tokens = commands.iter().filter_map(|a| if let Command::Load { token, .. } = a { Some(*token) } else { None });
        tokens.next().expect("a load")
    };
    core.apply(Input::Surveyed(SHARD, survey(0, &pit(), 0)), 1);
    let early = asked(&perform(&mut core));
    core.damaged(SHARD, &pit(), "damaged", 1);
    core.apply(Input::Tick, now_ns);
    let own = asked(&perform(&mut core));
    assert_ne!(early, own);
    let page = |seq: u64| StoredPage::from(StoredRoom { era: seq, ..StoredRoom::default() });
    core.apply(Input::Stored { shard: SHARD, room: pit(), token: early, place: Place::default(), page: page(1) }, now_ns);
    assert_eq!(core.take_commands().iter().filter(|a| matches!(a, Command::Run(_))).count(), 0, "of an earlier moment");
    core.apply(Input::Stored { shard: SHARD, room: pit(), token: own, place: Place::default(), page: page(2) }, now_ns);
    perform(&mut core);
    assert_eq!(core.shard_mut(SHARD).lanes[&pit()].room().map(|room| room.era()), Some(2));

    // So are the entries behind a position.
    core.apply(Input::Subscribed(SHARD), now_ns);
    core.apply(Input::Surveyed(SHARD, survey(1, &pit(), 0)), now_ns);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Command::Read { token, .. } if *token == own)));
    core.apply(Input::Read { shard: SHARD, room: pit(), token: early, page: StoredPage::default() }, now_ns);
    assert!(core.shard_mut(SHARD).lanes[&pit()].is_reading());
    core.apply(Input::Read { shard: SHARD, room: pit(), token: own, page: StoredPage::default() }, now_ns);
    assert!(!core.shard_mut(SHARD).lanes[&pit()].is_reading());

    // So is the news that the room is damaged, and that it ended.
    core.apply(Input::Damaged { shard: SHARD, room: pit(), token: early, why: "damaged".to_owned() }, now_ns);
    assert!(core.shard_mut(SHARD).lanes[&pit()].room().is_some());
    let later = |s: u64| now_ns + s * 1_000_000_000;
    core.apply(Input::Tick, later(2));
    core.apply(Input::Tick, later(40));
    let ends = |a: &Command| matches!(a, Command::EndRoom { token, .. } if *token == own);
    assert!(perform(&mut core).iter().any(ends), "deserted");
    for (token, lanes) in [(early, 1), (own, 0)] {
        core.apply(Input::RoomEnded { shard: SHARD, room: pit(), token, answer: Leased::Done(true) }, later(40));
        assert_eq!(core.shard_mut(SHARD).lanes.len(), lanes);
    }
}

/// Two jobs restore the same room: the second result is discarded.
#[test]
fn a_room_in_memory_is_not_brought_back_over_itself() {
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, survey(1, &pit(), 100)), 1);
    perform(&mut core);
    let job = |core: &mut Core, stored: StoredRoom| {
        core.stored_room(SHARD, pit(), stored, 1);
        let mut runs = core.take_commands().into_iter().filter_map(|a| if let Command::Run(job) = a { Some(job) } else { None });
        runs.next().expect("a job")
    };
    let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50))];
    let first = job(&mut core, StoredRoom { era: 1, entries, ..StoredRoom::default() });
    let second = core.shard_mut(SHARD).lanes[&pit()].token();
    let again = Loading {
        of: LaneId { shard: SHARD, epoch: 1, room: pit(), token: second },
        stored: crate::journal::Gathering::default(),
        rules: Arc::new(|| Box::new(Claim::new(Audience::Room))),
        push: 0,
        library: Arc::new(NoLibrary),
    };
    core.apply(Input::Done(first.run()), 1);
    perform(&mut core);
    let position = core.shard_mut(SHARD).lanes[&pit()].position();
    core.apply(Input::Done(Job::Load(Box::new(again)).run()), 1);
    assert_eq!(core.shard_mut(SHARD).lanes.get(&pit()).map(Lane::position), Some(position), "it is not there, says the second");
}
