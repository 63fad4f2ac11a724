//! The Redis that is broken: one server or two, a cluster, or what sentinels look after.

mod cluster;
mod sentinel;
mod single;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use lasthit::types::ShardId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use servers::{Proxy, RedisServer, Upstream};
use tokio::time::Instant;

use super::layout::{Layout, On};
use super::plan::{Fault, Kind};
use crate::hosts::Way;
use cluster::Divided;
use sentinel::Watched;
use single::Single;

/// What was done to a node or a host, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The fault began.
    pub(crate) from: Instant,
    /// Everything was as before again.
    pub(crate) until: Instant,
    /// The shards that it happened to.
    pub(crate) shards: Vec<ShardId>,
    /// Those that have another server since, and so may be in doubt: as often as that happened to them.
    pub(crate) doubted: Vec<ShardId>,
}

/// The servers of a run.
#[derive(Debug)]
pub(crate) enum Servers {
    /// One, or a primary and its replica.
    Single(Box<Single>),
    /// The nodes of a cluster.
    Cluster(Divided),
    /// A primary and its replica, under sentinels.
    Sentinel(Watched),
}

impl Servers {
    /// Starts what the level needs; blocks until it is ready.
    pub(crate) fn start(on: On) -> io::Result<Self> {
        let On { durability, valkey, .. } = on;
        let address = if on.hosts { Way::Redis.address(0) } else { Ipv4Addr::LOCALHOST };
        match on.layout {
            Layout::Single => Single::start(durability, address).map(Box::new).map(Self::Single),
            Layout::Cluster(nodes) => Divided::start(nodes, durability, valkey, address).map(Self::Cluster),
            Layout::Sentinel => Watched::start(durability, valkey).map(Self::Sentinel),
        }
    }

    /// Where processes are led to by a proxy of their own; None where they find the way to several servers themselves.
    pub(super) fn upstream(&self) -> Option<Upstream> {
        match self {
            Self::Single(single) => Some(single.first().upstream()),
            Self::Cluster(_) | Self::Sentinel(_) => None,
        }
    }

    /// What processes are told where there is no proxy before them.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Single(single) => single.url(),
            Self::Cluster(divided) => divided.url(),
            Self::Sentinel(watched) => watched.url(),
        }
    }

    fn first(&self) -> &RedisServer {
        match self {
            Self::Single(single) => single.first(),
            Self::Cluster(divided) => divided.first(),
            Self::Sentinel(watched) => watched.first(),
        }
    }

    /// The process of the first one.
    pub(super) fn pid(&self) -> io::Result<Pid> {
        pid(self.first())
    }

    /// Asks the first one something; blocks.
    pub(super) fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> io::Result<T> {
        self.first().ask(command)
    }

    /// Does what a fault says, and undoes it after its time; blocks. What was done to nodes is told.
    pub(super) fn inflict(&mut self, fault: Fault, ways: &[Arc<Proxy>]) -> io::Result<Option<Hit>> {
        match self {
            Self::Single(single) => single.inflict(fault, ways).map(|()| None),
            Self::Cluster(divided) => divided.inflict(fault),
            Self::Sentinel(watched) => watched.inflict(fault),
        }
    }
}

fn no_valkey() -> io::Error {
    io::Error::other("there is no Valkey 9 here: run scripts/other-servers.sh, name one in VALKEY_SERVER, or leave out --valkey")
}

fn pid(server: &RedisServer) -> io::Result<Pid> {
    i32::try_from(server.pid()).map(Pid::from_raw).map_err(io::Error::other)
}

/// Stands still for so long.
fn pause(server: &RedisServer, fault: Fault) -> io::Result<()> {
    let pid = pid(server)?;
    kill(pid, Signal::SIGSTOP)?;
    std::thread::sleep(fault.lasts);
    kill(pid, Signal::SIGCONT)?;
    Ok(())
}

/// The faults that are one command to a server; false for all others.
fn command(server: &RedisServer, fault: Fault) -> io::Result<bool> {
    let lasts_ms = fault.lasts.as_millis().to_string();
    match fault.kind {
        Kind::ClientKill => server.ask(&["CLIENT", "KILL", "TYPE", "normal"]),
        Kind::SubscriberKill => server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]),
        Kind::ClientPause => server.ask(&["CLIENT", "PAUSE", &lasts_ms, "ALL"]),
        Kind::ScriptFlush => server.ask(&["SCRIPT", "FLUSH"]),
        _ => return Ok(false),
    }
    .map(|()| true)
}
