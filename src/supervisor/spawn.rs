//! Makes processes, and waits for their ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::host;
use super::plan::step::Exit;
use crate::child::channel::Upper;

/// Settings of this beginning are given to children through their channel.
const ENV_PREFIX: &str = "LASTHIT_";

/// A running program, as a file that is open: whatever is put in its place later, this is what runs.
#[derive(Debug, Clone)]
pub(super) struct Binary(Arc<File>);

impl From<OwnedFd> for Binary {
    fn from(file: OwnedFd) -> Self {
        Self(Arc::new(file.into()))
    }
}

impl Binary {
    /// The program of this process.
    pub(super) fn own() -> io::Result<Self> {
        Self::at(Path::new("/proc/self/exe"))
    }

    /// The program that is there now.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        // A pipe in its place would wait for whoever writes.
        let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() || about.permissions().mode() & 0o111 == 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is no program that may be run"));
        }
        let mut first = [0; 2];
        if file.read_at(&mut first, 0)? == 2 && first == *b"#!" {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a script: name the program itself"));
        }
        Ok(Self(Arc::new(file)))
    }

    /// Whether this process runs it.
    pub(super) fn is_own(&self) -> io::Result<bool> {
        let (this, own) = (self.0.metadata()?, std::fs::metadata("/proc/self/exe")?);
        Ok((this.dev(), this.ino()) == (own.dev(), own.ino()))
    }

    /// The open file.
    pub(super) fn into_descriptor(self) -> io::Result<OwnedFd> {
        match Arc::try_unwrap(self.0) {
            Ok(file) => Ok(file.into()),
            Err(shared) => shared.as_fd().try_clone_to_owned(),
        }
    }
}

/// How a program is started: in a process group of its own, from an open file. The first word is its name.
pub(super) fn command(binary: &Binary, words: &[String]) -> Command {
    // The path is looked up in the new process, which still has the descriptor then.
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.0.as_raw_fd()));
    command.arg0(&words[0]).args(&words[1..]).process_group(0);
    without_settings(&mut command);
    command
}

/// A process that is started gets no settings, and no secrets, from the environment.
pub(super) fn without_settings(command: &mut Command) {
    let is_not_its = |name: &str| name.starts_with(ENV_PREFIX) || host::ENV.contains(&name);
    for (variable, _) in std::env::vars_os().filter(|(name, _)| is_not_its(&name.to_string_lossy())) {
        command.env_remove(variable);
    }
}

/// A program of somebody else that is run as a child.
#[derive(Debug, Clone)]
pub(super) struct Other {
    pub(super) binary: Binary,
    /// Its path as it was given, then its arguments.
    pub(super) words: Vec<String>,
}

impl Other {
    /// Finds a program as a shell does: by its path, or without one in `PATH`.
    ///
    /// # Errors
    /// The rest of a sentence that begins with the program.
    pub(super) fn find(words: &[String]) -> Result<Self, String> {
        let word = words.first().map(String::as_str).unwrap_or_default();
        let found = if word.contains('/') {
            Binary::at(Path::new(word))
        } else {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let in_path = std::env::split_paths(&folders).map(|folder| folder.join(word)).find(|path| path.is_file());
            in_path.map_or_else(|| Err(io::Error::new(io::ErrorKind::NotFound, "it is not in PATH")), |path| Binary::at(&path))
        };
        match found {
            Ok(binary) => Ok(Self { binary, words: words.to_vec() }),
            Err(error) => Err(format!("cannot be run ({error}): name a program that is there and may be run")),
        }
    }
}

/// A process that was just made.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) process: Process,
    pub(super) channel: Upper,
    /// Its stdout and its stderr.
    pub(super) output: [OwnedFd; 2],
}

/// A process. It is held by a descriptor, so that its number cannot become another's.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    held: Arc<AsyncFd<OwnedFd>>,
}

/// Starts a child in a process group of its own: `binary` as what its name says, or another program.
pub(super) fn spawn(binary: &Binary, other: Option<&Other>, name: &str) -> io::Result<Spawned> {
    let (channel, stdin) = Upper::pair()?;
    let mut command = match other {
        None => command(binary, &own(&["child", name])),
        Some(Other { binary, words }) => command(binary, words),
    };
    command.stdin(Stdio::from(stdin)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let pid = child.id();
    let mut take = || -> io::Result<(Process, [OwnedFd; 2])> {
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("a child without output"));
        };
        // Nobody else waits for it, so the number is still its own.
        Ok((Process::at(pid)?, [stdout.into(), stderr.into()]))
    };
    match take() {
        Ok((process, output)) => Ok(Spawned { process, channel, output }),
        Err(error) => {
            // It may not stay as one that nobody waits for.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Words for a program of ours: it is named as this one was started, without its folder.
pub(super) fn own(args: &[&str]) -> Vec<String> {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().map_or_else(|| "lasthit".to_owned(), |name| name.to_string_lossy().into_owned());
    std::iter::once(name).chain(args.iter().map(|arg| (*arg).to_owned())).collect()
}

/// A descriptor that the runtime watches.
#[expect(
    deprecated,
    reason = "what takes its place is unsafe: an owned descriptor that is not given away keeps what it asks for"
)]
fn watched(held: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(held, Interest::READABLE)
}

fn id(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("a process without a number"))
}

impl Process {
    /// One whose descriptor is held.
    pub(super) fn held(pid: u32, held: OwnedFd) -> io::Result<Self> {
        Ok(Self { pid, held: Arc::new(watched(held)?) })
    }

    /// The one that has this number now.
    pub(super) fn at(pid: u32) -> io::Result<Self> {
        Self::held(pid, pidfd_open(id(pid)?, PidfdFlags::NONBLOCK)?)
    }

    /// One that was just made.
    pub(super) fn of(mut child: std::process::Child) -> io::Result<Self> {
        Self::at(child.id()).inspect_err(|_| {
            // It may not stay as one that nobody waits for.
            let _ = child.kill();
            let _ = child.wait();
        })
    }

    /// The descriptor, which no runtime watches any more.
    pub(super) fn into_descriptor(self) -> io::Result<OwnedFd> {
        match Arc::try_unwrap(self.held) {
            Ok(held) => Ok(held.into_inner()),
            Err(shared) => shared.as_fd().try_clone_to_owned(),
        }
    }

    /// Returns when it has ended. How is told of children alone: of another one this is an error.
    pub(super) async fn ended(&self) -> io::Result<Exit> {
        loop {
            let mut ready = self.held.readable().await?;
            let look = |more| waitid(WaitId::PidFd(self.held.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | more);
            match look(WaitIdOptions::NOWAIT) {
                Ok(Some(status)) => {
                    // What it has started and left behind ends with it, while its number is still its own.
                    if let Ok(pid) = id(self.pid) {
                        let _ = kill_process_group(pid, Signal::KILL);
                    }
                    look(WaitIdOptions::empty())?;
                    let signal = status.terminating_signal().map(Exit::Signal);
                    return Ok(signal.unwrap_or(Exit::Code(status.exit_status().unwrap_or(-1))));
                }
                Ok(None) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        let _ = rustix::process::pidfd_send_signal(self.held.as_fd(), Signal::TERM);
    }

    /// Ends it at once. What it has started goes with it, see [`Process::ended`].
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.held.as_fd(), Signal::KILL);
    }
}

/// What a process costs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cost {
    /// Processor time since its start, in seconds.
    pub(super) cpu_s: f64,
    pub(super) memory_bytes: u64,
}

impl Cost {
    /// Of a living process.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&text, rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64)
    }
}

/// The fields behind the name, which may hold anything.
fn parse_stat(text: &str, ticks: u64, page: u64) -> Option<Cost> {
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    #[expect(clippy::cast_precision_loss, reason = "ticks of a process's life are far below 2^52")]
    let cpu_s = (field(14)? + field(15)?) as f64 / ticks as f64;
    Some(Cost { cpu_s, memory_bytes: field(24)? * page })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_costs_is_read_behind_any_name() {
        let rest = (4..=52).map(|n| (n * 10).to_string()).collect::<Vec<_>>().join(" ");
        let cost = parse_stat(&format!("7 (a) b (c) R {rest}"), 100, 4096).expect("a cost");
        assert_eq!(cost, Cost { cpu_s: 2.9, memory_bytes: 240 * 4096 });
        assert_eq!(parse_stat("7 (a", 100, 4096), None);
        assert!(Cost::of(std::process::id()).is_some_and(|cost| cost.memory_bytes > 0));
    }
}
