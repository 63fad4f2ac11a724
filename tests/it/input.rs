//! What no honest client sends below the level of messages, and who may not come in. Each time another session on the
//! same gateway goes on as if nothing had happened.

use lasthit::internals::clock::unix_s;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{
    GatewayProcess, PATIENCE, Session, close_code, frame, http, now, problem, raw_session, status, until, upgrade,
};

const JSON: &str = "lasthit.v1.json";
const MSGPACK: &str = "lasthit.v1.msgpack";

/// Somebody else on the gateway, in the same room.
struct Bystander(Session, u32);

impl Bystander {
    async fn on(gateway: &GatewayProcess) -> Self {
        Self(gateway.ticket("pit", "bystander").server().join().await, 0)
    }

    /// Is answered, with a count without gaps.
    async fn is_undisturbed(&mut self) {
        self.1 += 1;
        let answer = self.0.hit(&format!("still-here-{}", self.1), "nothing", 1).await;
        assert_eq!(answer["reason"], "unknown_target");
    }
}

#[tokio::test]
async fn broken_bytes_end_their_session_and_no_other() {
    let gateway = GatewayProcess::serve(&[]);
    let mut bystander = Bystander::on(&gateway).await;
    let fragments = |count: usize| [frame(0x01, b""), frame(0x00, b"").repeat(count)].concat();
    let cases: &[(&str, &str, Vec<u8>, u16, &str)] = &[
        ("oversized", JSON, frame(0x81, &[b' '; 4097]), 1009, "error"),
        ("oversized-binary", MSGPACK, frame(0x82, &[0xc0; 4097]), 1009, "error"),
        // Only the header: 2^62 bytes are to follow.
        ("announced", JSON, vec![0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009, "error"),
        ("fragmented", JSON, [frame(0x01, &[b' '; 3000]), frame(0x80, &[b' '; 3000])].concat(), 1009, "error"),
        ("endless-fragments", JSON, fragments(65), 1009, "error"),
        ("utf8", JSON, frame(0x81, b"\"\xff\xfe\""), 1007, "error"),
        ("text-on-msgpack", MSGPACK, frame(0x81, b"{}"), 1003, "end"),
        ("binary-on-json", JSON, frame(0x82, b"\x80"), 1003, "end"),
        ("unmasked", JSON, vec![0x81, 0x02, b'{', b'}'], 1002, "error"),
        ("reserved-bit", JSON, frame(0xc1, b"{}"), 1002, "error"),
        ("reserved-opcode", JSON, frame(0x83, b"{}"), 1002, "error"),
        ("continuation-of-nothing", JSON, frame(0x80, b"{}"), 1002, "error"),
        ("large-ping", JSON, frame(0x89, &[0; 126]), 1002, "error"),
        ("half-close-code", JSON, frame(0x88, b"\x03"), 1002, "error"),
        ("http-again", JSON, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 1002, "error"),
    ];
    for (player, subprotocol, bytes, code, last) in cases {
        let mut tcp = raw_session(gateway.address, &format!("/v1/room/pit?player={player}"), subprotocol).await;
        let session = bystander.0.session_of(player).await;
        // The gateway may have hung up before all of it is sent.
        let _ = tcp.write_all(bytes).await;
        assert_eq!(bystander.0.life(&session).await, ["open", *last, "close"], "{player}");
        bystander.is_undisturbed().await;
        assert_eq!(close_code(&mut tcp).await, *code, "{player}");
    }
    assert_eq!(gateway.metric("lasthit_sessions_open"), 1.0);
}

#[tokio::test]
async fn a_fragmented_message_within_the_limits_is_a_message() {
    let gateway = GatewayProcess::serve(&[]);
    let mut bystander = Bystander::on(&gateway).await;
    let mut tcp = raw_session(gateway.address, "/v1/room/pit?player=ann", JSON).await;
    let action = br#"{"op":"hit","id":"in-pieces","contest":"baron","args":{"damage":1}}"#;
    let mut pieces = action.chunks(2).collect::<Vec<_>>();
    let last = pieces.pop().expect("pieces");
    for (at, piece) in pieces.into_iter().enumerate() {
        tcp.write_all(&frame(if at == 0 { 0x01 } else { 0x00 }, piece)).await.expect("sent");
        // Control frames may come in between.
        tcp.write_all(&frame(0x89, b"")).await.expect("sent");
    }
    tcp.write_all(&frame(0x80, last)).await.expect("sent");
    let verdict = bystander.0.find(|v| v["id"] == "in-pieces").await;
    assert_eq!(verdict["reason"], "unknown_target");
}

#[tokio::test]
async fn requests_that_are_no_way_in_are_told_what_to_change() {
    let gateway = GatewayProcess::serve(&[]);
    let mut bystander = Bystander::on(&gateway).await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
    let ws = |target: &str| upgrade(target, JSON);
    let good = ws("/v1/room/pit?player=ann");
    let long = "x".repeat(65);
    let cases = [
        (get("/nothing"), 404, "not_found", "/nothing"),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned(), 405, "method_not_allowed", "POST"),
        (get("/v1/room/pit?player=ann"), 426, "upgrade_required", "websocket"),
        (good.replace("version: 13", "version: 8"), 426, "upgrade_required", "13"),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400, "bad_upgrade", "sec-websocket-key"),
        (upgrade("/v1/room/pit?player=ann", "lasthit.v9.xml"), 400, "bad_subprotocol", "lasthit.v9.xml"),
        (good.replace("sec-websocket-protocol: lasthit.v1.json\r\n", ""), 400, "bad_subprotocol", JSON),
        (ws("/v1/room/?player=ann"), 400, "bad_room", "64"),
        (ws("/v1/room/a%20b?player=ann"), 400, "bad_room", "a b"),
        (ws(&format!("/v1/room/{long}?player=ann")), 400, "bad_room", &long),
        (ws("/v1/room/../../etc?player=ann"), 400, "bad_room", "../../etc"),
        (ws("/v1/room/p%00t?player=ann"), 400, "bad_room", "\\0"),
        (ws("/v1/room/pit"), 400, "bad_player", "player"),
        (ws("/v1/room/pit?player=a%0Ab"), 400, "bad_player", "a\\nb"),
        (ws(&format!("/v1/room/pit?player={long}")), 400, "bad_player", &long),
        (ws("/v1/room/pit?player=ann&role=god"), 400, "bad_role", "god"),
        (ws("/v1/room/pit?player=ann&since=yesterday"), 400, "bad_since", "yesterday"),
        (ws("/v1/room/pit?player=ann&since=1.99999999999999999999"), 400, "bad_since", "99999"),
        (ws("/v1/room/pit?player=ann&x=1"), 400, "bad_parameter", "x"),
        (ws("/v1/room/pit?player=ann&player=bob"), 400, "bad_parameter", "twice"),
        (good.replace("host: localhost", "host: localhost\r\norigin: https://evil.example"), 403, "origin_forbidden", "evil"),
    ];
    for (request, expected, code, part) in cases {
        let (got, said, message) = problem(&http(gateway.address, &request));
        assert_eq!((got, said.as_str()), (expected, code), "{request}");
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(status(&http(gateway.address, "\x16\x03\x01 this is no http\r\n\r\n")), 400);
    let endless = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(64 * 1024));
    assert_eq!(status(&http(gateway.address, &endless)), 431);
    bystander.is_undisturbed().await;
    assert_eq!(gateway.metric("lasthit_sessions_open"), 1.0);
    assert_eq!(bystander.0.seen.iter().filter(|v| v["event"] == "open").count(), 0, "nobody came in");
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn token(key: &str, claims: &Value) -> String {
    servers::token(key.as_bytes(), &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

#[tokio::test]
async fn tokens_decide_who_comes_in_as_what_and_for_how_long() {
    let args = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let gateway = GatewayProcess::start(&args, &[("LASTHIT_JWT_KEY", KEY)]);
    let now_s = unix_s();
    let long = token(KEY, &json!({"sub": "bystander", "exp": now_s + 600, "rooms": ["p*"], "role": "server"}));
    let mut bystander = Bystander(gateway.ticket("pit", "bystander").with("token", &long).server().join().await, 0);

    let ann = |exp: u64, room: &str| json!({"sub": "ann", "exp": exp, "rooms": [room]});
    let good = token(KEY, &ann(now_s + 60, "pit"));
    let none = token("", &ann(now_s + 60, "pit"));
    let (head, rest) = good.split_once('.').expect("a token");
    let no_algorithm = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{rest}");
    let cases = [
        ("player=ann".to_owned(), 401, "token_missing"),
        ("token=nonsense".to_owned(), 401, "token_invalid"),
        (format!("token={none}"), 401, "token_invalid"),
        (format!("token={}", token(&KEY.replace('0', "1"), &ann(now_s + 60, "pit"))), 401, "token_invalid"),
        (format!("token={no_algorithm}"), 401, "token_invalid"),
        (format!("token={head}.{}", rest.replace('.', "x.")), 401, "token_invalid"),
        (format!("token={}", token(KEY, &json!({"sub": "ann", "rooms": ["pit"]}))), 401, "token_invalid"),
        (format!("token={}", token(KEY, &ann(now_s - 5, "pit"))), 401, "token_expired"),
        (format!("token={}", token(KEY, &ann(now_s + 60, "den"))), 403, "room_forbidden"),
        (format!("token={good}&player=bob"), 403, "player_forbidden"),
        (format!("token={good}&role=server"), 403, "role_forbidden"),
    ];
    for (query, expected, code) in cases {
        let (got, said, message) = problem(&http(gateway.address, &upgrade(&format!("/v1/room/pit?{query}"), JSON)));
        assert_eq!((got, said.as_str()), (expected, code), "{query}: {message}");
    }

    let short = token(KEY, &ann(unix_s() + 2, "pit"));
    let mut session = gateway.ticket("pit", "ann").with("token", &short).join().await;
    assert_eq!(session.welcome["role"], "player");
    let last = session.recv().await;
    assert_eq!((&last["t"], &last["code"], last.get("id")), (&json!("error"), &json!("expired"), None));
    assert_eq!(session.close_code().await, (4401, "token_expired".to_owned()));
    assert_eq!(bystander.0.life(&session.id).await, ["open", "end", "close"]);
    bystander.is_undisturbed().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_the_handshake_is_cut_off() {
    let gateway = GatewayProcess::serve(&[]);
    let mut bystander = Bystander::on(&gateway).await;
    let mut halves = Vec::new();
    for partial in ["", "GET /v1/ro", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut tcp = TcpStream::connect(gateway.address).await.expect("connected");
        tcp.write_all(partial.as_bytes()).await.expect("sent");
        halves.push(tcp);
    }
    bystander.is_undisturbed().await;
    for mut tcp in halves {
        let mut answer = String::new();
        timeout(PATIENCE, tcp.read_to_string(&mut answer)).await.expect("an end").expect("text");
        assert_eq!(status(&answer), 408);
    }
    bystander.is_undisturbed().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_as_slow() {
    let gateway = GatewayProcess::serve(&["--actions-per-second", "1000000"]);
    let mut bystander = Bystander::on(&gateway).await;
    let mut mute = raw_session(gateway.address, "/v1/room/pit?player=mute", JSON).await;
    let session = bystander.0.session_of("mute").await;
    // Its room talks on, beyond what the kernel keeps for one connection.
    bystander.0.ask("spawn", "s", "baron", json!({"hp": 1_000_000_000})).await;
    let (mut n, mut sent) = (0, 0);
    let began = now();
    while !bystander.0.seen.iter().any(|v| v["session"] == session.as_str() && v["event"] == "close") {
        assert!(began.elapsed() < 3 * PATIENCE, "never closed");
        for _ in 0..500 {
            n += 1;
            bystander.0.act("hit", &format!("n{n}"), "baron", json!({"damage": 1})).await;
        }
        // It is read all the while, though nothing can be written to it: its own actions count.
        sent += 1;
        let _ = mute.write_all(&frame(0x81, format!(r#"{{"op":"hit","id":"{sent}"}}"#).as_bytes())).await;
        bystander.0.answer(&format!("n{n}")).await;
    }
    let life = bystander.0.life(&session).await;
    assert_eq!(life[life.len() - 2..], ["end", "close"]);
    // What it sent in the round in which it was closed may have come too late.
    assert!(life.iter().filter(|event| *event == "data").count() + 2 >= sent, "{sent} actions: {life:?}");
    until("it is counted as slow", || {
        let (_, metrics) = super::support::get(gateway.admin, "/metrics");
        metrics.contains("lasthit_sessions_total{how=\"slow\"} 1").then_some(())
    });
    bystander.is_undisturbed().await;
    drop(mute);
}

#[tokio::test]
async fn a_client_that_sends_faster_than_its_limit_is_refused_and_then_closed() {
    let gateway = GatewayProcess::serve(&["--actions-per-second", "20"]);
    let mut bystander = Bystander::on(&gateway).await;
    let mut hasty = gateway.ticket("pit", "hasty").join().await;
    let all: Vec<u8> = (0..60).flat_map(|n| frame(0x81, format!(r#"{{"op":"hit","id":"{n}"}}"#).as_bytes())).collect();
    hasty.ws.get_mut().write_all(&all).await.expect("sent");
    let refused = hasty.answer("20").await;
    assert_eq!((&refused["t"], &refused["code"]), (&json!("error"), &json!("rate_limited")), "{refused}");
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("20 actions")), "{refused}");
    assert_eq!(hasty.close_code().await, (4429, "too_fast".to_owned()));
    let life = bystander.0.life(&hasty.id).await;
    assert_eq!(life[life.len() - 2..], ["end", "close"]);
    bystander.is_undisturbed().await;

    let mut pings = raw_session(gateway.address, "/v1/room/pit?player=pings", JSON).await;
    let _ = pings.write_all(&frame(0x89, b"").repeat(100)).await;
    assert_eq!(close_code(&mut pings).await, 4429, "control frames count as well");
    bystander.is_undisturbed().await;
}
