//! The program: it parses its arguments, then runs a role or reads a recorded room. Exit codes: 0 done; 1 failed while running, a
//! replayed verdict deviates, kept failed events are damaged, or a program is none, fails its tests, is refused, or would have
//! decided otherwise; 2 wrong usage or configuration, or a recorded room cannot be resolved again.

use std::process::ExitCode;

use crate::cli::{self, Parsed};
use crate::config::Config;
use crate::process::{self, BLOCKING_REST};
use crate::replay::command::{self, Reading, Told};
use crate::shutdown::Shutdown;
use crate::supervisor::asking::Asking;
use crate::supervisor::{Begin, Ended, client, takeover};
use crate::{child, failed, hosts, runtime, supervisor, telemetry, versions, workbench};
use anyhow::Context as _;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// The program, from its arguments to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    // The image before this one has parsed its arguments, and the file that they name may have changed.
    if std::env::args_os().nth(1).is_some_and(|command| command == "up")
        && let Some(begin) = Begin::handed_over()
    {
        return up_ended(begin.map_err(anyhow::Error::msg).and_then(up));
    }
    match cli::parse(std::env::args_os(), &env) {
        Parsed::Run(config) => ended(process::run(*config, None)),
        Parsed::Child(name) => child(&name),
        Parsed::Ask(asking) => match ask(&asking) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&error);
                ExitCode::from(FAILED)
            }
        },
        Parsed::Up(config, settings) => up_ended(up(Begin::Anew(config, settings))),
        Parsed::Takeover => match takeover::answer() {
            Ok(line) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{line}\n"));
                ExitCode::SUCCESS
            }
            Err(error) => {
                say(&error);
                ExitCode::from(USAGE)
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
        Parsed::Place(placing, config) => match place(&placing, &config) {
            Ok(text) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{text}\n"));
                ExitCode::SUCCESS
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
    up_ended(ended.map(|()| 0))
}

fn up_ended(ended: anyhow::Result<u8>) -> ExitCode {
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// A process under a supervisor.
fn child(name: &str) -> ExitCode {
    match child::attach() {
        Ok(Some(child)) if child.name() == name => {
            let rules = child.rules();
            child.run(rules)
        }
        Ok(Some(other)) => {
            say(&format!("this is child {name:?}, and the supervisor means {:?}", other.name()));
            ExitCode::from(USAGE)
        }
        Ok(None) => {
            say("stdin is no supervisor's channel: children are started by `lasthit up`");
            ExitCode::from(USAGE)
        }
        Err(error) => {
            say(&error.to_string());
            error.exit_code()
        }
    }
}

fn ask(asking: &Asking) -> Result<(), String> {
    let runtime = runtime::worker(runtime::Priority::Normal).map_err(|error| format!("the runtime cannot start: {error}"))?;
    runtime.block_on(client::ask(asking))
}

/// Runs gateways and workers until it is asked to stop, or executes another image of itself. Returns the exit code.
fn up(mut begin: Begin) -> anyhow::Result<u8> {
    // Threads that start before they are watched never get any.
    runtime::hold_signals()?;
    child::take_name();
    let (format, filter) = begin.log().map_err(anyhow::Error::msg)?;
    let waiting = telemetry::init_without_waiting(format, &filter)?;
    if let Begin::Anew(config, _) = &begin {
        for notice in config.notices() {
            tracing::warn!("{notice}");
        }
    }
    runtime::raise_open_files().context("the limit of open files cannot be read")?;
    loop {
        let runtime = runtime::worker(runtime::Priority::Normal).context("the runtime cannot start")?;
        let ended = runtime.block_on(async {
            let shutdown = Shutdown::new();
            shutdown.watch_signals().context("signals cannot be watched")?;
            supervisor::up(begin, None, shutdown.token().clone()).await
        });
        runtime.shutdown_timeout(BLOCKING_REST);
        waiting.finish();
        match ended? {
            Ended::Code(code) => return Ok(code),
            Ended::Parked(parked) => begin = Begin::Resumed(Box::new(parked.execute())),
        }
    }
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

fn place(placing: &hosts::Placing, config: &Config) -> anyhow::Result<String> {
    let runtime = runtime::worker(runtime::Priority::Normal).context("the runtime cannot start")?;
    runtime.block_on(hosts::run(placing, config)).map_err(anyhow::Error::msg)
}

fn manage(managing: &versions::Managing, config: &Config) -> anyhow::Result<versions::Told> {
    let runtime = runtime::worker(runtime::Priority::Normal).context("the runtime cannot start")?;
    runtime.block_on(versions::run(managing, config)).map_err(anyhow::Error::msg)
}
