//! Coming back with `since`.

use std::time::Duration;

use serde_json::json;
use servers::{Proxy, Upstream};

use super::support::{GatewayProcess, Ticket, WorkerProcess, now, redis, until};

#[tokio::test]
async fn what_was_missed_comes_without_gap_or_repeat_on_either_gateway() {
    let redis = redis(&[]);
    let (a, b) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let _worker = WorkerProcess::on(&redis, &[]);
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

/// A client that missed more than an outbox holds reads it behind a long path, while more comes in all the time.
/// `LASTHIT_MISSED=90000 cargo test --release --test it resume::who_missed -- --nocapture` tells how long it took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_more_than_an_outbox_holds_catches_up_behind_a_long_path() {
    const AT_A_TIME: usize = 1_000;
    let missed: usize = std::env::var("LASTHIT_MISSED").map_or(12_000, |text| text.parse().expect("a number"));
    let serve = GatewayProcess::serve(&["--actions-per-second", "1000000"]);
    let bob = serve.ticket("claim-1", "bob").join().await;
    let (era, seen) = (bob.era(), bob.seq);
    bob.leave(1000).await;
    let mut ann = serve.ticket("claim-1", "ann").join().await;
    for round in 0..missed / AT_A_TIME {
        for n in 0..AT_A_TIME {
            ann.act("claim", &format!("r{round}n{n}"), &format!("r{round}n{n}"), json!(null)).await;
        }
        ann.answer(&format!("r{round}n{}", AT_A_TIME - 1)).await;
        ann.seen.clear();
    }
    let path = Proxy::start(Upstream::Tcp(serve.address)).expect("a proxy");
    path.delay(Duration::from_millis(50), Duration::from_millis(50));
    let start = now();
    // 2,000 new ones a second.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let others = tokio::spawn(async move {
        let (mut tick, mut stopped, mut count) = (tokio::time::interval(Duration::from_millis(10)), stopped, 0);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = tick.tick() => {}
            }
            for _ in 0..20 {
                count += 1;
                ann.act("claim", &format!("new{count}"), &format!("new{count}"), json!(null)).await;
            }
            ann.answer(&format!("new{count}")).await;
            ann.seen.clear();
        }
        ann.ask("claim", "last", "last", json!(null)).await;
    });
    let mut bob = Ticket::new(path.address(), "claim-1", "bob").since(era, seen).join().await;
    assert_eq!(bob.welcome["resumed"], true);
    while bob.seq < seen + missed as u64 {
        bob.recv().await;
        bob.seen.clear();
    }
    let took = start.elapsed();
    stop.send(()).expect("others are there");
    others.await.expect("others are done");
    bob.find(|verdict| verdict["id"] == "last").await;
    println!("{missed} missed verdicts, 2,000 new ones a second, 100 ms of delay: caught up after {took:?}");
}

#[tokio::test]
async fn another_era_is_gone_and_the_future_is_refused() {
    let serve = GatewayProcess::serve(&["--room-linger", "100ms"]);
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
    let serve = GatewayProcess::serve(&[]);
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
    let serve = GatewayProcess::serve(&["--retention", "1s"]);
    let mut ann = serve.ticket("claim-1", "ann").join().await;
    // Another one is repeated each time: a first verdict that was read is remembered.
    let mut firsts = Vec::new();
    for n in 0..200 {
        firsts.push(ann.ask("claim", &format!("x{n}"), &format!("seat{n}"), json!(null)).await);
    }
    let mut bob = serve.ticket("claim-1", "bob").join().await;
    for (round, first) in firsts.iter().enumerate() {
        assert!(round < 199, "the first verdict is never trimmed");
        for n in 0..100 {
            bob.act("claim", &format!("r{round}n{n}"), "seat0", json!(null)).await;
        }
        bob.answer(&format!("r{round}n99")).await;
        let again = ann.ask("claim", &format!("x{round}"), &format!("seat{round}"), json!(null)).await;
        assert_eq!((&again["t"], &again["repeat_of"]), (&json!("verdict"), &first["seq"]), "{again}");
        if again["outcome"] == "void" {
            assert_eq!((&again["reason"], &again["player"], &again["event"]), (&json!("repeat"), &json!("ann"), &json!("data")));
            break;
        }
        assert_eq!(again["outcome"], "granted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ann.ask("claim", "y", "seat0", json!(null)).await["reason"], "already_yours", "the session goes on");
}
