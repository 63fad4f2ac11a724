//! What the shards of a worker share while the core takes an input: bounds, time, permits, and the commands that come out.

use super::permits::Permits;
use super::step::{Command, WorkerLimits};

/// See above. One per worker.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: WorkerLimits,
    /// When the input came.
    pub(super) now_ns: u64,
    pub(super) permits: Permits,
    commands: Vec<Command>,
    tokens: u64,
}

impl Shared {
    pub(super) fn new(limits: WorkerLimits) -> Self {
        Self { limits, now_ns: 0, permits: Permits::default(), commands: Vec::new(), tokens: 0 }
    }

    pub(super) fn emit(&mut self, command: Command) {
        self.commands.push(command);
    }

    pub(super) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// A number that was never given before.
    pub(super) fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }
}
