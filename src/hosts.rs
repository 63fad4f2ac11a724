//! `lasthit hosts`, `drain`, `undrain`, `home` and `route`: which hosts a deployment has, and which shards are at home where.

mod route;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use self::route::Proxy;
use crate::config::Config;
use crate::journal::redis::{RedisJournal, RedisOptions};
use crate::journal::{Beats, CommonJournal as _, Part, ProcessRecord, ShardOwner, WorkerJournal as _};
use crate::limits::{HELD_TRIES, REHOME_WITHIN};
use crate::types::{HostId, Incarnation, RoomId, ShardId};
use crate::wire::push::{self, Push};
use crate::worker::eligible;

/// What to do. A host is named by its name, by the beginning of it, or by its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Tell of all hosts.
    List,
    /// The host is to have no shard.
    Drain(String),
    /// The host may have shards again.
    Undrain(String),
    /// Move a shard to a host, and wait until it is there.
    Home(u16, String),
    /// Tell where these rooms are, or all shards; as a map for a proxy, if one is named.
    Route(Vec<String>, Option<Proxy>),
}

/// A task, and whether to print JSON instead of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placing {
    pub task: Task,
    pub json: bool,
}

/// What the journal says of a deployment's hosts.
struct Hosts {
    beats: Beats,
    shards: Vec<ShardOwner>,
    eligible: BTreeMap<HostId, String>,
}

/// One host, as it is told.
struct Row<'a> {
    name: &'a HostId,
    url: &'a str,
    cores: u32,
    gateways: usize,
    workers: usize,
    shards: Vec<u16>,
    state: &'static str,
}

/// Carries out the task. Returns what to print.
///
/// # Errors
/// When the journal does not work, there is no such host or shard, or the shard did not move: one line.
pub(crate) async fn run(placing: &Placing, config: &Config) -> Result<String, String> {
    let url = config.redis.as_ref().map(|url| url.reveal().to_owned()).unwrap_or_default();
    let options = RedisOptions { prefix: config.prefix.clone(), runtime_dir: None, ..RedisOptions::default() };
    let journal = RedisJournal::connect_to_read(&url, options).await.map_err(|e| e.to_string())?;
    let hosts = Hosts::read(&journal).await?;
    match &placing.task {
        Task::List => Ok(hosts.told(placing.json)),
        Task::Route(rooms, map) => {
            let rooms = rooms.iter().map(|room| RoomId::new(room)).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
            match map {
                None => Ok(route::told(&hosts, &rooms, placing.json)),
                Some(proxy) => route::map(&hosts, &rooms, *proxy),
            }
        }
        Task::Drain(host) | Task::Undrain(host) => {
            let (host, drained) = (hosts.find(host)?, matches!(placing.task, Task::Drain(_)));
            journal.drain(&host, drained).await.map_err(|e| e.to_string())?;
            let shards = hosts.shards_of(&host).len();
            let others = hosts.eligible.keys().any(|other| *other != host);
            Ok(match (placing.json, drained) {
                (true, _) => pretty(&json!({ "host": host.as_str(), "drained": drained, "shards": shards })),
                (false, false) => format!("{host} may have shards again"),
                (false, true) if shards > 0 && !others => {
                    format!("{host} is to have no shard, but keeps its {shards}: no other host is eligible, see `lasthit hosts`")
                }
                (false, true) => format!("{host} is to have no shard: {shards} leave one by one, see `lasthit hosts`"),
            })
        }
        Task::Home(shard, host) => {
            let to = hosts.find(host)?;
            let owner = hosts.may_move(*shard, &to)?;
            let push = push::encode(&Push::Give { shard: ShardId(*shard), host: to.clone() });
            if journal.publish(None, owner, push).await.map_err(|e| e.to_string())? == 0 {
                return Err(format!("the owner of shard {shard}, worker {owner}, does not listen: try again"));
            }
            let number = moved(&journal, ShardId(*shard), &to).await?;
            Ok(if placing.json {
                pretty(&json!({ "shard": shard, "host": to.as_str(), "home": number }))
            } else {
                format!("shard {shard} is at home on {to}, by number {number}")
            })
        }
    }
}

/// Waits until the shard's home is there. Returns its number.
async fn moved(journal: &RedisJournal, shard: ShardId, to: &HostId) -> Result<u32, String> {
    let there = async {
        loop {
            let owners = journal.owners().await.map_err(|e| e.to_string())?;
            let home = owners.get(usize::from(shard.0)).and_then(|owner| owner.home.as_ref());
            if let Some(home) = home.filter(|home| home.host == *to) {
                return Ok(home.number);
            }
            tokio::time::sleep(HELD_TRIES).await;
        }
    };
    let late = |_| Err(format!("shard {shard} has not moved within {} s: its owner's log says why", REHOME_WITHIN.as_secs()));
    tokio::time::timeout(REHOME_WITHIN + Duration::from_secs(1), there).await.unwrap_or_else(late)
}

impl Hosts {
    async fn read(journal: &RedisJournal) -> Result<Self, String> {
        // A beat that is good for no time only reads.
        let nobody = ProcessRecord::new(Incarnation::NONE, journal.host().clone(), Part::Gateway);
        let beats = journal.beat(&nobody, 0).await.map_err(|e| e.to_string())?;
        let shards = journal.owners().await.map_err(|e| e.to_string())?;
        let eligible = eligible(&beats);
        Ok(Self { beats, shards, eligible })
    }

    /// All hosts of which anything is known.
    fn names(&self) -> Vec<&HostId> {
        let beating = self.beats.processes.iter().map(|process| &process.host);
        let at_home = self.shards.iter().filter_map(|shard| shard.home.as_ref()).map(|home| &home.host);
        let mut names: Vec<&HostId> = beating.chain(&self.beats.drained).chain(at_home).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn shards_of(&self, host: &HostId) -> Vec<u16> {
        let numbered = (0..).zip(&self.shards);
        numbered.filter(|(_, shard)| shard.home.as_ref().is_some_and(|home| home.host == *host)).map(|(i, _)| i).collect()
    }

    fn url(&self, host: &HostId) -> &str {
        let of_host = self.beats.processes.iter().filter(|process| process.host == *host);
        of_host.map(|process| process.url.as_str()).filter(|url| !url.is_empty()).min().unwrap_or_default()
    }

    fn find(&self, text: &str) -> Result<HostId, String> {
        let names = self.names();
        if let Some(exact) = names.iter().find(|name| name.as_str() == text || (!text.is_empty() && self.url(name) == text)) {
            return Ok((*exact).clone());
        }
        let begin: Vec<&&HostId> = names.iter().filter(|name| !text.is_empty() && name.as_str().starts_with(text)).collect();
        match begin[..] {
            [only] => Ok((*only).clone()),
            [] => Err(format!("host {text:?} is not known: `lasthit hosts` lists those that are")),
            _ => Err(format!("{} hosts begin with {text:?}: give more of the name, or the URL", begin.len())),
        }
    }

    /// The worker that is to hand the shard over.
    fn may_move(&self, shard: u16, to: &HostId) -> Result<Incarnation, String> {
        let count = self.shards.len();
        let found = self.shards.get(usize::from(shard));
        let ShardOwner { lease, home, next } = found.ok_or_else(|| format!("shard {shard} does not exist: there are {count}"))?;
        if home.as_ref().is_some_and(|home| home.host == *to) {
            return Err(format!("shard {shard} is at home on {to} already"));
        }
        if let Some(next) = next {
            return Err(format!("shard {shard} is moving to {}: wait until it is there", next.host));
        }
        if self.beats.drained.contains(to) {
            return Err(format!("{to} is drained: `lasthit undrain {to}` first"));
        }
        if !self.eligible.contains_key(to) {
            return Err(format!("{to} is not eligible: it {}", self.state(to)));
        }
        lease.map(|lease| lease.owner).ok_or_else(|| format!("shard {shard} has no owner at this moment: try again"))
    }

    fn state(&self, host: &HostId) -> &'static str {
        let has = |part, ready: bool| {
            let of_host = self.beats.processes.iter().filter(|process| process.host == *host && process.part == part);
            of_host.filter(|process| process.ready || !ready).count() > 0
        };
        if self.beats.drained.contains(host) {
            "is drained"
        } else if self.eligible.contains_key(host) {
            "is eligible"
        } else if !has(Part::Worker, false) {
            "has no worker"
        } else if !has(Part::Gateway, true) {
            "has no ready gateway"
        } else {
            "has no --advertise"
        }
    }

    fn row<'a>(&'a self, name: &'a HostId) -> Row<'a> {
        let of_host = || self.beats.processes.iter().filter(|process| process.host == *name);
        let count = |part| of_host().filter(|process| process.part == part).count();
        Row {
            name,
            url: self.url(name),
            cores: of_host().map(|process| process.cores).max().unwrap_or_default(),
            gateways: count(Part::Gateway),
            workers: count(Part::Worker),
            shards: self.shards_of(name),
            state: self.state(name),
        }
    }

    fn told(&self, json: bool) -> String {
        let rows: Vec<Row<'_>> = self.names().into_iter().map(|name| self.row(name)).collect();
        if json {
            let hosts: Vec<Value> = rows
                .iter()
                .map(|row| {
                    json!({
                        "host": row.name.as_str(), "url": row.url, "cores": row.cores, "gateways": row.gateways, "workers": row.workers,
                        "shards": row.shards, "drained": self.beats.drained.contains(row.name),
                        "eligible": self.eligible.contains_key(row.name),
                    })
                })
                .collect();
            return pretty(&json!({ "hosts": hosts, "damaged": self.beats.damaged }));
        }
        let mut text = String::new();
        for Row { name, url, cores, gateways, workers, shards, state } in &rows {
            let url = if url.is_empty() { "no URL" } else { url };
            let shards = shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "{name}  {url}");
            let _ = writeln!(text, "  {state}; cores {cores}, gateways {gateways}, workers {workers}; shards: {shards}");
        }
        if rows.is_empty() {
            text.push_str("no host has processes here\n");
        }
        for damaged in &self.beats.damaged {
            let _ = writeln!(text, "damaged: {damaged}");
        }
        text.pop();
        text
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
