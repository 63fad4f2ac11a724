//! A supervisor's state as the next image reads it. Descriptors go beside it: see [`super::parked`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::plan::step::{ChildId, Generation, Load, RequestId};
use super::policy::names::Slot;
use crate::child::channel::{self, ToChild};
use crate::child::settings as child;

/// The form. An image refuses a state of another one, before it takes it over (`lasthit takeover`).
const FORM: u32 = 1;

/// Everything but the descriptors. It holds secrets: it is shown nowhere.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) form: u32,
    /// [`Plan::save`].
    pub(super) plan: String,
    /// The highest that was used, and what each that is needed runs.
    pub(super) generation: Generation,
    pub(super) kits: Vec<Parts>,
    pub(super) children: Vec<Child>,
    pub(super) doors: Vec<Doors>,
    /// Who waits for the end of the reload, if anybody, and the number of the next request.
    pub(super) reload: Option<RequestId>,
    pub(super) next_request: u64,
    pub(super) streams: Vec<Stream>,
    /// Its own Redis, if it has one.
    pub(super) managed: Option<Managed>,
    /// The number of the last answer with metrics.
    pub(super) gathering: u64,
    /// Lines of children that are kept, and how many could not be written.
    pub(super) lines: Vec<String>,
    pub(super) lost_lines: u64,
    /// The format and the filter of the log.
    pub(super) json: bool,
    pub(super) log: String,
    pub(super) control: PathBuf,
    /// A SIGHUP came, and nothing was done about it.
    pub(super) hangup: bool,
    /// A signal said that everything is to end.
    pub(super) stops: bool,
}

/// What a generation runs. Beside it: `binary GENERATION`, and `worker GENERATION DEPLOYMENT`.
#[derive(Serialize, Deserialize)]
pub(super) struct Parts {
    pub(super) generation: Generation,
    /// Where the program was.
    pub(super) path: PathBuf,
    pub(super) child: child::Settings,
    /// The words of the programs that are workers instead, by their deployments.
    pub(super) workers: BTreeMap<String, Vec<String>>,
    /// What a reload may not change.
    pub(super) fixed: Vec<(String, String)>,
    /// The level of the supervisor's own Redis.
    pub(super) level: Option<String>,
}

/// A child. Beside it, each with its number: `channel`, `process`, and, until they are closed, `stdout` and `stderr`.
#[derive(Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) child: ChildId,
    pub(super) slot: Slot,
    pub(super) pid: u32,
    /// What it was not told yet.
    pub(super) words: Vec<ToChild>,
    /// It is told nothing more.
    pub(super) is_ending: bool,
    pub(super) is_ready: bool,
    pub(super) is_leaving: bool,
    pub(super) said: channel::Load,
    pub(super) load: Load,
    /// Lines that it has begun to write, on stdout and on stderr.
    pub(super) begun: [Vec<u8>; 2],
}

/// A Redis of the supervisor's own. Beside it: `data lock`, and `redis`, its process.
#[derive(Serialize, Deserialize)]
pub(super) struct Managed {
    pub(super) folder: PathBuf,
    pub(super) durability: String,
    pub(super) ready_timeout: Duration,
    pub(super) stop_timeout: Duration,
    /// If it was ready.
    pub(super) pid: Option<u32>,
    pub(super) age: Duration,
    pub(super) crashes: u64,
    pub(super) last_end: Option<String>,
}

/// A door. Beside it: `door NAME`, and, if a connection was accepted that nobody could take yet, `waits NAME`.
#[derive(Serialize, Deserialize)]
pub(super) struct Doors {
    pub(super) name: String,
    pub(super) gates: Vec<Gate>,
}

/// A gateway behind a door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Gate {
    pub(super) child: ChildId,
    pub(super) slot: Slot,
    pub(super) passed: u64,
    /// The numbers of connections that are not gone, and whose they are.
    pub(super) held: Vec<(u64, IpAddr)>,
    pub(super) load: channel::Load,
    pub(super) actions_per_s: f64,
    pub(super) is_full: bool,
}

/// An answer that goes on. Beside it: `stream NUMBER`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stream {
    /// Bytes that were not sent yet.
    pub(super) unsent: Vec<u8>,
    pub(super) then: Then,
}

/// What follows in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Then {
    Nothing,
    /// What is told of the reload.
    Told,
    /// Lines of the log.
    Lines,
}

impl Child {
    /// One that has just been made.
    pub(super) fn new(child: ChildId, slot: Slot, pid: u32) -> Self {
        Self {
            child,
            slot,
            pid,
            words: Vec::new(),
            is_ending: false,
            is_ready: false,
            is_leaving: false,
            said: channel::Load::default(),
            load: Load::default(),
            begun: Default::default(),
        }
    }
}

impl State {
    pub(super) const FORM: u32 = FORM;

    /// # Errors
    /// One line.
    pub(super) fn write(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| format!("the supervisor's state cannot be written: {error}"))
    }

    /// Reads it, and that of the plan in it.
    ///
    /// # Errors
    /// One line: what does not fit.
    pub(super) fn read(text: &str, now: Duration) -> Result<(Self, Plan), String> {
        #[derive(Deserialize)]
        struct Form {
            form: u32,
        }
        let unreadable = |error: serde_json::Error| {
            // The text has secrets, and so may the error's own words.
            format!(
                "the supervisor's state cannot be read: it is other than expected in line {}, column {}",
                error.line(),
                error.column()
            )
        };
        let Form { form } = serde_json::from_str(text).map_err(unreadable)?;
        if form != FORM {
            return Err(format!("the supervisor's state has form {form}, this version reads {FORM}"));
        }
        let state: Self = serde_json::from_str(text).map_err(unreadable)?;
        let plan = Plan::restore(&state.plan, now)?;
        Ok((state, plan))
    }
}
