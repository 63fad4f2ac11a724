//! What workers make final: verdicts, and the end of a room.

use bytes::Bytes;

use super::super::{AheadName, AheadPart, Commit, CommitSnapshot, Committed, JournalError, Lease, Leased, RoomCommit, check};
use super::append::{Hex, ROOM_BYTES};
use super::reply::{Reply, code};
use super::scripts::{AHEAD, ATTEMPT, COMMIT, Call, END_ROOM};
use super::{Durability, RedisJournal};
use crate::journal::Journal;
use crate::types::{Incarnation, RoomId, ShardId};

/// The name of what a lease's owner wrote ahead.
struct Ahead(Lease, AheadName);

impl std::fmt::Display for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0.epoch, self.1.lane, self.1.seq)
    }
}

/// The letters of what a room's commit has beside its verdicts, in the order of their arguments.
struct Options<'a>(&'a RoomCommit);

impl std::fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(part) = self;
        f.write_str(match part.snapshot {
            None => "",
            Some(CommitSnapshot::Whole(_)) => "s",
            Some(CommitSnapshot::Parts { .. }) => "a",
        })?;
        f.write_str(if part.trim.is_some() { "t" } else { "" })?;
        f.write_str(if part.gateways.is_some() { "g" } else { "" })?;
        f.write_str(if part.trims.is_some() { "p" } else { "" })
    }
}

impl RedisJournal {
    pub(super) async fn commit_step(&self, commit: &Commit) -> Result<Committed, JournalError> {
        check::commit(commit, self.shards())?;
        let keys = self.keys().shard(commit.shard);
        let rooms = commit.rooms.len();
        let snapshot = |r: &RoomCommit| if let Some(CommitSnapshot::Whole(bytes)) = &r.snapshot { bytes.len() } else { 0 };
        let bytes = commit.rooms.iter().map(|r| r.verdicts.len() + snapshot(r) + 2 * ROOM_BYTES).sum::<usize>()
            + commit.pushes.iter().map(|(_, push)| push.len() + ROOM_BYTES).sum::<usize>();
        let option_keys = |r: &RoomCommit| 2 * usize::from(r.snapshot.is_some()) + usize::from(r.trim.is_some());
        let keys_sent = 2 + 2 * rooms + commit.rooms.iter().map(option_keys).sum::<usize>();
        let mut call = Call::new(&COMMIT, keys_sent, 4 + 7 * rooms + 2 * commit.pushes.len(), bytes + ROOM_BYTES);
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
        }
        // A push that the script publishes may leave before the server has written it to its disk (to a subscriber whose
        // socket was full, in the same turn), and before its replicas have it.
        let later = self.durability() != Durability::Redis;
        if !later {
            for (gateway, push) in &commit.pushes {
                call.text(self.keys().push(*gateway)).bytes(push);
            }
        }

        let answer = self.announce_to(commit.lease.server, commit.shard, call).await?;
        let Some(answer) = answer else { return Ok(Committed::Fenced) };
        let mut reply = Reply::new("commit", answer)?;
        match reply.parse::<u8>()? {
            0 => {
                reply.end()?;
                if later {
                    self.publish_all(&commit.pushes).await?;
                }
                Ok(Committed::Done)
            }
            1 => reply.end().map(|()| Committed::Fenced),
            2 => Ok(Committed::Refused(reply.indexed(commit.rooms.iter().map(|r| &r.room))?)),
            other => Err(reply.error(&format!("code {other}"))),
        }
    }

    pub(super) async fn attempt_step(
        &self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        name: u64,
    ) -> Result<Leased<u32>, JournalError> {
        let keys = self.shard(shard)?;
        check::room(room, shard, self.shards())?;
        let mut call = Call::new(&ATTEMPT, 2, 3, ROOM_BYTES);
        call.text(&keys.shard).text(keys.state(room)).text(lease.epoch).text(Hex(lease.owner)).text(name);
        let Some(reply) = self.send_to(lease.server, &call).await? else { return Ok(Leased::Lost) };
        let mut reply = Reply::new("attempt", reply)?;
        let attempts = match reply.parse::<u8>()? {
            0 => Leased::Done(reply.parse()?),
            1 => Leased::Lost,
            other => return Err(reply.error(&format!("code {other}"))),
        };
        reply.end()?;
        Ok(attempts)
    }

    pub(super) async fn write_ahead_step(
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
        let Some(reply) = self.send_to(lease.server, &call).await? else { return Ok(Leased::Lost) };
        match code("write ahead", &reply)? {
            0 => Ok(Leased::Done(())),
            1 => Ok(Leased::Lost),
            other => Err(JournalError::Unexpected(format!("reply to write ahead: code {other}"))),
        }
    }

    /// In one round trip, in order. A commit whose pushes were not all published is sent again, and with it all of them.
    async fn publish_all(&self, pushes: &[(Incarnation, Bytes)]) -> Result<(), JournalError> {
        if pushes.is_empty() {
            return Ok(());
        }
        let mut pipeline = ::redis::pipe();
        for (gateway, push) in pushes {
            pipeline.cmd("PUBLISH").arg(self.keys().push(*gateway).to_string()).arg(&push[..]).ignore();
        }
        self.ask_all(&pipeline).await
    }

    pub(super) async fn end_room_step(
        &self,
        shard: ShardId,
        lease: Lease,
        room: &RoomId,
        seq: u64,
    ) -> Result<Leased<bool>, JournalError> {
        let keys = self.shard(shard)?;
        check::room(room, shard, self.shards())?;
        let mut call = Call::new(&END_ROOM, 8, 4, 3 * ROOM_BYTES);
        call.text(&keys.shard).text(&keys.active).text(&keys.rooms);
        call.text(keys.room(room)).text(keys.out(room)).text(keys.state(room)).text(keys.snapshot(room)).text(keys.parts(room));
        call.text(lease.epoch).text(Hex(lease.owner)).text(room).text(seq);
        let Some(reply) = self.send_to(lease.server, &call).await? else { return Ok(Leased::Lost) };
        match code("end of room", &reply)? {
            0 => Ok(Leased::Done(true)),
            1 => Ok(Leased::Lost),
            2 => Ok(Leased::Done(false)),
            other => Err(JournalError::Unexpected(format!("reply to end of room: code {other}"))),
        }
    }
}
