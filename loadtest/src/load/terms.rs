//! What to measure.

use std::time::Duration;

use super::plan::CONTENDERS;
use crate::limits::CONNECT_LATE;
use crate::speak::dialect::{Audience, Dialect};

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The gateways.
    pub(crate) urls: Vec<String>,
    /// The gateway of each shard's home, where there are several hosts: sessions go there at once. Empty: each goes where its seat is.
    pub(crate) homes: Vec<String>,
    /// What they are spoken to in.
    pub(crate) dialect: Dialect,
    /// Tells its rooms, ids and contests from others'; a new one when it is not given.
    pub(crate) tag: Option<String>,
    /// What a new tag begins with: tells rooms apart that have other rules.
    pub(crate) family: &'static str,
    /// Sessions over all gateways.
    pub(crate) sessions: u32,
    /// Rooms that they play in: new ones each time, where the dialect can.
    pub(crate) rooms: u32,
    /// When actions are sent.
    pub(crate) pace: Pace,
    /// In an open loop: actions of a session that may wait for their answers; what is due beyond that leaves when the answers
    /// come, as from a client that waits for them, and its latency counts from when it was due. None: nothing waits.
    pub(crate) waiting_max: Option<u32>,
    /// Claims to one key.
    pub(crate) contenders: u32,
    /// Bytes of a claim's arguments.
    pub(crate) payload_bytes: usize,
    /// Whether sessions move when a gateway asks them to. The others are closed, and reconnect.
    pub(crate) follows: bool,
    /// Who is told of a verdict.
    pub(crate) audience: Audience,
    /// How long actions are sent before that, outside all figures.
    pub(crate) warm_up: Duration,
    /// How long actions are sent that are measured.
    pub(crate) duration: Duration,
    /// How much longer, at most, while something is done beside it.
    pub(crate) extra: Duration,
    /// Further connections a second beside it.
    pub(crate) connects: u32,
    /// From when on one of them is late.
    pub(crate) late_after: Duration,
    /// How long the last answers may take.
    pub(crate) drain: Duration,
    /// How late the latest hundredth of the sends may leave.
    pub(crate) lateness_max: Duration,
}

/// When actions are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// By a schedule, whatever the answers do.
    Open {
        /// Actions a second over all sessions.
        rate: u32,
    },
    /// Each session sends when it was answered.
    Closed {
        /// Actions of a session that wait for their answers at a time.
        outstanding: u32,
    },
}

impl Load {
    /// The usual work: 100 sessions in 20 rooms, ten contenders a contest, 64-byte claims, verdicts to their sender.
    pub(crate) fn new(dialect: Dialect, urls: Vec<String>, pace: Pace) -> Self {
        Self {
            urls,
            homes: Vec::new(),
            dialect,
            tag: None,
            family: "",
            sessions: 100,
            rooms: 20,
            pace,
            waiting_max: None,
            contenders: CONTENDERS,
            payload_bytes: 64,
            follows: true,
            audience: Audience::Sender,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            extra: Duration::ZERO,
            connects: 0,
            late_after: CONNECT_LATE,
            drain: Duration::from_secs(10),
            lateness_max: Duration::from_millis(5),
        }
    }
}
