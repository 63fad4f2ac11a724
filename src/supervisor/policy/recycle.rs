//! When a child is replaced because of what it has done, its age or its memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{RECYCLE_LIFE_MIN, RECYCLE_SPREAD_PERCENT};

/// After what a child is replaced. None: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Actions that came in, or events that were resolved.
    pub(crate) events: Option<u64>,
    /// Since its start.
    pub(crate) age: Option<Duration>,
    /// Resident memory.
    pub(crate) memory_bytes: Option<u64>,
}

/// Why a child is to be replaced, if it is. The bounds of each child are a little lower than they say, by up to
/// [`RECYCLE_SPREAD_PERCENT`]: what started together does not end together. None is due before [`RECYCLE_LIFE_MIN`].
pub(crate) fn due(bounds: &Bounds, child: u64, age: Duration, events: u64, memory_bytes: u64) -> Option<String> {
    if age < RECYCLE_LIFE_MIN {
        return None;
    }
    let (age_ms, most_ms) = (millis(age), bounds.age.map(millis));
    if bounds.events.is_some_and(|most| events >= spread(most, child)) {
        Some(format!("it has had {events} events"))
    } else if most_ms.is_some_and(|most| age_ms >= spread(most, child)) {
        Some(format!("it is {} s old", age.as_secs()))
    } else if bounds.memory_bytes.is_some_and(|most| memory_bytes >= spread(most, child)) {
        Some(format!("it uses {} MiB", memory_bytes >> 20))
    } else {
        None
    }
}

/// A bound as it counts for one child: at least 1.
fn spread(bound: u64, child: u64) -> u64 {
    let less = u128::from(xxh3_64(&child.to_le_bytes()) % (RECYCLE_SPREAD_PERCENT * 10 + 1));
    let lower = u128::from(bound) * (1_000 - less) / 1_000;
    u64::try_from(lower).unwrap_or(bound).max(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_due_says_why() {
        let none = Bounds::default();
        assert_eq!(due(&none, 1, Duration::MAX, u64::MAX, u64::MAX), None);
        let bounds = Bounds { events: Some(1_000), age: Some(Duration::from_secs(60)), memory_bytes: Some(100 << 20) };
        let at = |age_s, events, mib: u64| due(&bounds, 1, Duration::from_secs(age_s), events, mib << 20);
        assert_eq!(at(53, 899, 89), None);
        assert_eq!(at(60, 0, 0).as_deref(), Some("it is 60 s old"));
        assert_eq!(at(5, 1_000, 0).as_deref(), Some("it has had 1000 events"));
        assert_eq!(at(5, 0, 100).as_deref(), Some("it uses 100 MiB"));
        assert_eq!(at(4, 1_000, 100), None, "it has only just started");
    }

    proptest! {
        #[test]
        fn a_bound_is_lowered_by_at_most_a_tenth(bound in 1..=u64::MAX, child in any::<u64>()) {
            let lower = spread(bound, child);
            prop_assert!((1..=bound).contains(&lower) && u128::from(lower) >= (u128::from(bound) * 9 / 10));
        }
    }

    #[test]
    fn children_that_start_together_are_due_at_different_times() {
        let bounds: std::collections::BTreeSet<u64> = (1..=16).map(|child| spread(1_000_000, child)).collect();
        assert!(bounds.len() >= 12, "{bounds:?}");
        let (least, most) = (bounds.first().expect("some"), bounds.last().expect("some"));
        assert!(most - least > 50_000, "{bounds:?}");
    }
}
