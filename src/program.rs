//! The program: it parses its arguments, then runs a role or reads a recorded room. Exit codes: 0 done; 1 failed while running, a
//! replayed verdict deviates, kept failed events are damaged, or a program is none, fails its tests, is refused, or would have
//! decided otherwise; 2 wrong usage or configuration, or a recorded room cannot be resolved again.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{self, Parsed};
use crate::config::{Config, ProcessRole};
use crate::limits::{DRAIN_TIMEOUT, METRICS_UPKEEP_INTERVAL, SESSIONS_MAX};
use crate::replay::command::{self, Reading, Told};
use crate::shutdown::Shutdown;
use crate::supervisor::asking::Asking;
use crate::supervisor::client;
use crate::{child, failed, metrics, roles, runtime, supervisor, telemetry, versions, workbench};
use anyhow::Context as _;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// How long blocking work may go on after the role has ended.
const BLOCKING_REST: Duration = Duration::from_millis(500);

/// The program, from its arguments to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    match cli::parse(std::env::args_os(), &env) {
        Parsed::Run(config) => ended(run(*config, None)),
        Parsed::Child(name) => child(&name),
        Parsed::Ask(asking) => match ask(&asking) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&error);
                ExitCode::from(FAILED)
            }
        },
        Parsed::Up(config, settings) => match up(*config, settings) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                say(&format!("{error:#}"));
                ExitCode::from(FAILED)
            }
        },
        Parsed::Read(reading, config) => match read(&reading, &config) {
            Ok(told) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", told.text));
                ExitCode::from(if told.deviates { FAILED } else { 0 })
            }
            Err(error) => {
                say(&error.to_string());
                ExitCode::from(USAGE)
            }
        },
        Parsed::Work(work) => match workbench::run(&work) {
            Ok(told) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", told.text));
                ExitCode::from(if told.failed { FAILED } else { 0 })
            }
            Err(error) => {
                say(&error);
                ExitCode::from(FAILED)
            }
        },
        Parsed::Manage(managing, config) => match manage(&managing, &config) {
            Ok(versions::Told { text, differs }) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{text}\n"));
                ExitCode::from(if differs { FAILED } else { 0 })
            }
            Err(error) => {
                say(&format!("{error:#}"));
                ExitCode::from(managing.task.fails_with())
            }
        },
        Parsed::Look(looking, config) => match look(&looking, &config) {
            Ok(failed::Told { text, damaged }) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{text}\n"));
                damaged.iter().for_each(|line| say(line));
                ExitCode::from(if damaged.is_empty() { 0 } else { FAILED })
            }
            Err(error) => {
                say(&format!("{error:#}"));
                ExitCode::from(FAILED)
            }
        },
        Parsed::Shown(text) => {
            // The reader may stop after the first lines (`| head`).
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            ExitCode::SUCCESS
        }
        Parsed::Mistakes(lines) => {
            lines.iter().for_each(|line| say(line));
            ExitCode::from(USAGE)
        }
    }
}

fn ended(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// A process under a supervisor. Mistakes in its settings are of no use to try again: see the exit code.
fn child(name: &str) -> ExitCode {
    let mistakes = |lines: &[String]| {
        lines.iter().for_each(|line| say(line));
        ExitCode::from(USAGE)
    };
    let attached = match child::attach() {
        Ok(attached) if attached.name == name => attached,
        Ok(other) => return mistakes(&[format!("this is child {name:?}, and the supervisor means {:?}", other.name)]),
        Err((why, true)) => return mistakes(&[why]),
        Err((why, false)) => return ended(Err(anyhow::Error::msg(why))),
    };
    match attached.settings.config() {
        Ok(config) => match run(config, Some(attached.channel)) {
            Err(error) if error.downcast_ref().is_some_and(roles::RoleError::is_final) => mistakes(&[format!("{error:#}")]),
            other => ended(other),
        },
        Err(error) => mistakes(&error.mistakes),
    }
}

fn ask(asking: &Asking) -> Result<(), String> {
    let runtime = runtime::worker(runtime::Priority::Normal).map_err(|error| format!("the runtime cannot start: {error}"))?;
    runtime.block_on(client::ask(asking))
}

/// Runs gateways and workers until it is asked to stop. Returns the exit code.
fn up(config: Config, settings: child::Settings) -> anyhow::Result<u8> {
    let waiting = telemetry::init_without_waiting(config.log_format, &config.log)?;
    for notice in config.notices() {
        tracing::warn!("{notice}");
    }
    runtime::raise_open_files().context("the limit of open files cannot be read")?;
    let runtime = runtime::worker(runtime::Priority::Normal).context("the runtime cannot start")?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.watch_signals().context("signals cannot be watched")?;
        supervisor::up(config, settings, shutdown.token().clone()).await
    });
    runtime.shutdown_timeout(BLOCKING_REST);
    waiting.finish();
    ended
}

fn say(line: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("lasthit: {line}\n"));
}

fn read(reading: &Reading, config: &Config) -> anyhow::Result<Told> {
    let runtime = runtime::worker(runtime::Priority::Normal).context("the runtime cannot start")?;
    Ok(runtime.block_on(command::run(reading, config))?)
}

fn look(looking: &failed::Looking, config: &Config) -> anyhow::Result<failed::Told> {
    let runtime = runtime::worker(runtime::Priority::Normal).context("the runtime cannot start")?;
    runtime.block_on(failed::run(looking, config)).map_err(anyhow::Error::msg)
}

fn manage(managing: &versions::Managing, config: &Config) -> anyhow::Result<versions::Told> {
    let runtime = runtime::worker(runtime::Priority::Normal).context("the runtime cannot start")?;
    runtime.block_on(versions::run(managing, config)).map_err(anyhow::Error::msg)
}

/// Runs a role. `channel` is to the supervisor, if there is one.
fn run(mut config: Config, channel: Option<OwnedFd>) -> anyhow::Result<()> {
    // A child's stderr is read by its supervisor, which may be stopped.
    let waiting = if channel.is_some() {
        Some(telemetry::init_without_waiting(config.log_format, &config.log)?)
    } else {
        telemetry::init(config.log_format, &config.log)?;
        None
    };
    for notice in config.notices() {
        tracing::warn!("{notice}");
    }
    config.priority.take().map_err(anyhow::Error::msg)?;
    let open_files = runtime::raise_open_files().context("the limit of open files cannot be read")?;
    let runtime = if config.role.listens() {
        let held = runtime::sessions_held(config.sessions_max, open_files).map_err(anyhow::Error::msg)?;
        if config.sessions_max.is_none() && held < SESSIONS_MAX {
            tracing::warn!("this process may open {open_files} files, which allows {held} sessions: raise that limit for more");
        }
        config.sessions_max = Some(held);
        runtime::gateway(held, config.priority)
    } else {
        runtime::worker(config.priority)
    }
    .context("the runtime cannot start")?;
    let ended = runtime.block_on(drive(config, channel));
    runtime.shutdown_timeout(BLOCKING_REST);
    if let Some(waiting) = waiting {
        waiting.finish();
    }
    ended
}

/// Runs the role until it ends by itself, or, after a signal, for at most [`DRAIN_TIMEOUT`].
async fn drive(config: Config, channel: Option<OwnedFd>) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.watch_signals().context("signals cannot be watched")?;
    let above = channel.map(|channel| above(channel, shutdown.clone())).transpose()?;
    let role = async {
        let shutdown = shutdown.clone();
        match config.role {
            ProcessRole::Serve => roles::serve(config, shutdown).await,
            ProcessRole::Gateway => roles::gateway(config, shutdown, above).await,
            ProcessRole::Worker => roles::worker(config, shutdown, above).await,
            // It is no role of one process: see [`up`].
            ProcessRole::Up => Ok(()),
        }
    };
    match shutdown.bound(DRAIN_TIMEOUT, role).await {
        Some(ended) => Ok(ended?),
        None => anyhow::bail!("draining took more than {} s: stopped before it was done", DRAIN_TIMEOUT.as_secs()),
    }
}

/// Listens to the supervisor, which also shows this process's metrics.
fn above(channel: OwnedFd, shutdown: Shutdown) -> anyhow::Result<roles::Above> {
    let metrics = metrics::install()?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
        loop {
            turns.tick().await;
            upkeep.run_upkeep();
        }
    });
    let (link, passed) = child::Link::start(channel, metrics, shutdown).context("the supervisor's channel cannot be used")?;
    Ok(roles::Above { link, passed })
}
