//! One parser per kind of value. An error continues the sentence `--flag: "value" ...`: what is wrong, then the fix.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::gateway::front::auth::{JwtKey, Origin};
use crate::journal::redis::{CLUSTER_FORM, ClusterUrl, SENTINEL_FORM, SentinelUrl, names_a_host};
use crate::limits::PREFIX_BYTES_MAX;

/// The URL of Redis. It may hold a password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Checks that the URL has the form `redis://HOST`, `rediss://HOST`, `unix://PATH`, or that of Sentinel or of a cluster.
    ///
    /// # Errors
    /// What is wrong, and the right form.
    pub fn new(url: &str) -> Result<Self, String> {
        if let Some(Err(why)) = SentinelUrl::read(url) {
            return Err(format!("{why}: use {SENTINEL_FORM}"));
        }
        if let Some(Err(why)) = ClusterUrl::read(url) {
            return Err(format!("{why}: use {CLUSTER_FORM}"));
        }
        let fits = match url.split_once("://") {
            Some(("redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster", _)) => true,
            Some(("redis" | "rediss", rest)) => names_a_host(host_of(rest)),
            Some(("unix", path)) => !path.is_empty(),
            _ => false,
        };
        if fits && !url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Ok(Self(url.to_owned()))
        } else {
            Err("is not the address of a redis: use redis://USER:PASSWORD@HOST:PORT/DB, rediss://..., unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/NAME, or redis+cluster://HOST:PORT,HOST:PORT".to_owned())
        }
    }

    /// Whether it surely runs on this host.
    pub(crate) fn is_on_this_host(&self) -> bool {
        let Some((scheme, rest)) = self.0.split_once("://") else { return false };
        // Where Sentinel, or some node, is says nothing about where the servers are.
        if SentinelUrl::read(&self.0).is_some() || ClusterUrl::read(&self.0).is_some() {
            return false;
        }
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        scheme == "unix" || ["localhost", "127.", "[::1]"].iter().any(|own| host.starts_with(own))
    }

    /// The server and its database, without who asks. What is written differently may still be the same.
    pub(crate) fn database(&self) -> String {
        if let Some(Ok(url)) = SentinelUrl::read(&self.0) {
            return url.database();
        }
        if let Some(Ok(url)) = ClusterUrl::read(&self.0) {
            return url.database();
        }
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        if scheme == "unix" {
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            let number = query.split('&').find_map(|pair| pair.strip_prefix("db=")).unwrap_or("0");
            return format!("{path}/{number}");
        }
        let rest = rest.split('?').next().unwrap_or(rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let (host, number) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let (port, number) = (if has_port { "" } else { ":6379" }, if number.is_empty() { "0" } else { number });
        format!("{}{port}/{number}", host.to_ascii_lowercase())
    }

    /// The whole URL with its password, only for connecting.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The host and the port in the text after the scheme.
fn host_of(rest: &str) -> &str {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A URL, even a malformed one, without what could be a password: the user info, and the query.
pub(super) fn without_password(url: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?***"));
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{separator}***@{host}{query}"),
        None if scheme != "unix" && !host_of(rest).split(',').all(names_a_host) => format!("{scheme}{separator}***"),
        None => format!("{scheme}{separator}{rest}{query}"),
    }
}

pub(super) fn jwt_key_file(path: &str) -> Result<JwtKey, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("cannot be read ({e}): name a file that holds the key"))?;
    JwtKey::new(&bytes).map_err(|e| format!("does not do: {e}"))
}

pub(super) fn origins(list: &str) -> Result<Vec<Origin>, String> {
    list.split(',').map(str::trim).filter(|o| !o.is_empty()).map(Origin::new).collect()
}

pub(super) fn prefix(text: &str) -> Result<String, String> {
    // Braces would be taken for the hash tags of the shards.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
    if (1..=PREFIX_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("is not a prefix: use 1 to {PREFIX_BYTES_MAX} characters out of A-Z a-z 0-9 . _ : -"))
    }
}

pub(super) fn whole<T>(text: &str, min: T, max: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    match text.trim().parse::<T>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("does not fit: use a whole number from {min} to {max}")),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address: use IP:PORT such as 127.0.0.1:7777, 0.0.0.0:7777 or [::1]:7777".to_owned())
}

pub(super) fn address_or_none(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" { Ok(None) } else { address(text).map(Some).map_err(|e| format!("{e}, or none")) }
}

/// A directory. Processes of one host may be started anywhere, so it says where it is by itself.
pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err("is not a path from the root: use one such as /var/lib/lasthit".to_owned()),
    }
}

/// A directory as [`directory`] reads it, or `none`.
pub(super) fn directory_or_none(text: &str) -> Result<Option<PathBuf>, String> {
    if text == "none" { Ok(None) } else { directory(text).map(Some).map_err(|e| format!("{e}, or none")) }
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    word(text, &[("true", true), ("false", false), ("1", true), ("0", false)])
}

/// Parses one of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("is not known: use {}", known.join(" or "))
    })
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match crate::telemetry::filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("is not a log filter: use a level (error, warn, info, debug, trace) or target=level,...".to_owned()),
    }
}

/// A whole number with its unit: `250ms`, `90s`, `10m`, `1h`, `7d`.
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit_ms: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = unit_ms.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    match ms.map(Duration::from_millis) {
        Some(value) if value >= min && value <= max => Ok(value),
        Some(_) => Err(format!("is out of bounds: use {} to {}", Shown(min), Shown(max))),
        None => Err("is not a duration: use a whole number and a unit (ms, s, m, h, d) such as 250ms, 90s or 10m".to_owned()),
    }
}

/// A program and its arguments, with blanks between them.
pub(super) fn command(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        return Err("names no program: use one such as ./my-worker, and its arguments behind it".to_owned());
    }
    Ok(words)
}

/// A whole number of bytes with its unit: `512MiB`, `2GiB`.
pub(super) fn bytes(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let shift = [("MiB", 20), ("GiB", 30)].iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift);
    let size = shift.and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    match size {
        Some(size) if (min..=max).contains(&size) => Ok(size),
        Some(_) => Err(format!("is out of bounds: use {} MiB to {} GiB", min >> 20, max >> 30)),
        None => Err("is not a size: use a whole number and a unit (MiB, GiB) such as 512MiB or 2GiB".to_owned()),
    }
}

/// Writes a duration in the form that [`duration`] reads.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let (size, unit) = units.into_iter().find(|(size, _)| ms >= *size && ms.is_multiple_of(*size)).unwrap_or((1, "ms"));
        write!(f, "{}{unit}", ms / size)
    }
}
