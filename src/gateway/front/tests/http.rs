use jsonwebtoken::{EncodingKey, Header, encode};

use super::*;
use crate::clock::unix_s;
use crate::config::JwtKey;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn token(claims: Value) -> String {
    encode(&Header::default(), &claims, &EncodingKey::from_secret(KEY)).unwrap()
}

fn locked() -> Gateway {
    gateway_with(Gatekeeper::new(Some(&JwtKey::new(KEY).unwrap()), Vec::new(), false), |_| {})
}

/// The status and the JSON of an error.
fn problem(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    assert!(body["message"].as_str().is_some_and(|m| !m.is_empty() && !m.contains('\n')), "{body}");
    (head[9..12].parse().unwrap(), body)
}

#[tokio::test]
async fn the_page_is_served_on_the_same_port() {
    let gateway = gateway(|_| {});
    let answer = gateway.raw("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("text/html; charset=utf-8"), "{answer}");
    assert!(answer.ends_with("<title>arena</title>"), "{answer}");
}

#[tokio::test]
async fn every_refused_request_is_told_what_to_change() {
    let gateway = gateway(|_| {});
    let mut bystander = gateway.join("bystander").await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
    let ws = |target: &str| upgrade(target, "lasthit.v1.json");
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    let good = ws("/v1/room/pit?player=ann");
    let cases = [
        (get("/nothing"), 404, "not_found", "/nothing"),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned(), 405, "method_not_allowed", "POST"),
        (get("/v1/room/pit?player=ann"), 426, "upgrade_required", "websocket"),
        (good.replace("version: 13", "version: 8"), 426, "upgrade_required", "13"),
        (good.replace(key, "sec-websocket-key: short"), 400, "bad_upgrade", "sec-websocket-key"),
        (upgrade("/v1/room/pit?player=ann", "lasthit.v9.xml"), 400, "bad_subprotocol", "lasthit.v9.xml"),
        (good.replace("sec-websocket-protocol: lasthit.v1.json\r\n", ""), 400, "bad_subprotocol", "lasthit.v1.json"),
        (ws("/v1/room/?player=ann"), 400, "bad_room", "64"),
        (ws("/v1/room/a%20b?player=ann"), 400, "bad_room", "a b"),
        (ws(&format!("/v1/room/{}?player=ann", "x".repeat(65))), 400, "bad_room", "xxx"),
        (ws("/v1/room/../../etc?player=ann"), 400, "bad_room", "../../etc"),
        (ws("/v1/room/pit"), 400, "bad_player", "player"),
        (ws("/v1/room/pit?player=a%0Ab"), 400, "bad_player", "a\\nb"),
        (ws("/v1/room/pit?player=ann&role=god"), 400, "bad_role", "god"),
        (ws("/v1/room/pit?player=ann&since=yesterday"), 400, "bad_since", "yesterday"),
        (ws("/v1/room/pit?player=ann&since=1.99999999999999999999"), 400, "bad_since", "99999"),
        (ws("/v1/room/pit?player=ann&x=1"), 400, "bad_parameter", "x"),
        (good.replace("host: localhost", "host: localhost\r\norigin: https://evil.example"), 403, "origin_forbidden", "evil"),
    ];
    for (request, status, code, part) in cases {
        let (got, body) = problem(&gateway.raw(&request).await);
        assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{request}");
        assert!(body["message"].as_str().unwrap().contains(part), "{body}");
    }
    bystander.is_undisturbed(&gateway).await;
    assert_eq!(gateway.hub.calls().len(), 2, "no refused request reached the hub");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_off() {
    let gateway = gateway(|s| s.handshake_timeout = Duration::from_millis(60));
    let mut bystander = gateway.join("bystander").await;
    for partial in ["", "GET /v1/ro", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let answer = gateway.raw(partial).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{partial:?}: {answer}");
    }
    let answer = gateway.raw("\x16\x03\x01 this is no http\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(64 * 1024));
    assert!(gateway.raw(&long).await.starts_with("HTTP/1.1 431 "));
    bystander.is_undisturbed(&gateway).await;
}

#[tokio::test]
async fn tokens_decide_who_enters_and_for_how_long() {
    let gateway = locked();
    let refused = async |token: &str| {
        let (status, body) = problem(&gateway.raw(&upgrade(&format!("/v1/room/pit?token={token}"), "lasthit.v1.json")).await);
        (status, body["code"].as_str().unwrap().to_owned())
    };
    let now = unix_s();
    let claims = |exp: u64, room: &str| serde_json::json!({"sub": "ann", "exp": exp, "rooms": [room]});
    assert_eq!(refused("nonsense").await, (401, "token_invalid".to_owned()));
    assert_eq!(refused(&token(claims(now - 5, "pit"))).await, (401, "token_expired".to_owned()));
    assert_eq!(refused(&token(claims(now + 60, "den"))).await, (403, "room_forbidden".to_owned()));

    let long = token(serde_json::json!({"sub": "bystander", "exp": now + 600, "rooms": ["pit"]}));
    let mut bystander = gateway.connect(&format!("/v1/room/pit?token={long}"), "lasthit.v1.json").await;
    "bystander".clone_into(&mut bystander.name);
    assert_eq!(bystander.json().await["t"], "welcome");

    let short = token(claims(unix_s() + 1, "pit"));
    let mut ann = gateway.connect(&format!("/v1/room/pit?token={short}"), "lasthit.v1.json").await;
    assert_eq!(ann.json().await["player"], "ann");
    assert_eq!(ann.json().await["code"], "expired");
    assert_eq!(ann.close_code().await, (4401, "token_expired".to_owned()));
    assert_eq!(gateway.life("ann").await, ["open", "end 4401", "close"]);
    bystander.is_undisturbed(&gateway).await;
}

#[tokio::test]
async fn a_full_gateway_says_so_and_has_room_again_when_a_session_ends() {
    let gateway = gateway(|s| s.sessions_max = 2);
    let mut bystander = gateway.join("bystander").await;
    let mut ann = gateway.join("ann").await;
    let request = upgrade("/v1/room/pit?player=bob", "lasthit.v1.json");
    let (status, body) = problem(&gateway.raw(&request).await);
    assert_eq!((status, body["code"].as_str()), (503, Some("full")));
    ann.ws.close(None).await.unwrap();
    while ann.ws.next().await.is_some() {}
    let joined = async {
        while !gateway.raw_head(&request).await.starts_with("HTTP/1.1 101 ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, joined).await.expect("ann's place");
    bystander.is_undisturbed(&gateway).await;
}

impl Gateway {
    /// Sends a request, and returns the first of the answer.
    async fn raw_head(&self, request: &str) -> String {
        let mut tcp = self.tcp().await;
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 64];
        let count = timeout(PATIENCE, tcp.read(&mut head)).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&head[..count]).into_owned()
    }
}
