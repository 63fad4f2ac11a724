//! Whole runs against a small gateway in this process, honest or with one fault of each kind.

mod cost;
mod fair;
mod homes;
pub(crate) mod mock;
mod others;
mod pace;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::load::progress::Progress;
use crate::load::{Load, Outcome, Pace, measure};
use crate::speak::dialect::Dialect;
use mock::{Fault, Mock};

/// 300 actions.
fn load(urls: Vec<String>, dialect: Dialect) -> Load {
    Load {
        sessions: 12,
        rooms: 3,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(500),
        drain: Duration::from_secs(1),
        // The machine that the tests share may hold a generator up.
        lateness_max: Duration::from_secs(60),
        ..Load::new(dialect, urls, Pace::Open { rate: 600 })
    }
}

async fn run(load: &Load) -> anyhow::Result<Outcome> {
    measure(load, &Progress::new(true), std::future::pending()).await
}

async fn report(fault: Fault, dialect: Dialect) -> (Value, Option<String>) {
    let mock = Mock::start(fault).await;
    let outcome = run(&load(mock.urls(2), dialect)).await.expect("run");
    let Outcome::Done(report) = outcome else { panic!("{outcome:?}") };
    assert!(report.to_string().contains("12 sessions in 3 rooms over 2 gateways"), "{report}");
    (serde_json::to_value(&*report).expect("json"), report.failure())
}

#[tokio::test]
async fn an_honest_gateway_passes_in_both_encodings() {
    for dialect in [Dialect::Lasthit, Dialect::LasthitJson] {
        let (report, failure) = report(Fault::None, dialect).await;
        assert_eq!(failure, None, "{report:#}");
        assert_eq!((&report["sent"], &report["verdicts"], &report["passed"]), (&json!(300), &json!(300), &json!(true)));
        for key in ["lost", "doubled", "gaps", "two_winners", "unsent", "broken_sessions"] {
            assert_eq!(report[key], 0, "{key}");
        }
        // 3 rooms of 100 actions are 10 contests of ten contenders each.
        assert_eq!(report["outcomes"], json!({"granted": 30, "denied": 270}));
        assert_eq!(report["reasons"], json!({"late": 270}));
        for key in ["p50", "p90", "p99", "p999", "max"] {
            assert!(report["latency_us"][key].as_f64().is_some_and(|us| us > 0.0), "{report:#}");
        }
        assert!(report["verdicts_per_s"].as_f64().is_some_and(|rate| rate > 100.0 && rate <= 600.0), "{report:#}");
    }
}

#[tokio::test]
async fn every_fault_is_found() {
    for (fault, key, word) in [
        (Fault::Lose, "lost", "1 lost"),
        (Fault::Double, "doubled", "1 doubled"),
        (Fault::Gap, "gaps", "1 gaps"),
        (Fault::SecondWinner, "two_winners", "1 two winners"),
    ] {
        let (report, failure) = report(fault, Dialect::Lasthit).await;
        assert_eq!(report[key], 1, "{fault:?}: {report:#}");
        assert_eq!(report["passed"], false);
        assert_eq!(failure, Some(format!("audit failed: {word}")));
    }
}

#[tokio::test]
async fn a_system_that_stalls_does_not_slow_the_schedule_down() {
    let (report, failure) = report(Fault::Stall, Dialect::Lasthit).await;
    assert_eq!((failure, &report["sent"]), (None, &json!(300)));
    // A fifth of the half second: everything that was due in it waited, half of it for 50 ms or longer.
    let at = |key: &str| report["latency_us"][key].as_f64().expect("number");
    assert!(at("p90") > 30_000.0 && at("max") > 90_000.0, "{report:#}");
    // Hardly any of it was the work of one action: whoever waits for an answer before asking again sees one long one.
    assert!(report["service_us"]["p50"].as_f64().expect("number") < at("p90"), "{report:#}");
}

#[tokio::test]
async fn late_answers_are_waited_for() {
    let (report, failure) = report(Fault::StallAtEnd, Dialect::Lasthit).await;
    assert_eq!((failure, &report["verdicts"]), (None, &json!(300)));
}

#[tokio::test]
async fn anothers_verdict_is_not_an_answer() {
    let (report, failure) = report(Fault::Overhear, Dialect::LasthitJson).await;
    assert_eq!((failure, &report["verdicts"]), (None, &json!(300)));
}

#[tokio::test]
async fn refusals_are_answers_that_are_counted_apart() {
    let (report, failure) = report(Fault::Refuse, Dialect::LasthitJson).await;
    assert_eq!(failure, None, "{report:#}");
    assert_eq!((&report["refused"], &report["verdicts"]), (&json!({"busy": 1}), &json!(299)));
}

#[tokio::test]
async fn a_session_that_is_closed_fails_the_run_and_says_why() {
    let (report, failure) = report(Fault::Close, Dialect::Lasthit).await;
    assert_eq!(report["broken_sessions"], 1);
    let failure = failure.expect("failed");
    assert!(failure.contains("closed by the gateway: 4408 slow"), "{failure}");
}

/// What was on its way is sent again, where it was sent.
#[tokio::test]
async fn a_session_that_is_sent_to_another_host_plays_on_there() {
    for dialect in [Dialect::Lasthit, Dialect::LasthitJson] {
        let (report, failure) = report(Fault::Rehome, dialect).await;
        assert_eq!((failure, &report["verdicts"], &report["broken_sessions"]), (None, &json!(300), &json!(0)), "{report:#}");
        assert_eq!((&report["moves"]["sent_on"], &report["moves"]["returned"]), (&json!(1), &json!(0)));
    }
}

#[tokio::test]
async fn an_interrupted_run_ends_at_once() {
    let mock = Mock::start(Fault::None).await;
    let load = Load { duration: Duration::from_secs(3600), ..load(mock.urls(1), Dialect::Lasthit) };
    let stop = tokio::time::sleep(Duration::from_millis(300));
    let ended = tokio::time::timeout(Duration::from_secs(10), measure(&load, &Progress::new(true), stop)).await;
    assert!(matches!(ended.expect("ends"), Ok(Outcome::Interrupted(sent)) if sent > 0));
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_named() {
    let error = run(&load(vec!["ws://127.0.0.1:1".into()], Dialect::LasthitJson)).await.expect_err("refused");
    let error = format!("{error:#}");
    assert!(error.starts_with("ws://127.0.0.1:1/v1/room/load-") && error.contains("-0?player=p0 cannot be joined: "), "{error}");
    assert_eq!(error.matches("refused").count(), 1, "{error}");
}

#[tokio::test]
async fn a_refused_handshake_is_told_in_the_gateways_words() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("ws://{}", listener.local_addr().expect("address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let body = r#"{"code":"full","message":"the gateway has 3 sessions"}"#;
            let answer = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let error = run(&load(vec![url], Dialect::LasthitJson)).await.expect_err("refused");
    let error = format!("{error:#}");
    assert!(error.contains("503") && error.contains("the gateway has 3 sessions"), "{error}");
}
