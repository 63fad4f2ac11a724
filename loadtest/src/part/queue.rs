//! The work of `queue-matrix` through the embedding API: events of 64 bytes in 100 rooms, in the same fixed
//! pseudo-random order, a producer and a worker in processes of their own. Latency is measured from
//! the append until the producer has the committed verdict, longer than the rivals' (from the add to the handler's start).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Turn, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lasthit::embed::{Delivery, Gateway, Joining, Seat, act};
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::rules::{Decision, Happening, Rules, RulesBook};
use lasthit::shutdown::Shutdown;
use lasthit::types::Audience;
use lasthit::wire::client::ErrorCode;
use lasthit::worker;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::compare::matrix::QueueFigures;
use crate::load::record::Times;

/// Bytes of an event's arguments.
const ARGS_BYTES: usize = 64;
/// Events that are on their way at a time when as many as possible are sent.
const IN_FLIGHT_MAX: usize = 16 * 1024;
/// Events that are appended before the verdicts get their turn.
const BULK: usize = 500;
/// How long to wait for a verdict before the rest counts as lost.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Seconds at the beginning whose latencies are left out, as the rivals do.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to send.
#[derive(Debug, Args)]
pub(crate) struct ProducerArgs {
    /// The journal
    #[arg(long)]
    redis: String,
    /// How many events
    #[arg(long)]
    events: usize,
    /// Events a second; without it as many as possible
    #[arg(long)]
    rate: Option<u32>,
    #[arg(long, default_value_t = 100)]
    rooms: u32,
}

/// Where to work.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// The journal
    #[arg(long)]
    redis: String,
}

/// What the rivals' empty handler is: everything is granted, and its sender is told.
struct Empty;

impl Rules for Empty {
    fn name(&self) -> &'static str {
        "empty"
    }

    fn version(&self) -> u32 {
        1
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn resolve(&mut self, _event: &Happening<'_>) -> Decision {
        Decision::granted().to(Audience::Session)
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Works until it is told to stop.
pub(super) async fn work(args: &WorkerArgs) -> Result<()> {
    let shutdown = Shutdown::new();
    shutdown.watch_signals()?;
    let journal = RedisJournal::connect(&args.redis, RedisOptions::default()).await?;
    let rules = RulesBook::new().room("*", || Empty);
    println!("ready");
    let options = worker::WorkerOptions::default();
    worker::run(Arc::new(journal), rules, options, shutdown.token().clone(), Default::default()).await?;
    Ok(())
}

/// Sends everything, waits for all verdicts, and says how it went.
pub(super) async fn produce(args: &ProducerArgs) -> Result<()> {
    ensure!(args.rooms > 0 && args.events > 0, "rooms {} and events {} must not be 0", args.rooms, args.events);
    let journal = RedisJournal::connect(&args.redis, RedisOptions::default()).await?;
    let gateway = Gateway::start(Arc::new(journal)).await?;
    let mut producer = Producer::join(&gateway, args.rooms).await?;
    // All that is there is taken at every turn: a budget would let the first rooms starve the others.
    match args.rate {
        None => unconstrained(producer.flood(args.events)).await?,
        Some(rate) => unconstrained(producer.pace(args.events, rate)).await?,
    }
    println!("{}", serde_json::to_string(&producer.figures(args))?);
    Ok(())
}

struct Producer {
    rooms: Vec<Room>,
    args: String,
    sent: usize,
    answered: usize,
    doubled: u64,
    inverted: u64,
    began: Instant,
    last: Instant,
    latency: Times,
}

struct Room {
    seat: Seat,
    /// When each event was appended, by its number in the room.
    appended: Vec<Instant>,
    /// Events that a verdict came to.
    answered: Vec<bool>,
    /// The number above that of the last verdict.
    next: usize,
}

impl Producer {
    async fn join(gateway: &Gateway, count: u32) -> Result<Self> {
        let mut rooms = Vec::new();
        for number in 0..count {
            let joining = Joining::new(format!("queue-{number}").parse()?, "producer".parse()?);
            rooms.push(Room { seat: gateway.join(joining)?, appended: Vec::new(), answered: Vec::new(), next: 0 });
        }
        for room in &mut rooms {
            let first = timeout(STALL_TIMEOUT, room.seat.recv()).await.context("no welcome: does the worker run?")?;
            ensure!(matches!(first, Some(Delivery::Welcome(_))), "the first delivery is no welcome: {first:?}");
        }
        let now = Instant::now();
        let args = "x".repeat(ARGS_BYTES);
        let latency = Times::new();
        Ok(Self { rooms, args, sent: 0, answered: 0, doubled: 0, inverted: 0, began: now, last: now, latency })
    }

    /// As many as possible, a bounded number of them on their way.
    async fn flood(&mut self, events: usize) -> Result<()> {
        self.began = Instant::now();
        while self.answered < events {
            let until = events.min(self.answered + IN_FLIGHT_MAX).min(self.sent + BULK);
            while self.sent < until && self.send()? {}
            if self.sent < events && self.sent < self.answered + IN_FLIGHT_MAX {
                tokio::task::yield_now().await;
                self.receive_ready()?;
            } else {
                timeout(STALL_TIMEOUT, self.receive()).await.map_err(|_| self.stalled())??;
            }
        }
        Ok(())
    }

    /// So many a second, whatever comes back.
    async fn pace(&mut self, events: usize, rate: u32) -> Result<()> {
        self.began = Instant::now();
        let mut tick = interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.answered < events {
            tokio::select! {
                _ = tick.tick(), if self.sent < events => {
                    let due = self.began.elapsed().as_micros() * u128::from(rate) / 1_000_000;
                    let due = usize::try_from(due).unwrap_or(events).min(events);
                    while self.sent < due && self.send()? {}
                }
                received = self.receive() => received?,
                () = tokio::time::sleep(STALL_TIMEOUT) => return Err(self.stalled()),
            }
        }
        Ok(())
    }

    fn stalled(&self) -> anyhow::Error {
        anyhow::anyhow!("{} of {} events got no verdict within {STALL_TIMEOUT:?}", self.sent - self.answered, self.sent)
    }

    /// Appends the next event; false when the gateway has too many unresolved.
    fn send(&mut self) -> Result<bool> {
        let count = u32::try_from(self.rooms.len())?;
        let room = &mut self.rooms[room_of(u32::try_from(self.sent)?, count) as usize];
        let event = act("event", &room.appended.len().to_string()).args(&self.args);
        let now = Instant::now();
        match room.seat.arrive(&event) {
            Ok(()) => {}
            Err(refusal) if refusal.code == ErrorCode::Busy => return Ok(false),
            Err(refusal) => bail!("an event was refused: {refusal}"),
        }
        room.appended.push(now);
        room.answered.push(false);
        self.sent += 1;
        Ok(true)
    }

    /// Returns when at least one verdict came.
    async fn receive(&mut self) -> Result<()> {
        poll_fn(|turn| match self.poll(turn) {
            Ok(0) => Poll::Pending,
            Ok(_) => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(e)),
        })
        .await
    }

    fn receive_ready(&mut self) -> Result<usize> {
        self.poll(&mut Turn::from_waker(std::task::Waker::noop()))
    }

    /// Takes all verdicts that are there.
    fn poll(&mut self, turn: &mut Turn<'_>) -> Result<usize> {
        let before = self.answered;
        for room in &mut self.rooms {
            while let Poll::Ready(delivery) = pin!(room.seat.recv()).poll(turn) {
                let number = match &delivery {
                    Some(Delivery::Verdict { frames, .. }) => frames.verdict().id.as_deref().and_then(|id| id.parse().ok()),
                    other => bail!("a session ended early: {other:?}"),
                };
                let Some(number) = number.filter(|n: &usize| *n < room.appended.len()) else { continue };
                let now = Instant::now();
                if std::mem::replace(&mut room.answered[number], true) {
                    self.doubled += 1;
                    continue;
                }
                self.inverted += u64::from(number < room.next);
                room.next = room.next.max(number + 1);
                self.answered += 1;
                self.last = now;
                if room.appended[number] >= self.began + WARM_UP {
                    self.latency.record(now - room.appended[number]);
                }
            }
        }
        Ok(self.answered - before)
    }

    fn figures(&self, args: &ProducerArgs) -> QueueFigures {
        let quantiles = args.rate.map(|_| self.latency.quantiles());
        QueueFigures {
            n: self.sent as u64,
            jobs_per_s: self.answered as f64 / (self.last - self.began).as_secs_f64(),
            start_inv: self.inverted,
            lost: (self.sent - self.answered) as u64,
            doubled: self.doubled,
            p50_us: quantiles.map(|q| q.p50),
            p99_us: quantiles.map(|q| q.p99),
        }
    }
}

/// The rooms in the rivals' fixed pseudo-random order.
fn room_of(event: u32, rooms: u32) -> u32 {
    let mut hash = event.wrapping_add(1).wrapping_mul(0x9e37_79b1);
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x85eb_ca77);
    (hash ^ (hash >> 13)) % rooms
}
