//! What the arguments of a run mean.

use std::time::Duration;

use super::RunArgs;
use super::values::Moves;
use crate::load::{Load, Pace};

impl RunArgs {
    /// The load that these options describe.
    pub(crate) fn load(&self, urls: Vec<String>) -> Load {
        let seconds = |time: Option<Duration>, whole, step| {
            time.unwrap_or(Duration::from_secs(if self.ramp.is_some() { step } else { whole }))
        };
        let pace = if self.closed {
            Pace::Closed { outstanding: self.outstanding.unwrap_or(1) }
        } else {
            Pace::Open { rate: self.rate }
        };
        Load {
            sessions: self.sessions,
            rooms: self.rooms,
            waiting_max: self.outstanding.filter(|_| !self.closed),
            contenders: self.contenders,
            payload_bytes: self.payload_bytes,
            follows: self.moves == Moves::Follow,
            audience: self.audience,
            warm_up: seconds(self.warm_up, 2, 1),
            duration: seconds(self.duration, 10, 3),
            drain: self.drain,
            lateness_max: self.lateness_max,
            ..Load::new(self.dialect, urls, pace)
        }
    }
}
