//! The plan among children that start, crash, hang, obey or do not, and people who ask for anything at any time.

mod scenes;
mod world;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use self::world::{Manners, World, settings, with_eu};
use super::step::{ChildId, Command, Exit, Generation, Input, Load};
use crate::limits::{BEAT, CHILD_RESTART_MAX, CHILD_RESTART_MIN, CHILD_RESTART_RESET};
use crate::supervisor::policy::counts::Count;
use crate::supervisor::policy::recycle::Bounds;

/// Something that happens.
#[derive(Debug, Clone)]
enum Op {
    /// Says it of one of the living children, or of one that never was.
    Ready(usize),
    Heard(usize, Load),
    Ended(usize, Exit),
    StartFailed(usize),
    /// So many milliseconds pass. Then the channels are read.
    Look(u64),
    /// So many milliseconds pass.
    Wait(u64),
    Ask(Ask),
    Finished(bool),
    /// The state goes through the form that the next image reads.
    Exec,
    StopAll,
}

impl Op {
    fn happens(self, world: &mut World) {
        match self {
            Self::Ready(n) => world.give(|child| Input::Ready { child }, n),
            Self::Heard(n, load) => world.give(|child| Input::Heard { child, load }, n),
            Self::Ended(n, exit) => world.end(n, exit),
            Self::StartFailed(n) => world.fail_to_start(n),
            Self::Look(ms) => world.look_after(Duration::from_millis(ms)),
            Self::Wait(ms) => world.pass(Duration::from_millis(ms)),
            Self::Ask(ask) => drop(world.ask(|generation| ask.into_command(generation))),
            Self::Finished(true) => world.step(Input::Finished { result: Ok(()) }),
            Self::Finished(false) => world.step(Input::Finished { result: Err("no".to_owned()) }),
            Self::Exec => world.exec(),
            Self::StopAll => world.step(Input::StopAll),
        }
    }
}

/// A request without its number.
#[derive(Debug, Clone)]
enum Ask {
    Start(Vec<String>),
    Stop(Vec<String>),
    Restart(Vec<String>),
    Recycle(Vec<String>),
    Delete(Vec<String>),
    Scale(&'static str, Count),
    Reload(Count, Count),
    End,
}

impl Ask {
    fn into_command(self, generation: Generation) -> Command {
        match self {
            Self::Start(names) => Command::Start(names),
            Self::Stop(names) => Command::Stop(names),
            Self::Restart(names) => Command::Restart(names),
            Self::Recycle(names) => Command::Recycle(names),
            Self::Delete(names) => Command::Delete(names),
            Self::Scale(group, count) => Command::Scale { group: group.parse().expect("a group"), count },
            Self::Reload(gateways, workers) => {
                let settings = if workers.most() % 2 == 0 { with_eu(gateways, workers) } else { settings(gateways, workers) };
                Command::Reload { generation, settings }
            }
            Self::End => Command::End,
        }
    }
}

fn names() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(vec![
        "all",
        "gateway",
        "worker",
        "gateway-1",
        "gateway-2",
        "gateway-1..3",
        "worker-1",
        "worker-2",
        "eu/gateway-1",
        "eu/all",
        "nobody",
    ]);
    vec(name.prop_map(str::to_owned), 1..3)
}

fn count() -> impl Strategy<Value = Count> {
    prop_oneof![
        3 => (0..4_usize).prop_map(Count::Fixed),
        1 => (1..3_usize, 0..3_usize).prop_map(|(min, more)| Count::Between { min, max: min + more }),
    ]
}

fn load() -> impl Strategy<Value = Load> {
    (0..500_u64, 0.0..1.0_f64, 0..20_000_u64).prop_map(|(sessions, cpu, events)| Load {
        sessions,
        cpu,
        events,
        actions_per_s: 0.0,
        memory_bytes: 0,
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        2 => names().prop_map(Ask::Start),
        2 => names().prop_map(Ask::Stop),
        3 => names().prop_map(Ask::Restart),
        1 => names().prop_map(Ask::Recycle),
        1 => names().prop_map(Ask::Delete),
        2 => (prop::sample::select(vec!["gateway", "worker", "eu/gateway", "us/worker"]), count()).prop_map(|(g, c)| Ask::Scale(g, c)),
        3 => (count(), count()).prop_map(|(g, w)| Ask::Reload(g, w)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let exit = prop_oneof![
        3 => Just(Exit::Code(1)), 1 => Just(Exit::Code(2)), 1 => Just(Exit::Code(0)), 1 => Just(Exit::Signal(11))
    ];
    prop_oneof![
        30 => any::<usize>().prop_map(Op::Ready),
        5 => (any::<usize>(), load()).prop_map(|(n, load)| Op::Heard(n, load)),
        12 => (any::<usize>(), exit).prop_map(|(n, exit)| Op::Ended(n, exit)),
        1 => any::<usize>().prop_map(Op::StartFailed),
        20 => (0..1_500_u64).prop_map(Op::Look),
        2 => (0..30_000_u64).prop_map(Op::Look),
        3 => (0..30_000_u64).prop_map(Op::Wait),
        12 => ask().prop_map(Op::Ask),
        4 => any::<bool>().prop_map(Op::Finished),
        3 => Just(Op::Exec),
        1 => prop_oneof![Just(Op::StopAll), Just(Op::Ask(Ask::End))],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, in whatever order. [`World`] checks after each step that no slot has more than a replacement's pair, that only one
    /// slot has two, that no slot that failed is started by itself, that no request is answered twice, and that looking makes progress.
    #[test]
    fn whatever_comes_the_rules_hold_and_everything_ends(gateways in count(), workers in count(), ops in vec(op(), 0..120)) {
        prop_assume!(gateways.most() + workers.most() > 0);
        let mut world = World::new(with_eu(gateways, workers));
        for op in ops {
            op.happens(&mut world);
        }
        world.step(Input::StopAll);
        world.runs_to_its_end();
    }

    /// Two supervisors have the same history. One of them executes another image at any moment: what follows is the same.
    #[test]
    fn an_image_that_follows_does_what_the_one_before_had_done(
        gateways in count(), workers in count(), ops in vec(op(), 1..80), at in any::<prop::sample::Index>()
    ) {
        prop_assume!(gateways.most() + workers.most() > 0);
        let [mut one, mut other] = [World::new(with_eu(gateways, workers)), World::new(with_eu(gateways, workers))];
        let at = at.index(ops.len());
        for (number, op) in ops.into_iter().enumerate() {
            if number == at {
                // Both have looked at the clock.
                one.step(Input::Started { child: ChildId(0), pid: 1 });
                other.exec();
            }
            let op = if matches!(op, Op::Exec) { Op::Wait(1) } else { op };
            op.clone().happens(&mut one);
            op.happens(&mut other);
        }
        prop_assert_eq!(one.told(), other.told());
        prop_assert_eq!(one.plan.save(), other.plan.save());
    }

    /// Children that do all in time are not killed, however the supervisor sleeps, and whatever it is asked for.
    #[test]
    fn no_child_is_killed_that_answers_in_time(
        ready_ms in vec(0..14_000_u64, 1..6),
        end_ms in vec(0..14_000_u64, 1..6),
        asks in vec((ask(), 0..40_000_u64), 1..8),
        sleeps in vec((0..20_000_u64, 0..60_000_u64), 0..6),
    ) {
        let mut world = World::new(settings(Count::Fixed(2), Count::Fixed(2)));
        world.manners = Manners::all_in_time(&ready_ms, &end_ms);
        let mut sleeps = sleeps.into_iter();
        for (ask, then_ms) in asks {
            world.ask(|generation| ask.clone().into_command(generation));
            world.run_for(Duration::from_millis(then_ms));
            if let Some((before, asleep)) = sleeps.next() {
                world.run_for(Duration::from_millis(before));
                world.sleep(Duration::from_millis(asleep));
            }
        }
        world.step(Input::StopAll);
        world.run_for(Duration::from_secs(60));
        prop_assert!(world.killed.is_empty() && world.ended_with == Some(0), "{:?}, {:?}", world.killed, world.ended_with);
        let passed_over = world.lines.iter().find(|line| line.contains("others get its connections"));
        prop_assert!(passed_over.is_none(), "{:?}", passed_over);
    }

    /// Whatever the new ones do: what is replaced stays until the new one is ready.
    #[test]
    fn a_role_has_as_many_as_wanted_while_it_is_replaced(
        ready_ms in vec(prop_oneof![3 => 0..3_000_u64, 1 => Just(u64::MAX)], 1..9),
        crashes in vec(any::<bool>(), 1..9),
        asks in vec((0..3_usize, names(), 0..20_000_u64), 1..8),
    ) {
        let mut world = World::new(settings(Count::Fixed(3), Count::Fixed(2)));
        world.run_for(Duration::from_secs(5));
        prop_assert_eq!(world.ready_counts(), (3, 2));
        world.manners = Manners { ready_ms, crashes, ..Manners::default() };
        world.wanted = Some((3, 2));
        for (which, names, then_ms) in asks {
            world.ask(|generation| match which {
                0 => Command::Reload { generation, settings: settings(Count::Fixed(3), Count::Fixed(2)) },
                1 => Command::Restart(names),
                _ => Command::Recycle(names),
            });
            world.run_for(Duration::from_millis(then_ms));
        }
        world.run_for(Duration::from_secs(200));
        prop_assert!(world.open.is_empty(), "unanswered: {:?}", world.open);
        prop_assert_eq!(world.ready_counts(), (3, 2));
    }

    /// The pauses of one slot, against what they should be.
    #[test]
    fn pauses_grow_and_begin_again(lives_ms in vec((any::<bool>(), 0..14_000_u64), 1..30)) {
        let mut world = World::new(settings(Count::Fixed(0), Count::Fixed(1)));
        let mut expected = CHILD_RESTART_MIN;
        for (becomes_ready, life_ms) in lives_ms {
            let life = Duration::from_millis(life_ms);
            if becomes_ready {
                world.give(|child| Input::Ready { child }, 0);
                world.hear_and_look_for(life);
            }
            world.end(0, Exit::Code(1));
            if becomes_ready && life >= CHILD_RESTART_RESET {
                expected = CHILD_RESTART_MIN;
            }
            let due = world.now + expected;
            prop_assert_eq!(world.plan.next_due(), Some(due), "a pause of {:?}", expected);
            // One millisecond too early nothing starts.
            for moment in [due - Duration::from_millis(1), due] {
                prop_assert!(world.living.is_empty(), "started too early");
                while world.now < moment {
                    world.look_after((moment - world.now).min(BEAT));
                }
            }
            prop_assert_eq!(world.living.len(), 1);
            expected = (expected * 2).min(CHILD_RESTART_MAX);
        }
    }

    /// What is recycled by itself is recycled one at a time, and nobody notices.
    #[test]
    fn children_that_have_done_enough_are_replaced_one_at_a_time(bound in 1_000..5_000_u64) {
        let recycle = Bounds { events: Some(bound), ..Bounds::default() };
        let mut world = World::new(super::step::Settings { recycle, ..settings(Count::Fixed(3), Count::Fixed(2)) });
        world.run_for(Duration::from_secs(5));
        world.wanted = Some((3, 2));
        let before: Vec<_> = world.living.keys().copied().collect();
        world.manners.events_per_beat = bound / 10;
        world.run_for(Duration::from_secs(60));
        prop_assert!(before.iter().all(|child| !world.living.contains_key(child)), "all were replaced");
    }
}
