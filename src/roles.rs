//! What a process does, by its role.

use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, AdminError, Readiness};
use crate::config::Config;
use crate::metrics::{self, MetricsError};
use crate::shutdown::Shutdown;

/// Why a role ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// Its admin address.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Its metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Health and metrics, while it lives.
struct Side {
    readiness: Readiness,
    stop: CancellationToken,
}

impl Side {
    async fn start(config: &Config) -> Result<Self, RoleError> {
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        if let Some(address) = config.admin {
            let admin = Admin::bind(address).await?;
            tracing::info!("health and metrics on http://{}/", admin.address());
            tokio::spawn(admin.run(readiness.clone(), metrics::install()?, stop.clone()));
        }
        Ok(Self { readiness, stop })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn idle(config: Config, shutdown: Shutdown) -> Result<(), RoleError> {
    let side = Side::start(&config).await?;
    side.readiness.pass("started");
    shutdown.requested().await;
    side.readiness.fail("draining", "asked to stop");
    Ok(())
}

/// Gateway and worker in one process, on the memory journal.
///
/// # Errors
/// When it cannot start or cannot go on.
pub async fn serve(config: Config, shutdown: Shutdown) -> Result<(), RoleError> {
    idle(config, shutdown).await
}

/// A gateway on Redis.
///
/// # Errors
/// When it cannot start or cannot go on.
pub async fn gateway(config: Config, shutdown: Shutdown) -> Result<(), RoleError> {
    idle(config, shutdown).await
}

/// A worker on Redis.
///
/// # Errors
/// When it cannot start or cannot go on.
pub async fn worker(config: Config, shutdown: Shutdown) -> Result<(), RoleError> {
    idle(config, shutdown).await
}
