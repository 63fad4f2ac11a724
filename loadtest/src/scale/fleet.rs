//! A Redis Cluster, and a gateway and a worker on each host. Several hosts on one machine differ by their clock: each has a time namespace,
//! and that is what makes another host of it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{CommonJournal as _, GatewayJournal as _};
use lasthit::types::ShardId;
use servers::{Cluster, free_address};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::model::Setting;
use crate::hosts::Held;
use crate::spawn::binary;
use crate::spawn::process::Process;

/// How long shards may take to have the homes that they are to have: a lost home is waited for first.
const HOMES_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked where they are.
const HOMES_INTERVAL: Duration = Duration::from_millis(50);
/// How far the clocks of two hosts lie apart.
const APART: Duration = Duration::from_secs(1_000);

/// One host: its worker, its gateway, and its clock where it is one of several. Field order is drop order.
#[derive(Debug)]
struct Place {
    worker: Process,
    gateway: Process,
    url: String,
    held: Option<Held>,
}

/// Everything that runs. Field order is drop order: the processes first.
#[derive(Debug)]
pub(super) struct Fleet {
    places: Vec<Place>,
    /// The gateway of each shard's home; empty where there is one host.
    homes: Vec<String>,
    cluster: Cluster,
    dir: TempDir,
}

impl Fleet {
    /// Starts everything, and returns when all of it is ready and every shard is at home.
    ///
    /// One node is a cluster, too, so that only the number differs.
    pub(super) async fn start(setting: &Setting) -> Result<Self> {
        let cluster = Cluster::start(usize::try_from(setting.nodes)?, 0, &[]).context("no cluster: install redis-server")?;
        let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for logs")?;
        let mut fleet = Self { places: Vec::new(), homes: Vec::new(), cluster, dir };
        match fleet.start_all(setting).await {
            Ok(()) => Ok(fleet),
            Err(e) => {
                eprintln!("{}", fleet.logs());
                fleet.end().await;
                Err(e)
            }
        }
    }

    async fn start_all(&mut self, setting: &Setting) -> Result<()> {
        let binary = binary::lasthit()?;
        let shards = u16::try_from(setting.shards)?;
        let options = RedisOptions { prefix: "lasthit".to_owned(), shards: Some(shards), durability: None, runtime_dir: None };
        let journal = RedisJournal::connect(&self.cluster.url(), options).await.context("the cluster is of no use")?;
        if setting.hosts == 1 {
            let place = self.boot(&binary, 0, setting, None)?;
            self.places.push(place);
            self.ready().await?;
            self.until_at_home(&journal, setting).await?;
            return Ok(());
        }
        // The first host that comes takes all shards, and later ones get theirs one by one, each after 30 seconds. So one more is there
        // first and dies: what it had is shared out at once.
        let first = Held::begin(APART * (setting.hosts + 1))?;
        let first = self.boot(&binary, 0, setting, Some(first))?;
        self.places.push(first);
        self.ready().await?;
        self.until_at_home(&journal, setting).await?;
        for number in 1..=setting.hosts {
            let place = self.boot(&binary, number, setting, Some(Held::begin(APART * number)?))?;
            self.places.push(place);
        }
        self.ready().await?;
        let Place { worker, gateway, .. } = self.places.remove(0);
        tokio::join!(worker.kill(), gateway.kill());
        self.homes = self.until_at_home(&journal, setting).await?;
        Ok(())
    }

    fn boot(&self, binary: &Path, number: u32, setting: &Setting, held: Option<Held>) -> Result<Place> {
        let [listen, of_gateway, of_worker] = [free_address()?, free_address()?, free_address()?];
        let (redis, shards) = (self.cluster.url(), setting.shards.to_string());
        let url = format!("ws://{listen}");
        // Each host has a runtime directory of its own, as each machine has.
        let dir = self.dir.path().join(format!("host-{number}"));
        std::fs::create_dir_all(&dir)?;
        let start = |role: &str, admin: SocketAddr, more: &[&str]| {
            let name = format!("{role}-{number}");
            let admin_text = admin.to_string();
            let role = [&[role, "--redis", &redis, "--shards", &shards, "--admin", &admin_text], more].concat();
            let clock = held.as_ref().map(Held::clock_args);
            let (program, args) = match &clock {
                None => (binary.to_owned(), role.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()),
                Some(clock) => {
                    let rest = std::iter::once(binary.display().to_string()).chain(role.iter().map(|arg| (*arg).to_owned()));
                    ("nsenter".into(), clock.iter().cloned().chain(rest).collect())
                }
            };
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Process::lasthit(&program, &name, &args, std::iter::empty(), admin, &dir)
        };
        let listen = listen.to_string();
        let mut more = vec!["--listen", &listen];
        if held.is_some() {
            more.extend(["--advertise", &url]);
        }
        let gateway = start("gateway", of_gateway, &more)?;
        let worker = start("worker", of_worker, &[])?;
        Ok(Place { worker, gateway, url, held })
    }

    async fn ready(&mut self) -> Result<()> {
        for place in &mut self.places {
            place.worker.ready().await?;
            place.gateway.ready().await?;
        }
        Ok(())
    }

    /// Waits until every shard is owned on a host that is there, and each of these has its share. Returns the gateway of each shard's home.
    async fn until_at_home(&self, journal: &RedisJournal, setting: &Setting) -> Result<Vec<String>> {
        let deadline = Instant::now() + HOMES_TIMEOUT;
        loop {
            let mut homes = Vec::new();
            for shard in (0..journal.shards()).map(ShardId) {
                let Some(home) = journal.home(shard).await?.home else { break };
                let host = home.host.to_string();
                let at = |place: &&Place| place.held.as_ref().is_none_or(|held| held.name().is_some_and(|name| name == host));
                let Some(place) = self.places.iter().find(at) else { break };
                homes.push(place.url.clone());
            }
            let share = setting.shards as usize / self.places.len();
            let has_share = |place: &Place| homes.iter().filter(|url| **url == place.url).count() >= share;
            if homes.len() == usize::from(journal.shards()) && self.places.iter().all(has_share) {
                return Ok(homes);
            }
            ensure!(Instant::now() < deadline, "the shards have not found their hosts within {HOMES_TIMEOUT:?}");
            sleep(HOMES_INTERVAL).await;
        }
    }

    /// Where the gateways listen.
    pub(super) fn urls(&self) -> Vec<String> {
        self.places.iter().map(|place| place.url.clone()).collect()
    }

    /// See [`Load::homes`](crate::load::Load).
    pub(super) fn homes(&self) -> &[String] {
        &self.homes
    }

    pub(super) fn gateways(&self) -> impl Iterator<Item = &Process> {
        self.places.iter().map(|place| &place.gateway)
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Process> {
        self.places.iter().map(|place| &place.worker)
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What the processes said last.
    pub(super) fn logs(&mut self) -> String {
        let logs: Vec<String> = self.places.iter_mut().flat_map(|place| [place.gateway.log(), place.worker.log()]).collect();
        logs.join("\n")
    }

    /// Ends all processes; the cluster ends with its handle.
    pub(super) async fn end(self) {
        let Self { places, homes: _, cluster, dir: _dir } = self;
        let ending = places.into_iter().map(|Place { worker, gateway, held, .. }| async {
            tokio::join!(gateway.end(), worker.end());
            drop(held);
        });
        futures_util::future::join_all(ending).await;
        drop(cluster);
    }
}
