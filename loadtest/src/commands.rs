//! Each command: its arguments become a configuration, what comes of it is printed and written, and the exit code says how it was.

mod fair;
mod run;
mod scale;
mod supervised;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::chaos::{self, ChaosConfig};
use crate::cli::{ChaosArgs, Command, CompareArgs, CurveArgs, HostsArgs, RulesArgs, SoakArgs, StagesArgs};
use crate::compare::{self, CompareConfig, Comparison};
use crate::curve::{self, Curve, CurveConfig};
use crate::hosts::{self, HostsConfig};
use crate::part;
use crate::rules::{CloseConfig, Closed, Measured, RulesConfig};
use crate::soak::{self, SoakConfig};
use crate::spawn::Options;
use crate::stages::{self, Choice, Stages, StagesConfig};
use crate::{FAILED, INTERRUPTED};

/// Lots of an auction, unless told otherwise.
const TRIALS: u32 = 1_000;
/// The same where the worker is killed at each close.
const KILLED_TRIALS: u32 = 50;

/// Does what was asked for.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run_command(args).await,
        Command::Fair(args) => fair::fair_command(args).await,
        Command::Even(args) => supervised::even_command(args).await,
        Command::Door(args) => supervised::door_command(args).await,
        Command::Auto(args) => supervised::auto_command(args).await,
        Command::Curve(args) => curve_command(args).await,
        Command::Compare(args) => compare_command(args).await,
        Command::Stages(args) => stages_command(args).await,
        Command::Scale(args) => scale::scale_command(args).await,
        Command::Rules(args) => rules_command(args).await,
        Command::Part(part) => part::run(part).await.map(|()| ExitCode::SUCCESS),
        Command::Chaos(args) => chaos_command(args).await,
        Command::Hosts(args) => hosts_command(args).await,
        Command::Hold { ahead_ns } => hosts::hold(ahead_ns).map(|()| ExitCode::SUCCESS),
        Command::Soak(args) => soak_command(args).await,
    }
}

/// Ready when somebody asks the process to end.
fn stopped() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // The processes that were started are in groups of their own, so that a terminal that is closed tells only this one.
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Set when somebody asks the process to end.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, told) = (stopped()?, Arc::clone(&stop));
    tokio::spawn(async move {
        stopped.await;
        told.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

async fn curve_command(args: CurveArgs) -> Result<ExitCode> {
    let stop = stop_flag()?;
    let config = CurveConfig {
        guards_us: args.guards_us,
        trials: args.trials,
        time: args.time,
        seed: args.seed.unwrap_or_else(rand::random),
    };
    let Some(curve) = Curve::measure(&config, &stop).await? else {
        eprintln!("interrupted: no curve");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    println!("{curve}");
    if let Some(path) = &args.json {
        write(path, serde_json::to_string_pretty(&curve)? + "\n")?;
    }
    if let Some(path) = &args.svg {
        write(path, curve::draw(&curve))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn compare_command(args: CompareArgs) -> Result<ExitCode> {
    let stop = stopped()?;
    let config = CompareConfig { peer: args.peer, quick: args.quick, only: args.only };
    // What is under way is dropped then, and its processes are killed with it.
    let comparison = tokio::select! {
        comparison = Comparison::measure(&config) => comparison?,
        () = stop => {
            eprintln!("interrupted: no comparison");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    println!("{comparison}");
    if let Some(path) = &args.json {
        write(path, comparison.json()? + "\n")?;
    }
    if let Some(path) = &args.svg {
        write(path, compare::draw(&comparison))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn stages_command(args: StagesArgs) -> Result<ExitCode> {
    let StagesArgs { spawn, rates, sessions, rooms, duration, set, tcp, .. } = args;
    let options = Options { settings: set, tcp, binary: None };
    let config = StagesConfig { spawn, options, rates, sessions, rooms, duration };
    let stop = stopped()?;
    let measured = async {
        if let Some(vary) = &args.vary {
            let choice = Choice::measure(&config, vary, args.rounds).await?;
            println!("{choice}");
            return serde_json::to_string_pretty(&choice).map_err(anyhow::Error::from);
        }
        let stages = Stages::measure(&config).await?;
        println!("{stages}");
        if let Some(path) = &args.svg {
            write(path, stages::draw(&stages))?;
        }
        Ok(serde_json::to_string_pretty(&stages)?)
    };
    // What is under way is dropped when somebody asks for the end, and its processes are killed with it.
    let json = tokio::select! {
        json = measured => json?,
        () = stop => {
            eprintln!("interrupted: no figures");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    if let Some(path) = &args.json {
        write(path, json + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn rules_command(args: RulesArgs) -> Result<ExitCode> {
    let RulesArgs { only, before, rounds, duration, quick, close, apart_us, kill_worker, trials, json } = args;
    if close {
        let trials = trials.unwrap_or(if kill_worker { KILLED_TRIALS } else { TRIALS });
        let Some(closed) = Closed::measure(&CloseConfig { trials, apart_us, kill_worker }, &stop_flag()?).await? else {
            eprintln!("interrupted: no figures");
            return Ok(ExitCode::from(INTERRUPTED));
        };
        return tell(&closed, closed.failure(), json.as_deref());
    }
    let config = RulesConfig { only, before, rounds, duration, quick };
    let stop = stopped()?;
    // What is under way is dropped when somebody asks for the end, and its processes are killed with it.
    let measured = tokio::select! {
        measured = Measured::measure(&config) => measured?,
        () = stop => {
            eprintln!("interrupted: no figures");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    tell(&measured, None, json.as_deref())
}

async fn chaos_command(args: ChaosArgs) -> Result<ExitCode> {
    let (gateways, workers) = if args.hosts.is_some() { (2, 1) } else { (3, 3) };
    let config = ChaosConfig {
        seed: args.seed.unwrap_or_else(rand::random),
        duration: args.duration,
        durability: args.durability,
        layout: args.layout(),
        valkey: args.valkey,
        per_minute: args.faults_per_minute,
        only: args.only,
        gateways: args.gateways.unwrap_or(gateways).into(),
        workers: args.workers.unwrap_or(workers).into(),
        supervised: args.supervised.map(|(gateways, workers)| (gateways.into(), workers.into())),
        hosts: args.hosts.unwrap_or_default().into(),
        players: args.players.into(),
        rooms: args.rooms.into(),
        rate: args.rate,
        rude: args.rude,
        rules: args.rules,
    };
    chaos::check(&config)?;
    if config.hosts > 0 {
        hosts::enter()?;
    }
    let Some(report) = chaos::run(&config, stopped()?).await? else {
        eprintln!("interrupted: no report");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    tell(&report, report.failure(), args.json.as_deref())
}

async fn hosts_command(args: HostsArgs) -> Result<ExitCode> {
    let config = HostsConfig {
        seed: args.seed.unwrap_or_else(rand::random),
        duration: args.duration,
        hosts: args.hosts.into(),
        gateways: args.gateways.into(),
        workers: args.workers.into(),
        players: args.players.into(),
        rooms: args.rooms.into(),
        rate: args.rate,
        races: args.races.into(),
        cluster: args.cluster,
        only: args.only,
    };
    hosts::enter()?;
    let Some(report) = hosts::run(&config, stopped()?).await? else {
        eprintln!("interrupted: no report");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    tell(&report, report.failure(), args.json.as_deref())
}

async fn soak_command(args: SoakArgs) -> Result<ExitCode> {
    let config = SoakConfig {
        rooms: args.rooms,
        duration: args.duration,
        retention: args.retention,
        room_linger: args.room_linger,
        keep_done: args.keep_done,
        keep_failed: args.keep_failed,
        gateways: args.gateways.into(),
        workers: args.workers.into(),
        supervised: args.supervised.map(|(gateways, workers)| (gateways.into(), workers.into())),
    };
    let Some(report) = soak::run(&config, stopped()?).await? else {
        eprintln!("interrupted: no report");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    tell(&report, report.failure(), args.json.as_deref())
}

/// Prints a report, writes it where it is wanted, and says by the exit code whether it is a good one.
fn tell(report: &(impl Display + Serialize), failure: Option<String>, json: Option<&Path>) -> Result<ExitCode> {
    println!("{report}");
    if let Some(path) = json {
        write(path, serde_json::to_string_pretty(report)? + "\n")?;
    }
    Ok(match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("{failure}");
            ExitCode::from(FAILED)
        }
    })
}

fn write(path: &Path, text: String) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

fn interrupted(sent: u64) -> ExitCode {
    eprintln!("interrupted after {sent} actions: no report");
    ExitCode::from(INTERRUPTED)
}
