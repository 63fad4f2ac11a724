//! How many may come in.

use super::*;
use crate::gateway::Joining;
use crate::gateway::arrival::StampedStream;
use crate::limits::SESSIONS_MAX;

#[tokio::test]
async fn a_gateway_takes_as_many_sessions_as_it_is_told_to() {
    for most in [2, SESSIONS_MAX + 1] {
        let hub = Hub::start(Arc::new(MemoryJournal::new(1)), Settle::Lock, most, "read", 0).await.unwrap();
        let join = |n: usize| {
            let (room, player) = (format!("pit-{}", n % 100).parse().unwrap(), format!("p{n}").parse().unwrap());
            hub.join(Joining::new(room, player))
        };
        for n in 0..most {
            join(n).unwrap_or_else(|refusal| panic!("{n} of {most}: {}", refusal.message));
        }
        let refusal = join(most).expect_err("one too many");
        assert!(refusal.message.contains(&most.to_string()), "{}", refusal.message);
    }
}

/// A page that is larger than what the kernel takes in for somebody who reads nothing.
fn large(_: &str) -> Option<(&'static str, &'static str)> {
    static PAGE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "x".repeat(64 << 20));
    Some(("text/html", &PAGE))
}

#[tokio::test]
async fn one_that_does_not_read_its_answer_is_let_go() {
    let hub = Hub::start(Arc::new(MemoryJournal::new(1)), Settle::Sweep, 1, "read", 0).await.unwrap();
    let quick = Duration::from_millis(40);
    let settings = Settings { handshake_timeout: quick, close_timeout: quick, ..Settings::default() };
    let (clock, drains, leaving) = (Clock::new(), Drains::default(), CancellationToken::new());
    let gatekeeper = Gatekeeper::new(None, Vec::new(), false);
    let front = Front::new(hub, gatekeeper, large, clock.clone(), drains.clone(), settings, leaving);
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    // Asks for the page, or asks for nothing; reads nothing.
    for request in ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "GET /"] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let stream = StampedStream::new(listener.accept().await.unwrap().0, clock.clone(), drains.clone()).unwrap();
        let exchange = super::super::http::exchange(&front, stream);
        assert!(timeout(PATIENCE, exchange).await.expect("its place is free again").is_none());
    }
}
