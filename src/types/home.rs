//! Where a shard's gateways and owner are.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::limits::{ADVERTISE_BYTES_MAX, HOME_NUMBER_MAX, HOST_NAME_BYTES_MAX};

/// Why the name of a host or the record of a home was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// No name of a host. The text is cut to 160 characters.
    #[error("host name {0:?} is not allowed: use 1 to {HOST_NAME_BYTES_MAX} bytes of visible ASCII without blanks and |")]
    Host(String),
    /// No record of a home. The text is cut to 160 characters.
    #[error("{0:?} is damaged: a home is <number>|<host>, with a number of at most {HOME_NUMBER_MAX}")]
    Record(String),
}

fn cut(text: &str) -> String {
    text.chars().take(160).collect()
}

/// The name of a host: of one monotonic clock, which is a boot id and a time namespace on Linux. A host that boots again is another
/// host. The name is stored and compared as it is, so that logs show what the journal compares.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(Arc<str>);

impl HostId {
    /// Checks the name: 1 to 128 bytes of visible ASCII, without blanks and `|`, which separates it from a number.
    ///
    /// # Errors
    /// [`HomeError::Host`] with the refused name.
    pub fn new(name: &str) -> Result<Self, HomeError> {
        let allowed = |b: u8| b.is_ascii_graphic() && b != b'|';
        if (1..=HOST_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(Arc::from(name)))
        } else {
            Err(HomeError::Host(cut(name)))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for HostId {
    type Err = HomeError;

    fn from_str(name: &str) -> Result<Self, HomeError> {
        Self::new(name)
    }
}

/// The home of a shard: the one host whose gateways take sessions of its rooms and whose workers own it, so that no order compares
/// the clocks of two hosts.
///
/// It stands in the shard's own record, and only a worker's claim changes it, from the home that the worker saw (H1). Whoever
/// registers a gateway or appends names number and host; another home refuses them (H2). A change fences every gateway of the
/// shard in the same step (H3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The first part of every stamp under this home. It rises by one with each change of home (H3), so that moments of two homes
    /// compare by it alone (H4). With the host it names one tenure: a restored journal may give a number to two hosts.
    pub number: u32,
    /// Who lives there.
    pub host: HostId,
    /// Under which URL players reach that host's gateways. Empty where a deployment has one host.
    pub address: String,
}

impl Home {
    /// Whether this is the later home of the shard: an answer about a home carries its number, and whoever knows a higher one
    /// drops it (H9).
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.number > other.number
    }

    /// What the journal keeps and compares: `<number>|<host>`.
    #[must_use]
    pub fn record(&self) -> String {
        format!("{}|{}", self.number, self.host)
    }

    /// Reads what [`Home::record`] wrote. The journal keeps the address beside it.
    ///
    /// # Errors
    /// [`HomeError::Record`] if `record` would not have written this text. Scripts compare it as text, so a number in another form
    /// is damage, too.
    pub fn parse_record(text: &str, address: &str) -> Result<Self, HomeError> {
        let damaged = || HomeError::Record(cut(text));
        let (number, host) = text.split_once('|').ok_or_else(damaged)?;
        let number = number.parse().ok().filter(|number| *number <= HOME_NUMBER_MAX).ok_or_else(damaged)?;
        let home = Self { number, host: HostId::new(host).map_err(|_| damaged())?, address: address.to_owned() };
        if home.record() == text { Ok(home) } else { Err(damaged()) }
    }
}

/// The URL under which players reach the gateways of this host, without a slash at its end.
pub(crate) fn advertised(url: &str) -> Result<String, String> {
    const FORM: &str = "use ws://HOST:PORT or wss://HOST";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !matches!(scheme, "ws" | "wss") {
        return Err(format!("is no address for players: {FORM}"));
    }
    if url.contains(['?', '#']) {
        return Err(format!("has something behind its host: {FORM}"));
    }
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.contains('/') {
        return Err(format!("has a path, but rooms are found at the top of an address: {FORM}"));
    }
    if host.contains('@') {
        return Err(format!("has a name or a password, which all players would see: {FORM}"));
    }
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    let (fits, everywhere, port) = match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((name, port)) => (name.parse::<Ipv6Addr>().is_ok(), name.parse() == Ok(Ipv6Addr::UNSPECIFIED), port),
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            (is_name(name), name.parse() == Ok(Ipv4Addr::UNSPECIFIED), port)
        }
    };
    let has_port = port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if !fits || !(port.is_empty() || has_port) {
        return Err(format!("names no host and port: {FORM}"));
    }
    if everywhere {
        return Err(format!("stands for all addresses of this host, and is none for players: {FORM}"));
    }
    let url = format!("{scheme}://{host}");
    if url.len() > ADVERTISE_BYTES_MAX {
        return Err(format!("has {} bytes: use an address of at most {ADVERTISE_BYTES_MAX}", url.len()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(number: u32) -> Home {
        let host = HostId::new("0c2c3a7e-0b7a-4f6e-9a53-6c1ff57d1f1e/time:[4026531834]").expect("host");
        Home { number, host, address: "wss://a.example".to_owned() }
    }

    #[test]
    fn the_names_of_hosts_are_checked() {
        let name = crate::clock::timeline_name();
        assert_eq!(name.parse::<HostId>().expect("this host").to_string(), name);
        assert!(HostId::new("a").is_ok() && HostId::new(&"x".repeat(128)).is_ok());
        for bad in ["", "a b", "a|b", "ä", "a\n", "a\u{7f}", &"x".repeat(129)] {
            let error = HostId::new(bad).expect_err(bad).to_string();
            assert!(error.starts_with("host name \"") && error.contains("1 to 128 bytes"), "{error}");
        }
    }

    #[test]
    fn a_home_survives_its_record() {
        // Part of the format: scripts compare this text.
        assert_eq!(home(5).record(), "5|0c2c3a7e-0b7a-4f6e-9a53-6c1ff57d1f1e/time:[4026531834]");
        for number in [0, 1, 9_999_999, u32::MAX - 1] {
            assert_eq!(Home::parse_record(&home(number).record(), "wss://a.example"), Ok(home(number)));
        }
    }

    #[test]
    fn a_damaged_record_is_refused() {
        for bad in
            ["", "5", "5|", "|a", "a|b", "-1|a", "+5|a", "05|a", " 5|a", "5 |a", "5|a b", "5|a|b", "4294967295|a", "4294967296|a"]
        {
            assert_eq!(Home::parse_record(bad, ""), Err(HomeError::Record(bad.to_owned())));
        }
        let long = HomeError::Record(cut(&"x".repeat(1_000))).to_string();
        assert!(long.len() < 300 && long.ends_with("with a number of at most 4294967294"), "{long}");
    }

    #[test]
    fn the_higher_number_is_the_later_home() {
        assert!(home(6).supersedes(&home(5)));
        assert!(!home(5).supersedes(&home(6)) && !home(5).supersedes(&home(5)));
    }
}
