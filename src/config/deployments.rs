//! `[deployments.NAME]`: what a supervisor runs beside each other, each over the defaults at the top of the file.

use super::sources::Sources;
use super::{Config, ProcessRole};

/// The configuration of each deployment: of those in the file, or of the one at its top, which has no name. Mistakes are reported.
pub(super) fn read(top: &Config, from: &mut Sources<'_>) -> Vec<(String, Config)> {
    let names = from.deployments();
    if names.is_empty() {
        top.cross_check(from);
        return vec![(String::new(), top.clone())];
    }
    let mut all: Vec<(String, Config)> = Vec::new();
    for name in names {
        from.of(&name);
        let config = Config::read(ProcessRole::Up, from);
        config.cross_check(from);
        if let Some((other, shared)) = all.iter().find_map(|(other, before)| Some((other, before.shares_keys(&config)?))) {
            let set = from.place("prefix").or_else(|| from.place("redis"));
            clash(from, set, &format!("{other:?} and {name:?} have {shared}: give each a prefix of its own, or a redis"));
        }
        if let Some((other, _)) = all.iter().find(|(_, before)| before.shares_listen(&config)) {
            let (set, listen) = (from.place("listen"), config.listen);
            clash(from, set, &format!("{other:?} and {name:?} listen on {listen}: give each a listen of its own"));
        }
        all.push((name, config));
    }
    from.of("");
    all
}

/// Reports what two deployments may not share, where it is set: a flag, or the environment, is the same for both.
fn clash(from: &mut Sources<'_>, set: Option<String>, line: &str) {
    let in_file = from.place_in_file();
    let place = set.unwrap_or_else(|| in_file.clone());
    let is_for_all = !place.starts_with(in_file.split(", ").next().unwrap_or_default());
    let instead = if is_for_all { format!(" in the file, and leave {place} out") } else { String::new() };
    from.mistake(format!("{place}: {line}{instead}"));
}

impl Config {
    /// The keys that this and another deployment would both use, in words.
    fn shares_keys(&self, other: &Self) -> Option<String> {
        let server = |config: &Self| config.redis.as_ref().map(super::RedisUrl::database);
        let is_shared = self.prefix == other.prefix && server(self) == server(other);
        is_shared.then(|| {
            let redis = self.redis.as_ref().map_or_else(|| "the managed one".to_owned(), ToString::to_string);
            format!("the same redis ({redis}) and prefix ({:?})", self.prefix)
        })
    }

    /// Whether this and another deployment would listen on the same address.
    fn shares_listen(&self, other: &Self) -> bool {
        let (a, b) = (self.listen, other.listen);
        let overlap = a.ip() == b.ip() || a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
        let both_listen = [self, other].iter().all(|config| config.up.gateways.or(1).most() > 0);
        both_listen && a.port() == b.port() && a.port() != 0 && overlap
    }
}

#[cfg(test)]
mod tests;
