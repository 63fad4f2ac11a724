//! When a role that follows load gets one process more, or gives one up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{SCALE_DOWN_AFTER, SCALE_DOWN_CPU_PERCENT, SCALE_UP_AFTER, SCALE_UP_CPU_PERCENT};

/// Since when the processes of one role were too busy, or too idle. Default: neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scale {
    busy_since: Option<Duration>,
    idle_since: Option<Duration>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// One more.
    More,
    /// One less.
    Less,
}

impl Scale {
    /// `cpu` is what each ready process uses of one core, all of a role being ready; `min` and `max` bound how many there are.
    pub(crate) fn step(&mut self, now: Duration, cpu: &[f64], min: usize, max: usize) -> Option<Change> {
        let count = cpu.len();
        let (sum, percent) = (cpu.iter().sum::<f64>(), |percent: u32| f64::from(percent) / 100.0);
        let is_busy = sum > percent(SCALE_UP_CPU_PERCENT) * count as f64;
        // What the others would have to take.
        let is_idle = count > 1 && sum < percent(SCALE_DOWN_CPU_PERCENT) * (count - 1) as f64;
        let since = |before: Option<Duration>, is: bool| is.then(|| before.unwrap_or(now));
        *self = Self { busy_since: since(self.busy_since, is_busy), idle_since: since(self.idle_since, is_idle) };
        let lasts = |since: Option<Duration>, after: Duration| since.is_some_and(|since| now.saturating_sub(since) >= after);
        let change = if lasts(self.busy_since, SCALE_UP_AFTER) && count < max {
            Change::More
        } else if lasts(self.idle_since, SCALE_DOWN_AFTER) && count > min {
            Change::Less
        } else {
            return None;
        };
        *self = Self::default();
        Some(change)
    }
}
