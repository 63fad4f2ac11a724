//! What may be asked of a running supervisor, and how it answers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::plan::step::Command;

/// A question or a command.
#[derive(Debug)]
pub(crate) enum Ask {
    /// All processes.
    Ps(oneshot::Sender<Vec<Process>>),
    /// To do something. Lines come as it goes on, then the outcome.
    Do(Command, mpsc::Sender<Told>),
    /// To read the settings and the program again, and to replace everything by what they say. Without a path it is the program where
    /// it was.
    Reload(Option<PathBuf>, mpsc::Sender<Told>),
    /// The same, as SIGHUP: the log is told.
    Hangup,
    /// To say what would speak against that.
    Check(Option<PathBuf>, mpsc::Sender<Told>),
    /// The metrics of all children, as Prometheus reads them.
    Metrics(oneshot::Sender<String>),
}

/// What is told of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// It goes on: one line.
    Progress(String),
    /// It is done.
    Done,
    /// It is not done: why, in one line.
    Failed(String),
}

/// A process, or the place of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// `gateway-1`.
    pub(crate) name: String,
    /// `starting`, `ready`, `leaving`, `waiting`, `failed` or `stopped`.
    pub(crate) phase: String,
    /// Its number in the system; None where none runs.
    pub(crate) pid: Option<u32>,
    /// How long it has run, in seconds.
    pub(crate) age_s: f64,
    /// Use of one core: 1.0 is all of it.
    pub(crate) cpu: f64,
    /// Resident memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// Sessions of a gateway.
    pub(crate) sessions: u64,
    /// Actions that came in, or events that were resolved, in a second.
    pub(crate) actions_per_s: f64,
    /// How often it ended without being asked to.
    pub(crate) crashes: u64,
    /// In how long a crashed one starts again, in seconds.
    pub(crate) starts_in_s: Option<f64>,
    /// How it last ended without being asked to, in one line.
    pub(crate) last_end: Option<String>,
    /// Which binary and configuration it has, counted from 1.
    pub(crate) generation: u64,
}

/// A duration for people and machines: seconds, with milliseconds.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
