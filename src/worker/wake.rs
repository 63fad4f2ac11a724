//! What wakes the worker's loop: its tick, timers of rooms that are due, and inputs. And steps of the wall clock, which tell when
//! timers are due.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use super::step::Input;
use crate::clock;
use crate::limits::{EPOCH_STEP_MIN, PROBE_INTERVAL};

/// What the loop turns to.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Turn {
    Tick,
    Due,
    Input(Input),
}

/// The tick, the next moment at which a timer is due, and the epoch that the core knows.
pub(super) struct Wake {
    tick: Interval,
    due_ns: Option<u64>,
    sleep: Pin<Box<Sleep>>,
    epoch_ns: u64,
}

impl Wake {
    pub(super) fn new(epoch_ns: u64) -> Self {
        let mut tick = tokio::time::interval(PROBE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { tick, due_ns: None, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), epoch_ns }
    }

    /// Returns what is next. However many inputs wait, they hold up neither a tick nor a timer.
    pub(super) async fn turn(&mut self, inputs: &mut mpsc::Receiver<Input>) -> Turn {
        tokio::select! {
            biased;
            _ = self.tick.tick() => Turn::Tick,
            () = due(&mut self.due_ns, &mut self.sleep) => Turn::Due,
            Some(input) = inputs.recv() => Turn::Input(input),
        }
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

/// Returns when the moment has come; never if there is none.
async fn due(due_ns: &mut Option<u64>, sleep: &mut Pin<Box<Sleep>>) {
    if due_ns.is_none() {
        std::future::pending::<()>().await;
    }
    sleep.as_mut().await;
    *due_ns = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn inputs_hold_up_neither_a_tick_nor_a_timer() {
        let mut wake = Wake::new(0);
        let (sender, mut inputs) = mpsc::channel(8);
        (0..8).for_each(|_| sender.try_send(Input::ShardIsFree).expect("room"));
        for _ in 0..3 {
            tokio::time::sleep(2 * PROBE_INTERVAL).await;
            assert!(matches!(wake.turn(&mut inputs).await, Turn::Tick));
            wake.at(Some(clock::monotonic_ns()));
            tokio::time::sleep(PROBE_INTERVAL / 4).await;
            loop {
                match wake.turn(&mut inputs).await {
                    Turn::Due => break,
                    Turn::Tick => {}
                    Turn::Input(_) => panic!("a timer is due"),
                }
            }
        }
        while !matches!(wake.turn(&mut inputs).await, Turn::Input(_)) {}
    }
}
