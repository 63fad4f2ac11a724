//! The process of a Redis: which program, how it is started, and how one that lives already is found.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::super::spawn::{Process, without_settings};
use super::home::{Home, SOCKET};
use crate::journal::redis::own::ServerSettings;
use crate::limits::MANAGED_VERSION_TIMEOUT;

/// The oldest version that does.
const VERSION_MIN: u32 = 7;

/// The redis-server on PATH, if it does.
///
/// # Errors
/// One line: there is none, and how to get it; or it is too old.
pub(super) async fn program() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|program| program.is_file());
    let program = program.ok_or(
        "there is no redis-server on PATH: install one (on Debian: apt install redis-server), or give --redis URL of one that runs",
    )?;
    let asked = async {
        let mut command = tokio::process::Command::new(&program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut said = String::new();
        if let Some(output) = child.stdout.take() {
            output.take(1024).read_to_string(&mut said).await?;
        }
        let _ = child.wait().await;
        Ok::<_, io::Error>(said)
    };
    let said = tokio::time::timeout(MANAGED_VERSION_TIMEOUT, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let said = said.map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("unknown");
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major >= VERSION_MIN => Ok(program),
        _ => Err(format!(
            "{} has version {version}: {VERSION_MIN}.0 or newer is needed; install one, or give --redis URL of one that runs",
            program.display()
        )),
    }
}

/// Starts a server that nobody reaches but through its socket. It keeps the lock as its stdin. What it writes goes to the pipe, and is
/// lost where nobody reads it: it does not wait.
pub(super) fn start(program: &Path, home: &Home, settings: &ServerSettings, lock: File) -> io::Result<Process> {
    let output = || -> io::Result<Stdio> {
        let pipe = pipe::OpenOptions::new().open_sender(home.output()?)?;
        Ok(Stdio::from(pipe.into_nonblocking_fd()?))
    };
    let mut command = Command::new(program);
    command.args(["--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "600", "--daemonize", "no", "--logfile", ""]);
    for (name, value) in settings {
        command.arg(format!("--{name}")).arg(value);
    }
    command.current_dir(&home.folder).process_group(0).stdin(Stdio::from(lock)).stdout(output()?).stderr(output()?);
    without_settings(&mut command);
    Process::of(command.spawn()?)
}

/// The process that listens on the socket.
pub(super) async fn find(home: &Home) -> io::Result<Process> {
    let socket = home.folder.join(SOCKET);
    let listens = async || -> io::Result<u32> {
        let pid = UnixStream::connect(&socket).await?.peer_cred()?.pid();
        pid.and_then(|pid| u32::try_from(pid).ok()).ok_or_else(|| io::Error::other("the kernel does not tell who listens there"))
    };
    let process = Process::at(listens().await?)?;
    // Still the same once it is held: so it is the one that is held.
    if listens().await? == process.pid { Ok(process) } else { Err(io::Error::other("another process listens there now")) }
}
