//! Messages of a worker to a gateway or to another worker.

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use super::verdicts;
use crate::limits::ADVERTISE_BYTES_MAX;
use crate::types::{Home, HostId, Incarnation, Moment, RoomId, ShardId, VerdictBatch};

/// Version 2: `[2, kind, shard, payload]`.
pub(crate) const VERSION: u64 = 2;

/// A message from a worker to one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// Committed verdicts.
    Verdicts {
        /// The shard of the rooms.
        shard: ShardId,
        /// The journal's server at which they were committed.
        server: Incarnation,
        /// The commit's number.
        commit: u64,
        /// The rooms. Each is there at most once.
        rooms: Vec<RoomPush>,
    },
    /// A room waits for this gateway's watermark to reach `until`.
    Probe {
        /// The shard whose watermark is asked for.
        shard: ShardId,
        /// The lowest watermark that helps.
        until: Moment,
    },
    /// A worker has released a shard. Sent to other workers.
    Free {
        /// The shard that is free.
        shard: ShardId,
    },
    /// A program was pushed. Sent to workers.
    Programs,
    /// The heads of rooms. A new owner sends them, so that a gateway that missed the last push finds the gap.
    Heads {
        /// The shard of the rooms.
        shard: ShardId,
        /// The journal's server that gave them.
        server: Incarnation,
        /// Room, era and `seq`.
        rooms: Vec<(RoomId, u64, u64)>,
    },
    /// No worker resolves a room for now. Its sessions should not wait.
    Halted {
        /// The shard of the room.
        shard: ShardId,
        /// The room.
        room: RoomId,
        /// Whether there are rules for it. If so, its stored state is damaged or cannot be loaded.
        known: bool,
    },
    /// A shard's owner hands it over to another host. Sent to the shard's gateways, again and again until they have left it.
    Moving {
        /// The shard that moves.
        shard: ShardId,
        /// The number of the home that it leaves. A gateway that knows a higher one drops this (rule H9).
        number: u32,
        /// The host that takes it over.
        host: HostId,
        /// Under which URL players reach that host.
        url: String,
        /// By when the gateway is to have left the shard, in milliseconds from now.
        within_ms: u64,
    },
    /// A shard has another home from now on. Sent to gateways by its new owner. Whoever knows a higher number drops this (rule H9).
    Home {
        /// The shard that has moved.
        shard: ShardId,
        /// Where it is.
        home: Home,
    },
    /// Somebody asks for a shard to be moved. Sent to its owner.
    Give {
        /// The shard that is to move.
        shard: ShardId,
        /// Where it is to go.
        host: HostId,
    },
}

/// A room's part of a push. It covers `from + 1 ..= to`, without the verdicts that none of the gateway's sessions may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPush {
    /// The room.
    pub room: RoomId,
    /// The room's `seq` before.
    pub from: u64,
    /// The room's `seq` after.
    pub to: u64,
    /// The verdicts that the gateway's sessions may see.
    pub batch: VerdictBatch,
}

/// Encodes a push.
#[must_use]
pub fn encode(push: &Push) -> Bytes {
    let mut w = Writer::with_capacity(256);
    w.array(4).uint(VERSION);
    match push {
        Push::Verdicts { shard, server, commit, rooms } => {
            let batches: Vec<Bytes> = rooms.iter().map(|room| verdicts::encode(&room.batch)).collect();
            return encode_verdicts(
                (*shard, *server, *commit),
                rooms.iter().zip(&batches).map(|(room, batch)| (&room.room, room.from, room.to, batch)),
            );
        }
        Push::Probe { shard, until } => {
            w.uint(1).uint(shard.0.into()).array(2).uint(until.timeline.into()).uint(until.ns);
        }
        Push::Free { shard } => {
            w.uint(3).uint(shard.0.into()).array(0);
        }
        Push::Programs => {
            w.uint(5).uint(0).array(0);
        }
        Push::Halted { shard, room, known } => {
            w.uint(4).uint(shard.0.into()).array(2).text(room.as_str()).uint((*known).into());
        }
        Push::Moving { shard, number, host, url, within_ms } => {
            w.uint(6).uint(shard.0.into()).array(4).uint((*number).into()).text(host.as_str()).text(url).uint(*within_ms);
        }
        Push::Home { shard, home } => {
            w.uint(7).uint(shard.0.into()).array(2).text(&home.record()).text(&home.address);
        }
        Push::Give { shard, host } => {
            w.uint(8).uint(shard.0.into()).array(1).text(host.as_str());
        }
        Push::Heads { shard, server, rooms } => {
            w.uint(2).uint(shard.0.into()).array(1 + rooms.len()).incarnation(*server);
            for (room, era, seq) in rooms {
                w.array(3).text(room.as_str()).uint(*era).uint(*seq);
            }
        }
    }
    w.finish()
}

/// Encodes [`Push::Verdicts`] of a shard, server and commit from batches that are encoded already: room, `from`, `to`, batch.
#[must_use]
pub fn encode_verdicts<'a>(
    (shard, server, commit): (ShardId, Incarnation, u64),
    rooms: impl ExactSizeIterator<Item = (&'a RoomId, u64, u64, &'a Bytes)>,
) -> Bytes {
    let mut w = Writer::with_capacity(512);
    w.array(4).uint(VERSION).uint(0).uint(shard.0.into()).array(2 + rooms.len()).incarnation(server).uint(commit);
    for (room, from, to, batch) in rooms {
        w.array(4).text(room.as_str()).uint(from).uint(to).bytes(batch);
    }
    w.finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &Bytes) -> Result<Push, DecodeError> {
    let mut r = Reader::versioned("push", bytes, VERSION, 3)?;
    let kind = r.uint()?;
    let shard = ShardId(r.small()?);
    let len = r.array()?;
    let push = match kind {
        0 if len >= 2 => {
            let (server, commit, len) = (r.incarnation()?, r.uint()?, len - 2);
            let mut rooms = Vec::with_capacity(len.min(1024));
            for _ in 0..len {
                r.array_of(4)?;
                let (room, from, to) = (r.room()?, r.uint()?, r.uint()?);
                rooms.push(RoomPush { room, from, to, batch: verdicts::decode(&bytes.slice_ref(r.raw()?))? });
            }
            Push::Verdicts { shard, server, commit, rooms }
        }
        1 if len == 2 => Push::Probe { shard, until: Moment { timeline: r.small()?, ns: r.uint()? } },
        2 if len >= 1 => {
            let (server, len) = (r.incarnation()?, len - 1);
            let mut rooms = Vec::with_capacity(len.min(1024));
            for _ in 0..len {
                r.array_of(3)?;
                rooms.push((r.room()?, r.uint()?, r.uint()?));
            }
            Push::Heads { shard, server, rooms }
        }
        3 if len == 0 => Push::Free { shard },
        5 if len == 0 => Push::Programs,
        4 if len == 2 => Push::Halted { shard, room: r.room()?, known: r.uint()? != 0 },
        6 if len == 4 => {
            let (number, host, url) = (r.small()?, host(&mut r)?, url(&mut r)?);
            Push::Moving { shard, number, host, url, within_ms: r.uint()? }
        }
        7 if len == 2 => {
            let (record, address) = (r.text()?, url(&mut r)?);
            let home = Home::parse_record(record, &address).map_err(|error| r.damaged(error))?;
            Push::Home { shard, home }
        }
        8 if len == 1 => Push::Give { shard, host: host(&mut r)? },
        other => return Err(r.damaged(format!("unknown push {other}"))),
    };
    r.end()?;
    Ok(push)
}

fn host(r: &mut Reader<'_>) -> Result<HostId, DecodeError> {
    HostId::new(r.text()?).map_err(|error| r.damaged(error))
}

fn url(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let url = r.text()?;
    let is_url = url.len() <= ADVERTISE_BYTES_MAX && url.bytes().all(|b| b.is_ascii_graphic());
    if is_url { Ok(url.to_owned()) } else { Err(r.damaged("no URL of a host")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push() -> impl Strategy<Value = Push> {
        let room = || "[a-z]{1,9}".prop_map(|r| RoomId::new(&r).expect("name"));
        let host = || "[a-z:/]{1,9}".prop_map(|host| HostId::new(&host).expect("name"));
        prop_oneof![
            (any::<(u16, u128, u64)>(), proptest::collection::vec((room(), any::<u64>(), any::<u64>(), any::<u64>()), 0..4))
                .prop_map(|((shard, server, commit), rooms)| Push::Verdicts {
                    shard: ShardId(shard),
                    server: Incarnation(server),
                    commit,
                    rooms: rooms
                        .into_iter()
                        .map(|(room, from, to, era)| RoomPush {
                            room,
                            from,
                            to,
                            batch: VerdictBatch { era, epoch: None, decided: None, verdicts: vec![] }
                        })
                        .collect(),
                }),
            any::<(u16, u32, u64)>()
                .prop_map(|(shard, timeline, ns)| Push::Probe { shard: ShardId(shard), until: Moment { timeline, ns } }),
            (any::<(u16, u32, u64)>(), host(), "[!-~]{0,96}").prop_map(|((shard, number, within_ms), host, url)| Push::Moving {
                shard: ShardId(shard),
                number,
                host,
                url,
                within_ms
            }),
            (any::<u16>(), 0..u32::MAX, host(), "[!-~]{0,96}").prop_map(|(shard, number, host, address)| Push::Home {
                shard: ShardId(shard),
                home: Home { number, host, address }
            }),
            (any::<u16>(), host()).prop_map(|(shard, host)| Push::Give { shard: ShardId(shard), host }),
            Just(Push::Programs),
            any::<u16>().prop_map(|shard| Push::Free { shard: ShardId(shard) }),
            (any::<(u16, bool)>(), room()).prop_map(|((shard, known), room)| Push::Halted { shard: ShardId(shard), room, known }),
            (any::<(u16, u128)>(), proptest::collection::vec((room(), any::<u64>(), any::<u64>()), 0..4))
                .prop_map(|((shard, server), rooms)| Push::Heads { shard: ShardId(shard), server: Incarnation(server), rooms }),
        ]
    }

    proptest! {
        #[test]
        fn pushes_survive_the_wire(push in push()) {
            prop_assert_eq!(decode(&encode(&push)), Ok(push));
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_a_push(bytes: Vec<u8>) {
            let _ = decode(&bytes.into());
        }
    }
}
