//! Several hosts on one machine, each with a clock of its own, and rooms whose homes move between them: players compete while a host is
//! killed, paused, cut off or drained, or its clock steps. Then every player's record is compared with the journal's.
//!
//! `lab` makes the hosts, `fleet` runs a supervisor on each and breaks them, `race` is two rivals who are a known time apart, `report`
//! says how it was. Players, servers and judge are those of `chaos`, which breaks hosts, too, while it breaks nodes.

mod fleet;
mod lab;
mod race;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use lasthit::internals::limits::SHARDS_DEFAULT;
use lasthit::journal::Journal;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::types::{RoomId, ShardId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::game::Game;
use crate::chaos::layout::{Layout, Nodes, On};
use crate::chaos::player::{Phase, Player, World};
use crate::chaos::record::Record;
use crate::chaos::servers::Servers;
use crate::chaos::{Durability, WORKER_ARGS, judge, read_rooms, until_quiet};
use crate::limits::PLAY_ON_TIMEOUT;
pub(crate) use fleet::{Ended, Hosts, Kind};
pub(crate) use lab::{Held, Way, hold};
use report::Fault;
pub(crate) use report::HostsReport;

/// How long the last answers may take when nothing is broken any more.
const DRAIN: Duration = Duration::from_secs(30);
/// How long players may take to leave when they are told to.
const LEAVE: Duration = Duration::from_secs(10);
/// Play before the first fault. Within 5 s each host learns that it is not alone, and says more often that it lives.
const LEAD: Duration = Duration::from_secs(6);
/// What is told first where a machine lacks what hosts take.
const NONE_HERE: &str = "no hosts can be made here";
/// How much of the time between two faults a fault lasts.
const PART: f64 = 0.5;
/// Between looks at whether all rooms play on.
const LOOK: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct HostsConfig {
    /// Of everything that is drawn.
    pub(crate) seed: u64,
    /// How long things are broken.
    pub(crate) duration: Duration,
    pub(crate) hosts: usize,
    /// Of each host.
    pub(crate) gateways: usize,
    /// Of each host.
    pub(crate) workers: usize,
    /// Players over all rooms but those of rivals.
    pub(crate) players: usize,
    pub(crate) rooms: usize,
    /// Actions a second over all players.
    pub(crate) rate: u32,
    /// Rooms with two rivals each.
    pub(crate) races: usize,
    /// The journal is a cluster of this size, instead of one Redis.
    pub(crate) cluster: Option<Nodes>,
    /// Kinds of faults; all when it is empty.
    pub(crate) only: Vec<Kind>,
}

/// Enters a network of its own: call it before anything else is started.
///
/// # Errors
/// Without root, or where the machine lacks what it takes, in one line.
pub(crate) fn enter() -> Result<()> {
    lab::enter().context(NONE_HERE)
}

/// Breaks, drains, judges. None when `stop` was ready first.
pub(crate) async fn run(config: &HostsConfig, stop: impl Future<Output = ()>) -> Result<Option<HostsReport>> {
    ensure!(config.players >= config.rooms, "{} players leave some of {} rooms empty", config.players, config.rooms);
    let layout = config.cluster.map_or(Layout::Single, Layout::Cluster);
    let on = On { layout, durability: Durability::Redis, valkey: false, hosts: true };
    let servers = Servers::start(on).context("no redis-server")?;
    let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for logs")?;
    let url = servers.url();
    let size = (config.hosts, config.gateways, config.workers);
    let mut hosts = Hosts::start(size, url.clone(), &WORKER_ARGS, dir.path()).await?;
    let done = tokio::select! {
        done = play(config, &url, &mut hosts) => done.map(Some),
        () = stop => Ok(None),
    };
    if done.as_ref().map_or(true, |report| report.as_ref().is_some_and(|report| report.failure().is_some())) {
        eprintln!("{}", hosts.logs().join("\n"));
    }
    hosts.end().await;
    done
}

async fn play(config: &HostsConfig, redis: &str, hosts: &mut Hosts) -> Result<HostsReport> {
    let game = Game::of(None)?;
    let names: Vec<String> = (0..config.rooms).map(|n| game.room(n)).collect();
    let rooms: Vec<RoomId> = names.iter().map(|name| RoomId::new(name)).collect::<Result<_, _>>().context("room")?;
    let options =
        RedisOptions { prefix: "lasthit".to_owned(), shards: Some(SHARDS_DEFAULT), durability: None, runtime_dir: None };
    let journal: Arc<dyn Journal> = Arc::new(RedisJournal::connect(redis, options).await?);
    let pace = Duration::from_secs(1).mul_f64(config.players as f64 / f64::from(config.rate.max(1)));
    let mut world = World::new(hosts.urls(), (config.players, config.rooms), pace, game.clone());
    world.are_hosts = true;
    let world = Arc::new(world);
    let (phase, seen) = watch::channel(Phase::Play);
    let mut players = JoinSet::new();
    for number in 0..config.players {
        let room = number % config.rooms;
        let player = Player::new(number, (room, names[room].clone()), false, config.seed, Arc::clone(&world), seen.clone());
        players.spawn(async move { (number, player.play().await) });
    }
    let mut racing = JoinSet::new();
    for number in 0..config.races {
        let room = game.room(config.rooms + number);
        racing.spawn(race::race(room, config.seed ^ (1 << 32) ^ number as u64, Arc::clone(&world), seen.clone()));
    }

    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let kinds: Vec<Kind> = if config.only.is_empty() { Kind::ALL.to_vec() } else { config.only.clone() };
    let slot = config.duration / u32::try_from(kinds.len()).unwrap_or(1);
    let bar = ProgressBar::new(kinds.len() as u64).with_style(style);
    let (mut faults, mut own_ends) = (Vec::new(), 0);
    sleep_until(world.start + LEAD).await;
    for kind in kinds {
        bar.set_message(kind.name());
        let (host, shards) = hosts.busiest(0).await;
        let (at, begins) = (world.now(), Instant::now());
        let doing = hosts.begin(kind, host).await;
        doing.with_context(|| format!("{} of host {}", kind.name(), host + 1))?;
        sleep_until(begins + slot.mul_f64(PART)).await;
        hosts.finish(kind, host).await.with_context(|| format!("the end of {} of host {}", kind.name(), host + 1))?;
        own_ends += hosts.revive()?.len();
        hosts.until_ready().await?;
        sleep_until(begins + slot).await;
        let is_there = |room: &RoomId| shards.contains(&ShardId::of(room, journal.shards()));
        let affected: Vec<usize> = (0..rooms.len()).filter(|n| is_there(&rooms[*n])).collect();
        // A slow machine has as much time as it needs.
        let deadline = Instant::now() + PLAY_ON_TIMEOUT;
        while Instant::now() < deadline && !affected.iter().all(|room| world.plays_since(*room, at)) {
            sleep(LOOK).await;
        }
        faults.push(Fault { at, kind, host, rooms: affected, until: world.now() });
        bar.inc(1);
    }
    bar.finish_and_clear();

    // Everything works again: what is not answered now is lost.
    phase.send_replace(Phase::Drain);
    let mut records: Vec<Record> = vec![Record::default(); config.players];
    let mut collect = async |until: Instant| -> Result<bool> {
        while let Ok(done) = tokio::time::timeout_at(until, players.join_next()).await {
            let Some(done) = done else { return Ok(true) };
            let (number, record) = done?;
            records[number] = record;
        }
        Ok(false)
    };
    if !collect(Instant::now() + DRAIN).await? {
        phase.send_replace(Phase::Over);
        ensure!(collect(Instant::now() + LEAVE).await?, "a player does not end");
    }
    let mut races = race::Races::default();
    while let Ok(Some(done)) = tokio::time::timeout(DRAIN + LEAVE, racing.join_next()).await {
        races.add(done?);
    }
    until_quiet(&*journal).await?;
    let kept = read_rooms(&*journal, &rooms, &game, &game.book()).await?;
    let findings = judge::judge(&records, &kept, &game, &BTreeSet::new());
    Ok(HostsReport::new(config, &faults, &records, &kept, findings, races, own_ends))
}
