//! Where the time of one event goes, and what it costs, at light and at full load. The figures come from the processes' usual
//! metrics, from the counters of Redis and the kernel, and from the generator.
//!
//! `watch` looks at the processes, `breakdown` makes stages of the metrics, `counts` makes costs of the counters, `choice` runs
//! the same work under several settings in turns; `table` and `picture` show the result.

mod breakdown;
mod choice;
mod counts;
mod picture;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::compare::generator::{DRAIN, LATENESS_MAX, figures};
use crate::environment::{Environment, load_average};
use crate::load::report::Report;
use crate::load::{Load, Pace, allow_files};
use crate::spawn::{Fleet, Options, Spawn};
use crate::speak::dialect::Dialect;
use breakdown::{Breakdown, Typical};
pub(crate) use choice::{Choice, Vary, median};
use counts::Counts;
pub(crate) use picture::draw;
use watch::Seen;

/// How long sessions may take to join before the first event comes.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked whether it came.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// Before what is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// What is sent beyond the time that is measured, so that the load does not end before it. The generator's own figures cover
/// it, too: short beside what is measured.
const MORE: Duration = Duration::from_millis(250);

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct StagesConfig {
    pub(crate) spawn: Spawn,
    pub(crate) options: Options,
    /// Events a second; each is measured by itself.
    pub(crate) rates: Vec<u32>,
    pub(crate) sessions: u32,
    pub(crate) rooms: u32,
    /// How long each is measured.
    pub(crate) duration: Duration,
}

/// All rates.
#[derive(Debug, Serialize)]
pub(crate) struct Stages {
    setting: Setting,
    rates: Vec<Rate>,
    /// Of the last minute, before and after.
    load_average: [f64; 2],
    environment: Environment,
}

#[derive(Debug, Serialize)]
struct Setting {
    sessions: u32,
    rooms: u32,
    gateways: usize,
    settings: Vec<(String, String)>,
    tcp: bool,
    duration_s: f64,
}

/// One rate.
#[derive(Debug, Serialize)]
struct Rate {
    events_per_s: u32,
    #[serde(flatten)]
    breakdown: Breakdown,
    counts: Counts,
    /// Median and p99 from the intended send to the verdict, in microseconds.
    latency_us: [f64; 2],
}

impl Stages {
    /// Measures one rate after the other, each on processes of its own; what was started has ended when it returns.
    pub(crate) async fn measure(config: &StagesConfig) -> Result<Self> {
        ensure!(matches!(config.spawn, Spawn::Redis { .. }), "stages looks at one Redis: use --spawn gateways=1,workers=1");
        ensure!(!config.duration.is_zero() && !config.rates.is_empty(), "nothing to measure: give --duration and --rates");
        allow_files(u64::from(config.sessions) + 256)?;
        let before = load_average();
        let (mut rates, mut gateways) = (Vec::new(), 0);
        for rate in &config.rates {
            eprintln!("{rate}/s");
            let mut fleet = Fleet::start_with(config.spawn, &config.options).await?;
            gateways = fleet.urls().len();
            let measured = Rate::measure(config, &fleet, *rate).await.with_context(|| format!("{rate}/s"));
            if measured.is_err() {
                eprintln!("{}", fleet.logs());
            }
            fleet.end().await;
            rates.push(measured?);
        }
        let StagesConfig { sessions, rooms, duration, .. } = *config;
        let Options { settings, tcp, .. } = config.options.clone();
        Ok(Self {
            setting: Setting { sessions, rooms, gateways, settings, tcp, duration_s: duration.as_secs_f64() },
            rates,
            load_average: [before, load_average()],
            environment: Environment::read(),
        })
    }
}

impl Rate {
    /// In two runs: what watches closely slows down what it watches.
    async fn measure(config: &StagesConfig, fleet: &Fleet, rate: u32) -> Result<Self> {
        let ((before, after), report) = under_load(config, fleet, rate, config.duration, async || {
            let before = Seen::look(fleet).await?;
            sleep(config.duration).await;
            Ok((before, Seen::look(fleet).await?))
        })
        .await?;
        let closely = config.duration / 2;
        let ((calls, scripts, monitored), _) = under_load(config, fleet, rate, closely * 2, async || {
            let calls = watch::system_calls(fleet, closely).await?;
            let scripts = watch::scripts(fleet, closely / 2).await?;
            Ok((calls, scripts, watch::monitored(fleet, closely / 2).await?))
        })
        .await?;
        let seen = after.since(&before);
        let service = Typical { mean_us: report.service_us.mean, median_us: report.service_us.p50 };
        let [p50, p99] = [report.latency_us.p50, report.latency_us.p99];
        Ok(Self {
            events_per_s: rate,
            breakdown: Breakdown::of(&seen, &scripts, service)?,
            counts: Counts::of(&seen, &calls, &monitored)?,
            latency_us: [p50, p99],
        })
    }
}

/// Sends for about so long, and looks meanwhile, once the load is steady.
async fn under_load<T>(
    config: &StagesConfig,
    fleet: &Fleet,
    rate: u32,
    duration: Duration,
    look: impl AsyncFnOnce() -> Result<T>,
) -> Result<(T, Report)> {
    let usual = Load::new(Dialect::Lasthit, fleet.urls().to_vec(), Pace::Open { rate });
    let load = Load {
        sessions: config.sessions,
        rooms: config.rooms,
        warm_up: WARM_UP,
        duration: duration + MORE,
        drain: DRAIN,
        lateness_max: LATENESS_MAX,
        ..usual
    };
    let events = fleet.data_events().await?;
    let watched = async {
        let deadline = Instant::now() + FIRST_EVENT_TIMEOUT;
        while fleet.data_events().await.unwrap_or(events) == events {
            ensure!(Instant::now() < deadline, "no event within {FIRST_EVENT_TIMEOUT:?}");
            sleep(ASK_INTERVAL).await;
        }
        sleep(WARM_UP).await;
        look().await
    };
    tokio::try_join!(watched, figures(&load))
}
