//! What a deployment costs as it grows: the same work on clusters of several sizes and on several hosts, in turns. Then a model of that cost,
//! what it says of each run that it has not seen, and of deployments that are larger than this machine.
//!
//! `fleet` starts what is measured, `look` reads its counters, `model` and `squares` are pure: what the runs have in common. `table` and
//! `picture` show the result; what was measured and what is predicted stand apart in both.

mod fleet;
mod look;
mod model;
mod picture;
mod squares;
mod table;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::compare::generator::{DRAIN, LATENESS_MAX};
use crate::environment::{Environment, load_average};
use crate::limits::{SCALE_RUNS_MAX, SESSIONS_MAX};
use crate::load::progress::Progress;
use crate::load::report::Report;
use crate::load::{Load, Outcome, Pace, allow_files, measure};
use crate::spawn::data_events;
use crate::speak::dialect::Dialect;
use fleet::Fleet;
use look::{Between, Look};
use model::{Check, Each, Model, Observed, Prediction, Setting, leave_one_out, sizes};
pub(crate) use picture::draw;
use squares::{median, ratio};

/// Parts of the time that a run is measured: how long everything is left alone first, how long it is then measured without load, and
/// how long under load before the measurement.
const SETTLE: f64 = 0.25;
const IDLE: f64 = 1.0;
const WARM_UP: f64 = 0.25;
/// How long sessions may take to join before the first event comes.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is asked whether it came.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// What is sent beyond the time that is measured, so that the load does not end before it.
const MORE: Duration = Duration::from_millis(500);
/// How often a run is tried in which the generator did not keep up.
const TRIES: u32 = 3;
/// Sessions of each room.
const SESSIONS_EACH: u32 = 2;
/// How long events are kept where nothing else was asked for (`--retention`), in seconds.
const KEPT_S: f64 = 600.0;
/// What is predicted: gateways, each on a host of its own with one worker.
const PREDICTED_HOSTS: [u32; 3] = [10, 100, 1_000];
/// From which [`Measured::spread`] on the figures are said to be of no use.
const SPREAD_MAX: f64 = 1.25;
/// Rooms that are predicted, with one event a second each.
const PREDICTED_ROOMS: u32 = 1_000_000;
/// Shards that they are in: a thousand rooms a shard.
const PREDICTED_SHARDS: u32 = 1_024;

/// What is measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ScaleConfig {
    pub(crate) nodes: Vec<u32>,
    pub(crate) hosts: Vec<u32>,
    pub(crate) shards: u32,
    pub(crate) rooms: u32,
    pub(crate) rate: u32,
    pub(crate) rounds: u32,
    /// How long each run is measured.
    #[serde(skip)]
    pub(crate) duration: Duration,
}

/// All runs, and what comes of them.
#[derive(Debug, Serialize)]
pub(crate) struct Scale {
    config: ScaleConfig,
    duration_s: f64,
    measured: Measured,
    /// Out of the runs above.
    model: Model,
    check: Checked,
    /// Nobody has run these.
    predicted: Predicted,
    /// Of the last minute, before and after.
    load_average: [f64; 2],
    environment: Environment,
}

#[derive(Debug, Serialize)]
struct Measured {
    points: Vec<Point>,
    ratios: Vec<Ratio>,
    /// How many times as much an event cost in the dearest round of a setting as in its cheapest: the largest of all settings. Far from 1,
    /// it was other programs that were measured.
    spread: f64,
}

/// One setting: the round whose CPU time an event is in the middle.
#[derive(Debug, Serialize)]
struct Point {
    #[serde(flatten)]
    setting: Setting,
    events_per_s: f64,
    /// CPU time an event, in microseconds.
    cpu_us: Kinds,
    /// Of gateways, workers and Redis together: the least and the most of the rounds.
    cpu_us_range: [f64; 2],
    each_node: Vec<NodeFigures>,
    events_per_flush: f64,
    rooms_per_flush: f64,
    events_per_commit: f64,
    rooms_per_commit: f64,
    /// From the intended send to the verdict.
    p50_us: f64,
    p99_us: f64,
    /// CPU seconds in a second before the first session came: the mean of the rounds.
    idle: Each,
    /// How often processes woke up, in a second: under load, and before.
    wakes: Each,
    idle_wakes: Each,
    /// Commands that each process sends in a second then.
    idle_commands: f64,
    /// Resident, with all sessions.
    gateway_bytes: f64,
    worker_bytes: f64,
    #[serde(skip)]
    observed: Observed,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Kinds {
    gateway: f64,
    worker: f64,
    redis: f64,
    generator: f64,
}

impl Kinds {
    /// What a deployment consists of.
    fn deployment(&self) -> f64 {
        self.gateway + self.worker + self.redis
    }
}

/// One node of the cluster. Figures of an event are of all events, whichever node they went to.
#[derive(Debug, Serialize)]
struct NodeFigures {
    /// Of a core.
    cpu_share: f64,
    cpu_us_per_event: f64,
    /// Those that scripts make among them.
    commands_per_event: f64,
    /// Scripts that were called.
    calls_per_event: f64,
    connections: f64,
    bytes: f64,
}

/// Several nodes against one, on as many hosts: medians of the rounds' ratios.
#[derive(Debug, Serialize)]
struct Ratio {
    nodes: u32,
    hosts: u32,
    /// CPU time an event of gateways, workers and Redis.
    cpu: f64,
    /// CPU time an event of the busiest node, over the one's.
    busiest: f64,
}

/// What the model says of each run when it has not seen it.
#[derive(Debug, Serialize)]
struct Checked {
    runs: Vec<Check>,
    /// Median and largest, as shares, of all processes' CPU time out of the setting alone.
    error: [f64; 2],
    error_redis: [f64; 2],
    /// The same where it is told how many calls there were.
    error_of_costs: [f64; 2],
}

#[derive(Debug, Serialize)]
struct Predicted {
    node_share_max: f64,
    node_bytes_max: f64,
    kept_s: f64,
    rows: Vec<PredictedRow>,
}

#[derive(Debug, Serialize)]
struct PredictedRow {
    gateways: u32,
    /// As events share calls here.
    expected: Option<Prediction>,
    /// If no two events shared a call.
    most: Option<Prediction>,
}

/// One round of a setting.
#[derive(Debug)]
struct Run {
    idle: Between,
    between: Between,
    /// What rooms and events have added to the nodes' memory.
    bytes: f64,
    report: Report,
}

impl ScaleConfig {
    /// What is run: all nodes on all hosts, and for the model further rates and shards, so that calls have more events in them and fewer.
    fn settings(&self) -> Vec<Setting> {
        let Self { shards, rooms, rate, .. } = *self;
        let mut settings = Vec::new();
        let mut add = |setting: Setting| {
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        };
        for hosts in &self.hosts {
            for nodes in &self.nodes {
                add(Setting { nodes: *nodes, hosts: *hosts, shards, rooms, rate });
            }
        }
        let (nodes, hosts) = (self.nodes.iter().copied().min().unwrap_or(1), self.hosts.iter().copied().min().unwrap_or(1));
        for (shards, rate) in [(shards, rate / 4), (shards, rate / 2), (shards / 10, rate), (1, rate)] {
            add(Setting { nodes, hosts, shards: shards.max(nodes).max(hosts), rooms, rate: rate.max(1) });
        }
        settings
    }

    fn check(&self, settings: &[Setting]) -> Result<()> {
        let Self { nodes, hosts, shards, rooms, rounds, duration, .. } = self;
        ensure!(!nodes.is_empty() && !hosts.is_empty(), "nothing to measure: give --nodes and --hosts");
        let most = nodes.iter().chain(hosts).copied().max().unwrap_or(1);
        ensure!(most <= *shards, "shards {shards}: use at least {most}, so that every node and every host has one");
        let sessions = rooms.saturating_mul(SESSIONS_EACH);
        ensure!(
            sessions <= SESSIONS_MAX,
            "rooms {rooms}: use at most {}, with {SESSIONS_EACH} sessions each",
            SESSIONS_MAX / SESSIONS_EACH
        );
        ensure!(!duration.is_zero(), "duration 0: use at least 1ms");
        let runs = settings.len() * *rounds as usize;
        ensure!(
            runs <= SCALE_RUNS_MAX,
            "{} settings in {rounds} rounds are {runs} runs: use fewer --nodes, --hosts or --rounds, so that there are at most {SCALE_RUNS_MAX}",
            settings.len()
        );
        Ok(())
    }
}

impl Scale {
    /// Why the figures are of no use, if they are.
    fn doubt(&self) -> Option<String> {
        let spread = self.measured.spread;
        (spread > SPREAD_MAX).then(|| {
            format!("rounds of one setting differ by {spread:.1} times: other programs ran, so trust none of this, and measure again when none does")
        })
    }

    /// Measures every setting `rounds` times, in turns, each on processes of its own; what was started has ended when it returns.
    ///
    /// # Errors
    /// When it is asked for what cannot be, something does not start, or the audit of a run fails.
    pub(crate) async fn measure(config: &ScaleConfig) -> Result<Self> {
        let settings = config.settings();
        config.check(&settings)?;
        allow_files(u64::from(config.rooms * SESSIONS_EACH) + 256)?;
        let before = load_average();
        let mut runs: Vec<Vec<Run>> = settings.iter().map(|_| Vec::new()).collect();
        let (mut number, all) = (0, settings.len() * config.rounds as usize);
        for round in 1..=config.rounds {
            for (setting, runs) in settings.iter().zip(&mut runs) {
                number += 1;
                eprintln!("run {number} of {all}, round {round}: {setting}");
                runs.push(Run::of(setting, config.duration).await.with_context(|| setting.to_string())?);
            }
        }
        let ratios = ratios(&settings, &runs);
        let points: Vec<Point> = settings.iter().zip(&runs).map(|(setting, runs)| Point::of(*setting, runs)).collect();
        let spread = points.iter().map(|point| ratio(point.cpu_us_range[1], point.cpu_us_range[0])).fold(1.0, f64::max);
        let observed: Vec<Observed> = points.iter().map(|point| point.observed).collect();
        let fitted = Model::fit(&observed).zip(leave_one_out(&observed));
        let (model, checks) =
            fitted.context("the runs are too equal for a model: use a higher --rate, or a longer --duration")?;
        let predict = |hosts: u32| {
            let setting = Setting { nodes: 1, hosts, shards: PREDICTED_SHARDS, rooms: PREDICTED_ROOMS, rate: PREDICTED_ROOMS };
            let [expected, most] = [false, true].map(|alone| model.predict(&setting, KEPT_S, alone));
            PredictedRow { gateways: hosts, expected, most }
        };
        let (node_share_max, node_bytes_max) = (model::NODE_SHARE_MAX, model::NODE_BYTES_MAX);
        let rows = PREDICTED_HOSTS.map(predict).into();
        Ok(Self {
            config: config.clone(),
            duration_s: config.duration.as_secs_f64(),
            measured: Measured { points, ratios, spread },
            model,
            check: Checked {
                error: sizes(checks.iter().map(|check| check.error)),
                error_redis: sizes(checks.iter().map(|check| check.error_redis)),
                error_of_costs: sizes(checks.iter().map(|check| check.error_of_costs)),
                runs: checks,
            },
            predicted: Predicted { node_share_max, node_bytes_max, kept_s: KEPT_S, rows },
            load_average: [before, load_average()],
            environment: Environment::read(),
        })
    }
}

impl Run {
    async fn of(setting: &Setting, duration: Duration) -> Result<Self> {
        let mut fleet = Fleet::start(setting).await?;
        let run = Self::on(&fleet, setting, duration).await;
        if run.is_err() {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
        run
    }

    async fn on(fleet: &Fleet, setting: &Setting, duration: Duration) -> Result<Self> {
        sleep(duration.mul_f64(SETTLE)).await;
        let first = Look::at(fleet).await?;
        sleep(duration.mul_f64(IDLE)).await;
        let rested = Look::at(fleet).await?;
        let usual = Load::new(Dialect::Lasthit, fleet.urls(), Pace::Open { rate: setting.rate });
        let load = Load {
            homes: fleet.homes().to_vec(),
            sessions: setting.rooms * SESSIONS_EACH,
            rooms: setting.rooms,
            warm_up: duration.mul_f64(WARM_UP),
            duration: duration + MORE,
            drain: DRAIN,
            lateness_max: LATENESS_MAX,
            ..usual
        };
        let mut last = String::new();
        for _ in 0..TRIES {
            let events = Look::at(fleet).await?.events();
            let watched = async {
                let deadline = Instant::now() + FIRST_EVENT_TIMEOUT;
                while taken_in(fleet).await.unwrap_or(events) == events {
                    ensure!(Instant::now() < deadline, "no event within {FIRST_EVENT_TIMEOUT:?}");
                    sleep(ASK_INTERVAL).await;
                }
                sleep(duration.mul_f64(WARM_UP)).await;
                let before = Look::at(fleet).await?;
                sleep(duration).await;
                Ok((before, Look::at(fleet).await?))
            };
            let progress = Progress::new(true);
            let ((before, after), outcome) = tokio::try_join!(watched, measure(&load, &progress, std::future::pending()))?;
            let report = match outcome {
                Outcome::Done(report) => *report,
                Outcome::Saturated(saturation) => {
                    last = saturation.to_string();
                    continue;
                }
                Outcome::Interrupted(sent) => bail!("interrupted after {sent} actions"),
            };
            if let Some(broken) = report.broken(f64::INFINITY) {
                return Err(broken.into());
            }
            if let Some(failure) = report.failure() {
                bail!("{failure}");
            }
            let (idle, between) = (rested.since(&first), after.since(&before));
            ensure!(between.events > 0.0, "no events came within {duration:?}");
            let bytes = |between: &Between| between.nodes.iter().map(|node| node.bytes).sum::<f64>();
            let bytes = (bytes(&between) - bytes(&idle)).max(0.0);
            return Ok(Self { idle, between, bytes, report });
        }
        bail!("the generator did not keep up in {TRIES} tries, so use a lower --rate: {last}")
    }

    fn cpu_us(&self) -> Kinds {
        let Between { gateway, worker, generator, events, nodes, .. } = &self.between;
        let redis: f64 = nodes.iter().map(|node| node.cpu).sum();
        let of = |seconds: f64| ratio(1e6 * seconds, *events);
        Kinds { gateway: of(gateway.cpu), worker: of(worker.cpu), redis: of(redis), generator: of(*generator) }
    }

    /// CPU time an event of the node that has most of it, in microseconds.
    fn busiest_us(&self) -> f64 {
        let busiest = self.between.nodes.iter().map(|node| node.cpu).fold(0.0, f64::max);
        ratio(1e6 * busiest, self.between.events)
    }
}

async fn taken_in(fleet: &Fleet) -> Result<u64> {
    let mut events = 0;
    for gateway in fleet.gateways() {
        events += data_events(&gateway.metrics().await?);
    }
    Ok(events)
}

impl Point {
    fn of(setting: Setting, runs: &[Run]) -> Self {
        let totals: Vec<f64> = runs.iter().map(|run| run.cpu_us().deployment()).collect();
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by(|a, b| totals[*a].total_cmp(&totals[*b]));
        let run = &runs[order[(runs.len() - 1) / 2]];
        let over = |value: &dyn Fn(&Between) -> f64| runs.iter().map(|run| value(&run.idle)).sum::<f64>() / runs.len() as f64;
        let of_nodes = |between: &Between| between.nodes.iter().map(|node| node.cpu).sum::<f64>();
        let idle =
            Each { gateway: over(&|idle| idle.gateway.cpu), worker: over(&|idle| idle.worker.cpu), redis: over(&of_nodes) };
        let sleeps = |between: &Between| between.nodes.iter().map(|node| node.sleeps).sum::<f64>();
        let idle_wakes =
            Each { gateway: over(&|idle| idle.gateway.sleeps), worker: over(&|idle| idle.worker.sleeps), redis: over(&sleeps) };
        let commands = over(&|idle| idle.nodes.iter().map(|node| node.commands).sum());
        let between = &run.between;
        let events = between.events;
        let wakes = Each { gateway: between.gateway.sleeps, worker: between.worker.sleeps, redis: sleeps(between) };
        let observed = Observed {
            setting,
            events,
            flushes: between.flushes,
            commits: between.commits,
            rooms: between.flush_rooms + between.commit_rooms,
            cores: Each { gateway: between.gateway.cpu, worker: between.worker.cpu, redis: of_nodes(between) },
            wakes,
            idle,
            idle_wakes,
            memory: run.bytes,
            kept: between.events_ever,
            connections_per_node: ratio(between.nodes.iter().map(|node| node.connections).sum(), between.nodes.len() as f64),
        };
        let node = |node: &look::Node| NodeFigures {
            cpu_share: node.cpu,
            cpu_us_per_event: ratio(1e6 * node.cpu, events),
            commands_per_event: ratio(node.commands, events),
            calls_per_event: ratio(node.calls, events),
            connections: node.connections,
            bytes: node.bytes,
        };
        Self {
            setting,
            events_per_s: events,
            cpu_us: run.cpu_us(),
            cpu_us_range: [totals.iter().copied().fold(f64::MAX, f64::min), totals.iter().copied().fold(0.0, f64::max)],
            each_node: between.nodes.iter().map(node).collect(),
            events_per_flush: ratio(events, between.flushes),
            rooms_per_flush: ratio(between.flush_rooms, between.flushes),
            events_per_commit: ratio(events, between.commits),
            rooms_per_commit: ratio(between.commit_rooms, between.commits),
            p50_us: run.report.latency_us.p50,
            p99_us: run.report.latency_us.p99,
            idle,
            wakes,
            idle_wakes,
            idle_commands: commands / f64::from(2 * setting.hosts),
            gateway_bytes: between.gateway.bytes,
            worker_bytes: between.worker.bytes,
            observed,
        }
    }
}

/// Each number of nodes against one node on as many hosts, round by round.
fn ratios(settings: &[Setting], runs: &[Vec<Run>]) -> Vec<Ratio> {
    let against = |(setting, several): (&Setting, &Vec<Run>)| {
        let one = settings.iter().position(|other| *other == Setting { nodes: 1, ..*setting })?;
        let pairs = || several.iter().zip(&runs[one]);
        (setting.nodes > 1).then(|| Ratio {
            nodes: setting.nodes,
            hosts: setting.hosts,
            cpu: median(pairs().map(|(several, one)| ratio(several.cpu_us().deployment(), one.cpu_us().deployment())).collect()),
            busiest: median(pairs().map(|(several, one)| ratio(several.busiest_us(), one.busiest_us())).collect()),
        })
    };
    settings.iter().zip(runs).filter_map(against).collect()
}

#[cfg(test)]
mod tests;
