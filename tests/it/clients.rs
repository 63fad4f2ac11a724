//! Other people's clients: Python's, JavaScript's, and the page in a browser.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use lasthit::internals::config::{Config, Flags, ProcessRole};
use lasthit::internals::roles;
use lasthit::internals::runtime::{self, Priority};
use lasthit::shutdown::Shutdown;
use servers::{Proxy, RedisServer, Upstream, free_address};

use super::support::{GatewayProcess, WorkerProcess, now, redis};

/// What a script says when what it needs is not there.
const SKIPPED: i32 = 77;
/// How long a script may take.
const SCRIPT: Duration = Duration::from_secs(120);

/// Runs a script to its end, on a machine that has what it needs; prints what it printed.
pub(super) fn run(command: &mut Command) {
    let shown = format!("{command:?}");
    let child =
        command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = match child.spawn() {
        Ok(child) => child,
        Err(error) => return skip(&shown, &error.to_string()),
    };
    let (pid, began) = (child.id(), now());
    let (sender, output) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(SCRIPT) else {
        super::support::end_by_signal(pid, "TERM");
        panic!("still running after {:?}: {shown}", began.elapsed());
    };
    let output = output.expect("waited");
    let said = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    match output.status.code() {
        Some(0) => println!("{said}"),
        Some(SKIPPED) => skip(&shown, said.trim()),
        code => panic!("{shown} ended with {code:?}:\n{said}"),
    }
}

/// Past the test harness's capture, so that it is seen.
fn skip(what: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

pub(super) fn script(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// A Python that has `websockets`, if there is one.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let mut import = Command::new(python);
        import.args(["-c", "import websockets"]).stdout(Stdio::null()).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has)
}

#[test]
fn python_plays_a_match() {
    let Some(python) = python() else {
        return skip("tests/it/match.py", "no python3 with websockets: apt-get install python3-websockets");
    };
    let serve = GatewayProcess::serve(&[]);
    run(Command::new(python).args([&script("tests/it/match.py"), &format!("ws://{}", serve.address)]));
}

#[test]
fn python_plays_a_match_on_redis_with_two_gateways() {
    let Some(python) = python() else {
        return skip("tests/it/match.py", "no python3 with websockets: apt-get install python3-websockets");
    };
    let redis = redis(&[]);
    let (a, b, _worker) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]), WorkerProcess::on(&redis, &[]));
    let urls = [a.address, b.address].map(|address| format!("ws://{address}"));
    run(Command::new(python).arg(script("tests/it/match.py")).args(urls));
}

/// A port that nobody listens on just now: the gateway has to come back on the same one.
fn free_port() -> u16 {
    free_address().expect("a port").port()
}

fn javascript(command: &str, port: u16, more: &[&str]) {
    let url = format!("ws://127.0.0.1:{port}");
    run(Command::new("node").arg(script("clients/js/test.mjs")).args(["--url", &url, "--spawn", command]).args(more));
}

#[test]
fn the_javascript_client_survives_a_gateway_that_is_killed() {
    let port = free_port();
    // The shell becomes the gateway: nothing is left behind when it is killed.
    let command = format!("exec {} serve --listen 127.0.0.1:{port} --admin none", env!("CARGO_BIN_EXE_lasthit"));
    javascript(&command, port, &[]);
}

#[test]
fn the_javascript_client_loses_nothing_on_redis() {
    let (redis, port) = (redis(&[]), free_port());
    let _worker = WorkerProcess::on(&redis, &[]);
    let program = env!("CARGO_BIN_EXE_lasthit");
    let command = format!("exec {program} gateway --redis {} --listen 127.0.0.1:{port} --admin none", redis.url());
    javascript(&command, port, &["--durable"]);
}

/// A gateway on a thread of this process, which can be asked to move its sessions.
struct Movable {
    address: SocketAddr,
    shutdown: Shutdown,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Movable {
    fn on(redis: &RedisServer) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let flags = Flags::default().with("redis", &redis.url()).with("listen", &address.to_string()).with("admin", "none");
        let config = Config::load(ProcessRole::Gateway, flags, &|_| None).expect("settings");
        let (shutdown, runtime) = (Shutdown::new(), runtime::gateway(1_000, Priority::Normal).expect("a runtime"));
        let told = shutdown.clone();
        let thread = std::thread::spawn(move || runtime.block_on(roles::gateway(config, told)));
        super::support::until("it listens", || std::net::TcpStream::connect(address).ok());
        Self { address, shutdown, thread: Some(thread) }
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        self.shutdown.request();
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "{ended:?}");
    }
}

/// Some follow their gateways, the others are closed and come back. Nobody loses an action, or has one done twice.
#[test]
fn the_javascript_client_plays_on_while_its_gateways_leave() {
    let redis = redis(&[]);
    let _worker = WorkerProcess::on(&redis, &[]);
    let mut here = Movable::on(&redis);
    let door = Proxy::start(Upstream::Tcp(here.address)).expect("a proxy");
    let url = format!("ws://{}", door.address());
    let player = std::thread::spawn(move || {
        run(Command::new("node").arg(script("clients/js/test.mjs")).args(["--url", &url, "--travel", "2"]));
    });
    while !player.is_finished() {
        let there = Movable::on(&redis);
        door.lead_to(Upstream::Tcp(there.address));
        here.shutdown.request_moving(Duration::from_millis(1_500));
        // Once it has ended.
        here = there;
    }
    player.join().expect("the players have played on");
}

#[test]
fn two_tabs_play_the_page() {
    let serve = GatewayProcess::serve(&[]);
    let url = format!("http://{}", serve.address);
    run(Command::new("node").args([&script("clients/js/page.test.mjs"), "--url", &url]));
}
