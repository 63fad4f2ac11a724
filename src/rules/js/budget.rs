//! What a program may take for one event: time, memory, stack.

use std::cell::Cell;

use nix::time::{ClockId, clock_gettime};

use crate::limits::{
    BUDGET_MS, BUDGET_MS_MAX, MEMORY_MIB, MEMORY_MIB_MAX, MEMORY_MIB_MIN, STACK_KIB, STACK_KIB_MAX, STACK_KIB_MIN, STACK_LINES,
    STACK_LINES_MAX,
};

/// What a program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Milliseconds of processor time for one event: 1 to 1,000.
    pub time_ms: u32,
    /// MiB of memory for all that a context holds: 8 to 1,024.
    pub memory_mib: u32,
    /// KiB of stack: 64 to 1,024.
    pub stack_kib: u32,
    /// Lines of stack that are kept of a failure: 0 to 100.
    pub stack_lines: u32,
}

/// By what an event is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Measure {
    /// The budget.
    #[default]
    Budget,
    /// [`Budget::most`]: it is recorded already that the event came to a decision, perhaps on a faster machine, or in another budget
    /// (rule P1).
    Most,
}

impl Default for Budget {
    fn default() -> Self {
        Self { time_ms: BUDGET_MS, memory_mib: MEMORY_MIB, stack_kib: STACK_KIB, stack_lines: STACK_LINES }
    }
}

impl Budget {
    /// The most that any budget may be: for a text that has decided before, perhaps in another budget (rule P1).
    pub(crate) fn most() -> Self {
        Self { time_ms: BUDGET_MS_MAX, memory_mib: MEMORY_MIB_MAX, stack_kib: STACK_KIB_MAX, stack_lines: STACK_LINES_MAX }
    }

    /// What an event may take.
    pub(super) fn measured(self, by: Measure) -> Self {
        match by {
            Measure::Budget => self,
            Measure::Most => Self { stack_lines: self.stack_lines, ..Self::most() },
        }
    }

    /// The budget within its bounds.
    pub(super) fn bounded(self) -> Self {
        Self {
            time_ms: self.time_ms.clamp(1, BUDGET_MS_MAX),
            memory_mib: self.memory_mib.clamp(MEMORY_MIB_MIN, MEMORY_MIB_MAX),
            stack_kib: self.stack_kib.clamp(STACK_KIB_MIN, STACK_KIB_MAX),
            stack_lines: self.stack_lines.min(STACK_LINES_MAX),
        }
    }
}

/// Stops what runs too long. It counts the processor time of its thread, so that a busy host stops nobody. It counts from the first
/// time that the interpreter asks, some 10,000 steps after the start: most events are done before.
#[derive(Debug)]
pub(super) struct Stopwatch {
    budget_ns: Cell<u64>,
    since_ns: Cell<Option<u64>>,
    stopped: Cell<bool>,
}

impl Stopwatch {
    /// It has started, and stops nothing: until the program runs, only the prelude does.
    pub(super) fn new() -> Self {
        Self { budget_ns: Cell::new(u64::MAX), since_ns: Cell::new(None), stopped: Cell::new(false) }
    }

    /// An event begins, which may take so long.
    pub(super) fn start(&self, time_ms: u32) {
        self.budget_ns.set(u64::from(time_ms) * 1_000_000);
        self.since_ns.set(None);
        self.stopped.set(false);
    }

    /// Whether to stop now. Once it has stopped an event, nothing of it goes on.
    pub(super) fn is_over(&self) -> bool {
        let now_ns = processor_ns();
        match self.since_ns.get() {
            None => self.since_ns.set(Some(now_ns)),
            Some(since_ns) if now_ns.saturating_sub(since_ns) >= self.budget_ns.get() => self.stopped.set(true),
            Some(_) => {}
        }
        self.stopped.get()
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.get()
    }
}

/// The processor time that this thread has used. It stops an event and decides nothing else: that verdict is recorded as void.
fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(std::time::Duration::ZERO, Into::into);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
