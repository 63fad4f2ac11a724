//! Runs gateways and workers as processes of its own: `lasthit up`, or [`Supervisor::run`] in a program of your own.
// `plan` decides what is done next: a step function over slots and children, without I/O, clock or chance. `policy` has what is
// decided by numbers alone. The dispatcher (`run`) carries the plan out, the `door` passes connections on, and `control` takes commands in.

mod ask;
pub(crate) mod asking;
mod children;
pub(crate) mod client;
mod control;
mod door;
mod gather;
mod handed;
mod host;
mod logs;
mod managed;
mod own;
mod parked;
pub(crate) mod plan;
pub(crate) mod policy;
mod run;
mod spawn;
mod state;
mod strangers;
mod stream;
mod succeed;
pub(crate) mod takeover;
mod top;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ask::Ask;
use self::asking::CONTROL_FILE;
use self::control::{Control, Open};
use self::handed::Handed;
use self::logs::Logs;
use self::managed::{Home, Managed, Wanted};
pub use self::own::{Error, Settings, Supervisor};
use self::own::{Gather, Latest};
use self::parked::Parked;
use self::plan::step;
use self::policy::counts::{self, Deployment};
use self::run::{Dispatcher, End, Kit, Prepare, Prepared, Surroundings};
use self::spawn::{Binary, Other};
use self::state::State;
use self::stream::Streams;
use crate::child::channel::taken_stdin;
use crate::child::settings as child;
use crate::config::{Config, RedisUrl};
use crate::journal::redis::Durability;
use crate::limits::{LAST_ANSWERS_TIMEOUT, REQUESTS_MAX};
use crate::runtime::release_signals;
use crate::telemetry::LogFormat;

/// With what a supervisor begins.
pub(crate) enum Begin {
    /// With a configuration.
    Anew(Box<Config>, child::Settings),
    /// With what another image has handed over.
    Resumed(Box<Parked>),
}

/// How one ends.
pub(crate) enum Ended {
    /// Nothing runs any more: the exit code.
    Code(u8),
    /// Another image goes on: it is to be executed.
    Parked(Box<Parked>),
}

impl Begin {
    /// What another image has handed over on stdin. None: nothing was.
    pub(crate) fn handed_over() -> Option<Result<Self, String>> {
        let socket = taken_stdin().ok().flatten()?;
        let parked =
            Parked::receive(&socket).map_err(|error| format!("what the last image has handed over cannot be read: {error}"));
        Some(parked.map(|parked| Self::Resumed(Box::new(parked))))
    }

    /// The format and the filter of the log.
    ///
    /// # Errors
    /// One line when what was handed over cannot be read.
    pub(crate) fn log(&self) -> Result<(LogFormat, String), String> {
        match self {
            Self::Anew(config, _) => Ok((config.log_format, config.log.clone())),
            Self::Resumed(parked) => {
                let (state, _) = State::read(&parked.state, Duration::ZERO)?;
                Ok((format_of(state.json), state.log))
            }
        }
    }
}

fn format_of(json: bool) -> LogFormat {
    if json { LogFormat::Json } else { LogFormat::Text }
}

/// Runs processes, until `stop` or a command. Signals that are held when it is called are let go.
///
/// # Errors
/// When they cannot be run at all.
pub(crate) async fn up(begin: Begin, gather: Option<Gather>, stop: CancellationToken) -> anyhow::Result<Ended> {
    let (asker, asks) = mpsc::channel(REQUESTS_MAX);
    let stays = gather.is_some();
    let (asker, prepare): (_, Prepare) = match gather {
        None => (asker, Box::new(|path, now, there| prepare(now.child.again()?, path, now, there))),
        Some(gather) => {
            let (asker, latest) = Latest::before(asker, gather);
            (asker, Box::new(move |path, now, there| prepare(latest.get()?, path, now, there)))
        }
    };
    reload_at_hangup(asker.clone())?;
    let (streams, connections) = (Streams::default(), TaskTracker::new());
    let (open, is_open) = watch::channel(true);
    let surround = |json, log: String, control: &Path| -> anyhow::Result<Surroundings> {
        let logs = Logs::start(format_of(json)).context("the log's thread cannot start")?;
        let (control, connections) = (control.to_owned(), connections.clone());
        Ok(Surroundings { logs, json, log, control, stays, open: open.clone(), connections })
    };
    let (mut dispatcher, control, admin, wanted) = match begin {
        Begin::Anew(config, child) => {
            let mut handed = Handed::take().map_err(anyhow::Error::msg)?;
            // By its path: what is there at a reload is what runs then.
            let program = std::env::current_exe().context("the path of this program is not known")?;
            let own_redis = config.up.managed().map(|level| Ok::<_, String>((Home::open(config.up.data.as_deref())?, level)));
            let own_redis = own_redis.transpose().map_err(anyhow::Error::msg)?;
            let (url, level) = own_redis.as_ref().map(|(home, level)| (home.url(), *level)).unzip();
            let child = child::Settings { managed: url, ..child };
            let mut first = prepared(&config, Binary::own()?, program, child, level).map_err(anyhow::Error::msg)?;
            first.listeners = listeners(&config, &BTreeMap::new(), &mut handed).map_err(anyhow::Error::msg)?;
            handed.all_taken(&addresses(&config)).map_err(anyhow::Error::msg)?;
            let path = config.up.control.clone().or_else(|| Some(config.runtime_dir.as_ref()?.join(CONTROL_FILE)));
            let path = path.context("without --runtime-dir there is no place for commands: give --control PATH")?;
            let control = Control::bind(&path)?;
            tracing::info!("commands such as `lasthit ps` come in at {}", path.display());
            let admin = match config.admin {
                Some(address) => {
                    let admin = TcpListener::bind(address)
                        .await
                        .with_context(|| format!("cannot listen on {address} for health and metrics"))?;
                    tracing::info!("health and metrics on http://{}/", admin.local_addr()?);
                    Some(admin)
                }
                None => None,
            };
            let surroundings = surround(config.log_format == LogFormat::Json, config.log.clone(), &path)?;
            let wanted = own_redis.map(|(home, durability)| {
                tracing::info!("redis is managed: other commands reach it by --redis {}", home.url());
                Wanted { home, durability, ready_timeout: config.up.ready_timeout, stop_timeout: config.up.stop_timeout }
            });
            let dispatcher = Dispatcher::start(first, prepare, surroundings, asks, stop.clone())?;
            (dispatcher, control, admin, wanted)
        }
        Begin::Resumed(mut parked) => {
            let (state, plan) = State::read(&parked.state, Duration::ZERO).map_err(anyhow::Error::msg)?;
            let surroundings = surround(state.json, state.log.clone(), &state.control)?;
            surroundings.logs.resume(state.lines.clone(), state.lost_lines);
            let control = Control::resume(state.control.clone(), &mut parked.descriptors)?;
            let admin = parked.descriptors.take("admin").map(|admin| TcpListener::from_std(admin.into())).transpose()?;
            if state.stops {
                stop.cancel();
            }
            let mut dispatcher = Dispatcher::of(plan, prepare, surroundings, asks, stop.clone())?;
            dispatcher.resume(state, &mut parked, &streams, &control)?;
            (dispatcher, control, admin, None)
        }
    };
    let logs = dispatcher.surroundings.logs.clone();
    let is_open = Open(is_open);
    let running = async {
        if let Some(wanted) = wanted {
            match Managed::start(wanted, logs.clone(), &stop).await.map_err(anyhow::Error::msg)? {
                Some(managed) => dispatcher.managed = Some(managed),
                None => return Ok::<_, anyhow::Error>(End::Code(0)),
            }
        }
        Ok(dispatcher.run().await)
    };
    let end = tokio::select! {
        end = running => end?,
        () = control.serve(asker.clone(), logs.clone(), &connections, &streams, is_open.clone()) => End::Code(0),
        () = control::serve_health(admin.as_ref(), asker, &connections, is_open) => End::Code(0),
    };
    match end {
        End::Code(code) => {
            drop(dispatcher);
            // Whoever asked for the end hears of it.
            connections.close();
            let _ = tokio::time::timeout(LAST_ANSWERS_TIMEOUT, connections.wait()).await;
            streams.finish(LAST_ANSWERS_TIMEOUT).await;
            Ok(Ended::Code(code))
        }
        End::Execute(generation) => {
            let (state, mut descriptors) = dispatcher.park(&streams).await?;
            control.park(&mut descriptors)?;
            if let Some(admin) = admin {
                descriptors.put("admin", admin.into_std()?);
            }
            let state = state.write().map_err(anyhow::Error::msg)?;
            let image = format!("binary {}", generation.0);
            Ok(Ended::Parked(Box::new(Parked { state, descriptors, image, failed: None })))
        }
    }
}

/// What a reload brings by these settings and the program at a path, given what runs now and which deployments listen.
fn prepare(child: child::Settings, path: &Path, now: &Kit, there: &BTreeMap<String, bool>) -> Result<Prepared, String> {
    let child = child::Settings { managed: now.child.managed.clone(), ..child };
    let next = child.of_supervisor().map_err(|error| error.mistakes.join("; "))?;
    fits(&now.fixed, &fixed(&next))?;
    let level = now.level;
    if let Some(wanted) = next.up.managed().filter(|wanted| level != Some(*wanted) && level != Some(Durability::Disk)) {
        return Err(format!(
            "a managed redis of durability {wanted} is brought by a start alone: stop it with `lasthit down` and start it anew"
        ));
    }
    let binary = Binary::at(path).map_err(|error| format!("{} cannot be run: {error}", path.display()))?;
    let prepared = prepared(&next, binary, path.to_owned(), child, level)?;
    Ok(Prepared { listeners: listeners(&next, there, &mut Handed::default())?, ..prepared })
}

/// What a configuration asks for. It opens no listener.
fn prepared(
    config: &Config,
    binary: Binary,
    path: PathBuf,
    child: child::Settings,
    level: Option<Durability>,
) -> Result<Prepared, String> {
    let kit = Kit { binary, path, child, workers: workers(config)?, fixed: fixed(config), level };
    Ok(Prepared { settings: settings(config)?, kit, listeners: Vec::new() })
}

/// The programs of somebody else that are workers, by their deployments.
fn workers(config: &Config) -> Result<HashMap<String, Other>, String> {
    let mut workers = HashMap::new();
    for (name, config) in &config.up.deployments {
        if let Some(words) = &config.up.worker_command {
            let other = Other::find(words).map_err(|why| format!("worker_command: {:?} {why}", words[0]))?;
            workers.insert(name.clone(), other);
        }
    }
    Ok(workers)
}

/// The plan's part of a configuration.
fn settings(config: &Config) -> Result<step::Settings, String> {
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
    Ok(step::Settings {
        deployments,
        ready_timeout: up.ready_timeout,
        stop_timeout: up.stop_timeout,
        hang_timeout: up.hang_timeout,
        drain_window: up.drain_window,
        recycle: up.recycle,
        even: up.even,
    })
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

/// What all processes share, or all of a deployment, by the names of the settings: it cannot change one by one. It holds secrets.
fn fixed(config: &Config) -> Vec<(String, String)> {
    let mut fixed = vec![
        ("admin".to_owned(), format!("{:?}", config.admin)),
        ("control".to_owned(), format!("{:?}", config.up.control)),
        ("data".to_owned(), format!("{:?}", config.up.data)),
        ("runtime_dir".to_owned(), format!("{:?}", config.runtime_dir)),
    ];
    for (name, config) in &config.up.deployments {
        let of = if name.is_empty() { String::new() } else { format!("{name}/") };
        let own = [
            ("redis", config.redis.as_ref().map_or_else(String::new, |url| url.reveal().to_owned())),
            ("prefix", config.prefix.clone()),
            ("shards", config.shards.to_string()),
            ("durability", format!("{:?}", config.durability)),
            ("listen", config.listen.to_string()),
        ];
        fixed.extend(own.map(|(setting, value)| (format!("{of}{setting}"), value)));
    }
    fixed
}

/// Whether what runs may become what a configuration says. What only one of them has comes or goes with its deployment.
fn fits(now: &[(String, String)], next: &[(String, String)]) -> Result<(), String> {
    let is_other = |(setting, value): &&(String, String)| now.iter().any(|(other, was)| other == setting && was != value);
    let changed: Vec<&str> = next.iter().filter(is_other).map(|(setting, _)| setting.as_str()).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!("{} cannot change while it runs: stop it with `lasthit down` and start it anew", changed.join(", ")))
}

/// SIGHUP is `lasthit reload`. From here on signals that were held come.
fn reload_at_hangup(asks: mpsc::Sender<Ask>) -> anyhow::Result<()> {
    let mut hangup =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).context("signals cannot be watched")?;
    tokio::spawn(async move { while hangup.recv().await.is_some() && asks.send(Ask::Hangup).await.is_ok() {} });
    Ok(release_signals()?)
}
