//! Rooms that the last version has left in Redis: a worker takes them over, a gateway resumes their players.

use std::sync::Arc;
use std::time::Duration;

use servers::RedisServer;
use tokio_util::sync::CancellationToken;

use super::answered;
use super::recorded::{book, recorded};
use crate::embed::{Delivery, Gateway, Joining, act};
use crate::journal::Journal;
use crate::journal::redis::{RedisJournal, RedisOptions};
use crate::replay::Recording;
use crate::types::{Audience, Incarnation, Moment, Outcome, Role, ShardId, Since, Verdict, VerdictKind};
use crate::wire::entry;
use crate::worker::{self, WorkerOptions};

const SHARDS: u16 = 2;

/// A journal whose deployment the last version has made.
async fn journal(server: &RedisServer) -> RedisJournal {
    let _: u32 =
        server.ask(&["HSET", "lasthit:deployment", "format", "3", "shards", "2", "durability", "redis"]).expect("a record");
    RedisJournal::connect(&server.url(), RedisOptions::default()).await.expect("journal")
}

/// Writes a room as the last version has left it: no seed, and on the timeline of a boot that is over. `met` is the journal's server:
/// no data was lost since.
fn left_behind(server: &RedisServer, met: Incarnation, recording: &Recording) {
    let mut pipeline = ::redis::pipe();
    let moments = recording.entries.iter().flat_map(|(_, bytes)| {
        let entry = entry::decode(bytes).expect("an entry");
        entry.events.into_iter().map(move |event| Moment { timeline: entry.timeline, ns: event.arrival.ns })
    });
    let top = moments.max().expect("an event");
    pipeline.hset("lasthit:timelines", "last", top.timeline).ignore();
    let shard = ShardId::of(&recording.room, SHARDS);
    let key = |name: &str| format!("lasthit:{{s{shard}}}:{name}");
    let of_room = |name: &str| format!("lasthit:{{s{shard}}}:{name}:{}", recording.room);
    let shift = recording.era - 1;
    let counts = [("append", 1_000), ("commit", 1_000), ("found", 1_000), ("epoch", 4), ("eras", 1), ("shift", shift)];
    pipeline.hset_multiple(key("shard"), &counts).hset(key("shard"), "server", met.to_hex()).ignore();
    pipeline.sadd(key("rooms"), recording.room.as_str()).ignore();
    let last = recording.entries.last().expect("an entry").0.to_string();
    let state = [
        ("era", "1".to_owned()),
        ("seq", recording.seq.to_string()),
        ("cursor", last.clone()),
        ("last", last),
        ("top", top.to_string()),
    ];
    pipeline.hset_multiple(of_room("state"), &state).ignore();
    if let Some(snapshot) = &recording.snapshot {
        let place = [("snapshot_seq", snapshot.seq.to_string()), ("snapshot_cursor", snapshot.cursor.to_string())];
        pipeline.hset_multiple(of_room("state"), &place).ignore();
        pipeline.set(of_room("snapshot"), &snapshot.bytes[..]).ignore();
    }
    for (at, bytes) in &recording.entries {
        pipeline.cmd("XADD").arg(of_room("room")).arg(at.to_string()).arg("e").arg(&bytes[..]).ignore();
    }
    for bytes in &recording.verdicts {
        let to = crate::wire::verdicts::decode(bytes).expect("a batch").verdicts.last().expect("a verdict").seq;
        pipeline.cmd("XADD").arg(of_room("out")).arg(format!("{to}-0")).arg("v").arg(&bytes[..]).ignore();
    }
    let mut connection = ::redis::Client::open(server.url()).expect("client").get_connection().expect("connection");
    pipeline.exec(&mut connection).expect("written");
}

#[tokio::test]
async fn rooms_of_the_last_version_are_taken_over_and_resumed() {
    let of_the_last_version = |recording: &Recording| recording.verdicts.iter().all(|bytes| bytes[0] == 3);
    let mut rooms = 0;
    for (_, recording) in recorded().into_iter().filter(|(_, recording)| of_the_last_version(recording)) {
        let server = RedisServer::start().expect("redis-server");
        let journal: Arc<dyn Journal> = Arc::new(journal(&server).await);
        let met = journal.survey(ShardId(0), false).await.expect("survey").server;
        left_behind(&server, met, &recording);
        let stop = CancellationToken::new();
        tokio::spawn(worker::run(journal.clone(), book(), WorkerOptions::default(), stop.clone(), Default::default()));
        let gateway = Gateway::start(journal.clone()).await.expect("gateway");
        let recorded = recording.decode_verdicts().expect("verdicts");
        let since = Since { era: recording.era, seq: recording.seq / 3 };
        let room = recording.room.clone();
        let joining = Joining { room, player: "ann".parse().expect("player"), role: Role::Player, since: Some(since) };
        let mut ann = gateway.join(joining).expect("join");

        // All that everybody in the room may see, as it was. What a session found when it joined is its own.
        let heard_of = |verdict: &&Verdict| verdict.seq > since.seq && verdict.audience == Audience::Room;
        let mut missed: Vec<Verdict> = recorded.iter().filter(heard_of).cloned().collect();
        missed.iter_mut().filter(|verdict| verdict.kind == VerdictKind::Open).for_each(|verdict| verdict.body = None);
        let mut heard = Vec::new();
        while heard.len() < missed.len() {
            let delivery = tokio::time::timeout(Duration::from_secs(20), ann.recv()).await.expect("in time").expect("open");
            if let Delivery::Verdict { frames, .. } = delivery {
                let mut verdict = frames.verdict().clone();
                verdict.body = verdict.body.filter(|_| verdict.kind != VerdictKind::Open);
                heard.push(verdict);
            }
        }
        assert_eq!(heard, missed, "{}", recording.room);

        // An action that was decided then acts no second time, another one goes on.
        let hers = |v: &&Verdict| {
            v.kind == VerdictKind::Data && v.player.as_ref().is_some_and(|player| player.as_str() == "ann") && v.id.is_some()
        };
        let first = recorded.iter().filter(hers).rfind(|v| v.outcome == Outcome::Granted).expect("one of ann's");
        let id = first.id.clone().expect("an id");
        ann.arrive(&act("claim", &id).contest("again")).expect("accepted");
        assert_eq!(answered(&mut ann, &id).await.outcome, first.outcome, "{}", recording.room);
        ann.arrive(&act("anything", "new")).expect("accepted");
        assert_eq!(answered(&mut ann, "new").await.outcome, Outcome::Denied("unknown_op".to_owned()));

        let now = Recording::read(&*journal, &recording.room).await.expect("a recording");
        assert_eq!((now.era, now.seed), (recording.era, None), "nobody lost anything, and it has no seed");
        assert!(now.seq > recording.seq && now.verdicts.starts_with(&recording.verdicts), "{}", recording.room);
        assert_eq!(now.resolve(&book()).expect("resolved").deviations, Vec::<String>::new(), "{}", recording.room);
        let again = now.decode_verdicts().expect("verdicts").into_iter().rfind(|v| v.id.as_deref() == Some(&id)).expect("there");
        assert_eq!(again.outcome, Outcome::Repeat { of: first.seq }, "{}", recording.room);
        stop.cancel();
        rooms += 1;
    }
    assert_eq!(rooms, 3);
}
