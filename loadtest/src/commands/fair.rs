//! `loadtest fair`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use super::{stop_flag, write};
use crate::cli::FairArgs;
use crate::fair::{self, FairConfig, Fairness};
use crate::spawn::{Fleet, Peers};
use crate::speak::dialect::Dialect;
use crate::{FAILED, INTERRUPTED};

pub(super) async fn fair_command(args: FairArgs) -> Result<ExitCode> {
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
        shares_address: false,
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
    let shares_address = fleet.supervised().is_some();
    let config = FairConfig { metrics: fleet.metrics().to_vec(), shares_address, ..config.clone() };
    let mut urls = fleet.urls().to_vec();
    if shares_address {
        // One address leads to all gateways.
        urls.extend_from_within(..);
    }
    let measured = measure_fair(dialect, urls, &config, stop).await;
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
