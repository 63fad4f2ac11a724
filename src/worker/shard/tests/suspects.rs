use super::*;
use crate::journal::Beats;
use crate::limits::{PROGRAM_JOBS_PER_INSTANCE, RULES_ATTEMPTS, STUCK_JOBS_MAX};
use crate::rules::{ProgramSource, ProgramSpec};
use crate::types::Outcome;
use crate::wire::verdicts;

/// A worker whose rooms each hold an Open from A and one from B, both proven. `deaths` owners in a row died.
fn worker_with(rooms: &[RoomId], deaths: u32) -> Core {
    with_rooms(worker(), rooms, deaths)
}

fn with_rooms(mut core: Core, rooms: &[RoomId], deaths: u32) -> Core {
    let mut found = survey(1, &rooms[0], 100);
    found.active = rooms.to_vec();
    core.apply(Input::Surveyed(SHARD, found), 1);
    for room in rooms {
        let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50))];
        core.stored_room(SHARD, room.clone(), StoredRoom { era: 1, entries, deaths, ..StoredRoom::default() }, 1);
    }
    core
}

fn room(name: &str) -> RoomId {
    RoomId::new(name).expect("name")
}

fn attempts(commands: &[Command]) -> Vec<(RoomId, u64)> {
    let attempt =
        |command: &Command| if let Command::Attempt { room, token, .. } = command { Some((room.clone(), *token)) } else { None };
    commands.iter().filter_map(attempt).collect()
}

/// Makes the commits among these commands final. Returns their rooms, each with the outcomes of its verdicts.
fn commits(core: &mut Core, commands: &[Command]) -> Vec<(RoomId, Vec<Outcome>)> {
    let sent =
        commands.iter().filter_map(|command| if let Command::Commit(commit) = command { Some(commit.clone()) } else { None });
    let mut all = Vec::new();
    for commit in sent {
        for part in &commit.rooms {
            let batch = verdicts::decode(&part.verdicts).expect("batch");
            all.push((part.room.clone(), batch.verdicts.into_iter().map(|v| v.outcome).collect()));
        }
        done(core, &commit, 1);
    }
    all
}

/// The jobs among the next commands, not run.
fn jobs(core: &mut Core) -> Vec<Job> {
    core.take_commands()
        .into_iter()
        .filter_map(|command| if let Command::Run(job) = command { Some(job) } else { None })
        .collect()
}

#[test]
fn after_one_lost_owner_a_room_goes_on_in_batches_on_threads() {
    let room = room("pit");
    let mut core = worker_with(std::slice::from_ref(&room), 1);
    let loads = jobs(&mut core);
    loads.into_iter().for_each(|load| core.apply(Input::Done(load.run()), 1));
    let resolves = jobs(&mut core);
    assert!(matches!(&resolves[..], [job @ Job::Resolve(work)] if work.events.len() == 2 && !job.is_quick()), "{resolves:?}");
    resolves.into_iter().for_each(|job| core.apply(Input::Done(job.run()), 1));
    let commands = perform(&mut core);
    assert_eq!(commits(&mut core, &commands).len(), 1);

    // Behind what the lost owner left, all is as ever.
    let watermark = Moment { timeline: 1, ns: 200 };
    let entries = vec![(room.clone(), at(3), again(A, 150))];
    core.apply(Input::Bell(Bell { shard: SHARD, append: 2, incarnation: A, number: 2, watermark, entries, poked: vec![] }), 2);
    core.apply(
        Input::Bell(Bell { shard: SHARD, append: 3, incarnation: B, number: 2, watermark, entries: Vec::new(), poked: vec![] }),
        2,
    );
    assert!(jobs(&mut core).iter().all(Job::is_quick));
}

#[test]
fn a_suspect_is_resolved_event_by_event_and_each_attempt_is_counted_first() {
    let room = room("pit");
    let mut core = worker_with(std::slice::from_ref(&room), 2);
    for _ in 0..2 {
        let commands = perform(&mut core);
        assert_eq!(committed(&commands), None, "resolved before the attempt was counted");
        let asked = attempts(&commands);
        assert_eq!(asked.len(), 1);
        core.apply(Input::Attempted { shard: SHARD, room: room.clone(), token: asked[0].1, answer: Leased::Done(1) }, 1);
        let commands = perform(&mut core);
        assert_eq!(attempts(&commands), [], "the one before is not final");
        assert_eq!(commits(&mut core, &commands), [(room.clone(), vec![Outcome::Granted])]);
    }
    assert_eq!(attempts(&perform(&mut core)), [], "nothing is left");
}

#[test]
fn what_nobody_came_back_from_is_void_and_the_next_event_is_not() {
    let room = room("pit");
    let mut core = worker_with(std::slice::from_ref(&room), 2);
    for (counted, expected) in [(RULES_ATTEMPTS + 1, Outcome::Void(RULES_FAILED.to_owned())), (RULES_ATTEMPTS, Outcome::Granted)]
    {
        let asked = attempts(&perform(&mut core));
        core.apply(Input::Attempted { shard: SHARD, room: room.clone(), token: asked[0].1, answer: Leased::Done(counted) }, 1);
        let commands = perform(&mut core);
        assert_eq!(commits(&mut core, &commands), [(room.clone(), vec![expected])]);
    }
}

#[test]
fn of_two_suspects_one_waits_until_the_others_verdict_is_final() {
    let rooms = [room("one"), room("two")];
    let mut core = worker_with(&rooms, 2);
    let asked = attempts(&perform(&mut core));
    assert_eq!(asked.len(), 1, "a death now would be laid to both");
    core.apply(Input::Attempted { shard: SHARD, room: asked[0].0.clone(), token: asked[0].1, answer: Leased::Done(1) }, 1);
    let commands = perform(&mut core);
    assert_eq!(attempts(&commands), [], "its commit is under way");
    assert_eq!(commits(&mut core, &commands).len(), 1);
    let next = attempts(&perform(&mut core));
    assert_eq!(next.len(), 1);
    assert_ne!(next[0].0, asked[0].0, "in turn");
}

/// It cannot kill the worker. After an outage, each of its rooms is a suspect.
#[test]
fn as_many_suspects_of_a_program_outside_go_on_at_once_as_it_has_jobs() {
    let source = ProgramSource::Command(vec!["game".to_owned()]);
    let spec = ProgramSpec { source, folder: None, instances: 2, budget: std::time::Duration::from_secs(1) };
    let book = RulesBook::new().program("*", spec).with_programs(|_| Ok::<_, String>(|| Claim::new(Audience::Room)));
    let rooms: Vec<RoomId> = (0..2 * PROGRAM_JOBS_PER_INSTANCE + 3).map(|n| room(&format!("room{n}"))).collect();
    let mut core = with_rooms(worker_limited(|limits| limits.rules = book.expect("a book")), &rooms, 2);
    let asked = attempts(&perform(&mut core));
    assert_eq!(asked.len(), 2 * PROGRAM_JOBS_PER_INSTANCE);
    core.apply(Input::Attempted { shard: SHARD, room: asked[0].0.clone(), token: asked[0].1, answer: Leased::Done(1) }, 1);
    let commands = perform(&mut core);
    assert_eq!(attempts(&commands), [], "its commit is under way");
    assert_eq!(commits(&mut core, &commands).len(), 1);
    assert_eq!(attempts(&perform(&mut core)).len(), 1, "another one goes on");
}

#[test]
fn rules_that_do_not_come_back_free_their_permit_and_make_their_room_a_suspect() {
    let room = room("pit");
    let mut core = worker_with(std::slice::from_ref(&room), 1);
    jobs(&mut core).into_iter().for_each(|load| core.apply(Input::Done(load.run()), 1));
    let stuck = jobs(&mut core).pop().expect("a job");
    core.apply(Input::Overrun { of: stuck.of().clone(), hopeless: None }, 1);
    let commands = perform(&mut core);
    assert!(commands.iter().any(|a| matches!(a, Command::Load { .. })), "{commands:?}");
    let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50))];
    core.stored_room(SHARD, room.clone(), StoredRoom { era: 1, entries, ..StoredRoom::default() }, 1);
    // They return after all. The lane has stopped waiting.
    core.apply(Input::Done(stuck.run()), 1);
    let commands = perform(&mut core);
    assert_eq!(committed(&commands), None);
    assert_eq!(attempts(&commands).len(), 1, "{commands:?}");
}

#[test]
fn a_worker_whose_rules_keep_too_many_threads_hands_its_shards_over() {
    let rooms: Vec<RoomId> = (0..STUCK_JOBS_MAX).map(|n| room(&format!("pit{n}"))).collect();
    let mut core = worker_with(&rooms, 1);
    let mut stuck = 0;
    while stuck < STUCK_JOBS_MAX {
        assert!(!core.has_given_up(), "{stuck} threads");
        let started = jobs(&mut core);
        assert!(!started.is_empty(), "{stuck} jobs that never come back keep their permits");
        for job in started {
            if matches!(job, Job::Load(_)) {
                core.apply(Input::Done(job.run()), 1);
            } else {
                core.apply(Input::Overrun { of: job.of().clone(), hopeless: None }, 1);
                stuck += 1;
            }
        }
    }
    assert!(core.has_given_up());
    perform(&mut core);
    core.apply(Input::Alive { living: Vec::new(), beats: Beats::default(), failure: None }, 1);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Command::Release { .. })));
    assert!(core.is_stopped());
}

#[test]
fn a_damaged_room_rests_is_tried_again_and_holds_up_no_other() {
    let rooms = [room("good"), room("bad")];
    let mut core = worker();
    let mut found = survey(1, &rooms[0], 100);
    found.active = rooms.to_vec();
    core.apply(Input::Surveyed(SHARD, found), 1);
    perform(&mut core);
    let entries = vec![(at(1), open(A, 40)), (at(2), open(B, 50))];
    core.stored_room(SHARD, rooms[0].clone(), StoredRoom { era: 1, entries, ..StoredRoom::default() }, 1);
    core.damaged(SHARD, &rooms[1], "a key of another type", 1);
    let commands = perform(&mut core);
    assert_eq!(committed(&commands), Some(vec![A, B]));
    assert!(
        commands.iter().any(|a| matches!(a, Command::Warn(text) if text.contains("room bad") && text.contains("another type")))
    );
    core.apply(Input::Tick, 2_000_000_000);
    assert_eq!(core.quarantined_count(), 1);
    assert!(!perform(&mut core).iter().any(|a| matches!(a, Command::Load { .. })), "it rests");
    core.apply(Input::Tick, 8_000_000_000);
    assert!(perform(&mut core).iter().any(|a| matches!(a, Command::Load { room, .. } if *room == rooms[1])));
}
