//! Timers: how late they are delivered, how many a worker fires, and what they cost while nothing is due.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::sleep;

use super::bars::{Bar, Row};
use super::programs::{Family, Programs, SPAWN};
use super::rooms::{Rooms, When};
use super::{Pace, SETTLE_TIMEOUT, none_failed};
use crate::compare::commands::{Calls, Monitor, calls};
use crate::compare::{Teller, explain};
use crate::load::health::Meter;
use crate::load::knee::Ramp;
use crate::spawn::Fleet;

/// From one fire of a room to the next, for the times.
const SECOND: Duration = Duration::from_secs(1);
/// The longest that the latest hundredth of the fires may take to be delivered, where a rate counts as held.
const P99_MAX: Duration = Duration::from_millis(50);
/// The share of the fires that must have come in the time.
const CAME_MIN: f64 = 0.97;
/// The least period of a repeating timer.
const EVERY_MS_MIN: u32 = 16;
/// Where the search for the highest rate begins, as fires of a room in a second.
const FROM: u32 = 2;
const FACTOR: f64 = 2.0;
/// How far ahead the timers are of which none is due.
const FAR: Duration = Duration::from_secs(3600);
/// After timers were set, before what is measured.
const WARM_UP: Duration = Duration::from_millis(1500);

/// Measures what of this is wanted.
pub(super) async fn measure(wanted: &[Bar], pace: Pace, teller: &mut Teller) -> Result<Vec<Row>> {
    let bars = [Bar::TimerUs, Bar::TimersPerS, Bar::TimerIdle];
    if !bars.iter().any(|bar| wanted.contains(bar)) {
        return Ok(Vec::new());
    }
    let files = Programs::write(&[Family::Clock])?;
    let mut fleet = Fleet::start_with(SPAWN, &files.options("1h")).await?;
    let measured = async {
        let rooms = Rooms::join(fleet.urls(), Family::Clock, pace.timer_rooms).await?;
        let mut rows = Vec::new();
        for bar in bars.into_iter().filter(|bar| wanted.contains(bar)) {
            teller.tell(&format!("timers of {} rooms: {}", pace.timer_rooms, bar.name()));
            rows.push(match bar {
                Bar::TimerUs => delivered(&rooms, pace).await?,
                Bar::TimersPerS => per_second(&rooms, pace).await?,
                _ => idle(&rooms, &fleet, pace).await?,
            });
        }
        none_failed(&fleet).await?;
        rooms.leave().await?;
        anyhow::Ok(rows)
    };
    let measured = measured.await;
    explain(&measured, &mut fleet);
    fleet.end().await;
    measured
}

/// Due to delivered, of a timer a second in each room.
async fn delivered(rooms: &Rooms, pace: Pace) -> Result<Row> {
    rooms.set(When::Every(SECOND)).await?;
    sleep(WARM_UP).await;
    let seen = rooms.watch(pace.timers).await?;
    let times = seen.late.quantiles();
    ensure!(seen.fires > 0, "no timer fired within {:?}", pace.timers);
    let raw = json!({ "rooms": rooms.count(), "fires": seen.fires, "missed": seen.missed, "late_us": times });
    Ok(Bar::TimerUs.row(&[times.p50, times.p99], raw))
}

/// The highest rate that is fired in time.
async fn per_second(rooms: &Rooms, pace: Pace) -> Result<Row> {
    let most = rooms.count() * 1000 / EVERY_MS_MIN;
    let ramp = Ramp::by_factor(rooms.count() * FROM, most, FACTOR)?;
    let (mut held, mut broke, mut best) = (None, None, 0.0);
    let mut tried = Vec::new();
    while let Some(rate) = ramp.next(held, broke) {
        // Whole milliseconds, so that the moments are told apart to the nanosecond.
        let every_ms = (rooms.count() * 1000 / rate).max(EVERY_MS_MIN);
        let wanted = f64::from(rooms.count()) * 1000.0 / f64::from(every_ms);
        rooms.set(When::Every(Duration::from_millis(every_ms.into()))).await?;
        sleep(WARM_UP).await;
        let meter = Meter::read();
        let seen = rooms.watch(pace.timer_step).await?;
        let usage = meter.usage();
        let per_s = seen.fires as f64 / pace.timer_step.as_secs_f64();
        let p99_us = seen.late.quantile_us(0.99);
        let holds = p99_us <= P99_MAX.as_secs_f64() * 1e6 && seen.missed == 0 && per_s >= wanted * CAME_MIN;
        eprintln!("{wanted:>10.0}/s  {per_s:>8.0} came  p99 {p99_us:>8} µs  missed {}  {usage}", seen.missed);
        tried.push(json!({
            "rate": wanted, "fires_per_s": per_s, "p99_us": p99_us, "missed": seen.missed, "held": holds, "generator": usage
        }));
        if holds {
            (held, best) = (Some(rate), per_s);
        } else {
            broke = Some(rate);
            rooms.stop(SETTLE_TIMEOUT).await?;
        }
    }
    rooms.stop(SETTLE_TIMEOUT).await?;
    Ok(Bar::TimersPerS.row(&[best.round()], json!({ "rooms": rooms.count(), "all_held": broke.is_none(), "tried": tried })))
}

/// Commands a second that Redis is sent, while everybody is inside and nobody acts. Those that its scripts make are not sent.
async fn idle(rooms: &Rooms, fleet: &Fleet, pace: Pace) -> Result<Row> {
    rooms.set(When::After(FAR)).await?;
    sleep(pace.calm).await;
    let look = || anyhow::Ok(calls(&fleet.redis_info("commandstats")?));
    let (before, monitor) = (look()?, Monitor::start(&fleet.redis_socket())?);
    let seen = rooms.watch(pace.timers).await?;
    let watched = monitor.end()?;
    let (mut before, mut after) = (before, look()?);
    // What was asked here is none of lasthit's.
    for own in ["info", "monitor"] {
        before.remove(own);
        after.remove(own);
    }
    ensure!(seen.fires == 0, "{} timers fired that were an hour ahead", seen.fires);
    let seconds = pace.timers.as_secs_f64();
    let per_s = watched.sent(&before, &after) / seconds;
    let raw = json!({ "rooms": rooms.count(), "seconds": seconds, "calls": since(&before, &after) });
    Ok(Bar::TimerIdle.row(&[(per_s * 10.0).round() / 10.0], raw))
}

/// Calls between two counts, those in scripts, too.
fn since(before: &Calls, after: &Calls) -> Calls {
    let came = after.iter().map(|(name, count)| (name.clone(), count.saturating_sub(before.get(name).copied().unwrap_or(0))));
    came.filter(|(_, count)| *count > 0).collect()
}
