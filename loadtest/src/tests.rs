//! Whole runs against a small gateway in this process, honest or with one fault of each kind.

mod cost;
mod fair;
mod mock;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frame::Encoding;
use crate::run::{Ended, RunConfig, run};
use mock::{Fault, Mock};

const DRAIN: Duration = Duration::from_secs(1);

fn config(urls: Vec<String>, encoding: Encoding) -> RunConfig {
    RunConfig { urls, sessions: 12, rooms: 3, rate: 600, duration: Duration::from_millis(500), drain: DRAIN, encoding }
}

async fn report(fault: Fault, encoding: Encoding) -> (Value, Option<String>) {
    let mock = Mock::start(fault).await;
    let ended = run(&config(mock.urls(2), encoding), std::future::pending()).await.expect("run");
    let Ended::Done(report) = ended else { panic!("{ended:?}") };
    assert!(report.to_string().contains("12 sessions in 3 rooms over 2 gateways"), "{report}");
    (serde_json::to_value(&*report).expect("json"), report.failure())
}

#[tokio::test]
async fn an_honest_gateway_passes_in_both_encodings() {
    for encoding in [Encoding::Msgpack, Encoding::Json] {
        let (report, failure) = report(Fault::None, encoding).await;
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
        assert!(report["verdicts_per_s"].as_f64().is_some_and(|rate| (300.0..700.0).contains(&rate)), "{report:#}");
        assert!(report["generator_saturated"].is_boolean());
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
        let (report, failure) = report(fault, Encoding::Msgpack).await;
        assert_eq!(report[key], 1, "{fault:?}: {report:#}");
        assert_eq!(report["passed"], false);
        assert_eq!(failure, Some(format!("audit failed: {word}")));
    }
}

#[tokio::test]
async fn a_system_that_stalls_does_not_slow_the_schedule_down() {
    let (report, failure) = report(Fault::Stall, Encoding::Msgpack).await;
    assert_eq!((failure, &report["sent"]), (None, &json!(300)));
    // A fifth of the half second: everything that was due in it waited, half of it for 50 ms or longer.
    let at = |key: &str| report["latency_us"][key].as_f64().expect("number");
    assert!(at("p90") > 30_000.0 && at("max") > 90_000.0, "{report:#}");
    assert!(report["verdicts_per_s"].as_f64().is_some_and(|rate| rate > 400.0), "{report:#}");
}

#[tokio::test]
async fn late_answers_are_waited_for() {
    let (report, failure) = report(Fault::StallAtEnd, Encoding::Msgpack).await;
    assert_eq!((failure, &report["verdicts"]), (None, &json!(300)));
}

#[tokio::test]
async fn anothers_verdict_is_not_an_answer() {
    let (report, failure) = report(Fault::Overhear, Encoding::Json).await;
    assert_eq!((failure, &report["verdicts"]), (None, &json!(300)));
}

#[tokio::test]
async fn refusals_are_answers_that_are_counted_apart() {
    let (report, failure) = report(Fault::Refuse, Encoding::Json).await;
    assert_eq!(failure, None, "{report:#}");
    assert_eq!((&report["refused"], &report["verdicts"]), (&json!({"busy": 1}), &json!(299)));
}

#[tokio::test]
async fn a_session_that_is_closed_fails_the_run_and_says_why() {
    let (report, failure) = report(Fault::Close, Encoding::Msgpack).await;
    assert_eq!(report["broken_sessions"], 1);
    let failure = failure.expect("failed");
    assert!(failure.contains("closed by the gateway: 4408 slow"), "{failure}");
}

#[tokio::test]
async fn an_interrupted_run_ends_at_once() {
    let mock = Mock::start(Fault::None).await;
    let config = RunConfig { duration: Duration::from_secs(3600), ..config(mock.urls(1), Encoding::Msgpack) };
    let ended = tokio::time::timeout(Duration::from_secs(10), run(&config, tokio::time::sleep(Duration::from_millis(300)))).await;
    assert!(matches!(ended.expect("ends"), Ok(Ended::Interrupted(sent)) if sent > 0));
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_named() {
    let error = run(&config(vec!["ws://127.0.0.1:1".into()], Encoding::Json), std::future::pending()).await.expect_err("refused");
    let error = format!("{error:#}");
    assert!(error.starts_with("ws://127.0.0.1:1/v1/room/load-0?player=p0 cannot be joined: "), "{error}");
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
    let error = run(&config(vec![url], Encoding::Json), std::future::pending()).await.expect_err("refused");
    let error = format!("{error:#}");
    assert!(error.contains("503") && error.contains("the gateway has 3 sessions"), "{error}");
}
