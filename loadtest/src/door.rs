//! What a supervisor's door costs: connecting through it, beside connecting to a gateway that listens itself. Both are of one deployment
//! and take turns in one run.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::environment::Environment;
use crate::limits::{CLOSE_TIMEOUT, CONNECT_LATE, CONNECTS_OPEN_MAX, DOOR_BEHIND_MAX, DOOR_LEAD, DOOR_REST, RAMP_TRIES};
use crate::load::connects::{Connect, Connecting, Connector};
use crate::load::knee::Ramp;
use crate::load::phases::How;
use crate::load::record::Times;
use crate::spawn::{Fleet, Spawn};
use crate::speak::dialect::{Audience, Dialect};
use crate::speak::socket::Socket;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct DoorConfig {
    pub(crate) spawn: Spawn,
    /// Connections on each way of which each is timed by itself.
    pub(crate) samples: u32,
    /// Connections a second to try.
    pub(crate) ramp: Ramp,
    /// How long each rate is held.
    pub(crate) duration: Duration,
    /// Threads that connect.
    pub(crate) tasks: u32,
}

/// One way to a gateway.
#[derive(Debug, Clone, Serialize)]
struct Way {
    name: &'static str,
    /// From the connection's begin to the end of the WebSocket handshake, one at a time.
    connect_p50_us: f64,
    connect_p99_us: f64,
    /// The highest rate at which none was refused, reset or late; None when no rate was.
    #[serde(skip_serializing_if = "Option::is_none")]
    connects_per_s: Option<u32>,
    tried: Vec<Tried>,
}

/// One rate.
#[derive(Debug, Clone, Serialize)]
struct Tried {
    rate: u32,
    made: u64,
    /// Why it did not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What came of it; its serialized form is what `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Doors {
    /// The median that the door adds.
    door_connect_us: f64,
    /// The highest rate through it; 0 when no rate held.
    door_connects_per_s: u32,
    samples: u32,
    tasks: u32,
    /// How long each rate was held.
    duration_s: f64,
    through: Way,
    alone: Way,
    environment: Environment,
}

impl Doors {
    /// Measures both ways in turns. None when somebody asked for the end.
    pub(crate) async fn measure(config: &DoorConfig, stop: &AtomicBool) -> Result<Option<Self>> {
        ensure!(matches!(config.spawn, Spawn::Up { .. }), "door needs a supervisor: use --spawn up:gateways=1,workers=1");
        let mut fleet = Fleet::start(config.spawn).await?;
        let measured = async {
            fleet.add_gateway().await?;
            measure(config, fleet.urls(), stop).await
        };
        let measured = measured.await;
        if measured.is_err() {
            eprintln!("{}", fleet.logs());
        }
        fleet.end().await;
        measured
    }
}

async fn measure(config: &DoorConfig, urls: &[String], stop: &AtomicBool) -> Result<Option<Doors>> {
    let [through, alone] = urls else { bail!("{} addresses instead of two", urls.len()) };
    let ways = [("through the door", through), ("a gateway alone", alone)];
    let mut times = [Times::new(), Times::new()];
    for sample in 0..config.samples {
        // Neither is always the second.
        for at in if sample % 2 == 0 { [0, 1] } else { [1, 0] } {
            times[at].record(connect(ways[at].1, sample).await.with_context(|| ways[at].0)?);
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    let mut found = ways.map(|_| (None, None, Vec::new()));
    // The rates of both ways take turns, too, as long as both have some left.
    loop {
        let mut is_over = true;
        for ((_, url), (held, broke, tried)) in ways.iter().zip(&mut found) {
            let Some(rate) = config.ramp.next(*held, *broke) else { continue };
            is_over = false;
            let mut one = attempt(config, url, rate).await?;
            for _ in 1..RAMP_TRIES {
                if one.why.is_some() {
                    one = attempt(config, url, rate).await?;
                }
            }
            *(if one.why.is_none() { held } else { broke }) = Some(rate);
            tried.push(one);
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        if is_over {
            break;
        }
    }
    let mut ways = ways.iter().zip(times).zip(found).map(|(((name, _), times), (held, _, tried))| Way {
        name,
        connect_p50_us: times.quantile_us(0.5),
        connect_p99_us: times.quantile_us(0.99),
        connects_per_s: held,
        tried,
    });
    let (Some(through), Some(alone)) = (ways.next(), ways.next()) else { bail!("a way is missing") };
    Ok(Some(Doors {
        door_connect_us: ((through.connect_p50_us - alone.connect_p50_us) * 10.0).round() / 10.0,
        door_connects_per_s: through.connects_per_s.unwrap_or(0),
        samples: config.samples,
        tasks: config.tasks,
        duration_s: config.duration.as_secs_f64(),
        through,
        alone,
        environment: Environment::read(),
    }))
}

/// How long one handshake takes. The session is closed before the next one.
async fn connect(url: &str, number: u32) -> Result<Duration> {
    let dialect = Dialect::Lasthit;
    let request = dialect.request(url, &dialect.room(Audience::Sender, "door", number % 16)?, &format!("p{number}"))?;
    let began = Instant::now();
    let mut socket = Socket::connect(request).await?;
    let took = began.elapsed();
    let _ = timeout(CLOSE_TIMEOUT, socket.close()).await;
    Ok(took)
}

/// One rate for a while, by all threads together.
async fn attempt(config: &DoorConfig, url: &str, rate: u32) -> Result<Tried> {
    let (start, (told, telling)) = (Instant::now() + DOOR_LEAD, mpsc::channel());
    let tasks = config.tasks.min(rate);
    let mut connectors = Vec::new();
    for task in 0..tasks {
        let connecting = Connecting {
            urls: vec![url.to_owned()],
            dialect: Dialect::Lasthit,
            tag: format!("door{task}"),
            // What is left over is the first one's.
            rate: rate / tasks + if task == 0 { rate % tasks } else { 0 },
            sessions: tasks.saturating_mul(CONNECTS_OPEN_MAX as u32),
        };
        let told = told.clone();
        // Who listens is there as long as they are.
        connectors.push(Connector::start(connecting, start, move |one| {
            let _ = told.send(one);
        })?);
    }
    drop(told);
    sleep(DOOR_LEAD + config.duration).await;
    for connector in connectors {
        connector.end().await?;
    }
    let made: Vec<Connect> = telling.try_iter().collect();
    // The next rate finds nothing of this one.
    sleep(DOOR_REST).await;
    Ok(Tried { rate, made: made.len() as u64, why: why_not(&made, rate, config.duration) })
}

/// Why a rate did not hold.
fn why_not(made: &[Connect], rate: u32, duration: Duration) -> Option<String> {
    let counted = [
        ("refused", made.iter().filter(|one| one.how == How::Refused).count()),
        ("reset", made.iter().filter(|one| one.how == How::Reset).count()),
        ("late", made.iter().filter(|one| one.how == How::Forgotten || one.took > CONNECT_LATE).count()),
    ];
    let failed: Vec<String> =
        counted.iter().filter(|(_, count)| *count > 0).map(|(how, count)| format!("{count} {how}")).collect();
    if !failed.is_empty() {
        let first = made.iter().find_map(|one| one.why.as_ref()).map_or_else(String::new, |why| format!(", the first: {why}"));
        return Some(failed.join(", ") + &first);
    }
    let mut behind = Times::new();
    made.iter().for_each(|one| behind.record(one.behind));
    let wanted = f64::from(rate) * duration.as_secs_f64() * 0.95;
    if behind.quantile_us(0.99) > DOOR_BEHIND_MAX.as_secs_f64() * 1e6 || (made.len() as f64) < wanted {
        return Some(format!("the generator was behind: {} made, p99 {} ms late", made.len(), behind.quantile_us(0.99) / 1000.0));
    }
    None
}

impl fmt::Display for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { door_connect_us, samples, tasks, duration_s, through, alone, .. } = self;
        writeln!(f, "{:20}{:>14}{:>14}{:>16}", "", "connect p50", "p99", "connects/s")?;
        for Way { name, connect_p50_us, connect_p99_us, connects_per_s, tried } in [alone, through] {
            // Where all rates held, there may be higher ones.
            let least = if tried.iter().all(|tried| tried.why.is_none()) { "at least " } else { "" };
            let rate = connects_per_s.map_or_else(|| "none held".to_owned(), |rate| format!("{least}{rate}"));
            writeln!(f, "{name:20}{:>14}{:>14}{rate:>16}", format!("{connect_p50_us} µs"), format!("{connect_p99_us} µs"))?;
        }
        writeln!(
            f,
            "the door adds {door_connect_us} µs at the median of {samples} handshakes on each way, one at a time, in turns"
        )?;
        write!(
            f,
            "rates were held for {duration_s} s with no connection refused, reset or over {} ms, by {tasks} threads of the generator",
            CONNECT_LATE.as_millis()
        )?;
        for Way { name, tried, .. } in [alone, through] {
            for Tried { rate, why, .. } in tried.iter().filter(|tried| tried.why.is_some()) {
                write!(f, "\n{name}: not {rate}/s: {}", why.as_deref().unwrap_or_default())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn one(how: How, took: Duration, behind: Duration) -> Connect {
        Connect { at: Duration::ZERO, took, behind, how, why: None }
    }

    #[test]
    fn a_rate_holds_when_all_were_welcomed_in_time() {
        let welcomed = |count: usize| vec![one(How::Welcomed, MS, MS / 10); count];
        assert_eq!(why_not(&welcomed(100), 100, 1000 * MS), None);
        let with = |more: Connect| why_not(&[welcomed(100), vec![more]].concat(), 100, 1000 * MS).expect("it did not hold");
        assert_eq!(with(one(How::Refused, MS, MS)), "1 refused");
        assert_eq!(with(one(How::Reset, MS, MS)), "1 reset");
        assert_eq!(with(one(How::Forgotten, MS, MS)), "1 late");
        assert_eq!(with(one(How::Welcomed, CONNECT_LATE + MS, MS)), "1 late");
        // What the generator did not do says nothing about the door.
        let few = why_not(&welcomed(80), 100, 1000 * MS).expect("too few");
        assert!(few.starts_with("the generator was behind: 80 made"), "{few}");
        let late = vec![one(How::Welcomed, DOOR_BEHIND_MAX * 2, DOOR_BEHIND_MAX * 2); 100];
        assert!(why_not(&late, 100, 1000 * MS).expect("late").starts_with("the generator"), "late");
    }
}
