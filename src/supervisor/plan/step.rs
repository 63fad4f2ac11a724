//! What crosses the plan's edge: inputs, and what is to be done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::policy::counts::{Count, Deployment};
use crate::supervisor::policy::names::{Group, Slot};
use crate::supervisor::policy::recycle::Bounds;

/// One start of a process. Never reused, also not over a change of the supervisor's own program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ChildId(pub(crate) u64);

/// One request of whoever asked for a command. The dispatcher numbers them and uses no number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct RequestId(pub(crate) u64);

/// Which binary and configuration a child is started with. The dispatcher keeps both of each generation that a slot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Generation(pub(crate) u64);

/// What to run, and with which bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// 1 to `DEPLOYMENTS_MAX`, each name once. Checked by [`crate::supervisor::policy::counts::check`].
    pub(crate) deployments: Vec<Deployment>,
    /// How long a child may take until it is ready.
    pub(crate) ready_timeout: Duration,
    /// How long a child may take to end after it was asked to.
    pub(crate) stop_timeout: Duration,
    /// How long a child may say nothing.
    pub(crate) hang_timeout: Duration,
    /// How long a gateway that leaves moves its sessions.
    pub(crate) drain_window: Duration,
    /// When a child is replaced by itself.
    pub(crate) recycle: Bounds,
    /// Whether sessions are offered to move when gateways are uneven.
    pub(crate) even: bool,
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// A process runs.
    Started {
        /// Which start.
        child: ChildId,
        /// Its number in the system.
        pid: u32,
    },
    /// No process could be made.
    StartFailed {
        /// Which start.
        child: ChildId,
        /// In one line.
        why: String,
    },
    /// It said that it can do its work.
    Ready {
        /// Who.
        child: ChildId,
    },
    /// It said what it has to do: it is there.
    Heard {
        /// Who.
        child: ChildId,
        /// The last that is known.
        load: Load,
    },
    /// Its process is gone.
    Ended {
        /// Who.
        child: ChildId,
        /// How.
        exit: Exit,
    },
    /// All channels of all children were just read to their ends, and what they said was given to the plan. Only this input lets
    /// waits end: the dispatcher gives it whenever [`super::Plan::next_due`] says so.
    Looked,
    /// Somebody asks for something. It is answered exactly once.
    Command {
        /// To whom progress and answer go.
        request: RequestId,
        /// What.
        command: Command,
    },
    /// How [`Action::Finish`] went. It does not come back when the supervisor's program was changed: the new image gives it, to the plan
    /// that it was handed.
    Finished {
        /// Err: in one line; every child is new, the supervisor is not.
        result: Result<(), String>,
    },
    /// The supervisor was asked to end, by a signal. A second one changes nothing.
    StopAll,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// What a child does and costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Sessions: passed to it and not yet gone.
    pub(crate) sessions: u64,
    /// Actions that came in, or events that were resolved, in a second.
    pub(crate) actions_per_s: f64,
    /// Use of one core: 1.0 is all of it.
    pub(crate) cpu: f64,
    /// Resident memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// Actions that came in, or events that were resolved, since its start.
    pub(crate) events: u64,
}

/// What somebody may ask for. Names are as written: `gateway-1`, `worker-2..4`, `gateway`, `eu/worker`, `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// What is stopped, failed or waits is started now. Answered when each is ready or has ended.
    Start(Vec<String>),
    /// Gateways leave, then workers end. They stay stopped until they are started. Answered when all have ended.
    Stop(Vec<String>),
    /// What runs is replaced, one at a time, and what does not is started.
    Restart(Vec<String>),
    /// What is ready is replaced, one at a time.
    Recycle(Vec<String>),
    /// Stopped, and its place is gone; one less is wanted.
    Delete(Vec<String>),
    /// As many as said, until the next reload: the highest numbers go first.
    Scale {
        /// Of which deployment and role.
        group: Group,
        /// How many.
        count: Count,
    },
    /// Everything is replaced by another generation, one at a time.
    Reload {
        /// Higher than all before it.
        generation: Generation,
        /// What it runs. They count from the roll's end on.
        settings: Settings,
    },
    /// Everything ends, then the supervisor. Answered just before [`Action::End`].
    End,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a process. Answered by `Started` or `StartFailed`.
    Start {
        /// Its number.
        child: ChildId,
        /// Its name.
        slot: Slot,
        /// What it runs.
        generation: Generation,
    },
    /// Close its channel: it drains and ends. A gateway closes its sessions.
    AskToEnd {
        /// Who.
        child: ChildId,
    },
    /// Others go on: a gateway moves its sessions, a worker hands its shards over; then it ends.
    AskToLeave {
        /// Who.
        child: ChildId,
        /// Who replaces it, if anybody.
        successor: Option<ChildId>,
        /// How long a gateway moves its sessions.
        window: Duration,
    },
    /// SIGKILL. Said once of a child.
    Kill {
        /// Who.
        child: ChildId,
        /// In a few words, for the log: `was not ready within 15 s`.
        why: String,
    },
    /// Offer `move` to so many quiet sessions.
    Move {
        /// Which gateway.
        child: ChildId,
        /// At least 1.
        sessions: u64,
    },
    /// A line for whoever asked, before the answer.
    Progress {
        /// To whom.
        request: RequestId,
        /// One line.
        line: String,
    },
    /// The last word about a request.
    Answer {
        /// To whom.
        request: RequestId,
        /// Err: what went wrong, in one line.
        result: Result<(), String>,
    },
    /// A line for the log.
    Log {
        /// One line.
        line: String,
    },
    /// The last act of a reload: every child that runs is of this generation. Write so into the deployments' records; execute its
    /// binary in the supervisor's place, if it is another; then give [`Input::Finished`].
    Finish {
        /// The one that everything has.
        generation: Generation,
    },
    /// No child is left, and none will be started: the supervisor ends.
    End {
        /// Its exit code: 0, or 1 when a child had to be killed.
        code: u8,
    },
}

/// What a slot is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its child is not ready yet.
    Starting,
    /// Its child works.
    Ready,
    /// Its child was asked to end, and no other takes its place.
    Leaving,
    /// Its child crashed: the next starts in so long.
    Waiting(Duration),
    /// Its child ended with code 2: it is not started again by itself.
    Failed,
    /// By command.
    Stopped,
}

impl Phase {
    /// As `ps` shows it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Leaving => "leaving",
            Self::Waiting(_) => "waiting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// A slot as `ps` shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SlotView {
    /// Its name.
    pub(crate) slot: Slot,
    /// What it is at.
    pub(crate) phase: Phase,
    /// What its next child would run.
    pub(crate) generation: Generation,
    /// How often a child of it ended without being asked to, since the supervisor started.
    pub(crate) crashes: u64,
    /// How its last child ended that was not asked to, in one line.
    pub(crate) last_end: Option<String>,
    /// Its children: at most a replacement's pair, the one that works first.
    pub(crate) children: Vec<ChildView>,
}

/// A child as `ps` shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChildView {
    /// Which start.
    pub(crate) child: ChildId,
    /// Once it runs.
    pub(crate) pid: Option<u32>,
    /// `starting`, `ready` or `leaving`.
    pub(crate) phase: Phase,
    /// What it runs.
    pub(crate) generation: Generation,
    /// Since its start, in the supervisor's waking time.
    pub(crate) age: Duration,
    /// The last that was heard of it.
    pub(crate) load: Load,
}
