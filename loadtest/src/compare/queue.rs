//! Without sockets: the work of `queue-matrix`, through the embedding API and by the rivals' own scripts. Every measurement has
//! a fresh Redis.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::install::Rivals;
use super::matrix::QueueFigures;
use super::ratios::{Figures, GROUPMQ_CONCURRENCIES};
use super::{Pace, Teller};
use crate::load::report::Broken;
use crate::spawn::Fleet;

/// Events a second when latency is measured.
const RATE: u32 = 1000;
/// How many times the rivals' events lasthit gets: as many would be over before its processes are warm.
const OWN_TIMES: u32 = 10;
/// How long one measurement may take.
const TIME_MAX: Duration = Duration::from_secs(90);
/// What the rivals' own harness leaves between a worker's start and its work.
const SETTLE: Duration = Duration::from_millis(500);
/// The worker concurrency at which the rivals' harness measures latency.
const LATENCY_CONCURRENCY: u32 = 16;

pub(super) async fn measure(rivals: &Rivals, pace: Pace, figures: &mut Figures, teller: &mut Teller) -> Result<()> {
    let paced = RATE * pace.queue_latency_s;
    let most = teller.step("lasthit without sockets, as fast as it can", own(pace.jobs * OWN_TIMES, None)).await?;
    figures.extend(most.map(|most| ("queue_lasthit.jobs_per_s".to_owned(), most.jobs_per_s)));
    if let Some(calm) = teller.step("lasthit without sockets, 1,000/s", own(paced, Some(RATE))).await? {
        keep_latency(figures, "queue_lasthit", &calm);
    }
    if let Some(dir) = &rivals.groupmq {
        for concurrency in GROUPMQ_CONCURRENCIES.into_iter().rev().take(pace.rivals) {
            let run = Run { concurrency, jobs: pace.jobs, mode: "throughput", layout: "single" };
            let most = teller.step(&format!("groupmq, concurrency {concurrency}"), run.of(dir)).await?;
            figures.extend(most.map(|most| (format!("queue_groupmq_{concurrency}.jobs_per_s"), most.jobs_per_s)));
        }
        let run = Run { concurrency: LATENCY_CONCURRENCY, jobs: paced, mode: "latency", layout: "single" };
        if let Some(calm) = teller.step("groupmq, 1,000/s", run.of(dir)).await? {
            keep_latency(figures, "queue_groupmq", &calm);
        }
    }
    if let Some(dir) = &rivals.bullmq_queue {
        for (name, layout, concurrency) in [("queue_bullmq", "single", 16), ("queue_bullmq_rooms", "rooms", 1)] {
            let run = Run { concurrency, jobs: pace.jobs, mode: "throughput", layout };
            if let Some(most) = teller.step(&format!("BullMQ, layout {layout}"), run.of(dir)).await? {
                figures.insert(format!("{name}.jobs_per_s"), most.jobs_per_s);
                figures.insert(format!("{name}.inverted"), most.inverted());
            }
        }
    }
    Ok(())
}

fn keep_latency(figures: &mut Figures, name: &str, calm: &QueueFigures) {
    for (figure, value) in [("p50_us", calm.p50_us), ("p99_us", calm.p99_us)] {
        if let Some(value) = value {
            figures.insert(format!("{name}.{figure}"), value);
        }
    }
}

/// lasthit's: nothing lost, doubled or out of order, or it is no result.
async fn own(events: u32, rate: Option<u32>) -> Result<QueueFigures> {
    let mut fleet = Fleet::start_redis().await?;
    let redis = format!("unix://{}", fleet.redis_socket().display());
    fleet.start_part("queue-worker", &["--redis", &redis]).await?;
    let (events, rate) = (events.to_string(), rate.map(|rate| rate.to_string()));
    let mut args = vec!["--redis", &redis, "--events", &events];
    args.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
    let figures: Result<QueueFigures> = fleet.run_part("queue-producer", &args, TIME_MAX).await;
    fleet.end().await;
    let figures = figures?;
    let QueueFigures { n, lost, doubled, start_inv, .. } = figures;
    if lost + doubled + start_inv > 0 {
        return Err(Broken(format!("of {n} events {lost} were lost, {doubled} doubled, {start_inv} out of order")).into());
    }
    Ok(figures)
}

/// A rival's.
#[derive(Debug, Clone, Copy)]
struct Run {
    concurrency: u32,
    jobs: u32,
    mode: &'static str,
    layout: &'static str,
}

impl Run {
    async fn of(self, dir: &Path) -> Result<QueueFigures> {
        let mut fleet = Fleet::start_redis().await?;
        let figures = self.in_fleet(&mut fleet, dir).await;
        fleet.end().await;
        let figures = figures?;
        ensure!(figures.lost == 0, "{} of {} jobs were lost", figures.lost, figures.n);
        Ok(figures)
    }

    async fn in_fleet(self, fleet: &mut Fleet, dir: &Path) -> Result<QueueFigures> {
        let redis = fleet.redis_socket().display().to_string();
        let env = [
            ("REDIS_URL", redis),
            ("MODE", self.mode.to_owned()),
            ("LAYOUT", self.layout.to_owned()),
            ("CONC", self.concurrency.to_string()),
            ("N", self.jobs.to_string()),
            ("RATE", RATE.to_string()),
            ("HANDLER", "empty".to_owned()),
        ];
        fleet.start_node("worker", dir, "worker.mjs", &env, "READY").await?;
        sleep(SETTLE).await;
        fleet.add_node("producer", dir, "producer.mjs", &env)?;
        fleet.figures_of("worker", TIME_MAX).await
    }
}
