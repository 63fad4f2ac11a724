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
pub(crate) mod own;
mod programs;
mod reply;
mod scripts;
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

use ::redis::Value;
use async_trait::async_trait;
use bytes::Bytes;

use super::lockfile::{LockFile, LockFiles, default_runtime_dir};
use super::{Beats, CommonJournal, JournalError, ProcessRecord, Signals, check, this_host};
use crate::limits::REPLICATED_CONNECTIONS;
use crate::types::{HostId, Incarnation, RoomId, ShardId};
use connect::Wanted;
pub(crate) use connect::{FORMAT, names_a_host};
pub use durability::Durability;
use keys::{Hex, Keys, ShardKeys};
#[doc(hidden)]
pub use keys::{catalog_key, shard_key};
use link::{Link, Live};
use reply::{Reply, code};
use scripts::{CONFIRM, Call, HEARTBEAT, PING, ROOM_BYTES, TIMELINE};
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

/// A [`Journal`](super::Journal) in Redis 7.0 or newer. Clones share their connections: one for the commands, one for all
/// subscriptions.
#[derive(Clone)]
pub struct RedisJournal(Arc<Inner>, HostId);

struct Inner {
    link: Arc<Link>,
    subscriptions: Subscriptions,
    /// Connections that wait for replicas, by shard. Empty except at [`Durability::Replicated`].
    waiting: Vec<Link>,
    durability: Durability,
    keys: Keys,
    locks: Option<LockFiles>,
}

impl Inner {
    /// The connections that there are at this moment.
    fn links(&self) -> impl Iterator<Item = (&Link, Live)> {
        std::iter::once(&*self.link).chain(&self.waiting).filter_map(|link| Some((link, link.met()?)))
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
    /// the sentinels (`rediss+sentinel://...` for TLS to them and to the servers). Certificates are checked against the system's authorities, or those in the
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
        let target = Arc::new(Target::of(url)?);
        let locks = lock_files(&options)?;
        let wanted = Wanted::new(&options.prefix, options.shards, options.durability, takes_over)?;
        let new = |wanted| Link::new(target.clone(), wanted);
        let link = Arc::new(new(wanted.clone()));
        let found = link.live().await?.found;
        let waiting = if found.durability == Durability::Replicated { REPLICATED_CONNECTIONS } else { 0 };
        let waiting = (0..waiting.min(usize::from(found.shards))).map(|_| new(wanted.clone().fixed(&found))).collect();
        let keys = Keys::new(&options.prefix, target.database(), found.shards, found.tags);
        let echo = keys.echo(Incarnation::random()).to_string();
        let subscriptions = Subscriptions::new(link.clone(), keys.tags, echo);
        let inner = Arc::new(Inner { link, subscriptions, waiting, durability: found.durability, keys, locks });
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
        let mut reply = Reply::new("timeline", self.send(&call).await?)?;
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

    async fn send(&self, call: &Call) -> Result<Value, JournalError> {
        self.send_on(self.0.link.live().await?, call).await
    }

    async fn send_on(&self, mut live: Live, call: &Call) -> Result<Value, JournalError> {
        let answer = call.send(&mut live.connection).await;
        self.0.link.judge(&live, answer)
    }

    /// A connection for steps that bind their caller to its server (registrations, claims, testimonies), and for `/readyz`. It
    /// checks that the server takes steps and is still the same as when the connection was made. A server that lost its data
    /// since then (it was flushed, or was a replica for a moment) is another server.
    async fn met(&self) -> Result<Live, JournalError> {
        let live = self.0.link.live().await?;
        if self.is_still(&live).await? {
            return Ok(live);
        }
        self.0.link.give_up(&live);
        let live = self.0.link.live().await?;
        match self.is_still(&live).await? {
            true => Ok(live),
            false => Err(JournalError::Unreachable("redis keeps losing its data: trying again".into())),
        }
    }

    async fn is_still(&self, live: &Live) -> Result<bool, JournalError> {
        let mut call = Call::new(&PING, 1, 1, 96);
        call.text(&self.0.keys.deployment);
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

    /// Sends a step that is bound to a server. Returns None, and sends nothing, if the journal has another server. A connection
    /// always leads to one server, so the step need not ask. If that server lost data in the meantime, the step itself notices (no
    /// lease, no registration, another number), or the next ping does.
    async fn send_to(&self, server: Incarnation, call: &Call) -> Result<Option<Value>, JournalError> {
        let live = self.0.link.live().await?;
        if live.found.server != server {
            return Ok(None);
        }
        self.send_on(live, call).await.map(Some)
    }

    /// As [`Self::send_to`], for a script that publishes: its subscribers are woken before the caller.
    async fn announce_to(&self, server: Incarnation, shard: ShardId, call: Call) -> Result<Option<Value>, JournalError> {
        if self.durability() != Durability::Redis {
            return self.send_confirmed_to(server, shard, &call).await;
        }
        let mut live = self.0.link.live().await?;
        if live.found.server != server {
            return Ok(None);
        }
        let answer = call.announce(&mut live.connection).await;
        self.0.link.judge(&live, answer).map(Some)
    }

    /// Sends a step and returns only when what the step wrote, or read, has survived what the durability names (rule C3).
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

    /// The connection that waits for replicas. If it has another server name than the connection for the other steps, one of them
    /// was made before a loss: both are made again.
    async fn live_confirming(&self, shard: ShardId) -> Result<Live, JournalError> {
        let link = self.confirming(shard);
        let live = link.live().await?;
        if self.0.waiting.is_empty() {
            return Ok(live);
        }
        let other = self.0.link.live().await?;
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
        mark.text(&self.0.keys.shard(shard).confirm);
        link.confirm(&mut live, &mark).await.map(|()| answer)
    }

    /// Stores a heartbeat or a worker's patterns for `good_for_ms` (0 withdraws them). The reply has all entries that have not
    /// expired by this server's clock.
    async fn enter_in(
        &self,
        step: &'static str,
        key: &str,
        who: impl fmt::Display,
        good_for_ms: u64,
        said: &str,
    ) -> Result<Reply, JournalError> {
        let mut call = Call::new(&HEARTBEAT, 1, 3, ROOM_BYTES + said.len());
        call.text(key).text(who).text(good_for_ms).text(said);
        Reply::new(step, self.send(&call).await?)
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
        self.met().await.map(drop)
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
