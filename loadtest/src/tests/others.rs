//! Whole runs against servers that do not speak lasthit's protocol.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::{load, run};
use crate::load::report::Report;
use crate::load::{Load, Outcome};
use crate::speak::dialect::{Audience, Dialect};

/// By room and contest, the session that was first.
type Winners = Arc<Mutex<HashMap<(String, String), u64>>>;

/// An echo, or a peer; one that is generous lets everybody win.
async fn server(dialect: Dialect, is_generous: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let winners = Winners::default();
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            number += 1;
            tokio::spawn(session(stream, dialect, is_generous, number, Arc::clone(&winners)));
        }
    });
    format!("ws://{address}")
}

#[expect(clippy::result_large_err, reason = "the handshake's callback has this type")]
async fn session(stream: TcpStream, dialect: Dialect, is_generous: bool, number: u64, winners: Winners) {
    let mut room = String::new();
    let mut socket = accept_hdr_async(stream, |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        room = request.uri().query().and_then(|query| query.strip_prefix("room=")).expect("a room").to_owned();
        Ok(response)
    })
    .await
    .expect("handshake");
    while let Some(Ok(message)) = socket.next().await {
        let answer = match (dialect, message) {
            (Dialect::Echo, message @ Message::Binary(_)) => message,
            (Dialect::Peer, Message::Text(text)) => {
                let claim: Value = serde_json::from_str(&text).expect("json");
                let contest = claim["contest"].as_str().expect("text").to_owned();
                let winner = *winners.lock().expect("lock").entry((room.clone(), contest)).or_insert(number);
                let answer = json!({"id": claim["id"], "won": is_generous || winner == number});
                Message::text(answer.to_string())
            }
            _ => continue,
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}

async fn report(dialect: Dialect, is_generous: bool) -> Report {
    let url = server(dialect, is_generous).await;
    let outcome = run(&load(vec![url.clone(), url], dialect)).await.expect("run");
    let Outcome::Done(report) = outcome else { panic!("{outcome:?}") };
    *report
}

#[tokio::test]
async fn an_echo_answers_everything_and_decides_nothing() {
    let report = report(Dialect::Echo, false).await;
    assert_eq!((report.failure(), report.verdicts, report.outcomes["echoed"]), (None, 300, 300));
}

#[tokio::test]
async fn a_peer_is_audited_too() {
    let honest = report(Dialect::Peer, false).await;
    assert_eq!((honest.failure(), honest.verdicts), (None, 300));
    // 30 contests; whoever won one claims it again, as four sessions of a room are ten contenders.
    assert!((60..=90).contains(&honest.outcomes["granted"]), "{honest}");
    let generous = report(Dialect::Peer, true).await;
    assert_eq!((generous.outcomes["granted"], generous.passed), (300, false));
    // Three losers of each contest.
    assert_eq!(generous.faults.two_winners, 210);
    assert_eq!(generous.failure(), Some("audit failed: 210 two winners".to_owned()));
    // Nobody promised anything for it: its rates do not hold, and that is all.
    let load = load(vec![server(Dialect::Peer, true).await], Dialect::Peer);
    assert_eq!(super::pace::ramp(&load, "200..400").await.knee_rate, None);
}

#[tokio::test]
async fn an_audience_that_the_others_do_not_have_is_an_error() {
    let load = Load { audience: Audience::Room, ..load(vec![server(Dialect::Echo, false).await], Dialect::Echo) };
    let error = run(&load).await.expect_err("refused").to_string();
    assert!(error.contains("use --audience sender"), "{error}");
}
