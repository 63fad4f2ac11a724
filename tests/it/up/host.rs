//! On a host: what the service manager hears and hands in, its units, and the first process of a container.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{Home, Up, shown};
use crate::support::{PATIENCE, Process, Ticket, end_by_signal, now, program, redis, until};

/// A command of the system that a test needs.
fn tool(name: &str, package: &str) -> Command {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().expect("sh");
    assert!(found.status.success(), "{name} is missing: install {package} (.ci/run does)");
    Command::new(name)
}

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// Listens in place of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Self(socket)
    }

    /// The next message that holds a line that begins so. Returns the lines of all until then.
    #[track_caller]
    fn heard(&self, line: &str) -> Vec<String> {
        let (mut all, start) = (Vec::new(), now());
        loop {
            assert!(start.elapsed() < PATIENCE, "{line} does not come: {all:?}");
            let mut bytes = [0; 4096];
            let count = self.0.recv(&mut bytes).unwrap_or_else(|error| panic!("{line} does not come: {error}: {all:?}"));
            let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
            all.extend(message.lines().map(str::to_owned));
            if message.lines().any(|said| said.starts_with(line)) {
                return all;
            }
        }
    }
}

#[tokio::test]
async fn a_service_manager_hears_what_happens() {
    let redis = redis(&[]);
    let home = Home::new();
    let manager = Manager::new(&home.file("notify"));
    let notify = shown(&home.file("notify"));
    // The watchdog is for the process that the shell becomes.
    let watched = "WATCHDOG_PID=$$ exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", watched, env!("CARGO_BIN_EXE_lasthit"), "up", "--control", &shown(&home.control())]);
    command.args(["--runtime-dir", &shown(home.0.path()), "--redis", &redis.url(), "--listen", "127.0.0.1:0"]);
    command.args(["--admin", "none", "--gateways", "2", "--workers", "1", "--drain-window", "200ms"]);
    command.envs([("NOTIFY_SOCKET", &*notify), ("WATCHDOG_USEC", "30000000")]);
    let mut up = Up::started(home, Process::of(&mut command));

    let said = manager.heard("READY=1");
    assert_eq!(said.first().map(String::as_str), Some("STATUS=0 of 3 processes ready, 0 sessions"));
    assert!(said.iter().any(|line| line == "STATUS=3 of 3 processes ready, 0 sessions"), "{said:?}");
    assert!(up.ps().iter().all(|row| row.phase() == "ready"), "READY is said when all are");
    let ann = up.ticket("claim-1", "ann").join().await;
    manager.heard("STATUS=3 of 3 processes ready, 1 session");
    // Again and again.
    manager.heard("WATCHDOG=1");
    manager.heard("WATCHDOG=1");
    for pid in up.children() {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("its environment");
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");
    }

    up.ask(&["reload"]).done();
    let said = manager.heard("RELOADING=1");
    let at = said.iter().position(|line| line == "RELOADING=1").expect("said");
    let moment = said.get(at + 1).and_then(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("its moment");
    assert!(moment.parse::<u64>().is_ok_and(|us| us > 0), "{moment}");
    manager.heard("READY=1");
    // A reload that is refused is over, too.
    let before = up.ps();
    end_by_signal(up.process.id(), "HUP");
    manager.heard("RELOADING=1");
    manager.heard("READY=1");
    assert!(up.ps().iter().all(|row| before.iter().all(|old| old.pid() != row.pid())), "all are new");
    drop(ann);
    up.ask(&["down"]).done();
    manager.heard("STOPPING=1");
    assert_eq!(up.process.code(), Some(0));
}

/// `systemd-socket-activate` opens the port, starts the supervisor when the first player comes, and hands the port in.
#[tokio::test]
async fn a_port_that_is_handed_in_is_used() {
    let redis = redis(&[]);
    let port = servers::free_address().expect("a free port").port();
    let (address, home) = (format!("127.0.0.1:{port}"), Home::new());
    let activated = |listen: &str| {
        let mut command = tool("systemd-socket-activate", "systemd");
        command.args(["-l", &address, env!("CARGO_BIN_EXE_lasthit"), "up", "--listen", listen, "--redis", &redis.url()]);
        command.args(["--control", &shown(&home.control()), "--runtime-dir", &shown(home.0.path())]);
        command.args(["--admin", "none", "--gateways", "1", "--workers", "1"]);
        Process::of(&mut command)
    };
    let mut other = activated("127.0.0.1:1");
    other.line_with("Listening on");
    drop(std::net::TcpStream::connect(&address).expect("it listens"));
    assert_eq!(other.code(), Some(1));
    let refused = other.line_with("was handed in");
    assert_eq!(
        refused,
        format!(
            "lasthit: a socket for {address} was handed in, and --listen says 127.0.0.1:1: \
             give both the same address (ListenStream= in the socket unit)"
        )
    );
    drop(other);

    let process = activated(&address);
    process.line_with("Listening on");
    // The first one comes before there is any gateway.
    let ticket = Ticket::new(address.parse().expect("an address"), "claim-1", "ann");
    let mut ann = ticket.join().await;
    assert_eq!(ann.ask("claim", "1", "hat", json!(null)).await["outcome"], "granted");
    let up = Up::started(home, process);
    assert_eq!((up.address.port(), up.all_ready(2).len()), (port, 2));
    let environment = std::fs::read(format!("/proc/{}/environ", up.pid("gateway-1"))).expect("its environment");
    assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"), "what was handed in is the supervisor's");
    // Arrival is the kernel's: the sessions' sockets are stamped.
    let verdict = ann.ask("claim", "2", "coat", json!(null)).await;
    assert!(!verdict["flags"].to_string().contains("read_time"), "{verdict}");
}

#[test]
fn something_else_that_is_handed_in_is_refused() {
    let home = Home::new();
    let path = shown(&home.file("player.sock"));
    let mut command = tool("systemd-socket-activate", "systemd");
    command.args(["-l", &path, env!("CARGO_BIN_EXE_lasthit"), "up", "--redis", "redis://127.0.0.1:1", "--gateways", "1"]);
    let mut process = Process::of(&mut command);
    process.line_with("Listening on");
    drop(std::os::unix::net::UnixStream::connect(&path).expect("it listens"));
    assert_eq!(process.code(), Some(1));
    let line = process.line_with("handed in");
    assert!(line.starts_with("lasthit: socket 1 of those that were handed in cannot be used"), "{line}");
}

#[test]
fn the_units_are_valid_and_leave_little_open() {
    let home = Home::new();
    let unit = std::fs::read_to_string(deployed("systemd/lasthit.service")).expect("a unit");
    let unit = unit.replace("/usr/local/bin/lasthit", env!("CARGO_BIN_EXE_lasthit"));
    let service = home.write("lasthit.service", &unit);
    let socket = std::fs::read_to_string(deployed("systemd/lasthit.socket")).expect("a unit");
    let socket = home.write("lasthit.socket", &socket);
    let analyze = |args: &[&str]| {
        let output = tool("systemd-analyze", "systemd").args(args).output().expect("analyzed");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let (is_valid, said) = analyze(&["verify", &service, &socket]);
    assert!(is_valid && said.trim().is_empty(), "{said}");
    // Of 10 that are all open.
    let (is_closed, said) = analyze(&["security", "--offline=true", "--threshold=30", &service]);
    assert!(is_closed, "{said}");
    // The commands in the unit are the program's own.
    for line in unit.lines().filter(|line| line.starts_with("Exec")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let help = program(&[words[1], "--help"]).output().expect("help");
        assert!(help.status.success(), "{line}");
    }
}

/// As in a container: the first process of its namespace.
#[test]
fn the_first_process_of_a_container_waits_for_orphans_too() {
    let redis = redis(&[]);
    let home = Home::new();
    // A process whose parent has ended, then the supervisor in the place of the shell that has started both.
    let script = "setsid -f sleep 1.25; exec \"$0\" \"$@\"";
    let mut command = tool("unshare", "util-linux");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.args(["sh", "-c", script, env!("CARGO_BIN_EXE_lasthit"), "up", "--control", &shown(&home.control())]);
    command.args(["--runtime-dir", &shown(home.0.path()), "--redis", &redis.url(), "--listen", "127.0.0.1:0"]);
    command.args(["--admin", "none", "--gateways", "1", "--workers", "1"]);
    let up = Up::started(home, Process::of(&mut command));
    let first = super::children_of(up.process.id());
    let first = *first.first().expect("the first process");
    up.all_ready(2);
    let sleeps = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.contains("1.25"));
    // One of its own is ended meanwhile: whoever started it sees that.
    let all = super::children_of(first);
    let gateway = all
        .iter()
        .copied()
        .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.contains("gateway-1")));
    end_by_signal(gateway.expect("a gateway"), "KILL");
    until("it is started again", || {
        let row = up.ps().into_iter().find(|row| row.name() == "gateway-1" && row.phase() == "ready" && row.crashes() == 1);
        row.filter(|row| row.last_end() == "was ended by signal 9")
    });
    let of_first = |state: &str| -> BTreeSet<String> {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let stats = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats
            .filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(&format!("{state} {first} "))))
            .collect()
    };
    // It sleeps for a moment, and has ended then.
    until("the orphan is waited for", || {
        (!super::children_of(first).iter().any(sleeps) && of_first("Z").is_empty()).then_some(())
    });
}
