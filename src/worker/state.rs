//! What the shards of a worker share: limits, the time, permits, and the commands of the core.

use std::collections::BTreeSet;

use super::permits::Permits;
use super::step::{Command, WorkerLimits};
use crate::engine::HostClock;
use crate::types::Incarnation;

/// The shared state of a worker's shards.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: WorkerLimits,
    /// The time of the current input.
    pub(super) now_ns: u64,
    /// The clocks of this host.
    pub(super) clock: HostClock,
    pub(super) permits: Permits,
    /// Gateways that have owed a watermark for so long that their locks are looked at.
    pub(super) owing: BTreeSet<Incarnation>,
    commands: Vec<Command>,
    tokens: u64,
}

impl Shared {
    pub(super) fn new(limits: WorkerLimits) -> Self {
        let clock = HostClock { timeline: limits.timeline, epoch_ns: limits.epoch_ns, since_ns: 0 };
        Self { limits, now_ns: 0, clock, permits: Permits::default(), owing: BTreeSet::new(), commands: Vec::new(), tokens: 0 }
    }

    /// How much of the time between two ticks counts as awake: a gap of more than two and a half intervals is this worker's own pause.
    pub(super) fn awake_ns(&self, elapsed_ns: u64) -> u64 {
        elapsed_ns.min(self.limits.probe_interval_ns / 2 * 5)
    }

    /// The clocks of this host, and the time of the current input.
    pub(super) fn now(&self) -> (HostClock, u64) {
        (self.clock, self.now_ns)
    }

    pub(super) fn emit(&mut self, command: Command) {
        self.commands.push(command);
    }

    pub(super) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// A token for a new lane; every call returns another one.
    pub(super) fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }
}
