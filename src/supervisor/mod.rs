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
mod handed;
mod host;
mod logs;
mod managed;
pub(crate) mod plan;
pub(crate) mod policy;
mod run;
mod spawn;
mod strangers;
mod top;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ask::{Ask, Told};
use self::asking::CONTROL_FILE;
use self::control::Control;
use self::handed::Handed;
use self::logs::Logs;
use self::managed::{Home, Managed, Wanted};
use self::plan::step::Settings;
use self::policy::counts::{self, Deployment};
use self::run::{Kit, Prepared, run};
use self::spawn::{Binary, Other};
use crate::child::settings as child;
use crate::config::{Config, RedisUrl};
use crate::journal::redis::Durability;
use crate::limits::{LAST_ANSWERS_TIMEOUT, PROGRESS_LINES_WAITING, REQUESTS_MAX};

/// Runs the processes that a configuration asks for, until `stop`. Returns the exit code.
///
/// # Errors
/// When they cannot be run at all.
pub(crate) async fn up(config: Config, child: child::Settings, stop: CancellationToken) -> anyhow::Result<u8> {
    let mut handed = Handed::take().map_err(anyhow::Error::msg)?;
    // By its path: what is there at a reload is what runs then.
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let own_redis = config.up.managed().map(|level| Ok::<_, String>((Home::open(config.up.data.as_deref())?, level)));
    let own_redis = own_redis.transpose().map_err(anyhow::Error::msg)?;
    let (url, level) = own_redis.as_ref().map(|(home, level)| (home.url(), *level)).unzip();
    let child = child::Settings { managed: url, ..child };
    let mut first = prepared(&config, child, Binary::own()?).map_err(anyhow::Error::msg)?;
    first.listeners = listeners(&config, &BTreeMap::new(), &mut handed).map_err(anyhow::Error::msg)?;
    handed.all_taken(&addresses(&config)).map_err(anyhow::Error::msg)?;
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
    let (gathered, ready_timeout, stop_timeout) = (first.kit.child.clone(), config.up.ready_timeout, config.up.stop_timeout);
    // By their names; what was added later, too.
    let mut known: BTreeMap<String, Config> = config.up.deployments.iter().cloned().collect();
    let prepare = Box::new(move |there: &BTreeMap<String, bool>| {
        let child = gathered.again()?;
        let next = child.of_supervisor().map_err(|error| error.mistakes.join("; "))?;
        known.retain(|name, _| there.contains_key(name));
        fits(&config, &known, &next)?;
        if let Some(wanted) = next.up.managed().filter(|wanted| level != Some(*wanted) && level != Some(Durability::Disk)) {
            return Err(format!(
                "a managed redis of durability {wanted} is brought by a start alone: stop it with `lasthit down` and start it anew"
            ));
        }
        let binary = Binary::at(&program).map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        let prepared =
            Prepared { listeners: listeners(&next, there, &mut Handed::default())?, ..prepared(&next, child, binary)? };
        for (name, config) in next.up.deployments {
            known.entry(name).or_insert(config);
        }
        Ok(prepared)
    });
    let connections = TaskTracker::new();
    let running = async {
        let managed = match own_redis {
            None => None,
            Some((home, durability)) => {
                tracing::info!("redis is managed: other commands reach it by --redis {}", home.url());
                let wanted = Wanted { home, durability, ready_timeout, stop_timeout };
                let Some(managed) = Managed::start(wanted, logs.clone(), &stop).await.map_err(anyhow::Error::msg)? else {
                    return Ok::<_, anyhow::Error>(0);
                };
                Some(managed)
            }
        };
        Ok(run(first, prepare, managed, logs.clone(), asks, stop).await?)
    };
    let code = tokio::select! {
        code = running => code?,
        () = socket.serve(asker.clone(), logs.clone(), &connections) => 0,
        () = control::serve_health(admin, asker) => 0,
    };
    // Whoever asked for the end hears of it.
    connections.close();
    let _ = tokio::time::timeout(LAST_ANSWERS_TIMEOUT, connections.wait()).await;
    Ok(code)
}

/// What a configuration asks for. It opens no listener.
fn prepared(config: &Config, child: child::Settings, binary: Binary) -> Result<Prepared, String> {
    let up = &config.up;
    // Deployments share the cores.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) / up.deployments.len().max(1);
    let deployments = up.deployments.iter().map(|(name, config)| {
        let (gateways, workers) = counts::auto(cores, config.redis.as_ref().is_none_or(RedisUrl::is_on_this_host), config.shards);
        Deployment {
            name: name.clone(),
            gateways: config.up.gateways.or(gateways),
            workers: config.up.workers.or(workers),
            shards: config.shards,
        }
    });
    let deployments: Vec<Deployment> = deployments.collect();
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
    let mut workers = HashMap::new();
    for (name, config) in &up.deployments {
        if let Some(words) = &config.up.worker_command {
            let other = Other::find(words).map_err(|why| format!("worker_command: {:?} {why}", words[0]))?;
            workers.insert(name.clone(), other);
        }
    }
    Ok(Prepared { settings, kit: Kit { binary, child, workers }, listeners: Vec::new() })
}

/// Where a configuration listens.
fn addresses(config: &Config) -> Vec<SocketAddr> {
    let all = config.up.deployments.iter().map(|(_, config)| config);
    all.filter(|config| config.up.gateways.or(1).most() > 0).map(|config| config.listen).collect()
}

/// A listener for each deployment that has gateways, but for those that listen already.
fn listeners(
    config: &Config,
    there: &BTreeMap<String, bool>,
    handed: &mut Handed,
) -> Result<Vec<(String, std::net::TcpListener)>, String> {
    let is_missing = |name: &str, config: &Config| config.up.gateways.or(1).most() > 0 && there.get(name) != Some(&true);
    let mut listeners = Vec::new();
    for (name, config) in config.up.deployments.iter().filter(|(name, config)| is_missing(name, config)) {
        let listener = handed.listen(config.listen)?;
        let address = listener.local_addr().map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
        let of = if name.is_empty() { String::new() } else { format!("{name}: ") };
        tracing::info!("{of}open http://{address}/ to play, connect to ws://{address}/v1/room/ROOM");
        listeners.push((name.clone(), listener));
    }
    Ok(listeners)
}

/// Whether what runs may become what a configuration says. What all processes of a deployment share cannot change one by one.
fn fits(now: &Config, deployments: &BTreeMap<String, Config>, next: &Config) -> Result<(), String> {
    let mut fixed = vec![
        ("admin".to_owned(), now.admin == next.admin),
        ("control".to_owned(), now.up.control == next.up.control),
        ("data".to_owned(), now.up.data == next.up.data),
        ("runtime_dir".to_owned(), now.runtime_dir == next.runtime_dir),
    ];
    for (name, next) in &next.up.deployments {
        let Some(now) = deployments.get(name) else { continue };
        let redis = |config: &Config| config.redis.as_ref().map(|url| url.reveal().to_owned());
        let of = if name.is_empty() { String::new() } else { format!("{name}/") };
        fixed.extend(
            [
                ("redis", redis(now) == redis(next)),
                ("prefix", now.prefix == next.prefix),
                ("shards", now.shards == next.shards),
                ("durability", now.durability == next.durability),
                ("listen", now.listen == next.listen),
            ]
            .map(|(setting, same)| (format!("{of}{setting}"), same)),
        );
    }
    let changed: Vec<String> = fixed.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect();
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
