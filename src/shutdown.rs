//! The request to stop: by SIGTERM, by SIGINT, or by the embedding program.
//!
//! ```
//! use lasthit::shutdown::Shutdown;
//!
//! let shutdown = Shutdown::new();
//! let token = shutdown.token().clone(); // for worker::run
//! shutdown.request();
//! assert!(token.is_cancelled());
//! ```

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::limits::MOVE_WINDOW_MAX;

/// Exit code of a process that was signalled twice and did not drain.
const EXIT_UNDRAINED: i32 = 1;

/// A request to stop, for every part that must drain. Clones share it. It cannot be withdrawn.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    moving: Arc<OnceLock<Duration>>,
}

impl Shutdown {
    /// Creates a shutdown that is not requested yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the first SIGTERM or SIGINT requests the shutdown, and a second one ends the process at once.
    ///
    /// # Errors
    /// When the signals cannot be watched.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let token = self.token.clone();
        tokio::spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            token.cancel();
            tracing::info!("{name}: draining, a second signal ends the process at once");
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::warn!("{name} again: ending without having drained");
            std::process::exit(EXIT_UNDRAINED);
        });
        Ok(())
    }

    /// Requests the shutdown.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Requests the shutdown of a gateway whose sessions can move to another one: it asks them to, spread over the first half of
    /// `window` (at most 600 s), closes at its end those that are still there with code 4504, and drains then. Does nothing once
    /// a shutdown was requested.
    pub fn request_moving(&self, window: Duration) {
        if !self.is_requested() {
            let _ = self.moving.set(window.min(MOVE_WINDOW_MAX));
            self.request();
        }
    }

    /// The time over which a gateway moves its sessions before it drains; None when it drains at once.
    #[must_use]
    pub fn moving(&self) -> Option<Duration> {
        self.moving.get().copied()
    }

    /// Returns once the shutdown is requested.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether the shutdown is requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Runs `work` to its end. Returns None when it has not ended within `drain` after the request, and after the time for moving
    /// sessions.
    pub async fn bound<T>(&self, drain: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = async {
                self.requested().await;
                tokio::time::sleep(drain + self.moving().unwrap_or_default()).await;
            } => None,
        }
    }

    /// The token that the request cancels.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_is_bounded_and_working_is_not() {
        let (shutdown, drain) = (Shutdown::new(), Duration::from_millis(20));
        let work = async {
            tokio::time::sleep(drain * 3).await;
            7
        };
        assert_eq!(shutdown.bound(drain, work).await, Some(7), "not requested");
        shutdown.clone().request();
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.bound(drain, std::future::ready(8)).await, Some(8));
        assert_eq!(shutdown.bound(drain, std::future::pending::<()>()).await, None);
        shutdown.request_moving(drain);
        assert_eq!(shutdown.moving(), None, "it drains already");
        let moving = Shutdown::new();
        moving.request_moving(drain * 4);
        let work = async {
            tokio::time::sleep(drain * 3).await;
            9
        };
        assert_eq!(moving.bound(drain, work).await, Some(9), "the time for moving is not for draining");
    }
}
