//! From a socket to a verdict, and to everybody else's socket.

use serde_json::json;

use super::support::{GatewayProcess, Session, WorkerProcess, get, redis};

#[tokio::test]
async fn one_command_serves_the_page_and_plays() {
    let serve = GatewayProcess::serve(&[]);
    serve.process.line_with("end with it");
    let (status, page) = get(serve.address, "/");
    assert!(status == 200 && page.contains("<html"), "{page}");

    let mut keeper = serve.ticket("pit", "keeper").server().join().await;
    let mut ann = serve.ticket("pit", "ann").join().await;
    assert_eq!(ann.welcome["state"], json!({"targets": {}}));
    assert_eq!(keeper.ask("spawn", "s", "baron", json!({"hp": 500})).await["outcome"], "granted");
    assert_eq!(ann.hit("1", "baron", 300).await["body"]["hp"], 200);
    let last = ann.hit("2", "baron", 300).await;
    assert_eq!((&last["body"]["hp"], &last["body"]["overkill"], &last["round"]), (&json!(0), &json!(100), &json!(1)));
    let late = keeper.hit("3", "baron", 1).await;
    assert_eq!((&late["outcome"], &late["reason"]), (&json!("denied"), &json!("late")));
    assert!(late["behind_ns"].as_str().expect("a decimal string").parse::<u64>().is_ok());
    let again = keeper.ask("spawn", "s2", "baron", json!({"hp": 1})).await;
    assert_eq!(again["round"], 2);
    for session in [ann, keeper] {
        session.leave(1000).await;
    }
}

#[tokio::test]
async fn two_gateways_and_two_workers_share_rooms_and_arrival_decides() {
    let redis = redis(&[]);
    let (a, b) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let (_one, _two) = (WorkerProcess::on(&redis, &[]), WorkerProcess::on(&redis, &[]));
    for room in 0..6 {
        let room = format!("claim-{room}");
        let mut ann = a.ticket(&room, "ann").join().await;
        let mut bob = b.ticket(&room, "bob").join().await;
        for n in 0..10 {
            let (contest, id) = (format!("c{n}"), format!("i{n}"));
            // One thread sends both: whose send comes first has arrived first.
            let (first, second) = if n % 2 == 0 { (&mut ann, &mut bob) } else { (&mut bob, &mut ann) };
            first.act("claim", &id, &contest, json!(null)).await;
            second.act("claim", &id, &contest, json!(null)).await;
            let (won, lost) = (first.answer(&id).await, second.answer(&id).await);
            assert_eq!(won["outcome"], "granted", "{room} {contest}: {won} {lost}");
            assert_eq!((&lost["outcome"], &lost["reason"]), (&json!("denied"), &json!("late")), "{room} {contest}: {lost}");
            let ns = |v: &serde_json::Value| v["arrival_ns"].as_str().and_then(|ns| ns.parse::<u64>().ok()).expect("ns");
            assert_eq!(lost["behind_ns"], (ns(&lost) - ns(&won)).to_string());
        }
        same_verdicts(&mut ann, &mut bob).await;
    }
}

/// Both have seen the same, from where the later one joined.
async fn same_verdicts(one: &mut Session, other: &mut Session) {
    let to = one.seq.max(other.seq);
    for session in [&mut *one, &mut *other] {
        if session.seq < to {
            session.find(|v| v["seq"] == to).await;
        }
    }
    let from = one.welcome["seq"].as_u64().max(other.welcome["seq"].as_u64()).expect("seq");
    let seen = |s: &Session| s.seen.iter().filter(|v| v["seq"].as_u64() > Some(from)).cloned().collect::<Vec<_>>();
    assert_eq!(seen(one), seen(other));
    assert!(!seen(one).is_empty());
}

#[tokio::test]
async fn both_subprotocols_give_the_same_results() {
    let serve = GatewayProcess::serve(&[]);
    let mut keeper = serve.ticket("pit", "keeper").server().join().await;
    let mut text = serve.ticket("pit", "ann").join().await;
    let mut binary = serve.ticket("pit", "bob").msgpack().join().await;
    let fields = |s: &Session| s.welcome.as_object().expect("a map").keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&text), fields(&binary));
    for field in ["state", "clock", "limits", "era", "role"] {
        assert_eq!(text.welcome[field], binary.welcome[field], "{field}");
    }
    keeper.ask("spawn", "s", "baron", json!({"hp": 3})).await;
    for n in 0..3 {
        text.hit(&format!("t{n}"), "baron", 1).await;
        let answer = binary.hit(&format!("b{n}"), "baron", 1).await;
        assert!(answer["outcome"] == if n == 0 { "granted" } else { "denied" }, "{answer}");
    }
    same_verdicts(&mut text, &mut binary).await;
    for session in [&mut text, &mut binary] {
        session.act("hit", &"x".repeat(65), "baron", json!(null)).await;
        let refused = session.recv().await;
        assert_eq!((&refused["t"], &refused["code"]), (&json!("error"), &json!("bad_action")), "{refused}");
    }
    assert_eq!(binary.hit("t0", "baron", 1).await["reason"], "late", "ids are the player's own");
    assert_eq!(binary.hit("b0", "baron", 1).await["repeat_of"], binary.find(|v| v["id"] == "b0").await["seq"]);
}

#[tokio::test]
async fn a_server_session_acts_for_players_and_sees_every_verdict() {
    let redis = redis(&[]);
    let (a, b) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let _worker = WorkerProcess::on(&redis, &[]);
    let mut keeper = a.ticket("pit", "keeper").server().join().await;
    let mut ann = b.ticket("pit", "ann").join().await;
    let mut bob = a.ticket("pit", "bob").join().await;
    keeper.ask("spawn", "s", "baron", json!({"hp": 10})).await;
    keeper.send(&json!({"op": "hit", "id": "for-bob", "contest": "baron", "args": {"damage": 10}, "as": "bob"})).await;
    let won = keeper.answer("for-bob").await;
    assert_eq!((&won["player"], &won["outcome"], &won["body"]["hp"]), (&json!("bob"), &json!("granted"), &json!(0)));
    // The id is bob's now, whoever sends it.
    assert_eq!(bob.hit("for-bob", "baron", 10).await["repeat_of"], won["seq"]);

    // What only its sender may see: others get a range, the server session the verdict.
    let hidden = ann.hit("nothing", "dragon", 1).await;
    assert_eq!((&hidden["outcome"], &hidden["reason"]), (&json!("denied"), &json!("unknown_target")));
    let told = keeper.find(|v| v["id"] == "nothing").await;
    assert_eq!((&told["player"], &told["seq"]), (&json!("ann"), &hidden["seq"]));
    assert_eq!(ann.hit("seen-by-all", "baron", 1).await["reason"], "late");
    let next = bob.find(|v| v["id"] == "seen-by-all").await;
    assert!(next["from"].as_u64() <= hidden["seq"].as_u64(), "{next}");
    assert!(bob.seen.iter().all(|v| v["id"] != "nothing"));

    // Others' repeats as what they are.
    ann.hit("seen-by-all", "baron", 1).await;
    bob.hit("for-bob", "baron", 1).await;
    for (player, id) in [("ann", "seen-by-all"), ("bob", "for-bob")] {
        let repeat = keeper.find(|v| v["player"] == player && v["id"] == id && v["outcome"] == "void").await;
        assert_eq!(repeat["reason"], "repeat", "{repeat}");
        assert!(repeat["repeat_of"].is_u64(), "{repeat}");
    }

    for (action, code) in [
        (json!({"op": "hit", "id": "x", "contest": "baron", "args": {"damage": 1}, "as": "bob"}), "forbidden"),
        (json!({"op": "hit", "id": "y", "contest": "baron", "as": "no such name"}), "bad_action"),
    ] {
        ann.send(&action).await;
        let refused = ann.answer(action["id"].as_str().expect("id")).await;
        assert_eq!(refused["code"], code, "{refused}");
    }
    assert_eq!(ann.ask("spawn", "z", "drake", json!({"hp": 1})).await["reason"], "server_only");
}

#[tokio::test]
async fn two_sessions_of_one_player_and_a_repeated_id() {
    let redis = redis(&[]);
    let (a, b) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let _worker = WorkerProcess::on(&redis, &[]);
    let mut one = a.ticket("claim-1", "ann").join().await;
    let mut two = b.ticket("claim-1", "ann").msgpack().join().await;
    assert_ne!(one.id, two.id);
    let first = one.ask("claim", "x", "seat", json!(null)).await;
    assert_eq!(first["outcome"], "granted");
    assert_eq!(two.find(|v| v["id"] == "x").await, first, "both see what either does");
    // Were it done again, it would be denied as already_yours.
    for session in [&mut two, &mut one] {
        let again = session.ask("claim", "x", "seat", json!(null)).await;
        assert_eq!((&again["outcome"], &again["repeat_of"]), (&first["outcome"], &first["seq"]));
        assert!(again["seq"].as_u64() > first["seq"].as_u64());
        assert_eq!(again["arrival_ns"], first["arrival_ns"], "it is the first verdict");
    }
    assert_eq!(two.ask("claim", "y", "seat", json!(null)).await["reason"], "already_yours");
}

#[tokio::test]
async fn every_one_of_many_repeats_is_answered() {
    let serve = GatewayProcess::serve(&[]);
    let mut keeper = serve.ticket("pit", "keeper").server().join().await;
    let mut ann = serve.ticket("pit", "ann").join().await;
    keeper.ask("spawn", "s", "baron", json!({"hp": 1000})).await;
    let first = ann.hit("x", "baron", 1).await;
    for _ in 0..20 {
        ann.act("hit", "x", "baron", json!({"damage": 1})).await;
    }
    ann.act("hit", "end", "baron", json!({"damage": 1})).await;
    for _ in 0..20 {
        assert_eq!(ann.answer("x").await["repeat_of"], first["seq"]);
    }
    assert_eq!(ann.answer("end").await["body"]["hp"], 998, "each acted once");
    keeper.find(|v| v["id"] == "end").await;
    assert_eq!(keeper.seen.iter().filter(|v| v["repeat_of"] == first["seq"]).count(), 20);
}
