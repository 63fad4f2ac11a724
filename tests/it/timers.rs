//! Timers, set by rules in JavaScript and fired by real workers: in the room's order, once, whatever ends or stands still meanwhile.

use std::time::Duration;

use lasthit::journal::GatewayJournal as _;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use serde_json::{Value, json};
use servers::{Proxy, RedisServer};

use super::support::{GatewayProcess, Session, WorkerProcess, end_by_signal, now, program, redis, until};

/// `set` sets what its arguments say, `cancel` cancels. `close` ends the bids.
const PROGRAM: &str = "
const fired = (ctx, { data, due, late_ns, missed }) => ({ data, due, late: late_ns, missed, now: ctx.now, fires: ++ctx.state.fires });
export default {
  name: 'clock', version: 1,
  state: () => ({ open: true, bids: 0, fires: 0 }),
  on: {
    set(ctx, { name, ...when }) { ctx.timer(name, when); return { now: ctx.now }; },
    cancel(ctx, { name }) { ctx.cancel(name); return { now: ctx.now }; },
    bid(ctx) { return ctx.state.open ? ++ctx.state.bids : ctx.deny('closed'); },
  },
  timers: {
    bell: fired, tick: fired, mark: fired,
    close(ctx, timer) { ctx.state.open = false; return fired(ctx, timer); },
    chain(ctx, timer) { ctx.timer('chain', { after: 20 }); return fired(ctx, timer); },
  },
};";
const ROOM: &str = "hall";
/// The players and the workers agree on one shard, so that one worker owns all rooms.
const SHARDS: [&str; 2] = ["--shards", "1"];
const MS: u64 = 1_000_000;

/// Two gateways and Redis; the test starts the workers.
struct Hall {
    redis: RedisServer,
    a: GatewayProcess,
    b: GatewayProcess,
    folder: tempfile::TempDir,
}

impl Hall {
    fn on(redis: RedisServer) -> Self {
        let (a, b) = (GatewayProcess::on(&redis, &SHARDS), GatewayProcess::on(&redis, &SHARDS));
        Self::of(redis, a, b)
    }

    fn of(redis: RedisServer, a: GatewayProcess, b: GatewayProcess) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("clock.js"), PROGRAM).expect("written");
        let rooms = "[[rooms]]\npattern = \"*\"\nrules = { file = \"clock.js\" }\n";
        std::fs::write(folder.path().join("lasthit.toml"), rooms).expect("written");
        Self { redis, a, b, folder }
    }

    fn config(&self) -> String {
        self.folder.path().join("lasthit.toml").to_str().expect("UTF-8").to_owned()
    }

    fn worker(&self, extra: &[&str]) -> WorkerProcess {
        WorkerProcess::on(&self.redis, &[&["--config", &self.config()], &SHARDS[..], extra].concat())
    }

    /// Ann by the one gateway, Bob by the other.
    async fn join(&self) -> (Session, Session) {
        (self.a.ticket(ROOM, "ann").join().await, self.b.ticket(ROOM, "bob").msgpack().join().await)
    }

    /// The record, resolved again, is the same: everything up to `seq`, at least.
    fn replays(&self, room: &str, seq: u64) {
        let (url, config) = (self.redis.url(), self.config());
        let flags = ["replay", "--redis", &url, "--config", &config, "--room", room, "--shards", SHARDS[1], "--json"];
        let replay = program(&flags).output().expect("run");
        let (told, error) = (String::from_utf8_lossy(&replay.stdout), String::from_utf8_lossy(&replay.stderr));
        assert!(replay.status.success(), "{told} {error}");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!((&told["from"], &told["deviations"]), (&json!(1), &json!([])), "{told}");
        assert!(told["verdicts"].as_u64() >= Some(seq), "{told}");
    }
}

async fn set(session: &mut Session, id: &str, timer: Value) -> Value {
    let answer = session.ask("set", id, "lot", timer).await;
    assert_eq!(answer["outcome"], "granted", "{answer}");
    answer
}

/// What is seen of a timer, once that is so much.
async fn fires(session: &mut Session, timer: &str, count: usize) -> Vec<Value> {
    loop {
        let of = session.seen.iter().filter(|v| v["event"] == "timer" && v["timer"] == timer);
        let seen: Vec<Value> = of.cloned().collect();
        if seen.len() >= count {
            return seen;
        }
        session.recv().await;
    }
}

/// A later timer has fired: what should not have fired until then never does.
async fn mark(session: &mut Session, id: &str, ahead_ms: u64) {
    set(session, id, json!({"name": "mark", "after": ahead_ms, "data": id})).await;
    session.find(|v| v["timer"] == "mark" && v["body"]["data"] == id).await;
}

fn ns(verdict: &Value, field: &str) -> u64 {
    verdict[field].as_str().and_then(|ns| ns.parse().ok()).unwrap_or_else(|| panic!("no {field} in {verdict}"))
}

/// It fired at its moment in the room's order, to the nanosecond, and said so.
fn is_on_time(fire: &Value, set: &Value, ahead_ms: u64) {
    assert_eq!(ns(fire, "arrival_ns") - ns(set, "arrival_ns"), ahead_ms * MS, "{set} {fire}");
    assert_eq!(fire["body"]["now"], fire["body"]["due"], "the room's time is when it was due: {fire}");
    let due = fire["body"]["due"].as_f64().expect("due");
    assert_eq!(fire["due_ms"].as_f64(), Some(due.floor()), "{fire}");
    assert!((due - set["body"]["now"].as_f64().expect("now") - ahead_ms as f64).abs() < 0.01, "{set} {fire}");
}

/// Between two fires lie as many moments as were missed, and nothing else.
fn have_no_gap(fires: &[Value], set: &Value, every_ms: u64) {
    let mut before = ns(set, "arrival_ns");
    for fire in fires {
        let missed = fire["missed"].as_u64().unwrap_or_default();
        assert_eq!(fire["body"]["missed"], missed, "{fire}");
        before += (missed + 1) * every_ms * MS;
        assert_eq!(ns(fire, "arrival_ns"), before, "{fire}");
    }
}

#[tokio::test]
async fn everybody_sees_a_timer_at_its_moment() {
    let hall = Hall::on(redis(&[]));
    let _worker = hall.worker(&[]);
    let (mut ann, mut bob) = hall.join().await;
    let bell = set(&mut ann, "1", json!({"name": "bell", "after": 200, "data": {"lot": [1, "vase"]}})).await;
    let at = bell["body"]["now"].as_f64().expect("now") + 300.0;
    set(&mut bob, "2", json!({"name": "close", "at": at})).await;
    let fire = fires(&mut ann, "bell", 1).await.remove(0);
    is_on_time(&fire, &bell, 200);
    assert_eq!((&fire["body"]["data"], &fire["outcome"]), (&json!({"lot": [1, "vase"]}), &json!("granted")), "{fire}");
    assert!(fire["player"].is_null() && fire["missed"].is_null() && ns(&fire, "late_ns") < 20_000 * MS, "{fire}");
    let close = fires(&mut ann, "close", 1).await.remove(0);
    assert_eq!(close["due_ms"].as_f64(), Some(at.floor()));
    assert_eq!(fires(&mut bob, "bell", 1).await, [fire]);
    assert_eq!(fires(&mut bob, "close", 1).await, [close]);
    assert_eq!(ann.ask("bid", "3", "lot", json!(null)).await["reason"], "closed");
    hall.replays(ROOM, ann.seq);
}

#[tokio::test]
async fn what_is_replaced_or_cancelled_does_not_fire() {
    let hall = Hall::on(redis(&[]));
    let _worker = hall.worker(&[]);
    let (mut ann, mut bob) = hall.join().await;
    // Brought forward by the other player, and put off.
    set(&mut ann, "1", json!({"name": "bell", "after": 60_000, "data": "far"})).await;
    let near = set(&mut bob, "2", json!({"name": "bell", "after": 100, "data": "near"})).await;
    ann.act("set", "3", "lot", json!({"name": "close", "after": 1_000})).await;
    ann.act("set", "4", "lot", json!({"name": "close", "after": 60_000})).await;
    ann.act("set", "5", "lot", json!({"name": "tick", "every": 1_000})).await;
    ann.act("cancel", "6", "lot", json!({"name": "tick"})).await;
    assert_eq!(ann.ask("cancel", "7", "lot", json!({"name": "nothing"})).await["outcome"], "granted");
    mark(&mut bob, "8", 1_100).await;
    mark(&mut ann, "9", 16).await;
    let of = |name: &str| bob.seen.iter().filter(|v| v["timer"] == name).cloned().collect::<Vec<_>>();
    let bells = of("bell");
    assert!(bells.len() == 1 && bells[0]["body"]["data"] == "near", "{bells:?}");
    is_on_time(&bells[0], &near, 100);
    assert_eq!((of("close"), of("tick")), (vec![], vec![]));
    assert_eq!(bob.ask("bid", "10", "lot", json!(null)).await["body"], 1, "it is still open");
    hall.replays(ROOM, bob.seq);
}

#[tokio::test]
async fn a_repeating_timer_fires_on_its_grid_until_it_is_cancelled() {
    let hall = Hall::on(redis(&[]));
    let _worker = hall.worker(&[]);
    let (mut ann, mut bob) = hall.join().await;
    let every = set(&mut ann, "1", json!({"name": "tick", "every": 100})).await;
    // Nothing else happens: what follows an action fires behind it.
    let seen = fires(&mut bob, "tick", 8).await;
    have_no_gap(&seen, &every, 100);
    let cancelled = ann.ask("cancel", "2", "lot", json!({"name": "tick"})).await["seq"].as_u64();
    mark(&mut ann, "3", 250).await;
    let seen = fires(&mut ann, "tick", 8).await;
    assert!(seen.iter().all(|tick| tick["seq"].as_u64() < cancelled), "{seen:?}");
    hall.replays(ROOM, ann.seq);
}

#[tokio::test]
async fn cron_names_the_seconds() {
    let hall = Hall::on(redis(&[]));
    let _worker = hall.worker(&[]);
    let (mut ann, mut bob) = hall.join().await;
    let cron = set(&mut ann, "1", json!({"name": "bell", "cron": "* * * * * *", "offset": "+09:00"})).await;
    let seen = fires(&mut bob, "bell", 3).await;
    let now_ms = cron["body"]["now"].as_f64().expect("now");
    let mut before = (now_ms / 1_000.0).floor() as u64 * 1_000;
    for (n, fire) in seen.iter().enumerate() {
        let missed = fire["missed"].as_u64().unwrap_or_default();
        let due = fire["due_ms"].as_u64().expect("due");
        // The first may be too near to be set.
        let skipped = u64::from(n == 0 && before + 1_000 < now_ms as u64 + 17 && due > before + (missed + 1) * 1_000);
        assert_eq!(due, before + (missed + 1 + skipped) * 1_000, "{fire}");
        before = due;
    }
    hall.replays(ROOM, 3);
}

/// Rule T2: Bob's path to the journal is long, so that what he sends just before the close is on its way when it is due.
#[tokio::test]
async fn a_bid_before_the_close_counts_however_long_it_is_under_way() {
    let redis = redis(&[]);
    let path = Proxy::start(redis.upstream()).expect("a proxy");
    let (a, b) = (GatewayProcess::on(&redis, &SHARDS), GatewayProcess::at(&path.url(), &SHARDS));
    let hall = Hall::of(redis, a, b);
    let _worker = hall.worker(&[]);
    let (mut ann, mut bob) = hall.join().await;
    // She sees every verdict, also what a bidder alone is told.
    let mut keeper = hall.a.ticket(ROOM, "keeper").server().join().await;
    path.delay(Duration::from_millis(80), Duration::from_millis(5));
    let set = set(&mut ann, "0", json!({"name": "close", "after": 500})).await;
    // He alone bids: what is held would keep the close back anyway.
    let mut sent = 0;
    while !bob.seen.iter().any(|v| v["event"] == "timer") {
        sent += 1;
        bob.act("bid", &format!("b{sent}"), "lot", json!(null)).await;
        // A pause between two bids, in which what comes is read.
        let reads = async {
            loop {
                bob.recv().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(4), reads).await;
    }
    assert_eq!(ann.ask("bid", "end", "lot", json!(null)).await["reason"], "closed");
    keeper.find(|v| v["id"] == "end").await;
    let close = fires(&mut keeper, "close", 1).await.remove(0);
    is_on_time(&close, &set, 500);
    let bids: Vec<&Value> = keeper.seen.iter().filter(|v| v["event"] == "data" && v["id"] != "0").collect();
    assert_eq!(bids.len(), sent + 1);
    for bid in &bids {
        let before = ns(bid, "arrival_ns") < ns(&close, "arrival_ns");
        assert_eq!(before, bid["seq"].as_u64() < close["seq"].as_u64(), "{bid} {close}");
        assert_eq!(bid["outcome"], if before { "granted" } else { "denied" }, "{bid} {close}");
    }
    let stamps: Vec<u64> = bids.iter().map(|bid| ns(bid, "arrival_ns")).collect();
    assert!(stamps.is_sorted(), "the order is that of the stamps");
    // Some were under way.
    let close_ns = ns(&close, "arrival_ns");
    let his =
        |from: u64, to: u64| bids.iter().filter(|v| v["player"] == "bob" && (from..to).contains(&ns(v, "arrival_ns"))).count();
    assert!(his(close_ns - 80 * MS, close_ns) > 0 && his(close_ns, u64::MAX) > 0, "{bids:?}");
    hall.replays(ROOM, keeper.seq);
}

/// The worker is killed after the last tick before the bell. The other one is there, or comes when the bell is overdue.
#[tokio::test]
async fn a_worker_killed_just_before_the_moment_changes_nothing() {
    for late in [false, true] {
        let hall = Hall::on(redis(&[]));
        let mut one = hall.worker(&[]);
        until("it owns all rooms", || (one.metric("lasthit_shards_owned") == 1.0).then_some(()));
        let mut other = (!late).then(|| hall.worker(&[]));
        let (mut ann, mut bob) = hall.join().await;
        mark(&mut ann, "before", 16).await;
        let start = now();
        let tick = set(&mut ann, "tick", json!({"name": "tick", "every": 90})).await;
        let bell = set(&mut ann, "bell", json!({"name": "bell", "after": 1_000, "data": 7})).await;
        let close = set(&mut ann, "close", json!({"name": "close", "after": 1_000})).await;
        bob.find(|v| v["timer"] == "tick" && ns(v, "arrival_ns") + 110 * MS > ns(&bell, "arrival_ns") + 1_000 * MS).await;
        one.process.kill();
        if late {
            until("the moment is long over", || (start.elapsed() > Duration::from_millis(1_600)).then_some(()));
            bob.act("bid", "after", "lot", json!(null)).await;
            other = Some(hall.worker(&[]));
        }
        for (name, set) in [("bell", &bell), ("close", &close)] {
            let fire = fires(&mut bob, name, 1).await.remove(0);
            is_on_time(&fire, set, 1_000);
            assert_eq!(fire["body"]["late"], ns(&fire, "late_ns"), "{fire}");
            assert!(!late || ns(&fire, "late_ns") > 400 * MS, "{fire}");
        }
        if late {
            let bid = bob.answer("after").await;
            assert_eq!(bid["reason"], "closed", "it came behind the close: {bid}");
        }
        have_no_gap(&fires(&mut bob, "tick", 12).await, &tick, 90);
        mark(&mut ann, "mark", 200).await;
        bob.find(|v| v["body"]["data"] == "mark").await;
        for session in [&ann, &bob] {
            let count = |name: &str| session.seen.iter().filter(|v| v["timer"] == name).count();
            assert_eq!((count("bell"), count("close"), count("mark")), (1, 1, 2), "each once");
        }
        hall.replays(ROOM, bob.seq);
        drop(other);
    }
}

/// Redis is away when a timer is due, and another one repeats all the time.
async fn over_an_outage(redis: RedisServer, flags: &[&str], outage: impl FnOnce(&mut RedisServer, &dyn Fn())) {
    let flags = &[flags, &SHARDS].concat();
    let (a, b) = (GatewayProcess::on(&redis, flags), GatewayProcess::on(&redis, flags));
    let mut hall = Hall::of(redis, a, b);
    let _worker = hall.worker(&flags[..flags.len() - SHARDS.len()]);
    let (mut ann, mut bob) = hall.join().await;
    let every = set(&mut ann, "1", json!({"name": "tick", "every": 20})).await;
    let close = set(&mut ann, "2", json!({"name": "close", "after": 700})).await;
    let start = now();
    outage(&mut hall.redis, &|| {
        until("the moment is long over", || (start.elapsed() > Duration::from_millis(1_500)).then_some(()));
    });
    let fire = fires(&mut bob, "close", 1).await.remove(0);
    is_on_time(&fire, &close, 700);
    assert!(ns(&fire, "late_ns") > 500 * MS, "{fire}");
    assert_eq!(bob.ask("bid", "3", "lot", json!(null)).await["reason"], "closed");
    mark(&mut ann, "4", 100).await;
    bob.find(|v| v["timer"] == "mark").await;
    for session in [&ann, &bob] {
        assert_eq!(session.seen.iter().filter(|v| v["timer"] == "close").count(), 1, "once");
    }
    // Of the repeating one, what came too late became one; each moment is told of once.
    let ticks = fires(&mut ann, "tick", 2).await;
    let due = |tick: &Value| tick["due_ms"].as_u64().expect("due");
    let missed = |tick: &Value| tick["missed"].as_u64().unwrap_or_default();
    for two in ticks.windows(2) {
        assert_eq!(due(&two[1]) - due(&two[0]), (missed(&two[1]) + 1) * 20, "{two:?}");
    }
    let first = (every["body"]["now"].as_f64().expect("now").floor() as u64).abs_diff(due(&ticks[0]));
    assert!(first.abs_diff((missed(&ticks[0]) + 1) * 20) <= 1, "{every} {}", ticks[0]);
    assert!(ticks.iter().map(missed).sum::<u64>() > 5, "{ticks:?}");
    hall.replays(ROOM, ann.seq);
}

#[tokio::test]
async fn redis_stopped_over_the_moment() {
    over_an_outage(redis(&[]), &[], |redis, wait| {
        end_by_signal(redis.pid(), "STOP");
        wait();
        end_by_signal(redis.pid(), "CONT");
    })
    .await;
}

#[tokio::test]
async fn redis_killed_over_the_moment_and_started_again_on_its_file() {
    let disk = redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    over_an_outage(disk, &["--durability", "disk"], |redis, wait| {
        redis.kill().expect("killed");
        wait();
        redis.restart().expect("started again");
    })
    .await;
}

/// How many verdicts the stored room has.
async fn stored(journal: &RedisJournal, room: &str) -> u64 {
    journal.verdicts(&room.parse().expect("a name"), 0, 1).await.expect("verdicts").seq
}

#[tokio::test]
async fn a_timer_fires_in_a_room_that_everybody_has_left() {
    let hall = Hall::on(redis(&[]));
    let _worker = hall.worker(&["--room-linger", "100ms"]);
    let (mut ann, bob) = hall.join().await;
    let bell = set(&mut ann, "1", json!({"name": "bell", "after": 3_000, "data": "alone"})).await;
    // It keeps the room until it is cancelled.
    set(&mut ann, "2", json!({"name": "close", "after": 60_000})).await;
    bob.leave(1000).await;
    let (era, seen) = (ann.era(), ann.seq);
    ann.leave(1000).await;
    let journal = RedisJournal::connect(&hall.redis.url(), RedisOptions::default()).await.expect("a journal");
    // Two sessions end and close, and the bell rings.
    while stored(&journal, ROOM).await < seen + 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut eve = hall.b.ticket(ROOM, "eve").since(era, seen).join().await;
    assert_eq!((&eve.welcome["resumed"], &eve.welcome["gone"]), (&json!(true), &json!(false)), "{}", eve.welcome);
    let fire = fires(&mut eve, "bell", 1).await.remove(0);
    is_on_time(&fire, &bell, 3_000);
    assert_eq!(fire["body"]["data"], "alone");
    let inside = eve.seen.iter().filter(|v| v["seq"].as_u64() < fire["seq"].as_u64());
    assert_eq!(inside.filter(|v| v["event"] == "close").count(), 2, "they had left before: {:?}", eve.seen);
    assert_eq!(eve.ask("bid", "3", "lot", json!(null)).await["body"], 1);
    mark(&mut eve, "4", 100).await;
    assert_eq!(fires(&mut eve, "bell", 1).await.len(), 1, "once");
    hall.replays(ROOM, eve.seq);
}

/// Rule T6.
#[tokio::test]
async fn what_repeats_keeps_no_empty_room_and_a_single_timer_does() {
    let hall = Hall::on(redis(&[]));
    let worker = hall.worker(&["--room-linger", "300ms"]);
    let timers = [
        ("single", json!({"name": "bell", "after": 60_000})),
        ("ticking", json!({"name": "tick", "every": 50})),
        ("chained", json!({"name": "chain", "after": 50})),
    ];
    let mut lives = Vec::new();
    for (room, timer) in timers {
        let mut ann = hall.a.ticket(room, "ann").join().await;
        set(&mut ann, "1", timer).await;
        lives.push((room, ann.era(), ann.seq));
        ann.leave(1000).await;
    }
    until("two of them have ended", || (worker.metric("lasthit_rooms_in_memory") == 1.0).then_some(()));
    for (room, era, seq) in lives {
        let session = hall.b.ticket(room, "bob").since(era, seq).join().await;
        assert_eq!(session.welcome["gone"], room != "single", "{room}: {}", session.welcome);
        assert_eq!(session.era() == era, room == "single", "{room}: {}", session.welcome);
    }
}
