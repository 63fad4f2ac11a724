//! The sources of settings (flags, environment, file), and the mistakes that were found in them.

use std::path::Path;

use super::{Config, ConfigError};

/// Settings that the file may hold. Each but `rooms` may also be a flag, and each but `rooms` and `rules` an environment variable.
const KEYS: [&str; 40] = [
    "redis",
    "prefix",
    "shards",
    "listen",
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
    "control",
    "ready_timeout",
    "stop_timeout",
    "hang_timeout",
    "drain_window",
    "even",
    "rooms",
    "config",
];

/// The setting that has no environment variable.
const RULES: &str = "rules";

/// The environment's settings, by the names of their variables.
pub(crate) fn of_environment(env: &dyn Fn(&str) -> Option<String>) -> std::collections::BTreeMap<String, String> {
    let names = KEYS.iter().filter(|key| **key != RULES).chain(&["jwt_key"]).map(|key| env_name(key));
    names.filter_map(|name| env(&name).map(|value| (name, value))).collect()
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

pub(super) struct Sources<'a> {
    flags: Flags,
    env: &'a dyn Fn(&str) -> Option<String>,
    file: toml::Table,
    path: String,
    mistakes: Vec<String>,
}

fn env_name(key: &str) -> String {
    format!("LASTHIT_{}", key.to_ascii_uppercase())
}

impl<'a> Sources<'a> {
    pub(super) fn open(flags: Flags, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let mut sources = Self::without_file(flags, env);
        if let Some(Raw { text: path, place }) = sources.raw("config") {
            sources.take_file(&place, &path, read(Path::new(&path)));
        }
        sources
    }

    /// As [`Sources::open`], with the file's path and its text where it was read before.
    pub(super) fn with_text(flags: Flags, env: &'a dyn Fn(&str) -> Option<String>, file: Option<(String, String)>) -> Self {
        let mut sources = Self::without_file(flags, env);
        if let Some((path, text)) = file {
            sources.take_file(&path, &path, parse(&text));
        }
        sources
    }

    fn without_file(flags: Flags, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { flags, env, file: toml::Table::new(), path: String::new(), mistakes: Vec::new() }
    }

    fn take_file(&mut self, place: &str, path: &str, file: Result<toml::Table, String>) {
        match file {
            Ok(file) => self.file = file,
            Err(problem) => self.mistakes.push(format!("{place}: {path:?} {problem}")),
        }
        self.path = path.to_owned();
        let unknown: Vec<String> = self.file.keys().filter(|k| *k == "config" || !KEYS.contains(&k.as_str())).cloned().collect();
        for key in unknown {
            let known = &KEYS[..KEYS.len() - 1];
            self.mistakes.push(format!("{}: {key:?} is not a setting: use one of {}", self.path, known.join(", ")));
        }
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
                self.mistakes.push(format!("{place}: {shown:?} {problem}"));
                default
            }
        }
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

    /// The file's `[[rooms]]`, and its path for messages.
    pub(super) fn rooms(&self) -> Option<(toml::Value, String)> {
        self.file.get("rooms").map(|rooms| (rooms.clone(), self.path.clone()))
    }

    pub(super) fn mistake(&mut self, line: String) {
        self.mistakes.push(line);
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

fn read(path: &Path) -> Result<toml::Table, String> {
    parse(&std::fs::read_to_string(path).map_err(|e| format!("cannot be read ({e}): name a TOML file"))?)
}

fn parse(text: &str) -> Result<toml::Table, String> {
    text.parse::<toml::Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("is not TOML, line {line}: {}", e.message().lines().collect::<Vec<_>>().join(", "))
    })
}
