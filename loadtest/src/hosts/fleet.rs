//! A supervisor on each host, and what is done to the hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lasthit::types::ShardId;
use nix::sys::signal::Signal;
use servers::{Cluster, RedisServer, Shape};
use tempfile::TempDir;

use super::lab::{Host, Way};
use crate::chaos::layout::Nodes;
use crate::spawn::binary;
use crate::spawn::process::Process;

/// Where each host's players connect.
const PORT: u16 = 7777;
/// Where each host's metrics are.
const ADMIN_PORT: u16 = 9090;
/// How far the hosts' clocks are from the machine's, each by its number: a second one that has been up for long, and a third one that is
/// nearly as the first.
const AHEAD: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1_000), Duration::from_millis(1), Duration::from_secs(10 * 24 * 3_600)];
/// How far ahead the clock of a host is that boots again: on from what it was, so that it differs from all others.
const AHEAD_AGAIN: Duration = Duration::from_secs(37);

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
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Kill, Self::Pause, Self::CutRedis, Self::CutPlayers, Self::Drain];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::CutRedis => "cut-redis",
            Self::CutPlayers => "cut-players",
            Self::Drain => "drain",
        }
    }
}

/// A host over all of its lives.
#[derive(Debug)]
struct Place {
    host: Option<Host>,
    process: Option<Process>,
    lives: u32,
}

/// What all hosts share.
#[derive(Debug)]
enum Store {
    One(RedisServer),
    Cluster(Cluster),
}

impl Store {
    fn start(nodes: Option<Nodes>) -> Result<Self> {
        let Some(nodes) = nodes else {
            // Its network is one of its own: only the hosts are in it.
            let redis = RedisServer::start_tcp(&["--bind", "0.0.0.0", "--protected-mode", "no"]);
            return Ok(Self::One(redis.context("no redis-server")?));
        };
        let shape = Shape { address: Way::Redis.address(0), ..Shape::default() };
        let cluster = Cluster::start_as(shape, nodes.primaries.into(), nodes.replicas.into(), &[]);
        Ok(Self::Cluster(cluster.context("no cluster of redis-server")?.context("no redis-server")?))
    }

    /// As it is reached on the hosts' network, on which whoever is outside of the hosts is too.
    fn url(&self) -> Result<String> {
        match self {
            Self::One(redis) => {
                let port = redis.address().context("a redis without a port")?.port();
                Ok(format!("redis://{}:{port}", Way::Redis.address(0)))
            }
            Self::Cluster(cluster) => Ok(cluster.url()),
        }
    }
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Fleet {
    places: Vec<Place>,
    gateways: usize,
    workers: usize,
    /// The URL, and what it leads to.
    redis: (String, Store),
    binary: PathBuf,
    dir: TempDir,
    /// Supervisors that ended without being told to.
    own_ends: usize,
}

impl Fleet {
    /// Starts everything, and returns when all of it is ready.
    pub(super) async fn start(hosts: usize, gateways: usize, workers: usize, cluster: Option<Nodes>) -> Result<Self> {
        ensure!((1..=AHEAD.len()).contains(&hosts), "{hosts} hosts: use 1 to {}", AHEAD.len());
        let binary = binary::lasthit()?;
        let store = Store::start(cluster)?;
        let redis = (store.url()?, store);
        let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for logs")?;
        let places = (0..hosts).map(|_| Place { host: None, process: None, lives: 0 }).collect();
        let mut fleet = Self { places, gateways, workers, redis, binary, dir, own_ends: 0 };
        for n in 0..hosts {
            fleet.boot(n)?;
        }
        fleet.until_ready().await?;
        Ok(fleet)
    }

    fn boot(&mut self, n: usize) -> Result<()> {
        let redis = self.redis_url();
        let place = &mut self.places[n];
        let host = Host::boot(n, place.lives, AHEAD[n] + AHEAD_AGAIN * place.lives)?;
        place.lives += 1;
        let listen = SocketAddr::from((Way::Players.address(n + 1), PORT));
        let admin = SocketAddr::from((Way::Players.address(n + 1), ADMIN_PORT));
        let dir = self.dir.path().join(format!("host-{}", n + 1));
        std::fs::create_dir_all(&dir)?;
        let [listen, admin, url] = [listen.to_string(), admin.to_string(), format!("ws://{listen}")];
        let (gateways, workers) = (self.gateways.to_string(), self.workers.to_string());
        let control = dir.join("control.sock").display().to_string();
        let mut args = host.enter_args();
        args.push(self.binary.display().to_string());
        let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
        all.extend(["up", "--redis", &redis, "--listen", &listen, "--admin", &admin, "--advertise", &url]);
        all.extend(["--gateways", &gateways, "--workers", &workers, "--control", &control]);
        all.extend(["--allow-keyless", "--allow-remote-admin"]);
        all.extend(["--retention", "2h", "--room-linger", "2h"]);
        let name = format!("host-{}.{}", n + 1, place.lives);
        let address: SocketAddr = admin.parse()?;
        let process = Process::lasthit(Path::new("nsenter"), &name, &all, std::iter::empty(), address, &dir)?;
        (place.host, place.process) = (Some(host), Some(process));
        Ok(())
    }

    /// Waits until every host is ready.
    pub(super) async fn until_ready(&mut self) -> Result<()> {
        for place in &mut self.places {
            if let Some(process) = &mut place.process {
                process.ready().await?;
            }
        }
        Ok(())
    }

    /// Where players reach the hosts.
    pub(super) fn urls(&self) -> Vec<String> {
        (0..self.places.len()).map(|n| format!("ws://{}:{PORT}", Way::Players.address(n + 1))).collect()
    }

    /// The Redis, for the hosts and for whoever is outside of them.
    pub(super) fn redis_url(&self) -> String {
        self.redis.0.clone()
    }

    /// The host that is the home of most shards, and those.
    pub(super) fn busiest(&self, homes: &BTreeMap<String, Vec<ShardId>>) -> Option<(usize, Vec<ShardId>)> {
        let named = self.places.iter().enumerate().filter_map(|(n, place)| Some((n, place.host.as_ref()?.name()?)));
        let with = named.filter_map(|(n, name)| Some((n, homes.get(&name)?.clone())));
        with.max_by_key(|(_, shards)| shards.len())
    }

    /// Breaks a host.
    pub(super) async fn begin(&mut self, kind: Kind, n: usize) -> Result<()> {
        let place = &mut self.places[n];
        let host = place.host.as_ref().context("the host is down")?;
        match kind {
            Kind::Kill => {
                host.signal(Signal::SIGKILL)?;
                if let Some(process) = place.process.take() {
                    process.kill().await;
                }
                place.host = None;
            }
            Kind::Pause => host.signal(Signal::SIGSTOP)?,
            Kind::CutRedis => host.cut(Way::Redis, true)?,
            Kind::CutPlayers => host.cut(Way::Players, true)?,
            Kind::Drain => self.ask("drain", n)?,
        }
        Ok(())
    }

    /// Mends it again.
    pub(super) async fn finish(&mut self, kind: Kind, n: usize) -> Result<()> {
        let place = &self.places[n];
        match (kind, &place.host) {
            (Kind::Kill, _) => self.boot(n)?,
            (Kind::Pause, Some(host)) => host.signal(Signal::SIGCONT)?,
            (Kind::CutRedis, Some(host)) => host.cut(Way::Redis, false)?,
            (Kind::CutPlayers, Some(host)) => host.cut(Way::Players, false)?,
            (Kind::Drain, Some(_)) => self.ask("undrain", n)?,
            (_, None) => {}
        }
        for place in &mut self.places {
            if let Some(process) = &mut place.process
                && process.ended().is_some()
            {
                self.own_ends += 1;
            }
        }
        self.until_ready().await
    }

    /// Asks the deployment something about a host, from outside.
    fn ask(&self, what: &str, n: usize) -> Result<()> {
        let name = self.places[n].host.as_ref().and_then(Host::name).context("the host has no name")?;
        let asked = Command::new(&self.binary).args([what, &name, "--redis", &self.redis_url()]).output()?;
        let said = String::from_utf8_lossy(&asked.stderr);
        ensure!(asked.status.success(), "lasthit {what}: {}", said.trim());
        Ok(())
    }

    /// How many supervisors have ended without being told to.
    pub(super) fn ended_by_themselves(&self) -> usize {
        self.own_ends
    }

    /// The last log lines of all hosts.
    pub(super) fn logs(&mut self) -> String {
        let logs: Vec<String> = self.places.iter_mut().filter_map(|place| place.process.as_mut()).map(Process::log).collect();
        logs.join("\n")
    }

    /// Ends everything but Redis, which ends with its handle.
    pub(super) async fn end(mut self) {
        let ending: Vec<_> = self.places.iter_mut().filter_map(|place| place.process.take()).map(Process::end).collect();
        futures_util::future::join_all(ending).await;
    }
}
