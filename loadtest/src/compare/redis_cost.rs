//! The costs of lasthit other than time: commands and memory of Redis, CPU time by the number of rooms, memory of idle sessions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::commands::{self, Monitor};
use super::generator::Target;
use super::ratios::Figures;
use super::{CompareConfig, Only, Pace, Teller, explain};
use crate::limits::{CONNECT_TIMEOUT, CONNECTING_MAX};
use crate::spawn::{Fleet, Spawn};
use crate::speak::frame::Encoding;

/// Sessions of one measurement.
pub(super) const SESSIONS_MAX: u64 = 10_000;
/// Rooms of the two measurements that are compared; each has a session that sends once a second.
const ROOMS: [u32; 2] = [100, 10_000];
/// How long sessions may take to join before the first event comes.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is asked whether it came.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// After the first event and before what is measured.
const SETTLE: Duration = Duration::from_secs(1);
/// Idle sessions, and those of them that are not counted.
const SESSIONS: [u32; 2] = [100, 5_000];
/// Rooms that they are in.
const SESSION_ROOMS: u32 = 50;
/// After the last of them was welcomed.
const IDLE: Duration = Duration::from_secs(2);
/// Bytes that an idle session's socket here keeps.
const IDLE_BUFFER_BYTES: usize = 1024;
/// Rooms of the memory that is kept, and events of each.
const KEPT: (u32, u32) = (100, 1_000);
/// Their sessions: as many as contend.
const KEPT_SESSIONS_EACH: u32 = 10;
/// Events a second of them over all rooms.
const KEPT_RATE: u32 = 10_000;

const _: () = assert!(ROOMS[1] as u64 <= SESSIONS_MAX && SESSIONS[1] as u64 <= SESSIONS_MAX);

pub(super) async fn measure(config: &CompareConfig, pace: Pace, figures: &mut Figures, teller: &mut Teller) -> Result<()> {
    let two = Spawn::Redis { gateways: 2, workers: 1, delay: None };
    let one = Spawn::Redis { gateways: 1, workers: 1, delay: None };
    let mut keep = |name: &str, value: Option<f64>| figures.extend(value.map(|value| (name.to_owned(), value)));
    if config.has(Only::RedisCommands) {
        let step = in_fleet(two, async |fleet| commands_per_event(fleet, pace).await);
        keep("redis_commands_per_event", teller.step("Redis commands at full load", step).await?);
    }
    if config.has(Only::RedisBytes) {
        let step = in_fleet(two, async |fleet| bytes_per_event(fleet).await);
        keep("redis_bytes_per_event", teller.step("Redis memory of what is kept", step).await?);
    }
    if config.has(Only::Rooms) {
        for rooms in ROOMS {
            let step = in_fleet(one, async |fleet| cpu_us_per_event(fleet, rooms, pace.rooms).await);
            let cpu = teller.step(&format!("CPU time with {rooms} rooms"), step).await?;
            keep(&format!("rooms_{rooms}.cpu_us_per_event"), cpu);
        }
    }
    if config.has(Only::Sessions) {
        let step = in_fleet(one, async |fleet| session_kib(fleet).await);
        keep("session_kib", teller.step("memory of idle sessions", step).await?);
    }
    Ok(())
}

/// Starts what is needed, measures, and ends it.
pub(super) async fn in_fleet<T>(spawn: Spawn, step: impl AsyncFnOnce(&mut Fleet) -> Result<T>) -> Result<T> {
    let mut fleet = Fleet::start(spawn).await?;
    let measured = step(&mut fleet).await;
    explain(&measured, &mut fleet);
    fleet.end().await;
    measured
}

fn target(fleet: &Fleet) -> Target {
    Target::lasthit(fleet.urls())
}

/// Commands that were sent to Redis; those inside of scripts are not.
///
/// Redis counts both alike (`total_commands_processed` and the calls of each command): which share of each command's calls is
/// made by scripts, MONITOR tells, in a second run because it slows Redis down.
async fn commands_per_event(fleet: &mut Fleet, pace: Pace) -> Result<f64> {
    let target = target(fleet);
    let before = commands::calls(&fleet.redis_info("commandstats")?);
    let report = target.flat_out(pace.full).await?;
    let after = commands::calls(&fleet.redis_info("commandstats")?);
    let monitor = Monitor::start(&fleet.redis_socket())?;
    target.flat_out(pace.full / 2).await?;
    let sent = monitor.end()?.sent(&before, &after);
    ensure!(report.audited > 0, "nothing was sent");
    Ok(sent / report.audited as f64)
}

/// Growth of Redis' memory from before the rooms to after their events, all of them kept.
async fn bytes_per_event(fleet: &mut Fleet) -> Result<f64> {
    let used = |fleet: &Fleet| commands::used_memory(&fleet.redis_info("memory")?);
    let before = used(fleet)?;
    let (rooms, each) = KEPT;
    let events = rooms * each;
    let duration = Duration::from_secs(u64::from(events / KEPT_RATE));
    let report = target(fleet).in_rooms((rooms, KEPT_SESSIONS_EACH), KEPT_RATE, duration).await?;
    ensure!(report.sent == u64::from(events), "{} of {events} events were sent", report.sent);
    Ok(used(fleet)?.saturating_sub(before) as f64 / f64::from(events))
}

/// CPU time of everything but the generator, for each event, every room having one a second.
async fn cpu_us_per_event(fleet: &mut Fleet, rooms: u32, time: Duration) -> Result<f64> {
    let target = target(fleet);
    let watched = async {
        let deadline = Instant::now() + FIRST_EVENT_TIMEOUT;
        // A gateway that lets thousands in may be slow to tell.
        while fleet.data_events().await.unwrap_or(0) == 0 {
            ensure!(Instant::now() < deadline, "no event within {FIRST_EVENT_TIMEOUT:?}");
            sleep(ASK_INTERVAL).await;
        }
        sleep(SETTLE).await;
        let (cpu, events) = (fleet.cpu()?, fleet.data_events().await?);
        sleep(time).await;
        let (cpu, events) = (fleet.cpu()? - cpu, fleet.data_events().await? - events);
        ensure!(events > 0, "no events came within {time:?}");
        Ok(cpu.as_secs_f64() * 1e6 / events as f64)
    };
    let sent = target.in_rooms((rooms, 1), rooms, time + SETTLE * 3);
    Ok(tokio::try_join!(watched, sent)?.0)
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a gateway grows by for each session that does nothing.
async fn session_kib(fleet: &mut Fleet) -> Result<f64> {
    let url = fleet.urls().first().context("no gateway")?.clone();
    let [few, many] = SESSIONS;
    let mut sessions = join(&url, 0..few).await?;
    sleep(IDLE).await;
    let before = fleet.resident_kib("gateway")?;
    sessions.extend(join(&url, few..many).await?);
    sleep(IDLE).await;
    let grown = fleet.resident_kib("gateway")?.saturating_sub(before);
    drop(sessions);
    Ok(grown as f64 / f64::from(many - few))
}

async fn join(url: &str, numbers: std::ops::Range<u32>) -> Result<Vec<Socket>> {
    let joining = numbers.map(|n| async move {
        let address = format!("{url}/v1/room/load-idle-{}?player=p{n}", n % SESSION_ROOMS);
        let joined = async {
            let mut request = address.as_str().into_client_request()?;
            let subprotocol = HeaderValue::from_static(Encoding::Msgpack.subprotocol());
            request.headers_mut().insert("sec-websocket-protocol", subprotocol);
            let config = WebSocketConfig::default().read_buffer_size(IDLE_BUFFER_BYTES).write_buffer_size(0);
            let (mut socket, _) = connect_async_with_config(request, Some(config), true).await?;
            socket.next().await.context("closed before the welcome")??;
            anyhow::Ok(socket)
        };
        timeout(CONNECT_TIMEOUT, joined)
            .await
            .context("no welcome in time")?
            .with_context(|| format!("{address} cannot be joined"))
    });
    stream::iter(joining).buffered(CONNECTING_MAX).try_collect().await
}
