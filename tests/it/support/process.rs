//! Processes of the program under test, which end with their handles.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use servers::RedisServer;

use super::{PATIENCE, Ticket, get, until};

/// A private redis-server.
pub(crate) fn redis(options: &[&str]) -> RedisServer {
    RedisServer::start_with(options).expect("a redis-server")
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// The program, with nothing of the tester's own environment that would configure it.
pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lasthit"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LASTHIT_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// A running `lasthit`.
pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
}

impl Process {
    /// Starts one.
    pub(crate) fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::of(program(args).envs(environment.iter().copied()))
    }

    /// Starts any command whose stderr is to be followed.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        let stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                writer.lines.lock().expect("log").push(line);
                writer.more.notify_all();
            }
        });
        Self { child, log }
    }

    /// The first line that holds `text`, once it is there.
    pub(crate) fn line_with(&self, text: &str) -> String {
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let lines = self.log.lines.lock().expect("log");
        let (lines, _) = self.log.more.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none()).expect("log");
        let line = found(&lines);
        drop(lines);
        line.unwrap_or_else(|| panic!("no line with {text:?}"))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lines.lock().expect("log").clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        end_by_signal(self.child.id(), name);
    }

    /// SIGKILL, and it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// The exit code, once it has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        until("the process ends", || self.child.try_wait().expect("a child")).code()
    }

    /// Ends with `code`; the last line it said, without the program's name.
    #[track_caller]
    pub(crate) fn fails(mut self, code: i32) -> String {
        assert_eq!(self.code(), Some(code));
        until("its last line", || self.lines().iter().rev().find_map(|line| line.strip_prefix("lasthit: ").map(str::to_owned)))
    }

    /// The address in the line that holds `text`.
    pub(crate) fn address_in(&self, text: &str) -> SocketAddr {
        let line = self.line_with(text);
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(lines) = self.log.lines.lock()
        {
            eprintln!("process {} said:\n  {}", self.child.id(), lines.join("\n  "));
        }
    }
}

/// Sends a signal to one process.
pub(crate) fn end_by_signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("sh");
    assert!(sent.success(), "kill -{name} {pid}");
}

const FREE_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// A process that players connect to.
pub(crate) struct GatewayProcess {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl GatewayProcess {
    /// `lasthit serve`.
    pub(crate) fn serve(extra: &[&str]) -> Self {
        Self::start(&[&["serve"], &FREE_PORTS[..], extra].concat(), &[])
    }

    /// `lasthit gateway`.
    pub(crate) fn on(redis: &RedisServer, extra: &[&str]) -> Self {
        Self::at(&redis.url(), extra)
    }

    pub(crate) fn at(url: &str, extra: &[&str]) -> Self {
        Self::start(&[&["gateway", "--redis", url], &FREE_PORTS[..], extra].concat(), &[])
    }

    pub(crate) fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::of(Process::start(args, environment))
    }

    /// One that was started, once it listens.
    pub(crate) fn of(process: Process) -> Self {
        let admin = process.address_in("health and metrics on http://");
        let address = process.address_in("open http://");
        Self { process, address, admin }
    }

    /// A way into a room.
    pub(crate) fn ticket(&self, room: &str, player: &str) -> Ticket {
        Ticket::new(self.address, room, player)
    }

    /// The status of `/readyz`, and what it says.
    pub(crate) fn ready(&self) -> (u16, String) {
        get(self.admin, "/readyz")
    }

    /// The sum of a metric's series; 0 when there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(self.admin, name)
    }
}

/// `lasthit worker`, with an admin address.
pub(crate) struct WorkerProcess {
    pub(crate) process: Process,
    pub(crate) admin: SocketAddr,
}

impl WorkerProcess {
    pub(crate) fn on(redis: &RedisServer, extra: &[&str]) -> Self {
        Self::at(&redis.url(), extra)
    }

    pub(crate) fn at(url: &str, extra: &[&str]) -> Self {
        Self::of(Process::start(&[&["worker", "--redis", url, "--admin", "127.0.0.1:0"], extra].concat(), &[]))
    }

    /// One that was started, once it works.
    pub(crate) fn of(process: Process) -> Self {
        let admin = process.address_in("health and metrics on http://");
        process.line_with("worker started");
        Self { process, admin }
    }

    pub(crate) fn ready(&self) -> (u16, String) {
        get(self.admin, "/readyz")
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(self.admin, name)
    }
}

fn metric(admin: SocketAddr, name: &str) -> f64 {
    let (_, text) = get(admin, "/metrics");
    let series = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with([' ', '{']));
    series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
