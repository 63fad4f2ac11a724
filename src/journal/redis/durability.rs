//! What a verdict has survived before anyone sees it, and which settings a server needs for that.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::super::JournalError;

/// What a verdict has survived before anyone sees it. All processes of a deployment use the same level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Whatever the configuration of Redis keeps.
    #[default]
    Redis,
    /// It is on the disk of the Redis server: `appendonly yes`, `appendfsync always`, `no-appendfsync-on-rewrite no`.
    Disk,
    /// It is on as many replicas as `min-replicas-to-write` says, at least one.
    Replicated,
}

impl Durability {
    /// All levels by their names.
    pub const NAMES: [(&'static str, Self); 3] = [("redis", Self::Redis), ("disk", Self::Disk), ("replicated", Self::Replicated)];

    /// The level's name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Disk => "disk",
            Self::Replicated => "replicated",
        }
    }

    /// The server's settings that decide whether it keeps the level.
    pub(super) fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &[],
            Self::Disk => &["appendonly", "appendfsync", "no-appendfsync-on-rewrite"],
            Self::Replicated => &["min-replicas-to-write"],
        }
    }

    /// How many replicas must confirm by a server's settings, at the level `replicated`. 0: none.
    pub(super) fn confirming(settings: &HashMap<String, String>) -> u32 {
        settings.get("min-replicas-to-write").and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Checks that a server with these settings and with `connected` replicas keeps what the level promises. Returns how many
    /// replicas must confirm.
    ///
    /// # Errors
    /// [`JournalError::Refused`] with what to set; [`JournalError::Unreachable`] while replicas are missing.
    pub(super) fn judge(self, settings: &HashMap<String, String>, connected: u32) -> Result<u32, JournalError> {
        let wants = |name: &str, value: &str| match settings.get(name).map_or("", String::as_str) {
            has if has == value => Ok(()),
            has => Err(JournalError::Refused(format!(
                "durability {self} needs {name} {value}, and redis has {has:?}: CONFIG SET {name} {value}, and keep it in redis.conf"
            ))),
        };
        match self {
            Self::Redis => Ok(0),
            Self::Disk => {
                wants("appendonly", "yes")?;
                wants("appendfsync", "always")?;
                wants("no-appendfsync-on-rewrite", "no").map(|()| 0)
            }
            Self::Replicated => {
                let replicas = Self::confirming(settings);
                if replicas == 0 {
                    return wants("min-replicas-to-write", "1").map(|()| 1);
                }
                if connected < replicas {
                    return Err(JournalError::Unreachable(format!(
                        "durability {self} needs {replicas} connected replicas, and redis has {connected}: bring them up, or lower \
                         min-replicas-to-write"
                    )));
                }
                Ok(replicas)
            }
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, level)| *level);
        found.ok_or_else(|| format!("{text:?} is no durability: use redis, disk or replicated"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(of: &[(&str, &str)]) -> HashMap<String, String> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_are_read_back() {
        for (name, level) in Durability::NAMES {
            assert_eq!((name.parse(), level.as_str()), (Ok(level), name));
        }
        assert!("ram".parse::<Durability>().expect_err("no level").contains("redis, disk or replicated"));
    }

    #[test]
    fn a_level_wants_its_settings() {
        let disk = [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")];
        assert_eq!(Durability::Disk.judge(&settings(&disk), 0).expect("fit"), 0);
        for (at, wrong) in ["no", "everysec", "yes"].into_iter().enumerate() {
            let mut set = disk;
            set[at].1 = wrong;
            let error = Durability::Disk.judge(&settings(&set), 0).expect_err(wrong).to_string();
            let (name, value) = disk[at];
            assert!(error.contains(&format!("CONFIG SET {name} {value}")) && error.contains(wrong), "{error}");
        }
        let replicas = |n| settings(&[("min-replicas-to-write", n)]);
        let judged = |n, connected| Durability::Replicated.judge(&replicas(n), connected);
        assert_eq!(judged("2", 2).expect("fit"), 2);
        assert!(judged("0", 2).expect_err("none wanted").to_string().contains("CONFIG SET min-replicas-to-write 1"));
        assert!(matches!(judged("2", 1), Err(JournalError::Unreachable(why)) if why.contains("2 connected replicas")));
        assert_eq!(Durability::Redis.judge(&HashMap::new(), 0).expect("anything is fit"), 0);
    }
}
