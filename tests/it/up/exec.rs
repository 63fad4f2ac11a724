//! The supervisor executes another program in its own place.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::json;
use servers::RedisServer;

use super::player::Player;
use super::{Home, Row, Up, kill, runs, shown};
use crate::support::{Process, get, redis, until};

/// The program under test in a folder of its own, where it can be replaced.
struct Shelf {
    home: Home,
    path: PathBuf,
}

impl Shelf {
    fn new() -> Self {
        let home = Home::new();
        let path = home.file("lasthit");
        let shelf = Self { home, path };
        shelf.replace();
        shelf
    }

    /// Puts another file in its place, as a package manager does: the same program with a byte more.
    fn replace(&self) {
        let new = self.path.with_extension("new");
        let before = std::fs::metadata(&self.path).map_or(0, |about| about.len());
        std::fs::copy(env!("CARGO_BIN_EXE_lasthit"), &new).expect("copied");
        let mut file = std::fs::File::options().append(true).open(&new).expect("opened");
        let own = file.metadata().expect("there").len();
        file.write_all(&vec![0; usize::try_from(before.saturating_sub(own) + 1).expect("few")]).expect("written");
        drop(file);
        std::fs::rename(&new, &self.path).expect("replaced");
    }

    /// A supervisor that runs it.
    fn up(self, redis: &RedisServer, more: &[&str]) -> Up {
        let (control, folder, url) = (shown(&self.home.control()), shown(self.home.0.path()), redis.url());
        let mut command = Command::new(&self.path);
        command.args(["up", "--control", &control, "--runtime-dir", &folder, "--redis", &url, "--listen", "127.0.0.1:0"]);
        command.args(["--gateways", "2", "--workers", "2", "--drain-window", "200ms"]).args(more);
        let process = Process::of(&mut command);
        let up = Up::started(self.home, process);
        up.all_ready(4);
        up
    }
}

/// Replaces the program of a running supervisor.
fn replace(up: &Up) -> PathBuf {
    let path = up.home.file("lasthit");
    let shelf = Shelf { home: Home::new(), path: path.clone() };
    shelf.replace();
    path
}

/// The file that a process runs.
fn file_of(pid: u32) -> u64 {
    std::fs::metadata(format!("/proc/{pid}/exe")).expect("it runs").ino()
}

fn is_file(pid: u32, path: &Path) -> bool {
    file_of(pid) == std::fs::metadata(path).expect("a file").ino()
}

/// What a process has open.
fn open_files(pid: u32) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let link = |entry: std::fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, std::fs::read_link(entry.path()).ok()?.display().to_string()))
    };
    entries.filter_map(link).collect()
}

/// No child has what is the supervisor's, but for its own channel and its own pipes.
fn nothing_has_leaked(up: &Up) {
    // Without what whoever runs this test has left open for all.
    let others: BTreeSet<String> = open_files(std::process::id()).into_iter().map(|(_, link)| link).collect();
    let own = open_files(up.process.id()).into_iter().map(|(_, link)| link);
    let own: BTreeSet<String> = own.filter(|link| !others.contains(link)).collect();
    for child in up.children() {
        for (number, link) in open_files(child) {
            let is_shared = own.contains(&link) && (link.starts_with("socket:") || link.starts_with("pipe:"));
            let is_strange = link.contains("pidfd") || link.contains("memfd") || link.ends_with("/lasthit");
            assert!(number <= 2 || !(is_shared || is_strange), "{number} of {child} is {link}");
        }
    }
}

/// `lasthit logs --follow`, and what it has printed.
struct Follower {
    child: std::process::Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Follower {
    fn of(up: &Up) -> Self {
        let control = shown(&up.home.control());
        let mut command = crate::support::program(&["logs", "--follow", "--control", &control]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("started");
        let (lines, stdout) = (Arc::<Mutex<Vec<String>>>::default(), BufReader::new(child.stdout.take().expect("stdout")));
        let written = lines.clone();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                written.lock().expect("lines").push(line);
            }
        });
        Self { child, lines }
    }

    /// How many lines of a process it has printed.
    fn count(&self, name: &str) -> usize {
        self.lines.lock().expect("lines").iter().filter(|line| line.starts_with(name)).count()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_reload_executes_the_new_program_and_nobody_notices() {
    let redis = redis(&[]);
    let up = Shelf::new().up(&redis, &["--admin", "127.0.0.1:0"]);
    let admin = up.process.address_in("health and metrics on http://");
    let (supervisor, first) = (up.process.id(), file_of(up.process.id()));
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    let mut bob = Player::join(up.address, "claim-1", "bob").await;
    let mut follower = Follower::of(&up);
    let mut open = Vec::new();
    for round in 2..4 {
        let (before, path) = (up.children(), replace(&up));
        // One that has said half of what it wants, and one that reads nothing.
        let mut half = UnixStream::connect(up.home.control()).expect("connected");
        half.write_all(b"GET /v1/proc").expect("sent");
        let stuck = UnixStream::connect(up.home.control()).expect("connected");
        (&stuck).write_all(b"GET /v1/logs?follow HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
        let reload = up.asks(&["reload"]);
        while !reload.is_finished() {
            ann.play().await;
            bob.play().await;
        }
        let lines = reload.join().expect("reloaded").done();
        assert_eq!(lines.iter().filter(|line| line.ends_with(": a new one is started")).count(), 4, "{lines:?}");
        assert!(up.process.id() == supervisor && is_file(supervisor, &path) && file_of(supervisor) != first);
        let rows = up.all_ready(4);
        for row in &rows {
            let pid = row.pid().expect("a pid");
            assert!(is_file(pid, &path) && !before.contains(&pid), "{row:?}");
            assert_eq!((row.generation(), row.crashes(), row.last_end()), (round, 0, ""), "{row:?}");
        }
        assert_eq!(rows.iter().filter_map(Row::pid).collect::<BTreeSet<_>>(), up.children());
        let name = std::fs::read_to_string(format!("/proc/{supervisor}/comm")).expect("it runs");
        assert_eq!(name, "lasthit\n");
        assert_eq!(get(admin, "/healthz"), (200, "ok\n".to_owned()));
        assert!(get(admin, "/metrics").1.contains("{process=\"gateway-2\""));
        let mut rest = Vec::new();
        half.read_to_end(&mut rest).expect("it is closed");
        drop((half, stuck));
        nothing_has_leaked(&up);
        let session = up.ticket("claim-1", &format!("cid{round}")).join().await;
        drop(session);
        // It holds what it held before, and no more.
        until("what was open for those who asked is closed", || {
            let count = open_files(supervisor).len();
            (open.is_empty() || open.contains(&count)).then(|| open.push(count))
        });
    }
    // What crashes comes back as it was, from the open file: by now there is another one at its path.
    let (path, before) = (up.home.file("lasthit"), up.pid("gateway-1"));
    let runs_now = file_of(supervisor);
    replace(&up);
    let lines = follower.count("gateway-1");
    kill(before);
    let row = up.replaced("gateway-1", before);
    assert_eq!((row.generation(), row.crashes(), file_of(row.pid().expect("a pid"))), (3, 1, runs_now));
    assert!(!is_file(supervisor, &path));
    until("its lines are followed", || (follower.count("gateway-1") > lines).then_some(()));
    assert!(follower.child.try_wait().expect("a child").is_none(), "it follows on");
    for _ in 0..3 {
        ann.play().await;
        bob.play().await;
    }
    ann.is_content();
    bob.is_content();
    // The first image's lines are there, too.
    assert!(up.ask(&["logs"]).done().len() > 4);
    // The end of the channels is still the end of the children.
    let children = up.children();
    crate::support::end_by_signal(supervisor, "KILL");
    until("the children have drained", || children.iter().all(|pid| !runs(*pid)).then_some(()));
}

/// A signal that comes when the new image does not listen yet waits for it.
#[tokio::test]
async fn a_hangup_in_between_is_answered() {
    let redis = redis(&[]);
    let up = Shelf::new().up(&redis, &["--admin", "none"]);
    let (supervisor, path) = (up.process.id(), replace(&up));
    let reload = up.asks(&["reload"]);
    while !is_file(supervisor, &path) {
        std::thread::yield_now();
    }
    up.process.signal("HUP");
    reload.join().expect("reloaded").done();
    up.process.line_with("reload: done");
    assert!(up.all_ready(4).iter().all(|row| row.generation() == 3), "{:?}", up.ps());
    // And one that was the reload's own.
    let path = replace(&up);
    up.process.signal("HUP");
    until("it is executed", || is_file(supervisor, &path).then_some(()));
    until("the log says so", || {
        (up.process.lines().iter().filter(|line| line.contains("reload: done")).count() == 2).then_some(())
    });
    up.process.signal("TERM");
    let mut up = up;
    assert_eq!(up.process.code(), Some(0));
}

/// A program of the test's own: it does what a file beside it says, and else what lasthit does.
const OTHER: &str = r#"
use std::os::unix::{fs::PermissionsExt, process::CommandExt};
fn main() {
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let mode = std::fs::read_to_string(own.with_file_name("mode")).unwrap_or_default();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match (args[0].as_str(), mode.as_str()) {
        ("takeover", "hang") => loop { std::thread::park() },
        ("takeover", "refuse") => {
            println!("{{\"lasthit\": \"9.9\", \"mistakes\": [\"the moon is full\"]}}");
            return;
        }
        ("takeover", "spoil") => std::fs::set_permissions(&own, PermissionsExt::from_mode(0o600)).unwrap(),
        ("takeover", "chat") => loop { println!("{}", "x".repeat(1000)) },
        ("child", "die") => std::process::exit(7),
        _ => {}
    }
    panic!("{}", std::process::Command::new(REAL).arg0("lasthit").args(args).exec());
}
"#;

/// Makes it.
fn other(home: &Home) -> PathBuf {
    let (source, program) = (home.file("other.rs"), home.file("other"));
    std::fs::write(&source, OTHER.replace("REAL", &format!("{:?}", env!("CARGO_BIN_EXE_lasthit")))).expect("written");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let made = Command::new(rustc).arg(&source).arg("-o").arg(&program).status().expect("rustc");
    assert!(made.success());
    program
}

#[tokio::test]
async fn a_program_that_cannot_take_over_changes_nothing() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    let (before, other) = (up.children(), other(&up.home));
    let copy = |name: &str, of: &str| {
        let path = up.home.file(name);
        std::fs::copy(of, &path).expect("copied");
        shown(&path)
    };
    let plain = up.home.write("plain", "no program");
    let script = up.home.write("script", "#!/bin/sh\nexit 1\n");
    let garbage = up.home.write("garbage", &"\u{1}garbage".repeat(100));
    for path in [&script, &garbage] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("set");
    }
    let missing = shown(&up.home.file("missing"));
    let other = shown(&other);
    for (mode, path, expected) in [
        ("", missing, "missing cannot be run: No such file or directory"),
        ("", plain, "plain cannot be run: it is no program that may be run"),
        ("", shown(up.home.0.path()), "cannot be run: it is no program that may be run"),
        ("", script, "script cannot be run: it is a script: name the program itself"),
        ("", garbage, "garbage "),
        ("", copy("true", "/bin/true"), "true is no lasthit that can take over: it ended with code 0"),
        ("", copy("false", "/bin/false"), "false is no lasthit that can take over: it ended with code 1"),
        ("", copy("ls", "/bin/ls"), "ls is no lasthit that can take over: it ended with code 2, and said"),
        ("refuse", other.clone(), "the moon is full"),
        ("chat", other.clone(), "other is no lasthit that can take over: it "),
    ] {
        up.home.write("mode", mode);
        for command in ["check", "reload"] {
            let line = up.ask(&[command, "--binary", &path]).refused(1);
            assert!(line.starts_with("nothing is changed: ") && line.contains(expected), "{path}: {line}");
        }
    }
    // It is given up after a time, and what it is goes with it.
    up.home.write("mode", "hang");
    let line = up.ask(&["check", "--binary", &other]).refused(1);
    assert!(line.ends_with("other does not say within 5 s whether it can take over"), "{line}");
    until("it is gone", || (up.children() == before).then_some(()));
    let fine = up.ask(&["check"]).done();
    assert!(fine.len() == 1 && fine[0].ends_with(": it can take over, and the settings have no mistake"), "{fine:?}");
    assert!(up.all_ready(4).iter().all(|row| row.generation() == 1));
    // It passes its check, and its processes do not start: the old ones stay, and so does the supervisor's program.
    let own = file_of(up.process.id());
    up.home.write("mode", "die");
    let line = up.ask(&["reload", "--binary", &other]).refused(1);
    assert!(
        line.contains("worker-1: the new one ended with code 7 before it was ready; new: none; as before: worker-1"),
        "{line}"
    );
    assert_eq!((up.children(), file_of(up.process.id())), (before, own));
}

/// The processes are new, and the supervisor's program cannot be executed: it goes on as it was.
#[tokio::test]
async fn a_program_that_cannot_be_executed_leaves_the_old_one_where_it_is() {
    let redis = redis(&[]);
    let up = Shelf::new().up(&redis, &["--admin", "127.0.0.1:0"]);
    let admin = up.process.address_in("health and metrics on http://");
    let (supervisor, other, own) = (up.process.id(), other(&up.home), file_of(up.process.id()));
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    let follower = Follower::of(&up);
    let fails = "all processes are new, and the supervisor goes on with its old program: ";
    for (round, mode, expected) in [(2, "refuse", "the moon is full"), (3, "spoil", "it cannot be executed: Permission denied")] {
        std::fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).expect("set");
        up.home.write("mode", "");
        let before = up.children();
        let reload = up.asks(&["reload", "--binary", &shown(&other)]);
        // It was asked, which is a process too, and it said yes.
        until("the first new one is there", || up.ps().iter().any(|row| row.generation() == round).then_some(()));
        up.home.write("mode", mode);
        while !reload.is_finished() {
            ann.play().await;
        }
        let line = reload.join().expect("ended").refused(1);
        assert!(line.starts_with(fails) && line.contains(expected), "{line}");
        let rows = up.all_ready(4);
        assert!(rows.iter().all(|row| row.generation() == round && !before.contains(&row.pid().expect("a pid"))), "{rows:?}");
        assert_eq!((file_of(supervisor), get(admin, "/healthz").0), (own, 200));
    }
    nothing_has_leaked(&up);
    let lines = follower.count("worker-2");
    let before = up.pid("worker-2");
    // What comes back is started from the file that was good, whatever it is now.
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).expect("set");
    up.home.write("mode", "");
    kill(before);
    up.replaced("worker-2", before);
    until("its lines are followed", || (follower.count("worker-2") > lines).then_some(()));
    // The next one is executed.
    let path = replace(&up);
    let reload = up.asks(&["reload", "--binary", &shown(&path)]);
    while !reload.is_finished() {
        ann.play().await;
    }
    reload.join().expect("reloaded").done();
    assert!(is_file(supervisor, &path));
    let mut bob = up.ticket("claim-1", "bob").join().await;
    assert_eq!(bob.ask("claim", "1", "hat", json!(null)).await["outcome"], "granted");
    ann.is_content();
}
