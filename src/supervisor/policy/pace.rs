//! How fast the door lets in what has queued up: after a pause of the supervisor, or the end of a gateway, many come at once, and those
//! who play share the cores with their handshakes.

use std::time::Duration;

use crate::limits::{DOOR_BURST, DOOR_PACE, DOOR_PACE_STEP};

/// Counts what was let in without finding the queue empty. All times are of one monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Since the queue was seen empty.
    let_in: u32,
    /// When it was held up for the first time since then.
    since: Option<Duration>,
    /// The earliest moment for the next.
    next: Duration,
}

impl Pace {
    /// Nobody waits.
    pub(crate) fn is_empty(&mut self) {
        *self = Self::default();
    }

    /// One is let in.
    pub(crate) fn let_in(&mut self, now: Duration) {
        self.let_in = self.let_in.saturating_add(1);
        if self.let_in >= DOOR_BURST {
            let since = *self.since.get_or_insert(now);
            let steps = now.saturating_sub(since).as_millis() / DOOR_PACE_STEP.as_millis();
            let rate = DOOR_PACE.saturating_mul(2_u32.saturating_pow(u32::try_from(steps).unwrap_or(u32::MAX)));
            // Who sleeps wakes up late: the rate is kept on average, but what was missed for longer is not made up for.
            self.next = self.next.max(now.saturating_sub(Duration::from_millis(5))) + Duration::from_secs(1) / rate;
        }
    }

    /// How long the next one has to wait.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// When each of a queue is let in.
    fn queue(count: usize) -> Vec<Duration> {
        let (mut pace, mut now) = (Pace::default(), Duration::from_secs(7));
        let let_in = |_| {
            now += pace.wait(now);
            pace.let_in(now);
            now - Duration::from_secs(7)
        };
        (0..count).map(let_in).collect()
    }

    #[test]
    fn a_queue_is_let_in_slowly_then_faster() {
        let at = queue(8_000);
        assert_eq!(at[DOOR_BURST as usize - 1], Duration::ZERO, "so many are no queue");
        let within = |from: u32, to: u32| at.iter().filter(|at| **at >= from * 1000 * MS && **at < to * 1000 * MS).count();
        assert!((1_000..=1_000 + DOOR_BURST as usize + 10).contains(&within(0, 1)), "{}", within(0, 1));
        assert!((1_990..=2_010).contains(&within(1, 2)) && (3_980..=4_020).contains(&within(2, 3)), "{}", within(1, 2));
    }

    proptest! {
        /// Who comes one by one, at whatever rate the door keeps up with, never waits.
        #[test]
        fn who_finds_the_queue_empty_does_not_wait(gaps_us in proptest::collection::vec((0..300_u64, any::<bool>()), 1..400)) {
            let (mut pace, mut now, mut row) = (Pace::default(), Duration::ZERO, 0);
            for (gap, is_empty) in gaps_us {
                now += Duration::from_micros(gap);
                if is_empty || row >= DOOR_BURST - 1 {
                    pace.is_empty();
                    row = 0;
                }
                prop_assert_eq!(pace.wait(now), Duration::ZERO);
                pace.let_in(now);
                row += 1;
            }
        }
    }
}
