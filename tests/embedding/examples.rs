//! The examples, run: each is a process that is bounded, and judged by what it does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use lasthit::embed::{Gateway, Joining, Seat, act};
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::types::{Outcome, Verdict};
use servers::RedisServer;

const PATIENCE: Duration = Duration::from_secs(20);

/// A program that cargo built along with this test: examples lie beside the `deps` that this one runs from.
fn example(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("this test");
    let profile = me.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = profile.join("examples").join(name);
    assert!(path.is_file(), "{} is missing: `cargo test` builds it, `cargo test --test embedding` does not", path.display());
    path
}

/// A running process and its lines; killed when the test ends before it does.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// `stderr` says which of its outputs is read.
    fn start(program: &Path, args: &[&str], stderr: bool) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LASTHIT_")) {
            command.env_remove(name);
        }
        command.args(args).stdin(Stdio::null());
        let piped = if stderr { command.stderr(Stdio::piped()) } else { command.stdout(Stdio::piped()) };
        let mut child = piped.spawn().expect("started");
        let output: Box<dyn std::io::Read + Send> = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), _) => Box::new(stdout),
            (_, Some(stderr)) => Box::new(stderr),
            _ => panic!("no output"),
        };
        Self { child, lines: lines_of(output) }
    }

    fn line_with(&self, text: &str) -> String {
        line_with(&self.lines, text)
    }

    fn ends_well(&mut self) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("still running");
    }
}

fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// Waits for the line that holds `text`.
fn line_with(lines: &Receiver<String>, text: &str) -> String {
    let mut seen = Vec::new();
    while let Ok(line) = lines.recv_timeout(PATIENCE) {
        if line.contains(text) {
            return line;
        }
        seen.push(line);
    }
    panic!("no {text:?} in {seen:#?}");
}

#[test]
fn embed_gateway_serves_lines() {
    let server = Running::start(&example("embed_gateway"), &["127.0.0.1:0"], false);
    let address = server.line_with("listening on ").split_off("listening on ".len());
    let player = |hello: &str| {
        let mut stream = TcpStream::connect(&address).expect("connected");
        stream.write_all(hello.as_bytes()).expect("sent");
        let lines = lines_of(stream.try_clone().expect("stream"));
        line_with(&lines, "welcome to loot");
        (stream, lines)
    };
    let (mut ann, ann_reads) = player("loot ann\n");
    let (mut bob, bob_reads) = player("loot bob\n");
    ann.write_all(b"sword\n").expect("sent");
    line_with(&ann_reads, "ann gets sword");
    line_with(&bob_reads, "ann gets sword");
    bob.write_all(b"sword\nshield\n").expect("sent");
    line_with(&ann_reads, "bob is late for sword by ");
    line_with(&ann_reads, "bob gets shield");
    drop(bob_reads);
    bob.shutdown(std::net::Shutdown::Both).expect("closed");
    line_with(&ann_reads, "bob: close");
}

#[test]
fn embed_worker_is_short_and_plays_by_its_own_rules() {
    let source = include_str!("../../examples/embed_worker.rs");
    assert!(source.lines().count() < 50, "{} lines", source.lines().count());
    let redis = RedisServer::start().expect("redis");
    let mut worker = Running::start(&example("embed_worker"), &[&redis.url()], true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let play = async {
        let journal = RedisJournal::connect(&redis.url(), RedisOptions::default()).await.expect("journal");
        let gateway = Gateway::start(Arc::new(journal)).await.expect("gateway");
        let mut ann = gateway.join(Joining::new("art".parse().expect("room"), "ann".parse().expect("player"))).expect("joined");
        assert_eq!(bid(&mut ann, "a", 100).await.outcome, Outcome::Granted);
        assert_eq!(bid(&mut ann, "b", 100).await.outcome, Outcome::Denied("too_low".to_owned()));
        let last = bid(&mut ann, "c", 101).await;
        assert_eq!((last.outcome, last.body.as_deref()), (Outcome::Granted, Some(&[101][..])));
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, play).await.expect("in time") });
    let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", worker.child.id())]).status().expect("sh");
    assert!(kill.success());
    worker.ends_well();
}

async fn bid(seat: &mut Seat, id: &str, amount: u64) -> Verdict {
    seat.arrive(&act("bid", id).args(&amount)).expect("accepted");
    loop {
        let delivery = seat.recv().await.expect("open");
        if let Some(verdict) = delivery.verdict().filter(|v| v.id.as_deref() == Some(id)) {
            return verdict.clone();
        }
    }
}

#[test]
fn beside_a_server_acts_for_its_players() {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "none"];
    let gateway = Running::start(Path::new(env!("CARGO_BIN_EXE_lasthit")), &serve, true);
    let line = gateway.line_with("connect to ws://");
    let host = line.split("connect to ws://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let mut game = Running::start(&example("beside_a_server"), &[&format!("ws://{host}"), "pit"], false);
    for expected in ["joined pit at seq", "baron is there with 500 points", "ann hit baron: 200 of 500 left"] {
        game.line_with(expected);
    }
    game.line_with("bob slew baron, 100 points over");
    game.line_with("carl was late by ");
    game.ends_well();
}

#[test]
fn examples_are_short() {
    for name in ["embed_gateway", "embed_worker", "embed_supervisor", "beside_a_server"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).with_extension("rs");
        let lines = std::fs::read_to_string(path).expect("source").lines().count();
        assert!(lines < 100, "{name}: {lines} lines");
    }
}
