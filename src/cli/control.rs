//! The commands to a running supervisor.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::journal::default_runtime_dir;
use crate::supervisor::asking::{Asking, CONTROL_FILE, What};

const NAMES: &str = "\
Names: gateway-1, gateway-2..4, gateway (all gateways), worker, eu/gateway-1 (of a deployment), all.";

const TOP: &str = "\
Latencies are those of the last 5 s. Without --json it needs a terminal; NO_COLOR=1 leaves colours out. It ends with code 1 when nobody
answers for a minute.";

#[derive(Debug, Subcommand)]
pub(super) enum Tool {
    /// Lists the processes of a supervisor
    Ps {
        #[command(flatten)]
        socket: Socket,
    },
    /// Shows the processes of a supervisor and how fast they are, again each second, until q is pressed
    #[command(after_help = TOP)]
    Top {
        /// Snapshots to print, one a second [default: until it is ended]
        #[arg(long, value_name = "N", requires = "json")]
        count: Option<u64>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Starts processes that are stopped or have failed
    #[command(after_help = NAMES)]
    Start(Names),
    /// Stops processes: gateways drain, workers hand their rooms over
    #[command(after_help = NAMES)]
    Stop(Names),
    /// Replaces processes, one at a time: the new one is ready before the old one leaves
    #[command(after_help = NAMES)]
    Restart(Names),
    /// Replaces processes that are ready, one at a time
    #[command(after_help = NAMES)]
    Recycle(Names),
    /// Stops processes and takes their places away
    #[command(after_help = NAMES)]
    Delete(Names),
    /// Sets how many processes a role has, until the next reload
    Scale {
        /// gateway, worker, or eu/gateway of a deployment
        group: String,
        /// A number, or auto:MIN..MAX
        count: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// Reads settings and program again, and replaces all processes, one at a time (so does SIGHUP)
    Reload {
        /// Program to run from now on [default: the one at the path of the last]
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Says what speaks against a reload, and changes nothing
    Check {
        /// Program to check [default: the one at the path of the last]
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Stops all processes, and the supervisor
    Down {
        #[command(flatten)]
        socket: Socket,
    },
    /// Prints the last lines that the processes have logged
    Logs {
        /// Go on with what they log from now on
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        socket: Socket,
    },
}

#[derive(Debug, Args)]
pub(super) struct Names {
    /// Which processes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, Args)]
pub(super) struct Socket {
    /// Control socket of the supervisor [default: LASTHIT_CONTROL, or supervisor.sock in the runtime directory]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// The supervisor may be in another directory.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

impl Tool {
    pub(super) fn asking(self, env: &dyn Fn(&str) -> Option<String>) -> Asking {
        let (what, Socket { control, json }) = match self {
            Self::Ps { socket } => (What::Ps, socket),
            Self::Top { count, socket } => (What::Top { count }, socket),
            Self::Start(Names { names, socket }) => (What::Act("start", names), socket),
            Self::Stop(Names { names, socket }) => (What::Act("stop", names), socket),
            Self::Restart(Names { names, socket }) => (What::Act("restart", names), socket),
            Self::Recycle(Names { names, socket }) => (What::Act("recycle", names), socket),
            Self::Delete(Names { names, socket }) => (What::Act("delete", names), socket),
            Self::Scale { group, count, socket } => (What::Scale { group, count }, socket),
            Self::Reload { binary, socket } => (What::Reload(binary.map(absolute)), socket),
            Self::Check { binary, socket } => (What::Check(binary.map(absolute)), socket),
            Self::Down { socket } => (What::End, socket),
            Self::Logs { follow, socket } => (What::Logs { follow }, socket),
        };
        let own = || env("LASTHIT_CONTROL").map(PathBuf::from);
        let control = control.or_else(own).unwrap_or_else(|| default_runtime_dir().join(CONTROL_FILE));
        Asking { control, json, what }
    }
}
