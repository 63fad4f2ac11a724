//! One process under test: its handle, its log, its readiness and its end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::environment::redis_server;
use crate::limits::{END_TIMEOUT, LOG_BYTES_MAX, LOG_LINES_MAX, PROBE_TIMEOUT, READY_INTERVAL, READY_TIMEOUT};

/// How long a process may take to show its metrics, while it is under load.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);
/// Where, below their directory, the processes of one run have their lock files.
pub(crate) const RUNTIME_DIR: &str = "run";
/// The exit code of a process that could not start.
const REFUSED: i32 = 1;
/// Gateways and workers log this behind their role when they have started.
const STARTED: &str = " started ";
/// Bytes of a process's metrics.
const METRICS_BYTES_MAX: u64 = 1024 * 1024;

/// A running process. Killed when it is dropped without [`Process::end`].
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    asked: Asked,
}

/// How it tells that it is ready.
#[derive(Debug)]
enum Asked {
    /// A Redis, on its socket.
    Redis(PathBuf),
    /// `/readyz`, on its admin address.
    Admin(SocketAddr),
    /// It writes this line into its log.
    Log(PathBuf, &'static str),
}

impl Process {
    /// A Redis without persistence that `socket` leads to, and `port` of this host if it is not 0.
    pub(super) fn redis(dir: &Path, socket: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new(redis_server());
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.arg("--unixsocket").arg(socket).arg("--dir").arg(dir);
        let started = Self::start("redis", command, dir, Asked::Redis(socket.to_owned()));
        started.context("install redis-server (apt install redis-server), or use --spawn serve, which needs none")
    }

    /// A role of lasthit's, with these settings in its environment.
    pub(crate) fn lasthit<'a>(
        binary: &Path,
        name: &str,
        args: &[&str],
        env: impl Iterator<Item = (String, &'a str)>,
        admin: SocketAddr,
        dir: &Path,
    ) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(args).envs(env);
        // The load is spread over few sessions: their usual limit would measure the limit.
        if std::env::var_os("LASTHIT_ACTIONS_PER_SECOND").is_none() {
            command.env("LASTHIT_ACTIONS_PER_SECOND", "1000000");
        }
        // The locks of one run are no other's.
        command.env("LASTHIT_RUNTIME_DIR", dir.join(RUNTIME_DIR));
        Self::start(name, command, dir, Asked::Admin(admin))
    }

    /// A script of the usual stack's, in the directory that its packages are installed in.
    pub(super) fn peer(peer: &Path, script: &str, name: &str, env: &[(&str, &str)], dir: &Path) -> Result<Self> {
        let mut command = Command::new("node");
        command.arg(script).current_dir(peer).envs(env.iter().copied());
        let asked = Asked::Log(dir.join(format!("{name}.log")), "ready");
        Self::start(name, command, dir, asked).context("install node and, in the peer's directory, its packages (npm install)")
    }

    /// Any other program; it is ready when it writes `word` as a line of its output.
    pub(super) fn program(name: &str, command: Command, word: &'static str, dir: &Path) -> Result<Self> {
        Self::start(name, command, dir, Asked::Log(dir.join(format!("{name}.log")), word))
    }

    fn start(name: &str, mut command: Command, dir: &Path, asked: Asked) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("no log for {name}"))?;
        // A group of its own: the terminal's Ctrl-C is for the load generator, which then ends its processes in order.
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name: name.to_owned(), child, log, asked })
    }

    /// What it was started as.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What its admin address shows as metrics.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let Asked::Admin(address) = self.asked else { bail!("{} has no metrics", self.name) };
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut text = String::new();
            stream.take(METRICS_BYTES_MAX).read_to_string(&mut text).await?;
            anyhow::Ok(text)
        };
        timeout(METRICS_TIMEOUT, asked).await.ok().and_then(Result::ok).with_context(|| format!("{} shows no metrics", self.name))
    }

    /// Waits until it has ended by itself, at most so long, and returns the end of what it wrote.
    pub(super) async fn output(mut self, time_max: Duration) -> Result<String> {
        let how = match timeout(time_max, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => return Ok(tail(&self.log)?),
            Ok(_) => "failed".to_owned(),
            Err(_) => format!("did not end within {time_max:?}"),
        };
        let log = self.log();
        bail!("{} {how}\n{log}", self.name)
    }

    /// Whether it is a Redis, which others need until they have ended.
    pub(super) fn is_redis(&self) -> bool {
        matches!(self.asked, Asked::Redis(_))
    }

    /// Returns when it says that it is ready.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = self.log();
                bail!("{} ended before it was ready: {status}\n{log}", self.name);
            }
            if timeout(PROBE_TIMEOUT, self.asked.is_ready()).await.unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = self.log();
                bail!("{} was not ready within {READY_TIMEOUT:?}\n{log}", self.name);
            }
            sleep(READY_INTERVAL).await;
        }
    }

    /// Its process id; None when it has ended and was waited for.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }

    /// Sends it a signal. One that has ended by itself just now does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, signal);
        }
    }

    /// SIGKILL, and it is gone.
    pub(crate) async fn kill(mut self) {
        if let Err(e) = self.child.kill().await {
            eprintln!("warning: {} cannot be killed: {e}", self.name);
        }
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// None as long as it runs; then whether it ended before it had started, because it could not.
    pub(crate) fn refused(&mut self) -> Option<bool> {
        let status = self.ended()?;
        Some(status.code() == Some(REFUSED) && self.said(STARTED).is_none())
    }

    /// What its log has behind `text`, up to the next space: where that stands first.
    pub(crate) fn said(&self, text: &str) -> Option<String> {
        let log = std::fs::read_to_string(&self.log).ok()?;
        // The last one: a gateway that started again has another identity.
        log.rsplit_once(text)?.1.split_whitespace().next().map(str::to_owned)
    }

    /// Its state and the end of its log.
    pub(crate) fn log(&mut self) -> String {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("ended with {status}"),
            _ => "runs".to_owned(),
        };
        let tail = tail(&self.log).unwrap_or_else(|e| format!("its log cannot be read: {e}\n"));
        format!("--- {} ({state})\n{tail}", self.name)
    }

    /// Asks it to end, waits, kills it if that takes too long.
    pub(crate) async fn end(mut self) {
        self.signal(Signal::SIGTERM);
        if timeout(END_TIMEOUT, self.child.wait()).await.is_err() {
            eprintln!("warning: {} did not end within {END_TIMEOUT:?} and is killed", self.name);
            if let Err(e) = self.child.kill().await {
                eprintln!("warning: {} cannot be killed: {e}", self.name);
            }
        }
    }
}

impl Drop for Process {
    /// What is still there is killed together with what it started: its group is its own, and was made with it.
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

impl Asked {
    async fn is_ready(&self) -> bool {
        match self {
            Self::Redis(socket) => match UnixStream::connect(socket).await {
                Ok(stream) => answers(stream, "PING\r\n", "+PONG").await,
                Err(_) => false,
            },
            Self::Admin(address) => match TcpStream::connect(address).await {
                Ok(stream) => {
                    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
                    answers(stream, &request, "HTTP/1.1 200").await
                }
                Err(_) => false,
            },
            Self::Log(path, word) => tail(path).is_ok_and(|log| log.lines().any(|line| line == *word)),
        }
    }
}

async fn answers(mut stream: impl AsyncRead + AsyncWrite + Unpin, question: &str, answer: &str) -> bool {
    let mut got = vec![0; answer.len()];
    let asked = stream.write_all(question.as_bytes()).await;
    asked.is_ok() && stream.read_exact(&mut got).await.is_ok() && got == answer.as_bytes()
}

/// The last lines of a file.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_LINES_MAX)..].iter().flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sh", command, dir, Asked::Redis(dir.join("none"))).expect("sh")
    }

    fn is_alive(pid: u32) -> bool {
        kill(Pid::from_raw(i32::try_from(pid).expect("pid")), None).is_ok()
    }

    #[tokio::test]
    async fn a_process_that_ends_early_is_told_with_its_log() {
        let dir = tempfile::tempdir().expect("dir");
        let mut process = shell(dir.path(), "seq 1 30; echo no such flag >&2; exit 3");
        let error = process.ready().await.expect_err("not ready").to_string();
        assert!(error.contains("sh ended before it was ready") && error.contains('3'), "{error}");
        let log = process.log();
        assert!(log.contains("no such flag") && log.contains("\n30\n") && !log.contains("\n11\n"), "{log}");
    }

    #[tokio::test]
    async fn processes_end_with_their_handles() {
        let dir = tempfile::tempdir().expect("dir");
        let asked = shell(dir.path(), "exec sleep 60");
        let pid = asked.child.id().expect("runs");
        assert!(is_alive(pid));
        asked.end().await;
        assert!(!is_alive(pid));

        let dropped = shell(dir.path(), "exec sleep 60");
        let pid = dropped.child.id().expect("runs");
        drop(dropped);
        for _ in 0..200 {
            sleep(READY_INTERVAL).await;
            if !is_alive(pid) {
                return;
            }
        }
        panic!("a dropped process lives on");
    }

    #[tokio::test]
    async fn a_private_redis_is_ready_and_ends() {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("redis.sock");
        let mut redis = Process::redis(dir.path(), &socket, 0).expect("redis-server");
        redis.ready().await.expect("ready");
        redis.end().await;
        assert!(!socket.exists());
    }
}
