//! Rooms that were really played, on a private Redis.

mod recorded;
mod seeds;
mod taken_over;
mod tried;

use std::sync::Arc;
use std::time::Duration;

use servers::RedisServer;
use tokio_util::sync::CancellationToken;

use super::command::{Reading, Source, Task, run};
use super::timeline::{Timeline, draw, shown};
use super::*;
use crate::config::{Config, Flags as Settings};
use crate::embed::{Delivery, Gateway, Joining, Seat, act};
use crate::journal::redis::{RedisJournal, RedisOptions, shard_key};
use crate::rules::js::{Checking, JsRules};
use crate::rules::{claim::Claim, last_hit::LastHit};
use crate::types::{Audience, Outcome, Role, VerdictBatch};
use crate::worker::WorkerOptions;

struct Played {
    redis: RedisServer,
    journal: Arc<dyn Journal>,
    stop: CancellationToken,
    seats: Vec<Seat>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn book() -> RulesBook {
    RulesBook::new().room("claim-*", || Claim::new(Audience::Room))
}

async fn answered(seat: &mut Seat, id: &str) -> Verdict {
    loop {
        let delivery = tokio::time::timeout(Duration::from_secs(20), seat.recv()).await.expect("in time").expect("open");
        if let Delivery::Verdict { frames, .. } = delivery
            && frames.verdict().id.as_deref() == Some(id)
        {
            return frames.verdict().clone();
        }
    }
}

/// Ann and bob on two gateways claim `keys` keys: ann k0, k1, ... and then bob the same; ann releases the first, and bob
/// claims it again.
async fn played(keys: usize) -> Played {
    let redis = RedisServer::start().expect("redis-server");
    let options = RedisOptions { shards: Some(2), ..RedisOptions::default() };
    let journal: Arc<dyn Journal> = Arc::new(RedisJournal::connect(&redis.url(), options).await.expect("journal"));
    let stop = CancellationToken::new();
    let worker = worker::run(journal.clone(), book(), WorkerOptions::default(), stop.clone(), Default::default());
    tokio::spawn(worker);
    let mut seats = Vec::new();
    for player in ["ann", "bob"] {
        let gateway = Gateway::start(journal.clone()).await.expect("gateway");
        let joining = Joining {
            room: "claim-1".parse().expect("room"),
            player: player.parse().expect("player"),
            role: Role::Player,
            since: None,
        };
        seats.push(gateway.join(joining).expect("join"));
    }
    let mut played = Played { redis, journal, stop, seats };
    for (who, seat) in played.seats.iter_mut().enumerate() {
        for key in 0..keys {
            seat.arrive(&act("claim", &format!("{who}-{key}")).contest(&format!("k{key}"))).expect("accepted");
            if key % 50 == 49 || key + 1 == keys {
                answered(seat, &format!("{who}-{key}")).await;
            }
        }
    }
    let [ann, bob] = &mut played.seats[..] else { panic!("two") };
    ann.arrive(&act("release", "r").contest("k0")).expect("accepted");
    answered(ann, "r").await;
    bob.arrive(&act("claim", "again").contest("k0")).expect("accepted");
    assert_eq!(answered(bob, "again").await.outcome, Outcome::Granted);
    played
}

async fn recorded(played: &Played) -> Recording {
    Recording::read(&*played.journal, &"claim-1".parse().expect("room")).await.expect("recording")
}

#[tokio::test]
async fn a_room_resolves_again_to_the_same_and_a_changed_record_is_found() {
    let played = played(5).await;
    let mut recording = recorded(&played).await;
    let replayed = recording.resolve(&book()).expect("resolved");
    // Two joins, ten claims, a release and a claim.
    assert_eq!((replayed.from, replayed.to, replayed.verdicts), (1, 14, 14));
    assert!(replayed.deviations.is_empty(), "{:?}", replayed.deviations);

    // Somebody else's rules, or none.
    let others = recording.resolve(&RulesBook::new().room("*", LastHit::new)).expect("resolved");
    assert!(others.deviations.len() >= 12 && others.deviations[0].contains("recorded"), "{:?}", others.deviations);
    let none = recording.resolve(&RulesBook::new()).expect_err("no rules").to_string();
    assert!(none.contains("claim-1 has no rules"), "{none}");

    // A verdict that was given to another.
    let at = recording.verdicts.iter().position(|b| verdicts::decode(b).is_ok_and(|b| b.verdicts.iter().any(won))).expect("one");
    let mut batch: VerdictBatch = verdicts::decode(&recording.verdicts[at]).expect("batch");
    let verdict = batch.verdicts.iter_mut().find(|v| won(v)).expect("one");
    verdict.outcome = Outcome::Denied("late".to_owned());
    let seq = verdict.seq;
    recording.verdicts[at] = verdicts::encode(&batch);
    let deviations = recording.resolve(&book()).expect("resolved").deviations;
    assert_eq!(deviations.len(), 1, "{deviations:?}");
    assert!(
        deviations[0].starts_with(&format!("verdict {seq}: outcome recorded Denied(\"late\"), now Granted")),
        "{deviations:?}"
    );
}

fn won(verdict: &Verdict) -> bool {
    verdict.kind == VerdictKind::Data && verdict.outcome == Outcome::Granted
}

#[tokio::test]
async fn a_room_whose_beginning_is_gone_resolves_from_its_snapshot() {
    let played = played(300).await;
    let mut recording = recorded(&played).await;
    assert_eq!(recording.resolve(&book()).expect("resolved").from, 1);
    let snapshot = recording.snapshot.clone().expect("600 events are more than a snapshot waits for");
    recording.entries.retain(|(at, _)| *at > snapshot.cursor);
    let replayed = recording.resolve(&book()).expect("resolved");
    assert_eq!((replayed.from, replayed.to), (snapshot.seq + 1, recording.seq));
    assert!(replayed.deviations.is_empty(), "{:?}", replayed.deviations);

    // A hole, and no snapshot.
    let mut hole = recording.clone();
    hole.verdicts.remove(1);
    assert!(hole.resolve(&book()).expect_err("refused").to_string().contains("is followed by"));
    recording.snapshot = None;
    let error = recording.resolve(&book()).expect_err("refused").to_string();
    assert!(error.contains("is not in the stream"), "{error}");
}

#[tokio::test]
async fn the_commands_work_from_redis_and_from_a_dump() {
    let played = played(3).await;
    let dir = tempfile::tempdir().expect("dir");
    let (file, svg) = (dir.path().join("room.dump"), dir.path().join("k0.svg"));
    let config =
        Config::load_to_read(Settings::default().with("redis", &played.redis.url()), &|_| None, Some("")).expect("config");
    let room: RoomId = "claim-1".parse().expect("room");
    let from_redis = |task| Reading { source: Source::Redis(room.clone()), json: false, task };
    let told = run(&from_redis(Task::Replay), &config).await.expect("replayed");
    let same = ": verdicts 1 to 10 resolved again, 10 of 10 are the same";
    assert!(told.text.starts_with("room claim-1 era ") && told.text.ends_with(same), "{}", told.text);
    assert!(!told.deviates);
    run(&from_redis(Task::Dump(file.clone())), &config).await.expect("dumped");
    assert_eq!(dump::read(&file).expect("dump"), recorded(&played).await);

    let offline = Config::load_to_read(Settings::default(), &|_| None, None).expect("config");
    let from_file = |room: Option<RoomId>, task| Reading { source: Source::File(file.clone(), room), json: true, task };
    let told = run(&from_file(None, Task::Replay), &offline).await.expect("replayed");
    let json: serde_json::Value = serde_json::from_str(&told.text).expect("json");
    assert_eq!((&json["verdicts"], &json["deviations"]), (&10.into(), &serde_json::json!([])));
    let task = Task::Timeline { contest: "k0".to_owned(), round: Some(1), svg: Some(svg.clone()) };
    let told = run(&from_file(Some(room), task), &offline).await.expect("drawn");
    let json: serde_json::Value = serde_json::from_str(&told.text).expect("json");
    assert_eq!((&json["winner"], &json["contenders"][0]["player"]), (&0.into(), &"ann".into()));
    assert!(json["contenders"][1]["behind_ns"].is_string());
    assert!(std::fs::read_to_string(svg).expect("picture").ends_with("</svg>\n"));

    let other = from_file(Some("claim-2".parse().expect("room")), Task::Replay);
    assert!(run(&other, &offline).await.expect_err("refused").to_string().contains("the dump is of room claim-1"));
    let missing = Reading { source: Source::Redis("claim-9".parse().expect("room")), json: false, task: Task::Replay };
    assert!(run(&missing, &config).await.expect_err("refused").to_string().contains("claim-9 does not exist"));
}

#[tokio::test]
async fn a_timeline_tells_who_won_each_round() {
    let played = played(2).await;
    let recording = recorded(&played).await;
    let first = Timeline::of(&recording, &book(), "k0", Some(1)).expect("timeline");
    assert_eq!((first.winner, &*first.rounds), (Some(0), &[1, 2][..]));
    let told: Vec<(&str, &str, usize)> = first.contenders.iter().map(|c| (&*c.player, c.outcome, c.gateway)).collect();
    assert_eq!(told[..2], [("ann", "won", 1), ("bob", "denied", 2)]);
    assert_eq!(first.contenders[1].behind_ns, Some(first.contenders[1].arrival_ns - first.contenders[0].arrival_ns));
    let last = Timeline::of(&recording, &book(), "k0", None).expect("timeline");
    let winner = &last.contenders[last.winner.expect("won")];
    assert_eq!((last.round, &*winner.player), (2, "bob"));
    let picture = draw(&first);
    // On a busy machine the clock may not tell the two apart.
    let is_close = first.contenders[1].flags.contains(&"photo_finish");
    let (won, second) = if is_close { ("ann won; too close", "too close to tell</text>") } else { ("ann won", "late</text>") };
    assert!(picture.contains(won) && picture.contains(second) && picture.contains("round 1"), "{picture}");
    for (contest, round) in [("k9", None), ("k0", Some(3))] {
        let error = Timeline::of(&recording, &book(), contest, round).expect_err("refused").to_string();
        assert!(error.contains(contest) && error.contains("claim-1"), "{error}");
    }
}

#[test]
fn times_are_shown_no_finer_than_the_clock_can_tell() {
    for (ns, uncertainty, expected) in [
        (12_345, 2_000, "12 µs"),
        (12_345, 200, "12.3 µs"),
        (12_345, 1, "12.345 µs"),
        (12_345, 20_000, "10 µs"),
        (999_960, 100, "1.000 ms"),
        (2_345_678, 2_000, "2.346 ms"),
        (2_345_678_901, 2_000, "2.346 s"),
        (750, 0, "750 ns"),
        (999_999_700, 1, "1.000 s"),
        (400, 2_000, "under 1 µs"),
        (0, 2_000, "0 ns"),
    ] {
        assert_eq!(shown(ns, uncertainty), expected, "{ns} ± {uncertainty}");
    }
}

/// A worker trims, ends and renews rooms while they are read: that is told, and no recording of two moments comes of it.
#[tokio::test]
async fn a_recording_that_is_overtaken_while_it_is_read_says_so() {
    let played = played(10).await;
    let room: RoomId = "claim-1".parse().expect("room");
    let shard = crate::types::ShardId::of(&room, 2);
    let key = |name: &str| shard_key(shard, 2, &format!("{name}:{room}"));
    let whole = recorded(&played).await;
    let size = PageSize { bytes: 1, entries: 1 };
    let mut pages = 0;
    let paged = Recording::read_paged(&*played.journal, &room, size, || pages += 1).await.expect("read");
    assert_eq!(paged, whole);
    assert!(pages > 5, "{pages} pages");

    let at_page = async |at: usize, command: &[&str]| {
        let mut page = 0;
        let turn = || {
            page += 1;
            if page == at {
                let _: ::redis::Value = played.redis.ask(command).expect("done");
            }
        };
        let read = Recording::read_paged(&*played.journal, &room, size, turn).await;
        read.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for at in [1, pages / 2, pages - 1] {
        let renewed = at_page(at, &["HINCRBY", &key("state"), "era", "1"]).await;
        assert!(renewed.contains("ended and began again"), "{at}: {renewed:?}");
    }
    let trimmed = at_page(pages - 1, &["XTRIM", &key("room"), "MAXLEN", "2"]).await;
    assert!(trimmed.contains("trimmed faster than it was read"), "{trimmed:?}");
}

/// What is dropped depends on it: what cannot be read may name any program. A recording is read nevertheless.
#[tokio::test]
async fn the_programs_that_a_record_names_are_known_without_its_entries() {
    let played = played(10).await;
    let room: RoomId = "claim-1".parse().expect("room");
    let shard = crate::types::ShardId::of(&room, 2);
    let key = |name: &str| shard_key(shard, 2, &format!("{name}:{room}"));
    let (size, mut pages) = (PageSize { bytes: 1, entries: 1 }, 0);
    let named = named::named_paged(&*played.journal, &room, size, || pages += 1).await.expect("read");
    let recording = recorded(&played).await;
    assert_eq!((named.len(), pages), (0, recording.verdicts.len()), "a page for each batch");

    let by_file =
        Program::load("claim.js", b"export default { name: 'claim', version: 1 };", Budget::default()).expect("a program");
    let snapshot = Room::new(1, Box::new(JsRules::new(by_file.clone(), Checking::Off))).snapshot();
    let mut connection = ::redis::Client::open(played.redis.url()).expect("client").get_connection().expect("connection");
    for (bytes, names) in [(&snapshot[..], true), (&snapshot[..snapshot.len() - 1], false)] {
        let mut pipeline = ::redis::pipe();
        pipeline.hset_multiple(key("state"), &[("snapshot_seq", "1"), ("snapshot_cursor", "0-0")]).ignore();
        pipeline.set(key("snapshot"), bytes).ignore();
        pipeline.exec(&mut connection).expect("written");
        let named = named::named_by(&*played.journal, &room).await;
        match names {
            true => assert_eq!(named.expect("read").into_iter().collect::<Vec<_>>(), [by_file.id()]),
            false => assert!(named.expect_err("damaged").to_string().contains("snapshot")),
        }
        assert!(Recording::read(&*played.journal, &room).await.expect("read").snapshot.is_some());
    }
}
