//! Sends load to lasthit, measures it, and audits every answer.
//!
//! Three modules serve the commands: [`load`] is one measurement, from its plan to its audit; [`speak`] is what the generator and
//! a system under test say to each other; [`draw`] makes pages and pictures of figures. `spawn` starts the processes under test.
//!
//! - `run` is [`load::measure`], or with `--ramp` [`load::knee::knee`]; with `--rejoin` it measures twice
//! - `fair`: two rivals, a known time apart; `curve`: the same for several values of `--sweep-guard-us`
//! - `compare`: lasthit and other systems; `part`: the programs that it starts
//! - `stages`: where the time of one event goes, and what it costs
//! - `rules`: what programs and timers cost, against their bars
//! - `chaos`: everything breaks, by a plan; `soak`: memory stays flat

// The wings.
mod draw;
mod load;
mod speak;

// What they share.
mod environment;
mod even;
mod histogram;
mod limits;
mod spawn;

// The commands.
mod chaos;
mod cli;
mod compare;
mod curve;
mod fair;
mod part;
mod rejoin;
mod rules;
mod soak;
mod stages;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use chaos::ChaosConfig;
use cli::{ChaosArgs, Cli, Command, CompareArgs, CurveArgs, EvenArgs, FairArgs, RulesArgs, RunArgs, SoakArgs, StagesArgs};
use compare::{CompareConfig, Comparison};
use curve::{Curve, CurveConfig};
use even::{Even, EvenConfig};
use fair::{FairConfig, Fairness};
use lasthit::types::Incarnation;
use load::knee::{self, Tried};
use load::progress::Progress;
use load::report::Broken;
use load::report::Report;
use load::{Load, Outcome, measure};
use rejoin::{Crowd, Rejoined};
use rules::{CloseConfig, Closed, Measured, RulesConfig};
use soak::SoakConfig;
use spawn::{Fleet, Options, Peers};
use speak::dialect::Dialect;
use stages::{Choice, Stages, StagesConfig};

/// The audit failed.
const FAILED: u8 = 1;
/// There was no run.
const NO_RUN: u8 = 2;
/// Lots of an auction, unless told otherwise.
const TRIALS: u32 = 1_000;
/// The same where the worker is killed at each close.
const KILLED_TRIALS: u32 = 50;
/// What shells report for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // One thread: the generator leaves the other cores to the system under test.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match command {
                Command::Run(args) => run_command(args).await,
                Command::Fair(args) => fair_command(args).await,
                Command::Even(args) => even_command(args).await,
                Command::Curve(args) => curve_command(args).await,
                Command::Compare(args) => compare_command(args).await,
                Command::Stages(args) => stages_command(args).await,
                Command::Rules(args) => rules_command(args).await,
                Command::Part(part) => part::run(part).await.map(|()| ExitCode::SUCCESS),
                Command::Chaos(args) => chaos_command(args).await,
                Command::Soak(args) => soak_command(args).await,
            }
        })
    });
    done.unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::from(if e.is::<Broken>() { FAILED } else { NO_RUN })
    })
}

async fn run_command(args: RunArgs) -> Result<ExitCode> {
    let mut stop = std::pin::pin!(stopped()?);
    let mut fleet = match args.target.spawn {
        None => None,
        Some(spawn) => tokio::select! {
            fleet = Fleet::start(spawn) => Some(fleet?),
            () = &mut stop => return Ok(interrupted(0)),
        },
    };
    let urls = fleet.as_ref().map_or_else(|| args.target.url.clone(), |fleet| fleet.urls().to_vec());
    let done = run_against(&args, urls, stop).await;
    if let Some(mut fleet) = fleet.take() {
        // What the processes said is of interest when they, or what they were asked, failed.
        if done.as_ref().map_or(true, |code| *code == ExitCode::from(FAILED)) {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
    }
    done
}

async fn run_against(args: &RunArgs, urls: Vec<String>, stop: impl Future<Output = ()>) -> Result<ExitCode> {
    let (load, progress) = (args.load(urls), Progress::new(args.quiet));
    if let Some(ramp) = &args.ramp {
        let told = |tried: &Tried| println!("{tried}");
        let Some(knee) = knee::knee(&load, ramp, args.p99, &progress, stop, told).await? else {
            eprintln!("interrupted: no knee");
            return Ok(ExitCode::from(INTERRUPTED));
        };
        println!("{knee}");
        if let Some(path) = &args.json {
            write(path, serde_json::to_string_pretty(&knee)? + "\n")?;
        }
        if let Some(path) = &args.html {
            write(path, draw::page::of_knee(&knee))?;
        }
        return Ok(if knee.knee_rate.is_some() { ExitCode::SUCCESS } else { ExitCode::from(NO_RUN) });
    }
    let mut stop = std::pin::pin!(stop);
    if let Some(sessions) = args.rejoin {
        return rejoin_against(args, load, sessions, &progress, stop).await;
    }
    let report = match report_of(measure(&load, &progress, &mut stop).await?) {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    println!("{report}");
    if let Some(path) = &args.json {
        write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(path) = &args.html {
        write(path, draw::page::of_run(&report))?;
    }
    Ok(match report.failure() {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("{failure}");
            ExitCode::from(FAILED)
        }
    })
}

/// The report, or with what the program ends without one.
fn report_of(outcome: Outcome) -> Result<Box<Report>, ExitCode> {
    match outcome {
        Outcome::Done(report) => Ok(report),
        Outcome::Saturated(saturation) => {
            eprintln!("error: {saturation}");
            Err(ExitCode::from(NO_RUN))
        }
        Outcome::Interrupted(sent) => Err(interrupted(sent)),
    }
}

/// The same load twice: alone, and beside sessions that come again.
async fn rejoin_against(
    args: &RunArgs,
    mut load: Load,
    sessions: u32,
    progress: &Progress,
    mut stop: impl Future<Output = ()> + Unpin,
) -> Result<ExitCode> {
    let tag = Incarnation::random().to_string();
    let crowd = Crowd::of(&load, &tag, sessions)?;
    load.tag = Some(tag);
    let before = match report_of(measure(&load, progress, &mut stop).await?) {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    load.tag = None;
    let crowd = crowd.start();
    let beside = match report_of(measure(&load, progress, &mut stop).await?) {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    let crowd = crowd.join().map_err(|_| anyhow!("the crowd failed"))??;
    let rejoined = Rejoined::of(*before, *beside, crowd);
    println!("{rejoined}");
    if let Some(path) = &args.json {
        write(path, serde_json::to_string_pretty(&rejoined)? + "\n")?;
    }
    Ok(rejoined.failure().map_or(ExitCode::SUCCESS, |failure| {
        eprintln!("{failure}");
        ExitCode::from(FAILED)
    }))
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
    let config = ChaosConfig {
        seed: args.seed.unwrap_or_else(rand::random),
        duration: args.duration,
        durability: args.durability,
        per_minute: args.faults_per_minute,
        only: args.only,
        gateways: args.gateways.into(),
        workers: args.workers.into(),
        players: args.players.into(),
        rooms: args.rooms.into(),
        rate: args.rate,
        rude: args.rude,
        rules: args.rules,
    };
    let Some(report) = chaos::run(&config, stopped()?).await? else {
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

async fn even_command(args: EvenArgs) -> Result<ExitCode> {
    let EvenArgs { spawn, sessions, kill, json } = args;
    let Some(even) = Even::measure(&EvenConfig { spawn, sessions, kill }, &stop_flag()?).await? else {
        eprintln!("interrupted: no figures");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    tell(&even, None, json.as_deref())
}

async fn fair_command(args: FairArgs) -> Result<ExitCode> {
    let stop = stop_flag()?;
    let config = FairConfig {
        gaps_us: args.gaps_us,
        trials: args.trials,
        background: args.background,
        burst: args.burst,
        split_us: args.split_us,
        same: args.same,
        seed: args.seed.unwrap_or_else(rand::random),
        time_max: None,
        metrics: args.metrics,
    };
    let (peers, stack) = match args.peer {
        None => (None, None),
        Some(Some(dir)) => (None, Some(dir)),
        Some(None) => {
            let peers = Peers::open(None).await.context("cannot run the usual stack, which needs Node")?;
            let stack = peers.install("bullmq").await?;
            (Some(peers), Some(stack))
        }
    };
    // One after the other, so that neither is measured beside the other.
    let mut measured = Vec::new();
    if let Some(spawn) = args.spawn {
        measured.push(measure_fleet(Dialect::Lasthit, Fleet::start(spawn).await?, &config, &stop).await?);
    } else if !args.url.is_empty() {
        measured.push(measure_fair(args.dialect, args.url, &config, &stop).await?);
    } else if stack.is_none() {
        bail!("nothing to measure: give --url, --spawn or --peer");
    }
    if let Some(dir) = &stack
        && !stop.load(Ordering::Relaxed)
    {
        measured.push(measure_fleet(Dialect::Peer, Fleet::start_peer(dir).await?, &config, &stop).await?);
    }
    if let Some(peers) = peers {
        peers.remove();
    }
    let Some(measured) = measured.into_iter().collect::<Option<Vec<Fairness>>>() else {
        eprintln!("interrupted: no figures");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if let Some(path) = &args.json {
        write(path, fair::json(&measured)? + "\n")?;
    }
    if let Some(path) = &args.svg {
        write(path, fair::draw(&measured))?;
    }
    Ok(match measured.first().filter(|f| f.is_lasthit).and_then(Fairness::failure) {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("{failure}");
            ExitCode::from(FAILED)
        }
    })
}

/// Measures what was started, and ends it.
async fn measure_fleet(
    dialect: Dialect,
    mut fleet: Fleet,
    config: &FairConfig,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Fairness>> {
    let config = FairConfig { metrics: fleet.metrics().to_vec(), ..config.clone() };
    let measured = measure_fair(dialect, fleet.urls().to_vec(), &config, stop).await;
    // A peer is expected to be unfair; its logs are of interest when there is no measurement.
    let unfair = |m: &Option<Fairness>| m.as_ref().is_some_and(|m| m.failure().is_some());
    if measured.as_ref().map_or(true, |m| dialect.is_lasthit() && unfair(m)) {
        eprintln!("{}", fleet.logs());
    }
    fleet.end().await;
    measured
}

/// Measures, and prints the figures at once. On a thread of its own: the rivals know no runtime.
async fn measure_fair(
    dialect: Dialect,
    urls: Vec<String>,
    config: &FairConfig,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Fairness>> {
    let (config, stop) = (config.clone(), Arc::clone(stop));
    let bar = fair::progress(&config, dialect.name());
    let measured = tokio::task::spawn_blocking(move || fair::measure(dialect, &urls, &config, &bar, &stop)).await??;
    if let Some(fairness) = &measured {
        println!("{fairness}");
    }
    Ok(measured)
}

fn interrupted(sent: u64) -> ExitCode {
    eprintln!("interrupted after {sent} actions: no report");
    ExitCode::from(INTERRUPTED)
}
