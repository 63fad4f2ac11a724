//! The Redis floor: what any sequencer on Redis pays between two processes. An entry is appended (XADD), a blocked reader
//! gets it (XREAD), a script writes and publishes what was decided (XADD, HSET, PUBLISH), a subscriber hears of it. One
//! stream, one at a time, blocking connections: nothing here waits for a runtime.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use redis::{Client, Connection, Script, Value, cmd};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::load::record::Times;

/// Bytes of an entry.
const ENTRY_BYTES: usize = 64;
/// Longest time for one entry to come back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The first entries: connections and scripts are warm after them.
const WARM_UP: u32 = 200;
/// How many entries the streams keep, about.
const KEPT: u32 = 10_000;

const ROOM: &str = "floor:room";
const OUT: &str = "floor:out";
const STATE: &str = "floor:state";
const CHANNEL: &str = "floor:push";

const COMMIT: &str = "\
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'v', ARGV[1]) \
    redis.call('HSET', KEYS[2], 'cursor', ARGV[2]) \
    redis.call('PUBLISH', ARGV[4], ARGV[1]) \
    return 0";

/// How much to measure.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// The Redis
    #[arg(long)]
    redis: String,
    /// How many entries
    #[arg(long)]
    entries: u32,
    /// Entries a second
    #[arg(long)]
    rate: u32,
}

/// Where to work.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// The Redis
    #[arg(long)]
    redis: String,
}

/// From the append to the subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct FloorFigures {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

fn connect(url: &str) -> Result<Connection> {
    let client = Client::open(url).with_context(|| format!("redis {url:?} is no url"))?;
    client.get_connection().with_context(|| format!("no redis at {url}"))
}

/// Appends, waits for what is published of it, and says how long that took.
pub(super) async fn measure(args: &FloorArgs) -> Result<()> {
    ensure!(args.rate > 0, "rate 0: use 1 or more entries a second");
    let (mut writer, mut reader) = (connect(&args.redis)?, connect(&args.redis)?);
    reader.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut subscriber = reader.as_pubsub();
    subscriber.subscribe(CHANNEL)?;
    let entry = "x".repeat(ENTRY_BYTES);
    let mut latency = Times::new();
    let (began, interval) = (Instant::now(), Duration::from_secs(1) / args.rate);
    for number in 0..WARM_UP + args.entries {
        sleep((began + interval * number).saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        let append = cmd("XADD").arg(&[ROOM, "MAXLEN", "~"]).arg(KEPT).arg(&["*", "e", &entry]).query::<String>(&mut writer);
        append.context("append")?;
        subscriber.get_message().context("nothing was published: does the floor's worker run?")?;
        if number >= WARM_UP {
            latency.record(sent.elapsed());
        }
    }
    let figures = FloorFigures { p50_us: latency.quantile_us(0.5), p99_us: latency.quantile_us(0.99) };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// Reads, commits and publishes until the process is ended or Redis goes away.
pub(super) fn work(args: &WorkerArgs) -> Result<()> {
    let (mut connection, commit) = (connect(&args.redis)?, Script::new(COMMIT));
    commit.prepare_invoke().load(&mut connection)?;
    println!("ready");
    let mut position = "0".to_owned();
    loop {
        let read = cmd("XREAD").arg(&["BLOCK", "0", "STREAMS", ROOM, &position]).query::<Value>(&mut connection)?;
        for (id, entry) in entries(read)? {
            let call = commit.key(OUT).key(STATE).arg(entry).arg(&id).arg(KEPT).arg(CHANNEL).invoke::<()>(&mut connection);
            call.context("commit")?;
            position = id;
        }
    }
}

type Reply = Vec<(String, Vec<(String, (Value, Vec<u8>))>)>;

/// The entries of the one stream that was read.
fn entries(read: Value) -> Result<Vec<(String, Vec<u8>)>> {
    let streams: Reply = redis::from_redis_value(read).context("the reply to XREAD")?;
    Ok(streams.into_iter().flat_map(|(_, entries)| entries).map(|(id, (_, entry))| (id, entry)).collect())
}
