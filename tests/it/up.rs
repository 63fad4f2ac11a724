//! One command: a supervisor, its processes, and players who come through its one port. Each test has a folder of its own.

mod bad_input;
mod commands;
mod crashes;
mod deployments;
mod exec;
mod host;
mod managed;
mod own;
mod page;
mod play;
mod player;
mod recycle;
mod reload;
mod top;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::Value;
use servers::RedisServer;
use tempfile::TempDir;

use super::support::{Process, Ticket, end_by_signal, program, until};

/// Where a supervisor keeps its files.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("lasthit-up-").tempdir().expect("a folder"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file there, whole at once. Returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let (path, new) = (self.file(name), self.file("new"));
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).expect("written");
        shown(&path)
    }

    fn control(&self) -> PathBuf {
        self.file("supervisor.sock")
    }

    /// `lasthit up` on this folder, whatever becomes of it.
    fn start(&self, args: &[&str], environment: &[(&str, &str)]) -> Process {
        let (control, folder) = (shown(&self.control()), shown(self.0.path()));
        let fixed = ["up", "--control", &control, "--runtime-dir", &folder];
        Process::start(&[&fixed[..], args].concat(), environment)
    }

    /// What the supervisor of this folder says to `lasthit COMMAND`.
    fn ask(&self, args: &[&str]) -> Said {
        Said::of(&[args, &["--control", &shown(&self.control())]].concat())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What a command came to.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    lines: Vec<String>,
    errors: Vec<String>,
}

impl Said {
    fn of(args: &[&str]) -> Self {
        let output = program(args).stdin(std::process::Stdio::null()).output().expect("a command");
        let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
        Self { code: output.status.code(), lines: lines(&output.stdout), errors: lines(&output.stderr) }
    }

    /// It was done: its lines.
    #[track_caller]
    fn done(self) -> Vec<String> {
        assert!(self.code == Some(0) && self.errors.is_empty(), "{self:?}");
        self.lines
    }

    /// It was refused, in one line.
    #[track_caller]
    fn refused(self, code: i32) -> String {
        assert!(self.code == Some(code) && self.errors.len() == 1, "{self:?}");
        let line = self.errors[0].strip_prefix("lasthit: ");
        line.unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

/// A line of `lasthit ps`.
#[derive(Debug, Clone)]
struct Row(Value);

impl Row {
    fn name(&self) -> &str {
        self.0["name"].as_str().expect("a name")
    }

    fn phase(&self) -> &str {
        self.0["phase"].as_str().expect("a phase")
    }

    fn pid(&self) -> Option<u32> {
        self.0["pid"].as_u64().map(|pid| u32::try_from(pid).expect("a pid"))
    }

    fn crashes(&self) -> u64 {
        self.0["crashes"].as_u64().expect("crashes")
    }

    fn last_end(&self) -> &str {
        self.0["last_end"].as_str().unwrap_or_default()
    }

    fn generation(&self) -> u64 {
        self.0["generation"].as_u64().expect("a generation")
    }

    fn sessions(&self) -> u64 {
        self.0["sessions"].as_u64().expect("sessions")
    }

    fn actions_per_s(&self) -> f64 {
        self.0["actions_per_s"].as_f64().expect("a rate")
    }

    fn age_s(&self) -> f64 {
        self.0["age_s"].as_f64().expect("an age")
    }
}

/// A running supervisor. With it everything that it has started ends.
struct Up {
    process: Process,
    address: SocketAddr,
    home: Home,
}

impl Up {
    /// One with two gateways and two workers, once all are ready.
    fn on(redis: &RedisServer, extra: &[&str]) -> Self {
        let up = Self::of(Home::new(), redis, &[&["--admin", "none"], extra].concat());
        up.all_ready(4);
        up
    }

    fn of(home: Home, redis: &RedisServer, extra: &[&str]) -> Self {
        let url = redis.url();
        let args = ["--redis", &url, "--listen", "127.0.0.1:0", "--gateways", "2", "--workers", "2"];
        let process = home.start(&[&args[..], extra].concat(), &[]);
        Self::started(home, process)
    }

    fn started(home: Home, process: Process) -> Self {
        let address = process.address_in("open http://");
        process.line_with("come in at");
        Self { process, address, home }
    }

    fn ask(&self, args: &[&str]) -> Said {
        self.home.ask(args)
    }

    /// The same, while the test goes on.
    fn asks(&self, args: &[&str]) -> JoinHandle<Said> {
        let control = shown(&self.home.control());
        let args: Vec<String> = args.iter().copied().chain(["--control", &control]).map(str::to_owned).collect();
        std::thread::spawn(move || Said::of(&args.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    fn ps(&self) -> Vec<Row> {
        let json = self.ask(&["ps", "--json"]).done().concat();
        let rows: Vec<Value> = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{json:?}"));
        rows.into_iter().map(Row).collect()
    }

    /// The only line of a process.
    fn row(&self, name: &str) -> Row {
        let mut rows: Vec<Row> = self.ps().into_iter().filter(|row| row.name() == name).collect();
        assert!(rows.len() == 1, "{rows:?}");
        rows.remove(0)
    }

    fn pid(&self, name: &str) -> u32 {
        self.row(name).pid().unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// All processes, once there are so many and each is ready.
    #[track_caller]
    fn all_ready(&self, count: usize) -> Vec<Row> {
        until(&format!("{count} processes are ready"), || {
            let rows = self.ps();
            (rows.len() == count && rows.iter().all(|row| row.phase() == "ready")).then_some(rows)
        })
    }

    /// The line of a process, once it runs as another than `pid` and is ready.
    #[track_caller]
    fn replaced(&self, name: &str, pid: u32) -> Row {
        until(&format!("another {name} is ready"), || {
            let rows = self.ps();
            let row = rows.into_iter().find(|row| row.name() == name && row.phase() == "ready");
            row.filter(|row| row.pid() != Some(pid))
        })
    }

    /// The processes that it has started, and that are there.
    fn children(&self) -> BTreeSet<u32> {
        children_of(self.process.id())
    }

    fn ticket(&self, room: &str, player: &str) -> Ticket {
        Ticket::new(self.address, room, player)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let children = self.children();
        // It first: it would start them again.
        self.process.kill();
        for pid in children {
            let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
    }
}

/// The processes whose parent is `parent`, without those that have ended.
fn children_of(parent: u32) -> BTreeSet<u32> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        fields.next() != Some("Z") && fields.next() == Some(&parent.to_string())
    })
    .collect()
}

/// Whether a process is there, and has not ended.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// SIGKILL to a child: its own, as nobody else waits for it.
fn kill(pid: u32) {
    end_by_signal(pid, "KILL");
}
