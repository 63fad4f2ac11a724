//! When gateways are uneven, and how many sessions the fullest offers to move.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{EVEN_ABOVE_PERCENT, EVEN_AFTER, EVEN_UNTIL_PERCENT};

/// Whether the gateways of one deployment are being evened out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Even {
    uneven_since: Option<Duration>,
}

/// A ready gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// Its sessions.
    pub(crate) sessions: u64,
    /// Of them, those that were asked to move a short while ago.
    pub(crate) offered: u64,
}

impl Even {
    /// Whether anything is to be done about them: they were seen uneven, and are not even again.
    pub(crate) fn is_uneven(&self) -> bool {
        self.uneven_since.is_some()
    }

    /// Which gateway is to offer `move` to how many sessions now, at most `most`.
    pub(crate) fn step(&mut self, now: Duration, gateways: &[Gateway], most: u64) -> Option<(usize, u64)> {
        let (sum, count) = (gateways.iter().map(|gateway| gateway.sessions).sum::<u64>(), gateways.len() as u64);
        let fullest = gateways.iter().map(|gateway| gateway.sessions).max().unwrap_or_default();
        // All in hundredths of a session, times the number of gateways: nothing is rounded.
        let (fullest, mean) = (u128::from(fullest) * u128::from(count) * 100, u128::from(sum));
        let since = match self.uneven_since {
            Some(since) if fullest > mean * u128::from(EVEN_UNTIL_PERCENT) => since,
            None if fullest > mean * u128::from(EVEN_ABOVE_PERCENT) + u128::from(count) * 100 => now,
            _ => {
                self.uneven_since = None;
                return None;
            }
        };
        self.uneven_since = Some(since);
        if now.saturating_sub(since) < EVEN_AFTER {
            return None;
        }
        let stays = |gateway: &Gateway| gateway.sessions.saturating_sub(gateway.offered);
        let (index, gateway) = gateways.iter().enumerate().max_by_key(|(index, gateway)| (stays(gateway), usize::MAX - index))?;
        let sessions = stays(gateway).saturating_sub(sum.div_ceil(count)).min(most);
        (sessions > 0).then_some((index, sessions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EVEN_INTERVAL;
    use proptest::prelude::*;

    fn gateways(sessions: &[u64]) -> Vec<Gateway> {
        sessions.iter().map(|sessions| Gateway { sessions: *sessions, offered: 0 }).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_what_stays_uneven_is_evened_until_it_is() {
        let mut even = Even::default();
        assert_eq!(even.step(at(0), &[], 10), None);
        assert_eq!(even.step(at(0), &gateways(&[0, 0]), 10), None);
        assert!(even.step(at(1), &gateways(&[111, 90, 99]), 10).is_none() && !even.is_uneven(), "1.11 x 100 + 1");
        assert!(even.step(at(1), &gateways(&[112, 89, 99]), 10).is_none() && even.is_uneven());
        assert_eq!(even.step(at(3), &gateways(&[112, 89, 99]), 10), None, "not for 3 s yet");
        assert_eq!(even.step(at(4), &gateways(&[112, 89, 99]), 10), Some((0, 10)));
        assert_eq!(even.step(at(5), &gateways(&[106, 95, 99]), 10), Some((0, 6)), "not below the mean");
        assert!(even.step(at(6), &gateways(&[105, 96, 99]), 10).is_none() && !even.is_uneven(), "1.05");
        assert!(even.step(at(7), &gateways(&[106, 95, 99]), 10).is_none() && !even.is_uneven(), "below 1.1 again");
    }

    #[test]
    fn what_was_offered_counts_as_gone() {
        let mut even = Even::default();
        let fresh = Gateway { sessions: 0, offered: 0 };
        let full = |offered| Gateway { sessions: 100, offered };
        assert_eq!(even.step(at(0), &[full(0), fresh], 10), None);
        assert_eq!(even.step(at(3), &[full(45), fresh], 10), Some((0, 5)));
        assert_eq!(even.step(at(4), &[full(50), fresh], 10), None);
    }

    proptest! {
        /// Sessions that follow offers, to where the door sends them, within a second.
        #[test]
        fn gateways_become_even_and_stay_so(counts in proptest::collection::vec(0..400_u64, 2..9)) {
            let (mut even, mut sessions) = (Even::default(), counts.clone());
            let (sum, n) = (counts.iter().sum::<u64>(), counts.len() as u64);
            let is_even = |sessions: &[u64], percent: u64| {
                sessions.iter().max().is_some_and(|most| most * n * 100 <= sum * percent + n * 100)
            };
            let mut moved = 0;
            for turn in 0..2_000 {
                if let Some((index, count)) = even.step(EVEN_INTERVAL * turn, &gateways(&sessions), 10) {
                    prop_assert!(count <= 10 && sessions[index] - count >= sum / n, "below the mean");
                    prop_assert_eq!(Some(&sessions[index]), sessions.iter().max());
                    moved += count;
                    sessions[index] -= count;
                    for _ in 0..count {
                        *sessions.iter_mut().min().expect("some") += 1;
                    }
                }
            }
            prop_assert!(is_even(&sessions, 110), "{counts:?} -> {sessions:?}");
            prop_assert!(moved <= sum);
            prop_assert!(moved == 0 || !is_even(&counts, 105), "{counts:?} were even");
        }
    }
}
