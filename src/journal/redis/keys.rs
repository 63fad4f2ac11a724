//! The names of everything in Redis. All keys of a shard share the hash tag `{s<N>}`: every script stays in one slot.

use std::fmt;

use crate::types::{Incarnation, RoomId, ShardId};

/// The names that do not depend on a room, made once.
#[derive(Debug)]
pub(super) struct Keys {
    pushes: String,
    /// See [`Keys::record`].
    pub(super) deployment: String,
    /// Hash: worker -> heartbeat.
    pub(super) workers: String,
    /// Hash: host -> number.
    pub(super) timelines: String,
    pub(super) hosts: String,
    /// Hash: worker -> when its entry expires, and the patterns of its rooms.
    pub(super) patterns: String,
    /// Hash: program -> its text.
    pub(super) programs: String,
    /// Hash: pattern -> push|program|version|ms|name; under no pattern the number of the last push.
    pub(super) rules: String,
    shards: Vec<ShardKeys>,
}

/// The names of one shard.
#[derive(Debug)]
pub(super) struct ShardKeys {
    tag: String,
    /// Hash: append, commit, `commit_epoch`, epoch, owner, eras, shift, server, found, doubt, renewed.
    pub(super) shard: String,
    /// Hash: incarnation -> number|watermark|fenced|server.
    pub(super) gateways: String,
    /// Set of rooms with entries that are not resolved.
    pub(super) active: String,
    /// Set of all rooms.
    pub(super) rooms: String,
    /// Sorted set: room -> when its next timer is due, in milliseconds since 1970.
    pub(super) due: String,
    /// Hash: room pattern -> how many of its failed events are kept.
    pub(super) failed: String,
    /// Channel of the shard's bells.
    pub(super) bell: String,
    /// Empty string: written so that replicas can confirm it.
    pub(super) confirm: String,
}

/// A key of one room. It is formatted only when it is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoomKey<'a>(&'a str, &'static str, &'a str);

impl fmt::Display for RoomKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        f.write_str(self.1)?;
        f.write_str(self.2)
    }
}

/// An incarnation in hex, without a `String`.
pub(super) struct Hex(pub(super) Incarnation);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0.0)
    }
}

/// A gateway's channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct PushChannel<'a>(&'a str, Incarnation);

impl fmt::Display for PushChannel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:032x}", self.0, self.1.0)
    }
}

impl ShardKeys {
    fn new(prefix: &str, channels: &str, shard: u16) -> Self {
        let tag = format!("{prefix}:{{s{shard}}}:");
        let key = |name: &str| format!("{tag}{name}");
        Self {
            shard: key("shard"),
            gateways: key("gateways"),
            active: key("active"),
            rooms: key("rooms"),
            due: key("due"),
            failed: key("failed"),
            bell: format!("{channels}{{s{shard}}}:bell"),
            confirm: key("confirm"),
            tag,
        }
    }

    /// Stream of entries, one field `e`.
    pub(super) fn room<'a>(&'a self, room: &'a RoomId) -> RoomKey<'a> {
        RoomKey(&self.tag, "room:", room.as_str())
    }

    /// Stream of verdict batches, one field `v`; the ID is the last `seq`.
    pub(super) fn out<'a>(&'a self, room: &'a RoomId) -> RoomKey<'a> {
        RoomKey(&self.tag, "out:", room.as_str())
    }

    /// Stream of failed events of a room pattern, one field `f`.
    pub(super) fn failed_of<'a>(&'a self, pattern: &'a str) -> RoomKey<'a> {
        RoomKey(&self.tag, "failed:", pattern)
    }

    /// Hash: era (without the shard's shift), seq, cursor, top, last, `snapshot_seq`, `snapshot_cursor`, `snapshot_parts`
    /// (name/count), gateways, trims, program, seed (not where an earlier version created it); after trouble also deaths and
    /// attempts, each with its seq (`deaths_at`, `attempts_at`), and the last attempt.
    pub(super) fn state<'a>(&'a self, room: &'a RoomId) -> RoomKey<'a> {
        RoomKey(&self.tag, "state:", room.as_str())
    }

    /// The prefix of all state keys.
    pub(super) fn states(&self) -> RoomKey<'_> {
        RoomKey(&self.tag, "state:", "")
    }

    /// String: a snapshot of one part.
    pub(super) fn snapshot<'a>(&'a self, room: &'a RoomId) -> RoomKey<'a> {
        RoomKey(&self.tag, "snapshot:", room.as_str())
    }

    /// Hash: name/index -> part of a snapshot. The state has the name of the valid snapshot. Parts with other names are written
    /// ahead, or left over.
    pub(super) fn parts<'a>(&'a self, room: &'a RoomId) -> RoomKey<'a> {
        RoomKey(&self.tag, "parts:", room.as_str())
    }
}

impl Keys {
    /// Channels, unlike keys, are shared by all databases of a server: outside of database 0 their names carry the database.
    /// No prefix has an `@`.
    pub(super) fn new(prefix: &str, database: i64, shards: u16) -> Self {
        let channels = if database == 0 { format!("{prefix}:") } else { format!("{prefix}:@{database}:") };
        Self {
            pushes: format!("{channels}push:"),
            deployment: Self::record(prefix),
            workers: format!("{prefix}:workers"),
            timelines: format!("{prefix}:timelines"),
            hosts: format!("{prefix}:hosts"),
            patterns: format!("{prefix}:patterns"),
            programs: format!("{prefix}:programs"),
            rules: format!("{prefix}:rules"),
            shards: (0..shards).map(|shard| ShardKeys::new(prefix, &channels, shard)).collect(),
        }
    }

    /// Hash: format, shards, durability; the server's name, and the run id and replication id for which it was given. Read before
    /// the number of shards is known.
    pub(super) fn record(prefix: &str) -> String {
        format!("{prefix}:deployment")
    }

    /// The shard must have been checked.
    pub(super) fn shard(&self, shard: ShardId) -> &ShardKeys {
        &self.shards[usize::from(shard.0)]
    }

    pub(super) fn shards(&self) -> &[ShardKeys] {
        &self.shards
    }

    pub(super) fn shards_count(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn push(&self, gateway: Incarnation) -> PushChannel<'_> {
        PushChannel(&self.pushes, gateway.process())
    }

    /// The prefix of all gateways' channels; the process in hex follows.
    pub(super) fn pushes(&self) -> &str {
        &self.pushes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_shard_share_its_hash_tag() {
        let keys = Keys::new("lasthit", 0, 8);
        let room = RoomId::new("baron").expect("name");
        let shard = keys.shard(ShardId(7));
        assert_eq!(shard.shard, "lasthit:{s7}:shard");
        assert_eq!(shard.room(&room).to_string(), "lasthit:{s7}:room:baron");
        assert_eq!(shard.state(&room).to_string(), format!("{}baron", shard.states()));
        assert_eq!(keys.push(Incarnation(255)).to_string(), format!("lasthit:push:{}", Incarnation(255).to_hex()));
    }

    #[test]
    fn channels_are_of_one_database() {
        let shard = ShardId(7);
        assert_eq!(Keys::new("lasthit", 0, 8).shard(shard).bell, "lasthit:{s7}:bell");
        let keys = Keys::new("lasthit", 3, 8);
        assert_eq!((keys.shard(shard).bell.as_str(), keys.pushes()), ("lasthit:@3:{s7}:bell", "lasthit:@3:push:"));
        assert_eq!(keys.shard(shard).shard, "lasthit:{s7}:shard");
    }
}
