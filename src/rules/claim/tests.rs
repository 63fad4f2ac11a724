use proptest::prelude::*;
use rmpv::Value;
use serde_json::json;

use super::*;
use crate::rules::Ruling;
use crate::rules::referee::{Referee, act, body, happen};

fn room() -> Claim {
    Claim::new(Audience::Room)
}

fn claim(rules: &mut Claim, player: &str, key: &str) -> Decision {
    act(rules, Role::Player, player, "claim", Some(key), &Value::Nil)
}

fn release(rules: &mut Claim, role: Role, player: &str, key: &str) -> Decision {
    act(rules, role, player, "release", Some(key), &Value::Nil)
}

#[test]
fn the_first_has_it_until_it_is_released() {
    let mut rules = room();
    assert_eq!(claim(&mut rules, "ann", "seat"), Decision::won("seat"));
    let late = claim(&mut rules, "bob", "seat");
    assert_eq!((&late.ruling, late.audience.clone(), body(&late)), (&Ruling::Late, Audience::Room, json!({"holder": "ann"})));
    let released = release(&mut rules, Role::Player, "ann", "seat");
    assert_eq!((&released.ruling, released.next_round, released.audience), (&Ruling::Granted, true, Audience::Room));
    assert_eq!(claim(&mut rules, "bob", "seat"), Decision::won("seat"));
}

#[test]
fn mistakes_have_their_word_and_go_to_the_sender() {
    let mut rules = room();
    claim(&mut rules, "ann", "seat");
    let before = rules.clone();
    for op in ["claim", "release"] {
        assert_eq!(act(&mut rules, Role::Player, "ann", op, None, &Value::Nil), mistake("no_contest"));
    }
    assert_eq!(act(&mut rules, Role::Player, "ann", "steal", Some("seat"), &Value::Nil), mistake("unknown_op"));
    assert_eq!(claim(&mut rules, "ann", "seat"), mistake("already_yours").about("seat"));
    assert_eq!(release(&mut rules, Role::Player, "ann", "free"), mistake("not_held"));
    assert_eq!(release(&mut rules, Role::Server, "game", "free"), mistake("not_held"));
    let not_holder = release(&mut rules, Role::Player, "bob", "seat");
    assert_eq!((&not_holder.ruling, not_holder.audience.clone()), (&Ruling::Denied("not_holder".into()), Audience::Session));
    assert_eq!((body(&not_holder), not_holder.next_round), (json!({"holder": "ann"}), false));
    assert_eq!(rules, before);
}

#[test]
fn who_leaves_still_holds_and_the_server_may_release() {
    let mut rules = room();
    claim(&mut rules, "ann", "seat");
    for what in [What::End { code: 1006 }, What::Error { reason: "reset" }, What::Close] {
        assert_eq!(happen(&mut rules, Role::Player, "ann", what).ruling, Ruling::Granted);
    }
    assert_eq!(claim(&mut rules, "bob", "seat").ruling, Ruling::Late);
    let released = release(&mut rules, Role::Server, "game", "seat");
    assert_eq!((&released.ruling, body(&released)), (&Ruling::Granted, json!({"holder": "ann"})));
    assert_eq!(claim(&mut rules, "bob", "seat").ruling, Ruling::Won);
}

#[test]
fn the_constructor_says_who_sees_it() {
    let mut rules = Claim::new(Audience::Session);
    assert_eq!(happen(&mut rules, Role::Player, "ann", What::Open).audience, Audience::Session);
    assert_eq!(claim(&mut rules, "ann", "seat").audience, Audience::Session);
    assert_eq!(claim(&mut rules, "bob", "seat").audience, Audience::Session);
    assert_eq!(release(&mut rules, Role::Player, "ann", "seat").audience, Audience::Session);
}

#[test]
fn claims_are_bounded_and_a_full_rooms_state_fits_a_body() {
    let (mut rules, mut referee) = (room(), Referee::default());
    for n in 0..CLAIMS_PER_ROOM_MAX {
        assert_eq!(claim(&mut rules, &"p".repeat(64), &format!("{n:064}")).ruling, Ruling::Won);
    }
    assert_eq!(claim(&mut rules, "ann", "one-more"), mistake("too_many_claims"));
    assert_eq!(claim(&mut rules, "ann", &format!("{:064}", 7)).ruling, Ruling::Late);
    let open = happen(&mut rules, Role::Player, "eve", What::Open);
    referee.apply(&open);
    let state = body(&open);
    assert_eq!(state["held"], CLAIMS_PER_ROOM_MAX);
    assert_eq!(state["claims"].as_object().map(serde_json::Map::len), Some(CLAIMS_LISTED_MAX));
    let bytes = rules.snapshot();
    assert!(bytes.len() < CLAIMS_PER_ROOM_MAX * 70, "{} bytes: the holder is kept once", bytes.len());
    let mut restored = room();
    restored.restore(VERSION, &bytes).expect("own snapshot");
    assert_eq!(restored, rules);
}

#[test]
fn states_that_cannot_be_are_refused() {
    let mut rules = room();
    claim(&mut rules, "ann", "kept");
    let before = rules.clone();
    let long = "x".repeat(65);
    let too_many: Vec<String> = (0..=CLAIMS_PER_ROOM_MAX).map(|n| format!("{n:06}")).collect();
    type State<'a> = (Vec<&'a str>, Vec<(&'a str, usize)>);
    let bad: Vec<State<'_>> = vec![
        (vec!["ann"], vec![("", 0)]),
        (vec!["ann"], vec![(&long, 0)]),
        (vec!["ann"], vec![("a", 1)]),
        (vec!["not a name"], vec![("a", 0)]),
        (vec!["ann"], vec![("a", 0), ("a", 0)]),
        (vec!["ann"], vec![("b", 0), ("a", 0)]),
        (vec!["ann"], too_many.iter().map(|key| (key.as_str(), 0)).collect()),
    ];
    for state in bad {
        assert!(rules.restore(VERSION, &saved::encode(&state)).is_err());
        assert_eq!(rules, before, "a refused state leaves the old one");
    }
    let good = saved::encode(&(vec!["ann"], vec![("a", 0)]));
    assert!(rules.restore(0, &good).is_err_and(|e| e.contains("version 0")));
    assert!(rules.restore(VERSION, &[&good[..], &[0]].concat()).is_err_and(|e| e.contains("trailing")));
    assert_eq!(rules.restore(VERSION, &good), Ok(()));
}

/// (kind, key, player)
type Step = (u8, u8, u8);

fn step(rules: &mut Claim, (kind, key, player): Step) -> Decision {
    let (key, player) = (format!("k{key}"), format!("p{player}"));
    match kind {
        0..=3 => claim(rules, &player, &key),
        4 | 5 => release(rules, Role::Player, &player, &key),
        6 => release(rules, Role::Server, "game", &key),
        7 => happen(rules, Role::Player, &player, What::Open),
        _ => happen(rules, Role::Player, &player, What::Close),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0u8..9, 0u8..4, 0u8..3), 0..80)
}

proptest! {
    #[test]
    fn a_round_has_one_winner_and_a_restored_room_decides_alike(steps in steps(), restart: prop::sample::Index) {
        let restart = restart.index(steps.len() + 1);
        let (mut straight, mut restarted, mut referee) = (room(), room(), Referee::default());
        for (n, one) in steps.into_iter().enumerate() {
            if n == restart {
                let bytes = restarted.snapshot();
                restarted = room();
                restarted.restore(VERSION, &bytes).expect("own snapshot");
                prop_assert_eq!(restarted.snapshot(), bytes);
            }
            let decision = step(&mut straight, one);
            prop_assert_eq!(&step(&mut restarted, one), &decision);
            referee.apply(&decision);
        }
        prop_assert_eq!(straight, restarted);
    }

    #[test]
    fn damaged_states_are_an_error_or_a_state(steps in steps(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut rules = room();
        for one in steps {
            step(&mut rules, one);
        }
        let mut bytes = rules.snapshot();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let mut restored = room();
        if restored.restore(VERSION, &bytes).is_ok() {
            step(&mut restored, (0, 0, 0));
        }
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(room().restore(VERSION, &bytes).is_err());
    }

    #[test]
    fn arbitrary_states_are_an_error_or_a_state(bytes: Vec<u8>) {
        let _ = room().restore(VERSION, &bytes);
    }
}
