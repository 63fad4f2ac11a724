//! What scenarios are made of.

use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use lasthit::journal::redis::{Durability, RedisJournal, RedisOptions, shard_key};
use lasthit::journal::{
    Appended, Bell, Commit, Flush, FlushEntry, GatewayRecord, Homed, Homing, Journal, JournalError, Lease, Leased, PageSize,
    Registered, RoomCommit, RoomHead, Seen, Signal, Signals, StoredRoom, pages,
};
use lasthit::types::{Incarnation, Moment, RoomId, ShardId, StreamId};
use servers::{Cluster, Program, RedisServer};

pub(crate) const SHARDS: u16 = 4;
/// Where most scenarios play.
pub(crate) const SHARD: ShardId = ShardId(2);
/// The number of its home, by which all moments are told.
pub(crate) const HOME: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn redis() -> (RedisServer, RedisJournal) {
    let server = RedisServer::start().expect("redis-server");
    let journal = connect(&server).await;
    settle(&journal).await;
    (server, journal)
}

/// A server of another program, if there is one.
pub(crate) async fn other(program: Program) -> Option<(RedisServer, RedisJournal)> {
    let server = RedisServer::start_other(program, &[], false).expect("a server")?;
    let journal = connect(&server).await;
    settle(&journal).await;
    Some((server, journal))
}

pub(crate) async fn connect(server: &RedisServer) -> RedisJournal {
    let options = RedisOptions { shards: Some(SHARDS), ..RedisOptions::default() };
    RedisJournal::connect(&server.url(), options).await.expect("journal")
}

/// What [`replicated`] wants of its server.
pub(crate) const REPLICATED: [&str; 2] = ["--min-replicas-to-write", "1"];

/// A server with one replica, and the journal that waits for it.
pub(crate) async fn replicated() -> (RedisServer, RedisServer, RedisJournal) {
    let server = RedisServer::start_tcp(&REPLICATED).expect("redis-server");
    let replica = server.replica(&[]).expect("a replica");
    let options = RedisOptions { shards: Some(SHARDS), durability: Some(Durability::Replicated), ..RedisOptions::default() };
    let journal = RedisJournal::connect(&server.url(), options).await.expect("journal");
    settle(&journal).await;
    (server, replica, journal)
}

/// A cluster of three primaries that the tests which run at the same time share, and a deployment of one's own there.
pub(crate) async fn cluster() -> (Arc<Cluster>, RedisJournal) {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let cluster = shared(&SHARED, || Cluster::start(3, 0, &[]).map(Some)).expect("the installed one is here");
    let journal = apart(&cluster).await;
    (cluster, journal)
}

/// The same of another program, where it is found.
pub(crate) async fn other_cluster(program: Program) -> Option<(Arc<Cluster>, RedisJournal)> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let cluster = shared(&SHARED, || Cluster::start_other(program, 3, 0, &[]))?;
    let journal = apart(&cluster).await;
    Some((cluster, journal))
}

fn shared(cluster: &Mutex<Weak<Cluster>>, start: impl FnOnce() -> io::Result<Option<Cluster>>) -> Option<Arc<Cluster>> {
    let mut shared = cluster.lock().expect("the lock");
    if let Some(cluster) = shared.upgrade() {
        return Some(cluster);
    }
    let cluster = Arc::new(start().expect("a cluster")?);
    *shared = Arc::downgrade(&cluster);
    Some(cluster)
}

/// A journal with keys of its own.
async fn apart(cluster: &Cluster) -> RedisJournal {
    let prefix = format!("test-{}", Incarnation::random());
    let options = RedisOptions { prefix, shards: Some(SHARDS), ..RedisOptions::default() };
    let journal = RedisJournal::connect(&cluster.url(), options).await.expect("journal");
    settle(&journal).await;
    journal
}

/// All shards have their home here, as after a first claim; nobody owns them.
pub(crate) async fn settle(journal: &impl Journal) {
    for other in 1..HOME {
        journal.timeline(&format!("an earlier host, {other}")).await.expect("timeline");
    }
    for shard in (0..SHARDS).map(ShardId) {
        let claimed = journal
            .claim(shard, None, Incarnation::random(), lasthit::internals::clock::unix_ms(), &Homing::moves_from(None))
            .await;
        let Ok(Leased::Done(lease)) = claimed else { panic!("{claimed:?}") };
        assert_eq!(lease.home, HOME);
        journal.release(shard, lease).await.expect("release");
    }
}

/// The nth room of a shard.
pub(crate) fn room_of(shard: ShardId, n: usize) -> RoomId {
    let names = (0..).map(|i| RoomId::new(&format!("room-{i}")).expect("name"));
    names.filter(|room| ShardId::of(room, SHARDS) == shard).nth(n).expect("endless")
}

pub(crate) fn room(n: usize) -> RoomId {
    room_of(SHARD, n)
}

/// Moments beyond 2^53 ns: as doubles, neighbours would be equal.
pub(crate) fn at(ns: u64) -> Moment {
    Moment { timeline: HOME, ns: (1 << 60) + ns }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn entry(room: RoomId, top: Moment, text: &str) -> FlushEntry {
    FlushEntry { room, top, bytes: bytes(text) }
}

pub(crate) fn head(room: RoomId, era: u64, seq: u64, top: Moment) -> RoomHead {
    RoomHead { room, era, seq, top }
}

/// A gateway that keeps its own count.
pub(crate) struct TestGateway {
    pub(crate) incarnation: Incarnation,
    pub(crate) server: Incarnation,
    shard: ShardId,
    pub(crate) number: u64,
    pub(crate) watermark: Moment,
}

impl TestGateway {
    pub(crate) async fn register(journal: &impl Journal) -> Self {
        Self::register_in(journal, SHARD).await
    }

    pub(crate) async fn register_in(journal: &impl Journal, shard: ShardId) -> Self {
        // What is the process's must not be named by its turn.
        let incarnation = Incarnation::random().turn(1);
        let register = async || journal.register(shard, incarnation, Seen::default(), &[]).await.expect("register");
        let answer = match register().await {
            Homed::Here(answer) => answer,
            Homed::Elsewhere(_) => {
                settle(journal).await;
                register().await.here().expect("its home")
            }
        };
        let Registered { server, record, rooms, renewed, .. } = answer;
        assert_eq!(record, GatewayRecord { incarnation, number: 0, watermark: Moment::default(), fenced: false, server });
        assert_eq!((rooms, renewed), (vec![], 0));
        Self { incarnation, server, shard, number: 0, watermark: Moment::default() }
    }

    /// The next flush, not sent yet.
    pub(crate) fn flush(&self, watermark: Moment, entries: Vec<FlushEntry>) -> Flush {
        let Self { incarnation, server, shard, number, watermark: previous } = *self;
        Flush { shard, server, incarnation, number: number + 1, previous, watermark, entries }
    }

    /// Sends the next flush and expects it to be stored.
    pub(crate) async fn append(&mut self, journal: &impl Journal, watermark: Moment, entries: Vec<FlushEntry>) -> Vec<RoomHead> {
        let flush = self.flush(watermark, entries);
        // As gateways do: on a busy machine replicas may take longer than one try waits for them.
        let insist = async {
            loop {
                match journal.append(&flush).await {
                    Err(JournalError::Unreachable(_) | JournalError::Silent(_)) => {}
                    answer => return answer.expect("append"),
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, insist).await.expect("an answer");
        let Appended::Stored(heads) = answer else { panic!("{answer:?}") };
        self.number += 1;
        self.watermark = watermark;
        heads
    }

    /// Appends one entry to one room, at the moment after the last watermark.
    pub(crate) async fn write(&mut self, journal: &impl Journal, room: RoomId, text: &str) -> StreamId {
        let top = if self.number == 0 { at(1) } else { self.watermark.plus(1) };
        self.append(journal, top, vec![entry(room.clone(), top, text)]).await;
        last(journal, &room).await
    }
}

/// The position of a room's last entry.
pub(crate) async fn last(journal: &impl Journal, room: &RoomId) -> StreamId {
    read(journal, room, StreamId::default()).await.expect("read").last().expect("an entry").0
}

/// Everything of a room: in one page, and the same in many.
pub(crate) async fn load(journal: &dyn Journal, room: &RoomId) -> Result<StoredRoom, JournalError> {
    let stored = pages::load(journal, room, PageSize::default()).await?;
    for (bytes, entries) in [(1, 1), (20, 3), (1 << 20, 2)] {
        let paged = pages::load(journal, room, PageSize { bytes, entries }).await?;
        assert_eq!(paged, stored, "{room} in pages of {bytes} bytes and {entries} entries");
    }
    Ok(stored)
}

/// A room's entries behind a position.
pub(crate) async fn read(journal: &dyn Journal, room: &RoomId, after: StreamId) -> Result<Vec<(StreamId, Bytes)>, JournalError> {
    pages::entries(journal, room, after, PageSize { entries: 100, ..PageSize::default() }).await
}

/// The key of a shard.
pub(crate) fn key_of(shard: ShardId, name: &str) -> String {
    shard_key(shard, SHARDS, name)
}

/// The key of [`SHARD`].
pub(crate) fn key(name: &str) -> String {
    key_of(SHARD, name)
}

pub(crate) fn tell(server: &RedisServer, command: &[&str]) {
    server.ask::<()>(command).expect("command");
}

pub(crate) async fn claim(journal: &impl Journal) -> Lease {
    let from = journal.owners().await.expect("owners")[usize::from(SHARD.0)].lease;
    match journal
        .claim(SHARD, from, Incarnation::random(), lasthit::internals::clock::unix_ms(), &Homing::default())
        .await
        .expect("claim")
    {
        Leased::Done(lease) => lease,
        Leased::Lost => panic!("nobody else claims"),
    }
}

pub(crate) fn part(room: RoomId, era: u64, from: u64, to: u64, cursor: StreamId) -> RoomCommit {
    let verdicts = if to > from { bytes(&format!("verdicts to {to}")) } else { Bytes::new() };
    RoomCommit {
        room,
        era,
        from,
        to,
        verdicts,
        cursor,
        snapshot: None,
        trim: None,
        trims: None,
        gateways: None,
        due: None,
        program: None,
        failed: None,
    }
}

pub(crate) fn commit(lease: Lease, number: u64, rooms: Vec<RoomCommit>) -> Commit {
    Commit { shard: SHARD, lease, number, rooms, pushes: Vec::new() }
}

/// Hears every bell of every shard while a scenario is played.
pub(crate) struct Listener(Signals<Bell>);

impl Listener {
    pub(crate) async fn to(journal: &impl Journal) -> Self {
        let shards: Vec<ShardId> = (0..journal.shards()).map(ShardId).collect();
        let mut bells = journal.bells(&shards).await.expect("bells");
        subscribed(&mut bells).await;
        Self(bells)
    }

    /// Fails when one could not be read: a subscription announces that it missed something then.
    pub(crate) async fn read_all(mut self, journal: &impl Journal) {
        let mut last = TestGateway::register(journal).await;
        last.append(journal, at(1), vec![]).await;
        while message(&mut self.0).await.incarnation != last.incarnation {}
    }
}

/// The next signal; the scenario fails when none comes.
pub(crate) async fn signal<T>(signals: &mut Signals<T>) -> Signal<T> {
    tokio::time::timeout(PATIENCE, signals.recv()).await.expect("a signal in time").expect("an open subscription")
}

/// The next message; the scenario fails on anything else.
pub(crate) async fn message<T>(signals: &mut Signals<T>) -> T {
    match signal(signals).await {
        Signal::Message(message) => message,
        Signal::Subscribed => panic!("a message was expected, not another subscription"),
    }
}

pub(crate) async fn subscribed<T>(signals: &mut Signals<T>) {
    assert!(matches!(signal(signals).await, Signal::Subscribed));
}

/// Asks until it is so.
pub(crate) async fn until(mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not come to be so");
}
