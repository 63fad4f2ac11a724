//! A role in a process: its log, its limits, its runtime and its end. A supervisor may be above it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context as _;

use crate::child::link::Link;
use crate::config::{Config, ProcessRole};
use crate::limits::{DRAIN_TIMEOUT, METRICS_UPKEEP_INTERVAL, SESSIONS_MAX};
use crate::roles::{self, Above, RoleError};
use crate::rules::RulesBook;
use crate::shutdown::Shutdown;
use crate::{metrics, runtime, telemetry};

/// How long blocking work may go on after the role has ended.
pub(crate) const BLOCKING_REST: Duration = Duration::from_millis(500);

/// A mistake in the settings that shows only where they are used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mistake(String);

/// Whether it is of no use to start again before somebody has changed the settings.
pub(crate) fn is_final(error: &anyhow::Error) -> bool {
    error.is::<Mistake>() || error.downcast_ref().is_some_and(RoleError::is_final)
}

/// What a child has of its supervisor: the channel, and the rules that its rooms are decided by.
pub(crate) struct Under {
    pub(crate) channel: OwnedFd,
    pub(crate) rules: RulesBook,
}

/// Runs a role to its end.
pub(crate) fn run(mut config: Config, under: Option<Under>) -> anyhow::Result<()> {
    // A child's stderr is read by its supervisor, which may be stopped.
    let waiting = if under.is_some() {
        Some(telemetry::init_without_waiting(config.log_format, &config.log)?)
    } else {
        telemetry::init(config.log_format, &config.log)?;
        None
    };
    for notice in config.notices() {
        tracing::warn!("{notice}");
    }
    config.priority.take().map_err(Mistake)?;
    let open_files = runtime::raise_open_files().context("the limit of open files cannot be read")?;
    let runtime = if config.role.listens() {
        let held = runtime::sessions_held(config.sessions_max, open_files).map_err(Mistake)?;
        if config.sessions_max.is_none() && held < SESSIONS_MAX {
            tracing::warn!("this process may open {open_files} files, which allows {held} sessions: raise that limit for more");
        }
        config.sessions_max = Some(held);
        runtime::gateway(held, config.priority)
    } else {
        runtime::worker(config.priority)
    }
    .context("the runtime cannot start")?;
    let ended = runtime.block_on(drive(config, under));
    runtime.shutdown_timeout(BLOCKING_REST);
    if let Some(waiting) = waiting {
        waiting.finish();
    }
    ended
}

/// Runs the role until it ends by itself, or, after a signal, for at most [`DRAIN_TIMEOUT`].
async fn drive(config: Config, under: Option<Under>) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.watch_signals().context("signals cannot be watched")?;
    let above = under.map(|under| above(under, &shutdown)).transpose()?;
    let role = async {
        let shutdown = shutdown.clone();
        match config.role {
            ProcessRole::Serve => roles::serve(config, shutdown).await,
            ProcessRole::Gateway => roles::gateway(config, shutdown, above).await,
            ProcessRole::Worker => roles::worker(config, shutdown, above).await,
            // It is no role of one process: the supervisor runs it.
            ProcessRole::Up => Ok(()),
        }
    };
    match shutdown.bound(DRAIN_TIMEOUT, role).await {
        Some(ended) => Ok(ended?),
        None => anyhow::bail!("draining took more than {} s: stopped before it was done", DRAIN_TIMEOUT.as_secs()),
    }
}

/// Listens to the supervisor, which also shows this process's metrics.
pub(crate) fn above(under: Under, shutdown: &Shutdown) -> anyhow::Result<Above> {
    let metrics = metrics::install_or_none()?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
        loop {
            turns.tick().await;
            upkeep.run_upkeep();
        }
    });
    let started = Link::start(under.channel, metrics, shutdown.clone());
    let (link, passed) = started.context("the supervisor's channel cannot be used")?;
    Ok(Above { link, passed, rules: under.rules })
}
