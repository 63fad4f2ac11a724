//! The wish to stop: from SIGTERM or SIGINT, or from whoever embeds the process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was signalled twice and did not drain.
const EXIT_UNDRAINED: i32 = 1;

/// Handed to every part that must drain. Clones share the wish; it is never taken back.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first SIGTERM or SIGINT asks for the shutdown; a second one ends the process at once.
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
            tracing::info!("{name}: draining, a second signal ends the process at once");
            token.cancel();
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::warn!("{name} again: ending without having drained");
            std::process::exit(EXIT_UNDRAINED);
        });
        Ok(())
    }

    /// Asks for the shutdown.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Comes back once it was asked for.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// For `select!` arms and child tokens.
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
