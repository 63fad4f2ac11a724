//! The configuration of a process: flags override the environment (`LASTHIT_*`), which overrides a TOML file. Everything is
//! parsed and checked before anything starts. All mistakes are reported at once, one line each: the place, the value, the fix.
//!
//! Every setting has one name: `gateway_timeout_ms` in the file is `--gateway-timeout-ms` as a flag and
//! `LASTHIT_GATEWAY_TIMEOUT_MS` in the environment. One file may serve all roles: settings of the other roles are
//! checked and otherwise ignored. Two are exceptions: `[[rooms]]` is only in the
//! file, and the JWT key itself is only in the environment (`LASTHIT_JWT_KEY`), because process lists show flags, and files get
//! copied.

mod deployments;
mod outside;
mod rooms;
mod sources;
mod up;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use rooms::{RoomRules, program_text};
pub use sources::Flags;
#[cfg(test)]
pub(crate) use sources::is_setting;
pub(crate) use sources::{FileText, JWT_KEY, Sources, env_name, of_environment, read_file, wrong_name};
pub(crate) use up::Up;
pub(crate) use values::RedisUrl;

use crate::gateway::front::auth::{JwtKey, Origin};
use crate::journal::default_runtime_dir;
use crate::journal::redis::Durability;
use crate::limits;
use crate::rules::RulesBook;
use crate::rules::js::{Budget, Checking};
use crate::runtime::Priority;
use crate::telemetry::LogFormat;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    /// Gateway and worker in one process, on the memory journal.
    Serve,
    /// Terminates WebSockets; on Redis.
    Gateway,
    /// Resolves rooms; on Redis.
    Worker,
    /// Runs gateways and workers as processes of their own; on Redis.
    Up,
}

impl ProcessRole {
    /// The subcommand's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
            Self::Up => "up",
        }
    }

    /// Whether it listens for players.
    #[must_use]
    pub fn listens(self) -> bool {
        self != Self::Worker
    }
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this process does.
    pub role: ProcessRole,
    /// Where Redis is. Always there for `gateway` and `worker`, never for `serve`. None for `up`: it runs one of its own.
    pub redis: Option<RedisUrl>,
    /// Prefix of all keys in Redis.
    pub prefix: String,
    /// Shards of the deployment: 1 to `limits::SHARDS_MAX`.
    pub shards: u16,
    /// Address that players connect to. Unused by `worker`.
    pub listen: SocketAddr,
    /// Under which URL players reach the gateways of this host, if it was told.
    pub advertise: Option<String>,
    /// Address that serves health and metrics, if any.
    pub admin: Option<SocketAddr>,
    /// Whether players from other hosts are accepted without a key.
    pub allow_keyless: bool,
    /// Whether health and metrics may be reached from other hosts.
    pub allow_remote_admin: bool,
    /// Whether, without a key, the gateway accepts its own page under any host name.
    pub allow_host_names: bool,
    /// The key of the players' tokens. None: `role=server` in the URL is believed.
    pub jwt_key: Option<JwtKey>,
    /// Origins of pages that may connect. Empty: loopback and the gateway's own page.
    pub allowed_origins: Vec<Origin>,
    /// Rooms that a worker resolves at once.
    pub concurrency: usize,
    /// How long a gateway may owe a watermark before it is fenced.
    pub gateway_timeout: Duration,
    /// How long rules may take over one event.
    pub rules_timeout: Duration,
    /// How long a worker's heartbeat is valid.
    pub lease: Duration,
    /// How long a shard's home may be without a worker or a gateway before another host takes the shard over. None: two leases.
    pub rehome_after: Option<Duration>,
    /// How long resolved events and verdicts are kept.
    pub retention: Duration,
    /// What a verdict has survived before anyone sees it.
    pub durability: Durability,
    /// Where this host's processes have their lock files, if anywhere.
    pub runtime_dir: Option<PathBuf>,
    /// How the system chooses between this process and the others of its host.
    pub priority: Priority,
    /// How long a room may be empty before it ends.
    pub room_linger: Duration,
    /// Sessions of one gateway. None: `limits::SESSIONS_MAX`, or as many as the process may open files for.
    pub sessions_max: Option<usize>,
    /// Sessions of one address: on one gateway, or on all behind one door.
    pub sessions_per_address: usize,
    /// Connections that one address may open to one gateway in a second.
    pub connections_per_second: u32,
    /// Sessions of one player on one gateway.
    pub sessions_per_player: usize,
    /// Actions that one session may send in a second.
    pub actions_per_second: u32,
    /// How far a gateway's watermark stays behind the start of the sweep that proves it.
    pub sweep_guard: Duration,
    /// Longest time that the network card may hold a message back before it is stamped: at most `limits::UNCERTAINTY_MAX`.
    pub uncertainty: Duration,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Log lines to write: a level, or `target=level,...`. It is valid.
    pub log: String,
    /// Whether files of rules are read again when they change, and each event is checked by deciding it twice.
    pub watch: bool,
    /// Rules by room name pattern; the first that matches counts.
    pub rooms: Vec<RoomRules>,
    /// What a supervisor runs. Unused by the others.
    pub(crate) up: Up,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("\n"))]
pub struct ConfigError {
    /// The mistakes, one line each.
    pub mistakes: Vec<String>,
}

impl Config {
    /// The defaults of a role.
    #[must_use]
    pub fn defaults(role: ProcessRole) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            role,
            redis: None,
            prefix: "lasthit".to_owned(),
            shards: limits::SHARDS_DEFAULT,
            listen: SocketAddr::from(([127, 0, 0, 1], 7777)),
            advertise: None,
            // A worker serves no health and metrics by default, so that several can start with the same settings.
            admin: role.listens().then(|| SocketAddr::from(([127, 0, 0, 1], 7778))),
            allow_keyless: false,
            allow_remote_admin: false,
            allow_host_names: false,
            jwt_key: None,
            allowed_origins: Vec::new(),
            concurrency: cores.min(limits::CONCURRENCY_MAX),
            gateway_timeout: limits::GATEWAY_TIMEOUT,
            rules_timeout: limits::RULES_TIMEOUT,
            lease: limits::LEASE_TIMEOUT,
            rehome_after: None,
            retention: limits::RETENTION,
            durability: Durability::Redis,
            runtime_dir: Some(default_runtime_dir()),
            priority: Priority::Normal,
            room_linger: limits::ROOM_LINGER,
            sessions_max: None,
            sessions_per_address: limits::SESSIONS_PER_ADDRESS,
            connections_per_second: limits::CONNECTIONS_PER_SECOND,
            sessions_per_player: limits::SESSIONS_PER_PLAYER,
            actions_per_second: limits::ACTIONS_PER_SECOND,
            sweep_guard: limits::SWEEP_GUARD,
            uncertainty: Duration::ZERO,
            log_format: LogFormat::Text,
            log: "info".to_owned(),
            watch: false,
            rooms: rooms::defaults(),
            up: Up::default(),
        }
    }

    /// Reads flags, environment (by name) and, when `config` names one, a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`] with all mistakes.
    pub fn load(role: ProcessRole, flags: Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::load_from(role, Sources::open(flags, env))
    }

    /// As [`Config::load`], from sources that were opened before.
    ///
    /// # Errors
    /// [`ConfigError`] with all mistakes.
    pub(crate) fn load_from(role: ProcessRole, mut from: Sources<'_>) -> Result<Self, ConfigError> {
        let mut config = Self::read(role, &mut from);
        if role == ProcessRole::Up {
            config.up.deployments = deployments::read(&config, &mut from);
        } else {
            config.cross_check(&mut from);
        }
        from.finish(config)
    }

    /// Reads each setting, and checks it by itself.
    fn read(role: ProcessRole, from: &mut Sources<'_>) -> Self {
        let d = Self::defaults(role);
        let redis = from.redis(role == ProcessRole::Up);
        // A redis of the supervisor's own keeps what it has.
        let is_managed = from.managed.is_some() || role == ProcessRole::Up && redis.is_none();
        let durability = if is_managed { Durability::Disk } else { d.durability };
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            role,
            redis,
            prefix: from.get("prefix", d.prefix, values::prefix),
            shards: from.get("shards", d.shards, |v| values::whole(v, 1, limits::SHARDS_MAX)),
            listen: from.get("listen", d.listen, values::address),
            advertise: from.get("advertise", None, |v| crate::types::advertised(v).map(Some)),
            admin: from.get("admin", d.admin, values::address_or_none),
            allow_keyless: from.get("allow_keyless", false, values::yes_or_no),
            allow_remote_admin: from.get("allow_remote_admin", false, values::yes_or_no),
            allow_host_names: from.get("allow_host_names", false, values::yes_or_no),
            jwt_key: jwt_key(from),
            allowed_origins: from.get("allowed_origins", Vec::new(), values::origins),
            concurrency: from.get("concurrency", d.concurrency, |v| values::whole(v, 1, limits::CONCURRENCY_MAX)),
            gateway_timeout: Duration::from_millis(from.get("gateway_timeout_ms", millis(d.gateway_timeout), |v| {
                values::whole(v, limits::GATEWAY_TIMEOUT_MS_MIN, limits::GATEWAY_TIMEOUT_MS_MAX)
            })),
            rules_timeout: Duration::from_millis(from.get("rules_timeout_ms", millis(d.rules_timeout), |v| {
                values::whole(v, limits::RULES_TIMEOUT_MS_MIN, limits::RULES_TIMEOUT_MS_MAX)
            })),
            lease: Duration::from_millis(
                from.get("lease_ms", millis(d.lease), |v| values::whole(v, limits::LEASE_MS_MIN, limits::LEASE_MS_MAX)),
            ),
            rehome_after: from.get("rehome_after_ms", None, |v| {
                let ms = values::whole(v, limits::REHOME_AFTER_MS_MIN, limits::REHOME_AFTER_MS_MAX)?;
                Ok(Some(Duration::from_millis(ms)))
            }),
            retention: from.get("retention", d.retention, |v| values::duration(v, limits::RETENTION_MIN, limits::RETENTION_MAX)),
            durability: from.get("durability", durability, |v| values::word(v, &Durability::NAMES)),
            runtime_dir: from.get("runtime_dir", d.runtime_dir, values::directory_or_none),
            priority: from.get("priority", d.priority, |v| values::word(v, &Priority::NAMES)),
            room_linger: from
                .get("room_linger", d.room_linger, |v| values::duration(v, limits::ROOM_LINGER_MIN, limits::ROOM_LINGER_MAX)),
            sessions_max: from.get("sessions_max", None, |v| values::whole(v, 1, limits::SESSIONS_SETTING_MAX).map(Some)),
            sessions_per_address: from
                .get("sessions_per_address", d.sessions_per_address, |v| values::whole(v, 1, limits::SESSIONS_SETTING_MAX)),
            connections_per_second: from.get("connections_per_second", d.connections_per_second, |v| {
                values::whole(v, 1, limits::CONNECTIONS_PER_SECOND_MAX)
            }),
            sessions_per_player: from.get("sessions_per_player", d.sessions_per_player, |v| {
                values::whole(v, limits::SESSIONS_PER_PLAYER_MIN, limits::SESSIONS_SETTING_MAX)
            }),
            actions_per_second: from
                .get("actions_per_second", d.actions_per_second, |v| values::whole(v, 1, limits::ACTIONS_PER_SECOND_MAX)),
            sweep_guard: Duration::from_micros(
                from.get("sweep_guard_us", micros(d.sweep_guard), |v| values::whole(v, 0, micros(limits::SWEEP_GUARD_MAX))),
            ),
            uncertainty: Duration::from_micros(
                from.get("uncertainty_us", micros(d.uncertainty), |v| values::whole(v, 0, micros(limits::UNCERTAINTY_MAX))),
            ),
            log_format: from
                .get("log_format", d.log_format, |v| values::word(v, &[("text", LogFormat::Text), ("json", LogFormat::Json)])),
            log: from.get("log", d.log, values::log_filter),
            watch: from.get("watch", false, values::yes_or_no),
            rooms: rooms::read(from).or_else(|| Self::program(from)).unwrap_or(d.rooms),
            up: Up::read(from),
        }
    }

    /// The rules of all rooms, if `rules` names a program.
    fn program(from: &mut Sources<'_>) -> Option<Vec<RoomRules>> {
        from.get("rules", None, |path| {
            rooms::load(path.as_ref(), Budget::default()).map(|program| Some(rooms::all_by(program, path.into())))
        })
    }

    /// Reads the configuration of a command that reads what is stored. `or` is given if it needs `redis`: what else would do.
    ///
    /// # Errors
    /// [`ConfigError`] with all mistakes.
    pub fn load_to_read(flags: Flags, env: &dyn Fn(&str) -> Option<String>, or: Option<&str>) -> Result<Self, ConfigError> {
        let mut from = Sources::open(flags, env);
        let config = Self::read(ProcessRole::Worker, &mut from);
        if let Some(or) = or.filter(|_| from.place("redis").is_none()) {
            from.mistake(format!("redis is missing: give --redis redis://127.0.0.1:6379{or}"));
        }
        from.finish(config)
    }

    /// Reports settings that do not fit together. A setting that is wrong by itself was reported already.
    fn cross_check(&self, from: &mut Sources<'_>) {
        if let (Some(place), Some((_, path))) = (from.place("rules"), from.rooms()) {
            from.mistake(format!("{place}: {path} has [[rooms]], which say what decides: keep one of them"));
        }
        match self.role {
            ProcessRole::Serve => {
                if let Some(place) = from.place("redis") {
                    from.mistake(format!(
                        "{place}: serve keeps its rooms in memory and uses no redis: remove it, or run `lasthit gateway` and `lasthit worker`"
                    ));
                }
                if self.durability != Durability::Redis {
                    let place = from.place("durability").unwrap_or_default();
                    from.mistake(format!(
                        "{place}: serve keeps its rooms in memory, which survives nothing: remove it, or run `lasthit gateway` and `lasthit worker`"
                    ));
                }
            }
            ProcessRole::Up if self.redis.is_none() && self.durability == Durability::Replicated => {
                let place = from.place("durability").unwrap_or_default();
                from.mistake(format!(
                    "{place}: \"replicated\" needs replicas, and a managed redis has none: use disk, or give --redis URL of one that has"
                ));
            }
            ProcessRole::Gateway | ProcessRole::Worker if self.redis.is_none() && from.place("redis").is_none() => {
                from.mistake(format!(
                    "redis is missing: give {} --redis redis://127.0.0.1:6379 (or LASTHIT_REDIS, or redis in the file)",
                    self.role.as_str()
                ));
            }
            ProcessRole::Gateway | ProcessRole::Worker | ProcessRole::Up => {}
        }
        if let Some(after) = self.rehome_after.filter(|after| *after < self.lease * 2) {
            let place = from.place("rehome_after_ms").unwrap_or_default();
            from.mistake(format!(
                "{place}: {} is less than two leases, within which a host that lives may be silent: use {} or more",
                after.as_millis(),
                (self.lease * 2).as_millis()
            ));
        }
        if let Some(place) = from.place("advertise").filter(|_| self.role == ProcessRole::Serve) {
            from.mistake(format!("{place}: serve has its rooms to itself, and no other host: remove it"));
        }
        if self.role.listens() && !self.listen.ip().is_loopback() && self.jwt_key.is_none() && !self.allow_keyless {
            // A wrong key was reported already: it is not missing.
            if !from.knows("jwt_key_file") && !from.has_env("jwt_key") {
                let place = from.place("listen").unwrap_or_default();
                from.mistake(format!(
                    "{place}: {:?} is reachable from other hosts and there is no key, so anyone could act as any player: \
                     set --jwt-key-file or LASTHIT_JWT_KEY, or give --allow-keyless",
                    self.listen.to_string()
                ));
            }
        }
        let Some(admin) = self.admin else { return };
        if !admin.ip().is_loopback() && !self.allow_remote_admin {
            let place = from.place("admin").unwrap_or_default();
            from.mistake(format!(
                "{place}: {:?} is reachable from other hosts and health and metrics have no password: \
                 use a loopback address, or give --allow-remote-admin",
                admin.to_string()
            ));
        }
        if self.role.listens() && admin == self.listen && admin.port() != 0 {
            from.mistake(format!("listen and admin are both {:?}: give one of them another port", self.listen.to_string()));
        }
    }

    /// The rules by room name.
    #[must_use]
    pub fn rules_book(&self) -> RulesBook {
        rooms::book(&self.rooms, if self.watch { Checking::EachEvent } else { Checking::Off })
    }

    /// Warnings for the operator, one log line each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if !self.up.deployments.is_empty() {
            let named = |name: &str, line| if name.is_empty() { line } else { format!("{name}: {line}") };
            let all = self.up.deployments.iter();
            return all.flat_map(|(name, config)| config.notices().into_iter().map(|line| named(name, line))).collect();
        }
        if self.role == ProcessRole::Serve {
            notices.push("rooms are in this process's memory and end with it".to_owned());
        }
        if self.watch && self.rooms.iter().any(|room| matches!(room.rules, rooms::RulesChoice::Program(_))) {
            notices.push(
                "--watch looks at files in JavaScript only: end a process's instances to bring in a new version".to_owned(),
            );
        }
        if self.role.listens() && self.jwt_key.is_none() {
            notices.push(format!(
                "no jwt key: the gateway believes every player's name, and role=server in the url grants that role; {}",
                if self.listen.ip().is_loopback() {
                    "only this host can connect (other hosts need a key, or --allow-keyless)"
                } else {
                    "other hosts can connect, because of --allow-keyless"
                }
            ));
            if self.allow_host_names {
                notices.push("--allow-host-names: a page under any host name that leads to this host may connect".to_owned());
            }
        }
        notices
    }
}

fn jwt_key(from: &mut Sources<'_>) -> Option<JwtKey> {
    let file = from.get("jwt_key_file", None, |v| values::jwt_key_file(v).map(Some));
    let Some(key) = from.env("jwt_key") else { return file };
    if let Some(place) = from.place("jwt_key_file") {
        from.mistake(format!("LASTHIT_JWT_KEY and {place} are both given: keep one"));
    }
    JwtKey::new(key.as_bytes()).map_err(|e| from.mistake(format!("LASTHIT_JWT_KEY: {e}"))).ok()
}

#[cfg(test)]
mod tests;
