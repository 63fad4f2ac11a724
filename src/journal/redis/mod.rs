//! The journal in Redis: every step is one script call. The only place that knows Redis.

mod append;
mod commit;
mod connect;
mod error;
mod keys;
mod lease;
mod link;
mod read;
mod reply;
mod scripts;
mod subscribe;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ::redis::{RedisResult, Value};
use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Appended, Bell, Commit, Committed, Flush, FlushEntry, GatewayRecord, Journal, JournalError, Lease, Leased, Registered,
    RoomHead, Seen, Signals, StoredRoom, Survey, VerdictPage, WorkerRecord, check,
};
use crate::types::{Incarnation, RoomId, ShardId, StreamId};
use keys::{Keys, ShardKeys};
use link::{Link, Links};
use scripts::Call;

/// How to use a Redis server.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// What every key and channel begins with: 1 to 64 characters out of `A-Z a-z 0-9 . : _ -`.
    pub prefix: String,
    /// The number of shards, 1 to [`SHARDS_MAX`](crate::limits::SHARDS_MAX). None: as the deployment was made, with
    /// [`SHARDS_DEFAULT`](crate::limits::SHARDS_DEFAULT) for a new one.
    pub shards: Option<u16>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { prefix: "lasthit".into(), shards: None }
    }
}

/// A [`Journal`] in Redis 7.0 or newer. Clones share one connection; each subscription has its own.
#[derive(Clone)]
pub struct RedisJournal(Arc<Inner>);

struct Inner {
    links: Links,
    keys: Keys,
}

impl fmt::Debug for RedisJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        f.debug_struct("RedisJournal").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}

impl RedisJournal {
    /// Connects, looks whether the server is fit (version, role, eviction policy), and reads or writes the deployment's
    /// record. `url` is `redis://[[user]:password@]host[:port][/db]`, `rediss://...` for TLS, or
    /// `unix:///path[?user=&pass=&db=]`. Certificates are checked against the system's authorities, or those in the
    /// file that the environment names as `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for what must be changed (URL, password, server, number of shards),
    /// [`JournalError::Unreachable`] for what may pass. No error shows the password.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, JournalError> {
        let client = connect::client(url)?;
        let links = Links::open(client, &connect::without_secrets(url)).await?;
        let shards = connect::deployment(&mut links.get().await?.connection, &options.prefix, options.shards).await?;
        let keys = Keys::new(&options.prefix, shards);
        Ok(Self(Arc::new(Inner { links, keys })))
    }

    fn keys(&self) -> &Keys {
        &self.0.keys
    }

    fn shard(&self, shard: ShardId) -> Result<&ShardKeys, JournalError> {
        check::shard(shard, self.shards())?;
        Ok(self.keys().shard(shard))
    }

    fn room(&self, room: &RoomId) -> &ShardKeys {
        self.keys().shard(ShardId::of(room, self.shards()))
    }

    async fn link(&self) -> Result<Link, JournalError> {
        self.0.links.get().await
    }

    async fn send(&self, call: &Call) -> Result<Value, JournalError> {
        self.send_on(self.link().await?, call).await
    }

    /// None when the journal has another server: nothing was sent.
    async fn send_to(&self, server: Incarnation, call: &Call) -> Result<Option<Value>, JournalError> {
        let link = self.link().await?;
        if link.server != server {
            return Ok(None);
        }
        self.send_on(link, call).await.map(Some)
    }

    async fn send_on(&self, mut link: Link, call: &Call) -> Result<Value, JournalError> {
        let reply = call.send(&mut link.connection).await;
        self.judge(&link, reply)
    }

    fn judge<T>(&self, link: &Link, reply: RedisResult<T>) -> Result<T, JournalError> {
        reply.map_err(|error| {
            self.0.links.failed(link, &error);
            error::journal_error(&error)
        })
    }
}

#[async_trait]
impl Journal for RedisJournal {
    fn shards(&self) -> u16 {
        self.keys().shards_count()
    }

    fn durable(&self) -> bool {
        true
    }

    async fn timeline(&self, host: &str) -> Result<u32, JournalError> {
        self.timeline_step(host).await
    }

    async fn live_timelines(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError> {
        self.live_timelines_step(timeline, good_for_ms).await
    }

    async fn ping(&self) -> Result<(), JournalError> {
        let mut link = self.link().await?;
        let reply = ::redis::cmd("PING").query_async::<()>(&mut link.connection).await;
        self.judge(&link, reply)
    }

    async fn register(
        &self,
        shard: ShardId,
        gateway: Incarnation,
        seen: Seen,
        rooms: &[RoomId],
    ) -> Result<Registered, JournalError> {
        self.register_step(shard, gateway, seen, rooms).await
    }

    async fn append(&self, flush: &Flush) -> Result<Appended, JournalError> {
        self.append_step(flush).await
    }

    async fn heads(&self, shard: ShardId, rooms: &[RoomId]) -> Result<(Incarnation, Vec<RoomHead>), JournalError> {
        self.heads_step(shard, rooms).await
    }

    async fn verdicts(&self, room: &RoomId, seq: u64, entries_max: usize) -> Result<VerdictPage, JournalError> {
        self.verdicts_step(room, seq, entries_max).await
    }

    async fn pushes(&self, gateway: Incarnation) -> Result<Signals<Bytes>, JournalError> {
        let channel = self.keys().push(gateway).to_string();
        subscribe::subscribe(self.0.links.client().clone(), vec![channel], |_, push| Ok(push)).await
    }

    async fn heartbeat(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError> {
        self.heartbeat_step(worker, owned, good_for_ms).await
    }

    async fn owners(&self) -> Result<Vec<Option<Lease>>, JournalError> {
        self.owners_step().await
    }

    async fn claim(&self, shard: ShardId, from: Option<Lease>, worker: Incarnation) -> Result<Leased<Lease>, JournalError> {
        self.claim_step(shard, from, worker).await
    }

    async fn release(&self, shard: ShardId, lease: Lease) -> Result<(), JournalError> {
        self.release_step(shard, lease).await
    }

    async fn bells(&self, shards: &[ShardId]) -> Result<Signals<Bell>, JournalError> {
        let mut by_channel = HashMap::with_capacity(shards.len());
        for shard in shards {
            by_channel.insert(self.shard(*shard)?.bell.clone(), *shard);
        }
        let channels = by_channel.keys().cloned().collect();
        let unknown = ShardId(u16::MAX);
        subscribe::subscribe(self.0.links.client().clone(), channels, move |channel, bytes| {
            subscribe::bell(by_channel.get(channel).copied().unwrap_or(unknown), &bytes)
        })
        .await
    }

    async fn survey(&self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError> {
        self.survey_step(shard, rooms).await
    }

    async fn load(&self, room: &RoomId) -> Result<StoredRoom, JournalError> {
        self.load_step(room).await
    }

    async fn read(&self, room: &RoomId, after: StreamId) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
        self.read_step(room, after).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, JournalError> {
        self.commit_step(commit).await
    }

    async fn renew(&self, shard: ShardId, seen: u64) -> Result<u64, JournalError> {
        self.renew_step(shard, seen).await
    }

    async fn fence(&self, shard: ShardId, lease: Lease, gateway: Incarnation) -> Result<Leased<GatewayRecord>, JournalError> {
        self.fence_step(shard, lease, gateway).await
    }

    async fn death(
        &self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
        entry: &FlushEntry,
    ) -> Result<Leased<()>, JournalError> {
        self.death_step(shard, lease, gateway, entry).await
    }

    async fn end_room(&self, shard: ShardId, lease: Lease, room: &RoomId, seq: u64) -> Result<Leased<bool>, JournalError> {
        self.end_room_step(shard, lease, room, seq).await
    }

    async fn publish(&self, gateway: Incarnation, push: Bytes) -> Result<u64, JournalError> {
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(self.keys().push(gateway).to_string()).arg(&push[..]);
        let mut link = self.link().await?;
        let reply = command.query_async(&mut link.connection).await;
        self.judge(&link, reply)
    }
}
