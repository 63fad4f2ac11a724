//! What is asked when, and what is taken from which answer.

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::frames::{self, Encoding, FrameError};
use super::messages::{self, Decided, FromProgram};
use super::{Fault, Identity, Process, Program, events_max};
use crate::limits::{
    PROGRAM_DEPTH_MAX, PROGRAM_EVENTS_BYTES, PROGRAM_EVENTS_MAX, PROGRAM_FRAME_BYTES_MAX, PROGRAM_STATE_BYTES_MAX,
};
use crate::rules::{Act, Decision, Facts, Happening, Inside, Rules, Ruling, TimerCommand, What, When};
use crate::types::{Audience, Incarnation, PlayerId, Role, RoomTime, SessionId};

/// Adds up what `add` says, and answers at most so many events at once.
#[derive(Debug)]
struct Adder {
    at_once: usize,
    asked: Mutex<Vec<usize>>,
    identity: Mutex<Identity>,
}

impl Adder {
    fn new(at_once: usize) -> Arc<Self> {
        let identity = Mutex::new(Identity { name: "adder".to_owned(), version: 1 });
        Arc::new(Self { at_once, asked: Mutex::default(), identity })
    }
}

impl Program for Adder {
    fn migrate(&self, who: &Identity, state: &str, from: u32) -> Result<Result<Arc<str>, String>, Fault> {
        Ok(Ok(format!("[{from},{},{state}]", who.version).into()))
    }

    fn identity(&self) -> Result<Identity, Fault> {
        Ok(self.identity.lock().clone())
    }

    fn resolve(&self, _who: &Identity, state: &str, events: &[String]) -> Result<Vec<Decided>, Fault> {
        self.asked.lock().push(events.len());
        let mut sum = serde_json::from_str::<Value>(state).expect("a state").as_u64().unwrap_or(0);
        let decide = |event: &String| {
            let event: Value = serde_json::from_str(event).expect("an event");
            let text = match event["op"].as_str().expect("an op") {
                "add" => {
                    sum += event["args"].as_u64().expect("a number");
                    json!({"outcome": "granted", "body": sum, "state": sum})
                }
                "grow" => json!({"outcome": "granted", "state": "x".repeat(PROGRAM_STATE_BYTES_MAX)}),
                _ => json!({"outcome": "granted", "body": sum}),
            };
            let answer = json!({"type": "resolved", "id": 1, "decisions": [text]}).to_string();
            match messages::read(&answer, 1) {
                Ok(FromProgram::Resolved(1, mut decided)) => decided.remove(0),
                other => panic!("{other:?}"),
            }
        };
        Ok(events.iter().take(self.at_once).map(decide).collect())
    }
}

fn with<T>(op: &str, args: u64, seq: u64, then: impl FnOnce(&Happening<'_>) -> T) -> T {
    let (player, args) = (PlayerId::new("ann").expect("name"), rmp_serde::to_vec(&args).expect("memory"));
    let session = SessionId { gateway: Incarnation(1), number: 1 };
    let (what, facts) = (What::Data(Act::new(op, None, &args)), Facts::new(RoomTime(1_500_000), seq, 7));
    then(&Happening { session, player: &player, role: Role::Player, what, facts, inside: Inside(&|_| 1) })
}

fn add(rules: &mut Process, args: u64, seq: u64) -> Option<u64> {
    let decision = with("add", args, seq, |event| rules.resolve(event));
    decision.body.map(|body| rmp_serde::from_slice(&body).expect("a number"))
}

fn text(args: u64, seq: u64) -> String {
    with("add", args, seq, messages::event_text)
}

#[test]
fn a_batch_is_asked_for_once() {
    let adder = Adder::new(PROGRAM_EVENTS_MAX);
    let mut rules = Process::new(adder.clone());
    rules.ask((1..=5).map(|seq| text(10, seq)).collect(), 1).expect("decided");
    assert_eq!((1..=5).map(|seq| add(&mut rules, 10, seq)).collect::<Vec<_>>(), [10, 20, 30, 40, 50].map(Some));
    assert_eq!((*adder.asked.lock()).clone(), [5]);
    assert_eq!(rules.take_changed(), Some(("adder", 1, &b"50"[..])));
    assert_eq!(rules.take_changed(), None);
    assert_eq!(rules.snapshot(), b"50");
}

#[test]
fn another_event_than_the_one_that_was_asked_for_is_asked_anew_from_the_state_that_there_is() {
    let adder = Adder::new(PROGRAM_EVENTS_MAX);
    let mut rules = Process::new(adder.clone());
    rules.ask((1..=5).map(|seq| text(10, seq)).collect(), 1).expect("decided");
    assert_eq!(add(&mut rules, 10, 1), Some(10));
    // The same event with another number is another one.
    assert_eq!(add(&mut rules, 10, 3), Some(20));
    assert_eq!(add(&mut rules, 10, 2), Some(30), "nothing is left of the first answer");
    assert_eq!((*adder.asked.lock()).clone(), [5, 1, 1]);
}

#[test]
fn a_void_verdict_takes_the_state_back_and_what_rests_on_it() {
    let adder = Adder::new(PROGRAM_EVENTS_MAX);
    let mut rules = Process::new(adder.clone());
    rules.ask((1..=3).map(|seq| text(10, seq)).collect(), 1).expect("decided");
    assert_eq!(add(&mut rules, 10, 1), Some(10));
    assert_eq!(add(&mut rules, 10, 2), Some(20));
    rules.undo();
    assert_eq!(add(&mut rules, 10, 3), Some(20), "as if the second had not been");
    rules.undo();
    rules.undo();
    assert_eq!(rules.snapshot(), b"10", "once is enough");
}

#[test]
fn fewer_answers_than_events_are_enough_unless_more_are_needed() {
    let adder = Adder::new(2);
    let mut rules = Process::new(adder.clone());
    let events: Vec<String> = (1..=5).map(|seq| text(1, seq)).collect();
    rules.ask(events.clone(), 1).expect("decided");
    assert_eq!((*adder.asked.lock()).clone(), [5]);
    rules.ask(events.clone(), 5).expect("decided");
    assert_eq!((*adder.asked.lock()).clone(), [5, 5, 3, 1]);
    assert_eq!((1..=5).map(|seq| add(&mut rules, 1, seq)).collect::<Vec<_>>(), [1, 2, 3, 4, 5].map(Some));
}

#[test]
fn a_state_over_its_bound_fails_the_event_and_changes_nothing() {
    let mut rules = Process::new(Adder::new(PROGRAM_EVENTS_MAX));
    add(&mut rules, 3, 1);
    let grow = with("grow", 0, 2, messages::event_text);
    rules.ask(vec![grow, text(1, 3)], 1).expect("decided");
    let failed = with("grow", 0, 2, |event| rules.resolve(event));
    assert!(matches!(&failed.ruling, Ruling::Failed(why) if why.error.starts_with("state_too_large: ")), "{failed:?}");
    rules.undo();
    assert_eq!(add(&mut rules, 1, 3), Some(4));
}

#[test]
fn a_state_of_another_program_is_not_continued() {
    let adder = Adder::new(1);
    let mut rules = Process::new(adder.clone());
    rules.take_up("adder", 1, b"41").expect("a state");
    assert_eq!(add(&mut rules, 1, 1), Some(42));
    let asked = adder.asked.lock().len();
    adder.identity.lock().version = 2;
    let why = "adder version 2 has taken the place of adder version 1";
    assert_eq!(rules.ask(vec![text(1, 2)], 1), Err(Fault::Failed(why.to_owned())), "until it has caught up");
    adder.identity.lock().version = 0;
    let why = "its program is adder version 1, the one that runs is adder version 0";
    assert_eq!(rules.ask(vec![text(1, 2)], 1), Err(Fault::Other(why.to_owned())));
    assert_eq!(adder.asked.lock().len(), asked, "neither has seen the state");
    assert_eq!(rules.catch_up(), Ok(None), "an earlier one takes over nothing");
    adder.identity.lock().version = 2;
    assert_eq!((rules.catch_up(), rules.version()), (Ok(Some(1)), 2));
    assert_eq!(rules.snapshot(), b"[1,2,42]");
    assert_eq!(rules.catch_up(), Ok(None), "once");
    assert!(rules.take_up("adder", 1, b"{").is_err());
    assert!(rules.take_up("adder", 1, b"\xff").is_err());
}

#[test]
fn large_states_are_asked_for_few_events() {
    let events = vec!["e".repeat(100); 600];
    assert_eq!(events_max(4, &events), PROGRAM_EVENTS_MAX);
    assert_eq!(events_max(PROGRAM_STATE_BYTES_MAX, &events), 3);
    assert_eq!(events_max(0, &["e".repeat(PROGRAM_EVENTS_BYTES + 1)]), 1, "one always goes");
}

#[test]
fn an_event_is_the_same_text_whenever_it_is_asked_for() {
    let text = text(10, 3);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let seed = value["seed"].as_array().expect("a seed").clone();
    assert_eq!(seed.len(), 4);
    assert_eq!(
        value,
        json!({"event": "data", "seq": 3, "now": 1.5, "seed": seed, "player": "ann", "role": "player", "sessions": 1, "op": "add",
               "session": SessionId { gateway: Incarnation(1), number: 1 }.to_string(), "args": 10})
    );
}

fn read(decision: &Value) -> Result<Decided, String> {
    let mut decided = read_all(&[decision]);
    let Decided { decision, state } = decided.remove(0);
    match decision.ruling {
        Ruling::Failed(failure) => Err(failure.error),
        _ => Ok(Decided { decision, state }),
    }
}

fn read_all(decisions: &[&Value]) -> Vec<Decided> {
    let text = json!({"type": "resolved", "id": 4, "decisions": decisions}).to_string();
    match messages::read(&text, decisions.len()) {
        Ok(FromProgram::Resolved(4, decided)) => decided,
        other => panic!("{other:?}"),
    }
}

#[test]
fn decisions_say_what_the_page_says() {
    let granted = read(&json!({"outcome": "granted"})).expect("read");
    assert_eq!(granted, Decided { decision: Decision::granted(), state: None });
    let won =
        read(&json!({"outcome": "won", "contest": "flag", "next_round": true, "to": ["ann"], "body": [1], "state": {"a": 1}}));
    let won = won.expect("read");
    assert_eq!(won.state.as_deref(), Some("{\"a\":1}"));
    let players = Audience::Players([PlayerId::new("ann").expect("name")].into());
    assert_eq!(won.decision, Decision::won("flag").next_round().to(players).body(&[1]));
    let denied = read(&json!({"outcome": "denied", "reason": "no", "contest": "c"})).expect("read");
    assert_eq!(denied.decision, Decision::denied("no").about("c").to(Audience::Session));
    let timers = json!([
        {"name": "a", "after": 20.5, "data": null}, {"name": "b", "at": 1_790_000_000_000.25_f64}, {"name": "c", "every": 16},
        {"name": "d", "cron": "0 20 * * FRI", "offset": "-09:30"}, {"name": "e", "cancel": true},
        {"name": "f", "cron": "0 20 * * FRI", "offset": "Z"}
    ]);
    let timed = read(&json!({"outcome": "granted", "timers": timers})).expect("read").decision.timers;
    let when = |at: usize| match &timed[at] {
        TimerCommand::Set { when, .. } => when.clone(),
        TimerCommand::Cancel(name) => panic!("{name}"),
    };
    assert_eq!(when(0), When::After(std::time::Duration::from_micros(20_500)));
    assert_eq!(when(1), When::At(RoomTime(1_790_000_000_000_250_000)));
    assert_eq!(when(2), When::Every(std::time::Duration::from_millis(16)));
    assert_eq!(when(3), When::Cron { expression: "0 20 * * FRI".to_owned(), offset_s: -34_200 });
    assert_eq!(when(5), When::Cron { expression: "0 20 * * FRI".to_owned(), offset_s: 0 });
    assert_eq!(timed[4], TimerCommand::Cancel("e".to_owned()));
}

#[test]
fn what_is_no_decision_has_failed_and_ends_the_answer() {
    let cases = [
        (json!({}), "missing field `outcome`"),
        (json!({"outcome": "maybe"}), "unknown variant `maybe`"),
        (json!({"outcome": "granted", "hat": 1}), "unknown field `hat`"),
        (json!({"outcome": "won"}), "outcome won needs a contest"),
        (json!({"outcome": "denied"}), "a reason belongs to the outcome denied"),
        (json!({"outcome": "denied", "reason": ""}), "a reason of 0 bytes"),
        (json!({"outcome": "granted", "error": "e"}), "an error belongs to the outcome failed"),
        (json!({"outcome": "failed", "error": "e", "state": 1}), "an event that failed changes no state"),
        (json!({"outcome": "granted", "next_round": true}), "next_round needs a contest"),
        (json!({"outcome": "granted", "contest": "c".repeat(65)}), "a contest of 65 bytes"),
        (json!({"outcome": "granted", "to": "all"}), "use room, sender, server, or a list of players"),
        (json!({"outcome": "granted", "to": ["a b"]}), "to \"a b\""),
        (json!({"outcome": "granted", "timers": [{"name": "t"}]}), "give one of after, at, every, cron and cancel"),
        (json!({"outcome": "granted", "timers": [{"name": "t", "after": -1}]}), "-1 is no number of milliseconds"),
        (json!({"outcome": "granted", "timers": [{"name": "t", "cron": "* * * * *", "offset": "9"}]}), "write it as +09:00"),
    ];
    for (decision, why) in cases {
        let failed = read(&decision).expect_err("failed");
        assert!(failed.contains(why) && failed.starts_with("decisions[0]: "), "{decision}: {failed}");
    }
    let (good, bad) = (json!({"outcome": "granted", "state": 1}), json!({"outcome": "granted", "to": ["a b"], "state": 2}));
    let decided = read_all(&[&good, &bad, &good]);
    assert_eq!(decided.len(), 2, "what follows rests on a state that is not there");
    assert_eq!(decided[0].state.as_deref(), Some("1"));
    assert!(matches!(&decided[1].decision.ruling, Ruling::Failed(why) if why.error.starts_with("decisions[1]: to \"a b\"")));
    assert_eq!(decided[1].state, None);
}

/// What is read is said back: in both encodings, as deep as it may be.
#[test]
fn values_have_a_depth_that_every_request_can_carry() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let say = |depth: usize, at: &str| {
            let value: Value = (0..depth).fold(json!("] \\\" ["), |inner, _| json!([inner]));
            let decision = match at {
                "data" => json!({"outcome": "granted", "timers": [{"name": "t", "after": 20, "data": value}]}),
                at => json!({"outcome": "granted", at: value}),
            };
            let text = json!({"type": "resolved", "id": 4, "decisions": [decision]}).to_string();
            let frame = frames::write(encoding, &text).expect("written");
            let text = frames::read(encoding, frame[frames::HEAD_BYTES..].to_vec()).expect("read");
            match messages::read(&text, 1) {
                Ok(FromProgram::Resolved(4, mut decided)) => decided.remove(0),
                other => panic!("{other:?}"),
            }
        };
        for at in ["state", "body", "data"] {
            let decided = say(PROGRAM_DEPTH_MAX, at);
            assert_eq!(decided.decision.ruling, Ruling::Granted, "{at}");
            if let Some(state) = decided.state {
                frames::write(encoding, &messages::resolve(1, &state, &[text(1, 1)])).expect("it can be asked about");
            }
            match say(PROGRAM_DEPTH_MAX + 1, at).decision.ruling {
                Ruling::Failed(why) => assert!(why.error.contains("is nested 101 levels deep, not at most 100"), "{why:?}"),
                other => panic!("{at}: {other:?}"),
            }
        }
    }
    // No decoder reads this one: no request with it could be written.
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let answer = format!("{{\"type\":\"resolved\",\"id\":4,\"decisions\":[{{\"outcome\":\"granted\",\"state\":{deep}}}]}}");
    match messages::read(&answer, 1) {
        Ok(FromProgram::Resolved(4, decided)) => assert!(matches!(decided[0].decision.ruling, Ruling::Failed(_)), "{decided:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messagepack_that_json_cannot_say_is_refused() {
    use rmpv::Value::{Binary, Ext, F32, F64, Map};
    for (value, why) in [
        (F64(f64::NAN), "NaN: use a finite number"),
        (F32(f32::NEG_INFINITY), "-inf: use a finite number"),
        (Binary(vec![1]), "binary data: use text"),
        (Ext(1, vec![1]), "an extension: use plain data"),
        (Map(vec![(1.into(), 2.into())]), "the key 1 of a map: use text"),
    ] {
        let message = Map(vec![("body".into(), rmpv::Value::Array(vec![value]))]);
        let mut body = Vec::new();
        rmpv::encode::write_value(&mut body, &message).expect("written");
        let refused = frames::read(Encoding::MessagePack, body).expect_err("refused").to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    for (text, why) in [
        ("[]", "no message"),
        ("{\"type\":\"dance\"}", "use hello, resolved, migrated, pong or log"),
        ("{\"type\":\"resolved\",\"id\":1,\"decisions\":[]}", "0 decisions on 1 events"),
        ("{\"type\":\"hello\",\"protocol\":2,\"name\":\"a\",\"version\":1}", "protocol 2: this worker speaks 1"),
        ("{\"type\":\"hello\",\"protocol\":1,\"name\":\"a b\",\"version\":1}", "name \"a b\""),
    ] {
        let refused = messages::read(text, 1).expect_err("refused");
        assert!(refused.contains(why), "{text}: {refused}");
    }
}

#[test]
fn a_frame_has_the_length_that_it_says() {
    assert_eq!(frames::length([0, 0, 0, 0]), Err(FrameError::Empty));
    assert_eq!(frames::length([0, 0, 1, 2]), Ok(258));
    assert_eq!(frames::length([255; 4]), Err(FrameError::TooLarge(u32::MAX.into())));
    assert!(frames::write(Encoding::Json, &"x".repeat(PROGRAM_FRAME_BYTES_MAX + 1)).is_err());
}

fn plain() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300_f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// In both encodings, and it is known which it is.
    #[test]
    fn messages_survive_the_socket(map in proptest::collection::btree_map(any::<String>(), plain(), 0..20)) {
        let value = Value::Object(map.into_iter().collect());
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let frame = frames::write(encoding, &value.to_string()).expect("written");
            let (head, body) = frame.split_at(frames::HEAD_BYTES);
            prop_assert_eq!(frames::length(head.try_into().expect("four")), Ok(body.len()));
            prop_assert_eq!(frames::encoding(body), encoding);
            let text = frames::read(encoding, body.to_vec()).expect("read");
            prop_assert_eq!(&serde_json::from_str::<Value>(&text).expect("JSON"), &value);
        }
    }
}
