//! Players find the home of their room: two gateways on two hosts, one journal.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use super::*;
use crate::clock::unix_ms;
use crate::journal::{CommonJournal as _, Homing, Leased, Part, ProcessRecord, ShardOwner, WorkerJournal as _};
use crate::limits::SENT_ON_PER_S;
use crate::types::{HostId, Incarnation, ShardId};
use crate::wire::push::{self, Push};

const SHARD: ShardId = ShardId(0);

/// Two hosts of one deployment with one shard. Nobody owns it; tests claim it by hand.
struct Hosts {
    journals: [MemoryJournal; 2],
    gateways: [TestGateway; 2],
}

fn url(index: usize) -> String {
    format!("ws://host-{index}.example:1")
}

async fn hosts(spares_loopback: bool) -> Hosts {
    let journal = MemoryJournal::new(1);
    let journals = [0, 1].map(|index| journal.on_host(HostId::new(&format!("host-{index}")).unwrap()));
    // Each hears of the other with its first beat.
    for (index, journal) in journals.iter().enumerate() {
        let host = ProcessRecord::new(Incarnation::random(), journal.host().clone(), Part::Gateway);
        journal.beat(&ProcessRecord { ready: true, url: url(index), ..host }, 60_000).await.unwrap();
    }
    let start = async |index: usize| {
        let gateway = gateway_on(journals[index].clone(), |settings| {
            (settings.advertise, settings.spares_loopback) = (url(index), spares_loopback);
            settings.connections_per_second = 1_000_000;
        });
        gateway.await
    };
    let first = start(0).await;
    let gateways = [first, start(1).await];
    Hosts { journals, gateways }
}

impl Hosts {
    /// A worker of a host takes the shard. Returns the number of the home.
    async fn claim(&self, index: usize) -> u32 {
        let journal = &self.journals[index];
        let ShardOwner { lease, home, .. } = journal.owners().await.unwrap().remove(0);
        let homing = Homing { address: url(index), ..Homing::moves_from(home) };
        match journal.claim(SHARD, lease, Incarnation::random(), unix_ms(), &homing).await.unwrap() {
            Leased::Done(lease) => lease.home,
            Leased::Lost => panic!("nobody else claims"),
        }
    }

    /// Waits until a gateway has heard of the other host, and of what has just happened.
    async fn route(&self, index: usize, until: &Value) {
        let told = async {
            while ask(&self.gateways[index], "/v1/route/pit", "").await.json() != *until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("gateway {index} does not say {until}"));
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    #[track_caller]
    fn assert_refused(&self, status: u16, code: &str, part: &str) {
        assert_eq!((self.status, self.json()["code"].as_str()), (status, Some(code)), "{}", self.body);
        let message = self.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
    }
}

async fn send(gateway: &TestGateway, request: &str) -> Answer {
    send_from(Ipv4Addr::LOCALHOST, gateway, request).await
}

async fn send_from(address: Ipv4Addr, gateway: &TestGateway, request: &str) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    let mut tcp = socket.connect(gateway.address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn ask(gateway: &TestGateway, path: &str, headers: &str) -> Answer {
    let host = if headers.starts_with("host:") { "" } else { "host: localhost\r\n" };
    send(gateway, &format!("GET {path} HTTP/1.1\r\n{host}{headers}\r\n")).await
}

/// A handshake that can be told where to go.
async fn join(gateway: &TestGateway, player: &str) -> Answer {
    join_from(Ipv4Addr::LOCALHOST, gateway, player).await
}

async fn join_from(address: Ipv4Addr, gateway: &TestGateway, player: &str) -> Answer {
    let request = upgrade(&target(player), JSON).replace("\r\n\r\n", "\r\nlasthit-route: 1\r\n\r\n");
    send_from(address, gateway, &request).await
}

/// The reason in the close frame of a session, and its code.
async fn end(session: &mut TcpStream) -> (u16, String) {
    let (received, code) = rest(session).await;
    let at = received.windows(2).rposition(|bytes| bytes == code.to_be_bytes()).unwrap();
    (code, String::from_utf8(received[at + 2..].to_vec()).unwrap())
}

#[tokio::test]
async fn whoever_comes_to_the_wrong_host_is_told_the_right_one() {
    let hosts = hosts(true).await;
    let number = hosts.claim(0).await;
    let route = json!({ "url": url(0), "home": number, "room": "pit" });
    for index in [0, 1] {
        hosts.route(index, &route).await;
        let answer = ask(&hosts.gateways[index], "/v1/route/pit", "").await;
        assert!(answer.head.contains("cache-control: max-age=1"), "{}", answer.head);
    }
    let answer = join(&hosts.gateways[1], "ann").await;
    assert_eq!((answer.status, answer.json()), (421, route));
    let mut ann = hosts.gateways[1].join("ann").await;
    assert_eq!(end(&mut ann).await, (4421, format!("{}#{number}", url(0))));
    let _bob = hosts.gateways[0].join("bob").await;
    hosts.gateways[0].events_at_least("bob", 1).await;
    assert_eq!(hosts.gateways[1].events("ann").await, [], "nothing of it reached the room");
    assert_eq!(hosts.gateways[1].hub.session_count(), 0);
}

/// Rule X5: a shard is handed over. What had reached the socket of who stayed is read before 4421.
#[tokio::test]
async fn what_had_arrived_before_a_session_is_sent_on_is_read() {
    for round in 0..10 {
        let hosts = hosts(true).await;
        let number = hosts.claim(0).await;
        hosts.route(0, &json!({ "url": url(0), "home": number, "room": "pit" })).await;
        let mut ann = hosts.gateways[0].join("ann").await;
        hosts.gateways[0].events_at_least("ann", 1).await;
        let sent: Vec<u8> = (0..10).flat_map(|n| act(&format!("a{n}"))).collect();
        assert_eq!(ann.try_write(&sent).unwrap(), sent.len());
        let journal = &hosts.journals[0];
        let nobody = ProcessRecord::new(Incarnation::NONE, journal.host().clone(), Part::Gateway);
        let host = hosts.journals[1].host().clone();
        let moving = push::encode(&Push::Moving { shard: SHARD, number, host, url: url(1), within_ms: 0 });
        for process in journal.beat(&nobody, 0).await.unwrap().processes {
            if process.host == *journal.host() {
                journal.publish(Some(SHARD), process.incarnation, moving.clone()).await.unwrap();
            }
        }
        assert_eq!(end(&mut ann).await, (4421, format!("{}#{number}", url(1))));
        let life = hosts.gateways[0].life("ann").await;
        assert_eq!((life.len(), life[11].as_str()), (13, "end 4421"), "round {round}: {life:?}");
    }
}

/// Rule H5: who is inside is sent on when the gateway learns of it, at the latest with the next thing that it says.
#[tokio::test]
async fn who_is_inside_is_sent_on_when_the_home_changes() {
    let hosts = hosts(true).await;
    let first = hosts.claim(0).await;
    for index in [0, 1] {
        hosts.route(index, &json!({ "url": url(0), "home": first, "room": "pit" })).await;
    }
    let mut ann = hosts.gateways[0].join("ann").await;
    hosts.gateways[0].events_at_least("ann", 1).await;
    let second = hosts.claim(1).await;
    ann.write_all(&act("a1")).await.unwrap();
    assert_eq!(end(&mut ann).await, (4421, format!("{}#{second}", url(1))));
    for index in [0, 1] {
        hosts.route(index, &json!({ "url": url(1), "home": second, "room": "pit" })).await;
    }
    let _back = hosts.gateways[1].join("ann").await;
    let opened = async {
        while hosts.gateways[1].events("ann").await.len() + 1 < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, opened).await.expect("taken in");
    let events = hosts.gateways[1].events("ann").await;
    assert!(events.iter().all(|event| !matches!(event.kind, EventKind::Data(_))), "what was refused is in no room");
}

/// Rule H8: nobody has the shard. Who joins waits, and who asks is told to come back.
#[tokio::test]
async fn who_joins_a_room_without_a_home_waits_for_it() {
    let hosts = hosts(true).await;
    let _ann = hosts.gateways[0].join("ann").await;
    let answer = ask(&hosts.gateways[0], "/v1/route/pit", "").await;
    answer.assert_refused(503, "no_home", "room pit");
    assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    assert_eq!(hosts.gateways[0].events("ann").await, []);
    hosts.claim(0).await;
    hosts.gateways[0].events_at_least("ann", 1).await;
}

#[tokio::test]
async fn whoever_goes_on_coming_to_the_wrong_host_is_refused() {
    let hosts = hosts(false).await;
    let number = hosts.claim(0).await;
    hosts.route(1, &json!({ "url": url(0), "home": number, "room": "pit" })).await;
    let mut refused = 0;
    for _ in 0..20 * SENT_ON_PER_S {
        let answer = join(&hosts.gateways[1], "ann").await;
        match answer.status {
            421 => {}
            _ => {
                answer.assert_refused(429, "too_many_connections", "rooms that are elsewhere");
                refused += 1;
                break;
            }
        }
    }
    assert_eq!(refused, 1, "it is bounded");
    // Nobody else notices: others are told the way, and who is at the right host is let in.
    assert_eq!(join_from(Ipv4Addr::new(127, 0, 0, 2), &hosts.gateways[1], "bob").await.status, 421);
    assert_eq!(ask(&hosts.gateways[1], "/v1/route/pit", "").await.status, 200);
    drop(hosts.gateways[0].join("ann").await);
}

#[tokio::test]
async fn a_host_that_was_told_no_address_is_where_the_client_has_found_it() {
    let gateway = gateway(|_| {}).await;
    let up = async {
        while ask(&gateway, "/v1/route/pit", "").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, up).await.expect("a home");
    for (headers, url) in [
        ("host: play.example.com:8080\r\n", "ws://play.example.com:8080"),
        ("host: [::1]:8080\r\n", "ws://[::1]:8080"),
        ("host: play.example.com\r\nx-forwarded-proto: https, http\r\n", "wss://play.example.com"),
        ("host: play.example.com\r\nx-forwarded-proto: http\r\n", "ws://play.example.com"),
        ("host: 127.0.0.1\r\norigin: https://127.0.0.1\r\n", "wss://127.0.0.1"),
    ] {
        let answer = ask(&gateway, "/v1/route/p%69t", headers).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let shown = answer.json();
        assert_eq!((shown["url"].as_str(), shown["room"].as_str()), (Some(url), Some("pit")));
        assert!(shown["home"].as_u64().is_some_and(|home| home > 0));
    }
    let allowed = ask(&gateway, "/v1/route/pit", "origin: http://localhost:3000\r\n").await;
    assert!(allowed.head.contains("access-control-allow-origin: http://localhost:3000\r\n"), "{}", allowed.head);
    let long = format!("host: {}.example.com\r\n", "x".repeat(90));
    for (path, headers, status, code, part) in [
        ("/v1/route/", "", 400, "bad_room", "\"\""),
        ("/v1/route/a/b", "", 400, "bad_room", "a/b"),
        ("/v1/route/p%00t", "", 400, "bad_room", "\\0"),
        ("/v1/route/%ff", "", 400, "bad_parameter", "%ff"),
        ("/v1/route/pit?player=ann", "", 400, "bad_parameter", "player=ann"),
        ("/v1/route", "", 404, "not_found", "/v1/route"),
        ("/v1/routes/pit", "", 404, "not_found", "/v1/routes"),
        ("/v1/route/pit", "origin: https://evil.example\r\n", 403, "origin_forbidden", "evil.example"),
        ("/v1/route/pit", "host: a@b\r\n", 400, "bad_host", "a@b"),
        ("/v1/route/pit", "host: \r\n", 400, "bad_host", "\"\""),
        ("/v1/route/pit", &long, 400, "bad_host", "xxx"),
    ] {
        ask(&gateway, path, headers).await.assert_refused(status, code, part);
    }
    send(&gateway, "POST /v1/route/pit HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.assert_refused(
        405,
        "method_not_allowed",
        "POST",
    );
}

/// The welcome tells the number that the route tells.
#[tokio::test]
async fn a_welcome_names_the_home() {
    let gateway = gateway(|_| {}).await;
    let mut ann = gateway.join("ann").await;
    let mut received = Vec::new();
    let welcomed = async {
        while !String::from_utf8_lossy(&received).contains("\"limits\"") {
            assert_ne!(ann.read_buf(&mut received).await.unwrap(), 0, "it ended");
        }
    };
    timeout(PATIENCE, welcomed).await.expect("a welcome");
    let number = ask(&gateway, "/v1/route/pit", "").await.json()["home"].as_u64().unwrap();
    let received = String::from_utf8_lossy(&received).into_owned();
    assert!(received.contains(&format!("\"home\":{number},")), "{received}");
}
