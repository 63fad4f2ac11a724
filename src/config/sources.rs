//! The sources of settings (flags, environment, file), and the mistakes that were found in them.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError, RedisUrl};
use crate::limits::DEPLOYMENT_BYTES_MAX;
use crate::supervisor::policy::names::is_deployment;

/// Settings that the file may hold. Each but `rooms` and `deployments` may also be a flag, and each but these and `rules` an
/// environment variable.
const KEYS: [&str; 48] = [
    "redis",
    "prefix",
    "shards",
    "listen",
    "advertise",
    "admin",
    "allow_keyless",
    "allow_remote_admin",
    "allow_host_names",
    "jwt_key_file",
    "allowed_origins",
    "concurrency",
    "gateway_timeout_ms",
    "rules_timeout_ms",
    "lease_ms",
    "rehome_after_ms",
    "retention",
    "durability",
    "runtime_dir",
    "priority",
    "room_linger",
    "sessions_max",
    "sessions_per_address",
    "connections_per_second",
    "sessions_per_player",
    "actions_per_second",
    "sweep_guard_us",
    "uncertainty_us",
    "log_format",
    "log",
    RULES,
    "watch",
    "gateways",
    "workers",
    "worker_command",
    "control",
    "ready_timeout",
    "stop_timeout",
    "hang_timeout",
    "drain_window",
    "recycle_events",
    "recycle_age",
    "recycle_memory",
    "even",
    "data",
    ROOMS,
    DEPLOYMENTS,
    "config",
];

/// The key itself, which has only an environment variable.
pub(crate) const JWT_KEY: &str = "jwt_key";
/// The setting that has no environment variable.
const RULES: &str = "rules";
/// The tables with the rules of rooms.
const ROOMS: &str = "rooms";
/// The tables that each hold the settings of one deployment.
const DEPLOYMENTS: &str = "deployments";

/// Settings of the supervisor itself, and of all its processes: a deployment has none of its own.
const OF_ALL: [&str; 15] = [
    "admin",
    "allow_remote_admin",
    "runtime_dir",
    "log_format",
    "control",
    "ready_timeout",
    "stop_timeout",
    "hang_timeout",
    "drain_window",
    "recycle_events",
    "recycle_age",
    "recycle_memory",
    "even",
    "data",
    DEPLOYMENTS,
];

/// The environment's settings, by the names of their variables.
pub(crate) fn of_environment(env: &dyn Fn(&str) -> Option<String>) -> std::collections::BTreeMap<String, String> {
    let names = KEYS.iter().filter(|key| **key != RULES).chain(&[JWT_KEY]).map(|key| env_name(key));
    names.filter_map(|name| env(&name).map(|value| (name, value))).collect()
}

/// What is wrong with the name of a setting that is given alone, if anything.
pub(crate) fn wrong_name(key: &str) -> Option<String> {
    (!is_known(key) || matches!(key, ROOMS | DEPLOYMENTS)).then(|| no_setting(key))
}

/// Whether a flag of that name (with `_` for `-`) sets anything.
#[cfg(test)]
pub(crate) fn is_setting(key: &str) -> bool {
    KEYS.contains(&key)
}

/// The settings of the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags(Vec<(String, String)>);

impl Flags {
    /// From a struct of optional values whose fields are named like the settings; absent ones are left out.
    #[must_use]
    pub fn of(args: &impl serde::Serialize) -> Self {
        Self::default().and(args)
    }

    /// Adds those of another such struct.
    #[must_use]
    pub fn and(mut self, args: &impl serde::Serialize) -> Self {
        let fields = match serde_json::to_value(args) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        self.0.extend(fields.into_iter().filter_map(|(key, value)| match value {
            serde_json::Value::String(text) => Some((key, text)),
            serde_json::Value::Bool(true) => Some((key, "true".to_owned())),
            _ => None,
        }));
        self
    }

    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push((key.to_owned(), value.to_owned()));
        self
    }

    /// All of them, by name.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    fn get(&self, key: &str) -> Option<String> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone())
    }
}

impl From<Vec<(String, String)>> for Flags {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }
}

/// A setting's text, and where it is set.
pub(super) struct Raw {
    pub(super) text: String,
    pub(super) place: String,
}

/// A configuration file: its path, and its text.
pub(crate) type FileText = (String, String);

/// Reads the file that flags or environment name, if they do.
///
/// # Errors
/// One line when it cannot be read.
pub(crate) fn read_file(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<FileText>, String> {
    let flag = flags.get("config").map(|path| ("--config".to_owned(), path));
    let Some((place, path)) = flag.or_else(|| Some((env_name("config"), env(&env_name("config"))?))) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) => Err(format!("{place}: {path:?} cannot be read ({error}): name a TOML file")),
    }
}

/// Where settings are looked up: flags before the environment, that before the table of the deployment, that before the top of the
/// file.
pub(crate) struct Sources<'a> {
    flags: Flags,
    env: &'a dyn Fn(&str) -> Option<String>,
    file: toml::Table,
    path: String,
    /// Whose table comes before the top of the file.
    deployment: Option<(String, toml::Table)>,
    /// Where the supervisor's own Redis is, for a process of those that use it.
    pub(crate) managed: Option<String>,
    mistakes: Vec<String>,
}

/// The environment variable of a setting.
pub(crate) fn env_name(key: &str) -> String {
    format!("LASTHIT_{}", key.to_ascii_uppercase())
}

impl<'a> Sources<'a> {
    /// With the file that flags or environment name.
    pub(super) fn open(flags: Flags, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let (file, mistake) = match read_file(&flags, env) {
            Ok(file) => (file, None),
            Err(mistake) => (None, Some(mistake)),
        };
        let mut sources = Self::with_text(flags, env, file);
        sources.mistakes.extend(mistake);
        sources
    }

    /// With a file that was read before.
    pub(crate) fn with_text(flags: Flags, env: &'a dyn Fn(&str) -> Option<String>, file: Option<FileText>) -> Self {
        let (path, text) = file.unwrap_or_default();
        let mut sources =
            Self { flags, env, file: toml::Table::new(), path, deployment: None, managed: None, mistakes: Vec::new() };
        match parse(&text) {
            Ok(file) => sources.file = file,
            Err(problem) => sources.mistake(format!("{} {problem}", sources.path)),
        }
        let unknown: Vec<String> = sources.file.keys().filter(|key| !is_known(key)).cloned().collect();
        for key in unknown {
            sources.mistake(format!("{}: {}", sources.path, no_setting(&key)));
        }
        sources
    }

    /// The names of the deployments that the file has. Mistakes are reported, those of names too.
    pub(super) fn deployments(&mut self) -> Vec<String> {
        let Some(value) = self.file.get(DEPLOYMENTS) else { return Vec::new() };
        let place = format!("{}, {DEPLOYMENTS}", self.path);
        let Some(tables) = value.as_table().filter(|tables| !tables.is_empty()).cloned() else {
            self.mistake(format!("{place}: has no table: write one for each, as [deployments.eu], or leave it out"));
            return Vec::new();
        };
        let mut names = Vec::new();
        for (name, value) in tables {
            let Some(table) = value.as_table() else {
                self.mistake(format!("{place}: {name:?} is not a table: write it as [deployments.eu] with settings below"));
                continue;
            };
            if !is_deployment(&name) {
                self.mistake(format!(
                    "{place}: {name:?} is no name: use 1 to {DEPLOYMENT_BYTES_MAX} letters, digits, _ and -, and not `all`"
                ));
                continue;
            }
            for key in table.keys() {
                if !is_known(key) {
                    self.mistake(format!("{place}.{name}: {}", no_setting(key)));
                } else if OF_ALL.contains(&key.as_str()) {
                    self.mistake(format!("{place}.{name}: {key:?} is the same for all: set it at the top of the file"));
                }
            }
            names.push(name);
        }
        names
    }

    /// From here on the settings are those of this deployment. One that is not there has none of its own.
    pub(crate) fn of(&mut self, deployment: &str) {
        let table = || self.file.get(DEPLOYMENTS)?.get(deployment)?.as_table().cloned();
        self.deployment = table().map(|table| (deployment.to_owned(), table));
    }

    /// The file, or the part of it that counts, for a message.
    pub(super) fn place_in_file(&self) -> String {
        match &self.deployment {
            Some((name, _)) => format!("{}, {DEPLOYMENTS}.{name}", self.path),
            None => self.path.clone(),
        }
    }

    /// The folder of the file: paths in it are relative to that.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(&self.path).parent().map(Path::to_owned).unwrap_or_default()
    }

    /// The value of a setting, or the default if it is not set. A wrong value is reported, and the default returned.
    pub(super) fn get<T>(&mut self, key: &str, default: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        let Some(Raw { text, place }) = self.raw(key) else { return default };
        match parse(&text) {
            Ok(value) => value,
            Err(problem) => {
                // Only the URL of Redis may hold a secret.
                let shown = if key == "redis" { super::values::without_password(&text) } else { text };
                let shown: String = shown.chars().take(200).collect();
                self.mistake(format!("{place}: {shown:?} {problem}"));
                default
            }
        }
    }

    /// Where Redis is. None: nowhere else, so it is managed, if it `may_be`.
    pub(super) fn redis(&mut self, may_be: bool) -> Option<RedisUrl> {
        let managed = self.managed.as_deref().and_then(|url| RedisUrl::new(url).ok());
        let found = self.get("redis", None, |text| match text {
            "managed" if may_be || managed.is_some() => Ok(None),
            "managed" => Err("is what `lasthit up` runs: give the address of one, as its log says it".to_owned()),
            url => RedisUrl::new(url).map(Some),
        });
        found.or(managed)
    }

    /// Where a setting is set, if anywhere.
    pub(super) fn place(&mut self, key: &str) -> Option<String> {
        self.raw(key).map(|raw| raw.place)
    }

    /// Whether a setting is set anywhere.
    pub(super) fn knows(&mut self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// A setting that exists only as an environment variable.
    pub(super) fn env(&self, key: &str) -> Option<String> {
        (self.env)(&env_name(key))
    }

    pub(super) fn has_env(&self, key: &str) -> bool {
        self.env(key).is_some()
    }

    /// The `[[rooms]]` that count, and where they are. Those of a deployment take the place of those above it.
    pub(super) fn rooms(&self) -> Option<(toml::Value, String)> {
        if let Some((_, table)) = &self.deployment {
            if let Some(rooms) = table.get(ROOMS) {
                return Some((rooms.clone(), self.place_in_file()));
            }
            if table.contains_key(RULES) {
                return None;
            }
        }
        self.file.get(ROOMS).map(|rooms| (rooms.clone(), self.path.clone()))
    }

    /// Notes a mistake, once: what several deployments have in common is read for each of them.
    pub(super) fn mistake(&mut self, line: String) {
        if !self.mistakes.contains(&line) {
            self.mistakes.push(line);
        }
    }

    pub(super) fn finish(self, config: Config) -> Result<Config, ConfigError> {
        if self.mistakes.is_empty() { Ok(config) } else { Err(ConfigError { mistakes: self.mistakes }) }
    }

    fn raw(&mut self, key: &str) -> Option<Raw> {
        if let Some(text) = self.flags.get(key) {
            return Some(Raw { text, place: format!("--{}", key.replace('_', "-")) });
        }
        // LASTHIT_RULES tells a program where its worker's socket is. It is nobody's file.
        if key != RULES
            && let Some(text) = self.env(key)
        {
            return Some(Raw { text, place: env_name(key) });
        }
        if let Some((_, table)) = &self.deployment {
            if let Some(value) = table.get(key) {
                return Some(Raw { text: plain(value), place: format!("{}.{key}", self.place_in_file()) });
            }
            if key == RULES && table.contains_key(ROOMS) {
                return None;
            }
        }
        let value = self.file.get(key)?;
        Some(Raw { text: plain(value), place: format!("{}, {key}", self.path) })
    }
}

/// A TOML value as the text of a flag. The setting's parser refuses values of a wrong type.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn is_known(key: &str) -> bool {
    key != "config" && KEYS.contains(&key)
}

fn no_setting(key: &str) -> String {
    format!("{key:?} is not a setting: use one of {}", KEYS[..KEYS.len() - 1].join(", "))
}

fn parse(text: &str) -> Result<toml::Table, String> {
    text.parse::<toml::Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("is not TOML, line {line}: {}", e.message().lines().collect::<Vec<_>>().join(", "))
    })
}
