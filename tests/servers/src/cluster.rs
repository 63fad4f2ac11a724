//! A cluster of servers.

use std::io;
use std::path::Path;

use super::server::{PORTS_MAX, START_TIMEOUT, program, wait_until};
use super::{Program, RedisServer, free_address};

/// How many slots there are.
const SLOTS: usize = 16_384;
/// How long a node may be silent until the others take it for down, in ms.
const NODE_TIMEOUT_MS: &str = "1000";

/// Nodes of a cluster, with equal ranges of slots. They end with the handle.
#[derive(Debug)]
pub struct Cluster {
    /// First the primaries, then the replicas of the first, of the second, and so on.
    nodes: Vec<RedisServer>,
    primaries: usize,
}

impl Cluster {
    /// Starts primaries, and so many replicas of each, and waits until the cluster works and the replicas have caught up.
    ///
    /// # Errors
    /// When a node does not start, or they do not find each other.
    pub fn start(primaries: usize, replicas: usize, options: &[&str]) -> io::Result<Self> {
        Self::start_on(&program()?, false, primaries, replicas, options)
    }

    /// As [`Cluster::start`], of another program. None, and words on stderr, if that is not here.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_other(program: Program, primaries: usize, replicas: usize, options: &[&str]) -> io::Result<Option<Self>> {
        let Some(program) = program.find()? else { return Ok(None) };
        Self::start_on(&program, true, primaries, replicas, options).map(Some)
    }

    fn start_on(program: &Path, names_shards: bool, primaries: usize, replicas: usize, options: &[&str]) -> io::Result<Self> {
        let mut tried = 1;
        loop {
            match Self::launch(program, names_shards, primaries, replicas, options) {
                Err(error) if tried < PORTS_MAX && error.to_string().contains("Address already in use") => tried += 1,
                other => return other,
            }
        }
    }

    /// The nodes know each other from the beginning: that is quicker than to introduce them. Programs later than Redis 7.0 name the
    /// primary with its replicas, and Valkey ends at a message to one that has no such name.
    fn launch(program: &Path, names_shards: bool, primaries: usize, replicas: usize, options: &[&str]) -> io::Result<Self> {
        let count = primaries * (1 + replicas);
        let ports = (0..2 * count).map(|_| Ok(free_address()?.port())).collect::<io::Result<Vec<u16>>>()?;
        let id = |node: usize| format!("{:040x}", node + 1);
        let line = |node: usize, own: usize| {
            let own = if node == own { "myself," } else { "" };
            let (kind, of, slots) = match node.checked_sub(primaries) {
                None => ("master", "-".to_owned(), {
                    let first = |node: usize| node * SLOTS / primaries;
                    format!(" {}-{}", first(node), first(node + 1) - 1)
                }),
                Some(replica) => ("slave", id(replica / replicas), String::new()),
            };
            let (port, bus, epoch) = (ports[2 * node], ports[2 * node + 1], node.min(primaries) + 1);
            let first = node.checked_sub(primaries).map_or(node, |replica| replica / replicas);
            let shard = if names_shards { format!(",,shard-id={}", id(first)) } else { String::new() };
            format!("{} 127.0.0.1:{port}@{bus}{shard} {own}{kind} {of} 0 0 {epoch} connected{slots}\n", id(node))
        };
        let mut nodes = Vec::with_capacity(count);
        for own in 0..count {
            let known = (0..count).map(|node| line(node, own)).collect::<String>();
            let known = format!("{known}vars currentEpoch {} lastVoteEpoch 0\n", primaries + 1);
            let bus = ports[2 * own + 1].to_string();
            let first = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", bus.as_str()];
            let others = ["--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-require-full-coverage", "no"];
            nodes.push(RedisServer::node(program, &known, &[&first[..], &others, options].concat(), ports[2 * own])?);
        }
        let cluster = Self { nodes, primaries };
        cluster.until("all slots are served, and the replicas have caught up", |n, node| {
            let works = node.ask::<String>(&["CLUSTER", "INFO"])?.contains("cluster_state:ok");
            let info: String = node.ask(&["INFO", "replication"])?;
            let caught_up = match n < primaries {
                true => info.matches("state=online").count() == replicas,
                false => info.contains("master_link_status:up"),
            };
            Ok(works && caught_up)
        })?;
        Ok(cluster)
    }

    /// Some of the nodes, as `redis+cluster://...`.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts = self.nodes.iter().filter_map(RedisServer::address).map(|address| address.to_string());
        format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
    }

    /// The nodes: first the primaries, then the replicas of the first, of the second, and so on.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// As [`Cluster::nodes`].
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// The id of a node.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn id(&self, node: usize) -> io::Result<String> {
        self.nodes[node].ask(&["CLUSTER", "MYID"])
    }

    /// The primary that had a key at the start.
    ///
    /// # Errors
    /// When a node does not answer.
    pub fn first_owner(&self, key: &str) -> io::Result<usize> {
        let slot = self.slot(key)?;
        let range = |node: usize| node * SLOTS / self.primaries..(node + 1) * SLOTS / self.primaries;
        (0..self.primaries).find(|node| range(*node).contains(&slot)).ok_or_else(|| io::Error::other("no owner"))
    }

    /// The slot of a key.
    ///
    /// # Errors
    /// When no node answers.
    pub fn slot(&self, key: &str) -> io::Result<usize> {
        let asked = self.nodes.iter().find_map(|node| node.ask::<usize>(&["CLUSTER", "KEYSLOT", key]).ok());
        asked.ok_or_else(|| io::Error::other("no node answers"))
    }

    /// Moves a slot in the old way: key by key, then all are told. `between` is called when a part of the keys has moved.
    ///
    /// # Errors
    /// When a node refuses.
    pub fn move_slot(&self, key: &str, from: usize, to: usize, between: impl FnOnce()) -> io::Result<()> {
        let (slot, old, new) = (self.slot(key)?.to_string(), self.id(from)?, self.id(to)?);
        self.nodes[to].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &old])?;
        self.nodes[from].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &new])?;
        let port = self.nodes[to].address().map(|address| address.port().to_string()).unwrap_or_default();
        let mut between = Some(between);
        loop {
            let keys: Vec<String> = self.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "3"])?;
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            self.nodes[from].ask::<redis::Value>(&migrate)?;
            if let Some(between) = between.take() {
                between();
            }
        }
        // First the node that has it now, so that nobody is sent in a circle.
        let others = (0..self.primaries).filter(|node| ![from, to].contains(node));
        [to, from]
            .into_iter()
            .chain(others)
            .try_for_each(|node| self.nodes[node].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &new]))
    }

    /// Moves a slot in one step, as Valkey 9 does, and waits until it is there.
    ///
    /// # Errors
    /// When a node refuses, or it does not come.
    pub fn migrate_slot(&self, key: &str, from: usize, to: usize) -> io::Result<()> {
        let (slot, new) = (self.slot(key)?.to_string(), self.id(to)?);
        self.nodes[from].ask::<()>(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &slot, &slot, "NODE", &new])?;
        let there = wait_until(START_TIMEOUT, || {
            let said: String = self.nodes[from].ask(&["CLUSTER", "NODES"])?;
            let line = said.lines().find(|line| line.starts_with(&new)).unwrap_or_default();
            Ok(line.split_ascii_whitespace().skip(8).any(|range| range == slot).then_some(()))
        })?;
        there.ok_or_else(|| io::Error::other(format!("slot {slot} has not moved")))
    }

    /// Waits until a replica of a primary has become a primary itself.
    ///
    /// # Errors
    /// When none does.
    pub fn promoted(&self, primary: usize) -> io::Result<usize> {
        let replicas = self.nodes.len() / self.primaries - 1;
        let own = self.primaries + primary * replicas..self.primaries + (primary + 1) * replicas;
        let found = wait_until(3 * START_TIMEOUT, || {
            let is_primary = |node: &usize| {
                self.nodes[*node].ask::<String>(&["INFO", "replication"]).is_ok_and(|info| info.contains("role:master"))
            };
            Ok(own.clone().find(is_primary))
        })?;
        found.ok_or_else(|| io::Error::other("no replica is elected"))
    }

    fn until(&self, what: &str, so: impl Fn(usize, &RedisServer) -> io::Result<bool>) -> io::Result<()> {
        let all = wait_until(START_TIMEOUT, || {
            for (n, node) in self.nodes.iter().enumerate() {
                if !so(n, node)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        all.ok_or_else(|| io::Error::other(format!("not in time: {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_moves_and_a_replica_is_elected() {
        let mut cluster = Cluster::start(3, 1, &[]).expect("a cluster");
        let from = cluster.first_owner("name").expect("an owner");
        let to = (from + 1) % 3;
        cluster.nodes()[from].ask::<()>(&["SET", "name", "ann"]).expect("set");
        cluster.move_slot("name", from, to, || {}).expect("moved");
        assert_eq!(cluster.nodes()[to].ask::<String>(&["GET", "name"]).expect("an answer"), "ann");
        cluster.nodes_mut()[to].kill().expect("killed");
        let successor = cluster.promoted(to).expect("elected");
        assert_eq!(successor, 3 + to);
    }
}
