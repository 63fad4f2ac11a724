//! A process under a supervisor (`lasthit up`), such as a worker of your own.
//!
//! Its stdin is a channel. Through it come its name, its settings and its connections, and it says when it is ready and what it has to
//! do. When the channel closes, it drains and ends (rule U6). [`attach`] is the one call that a program needs:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use lasthit::child;
//! use lasthit::rules::{LastHit, RulesBook};
//!
//! // lasthit up --redis redis://127.0.0.1 --worker-command ./my-worker
//! fn main() -> ExitCode {
//!     match child::attach() {
//!         Ok(Some(child)) => child.run(RulesBook::new().room("*", LastHit::new)),
//!         Ok(None) => {
//!             eprintln!("my-worker is started by lasthit up");
//!             ExitCode::from(2)
//!         }
//!         Err(error) => {
//!             eprintln!("my-worker: {error}");
//!             error.exit_code()
//!         }
//!     }
//! }
//! ```

pub(crate) mod channel;
pub(crate) mod link;
pub(crate) mod settings;

use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::channel::{ToChild, VERSION};
use crate::config::{Config, ProcessRole};
use crate::journal::redis::RedisJournal;
use crate::limits::CHILD_SETTINGS_TIMEOUT;
use crate::process::{self, Under};
use crate::roles;
use crate::rules::RulesBook;
use crate::runtime;
use crate::shutdown::Shutdown;
use crate::worker::WorkerOptions;

/// The exit code of a process that found what only a person can change: its supervisor does not start it again by itself.
const CODE_FINAL: u8 = 2;
/// The exit code of one that failed: its supervisor starts it again after a pause.
const CODE_FAILED: u8 = 1;
/// Bytes of a thread's name, which `top` and `pgrep` show as the process's.
const THREAD_NAME_BYTES_MAX: usize = 15;

/// What a supervisor wants of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes players' connections.
    Gateway,
    /// Resolves rooms.
    Worker,
}

/// Why a process cannot be the child that it is meant to be: one line, with the fix where there is one.
#[derive(Debug, thiserror::Error)]
#[error("{line}")]
pub struct Error {
    line: String,
    is_final: bool,
}

impl Error {
    fn passing(line: String) -> Self {
        Self { line, is_final: false }
    }

    fn lasting(line: String) -> Self {
        Self { line, is_final: true }
    }

    /// The exit code that says it to the supervisor: 2 if starting again does not help before somebody has changed something (the
    /// process is then `failed`), otherwise 1 (it is started again after a pause of 100 ms to 10 s).
    ///
    /// # Example
    /// See the [module](self).
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.is_final { CODE_FINAL } else { CODE_FAILED })
    }
}

/// A process that has heard what its supervisor wants of it.
pub struct Child {
    name: String,
    config: Config,
    channel: OwnedFd,
}

impl fmt::Debug for Child {
    /// The settings hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a worker is run with: the arguments of [`worker::run`](crate::worker::run), beside its rules.
///
/// # Example
/// See [`Child::worker`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Worker {
    /// The deployment, as the supervisor's settings name it.
    pub journal: Arc<RedisJournal>,
    /// The supervisor's settings for workers. The supervisor sees what its `resolved` counts.
    pub options: WorkerOptions,
    /// Cancelled when the supervisor wants the worker to end, or is gone itself; and by SIGTERM and SIGINT.
    pub stop: CancellationToken,
    /// After the first heartbeat (None) the supervisor takes the worker for ready.
    pub health: watch::Sender<Option<String>>,
}

/// Takes the place that a supervisor has for this process. None: no supervisor started it, it was started by hand.
///
/// Call it first in `main`: what the program starts before that would inherit the channel as its stdin. From here on stdin is empty. It
/// waits up to 10 s for the supervisor's settings, and blocks the thread so long. A second call gives None.
///
/// # Errors
/// The supervisor says nothing, or nothing that this version of lasthit understands, or its settings have mistakes. End with
/// [`Error::exit_code`].
///
/// # Example
/// See the [module](self).
pub fn attach() -> Result<Option<Child>, Error> {
    let Some(channel) =
        channel::taken_stdin().map_err(|error| Error::passing(format!("stdin cannot be taken over ({error})")))?
    else {
        return Ok(None);
    };
    take_name();
    // A supervisor that is about to execute its next image holds them, and its children inherit that.
    runtime::release_signals().map_err(|error| Error::passing(format!("signals are held ({error})")))?;
    let failed = |error| Error::passing(format!("the supervisor: {error}"));
    let heard = channel::hear_first(&channel, CHILD_SETTINGS_TIMEOUT).map_err(failed)?;
    let (name, file) = match heard {
        Some((ToChild::Start { v: VERSION, name }, Some(file))) => (name, file),
        Some((ToChild::Start { v, .. }, _)) if v != VERSION => {
            let line = format!(
                "the supervisor speaks version {v}, this program {VERSION}: build it with the supervisor's version of lasthit"
            );
            return Err(Error::lasting(line));
        }
        Some(_) => return Err(Error::passing("the supervisor says something else before the settings".to_owned())),
        None => return Err(Error::passing("the supervisor has ended".to_owned())),
    };
    let settings = channel::settings_of(file).map_err(failed)?;
    let config = settings.config().map_err(|error| Error::lasting(error.mistakes.join("; ")))?;
    Ok(Some(Child { name, config, channel }))
}

impl Child {
    /// Its name: `gateway-1`, `worker-2`, `eu/worker-1` of a deployment `eu`.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> Result<(), lasthit::child::Error> {
    /// if let Some(child) = lasthit::child::attach()? {
    ///     eprintln!("this is {}", child.name());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the supervisor wants of it. A program that is only given with `--worker-command` is always [`Role::Worker`].
    ///
    /// # Example
    /// ```no_run
    /// # use lasthit::child::{self, Role};
    /// # fn main() -> Result<(), child::Error> {
    /// let opens_a_database = child::attach()?.is_some_and(|child| child.role() == Role::Worker);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn role(&self) -> Role {
        if self.config.role == ProcessRole::Gateway { Role::Gateway } else { Role::Worker }
    }

    /// The rules that the supervisor's settings name: `[[rooms]]`, `rules`, or the built-in ones.
    ///
    /// # Example
    /// A worker with rules of its own for some rooms, and those of the settings for all others:
    /// ```no_run
    /// # use lasthit::rules::LastHit;
    /// # fn main() -> Result<(), lasthit::child::Error> {
    /// # let Some(child) = lasthit::child::attach()? else { return Ok(()) };
    /// let rules = child.rules();
    /// child.run(rules);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn rules(&self) -> RulesBook {
        self.config.rules_book()
    }

    /// Does what the supervisor wants, in a runtime of its own, until it is to end. A gateway has no use for the rules. It writes its log
    /// to stderr in the form that the supervisor's settings say. Errors are written there, too, in one line; the exit code says
    /// whether starting again may help ([`Error::exit_code`]).
    ///
    /// # Panics
    /// Inside a tokio runtime.
    ///
    /// # Example
    /// See the [module](self).
    #[must_use = "the supervisor starts the process again, or not, by its exit code"]
    pub fn run(self, rules: RulesBook) -> ExitCode {
        let Self { name, config, channel } = self;
        match process::run(config, Some(Under { channel, rules })) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let error = Error { is_final: process::is_final(&error), line: format!("{error:#}") };
                // As the program says it: `lasthit: ...`.
                let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("lasthit: {error}\n"));
                tracing::debug!(process = name, "has failed");
                error.exit_code()
            }
        }
    }

    /// What a worker is run with, for a program that runs it itself, in its own runtime and beside its own work. From here on the
    /// supervisor is told that the process is there, what it has resolved, and that it is ready once it is.
    ///
    /// Waits up to 10 s for a Redis that cannot be reached.
    ///
    /// # Errors
    /// When it is to be a gateway, the journal refuses the settings or stays away, or it is asked to end meanwhile.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Example
    /// ```no_run
    /// use lasthit::child::{self, Worker};
    /// use lasthit::rules::{LastHit, RulesBook};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let child = child::attach()?.ok_or("start it by lasthit up --worker-command")?;
    /// let Worker { journal, options, stop, health, .. } = child.worker().await?;
    /// lasthit::worker::run(journal, RulesBook::new().room("*", LastHit::new), options, stop, health).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn worker(self) -> Result<Worker, Error> {
        let Self { name, config, channel } = self;
        if config.role != ProcessRole::Worker {
            return Err(Error::lasting(format!("{name} is no worker: run it with Child::run")));
        }
        let shutdown = Shutdown::new();
        let prepared = async {
            shutdown.watch_signals()?;
            let above = process::above(Under { channel, rules: RulesBook::new() }, &shutdown)?;
            anyhow::Ok(roles::prepare_worker(&config, &shutdown, Some(above)).await?)
        };
        match prepared.await {
            Ok(Some(roles::Prepared { journal, options, health, .. })) => {
                Ok(Worker { journal, options, stop: shutdown.token().clone(), health })
            }
            Ok(None) => Err(Error::passing("it was asked to end before redis answered".to_owned())),
            Err(error) => Err(Error { is_final: process::is_final(&error), line: format!("{error:#}") }),
        }
    }
}

/// Takes the name that it was started by. The supervisor starts an open file, whose number would be what `top` and `pgrep` show.
pub(crate) fn take_name() {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default().as_bytes();
    if let Ok(name) = CString::new(&name[..name.len().min(THREAD_NAME_BYTES_MAX)]) {
        let _ = rustix::thread::set_name(&name);
    }
}
