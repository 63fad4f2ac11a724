//! Load, latency and audit runs against lasthit.
//!
//! `plan` says what is sent when, `client` sends and reads, `record` and `audit` judge, `report` tells; `spawn` starts
//! the processes under test when asked to.

mod audit;
mod cli;
mod client;
mod frame;
mod limits;
mod pace;
mod plan;
mod record;
mod report;
mod run;
mod spawn;
mod tally;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command, RunArgs};
use run::{Ended, RunConfig};
use spawn::Fleet;

/// The audit failed.
const FAILED: u8 = 1;
/// There was no run.
const NO_RUN: u8 = 2;
/// What shells report for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command;
    // One thread: the generator leaves the other cores to the system under test.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run_command(args)));
    done.unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::from(NO_RUN)
    })
}

async fn run_command(args: RunArgs) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // The processes that were started are in groups of their own, so that a terminal that is closed tells only this one.
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let mut stop = std::pin::pin!(stop);

    let mut fleet = match args.target.spawn {
        None => None,
        Some(spawn) => tokio::select! {
            fleet = Fleet::start(spawn) => Some(fleet?),
            () = &mut stop => return Ok(interrupted(0)),
        },
    };
    let config = RunConfig {
        urls: fleet.as_ref().map_or(args.target.url, |fleet| fleet.urls().to_vec()),
        sessions: args.sessions,
        rooms: args.rooms,
        rate: args.rate,
        duration: args.duration,
        drain: args.drain,
        encoding: args.encoding,
    };
    let ended = run::run(&config, stop).await;
    let failed = match &ended {
        Ok(Ended::Done(report)) => report.failure().is_some(),
        Ok(Ended::Interrupted(_)) => false,
        Err(_) => true,
    };
    if let Some(mut fleet) = fleet.take() {
        if failed {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
    }
    let report = match ended? {
        Ended::Done(report) => report,
        Ended::Interrupted(sent) => return Ok(interrupted(sent)),
    };
    println!("{report}");
    if let Some(path) = &args.json {
        run::write_json(&report, path)?;
    }
    Ok(match report.failure() {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("{failure}");
            ExitCode::from(FAILED)
        }
    })
}

fn interrupted(sent: u64) -> ExitCode {
    eprintln!("interrupted after {sent} actions: no report");
    ExitCode::from(INTERRUPTED)
}
