//! Bounds and timeouts of the front.

use std::time::Duration;

use crate::limits;

/// Bounds and timeouts of the front. The defaults are in [`limits`].
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The most sessions.
    pub sessions_max: usize,
    /// The most sessions of one address.
    pub sessions_per_address: usize,
    /// The most unfinished requests of one address.
    pub handshakes_per_address: usize,
    /// The most connections that one address may open in a second, and at once.
    pub connections_per_second: u32,
    /// Whether loopback addresses are exempt from the bounds of one address.
    pub spares_loopback: bool,
    /// The most sessions of one player.
    pub sessions_per_player: usize,
    /// The most actions that a session may send in a second, and at once.
    pub actions_per_second: u32,
    /// Under which URL players reach this host; empty if it was told none.
    pub advertise: String,
    /// The time that a whole HTTP exchange may take.
    pub handshake_timeout: Duration,
    /// The time within which a session's Open must be resolved.
    pub welcome_timeout: Duration,
    /// The silence after which a session is pinged.
    pub ping_interval: Duration,
    /// The silence after which it is closed.
    pub idle_timeout: Duration,
    /// How long a session may leave messages unread.
    pub stall_timeout: Duration,
    /// The time that the closing handshake may take.
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
            advertise: String::new(),
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            welcome_timeout: limits::WELCOME_TIMEOUT,
            ping_interval: limits::PING_INTERVAL,
            idle_timeout: limits::IDLE_TIMEOUT,
            stall_timeout: limits::STALL_TIMEOUT,
            close_timeout: limits::CLOSE_TIMEOUT,
        }
    }
}
