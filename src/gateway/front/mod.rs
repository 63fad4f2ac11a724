//! The gateway's public side: accepts connections, answers HTTP, and turns upgrades into sessions.
//!
//! A connection serves one request: either the page or a session. It is one task from accept to close; what bounds it (a
//! handshake's place, then a session's) travels with it as a permit.

mod http;
mod places;
mod session;
mod socket;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::places::{Knock, Places};
use super::arrival::{Drains, StampedStream};
use super::auth::Gatekeeper;
use super::hub::Hub;
use crate::clock::Clock;
use crate::limits;
use crate::metrics::REFUSALS_TOTAL;

/// Finds a page's file by its path: content type and body.
pub(crate) type Assets = fn(&str) -> Option<(&'static str, &'static str)>;

/// What the front may be told to do otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Sessions at most.
    pub sessions_max: usize,
    /// Sessions of one address at most.
    pub sessions_per_address: usize,
    /// Unfinished requests of one address at most.
    pub handshakes_per_address: usize,
    /// Connections that one address may open in a second, and at once.
    pub connections_per_second: u32,
    /// Whether loopback addresses are free of these bounds.
    pub spares_loopback: bool,
    /// Sessions of one player at most.
    pub sessions_per_player: usize,
    /// Actions that a session may send in a second, and at once.
    pub actions_per_second: u32,
    /// For a whole HTTP exchange.
    pub handshake_timeout: Duration,
    /// Until a session's Open must be resolved.
    pub welcome_timeout: Duration,
    /// Silence after which a session is pinged.
    pub ping_interval: Duration,
    /// Silence after which it is closed.
    pub idle_timeout: Duration,
    /// How long a session may leave what it is sent unread.
    pub stall_timeout: Duration,
    /// For the closing handshake.
    pub close_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sessions_max: limits::SESSIONS_MAX,
            sessions_per_address: limits::SESSIONS_PER_ADDRESS,
            handshakes_per_address: limits::HANDSHAKES_PER_ADDRESS,
            connections_per_second: limits::CONNECTIONS_PER_SECOND,
            spares_loopback: true,
            sessions_per_player: limits::SESSIONS_PER_PLAYER,
            actions_per_second: limits::ACTIONS_PER_SECOND,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            welcome_timeout: limits::WELCOME_TIMEOUT,
            ping_interval: limits::PING_INTERVAL,
            idle_timeout: limits::IDLE_TIMEOUT,
            stall_timeout: limits::STALL_TIMEOUT,
            close_timeout: limits::CLOSE_TIMEOUT,
        }
    }
}

/// What every connection of a gateway shares.
pub(crate) struct Front {
    hub: Hub,
    gatekeeper: Gatekeeper,
    assets: Assets,
    clock: Clock,
    drains: Drains,
    settings: Settings,
    sessions: Arc<Semaphore>,
    places: Places,
    /// Cancelled when sessions are to be closed as going away.
    leaving: CancellationToken,
}

impl Front {
    /// Puts a front before `hub`. Sessions are closed as going away when `leaving` is cancelled.
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
        Self { hub, gatekeeper, assets, clock, drains, settings, sessions, places, leaving }
    }

    /// Accepts until `stop` is cancelled, then waits until the last connection has ended, at most
    /// [`limits::DRAIN_TIMEOUT`]. Connections are tasks of the runtime that calls this.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
        let turned_away = Arc::new(Semaphore::new(limits::TURNED_AWAY_MAX));
        loop {
            let next = async {
                // The semaphore is never closed: without a permit there is nothing to accept for.
                let permit = Arc::clone(&handshakes).acquire_owned().await.ok()?;
                Some((listener.accept().await, permit))
            };
            let (accepted, permit) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(next) = next => next,
            };
            match accepted {
                Ok((tcp, peer)) => match self.places.knock(&self.settings, peer.ip()) {
                    Ok(knock) => drop(connections.spawn(Arc::clone(&self).connection(tcp, peer.ip(), (permit, knock)))),
                    Err(problem) => {
                        metrics::counter!(REFUSALS_TOTAL, "code" => http::TOO_MANY_CONNECTIONS).increment(1);
                        if let Ok(told) = turned_away.clone().try_acquire_owned() {
                            let timeout = self.settings.close_timeout;
                            connections.spawn(tokio::time::timeout(timeout, http::turn_away(tcp, problem, told)));
                        }
                    }
                },
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors, most likely: others must end first.
                    tracing::warn!(%error, "cannot accept a connection: raise the limit of open files");
                    tokio::time::sleep(limits::ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(limits::DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections did not end in time");
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, peer: IpAddr, handshake: (OwnedSemaphorePermit, Knock)) {
        let Ok(stream) = StampedStream::new(tcp, self.clock.clone(), self.drains.clone()) else { return };
        // Boxed, so that an open session does not keep the room that its handshake took.
        let upgraded = Box::pin(http::exchange(&self, peer, stream)).await;
        drop(handshake);
        if let Some(upgraded) = upgraded {
            session::run(&self, upgraded).await;
        }
    }
}

/// Whether only the one connection failed, before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
