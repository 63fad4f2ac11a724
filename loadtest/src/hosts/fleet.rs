//! A supervisor on each host, and what is done to the hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lasthit::internals::limits::SHARDS_DEFAULT;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{CommonJournal as _, GatewayJournal as _};
use lasthit::types::ShardId;
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::lab::{Host, Way};
use crate::limits::{HOST_ASK_PAUSE, HOST_ASK_TIMEOUT, HOSTS_MAX};
use crate::spawn::binary;
use crate::spawn::process::Process;

/// Where each host's players connect.
const PORT: u16 = 7777;
/// Where each host's metrics are.
const ADMIN_PORT: u16 = 9090;
/// How far the hosts' clocks are from the machine's, each by its number: a second one that has been up for long, and a third one that is
/// nearly as the first.
const AHEAD: [Duration; HOSTS_MAX as usize] = [
    Duration::from_secs(3_600),
    Duration::from_secs(3_600 + 1_000),
    Duration::from_millis(3_600_001),
    Duration::from_secs(10 * 24 * 3_600),
];
/// How much further ahead the clock of a host is that boots again, so that it differs from all others.
const AHEAD_AGAIN: Duration = Duration::from_secs(37);
/// How far the clock of a host steps back.
const STEP: Duration = Duration::from_secs(600);

/// What is done to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// All of its processes are killed; it boots again later, as another host with another clock
    Kill,
    /// All of its processes stand still for a while
    Pause,
    /// It does not reach Redis for a while
    CutRedis,
    /// Players do not reach it for a while
    CutPlayers,
    /// Its rooms move to the other hosts, in order (`lasthit drain`), and some come back later
    Drain,
    /// All of its processes are killed and start again at once, by a clock that is 600 s behind the one before
    ClockStep,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [Self::Kill, Self::Pause, Self::CutRedis, Self::CutPlayers, Self::Drain, Self::ClockStep];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::CutRedis => "cut-redis",
            Self::CutPlayers => "cut-players",
            Self::Drain => "drain",
            Self::ClockStep => "clock-step",
        }
    }
}

/// A host over all of its lives.
#[derive(Debug)]
struct Place {
    host: Option<Host>,
    process: Option<Process>,
    lives: u32,
    /// How far its clock is from the machine's.
    ahead: Duration,
    /// How often its supervisor was started.
    starts: u32,
}

/// A supervisor that ended without being told to, and was started again.
#[derive(Debug)]
pub(crate) struct Ended {
    /// It could not start.
    pub(crate) refused: bool,
    pub(crate) log: String,
}

/// The hosts, each with a supervisor.
#[derive(Debug)]
pub(crate) struct Hosts {
    places: Vec<Place>,
    /// What every supervisor is told.
    args: Vec<String>,
    redis: String,
    /// Where the homes are asked for, once all hosts are ready.
    journal: Option<RedisJournal>,
    binary: PathBuf,
    /// Each has a directory of its own in it.
    dir: PathBuf,
}

impl Hosts {
    /// Starts so many, each with so many gateways and workers on this Redis, and returns when all of them are ready. Supervisors are told
    /// these arguments, too.
    ///
    /// # Errors
    /// Without root, or where something does not start.
    pub(crate) async fn start(
        (count, gateways, workers): (usize, usize, usize),
        redis: String,
        more: &[&str],
        dir: &Path,
    ) -> Result<Self> {
        ensure!((1..=AHEAD.len()).contains(&count), "{count} hosts: use 1 to {}", AHEAD.len());
        let binary = binary::lasthit()?;
        let (gateways, workers) = (gateways.to_string(), workers.to_string());
        let args = ["--redis", &redis, "--gateways", &gateways, "--workers", &workers, "--allow-keyless", "--allow-remote-admin"];
        let args = args.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        let place = |ahead: &Duration| Place { host: None, process: None, lives: 0, ahead: *ahead, starts: 0 };
        let places = AHEAD[..count].iter().map(place).collect();
        let mut hosts = Self { places, args, redis, journal: None, binary, dir: dir.to_owned() };
        for n in 0..count {
            hosts.boot(n)?;
        }
        hosts.until_ready().await?;
        // Not before the deployment is there: it is of the hosts' making.
        let options =
            RedisOptions { prefix: "lasthit".to_owned(), shards: Some(SHARDS_DEFAULT), durability: None, runtime_dir: None };
        hosts.journal = Some(RedisJournal::connect(&hosts.redis, options).await.context("the hosts' Redis")?);
        Ok(hosts)
    }

    fn boot(&mut self, n: usize) -> Result<()> {
        let place = &mut self.places[n];
        place.host = Some(Host::boot(n, place.lives, place.ahead).context(super::NONE_HERE)?);
        place.lives += 1;
        self.launch(n)
    }

    /// Starts the supervisor of a host that is up.
    fn launch(&mut self, n: usize) -> Result<()> {
        let place = &mut self.places[n];
        let host = place.host.as_ref().context("the host is down")?;
        let listen = SocketAddr::from((Way::Players.address(n + 1), PORT));
        let admin = SocketAddr::from((Way::Players.address(n + 1), ADMIN_PORT));
        let dir = self.dir.join(format!("host-{}", n + 1));
        std::fs::create_dir_all(&dir)?;
        let [listen, shown, url] = [listen.to_string(), admin.to_string(), format!("ws://{listen}")];
        let control = dir.join("control.sock").display().to_string();
        let mut args = host.enter_args();
        args.push(self.binary.display().to_string());
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.extend(["up", "--listen", &listen, "--admin", &shown, "--advertise", &url, "--control", &control]);
        all.extend(self.args.iter().map(String::as_str));
        place.starts += 1;
        let name = format!("host-{}.{}", n + 1, place.starts);
        place.process = Some(Process::lasthit(Path::new("nsenter"), &name, &all, std::iter::empty(), admin, &dir)?);
        Ok(())
    }

    /// Waits until every host that is up is ready.
    ///
    /// # Errors
    /// When one is not.
    pub(crate) async fn until_ready(&mut self) -> Result<()> {
        for place in &mut self.places {
            if let Some(process) = &mut place.process {
                process.ready().await?;
            }
        }
        Ok(())
    }

    /// Where players reach the hosts.
    pub(crate) fn urls(&self) -> Vec<String> {
        (0..self.places.len()).map(|n| format!("ws://{}:{PORT}", Way::Players.address(n + 1))).collect()
    }

    /// The host that is the home of most shards, and those. Nodes that do not answer are left out; if none does, it is any host.
    pub(crate) async fn busiest(&self, turn: usize) -> (usize, Vec<ShardId>) {
        let mut homes: BTreeMap<String, Vec<ShardId>> = BTreeMap::new();
        for (journal, shard) in self.journal.iter().flat_map(|journal| (0..journal.shards()).map(move |n| (journal, ShardId(n))))
        {
            if let Ok(Some(home)) = journal.home(shard).await.map(|state| state.home) {
                homes.entry(home.host.to_string()).or_default().push(shard);
            }
        }
        let named = self.places.iter().enumerate().filter_map(|(n, place)| Some((n, place.host.as_ref()?.name()?)));
        let with = named.filter_map(|(n, name)| Some((n, homes.get(&name)?.clone())));
        with.max_by_key(|(_, shards)| shards.len()).unwrap_or_else(|| (turn % self.places.len(), Vec::new()))
    }

    /// Breaks a host that is up.
    ///
    /// # Errors
    /// When that does not work.
    pub(crate) async fn begin(&mut self, kind: Kind, n: usize) -> Result<()> {
        let place = &mut self.places[n];
        let host = place.host.as_ref().context("the host is down")?;
        match kind {
            Kind::Kill | Kind::ClockStep => {
                host.signal(Signal::SIGKILL)?;
                if let Some(process) = place.process.take() {
                    process.kill().await;
                }
                place.host = None;
                if kind == Kind::ClockStep {
                    place.ahead = place.ahead.saturating_sub(STEP);
                    self.boot(n)?;
                }
            }
            Kind::Pause => host.signal(Signal::SIGSTOP)?,
            Kind::CutRedis => host.cut(Way::Redis, true)?,
            Kind::CutPlayers => host.cut(Way::Players, true)?,
            Kind::Drain => self.ask("drain", n).await?,
        }
        Ok(())
    }

    /// Mends it again.
    ///
    /// # Errors
    /// When that does not work.
    pub(crate) async fn finish(&mut self, kind: Kind, n: usize) -> Result<()> {
        let place = &mut self.places[n];
        match (kind, &place.host) {
            (Kind::Kill, _) => {
                place.ahead += AHEAD_AGAIN;
                self.boot(n)?;
            }
            (Kind::Pause, Some(host)) => host.signal(Signal::SIGCONT)?,
            (Kind::CutRedis, Some(host)) => host.cut(Way::Redis, false)?,
            (Kind::CutPlayers, Some(host)) => host.cut(Way::Players, false)?,
            (Kind::Drain, Some(_)) => self.ask("undrain", n).await?,
            (Kind::ClockStep, _) | (_, None) => {}
        }
        Ok(())
    }

    /// Starts supervisors again that ended without being told to.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(crate) fn revive(&mut self) -> Result<Vec<Ended>> {
        let mut all = Vec::new();
        for n in 0..self.places.len() {
            let Some(process) = &mut self.places[n].process else { continue };
            let Some(refused) = process.refused() else { continue };
            all.push(Ended { refused, log: process.log() });
            self.launch(n)?;
        }
        Ok(all)
    }

    /// Asks the deployment something about a host, from outside, until it answers: some of its nodes may be away.
    async fn ask(&self, what: &str, n: usize) -> Result<()> {
        let name = self.places[n].host.as_ref().and_then(Host::name).context("the host has no name")?;
        let deadline = Instant::now() + HOST_ASK_TIMEOUT;
        loop {
            let asked =
                Command::new(&self.binary).args([what, &name, "--redis", &self.redis]).kill_on_drop(true).output().await?;
            if asked.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("lasthit {what}: {}", String::from_utf8_lossy(&asked.stderr).trim());
            }
            sleep(HOST_ASK_PAUSE).await;
        }
    }

    /// The last log lines of all hosts.
    pub(crate) fn logs(&mut self) -> Vec<String> {
        self.places.iter_mut().filter_map(|place| place.process.as_mut()).map(Process::log).collect()
    }

    /// Ends all supervisors, and with them what they look after.
    pub(crate) async fn end(&mut self) {
        let ending: Vec<_> = self.places.iter_mut().filter_map(|place| place.process.take()).map(Process::end).collect();
        futures_util::future::join_all(ending).await;
    }
}
