use bytes::Bytes;
use proptest::prelude::*;
use rmpv::Value as Mp;
use serde_json::{Value as Json, json};

use super::*;
use crate::types::{Action, Audience, Flags, Incarnation, Moment, Outcome, Stamp, Verdict, VerdictKind};

/// What a client could mean by its arguments, in both encodings.
#[derive(Debug, Clone)]
enum Meant {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Array(Vec<Meant>),
    Map(std::collections::BTreeMap<String, Meant>),
}

impl Meant {
    fn json(&self) -> Json {
        match self {
            Self::Nil => Json::Null,
            Self::Bool(b) => json!(b),
            Self::Unsigned(n) => json!(n),
            Self::Signed(n) => json!(n),
            Self::Float(x) => json!(x),
            Self::Text(t) => json!(t),
            Self::Array(items) => items.iter().map(Self::json).collect(),
            Self::Map(map) => Json::Object(map.iter().map(|(k, v)| (k.clone(), v.json())).collect()),
        }
    }

    /// With the keys in reverse order.
    fn msgpack(&self) -> Mp {
        match self {
            Self::Nil => Mp::Nil,
            Self::Bool(b) => Mp::from(*b),
            Self::Unsigned(n) => Mp::from(*n),
            Self::Signed(n) => Mp::from(*n),
            Self::Float(x) => Mp::from(*x),
            Self::Text(t) => Mp::from(t.as_str()),
            Self::Array(items) => Mp::Array(items.iter().map(Self::msgpack).collect()),
            Self::Map(map) => Mp::Map(map.iter().rev().map(|(k, v)| (Mp::from(k.as_str()), v.msgpack())).collect()),
        }
    }
}

fn meant() -> impl Strategy<Value = Meant> {
    let leaf = prop_oneof![
        Just(Meant::Nil),
        any::<bool>().prop_map(Meant::Bool),
        any::<u64>().prop_map(Meant::Unsigned),
        any::<i64>().prop_map(Meant::Signed),
        (-200..200i64).prop_map(Meant::Signed),
        any::<f64>().prop_map(Meant::Float),
        ".{0,12}".prop_map(Meant::Text),
    ];
    leaf.prop_recursive(6, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Meant::Array),
            proptest::collection::btree_map(".{0,6}", inner, 0..5).prop_map(Meant::Map),
        ]
    })
}

fn pack(value: &Mp) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("memory");
    bytes
}

fn action_json(args: &Json) -> Vec<u8> {
    serde_json::to_vec(&json!({"op": "hit", "id": "a1", "contest": "baron", "as": "bob", "args": args})).expect("json")
}

fn action_msgpack(args: Mp) -> Vec<u8> {
    let text = |t: &str| Mp::from(t);
    pack(&Mp::Map(vec![
        (text("args"), args),
        (text("as"), text("bob")),
        (text("contest"), text("baron")),
        (text("id"), text("a1")),
        (text("op"), text("hit")),
    ]))
}

fn json_action(text: &str) -> Result<Action, Refusal> {
    parse_action(Encoding::Json, text.as_bytes())
}

proptest! {
    #[test]
    fn both_encodings_mean_the_same_action(meant in meant()) {
        let from_json = parse_action(Encoding::Json, &action_json(&meant.json())).expect("json");
        let from_msgpack = parse_action(Encoding::Msgpack, &action_msgpack(meant.msgpack())).expect("msgpack");
        prop_assert_eq!(&from_json, &from_msgpack);
        // The canonical form is read and written unchanged.
        let args = rmpv::decode::read_value(&mut &*from_json.args).expect("args");
        prop_assert_eq!(pack(&args), from_json.args.to_vec());
    }

    #[test]
    fn arbitrary_bytes_are_an_action_or_a_refusal(bytes: Vec<u8>) {
        for encoding in [Encoding::Json, Encoding::Msgpack] {
            if let Err(refusal) = parse_action(encoding, &bytes) {
                prop_assert!(!refusal.message.is_empty() && !refusal.message.contains('\n'));
            }
        }
    }

    #[test]
    fn damaged_actions_are_an_action_or_a_refusal(meant in meant(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        for (encoding, mut bytes) in
            [(Encoding::Json, action_json(&meant.json())), (Encoding::Msgpack, action_msgpack(meant.msgpack()))]
        {
            prop_assert!(parse_action(encoding, &bytes[..cut.index(bytes.len())]).is_err());
            let index = at.index(bytes.len());
            bytes[index] = byte;
            let _ = parse_action(encoding, &bytes);
        }
    }

    #[test]
    fn any_body_makes_a_readable_frame(body: Vec<u8>, from: Option<u64>) {
        let frames = VerdictFrames::new(Verdict { body: Some(body.into()), ..verdict() }, None);
        serde_json::from_slice::<Json>(&frames.encode(Encoding::Json, from)).expect("json");
        read_msgpack(&frames.encode(Encoding::Msgpack, from));
    }

    #[test]
    fn bodies_reach_json_as_meant(meant in meant()) {
        let body = Some(Bytes::from(pack(&meant.msgpack())));
        let frame = VerdictFrames::new(Verdict { body, ..verdict() }, None).encode(Encoding::Json, None);
        let frame: Json = serde_json::from_slice(&frame).expect("json");
        prop_assert_eq!(&frame["body"], &meant.json());
    }

    #[test]
    fn any_text_survives_in_frames(reason: String, id: String, contest: String) {
        let v = Verdict { outcome: Outcome::Denied(reason.clone()), id: Some(id.clone()), contest: Some(contest.clone()), ..verdict() };
        let frames = VerdictFrames::new(v, None);
        for frame in both(|encoding| frames.encode(encoding, Some(2))) {
            prop_assert_eq!(frame["reason"].as_str(), Some(&*reason));
            prop_assert_eq!(frame["id"].as_str(), Some(&*id));
            prop_assert_eq!(frame["contest"].as_str(), Some(&*contest));
        }
    }
}

#[test]
fn an_action_is_read() {
    let action = json_action(r#"{"op":"hit","id":"a1","contest":"baron","args":{"z":1,"damage":300,"a":-1.5}}"#).expect("action");
    assert_eq!((action.op.as_str(), action.id.as_str(), action.contest.as_deref()), ("hit", "a1", Some("baron")));
    assert_eq!(action.player, None);
    let mut expected = b"\x83\xa1a\xcb".to_vec();
    expected.extend((-1.5f64).to_be_bytes());
    expected.extend(b"\xa6damage\xcd\x01\x2c\xa1z\x01");
    assert_eq!(action.args, expected);
    let bare = json_action(r#"{"op":"hit","id":"a1","contest":null}"#).expect("action");
    assert_eq!((bare.contest, &*bare.args), (None, &[0xc0][..]));
}

#[test]
fn refusals_name_the_value_and_carry_the_id() {
    let long = "x".repeat(65);
    let deep = format!(r#"{{"op":"hit","args":{}1{},"id":"a1"}}"#, "[".repeat(17), "]".repeat(17));
    for (text, code, id, says) in [
        ("{", ErrorCode::BadJson, None, "EOF"),
        (r#"{"op":"hit","id":"a1"} x"#, ErrorCode::BadJson, None, "trailing"),
        ("[1]", ErrorCode::BadAction, None, "an array"),
        (r#"{"op":"hit"}"#, ErrorCode::BadAction, None, r#""id" is missing"#),
        (r#"{"id":"a1"}"#, ErrorCode::BadAction, Some("a1"), r#""op" is missing"#),
        (r#"{"op":7,"id":"a1"}"#, ErrorCode::BadAction, Some("a1"), r#""op" is an integer"#),
        (r#"{"op":"","id":"a1"}"#, ErrorCode::BadAction, Some("a1"), "0 bytes"),
        (r#"{"op":"hit","id":7}"#, ErrorCode::BadAction, None, r#""id" is an integer"#),
        (&format!(r#"{{"op":"{long}","id":"a1"}}"#), ErrorCode::BadAction, Some("a1"), "65 bytes"),
        (&format!(r#"{{"op":"hit","id":"{long}"}}"#), ErrorCode::BadAction, None, "65 bytes"),
        (r#"{"op":"hit","colour":1,"id":"a1"}"#, ErrorCode::UnknownField, Some("a1"), r#""colour""#),
        (r#"{"op":"hit","op":"hit","id":"a1"}"#, ErrorCode::BadAction, Some("a1"), r#""op" is given twice"#),
        (r#"{"op":"hit","as":"b b","id":"a1"}"#, ErrorCode::BadAction, Some("a1"), r#""b b""#),
        (r#"{"op":"hit","args":{"k":1,"k":2},"id":"a1"}"#, ErrorCode::BadAction, Some("a1"), r#""k" twice"#),
        (&deep, ErrorCode::BadAction, Some("a1"), "deeper than 16"),
        (&"[".repeat(4000), ErrorCode::BadJson, None, "EOF"),
    ] {
        let refusal = json_action(text).expect_err(text);
        assert_eq!((refusal.code, refusal.id.as_deref()), (code, id), "{text}: {refusal}");
        assert!(refusal.message.contains(says), "{text}: {refusal}");
    }
    assert!(json_action(&deep.replace("[[", "[").replace("]]", "]")).is_ok());
}

#[test]
fn messagepack_is_held_to_the_same() {
    let with_args = |args: Mp| parse_action(Encoding::Msgpack, &action_msgpack(args)).expect_err("refused");
    let odd_key = Mp::Map(vec![(Mp::from(1), Mp::Nil)]);
    for (args, says) in [
        (Mp::Binary(vec![1]), "binary"),
        (Mp::Ext(5, vec![1, 2, 3]), "extension"),
        (Mp::from(f64::NAN), "NaN"),
        (Mp::from(f32::INFINITY), "inf"),
        (odd_key, "keys"),
        (Mp::Map(vec![(Mp::from("k"), Mp::Nil), (Mp::from("k"), Mp::Nil)]), "\"k\" twice"),
    ] {
        let refusal = with_args(args);
        assert_eq!((refusal.code, refusal.id.as_deref()), (ErrorCode::BadAction, Some("a1")), "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
    }
    let mut trailing = action_msgpack(Mp::Nil);
    trailing.push(0xc0);
    for (bytes, says) in [
        (trailing, "trailing"),
        ([action_msgpack(Mp::Nil), vec![0xc1]].concat(), "trailing"),
        ([action_msgpack(Mp::Nil), vec![0xd9]].concat(), "trailing"),
        ([action_msgpack(Mp::Nil), vec![0xc3]].concat(), "trailing"),
        ([action_msgpack(Mp::Nil), vec![0x91]].concat(), "trailing"),
        ([action_msgpack(Mp::Nil), vec![0x81]].concat(), "trailing"),
        ([action_msgpack(Mp::Nil), vec![0x92, 0xc0]].concat(), "trailing"),
        ([action_msgpack(Mp::Nil), vec![0xdc, 0xff, 0xff, 0xc0]].concat(), "trailing"),
        (vec![0x91; 4096], "depth"),
        (vec![0xdf, 0xff, 0xff, 0xff, 0xff, 0xa2], ""),
        (vec![0xdd, 0xff, 0xff, 0xff, 0xff, 0x01], ""),
        (vec![0xdb, 0xff, 0xff, 0xff, 0xff, 0x01], ""),
        (vec![], ""),
    ] {
        let refusal = parse_action(Encoding::Msgpack, &bytes).expect_err("refused");
        assert_eq!(refusal.code, ErrorCode::BadMsgpack, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
    }
    // A string of bytes that are not UTF-8, as the op and inside the arguments.
    let bad = b"\x82\xa2id\xa2a1\xa2op\xa1\xff";
    let refusal = parse_action(Encoding::Msgpack, bad).expect_err("refused");
    assert_eq!((refusal.code, refusal.id.as_deref()), (ErrorCode::BadAction, Some("a1")));
    assert!(refusal.message.contains("UTF-8"), "{refusal}");
    assert_eq!(json_action("{\"op\":\"\u{0}\",\"id\":\"a\"}").expect_err("control").code, ErrorCode::BadJson);
    assert_eq!(parse_action(Encoding::Json, b"{\"op\":\"\xff\",\"id\":\"a\"}").expect_err("utf-8").code, ErrorCode::BadJson);
}

fn verdict() -> Verdict {
    Verdict {
        seq: 17,
        stamp: Stamp { moment: Moment { timeline: 1, ns: u64::MAX }, incarnation: Incarnation(0xabcd << 96), ordinal: 4 },
        kind: VerdictKind::Data,
        session: 3,
        player: Some(PlayerId::new("ann").expect("name")),
        id: Some("a1".into()),
        contest: Some("baron".into()),
        round: 1,
        outcome: Outcome::Denied("late".into()),
        uncertainty_ns: 1200,
        behind_ns: Some(8300),
        flags: Flags::CLAMPED.with(Flags::UNPROVEN).with(Flags::PHOTO_FINISH).with(Flags::READ_TIME),
        raw_ns: None,
        audience: Audience::Room,
        body: Some(pack(&Mp::Map(vec![(Mp::from("hp"), Mp::from(0))])).into()),
        fire: None,
        change: None,
    }
}

fn read_msgpack(bytes: &[u8]) -> Json {
    let mut rest = bytes;
    let value = rmpv::decode::read_value(&mut rest).expect("msgpack");
    assert!(rest.is_empty(), "{} trailing bytes", rest.len());
    let fields = value.as_map().expect("a message");
    let names: std::collections::BTreeSet<_> = fields.iter().map(|(name, _)| name.as_str().expect("a name")).collect();
    assert_eq!(names.len(), fields.len(), "a field twice");
    json_of(value)
}

/// A body may have keys of any type, also the same key twice.
fn json_of(value: Mp) -> Json {
    match value {
        Mp::Map(entries) => {
            let key = |key: &Mp| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            entries.into_iter().map(|(k, v)| (key(&k), json_of(v))).collect()
        }
        Mp::Array(items) => items.into_iter().map(json_of).collect(),
        other => serde_json::to_value(other).unwrap_or(Json::Null),
    }
}

fn both(encode: impl Fn(Encoding) -> Bytes) -> [Json; 2] {
    [serde_json::from_slice(&encode(Encoding::Json)).expect("json"), read_msgpack(&encode(Encoding::Msgpack))]
}

/// The message with nanoseconds as MessagePack has them.
fn with_numbers(mut json: Json) -> Json {
    for key in ["arrival_ns", "uncertainty_ns", "behind_ns"] {
        if let Some(value) = json.get_mut(key) {
            *value = json!(value.as_str().expect("decimal text").parse::<u64>().expect("number"));
        }
    }
    json
}

#[test]
fn a_verdict_has_its_fields_in_both_encodings() {
    let session = format!("{}", verdict().session_id());
    let expected = json!({
        "t": "verdict", "seq": 17, "event": "data", "session": session, "player": "ann", "id": "a1", "contest": "baron",
        "round": 1, "outcome": "denied", "reason": "late", "arrival_ns": "18446744073709551615", "uncertainty_ns": "1200",
        "behind_ns": "8300", "photo_finish": true, "clamped": true, "unproven": true, "read_time": true, "repeat_of": 9, "body": {"hp": 0},
    });
    let frames = VerdictFrames::new(verdict(), Some(9));
    let [json, msgpack] = both(|encoding| frames.encode(encoding, None));
    assert_eq!(json, expected);
    assert_eq!(msgpack, with_numbers(expected.clone()));

    let mut covering = expected;
    covering["from"] = json!(12);
    let [json, msgpack] = both(|encoding| frames.encode(encoding, Some(12)));
    assert_eq!(json, covering);
    assert_eq!(msgpack, with_numbers(covering));
    let [json, _] = both(|encoding| frames.encode(encoding, Some(17)));
    assert_eq!(json.get("from"), None);
}

#[test]
fn absent_fields_are_left_out_and_a_frame_is_encoded_once() {
    let bare = Verdict {
        kind: VerdictKind::Open,
        id: None,
        contest: None,
        round: 0,
        outcome: Outcome::Granted,
        behind_ns: None,
        flags: Flags::default(),
        body: None,
        ..verdict()
    };
    let expected = json!({"t": "verdict", "seq": 17, "event": "open", "session": bare.session_id().to_string(), "player": "ann",
        "outcome": "granted", "arrival_ns": "18446744073709551615", "uncertainty_ns": "1200"});
    let frames = VerdictFrames::new(bare.clone(), None);
    for from in [None, Some(1)] {
        let mut expected = expected.clone();
        if let Some(from) = from {
            expected["from"] = json!(from);
        }
        let [json, msgpack] = both(|encoding| frames.encode(encoding, from));
        assert_eq!(json, expected);
        assert_eq!(msgpack, with_numbers(expected));
    }
    let (a, b) = (frames.encode(Encoding::Json, None), frames.encode(Encoding::Json, None));
    assert_eq!(a.as_ptr(), b.as_ptr());
    // Fifteen fields need one byte of header, and `from` makes it three.
    let edge = Verdict {
        contest: Some("c".into()),
        id: Some("i".into()),
        round: 2,
        outcome: Outcome::Denied("late".into()),
        behind_ns: Some(1),
        flags: Flags::CLAMPED.with(Flags::PHOTO_FINISH),
        ..bare
    };
    let frames = VerdictFrames::new(edge, None);
    assert_eq!(frames.encode(Encoding::Msgpack, None)[0], 0x8f);
    assert_eq!(read_msgpack(&frames.encode(Encoding::Msgpack, Some(3)))["from"], json!(3));
}

#[test]
fn outcomes_that_are_no_decision_have_their_words() {
    let of = |outcome| {
        serde_json::from_slice::<Json>(&VerdictFrames::new(Verdict { outcome, ..verdict() }, None).encode(Encoding::Json, None))
            .expect("json")
    };
    let void = of(Outcome::Void("unreadable".into()));
    assert_eq!((&void["outcome"], &void["reason"]), (&json!("void"), &json!("unreadable")));
    let repeat = of(Outcome::Repeat { of: 4 });
    assert_eq!((&repeat["outcome"], &repeat["reason"], &repeat["repeat_of"]), (&json!("void"), &json!("repeat"), &json!(4)));
    let stray = Verdict { stamp: Stamp { incarnation: Incarnation::NONE, ..verdict().stamp }, player: None, ..verdict() };
    let stray: Json = serde_json::from_slice(&VerdictFrames::new(stray, None).encode(Encoding::Json, None)).expect("json");
    assert_eq!((stray.get("session"), stray.get("player")), (None, None));
}

#[test]
fn what_the_rules_say_to_one_who_joins_is_sent_to_nobody_else() {
    for (kind, sent) in [(VerdictKind::Open, false), (VerdictKind::Data, true), (VerdictKind::Close, true)] {
        let said = Verdict { kind, body: Some(pack(&Mp::from("state")).into()), ..verdict() };
        for encoding in [Encoding::Json, Encoding::Msgpack] {
            let frame = VerdictFrames::new(said.clone(), None).encode(encoding, None);
            assert_eq!(frame.windows(5).any(|bytes| bytes == b"state"), sent, "{kind:?} {encoding:?}");
        }
    }
}

#[test]
fn a_welcome_has_its_fields_in_both_encodings() {
    let welcome = Welcome {
        home: 7,
        session: verdict().session_id(),
        player: PlayerId::new("ann").expect("name"),
        role: Role::Server,
        era: 3,
        seq: 120,
        resumed: false,
        gone: true,
        state: Some(pack(&Mp::Map(vec![(Mp::from("targets"), Mp::Array(vec![Mp::from(1.5)]))])).into()),
        clock: "kernel",
        uncertainty_ns: 2000,
    };
    let mut expected = json!({
        "t": "welcome", "session": verdict().session_id().to_string(), "player": "ann", "role": "server", "era": 3, "home": 7, "seq": 120,
        "resumed": false, "gone": true, "state": {"targets": [1.5]}, "clock": {"source": "kernel", "uncertainty_ns": "2000"},
        "limits": {"message_bytes": 4096, "field_bytes": 64, "args_depth": 16, "recent_ids": 1024, "room_ids": 524288, "ping_s": 20, "idle_s": 60},
    });
    let [json, msgpack] = both(|encoding| encode_welcome(encoding, &welcome));
    assert_eq!(json, expected);
    expected["clock"]["uncertainty_ns"] = json!(2000);
    assert_eq!(msgpack, expected);
    let [json, _] = both(|encoding| encode_welcome(encoding, &Welcome { state: None, ..welcome.clone() }));
    assert_eq!(json.get("state"), None);
}

#[test]
fn a_refusal_has_its_fields_in_both_encodings() {
    let refusal = Refusal { code: ErrorCode::Busy, id: Some("a\"1".into()), message: "room \"x\" is busy\n".into() };
    let expected = json!({"t": "error", "code": "busy", "id": "a\"1", "message": "room \"x\" is busy\n"});
    assert_eq!(both(|encoding| encode_refusal(encoding, &refusal)), [expected.clone(), expected]);
    let [json, _] = both(|encoding| encode_refusal(encoding, &Refusal { id: None, ..refusal.clone() }));
    assert_eq!(json.get("id"), None);
}

#[test]
fn odd_bodies_are_shown_as_json_can() {
    let odd = Mp::Map(vec![
        (Mp::from(7), Mp::from(f64::NAN)),
        (Mp::from("bin"), Mp::Binary(vec![1, 255])),
        (Mp::from("ext"), Mp::Ext(1, vec![1])),
        (Mp::from("f"), Mp::from(0.5f32)),
    ]);
    let frame = VerdictFrames::new(Verdict { body: Some(pack(&odd).into()), ..verdict() }, None).encode(Encoding::Json, None);
    let frame: Json = serde_json::from_slice(&frame).expect("json");
    assert_eq!(frame["body"], json!({"7": null, "bin": [1, 255], "ext": null, "f": 0.5}));
}

#[test]
fn subprotocols_name_encodings() {
    for encoding in [Encoding::Json, Encoding::Msgpack] {
        assert_eq!(Encoding::of_subprotocol(encoding.subprotocol()), Some(encoding));
    }
    assert_eq!(Encoding::of_subprotocol("lasthit.v2.json"), None);
    assert!(Encoding::Json.is_text() && !Encoding::Msgpack.is_text());
}
