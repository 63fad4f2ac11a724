//! Health, metrics, logs, draining, and who may listen where.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{GatewayProcess, Process, WorkerProcess, get, http, now, problem, redis, until, upgrade};

#[tokio::test]
async fn health_and_metrics_follow_what_happens() {
    let redis = redis(&[]);
    let gateway = GatewayProcess::on(&redis, &[]);
    let worker = WorkerProcess::on(&redis, &[]);
    assert_eq!(get(gateway.admin, "/healthz").0, 200);
    // A worker that has started is ready after its first heartbeat.
    until("both are ready", || (gateway.ready().0 == 200 && worker.ready().0 == 200).then_some(()));
    assert_eq!(get(gateway.admin, "/nothing").0, 404);
    let mut ann = gateway.ticket("claim-1", "ann").join().await;
    let mut bob = gateway.ticket("claim-1", "bob").join().await;
    assert_eq!(gateway.metric("lasthit_sessions_open"), 2.0);
    for n in 0..3 {
        ann.ask("claim", &format!("{n}"), &format!("c{n}"), json!(null)).await;
        bob.ask("claim", &format!("{n}"), &format!("c{n}"), json!(null)).await;
    }
    ann.ask("claim", "0", "c0", json!(null)).await;
    ann.act("claim", &"x".repeat(65), "c0", json!(null)).await;
    assert_eq!(ann.recv().await["code"], "bad_action");
    bob.leave(1000).await;
    until("bob's end is counted", || (gateway.metric("lasthit_sessions_open") == 1.0).then_some(()));
    let (_, metrics) = get(gateway.admin, "/metrics");
    for line in [
        "lasthit_events_total{kind=\"open\"} 2",
        "lasthit_events_total{kind=\"data\"} 7",
        "lasthit_events_total{kind=\"end\"} 1",
        "lasthit_events_total{kind=\"close\"} 1",
        "lasthit_refusals_total{code=\"bad_action\"} 1",
        "lasthit_sessions_total{how=\"client\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    for name in ["lasthit_flushes_total", "lasthit_append_seconds_count", "lasthit_settle_seconds_count"] {
        assert!(gateway.metric(name) > 0.0, "{name}");
    }
    until("the worker's counts", || {
        let (_, metrics) = get(worker.admin, "/metrics");
        let has = |line: &str| metrics.lines().any(|l| l == line);
        let all = has("lasthit_verdicts_total{outcome=\"denied\"} 3") && has("lasthit_verdicts_total{outcome=\"repeat\"} 1");
        (all && has("lasthit_verdicts_total{outcome=\"granted\"} 7") && has("lasthit_shards_owned 8")).then_some(())
    });
}

#[tokio::test]
async fn json_logs_are_json() {
    let mut serve = GatewayProcess::serve(&["--log-format", "json", "--log", "debug"]);
    let mut ann = serve.ticket("pit", "ann").join().await;
    ann.hit("1", "baron", 1).await;
    serve.process.signal("TERM");
    assert_eq!(ann.close_code().await.0, 1001);
    assert_eq!(serve.process.code(), Some(0));
    let lines = serve.process.lines();
    assert!(lines.len() > 4, "{lines:?}");
    for line in lines {
        let parsed: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message", "target"] {
            assert!(parsed[field].is_string(), "{field} in {line}");
        }
    }
}

#[tokio::test]
async fn sigterm_drains_closes_as_going_away_and_ends_in_time() {
    let redis = redis(&[]);
    let mut gateway = GatewayProcess::on(&redis, &[]);
    let other = GatewayProcess::on(&redis, &[]);
    let _worker = WorkerProcess::on(&redis, &[]);
    let mut ann = gateway.ticket("claim-1", "ann").join().await;
    let mut bob = other.ticket("claim-1", "bob").join().await;
    // One that never answers the goodbye must not hold it up for long.
    let mute = gateway.ticket("claim-1", "mute").join().await;
    for n in 0..50 {
        ann.act("claim", &format!("{n}"), &format!("c{n}"), json!(null)).await;
    }
    gateway.process.signal("TERM");
    let asked = now();
    assert_eq!(ann.close_code().await.0, 1001);
    assert_eq!(gateway.process.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(TcpStream::connect(gateway.address).is_err() && TcpStream::connect(gateway.admin).is_err());
    drop(mute);
    // What was sent before is decided, and there for whoever comes back.
    bob.find(|v| v["id"] == "49").await;
    let mut back = other.ticket("claim-1", "ann").since(ann.era(), ann.seq).join().await;
    let own = |v: &Value| v["id"] == "49" && v["player"] == "ann";
    assert_eq!(back.find(own).await["outcome"], "granted");
}

#[tokio::test]
async fn a_draining_gateway_is_not_ready() {
    let redis = redis(&[]);
    let mut gateway = GatewayProcess::on(&redis, &[]);
    // Without a worker nothing is resolved; what was taken in still has to reach the journal.
    let waiting = gateway.ticket("pit", "ann").open().await;
    until("the session is open", || (gateway.metric("lasthit_sessions_open") == 1.0).then_some(()));
    gateway.process.signal("TERM");
    gateway.process.line_with("draining");
    assert_eq!(gateway.process.code(), Some(0));
    drop(waiting);
}

#[test]
fn listening_beyond_loopback_is_refused_without_a_key_and_said_when_allowed() {
    let refused = Process::start(&["serve", "--listen", "0.0.0.0:0", "--admin", "none"], &[]);
    let line = refused.fails(2);
    assert!(line.contains("0.0.0.0:0") && line.ends_with("--allow-keyless") && line.contains("key"), "{line}");
    let admin = Process::start(&["serve", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"], &[]);
    assert!(admin.fails(2).ends_with("--allow-remote-admin"));
    // One word does not open the other.
    let open = ["serve", "--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0"];
    for (word, missing) in [("--allow-keyless", "--allow-remote-admin"), ("--allow-remote-admin", "--allow-keyless")] {
        let line = Process::start(&[&open, &[word][..]].concat(), &[]).fails(2);
        assert!(line.ends_with(missing), "{word}: {line}");
    }
    let allowed = Process::start(&[&open, &["--allow-keyless", "--allow-remote-admin"][..]].concat(), &[]);
    allowed.line_with("other hosts can connect");
    let key = [("LASTHIT_JWT_KEY", "0123456789abcdef0123456789abcdef")];
    let with_key = Process::start(&["serve", "--listen", "0.0.0.0:0", "--admin", "none"], &key);
    with_key.line_with("open http://");
    let local = GatewayProcess::serve(&[]);
    assert!(local.process.line_with("no jwt key").contains("role=server"));
}

#[tokio::test]
async fn a_full_gateway_says_so_and_has_room_again() {
    let serve = GatewayProcess::serve(&["--sessions-max", "1"]);
    let ann = serve.ticket("pit", "ann").join().await;
    let asked = upgrade("/v1/room/pit?player=bob", "lasthit.v1.json");
    let (status, code, message) = problem(&http(serve.address, &asked));
    assert_eq!((status, code.as_str()), (503, "full"), "{message}");
    ann.leave(1000).await;
    until("ann's place", || (serve.metric("lasthit_sessions_open") == 0.0).then_some(()));
    serve.ticket("pit", "bob").join().await.leave(1000).await;
}

/// It raises its limit of open files itself, takes as many sessions as that holds, and refuses to promise more.
#[test]
fn open_files_bound_what_a_gateway_promises() {
    let limited = |flags: &[&str]| {
        let program = env!("CARGO_BIN_EXE_lasthit");
        let free = ["serve", "--listen", "127.0.0.1:0", "--admin", "none"];
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 256; ulimit -Hn 4096; exec \"$@\"", "sh", program]).args(free).args(flags);
        Process::of(&mut command)
    };
    let line = limited(&["--sessions-max", "5000"]).fails(1);
    assert!(line.starts_with("--sessions-max 5000 needs ") && line.contains("may open 4096: raise"), "{line}");
    for flags in [&[][..], &["--sessions-max", "500"]] {
        let running = limited(flags);
        running.line_with("open http://");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.id())).expect("its limits");
        assert!(limits.lines().any(|l| l.starts_with("Max open files") && l.matches("4096").count() == 2), "{limits}");
        let fewer = running.lines().iter().any(|line| line.contains("this process may open 4096 files, which allows"));
        assert_eq!(fewer, flags.is_empty());
    }
}
