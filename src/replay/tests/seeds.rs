//! A room's random numbers come from the seed that it was created with: for the worker that takes it over, and for a replay.

use super::{answered, dump};
use crate::embed::{Gateway, Joining, Seat, act};
use crate::journal::Journal;
use crate::journal::redis::{RedisJournal, RedisOptions, shard_key};
use crate::replay::Recording;
use crate::rules::{Decision, Facts, Happening, Rules, RulesBook, What};
use crate::types::{Role, RoomId, RoomTime, Seed, ShardId};
use crate::worker::{self, WorkerOptions};
use servers::RedisServer;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct Dice;

impl Rules for Dice {
    fn name(&self) -> &'static str {
        "dice"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        match event.what {
            What::Data(_) => Decision::granted().body(&event.facts.random(7)),
            _ => Decision::granted(),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

fn book() -> RulesBook {
    RulesBook::new().room("*", || Dice)
}

async fn thrown(seat: &mut Seat, ids: std::ops::Range<u32>) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for id in ids.map(|n| n.to_string()) {
        seat.arrive(&act("throw", &id)).expect("accepted");
        let verdict = answered(seat, &id).await;
        all.push((verdict.seq, rmp_serde::from_slice(&verdict.body.expect("a number")).expect("a number")));
    }
    all
}

#[tokio::test]
async fn a_room_without_a_snapshot_keeps_its_random_numbers() {
    let redis = RedisServer::start().expect("redis-server");
    let options = RedisOptions { shards: Some(1), ..RedisOptions::default() };
    let journal: Arc<dyn Journal> = Arc::new(RedisJournal::connect(&redis.url(), options).await.expect("journal"));
    let gateway = Gateway::start(journal.clone()).await.expect("gateway");
    let rooms = ["dice-1", "dice-2"].map(|room| room.parse::<RoomId>().expect("room"));
    let mut seats = rooms.clone().map(|room| {
        let joining = Joining { room, player: "ann".parse().expect("player"), role: Role::Player, since: None };
        gateway.join(joining).expect("join")
    });
    let mut numbers = [Vec::new(), Vec::new()];
    for owner in 0..2 {
        let stop = CancellationToken::new();
        let (options, stopped) = (WorkerOptions::default(), stop.clone());
        let worker = tokio::spawn(worker::run(journal.clone(), book(), options, stopped, Default::default()));
        for (seat, numbers) in seats.iter_mut().zip(&mut numbers) {
            numbers.extend(thrown(seat, owner * 5..owner * 5 + 5).await);
        }
        stop.cancel();
        worker.await.expect("a worker").expect("stopped");
    }

    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("dice.dump");
    let mut recordings = Vec::new();
    for (room, numbers) in rooms.iter().zip(&numbers) {
        let recording = Recording::read(&*journal, room).await.expect("a recording");
        assert_eq!(recording.snapshot, None);
        let seed = recording.seed.expect("a seed");
        for (seq, number) in numbers {
            assert_eq!(*number, Facts::new(RoomTime::UNKNOWN, *seq, seed.of(room)).random(7), "{room}: verdict {seq}");
        }
        dump::write(&recording, &path).expect("written");
        let read = dump::read(&path).expect("a dump");
        assert_eq!(read, recording);
        assert_eq!(read.resolve(&book()).expect("resolved").deviations, Vec::<String>::new());
        let other = Recording { seed: Some(Seed(seed.0 ^ 1)), ..recording.clone() };
        assert_eq!(other.resolve(&book()).expect("resolved").deviations.len(), 10);
        recordings.push(recording);
    }
    assert_ne!(numbers[0], numbers[1]);

    // A room of the version before has none.
    let key = |room: &RoomId| shard_key(ShardId(0), 1, &format!("state:{room}"));
    let _: u32 = redis.ask(&["HDEL", &key(&rooms[0]), "seed"]).expect("deleted");
    let without = Recording::read(&*journal, &rooms[0]).await.expect("a recording");
    assert_eq!(without, Recording { seed: None, ..recordings.remove(0) });
    for garbage in ["", "7", "0x1234567890123456789012345678901", &"g".repeat(32), &"0".repeat(33)] {
        let _: u32 = redis.ask(&["HSET", &key(&rooms[0]), "seed", garbage]).expect("set");
        let error = Recording::read(&*journal, &rooms[0]).await.expect_err("damaged").to_string();
        assert!(error.contains("a seed that is not 32 hexadecimal digits"), "{error}");
    }
}
