//! The processes under attack: a Redis, gateways and workers, and if it is wanted a supervisor with some more of both, in the same
//! deployment. Each reaches Redis on a path of its own, which can fail; a supervisor and what it looks after share one. Or hosts, each
//! with a supervisor, and nothing else.

mod supervisor;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ::servers::{Proxy, free_address};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::layout::On;
use super::plan::{Fault, Kind, Target};
use super::servers::{Hit, Servers};
use crate::hosts::{self, Ended, Hosts};
use crate::spawn::binary;
use crate::spawn::process::{Process, RUNTIME_DIR};
use supervisor::Up;
pub(crate) use supervisor::{Had, Size};

/// How often processes that ended by themselves are looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Processes that may end by themselves in one run.
const OWN_ENDS_MAX: usize = 1000;

/// A gateway, a worker or a supervisor, over all of its lives.
#[derive(Debug)]
struct Slot {
    role: &'static str,
    number: usize,
    listen: SocketAddr,
    admin: SocketAddr,
    /// Its own way to Redis, where there is one server.
    proxy: Option<Arc<Proxy>>,
    /// None while a fault has it down.
    process: Option<Process>,
    lives: u32,
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Fleet {
    workers: Vec<Mutex<Slot>>,
    gateways: Vec<Mutex<Slot>>,
    up: Option<Up>,
    hosts: Option<Mutex<Hosts>>,
    redis: Arc<Mutex<Servers>>,
    /// Everybody's way to Redis, the last one for the run itself; none where there are several servers.
    ways: Vec<Arc<Proxy>>,
    urls: Vec<String>,
    redis_url: String,
    binary: PathBuf,
    on: On,
    /// Further settings of the workers.
    worker_args: Vec<String>,
    /// Nothing is started any more.
    over: AtomicBool,
    /// The logs of processes that ended without being told to.
    own_ends: std::sync::Mutex<Vec<String>>,
    /// How many of them had started. The others may have met a Redis that was in a fault.
    crashes: AtomicUsize,
    dir: TempDir,
}

impl Fleet {
    /// Starts everything, and returns when all of it is ready.
    pub(crate) async fn start(on: impl Into<On>, size: impl Into<Size>, worker_args: &[&str]) -> Result<Arc<Self>> {
        let on = on.into();
        let Size { gateways, workers, supervised, hosts } = size.into().checked()?;
        let binary = binary::lasthit()?;
        let redis = tokio::task::spawn_blocking(move || Servers::start(on)).await?;
        let redis = redis.context("no redis-server")?;
        let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for logs")?;
        let mut ways = Vec::new();
        let mut slot = |role, number| -> Result<Mutex<Slot>> {
            let [admin, listen] = [free_address()?, free_address()?];
            let proxy = redis.upstream().map(Proxy::start).transpose()?.map(Arc::new);
            ways.extend(proxy.clone());
            Ok(Mutex::new(Slot { role, number, listen, admin, proxy, process: None, lives: 0 }))
        };
        let of_hosts = (hosts, gateways, workers);
        let (gateways, workers) = if hosts == 0 { (gateways, workers) } else { (0, 0) };
        let workers = (0..workers).map(|n| slot("worker", n)).collect::<Result<Vec<_>>>()?;
        let gateways = (0..gateways).map(|n| slot("gateway", n)).collect::<Result<Vec<_>>>()?;
        let up = supervised.map(|counts| Up::new(slot("up", 0)?, counts, &binary, dir.path())).transpose()?;
        let own = redis.upstream().map(Proxy::start).transpose()?;
        let redis_url = own.as_ref().map_or_else(|| redis.url(), Proxy::url);
        ways.extend(own.map(Arc::new));
        let mut urls = Vec::new();
        // The supervisor's is the last one.
        for gateway in gateways.iter().chain(up.as_ref().map(|up| &up.slot)) {
            urls.push(format!("ws://{}", gateway.lock().await.listen));
        }
        let hosts = if hosts == 0 {
            None
        } else {
            let args = [&["--durability", on.durability.name()], worker_args].concat();
            let hosts = Hosts::start(of_hosts, redis_url.clone(), &args, dir.path()).await?;
            urls = hosts.urls();
            Some(Mutex::new(hosts))
        };
        let worker_args = worker_args.iter().map(|arg| (*arg).to_owned()).collect();
        let fleet = Arc::new(Self {
            workers,
            gateways,
            up,
            hosts,
            redis_url,
            redis: Arc::new(Mutex::new(redis)),
            ways,
            urls,
            binary,
            on,
            worker_args,
            over: AtomicBool::new(false),
            own_ends: std::sync::Mutex::default(),
            crashes: AtomicUsize::new(0),
            dir,
        });
        for slot in fleet.slots() {
            fleet.launch(&mut *slot.lock().await)?;
        }
        for slot in fleet.slots() {
            if let Some(process) = &mut slot.lock().await.process {
                process.ready().await?;
            }
        }
        fleet.until_ready().await?;
        Ok(fleet)
    }

    fn slots(&self) -> impl Iterator<Item = &Mutex<Slot>> {
        self.workers.iter().chain(&self.gateways).chain(self.up.as_ref().map(|up| &up.slot))
    }

    /// The URLs of the gateways.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The Redis, on a way that nothing happens to.
    pub(crate) fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// Asks Redis something.
    pub(crate) async fn ask(&self, command: &[&str]) -> Result<String> {
        let (redis, command) = (self.redis.clone().lock_owned().await, words(command));
        Ok(tokio::task::spawn_blocking(move || redis.ask(&command.iter().map(String::as_str).collect::<Vec<_>>())).await??)
    }

    /// The process ids of everything that runs now, by name.
    pub(crate) async fn pids(&self) -> Vec<(String, Pid)> {
        let mut pids = Vec::new();
        if let Ok(pid) = self.redis.lock().await.pid() {
            pids.push(("redis".to_owned(), pid));
        }
        for slot in self.slots() {
            let slot = slot.lock().await;
            if let Some(pid) = slot.process.as_ref().and_then(Process::pid) {
                pids.push((format!("{}-{}", slot.role, slot.number + 1), pid));
            }
        }
        if let Some(up) = &self.up {
            pids.extend(up.pids().await);
        }
        pids
    }

    /// The name that a worker gave itself, when it runs.
    pub(crate) async fn incarnation(&self, worker: usize) -> Option<String> {
        self.workers[worker].lock().await.process.as_ref()?.said("worker.id=")
    }

    fn launch(&self, slot: &mut Slot) -> Result<()> {
        if self.over.load(Ordering::Relaxed) {
            return Ok(());
        }
        slot.lives += 1;
        let (admin, listen) = (slot.admin.to_string(), slot.listen.to_string());
        let redis = slot.proxy.as_ref().map_or_else(|| self.redis_url.clone(), |proxy| proxy.url());
        let mut args = vec![slot.role, "--admin", &admin, "--redis", &redis, "--durability", self.on.durability.name()];
        if slot.role != "worker" {
            args.extend(["--listen", &listen]);
        }
        if slot.role != "gateway" {
            args.extend(self.worker_args.iter().map(String::as_str));
        }
        let mut binary = &self.binary;
        let up = self.up.as_ref().filter(|_| slot.role == "up");
        if let Some(up) = up {
            args.extend(up.args.iter().map(String::as_str));
            binary = &up.program;
        }
        let name = format!("{}-{}.{}", slot.role, slot.number + 1, slot.lives);
        slot.process = Some(Process::lasthit(binary, &name, &args, std::iter::empty(), slot.admin, self.dir.path())?);
        Ok(())
    }

    /// Starts again, as a supervisor would, what ended by itself. Until everything is over.
    pub(crate) async fn supervise(&self) -> Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            sleep(LOOK_INTERVAL).await;
            for slot in self.slots() {
                // One that is in a fault is that fault's.
                let Ok(mut slot) = slot.try_lock() else { continue };
                let Some(process) = &mut slot.process else { continue };
                let Some(refused) = process.refused() else { continue };
                let log = process.log();
                self.note_end(Ended { refused, log })?;
                self.launch(&mut slot)?;
            }
            let Some(Ok(mut hosts)) = self.hosts.as_ref().map(Mutex::try_lock) else { continue };
            hosts.revive()?.into_iter().try_for_each(|ended| self.note_end(ended))?;
        }
        Ok(())
    }

    fn note_end(&self, Ended { refused, log }: Ended) -> Result<()> {
        self.crashes.fetch_add(usize::from(!refused), Ordering::Relaxed);
        if let Ok(mut told) = self.own_ends.lock() {
            anyhow::ensure!(told.len() < OWN_ENDS_MAX, "processes end again and again by themselves:\n{log}");
            told.push(log);
        }
        Ok(())
    }

    /// Does what a fault says, and undoes it after its time. What was done to nodes and hosts is told.
    pub(crate) async fn inflict(&self, fault: Fault) -> Result<Option<Hit>> {
        if fault.target == Target::Redis && fault.kind != Kind::RuntimeDirGone {
            let (mut redis, ways) = (self.redis.clone().lock_owned().await, self.ways.clone());
            return Ok(tokio::task::spawn_blocking(move || redis.inflict(fault, &ways)).await??);
        }
        match fault.target {
            Target::Worker(n) => self.inflict_process(&self.workers[n], fault).await,
            Target::Gateway(n) => self.inflict_process(&self.gateways[n], fault).await,
            Target::Redis => self.remove_locks(""),
            Target::Host => return self.inflict_host(fault).await,
            Target::Supervisor => match &self.up {
                Some(up) if up.does(fault.kind) => up.inflict(fault).await,
                Some(up) => self.inflict_process(&up.slot, fault).await,
                None => Ok(()),
            },
        }
        .map(|()| None)
    }

    /// Kills a worker, and starts it again after a while.
    pub(crate) async fn kill_worker(&self, number: usize, lasts: Duration) -> Result<()> {
        let fault = Fault { at: Duration::ZERO, kind: Kind::WorkerKill, target: Target::Worker(number), lasts };
        self.inflict(fault).await.map(drop)
    }

    /// It happens to the host that is the home of most rooms.
    async fn inflict_host(&self, fault: Fault) -> Result<Option<Hit>> {
        let Some(hosts) = &self.hosts else { return Ok(None) };
        let mut hosts = hosts.lock().await;
        let turn = fault.at.as_micros() as usize;
        let kind = match fault.kind {
            Kind::HostKill => hosts::Kind::Kill,
            Kind::HostPause => hosts::Kind::Pause,
            Kind::HostDrain => hosts::Kind::Drain,
            _ if turn.is_multiple_of(2) => hosts::Kind::CutRedis,
            _ => hosts::Kind::CutPlayers,
        };
        let (n, shards) = hosts.busiest(turn).await;
        let from = Instant::now();
        hosts.begin(kind, n).await?;
        sleep(fault.lasts).await;
        hosts.finish(kind, n).await?;
        Ok(Some(Hit { from, until: Instant::now(), shards, doubted: Vec::new() }))
    }

    async fn inflict_process(&self, slot: &Mutex<Slot>, fault: Fault) -> Result<()> {
        let mut slot = slot.lock().await;
        match fault.kind {
            Kind::Cut => slot.proxy.iter().for_each(|proxy| proxy.cut()),
            Kind::LockRemoved => {
                let process = slot.process.as_ref();
                if let Some(who) = process.and_then(|process| process.said("worker.id=").or_else(|| process.said("gateway.id=")))
                {
                    self.remove_locks(&format!("-{who}"))?;
                }
            }
            Kind::Swallow => {
                slot.proxy.iter().for_each(|proxy| proxy.swallow(true));
                sleep(fault.lasts).await;
                slot.proxy.iter().for_each(|proxy| proxy.swallow(false));
            }
            Kind::WorkerPauseShort
            | Kind::WorkerPauseLong
            | Kind::GatewayPauseShort
            | Kind::GatewayPauseLong
            | Kind::SupervisorPause => {
                if let Some(process) = &slot.process {
                    process.signal(Signal::SIGSTOP);
                    sleep(fault.lasts).await;
                    process.signal(Signal::SIGCONT);
                }
            }
            _ => {
                let orderly = matches!(fault.kind, Kind::WorkerStop | Kind::GatewayStop);
                match slot.process.take() {
                    Some(process) if orderly => process.end().await,
                    Some(process) => process.kill().await,
                    None => {}
                }
                sleep(fault.lasts).await;
                self.launch(&mut slot)?;
            }
        }
        Ok(())
    }

    /// Removes the lock files whose names hold `what`; with "", their directory. Whoever starts next makes it again.
    fn remove_locks(&self, what: &str) -> Result<()> {
        let dir = self.dir.path().join(RUNTIME_DIR);
        if what.is_empty() {
            return match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("the runtime directory stays"),
                _ => Ok(()),
            };
        }
        let files = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        for file in files.filter(|file| file.file_name().to_string_lossy().contains(what)) {
            // Its process may have removed it.
            let _ = std::fs::remove_file(file.path());
        }
        Ok(())
    }

    /// The logs of processes that ended without being told to.
    pub(crate) fn own_ends(&self) -> Vec<String> {
        self.own_ends.lock().map(|told| told.clone()).unwrap_or_default()
    }

    /// Waits until all that supervisors look after is ready, here and on hosts.
    pub(crate) async fn until_ready(&self) -> Result<()> {
        if let Some(up) = &self.up {
            up.supervised.until_ready().await.context("under the supervisor")?;
        }
        match &self.hosts {
            Some(hosts) => hosts.lock().await.until_ready().await.context("on the hosts"),
            None => Ok(()),
        }
    }

    /// What a supervisor did, if there is one.
    pub(crate) async fn supervisor_had(&self) -> Option<Had> {
        match &self.up {
            Some(up) => Some(up.had().await),
            None => None,
        }
    }

    /// How many processes ended by themselves after they had started.
    pub(crate) fn crashes(&self) -> usize {
        self.crashes.load(Ordering::Relaxed)
    }

    /// The log lines about panics, of all processes in all of their lives.
    pub(crate) fn panics(&self) -> Result<Vec<String>> {
        panics(self.dir.path())
    }

    /// The last log lines of all processes.
    pub(crate) async fn logs(&self) -> String {
        let mut logs = Vec::new();
        for slot in self.slots() {
            logs.extend(slot.lock().await.process.as_mut().map(Process::log));
        }
        if let Some(hosts) = &self.hosts {
            logs.extend(hosts.lock().await.logs());
        }
        logs.join("\n")
    }

    /// Ends everything but Redis, which ends with its handle.
    pub(crate) async fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        let mut ending = Vec::new();
        for slot in self.slots() {
            ending.extend(slot.lock().await.process.take().map(Process::end));
        }
        futures_util::future::join_all(ending).await;
        if let Some(hosts) = &self.hosts {
            hosts.lock().await.end().await;
        }
    }
}

/// The lines about panics in the logs of a directory and of those in it.
fn panics(dir: &Path) -> Result<Vec<String>> {
    let mut panics = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        if path.is_dir() {
            panics.extend(self::panics(&path)?);
        }
        if path.extension().is_some_and(|end| end == "log") {
            let log = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
            panics.extend(log.lines().filter(|line| line.contains(" panicked at ")).map(str::to_owned));
        }
    }
    Ok(panics)
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::panics;

    #[test]
    fn a_panic_is_found_in_the_log_of_whatever_life() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("worker-1.1.log"), "worker started\nthread 'tokio' (7) panicked at src/a.rs:1:2:\nno\n")
            .expect("written");
        std::fs::write(dir.path().join("worker-1.2.log"), b"worker started\n\xff\n").expect("written");
        std::fs::write(dir.path().join("redis.aof"), " panicked at ").expect("written");
        assert_eq!(panics(dir.path()).expect("read"), ["thread 'tokio' (7) panicked at src/a.rs:1:2:"]);
    }
}
