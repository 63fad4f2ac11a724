//! The settings of `lasthit up`.

use std::path::PathBuf;
use std::time::Duration;

use super::sources::Sources;
use super::{Config, values};
use crate::journal::redis::Durability;
use crate::limits;
use crate::supervisor::policy::counts::Wanted;
use crate::supervisor::policy::recycle::Bounds;

/// What a supervisor runs, and how long it waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    /// The deployments by their names: that of the only one is empty. A deployment itself has none.
    pub(crate) deployments: Vec<(String, Config)>,
    /// How many gateways.
    pub(crate) gateways: Wanted,
    /// How many workers.
    pub(crate) workers: Wanted,
    /// What runs as a worker instead of this program: the program, then its arguments.
    pub(crate) worker_command: Option<Vec<String>>,
    /// Where its commands come in. None: in the runtime directory.
    pub(crate) control: Option<PathBuf>,
    /// Where its own Redis keeps its data. None: in the usual place.
    pub(crate) data: Option<PathBuf>,
    /// How long a child may take until it is ready.
    pub(crate) ready_timeout: Duration,
    /// How long it may take to end.
    pub(crate) stop_timeout: Duration,
    /// How long it may say nothing.
    pub(crate) hang_timeout: Duration,
    /// How long a gateway that leaves moves its sessions.
    pub(crate) drain_window: Duration,
    /// When a child is replaced by itself.
    pub(crate) recycle: Bounds,
    /// Whether sessions are moved when gateways are uneven.
    pub(crate) even: bool,
}

impl Default for Up {
    fn default() -> Self {
        Self {
            deployments: Vec::new(),
            gateways: Wanted::Auto,
            workers: Wanted::Auto,
            worker_command: None,
            control: None,
            data: None,
            ready_timeout: limits::READY_TIMEOUT,
            stop_timeout: limits::STOP_TIMEOUT,
            hang_timeout: limits::HANG_TIMEOUT,
            drain_window: limits::DRAIN_WINDOW,
            recycle: Bounds::default(),
            even: true,
        }
    }
}

impl Up {
    /// Of those deployments whose Redis is the supervisor's own, the highest durability.
    pub(crate) fn managed(&self) -> Option<Durability> {
        let own = self.deployments.iter().filter(|(_, config)| config.redis.is_none()).map(|(_, config)| config.durability);
        own.max_by_key(|level| *level == Durability::Disk)
    }

    pub(super) fn read(from: &mut Sources<'_>) -> Self {
        let d = Self::default();
        let timeout = |v: &str| values::duration(v, limits::CHILD_TIMEOUT_MIN, limits::CHILD_TIMEOUT_MAX);
        Self {
            deployments: d.deployments,
            gateways: from.get("gateways", d.gateways, Wanted::parse),
            workers: from.get("workers", d.workers, Wanted::parse),
            worker_command: from.get("worker_command", None, |v| values::command(v).map(Some)),
            control: from.get("control", None, |v| Ok(Some(PathBuf::from(v)))),
            data: from.get("data", None, |v| values::directory(v).map(Some)),
            ready_timeout: from.get("ready_timeout", d.ready_timeout, timeout),
            stop_timeout: from.get("stop_timeout", d.stop_timeout, timeout),
            hang_timeout: from.get("hang_timeout", d.hang_timeout, timeout),
            drain_window: from
                .get("drain_window", d.drain_window, |v| values::duration(v, Duration::ZERO, limits::DRAIN_WINDOW_MAX)),
            recycle: Bounds {
                events: from.get("recycle_events", None, |v| {
                    values::whole(v, limits::RECYCLE_EVENTS_MIN, limits::RECYCLE_EVENTS_MAX).map(Some)
                }),
                age: from.get("recycle_age", None, |v| {
                    values::duration(v, limits::RECYCLE_AGE_MIN, limits::RECYCLE_AGE_MAX).map(Some)
                }),
                memory_bytes: from.get("recycle_memory", None, |v| {
                    values::bytes(v, limits::RECYCLE_MEMORY_MIN, limits::RECYCLE_MEMORY_MAX).map(Some)
                }),
            },
            even: from.get("even", d.even, |v| values::word(v, &[("on", true), ("off", false)])),
        }
    }
}
