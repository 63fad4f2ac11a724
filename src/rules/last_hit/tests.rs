use proptest::prelude::*;
use rmpv::Value;
use serde_json::json;

use super::*;
use crate::rules::Ruling;
use crate::rules::referee::{Referee, act, body, happen};

fn args(field: &str, value: impl Into<Value>) -> Value {
    Value::Map(vec![(field.into(), value.into())])
}

fn spawn(rules: &mut LastHit, target: &str, hp: u64) -> Decision {
    act(rules, Role::Server, "game", "spawn", Some(target), &args("hp", hp))
}

fn despawn(rules: &mut LastHit, target: &str) -> Decision {
    act(rules, Role::Server, "game", "despawn", Some(target), &Value::Nil)
}

fn hit(rules: &mut LastHit, player: &str, target: &str, damage: u64) -> Decision {
    act(rules, Role::Player, player, "hit", Some(target), &args("damage", damage))
}

#[track_caller]
fn mistake(decision: &Decision, why: &str) {
    assert_eq!(*decision, Decision::denied(why).to(Audience::Session));
}

#[test]
fn the_hit_that_takes_the_last_point_wins() {
    let mut rules = LastHit::new();
    let spawned = spawn(&mut rules, "baron", 100);
    assert_eq!((spawned.ruling.clone(), spawned.next_round), (Ruling::Granted, false), "the first life is round 1");
    assert_eq!(body(&spawned), json!({"target": "baron", "hp": 100, "max_hp": 100, "round": 1}));

    let first = hit(&mut rules, "ann", "baron", 60);
    assert_eq!((&first.ruling, first.contest.as_deref()), (&Ruling::Granted, Some("baron")));
    assert_eq!(body(&first), json!({"target": "baron", "hp": 40, "max_hp": 100, "round": 1, "damage": 60}));

    let last = hit(&mut rules, "bob", "baron", 60);
    assert_eq!((&last.ruling, last.audience.clone()), (&Ruling::Won, Audience::Room));
    assert_eq!(body(&last), json!({"target": "baron", "hp": 0, "max_hp": 100, "round": 1, "damage": 60, "overkill": 20}));

    let late = hit(&mut rules, "ann", "baron", 60);
    assert_eq!((&late.ruling, late.audience), (&Ruling::Late, Audience::Room));

    let state = body(&happen(&mut rules, Role::Player, "eve", What::Open));
    assert_eq!(state, json!({"targets": {"baron": {"hp": 0, "max_hp": 100, "round": 1, "winner": "bob"}}}));
}

#[test]
fn an_exact_last_hit_has_no_overkill() {
    let mut rules = LastHit::new();
    spawn(&mut rules, "baron", 5);
    assert_eq!(body(&hit(&mut rules, "ann", "baron", 5))["overkill"], 0);
}

#[test]
fn a_respawn_starts_the_next_round_whether_it_was_slain_or_despawned() {
    let mut rules = LastHit::new();
    spawn(&mut rules, "baron", 1);
    hit(&mut rules, "ann", "baron", 1);
    let second = spawn(&mut rules, "baron", 7);
    assert!(second.next_round);
    assert_eq!(body(&second)["round"], 2);
    assert_eq!(despawn(&mut rules, "baron").ruling, Ruling::Granted);
    let third = spawn(&mut rules, "baron", 7);
    assert!(third.next_round);
    assert_eq!(body(&third), json!({"target": "baron", "hp": 7, "max_hp": 7, "round": 3}));
}

#[test]
fn targets_do_not_disturb_each_other() {
    let mut rules = LastHit::new();
    spawn(&mut rules, "baron", 10);
    spawn(&mut rules, "drake", 10);
    assert_eq!(hit(&mut rules, "ann", "drake", 10).ruling, Ruling::Won);
    assert_eq!(body(&hit(&mut rules, "ann", "baron", 4))["hp"], 6);
}

#[test]
fn every_mistake_has_its_word_and_changes_nothing() {
    let mut rules = LastHit::new();
    spawn(&mut rules, "baron", 10);
    let before = rules.clone();
    let mut with = |role, op: &str, contest: Option<&str>, args: &Value, why: &str| {
        mistake(&act(&mut rules, role, "ann", op, contest, args), why);
    };
    let (player, server, baron) = (Role::Player, Role::Server, Some("baron"));
    with(player, "heal", baron, &Value::Nil, "unknown_op");
    with(player, "spawn", baron, &args("hp", 1), "server_only");
    with(player, "despawn", baron, &Value::Nil, "server_only");
    with(player, "hit", None, &args("damage", 1), "no_contest");
    with(server, "spawn", None, &args("hp", 1), "no_contest");
    with(server, "despawn", None, &Value::Nil, "no_contest");
    for bad in [Value::Nil, Value::from(3), Value::Array(vec![1.into()]), args("Damage", 1), args("damage", "1")] {
        with(player, "hit", baron, &bad, "bad_args");
    }
    with(player, "hit", baron, &args("damage", 1.0), "bad_args");
    with(player, "hit", baron, &args("damage", Value::Nil), "bad_args");
    with(player, "hit", baron, &args("damage", 0), "no_damage");
    with(player, "hit", baron, &args("damage", -1), "negative_damage");
    with(player, "hit", baron, &args("damage", i64::MIN), "negative_damage");
    with(player, "hit", baron, &args("damage", HIT_DAMAGE_MAX + 1), "too_much_damage");
    with(player, "hit", baron, &args("damage", u64::MAX), "too_much_damage");
    with(player, "hit", Some("drake"), &args("damage", 1), "unknown_target");
    with(server, "despawn", Some("drake"), &Value::Nil, "unknown_target");
    with(server, "spawn", Some("drake"), &Value::Nil, "bad_args");
    for hp in [0, TARGET_HP_MAX + 1, u64::MAX] {
        with(server, "spawn", Some("drake"), &args("hp", hp), "bad_hp");
    }
    with(server, "spawn", Some("drake"), &args("hp", -5), "bad_hp");
    with(server, "spawn", baron, &args("hp", 99), "already_spawned");
    assert_eq!(rules, before);
}

#[test]
fn a_despawned_target_is_unknown() {
    let mut rules = LastHit::new();
    spawn(&mut rules, "baron", 1);
    hit(&mut rules, "ann", "baron", 1);
    despawn(&mut rules, "baron");
    mistake(&hit(&mut rules, "ann", "baron", 1), "unknown_target");
    mistake(&despawn(&mut rules, "baron"), "unknown_target");
    assert_eq!(body(&happen(&mut rules, Role::Player, "eve", What::Open)), json!({"targets": {}}));
}

#[test]
fn targets_are_bounded_and_a_full_rooms_state_fits_a_body() {
    let (mut rules, mut referee) = (LastHit::new(), Referee::default());
    let name = |n: usize| format!("{n:064}");
    for n in 0..TARGETS_PER_ROOM_MAX {
        spawn(&mut rules, &name(n), HIT_DAMAGE_MAX);
        hit(&mut rules, &"p".repeat(64), &name(n), HIT_DAMAGE_MAX);
    }
    mistake(&spawn(&mut rules, "one-more", 1), "too_many_targets");
    assert_eq!(spawn(&mut rules, &name(0), 1).ruling, Ruling::Granted, "a slain one may come back");
    referee.apply(&happen(&mut rules, Role::Player, "eve", What::Open));
    for n in 0..TARGETS_PER_ROOM_MAX {
        despawn(&mut rules, &name(n));
    }
    for n in TARGETS_PER_ROOM_MAX..TARGET_NAMES_PER_ROOM_MAX {
        assert_eq!(spawn(&mut rules, &name(n), 1).ruling, Ruling::Granted);
        despawn(&mut rules, &name(n));
    }
    mistake(&spawn(&mut rules, "one-more", 1), "too_many_targets");
    assert_eq!(spawn(&mut rules, &name(0), 1).ruling, Ruling::Granted, "a known name may come back");
    let mut restored = LastHit::new();
    restored.restore(VERSION, &rules.snapshot()).expect("own snapshot");
    assert_eq!(restored, rules);
}

#[test]
fn the_other_socket_events_change_nothing() {
    let mut rules = LastHit::new();
    spawn(&mut rules, "baron", 10);
    let before = rules.clone();
    for what in [What::Open, What::End { code: 1000 }, What::Error { reason: "reset" }, What::Close] {
        assert_eq!(happen(&mut rules, Role::Player, "ann", what).ruling, Ruling::Granted);
    }
    assert_eq!(rules, before);
}

#[test]
fn states_that_cannot_be_are_refused() {
    let mut rules = LastHit::new();
    spawn(&mut rules, "kept", 10);
    let before = rules.clone();
    let target =
        |name: &str, hp, max_hp, round, winner: Option<&str>| (name.to_owned(), hp, max_hp, round, winner.map(str::to_owned));
    let good = target("b", 3, 5, 1, None);
    let bad: Vec<Saved> = vec![
        vec![target("", 3, 5, 1, None)],
        vec![target(&"x".repeat(65), 3, 5, 1, None)],
        vec![target("b", 6, 5, 1, None)],
        vec![target("b", 3, TARGET_HP_MAX + 1, 1, None)],
        vec![target("b", 3, 5, 0, None)],
        vec![target("b", 3, 5, 1, Some("ann"))],
        vec![target("b", 0, 5, 1, None)],
        vec![target("b", 0, 5, 1, Some("not a name"))],
        vec![good.clone(), good.clone()],
        vec![good.clone(), target("a", 3, 5, 1, None)],
        (0..=TARGETS_PER_ROOM_MAX).map(|n| target(&format!("{n:04}"), 1, 1, 1, None)).collect(),
        (0..=TARGET_NAMES_PER_ROOM_MAX).map(|n| target(&format!("{n:04}"), 0, 0, 1, None)).collect(),
    ];
    for state in bad {
        assert!(rules.restore(VERSION, &saved::encode(&state)).is_err(), "{state:?}");
        assert_eq!(rules, before, "a refused state leaves the old one");
    }
    let good = saved::encode(&vec![good]);
    assert!(rules.restore(2, &good).is_err_and(|e| e.contains("version 2")));
    assert!(rules.restore(VERSION, &[&good[..], &[0]].concat()).is_err_and(|e| e.contains("trailing")));
    assert_eq!(rules.restore(VERSION, &good), Ok(()));
}

/// (kind, target, player, number): kinds beyond the ops are joins and leaves.
type Step = (u8, u8, u8, u64);

fn step(rules: &mut LastHit, (kind, target, player, number): Step) -> Decision {
    let (target, player) = (format!("t{target}"), format!("p{player}"));
    match kind {
        0 | 1 => spawn(rules, &target, number),
        2 => despawn(rules, &target),
        3..=8 => hit(rules, &player, &target, number),
        9 => happen(rules, Role::Player, &player, What::Open),
        _ => happen(rules, Role::Player, &player, What::Close),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0u8..11, 0u8..3, 0u8..3, 0u64..6), 0..80)
}

proptest! {
    #[test]
    fn a_round_has_one_winner_and_a_restored_room_decides_alike(steps in steps(), restart: prop::sample::Index) {
        let restart = restart.index(steps.len() + 1);
        let (mut straight, mut restarted, mut referee) = (LastHit::new(), LastHit::new(), Referee::default());
        for (n, one) in steps.into_iter().enumerate() {
            if n == restart {
                let bytes = restarted.snapshot();
                restarted = LastHit::new();
                restarted.restore(VERSION, &bytes).expect("own snapshot");
                prop_assert_eq!(restarted.snapshot(), bytes);
            }
            let decision = step(&mut straight, one);
            prop_assert_eq!(&step(&mut restarted, one), &decision);
            let round = referee.apply(&decision);
            if let Some(told) = decision.contest.as_ref().map(|_| body(&decision)["round"].as_u64()) {
                prop_assert_eq!(told, Some(round), "the rules and the core count rounds alike");
            }
        }
        prop_assert_eq!(straight, restarted);
    }

    #[test]
    fn damaged_states_are_an_error_or_a_state(steps in steps(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut rules = LastHit::new();
        for one in steps {
            step(&mut rules, one);
        }
        let mut bytes = rules.snapshot();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        if LastHit::new().restore(VERSION, &bytes).is_ok() {
            let mut restored = LastHit::new();
            restored.restore(VERSION, &bytes).expect("twice alike");
            step(&mut restored, (3, 0, 0, 1));
        }
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(LastHit::new().restore(VERSION, &bytes).is_err());
    }

    #[test]
    fn arbitrary_states_are_an_error_or_a_state(bytes: Vec<u8>) {
        let _ = LastHit::new().restore(VERSION, &bytes);
    }
}
