//! What the generator itself costs: it shares the machine with what it measures.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::mock::{message, payload};
use crate::load::progress::Progress;
use crate::load::{Load, Outcome, Pace, measure};
use crate::speak::dialect::Dialect;
use crate::speak::frame::Encoding;

#[derive(Deserialize)]
struct Asked<'a> {
    id: &'a str,
    contest: &'a str,
}

/// A verdict as the gateway sends it, all fields there.
#[derive(Default, Serialize)]
struct Answer<'a> {
    t: &'a str,
    seq: u64,
    event: &'a str,
    session: &'a str,
    player: &'a str,
    id: &'a str,
    contest: &'a str,
    round: u64,
    outcome: &'a str,
    reason: &'a str,
    arrival_ns: u64,
    uncertainty_ns: u64,
}

#[expect(clippy::result_large_err, reason = "the handshake's callback has this type")]
async fn answer(stream: TcpStream) {
    stream.set_nodelay(true).expect("socket");
    let mut socket = accept_hdr_async(stream, |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let asked = request.headers()["sec-websocket-protocol"].clone();
        response.headers_mut().insert("sec-websocket-protocol", asked);
        Ok(response)
    })
    .await
    .expect("handshake");
    let welcome = Answer { t: "welcome", session: "0123abcd-17", ..Answer::default() };
    socket.send(message(Encoding::Msgpack, &welcome)).await.expect("send");
    let mut seq = 0;
    while let Some(first) = socket.next().await {
        let mut next = Some(Some(first));
        while let Some(Some(Ok(claim))) = next {
            let Some(asked) = payload(Encoding::Msgpack, &claim) else { return };
            let asked: Asked<'_> = rmp_serde::from_slice(asked).expect("a claim");
            seq += 1;
            let verdict = Answer {
                t: "verdict",
                seq,
                event: "data",
                session: "0123abcd-17",
                player: "p17",
                id: asked.id,
                contest: asked.contest,
                round: 1,
                outcome: "denied",
                reason: "late",
                arrival_ns: 1 << 50,
                uncertainty_ns: 2000,
            };
            socket.feed(message(Encoding::Msgpack, &verdict)).await.expect("feed");
            next = socket.next().now_or_never();
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}

fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("clock").into()
}

/// `cargo test --release -p loadtest cost -- --ignored --nocapture`; `COST_RATE` sets the actions a second.
#[tokio::test]
#[ignore = "a measurement, which takes a core for itself and means something in a release build only"]
async fn a_core_carries_a_hundred_thousand_messages_a_second() {
    let (tell, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
            tell.send(listener.local_addr().expect("address")).expect("told");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    });
    let address = address.recv().expect("address");
    let rate = std::env::var("COST_RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(50_000);
    let load = Load {
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(5),
        drain: Duration::from_secs(20),
        lateness_max: Duration::from_secs(1),
        ..Load::new(Dialect::Lasthit, vec![format!("ws://{address}")], Pace::Open { rate })
    };
    let before = own_cpu();
    let outcome = measure(&load, &Progress::new(true), std::future::pending()).await.expect("run");
    let cpu = own_cpu() - before;
    let Outcome::Done(report) = outcome else { panic!("{outcome:?}") };
    assert_eq!(report.failure(), None);
    // One sent and one received for each.
    let messages = 2 * u64::from(rate) * 5;
    let per_second = u128::from(messages) * 1_000_000_000 / cpu.as_nanos();
    println!("{report}\n{cpu:?} for {messages} messages: {per_second} messages a second and core");
    assert!(per_second > 100_000, "{per_second} messages a second and core");
}
