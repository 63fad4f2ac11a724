//! What a command line asks of a running supervisor.

use std::path::PathBuf;

/// The control socket's name in the runtime directory.
pub(crate) const CONTROL_FILE: &str = "supervisor.sock";

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asking {
    /// The control socket.
    pub(crate) control: PathBuf,
    /// Print JSON.
    pub(crate) json: bool,
    /// The question.
    pub(crate) what: What,
}

/// A question or a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Lists all processes.
    Ps,
    /// Shows all processes, again each second.
    Top {
        /// So many times; only as JSON.
        count: Option<u64>,
    },
    /// `start`, `stop`, `restart`, `recycle` or `delete` these.
    Act(&'static str, Vec<String>),
    /// Sets how many there are of a role.
    Scale {
        /// Which role.
        group: String,
        /// How many.
        count: String,
    },
    /// Reads settings and program again, and replaces everything; or that program.
    Reload(Option<PathBuf>),
    /// Says what would speak against that.
    Check(Option<PathBuf>),
    /// Ends everything.
    End,
    /// Prints what processes have logged, and goes on if it is to follow.
    Logs {
        /// Whether to go on.
        follow: bool,
    },
}
