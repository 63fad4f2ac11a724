//! A program that is its own supervisor.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::ask::Ask;
use super::{Begin, Ended, up};
use crate::child::settings as child;
use crate::config::{JWT_KEY, env_name, wrong_name};
use crate::limits::{REQUESTS_MAX, SETTINGS_TIMEOUT};
use crate::runtime;
use crate::shutdown::Shutdown;

/// Asks a program for its settings: they are sent back, or one line that says why there are none.
pub(crate) type Gather = mpsc::Sender<oneshot::Sender<Gathered>>;
type Gathered = Result<child::Settings, String>;

/// The settings that a program gave last.
#[derive(Debug, Clone)]
pub(super) struct Latest(Arc<Mutex<Gathered>>);

impl Latest {
    pub(super) fn get(&self) -> Gathered {
        self.0.lock().clone()
    }

    /// Asks the program before whatever needs its settings, and nothing else waits for it. Returns where to ask, and what it says.
    pub(super) fn before(asks: mpsc::Sender<Ask>, gather: Gather) -> (mpsc::Sender<Ask>, Self) {
        let latest = Self(Arc::new(Mutex::new(Err("there are no settings yet".to_owned()))));
        let ((first, mut asked), last) = (mpsc::channel(REQUESTS_MAX), latest.clone());
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                let (asks, gather, last) = (asks.clone(), gather.clone(), last.clone());
                if !matches!(ask, Ask::Reload(..) | Ask::Hangup) {
                    let _ = asks.send(ask).await;
                    continue;
                }
                tokio::spawn(async move {
                    let (answer, gathered) = oneshot::channel();
                    let _ = gather.send(answer).await;
                    if let Ok(gathered) = gathered.await {
                        *last.0.lock() = gathered;
                        let _ = asks.send(ask).await;
                    }
                });
            }
        });
        (first, latest)
    }
}

/// Runs gateways and workers as processes of this program, on one port, and looks after them: `lasthit up` from a `main` of your own.
///
/// Its processes are the same executable. Each finds out by [`child::attach`](crate::child::attach) that it is one, so that has to be
/// the first thing in `main`:
///
/// ```no_run
/// use std::process::ExitCode;
/// use lasthit::child;
/// use lasthit::rules::{LastHit, RulesBook};
/// use lasthit::supervisor::{Settings, Supervisor};
///
/// fn main() -> ExitCode {
///     match child::attach() {
///         // A gateway, or a worker with these rules.
///         Ok(Some(child)) => child.run(RulesBook::new().room("*", LastHit::new)),
///         Ok(None) => supervise(),
///         Err(error) => {
///             eprintln!("{error}");
///             error.exit_code()
///         }
///     }
/// }
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn supervise() -> ExitCode {
///     let settings = async || Settings::new().with("redis", "redis://127.0.0.1").with("gateways", 2).with("workers", 2);
///     match Supervisor::run(settings).await {
///         Ok(()) => ExitCode::SUCCESS,
///         Err(error) => {
///             eprintln!("{error}");
///             ExitCode::FAILURE
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Supervisor;

/// Why a supervisor cannot run, or has not ended well: one line for each mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// The settings of a supervisor and its processes. They may hold secrets: they are shown nowhere.
///
/// # Example
/// ```
/// use lasthit::supervisor::Settings;
///
/// let settings = Settings::new().with("redis", "unix:///run/redis.sock").with("gateways", "auto:1..4").with("sessions_max", 5_000);
/// ```
#[derive(Debug, Clone)]
pub struct Settings {
    child: child::Settings,
    mistakes: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

impl Settings {
    /// All defaults. The environment is not read.
    ///
    /// # Example
    /// See [`Settings`].
    #[must_use]
    pub fn new() -> Self {
        let (role, deployment, env) = (String::new(), String::new(), std::collections::BTreeMap::new());
        Self {
            child: child::Settings { role, deployment, flags: Vec::new(), env, file: None, managed: None },
            mistakes: Vec::new(),
        }
    }

    /// Those of a TOML file, which `docs/operating.md` describes. It is read now. That it cannot be read is said where the settings are
    /// used.
    ///
    /// # Example
    /// ```
    /// use lasthit::supervisor::Settings;
    ///
    /// let settings = Settings::file("/etc/lasthit.toml").with("listen", "0.0.0.0:7777");
    /// ```
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        let (path, mut settings) = (path.as_ref().to_string_lossy().into_owned(), Self::new());
        match std::fs::read_to_string(&path) {
            Ok(text) => settings.child.file = Some((path, text)),
            Err(error) => settings.mistakes.push(format!("{path:?} cannot be read ({error}): name a TOML file")),
        }
        settings
    }

    /// Sets one, in the place of what a file or an earlier call says. Names and values are those of the file; `jwt_key` is the key
    /// itself. What is wrong with them is said where the settings are used.
    ///
    /// # Example
    /// See [`Settings`].
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        if name == JWT_KEY {
            self.child.env.insert(env_name(JWT_KEY), value.to_string());
        } else if let Some(mistake) = wrong_name(name) {
            self.mistakes.push(mistake);
        } else {
            self.child.flags.retain(|(other, _)| other != name);
            self.child.flags.push((name.to_owned(), value.to_string()));
        }
        self
    }

    fn checked(self) -> Result<child::Settings, String> {
        if self.mistakes.is_empty() { Ok(self.child) } else { Err(self.mistakes.join("\n")) }
    }
}

impl Supervisor {
    /// Runs until SIGTERM, SIGINT or `lasthit down`. Asks for the settings at its start, and again at every reload (`lasthit reload`,
    /// SIGHUP): then processes run what they say, and what lies at this program's path by then, one after the other. Settings with a
    /// mistake change nothing, and the reload says which. It waits 30 s for them.
    ///
    /// It does all that `lasthit up` does, in the calling runtime, and answers the same commands (`lasthit ps --control PATH`). It logs
    /// by [tracing](https://docs.rs/tracing), and writes what its processes log to stderr. Unlike `lasthit up` it does not execute a new
    /// program in its own place: for that the process is ended and started again.
    ///
    /// # Errors
    /// The first settings have mistakes, the port or the control socket is taken, or a process had to be killed at the end.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Example
    /// See [`Supervisor`].
    pub async fn run(settings: impl AsyncFn() -> Settings) -> Result<(), Error> {
        let first = settings().await.checked().map_err(Error)?;
        let config = first.of_supervisor().map_err(|error| Error(error.mistakes.join("\n")))?;
        runtime::raise_open_files().map_err(|error| Error(format!("the limit of open files cannot be read: {error}")))?;
        let shutdown = Shutdown::new();
        shutdown.watch_signals().map_err(|error| Error(format!("signals cannot be watched: {error}")))?;
        let (gather, mut asked): (Gather, _) = mpsc::channel(REQUESTS_MAX);
        let gathering = async {
            while let Some(answer) = asked.recv().await {
                let gathered = tokio::time::timeout(SETTINGS_TIMEOUT, settings()).await;
                let late = |_| format!("there are no settings after {} s", SETTINGS_TIMEOUT.as_secs());
                let _ = answer.send(gathered.map_err(late).and_then(Settings::checked));
            }
            std::future::pending::<()>().await;
        };
        let running = up(Begin::Anew(Box::new(config), first), Some(gather), shutdown.token().clone());
        let ended = tokio::select! {
            ended = running => ended,
            () = gathering => return Ok(()),
        };
        match ended {
            Ok(Ended::Code(0) | Ended::Parked(_)) => Ok(()),
            Ok(Ended::Code(_)) => Err(Error("a process did not end in time, and was killed".to_owned())),
            Err(error) => Err(Error(format!("{error:#}"))),
        }
    }
}
