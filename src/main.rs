//! The `lasthit` program: parses, sets up telemetry, runs a role. Exit codes: 0 done, 1 failed while running, 2 usage or
//! configuration.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use lasthit::cli::{self, Parsed};
use lasthit::config::{Config, ProcessRole};
use lasthit::limits::DRAIN_TIMEOUT;
use lasthit::shutdown::Shutdown;
use lasthit::{roles, runtime, telemetry};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// What blocking work may take after the role has ended.
const BLOCKING_REST: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    match cli::parse(std::env::args_os(), &env) {
        Parsed::Run(config) => match run(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("{error:#}"));
                ExitCode::from(FAILED)
            }
        },
        Parsed::Shown(text) => {
            // Whoever reads may stop after the first lines (`| head`).
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            ExitCode::SUCCESS
        }
        Parsed::Mistakes(lines) => {
            lines.iter().for_each(|line| say(line));
            ExitCode::from(USAGE)
        }
    }
}

fn say(line: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("lasthit: {line}\n"));
}

fn run(config: Config) -> anyhow::Result<()> {
    telemetry::init(config.log_format, &config.log)?;
    for notice in config.notices() {
        tracing::warn!("{notice}");
    }
    let runtime = match config.role {
        ProcessRole::Serve | ProcessRole::Gateway => runtime::gateway(config.sessions_max),
        ProcessRole::Worker => runtime::worker(),
    }
    .context("the runtime cannot start")?;
    let ended = runtime.block_on(drive(config));
    runtime.shutdown_timeout(BLOCKING_REST);
    ended
}

/// Runs the role until it ends by itself, or, after a signal, for at most [`DRAIN_TIMEOUT`].
async fn drive(config: Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.watch_signals().context("signals cannot be watched")?;
    let role = async {
        let shutdown = shutdown.clone();
        match config.role {
            ProcessRole::Serve => roles::serve(config, shutdown).await,
            ProcessRole::Gateway => roles::gateway(config, shutdown).await,
            ProcessRole::Worker => roles::worker(config, shutdown).await,
        }
    };
    match shutdown.bound(DRAIN_TIMEOUT, role).await {
        Some(ended) => Ok(ended?),
        None => anyhow::bail!("draining took more than {} s: ended without it", DRAIN_TIMEOUT.as_secs()),
    }
}
