//! With sockets: latency at 1,000 a second and the highest rate of every system, and the floor below them.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;

use super::generator::{Highest, Target};
use super::install::Rivals;
use super::ratios::{Figures, PEER_CONCURRENCIES};
use super::{Pace, Teller, explain};
use crate::load::report::Broken;
use crate::part::FloorFigures;
use crate::spawn::{Fleet, Spawn};
use crate::speak::dialect::Dialect;

/// Events a second when latency is measured.
pub(super) const RATE: u32 = 1000;
/// How late the latest hundredth of the sends may be before a p99 says as much about the machine.
const LATENESS_US: f64 = 1000.0;
/// How long the floor may take beyond its entries.
const FLOOR_TIME_MAX: Duration = Duration::from_secs(30);

/// A system, and what is measured of it.
struct System {
    key: String,
    what: String,
    dialect: Dialect,
    /// Where its highest rate is looked for first; None when it is not.
    expected: Option<f64>,
}

/// `before` are the figures of the round before: where to look for the highest rates.
pub(super) async fn measure(
    rivals: &Rivals,
    pace: Pace,
    before: Option<&Figures>,
    figures: &mut Figures,
    teller: &mut Teller,
) -> Result<()> {
    let system = |key: &str, what: &str, dialect, guess: Option<f64>| {
        let known = before.and_then(|figures| figures.get(&format!("{key}.verdicts_per_s"))).copied();
        System { key: key.to_owned(), what: what.to_owned(), dialect, expected: known.or(guess) }
    };
    if let Some(floor) = teller.step("the Redis floor", floor(pace)).await? {
        figures.insert("floor.p50_us".to_owned(), floor.p50_us);
        figures.insert("floor.p99_us".to_owned(), floor.p99_us);
    }

    let echo = system("echo", "the bare echo", Dialect::Echo, Some(80_000.0));
    echo.measure(Fleet::start_echo(), pace, figures, teller).await?;
    for (key, what, spawn, guess) in [
        ("one_gateway", "lasthit on Redis, one gateway", Spawn::Redis { gateways: 1, workers: 1, delay: None }, None),
        ("two_gateways", "lasthit on Redis, two gateways", Spawn::Redis { gateways: 2, workers: 1, delay: None }, Some(40_000.0)),
        ("memory", "lasthit serve, in memory", Spawn::Serve, Some(50_000.0)),
    ] {
        let system = system(key, what, Dialect::Lasthit, guess);
        system.measure(Fleet::start(spawn), pace, figures, teller).await?;
    }
    if let Some(dir) = &rivals.ws_room {
        let system = system("ws_room", "one ws process, rooms in its memory", Dialect::Peer, Some(30_000.0));
        system.measure(Fleet::start_script(dir, "ws-room.mjs"), pace, figures, teller).await?;
    }
    if let Some(dir) = &rivals.bullmq {
        for concurrency in PEER_CONCURRENCIES.into_iter().rev().take(pace.rivals) {
            let what = format!("the usual stack, concurrency {concurrency}");
            let system = system(&format!("peer_{concurrency}"), &what, Dialect::Peer, Some(5_000.0));
            system.measure(Fleet::start_peer_with(dir, concurrency), pace, figures, teller).await?;
        }
    }
    Ok(())
}

struct Measured {
    p50_us: f64,
    p99_us: f64,
    lateness_p99_us: f64,
    /// None when it is not looked for.
    highest: Option<Result<Highest>>,
}

impl System {
    async fn measure(
        &self,
        fleet: impl Future<Output = Result<Fleet>>,
        pace: Pace,
        figures: &mut Figures,
        teller: &mut Teller,
    ) -> Result<()> {
        if let Some(measured) = teller.step(&self.what, self.measure_in(fleet, pace)).await? {
            self.keep(figures, &measured, teller);
        }
        Ok(())
    }

    async fn measure_in(&self, fleet: impl Future<Output = Result<Fleet>>, pace: Pace) -> Result<Measured> {
        let mut fleet = fleet.await?;
        let target = Target { dialect: self.dialect, urls: fleet.urls().to_vec(), family: "" };
        let measured = self.measure_at(&target, pace).await;
        explain(&measured, &mut fleet);
        fleet.end().await;
        measured
    }

    async fn measure_at(&self, target: &Target, pace: Pace) -> Result<Measured> {
        let calm = target.at(RATE, pace.latency).await?;
        let highest = match self.expected {
            Some(expected) => match target.highest(expected, pace.step).await {
                Err(e) if e.is::<Broken>() => return Err(e),
                highest => Some(highest),
            },
            None => None,
        };
        let (latency, lateness) = (calm.latency_us, calm.generator.lateness_us);
        Ok(Measured { p50_us: latency.p50, p99_us: latency.p99, lateness_p99_us: lateness.p99, highest })
    }

    fn keep(&self, figures: &mut Figures, measured: &Measured, teller: &mut Teller) {
        let mut keep = |figure: &str, value| figures.insert(format!("{}.{figure}", self.key), value);
        keep("p50_us", measured.p50_us);
        keep("p99_us", measured.p99_us);
        if measured.lateness_p99_us > LATENESS_US {
            let late = measured.lateness_p99_us / 1000.0;
            teller.note(format!("{}: the machine was busy: 1 % of the sends were more than {late:.1} ms late", self.what));
        }
        match &measured.highest {
            None => {}
            Some(Ok(highest)) => {
                keep("verdicts_per_s", highest.verdicts_per_s);
                if highest.generator {
                    teller
                        .note(format!("{}: the generator reached its limit first, so the highest rate may be higher", self.what));
                }
            }
            Some(Err(e)) => teller.note(format!("{}: no highest rate: {e:#}", self.what)),
        }
    }
}

async fn floor(pace: Pace) -> Result<FloorFigures> {
    let mut fleet = Fleet::start_redis().await?;
    let figures = floor_in(&mut fleet, pace).await;
    fleet.end().await;
    figures
}

async fn floor_in(fleet: &mut Fleet, pace: Pace) -> Result<FloorFigures> {
    let redis = format!("unix://{}", fleet.redis_socket().display());
    fleet.start_part("floor-worker", &["--redis", &redis]).await?;
    let entries = (pace.latency.as_millis() * u128::from(RATE) / 1000).to_string();
    let args = ["--redis", &redis, "--entries", &entries, "--rate", &RATE.to_string()];
    fleet.run_part("floor", &args, pace.latency + FLOOR_TIME_MAX).await
}
