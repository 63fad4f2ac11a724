//! A supervisor under test: what `lasthit ps`, `reload`, `scale` and their like ask of it, asked through its control socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{ASK_TIMEOUT, COMMAND_TIMEOUT, LOOK_INTERVAL};

/// A supervisor, wherever its process is.
#[derive(Debug, Clone)]
pub(crate) struct Supervised {
    control: PathBuf,
    /// The program that it was started from, at a path of its own.
    program: PathBuf,
}

/// One of its processes, or the place of one.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) phase: String,
    pub(crate) pid: Option<i32>,
    /// Use of one core.
    pub(crate) cpu: f64,
    pub(crate) sessions: u64,
}

impl Process {
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == "ready"
    }

    pub(crate) fn is_gateway(&self) -> bool {
        self.name.starts_with("gateway-")
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        self.pid.map(Pid::from_raw)
    }
}

impl Supervised {
    /// The one that answers at `control` and was started from `program`.
    pub(crate) fn at(control: PathBuf, program: PathBuf) -> Self {
        Self { control, program }
    }

    /// All processes, as `lasthit ps --json` lists them.
    pub(crate) async fn processes(&self) -> Result<Vec<Process>> {
        let body = timeout(ASK_TIMEOUT, self.ask("GET", "/v1/processes", ""))
            .await
            .context("the supervisor does not answer in time")??;
        serde_json::from_str(&body).with_context(|| format!("the supervisor's answer: {body}"))
    }

    /// The gateways that are ready.
    pub(crate) async fn ready_gateways(&self) -> Result<Vec<Process>> {
        let mut all = self.processes().await?;
        all.retain(|process| process.is_ready() && process.is_gateway());
        Ok(all)
    }

    /// Replaces all processes, as `lasthit reload` does; returns when that is done.
    ///
    /// # Errors
    /// What the supervisor says, when it does not do it.
    pub(crate) async fn reload(&self) -> Result<()> {
        self.command("reload", "").await
    }

    /// Puts another program into the place of the one that it was started from, as a package manager does: a copy with one byte more,
    /// renamed over it.
    pub(crate) async fn put_another_program(&self) -> Result<()> {
        let beside = self.program.with_extension("next");
        let put = async {
            tokio::fs::copy(&self.program, &beside).await?;
            let mut file = tokio::fs::OpenOptions::new().append(true).open(&beside).await?;
            file.write_all(b"\n").await?;
            file.sync_all().await?;
            drop(file);
            tokio::fs::rename(&beside, &self.program).await
        };
        put.await.with_context(|| format!("no other program can be put at {}", self.program.display()))
    }

    /// Whether the process of this id runs what lies at the program's path now.
    pub(crate) fn runs_program(&self, pid: Pid) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        let own = identity(&self.program);
        own.is_some() && own == identity(Path::new(&format!("/proc/{pid}/exe")))
    }

    /// Sets how many processes a role has, as `lasthit scale` does.
    pub(crate) async fn scale(&self, role: &str, count: usize) -> Result<()> {
        self.command("scale", &format!(r#"{{"group": "{role}", "count": "{count}"}}"#)).await
    }

    /// Replaces one process, as `lasthit recycle` does.
    pub(crate) async fn recycle(&self, name: &str) -> Result<()> {
        self.command("recycle", &format!(r#"{{"names": ["{name}"]}}"#)).await
    }

    /// Sends a signal to a process that it has.
    pub(crate) async fn signal(&self, name: &str, signal: Signal) -> Result<Pid> {
        let found = self.processes().await?.into_iter().find(|process| process.name == name);
        let pid = found.as_ref().and_then(Process::pid).with_context(|| format!("{name} does not run"))?;
        kill(pid, signal).with_context(|| format!("{name} (process {pid}) cannot be sent {signal}"))?;
        Ok(pid)
    }

    /// Waits until another process than `before` is ready in its place.
    pub(crate) async fn until_replaced(&self, name: &str, before: Pid) -> Result<()> {
        self.until(&format!("{name} is not replaced"), |all| {
            all.iter().any(|process| process.name == name && process.is_ready() && process.pid() != Some(before))
        })
        .await
    }

    /// Waits until all of its processes are ready.
    pub(crate) async fn until_ready(&self) -> Result<()> {
        self.until("not all processes are ready", |all| !all.is_empty() && all.iter().all(Process::is_ready)).await
    }

    async fn until(&self, what: &str, holds: impl Fn(&[Process]) -> bool) -> Result<()> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        loop {
            let all = self.processes().await;
            if all.as_ref().is_ok_and(|all| holds(all)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let all = all.context(what.to_owned())?;
                let phases: Vec<String> = all.iter().map(|process| format!("{} {}", process.name, process.phase)).collect();
                bail!("{what} after {} s: {}", COMMAND_TIMEOUT.as_secs(), phases.join(", "));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn command(&self, command: &str, body: &str) -> Result<()> {
        let answered = timeout(COMMAND_TIMEOUT, self.ask("POST", &format!("/v1/{command}"), body)).await;
        let said = answered.map_err(|_| anyhow::anyhow!("{command} is not done after {} s", COMMAND_TIMEOUT.as_secs()))??;
        outcome(&said).with_context(|| format!("{command} is not done"))
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let connected = UnixStream::connect(&self.control).await;
        let mut stream = connected.with_context(|| format!("nobody answers at {}", self.control.display()))?;
        let length = body.len();
        // Without a version that keeps connections, the body's end is the connection's.
        let request = format!("{method} {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").context("the supervisor's answer has no body")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "the supervisor answers {status}: {}", body.trim());
        Ok(body.to_owned())
    }
}

/// What a command came to, out of the lines that were told of it.
fn outcome(said: &str) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Told {
        Progress(String),
        Done,
        Failed(String),
    }
    let mut last = String::new();
    for line in said.lines() {
        match serde_json::from_str(line).with_context(|| format!("the supervisor says {line:?}"))? {
            Told::Progress(text) => last = text,
            Told::Done => return Ok(()),
            Told::Failed(why) => bail!("{why}"),
        }
    }
    bail!("the supervisor said no more after {last:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_done_when_the_supervisor_says_so() {
        outcome("{\"progress\":\"worker-1 is new\"}\n\"done\"\n").expect("done");
        for (said, named) in [
            ("{\"progress\":\"worker-1 is new\"}\n{\"failed\":\"gateway-1 did not start\"}\n", "gateway-1 did not start"),
            ("{\"progress\":\"worker-1 is new\"}\n", "no more after \"worker-1 is new\""),
            ("", "no more"),
            ("garbage\n", "garbage"),
        ] {
            let error = format!("{:#}", outcome(said).expect_err(said));
            assert!(error.contains(named), "{error}");
        }
    }

    #[tokio::test]
    async fn another_program_lies_at_the_path_of_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("sleep");
        std::fs::copy("/bin/sleep", &program).expect("copied");
        let supervised = Supervised::at(dir.path().join("none"), program.clone());
        let mut child = tokio::process::Command::new(&program).arg("60").kill_on_drop(true).spawn().expect("started");
        let pid = Pid::from_raw(i32::try_from(child.id().expect("runs")).expect("an id"));
        let size = std::fs::metadata(&program).expect("there").len();
        assert!(supervised.runs_program(pid));
        supervised.put_another_program().await.expect("put");
        assert_eq!(std::fs::metadata(&program).expect("there").len(), size + 1);
        assert!(!supervised.runs_program(pid), "it runs the one before");
        child.kill().await.expect("killed");
        let error = format!("{:#}", supervised.processes().await.expect_err("nobody"));
        assert!(error.contains("nobody answers at") && !error.contains('\n'), "{error}");
    }
}
