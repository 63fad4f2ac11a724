//! What the shards of a worker share: limits, the time, permits, and the commands of the core.

use std::collections::BTreeSet;

use super::permits::Permits;
use super::step::{Command, WorkerLimits};
use crate::types::Incarnation;

/// The shared state of a worker's shards.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: WorkerLimits,
    /// The time of the current input.
    pub(super) now_ns: u64,
    /// The wall clock of this host less its monotonic clock, in nanoseconds, and since when that is so.
    pub(super) wall: (u64, u64),
    pub(super) permits: Permits,
    /// Gateways that have owed a watermark for so long that their locks are looked at.
    pub(super) owing: BTreeSet<Incarnation>,
    commands: Vec<Command>,
    tokens: u64,
}

impl Shared {
    pub(super) fn new(limits: WorkerLimits) -> Self {
        let wall = (limits.epoch_ns, 0);
        Self { limits, now_ns: 0, wall, permits: Permits::default(), owing: BTreeSet::new(), commands: Vec::new(), tokens: 0 }
    }

    /// How much of the time between two ticks counts as awake: a gap of more than two and a half intervals is this worker's own pause.
    pub(super) fn awake_ns(&self, elapsed_ns: u64) -> u64 {
        elapsed_ns.min(self.limits.probe_interval_ns / 2 * 5)
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
