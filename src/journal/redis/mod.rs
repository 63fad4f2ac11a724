//! The journal in Redis: every step is one script call. The only place that knows Redis.

mod append;
mod commit;
mod connect;
mod durability;
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

use ::redis::{Client, Cmd, FromRedisValue, Pipeline, Value};
use async_trait::async_trait;
use bytes::Bytes;

use super::{
    AheadPart, Appended, Bell, Commit, Committed, Flush, FlushEntry, GatewayRecord, Journal, JournalError, Lease, Leased,
    PageSize, Place, Registered, RoomHead, Seen, Signals, StoredPage, Survey, VerdictPage, Witness, WorkerRecord, check,
};
use crate::limits::REPLICATED_CONNECTIONS;
use crate::types::{Incarnation, RoomId, ShardId};
use append::Hex;
use connect::Wanted;
pub use durability::Durability;
use keys::{Keys, ShardKeys};
use link::{Link, Live};
use reply::code;
use scripts::{CONFIRM, Call, PING};

/// How to use a Redis server.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// What every key and channel begins with: 1 to 64 characters out of `A-Z a-z 0-9 . : _ -`.
    pub prefix: String,
    /// The number of shards, 1 to [`SHARDS_MAX`](crate::limits::SHARDS_MAX). None: as the deployment was made, with
    /// [`SHARDS_DEFAULT`](crate::limits::SHARDS_DEFAULT) for a new one.
    pub shards: Option<u16>,
    /// What a verdict has survived before anyone sees it. None: as the deployment was made, with
    /// [`Durability::Redis`] for a new one.
    pub durability: Option<Durability>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { prefix: "lasthit".into(), shards: None, durability: None }
    }
}

/// A [`Journal`] in Redis 7.0 or newer. Clones share their connections; each subscription has its own.
#[derive(Clone)]
pub struct RedisJournal(Arc<Inner>);

struct Inner {
    client: Client,
    link: Link,
    /// Where replicas are waited for, by shard. Empty but for [`Durability::Replicated`].
    waiting: Vec<Link>,
    durability: Durability,
    keys: Keys,
}

impl fmt::Debug for RedisJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        f.debug_struct("RedisJournal").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}

impl RedisJournal {
    /// Connects, looks whether the server is fit (version, role, eviction policy, what the durability needs), and reads or
    /// writes the deployment's record. It looks again whenever it connects again. `url` is
    /// `redis://[[user]:password@]host[:port][/db]`, `rediss://...` for TLS, or
    /// `unix:///path[?user=&pass=&db=]`. Certificates are checked against the system's authorities, or those in the
    /// file that the environment names as `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// [`JournalError::Refused`] for what must be changed (URL, password, server, number of shards, durability),
    /// [`JournalError::Unreachable`] or [`JournalError::Silent`] for what may pass. No error shows the password.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, JournalError> {
        let client = connect::client(url)?;
        let wanted = Wanted::new(&options.prefix, options.shards, options.durability)?;
        let new = |wanted| Link::new(client.clone(), connect::without_secrets(url), wanted);
        let link = new(wanted.clone());
        let found = link.live().await?.found;
        let waiting = if found.durability == Durability::Replicated { REPLICATED_CONNECTIONS } else { 0 };
        let waiting = (0..waiting.min(usize::from(found.shards))).map(|_| new(wanted.clone().fixed(&found))).collect();
        let keys = Keys::new(&options.prefix, found.shards);
        Ok(Self(Arc::new(Inner { link, waiting, durability: found.durability, keys, client })))
    }

    /// What a verdict has survived before anyone sees it.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.0.durability
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

    /// The connection of the moment, which knows its server.
    async fn live(&self) -> Result<Live, JournalError> {
        self.0.link.live().await
    }

    async fn send(&self, call: &Call) -> Result<Value, JournalError> {
        self.send_on(self.live().await?, call).await
    }

    async fn send_on(&self, mut live: Live, call: &Call) -> Result<Value, JournalError> {
        let answer = call.send(&mut live.connection).await;
        self.0.link.judge(&live, answer)
    }

    /// The same for whoever binds itself to its server (registrations, claims, testimonies), and for `/readyz`: looks first
    /// whether the server takes steps and is still what it was when the connection was made. One that lost its data while the
    /// connection lasted (it was flushed, or was another one's replica for a moment) is another server.
    async fn met(&self) -> Result<Live, JournalError> {
        let live = self.live().await?;
        if self.is_still(&live).await? {
            return Ok(live);
        }
        self.0.link.give_up(&live);
        let live = self.live().await?;
        match self.is_still(&live).await? {
            true => Ok(live),
            false => Err(JournalError::Unreachable("redis lost its data again and again: asked again".into())),
        }
    }

    async fn is_still(&self, live: &Live) -> Result<bool, JournalError> {
        let mut call = Call::new(&PING, 1, 1, 96);
        call.text(&self.keys().deployment);
        match live.found.server {
            Incarnation::NONE => call.bytes(&[]),
            server => call.text(Hex(server)),
        };
        match code("ping", &self.send_on(live.clone(), &call).await?)? {
            0 => Ok(true),
            1 => Ok(false),
            other => Err(JournalError::Unexpected(format!("reply to ping: code {other}"))),
        }
    }

    /// Sends a step that is bound to a server; None when the journal has another one: then nothing was sent. A connection
    /// is to one server for as long as it lasts, so the server need not be asked: what was lost while it lasted is missed
    /// by the step itself (no lease, no registration, another number), or by the next ping.
    async fn send_to(&self, server: Incarnation, call: &Call) -> Result<Option<Value>, JournalError> {
        let live = self.live().await?;
        if live.found.server != server {
            return Ok(None);
        }
        self.send_on(live, call).await.map(Some)
    }

    /// As [`Self::send_to`], for a script that publishes: whoever hears it is woken first, where that is what it takes.
    async fn announce_to(&self, server: Incarnation, shard: ShardId, call: Call) -> Result<Option<Value>, JournalError> {
        if self.durability() != Durability::Redis {
            return self.send_confirmed_to(server, shard, &call).await;
        }
        let mut live = self.live().await?;
        if live.found.server != server {
            return Ok(None);
        }
        let answer = call.announce(&mut live.connection).await;
        self.0.link.judge(&live, answer).map(Some)
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, JournalError> {
        let link = &self.0.link;
        let mut live = link.live().await?;
        let answer = command.query_async(&mut live.connection).await;
        link.judge(&live, answer)
    }

    async fn ask_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, JournalError> {
        let link = &self.0.link;
        let mut live = link.live().await?;
        let answers = pipeline.query_async(&mut live.connection).await;
        link.judge(&live, answers)
    }

    /// Sends a step after which something leaves: it comes back when what the step did, or saw, has survived what the
    /// durability says (rule C3).
    async fn send_confirmed(&self, shard: ShardId, call: &Call) -> Result<(Incarnation, Value), JournalError> {
        let live = self.live_confirming(shard).await?;
        Ok((live.found.server, self.confirm(shard, live, call).await?))
    }

    /// As [`Self::send_to`].
    async fn send_confirmed_to(&self, server: Incarnation, shard: ShardId, call: &Call) -> Result<Option<Value>, JournalError> {
        let live = self.live_confirming(shard).await?;
        if live.found.server != server {
            return Ok(None);
        }
        self.confirm(shard, live, call).await.map(Some)
    }

    /// The connection on which replicas are waited for. When it and the one for the other steps know their server by
    /// different names, one of them was made before something was lost: both are made again.
    async fn live_confirming(&self, shard: ShardId) -> Result<Live, JournalError> {
        let link = self.confirming(shard);
        let live = link.live().await?;
        if self.0.waiting.is_empty() {
            return Ok(live);
        }
        let other = self.live().await?;
        if other.found.server == live.found.server {
            return Ok(live);
        }
        self.0.link.give_up(&other);
        link.give_up(&live);
        link.live().await
    }

    fn confirming(&self, shard: ShardId) -> &Link {
        self.0.waiting.get(usize::from(shard.0) % self.0.waiting.len().max(1)).unwrap_or(&self.0.link)
    }

    async fn confirm(&self, shard: ShardId, mut live: Live, call: &Call) -> Result<Value, JournalError> {
        let link = self.confirming(shard);
        let answer = call.send(&mut live.connection).await;
        let answer = link.judge(&live, answer)?;
        if self.0.waiting.is_empty() {
            return Ok(answer);
        }
        let mut mark = Call::new(&CONFIRM, 1, 0, 64);
        mark.text(&self.keys().shard(shard).confirm);
        link.confirm(&mut live, &mark).await.map(|()| answer)
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

    fn commits_may_be_lost(&self) -> bool {
        self.durability() == Durability::Redis
    }

    async fn timeline(&self, host: &str) -> Result<u32, JournalError> {
        self.timeline_step(host).await
    }

    async fn live_timelines(&self, timeline: u32, good_for_ms: u64) -> Result<Vec<u32>, JournalError> {
        self.live_timelines_step(timeline, good_for_ms).await
    }

    async fn ping(&self) -> Result<(), JournalError> {
        self.met().await.map(drop)
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
        subscribe::subscribe(self.0.client.clone(), vec![channel], self.0.link.made(), |_, push| Ok(push)).await
    }

    async fn heartbeat(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError> {
        self.heartbeat_step(worker, owned, good_for_ms).await
    }

    async fn patterns(
        &self,
        worker: Incarnation,
        patterns: &[String],
        good_for_ms: u64,
    ) -> Result<Vec<(Incarnation, Vec<String>)>, JournalError> {
        self.patterns_step(worker, patterns, good_for_ms).await
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
        subscribe::subscribe(self.0.client.clone(), channels, self.0.link.made(), move |channel, bytes| {
            subscribe::bell(by_channel.get(channel).copied().unwrap_or(unknown), &bytes)
        })
        .await
    }

    async fn survey(&self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError> {
        self.survey_step(shard, rooms).await
    }

    async fn load(&self, room: &RoomId, place: Place, size: PageSize) -> Result<StoredPage, JournalError> {
        self.load_step(room, place, size).await
    }

    async fn write_ahead(
        &self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        part: &AheadPart,
    ) -> Result<Leased<()>, JournalError> {
        self.write_ahead_step(shard, lease, room, part).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, JournalError> {
        self.commit_step(commit).await
    }

    async fn leave(&self, shard: ShardId, gateway: Incarnation) -> Result<(), JournalError> {
        self.leave_step(shard, gateway).await
    }

    async fn testify(&self, shard: ShardId, witness: Witness) -> Result<u64, JournalError> {
        self.testify_step(shard, witness).await
    }

    async fn fence(&self, shard: ShardId, lease: Lease, gateway: Incarnation) -> Result<Leased<GatewayRecord>, JournalError> {
        self.fence_step(shard, lease, gateway).await
    }

    async fn forget(&self, shard: ShardId, lease: Lease, gateways: &[Incarnation]) -> Result<Leased<()>, JournalError> {
        self.forget_step(shard, lease, gateways).await
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

    async fn attempt(&self, shard: ShardId, lease: Lease, room: &RoomId, name: u64) -> Result<Leased<u32>, JournalError> {
        self.attempt_step(shard, lease, room, name).await
    }

    async fn end_room(&self, shard: ShardId, lease: Lease, room: &RoomId, seq: u64) -> Result<Leased<bool>, JournalError> {
        self.end_room_step(shard, lease, room, seq).await
    }

    async fn publish(&self, gateway: Incarnation, push: Bytes) -> Result<u64, JournalError> {
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(self.keys().push(gateway).to_string()).arg(&push[..]);
        self.ask(&command).await
    }
}
