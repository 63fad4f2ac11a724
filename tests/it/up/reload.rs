//! Everything is replaced while players play.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use servers::RedisServer;

use super::player::Player;
use super::{Home, Up};
use crate::support::{Heard, end_by_signal, redis, until};

/// A supervisor whose settings are in a file.
fn from_file(redis: &RedisServer, more: &str) -> Up {
    let (home, file) = (Home::new(), settings(redis, more));
    let config = home.write("lasthit.toml", &file);
    let process = home.start(&["--config", &config, "--admin", "none"], &[]);
    let up = Up::started(home, process);
    up.all_ready(4);
    up
}

fn settings(redis: &RedisServer, more: &str) -> String {
    let url = redis.url();
    format!("redis = \"{url}\"\nlisten = \"127.0.0.1:0\"\ngateways = 2\nworkers = 2\ndrain_window = \"1s\"\n{more}")
}

/// Whether a session may act ten times at once.
async fn acts_ten_times(up: &Up, player: &str) -> bool {
    let mut session = up.ticket("claim-2", player).join().await;
    for n in 0..10 {
        session.act("claim", &n.to_string(), &format!("{player} {n}"), json!(null)).await;
    }
    // One that acts far too fast is closed.
    loop {
        match session.next().await {
            Heard::Message(told) if told["t"] == "error" => return told["code"] != "rate_limited",
            Heard::Message(told) if told["id"] == "9" && told["player"] == player => return true,
            Heard::Message(_) => {}
            Heard::Close(code, _) => return code != 4429,
            Heard::Lost(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_reload_replaces_all_and_sessions_survive_it() {
    let redis = redis(&[]);
    let up = from_file(&redis, "");
    let before = up.ps();
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    let mut bob = Player::join(up.address, "claim-1", "bob").await;
    assert!(acts_ten_times(&up, "cid").await);
    up.home.write("lasthit.toml", &settings(&redis, "actions_per_second = 4\n"));
    let reload = up.asks(&["reload"]);
    while !reload.is_finished() {
        ann.play_slowly().await;
        bob.play_slowly().await;
    }
    let lines = reload.join().expect("reloaded").done();
    let begun: Vec<&str> = lines.iter().filter_map(|line| line.strip_suffix(": a new one is started")).collect();
    assert_eq!(begun, ["worker-1", "worker-2", "gateway-1", "gateway-2"], "{lines:?}");
    let after = up.all_ready(4);
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(before.pid(), after.pid());
        assert_eq!((after.generation(), after.crashes(), after.last_end()), (2, 0, ""), "{after:?}");
    }
    assert!(!acts_ten_times(&up, "dan").await, "the new settings count");
    for player in [&ann, &bob] {
        player.is_content();
        // Both gateways have gone: the one that each was on, at least.
        assert!(player.asked_to_move > 0 && player.returns > 0, "{} and {}", player.asked_to_move, player.returns);
    }

    // SIGHUP does the same.
    up.home.write("lasthit.toml", &settings(&redis, "actions_per_second = 1000\n"));
    up.process.signal("HUP");
    up.process.line_with("reload: done");
    assert!(up.all_ready(4).iter().all(|row| row.generation() == 3));
    assert!(acts_ten_times(&up, "eve").await);
    // One that ends now comes back as the last reload wants it.
    let pid = up.pid("gateway-1");
    super::kill(pid);
    assert_eq!(up.replaced("gateway-1", pid).generation(), 3);
}

/// Settings that cannot be, and what cannot change while it runs: nothing changes, and one line says why.
#[tokio::test]
async fn a_reload_that_cannot_be_changes_nothing() {
    let redis = redis(&[]);
    let up = from_file(&redis, "");
    let before = up.children();
    let fixed = "cannot change while it runs: stop it with `lasthit down` and start it anew";
    let file = settings(&redis, "");
    let with = |from: &str, to: &str| file.replace(from, to);
    for (text, expected) in [
        (format!("{file}gateways = \n"), "lasthit.toml"),
        (format!("{file}lives = 9\n"), "lives"),
        (with("workers = 2", "workers = \"many\""), "\"many\" does not fit"),
        (with("workers = 2", "workers = 9"), "worker: 9 processes and 8 shards"),
        (with("gateways = 2\nworkers = 2", "gateways = 0\nworkers = 0"), "there is nothing to run"),
        (with("unix://", "unix:///tmp/.."), &*format!("redis {fixed}")),
        (format!("{file}rules = \"none.js\"\n"), "none.js"),
        (format!("{file}durability = \"disk\"\n"), &*format!("durability {fixed}")),
        (format!("{file}prefix = \"other\"\n"), &*format!("prefix {fixed}")),
        (format!("{file}shards = 4\n"), &*format!("shards {fixed}")),
        (with("127.0.0.1:0", "127.0.0.1:1"), &*format!("listen {fixed}")),
        (format!("{file}prefix = \"other\"\nshards = 4\n"), &*format!("prefix, shards {fixed}")),
    ] {
        up.home.write("lasthit.toml", &text);
        let line = up.ask(&["reload"]).refused(1);
        assert!(line.starts_with("nothing is changed: ") && line.contains(expected), "{line}");
    }
    std::fs::remove_file(up.home.file("lasthit.toml")).expect("removed");
    let line = up.ask(&["reload"]).refused(1);
    assert!(line.contains("lasthit.toml\" cannot be read"), "{line}");
    up.process.signal("HUP");
    assert!(up.process.line_with("reload: nothing is changed").contains("cannot be read"));
    assert!(up.all_ready(4).iter().all(|row| row.generation() == 1));
    assert_eq!(up.children(), before);
    // A process that is started now is as all the others, whatever is in the file.
    let pid = up.pid("worker-1");
    super::kill(pid);
    assert_eq!(up.replaced("worker-1", pid).generation(), 1);
    up.home.write("lasthit.toml", &file);
    up.ask(&["reload"]).done();
}

/// New ones that do not start leave the old ones where they are.
#[tokio::test]
async fn a_reload_whose_processes_do_not_start_keeps_the_old_ones() {
    let redis = redis(&[]);
    let hasty = "ready_timeout = \"3s\"\n";
    let up = from_file(&redis, hasty);
    let before = up.children();
    up.home.write("lasthit.toml", &settings(&redis, &format!("{hasty}room_linger = \"31s\"\n")));
    // What was there goes on without Redis. What is new is not ready.
    end_by_signal(redis.pid(), "STOP");
    let line = up.ask(&["reload"]).refused(1);
    end_by_signal(redis.pid(), "CONT");
    assert!(line.contains("worker-1: the new one was not ready within 3 s"), "{line}");
    assert!(line.contains("new: none") && line.contains("as before: worker-1, worker-2, gateway-1, gateway-2"), "{line}");
    assert_eq!(up.children(), before);
    assert!(up.all_ready(4).iter().all(|row| row.generation() == 1));
}

/// The JavaScript client follows its gateways, or comes back: no action is lost, and none is done twice.
#[test]
fn the_javascript_client_plays_on_through_reloads() {
    let redis = redis(&[]);
    let up = from_file(&redis, "");
    let url = format!("ws://{}", up.address);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js/test.mjs");
    let mut command = Command::new("node");
    command.arg(script).args(["--url", &url, "--travel", "2"]);
    let player = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut player) = player else {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED clients/js/test.mjs: no node");
        return;
    };
    // Its players are there.
    until("the players are there", || (up.ps().iter().map(super::Row::sessions).sum::<u64>() >= 7).then_some(()));
    let mut reloads = 0;
    while player.try_wait().expect("a child").is_none() {
        up.ask(&["reload"]).done();
        reloads += 1;
        assert!(reloads < 30, "nobody moves");
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = player.wait_with_output().expect("waited");
    let said = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success(), "{said}");
}

/// The page follows its gateways: it is never without a connection, and each of its hits counts once.
#[test]
fn the_page_plays_on_through_a_reload() {
    let redis = redis(&[]);
    let up = from_file(&redis, "");
    let (url, control) = (format!("http://{}", up.address), super::shown(&up.home.control()));
    let reload = format!("{} reload --control {control}", env!("CARGO_BIN_EXE_lasthit"));
    let script = crate::clients::script("clients/js/page.test.mjs");
    crate::clients::run(Command::new("node").args([&*script, "--url", &url, "--reload", &reload]));
}
