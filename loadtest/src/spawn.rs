//! The processes under test, started by the load generator itself: a private Redis, gateways and workers, or the
//! one-process form. They are held by their handles and end with [`Fleet::end`], or are killed when it is dropped.

pub(crate) mod binary;
mod cost;
pub(crate) use cost::{Cost, Time, counter, data_events, resident_bytes};
mod parts;
mod peers;
pub(crate) mod process;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;
use servers::{Cluster, Proxy, Upstream};
use tempfile::TempDir;

use crate::limits::{DELAY_MS_MAX, PRIMARIES_MAX, PRIMARIES_MIN, SPAWN_MAX};
use crate::supervised::Supervised;
use parts::run_to_end;
pub(crate) use peers::Peers;
use process::Process;

/// A Redis with this port listens on its Unix socket only.
const NO_PORT: u16 = 0;
/// A supervisor's role, and its name among the processes.
const SUPERVISOR: &str = "up";
/// Jobs that the usual stack's worker has under way, where nothing else was asked for: its own default.
const PEER_CONCURRENCY: u32 = 4;

/// What to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spawn {
    /// One process that plays all roles, without Redis.
    Serve,
    /// Processes on a Redis of their own.
    Redis {
        /// How many gateways.
        gateways: u16,
        /// How many workers.
        workers: u16,
        /// How much later everything between the first gateway and Redis arrives, in either direction.
        delay: Option<Duration>,
    },
    /// Processes on a Redis Cluster of their own, without replicas.
    Cluster {
        /// How many primaries.
        nodes: u16,
        /// How many gateways.
        gateways: u16,
        /// How many workers.
        workers: u16,
    },
    /// The same under a supervisor, behind one address.
    Up {
        /// How many gateways.
        gateways: Count,
        /// How many workers.
        workers: Count,
    },
}

/// How many processes of a role a supervisor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Fixed(u16),
    /// By load.
    Between {
        min: u16,
        max: u16,
    },
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(count) => write!(f, "{count}"),
            Self::Between { min, max } => write!(f, "auto:{min}..{max}"),
        }
    }
}

impl Spawn {
    /// How many processes of lasthit's.
    fn roles(self) -> u16 {
        match self {
            Self::Serve | Self::Up { .. } => 1,
            Self::Redis { gateways, workers, .. } | Self::Cluster { gateways, workers, .. } => gateways + workers,
        }
    }
}

impl FromStr for Spawn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "serve" {
            return Ok(Self::Serve);
        }
        if let Some(counts) = text.strip_prefix("up:") {
            return supervised(text, counts);
        }
        let (mut gateways, mut workers, mut delay, mut cluster) = (None, None, None, None);
        for part in text.split(',') {
            let (what, count) = part.split_once('=').unwrap_or((part, ""));
            if what == "delay" {
                let millis = count.strip_suffix("ms").and_then(|ms| ms.parse().ok()).filter(|ms| (1..=DELAY_MS_MAX).contains(ms));
                let millis = millis.ok_or_else(|| format!("spawn {part:?}: use 1 to {DELAY_MS_MAX} ms, as in delay=20ms"))?;
                if delay.replace(Duration::from_millis(millis)).is_some() {
                    return Err(format!("spawn {text:?} gives delay twice"));
                }
                continue;
            }
            let (slot, range, example) = match what {
                "gateways" => (&mut gateways, 1..=SPAWN_MAX, 2),
                "workers" => (&mut workers, 1..=SPAWN_MAX, 2),
                "cluster" => (&mut cluster, PRIMARIES_MIN..=PRIMARIES_MAX, PRIMARIES_MIN),
                _ => {
                    return Err(format!(
                        "spawn {text:?} is not of the form gateways=2,workers=2, cluster=3,gateways=2,workers=2, \
                         up:gateways=2,workers=2, nor serve"
                    ));
                }
            };
            let count = count.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                let things = if what == "cluster" { "primaries" } else { what };
                format!("spawn {part:?}: use {least} to {most} {things}, as in {what}={example}")
            })?;
            if slot.replace(count).is_some() {
                return Err(format!("spawn {text:?} gives {what} twice"));
            }
        }
        let (gateways, workers) = (gateways.unwrap_or(1), workers.unwrap_or(1));
        match (cluster, delay) {
            (None, delay) => Ok(Self::Redis { gateways, workers, delay }),
            (Some(nodes), None) => Ok(Self::Cluster { nodes, gateways, workers }),
            (Some(_), Some(_)) => Err(format!("spawn {text:?}: a delay is before a single Redis: leave out cluster or delay")),
        }
    }
}

/// Counts of a supervisor's processes.
fn supervised(text: &str, counts: &str) -> Result<Spawn, String> {
    let (mut gateways, mut workers) = (None, None);
    for part in counts.split(',') {
        let (what, count) = part.split_once('=').unwrap_or((part, ""));
        let slot = match what {
            "gateways" => &mut gateways,
            "workers" => &mut workers,
            _ => {
                return Err(format!(
                    "spawn {text:?} is not of the form up:gateways=2,workers=2, nor up:gateways=auto:1..4,workers=1"
                ));
            }
        };
        let number = |text: &str| text.parse().ok().filter(|n| (1..=SPAWN_MAX).contains(n));
        let count = match count.strip_prefix("auto:").and_then(|range| range.split_once("..")) {
            Some((min, max)) => {
                number(min).zip(number(max)).filter(|(min, max)| min <= max).map(|(min, max)| Count::Between { min, max })
            }
            None => number(count).map(Count::Fixed),
        };
        let count =
            count.ok_or_else(|| format!("spawn {part:?}: use 1 to {SPAWN_MAX} {what}, as in {what}=2 or {what}=auto:1..4"))?;
        if slot.replace(count).is_some() {
            return Err(format!("spawn {text:?} gives {what} twice"));
        }
    }
    let one = Count::Fixed(1);
    Ok(Spawn::Up { gateways: gateways.unwrap_or(one), workers: workers.unwrap_or(one) })
}

/// How lasthit's processes are started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Settings other than the defaults, by the names of their flags.
    pub(crate) settings: Vec<(String, String)>,
    /// They reach Redis over TCP instead of its Unix socket.
    pub(crate) tcp: bool,
    /// Another program than the one beside this one.
    pub(crate) binary: Option<PathBuf>,
}

impl Options {
    /// As variables of the environment: a role ignores what is none of its own.
    fn env(&self) -> impl Iterator<Item = (String, &str)> {
        self.settings.iter().map(|(flag, value)| (format!("LASTHIT_{}", flag.to_uppercase().replace('-', "_")), value.as_str()))
    }
}

/// Running processes. Field order is drop order: processes before the directory that their logs and socket are in.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// In the order of their start; they end in the reverse one.
    processes: Vec<Process>,
    urls: Vec<String>,
    /// Where the workers' metrics are.
    metrics: Vec<String>,
    /// Two for each role that is to be started.
    ports: Vec<SocketAddr>,
    /// The delayed gateway's way to Redis.
    proxy: Option<Proxy>,
    supervised: Option<Supervised>,
    /// Ends with its handle, when the processes have.
    cluster: Option<Cluster>,
    dir: TempDir,
}

impl Fleet {
    /// Starts everything, and returns when all of it is ready; ends what it started when something is not.
    pub(crate) async fn start(spawn: Spawn) -> Result<Self> {
        Self::start_with(spawn, &Options::default()).await
    }

    /// The same, otherwise than by default.
    pub(crate) async fn start_with(spawn: Spawn, options: &Options) -> Result<Self> {
        let binary = options.binary.clone().map_or_else(binary::lasthit, Ok)?;
        let mut fleet = Self::empty()?;
        match fleet.start_all(&binary, spawn, options).await {
            Ok(()) => Ok(fleet),
            Err(e) => {
                eprintln!("{}", fleet.logs());
                fleet.end().await;
                Err(e)
            }
        }
    }

    /// Starts the usual stack out of `peer`: a Redis, two gateways, one worker.
    pub(crate) async fn start_peer(peer: &Path) -> Result<Self> {
        Self::start_peer_with(peer, PEER_CONCURRENCY).await
    }

    /// The same, with so many jobs under way in its worker.
    pub(crate) async fn start_peer_with(peer: &Path, concurrency: u32) -> Result<Self> {
        ensure!(peer.join("node_modules").is_dir(), "peer {} has no node_modules: run `npm install` there", peer.display());
        let mut fleet = Self::empty()?;
        match fleet.start_all_of_peer(peer, concurrency).await {
            Ok(()) => Ok(fleet),
            Err(e) => {
                eprintln!("{}", fleet.logs());
                fleet.end().await;
                Err(e)
            }
        }
    }

    fn empty() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for logs and sockets")?;
        Ok(Self {
            processes: Vec::new(),
            urls: Vec::new(),
            metrics: Vec::new(),
            ports: Vec::new(),
            proxy: None,
            supervised: None,
            cluster: None,
            dir,
        })
    }

    /// The socket of the fleet's own Redis.
    pub(crate) fn redis_socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// The fleet's supervisor, if it has one.
    pub(crate) fn supervised(&self) -> Option<&Supervised> {
        self.supervised.as_ref()
    }

    /// The process of the fleet's supervisor.
    pub(crate) fn supervisor(&self) -> Option<Pid> {
        self.processes.iter().find(|process| process.name() == SUPERVISOR).and_then(Process::pid)
    }

    /// Adds a gateway that no supervisor looks after, on the fleet's Redis.
    pub(crate) async fn add_gateway(&mut self) -> Result<()> {
        self.ports = free_ports(2)?;
        let (binary, redis) = (binary::lasthit()?, format!("unix://{}", self.redis_socket().display()));
        self.start_role(&binary, "gateway", "gateway-alone", &Options::default(), &["--redis", &redis], true)?;
        self.ready().await
    }

    async fn start_redis_process(&mut self, port: u16) -> Result<PathBuf> {
        let socket = self.redis_socket();
        self.processes.push(Process::redis(self.dir.path(), &socket, port)?);
        self.ready().await?;
        Ok(socket)
    }

    async fn start_all_of_peer(&mut self, peer: &Path, concurrency: u32) -> Result<()> {
        let redis = self.start_redis_process(NO_PORT).await?.display().to_string();
        let env = [("REDIS_URL", redis.as_str()), ("CONCURRENCY", &concurrency.to_string())];
        self.processes.push(Process::peer(peer, "worker.mjs", "worker", &env, self.dir.path())?);
        for name in ["g1", "g2"] {
            let address = servers::free_address()?;
            let env = [("REDIS_URL", redis.as_str()), ("PORT", &address.port().to_string()), ("GATEWAY_ID", name)];
            self.processes.push(Process::peer(peer, "gateway.mjs", name, &env, self.dir.path())?);
            self.urls.push(url(address));
        }
        self.ready().await
    }

    async fn start_all(&mut self, binary: &Path, spawn: Spawn, options: &Options) -> Result<()> {
        self.ports = free_ports(2 * spawn.roles() + u16::from(options.tcp))?;
        if spawn == Spawn::Serve {
            self.start_role(binary, "serve", "serve", options, &[], true)?;
            return self.ready().await;
        }
        if let Spawn::Cluster { nodes, gateways, workers } = spawn {
            let cluster = tokio::task::spawn_blocking(move || Cluster::start(nodes.into(), 0, &[])).await?;
            let redis = self.cluster.insert(cluster.context("no cluster of redis-server")?).url();
            return self.start_both(binary, (gateways, workers), &redis, options).await;
        }
        let port = if options.tcp { self.ports.pop().map_or(NO_PORT, |address| address.port()) } else { NO_PORT };
        let socket = self.start_redis_process(port).await?;
        let redis = if options.tcp { format!("redis://127.0.0.1:{port}") } else { format!("unix://{}", socket.display()) };
        let (gateways, workers, delay) = match spawn {
            Spawn::Redis { gateways, workers, delay } => (gateways, workers, delay),
            Spawn::Up { gateways, workers } => {
                let (gateways, workers) = (gateways.to_string(), workers.to_string());
                let control = self.dir.path().join("control.sock");
                // A copy, so that another program can be put in its place while it runs.
                let program = self.dir.path().join("lasthit");
                std::fs::copy(binary, &program).with_context(|| format!("{} cannot be copied", binary.display()))?;
                let path = control.display().to_string();
                let args = ["--redis", &redis, "--gateways", &gateways, "--workers", &workers, "--control", &path];
                self.start_role(&program, SUPERVISOR, SUPERVISOR, options, &args, true)?;
                self.ready().await?;
                let supervised = self.supervised.insert(Supervised::at(control, program));
                // It is ready itself when one process of each role is.
                return supervised.until_ready().await;
            }
            Spawn::Serve | Spawn::Cluster { .. } => (0, 0, None),
        };
        if let Some(delay) = delay {
            let proxy = Proxy::start(Upstream::Unix(socket)).context("no proxy for the delayed gateway")?;
            proxy.delay(delay, delay);
            self.proxy = Some(proxy);
        }
        self.start_both(binary, (gateways, workers), &redis, options).await
    }

    /// Starts gateways and workers, and returns when they are ready.
    async fn start_both(&mut self, binary: &Path, (gateways, workers): (u16, u16), redis: &str, options: &Options) -> Result<()> {
        for n in 1..=workers {
            self.start_role(binary, "worker", &format!("worker-{n}"), options, &["--redis", redis], false)?;
        }
        for n in 1..=gateways {
            let way = self.proxy.as_ref().filter(|_| n == 1).map_or_else(|| redis.to_owned(), Proxy::url);
            self.start_role(binary, "gateway", &format!("gateway-{n}"), options, &["--redis", &way], true)?;
        }
        self.ready().await
    }

    fn start_role(
        &mut self,
        binary: &Path,
        role: &str,
        name: &str,
        options: &Options,
        args: &[&str],
        listens: bool,
    ) -> Result<()> {
        let (Some(admin), Some(listen)) = (self.ports.pop(), self.ports.pop()) else { bail!("{name} has no ports left") };
        let (admin_text, listen_text) = (admin.to_string(), listen.to_string());
        let mut all = vec![role, "--admin", &admin_text];
        all.extend_from_slice(args);
        if role != "gateway" {
            self.metrics.push(admin_text.clone());
        }
        if listens {
            all.extend(["--listen", &listen_text]);
            self.urls.push(url(listen));
        }
        self.processes.push(Process::lasthit(binary, name, &all, options.env(), admin, self.dir.path())?);
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        for process in &mut self.processes {
            process.ready().await?;
        }
        Ok(())
    }

    /// Where the gateways listen.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Where the workers' metrics are.
    pub(crate) fn metrics(&self) -> &[String] {
        &self.metrics
    }

    /// What the processes said last, for when something went wrong.
    pub(crate) fn logs(&mut self) -> String {
        let logs: Vec<String> = self.processes.iter_mut().map(Process::log).collect();
        logs.join("\n")
    }

    /// Ends all processes, gateways first and Redis last, each within its time.
    pub(crate) async fn end(mut self) {
        // Gateways and workers drain side by side; Redis stays until they have.
        let at = self.processes.iter().position(|p| !p.is_redis()).unwrap_or(self.processes.len());
        let roles = self.processes.split_off(at);
        futures_util::future::join_all(roles.into_iter().rev().map(Process::end)).await;
        for redis in self.processes {
            redis.end().await;
        }
    }
}

/// Ports that nobody has.
fn free_ports(count: u16) -> Result<Vec<SocketAddr>> {
    Ok((0..count).map(|_| servers::free_address()).collect::<Result<_, _>>()?)
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_start_is_parsed() {
        assert_eq!("serve".parse(), Ok(Spawn::Serve));
        assert_eq!("gateways=2,workers=3".parse(), Ok(Spawn::Redis { gateways: 2, workers: 3, delay: None }));
        assert_eq!("workers=3".parse(), Ok(Spawn::Redis { gateways: 1, workers: 3, delay: None }));
        let (two, three, one) = (Count::Fixed(2), Count::Fixed(3), Count::Fixed(1));
        assert_eq!("up:gateways=2,workers=3".parse(), Ok(Spawn::Up { gateways: two, workers: three }));
        let by_load = Count::Between { min: 1, max: 4 };
        assert_eq!("up:gateways=auto:1..4".parse(), Ok(Spawn::Up { gateways: by_load, workers: one }));
        assert_eq!((by_load.to_string(), two.to_string()), ("auto:1..4".to_owned(), "2".to_owned()));
        assert_eq!("cluster=3,gateways=2".parse(), Ok(Spawn::Cluster { nodes: 3, gateways: 2, workers: 1 }));
        let delay = Some(Duration::from_millis(20));
        assert_eq!("gateways=2,workers=1,delay=20ms".parse(), Ok(Spawn::Redis { gateways: 2, workers: 1, delay }));
        for bad in [
            "",
            "gateways",
            "gateways=0",
            "gateways=65",
            "workers=-1",
            "serve,workers=1",
            "gateways=1,gateways=2",
            "delay=20",
            "up:serve",
            "up:delay=20ms",
            "up:gateways=auto:4..1",
            "up:gateways=auto:0..1",
            "up:gateways=auto",
            "up:workers=1,workers=2",
            "gateways=auto:1..4",
            "cluster=2",
            "cluster=10",
            "cluster=3,cluster=3",
            "cluster=3,delay=20ms",
            "up:cluster=3",
        ] {
            assert!(bad.parse::<Spawn>().is_err(), "{bad}");
        }
    }
}
