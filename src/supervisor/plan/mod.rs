//! What the supervisor does next: a step function over slots and children. An input and the time go in, actions come out.
//!
//! A **slot** is a place for a process, with a name. A **child** is one start of it. A slot has one child; while it is replaced it has
//! two: the next one, until it is ready, or the last one, until it has ended.

pub(crate) mod step;

use std::time::Duration;

use crate::supervisor::policy::names::Slot;
use step::{Action, ChildId, Generation, Input, Settings, SlotView};

/// The state of a supervisor. The dispatcher owns it.
#[derive(Debug)]
pub(crate) struct Plan {
    settings: Settings,
    generation: Generation,
}

impl Plan {
    /// A plan, and the first starts. `now` is a monotonic clock's time, here and below: one that goes on over an exec.
    pub(crate) fn new(settings: Settings, generation: Generation, _now: Duration) -> (Self, Vec<Action>) {
        (Self { settings, generation }, Vec::new())
    }

    /// What is to be done now. Actions are to be carried out in their order.
    pub(crate) fn step(&mut self, _input: Input, _now: Duration) -> Vec<Action> {
        Vec::new()
    }

    /// When [`Input::Looked`] is due next. None: only an input changes anything.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        None
    }

    /// All slots by name, for `ps`.
    pub(crate) fn slots(&self) -> Vec<SlotView> {
        Vec::new()
    }

    /// The gateways that the door may choose from: ready, and not asked to leave. Sorted by name.
    pub(crate) fn ready_gateways(&self) -> Vec<(Slot, ChildId)> {
        Vec::new()
    }

    /// What the next image of the supervisor needs to go on.
    pub(crate) fn save(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
