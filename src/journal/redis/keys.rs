//! The names of everything in Redis. All keys of a shard share a hash tag, and so do those that are of no shard (the catalog): every
//! script stays in one slot.

use std::fmt;

use super::slots;
use crate::types::{Incarnation, RoomId, ShardId};

/// How the keys and channels of a deployment are named, and so how messages are published. Its record has it as `tags`, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tags {
    /// The record has none: it is older than they are. Every message goes through the whole server.
    Plain,
    /// Every channel has the tag of its shard, or of the deployment, and messages stay with whoever has that slot.
    Sharded,
    /// Besides, the tags of the shards are spread over the slots of a cluster, and the catalog's keys are all in the record's slot.
    Spread,
}

impl Tags {
    /// Those of a new deployment.
    pub(super) const NEW: Self = Self::Spread;

    /// What the record has; empty where it has nothing.
    pub(super) fn recorded(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Sharded => "2",
            Self::Spread => "3",
        }
    }

    pub(super) fn of_record(text: &str) -> Option<Self> {
        [Self::Plain, Self::Sharded, Self::Spread].into_iter().find(|tags| tags.recorded() == text)
    }

    pub(super) fn publish(self) -> &'static str {
        match self {
            Self::Plain => "PUBLISH",
            Self::Sharded | Self::Spread => "SPUBLISH",
        }
    }

    pub(super) fn subscribe(self) -> &'static str {
        match self {
            Self::Plain => "SUBSCRIBE",
            Self::Sharded | Self::Spread => "SSUBSCRIBE",
        }
    }

    pub(super) fn unsubscribe(self) -> &'static str {
        match self {
            Self::Plain => "UNSUBSCRIBE",
            Self::Sharded | Self::Spread => "SUNSUBSCRIBE",
        }
    }
}

/// The names that do not depend on a room, made once.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) tags: Tags,
    /// See [`Keys::pushes`].
    pushes: String,
    echoes: String,
    /// See [`Keys::record`].
    pub(super) deployment: String,
    /// Hash: worker -> heartbeat.
    pub(super) workers: String,
    /// Hash: host -> number.
    pub(super) timelines: String,
    pub(super) hosts: String,
    /// Hash: process -> expires|host|role|cores|id|offset|lacks|URL.
    pub(super) procs: String,
    /// Set of hosts that are to have no shard.
    pub(super) drained: String,
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
    /// Hash: append, commit, `commit_epoch`, epoch, owner, owned, eras, shift, server, found, doubt, renewed; of its home also home
    /// (number|host), address, and next (until|host|URL) while a successor is named.
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
    /// The prefix of the channels on which gateways hear of this shard; the process in hex follows.
    pub(super) pushes: String,
    echoes: String,
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

/// A gateway's or worker's channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct PushChannel<'a>(&'a str, Incarnation);

impl fmt::Display for PushChannel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:032x}", self.0, self.1.0)
    }
}

/// For tests and tools that look into Redis: the key of a shard in a new deployment with the prefix `lasthit`.
#[must_use]
pub fn shard_key(shard: ShardId, shards: u16, name: &str) -> String {
    format!("lasthit:{{{}}}:{name}", slots::tag(shard.0, shards))
}

/// As [`shard_key`]: a key of the catalog.
#[must_use]
pub fn catalog_key(name: &str) -> String {
    format!("lasthit:{{lasthit:deployment}}:{name}")
}

impl ShardKeys {
    fn new(prefix: &str, channels: &str, tags: Tags, shard: u16, shards: u16) -> Self {
        let tag = if tags == Tags::Spread { slots::tag(shard, shards) } else { format!("s{shard}") };
        let tagged = format!("{channels}{{{tag}}}:");
        let tag = format!("{prefix}:{{{tag}}}:");
        let key = |name: &str| format!("{tag}{name}");
        Self {
            shard: key("shard"),
            gateways: key("gateways"),
            active: key("active"),
            rooms: key("rooms"),
            due: key("due"),
            failed: key("failed"),
            bell: format!("{tagged}bell"),
            pushes: format!("{}push:", if tags == Tags::Plain { channels } else { &tagged }),
            echoes: format!("{tagged}echo:"),
            confirm: key("confirm"),
            tag,
        }
    }

    /// Where a gateway hears of this shard.
    pub(super) fn push(&self, gateway: Incarnation) -> PushChannel<'_> {
        PushChannel(&self.pushes, gateway.process())
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
    /// No prefix has an `@`, or a brace.
    pub(super) fn new(prefix: &str, database: i64, shards: u16, tags: Tags) -> Self {
        let channels = if database == 0 { format!("{prefix}:") } else { format!("{prefix}:@{database}:") };
        let of_all = match tags {
            Tags::Plain => channels.clone(),
            // The slot of the record.
            Tags::Sharded | Tags::Spread => format!("{channels}{{{}}}:", Self::record(prefix)),
        };
        let catalog = match tags {
            Tags::Plain | Tags::Sharded => format!("{prefix}:"),
            Tags::Spread => format!("{prefix}:{{{}}}:", Self::record(prefix)),
        };
        Self {
            tags,
            pushes: format!("{of_all}push:"),
            echoes: format!("{of_all}echo:"),
            deployment: Self::record(prefix),
            workers: format!("{catalog}workers"),
            timelines: format!("{catalog}timelines"),
            hosts: format!("{catalog}hosts"),
            procs: format!("{catalog}procs"),
            drained: format!("{catalog}drained"),
            patterns: format!("{catalog}patterns"),
            programs: format!("{catalog}programs"),
            rules: format!("{catalog}rules"),
            shards: (0..shards).map(|shard| ShardKeys::new(prefix, &channels, tags, shard, shards)).collect(),
        }
    }

    /// Hash: format, shards, durability, tags; the server's name, and the run id and replication id for which it was given. Read before
    /// the number of shards is known.
    pub(super) fn record(prefix: &str) -> String {
        format!("{prefix}:deployment")
    }

    /// The shard must have been checked.
    pub(super) fn shard(&self, shard: ShardId) -> &ShardKeys {
        &self.shards[usize::from(shard.0)]
    }

    pub(super) fn shards_count(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    /// Where a gateway or worker hears of what is of no shard, or of all.
    pub(super) fn push(&self, to: Incarnation) -> PushChannel<'_> {
        PushChannel(&self.pushes, to.process())
    }

    /// The prefix of the channels of what is of no shard; the process in hex follows.
    pub(super) fn pushes(&self) -> &str {
        &self.pushes
    }

    /// What a channel is of: of a shard, or of none. None if it is no channel of the deployment.
    pub(super) fn place_of(&self, channel: &str) -> Option<Option<ShardId>> {
        let (tag, _) = channel.split_once('{')?.1.split_once('}')?;
        if tag == self.deployment {
            return Some(None);
        }
        let shard = ShardId(tag.strip_prefix('s')?.split('.').next()?.parse().ok()?);
        (shard.0 < self.shards_count()).then_some(Some(shard))
    }

    /// Where a process hears itself: with whoever has the shard, or what is of none.
    pub(super) fn echo(&self, of: Option<ShardId>, process: Incarnation) -> String {
        match of {
            None => PushChannel(&self.echoes, process).to_string(),
            Some(shard) => PushChannel(&self.shard(shard).echoes, process).to_string(),
        }
    }

    /// The key whose slot everything of a shard is in, or everything that is of none.
    pub(super) fn root(&self, of: Option<ShardId>) -> &str {
        of.map_or(&self.deployment, |shard| &self.shard(shard).shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_shard_share_its_hash_tag() {
        let keys = Keys::new("lasthit", 0, 8, Tags::Plain);
        let room = RoomId::new("baron").expect("name");
        let shard = keys.shard(ShardId(7));
        assert_eq!(shard.shard, "lasthit:{s7}:shard");
        assert_eq!(shard.room(&room).to_string(), "lasthit:{s7}:room:baron");
        assert_eq!(shard.state(&room).to_string(), format!("{}baron", shard.states()));
    }

    /// Processes of earlier versions have these names: they stay.
    #[test]
    fn the_channels_of_an_existing_deployment_keep_their_names() {
        let (gateway, hex) = (Incarnation(255), Incarnation(255).to_hex());
        for (database, prefix) in [(0, "lasthit:"), (3, "lasthit:@3:")] {
            let keys = Keys::new("lasthit", database, 8, Tags::Plain);
            let shard = keys.shard(ShardId(7));
            assert_eq!(shard.bell, format!("{prefix}{{s7}}:bell"));
            assert_eq!((keys.workers.as_str(), keys.rules.as_str()), ("lasthit:workers", "lasthit:rules"));
            assert_eq!(keys.push(gateway).to_string(), format!("{prefix}push:{hex}"));
            assert_eq!(shard.push(gateway).to_string(), keys.push(gateway).to_string());
            assert_eq!(keys.echo(None, gateway), format!("{prefix}echo:{hex}"));
        }
    }

    #[test]
    fn a_new_deployment_has_one_slot_for_each_shard_and_one_for_all_else() {
        let keys = Keys::new("lasthit", 0, 64, Tags::NEW);
        let (room, gateway) = (RoomId::new("baron").expect("name"), Incarnation(255));
        let shard = keys.shard(ShardId(9));
        assert_eq!(shard.shard, format!("lasthit:{{{}}}:shard", slots::tag(9, 64)));
        let tagged = [shard.bell.clone(), shard.push(gateway).to_string(), shard.state(&room).to_string(), shard.due.clone()];
        assert_eq!(tagged.map(|name| slots::slot(&name)), [slots::slot(&shard.shard); 4]);
        assert_eq!(keys.workers, "lasthit:{lasthit:deployment}:workers");
        let all = [&keys.workers, &keys.timelines, &keys.hosts, &keys.patterns, &keys.programs, &keys.rules];
        assert_eq!(all.map(|name| slots::slot(name)), [slots::slot(&keys.deployment); 6]);
        let of_none = [keys.push(gateway).to_string(), keys.echo(None, gateway)];
        assert_eq!(of_none.map(|name| slots::slot(&name)), [slots::slot(&keys.deployment); 2]);
        let of_shard = keys.echo(Some(ShardId(9)), gateway);
        assert_eq!(slots::slot(&of_shard), slots::slot(keys.root(Some(ShardId(9)))));
        assert_eq!([&shard.bell, &of_shard].map(|name| keys.place_of(name)), [Some(Some(ShardId(9))); 2]);
        assert_eq!(keys.place_of(&keys.push(gateway).to_string()), Some(None));
        for other in ["lasthit:bell", "lasthit:{s64.1}:bell", "lasthit:{x}:bell", "lasthit:{s9"] {
            assert_eq!(keys.place_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_channels_of_a_sharded_deployment_have_the_tag_of_their_shard_or_of_the_record() {
        let (gateway, hex) = (Incarnation(255), Incarnation(255).to_hex());
        for (database, prefix) in [(0, "lasthit:"), (3, "lasthit:@3:")] {
            let keys = Keys::new("lasthit", database, 8, Tags::Sharded);
            let shard = keys.shard(ShardId(7));
            assert_eq!(shard.shard, "lasthit:{s7}:shard");
            assert_eq!(shard.bell, format!("{prefix}{{s7}}:bell"));
            assert_eq!(shard.push(gateway).to_string(), format!("{prefix}{{s7}}:push:{hex}"));
            assert_eq!(keys.push(gateway).to_string(), format!("{prefix}{{lasthit:deployment}}:push:{hex}"));
            assert_eq!(keys.echo(None, gateway), format!("{prefix}{{lasthit:deployment}}:echo:{hex}"));
        }
    }

    #[test]
    fn a_record_says_which_tags_it_has() {
        for tags in [Tags::Plain, Tags::Sharded, Tags::Spread] {
            assert_eq!(Tags::of_record(tags.recorded()), Some(tags));
        }
        assert_eq!((Tags::of_record("1"), Tags::of_record("4"), Tags::of_record("22")), (None, None, None));
    }
}
