//! Measures the guard of a gateway's sweep: runs the fairness harness for several guards, in several situations, on one gateway
//! and on two.
//!
//! If the guard is too short, stamps are clamped: a gateway promised a moment, and bytes that the kernel had stamped before it
//! became readable only afterwards. If it is too long, each event waits for it.

mod picture;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lasthit::internals::limits::SWEEP_GUARD_MAX;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio::time::Instant;

use crate::fair::{self, FairConfig, Fairness, GapScore};
use crate::limits::{
    CURVE_BURST, CURVE_GAPS_US, CURVE_ROUNDS, CURVE_SPLIT_US, CURVE_TIME_MAX, CURVE_TIME_MIN, GUARDS_MAX, TRIALS_MAX,
};
use crate::load::record::Times;
use crate::spawn::{Fleet, Options, Spawn};
use crate::speak::dialect::Dialect;
pub(crate) use picture::draw;

/// What to measure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CurveConfig {
    /// The guards, in microseconds.
    pub(crate) guards_us: Vec<u64>,
    /// Races for each guard and scenario, at most.
    pub(crate) trials: u32,
    /// How long all of it may take.
    #[serde(skip)]
    pub(crate) time: Duration,
    /// Of all that is drawn.
    pub(crate) seed: u64,
}

/// A situation that a gateway is measured in.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    background: u32,
    split_us: u64,
    burst: u32,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "idle", background: 0, split_us: 0, burst: 0 },
    Scenario { name: "1,000/s", background: 1_000, split_us: 0, burst: 0 },
    Scenario { name: "10,000/s", background: 10_000, split_us: 0, burst: 0 },
    Scenario { name: "1,000/s, hits in two segments", background: 1_000, split_us: CURVE_SPLIT_US, burst: 0 },
    Scenario { name: "1,000/s, three messages behind each hit", background: 1_000, split_us: 0, burst: CURVE_BURST },
];

/// One guard in one scenario; its serialized form is in the JSON report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Point {
    pub(crate) guard_us: u64,
    /// 1: both rivals on one gateway.
    pub(crate) gateways: u8,
    pub(crate) scenario: &'static str,
    /// Races whose gap the sender vouches for: what the following counts are of.
    pub(crate) races: u64,
    /// Races that it does not vouch for.
    pub(crate) dropped: u64,
    /// Races that the first sender did not win, whatever the flags.
    pub(crate) wrong: u64,
    /// Of them, those in which no verdict was flagged.
    pub(crate) wrong_unflagged: u64,
    /// Races with a clamped stamp.
    pub(crate) clamped: u64,
    pub(crate) photo_finish: u64,
    /// Of a hundred races.
    pub(crate) wrong_pct: f64,
    /// Of a hundred races.
    pub(crate) clamped_pct: f64,
    /// From the second rival's send to its verdict.
    pub(crate) latency_p50_us: f64,
    pub(crate) latency_p99_us: f64,
    /// Claims a second that others really sent, in the round in which they were fewest.
    pub(crate) background_per_s: f64,
    #[serde(skip)]
    latency: Times,
}

/// What was measured; its serialized form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Curve {
    pub(crate) setting: CurveConfig,
    /// The machine's load average (1 min): the lowest and the highest that was seen.
    pub(crate) load_average: [f64; 2],
    pub(crate) took_s: u64,
    /// By gateways, scenario and guard.
    pub(crate) points: Vec<Point>,
}

impl CurveConfig {
    fn check(&self) -> Result<()> {
        let guards = &self.guards_us;
        ensure!((1..=GUARDS_MAX).contains(&guards.len()), "{} guards: use 1 to {GUARDS_MAX}", guards.len());
        ensure!(guards.is_sorted_by(|a, b| a < b), "guards {guards:?} are not in rising order: sort them, each once");
        let most = SWEEP_GUARD_MAX.as_micros();
        for guard in guards {
            ensure!(u128::from(*guard) <= most, "guard {guard} µs: use 0 to {most}");
        }
        ensure!((1..=TRIALS_MAX).contains(&self.trials), "trials {}: use 1 to {TRIALS_MAX}", self.trials);
        let time = self.time;
        ensure!(
            (CURVE_TIME_MIN..=CURVE_TIME_MAX).contains(&time),
            "time {time:?}: use 10s to {} m",
            CURVE_TIME_MAX.as_secs() / 60
        );
        Ok(())
    }

    /// Races for each gap in one round.
    fn trials_per_gap(&self) -> u32 {
        self.trials.div_ceil(CURVE_ROUNDS * CURVE_GAPS_US.len() as u32)
    }
}

impl Point {
    fn new(guard_us: u64, gateways: u8, scenario: &'static str) -> Self {
        Self {
            guard_us,
            gateways,
            scenario,
            races: 0,
            dropped: 0,
            wrong: 0,
            wrong_unflagged: 0,
            clamped: 0,
            photo_finish: 0,
            wrong_pct: 0.0,
            clamped_pct: 0.0,
            latency_p50_us: 0.0,
            latency_p99_us: 0.0,
            background_per_s: 0.0,
            latency: Times::new(),
        }
    }

    /// One more round.
    fn add(&mut self, gaps: &[GapScore], latency: &Times, background_per_s: f64) {
        let first = self.races + self.dropped == 0;
        self.background_per_s = if first { background_per_s } else { self.background_per_s.min(background_per_s) };
        for gap in gaps {
            self.races += gap.trials - gap.dropped;
            self.dropped += gap.dropped;
            self.wrong += gap.wrong;
            self.wrong_unflagged += gap.wrong_unflagged;
            self.clamped += gap.clamped;
            self.photo_finish += gap.photo_finish;
        }
        let pct = |count: u64| (10_000.0 * count as f64 / self.races.max(1) as f64).round() / 100.0;
        (self.wrong_pct, self.clamped_pct) = (pct(self.wrong), pct(self.clamped));
        self.latency.add(latency);
        (self.latency_p50_us, self.latency_p99_us) = (self.latency.quantile_us(0.5), self.latency.quantile_us(0.99));
    }
}

impl Curve {
    /// Measures all points, in rounds; None when `stop` was set before.
    ///
    /// # Errors
    /// When the setting is out of bounds, or the processes cannot be started or measured.
    pub(crate) async fn measure(config: &CurveConfig, stop: &Arc<AtomicBool>) -> Result<Option<Self>> {
        config.check()?;
        let started = Instant::now();
        // Its first fleet may have to be built.
        let mut began = None;
        let mut rng = StdRng::seed_from_u64(config.seed);
        let mut curve = Self { setting: config.clone(), load_average: [f64::MAX, 0.0], took_s: 0, points: Vec::new() };
        for gateways in [1, 2] {
            for scenario in &SCENARIOS {
                curve.points.extend(config.guards_us.iter().map(|guard| Point::new(*guard, gateways, scenario.name)));
            }
        }
        let mut left = curve.points.len() as u32 * CURVE_ROUNDS;
        let all = left;
        let mut guards = config.guards_us.clone();
        for _ in 0..CURVE_ROUNDS {
            guards.shuffle(&mut rng);
            for &guard_us in &guards {
                let settings = vec![("sweep-guard-us".to_owned(), guard_us.to_string())];
                let options = Options { settings, ..Options::default() };
                let mut fleet = Fleet::start_with(Spawn::Redis { gateways: 2, workers: 1, delay: None }, &options).await?;
                let began = *began.get_or_insert_with(Instant::now);
                let mut failed = None;
                for point in curve.points.iter_mut().filter(|point| point.guard_us == guard_us) {
                    // What is not used of a share goes to those behind it; a part of each is for starting and joining.
                    let share = config.time.saturating_sub(began.elapsed()) / left * 3 / 4;
                    let what = format!("guard {guard_us} µs, {}: {} of {all}", point.title(), all - left + 1);
                    left -= 1;
                    let fair = point.setting(config, share, rng.random());
                    match races(&fleet, fair, &what, stop).await {
                        Ok(Some(fairness)) => {
                            point.add(&fairness.gaps, &fairness.latency, fairness.background_per_s);
                            for load in fairness.load_average {
                                curve.load_average = [curve.load_average[0].min(load), curve.load_average[1].max(load)];
                            }
                        }
                        Ok(None) => break,
                        Err(e) => {
                            failed = Some(e.context(what));
                            break;
                        }
                    }
                }
                if failed.is_some() {
                    eprintln!("{}", fleet.logs());
                }
                fleet.end().await;
                if let Some(e) = failed {
                    return Err(e);
                }
                if stop.load(Relaxed) {
                    return Ok(None);
                }
            }
        }
        curve.took_s = began.unwrap_or(started).elapsed().as_secs();
        Ok(Some(curve))
    }
}

impl Point {
    fn title(&self) -> String {
        format!("{}, {}", if self.gateways == 1 { "one gateway" } else { "two gateways" }, self.scenario)
    }

    fn setting(&self, config: &CurveConfig, time: Duration, seed: u64) -> FairConfig {
        let scenario = SCENARIOS.iter().find(|s| s.name == self.scenario).unwrap_or(&SCENARIOS[0]);
        FairConfig {
            gaps_us: CURVE_GAPS_US.to_vec(),
            trials: config.trials_per_gap(),
            background: scenario.background,
            burst: scenario.burst,
            split_us: scenario.split_us,
            same: self.gateways == 1,
            seed,
            time_max: Some(time),
            shares_address: false,
            metrics: Vec::new(),
        }
    }
}

/// On a thread of its own: the rivals know no runtime.
async fn races(fleet: &Fleet, config: FairConfig, what: &str, stop: &Arc<AtomicBool>) -> Result<Option<Fairness>> {
    let (urls, stop, bar) = (fleet.urls().to_vec(), Arc::clone(stop), fair::progress(&config, what));
    let racing = tokio::task::spawn_blocking(move || fair::measure(Dialect::Lasthit, &urls, &config, &bar, &stop));
    racing.await.context("the rivals' thread ended")?
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let races: u64 = self.points.iter().map(|point| point.races).sum();
        write!(
            f,
            "{races} races, gaps {CURVE_GAPS_US:?} µs, seed {}, {} s, load average {} to {}",
            self.setting.seed, self.took_s, self.load_average[0], self.load_average[1]
        )?;
        let mut title = String::new();
        for p in &self.points {
            if p.title() != title {
                title = p.title();
                write!(
                    f,
                    "\n\n{title}\n guard µs   races dropped   wrong unflagged clamped   photo wrong+clamped %  verdict p50 µs  p99 µs  background/s"
                )?;
            }
            let Point { guard_us, races, dropped, wrong, wrong_unflagged, clamped, photo_finish, .. } = p;
            write!(
                f,
                "\n{guard_us:9}{races:8}{dropped:8}{wrong:8}{wrong_unflagged:10}{clamped:8}{photo_finish:8}{:16.2}{:13.0}{:8.0}{:14.0}",
                p.wrong_pct + p.clamped_pct,
                p.latency_p50_us,
                p.latency_p99_us,
                p.background_per_s
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
