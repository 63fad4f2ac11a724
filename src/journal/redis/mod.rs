//! The journal in Redis: every step is one script call. The only place that knows Redis.
//!
//! ```no_run
//! use lasthit::journal::redis::{Durability, RedisJournal, RedisOptions};
//!
//! # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
//! let options = RedisOptions { durability: Some(Durability::Disk), ..RedisOptions::default() };
//! let journal = RedisJournal::connect("redis://127.0.0.1", options).await?;
//! # Ok(())
//! # }
//! ```

mod catalog;
mod channels;
mod connect;
mod durability;
mod error;
mod failed;
mod gateways;
mod keys;
mod link;
mod nodes;
pub(crate) mod own;
mod programs;
mod reply;
mod scripts;
mod send;
mod sentinel;
mod slots;
mod socket;
mod subscribe;
mod survey;
mod target;
mod workers;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use super::lockfile::{LockFile, LockFiles, default_runtime_dir};
use super::{Beats, CommonJournal, JournalError, ProcessRecord, Signals, check, this_host};
use crate::types::{HostId, Incarnation, RoomId, ShardId};
use connect::Wanted;
pub(crate) use connect::{FORMAT, names_a_host};
pub use durability::Durability;
use keys::{Keys, ShardKeys};
#[doc(hidden)]
pub use keys::{catalog_key, shard_key};
use nodes::{Cluster, Node, Nodes};
pub(crate) use nodes::{ClusterUrl, FORM as CLUSTER_FORM};
use reply::Reply;
use scripts::{Call, ROOM_BYTES, TIMELINE};
pub(crate) use sentinel::{FORM as SENTINEL_FORM, SentinelUrl};
use subscribe::Subscriptions;
use target::Target;

/// How to use a Redis server.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The prefix of all keys and channels: 1 to 64 characters out of `A-Z a-z 0-9 . : _ -`.
    pub prefix: String,
    /// The number of shards, 1 to 1,024. None: the deployment's, or [`SHARDS_DEFAULT`](crate::limits::SHARDS_DEFAULT) for a new
    /// deployment.
    pub shards: Option<u16>,
    /// What a verdict has survived before anyone sees it. None: the deployment's level, or [`Durability::Redis`] for a new
    /// deployment.
    pub durability: Option<Durability>,
    /// The directory of the lock files by which this host's processes notice at once that one of them is gone: the same for all,
    /// on a local file system. None: time-outs alone tell.
    pub runtime_dir: Option<PathBuf>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { prefix: "lasthit".into(), shards: None, durability: None, runtime_dir: Some(default_runtime_dir()) }
    }
}

/// A [`Journal`](super::Journal) in Redis 7.0 or newer. Clones share their connections: to each node one for the commands, one for all
/// subscriptions.
#[derive(Clone)]
pub struct RedisJournal(Arc<Inner>, HostId);

struct Inner {
    nodes: Arc<Nodes>,
    subscriptions: Subscriptions,
    durability: Durability,
    keys: Arc<Keys>,
    locks: Option<LockFiles>,
}

impl Inner {
    fn new(nodes: Nodes, keys: Arc<Keys>, durability: Durability, locks: Option<LockFiles>) -> Self {
        let nodes = Arc::new(nodes);
        let subscriptions = Subscriptions::new(nodes.clone(), keys.clone());
        Self { nodes, subscriptions, durability, keys, locks }
    }
}

impl fmt::Debug for RedisJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The links know the password.
        f.debug_struct("RedisJournal").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}

impl RedisJournal {
    /// Connects, checks the server (version, role, eviction policy, what the durability needs), and reads or writes the
    /// deployment's record. A deployment of the format before is taken over: processes of the version before cannot join it from then
    /// on. It checks again after each reconnection. `url` is
    /// `redis://[[user]:password@]host[:port][/db]`, `rediss://...` for TLS,
    /// `unix:///path[?user=&pass=&db=]`, or, for the primary that Sentinel names,
    /// `redis+sentinel://[[user]:password@]host[:port],host[:port]/name[?db=&sentinel_user=&sentinel_password=]` with the hosts of
    /// the sentinels (`rediss+sentinel://...` for TLS to them and to the servers), or, for a cluster,
    /// `redis+cluster://[[user]:password@]host[:port],host[:port]` with some of its nodes (`rediss+cluster://...` for TLS). Certificates are checked against the system's authorities, or those in the
    /// file that the environment names as `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// [`JournalError::Refused`] if you must change something (URL, password, server, number of shards, durability),
    /// [`JournalError::Unreachable`] or [`JournalError::Silent`] if you can try again. No error shows the password.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, JournalError> {
        Self::connect_as(url, options, true).await
    }

    /// As [`RedisJournal::connect`], for whoever only reads: a deployment of the format before is left to the processes that run it.
    ///
    /// # Errors
    /// As [`RedisJournal::connect`].
    pub(crate) async fn connect_to_read(url: &str, options: RedisOptions) -> Result<Self, JournalError> {
        Self::connect_as(url, options, false).await
    }

    async fn connect_as(url: &str, options: RedisOptions, takes_over: bool) -> Result<Self, JournalError> {
        let locks = lock_files(&options)?;
        let wanted = Wanted::new(&options.prefix, options.shards, options.durability, takes_over)?;
        if let Some(read) = ClusterUrl::read(url) {
            let (cluster, found) = Cluster::connect(url, read, wanted).await?;
            let inner = Arc::new(Inner::new(Nodes::Cluster(cluster.clone()), cluster.keys(), found.durability, locks));
            tokio::spawn(nodes::watch(Arc::downgrade(&inner), cluster));
            return Ok(Self(inner, this_host()));
        }
        let target = Arc::new(Target::of(url)?);
        let node = Node::new(&target, &wanted);
        let found = node.link.live().await?.found;
        let node = node.waiting_by(&target, &wanted.fixed(&found), &found);
        let keys = Arc::new(Keys::new(&options.prefix, target.database(), found.shards, found.tags));
        let inner = Arc::new(Inner::new(Nodes::One(Arc::new(node)), keys, found.durability, locks));
        if let Target::Sentinels(sentinels) = &*target {
            tokio::spawn(sentinel::watch(Arc::downgrade(&inner), sentinels.clone()));
        }
        Ok(Self(inner, this_host()))
    }

    /// What a verdict has survived before anyone sees it.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.0.durability
    }

    /// The same journal, as the processes of another host use it.
    #[doc(hidden)]
    #[must_use]
    pub fn on_host(&self, host: HostId) -> Self {
        Self(self.0.clone(), host)
    }

    /// The number of a host's timeline, and the last one that was given.
    async fn timelines(&self, host: &str) -> Result<(u32, u32), JournalError> {
        let mut call = Call::new(&TIMELINE, 1, 1, ROOM_BYTES);
        call.text(&self.0.keys.timelines).text(host);
        let mut reply = Reply::new("timeline", self.send(None, &call).await?)?;
        let numbers = (reply.parse()?, reply.parse()?);
        reply.end()?;
        Ok(numbers)
    }

    fn shard(&self, shard: ShardId) -> Result<&ShardKeys, JournalError> {
        check::shard(shard, self.shards())?;
        Ok(self.0.keys.shard(shard))
    }

    fn room(&self, room: &RoomId) -> &ShardKeys {
        self.0.keys.shard(ShardId::of(room, self.shards()))
    }
}

/// The default directory may be missing where there is no home for it; another one was asked for.
fn lock_files(options: &RedisOptions) -> Result<Option<LockFiles>, JournalError> {
    let Some(dir) = &options.runtime_dir else { return Ok(None) };
    match LockFiles::open(dir, &options.prefix) {
        Ok(files) => Ok(Some(files)),
        Err(error) if *dir == default_runtime_dir() => {
            tracing::warn!(%error, "no lock files in {}: a process that is killed is noticed by time-outs alone", dir.display());
            Ok(None)
        }
        Err(error) => Err(JournalError::Refused(format!(
            "no lock files in {}: {error}: name another runtime directory, or none",
            dir.display()
        ))),
    }
}

#[async_trait]
impl CommonJournal for RedisJournal {
    fn shards(&self) -> u16 {
        self.0.keys.shards_count()
    }

    fn host(&self) -> &HostId {
        &self.1
    }

    fn host_id(&self) -> u128 {
        self.0.locks.as_ref().map_or(0, |locks| locks.host_id(Incarnation::random()))
    }

    async fn timeline(&self, host: &str) -> Result<u32, JournalError> {
        Ok(self.timelines(host).await?.0)
    }

    async fn live_timelines(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError> {
        let mut reply = self.enter_in("live timelines", &self.0.keys.hosts, timeline, good_for_ms, "").await?;
        let mut live = Vec::new();
        while !reply.is_empty() {
            let name: String = reply.parse()?;
            live.extend(name.parse::<u32>());
            reply.bytes()?;
        }
        Ok(live)
    }

    async fn beat(&self, me: &ProcessRecord, good_for_ms: u64) -> Result<Beats, JournalError> {
        self.beat_of(me, good_for_ms).await
    }

    async fn drain(&self, host: &HostId, drained: bool) -> Result<(), JournalError> {
        self.mark_drained(host, drained).await
    }

    async fn ping(&self) -> Result<(), JournalError> {
        self.met(None).await.map(drop)
    }

    async fn ping_shards(&self) -> Vec<(Vec<ShardId>, JournalError)> {
        if !self.0.nodes.is_cluster() {
            return Vec::new();
        }
        let pings = self.0.nodes.one_of_each().into_iter().map(async |of| {
            let node = self.0.nodes.of(of).ok();
            let failure = self.takes_steps(of).await.err();
            node.into_iter().for_each(|node| node.link.is_reached(failure.is_none()));
            Some((self.beside(of).unwrap_or_default(), failure?))
        });
        join_all(pings).await.into_iter().flatten().collect()
    }

    fn beside(&self, of: Option<ShardId>) -> Option<Vec<ShardId>> {
        self.0.nodes.beside(of)
    }

    async fn pushes(&self, to: Incarnation) -> Result<Signals<Bytes>, JournalError> {
        let channel = self.0.keys.push(to).to_string();
        self.0.subscriptions.subscribe(vec![(channel, ())], |(), push| Ok(push)).await
    }

    fn lock(&self, who: Incarnation) -> Option<LockFile> {
        let lock = self.0.locks.as_ref()?.hold(who);
        lock.inspect_err(|error| tracing::warn!(%error, "no lock file: when this process is killed, time-outs alone tell")).ok()
    }
}
