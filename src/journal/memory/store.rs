//! The memory journal's state, step by step: no clock, no randomness, no task. The simulation drives it directly.

mod failed;
mod gateways;
mod programs;
mod stored;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::journal::{
    AheadName, Beats, Bell, Flush, FlushEntry, GatewayRecord, JournalError, Lease, ProcessRecord, RoomCommit, RoomHead,
    Successor, check, era_stride,
};
use crate::types::{Home, HostId, Incarnation, Moment, RoomId, Seed, ShardId, StreamId};

/// Everything a journal keeps. Each method is one atomic step with the meaning of its namesake in the journal's traits;
/// `now_ms` is the journal's clock. Steps that publish return what to publish.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// The name of the present server.
    server: Incarnation,
    shards: Vec<Shard>,
    /// Whose step the next one is.
    host: HostId,
    /// The last position in any room. Positions rise even if `now_ms` does not.
    last: StreamId,
    workers: BTreeMap<Incarnation, Worker>,
    timelines: BTreeMap<String, u32>,
    /// When the heartbeat of each timeline expires, in milliseconds.
    hosts: BTreeMap<u32, u64>,
    /// What processes say of themselves, and when that expires.
    procs: BTreeMap<Incarnation, (u64, ProcessRecord)>,
    drained: BTreeSet<HostId>,
    /// The patterns of each worker, and when they expire.
    patterns: BTreeMap<Incarnation, (u64, Vec<String>)>,
    programs: programs::Programs,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    append: u64,
    commit: u64,
    /// The lease epoch of the last commit: only its owner may repeat it.
    commit_epoch: u64,
    epoch: u64,
    owner: Option<Incarnation>,
    /// The server of the last claim.
    owned: Incarnation,
    eras: u64,
    /// Is added to every room's stored era. It jumps when all rooms begin new eras.
    shift: u64,
    /// The server that was met last, the last commit that it found, and the epoch in doubt, until somebody shows that no later
    /// commit is missing.
    server: Incarnation,
    found: u64,
    doubt: Option<u64>,
    /// The server with which all rooms last began a new era.
    renewed: Incarnation,
    home: Option<Home>,
    /// The successor that was named, and until when, in milliseconds.
    next: Option<(u64, Successor)>,
    gateways: BTreeMap<Incarnation, RegisteredGateway>,
    active: BTreeSet<RoomId>,
    rooms: BTreeMap<RoomId, Room>,
    /// When a room's next timer is due, in milliseconds since 1970.
    due: BTreeMap<RoomId, u64>,
    failed: BTreeMap<String, failed::Failed>,
}

#[derive(Debug, Clone, Copy, Default)]
struct RegisteredGateway {
    number: u64,
    watermark: Moment,
    fenced: bool,
    server: Incarnation,
}

#[derive(Debug, Clone, Default)]
struct Room {
    /// Without the shard's shift.
    era: u64,
    seq: u64,
    cursor: StreamId,
    top: Moment,
    /// Position of the last entry, even if it was trimmed.
    last: StreamId,
    snapshot: Option<Snapshot>,
    /// Parts that were written ahead, by the owner's epoch and the snapshot's name.
    ahead: BTreeMap<(u64, AheadName), BTreeMap<u32, Bytes>>,
    entries: VecDeque<(StreamId, Bytes)>,
    /// Verdict batches by their last `seq`.
    out: VecDeque<(u64, Bytes)>,
    /// Gateways that every append asks for their watermarks.
    gateways: Vec<Incarnation>,
    trims: Vec<(StreamId, u64)>,
    program: Option<Bytes>,
    deaths: Trouble,
    attempts: Trouble,
    /// The epoch and name of the last attempt.
    attempt: (u64, u64),
    seed: Option<Seed>,
}

#[derive(Debug, Clone)]
struct Snapshot {
    seq: u64,
    cursor: StreamId,
    /// At least one.
    pieces: Vec<Bytes>,
}

/// A count that is valid for one `seq`.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    at: u64,
    count: u32,
}

impl Trouble {
    fn at(self, seq: u64) -> u32 {
        if self.at == seq { self.count } else { 0 }
    }

    fn add(&mut self, seq: u64) -> u32 {
        *self = Self { at: seq, count: self.at(seq).saturating_add(1) };
        self.count
    }
}

#[derive(Debug, Clone)]
struct Worker {
    shards: Vec<ShardId>,
    expires_ms: u64,
}

impl RegisteredGateway {
    fn record(self, incarnation: Incarnation) -> GatewayRecord {
        GatewayRecord { incarnation, number: self.number, watermark: self.watermark, fenced: self.fenced, server: self.server }
    }
}

impl Room {
    fn head(&self, room: &RoomId, shift: u64) -> RoomHead {
        RoomHead { room: room.clone(), era: self.era + shift, seq: self.seq, top: self.top }
    }

    fn after(&self, position: StreamId) -> impl Iterator<Item = (StreamId, Bytes)> {
        let from = self.entries.partition_point(|(id, _)| *id <= position);
        self.entries.range(from..).cloned()
    }

    fn out_after(&self, seq: u64) -> impl Iterator<Item = (u64, Bytes)> {
        let from = self.out.partition_point(|(to, _)| *to <= seq);
        self.out.range(from..).cloned()
    }
}

impl Shard {
    fn lease(&self, server: Incarnation) -> Option<Lease> {
        self.owner.map(|owner| Lease { epoch: self.epoch, owner, server, home: self.home.as_ref().map_or(0, |home| home.number) })
    }

    /// The successor that was named, if the name has not run out.
    fn named(&self, now_ms: u64) -> Option<&Successor> {
        self.next.as_ref().filter(|(until, _)| *until > now_ms).map(|(_, next)| next)
    }

    /// The last commit when `server` was first met.
    fn found(&self, server: Incarnation) -> u64 {
        if self.server == server { self.found } else { self.commit }
    }

    fn meet(&mut self, server: Incarnation) {
        if self.server != server {
            (self.server, self.found, self.doubt) = (server, self.commit, Some(self.epoch));
        }
    }

    /// Begins a new era in all rooms. Returns how many there are; none count before the first commit, when no room has verdicts.
    fn renew(&mut self, server: Incarnation) -> u64 {
        if std::mem::replace(&mut self.renewed, server) == server {
            return 0;
        }
        let rooms = if self.commit == 0 { 0 } else { self.rooms.len() as u64 };
        self.commit += 1;
        self.commit_epoch = 0;
        (self.server, self.found, self.doubt) = (server, self.commit, None);
        self.shift += era_stride(server);
        rooms
    }

    fn head(&self, room: &RoomId) -> RoomHead {
        let none = || RoomHead { room: room.clone(), era: 0, seq: 0, top: Moment::default() };
        self.rooms.get(room).map_or_else(none, |stored| stored.head(room, self.shift))
    }

    /// The other gateways in a flush's rooms that the append asks: those that do not append often by themselves.
    fn idle(&self, flush: &Flush) -> Vec<Incarnation> {
        let inside = flush.entries.iter().filter_map(|e| self.rooms.get(&e.room)).flat_map(|room| &room.gateways);
        let asked = |g: &Incarnation| {
            *g != flush.incarnation
                && self.gateways.get(g).is_some_and(|known| !known.fenced && known.watermark < flush.idle_below())
        };
        inside.copied().filter(asked).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// `seed` is for a room that the entry creates.
    fn add(&mut self, entry: &FlushEntry, id: StreamId, seed: Option<Seed>) {
        let room = self.rooms.entry(entry.room.clone()).or_insert_with(|| {
            self.eras += 1;
            Room { era: self.eras, seed, ..Room::default() }
        });
        room.entries.push_back((id, entry.bytes.clone()));
        room.last = id;
        room.top = room.top.max(entry.top);
        if !self.active.contains(&entry.room) {
            self.active.insert(entry.room.clone());
        }
    }

    fn apply(&mut self, part: &RoomCommit, epoch: u64) {
        let Some(room) = self.rooms.get_mut(&part.room) else { return };
        if part.to > part.from {
            room.out.push_back((part.to, part.verdicts.clone()));
        }
        room.seq = part.to;
        room.cursor = part.cursor;
        room.put(part, epoch);
        if let Some((position, seq)) = part.trim {
            room.entries.drain(..room.entries.partition_point(|(id, _)| *id < position));
            room.out.drain(..room.out.partition_point(|(to, _)| *to <= seq));
        }
        if let Some(trims) = &part.trims {
            room.trims.clone_from(trims);
        }
        if let Some(program) = &part.program {
            room.program = Some(program.clone());
        }
        if let Some(gateways) = &part.gateways {
            room.gateways.clone_from(gateways);
        }
        if let Some(failed) = &part.failed {
            self.failed.entry(failed.pattern.clone()).or_default().add(failed);
        }
        match part.due {
            None => {}
            Some(None) => _ = self.due.remove(&part.room),
            Some(Some(ms)) => _ = self.due.insert(part.room.clone(), ms),
        }
        if room.cursor == room.last {
            self.active.remove(&part.room);
        }
    }
}

impl Store {
    /// An empty journal of `shards` shards, at least 1.
    #[must_use]
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            server: Incarnation(1),
            shards: vec![Shard::default(); usize::from(shards.max(1))],
            host: HostId::new("here").expect("a name"),
            last: StreamId::default(),
            workers: BTreeMap::new(),
            timelines: BTreeMap::new(),
            hosts: BTreeMap::new(),
            procs: BTreeMap::new(),
            drained: BTreeSet::new(),
            patterns: BTreeMap::new(),
            programs: programs::Programs::default(),
        }
    }

    /// One whose shards have their home here, as after a first claim.
    #[cfg(test)]
    pub(crate) fn at_home(shards: u16) -> Self {
        let mut store = Self::new(shards);
        let (host, number) = (store.host.clone(), store.timeline("here"));
        for shard in &mut store.shards {
            shard.home = Some(Home { number, host: host.clone(), address: String::new() });
        }
        store
    }

    /// The name of the present server.
    #[must_use]
    pub(crate) fn server(&self) -> Incarnation {
        self.server
    }

    /// Changes the server, as a restart does. Leases and registrations of the old one are not valid there.
    #[cfg(test)]
    pub(crate) fn restart(&mut self, server: Incarnation) {
        self.server = server;
    }

    /// The number of shards.
    #[must_use]
    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    fn shard(&mut self, shard: ShardId) -> Result<&mut Shard, JournalError> {
        check::shard(shard, self.shards())?;
        Ok(&mut self.shards[usize::from(shard.0)])
    }

    /// The shard, if the lease is valid.
    fn leased(&mut self, shard: ShardId, lease: Lease) -> Result<Option<&mut Shard>, JournalError> {
        let server = self.server;
        Ok(Some(self.shard(shard)?).filter(|state| state.lease(server) == Some(lease)))
    }

    fn room(&self, room: &RoomId) -> Option<&Room> {
        self.shards[usize::from(ShardId::of(room, self.shards()).0)].rooms.get(room)
    }

    fn next_position(&mut self, now_ms: u64) -> StreamId {
        self.last = if now_ms > self.last.ms {
            StreamId { ms: now_ms, seq: 0 }
        } else {
            StreamId { seq: self.last.seq + 1, ..self.last }
        };
        self.last
    }

    /// The next step is one of this host.
    pub(crate) fn by(&mut self, host: &HostId) -> &mut Self {
        self.host.clone_from(host);
        self
    }

    /// The number of a shard's home; 0 if it has none.
    #[cfg(test)]
    pub(crate) fn home(&self, shard: ShardId) -> u32 {
        self.shards[usize::from(shard.0)].home.as_ref().map_or(0, |home| home.number)
    }

    /// The number of a host's timeline.
    pub(crate) fn timeline(&mut self, host: &str) -> u32 {
        let next = u32::try_from(self.timelines.len()).unwrap_or(u32::MAX).saturating_add(1);
        *self.timelines.entry(host.to_owned()).or_insert(next)
    }

    /// Stores a timeline's heartbeat. Returns the living timelines.
    pub(crate) fn live_timelines(&mut self, timeline: u32, good_for_ms: u64, now_ms: u64) -> Vec<u32> {
        self.hosts.insert(timeline, now_ms.saturating_add(good_for_ms));
        self.hosts.retain(|_, until| *until > now_ms);
        self.hosts.keys().copied().collect()
    }

    /// Stores what a process says of itself. Returns all that beat.
    pub(crate) fn beat(&mut self, me: &ProcessRecord, good_for_ms: u64, now_ms: u64) -> Beats {
        self.procs.insert(me.incarnation, (now_ms.saturating_add(good_for_ms), me.clone()));
        self.procs.retain(|_, (until, _)| *until > now_ms);
        let processes = self.procs.values().map(|(_, process)| process.clone()).collect();
        Beats { processes, drained: self.drained.clone(), damaged: Vec::new() }
    }

    /// Marks a host as one that is to have no shard, or takes the mark away.
    pub(crate) fn drain(&mut self, host: &HostId, drained: bool) {
        if drained {
            self.drained.insert(host.clone());
        } else {
            self.drained.remove(host);
        }
    }

    fn write(
        &mut self,
        shard: ShardId,
        (incarnation, number, watermark): (Incarnation, u64, Moment),
        entries: &[FlushEntry],
        seed: Option<Seed>,
        now_ms: u64,
    ) -> Bell {
        let mut rung = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = self.next_position(now_ms);
            self.shards[usize::from(shard.0)].add(entry, id, seed);
            rung.push((entry.room.clone(), id, entry.bytes.clone()));
        }
        let state = &mut self.shards[usize::from(shard.0)];
        state.append += 1;
        Bell { shard, append: state.append, incarnation, number, watermark, entries: rung, poked: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Flush, FlushEntry, Homing, Leased, PageSize, Place, Seen};

    const SHARD: ShardId = ShardId(0);

    #[test]
    fn a_lease_that_ended_with_its_server_is_no_death() {
        let (mut store, room, gateway) = (Store::at_home(1), RoomId::new("pit").expect("a name"), Incarnation(1));
        store.register(SHARD, gateway, Seen::default(), &[]).expect("a shard");
        let (previous, watermark) = (Moment::default(), Moment { timeline: 1, ns: 5 });
        let entries = vec![FlushEntry { room: room.clone(), top: watermark, bytes: Bytes::from_static(b"a") }];
        let flush = Flush { shard: SHARD, server: store.server(), incarnation: gateway, number: 1, previous, watermark, entries };
        store.append(&flush, Seed(1), 1).expect("stored");
        let mut owner = 100;
        let mut deaths_after_claim = |store: &mut Store| {
            owner += 1;
            let from = store.owners(0)[0].lease;
            assert!(matches!(store.claim(SHARD, from, Incarnation(owner), (0, 0), &Homing::default()), Ok(Leased::Done(_))));
            store.load(&room, Place::default(), PageSize::default()).head.deaths
        };
        assert_eq!([0, 1].map(|_| deaths_after_claim(&mut store)), [0, 1]);
        store.restart(Incarnation(7));
        assert_eq!([0, 1].map(|_| deaths_after_claim(&mut store)), [1, 2], "nobody died with the server");
    }
}
