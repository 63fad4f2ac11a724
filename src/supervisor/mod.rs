//! Runs gateways and workers as processes of its own (`lasthit up`).
//!
//! [`plan`] decides what is done next: a step function over slots and children, without I/O, clock or chance. [`policy`] has what is
//! decided by numbers alone. The dispatcher ([`run`]) carries the plan out, the [`door`] passes connections on, and [`control`] takes commands in.

mod ask;
pub(crate) mod asking;
pub(crate) mod client;
mod control;
mod door;
mod gather;
mod logs;
pub(crate) mod plan;
pub(crate) mod policy;
mod run;
mod spawn;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ask::{Ask, Told};
use self::asking::CONTROL_FILE;
use self::control::Control;
use self::logs::Logs;
use self::plan::step::Settings;
use self::policy::counts::{self, Deployment};
use self::run::{Kit, Prepared, run};
use self::spawn::Binary;
use crate::child;
use crate::config::{Config, RedisUrl};
use crate::gateway::front::arrival::listen_for_others;
use crate::limits::{LAST_ANSWERS_TIMEOUT, PROGRESS_LINES_WAITING, REQUESTS_MAX};

/// Runs the processes that a configuration asks for, until `stop`. Returns the exit code.
///
/// # Errors
/// When they cannot be run at all.
pub(crate) async fn up(config: Config, child: child::Settings, stop: CancellationToken) -> anyhow::Result<u8> {
    // By its path: what is there at a reload is what runs then.
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let first = prepared(&config, child, Binary::own()?).map_err(anyhow::Error::msg)?;
    let listener = if first.settings.deployments.iter().any(|deployment| deployment.gateways.most() > 0) {
        let listener = listen_for_others(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        tracing::info!("open http://{address}/ to play, connect to ws://{address}/v1/room/ROOM");
        Some(listener)
    } else {
        None
    };
    let control = config.up.control.clone().or_else(|| Some(config.runtime_dir.as_ref()?.join(CONTROL_FILE)));
    let control = control.context("without --runtime-dir there is no place for commands: give --control PATH")?;
    let (asker, asks) = mpsc::channel(REQUESTS_MAX);
    let socket = Control::bind(&control)?;
    tracing::info!("commands such as `lasthit ps` come in at {}", control.display());
    let admin = match config.admin {
        Some(address) => {
            let admin =
                TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for health and metrics"))?;
            tracing::info!("health and metrics on http://{}/", admin.local_addr()?);
            Some(admin)
        }
        None => None,
    };
    let logs = Logs::start(config.log_format).context("the log's thread cannot start")?;
    reload_at_hangup(asker.clone()).context("signals cannot be watched")?;
    let (gathered, listens) = (first.kit.child.clone(), listener.is_some());
    let prepare = Box::new(move || {
        let child = gathered.again()?;
        let next = child.of_supervisor().map_err(|error| error.mistakes.join("; "))?;
        fits(&config, &next)?;
        if !listens && next.up.gateways.or(1).most() > 0 {
            return Err("it was started with --gateways 0 and listens nowhere: start it anew with gateways".to_owned());
        }
        let binary = Binary::at(&program).map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        prepared(&next, child, binary)
    });
    let connections = TaskTracker::new();
    let code = tokio::select! {
        code = run(first, prepare, listener, logs.clone(), asks, stop) => code?,
        () = socket.serve(asker.clone(), logs, &connections) => 0,
        () = control::serve_health(admin, asker) => 0,
    };
    // Whoever asked for the end hears of it.
    connections.close();
    let _ = tokio::time::timeout(LAST_ANSWERS_TIMEOUT, connections.wait()).await;
    Ok(code)
}

/// What a configuration asks for.
fn prepared(config: &Config, child: child::Settings, binary: Binary) -> Result<Prepared, String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (gateways, workers) = counts::auto(cores, config.redis.as_ref().is_some_and(RedisUrl::is_on_this_host), config.shards);
    let up = &config.up;
    let deployment = Deployment {
        name: String::new(),
        gateways: up.gateways.or(gateways),
        workers: up.workers.or(workers),
        shards: config.shards,
    };
    let deployments = vec![deployment];
    counts::check(&deployments)?;
    let settings = Settings {
        deployments,
        ready_timeout: up.ready_timeout,
        stop_timeout: up.stop_timeout,
        hang_timeout: up.hang_timeout,
        drain_window: up.drain_window,
        recycle: up.recycle,
        even: up.even,
    };
    Ok(Prepared { settings, kit: Kit { binary, child } })
}

/// Whether a running deployment may become another one. What all of its processes share cannot change one by one.
fn fits(now: &Config, next: &Config) -> Result<(), String> {
    let redis = |config: &Config| config.redis.as_ref().map(|url| url.reveal().to_owned());
    let fixed = [
        ("redis", redis(now) == redis(next)),
        ("prefix", now.prefix == next.prefix),
        ("shards", now.shards == next.shards),
        ("durability", now.durability == next.durability),
        ("listen", now.listen == next.listen),
        ("admin", now.admin == next.admin),
        ("control", now.up.control == next.up.control),
        ("runtime_dir", now.runtime_dir == next.runtime_dir),
    ];
    let changed: Vec<&str> = fixed.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!("{} cannot change while it runs: stop it with `lasthit down` and start it anew", changed.join(", ")))
}

/// SIGHUP is `lasthit reload`. The log says what came of it.
fn reload_at_hangup(asks: mpsc::Sender<Ask>) -> std::io::Result<()> {
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let (told, mut telling) = mpsc::channel(PROGRESS_LINES_WAITING);
            if asks.send(Ask::Reload(told)).await.is_err() {
                return;
            }
            while let Some(told) = telling.recv().await {
                match told {
                    Told::Progress(line) => tracing::info!("reload: {line}"),
                    Told::Done => tracing::info!("reload: done"),
                    Told::Failed(why) => tracing::error!("reload: {why}"),
                }
            }
        }
    });
    Ok(())
}
