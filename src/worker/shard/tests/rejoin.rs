use super::*;
use crate::limits::{REDIS_RESPONSE_TIMEOUT, RETRY_MAX};

const NEXT: Incarnation = Incarnation(70);

fn room() -> RoomId {
    RoomId::new("pit").expect("name")
}

/// A survey by the next server: A is registered there, B is not, and it is in doubt whether commits are missing.
fn found(commit: u64, epoch: u64) -> Survey {
    let mut survey = survey(1, &room(), 100);
    (survey.server, survey.commit, survey.doubt) = (NEXT, commit, Some(epoch));
    survey.gateways[0].server = NEXT;
    survey
}

/// The journal moves to another server while a worker's first commit is in flight, or is `confirmed`. The worker claims the shard
/// there.
fn moved(confirmed: bool, limits: impl FnOnce(&mut WorkerLimits)) -> (Core, Vec<Command>) {
    let mut core = worker_limited(limits);
    core.apply(Input::Surveyed(SHARD, survey(1, &room(), 100)), 1);
    perform(&mut core);
    let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50))];
    core.stored_room(SHARD, room(), StoredRoom { era: 1, entries, ..StoredRoom::default() }, 1);
    for command in perform(&mut core) {
        if let Command::Commit(commit) = command
            && confirmed
        {
            done(&mut core, &commit, 1);
        }
    }
    core.apply(Input::Subscribed(SHARD), 2);
    core.apply(Input::Surveyed(SHARD, Survey { doubt: None, ..found(1, 1) }), 2);
    let commands = perform(&mut core);
    core.apply(Input::Testified(SHARD, 0), 2);
    claim(&mut core);
    (core, commands)
}

fn claim(core: &mut Core) {
    core.apply(Input::Claimed(SHARD, Some(Leased::Done(Lease { epoch: 2, owner: Incarnation(9), server: NEXT, home: 1 }))), 3);
    core.apply(Input::Subscribed(SHARD), 3);
    perform(core);
}

fn witnesses(commands: &[Command]) -> Vec<Witness> {
    let witness = |command: &Command| if let Command::Testify { witness, .. } = command { Some(*witness) } else { None };
    commands.iter().filter_map(witness).collect()
}

fn goes_on(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Load { .. }))
}

#[test]
fn who_owned_a_shard_last_shows_that_nothing_is_missing() {
    let (mut core, told) = moved(true, |_| {});
    let witness = Witness { server: Incarnation::NONE, epoch: Some(1), confirmed: 1, sent: 1 };
    assert_eq!(witnesses(&told), [witness], "said when the shard is lost, whoever claims it next");
    core.apply(Input::Surveyed(SHARD, found(1, 1)), 3);
    let commands = perform(&mut core);
    assert!(goes_on(&commands), "{commands:?}");
    assert_eq!(witnesses(&commands), [Witness { confirmed: 0, sent: 0, ..witness }], "the doubt is over");
}

#[test]
fn whose_knowledge_of_a_shard_is_of_an_earlier_owner_begins_new_eras() {
    let (mut core, _) = moved(true, |_| {});
    core.apply(Input::Surveyed(SHARD, found(1, 2)), 3);
    let commands = perform(&mut core);
    assert!(!goes_on(&commands) && witnesses(&commands) == [Witness::NONE], "{commands:?}");
}

#[test]
fn who_knows_nothing_of_a_shard_begins_new_eras_though_no_gateway_is_missing() {
    let mut core = Core::new(Incarnation(9), 1, limits());
    claim(&mut core);
    let mut all = found(1, 1);
    all.gateways[1].server = NEXT;
    core.apply(Input::Surveyed(SHARD, all.clone()), 3);
    let commands = perform(&mut core);
    assert!(!goes_on(&commands) && witnesses(&commands) == [Witness::NONE], "{commands:?}");
    core.apply(Input::Testified(SHARD, 1), 4);
    let commands = perform(&mut core);
    assert!(commands.iter().any(|a| matches!(a, Command::Survey { .. })), "{commands:?}");
    core.apply(Input::Surveyed(SHARD, Survey { doubt: None, ..all }), 4);
    assert!(goes_on(&perform(&mut core)));
}

#[test]
fn nobody_is_waited_for_where_no_commit_is_lost_that_anybody_saw() {
    let mut core = worker_limited(|limits| limits.commits_may_be_lost = false);
    claim(&mut core);
    core.apply(Input::Surveyed(SHARD, found(1, 1)), 3);
    assert!(goes_on(&perform(&mut core)));
}

/// As when the Redis user is not allowed to ask for the server's id.
#[test]
fn a_server_without_an_id_is_never_in_doubt() {
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, Survey { doubt: Some(0), ..survey(1, &room(), 100) }), 1);
    assert!(goes_on(&perform(&mut core)));
}

/// The last commit is missing: it never arrived, or was lost with its answer. The gateways in the rooms would have seen it.
#[test]
fn a_commit_of_unknown_outcome_is_nothing_when_all_who_may_have_seen_it_are_back() {
    let (mut core, told) = moved(false, |_| {});
    assert_eq!(witnesses(&told), [Witness { server: Incarnation::NONE, epoch: Some(1), confirmed: 0, sent: 1 }]);
    core.apply(Input::Surveyed(SHARD, found(0, 1)), 3);
    let commands = perform(&mut core);
    assert!(!goes_on(&commands) && witnesses(&commands).is_empty(), "{commands:?}");
    core.apply(Input::Tick, 30_000_000);
    let asked = |a: &Command| matches!(a, Command::Publish { gateway: B, .. });
    assert!(perform(&mut core).iter().any(asked));

    let watermark = Moment { timeline: 1, ns: 100 };
    core.apply(
        Input::Bell(Bell { shard: SHARD, append: 1, incarnation: B, number: 1, watermark, entries: vec![], poked: vec![] }),
        40_000_000,
    );
    let mut all = found(0, 1);
    all.gateways[1].server = NEXT;
    core.apply(Input::Surveyed(SHARD, all), 40_000_000);
    assert!(goes_on(&perform(&mut core)));
}

/// It tells what it has seen under another turn: nobody else could.
#[test]
fn a_gateway_that_is_back_under_another_turn_is_back() {
    for in_survey in [true, false] {
        let (mut core, _) = moved(false, |_| {});
        let mut all = found(0, 1);
        let again = B.turn(3);
        if !in_survey {
            core.apply(Input::Surveyed(SHARD, all.clone()), 3);
            perform(&mut core);
            let watermark = Moment::default();
            let bell = Bell { shard: SHARD, append: 1, incarnation: again, number: 0, watermark, entries: vec![], poked: vec![] };
            core.apply(Input::Bell(bell), 4);
            let commands = perform(&mut core);
            assert!(commands.iter().any(|a| matches!(a, Command::Survey { .. })), "{commands:?}");
        }
        all.gateways.push(GatewayRecord { incarnation: again, server: NEXT, ..all.gateways[1].clone() });
        core.apply(Input::Surveyed(SHARD, all), 5);
        assert!(goes_on(&perform(&mut core)), "{in_survey}");
    }
}

/// An outage does not count as waiting, and does not reset it (rule R5).
#[test]
fn who_does_not_come_back_may_have_seen_it() {
    let patience = |outage: bool| {
        let (mut core, _) = moved(false, |_| {});
        core.apply(Input::Surveyed(SHARD, found(0, 1)), 3);
        perform(&mut core);
        (1..1_000).map(|i| i * 20_000_000).find(|now| {
            core.apply(Input::Tick, *now);
            if outage && *now == 2_000_000_000 {
                core.apply(Input::Failed(Failure::new("ping", Scope::Ping, JournalError::Silent("away".into()))), *now);
            }
            witnesses(&perform(&mut core)) == [Witness::NONE]
        })
    };
    let (usual, longer) = (patience(false).expect("an end"), patience(true).expect("an end"));
    assert!((3_000_000_000..3_100_000_000).contains(&usual), "{usual}");
    let away = u64::try_from((REDIS_RESPONSE_TIMEOUT + RETRY_MAX).as_nanos()).expect("a bound");
    assert!((usual + away - 100_000_000..=usual + away + 100_000_000).contains(&longer), "{longer}");
}

/// A gateway has time to find the journal's next server before its silence counts.
#[test]
fn a_gateway_that_has_not_found_the_server_yet_is_not_silent() {
    let fenced_at = |gateway: Incarnation| {
        let (mut core, _) = moved(true, |_| {});
        core.apply(Input::Surveyed(SHARD, found(1, 1)), 3);
        perform(&mut core);
        let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50)), (at(3), again(A, 200)), (at(4), again(B, 201))];
        core.stored_room(SHARD, room(), StoredRoom { era: 1, entries, ..StoredRoom::default() }, 4);
        (1..1_000).map(|i| i * 20_000_000).find(|now| {
            core.apply(Input::Tick, *now);
            let fenced = |a: &Command| matches!(a, Command::Fence { gateway: g, .. } if *g == gateway);
            perform(&mut core).iter().any(fenced)
        })
    };
    assert!(fenced_at(A).expect("silent") < 1_200_000_000);
    assert!(fenced_at(B).expect("silent") > 3_000_000_000);
}
