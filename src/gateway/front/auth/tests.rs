use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_000_000;

fn locked() -> Gatekeeper {
    Gatekeeper::new(Some(&JwtKey::new(KEY).expect("key")), Vec::new(), false)
}

fn open() -> Gatekeeper {
    Gatekeeper::new(None, Vec::new(), false)
}

fn token(claims: Value) -> String {
    servers::token(KEY, &json!({"alg": "HS256", "typ": "JWT"}), &claims)
}

/// A request to `baron`, given as a query string without escapes.
fn ask(keeper: &Gatekeeper, query: &str) -> Result<Admission, AuthError> {
    let get = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let room = RoomId::new("baron").expect("name");
    let asking = Asking {
        room: &room,
        player: get("player"),
        role: get("role"),
        token: get("token"),
        origin: get("origin"),
        host: get("host"),
    };
    keeper.admit(&asking, NOW)
}

fn refused(keeper: &Gatekeeper, query: &str) -> (u16, &'static str, String) {
    let error = ask(keeper, query).expect_err(query);
    assert!(!error.message.contains('\n'));
    (error.status, error.code, error.message)
}

fn with(claims: Value) -> (u16, &'static str, String) {
    let token = token(claims);
    let refusal = refused(&locked(), &format!("token={token}"));
    assert!(!refusal.2.contains(&token), "{}", refusal.2);
    refusal
}

#[test]
fn without_a_key_names_and_roles_are_believed() {
    let player = ask(&open(), "player=ann").expect("admitted");
    assert_eq!((player.player.as_str(), player.role, player.expires_unix_s), ("ann", Role::Player, None));
    assert_eq!(ask(&open(), "player=ann&role=server").expect("admitted").role, Role::Server);
    assert_eq!(refused(&open(), "role=server").1, "bad_player");
    let (status, code, message) = refused(&open(), "player=a b");
    assert!((status, code) == (400, "bad_player") && message.contains("\"a b\""), "{message}");
    let (status, code, message) = refused(&open(), "player=ann&role=king");
    assert!((status, code) == (400, "bad_role") && message.contains("\"king\""), "{message}");
}

#[test]
fn a_token_says_who_what_where_and_until_when() {
    let server = token(json!({"sub": "referee", "role": "server", "rooms": ["x", "bar*"], "exp": NOW + 60}));
    let admission = ask(&locked(), &format!("player=referee&token={server}")).expect("admitted");
    assert_eq!((admission.player.as_str(), admission.role, admission.expires_unix_s), ("referee", Role::Server, Some(NOW + 60)));
    let player = token(json!({"sub": "ann", "rooms": ["baron"], "exp": NOW as f64 + 0.5 + 1.0}));
    let admission = ask(&locked(), &format!("token={player}")).expect("admitted");
    assert_eq!((admission.role, admission.expires_unix_s), (Role::Player, Some(NOW + 1)));
}

#[test]
fn with_a_key_the_url_gives_nothing() {
    assert_eq!(refused(&locked(), "player=ann&role=server").1, "token_missing");
    assert_eq!(refused(&locked(), "player=ann&token=").1, "token_missing");
    let ann = token(json!({"sub": "ann", "rooms": ["*"], "exp": NOW + 60}));
    let (status, code, message) = refused(&locked(), &format!("player=bob&token={ann}"));
    assert!((status, code) == (403, "player_forbidden") && message.contains("bob") && message.contains("ann"), "{message}");
    let (status, code, message) = refused(&locked(), &format!("role=server&token={ann}"));
    assert!((status, code) == (403, "role_forbidden") && message.contains("\"server\""), "{message}");
}

#[test]
fn times_are_checked_to_the_second() {
    let until = |exp: u64| json!({"sub": "ann", "rooms": ["*"], "exp": exp});
    assert!(ask(&locked(), &format!("token={}", token(until(NOW + 1)))).is_ok());
    let (status, code, message) = with(until(NOW));
    assert!((status, code) == (401, "token_expired") && message.contains("1000000"), "{message}");
    assert_eq!(with(until(1)).1, "token_expired");
    assert!(with(json!({"sub": "ann", "rooms": ["*"]})).2.contains("no exp"));
    assert!(with(json!({"sub": "ann", "rooms": ["*"], "exp": "soon"})).2.contains("exp is not a number"));
    assert!(with(json!({"sub": "ann", "rooms": ["*"], "exp": -1})).2.contains("exp is not a number"));
    let (_, code, message) = with(json!({"sub": "ann", "rooms": ["*"], "exp": NOW + 60, "nbf": NOW + 30}));
    assert!(code == "token_invalid" && message.contains("another 30 s"), "{message}");
}

#[test]
fn rooms_are_the_tokens() {
    let (status, code, message) = with(json!({"sub": "ann", "rooms": ["dragon", "bar?"], "exp": NOW + 60}));
    assert!((status, code) == (403, "room_forbidden") && message.contains("\"baron\""), "{message}");
    assert_eq!(with(json!({"sub": "ann", "rooms": [], "exp": NOW + 60})).1, "room_forbidden");
    for rooms in [json!("baron"), json!(null)] {
        assert!(with(json!({"sub": "ann", "rooms": rooms, "exp": NOW + 60})).2.contains("no list of rooms"));
    }
}

#[test]
fn odd_claims_are_named() {
    let full = |key: &str, value: Value| {
        let mut claims = json!({"sub": "ann", "rooms": ["*"], "exp": NOW + 60});
        claims[key] = value;
        with(claims)
    };
    assert!(full("sub", json!("a b")).2.contains("\"a b\""));
    assert!(full("sub", json!(7)).2.contains("sub is not a string"));
    assert!(full("role", json!("king")).2.contains("\"king\""));
    assert!(full("role", json!(["server"])).2.contains("role"));
    for audience in [json!("elsewhere"), json!(["elsewhere"]), json!(7), json!({})] {
        assert!(full("aud", audience.clone()).2.contains("aud"), "{audience}");
    }
    assert!(with(json!({"rooms": ["*"], "exp": NOW + 60})).2.contains("no sub"));
}

#[test]
fn forged_tokens_are_refused() {
    let claims = json!({"sub": "ann", "role": "server", "rooms": ["*"], "exp": NOW + 60});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let forged = |alg: &str| format!("{}.{}.", part(&json!({"alg": alg, "typ": "JWT"})), part(&claims));
    for (alg, signature) in [("none", ""), ("NONE", ""), ("RS256", "AAAA"), ("HS512", "AAAA")] {
        let (status, code, message) = refused(&locked(), &format!("token={}{signature}", forged(alg)));
        assert!((status, code) == (401, "token_invalid") && message.contains(alg), "{alg}: {message}");
    }
    let longer = servers::token(KEY, &json!({"alg": "HS384", "typ": "JWT"}), &claims);
    assert!(refused(&locked(), &format!("token={longer}")).2.contains("HS384"), "the right key, another algorithm");
    let other = servers::token(&[7; 32], &json!({"alg": "HS256", "typ": "JWT"}), &claims);
    assert!(refused(&locked(), &format!("token={other}")).2.contains("signature"));
    let good = token(claims.clone());
    let [header, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let changed = part(&json!({"sub": "bob", "role": "server", "rooms": ["*"], "exp": NOW + 60}));
    assert!(refused(&locked(), &format!("token={header}.{changed}.{signature}")).2.contains("signature"));
    for garbage in ["x", "a.b", "a.b.c", "....", "é"] {
        assert_eq!(refused(&locked(), &format!("token={garbage}")).1, "token_invalid", "{garbage}");
    }
    assert!(refused(&locked(), &format!("token={}", "x".repeat(5000))).2.contains("5000 bytes"));
}

#[test]
fn pages_are_let_in_by_origin() {
    let host =
        |keeper: &Gatekeeper, origin: &str, host: &str| ask(keeper, &format!("player=a&origin={origin}&host={host}")).is_ok();
    // Programs send no origin.
    assert!(ask(&open(), "player=a").is_ok());
    // Without a list, loopback pages pass, and so does the gateway's own page by address.
    assert!(host(&open(), "http://localhost:3000", "127.0.0.1:7777"));
    assert!(host(&open(), "http://[::1]:7777", "[::1]:7777"));
    assert!(host(&open(), "http://10.0.0.5:7777", "10.0.0.5:7777"));
    assert!(!host(&open(), "http://10.0.0.6:7777", "10.0.0.5:7777"));
    assert!(!host(&open(), "https://evil.example", "127.0.0.1:7777"));
    assert!(!host(&open(), "http://localhost.evil.example", "127.0.0.1:7777"));
    assert!(!host(&open(), "http://127.0.0.1.evil.example", "127.0.0.1:7777"));
    assert!(!host(&open(), "null", "127.0.0.1:7777"));
    assert!(!host(&open(), "", ""));
    // A name counts only where a stranger gains nothing by pointing a name at this host.
    assert!(!host(&open(), "http://evil.example:7777", "evil.example:7777"));
    let remote = Gatekeeper::new(None, Vec::new(), true);
    assert!(host(&remote, "https://game.example", "game.example"));
    assert!(!host(&remote, "https://evil.example", "game.example"));
    // With a list, only its origins pass.
    let listed = Gatekeeper::new(None, vec![Origin::new("https://Game.example").expect("origin")], true);
    assert!(host(&listed, "https://game.example", "other"));
    assert!(!host(&listed, "http://game.example", "game.example"));
    assert!(!host(&listed, "http://localhost", "localhost"));
    let any = Gatekeeper::new(None, vec![Origin::new("*").expect("origin")], false);
    assert!(host(&any, "null", "x"));
    let (status, code, message) = refused(&listed, "player=a&origin=https://evil.example");
    assert!((status, code) == (403, "origin_forbidden") && message.contains("https://evil.example"), "{message}");
}
