//! Whether an auction closes at its moment: bids through two gateways just before the close and just after it.
//!
//! `hall` has the sessions, which send by a clock of their own, `judge` compares what was decided with when it was sent.

mod hall;
mod judge;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use lasthit::internals::clock::monotonic_ns;
use rand::Rng;
use serde::Serialize;
use tokio::time::sleep;

use crate::chaos::Durability;
use crate::chaos::fleet::Fleet;
use crate::environment::{Environment, load_average};
use crate::limits::CLOSE_TRIALS_MAX;
use hall::{Hall, Lot};
use judge::Tally;

/// The program.
const AUCTION: &str = include_str!("../../../examples/rules/auction.js");
/// Lots that are open at the same time.
const LOTS: u32 = 25;
/// Lots of one room.
const ROOM_LOTS: u32 = 100;
/// So many times more lots than wanted are tried, where the sender was interrupted.
const TRIED_MAX: u32 = 3;
/// A killed worker is killed within this of the close, before or after it.
const KILL_WITHIN: Duration = Duration::from_millis(3);
/// How long it is gone.
const GONE: Duration = Duration::from_millis(200);

/// What to try.
#[derive(Debug, Clone)]
pub(crate) struct CloseConfig {
    /// Lots whose bids were sent at their moments.
    pub(crate) trials: u32,
    /// They are sent so long before and after the close, in microseconds.
    pub(crate) apart_us: u32,
    /// The only worker is killed at each close, and started again.
    pub(crate) kill_worker: bool,
}

/// What came of it; its serialized form is what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Closed {
    passed: bool,
    apart_us: u32,
    /// How often the worker was killed.
    kills: u32,
    #[serde(flatten)]
    tally: Tally,
    /// Whether the thread that sends ran before all usual ones.
    realtime: bool,
    /// Of the last minute, before and after.
    load_average: [f64; 2],
    environment: Environment,
}

impl Closed {
    /// Opens lots and bids until enough were bid for at their moments. None when somebody asked for the end.
    pub(crate) async fn measure(config: &CloseConfig, stop: &Arc<AtomicBool>) -> Result<Option<Self>> {
        ensure!((1..=CLOSE_TRIALS_MAX).contains(&config.trials), "trials {}: use 1 to {CLOSE_TRIALS_MAX}", config.trials);
        let before = load_average();
        let dir = tempfile::Builder::new().prefix("loadtest-rules-").tempdir().context("no directory for the program")?;
        let file = dir.path().join("auction.js");
        std::fs::write(&file, AUCTION).context("the program cannot be written")?;
        let rules = file.display().to_string();
        let fleet = Fleet::start(Durability::Redis, (2, 1), &["--rules", &rules]).await?;
        let measured = all(config, &fleet, stop).await;
        if measured.as_ref().map_or(true, |done| done.as_ref().is_some_and(|done| done.tally.failure().is_some())) {
            eprintln!("{}", fleet.logs().await);
        }
        fleet.end().await;
        let Some(Done { tally, realtime, kills }) = measured? else { return Ok(None) };
        Ok(Some(Self {
            passed: tally.failure().is_none(),
            apart_us: config.apart_us,
            kills,
            tally,
            realtime,
            load_average: [before, load_average()],
            environment: Environment::read(),
        }))
    }

    /// What was wrong, in one line; None when every lot closed once, at its moment.
    pub(crate) fn failure(&self) -> Option<String> {
        self.tally.failure()
    }
}

/// What is known in the end.
struct Done {
    tally: Tally,
    realtime: bool,
    kills: u32,
}

async fn all(config: &CloseConfig, fleet: &Arc<Fleet>, stop: &AtomicBool) -> Result<Option<Done>> {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(u64::from(config.trials)).with_style(style).with_message("lots");
    let lots = if config.kill_worker { 1 } else { LOTS.min(config.trials) };
    let (mut done, mut hall) = (Done { tally: Tally::default(), realtime: true, kills: 0 }, None);
    for batch in 0..config.trials.div_ceil(lots) * TRIED_MAX {
        if done.tally.vouched >= u64::from(config.trials) {
            break;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let room = batch * lots / ROOM_LOTS;
        let next = hall.take().filter(|hall: &Hall| hall.room == room);
        let urls = fleet.urls().to_vec();
        let opened = tokio::task::spawn_blocking(move || {
            let mut hall = next.map_or_else(|| Hall::enter(&urls, room, lots), Ok)?;
            let lots = hall.open(batch * lots, lots)?;
            anyhow::Ok((hall, lots))
        });
        let (mut there, opened) = opened.await??;
        let last_ns = opened.last().map_or(0, |lot| lot.closes_ns);
        let apart = Duration::from_micros(u64::from(config.apart_us));
        let bidding = tokio::task::spawn_blocking(move || {
            let (realtime, lots) = there.bid(opened, apart)?;
            anyhow::Ok((there, realtime, lots))
        });
        if config.kill_worker {
            kill_at(fleet, last_ns).await?;
            done.kills += 1;
        }
        let (mut there, can_sleep, bid) = bidding.await??;
        let (there, heard) = tokio::task::spawn_blocking(move || {
            let heard: Vec<Lot> = there.hear(bid)?;
            anyhow::Ok((there, heard))
        })
        .await??;
        heard.iter().for_each(|lot| done.tally.lot(lot));
        done.realtime &= can_sleep;
        hall = Some(there);
        bar.set_position(done.tally.vouched);
    }
    bar.finish_and_clear();
    Ok(Some(done))
}

/// Kills the worker about then, and starts it again.
async fn kill_at(fleet: &Fleet, at_ns: u64) -> Result<()> {
    let within = u64::try_from(KILL_WITHIN.as_nanos()).unwrap_or(0);
    let at_ns = at_ns - within + rand::rng().random_range(0..=2 * within);
    sleep(Duration::from_nanos(at_ns.saturating_sub(monotonic_ns()))).await;
    fleet.kill_worker(0, GONE).await
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bids through two gateways {} µs before and after the close", self.apart_us)?;
        if self.kills > 0 {
            writeln!(f, "worker   killed {} times, at a close each", self.kills)?;
        }
        writeln!(f, "{}", self.tally)?;
        let [before, after] = self.load_average;
        write!(f, "load average {before:.1} before, {after:.1} after")
    }
}
