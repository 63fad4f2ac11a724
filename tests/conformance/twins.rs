//! Both journals side by side: the same random steps, right and wrong ones, get the same answers.

use lasthit::journal::memory::MemoryJournal;
use lasthit::journal::{
    Commit, CommitSnapshot, CommonJournal as _, Flush, Homing, Journal, Lease, RoomCommit, Seen, Survey, WorkerJournal as _,
};
use lasthit::types::{Incarnation, RoomId, ShardId, StreamId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::fixture::{self, HOME, SHARD, SHARDS, at, bytes, entry, load, message, part, read, room, subscribed};

const GATEWAYS: u128 = 8;
const ROOMS: usize = 4;
const STEPS: usize = 400;
/// In the year 2255.
const FAR_MS: u64 = 9_000_000_000_000;

/// A step with nothing in it that only one journal knows: positions are counts of a room's entries.
#[derive(Debug)]
enum Step {
    Register(Incarnation),
    Append(Flush),
    Claim(Option<Lease>, Incarnation),
    Release(Lease),
    Fence(Lease, Incarnation),
    Death(Lease, Incarnation, RoomId, u64),
    Commit(Commit, Vec<usize>),
    End(Lease, RoomId, u64),
    Verdicts(RoomId, u64, usize),
}

async fn position(journal: &dyn Journal, room: &RoomId, count: usize) -> StreamId {
    let entries = read(journal, room, StreamId::default()).await.expect("read");
    count.checked_sub(1).and_then(|index| entries.get(index)).map_or(StreamId::default(), |(id, _)| *id)
}

/// The same step, bound to this journal's server, which neither answer names.
async fn take(journal: &dyn Journal, step: &Step) -> String {
    let server = journal.survey(SHARD, false).await.expect("survey").server;
    let bound = |lease: &Lease| Lease { server, ..*lease };
    let answer = match step {
        Step::Register(gateway) => format!("{:?}", journal.register(SHARD, *gateway, Seen::default(), &[]).await),
        Step::Append(flush) => format!("{:?}", journal.append(&Flush { server, ..flush.clone() }).await),
        Step::Claim(from, worker) => {
            format!(
                "{:?}",
                journal
                    .claim(SHARD, from.as_ref().map(bound), *worker, lasthit::internals::clock::unix_ms(), &Homing::default())
                    .await
            )
        }
        Step::Release(lease) => format!("{:?}", journal.release(SHARD, bound(lease)).await),
        Step::Fence(lease, gateway) => format!("{:?}", journal.fence(SHARD, bound(lease), *gateway).await),
        Step::Death(lease, gateway, room, ns) => {
            format!("{:?}", journal.death(SHARD, bound(lease), *gateway, &entry(room.clone(), at(*ns), "death")).await)
        }
        Step::Commit(commit, counts) => {
            let mut commit = Commit { lease: bound(&commit.lease), ..commit.clone() };
            for (part, count) in commit.rooms.iter_mut().zip(counts) {
                part.cursor = position(journal, &part.room, *count).await;
            }
            format!("{:?}", journal.commit(&commit).await)
        }
        Step::End(lease, room, seq) => format!("{:?}", journal.end_room(SHARD, bound(lease), room, *seq).await),
        Step::Verdicts(room, seq, max) => format!("{:?}", journal.verdicts(room, *seq, *max).await),
    };
    answer.replace(&format!("server: {server:?}"), "server")
}

/// All that a journal tells of its shard, with positions as counts.
async fn view(journal: &dyn Journal) -> String {
    let survey = journal.survey(SHARD, true).await.expect("survey");
    let server = format!("server: {:?}", survey.server);
    let mut text = format!("{survey:?}\n{:?}\n", journal.owners().await).replace(&server, "server");
    for n in 0..ROOMS {
        let entries = read(journal, &room(n), StreamId::default()).await.expect("read");
        let count = |id: StreamId| entries.iter().filter(|(entry, _)| *entry <= id).count();
        let stored = load(journal, &room(n)).await.expect("load");
        let after: Vec<_> = stored.entries.iter().map(|(id, bytes)| (count(*id), bytes)).collect();
        let snapshot = stored.snapshot.map(|s| (s.seq, count(s.cursor), s.bytes));
        let head = (stored.era, stored.seq, count(stored.cursor), stored.deaths);
        text.push_str(&format!("{n}: {head:?} {snapshot:?} {:?} {after:?}\n", stored.verdicts));
    }
    text
}

/// Mostly what is right as the shard stands, sometimes beside it.
fn next(rng: &mut StdRng, survey: &Survey, owner: Option<Lease>, lengths: &[usize], tick: u64) -> Step {
    let gateway = Incarnation(rng.random_range(1..=GATEWAYS));
    let name = room(rng.random_range(0..ROOMS));
    let head = survey.rooms.iter().find(|head| head.room == name);
    let off = |rng: &mut StdRng, right: u64| match rng.random_range(0..12) {
        0 => right.saturating_sub(1),
        1 => right + 1,
        _ => right,
    };
    let some_lease = owner.unwrap_or(Lease { epoch: 1, owner: Incarnation(100), server: Incarnation::NONE, home: HOME });
    let lease = Lease { epoch: off(rng, some_lease.epoch), ..some_lease };
    match rng.random_range(0..20) {
        0 => Step::Register(gateway),
        1..=7 => {
            let record = survey.gateways.iter().find(|record| record.incarnation == gateway);
            let (stored, previous) = record.map_or((0, at(0)), |record| (record.number, record.watermark));
            let previous = if rng.random_bool(0.1) { at(tick) } else { previous };
            let watermark = at(tick + 2);
            let entries = (0..ROOMS).filter(|_| rng.random_bool(0.4)).map(room);
            let entries = entries.map(|room| entry(room, at(tick + 1), &format!("entry {tick}"))).collect();
            Step::Append(Flush {
                shard: SHARD,
                server: Incarnation::NONE,
                incarnation: gateway,
                number: off(rng, stored + 1),
                previous,
                watermark,
                entries,
            })
        }
        8 => Step::Claim(if rng.random_bool(0.8) { owner } else { None }, Incarnation(rng.random_range(101..103))),
        9 if rng.random_bool(0.3) => Step::Release(lease),
        10 if rng.random_bool(0.2) => Step::Fence(lease, gateway),
        11 => Step::Death(lease, gateway, name, tick),
        12 | 13 => Step::End(lease, name, off(rng, head.map_or(0, |head| head.seq))),
        14 => Step::Verdicts(name, rng.random_range(0..6), rng.random_range(0..4)),
        _ => {
            let chosen: Vec<_> = (0..ROOMS).filter(|_| rng.random_bool(0.5)).collect();
            let mut counts = Vec::new();
            let parts = chosen.iter().map(|n| {
                let head = survey.rooms.iter().find(|head| head.room == room(*n));
                let (era, seq) = head.map_or((1, 0), |head| (head.era, head.seq));
                let from = if rng.random_bool(0.97) { seq } else { seq + 1 };
                counts.push(*[lengths[*n], rng.random_range(0..=lengths[*n])].choose(rng).expect("two"));
                let to = from + rng.random_range(0..3);
                let snapshot = rng.random_bool(0.3).then(|| CommitSnapshot::Whole(bytes(&format!("state {tick}"))));
                // Long past, or far ahead: the twins read two clocks.
                let due = match rng.random_range(0..4) {
                    0 => Some(None),
                    1 => Some(Some(tick / 6)),
                    2 => Some(Some(FAR_MS + tick / 6)),
                    _ => None,
                };
                RoomCommit { snapshot, due, ..part(room(*n), era, from, to, StreamId::default()) }
            });
            let parts = parts.collect();
            let pushes = vec![(gateway, bytes(&format!("push {tick}")))];
            Step::Commit(Commit { shard: SHARD, lease, number: off(rng, survey.commit + 1), rooms: parts, pushes }, counts)
        }
    }
}

async fn play(seed: u64) {
    let memory = MemoryJournal::new(SHARDS);
    fixture::settle(&memory).await;
    let (_server, redis) = fixture::redis().await;
    let twins: [&dyn Journal; 2] = [&memory, &redis];
    let mut bells = [memory.bells(&[SHARD]).await.expect("bells"), redis.bells(&[SHARD]).await.expect("bells")];
    let mut pushes = [memory.pushes(Incarnation(1)).await.expect("pushes"), redis.pushes(Incarnation(1)).await.expect("pushes")];
    for n in 0..2 {
        subscribed(&mut bells[n]).await;
        subscribed(&mut pushes[n]).await;
        // Only a gateway that has registered hears of its shard.
        twins[n].register(SHARD, Incarnation(1), Seen::default(), &[]).await.expect("register");
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut done = 0;
    for tick in (10..).step_by(3).take(STEPS) {
        let survey = memory.survey(SHARD, true).await.expect("survey");
        let owner = memory.owners().await.expect("owners")[usize::from(SHARD.0)].lease;
        let mut lengths = Vec::new();
        for n in 0..ROOMS {
            lengths.push(read(&memory, &room(n), StreamId::default()).await.expect("read").len());
        }
        let step = next(&mut rng, &survey, owner, &lengths, tick);
        let answers = [take(twins[0], &step).await, take(twins[1], &step).await];
        assert_eq!(answers[0], answers[1], "seed {seed}, {step:?}");
        assert_eq!(view(twins[0]).await, view(twins[1]).await, "seed {seed}, {step:?}");
        done += usize::from(answers[0] == "Ok(Done)");
    }
    assert!(done > STEPS / 50, "seed {seed}: {done} commits went through, too few to mean anything");

    for gateway in twins {
        assert_eq!(gateway.publish(None, Incarnation(1), bytes("end")).await.expect("publish"), 1);
    }
    loop {
        let pair = [message(&mut pushes[0]).await, message(&mut pushes[1]).await];
        assert_eq!(pair[0], pair[1], "seed {seed}");
        if pair[0] == "end" {
            break;
        }
    }
    for append in 1..=memory.survey(SHARD, false).await.expect("survey").append {
        let mut pair = [message(&mut bells[0]).await, message(&mut bells[1]).await];
        pair.iter_mut().flat_map(|bell| &mut bell.entries).for_each(|(_, id, _)| *id = StreamId::default());
        assert_eq!(pair[0], pair[1], "seed {seed}");
        assert_eq!((pair[0].shard, pair[0].append), (ShardId(SHARD.0), append), "seed {seed}");
    }
}

#[tokio::test]
async fn the_same_steps_get_the_same_answers() {
    for seed in 0..6 {
        play(seed).await;
    }
}
