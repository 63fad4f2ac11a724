//! The protocol's description is run: its actions are parsed, its server messages are what the encoder makes of their
//! values, its tables have every code.

use lasthit::types::{
    Action, Audience, Change, Fire, Flags, Incarnation, Moment, Outcome, PlayerId, ProgramId, Role, RoomTime, SessionId, Stamp,
    Verdict, VerdictKind,
};
use lasthit::wire::client::{
    Encoding, ErrorCode, Refusal, VerdictFrames, Welcome, close, encode_move, encode_refusal, encode_welcome, parse_action,
};
use serde_json::Value;

const DOC: &str = include_str!("../../docs/protocol.md");

/// The fenced blocks with this tag.
fn blocks(tag: &str) -> Vec<&'static str> {
    let fence = format!("\n```{tag}\n");
    DOC.split(fence.as_str()).skip(1).map(|rest| rest.split("\n```").next().expect("a closed block")).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn action(encoding: Encoding, bytes: &[u8]) -> Action {
    parse_action(encoding, bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).map(|v| v.as_str().unwrap_or_else(|| panic!("{key} is no string: {value}")).to_owned())
}

fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key).map(|v| v.as_u64().unwrap_or_else(|| panic!("{key} is no number: {value}")))
}

fn nanos(value: &Value, key: &str) -> Option<u64> {
    text(value, key).map(|digits| digits.parse().expect("decimal digits"))
}

fn msgpack(value: &Value, key: &str) -> Option<bytes::Bytes> {
    value.get(key).map(|v| rmp_serde::to_vec_named(v).expect("msgpack").into())
}

fn session(value: &Value) -> SessionId {
    let text = text(value, "session").expect("session");
    let (gateway, number) = text.split_once('-').expect("gateway and number");
    let gateway = u128::from_str_radix(gateway, 16).expect("hexadecimal") << 96;
    SessionId { gateway: Incarnation(gateway), number: number.parse().expect("number") }
}

fn player(value: &Value) -> Option<PlayerId> {
    text(value, "player").map(|name| PlayerId::new(&name).expect("name"))
}

fn verdict(v: &Value) -> Verdict {
    let kinds = [
        VerdictKind::Open,
        VerdictKind::Data,
        VerdictKind::End,
        VerdictKind::Error,
        VerdictKind::Close,
        VerdictKind::Timer,
        VerdictKind::Rules,
    ];
    let set = |key, flag| if v.get(key) == Some(&Value::Bool(true)) { flag } else { Flags::default() };
    let reason = || text(v, "reason").expect("reason");
    Verdict {
        seq: number(v, "seq").expect("seq"),
        stamp: Stamp {
            moment: Moment { timeline: 1, ns: nanos(v, "arrival_ns").expect("arrival") },
            incarnation: if v.get("session").is_some() { session(v).gateway } else { Incarnation::NONE },
            ordinal: 1,
        },
        kind: kinds.into_iter().find(|k| Some(k.as_str()) == v["event"].as_str()).expect("event"),
        session: v.get("session").map_or(0, |_| session(v).number),
        player: player(v),
        id: text(v, "id"),
        contest: text(v, "contest"),
        round: number(v, "round").unwrap_or(0),
        outcome: match v["outcome"].as_str() {
            Some("granted") => Outcome::Granted,
            Some("denied") => Outcome::Denied(reason()),
            Some("void") => Outcome::Void(reason()),
            other => panic!("outcome {other:?}"),
        },
        uncertainty_ns: nanos(v, "uncertainty_ns").expect("uncertainty"),
        behind_ns: nanos(v, "behind_ns"),
        flags: set("photo_finish", Flags::PHOTO_FINISH)
            .with(set("clamped", Flags::CLAMPED))
            .with(set("unproven", Flags::UNPROVEN))
            .with(set("read_time", Flags::READ_TIME)),
        raw_ns: None,
        audience: Audience::Room,
        body: msgpack(v, "body"),
        fire: text(v, "timer").map(|name| {
            let due = RoomTime(number(v, "due_ms").expect("due") * 1_000_000);
            let late_ns = nanos(v, "late_ns").expect("late");
            Box::new(Fire { name, due, late_ns, missed: number(v, "missed").unwrap_or(0) })
        }),
        change: v.get("rules").map(|name| {
            let program = text(v, "program").map_or(ProgramId::NONE, |id| id.parse().expect("a program"));
            let version = |key| u32::try_from(number(v, key).expect("a version")).expect("a version");
            let name = name.as_str().expect("a name").to_owned();
            Box::new(Change { program, push: 0, name, version: version("version"), from: version("from_version") })
        }),
    }
}

#[test]
fn every_action_parses() {
    let actions = blocks("json action");
    assert!(actions.len() >= 3);
    let parsed: Vec<Action> = actions.iter().map(|text| action(Encoding::Json, text.as_bytes())).collect();
    let hex: String = blocks("hex action").concat().split_whitespace().collect();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect();
    assert_eq!(action(Encoding::Msgpack, &bytes), parsed[0]);
}

#[test]
fn every_refusal_is_what_is_answered() {
    let pairs = blocks("json refused");
    assert!(pairs.len() >= 3);
    for pair in pairs {
        let (sent, answer) = pair.split_once('\n').expect("two lines");
        let refusal: Refusal = parse_action(Encoding::Json, sent.as_bytes()).expect_err(sent);
        assert_eq!(serde_json::from_slice::<Value>(&encode_refusal(Encoding::Json, &refusal)).expect("json"), json(answer));
    }
}

#[test]
fn every_verdict_is_what_the_encoder_makes() {
    let verdicts = blocks("json verdict");
    assert!(verdicts.len() >= 4);
    for block in verdicts {
        let shown = json(block);
        let frames = VerdictFrames::new(verdict(&shown), number(&shown, "repeat_of"));
        let frame = frames.encode(Encoding::Json, number(&shown, "from"));
        assert_eq!(serde_json::from_slice::<Value>(&frame).expect("json"), shown);
    }
}

#[test]
fn every_welcome_is_what_the_encoder_makes() {
    let welcomes = blocks("json welcome");
    assert!(!welcomes.is_empty());
    for block in welcomes {
        let shown = json(block);
        let welcome = Welcome {
            session: session(&shown),
            player: player(&shown).expect("player"),
            role: if shown["role"] == "server" { Role::Server } else { Role::Player },
            era: number(&shown, "era").expect("era"),
            home: number(&shown, "home").and_then(|home| home.try_into().ok()).expect("home"),
            seq: number(&shown, "seq").expect("seq"),
            resumed: shown["resumed"] == true,
            gone: shown["gone"] == true,
            state: msgpack(&shown, "state"),
            clock: if shown["clock"]["source"] == "kernel" { "kernel" } else { "read" },
            uncertainty_ns: nanos(&shown["clock"], "uncertainty_ns").expect("uncertainty"),
        };
        let frame = encode_welcome(Encoding::Json, &welcome);
        assert_eq!(serde_json::from_slice::<Value>(&frame).expect("json"), shown);
        for name in shown["limits"].as_object().expect("limits").keys() {
            assert!(DOC.contains(&format!("\n| `{name}` |")), "limit {name} is not in the table");
        }
    }
}

#[test]
fn every_move_is_what_the_encoder_makes() {
    let moves = blocks("json move");
    assert!(moves.len() >= 2);
    for block in moves {
        let shown = json(block);
        let url = text(&shown, "url");
        let frame = encode_move(Encoding::Json, number(&shown, "within_ms").expect("time"), url.as_deref());
        assert_eq!(serde_json::from_slice::<Value>(&frame).expect("json"), shown);
    }
}

#[test]
fn the_tables_have_every_code_and_no_other() {
    for code in ErrorCode::ALL {
        assert!(DOC.contains(&format!("\n| `{}` |", code.as_str())), "{code:?} is not in the table");
    }
    for (code, _) in close::ALL {
        assert!(DOC.contains(&format!("\n| {code} |")), "close code {code} is not in the table");
    }
    let closes = DOC.split("\n## Close codes").nth(1).expect("section").split("\n## ").next().expect("section");
    let rows = closes.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u16>().ok());
    assert_eq!(rows.collect::<Vec<_>>(), close::ALL.map(|(code, _)| code));
    for subprotocol in [Encoding::Json, Encoding::Msgpack].map(Encoding::subprotocol) {
        assert!(DOC.contains(&format!("| `{subprotocol}` |")));
    }
}
