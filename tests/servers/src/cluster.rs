//! A cluster of servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use super::server::{PORTS_MAX, START_TIMEOUT, program, wait_until};
use super::{Program, Proxy, RedisServer, Upstream, free_address};

/// How many slots there are.
const SLOTS: usize = 16_384;
/// How long a node may be silent until the others take it for down, in ms.
const NODE_TIMEOUT_MS: &str = "1000";

/// How long a replica tries to take over, at most.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(6);
/// How often it is told to.
const FAILOVERS_MAX: usize = 5;

/// What a cluster is like, beside its size.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Another program than the installed redis-server.
    pub program: Option<Program>,
    /// Where its nodes are reached. They listen everywhere if that is not this machine's loopback.
    pub address: Ipv4Addr,
    /// Whether [`Cluster::cut_off`] works: nodes then come to each other through proxies, each from an address of its own.
    pub divisible: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { program: None, address: Ipv4Addr::LOCALHOST, divisible: false }
    }
}

/// Nodes of a cluster, with equal ranges of slots. They end with the handle.
#[derive(Debug)]
pub struct Cluster {
    /// First the primaries, then the replicas of the first, of the second, and so on.
    nodes: Vec<RedisServer>,
    primaries: usize,
    address: Ipv4Addr,
    /// How the nodes come to each of them, if they can be cut off.
    ways: Vec<Proxy>,
}

/// Where a node of a divisible cluster comes from.
fn source(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(node + 1).unwrap_or(u8::MAX))
}

/// Whether a line of `CLUSTER NODES` has a slot.
fn has_slot(line: &str, slot: usize) -> bool {
    line.split_ascii_whitespace().skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().ok().zip(last.parse().ok()).is_some_and(|(first, last): (usize, usize)| (first..=last).contains(&slot))
    })
}

impl Cluster {
    /// Starts primaries, and so many replicas of each, and waits until the cluster works and the replicas have caught up.
    ///
    /// # Errors
    /// When a node does not start, or they do not find each other.
    pub fn start(primaries: usize, replicas: usize, options: &[&str]) -> io::Result<Self> {
        Self::start_on(&program()?, false, Shape::default(), primaries, replicas, options)
    }

    /// As [`Cluster::start`], of primaries that speak TLS alone, with the certificate and the key in these files.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_tls(primaries: usize, certificate: &Path, key: &Path, options: &[&str]) -> io::Result<Self> {
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        let tls = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
        let others = ["--tls-auth-clients", "no", "--tls-cluster", "yes", "--port", "0"];
        Self::start_on(&program()?, false, Shape::default(), primaries, 0, &[&tls[..], &others, options].concat())
    }

    /// As [`Cluster::start`], of another program. None, and words on stderr, if that is not here.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_other(program: Program, primaries: usize, replicas: usize, options: &[&str]) -> io::Result<Option<Self>> {
        Self::start_as(Shape { program: Some(program), ..Shape::default() }, primaries, replicas, options)
    }

    /// As [`Cluster::start`], of this shape. None, and words on stderr, if its program is not here.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_as(shape: Shape, primaries: usize, replicas: usize, options: &[&str]) -> io::Result<Option<Self>> {
        let Some(other) = shape.program else {
            return Self::start_on(&program()?, false, shape, primaries, replicas, options).map(Some);
        };
        let Some(program) = other.find()? else { return Ok(None) };
        Self::start_on(&program, true, shape, primaries, replicas, options).map(Some)
    }

    fn start_on(
        program: &Path,
        names_shards: bool,
        shape: Shape,
        primaries: usize,
        replicas: usize,
        options: &[&str],
    ) -> io::Result<Self> {
        let mut tried = 1;
        loop {
            match Self::launch(program, names_shards, shape, primaries, replicas, options) {
                Err(error) if tried < PORTS_MAX && error.to_string().contains("Address already in use") => tried += 1,
                other => return other,
            }
        }
    }

    /// The nodes know each other from the beginning: that is quicker than to introduce them. Programs later than Redis 7.0 name the
    /// primary with its replicas, and Valkey ends at a message to one that has no such name.
    fn launch(
        program: &Path,
        names_shards: bool,
        shape: Shape,
        primaries: usize,
        replicas: usize,
        options: &[&str],
    ) -> io::Result<Self> {
        let count = primaries * (1 + replicas);
        let ports = (0..2 * count).map(|_| Ok(free_address()?.port())).collect::<io::Result<Vec<u16>>>()?;
        let bus = |node: usize| (Ipv4Addr::LOCALHOST, ports[2 * node + 1]).into();
        let divided = if shape.divisible { 0..count } else { 0..0 };
        let ways =
            divided.map(|node| Proxy::start_at(shape.address, Upstream::Tcp(bus(node)))).collect::<io::Result<Vec<_>>>()?;
        let shown = |node: usize| ways.get(node).map_or_else(|| bus(node), Proxy::address).port();
        let address = shape.address.to_string();
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
            let (port, bus, epoch) = (ports[2 * node], shown(node), node.min(primaries) + 1);
            let first = node.checked_sub(primaries).map_or(node, |replica| replica / replicas);
            let shard = if names_shards { format!(",,shard-id={}", id(first)) } else { String::new() };
            format!("{} {address}:{port}@{bus}{shard} {own}{kind} {of} 0 0 {epoch} connected{slots}\n", id(node))
        };
        let mut nodes = Vec::with_capacity(count);
        for own in 0..count {
            let known = (0..count).map(|node| line(node, own)).collect::<String>();
            let known = format!("{known}vars currentEpoch {} lastVoteEpoch 0\n", primaries + 1);
            let bus = ports[2 * own + 1].to_string();
            let first = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", bus.as_str()];
            let others = ["--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-require-full-coverage", "no"];
            // Without this option no port speaks TLS.
            let port = ports[2 * own].to_string();
            let tls = if options.contains(&"--tls-cluster") { vec!["--tls-port", port.as_str()] } else { Vec::new() };
            let (shown, from) = (shown(own).to_string(), source(own).to_string());
            // Who comes from another address than the common one is a stranger to protected mode.
            let local = if shape.address.is_loopback() { "127.0.0.1" } else { "0.0.0.0" };
            let open = ["--cluster-announce-ip", &address, "--bind", local, "--protected-mode", "no"];
            let apart = ["--cluster-announce-bus-port", &shown, "--bind-source-addr", &from];
            let apart = if shape.divisible { &apart[..] } else { &[] };
            let open = if shape.divisible || !shape.address.is_loopback() { &open[..] } else { &[] };
            let options = [&first[..], &others, open, apart, options, &tls].concat();
            nodes.push(RedisServer::node(program, &known, &options, ports[2 * own])?);
        }
        let cluster = Self { nodes, primaries, address: shape.address, ways };
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
        let ports = self.nodes.iter().filter_map(RedisServer::address).map(|address| address.port());
        let hosts = ports.map(|port| format!("{}:{port}", self.address));
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

    /// The node that serves a key now. All nodes must answer.
    ///
    /// # Errors
    /// When a node does not answer, or none says that it does.
    pub fn owner(&self, key: &str) -> io::Result<usize> {
        let slot = self.slot(key)?;
        for (node, server) in self.nodes.iter().enumerate() {
            let said: String = server.ask(&["CLUSTER", "NODES"])?;
            let own = said.lines().find(|line| line.contains("myself")).unwrap_or_default();
            if own.contains("master") && has_slot(own, slot) {
                return Ok(node);
            }
        }
        Err(io::Error::other(format!("no node has slot {slot}")))
    }

    /// The slot of a key.
    ///
    /// # Errors
    /// When no node answers.
    pub fn slot(&self, key: &str) -> io::Result<usize> {
        let asked = self.nodes.iter().find_map(|node| node.ask::<usize>(&["CLUSTER", "KEYSLOT", key]).ok());
        asked.ok_or_else(|| io::Error::other("no node answers"))
    }

    /// Cuts a node off from all others, in both directions, and from its replicas, but not from clients; or mends that.
    ///
    /// # Errors
    /// When the cluster is not divisible, or a node does not answer.
    pub fn cut_off(&self, node: usize, is_cut: bool) -> io::Result<()> {
        let own = self.ways.get(node).ok_or_else(|| io::Error::other("this cluster is not divisible"))?;
        own.refuse(is_cut);
        let from = is_cut.then(|| IpAddr::from(source(node)));
        self.ways.iter().for_each(|way| way.shut_out(from));
        // Replicas come to the port of the clients.
        let (may, kill) = if is_cut { (["-psync", "-sync"], true) } else { (["+psync", "+sync"], false) };
        self.nodes[node].ask::<()>(&[&["ACL", "SETUSER", "default"], &may[..]].concat())?;
        if kill {
            self.nodes[node].ask::<()>(&["CLIENT", "KILL", "TYPE", "replica"])?;
            self.ways.iter().for_each(Proxy::cut);
        }
        Ok(())
    }

    /// The nodes that have the same slots as this one, or had them at the start, without itself.
    pub fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        let (primaries, replicas) = (self.primaries, self.nodes.len() / self.primaries - 1);
        let group = node.checked_sub(primaries).map_or(node, |replica| replica / replicas.max(1));
        let all = std::iter::once(group).chain(primaries + group * replicas..primaries + (group + 1) * replicas);
        all.filter(move |other| *other != node)
    }

    /// Whether it says so itself.
    fn is_primary(&self, node: usize) -> bool {
        self.nodes[node].ask::<String>(&["INFO", "replication"]).is_ok_and(|info| info.contains("role:master"))
    }

    /// Waits until every slot is served, and every primary has all of its replicas again. All nodes must run.
    ///
    /// # Errors
    /// When that does not come.
    pub fn settled(&self) -> io::Result<()> {
        let replicas = self.nodes.len() / self.primaries - 1;
        let works = |node: &RedisServer| {
            let says = |what: &[&str]| node.ask::<String>(what).unwrap_or_default();
            let info = says(&["INFO", "replication"]);
            let is_whole = if info.contains("role:master") {
                info.matches("state=online").count() == replicas
            } else {
                info.contains("master_link_status:up")
            };
            is_whole && says(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        };
        let so = || Ok(self.nodes.iter().all(works).then_some(()));
        wait_until(3 * START_TIMEOUT, so)?.ok_or_else(|| io::Error::other("the cluster is not whole again"))
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
        // First the node that has it now, so that nobody is sent in a circle. Replicas hear of it.
        let others = (0..self.nodes.len()).filter(|node| ![from, to].contains(node) && self.is_primary(*node));
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
        let (number, new) = (self.slot(key)?, self.id(to)?);
        let slot = number.to_string();
        self.nodes[from].ask::<()>(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &slot, &slot, "NODE", &new])?;
        let there = wait_until(START_TIMEOUT, || {
            let said: String = self.nodes[from].ask(&["CLUSTER", "NODES"])?;
            let line = said.lines().find(|line| line.starts_with(&new)).unwrap_or_default();
            Ok(has_slot(line, number).then_some(()))
        })?;
        there.ok_or_else(|| io::Error::other(format!("slot {slot} has not moved")))
    }

    /// Lets a replica take over from its living primary, and waits until it has. The others may refuse to vote; it is asked again then.
    ///
    /// # Errors
    /// When it does not answer, or never takes over.
    pub fn fail_over(&self, to: usize) -> io::Result<()> {
        for _ in 0..FAILOVERS_MAX {
            self.nodes[to].ask::<()>(&["CLUSTER", "FAILOVER"])?;
            if wait_until(FAILOVER_TIMEOUT, || Ok(self.is_primary(to).then_some(())))?.is_some() {
                return Ok(());
            }
        }
        Err(io::Error::other("a replica does not take over"))
    }

    /// Waits until another node has become the primary of what this one had.
    ///
    /// # Errors
    /// When none does.
    pub fn promoted(&self, primary: usize) -> io::Result<usize> {
        let found = wait_until(3 * START_TIMEOUT, || Ok(self.others(primary).find(|node| self.is_primary(*node))))?;
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

    #[test]
    fn a_node_is_cut_off_from_the_others_and_comes_back() {
        let shape = Shape { divisible: true, ..Shape::default() };
        let cluster = Cluster::start_as(shape, 3, 1, &[]).expect("a cluster").expect("redis-server");
        let cut = cluster.owner("name").expect("an owner");
        cluster.cut_off(cut, true).expect("cut off");
        let next = cluster.promoted(cut).expect("elected");
        assert_eq!(cluster.others(cut).collect::<Vec<_>>(), [next]);
        // Who serves no majority refuses, and clients reach it to hear so.
        let refused = wait_until(START_TIMEOUT, || Ok(cluster.nodes()[cut].ask::<()>(&["SET", "name", "ann"]).err()));
        let refused = refused.expect("asked").expect("refused").to_string();
        assert!(refused.contains("The cluster is down"), "{refused}");
        cluster.cut_off(cut, false).expect("mended");
        wait_until(START_TIMEOUT, || Ok(cluster.owner("name").is_ok_and(|owner| owner == next).then_some(()))).expect("asked");
        cluster.settled().expect("whole again");
        cluster.nodes()[next].ask::<()>(&["SET", "name", "ann"]).expect("served");
    }
}
