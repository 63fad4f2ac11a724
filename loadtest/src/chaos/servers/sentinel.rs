//! A primary and its replica, over which three sentinels decide.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use lasthit::internals::limits::SHARDS_DEFAULT;
use lasthit::types::ShardId;
use servers::{Program, RedisServer, Sentinels};
use tokio::time::Instant;

use super::{Hit, command, pause};
use crate::chaos::Durability;
use crate::chaos::plan::{Fault, Kind};

/// How many sentinels there are: two of them agree.
const SENTINELS: usize = 3;
/// As whom processes come, so that all others can be kept away from a server.
const USER: &str = "play";
/// How long the sentinels may refuse a failover, because the last one has just been, and how long all may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two faults rooms play on for so long.
const PLAYS_ON: Duration = Duration::from_secs(2);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// Two servers, of which the sentinels name one.
#[derive(Debug)]
pub(crate) struct Watched {
    servers: Vec<RedisServer>,
    sentinels: Sentinels,
    /// The last fault is over.
    settled: Instant,
}

impl Watched {
    pub(super) fn start(durability: Durability, valkey: bool) -> io::Result<Self> {
        let mut options = durability.persistence().to_vec();
        options.extend(["--user", USER, "on", ">play", "~*", "&*", "+@all"]);
        if durability == Durability::Replicated {
            options.extend(["--min-replicas-to-write", "1"]);
        }
        let primary = match valkey {
            true => RedisServer::start_other(Program::Valkey, &options, true)?.ok_or_else(super::no_valkey)?,
            false => RedisServer::start_tcp(&options)?,
        };
        let replica = primary.replica(&options)?;
        let sentinels = Sentinels::start(&primary, SENTINELS, 1)?;
        Ok(Self { servers: vec![primary, replica], sentinels, settled: Instant::now() })
    }

    pub(super) fn url(&self) -> String {
        self.sentinels.url().replace("://", &format!("://{USER}:play@"))
    }

    pub(super) fn first(&self) -> &RedisServer {
        &self.servers[0]
    }

    /// See [`super::Servers::inflict`].
    pub(super) fn inflict(&mut self, fault: Fault) -> io::Result<Option<Hit>> {
        if command(&self.servers[self.primary()?], fault)? {
            return Ok(None);
        }
        sleep(PLAYS_ON.saturating_sub(self.settled.elapsed()));
        // A long CLIENT PAUSE makes sentinels replace the primary, too.
        self.until_settled()?;
        let node = self.primary()?;
        let from = Instant::now();
        match fault.kind {
            Kind::NodeKill => {
                self.servers[node].kill()?;
                sleep(fault.lasts);
                self.successor(node)?;
                self.servers[node].restart()?;
            }
            Kind::NodePause => pause(&self.servers[node], fault)?,
            Kind::NodeFailover => {
                let ask = || self.sentinels.all()[0].ask::<()>(&["SENTINEL", "FAILOVER", self.sentinels.name()]);
                until("the sentinels take a failover", || Ok(ask().is_ok()))?;
                self.successor(node)?;
            }
            _ => {
                self.cut_off(node, true)?;
                sleep(fault.lasts);
                // One that is back in the middle of an election may leave two primaries for long.
                self.successor(node)?;
                self.cut_off(node, false)?;
            }
        }
        self.until_settled()?;
        self.settled = Instant::now();
        let shards: Vec<ShardId> = (0..SHARDS_DEFAULT).map(ShardId).collect();
        Ok(Some(Hit { from, until: self.settled, doubted: shards.clone(), shards }))
    }

    /// The one that the sentinels name.
    fn primary(&self) -> io::Result<usize> {
        let named = self.sentinels.named()?;
        let found = self.servers.iter().position(|server| server.address().map(|address| address.port()) == Some(named));
        found.ok_or_else(|| io::Error::other(format!("the sentinels name a primary at port {named}, which is none")))
    }

    /// Waits until they name another one.
    fn successor(&self, old: usize) -> io::Result<()> {
        self.sentinels.successor(&self.servers, &self.servers[old]).map(drop)
    }

    /// Nobody but the processes of lasthit reaches it; or all do again.
    fn cut_off(&self, node: usize, is_cut: bool) -> io::Result<()> {
        let may: &[&str] = if is_cut { &["-@all", "+acl", "+client"] } else { &["+@all"] };
        self.servers[node].ask::<()>(&[&["ACL", "SETUSER", "default"], may].concat())?;
        if is_cut {
            self.servers[node].ask::<()>(&["CLIENT", "KILL", "USER", "default"])?;
        }
        Ok(())
    }

    /// Waits until all sentinels name the same primary and are content with it, and the other server is its replica. One that was away for a
    /// short time may be the primary with a replica as before, while they are still at replacing it: what broke then would leave two
    /// primaries for long.
    fn until_settled(&self) -> io::Result<()> {
        let settled = until("the servers are whole again", || {
            let Ok(primary) = self.primary() else { return Ok(false) };
            let info = |n: usize| self.servers[n].ask::<String>(&["INFO", "replication"]).unwrap_or_default();
            let other = self.servers[1 - primary].address().map_or(0, |address| address.port());
            let has_it = info(primary).contains(&format!("port={other},state=online"));
            Ok(has_it && info(1 - primary).contains("master_link_status:up") && self.sentinels.are_calm())
        });
        settled.map_err(|error| io::Error::other(format!("{error}: {}", self.told())))?;
        self.sentinels.all_name(&self.servers[self.primary()?])
    }

    /// What every server and every sentinel says, for whoever waits in vain.
    fn told(&self) -> String {
        let lines = |server: &RedisServer, command: &[&str], wanted: &[&str]| {
            let said = server.ask::<String>(command).unwrap_or_else(|error| error.to_string());
            let lines = said.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
            lines.map(str::trim).collect::<Vec<_>>().join(" ")
        };
        let shown = ["role:", "master_port", "master_link_status", "slave0:"];
        let servers = self.servers.iter().map(|server| {
            format!("port {}: {}", server.address().map_or(0, |a| a.port()), lines(server, &["INFO", "replication"], &shown))
        });
        let sentinels =
            self.sentinels.all().iter().map(|one| format!("a sentinel: {}", lines(one, &["INFO", "sentinel"], &["master0:"])));
        servers.chain(sentinels).collect::<Vec<_>>().join("; ")
    }
}

fn until(what: &str, mut so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begun = Instant::now();
    while !so()? {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("not in time: {what}")));
        }
        sleep(AGAIN);
    }
    Ok(())
}
