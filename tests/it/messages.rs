//! Messages that are no actions, and actions that make no sense: each gets an error that names the value, and the session
//! goes on.

use rmpv::Value as Packed;
use serde_json::{Value, json};

use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::support::{GatewayProcess, Session};

/// Sends `message`, and is told `code` and `part` of the reason.
async fn check(session: &mut Session, message: Message, code: &str, part: &str) {
    session.ws.send(message.clone()).await.expect("sent");
    let error = session.recv().await;
    assert_eq!((&error["t"], &error["code"]), (&json!("error"), &json!(code)), "{message:?}: {error}");
    let text = error["message"].as_str().expect("a message");
    assert!(text.contains(part) && !text.contains('\n'), "{part:?} is not in {text:?}");
    assert!(text.len() < 300, "{text}");
}

async fn scene() -> (GatewayProcess, Session) {
    let gateway = GatewayProcess::serve(&[]);
    let bystander = gateway.ticket("pit", "bystander").server().join().await;
    (gateway, bystander)
}

async fn undisturbed(bystander: &mut Session, offender: &mut Session) {
    for session in [&mut *bystander, offender] {
        assert_eq!(session.hit("still-here", "nothing", 1).await["reason"], "unknown_target");
    }
    assert!(bystander.seen.iter().all(|v| v["event"] != "end"), "nobody was closed");
    let acted = bystander.seen.iter().filter(|v| v["event"] == "data" && v["id"] != "still-here").count();
    assert_eq!(acted, 0, "none of it reached the room");
}

#[tokio::test]
async fn text_that_is_no_action() {
    let (gateway, mut bystander) = scene().await;
    let mut ann = gateway.ticket("pit", "ann").join().await;
    let deep = format!(r#"{{"op":"hit","id":"1","args":{}1{}}}"#, "[".repeat(17), "]".repeat(17));
    let abyss = format!(r#"{{"op":"hit","id":"1","args":{}"#, "[".repeat(3_000));
    let long = "x".repeat(65);
    for (text, code, part) in [
        ("", "bad_json", ""),
        ("{", "bad_json", ""),
        ("hit baron", "bad_json", ""),
        (r#"{"op":"hit","id":"1"} {"op":"hit","id":"2"}"#, "bad_json", ""),
        (r#"{"op":"hit","id":"1"}x"#, "bad_json", ""),
        ("[]", "bad_action", ""),
        ("null", "bad_action", ""),
        (r#"{"op":"hit"}"#, "bad_action", "\"id\" is missing"),
        (r#"{"id":"1"}"#, "bad_action", "\"op\" is missing"),
        (r#"{"op":"hit","id":7}"#, "bad_action", "id"),
        (r#"{"op":"","id":"1"}"#, "bad_action", "op"),
        (&format!(r#"{{"op":"hit","id":"{long}"}}"#), "bad_action", "64"),
        (&format!(r#"{{"op":"hit","id":"1","contest":"{long}"}}"#), "bad_action", "64"),
        (r#"{"op":"hit","id":"1","colour":"red"}"#, "unknown_field", "colour"),
        (r#"{"op":"hit","id":"1","id":"2"}"#, "bad_action", "id"),
        (r#"{"op":"hit","id":"1","args":{"a":1,"a":2}}"#, "bad_action", "twice"),
        (&deep, "bad_action", "16"),
        (&abyss, "bad_", ""),
        (r#"{"op":"hit","id":"1","args":1e999}"#, "bad_", ""),
        (r#"{"op":"hit","id":"1","as":"bob"}"#, "forbidden", "bob"),
        (r#"{"op":"hit","id":"1","as":"a b"}"#, "bad_action", "a b"),
    ] {
        if code == "bad_" {
            ann.ws.send(Message::text(text.to_owned())).await.expect("sent");
            let error = ann.recv().await;
            assert!(error["code"].as_str().is_some_and(|code| ["bad_json", "bad_action"].contains(&code)), "{error}");
            continue;
        }
        check(&mut ann, Message::text(text.to_owned()), code, part).await;
    }
    undisturbed(&mut bystander, &mut ann).await;
}

#[tokio::test]
async fn messagepack_that_is_no_action() {
    let (gateway, mut bystander) = scene().await;
    let mut ann = gateway.ticket("pit", "ann").msgpack().join().await;
    let text = |text: &str| Packed::from(text);
    let pack = |fields: Vec<(&str, Packed)>| {
        let map = fields.into_iter().map(|(key, value)| (Packed::from(key), value)).collect();
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &Packed::Map(map)).expect("encoded");
        bytes
    };
    let good = pack(vec![("op", text("hit")), ("id", text("1"))]);
    let args = |args: Packed| pack(vec![("op", text("hit")), ("id", text("1")), ("args", args)]);
    let deep = (0..17).fold(Packed::Nil, |inner, _| Packed::Array(vec![inner]));
    let mut abyss = pack(vec![("op", text("hit")), ("id", text("1"))]);
    abyss[0] = 0x83;
    abyss.extend(b"\xa4args");
    abyss.extend([0x91; 4_000]);
    let number_key = Packed::Map(vec![(Packed::from(1), Packed::Nil)]);
    // A map that says it has four billion entries.
    let huge = [0xdf, 0xff, 0xff, 0xff, 0xff].to_vec();
    for (bytes, code, part) in [
        (Vec::new(), "bad_msgpack", ""),
        (good[..good.len() - 1].to_vec(), "bad_msgpack", ""),
        ([&good[..], b"\xc0"].concat(), "bad_msgpack", ""),
        ([&good[..], &good[..]].concat(), "bad_msgpack", ""),
        (vec![0xc1], "bad_msgpack", ""),
        (vec![0xc0], "bad_action", ""),
        (huge, "bad_msgpack", ""),
        (pack(vec![("op", text("hit"))]), "bad_action", "\"id\" is missing"),
        (pack(vec![("op", text("hit")), ("id", Packed::from(7))]), "bad_action", "id"),
        (pack(vec![("op", text("hit")), ("id", text("1")), ("colour", text("red"))]), "unknown_field", "colour"),
        (args(deep), "bad_action", "16"),
        (args(number_key), "bad_action", ""),
        (args(Packed::Binary(vec![1])), "bad_action", "binary"),
        (args(Packed::Ext(1, vec![1])), "bad_action", "ext"),
        (args(Packed::F64(f64::NAN)), "bad_action", ""),
        (pack(vec![("op", text("hit")), ("id", text("1")), ("as", text("bob"))]), "forbidden", "bob"),
    ] {
        check(&mut ann, Message::binary(bytes), code, part).await;
    }
    ann.ws.send(Message::binary(abyss)).await.expect("sent");
    let error = ann.recv().await;
    assert!(error["code"].as_str().is_some_and(|code| ["bad_msgpack", "bad_action"].contains(&code)), "{error}");
    undisturbed(&mut bystander, &mut ann).await;
}

#[tokio::test]
async fn actions_that_the_rules_deny() {
    let (gateway, mut keeper) = scene().await;
    let mut ann = gateway.ticket("pit", "ann").join().await;
    keeper.ask("spawn", "s", "baron", json!({"hp": 10})).await;
    let big = 1_000_000_001u64;
    let cases: [(&str, &str, Value, &str); 10] = [
        ("fly", "baron", json!(null), "unknown_op"),
        ("hit", "dragon", json!({"damage": 1}), "unknown_target"),
        ("hit", "baron", json!({"damage": 0}), "no_damage"),
        ("hit", "baron", json!({"damage": -5}), "negative_damage"),
        ("hit", "baron", json!({ "damage": big }), "too_much_damage"),
        ("hit", "baron", json!({"damage": "lots"}), "bad_args"),
        ("hit", "baron", json!({"damage": 1.5}), "bad_args"),
        ("hit", "baron", json!([1]), "bad_args"),
        ("hit", "baron", json!(null), "bad_args"),
        ("despawn", "baron", json!(null), "server_only"),
    ];
    for (n, (op, contest, args, reason)) in cases.into_iter().enumerate() {
        let denied = ann.ask(op, &format!("d{n}"), contest, args).await;
        assert_eq!((&denied["outcome"], &denied["reason"]), (&json!("denied"), &json!(reason)), "{denied}");
    }
    ann.send(&json!({"op": "hit", "id": "nowhere", "args": {"damage": 1}})).await;
    assert_eq!(ann.answer("nowhere").await["reason"], "no_contest");
    for (n, (hp, reason)) in [(json!(0), "bad_hp"), (json!(-1), "bad_hp"), (json!(1e15), "bad_args")].into_iter().enumerate() {
        let denied = keeper.ask("spawn", &format!("b{n}"), "drake", json!({ "hp": hp })).await;
        assert_eq!(denied["reason"], reason, "{denied}");
    }
    assert_eq!(keeper.ask("spawn", "s2", "baron", json!({"hp": 10})).await["reason"], "already_spawned");
    assert_eq!(ann.hit("h", "baron", 3).await["body"]["hp"], 7, "the target has kept its points");
}
