//! How long after a crash the next start comes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{CHILD_RESTART_MAX, CHILD_RESTART_MIN, CHILD_RESTART_RESET};

/// The pause of one slot. It doubles with each crash, and begins again after a child that has started well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: CHILD_RESTART_MIN }
    }
}

impl Backoff {
    /// The pause after a child that was ready for so long, zero if it never was.
    pub(crate) fn pause(&mut self, ready_for: Duration) -> Duration {
        if ready_for >= CHILD_RESTART_RESET {
            *self = Self::default();
        }
        let pause = self.next;
        self.next = (pause * 2).min(CHILD_RESTART_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pause_doubles_up_to_its_bound_and_begins_again_after_a_good_start(lives in proptest::collection::vec(0..20_u64, 1..40)) {
            let mut backoff = Backoff::default();
            let mut before = None;
            for life in lives {
                let pause = backoff.pause(Duration::from_secs(life));
                let expected = match before {
                    Some(before) if life < 10 => Duration::min(before * 2, Duration::from_secs(10)),
                    _ => Duration::from_millis(100),
                };
                prop_assert_eq!(pause, expected);
                before = Some(pause);
            }
        }
    }
}
