//! A supervisor that runs a Redis of its own: from nothing to a played contest, and what becomes of the data.

use std::os::unix::fs::PermissionsExt;

use servers::RedisServer;

use super::player::Player;
use super::{Home, Row, Up, kill, runs, shown};
use crate::support::{Process, end_by_signal, until};

/// The search path, with a redis-server on it.
fn path() -> String {
    let program = RedisServer::program().expect("a redis-server");
    let folder = program.parent().expect("a folder").canonicalize().expect("a path");
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

/// One with a gateway and a worker.
fn start(home: Home) -> Up {
    let process = process(&home, "127.0.0.1:0");
    let up = Up::started(home, process);
    up.all_ready(3);
    up
}

/// The next one on the folder of one that has ended, at its address.
fn next(up: &Up) -> Process {
    let process = process(&up.home, &up.address.to_string());
    process.line_with("come in at");
    process
}

fn process(home: &Home, listen: &str) -> Process {
    let data = shown(&home.file("data"));
    let args = ["--data", &data, "--listen", listen, "--admin", "none", "--gateways", "1", "--workers", "1"];
    home.start(&args, &[("PATH", &path())])
}

/// Asks its Redis something.
fn asked(home: &Home, command: &[&str]) -> Vec<String> {
    let socket = home.file("data/redis/redis.sock");
    let client = redis::Client::open(format!("unix://{}", socket.display())).expect("a client");
    let mut connection = client.get_connection().expect("connected");
    let mut asking = redis::cmd(command[0]);
    command[1..].iter().for_each(|word| {
        asking.arg(word);
    });
    asking.query(&mut connection).expect("answered")
}

/// What nobody else would end.
struct Last(u32);

impl Drop for Last {
    fn drop(&mut self) {
        if runs(self.0) {
            kill(self.0);
        }
    }
}

#[tokio::test]
async fn from_nothing_to_a_played_contest_and_the_data_stays() {
    let mut up = start(Home::new());
    let rows = up.ps();
    assert_eq!(rows.iter().map(Row::name).collect::<Vec<_>>(), ["redis", "gateway-1", "worker-1"]);
    let redis = rows[0].pid().expect("a pid");
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    let mut bob = Player::join(up.address, "claim-1", "bob").await;
    ann.play().await;
    bob.play().await;
    // It is for this user alone, and keeps what it confirms.
    let mode = |name: &str| std::fs::metadata(up.home.file(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!((mode("data/redis"), mode("data/redis/redis.sock")), (0o700, 0o600));
    for (setting, value) in
        [("port", "0"), ("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction"), ("save", "")]
    {
        assert_eq!(asked(&up.home, &["CONFIG", "GET", setting]), [setting, value]);
    }
    assert!(up.process.line_with("redis      | ").contains("redis"), "its lines have its name");
    up.process.line_with(&format!("other commands reach it by --redis unix://{}", shown(&up.home.file("data/redis/redis.sock"))));
    // It is nobody's to replace.
    assert!(up.ask(&["restart", "all"]).done().iter().all(|line| !line.contains("redis")));
    assert!(up.ask(&["stop", "redis"]).refused(1).starts_with("\"redis\" is no process: there is worker-1, gateway-1"));
    let reloaded = up.ask(&["reload"]).done();
    assert!(reloaded.iter().any(|line| line.starts_with("worker-1: ")) && reloaded.iter().all(|line| !line.contains("redis")));
    assert_eq!(up.pid("redis"), redis);
    ann.play().await;

    up.ask(&["down"]).done();
    // Whoever asked for the end was told when all was over.
    assert!(!runs(redis));
    assert_eq!(up.process.code(), Some(0));
    let lines = up.process.lines();
    let at = |text: &str| lines.iter().rposition(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {lines:#?}"));
    let last_worker = lines.iter().rposition(|line| line.contains("worker-1") && line.contains("ended with code 0"));
    assert!(last_worker.expect("a worker's end") < at("has ended process=\"redis\""), "{lines:#?}");

    // The next one has the same data, on the same files.
    up.process = next(&up);
    up.all_ready(3);
    assert_ne!(up.pid("redis"), redis);
    for player in [&mut ann, &mut bob] {
        player.play().await;
        player.is_content();
    }
}

#[tokio::test]
async fn a_killed_redis_is_started_again_and_no_action_is_lost() {
    let up = start(Home::new());
    let before = up.ps();
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    for n in 0..3 {
        ann.play().await;
        let pid = up.pid("redis");
        kill(pid);
        ann.play().await;
        let row = up.replaced("redis", pid);
        assert_eq!((row.crashes(), row.last_end()), (n + 1, "redis-server was ended by signal 9"), "{row:?}");
    }
    up.process.line_with("redis is started again in 100 ms");
    ann.play().await;
    ann.is_content();
    assert_eq!(ann.returns, 0, "the gateway lives through it");
    let after = up.all_ready(3);
    for (before, after) in before.iter().zip(&after).skip(1) {
        assert_eq!((before.pid(), after.crashes()), (after.pid(), 0), "{after:?}");
    }
}

#[tokio::test]
async fn a_redis_that_is_left_behind_is_used_by_the_next_one() {
    let mut up = start(Home::new());
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    ann.play().await;
    let redis = up.pid("redis");
    let last = Last(redis);
    let others: Vec<u32> = up.children().into_iter().filter(|pid| *pid != redis).collect();
    up.process.kill();
    others.iter().filter(|pid| runs(**pid)).for_each(|pid| kill(*pid));
    assert!(runs(redis));
    up.process = next(&up);
    up.process.line_with("has run on, and is used: data in ");
    up.all_ready(3);
    assert_eq!((up.pid("redis"), up.row("redis").crashes()), (redis, 0));
    ann.play().await;
    // Its lines are heard again.
    let log = || up.process.lines().iter().filter(|line| line.starts_with("redis      | ")).count();
    let before = log();
    let socket = format!("unix://{}", shown(&up.home.file("data/redis/redis.sock")));
    let client = redis::Client::open(socket).expect("a client");
    let () = redis::cmd("BGREWRITEAOF").query(&mut client.get_connection().expect("connected")).expect("begun");
    until("its lines come", || (log() > before).then_some(()));

    // It is held as one of its own would be.
    kill(redis);
    let row = up.replaced("redis", redis);
    assert_eq!((row.crashes(), row.last_end()), (1, "redis-server has ended"), "{row:?}");
    ann.play().await;
    ann.is_content();
    drop(last);

    // Stopped by whoever found it.
    let redis = up.pid("redis");
    let _last = Last(redis);
    up.process.kill();
    up.process = next(&up);
    until("it is found again", || (up.ask(&["ps"]).code == Some(0)).then_some(()));
    assert_eq!(up.pid("redis"), redis);
    up.process.signal("TERM");
    assert_eq!(up.process.code(), Some(0));
    assert!(!runs(redis));
}

#[test]
fn what_keeps_it_from_running_is_told_in_one_line() {
    let path = path();
    let fails = |home: &Home, path: &str, args: &[&str], code: i32| {
        let data = shown(&home.file("data"));
        let own = if args.contains(&"--data") { Vec::new() } else { vec!["--data", &data] };
        let all = [&["--listen", "127.0.0.1:0", "--admin", "none", "--log", "error"], &own[..], args].concat();
        home.start(&all, &[("PATH", path)]).fails(code)
    };
    let home = Home::new();
    let program = |name: &str, text: &str| {
        let folder = home.file(name);
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join("redis-server"), text).expect("written");
        std::fs::set_permissions(folder.join("redis-server"), PermissionsExt::from_mode(0o755)).expect("set");
        shown(&folder)
    };
    let none = fails(&home, "/nowhere", &[], 1);
    assert_eq!(
        none,
        "there is no redis-server on PATH: install one (on Debian: apt install redis-server), or give --redis URL of one that runs"
    );
    let old = program("old", "#!/bin/sh\necho 'Redis server v=6.2.9 sha=00000000:0 malloc=libc bits=64 build=1'\n");
    let line = fails(&home, &old, &[], 1);
    assert!(
        line.ends_with(
            "old/redis-server has version 6.2.9: 7.0 or newer is needed; install one, or give --redis URL of one that runs"
        ),
        "{line}"
    );
    let luckless = "#!/bin/sh\n[ \"$1\" = --version ] && echo v=7.0.15 && exit\necho one\necho 'no luck today' >&2\nexit 3\n";
    let line = fails(&home, &program("luckless", luckless), &[], 1);
    assert_eq!(line, "redis-server ended with code 3 before it was ready: no luck today");
    assert!(!home.file("data/redis/redis.sock").exists(), "nothing was started");
    // What it cannot read, it says itself.
    let kept = home.file("data/redis/appendonlydir");
    std::fs::create_dir_all(&kept).expect("made");
    std::fs::write(kept.join("appendonly.aof.manifest"), "garbage\n").expect("written");
    let line = fails(&home, &path, &[], 1);
    assert_eq!(line, "redis-server ended with code 1 before it was ready: Invalid AOF manifest file format");
    std::fs::remove_dir_all(&kept).expect("removed");

    let file = home.write("file", "notes");
    let long = shown(&home.file(&"x".repeat(100)));
    for (code, args, expected) in [
        (1, ["--data", &file], "file\" cannot be used (Not a directory"),
        (1, ["--data", "/proc/nowhere"], "--data \"/proc/nowhere\" cannot be used ("),
        (1, ["--data", &long], "and at most 107 are allowed: give a shorter one"),
        (2, ["--data", "here"], "--data: \"here\" is not a path from the root"),
        (2, ["--durability", "replicated"], "needs replicas, and a managed redis has none"),
    ] {
        let line = fails(&home, &path, &args, code);
        assert!(line.contains(expected), "{line}");
    }

    // One at a time on the same data.
    let up = start(home);
    let other = Home::new();
    let data = shown(&up.home.file("data"));
    let line = fails(&other, &path, &["--data", &data], 1);
    let expected = format!("--data {data:?} is in use by another supervisor (process {}): stop it", up.process.id());
    assert!(line.starts_with(&expected), "{line}");
    up.all_ready(3);
    // A folder whose lock somebody holds who is no server.
    drop(up);
    let home = Home::new();
    std::fs::create_dir_all(home.file("data/redis")).expect("made");
    let lock = std::fs::File::create(home.file("data/redis/redis.lock")).expect("made");
    lock.lock().expect("locked");
    let line = fails(&home, &path, &[], 1);
    assert!(line.contains("a process holds the lock on the data in ") && line.ends_with("end it, then try again"), "{line}");
}

/// A gateway or worker goes on while it is loaded, stopped, and back.
#[tokio::test]
async fn a_redis_that_does_not_end_in_time_is_killed_and_counts() {
    let home = Home::new();
    let data = shown(&home.file("data"));
    let args = ["--data", &data, "--listen", "127.0.0.1:0", "--admin", "none", "--gateways", "0", "--workers", "1"];
    let mut process = home.start(&[&args[..], &["--stop-timeout", "2s"]].concat(), &[("PATH", &path())]);
    process.line_with("come in at");
    let rows = until("both are ready", || {
        let said = home.ask(&["ps", "--json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&said.lines.concat()).unwrap_or_default();
        let rows: Vec<Row> = rows.into_iter().map(Row).collect();
        (rows.len() == 2 && rows.iter().all(|row| row.phase() == "ready")).then_some(rows)
    });
    let redis = rows[0].pid().expect("a pid");
    home.ask(&["stop", "worker-1"]).done();
    end_by_signal(redis, "STOP");
    process.signal("TERM");
    assert_eq!(process.code(), Some(1));
    assert!(!runs(redis));
    process.line_with("did not end within 2 s: killed");
}
