//! Coming back with `since`.

use serde_json::json;

use super::support::{Gateway, Worker, redis, until};

#[tokio::test]
async fn what_was_missed_comes_without_gap_or_repeat_on_either_gateway() {
    let redis = redis(&[]);
    let (a, b) = (Gateway::on(&redis, &[]), Gateway::on(&redis, &[]));
    let _worker = Worker::on(&redis, &[]);
    let mut ann = a.ticket("claim-1", "ann").join().await;
    let mut bob = b.ticket("claim-1", "bob").join().await;
    bob.ask("claim", "b", "seat-b", json!(null)).await;
    let (era, mut seen) = (bob.era(), bob.seq);
    drop(bob);
    for round in 0..4 {
        for n in 0..40 {
            ann.act("claim", &format!("r{round}n{n}"), &format!("r{round}n{n}"), json!(null)).await;
        }
        // Only half of it is there for sure when bob comes back: the rest comes live.
        ann.answer(&format!("r{round}n20")).await;
        let gateway = if round % 2 == 0 { &a } else { &b };
        let ticket = gateway.ticket("claim-1", "bob").since(era, seen);
        let mut bob = if round < 2 { ticket } else { ticket.msgpack() }.join().await;
        assert_eq!((&bob.welcome["resumed"], &bob.welcome["gone"]), (&json!(true), &json!(false)));
        assert_eq!((bob.welcome["seq"].as_u64(), bob.welcome.get("state")), (Some(seen), None));
        // The count is checked with every message.
        bob.find(|v| v["id"] == format!("r{round}n39")).await;
        let claims = bob.seen.iter().filter(|v| v["player"] == "ann" && v["event"] == "data").count();
        assert_eq!(claims, 40, "round {round}");
        seen = bob.seq;
        ann.answer(&format!("r{round}n39")).await;
    }
}

#[tokio::test]
async fn another_era_is_gone_and_the_future_is_refused() {
    let serve = Gateway::serve(&["--room-linger", "100ms"]);
    let mut ann = serve.ticket("claim-1", "ann").join().await;
    ann.ask("claim", "x", "seat", json!(null)).await;
    let (era, seq) = (ann.era(), ann.seq);

    let mut ahead = serve.ticket("claim-1", "bob").since(era, seq + 1_000).open().await;
    let (code, reason) = ahead.close_code().await;
    assert_eq!(code, 4400);
    assert!(reason.contains(&format!("{era}.{}", seq + 1_000)), "{reason}");

    let stranger = serve.ticket("claim-1", "cid").since(era + 7, 1).join().await;
    assert_eq!((&stranger.welcome["gone"], &stranger.welcome["resumed"]), (&json!(true), &json!(false)));
    assert_eq!(stranger.welcome["state"], json!({"held": 1, "claims": {"seat": "ann"}}));
    stranger.leave(1000).await;
    ann.ask("claim", "y", "seat-2", json!(null)).await;
    ann.leave(1000).await;

    // The room ends when it was empty for a while; then it comes back without its past.
    until("the room has ended", || (serve.metric("lasthit_rooms_in_memory") == 0.0).then_some(()));
    let mut back = serve.ticket("claim-1", "ann").since(era, seq).join().await;
    assert!(back.era() > era);
    assert_eq!((&back.welcome["gone"], &back.welcome["state"]["held"]), (&json!(true), &json!(0)));
    // It goes on like any other session, repeats included.
    let first = back.ask("claim", "x", "seat", json!(null)).await;
    assert_eq!((&first["outcome"], first.get("repeat_of")), (&json!("granted"), None), "ids are forgotten with the era");
    for _ in 0..5 {
        back.act("claim", "x", "seat", json!(null)).await;
    }
    for _ in 0..5 {
        assert_eq!(back.answer("x").await["repeat_of"], first["seq"]);
    }
    assert_eq!(back.ask("claim", "z", "seat-3", json!(null)).await["outcome"], "granted");
}

#[tokio::test]
async fn a_server_session_that_resumes_sees_the_repeats_of_others() {
    let serve = Gateway::serve(&[]);
    let keeper = serve.ticket("claim-1", "keeper").server().join().await;
    let (era, seq) = (keeper.era(), keeper.seq);
    let mut live = serve.ticket("claim-1", "live").server().join().await;
    let mut ann = serve.ticket("claim-1", "ann").join().await;
    keeper.leave(1000).await;
    let first = ann.ask("claim", "x", "seat", json!(null)).await;
    ann.ask("claim", "x", "seat", json!(null)).await;
    let end = ann.ask("claim", "end", "seat-2", json!(null)).await;

    let mut back = serve.ticket("claim-1", "keeper").server().since(era, seq).join().await;
    back.find(|v| v["seq"] == end["seq"]).await;
    live.find(|v| v["seq"] == end["seq"]).await;
    let repeat = back.find(|v| v["repeat_of"] == first["seq"]).await;
    assert_eq!((&repeat["outcome"], &repeat["reason"], &repeat["player"]), (&json!("void"), &json!("repeat"), &json!("ann")));
    assert_eq!(live.find(|v| v["repeat_of"] == first["seq"]).await, repeat, "live or caught up, it is the same");
    // A player sees none of it.
    let mut bob = serve.ticket("claim-1", "bob").since(era, seq).join().await;
    bob.find(|v| v["seq"] == end["seq"]).await;
    assert!(bob.seen.iter().all(|v| v.get("repeat_of").is_none()));
}

#[tokio::test]
async fn a_repeat_whose_first_verdict_is_no_longer_kept_is_void() {
    let serve = Gateway::serve(&["--retention", "1s"]);
    let mut ann = serve.ticket("claim-1", "ann").join().await;
    let first = ann.ask("claim", "x", "seat", json!(null)).await;
    let mut bob = serve.ticket("claim-1", "bob").join().await;
    for round in 0.. {
        assert!(round < 200, "the first verdict is never trimmed");
        for n in 0..100 {
            bob.act("claim", &format!("r{round}n{n}"), "seat", json!(null)).await;
        }
        bob.answer(&format!("r{round}n99")).await;
        let again = ann.ask("claim", "x", "seat", json!(null)).await;
        assert_eq!((&again["t"], &again["repeat_of"]), (&json!("verdict"), &first["seq"]), "{again}");
        if again["outcome"] == "void" {
            assert_eq!((&again["reason"], &again["player"], &again["event"]), (&json!("repeat"), &json!("ann"), &json!("data")));
            break;
        }
        assert_eq!(again["outcome"], "granted");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(ann.ask("claim", "y", "seat", json!(null)).await["reason"], "already_yours", "the session goes on");
}
