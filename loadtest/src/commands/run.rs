//! `loadtest run`.

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use lasthit::types::Incarnation;
use nix::unistd::Pid;

use super::{interrupted, stopped, write};
use crate::cli::RunArgs;
use crate::draw;
use crate::during::During;
use crate::load::knee::{self, Tried};
use crate::load::progress::Progress;
use crate::load::report::Report;
use crate::load::{Load, Outcome, measure, measure_beside};
use crate::rejoin::{Crowd, Rejoined};
use crate::spawn::{Fleet, Spawn};
use crate::supervised::Supervised;
use crate::{FAILED, INTERRUPTED, NO_RUN};

pub(super) async fn run_command(args: RunArgs) -> Result<ExitCode> {
    let mut stop = std::pin::pin!(stopped()?);
    if !args.during.is_empty() && !matches!(args.target.spawn, Some(Spawn::Up { .. })) {
        bail!("--during needs a supervisor of its own: use --spawn up:gateways=2,workers=2");
    }
    let mut fleet = match args.target.spawn {
        None => None,
        Some(spawn) => tokio::select! {
            fleet = Fleet::start(spawn) => Some(fleet?),
            () = &mut stop => return Ok(interrupted(0)),
        },
    };
    let urls = fleet.as_ref().map_or_else(|| args.target.url.clone(), |fleet| fleet.urls().to_vec());
    let supervisor = fleet.as_ref().and_then(|fleet| fleet.supervised().cloned().zip(fleet.supervisor()));
    let done = run_against(&args, urls, supervisor, stop).await;
    if let Some(mut fleet) = fleet.take() {
        // What the processes said is of interest when they, or what they were asked, failed.
        if done.as_ref().map_or(true, |code| *code == ExitCode::from(FAILED)) {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
    }
    done
}

async fn run_against(
    args: &RunArgs,
    urls: Vec<String>,
    supervisor: Option<(Supervised, Pid)>,
    stop: impl Future<Output = ()>,
) -> Result<ExitCode> {
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
    let beside = During::of(&args.during, &load, supervisor);
    let report = match report_of(measure_beside(&load, &progress, &mut stop, beside).await?) {
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
