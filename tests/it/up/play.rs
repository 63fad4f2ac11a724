//! What all goes well: an even spread, an end that loses nothing, metrics, and secrets that stay secret.

use std::collections::BTreeMap;
use std::net::TcpStream;

use serde_json::json;

use super::player::Player;
use super::{Home, Up, runs};
use crate::support::{end_by_signal, get, redis, until};

const SESSIONS: usize = 40;

#[tokio::test]
async fn sessions_are_spread_evenly_and_down_ends_everything() {
    let redis = redis(&[]);
    let mut up = Up::on(&redis, &[]);
    let rows = up.all_ready(4);
    let names: Vec<&str> = rows.iter().map(super::Row::name).collect();
    assert_eq!(names, ["gateway-1", "gateway-2", "worker-1", "worker-2"]);
    for row in &rows {
        assert_eq!((row.crashes(), row.generation(), row.last_end()), (0, 1, ""), "{row:?}");
    }
    let children = up.children();
    assert_eq!(rows.iter().filter_map(super::Row::pid).collect::<std::collections::BTreeSet<_>>(), children);

    let mut players = Vec::new();
    for n in 0..SESSIONS {
        players.push(up.ticket(&format!("claim-{}", n % 5), &format!("p{n}")).join().await);
    }
    until("20 sessions on each", || {
        let rows = up.ps();
        let sessions: Vec<u64> = rows.iter().map(super::Row::sessions).collect();
        (sessions == [20, 20, 0, 0]).then_some(())
    });
    // The gateways say in the sessions' names who they are.
    let mut by_gateway = BTreeMap::<String, usize>::new();
    for player in &players {
        *by_gateway.entry(player.id.rsplit_once('-').expect("a gateway").0.to_owned()).or_default() += 1;
    }
    assert_eq!(by_gateway.values().copied().collect::<Vec<_>>(), [20, 20], "{by_gateway:?}");
    for (n, player) in players.iter_mut().enumerate() {
        let verdict = player.ask("claim", "1", &format!("seat {}", n / 10), json!(null)).await;
        // Five rooms of eight: two of them want each of the four seats.
        assert_eq!(verdict["outcome"] == "granted", n % 10 < 5, "{n}: {verdict}");
    }
    let text = up.ask(&["ps"]).done();
    assert!(text.len() == 5 && text[0].starts_with("NAME ") && text[1].starts_with("gateway-1  ready "), "{text:?}");
    let logs = up.ask(&["logs"]).done();
    assert!(logs.iter().any(|line| line.starts_with("worker-2   | ")), "{logs:?}");

    let down = up.asks(&["down"]);
    for player in &mut players {
        assert_eq!(player.close_code().await.0, 1001);
    }
    assert!(down.join().expect("down").done().is_empty());
    assert_eq!(up.process.code(), Some(0));
    assert!(children.iter().all(|pid| !runs(*pid)), "{children:?}");
    assert!(!up.home.control().exists(), "the socket's file is gone");
    assert!(TcpStream::connect(up.address).is_err());
}

#[tokio::test]
async fn sigterm_ends_everything_and_nobody_is_left_unanswered() {
    let redis = redis(&[]);
    let mut up = Up::on(&redis, &[]);
    let (mut ann, mut bob) = (up.ticket("claim-1", "ann").join().await, up.ticket("claim-1", "bob").join().await);
    for n in 0..50 {
        ann.act("claim", &n.to_string(), &n.to_string(), json!(null)).await;
    }
    // The other one is on the other gateway.
    bob.find(|v| v["player"] == "ann" && v["id"] == "0").await;
    let children = up.children();
    up.process.signal("TERM");
    assert_eq!(ann.close_code().await.0, 1001);
    assert_eq!(bob.close_code().await.0, 1001);
    assert_eq!(up.process.code(), Some(0));
    assert!(children.iter().all(|pid| !runs(*pid)) && !up.home.control().exists());
    let refused = up.ask(&["ps"]).refused(1);
    assert!(refused.contains("no supervisor answers at") && refused.contains("lasthit up"), "{refused}");

    // It is all there for the next one, on the same port.
    let address = up.address.to_string();
    let url = redis.url();
    let args = ["--redis", &url, "--listen", &address, "--gateways", "1", "--workers", "1", "--admin", "none"];
    let home = Home::new();
    let process = home.start(&args, &[]);
    let again = Up::started(home, process);
    let mut back = again.ticket("claim-1", "ann").since(ann.era(), ann.seq).join().await;
    if ann.seen.iter().all(|v| v["id"] != "49") {
        assert_eq!(back.find(|v| v["player"] == "ann" && v["id"] == "49").await["outcome"], "granted");
    }
}

#[tokio::test]
async fn metrics_and_readiness_are_of_all_processes() {
    let redis = redis(&[]);
    let up = Up::of(Home::new(), &redis, &["--admin", "127.0.0.1:0"]);
    let admin = up.process.address_in("health and metrics on http://");
    up.all_ready(4);
    assert_eq!(get(admin, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(admin, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(admin, "/nothing").0, 404);
    let mut ann = up.ticket("claim-1", "ann").join().await;
    ann.ask("claim", "1", "hat", json!(null)).await;
    let (status, text) = get(admin, "/metrics");
    assert_eq!(status, 200);
    for process in ["gateway-1", "gateway-2", "worker-1", "worker-2"] {
        let label = format!("{{process=\"{process}\"");
        assert!(text.lines().any(|line| line.starts_with("lasthit_") && line.contains(&label)), "{process}: {text}");
    }
    assert!(text.lines().any(|line| line == "lasthit_sessions_open{process=\"gateway-1\"} 1"), "{text}");
    // Each family is described once, whoever has samples of it.
    let about: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE lasthit_sessions_open ")).collect();
    assert_eq!(about.len(), 1, "{text}");
    // One that hangs does not keep the numbers of the others back.
    let hangs = up.pid("worker-2");
    end_by_signal(hangs, "STOP");
    let (status, text) = get(admin, "/metrics");
    end_by_signal(hangs, "CONT");
    assert!(
        status == 200 && text.contains("{process=\"gateway-2\"") && !text.contains("{process=\"worker-2\""),
        "{status} {text}"
    );
    // What somebody stopped does not make it unready; a role of which none is ready does.
    up.ask(&["stop", "worker-2"]).done();
    assert_eq!(get(admin, "/readyz").0, 200);
    let pid = up.pid("worker-1");
    // Until Redis answers, none can be.
    end_by_signal(redis.pid(), "STOP");
    super::kill(pid);
    until("no worker is ready", || (get(admin, "/readyz") == (503, "worker: none is ready\n".to_owned())).then_some(()));
    end_by_signal(redis.pid(), "CONT");
    up.replaced("worker-1", pid);
    assert_eq!(get(admin, "/readyz").0, 200);
}

/// Connections that are gone before anybody looks at them, and those that are turned away, take nothing from the door: more of them
/// than both gateways may have in a handshake, and the next player comes in.
#[tokio::test]
async fn connections_that_come_to_nothing_close_no_door() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    let address = up.address;
    let resets = std::thread::spawn(move || {
        for _ in 0..2_600 {
            let socket = socket2::Socket::from(TcpStream::connect(address).expect("accepted by the kernel"));
            // It is reset, not closed.
            socket.set_linger(Some(std::time::Duration::ZERO)).expect("a linger of 0");
        }
    });
    resets.join().expect("all were reset");
    let mut ann = up.ticket("claim-1", "ann").join().await;
    assert_eq!(ann.ask("claim", "1", "hat", json!(null)).await["outcome"], "granted");
    until("one session is counted", || (up.ps().iter().map(super::Row::sessions).sum::<u64>() == 1).then_some(()));
}

/// The key and the password reach the processes, but neither through a command line nor through an environment.
#[tokio::test]
async fn secrets_are_in_no_command_line_and_no_environment() {
    let (key, password) = ("0123456789abcdef0123456789abcdef", "open-sesame-7");
    let redis = servers::RedisServer::start_tcp(&["--requirepass", password]).expect("a redis-server");
    let url = format!("redis://:{password}@{}", redis.address().expect("a port"));
    let home = Home::new();
    let args = ["--listen", "127.0.0.1:0", "--admin", "none", "--gateways", "1", "--workers", "1"];
    let process = home.start(&args, &[("LASTHIT_JWT_KEY", key), ("LASTHIT_REDIS", &url)]);
    let up = Up::started(home, process);
    up.all_ready(2);
    let children = up.children();
    assert_eq!(children.len(), 2);
    for pid in children {
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).expect("a process");
            let text = String::from_utf8_lossy(&text);
            assert!(!text.is_empty() || file == "environ");
            assert!(!text.contains(key) && !text.contains(password), "{file} of {pid}");
            assert!(!text.contains("LASTHIT_"), "{file} of {pid}: {text}");
        }
    }
    // Both have arrived.
    let token = servers::token(
        key.as_bytes(),
        &json!({"alg": "HS256"}),
        &json!({"sub": "ann", "exp": 4_000_000_000_u64, "rooms": ["claim-*"]}),
    );
    let mut ann = up.ticket("claim-1", "ann").with("token", &token).join().await;
    assert_eq!(ann.ask("claim", "1", "hat", json!(null)).await["outcome"], "granted");
    let said = [up.process.lines(), up.ask(&["logs"]).done(), up.ask(&["ps", "--json"]).done()].concat();
    assert!(said.iter().all(|line| !line.contains(key) && !line.contains(password)), "{said:?}");
}

/// Nobody notices that gateways come and go.
#[tokio::test]
async fn players_play_on_while_gateways_are_added_and_given_up() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &["--drain-window", "200ms"]);
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    let mut bob = Player::join(up.address, "claim-1", "bob").await;
    for count in ["3", "1", "2"] {
        let scaling = up.asks(&["scale", "gateway", count]);
        while !scaling.is_finished() {
            ann.play().await;
            bob.play().await;
        }
        scaling.join().expect("scaled").done();
    }
    ann.is_content();
    bob.is_content();
    assert!(ann.asked_to_move + bob.asked_to_move > 0, "one of them was on a gateway that left");
}
