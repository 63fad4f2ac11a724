//! Append and commit, on the memory journal and on a private Redis at each level of durability (skipped, and said so, where
//! there is none).
//!
//! A batch of N is one step: a flush with one event in each of N rooms, a commit with one verdict in each of N rooms.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::future::LocalBoxFuture;
use lasthit::internals::wire::{entry, push, verdicts};
use lasthit::journal::memory::MemoryJournal;
use lasthit::journal::redis::{Durability, RedisJournal, RedisOptions};
use lasthit::journal::{
    Appended, Commit, Committed, Flush, FlushEntry, Homing, Journal, Lease, Leased, PageSize, RoomCommit, Seen, pages,
};
use lasthit::types::{
    Arrival, Audience, Entry, Event, EventKind, Incarnation, Moment, PlayerId, RoomId, ShardId, Stamp, StreamId, Verdict,
    VerdictBatch, VerdictKind,
};
use quanta::Instant;
use servers::RedisServer;
use tokio::runtime::Runtime;

const SHARD: ShardId = ShardId(0);
const SHARDS: u16 = 1;

/// A journal with N rooms, a gateway and a worker, and how far they have come.
struct Scene {
    journal: Arc<dyn Journal>,
    rooms: Vec<RoomId>,
    gateway: Incarnation,
    lease: Lease,
    /// By room.
    eras: Vec<u64>,
    flushes: u64,
    commits: u64,
}

impl Scene {
    async fn new(journal: Arc<dyn Journal>, rooms: usize) -> Self {
        let rooms = (0..rooms).map(|n| RoomId::new(&format!("room-{n}")).expect("name")).collect();
        let (gateway, worker) = (Incarnation::random(), Incarnation::random());
        let from = journal.owners().await.expect("owners")[0].lease;
        let Leased::Done(lease) =
            journal.claim(SHARD, from, worker, lasthit::internals::clock::unix_ms(), &Homing::default()).await.expect("claimed")
        else {
            panic!("lost")
        };
        journal.register(SHARD, gateway, Seen::default(), &[]).await.expect("registered").here().expect("its home");
        let mut scene = Self { journal, rooms, gateway, lease, eras: Vec::new(), flushes: 0, commits: 0 };
        let Appended::Stored(heads) = scene.append().await else { panic!("first flush") };
        scene.eras = heads.iter().map(|head| head.era).collect();
        scene
    }

    fn moment(number: u64) -> Moment {
        Moment { timeline: 1, ns: number * 1_000 }
    }

    async fn append(&mut self) -> Appended {
        self.flushes += 1;
        let moment = Self::moment(self.flushes);
        let event = Event {
            session: 1,
            ordinal: self.flushes,
            arrival: Arrival::at(moment.ns, 2_000),
            kind: EventKind::Data(Bytes::from_static(&[0x55; 64])),
        };
        let one = Entry { incarnation: self.gateway, timeline: 1, death: false, events: vec![event] };
        let flush = Flush {
            shard: SHARD,
            server: self.lease.server,
            incarnation: self.gateway,
            number: self.flushes,
            previous: Self::moment(self.flushes - 1),
            watermark: moment,
            entries: self
                .rooms
                .iter()
                .map(|room| FlushEntry { room: room.clone(), top: moment, bytes: entry::encode(&one) })
                .collect(),
        };
        let flush = if self.flushes == 1 { Flush { previous: Moment::default(), ..flush } } else { flush };
        self.journal.append(&flush).await.expect("appended")
    }

    async fn commit(&mut self) -> Committed {
        self.commits += 1;
        let seq = self.commits;
        let verdict = Verdict {
            session: 1,
            player: Some(PlayerId::new("ann").expect("name")),
            id: Some("k3v9-1".to_owned()),
            contest: Some("baron".to_owned()),
            round: 1,
            uncertainty_ns: 2_000,
            audience: Audience::Session,
            ..Verdict::granted(
                seq,
                Stamp { moment: Self::moment(seq), incarnation: self.gateway, ordinal: seq },
                VerdictKind::Data,
            )
        };
        let encode = |era: &u64| {
            verdicts::encode(&VerdictBatch { era: *era, epoch: None, decided: None, verdicts: vec![verdict.clone()] })
        };
        let batches: Vec<Bytes> = self.eras.iter().map(encode).collect();
        let part = |i: usize| RoomCommit {
            room: self.rooms[i].clone(),
            era: self.eras[i],
            from: seq - 1,
            to: seq,
            verdicts: batches[i].clone(),
            cursor: StreamId { ms: seq, seq: 0 },
            snapshot: None,
            trim: None,
            trims: None,
            gateways: None,
            due: None,
            program: None,
            failed: None,
        };
        let pushed = self.rooms.iter().zip(&batches).map(|(room, batch)| (room, seq - 1, seq, batch));
        let commit = Commit {
            shard: SHARD,
            lease: self.lease,
            number: self.commits,
            rooms: (0..self.rooms.len()).map(part).collect(),
            pushes: vec![(self.gateway, push::encode_verdicts((SHARD, self.lease.server, self.commits), pushed))],
        };
        self.journal.commit(&commit).await.expect("committed")
    }

    /// What was written can be read, before any of it is timed.
    async fn check(&mut self) {
        assert!(matches!(self.append().await, Appended::Stored(heads) if heads.len() == self.rooms.len()));
        assert_eq!(self.commit().await, Committed::Done);
        for room in &self.rooms {
            let page = self.journal.verdicts(room, 0, 10).await.expect("page");
            assert_eq!((page.seq, page.batches.len()), (1, 1));
            let entries = pages::entries(&*self.journal, room, StreamId::default(), PageSize::default()).await;
            assert_eq!(entries.expect("entries").len(), 2);
        }
    }
}

/// A new, empty journal.
type Make<'a> = &'a dyn Fn() -> LocalBoxFuture<'a, Arc<dyn Journal>>;

/// Times steps in a scene of their own, so that no sample pays for what the others left.
fn journal(c: &mut Criterion, name: &str, runtime: &Runtime, make: Make<'_>) {
    let mut group = c.benchmark_group(format!("journal/{name}"));
    for rooms in [1, 16, 64] {
        runtime.block_on(async { Scene::new(make().await, rooms).await.check().await });
        group.throughput(Throughput::Elements(rooms as u64));
        group.bench_function(BenchmarkId::new("append", rooms), |b| {
            b.iter_custom(|count| {
                runtime.block_on(async {
                    let mut scene = Scene::new(make().await, rooms).await;
                    let began = Instant::now();
                    for _ in 0..count {
                        scene.append().await;
                    }
                    began.elapsed()
                })
            });
        });
        group.bench_function(BenchmarkId::new("commit", rooms), |b| {
            b.iter_custom(|count| {
                runtime.block_on(async {
                    let mut scene = Scene::new(make().await, rooms).await;
                    let began = Instant::now();
                    for _ in 0..count {
                        scene.commit().await;
                    }
                    began.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// A server that is set up for a level, and its replica.
fn servers(level: Durability) -> std::io::Result<Vec<RedisServer>> {
    Ok(match level {
        Durability::Redis => vec![RedisServer::start()?],
        Durability::Disk => vec![RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"])?],
        Durability::Replicated => {
            let server = RedisServer::start_tcp(&["--min-replicas-to-write", "1"])?;
            let replica = server.replica(&[])?;
            vec![server, replica]
        }
    })
}

fn main() {
    let mut c = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    c = c.sample_size(20).configure_from_args();
    let runtime = lasthit::internals::runtime::gateway(100, lasthit::internals::runtime::Priority::Normal).expect("runtime");
    journal(&mut c, "memory", &runtime, &|| Box::pin(async { Arc::new(MemoryJournal::new(SHARDS)) as Arc<dyn Journal> }));
    for (name, level) in Durability::NAMES {
        match servers(level) {
            Ok(servers) => journal(&mut c, name, &runtime, &|| {
                Box::pin(async {
                    let prefix = format!("b{:08x}", rand::random::<u32>());
                    let options = RedisOptions { prefix, shards: Some(SHARDS), durability: Some(level), runtime_dir: None };
                    Arc::new(RedisJournal::connect(&servers[0].url(), options).await.expect("connected")) as Arc<dyn Journal>
                })
            }),
            Err(error) => eprintln!("journal/{name} is left out: {error}"),
        }
    }
    c.final_summary();
}
