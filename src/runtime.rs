//! The tokio runtimes of the roles, how many files a process may open, and how it executes another program in its own place.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityOsValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::runtime::{Builder, Runtime};

use crate::limits::{SESSIONS_MAX, sources_max};

/// How the system chooses between a role's threads and the others of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// As it chooses between all others.
    Normal,
    /// A role's own threads run at once, before all usual ones. Slow rules and whatever else blocks have threads of normal
    /// priority.
    Realtime,
}

impl Priority {
    /// All priorities by their names.
    pub(crate) const NAMES: [(&'static str, Self); 2] = [("normal", Self::Normal), ("realtime", Self::Realtime)];

    /// Gives the calling thread this priority. Threads that it starts inherit it, unless a runtime starts them.
    ///
    /// # Errors
    /// When this process has no right to it: what to do, in one line.
    pub(crate) fn take(self) -> Result<(), String> {
        if self == Self::Normal {
            return Ok(());
        }
        // Round robin at the lowest level: the roles of a host do not wait for each other's turns to end.
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy).map_err(|error| {
            format!(
                "--priority realtime: this process may not run before others ({error}): allow it (LimitRTPRIO=1 in systemd, \
                 ulimit -r 1, --cap-add SYS_NICE in docker), or use --priority normal"
            )
        })
    }

    /// The threads of a runtime with a role's priority that may block start without it.
    fn on(self, builder: &mut Builder) -> &mut Builder {
        match self {
            Self::Normal => builder,
            Self::Realtime => builder.on_thread_start(|| {
                let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
                // A nice value of 0, as threads have usually. Giving a priority up takes no right.
                let usual = ThreadPriority::Os(ThreadPriorityOsValue::default());
                let _ = set_thread_priority_and_policy(thread_native_id(), usual, policy);
            }),
        }
    }
}

/// A gateway's runtime. It has one thread, so that `yield_now` returns after exactly one sweep. One poll of the driver gets
/// every ready source: with a smaller batch, sockets would stay unread that the sweep promises to have read.
pub fn gateway(sessions_max: usize, priority: Priority) -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    priority.on(builder.enable_all().max_io_events_per_tick(sources_max(sessions_max))).build()
}

/// A worker's runtime: one thread for its loop, the journal and quick rules. Slow rules have threads of their own.
pub fn worker(priority: Priority) -> io::Result<Runtime> {
    priority.on(Builder::new_current_thread().enable_all()).build()
}

/// Raises the process's limit of open files to the hard limit, and returns the limit that then holds.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Some systems report a hard limit that they do not grant. The limit then stays as it was.
    Ok(if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft })
}

/// The signals that are requests to a process.
fn requests() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// From now on requests by signals wait: for this thread, and for those that it starts. They wait beyond [`execute`], too.
///
/// # Errors
/// Never, with these signals.
pub(crate) fn hold_signals() -> io::Result<()> {
    Ok(requests().thread_block()?)
}

/// Lets them come to this thread, those first that have waited.
///
/// # Errors
/// Never, with these signals.
pub(crate) fn release_signals() -> io::Result<()> {
    Ok(requests().thread_unblock()?)
}

/// Starts a thread that never gets such a signal: what it would take could be lost between two programs.
pub(crate) fn start_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = hold_signals();
        work()
    })
}

/// Executes another program in this process's place, with the same arguments and environment, and with `stdin`. It returns if that
/// fails, and nothing has changed then. Signals that are held stay so.
///
/// # Errors
/// Why it failed.
pub(crate) fn execute(program: BorrowedFd<'_>, stdin: &OwnedFd) -> io::Result<()> {
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::other);
    let args: Vec<CString> = std::env::args_os().map(|arg| text(arg.into_vec())).collect::<Result<_, _>>()?;
    let env = std::env::vars_os().map(|(name, value)| text([name.into_vec(), value.into_vec()].join(&b'=')));
    let env: Vec<CString> = env.collect::<Result<_, _>>()?;
    let before = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(stdin)?;
    let failed = nix::unistd::fexecve(program, &args, &env);
    rustix::stdio::dup2_stdin(&before)?;
    failed.map(|never| match never {}).map_err(io::Error::from)
}

/// The most sessions of a gateway that may open `open_files` files: `asked`, or by default [`SESSIONS_MAX`], or fewer when the
/// files do not suffice. The error says what to change when they do not suffice for `asked`, or for any session.
pub(crate) fn sessions_held(asked: Option<usize>, open_files: u64) -> Result<usize, String> {
    let others = sources_max(0);
    let held = usize::try_from(open_files).unwrap_or(usize::MAX).saturating_sub(others);
    let raise = "raise its hard limit (ulimit -Hn, LimitNOFILE in systemd, --ulimit nofile in docker)";
    match asked {
        Some(asked) if asked > held && held > 0 => {
            let needed = sources_max(asked);
            Err(format!(
                "--sessions-max {asked} needs {needed} open files, and this process may open {open_files}: {raise}, or use {held} at most"
            ))
        }
        _ if held == 0 => {
            Err(format!("a gateway needs more than {others} open files, and this process may open {open_files}: {raise}"))
        }
        asked => Ok(asked.unwrap_or_else(|| SESSIONS_MAX.min(held))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream as Pair;

    use tokio::net::UnixStream;

    use super::*;
    use crate::limits::OTHER_SOURCES_MAX;

    const SESSIONS: usize = 10;

    /// As many sources as a gateway may have become readable at once. Returns how many of them one sweep reads.
    fn read_in_one_sweep(runtime: &Runtime) -> usize {
        raise_open_files().expect("raised");
        runtime.block_on(async {
            let mut pairs = Vec::new();
            for _ in 0..sources_max(SESSIONS) {
                let (near, far) = Pair::pair().expect("a pair");
                far.set_nonblocking(true).expect("nonblocking");
                pairs.push((near, UnixStream::from_std(far).expect("registered")));
            }
            // Registering made them writable. Those events must be over before the sweep in question.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            for (near, _) in &mut pairs {
                near.write_all(b"x").expect("written");
            }
            tokio::task::yield_now().await;
            // Reads only what the driver has said to be ready.
            pairs.iter().filter(|(_, far)| far.try_read(&mut [0]).is_ok()).count()
        })
    }

    /// Rule S5.
    #[test]
    fn one_sweep_takes_in_every_source_that_a_gateway_may_have() {
        assert_eq!(read_in_one_sweep(&gateway(SESSIONS, Priority::Normal).expect("runtime")), sources_max(SESSIONS));
        // A batch without room for handshakes and admin connections leaves sources unread.
        let small = SESSIONS + OTHER_SOURCES_MAX;
        let smaller = Builder::new_current_thread().enable_all().max_io_events_per_tick(small).build().expect("runtime");
        assert!(read_in_one_sweep(&smaller) <= small);
    }

    #[test]
    fn open_files_bound_the_sessions() {
        let others = sources_max(0) as u64;
        assert_eq!(sessions_held(None, 1 << 20), Ok(SESSIONS_MAX));
        assert_eq!(sessions_held(None, others + 100), Ok(100), "fewer, and no failure");
        assert_eq!(sessions_held(Some(100), others + 100), Ok(100));
        assert_eq!(sessions_held(Some(50_000), 1 << 20), Ok(50_000));
        let refused = sessions_held(Some(101), others + 100).expect_err("one too many");
        for word in ["--sessions-max 101", &(others + 101).to_string(), &(others + 100).to_string(), "use 100 at most"] {
            assert!(refused.contains(word), "{word:?} is not in {refused:?}");
        }
        for asked in [None, Some(1)] {
            let refused = sessions_held(asked, others).expect_err("none");
            assert!(refused.contains("ulimit") && !refused.contains("use 0"), "{refused}");
        }
        assert_eq!(sessions_held(None, u64::MAX), Ok(SESSIONS_MAX), "unlimited");
    }
}
