//! What wakes the worker's loop beside inputs: timers of rooms that are due. And steps of the wall clock, which they are told by.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock;
use crate::limits::EPOCH_STEP_MIN;

/// The next moment at which a timer is due, and the epoch that the core knows.
pub(super) struct Wake {
    due_ns: Option<u64>,
    sleep: Pin<Box<Sleep>>,
    epoch_ns: u64,
}

impl Wake {
    pub(super) fn new() -> Self {
        Self { due_ns: None, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), epoch_ns: clock::epoch_ns() }
    }

    /// Wakes up at this moment of the monotonic clock from now on.
    pub(super) fn at(&mut self, due_ns: Option<u64>) {
        if std::mem::replace(&mut self.due_ns, due_ns) != due_ns
            && let Some(due_ns) = due_ns
        {
            let ahead = Duration::from_nanos(due_ns.saturating_sub(clock::monotonic_ns()));
            self.sleep.as_mut().reset(Instant::now() + ahead);
        }
    }

    /// Returns when the moment has come; never if there is none.
    pub(super) async fn due(&mut self) {
        if self.due_ns.is_none() {
            std::future::pending::<()>().await;
        }
        self.sleep.as_mut().await;
        self.due_ns = None;
    }

    /// The epoch, if the wall clock was stepped since the last look.
    pub(super) fn stepped(&mut self) -> Option<u64> {
        let (now, before) = (clock::epoch_ns(), self.epoch_ns);
        if u128::from(now.abs_diff(before)) < EPOCH_STEP_MIN.as_nanos() {
            return None;
        }
        self.epoch_ns = now;
        let by_ms = (i128::from(now) - i128::from(before)) / 1_000_000;
        tracing::warn!(by_ms, "the wall clock was stepped: the rooms' time follows, and never goes back");
        Some(now)
    }
}
