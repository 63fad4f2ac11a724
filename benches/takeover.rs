//! A worker takes over a shard with the largest room in it, beside small rooms that wait for it too: how long each is without
//! a worker, what the small ones notice of the large one, and how long Redis was busy with one script. Then the same room is
//! replayed as `lasthit replay` does. Needs a Redis; there is one on a Unix socket for it.
//!
//!     cargo bench --bench takeover                      # LASTHIT_PLAYERS, LASTHIT_IDS (of each), LASTHIT_EVENTS behind them

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lasthit::embed::{Delivery, Gateway, Joining, Seat, act};
use lasthit::internals::engine::{Resequencer, Room};
use lasthit::internals::limits::{CONTESTS_PER_ROOM_MAX, SNAPSHOT_EVENTS_MAX, SNAPSHOT_PART_BYTES};
use lasthit::internals::replay::Recording;
use lasthit::internals::wire::{action, entry, verdicts};
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{
    AheadName, AheadPart, Appended, Commit, CommitSnapshot, Committed, Flush, FlushEntry, Homing, Journal, Lease, Leased,
    PageSize, RoomCommit, Seen, Witness, pages,
};
use lasthit::rules::{Claim, RulesBook};
use lasthit::types::{
    Action, Arrival, Audience, Entry, Event, EventKind, Incarnation, Moment, Role, RoomId, ShardId, StreamId, VerdictBatch,
};
use lasthit::worker::{self, WorkerOptions};
use quanta::Instant;
use servers::RedisServer;
use tokio_util::sync::CancellationToken;

const SHARD: ShardId = ShardId(0);
const SMALL_ROOMS: usize = 32;
const PACE: Duration = Duration::from_millis(5);

fn setting(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn book() -> RulesBook {
    RulesBook::new().room("*", || Claim::new(Audience::Session))
}

fn moment(n: u64) -> Moment {
    Moment { timeline: 1, ns: 1_000_000 + n * 100 }
}

/// The room as its worker and its gateway left it.
struct Scene {
    journal: Arc<dyn Journal>,
    name: RoomId,
    gateway: Incarnation,
    lease: Lease,
    hold: Resequencer,
    room: Room,
    /// Events so far.
    count: u64,
    flushes: u64,
    watermark: Moment,
    commits: u64,
}

impl Scene {
    async fn new(journal: Arc<dyn Journal>, name: &str) -> Self {
        let name: RoomId = name.parse().expect("name");
        let gateway = Incarnation::random();
        let from = journal.owners().await.expect("owners")[0].lease;
        let Leased::Done(lease) = journal
            .claim(SHARD, from, Incarnation::random(), lasthit::internals::clock::unix_ms(), &Homing::default())
            .await
            .expect("claimed")
        else {
            panic!("lost")
        };
        journal.register(SHARD, gateway, Seen::default(), &[]).await.expect("registered").here().expect("its home");
        // Nobody owned the shard before: no commit is missing.
        let witness = Witness { server: Incarnation::NONE, epoch: Some(0), confirmed: 0, sent: 0 };
        journal.testify(SHARD, witness).await.expect("testified");
        let survey = journal.survey(SHARD, false).await.expect("survey");
        assert_eq!(survey.doubt, None);
        let commits = survey.commit;
        // The shard's first room.
        let room = Room::new(1, Box::new(Claim::new(Audience::Session)));
        let (hold, watermark) = (Resequencer::default(), Moment::default());
        Self { journal, name, gateway, lease, hold, room, count: 0, flushes: 0, watermark, commits }
    }

    fn entry(&mut self, kinds: Vec<(u64, EventKind)>) -> Entry {
        let mut events = Vec::with_capacity(kinds.len());
        for (session, kind) in kinds {
            self.count += 1;
            events.push(Event { session, ordinal: self.count, arrival: Arrival::at(moment(self.count).ns, 2_000), kind });
        }
        Entry { incarnation: self.gateway, timeline: 1, death: false, events }
    }

    fn resolve(&mut self, at: StreamId, entry: &Entry) -> VerdictBatch {
        self.hold.read(at, entry, Moment::default(), 0);
        let held = self.hold.release(usize::MAX, |_| Moment { timeline: 1, ns: u64::MAX });
        VerdictBatch {
            era: 1,
            epoch: None,
            decided: None,
            verdicts: held.iter().map(|held| self.room.resolve(held, None)).collect(),
        }
    }

    async fn append(&mut self, entry: &Entry) {
        self.flushes += 1;
        let top = moment(self.count);
        let one = FlushEntry { room: self.name.clone(), top, bytes: entry::encode(entry) };
        let (incarnation, number, previous) = (self.gateway, self.flushes, self.watermark);
        let server = self.lease.server;
        let flush = Flush { shard: SHARD, server, incarnation, number, previous, watermark: top, entries: vec![one] };
        assert!(matches!(self.journal.append(&flush).await.expect("appended"), Appended::Stored(_)));
        self.watermark = top;
    }

    async fn commit(&mut self, from: u64, batch: &VerdictBatch, cursor: StreamId, snapshot: Option<CommitSnapshot>) {
        self.commits += 1;
        let (room, to) = (self.name.clone(), self.room.seq());
        let verdicts = if to > from { verdicts::encode(batch) } else { Bytes::new() };
        let part = RoomCommit {
            room,
            era: 1,
            from,
            to,
            verdicts,
            cursor,
            snapshot,
            trim: None,
            trims: None,
            gateways: None,
            due: None,
            program: None,
            failed: None,
        };
        let (lease, number) = (self.lease, self.commits);
        let commit = Commit { shard: SHARD, lease, number, rooms: vec![part], pushes: Vec::new() };
        assert_eq!(self.journal.commit(&commit).await.expect("committed"), Committed::Done);
    }

    fn claim(&self, session: u64) -> (u64, EventKind) {
        let (id, contest) =
            (format!("a-{:08}", self.count), Some(format!("contest-{}", self.count % CONTESTS_PER_ROOM_MAX as u64)));
        let args = Bytes::from_static(&[0xc0]);
        (
            session,
            EventKind::Data(action::encode(&Action { op: "claim".to_owned(), id, contest, player: None, seen: None, args })),
        )
    }

    /// Fills the room's memory: its snapshot's bytes.
    async fn fill(&mut self, players: u64, ids: u64) -> usize {
        let open = |n: u64| (n, EventKind::Open { player: format!("player-{n}").parse().expect("name"), role: Role::Player });
        let opens = self.entry((0..players).map(open).collect());
        self.append(&opens).await;
        let behind = StreamId::default();
        let cursor = pages::entries(&*self.journal, &self.name, behind, PageSize::default()).await.expect("read")[0].0;
        let mut last = self.resolve(cursor, &opens);
        for _ in 0..ids {
            let kinds = (0..players).map(|n| self.claim(n)).collect();
            let entry = self.entry(kinds);
            last = self.resolve(cursor, &entry);
        }
        last.verdicts = last.verdicts.split_off(last.verdicts.len() - 1);
        let (began, bytes) = (Instant::now(), self.room.snapshot());
        println!("snapshot of {:.1} MiB taken in {:.0?}", bytes.len() as f64 / f64::from(1 << 20), began.elapsed());
        let began = Instant::now();
        let name = AheadName { lane: 1, seq: self.room.seq() };
        let parts: Vec<_> = bytes.chunks(SNAPSHOT_PART_BYTES).map(Bytes::copy_from_slice).collect();
        let count = u32::try_from(parts.len()).expect("few");
        for (index, bytes) in (0..).zip(parts) {
            let part = AheadPart { name, era: 1, index, bytes };
            self.journal.write_ahead(SHARD, self.lease, &self.name, &part).await.expect("written");
        }
        println!("{count} parts written ahead in {:.0?}", began.elapsed());
        self.commit(0, &last, cursor, Some(CommitSnapshot::Parts { name, cursor, count })).await;
        bytes.len()
    }

    /// One entry and one batch of verdicts an event; then everybody leaves.
    async fn play(&mut self, players: u64, events: u64) {
        for n in 0..events {
            let kind = self.claim(n % players);
            self.step(vec![kind]).await;
        }
        self.step((0..players).map(|n| (n, EventKind::Close)).collect()).await;
        let behind = StreamId::default();
        let all = pages::entries(&*self.journal, &self.name, behind, PageSize::default()).await.expect("read");
        let (nothing, seq) = (VerdictBatch { era: 1, epoch: None, decided: None, verdicts: Vec::new() }, self.room.seq());
        self.commit(seq, &nothing, all.last().expect("an entry").0, None).await;
        self.journal.release(SHARD, self.lease).await.expect("released");
    }

    async fn step(&mut self, kinds: Vec<(u64, EventKind)>) {
        let (entry, from) = (self.entry(kinds), self.room.seq());
        self.append(&entry).await;
        let batch = self.resolve(StreamId::default(), &entry);
        // Where the cursor lies matters at the end only.
        self.commit(from, &batch, StreamId::default(), None).await;
    }
}

async fn heard(seat: &mut Seat, is_it: impl Fn(&Delivery) -> bool) {
    loop {
        let delivery = tokio::time::timeout(Duration::from_secs(60), seat.recv()).await.expect("in time").expect("open");
        assert!(!matches!(delivery, Delivery::Close { .. }), "{delivery:?}");
        if is_it(&delivery) {
            return;
        }
    }
}

fn join(gateway: &Gateway, room: &str) -> Seat {
    let joining =
        Joining { room: room.parse().expect("name"), player: "visitor".parse().expect("name"), role: Role::Player, since: None };
    gateway.join(joining).expect("joined")
}

/// Takes the shard over: until the rooms are welcomed again, and how long small ones wait for a verdict until the last is.
async fn take_over(redis: &RedisServer, journal: Arc<dyn Journal>, large: Option<&str>) {
    for setting in [["slowlog-log-slower-than", "500"], ["slowlog-max-len", "100000"]] {
        redis.ask::<String>(&["CONFIG", "SET", setting[0], setting[1]]).expect("set");
    }
    redis.ask::<String>(&["SLOWLOG", "RESET"]).expect("reset");
    let gateway = Gateway::start(journal.clone()).await.expect("gateway");
    let mut big = large.map(|room| join(&gateway, room));
    let seats: Vec<Seat> = (0..SMALL_ROOMS).map(|n| join(&gateway, &format!("small-{n}"))).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    let (worker_stop, worker_journal) = (stop.clone(), journal.clone());
    let began = Instant::now();
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let work = worker::run(worker_journal, book(), WorkerOptions::default(), worker_stop, Default::default());
        runtime.block_on(work).expect("worker");
    });
    let mut players = Vec::new();
    for mut seat in seats {
        let over = over.clone();
        players.push(tokio::spawn(async move {
            heard(&mut seat, |delivery| matches!(delivery, Delivery::Welcome(_))).await;
            let (welcomed, mut waits) = (began.elapsed(), Vec::new());
            for n in 0.. {
                if over.is_cancelled() {
                    break;
                }
                let (id, sent) = (format!("v{n}"), Instant::now());
                seat.arrive(&act("claim", &id).contest("k")).expect("accepted");
                let answers =
                    |d: &Delivery| matches!(d, Delivery::Verdict { frames, .. } if frames.verdict().id.as_deref() == Some(&id));
                heard(&mut seat, answers).await;
                waits.push(sent.elapsed());
                tokio::time::sleep(PACE).await;
            }
            (welcomed, waits)
        }));
    }
    match &mut big {
        Some(seat) => {
            heard(seat, |delivery| matches!(delivery, Delivery::Welcome(_))).await;
            println!("  the large room: welcomed {:.0?} after the worker began", began.elapsed());
        }
        None => tokio::time::sleep(Duration::from_secs(2)).await,
    }
    over.cancel();
    let (mut welcomed, mut waits) = (Duration::ZERO, Vec::new());
    for player in players {
        let (when, mut more) = player.await.expect("a player");
        welcomed = welcomed.max(when);
        waits.append(&mut more);
    }
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
    let many = waits.len();
    println!("  {SMALL_ROOMS} small rooms: the last one welcomed {welcomed:.0?} after the worker began");
    println!(
        "    then, until the large room was, {many} actions: verdict in {:.1?} p50, {:.1?} p99, {:.1?} at most",
        at(500),
        at(990),
        at(1000)
    );
    let redis::Value::Array(slow) = redis.ask(&["SLOWLOG", "GET", "100000"]).expect("slow log") else { panic!("a list") };
    let slow: Vec<(i64, String)> = slow.iter().filter_map(took).collect();
    match slow.iter().max() {
        Some((us, words)) => println!("    Redis: {} commands above 500 µs, the longest {us} µs: {words}", slow.len()),
        None => println!("    Redis: no command above 500 µs"),
    }
    stop.cancel();
    tokio::task::spawn_blocking(move || worker.join().expect("worker")).await.expect("joined");
    drop(big);
}

/// An entry of the slow log: its microseconds, and how the command begins.
fn took(entry: &redis::Value) -> Option<(i64, String)> {
    let redis::Value::Array(fields) = entry else { return None };
    let (redis::Value::Int(us), redis::Value::Array(words)) = (fields.get(2)?, fields.get(3)?) else { return None };
    let word = |word: &redis::Value| {
        if let redis::Value::BulkString(bytes) = word { String::from_utf8_lossy(bytes).into_owned() } else { String::new() }
    };
    Some((*us, words.iter().take(4).map(word).collect::<Vec<_>>().join(" ")))
}

async fn bench() {
    let Ok(redis) = RedisServer::start() else {
        println!("no redis-server here: left out");
        return;
    };
    let options = RedisOptions { shards: Some(1), ..RedisOptions::default() };
    let journal: Arc<dyn Journal> = Arc::new(RedisJournal::connect(&redis.url(), options).await.expect("journal"));
    let (players, ids) = (setting("LASTHIT_PLAYERS", 4096), setting("LASTHIT_IDS", 128));
    let events = setting("LASTHIT_EVENTS", SNAPSHOT_EVENTS_MAX);
    let mut scene = Scene::new(journal.clone(), "large").await;
    scene.fill(players, ids).await;
    scene.play(players, events).await;
    drop(scene);
    println!("{players} players with {ids} ids each, and {events} events behind the snapshot, an entry and a batch each:");
    let began = Instant::now();
    let room: RoomId = "large".parse().expect("name");
    let stored = pages::load(&*journal, &room, PageSize::default()).await.expect("loaded");
    println!("  read in pages in {:.0?}: {} batches, {} entries", began.elapsed(), stored.verdicts.len(), stored.entries.len());
    drop(stored);
    take_over(&redis, journal.clone(), Some("large")).await;
    let began = Instant::now();
    let recording = Recording::read(&*journal, &room).await.expect("read");
    let (read, entries) = (began.elapsed(), recording.entries.len());
    let replayed = recording.resolve(&book()).expect("resolved");
    let (from, to, deviations) = (replayed.from, replayed.to, replayed.deviations.len());
    println!(
        "  replay: {entries} entries read in {read:.0?}, verdicts {from} to {to} resolved again, {deviations} deviations, {:.0?} in all",
        began.elapsed()
    );
    drop(redis);

    let redis = RedisServer::start().expect("redis");
    let options = RedisOptions { shards: Some(1), ..RedisOptions::default() };
    let journal: Arc<dyn Journal> = Arc::new(RedisJournal::connect(&redis.url(), options).await.expect("journal"));
    println!("the same without the large room, for 2 s:");
    take_over(&redis, journal, None).await;
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime").block_on(bench());
}
