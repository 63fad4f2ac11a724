//! The nodes of a Redis Cluster: they are killed, paused, demoted and cut off from each other, and slots move between them.

use std::io;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use lasthit::internals::limits::SHARDS_DEFAULT;
use lasthit::journal::redis::{catalog_key, shard_key};
use lasthit::types::ShardId;
use servers::{Cluster, Program, RedisServer, Shape};
use tokio::time::Instant;

use super::{Hit, command, pause};
use crate::chaos::Durability;
use crate::chaos::layout::Nodes;
use crate::chaos::plan::{Fault, Kind};

/// How long a node may be silent until the others take it for down, in ms. After one that is lost, somebody is elected within some 3 s.
const NODE_TIMEOUT_MS: &str = "1500";
/// After an election nobody votes again on the same node for twice that time: who wanted to be elected would have to wait. Rooms play on
/// meanwhile.
const VOTES_AGAIN: Duration = Duration::from_millis(3200);

/// A cluster whose nodes can be cut off from each other.
#[derive(Debug)]
pub(crate) struct Divided {
    cluster: Cluster,
    replicas: u16,
    /// The last election is over.
    settled: Instant,
    /// A key of each shard, and one of what belongs to none.
    keys: Vec<String>,
}

impl Divided {
    pub(super) fn start(nodes: Nodes, durability: Durability, valkey: bool, address: Ipv4Addr) -> io::Result<Self> {
        let confirming = nodes.replicas.to_string();
        let mut options = durability.persistence().to_vec();
        // Primaries that got another's replica would have another number of them than processes are told.
        options.extend(["--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-allow-replica-migration", "no"]);
        if durability == Durability::Replicated {
            options.extend(["--min-replicas-to-write", &confirming]);
        }
        let shape = Shape { program: valkey.then_some(Program::Valkey), address, divisible: true };
        let cluster = Cluster::start_as(shape, nodes.primaries.into(), nodes.replicas.into(), &options)?;
        let cluster = cluster.ok_or_else(super::no_valkey)?;
        let keys = (0..SHARDS_DEFAULT).map(|shard| shard_key(ShardId(shard), SHARDS_DEFAULT, "shard"));
        Ok(Self {
            cluster,
            replicas: nodes.replicas,
            settled: Instant::now(),
            keys: keys.chain([catalog_key("workers")]).collect(),
        })
    }

    pub(super) fn url(&self) -> String {
        self.cluster.url()
    }

    pub(super) fn first(&self) -> &RedisServer {
        &self.cluster.nodes()[0]
    }

    /// The shards that a node serves.
    fn shards_on(&self, node: usize) -> io::Result<Vec<ShardId>> {
        let mut shards = Vec::new();
        for shard in 0..SHARDS_DEFAULT {
            if self.cluster.owner(&self.keys[usize::from(shard)])? == node {
                shards.push(ShardId(shard));
            }
        }
        Ok(shards)
    }

    /// See [`super::Servers::inflict`]. The plan alone says which node it happens to.
    pub(super) fn inflict(&mut self, fault: Fault) -> io::Result<Option<Hit>> {
        let turn = usize::try_from(fault.at.as_micros()).unwrap_or_default();
        let which = turn % self.keys.len();
        let node = self.cluster.owner(&self.keys[which])?;
        if command(&self.cluster.nodes()[node], fault)? {
            return Ok(None);
        }
        if fault.kind.moves_slots() {
            return self.move_shard(which, node, fault).map(Some);
        }
        sleep(VOTES_AGAIN.saturating_sub(self.settled.elapsed()));
        let shards = self.shards_on(node)?;
        let from = Instant::now();
        match fault.kind {
            Kind::NodeKill => {
                self.cluster.nodes_mut()[node].kill()?;
                if self.replicas > 0 {
                    self.cluster.promoted(node)?;
                }
                sleep(fault.lasts.saturating_sub(from.elapsed()));
                self.cluster.nodes_mut()[node].restart()?;
            }
            Kind::NodePause => pause(&self.cluster.nodes()[node], fault)?,
            Kind::NodeFailover => {
                let replicas: Vec<usize> = self.cluster.others(node).collect();
                let next = replicas[turn / self.keys.len() % replicas.len()];
                self.cluster.fail_over(next)?;
            }
            _ => {
                self.cluster.cut_off(node, true)?;
                sleep(fault.lasts);
                self.cluster.cut_off(node, false)?;
            }
        }
        self.cluster.settled()?;
        self.settled = Instant::now();
        Ok(Some(Hit { from, until: self.settled, doubted: shards.clone(), shards }))
    }

    /// A slot goes to another node, and perhaps back.
    fn move_shard(&self, which: usize, from: usize, fault: Fault) -> io::Result<Hit> {
        let key = &self.keys[which];
        // Any other node that serves something.
        let owners = self.keys.iter().map(|key| self.cluster.owner(key)).collect::<io::Result<Vec<_>>>()?;
        let to = owners.into_iter().cycle().skip(which).take(2 * self.keys.len()).find(|owner| *owner != from);
        let to = to.ok_or_else(|| io::Error::other("all shards are on one node: no slot can move"))?;
        let moved = u16::try_from(which).ok().filter(|shard| *shard < SHARDS_DEFAULT).map(ShardId);
        // Whoever takes a slot has another configuration epoch, for all that it serves.
        let mut doubted = self.shards_on(to)?;
        doubted.extend(moved);
        let begun = Instant::now();
        match fault.kind {
            Kind::SlotMoveAtomic => self.cluster.migrate_slot(key, from, to)?,
            Kind::SlotThereAndBack => {
                self.cluster.move_slot(key, from, to, || {})?;
                sleep(fault.lasts);
                doubted.extend(self.shards_on(from)?);
                self.cluster.move_slot(key, to, from, || {})?;
            }
            _ => self.cluster.move_slot(key, from, to, || {})?,
        }
        self.cluster.settled()?;
        Ok(Hit { from: begun, until: Instant::now(), shards: moved.into_iter().collect(), doubted })
    }
}
