//! The gateway's public side: accepts connections, answers HTTP, and turns upgrades into sessions.
//!
//! A connection serves one request: a file of the page, or a session. It is one task from accept to close. The permits that
//! bound it, first a handshake's and then a session's, travel with it.

mod accept;
pub(crate) mod advertised;
pub(crate) mod arrival;
pub(crate) mod auth;
mod frames;
mod homes;
mod http;
mod places;
mod session;
mod settings;
mod socket;
pub(crate) mod sweep;
pub(crate) mod tally;
mod token;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use self::accept::{Intake, Passing};
use self::arrival::Drains;
use self::auth::Gatekeeper;
use self::places::Places;
pub(crate) use self::places::{Everywhere, Peer, network};
pub(crate) use self::settings::Settings;
use self::tally::Tally;
use super::hub::Hub;
use crate::clock::Clock;

/// Finds a file of the page by its path. Returns its content type and its body.
pub(crate) type Assets = fn(&str) -> Option<(&'static str, &'static str)>;

/// What all connections of a gateway share.
pub(crate) struct Front {
    hub: Hub,
    gatekeeper: Gatekeeper,
    assets: Assets,
    clock: Clock,
    drains: Drains,
    settings: Settings,
    sessions: Arc<Semaphore>,
    places: Places,
    tally: Arc<Tally>,
    /// Cancelled when all sessions must be closed as going away.
    leaving: CancellationToken,
}

impl Front {
    /// Creates the front of `hub`. When `leaving` is cancelled, it closes all sessions as going away.
    #[must_use]
    pub(crate) fn new(
        hub: Hub,
        gatekeeper: Gatekeeper,
        assets: Assets,
        clock: Clock,
        drains: Drains,
        settings: Settings,
        leaving: CancellationToken,
    ) -> Self {
        let sessions = Arc::new(Semaphore::new(settings.sessions_max.min(Semaphore::MAX_PERMITS)));
        let places = Places::new(&settings);
        let tally = Arc::default();
        Self { hub, gatekeeper, assets, clock, drains, settings, sessions, places, tally, leaving }
    }

    /// Counts there what it has to do.
    pub(crate) fn counting(self, tally: Arc<Tally>) -> Self {
        Self { tally, ..self }
    }
}

#[cfg(test)]
mod tests;
