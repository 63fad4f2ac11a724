//! Breaks everything, by a plan, while players compete. Then compares every player's record with the journal's.
//!
//! `plan` says what breaks when, on what `layout` of Redis; `fleet` and `servers` break it, and `player` plays a `game` on whatever happens.
//! `wire` is the players' protocol, `record` is what they saw, `rude` is a hostile session. `judge` compares, `recovery` and `nodes` measure,
//! `report` prints.

pub(crate) mod fleet;
pub(crate) mod game;
pub(crate) mod judge;
pub(crate) mod layout;
mod nodes;
pub(crate) mod plan;
pub(crate) mod player;
pub(crate) mod record;
mod recovery;
mod report;
mod rude;
pub(crate) mod servers;
pub(crate) mod wire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lasthit::internals::limits::SHARDS_DEFAULT;
use lasthit::internals::replay::Recording;
use lasthit::internals::wire::entry;
use lasthit::internals::wire::verdicts;
use lasthit::journal::Journal;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::rules::RulesBook;
use lasthit::types::{EventKind, RoomId, ShardId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub(crate) use self::plan::Kind;
pub(crate) use self::report::ChaosReport;
use fleet::{Fleet, Size};
use game::Game;
use judge::timers::Wrong;
use layout::{Layout, On};
use nodes::Happened;
use plan::{Fault, Target, Terms};
use player::{Phase, Player, World};
use record::{Record, RoomRecord};
use recovery::{Affected, Killed};

use crate::limits::PROGRESS_INTERVAL;

/// How long the last answers may take when nothing is broken any more.
const DRAIN: Duration = Duration::from_secs(60);
/// How long the workers may take to resolve what is left when everybody has gone.
const QUIET: Duration = Duration::from_secs(20);
/// How long players may take to leave when they are told to.
const LEAVE: Duration = Duration::from_secs(10);
/// How long Redis may take to say who owns what just before a kill.
const OWNERS: Duration = Duration::from_millis(150);
/// The shortest stretch that is measured without faults.
const STRETCH_MIN: Duration = Duration::from_secs(3);
/// The longest.
const STRETCH_MAX: Duration = Duration::from_secs(15);
/// Between looks at whether something has come about.
const LOOK: Duration = Duration::from_millis(50);
/// Rooms outlast the run: their streams are what it is judged by.
pub(crate) const WORKER_ARGS: [&str; 4] = ["--retention", "2h", "--room-linger", "2h"];

/// What a verdict has survived before anyone sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// Redis syncs its file every second and is never killed, only stopped gracefully
    Redis,
    /// Redis syncs its file before it answers, and is killed
    Disk,
    /// A replica confirms before anyone sees a verdict, and takes over when Redis is killed
    Replicated,
}

impl Durability {
    /// What a server is told about its file.
    fn persistence(self) -> &'static [&'static str] {
        match self {
            Self::Redis | Self::Replicated => &["--appendonly", "yes", "--appendfsync", "everysec", "--repl-backlog-ttl", "1"],
            Self::Disk => &["--appendonly", "yes", "--appendfsync", "always", "--repl-backlog-ttl", "1"],
        }
    }

    /// Whether a run at this level has faults of this kind: they lose nothing there, and there is what they need.
    fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::RedisKill => self == Self::Disk,
            Kind::RedisFailover | Kind::RedisDemote => self == Self::Replicated,
            _ => true,
        }
    }

    /// As in the report.
    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Disk => "disk",
            Self::Replicated => "replicated",
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct ChaosConfig {
    /// Of everything that is drawn.
    pub(crate) seed: u64,
    /// How long things are broken.
    pub(crate) duration: Duration,
    /// How Redis is set up.
    pub(crate) durability: Durability,
    /// On what kind of Redis.
    pub(crate) layout: Layout,
    /// Its servers are Valkey 9.
    pub(crate) valkey: bool,
    /// Faults in a minute.
    pub(crate) per_minute: u32,
    /// Kinds of faults; all when it is empty.
    pub(crate) only: Vec<Kind>,
    /// Gateways.
    pub(crate) gateways: usize,
    /// Workers.
    pub(crate) workers: usize,
    /// Gateways and workers of a supervisor, if there is one.
    pub(crate) supervised: Option<(usize, usize)>,
    /// Hosts, each with so many gateways and workers; 0 for none.
    pub(crate) hosts: usize,
    /// Players over all rooms.
    pub(crate) players: usize,
    /// Rooms.
    pub(crate) rooms: usize,
    /// Actions a second over all players.
    pub(crate) rate: u32,
    /// One more session is rude.
    pub(crate) rude: bool,
    /// Rooms are decided by this program, which has the actions of an arena, instead of the built-in claims.
    pub(crate) rules: Option<PathBuf>,
}

impl ChaosConfig {
    fn on(&self) -> On {
        On { layout: self.layout, durability: self.durability, valkey: self.valkey, hosts: self.hosts > 0 }
    }

    /// How long each of two stretches before the first fault is, without the rude session and with it: long enough for some
    /// thousand answers, and a small part of the run. What nodes do to the others is compared with them, too.
    fn stretch(&self) -> Duration {
        if self.rude || self.layout != Layout::Single {
            (self.duration / 10).clamp(STRETCH_MIN, STRETCH_MAX)
        } else {
            Duration::ZERO
        }
    }
}

/// Whether all that was asked for fits together: before anything is started.
///
/// # Errors
/// What does not, and what to do, in one line.
pub(crate) fn check(config: &ChaosConfig) -> Result<()> {
    let on = config.on();
    if let Some(kind) = config.only.iter().find(|kind| kind.needs_supervisor() && config.supervised.is_none()) {
        bail!("{} needs a supervisor: add --supervised", kind.name());
    }
    if let Some(why) = config.only.iter().find_map(|kind| on.lacks(*kind)) {
        bail!("{why}");
    }
    ensure!(
        !on.hosts || matches!(config.layout, Layout::Cluster(_)),
        "--hosts is for hosts on a cluster: add --cluster 3x2, or use `loadtest hosts`"
    );
    ensure!(!on.hosts || config.supervised.is_none(), "each host has a supervisor: leave out --supervised or --hosts");
    ensure!(
        !config.valkey || config.layout != Layout::Single,
        "--valkey is for servers of --cluster or --sentinel: add one of them"
    );
    ensure!(
        config.layout == Layout::Single || config.durability != Durability::Replicated || config.layout.replicas() > 0,
        "--durability replicated needs a replica of each primary: use --cluster 3x2"
    );
    ensure!(
        config.players >= config.rooms,
        "{} players leave some of {} rooms empty: use at least one player a room",
        config.players,
        config.rooms
    );
    Ok(())
}

/// Breaks, drains, judges what was [checked](check). None when `stop` was ready first.
pub(crate) async fn run(config: &ChaosConfig, stop: impl Future<Output = ()>) -> Result<Option<ChaosReport>> {
    let ChaosConfig { gateways, workers, supervised, hosts, .. } = *config;
    let size = Size { gateways, workers, supervised, hosts };
    let on = config.on();
    if config.only.is_empty() && !config.valkey && matches!(config.layout, Layout::Cluster(_)) {
        eprintln!("skipped: {}", on.lacks(Kind::SlotMoveAtomic).unwrap_or_default());
    }
    let kinds = Kind::all(on, config.supervised.is_some());
    let only = |kind: &Kind| config.only.is_empty() || config.only.contains(kind);
    let terms = Terms {
        seed: config.seed,
        duration: config.duration,
        per_minute: config.per_minute,
        gateways: config.gateways,
        workers: config.workers,
        supervised: config.supervised.is_some(),
        hosts: on.hosts,
        kinds: kinds.into_iter().filter(only).collect(),
    };
    let faults = plan::plan(&terms);
    let game = Game::of(config.rules.as_deref())?;
    let rules = config.rules.as_ref().map(|path| path.display().to_string());
    let mut args = WORKER_ARGS.to_vec();
    args.extend(rules.iter().flat_map(|rules| ["--rules", rules]));
    let fleet = Fleet::start(on, size, &args).await?;
    let done = tokio::select! {
        done = play(config, &game, &faults, &fleet) => done.map(Some),
        () = stop => Ok(None),
    };
    if done.as_ref().map_or(true, |report| report.as_ref().is_some_and(|report| report.failure().is_some())) {
        eprintln!("{}", fleet.logs().await);
    }
    // A process that ends by itself is news even when nothing came of it.
    for log in fleet.own_ends() {
        eprintln!("{log}");
    }
    fleet.end().await;
    done
}

async fn play(config: &ChaosConfig, game: &Game, faults: &[Fault], fleet: &Arc<Fleet>) -> Result<ChaosReport> {
    let rooms: Vec<RoomId> = (0..config.rooms).map(|n| RoomId::new(&game.room(n))).collect::<Result<_, _>>().context("room")?;
    let options =
        || RedisOptions { prefix: "lasthit".to_owned(), shards: Some(SHARDS_DEFAULT), durability: None, runtime_dir: None };
    let journal: Arc<dyn Journal> = Arc::new(RedisJournal::connect(fleet.redis_url(), options()).await?);
    let pace = Duration::from_secs(1).mul_f64(config.players as f64 / f64::from(config.rate.max(1)));
    let mut world = World::new(fleet.urls().to_vec(), (config.players, config.rooms), pace, game.clone());
    world.are_hosts = config.hosts > 0;
    let world = Arc::new(world);
    let (phase, seen) = watch::channel(Phase::Play);
    let mut players = JoinSet::new();
    for number in 0..config.players {
        let room = number % config.rooms;
        let name = rooms[room].to_string();
        // The first player of a room.
        let keeper = game.has_keepers() && number == room;
        let player = Player::new(number, (room, name), keeper, config.seed, Arc::clone(&world), seen.clone());
        players.spawn(async move { (number, player.play().await) });
    }
    let supervisor = tokio::spawn({
        let fleet = Arc::clone(fleet);
        async move { fleet.supervise().await }
    });
    let (killed, happened) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let progress = tokio::spawn(show_progress(Arc::clone(&world), Arc::clone(&killed), config.stretch() * 2 + config.duration));

    let stretch = config.stretch();
    let over = stretch * 2 + config.duration;
    sleep_until(world.start + stretch).await;
    let rude = config.rude.then(|| {
        let (room, world) = (rooms[0].to_string(), Arc::clone(&world));
        tokio::spawn(rude::be_rude(room, config.seed, world, phase.subscribe()))
    });

    let mut breaking = JoinSet::new();
    for fault in faults.iter().copied() {
        sleep_until(world.start + stretch * 2 + fault.at).await;
        let (fleet, world, journal) = (Arc::clone(fleet), Arc::clone(&world), Arc::clone(&journal));
        let (killed, happened, rooms) = (Arc::clone(&killed), Arc::clone(&happened), rooms.clone());
        breaking.spawn(async move {
            let note = |kill| {
                killed.lock().map_err(|_| anyhow!("a fault failed"))?.push(kill);
                anyhow::Ok(())
            };
            // Which node or host it will be is known when it happens.
            if fault.kind.is_kill() && !matches!(fault.kind, Kind::NodeKill | Kind::HostKill) {
                let affected = affected(&fault, &fleet, &world, &*journal, &rooms).await;
                note(Killed { at: world.now(), kind: fault.kind, affected })?;
            }
            let done = fleet.inflict(fault).await;
            let done = done.with_context(|| format!("{} of {:?} failed", fault.kind.name(), fault.target))?;
            let Some(hit) = done else { return anyhow::Ok(()) };
            let happening = Happened::new(fault.kind, &hit, world.start, &rooms, journal.shards());
            if fault.kind.is_kill() {
                note(Killed { at: happening.from, kind: fault.kind, affected: Affected::Rooms(happening.rooms.clone()) })?;
            }
            happened.lock().map_err(|_| anyhow!("a fault failed"))?.push(happening);
            Ok(())
        });
    }
    sleep_until(world.start + over).await;
    while let Some(done) = breaking.join_next().await {
        done??;
    }

    let unready = fleet.until_ready().await.err().map(|why| format!("{why:#}"));
    let over = world.now().max(over);

    // Everything works again: what is not answered now is lost.
    phase.send_replace(Phase::Drain);
    if let Some(rude) = rude {
        rude.await?;
    }
    let mut records: Vec<Record> = vec![Record::default(); config.players];
    let deadline = Instant::now() + DRAIN;
    let mut collect = async |until: Instant| -> Result<bool> {
        while let Ok(done) = tokio::time::timeout_at(until, players.join_next()).await {
            let Some(done) = done else { return Ok(true) };
            let (number, record) = done?;
            records[number] = record;
        }
        Ok(false)
    };
    if !collect(deadline).await? {
        phase.send_replace(Phase::Over);
        ensure!(collect(Instant::now() + LEAVE).await?, "a player does not end");
    }
    let drained = world.now().saturating_sub(over);
    progress.abort();
    until_quiet(&*journal).await?;
    let book = game.book();
    let kept = read_rooms(&*journal, &rooms, game, &book).await?;
    supervisor.abort();
    match supervisor.await {
        Err(error) if error.is_cancelled() => {}
        ended => ended??,
    }
    let happened = happened.lock().map_err(|_| anyhow!("a fault failed"))?.clone();
    let may_lose = config.layout.may_lose(config.durability);
    let may_lose = if may_lose { nodes::may_have_lost(&happened, config.layout) } else { BTreeSet::new() };
    let findings = judge::judge(&records, &kept, game, &may_lose);
    let quiet = stretch..faults.first().map_or(over, |fault| stretch * 2 + fault.at);
    let nodes = (config.layout != Layout::Single).then(|| nodes::figures(&happened, &records, quiet, &findings));
    let killed = killed.lock().map_err(|_| anyhow!("a fault failed"))?.clone();
    let info = fleet.ask(&["INFO", "server"]).await?;
    let named = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    // Valkey names a Redis that it is like, too.
    let valkey = named("valkey_version:").map(|version| format!("Valkey {version}"));
    let redis_version = valkey.or_else(|| named("redis_version:")).unwrap_or_default();
    Ok(ChaosReport::new(
        config,
        faults,
        &killed,
        &records,
        &kept,
        findings,
        report::Run {
            drained,
            nodes,
            reconnects: world.reconnects.load(std::sync::atomic::Ordering::Relaxed),
            own_ends: fleet.own_ends().len() as u64,
            crashes: fleet.crashes(),
            panics: fleet.panics()?,
            supervisor: fleet.supervisor_had().await,
            unready,
            rude: config.rude.then(|| report::Rude {
                joins: world.rude_joins.load(std::sync::atomic::Ordering::Relaxed),
                actions: world.rude_actions.load(std::sync::atomic::Ordering::Relaxed),
                others_p99_ms_without: rude::p99(&records, Duration::ZERO..stretch).map(in_ms),
                others_p99_ms_with: rude::p99(&records, stretch..stretch * 2).map(in_ms),
            }),
            redis_version,
        },
    ))
}

fn in_ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The rooms or players that a coming kill affects.
async fn affected(fault: &Fault, fleet: &Fleet, world: &World, journal: &dyn Journal, rooms: &[RoomId]) -> Affected {
    match fault.target {
        Target::Gateway(n) => Affected::Players(world.seated(n)),
        Target::Redis | Target::Host => Affected::Rooms((0..rooms.len()).collect()),
        // Its address is the last one.
        Target::Supervisor => Affected::Players(world.seated(world.urls.len().saturating_sub(1))),
        Target::Worker(n) => {
            let Some(me) = fleet.incarnation(n).await else { return Affected::Unknown };
            let Ok(Ok(owners)) = timeout(OWNERS, journal.owners()).await else { return Affected::Unknown };
            let mine = |room: &RoomId| {
                let shard = ShardId::of(room, journal.shards());
                let owner = owners.get(usize::from(shard.0)).and_then(|owner| owner.lease);
                owner.is_some_and(|lease| lease.owner.to_string() == me)
            };
            Affected::Rooms((0..rooms.len()).filter(|n| mine(&rooms[*n])).collect())
        }
    }
}

/// Waits until no room has entries that are not resolved.
pub(crate) async fn until_quiet(journal: &dyn Journal) -> Result<()> {
    let deadline = Instant::now() + QUIET;
    loop {
        let mut quiet = true;
        for shard in (0..journal.shards()).map(ShardId) {
            quiet &= journal.survey(shard, false).await.is_ok_and(|survey| survey.active.is_empty());
        }
        if quiet || Instant::now() > deadline {
            // What is unresolved after all this time is told as lost.
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Every room, when no timer is left that has yet to fire. What has not fired after a while is told as lost.
pub(crate) async fn read_rooms(
    journal: &dyn Journal,
    rooms: &[RoomId],
    game: &Game,
    book: &RulesBook,
) -> Result<Vec<RoomRecord>> {
    let deadline = Instant::now() + QUIET;
    loop {
        let mut kept = Vec::with_capacity(rooms.len());
        for room in rooms {
            kept.push(read_room(journal, room, book).await?);
        }
        let waits = |room: &RoomRecord| judge::timers::timers(room, game).1.iter().any(|wrong| matches!(wrong, Wrong::Lost(_)));
        if Instant::now() > deadline || !kept.iter().any(waits) {
            return Ok(kept);
        }
        sleep(LOOK * 10).await;
    }
}

async fn read_room(journal: &dyn Journal, room: &RoomId, book: &RulesBook) -> Result<RoomRecord> {
    let recording = Recording::read(journal, room).await.with_context(|| format!("room {room} cannot be read"))?;
    let deviations = match recording.resolve(book) {
        // Inversions are counted by the judge.
        Ok(replayed) => replayed.deviations.into_iter().filter(|line| !line.contains("its stamp lies before")).collect(),
        Err(error) => vec![error.to_string()],
    };
    let mut accepted = Vec::new();
    for (at, bytes) in &recording.entries {
        let entry = entry::decode(bytes).with_context(|| format!("entry {at} of room {room}"))?;
        let data = entry.events.iter().filter(|event| matches!(event.kind, EventKind::Data(_)));
        accepted.extend(data.map(|event| entry.stamp(event)));
    }
    let (mut epochs, mut all) = (Vec::new(), Vec::new());
    for bytes in &recording.verdicts {
        let batch = verdicts::decode(bytes).with_context(|| format!("verdicts of room {room}"))?;
        epochs.extend(batch.verdicts.first().zip(batch.epoch).map(|(first, epoch)| (first.seq, epoch.ns)));
        all.extend(batch.verdicts);
    }
    Ok(RoomRecord { name: room.to_string(), era: recording.era, seq: recording.seq, epochs, verdicts: all, accepted, deviations })
}

/// A line that lives, when there is a terminal to draw it on.
async fn show_progress(world: Arc<World>, killed: Arc<Mutex<Vec<Killed>>>, duration: Duration) {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(duration.as_millis() as u64).with_style(style);
    while !bar.is_hidden() {
        let answered = world.answered.load(std::sync::atomic::Ordering::Relaxed);
        let kills = killed.lock().map_or(0, |killed| killed.len());
        bar.set_position(world.now().as_millis() as u64);
        bar.set_message(format!("{answered} verdicts  {kills} kills"));
        sleep(PROGRESS_INTERVAL).await;
    }
}
