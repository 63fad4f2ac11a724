//! The steps of workers: heartbeats, leases, reading rooms, and commits.

use std::fmt;

use ::redis::{RedisResult, Value};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use super::super::{
    AheadName, AheadPart, Bell, Commit, CommitSnapshot, Committed, CommonJournal, FlushEntry, GatewayRecord, Homing,
    JournalError, Lease, Leased, PageSize, Place, RoomCommit, RoomsPage, RoomsPlace, ShardOwner, Signals, StoredPage, Successor,
    Survey, Witness, WorkerJournal, WorkerRecord, check, era_stride,
};
use super::keys::Hex;
use super::reply::{Reply, code};
use super::scripts::{
    AHEAD, ATTEMPT, CLAIM, COMMIT, Call, DEATH, END_ROOM, FENCE, FORGET, LOAD, NAME, RELEASE, ROOM_BYTES, TESTIFY,
};
use super::{Durability, RedisJournal, subscribe};
use crate::limits::{DUE_DEATHS_MAX, NAMED_MAX, SURVEY_ROOMS, WALL_CLOCK_OFF_MAX};
use crate::types::{Incarnation, RoomId, ShardId};

#[async_trait]
impl WorkerJournal for RedisJournal {
    fn commits_may_be_lost(&self) -> bool {
        self.durability() == Durability::Redis
    }

    async fn heartbeat(
        &self,
        worker: Incarnation,
        owned: &[ShardId],
        good_for_ms: u64,
    ) -> Result<Vec<WorkerRecord>, JournalError> {
        let shards = owned.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        self.enter_in("heartbeat", &self.0.keys.workers, Hex(worker), good_for_ms, &shards).await?.workers()
    }

    async fn announce_patterns(&self, worker: Incarnation, patterns: &[String], good_for_ms: u64) -> Result<(), JournalError> {
        self.enter_in("patterns", &self.0.keys.patterns, Hex(worker), good_for_ms, &patterns.join("\n")).await.map(drop)
    }

    /// The owner is stored in each shard's hash: one pipeline a node reads them all. If the hash is damaged, or its node is away, the
    /// shard counts as nobody's: the claim fails, and says why.
    async fn owners(&self) -> Result<Vec<ShardOwner>, JournalError> {
        let each = self.0.nodes.one_of_each();
        let read = each.iter().map(async |of| {
            let shards = self.0.nodes.beside(*of).unwrap_or_else(|| (0..self.shards()).map(ShardId).collect());
            let owners = self.owners_at(*of, &shards).await;
            (shards, owners)
        });
        let (mut all, mut failures) = (vec![ShardOwner::default(); usize::from(self.shards())], Vec::new());
        for (shards, owners) in join_all(read).await {
            match owners {
                Ok(owners) => shards.iter().zip(owners).for_each(|(shard, owner)| all[usize::from(shard.0)] = owner),
                Err(error) => failures.push(error),
            }
        }
        if failures.len() == each.len() { failures.pop().map_or(Ok(all), Err) } else { Ok(all) }
    }

    async fn claim(
        &self,
        shard: ShardId,
        from: Option<Lease>,
        worker: Incarnation,
        wall_ms: u64,
        homing: &Homing,
    ) -> Result<Leased<Lease>, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&CLAIM, 4, 15, 3 * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.active).text(&keys.due).text(&keys.gateways);
        let (timeline, last) = self.timelines(self.1.as_str()).await?;
        let place = self.met(Some(shard)).await?;
        let server = place.server;
        if from.is_some_and(|lease| lease.server != server) {
            return Ok(Leased::Lost);
        }
        match from {
            Some(lease) => call.text(lease.epoch).text(Hex(lease.owner)),
            None => call.bytes(&[]).bytes(&[]),
        };
        call.text(Hex(worker)).text(keys.states()).text(Hex(server));
        call.text(wall_ms).text(WALL_CLOCK_OFF_MAX.as_millis()).text(DUE_DEATHS_MAX);
        call.text(&self.1).text(&homing.address).text(timeline).text(last).text(u8::from(homing.moves));
        match &homing.seen {
            Some(home) => call.text(home.record()),
            None => call.bytes(&[]),
        };
        call.text(NAMED_MAX.as_millis());
        let mut reply = Reply::new("claim", self.send_on(&place, &call).await?)?;
        let claimed = match reply.parse::<u8>()? {
            0 => Leased::Done(Lease { epoch: reply.parse()?, owner: worker, server, home: reply.parse()? }),
            1 => Leased::Lost,
            2 => return Err(wall_clock_off(reply.parse()?)),
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(claimed)
    }

    async fn name(
        &self,
        shard: ShardId,
        lease: Lease,
        to: Option<&Successor>,
        good_for_ms: u64,
    ) -> Result<Leased<()>, JournalError> {
        let mut call = Call::new(&NAME, 1, 5, 2 * ROOM_BYTES);
        call.text(&self.shard(shard)?.shard).text(lease.epoch).text(Hex(lease.owner));
        match to {
            Some(next) => call.text(&next.host).text(&next.url),
            None => call.bytes(&[]).bytes(&[]),
        };
        call.text(good_for_ms);
        let Some(reply) = self.send_to(lease.server, shard, &call).await? else { return Ok(Leased::Lost) };
        match code("name", &reply)? {
            0 => Ok(Leased::Done(())),
            1 => Ok(Leased::Lost),
            other => Err(JournalError::Unexpected(format!("reply to name: code {other}"))),
        }
    }

    async fn release(&self, shard: ShardId, lease: Lease) -> Result<(), JournalError> {
        let mut call = Call::new(&RELEASE, 1, 2, ROOM_BYTES);
        call.text(&self.shard(shard)?.shard).text(lease.epoch).text(Hex(lease.owner));
        self.send_to(lease.server, shard, &call).await?.map_or(Ok(()), |reply| code("release", &reply).map(|_| ()))
    }

    async fn bells(&self, shards: &[ShardId]) -> Result<Signals<Bell>, JournalError> {
        let channels = shards.iter().map(|shard| Ok((self.shard(*shard)?.bell.clone(), *shard)));
        let channels = channels.collect::<Result<_, JournalError>>()?;
        self.0.subscriptions.subscribe(channels, |shard, bytes| subscribe::bell(*shard, &bytes)).await
    }

    async fn survey(&self, shard: ShardId, rooms: bool) -> Result<Survey, JournalError> {
        let survey = self.read_survey(shard).await?;
        if !rooms {
            return Ok(survey);
        }
        let page = self.read_rooms(shard, &RoomsPlace::default(), SURVEY_ROOMS).await?;
        if page.server != survey.server {
            return Err(JournalError::Unreachable("redis has changed its server meanwhile: asked again".into()));
        }
        Ok(survey.with(page))
    }

    async fn rooms(&self, shard: ShardId, place: &RoomsPlace, count: usize) -> Result<RoomsPage, JournalError> {
        self.read_rooms(shard, place, count).await
    }

    /// A page that cannot be read means that the room is damaged.
    async fn load(&self, room: &RoomId, place: Place, size: PageSize) -> Result<StoredPage, JournalError> {
        let keys = self.room(room);
        let mut call = Call::new(&LOAD, 6, 4, 6 * ROOM_BYTES);
        call.text(keys.room(room)).text(keys.out(room)).text(keys.state(room)).text(keys.snapshot(room)).text(keys.parts(room));
        call.text(&keys.shard);
        match place {
            Place::Snapshot(pieces) => call.text(0).text(pieces),
            Place::Verdicts(seq) => call.text(1).text(seq),
            Place::Entries(position) => call.text(2).text(position),
        };
        call.text(size.bytes.max(1)).text(size.entries.max(1));
        let page = Reply::new("load", self.send(Some(ShardId::of(room, self.shards())), &call).await?)
            .and_then(|reply| reply.page(place));
        page.map_err(|error| JournalError::Damaged(error.to_string()))
    }

    async fn write_ahead(
        &self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        part: &AheadPart,
    ) -> Result<Leased<()>, JournalError> {
        let keys = self.shard(shard)?;
        check::room(room, shard, self.shards())?;
        let mut call = Call::new(&AHEAD, 3, 7, 3 * ROOM_BYTES + part.bytes.len());
        call.text(&keys.shard).text(keys.state(room)).text(keys.parts(room)).text(lease.epoch).text(Hex(lease.owner));
        call.text(part.era).text(part.name.seq).text(Ahead(lease, part.name)).text(part.index).bytes(&part.bytes);
        let Some(reply) = self.send_to(lease.server, shard, &call).await? else { return Ok(Leased::Lost) };
        match code("write ahead", &reply)? {
            0 => Ok(Leased::Done(())),
            1 => Ok(Leased::Lost),
            other => Err(JournalError::Unexpected(format!("reply to write ahead: code {other}"))),
        }
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, JournalError> {
        check::commit(commit, self.shards())?;
        let keys = self.0.keys.shard(commit.shard);
        let rooms = commit.rooms.len();
        let snapshot = |r: &RoomCommit| if let Some(CommitSnapshot::Whole(bytes)) = &r.snapshot { bytes.len() } else { 0 };
        let program = |r: &RoomCommit| r.program.as_ref().map_or(0, Bytes::len);
        let failed = |r: &RoomCommit| r.failed.as_ref().map_or(0, |f| f.records.iter().map(|record| record.len() + 16).sum());
        let bytes =
            commit.rooms.iter().map(|r| r.verdicts.len() + snapshot(r) + program(r) + failed(r) + 2 * ROOM_BYTES).sum::<usize>()
                + commit.pushes.iter().map(|(_, push)| push.len() + ROOM_BYTES).sum::<usize>();
        let option_keys = |r: &RoomCommit| {
            2 * usize::from(r.snapshot.is_some())
                + usize::from(r.trim.is_some())
                + usize::from(r.due.is_some())
                + 2 * usize::from(r.failed.is_some())
        };
        let keys_sent = 2 + 2 * rooms + commit.rooms.iter().map(option_keys).sum::<usize>();
        let mut call =
            Call::new(COMMIT.by(self.0.keys.tags), keys_sent, 4 + 7 * rooms + 2 * commit.pushes.len(), bytes + ROOM_BYTES);
        call.text(&keys.shard).text(&keys.active);
        for room in commit.rooms.iter().map(|r| &r.room) {
            call.text(keys.out(room)).text(keys.state(room));
        }
        for part in &commit.rooms {
            if part.snapshot.is_some() {
                call.text(keys.snapshot(&part.room)).text(keys.parts(&part.room));
            }
            if part.trim.is_some() {
                call.text(keys.room(&part.room));
            }
            if part.due.is_some() {
                call.text(&keys.due);
            }
            if let Some(failed) = &part.failed {
                call.text(&keys.failed).text(keys.failed_of(&failed.pattern));
            }
        }
        call.text(commit.lease.epoch).text(Hex(commit.lease.owner)).text(commit.number).text(rooms);
        for part in &commit.rooms {
            call.text(&part.room).text(part.era).text(part.from).text(part.to).text(part.cursor).bytes(&part.verdicts);
            call.text(Options(part));
            match &part.snapshot {
                None => {}
                Some(CommitSnapshot::Whole(bytes)) => {
                    call.bytes(bytes);
                }
                Some(CommitSnapshot::Parts { name, cursor, count }) => {
                    let ahead = Ahead(commit.lease, *name);
                    call.text(format_args!("{ahead}/{count}|{}|{cursor}", name.seq));
                }
            }
            if let Some((position, seq)) = part.trim {
                call.text(position).text(format_args!("{}-0", seq.saturating_add(1)));
            }
            if let Some(gateways) = &part.gateways {
                call.text(gateways.iter().map(|g| Hex(*g).to_string()).collect::<String>());
            }
            if let Some(trims) = &part.trims {
                call.text(trims.iter().map(|(at, seq)| format!("{at}.{seq}")).collect::<Vec<_>>().join(","));
            }
            match part.due {
                None => {}
                Some(None) => _ = call.bytes(&[]),
                Some(Some(ms)) => _ = call.text(ms),
            }
            if let Some(program) = &part.program {
                call.bytes(program);
            }
            if let Some(failed) = &part.failed {
                call.text(&failed.pattern).text(failed.keep).text(failed.records.len());
                failed.records.iter().for_each(|record| _ = call.bytes(record));
            }
        }
        // A push that the script publishes may leave before the commit is on the server's disk (to a subscriber whose socket was
        // full) and before the replicas have it.
        let later = self.durability() != Durability::Redis;
        if !later {
            for (gateway, push) in &commit.pushes {
                call.text(keys.push(*gateway)).bytes(push);
            }
        }

        let answer = self.announce_to(commit.lease.server, commit.shard, call).await?;
        let Some(answer) = answer else { return Ok(Committed::Fenced) };
        let mut reply = Reply::new("commit", answer)?;
        match reply.parse::<u8>()? {
            0 => {
                reply.end()?;
                if later {
                    self.publish_all(commit.shard, &commit.pushes).await?;
                }
                Ok(Committed::Done)
            }
            1 => reply.end().map(|()| Committed::Fenced),
            2 => Ok(Committed::Refused(reply.indexed(commit.rooms.iter().map(|r| &r.room))?)),
            other => Err(reply.error(&format!("code {other}"))),
        }
    }

    async fn attempt(&self, shard: ShardId, lease: Lease, room: &RoomId, name: u64) -> Result<Leased<u32>, JournalError> {
        let keys = self.shard(shard)?;
        check::room(room, shard, self.shards())?;
        let mut call = Call::new(&ATTEMPT, 2, 3, ROOM_BYTES);
        call.text(&keys.shard).text(keys.state(room)).text(lease.epoch).text(Hex(lease.owner)).text(name);
        let Some(reply) = self.send_to(lease.server, shard, &call).await? else { return Ok(Leased::Lost) };
        let mut reply = Reply::new("attempt", reply)?;
        let attempts = match reply.parse::<u8>()? {
            0 => Leased::Done(reply.parse()?),
            1 => Leased::Lost,
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(attempts)
    }

    async fn testify(&self, shard: ShardId, witness: Witness) -> Result<u64, JournalError> {
        let keys = self.shard(shard)?;
        let place = self.met(Some(shard)).await?;
        let server = place.server;
        let mut call = Call::new(&TESTIFY, 2, 6, 3 * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.rooms).text(Hex(server)).text(era_stride(server)).text(Hex(witness.server));
        match witness.epoch {
            Some(epoch) => call.text(epoch),
            None => call.bytes(&[]),
        };
        call.text(witness.confirmed).text(witness.sent);
        Reply::new("testify", Value::Array(vec![self.send_on(&place, &call).await?]))?.parse()
    }

    async fn fence(&self, shard: ShardId, lease: Lease, gateway: Incarnation) -> Result<Leased<GatewayRecord>, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&FENCE, 2, 4, ROOM_BYTES);
        call.text(&keys.shard).text(&keys.gateways).text(lease.epoch).text(Hex(lease.owner)).text(Hex(gateway));
        call.text(Hex(lease.server));
        let Some(reply) = self.send_to(lease.server, shard, &call).await? else { return Ok(Leased::Lost) };
        let mut reply = Reply::new("fence", reply)?;
        let fenced = match reply.parse::<u8>()? {
            0 => Leased::Done(reply.gateway(gateway)?),
            1 => Leased::Lost,
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(fenced)
    }

    async fn forget(&self, shard: ShardId, lease: Lease, gateways: &[Incarnation]) -> Result<Leased<()>, JournalError> {
        let keys = self.shard(shard)?;
        let mut call = Call::new(&FORGET, 2, 2 + gateways.len(), ROOM_BYTES + 64 * gateways.len());
        call.text(&keys.shard).text(&keys.gateways).text(lease.epoch).text(Hex(lease.owner));
        for gateway in gateways {
            call.text(Hex(*gateway));
        }
        let Some(reply) = self.send_to(lease.server, shard, &call).await? else { return Ok(Leased::Lost) };
        match code("forget", &reply)? {
            0 => Ok(Leased::Done(())),
            1 => Ok(Leased::Lost),
            other => Err(JournalError::Unexpected(format!("reply to forget: code {other}"))),
        }
    }

    async fn death(
        &self,
        shard: ShardId,
        lease: Lease,
        gateway: Incarnation,
        entry: &FlushEntry,
    ) -> Result<Leased<()>, JournalError> {
        let keys = self.shard(shard)?;
        check::room(&entry.room, shard, self.shards())?;
        let mut call = Call::new(DEATH.by(self.0.keys.tags), 5, 7, 2 * ROOM_BYTES + entry.bytes.len());
        call.text(&keys.shard).text(&keys.gateways).text(&keys.active);
        call.text(keys.room(&entry.room)).text(keys.state(&entry.room));
        call.text(lease.epoch).text(Hex(lease.owner)).text(Hex(gateway)).text(&keys.bell);
        call.text(&entry.room).text(entry.top).bytes(&entry.bytes);
        let Some(reply) = self.send_to(lease.server, shard, &call).await? else { return Ok(Leased::Lost) };
        match code("death", &reply)? {
            0 => Ok(Leased::Done(())),
            1 => Ok(Leased::Lost),
            2 => Err(check::not_fenced(gateway, shard)),
            other => Err(JournalError::Unexpected(format!("reply to death: code {other}"))),
        }
    }

    async fn end_room(&self, shard: ShardId, lease: Lease, room: &RoomId, seq: u64) -> Result<Leased<bool>, JournalError> {
        let keys = self.shard(shard)?;
        check::room(room, shard, self.shards())?;
        let mut call = Call::new(&END_ROOM, 9, 4, 3 * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.active).text(&keys.rooms);
        call.text(keys.room(room)).text(keys.out(room)).text(keys.state(room)).text(keys.snapshot(room)).text(keys.parts(room));
        call.text(&keys.due).text(lease.epoch).text(Hex(lease.owner)).text(room).text(seq);
        let Some(reply) = self.send_to(lease.server, shard, &call).await? else { return Ok(Leased::Lost) };
        match code("end of room", &reply)? {
            0 => Ok(Leased::Done(true)),
            1 => Ok(Leased::Lost),
            2 => Ok(Leased::Done(false)),
            other => Err(JournalError::Unexpected(format!("reply to end of room: code {other}"))),
        }
    }

    async fn publish(&self, shard: Option<ShardId>, to: Incarnation, push: Bytes) -> Result<u64, JournalError> {
        let channel = match shard {
            Some(shard) => self.shard(shard)?.push(to),
            None => self.0.keys.push(to),
        };
        let mut place = self.at(shard).await?;
        let mut command = ::redis::cmd(self.0.keys.tags.publish());
        command.arg(channel.to_string()).arg(&push[..]);
        let listeners = command.query_async(&mut place.live.connection).await;
        place.judge(listeners)
    }

    fn gone(&self, who: &[Incarnation]) -> Vec<Incarnation> {
        let Some(locks) = &self.0.locks else { return Vec::new() };
        who.iter().copied().filter(|who| locks.is_gone(*who)).collect()
    }
}

impl RedisJournal {
    /// Publishes in one round trip, in order. If one fails, the commit is sent again, with all its pushes.
    async fn publish_all(&self, shard: ShardId, pushes: &[(Incarnation, Bytes)]) -> Result<(), JournalError> {
        if pushes.is_empty() {
            return Ok(());
        }
        let (keys, mut pipeline) = (self.0.keys.shard(shard), ::redis::pipe());
        for (gateway, push) in pushes {
            pipeline.cmd(self.0.keys.tags.publish()).arg(keys.push(*gateway).to_string()).arg(&push[..]).ignore();
        }
        let mut place = self.at(Some(shard)).await?;
        let published = pipeline.query_async(&mut place.live.connection).await;
        place.judge(published)
    }

    /// The owners of some shards that the same server has, and of which one is `of`.
    async fn owners_at(&self, of: Option<ShardId>, shards: &[ShardId]) -> Result<Vec<ShardOwner>, JournalError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("TIME");
        for shard in shards {
            pipeline.cmd("HMGET").arg(&self.0.keys.shard(*shard).shard).arg(&["epoch", "owner", "home", "address", "next"]);
        }
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        let mut place = self.reach(of).await?;
        let replies: RedisResult<Vec<RedisResult<Value>>> =
            pipeline.ignore_errors().query_async(&mut place.live.connection).await;
        let mut replies = place.judge(replies)?.into_iter();
        let time = replies.next().ok_or_else(|| JournalError::Unexpected("reply to owners: it ends early".into()))?;
        let now_ms = Reply::new("owners", place.judge(time)?)?.time_ms()?;
        let mut owners = Vec::with_capacity(shards.len());
        for (reply, shard) in replies.zip(shards) {
            owners.push(match (reply, self.at(Some(*shard)).await) {
                (Err(error), _) if error.code() == Some("WRONGTYPE") => ShardOwner::default(),
                (reply, at) => Reply::new("owners", place.judge(reply)?)?.owner(at?.server, now_ms)?,
            });
        }
        Ok(owners)
    }
}

/// The error for a worker whose wall clock is so many milliseconds ahead of the server's, or behind it.
fn wall_clock_off(ahead_ms: i64) -> JournalError {
    let (off, which) = (ahead_ms.unsigned_abs(), if ahead_ms < 0 { "behind" } else { "ahead of" });
    JournalError::Refused(format!(
        "this host's clock is {}.{:03} s {which} the redis server's, and rooms tell their time by it: set the clocks of both hosts, \
         best by NTP; the worker takes shards as soon as they are at most {} s apart",
        off / 1_000,
        off % 1_000,
        WALL_CLOCK_OFF_MAX.as_secs()
    ))
}

/// The name of a snapshot that the owner of a lease writes ahead.
struct Ahead(Lease, AheadName);

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0.epoch, self.1.lane, self.1.seq)
    }
}

/// The options of a room's commit, one letter each, in the order of their arguments: see `commit.lua`.
struct Options<'a>(&'a RoomCommit);

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(part) = self;
        f.write_str(match part.snapshot {
            None => "",
            Some(CommitSnapshot::Whole(_)) => "s",
            Some(CommitSnapshot::Parts { .. }) => "a",
        })?;
        f.write_str(if part.trim.is_some() { "t" } else { "" })?;
        f.write_str(if part.gateways.is_some() { "g" } else { "" })?;
        f.write_str(if part.trims.is_some() { "p" } else { "" })?;
        f.write_str(if part.due.is_some() { "d" } else { "" })?;
        f.write_str(if part.program.is_some() { "o" } else { "" })?;
        f.write_str(if part.failed.is_some() { "f" } else { "" })
    }
}
