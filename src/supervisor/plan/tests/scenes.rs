//! One thing at a time.

use std::time::Duration;

use super::world::{Manners, World, settings, with_eu};
use crate::limits::{BEAT, ROLL_REST, STOP_TIMEOUT};
use crate::supervisor::plan::step::{ChildId, Command, Exit, Generation, Input, Load, Phase, RequestId};
use crate::supervisor::policy::counts::Count;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn names(names: &str) -> Vec<String> {
    names.split(' ').map(str::to_owned).collect()
}

/// Gateways and workers that are ready.
fn running(gateways: usize, workers: usize) -> World {
    let mut world = World::new(settings(Count::Fixed(gateways), Count::Fixed(workers)));
    world.run_for(secs(2));
    assert_eq!(world.ready_counts(), (gateways, workers));
    world
}

impl World {
    /// `gateway-1 ready(1)`: each slot with its phase and its children.
    fn ps(&self) -> String {
        let slot = |view: &crate::supervisor::plan::step::SlotView| {
            let children: Vec<String> = view.children.iter().map(|child| child.child.0.to_string()).collect();
            format!("{} {}({})", view.slot, view.phase.as_str(), children.join("+"))
        };
        self.plan.slots().iter().map(slot).collect::<Vec<_>>().join(", ")
    }

    fn child(&self, slot: &str) -> usize {
        let (at, _) = self.living.values().enumerate().find(|(_, living)| living.slot.to_string() == slot).expect(slot);
        // The first of each sixteen is taken for nobody.
        if at == 0 { self.living.len() * 17 } else { at }
    }

    fn crash(&mut self, slot: &str, code: i32) {
        let n = self.child(slot);
        self.end(n, Exit::Code(code));
    }

    fn reload(&mut self, gateways: usize, workers: usize) -> RequestId {
        let settings = settings(Count::Fixed(gateways), Count::Fixed(workers));
        self.ask(|generation| Command::Reload { generation, settings })
    }

    fn refusal(&self, request: RequestId) -> &str {
        self.answers[&request].as_ref().expect_err("refused")
    }
}

#[test]
fn a_crash_is_answered_and_code_2_is_not() {
    let mut world = running(2, 1);
    world.crash("gateway-1", 1);
    assert_eq!(world.ps(), "gateway-1 waiting(), gateway-2 ready(3), worker-1 ready(1)");
    assert_eq!(world.plan.next_due(), Some(world.now + Duration::from_millis(100)));
    assert_eq!(world.lines, ["gateway-1 ended with code 1: it is started again in 100 ms"]);
    world.run_for(secs(1));
    assert_eq!(world.ps(), "gateway-1 ready(4), gateway-2 ready(3), worker-1 ready(1)");
    world.crash("gateway-1", 2);
    world.run_for(secs(60));
    assert_eq!(world.ps(), "gateway-1 failed(), gateway-2 ready(3), worker-1 ready(1)", "the rest goes on");
    let request = world.ask(|_| Command::Start(names("gateway-1")));
    assert!(world.open.contains(&request), "answered when it is ready");
    world.run_for(secs(1));
    assert_eq!((&world.answers[&request], world.plan.slots()[0].crashes), (&Ok(()), 2));
}

#[test]
fn a_start_that_fails_is_told_to_whoever_asked() {
    let mut world = running(1, 1);
    let stop = world.ask(|_| Command::Stop(names("all")));
    world.run_for(secs(1));
    assert_eq!((&world.answers[&stop], world.ps().as_str()), (&Ok(()), "gateway-1 stopped(), worker-1 stopped()"));
    assert_eq!(world.plan.next_due(), None, "nothing to do");
    let start = world.ask(|_| Command::Start(names("worker-1 gateway-1")));
    world.fail_to_start(world.child("worker-1"));
    assert!(!world.answers.contains_key(&start), "the gateway is on its way");
    world.crash("gateway-1", 2);
    assert_eq!(
        world.refusal(start),
        "worker-1 could not be started: no more processes: it is tried again; \
         gateway-1 ended with code 2 before it was ready: it is not started again by itself"
    );
}

#[test]
fn who_is_not_ready_in_time_is_killed_and_tried_again() {
    let mut world = running(1, 1);
    world.manners.ready_ms = vec![u64::MAX];
    world.crash("gateway-1", 1);
    world.run_for(secs(15));
    assert!(world.killed.is_empty());
    world.run_for(secs(1));
    assert_eq!(world.killed, ["gateway-1: was not ready within 15 s, and was killed"]);
    world.manners.ready_ms = vec![100];
    world.run_for(secs(1));
    assert_eq!(world.ps(), "gateway-1 ready(4), worker-1 ready(1)");
    let view = &world.plan.slots()[0];
    assert_eq!(view.last_end.as_deref(), Some("was not ready within 15 s, and was killed"));
}

#[test]
fn silence_is_counted_in_the_time_that_the_supervisor_was_awake() {
    let mut world = running(1, 0);
    let look = |world: &mut World, after| {
        world.look_after(after);
        world.killed.len()
    };
    for _ in 0..9 {
        assert_eq!(look(&mut world, BEAT), 0);
    }
    // It hears nothing for half a minute, and then what was said meanwhile.
    world.pass(secs(30));
    world.give(|child| Input::Heard { child, load: Load::default() }, 1);
    assert_eq!(look(&mut world, Duration::ZERO), 0);
    for _ in 0..9 {
        assert_eq!(look(&mut world, secs(100)), 0, "each gap counts as one beat");
    }
    assert_eq!(look(&mut world, BEAT), 1);
    assert_eq!(world.killed, ["gateway-1: said nothing for 10 s, and was killed"]);
}

#[test]
fn a_gateway_that_says_nothing_gets_no_connections_until_it_does() {
    let mut world = running(2, 0);
    let hear = |world: &mut World, slot: &str| {
        let n = world.child(slot);
        world.give(|child| Input::Heard { child, load: Load::default() }, n);
    };
    let open = |world: &World| -> Vec<String> { world.plan.ready_gateways().iter().map(|(slot, _)| slot.to_string()).collect() };
    hear(&mut world, "gateway-1");
    // The supervisor sleeps for a minute: that is nobody's silence.
    world.pass(secs(60));
    for _ in 0..2 {
        hear(&mut world, "gateway-2");
        assert_eq!(open(&world), ["gateway-1", "gateway-2"]);
        world.look_after(BEAT / 2);
    }
    assert_eq!(open(&world), ["gateway-2"]);
    world.look_after(BEAT / 2);
    assert_eq!(world.lines, ["gateway-1 has said nothing for 2 s: others get its connections"], "once");
    hear(&mut world, "gateway-1");
    assert_eq!(open(&world), ["gateway-1", "gateway-2"]);
    assert_eq!(world.lines[1], "gateway-1 says something again: it gets connections");
    assert!(world.killed.is_empty());
}

#[test]
fn gateways_drain_before_workers_end() {
    let mut world = running(2, 2);
    world.manners.end_ms = vec![3_000];
    world.step(Input::StopAll);
    let asked = |world: &World| -> Vec<String> {
        world.living.values().filter(|living| living.asked.is_some()).map(|living| living.slot.to_string()).collect()
    };
    assert_eq!(asked(&world), ["gateway-1", "gateway-2"]);
    assert!(world.left.is_empty(), "nobody takes their sessions");
    world.run_for(Duration::from_millis(3_500));
    assert_eq!(asked(&world), ["worker-1", "worker-2"]);
    world.run_for(secs(4));
    assert_eq!((world.ended_with, world.plan.next_due()), (Some(0), None));
}

#[test]
fn who_does_not_end_in_time_is_killed_and_the_exit_code_says_so() {
    let mut world = running(1, 1);
    world.manners.end_ms = vec![3_600_000];
    let end = world.ask(|_| Command::End);
    world.run_for(STOP_TIMEOUT * 2 + secs(1));
    assert_eq!(world.killed, ["gateway-1", "worker-1"].map(|slot| format!("{slot}: did not end within 15 s, and was killed")));
    assert_eq!((world.ended_with, &world.answers[&end]), (Some(1), &Ok(())));
}

#[test]
fn a_reload_replaces_workers_then_gateways_and_ends_with_its_last_act() {
    let mut world = running(2, 1);
    let request = world.reload(2, 1);
    assert_eq!(world.ps(), "gateway-1 ready(2), gateway-2 ready(3), worker-1 ready(1+4)");
    world.run_for(Duration::from_millis(150));
    assert_eq!(world.ps(), "gateway-1 ready(2), gateway-2 ready(3), worker-1 ready(4+1)");
    assert_eq!(world.left, [(ChildId(1), Some(ChildId(4)))], "to its successor by name");
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.ps(), "gateway-1 ready(2), gateway-2 ready(3), worker-1 ready(4)", "what came with that settles");
    world.run_for(ROLL_REST);
    assert_eq!(world.ps(), "gateway-1 ready(2+5), gateway-2 ready(3), worker-1 ready(4)");
    let saved_at = |world: &mut World| {
        while world.finish.is_none() {
            world.run_until_finish();
        }
    };
    saved_at(&mut world);
    assert_eq!(
        (world.finish, world.ps().as_str()),
        (Some(Generation(2)), "gateway-1 ready(5), gateway-2 ready(6), worker-1 ready(4)")
    );
    assert!(world.open.contains(&request));
    let other = world.ask(|_| Command::Stop(names("gateway-1")));
    assert_eq!(world.refusal(other), "a reload is at its last act: ask again in a moment");
    world.exec();
    world.step(Input::Finished { result: Ok(()) });
    assert_eq!((&world.answers[&request], world.plan.generations()), (&Ok(()), vec![Generation(2)]));
    world.crash("worker-1", 1);
    world.run_for(secs(1));
    assert_eq!(world.ps(), "gateway-1 ready(5), gateway-2 ready(6), worker-1 ready(7)", "ids are not used again");
}

#[test]
fn a_new_one_that_is_not_ready_stops_the_roll_and_the_old_one_stays() {
    let mut world = running(2, 1);
    world.manners.ready_ms = vec![100, 100, 100, 100, 100, u64::MAX];
    let request = world.reload(2, 1);
    world.run_for(secs(14));
    let other = world.reload(2, 1);
    assert_eq!(world.refusal(other), "a reload (1 of 3 replaced) is under way: ask again when it has ended");
    let scale = world.ask(|_| Command::Scale { group: "gateway".parse().expect("a group"), count: Count::Fixed(3) });
    assert_eq!(world.refusal(scale), "a reload is under way: ask again when it has ended");
    world.run_for(secs(3));
    assert_eq!(
        world.refusal(request),
        "gateway-1: the new one was not ready within 15 s, and was killed; new: worker-1; as before: gateway-1, gateway-2"
    );
    assert_eq!(world.ps(), "gateway-1 ready(2), gateway-2 ready(3), worker-1 ready(4)");
    assert_eq!(world.plan.generations(), [Generation(1), Generation(2)]);
    world.manners = Manners::default();
    let again = world.reload(2, 1);
    world.run_for(secs(5));
    assert_eq!((&world.answers[&again], world.plan.generations().len()), (&Ok(()), 1));
}

#[test]
fn a_new_one_that_gives_up_does_not_make_the_slot_fail() {
    let mut world = running(1, 0);
    let request = world.reload(1, 0);
    world.end(1, Exit::Code(2));
    assert_eq!(
        world.refusal(request),
        "gateway-1: the new one ended with code 2 before it was ready; new: none; as before: gateway-1"
    );
    assert_eq!(world.ps(), "gateway-1 ready(1)");
    // The old one crashes while the new one starts, and the new one gives up: the old one is tried again.
    let request = world.reload(1, 0);
    world.crash("gateway-1", 1);
    assert_eq!(world.ps(), "gateway-1 starting(3)");
    world.end(17, Exit::Code(2));
    assert!(world.answers[&request].is_err());
    world.run_for(secs(1));
    assert_eq!(world.plan.slots()[0].generation, Generation(1));
    assert_eq!(world.ps(), "gateway-1 ready(4)");
}

#[test]
fn a_reload_brings_other_counts_and_deployments() {
    let mut world = running(3, 1);
    let more = with_eu(Count::Fixed(1), Count::Fixed(2));
    let request = world.ask(|generation| Command::Reload { generation, settings: more });
    world.run_for(secs(5));
    assert_eq!(world.answers[&request], Ok(()));
    let slots: Vec<String> = world.plan.slots().iter().map(|view| view.slot.to_string()).collect();
    assert_eq!(slots, ["gateway-1", "worker-1", "worker-2", "eu/gateway-1", "eu/worker-1"]);
    // An added one that does not start is not there.
    world.manners.crashes = vec![true];
    let request = world.ask(|generation| Command::Reload { generation, settings: settings(Count::Fixed(1), Count::Fixed(3)) });
    world.run_for(secs(5));
    assert!(world.refusal(request).starts_with("worker-1: the new one ended with code 1"), "{}", world.refusal(request));
    assert_eq!(world.plan.slots().len(), 5);
}

#[test]
fn what_is_started_behind_a_reload_is_replaced_before_it_ends() {
    let mut world = running(2, 1);
    world.ask(|_| Command::Stop(names("gateway-1")));
    world.run_for(secs(1));
    let request = world.reload(2, 1);
    while world.ps() != "gateway-1 stopped(), gateway-2 ready(3+5), worker-1 ready(4)" {
        assert!(world.open.contains(&request), "{}", world.ps());
        world.run_for(Duration::from_millis(10));
    }
    // It was passed over, and the reload goes on with the next one.
    let start = world.ask(|_| Command::Start(names("gateway-1")));
    world.run_for(secs(5));
    assert_eq!((&world.answers[&start], world.answers.get(&request)), (&Ok(()), Some(&Ok(()))), "{}", world.ps());
    assert_eq!(world.ps(), "gateway-1 ready(7), gateway-2 ready(5), worker-1 ready(4)");
    assert_eq!(world.plan.generations().len(), 1);
}

#[test]
fn counts_follow_scale_and_the_highest_numbers_go() {
    let mut world = running(3, 1);
    let scale = |world: &mut World, group: &str, count| {
        let request = world.ask(|_| Command::Scale { group: group.parse().expect("a group"), count: Count::Fixed(count) });
        world.run_for(secs(2));
        world.answers[&request].clone()
    };
    assert_eq!(scale(&mut world, "gateway", 1), Ok(()));
    assert_eq!(world.ps(), "gateway-1 ready(2), worker-1 ready(1)");
    assert_eq!(world.left, [(ChildId(3), None), (ChildId(4), None)], "their sessions move");
    assert_eq!(scale(&mut world, "gateway", 2), Ok(()));
    assert_eq!(world.ps(), "gateway-1 ready(2), gateway-2 ready(5), worker-1 ready(1)");
    assert_eq!(
        scale(&mut world, "worker", 9),
        Err("worker: 9 processes and 8 shards: give at most 8 workers, each needs a shard".to_owned())
    );
    assert_eq!(scale(&mut world, "us/gateway", 1), Err("us/gateway is not there: there is worker, gateway".to_owned()));
    assert_eq!(scale(&mut world, "gateway", 0), Ok(()));
    let refused = scale(&mut world, "worker", 0).expect_err("nothing to run");
    assert!(refused.starts_with("gateway: 0, and worker: 0"), "{refused}");
}

#[test]
fn a_place_that_is_deleted_is_gone() {
    let mut world = running(2, 1);
    let request = world.ask(|_| Command::Delete(names("gateway-1")));
    world.run_for(secs(1));
    assert_eq!((&world.answers[&request], world.ps().as_str()), (&Ok(()), "gateway-2 ready(3), worker-1 ready(1)"));
    let wrong = world.ask(|_| Command::Restart(names("gateway-1")));
    assert_eq!(world.refusal(wrong), "\"gateway-1\" is no process: there is worker-1, gateway-2");
}

#[test]
fn who_asks_at_the_same_time_is_answered() {
    let mut world = running(1, 1);
    world.manners.end_ms = vec![5_000];
    let stop = world.ask(|_| Command::Stop(names("gateway-1")));
    world.run_for(secs(1));
    let start = world.ask(|_| Command::Start(names("gateway-1")));
    assert_eq!(world.refusal(stop), "gateway-1 was started again meanwhile");
    world.run_for(secs(5));
    assert_eq!((&world.answers[&start], world.ps().as_str()), (&Ok(()), "gateway-1 ready(3), worker-1 ready(1)"));
    let restart = world.ask(|_| Command::Restart(names("all")));
    let second = world.ask(|_| Command::Restart(names("gateway-1")));
    assert_eq!(world.refusal(second), "a restart (0 of 2 replaced) is under way: ask again when it has ended");
    world.run_for(secs(2));
    let third = world.ask(|_| Command::Restart(names("gateway-1")));
    assert_eq!(world.refusal(third), "a restart (1 of 2 replaced) is under way: ask again when it has ended");
    let stop = world.ask(|_| Command::Stop(names("worker-1")));
    world.run_for(secs(20));
    assert_eq!((&world.answers[&restart], &world.answers[&stop]), (&Ok(()), &Ok(())));
    assert_eq!(world.ps(), "gateway-1 ready(5), worker-1 stopped()");
    let both = (world.ask(|_| Command::Restart(names("all"))), world.ask(|_| Command::End));
    world.run_for(secs(20));
    assert_eq!(world.refusal(both.0), "everything is being stopped");
    assert_eq!(world.answers[&both.1], Ok(()));
}

#[test]
fn roles_follow_their_load() {
    let mut world = World::new(settings(Count::Between { min: 1, max: 3 }, Count::Fixed(1)));
    world.run_for(secs(1));
    let mut counts = Vec::new();
    // So many hundredths of a core in all, for so long.
    for (load, beats) in [(90, 30), (180, 30), (20, 300)] {
        for _ in 0..beats {
            let gateways = world.plan.ready_gateways();
            for (_, child) in &gateways {
                let load = Load { cpu: f64::from(load) / 100.0 / gateways.len() as f64, ..Load::default() };
                world.step(Input::Heard { child: *child, load });
            }
            world.run_with_loads(BEAT);
            if counts.last() != Some(&world.plan.ready_gateways().len()) {
                counts.push(world.plan.ready_gateways().len());
            }
        }
    }
    assert_eq!(counts, [1, 2, 3, 2, 1]);
    assert!(world.lines.iter().any(|line| line == "gateway: 2 instead of 1, at 90 % of a core"), "{:?}", world.lines);
}

#[test]
fn the_fullest_gateway_offers_sessions_to_move() {
    let mut world = running(2, 0);
    let say = |world: &mut World, sessions: [u64; 2]| {
        for (child, sessions) in [(1, sessions[0]), (2, sessions[1])] {
            world.step(Input::Heard { child: ChildId(child), load: Load { sessions, ..Load::default() } });
        }
        world.step(Input::Looked);
    };
    say(&mut world, [200, 0]);
    let start = world.now;
    while world.now < start + secs(6) {
        let due = world.plan.next_due().expect("children");
        world.pass(due - world.now);
        say(&mut world, [200, 0]);
    }
    let moved: u64 = world.moves.iter().map(|(_, sessions)| sessions).sum();
    assert!(world.moves.iter().all(|(child, _)| *child == ChildId(1)));
    assert_eq!(moved, 100, "not below the mean, at 50 a second");
    let moves = world.moves.len();
    say(&mut world, [100, 100]);
    world.pass(secs(10));
    say(&mut world, [100, 100]);
    assert_eq!(
        (world.moves.len(), world.plan.ready_gateways()[1].1, world.plan.slots()[0].phase),
        (moves, ChildId(2), Phase::Ready)
    );
}
