//! How many connections and sessions are admitted.

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;

use super::*;
use crate::gateway::Joining;
use crate::gateway::front::arrival::StampedStream;
use crate::gateway::front::tally::Tally;
use crate::gateway::front::{Everywhere, Intake, Passing, Peer};
use crate::limits::SESSIONS_MAX;

#[tokio::test]
async fn a_gateway_takes_as_many_sessions_as_it_is_told_to() {
    for most in [2, SESSIONS_MAX + 1] {
        let hub =
            Hub::start(Arc::new(MemoryJournal::at_home(1)), Settle::Lock, most, "read", 0, Presence::default()).await.unwrap();
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

/// A page that is larger than the kernel's buffers, for a client that reads nothing.
fn large(_: &str) -> Option<(&'static str, &'static str)> {
    static PAGE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "x".repeat(64 << 20));
    Some(("text/html", &PAGE))
}

#[tokio::test]
async fn one_that_does_not_read_its_answer_is_let_go() {
    let hub = Hub::start(Arc::new(MemoryJournal::at_home(1)), Settle::Sweep, 1, "read", 0, Presence::default()).await.unwrap();
    let quick = Duration::from_millis(40);
    let settings = Settings { handshake_timeout: quick, close_timeout: quick, ..Settings::default() };
    let (clock, drains, leaving) = (Clock::new(), Drains::default(), CancellationToken::new());
    let gatekeeper = Gatekeeper::new(None, Vec::new(), false);
    let front = Front::new(hub, gatekeeper, large, clock.clone(), drains.clone(), settings, leaving);
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    // Asks for the page or for nothing, and reads nothing.
    for request in ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "GET /"] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let (tcp, peer) = listener.accept().await.unwrap();
        let stream = StampedStream::new(tcp, clock.clone(), drains.clone()).unwrap();
        let exchange = super::super::http::exchange(&front, peer.ip().into(), stream);
        assert!(timeout(PATIENCE, exchange).await.expect("its place is free again").is_none());
    }
}

/// Connects from one of this host's loopback addresses.
async fn from(address: &str, gateway: &TestGateway) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(gateway.address).await.unwrap()
}

/// Asks for a session. Returns the answer's status line, and the whole answer when it is refused.
async fn join(tcp: &mut TcpStream, player: &str) -> String {
    tcp.write_all(upgrade(&target(player), JSON).as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let reading = async {
        while !said.ends_with(b"\r\n\r\n") && tcp.read_buf(&mut said).await.unwrap() > 0 {}
        if !said.starts_with(b"HTTP/1.1 101") {
            tcp.read_to_end(&mut said).await.unwrap();
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer");
    String::from_utf8(said).unwrap()
}

fn is_in(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 101 ")
}

#[track_caller]
fn is_refused(answer: &str, code: &str, words: &[&str]) {
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    for word in words.iter().chain([&code]) {
        assert!(answer.contains(word), "{word:?} is not in {answer}");
    }
}

/// Joins as soon as a place is free again.
async fn join_when_free(address: &str, gateway: &TestGateway, player: &str) -> TcpStream {
    let joining = async {
        loop {
            let mut tcp = from(address, gateway).await;
            if is_in(&join(&mut tcp, player).await) {
                return tcp;
            }
        }
    };
    timeout(PATIENCE, joining).await.expect("a place")
}

#[tokio::test]
async fn an_address_has_its_share_of_the_sessions() {
    let gateway = gateway_without_worker(|s| (s.spares_loopback, s.sessions_per_address) = (false, 2)).await;
    let (mut first, mut second) = (from("127.0.0.2", &gateway).await, from("127.0.0.2", &gateway).await);
    assert!(is_in(&join(&mut first, "a").await) && is_in(&join(&mut second, "b").await));
    let third = join(&mut from("127.0.0.2", &gateway).await, "c").await;
    is_refused(&third, "too_many_sessions", &["127.0.0.2", "2 sessions"]);
    let mut other = from("127.0.0.3", &gateway).await;
    assert!(is_in(&join(&mut other, "d").await), "another address has its own");
    drop(first);
    join_when_free("127.0.0.2", &gateway, "e").await;
}

/// A gateway behind a door judges by what its address has at all gateways, and says which connections are gone.
#[tokio::test]
async fn what_a_door_says_of_an_address_is_judged_here() {
    let hub = Hub::start(Arc::new(MemoryJournal::at_home(1)), Settle::Sweep, 10, "read", 0, Presence::default()).await.unwrap();
    let (drains, leaving, tally) = (Drains::default(), CancellationToken::new(), Arc::new(Tally::default()));
    tokio::spawn(sweep(hub.clone(), drains.clone(), leaving.clone()));
    let settings =
        Settings { spares_loopback: false, sessions_per_address: 2, connections_per_second: 100, ..Settings::default() };
    let gatekeeper = Gatekeeper::new(None, Vec::new(), false);
    let front = Front::new(hub, gatekeeper, |_| None, Clock::new(), drains, settings, leaving.clone()).counting(tally.clone());
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let (passing, passed) = tokio::sync::mpsc::channel(10);
    tokio::spawn(Arc::new(front).serve(Intake::Passed(passed), leaving.clone()));
    // Passes a connection, as one of so many that its address has.
    let pass = async |number, held, recent| {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let peer = Peer { ip: peer.ip(), everywhere: Some(Everywhere { held, recent }) };
        passing.send(Passing { stream, peer, taken: tally.connection(Some(number)) }).await.unwrap();
        client
    };
    let mut inside = pass(0, 1, 0).await;
    assert!(is_in(&join(&mut inside, "a").await));
    is_refused(&join(&mut pass(1, 2, 0).await, "b").await, "too_many_sessions", &["127.0.0.1", "2 sessions here"]);
    is_refused(&join(&mut pass(2, 0, 100).await, "c").await, "too_many_connections", &["100 connections a second"]);
    let mut ended = Vec::new();
    while ended.len() < 2 {
        tally.changed().await;
        ended.extend(tally.take_ended(1));
    }
    ended.sort_unstable();
    assert_eq!((ended, tally.read().sessions), (vec![1, 2], 1), "one is inside");
    drop(inside);
    while tally.read().gone < 3 {
        tally.changed().await;
    }
    assert_eq!((tally.take_ended(9), tally.take_ended(9)), (vec![0], vec![]));
    leaving.cancel();
}

#[tokio::test]
async fn a_player_has_its_share_of_the_sessions() {
    let gateway = gateway_without_worker(|s| s.sessions_per_player = 2).await;
    let (first, _second) = (gateway.join("ann").await, gateway.join("ann").await);
    let third = join(&mut from("127.0.0.1", &gateway).await, "ann").await;
    is_refused(&third, "too_many_sessions", &["\\\"ann\\\"", "2 sessions"]);
    let mut servers = Vec::new();
    for _ in 0..4 {
        let mut tcp = from("127.0.0.1", &gateway).await;
        assert!(is_in(&join(&mut tcp, "ann&role=server").await), "a server may be everywhere");
        servers.push(tcp);
    }
    let _other = gateway.join("bob").await;
    drop(first);
    join_when_free("127.0.0.1", &gateway, "ann").await;
}

#[tokio::test]
async fn an_address_has_its_share_of_the_handshakes() {
    let change = |s: &mut Settings| (s.spares_loopback, s.handshakes_per_address) = (false, 2);
    let gateway = gateway_without_worker(change).await;
    let (first, _second) = (from("127.0.0.2", &gateway).await, from("127.0.0.2", &gateway).await);
    let third = join(&mut from("127.0.0.2", &gateway).await, "c").await;
    is_refused(&third, "too_many_connections", &["127.0.0.2", "2 unfinished"]);
    let mut other = from("127.0.0.3", &gateway).await;
    assert!(is_in(&join(&mut other, "d").await), "another address has its own");
    drop(first);
    let _session = join_when_free("127.0.0.2", &gateway, "e").await;
    // An open session no longer counts as a handshake.
    join_when_free("127.0.0.2", &gateway, "f").await;
}

#[tokio::test]
async fn an_address_connects_only_so_often() {
    let gateway = gateway_without_worker(|s| (s.spares_loopback, s.connections_per_second) = (false, 1)).await;
    let refused = async {
        loop {
            let answer = join(&mut from("127.0.0.2", &gateway).await, "a").await;
            if !is_in(&answer) {
                return answer;
            }
        }
    };
    let answer = timeout(PATIENCE, refused).await.expect("too often");
    is_refused(&answer, "too_many_connections", &["127.0.0.2", "1 connections a second", "retry-after: 1"]);
    assert!(is_in(&join(&mut from("127.0.0.3", &gateway).await, "b").await), "another address has its own");
}

/// A proxy in front of the gateway, and a load test on this host, connect from loopback.
#[tokio::test]
async fn loopback_has_no_share_unless_it_is_given_one() {
    let change = |s: &mut Settings| {
        (s.sessions_per_address, s.handshakes_per_address, s.connections_per_second) = (1, 1, 1);
    };
    let gateway = gateway_without_worker(change).await;
    let mut inside = Vec::new();
    for n in 0..20 {
        inside.push((from("127.0.0.1", &gateway).await, gateway.join(&format!("p{n}")).await));
    }
}
