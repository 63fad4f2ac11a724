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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Steps each second with the same load of each of `count`, and says when something is to change.
    fn change(cpu: f64, count: usize, for_s: u64) -> Option<(u64, Change)> {
        let mut scale = Scale::default();
        (0..=for_s).find_map(|s| Some((s, scale.step(Duration::from_secs(s), &vec![cpu; count], 1, 4)?)))
    }

    #[test]
    fn a_busy_role_gets_one_more_and_an_idle_one_gives_one_up() {
        assert_eq!(change(0.71, 2, 300), Some((10, Change::More)));
        assert_eq!(change(0.70, 2, 300), None);
        assert_eq!(change(0.9, 4, 300), None, "as many as may be");
        assert_eq!(change(0.24, 2, 300), Some((120, Change::Less)), "0.48 of one core for the other");
        assert_eq!(change(0.26, 2, 300), None, "0.52 of one core for the other");
        assert_eq!(change(0.37, 4, 300), Some((120, Change::Less)), "0.49 for each of three");
        assert_eq!(change(0.0, 1, 300), None, "as few as may be");
        assert_eq!(change(0.0, 0, 300), None);
    }

    #[test]
    fn a_short_rest_begins_the_wait_again() {
        let mut scale = Scale::default();
        let mut at = |s, cpu| scale.step(Duration::from_secs(s), &[cpu], 1, 4);
        assert_eq!((at(0, 0.9), at(9, 0.9), at(10, 0.6), at(11, 0.9), at(20, 0.9)), (None, None, None, None, None));
        assert_eq!(at(21, 0.9), Some(Change::More));
        assert_eq!(at(22, 0.9), None, "the new one counts first");
    }

    proptest! {
        #[test]
        fn a_change_keeps_the_bounds_and_is_not_taken_back(
            load in 0.0..6.0_f64, start in 1..=4_usize, min in 1..=4_usize, more in 0..4_usize
        ) {
            let max = min + more;
            let (mut scale, mut count, mut changes) = (Scale::default(), start.clamp(min, max), Vec::new());
            for s in 0..4_000 {
                let cpu = vec![(load / count as f64).min(1.0); count];
                match scale.step(Duration::from_secs(s), &cpu, min, max) {
                    Some(Change::More) => count += 1,
                    Some(Change::Less) => count -= 1,
                    None => continue,
                }
                changes.push(count);
                prop_assert!((min..=max).contains(&count), "{changes:?}");
            }
            let steady = changes.windows(2).all(|pair| (pair[0] > start) == (pair[1] > start));
            prop_assert!(steady && changes.len() <= max, "a steady load of {load} swings: {changes:?}");
        }
    }
}
