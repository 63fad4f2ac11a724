//! The servers of a journal: one, or the nodes of a cluster, of which each serves some shards, and one the catalog (what is of no shard).

mod map;
mod url;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::{Mutex, RwLock};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, cmd};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::JournalError;
use super::Inner;
use super::channels::At;
use super::connect::{self, Found, Wanted, bad_url, client};
use super::durability::Durability;
use super::keys::Keys;
use super::link::{Link, Live};
use super::slots::slot;
use super::socket;
use super::target::{Server, Target};
use crate::limits::{
    CLUSTER_AWAY_PAUSE, CLUSTER_INTERVAL, CLUSTER_PATIENCE, CLUSTER_PAUSE, REDIS_CONNECT_TIMEOUT, REDIS_RESPONSE_TIMEOUT,
    REPLICATED_CONNECTIONS,
};
use crate::types::ShardId;
use map::{Map, Member};
pub(super) use map::{members, own_replicas};
pub(crate) use url::{ClusterUrl, FORM};

/// The servers of a journal.
pub(super) enum Nodes {
    One(Arc<Node>),
    Cluster(Arc<Cluster>),
}

/// A server, and the connections to it.
pub(super) struct Node {
    /// For commands.
    pub(super) link: Arc<Link>,
    /// Connections that wait for replicas, by shard. Empty except at [`Durability::Replicated`].
    pub(super) waiting: Vec<Link>,
    /// The configuration epoch of a node of a cluster.
    epoch: Mutex<u64>,
}

/// The nodes of a cluster that serve a deployment.
pub(super) struct Cluster {
    url: ClusterUrl,
    /// What every node must have.
    wanted: Wanted,
    found: Found,
    keys: Arc<Keys>,
    now: RwLock<Now>,
    /// Somebody has heard that the map may be another.
    look: Arc<Notify>,
}

/// Which node has what at this moment.
#[derive(Default)]
struct Now {
    nodes: HashMap<At, Arc<Node>>,
    /// What is of no shard, then shard by shard.
    places: Vec<Option<At>>,
    /// Every address that was named, of replicas too.
    known: Vec<String>,
}

impl Node {
    /// A server that is connected to when it is first used.
    pub(super) fn new(target: &Arc<Target>, wanted: &Wanted) -> Self {
        Self { link: Arc::new(Link::new(target.clone(), wanted.clone())), waiting: Vec::new(), epoch: Mutex::new(0) }
    }

    /// With the connections that the durability needs besides.
    pub(super) fn waiting_by(self, target: &Arc<Target>, wanted: &Wanted, found: &Found) -> Self {
        let count = if found.durability == Durability::Replicated { REPLICATED_CONNECTIONS } else { 0 };
        let waiting = (0..count.min(usize::from(found.shards))).map(|_| Link::new(target.clone(), wanted.clone()));
        Self { waiting: waiting.collect(), ..self }
    }

    /// The connection that waits for replicas, or, if nobody waits, the one for all commands.
    pub(super) fn confirming(&self, shard: ShardId) -> &Link {
        self.waiting.get(usize::from(shard.0) % self.waiting.len().max(1)).unwrap_or(&self.link)
    }

    /// The connections that there are at this moment.
    pub(super) fn links(&self) -> impl Iterator<Item = (&Link, Live)> {
        std::iter::once(&*self.link).chain(&self.waiting).filter_map(|link| Some((link, link.met()?)))
    }

    /// What it was before may be gone: every shard is met again.
    fn forget(&self) {
        self.links().for_each(|(_, live)| live.forget());
    }
}

impl Nodes {
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The server of a shard, or of what is of none.
    pub(super) fn of(&self, of: Option<ShardId>) -> Result<Arc<Node>, JournalError> {
        match self {
            Self::One(node) => Ok(node.clone()),
            Self::Cluster(cluster) => cluster.of(of),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        match self {
            Self::One(node) => vec![node.clone()],
            Self::Cluster(cluster) => cluster.now.read().nodes.values().cloned().collect(),
        }
    }

    /// Which node has a channel. Empty: the only one, or none.
    pub(super) fn place(&self, channel: &str) -> At {
        match self {
            Self::One(_) => At::default(),
            Self::Cluster(cluster) => cluster.place(channel),
        }
    }

    /// The connection for a node's commands, and something that the node has: by that a process hears itself.
    pub(super) fn hear_at(&self, at: &At) -> Result<(Arc<Link>, Option<ShardId>), JournalError> {
        match self {
            Self::One(node) => Ok((node.link.clone(), None)),
            Self::Cluster(cluster) => {
                let now = cluster.now.read();
                let has = now.places.iter().position(|place| place.as_ref() == Some(at)).map(Cluster::place_of);
                let node = now.nodes.get(at).zip(has);
                node.map(|(node, has)| (node.link.clone(), has)).ok_or_else(|| {
                    cluster.look.notify_one();
                    JournalError::Unreachable(format!(
                        "{at:?} serves nothing of this deployment now: asking the cluster who does"
                    ))
                })
            }
        }
    }

    /// What the same node has as this: None for all there is.
    pub(super) fn beside(&self, of: Option<ShardId>) -> Option<Vec<ShardId>> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => {
                let now = cluster.now.read();
                let at = now.places.get(Cluster::index(of)).cloned().flatten();
                let mut beside: Vec<ShardId> = of.into_iter().collect();
                if at.is_some() {
                    let same = now.places.iter().enumerate().filter(|(_, place)| **place == at);
                    beside = same.filter_map(|(index, _)| Cluster::place_of(index)).collect();
                }
                Some(beside)
            }
        }
    }

    /// One shard of each node, or what is of none where the node has no shard: to ask all nodes. And all that no node has.
    pub(super) fn one_of_each(&self) -> Vec<Option<ShardId>> {
        match self {
            Self::One(_) => vec![None],
            Self::Cluster(cluster) => {
                let (now, mut seen) = (cluster.now.read(), HashSet::new());
                let places = now.places.iter().enumerate().rev();
                places
                    .filter(|(_, place)| place.is_none() || seen.insert((*place).clone()))
                    .map(|(index, _)| Cluster::place_of(index))
                    .collect()
            }
        }
    }

    /// The map may be another.
    pub(super) fn look(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.look.notify_one();
        }
    }
}

impl Cluster {
    fn index(of: Option<ShardId>) -> usize {
        of.map_or(0, |shard| usize::from(shard.0) + 1)
    }

    fn place_of(index: usize) -> Option<ShardId> {
        index.checked_sub(1).and_then(|shard| u16::try_from(shard).ok()).map(ShardId)
    }

    /// Connects, and checks every node that has something of the deployment.
    pub(super) async fn connect(
        url: &str,
        read: Result<ClusterUrl, String>,
        wanted: Wanted,
    ) -> Result<(Arc<Self>, Found), JournalError> {
        let read = read.map_err(|why| bad_url(url, &why))?;
        let look = Arc::new(Notify::new());
        let said = ask_anybody(&read, read.hosts.clone(), &look).await?;
        let (map, record) = (Map::of(&said), Keys::record(wanted.prefix()));
        let address = map.owner(slot(&record)).ok_or_else(|| uncovered(slot(&record), "the deployment's record"))?;
        let server = server(&read, address, &look)?;
        let (mut connection, _driver) = connect::reach(&server).await?;
        let found = connect::look(&mut connection, &wanted, &server).await?;
        let wanted = wanted.fixed(&found);
        let keys = Arc::new(Keys::new(wanted.prefix(), 0, found.shards, found.tags));
        let cluster = Arc::new(Self { url: read, wanted, found, keys, now: RwLock::default(), look });
        cluster.take(&said)?;
        cluster.check().await?;
        Ok((cluster, found))
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keys.clone()
    }

    /// Every part of the deployment has a node, and each node can be a journal's.
    async fn check(&self) -> Result<(), JournalError> {
        for index in 0..=usize::from(self.keys.shards_count()) {
            self.of(Self::place_of(index))?;
        }
        let nodes: Vec<_> = self.now.read().nodes.values().cloned().collect();
        for node in nodes {
            connect::warn_of_coverage(&mut node.link.live().await?).await;
        }
        Ok(())
    }

    fn of(&self, of: Option<ShardId>) -> Result<Arc<Node>, JournalError> {
        let now = self.now.read();
        let place = now.places.get(Self::index(of)).and_then(Option::as_ref).and_then(|at| now.nodes.get(at));
        place.cloned().ok_or_else(|| {
            self.look.notify_one();
            uncovered(slot(self.keys.root(of)), &of.map_or_else(|| "the catalog".to_owned(), |shard| format!("shard {shard}")))
        })
    }

    fn place(&self, channel: &str) -> At {
        let of = self.keys.place_of(channel);
        of.and_then(|of| self.now.read().places.get(Self::index(of)).cloned().flatten()).unwrap_or_default()
    }

    /// Takes what the nodes say.
    fn take(&self, said: &[Vec<Member>]) -> Result<(), JournalError> {
        let map = Map::of(said);
        let shards = (0..self.keys.shards_count()).map(|shard| Some(ShardId(shard)));
        let places: Vec<Option<At>> =
            std::iter::once(None).chain(shards).map(|of| map.owner(slot(self.keys.root(of))).map(At::from)).collect();
        let mut now = self.now.write();
        let (mut nodes, found) = (HashMap::new(), self.found);
        for (address, epoch) in &map.primaries {
            let at = At::from(address.as_str());
            if !places.contains(&Some(at.clone())) {
                continue;
            }
            let node = match now.nodes.remove(&at) {
                Some(node) => node,
                None => {
                    let target = Arc::new(Target::Address(Arc::new(server(&self.url, address, &self.look)?)));
                    Arc::new(Node::new(&target, &self.wanted).waiting_by(&target, &self.wanted, &found))
                }
            };
            if std::mem::replace(&mut *node.epoch.lock(), *epoch) != *epoch {
                node.forget();
            }
            nodes.insert(at, node);
        }
        // Nothing of the deployment is there any more.
        now.nodes.values().for_each(|node| node.link.is_reached(false));
        if now.places != places && !now.places.is_empty() {
            tracing::info!(?places, "parts of the deployment are on other nodes now: of no shard, then shard by shard");
        }
        let known = said.iter().flatten().filter_map(|member| member.address.clone()).collect::<HashSet<_>>();
        *now = Now { nodes, places, known: known.into_iter().collect() };
        Ok(())
    }

    /// Asks the nodes, and takes what they say. Returns whether all of them answered.
    async fn refresh(&self) -> Result<bool, JournalError> {
        let nodes: Vec<_> = self.now.read().nodes.iter().map(|(at, node)| (at.clone(), node.clone())).collect();
        let asked = nodes.into_iter().map(async |(at, node)| {
            let mut live = node.link.live().await?;
            let answer = nodes_of(&mut live.connection).await;
            Ok(members(&node.link.judge(&live, answer)?, host_of(&at), self.url.tls))
        });
        let asked: FuturesUnordered<_> = asked.collect();
        let count = asked.len();
        let mut said = gather(asked).await.0;
        let all = said.len() == count;
        if said.is_empty() {
            let known = self.now.read().known.iter().chain(&self.url.hosts).cloned().collect::<HashSet<_>>();
            said = ask_anybody(&self.url, known.into_iter().collect(), &self.look).await?;
        }
        self.take(&said).map(|()| all)
    }

    /// At the level `replicated`: whether every node still waits for every replica that may be elected.
    async fn look_again(&self) {
        let nodes: Vec<_> = self.now.read().nodes.values().cloned().collect();
        for node in nodes {
            if let Some(mut live) = node.link.met()
                && connect::is_other_level(&mut live).await
            {
                node.links().for_each(|(link, live)| link.give_up(&live));
            }
        }
    }
}

fn uncovered(slot: u16, what: &str) -> JournalError {
    JournalError::Unreachable(format!(
        "no node of the cluster serves slot {slot}, which {what} needs: see CLUSTER NODES, and give all slots to nodes \
         (redis-cli --cluster fix HOST:PORT, CLUSTER ADDSLOTSRANGE 0 16383)"
    ))
}

fn server(url: &ClusterUrl, address: &str, look: &Arc<Notify>) -> Result<Server, JournalError> {
    let login = url.login.as_ref().map(|login| format!("{login}@")).unwrap_or_default();
    let client = client(&format!("{}://{login}{address}", url.scheme()));
    let client = client
        .map_err(|_| bad_url(&format!("{}+cluster://{login}{address}", url.scheme()), "its user or password does not parse"))?;
    Ok(Server { client, shown: format!("{}://{address}", url.scheme()), sentinels: None, cluster: Some(look.clone()) })
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

async fn nodes_of(connection: &mut MultiplexedConnection) -> redis::RedisResult<String> {
    cmd("CLUSTER").arg("NODES").query_async(connection).await
}

/// The answers that come until a while after the first, and the last failure.
async fn gather<T>(mut asked: FuturesUnordered<impl Future<Output = Result<T, JournalError>>>) -> (Vec<T>, Option<JournalError>) {
    let (mut said, mut failure) = (Vec::new(), None);
    let mut until = Instant::now() + REDIS_CONNECT_TIMEOUT + REDIS_RESPONSE_TIMEOUT;
    while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
        match answer {
            Ok(answer) => {
                said.push(answer);
                until = until.min(Instant::now() + CLUSTER_PATIENCE);
            }
            // What must be changed is told rather than who is away.
            Err(error @ (JournalError::Unfit(_) | JournalError::Refused(_))) => failure = Some(error),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    (said, failure)
}

/// Asks each address, on a connection for that alone.
async fn ask_anybody(url: &ClusterUrl, hosts: Vec<String>, look: &Arc<Notify>) -> Result<Vec<Vec<Member>>, JournalError> {
    let asked = hosts.iter().map(async |host| {
        let server = server(url, host, look)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT));
        let connected = socket::connect(&server.client, config).await;
        let (mut connection, _driver) = connected.map_err(|error| server.unreached(&error))?;
        match nodes_of(&mut connection).await {
            Ok(text) => Ok(members(&text, host_of(host), url.tls)),
            Err(error) if error.detail().is_some_and(|said| said.contains("cluster support disabled")) => {
                Err(JournalError::Unfit(format!(
                    "{shown} is a single server and no node of a cluster: use {shown}",
                    shown = server.shown
                )))
            }
            Err(error) => Err(server.error(&error)),
        }
    });
    let (said, failure) = gather(asked.collect()).await;
    if said.is_empty() {
        let why = failure.unwrap_or_else(|| JournalError::Silent("no answer".to_owned()));
        return Err(match why {
            JournalError::Unreachable(why) | JournalError::Silent(why) => {
                JournalError::Unreachable(format!("no node of the cluster answers ({}): {why}", hosts.join(", ")))
            }
            other => other,
        });
    }
    Ok(said)
}

/// Keeps the map: asks again when something shows that it has changed, and every few seconds. Ends with the journal.
pub(super) async fn watch(journal: Weak<Inner>, cluster: Arc<Cluster>) {
    let mut looked = Instant::now();
    while journal.strong_count() > 0 {
        let _ = timeout(CLUSTER_INTERVAL, cluster.look.notified()).await;
        let pause = match cluster.refresh().await {
            Ok(true) => CLUSTER_PAUSE,
            // Every try to connect to the missing one asks for the next look.
            Ok(false) => CLUSTER_AWAY_PAUSE,
            Err(error) => {
                tracing::debug!(%error, "nobody tells which node serves what");
                CLUSTER_AWAY_PAUSE
            }
        };
        if looked.elapsed() >= CLUSTER_INTERVAL {
            looked = Instant::now();
            cluster.look_again().await;
        }
        let Some(here) = journal.upgrade() else { return };
        here.subscriptions.follow();
        drop(here);
        sleep(pause).await;
    }
}
