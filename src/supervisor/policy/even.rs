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
