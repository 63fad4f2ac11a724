//! The URL of a primary that Sentinel names.

use super::super::connect::names_a_host;
use crate::limits::SENTINELS_MAX;

/// The form of a URL.
pub(crate) const FORM: &str = "redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME with the hosts of the sentinels and the NAME \
                               that they have for the primary";
/// Where a sentinel listens unless the URL says otherwise.
pub(super) const PORT: &str = "26379";

/// What a URL with the scheme `redis+sentinel` or `rediss+sentinel` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SentinelUrl {
    pub(super) tls: bool,
    /// `user:password` of the server, as it stands in the URL.
    pub(super) login: Option<String>,
    /// The sentinels, as `host:port`.
    pub(super) hosts: Vec<String>,
    /// What the sentinels call the primary.
    pub(super) name: String,
    pub(super) database: u32,
    /// `user:password` of the sentinels, as in a URL. Empty: they want none.
    pub(super) sentinel_login: String,
}

impl SentinelUrl {
    /// Reads a URL. None if it is not one of Sentinel. The error says what is wrong with it, and shows nothing of it that may be secret.
    pub(crate) fn read(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            "redis+sentinel" => false,
            "rediss+sentinel" => true,
            _ => return None,
        };
        Some(Self::parts(tls, rest))
    }

    fn parts(tls: bool, rest: &str) -> Result<Self, String> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login.to_owned()), rest));
        let (hosts, name) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.is_empty() {
            return Err("names no sentinel".into());
        }
        if !hosts.split(',').all(names_a_host) {
            return Err("has a sentinel that is no HOST or HOST:PORT".into());
        }
        let with_port = |host: &str| match host.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => host.to_ascii_lowercase(),
            _ => format!("{}:{PORT}", host.to_ascii_lowercase()),
        };
        let hosts: Vec<String> = hosts.split(',').map(with_port).collect();
        if hosts.len() > SENTINELS_MAX {
            return Err(format!("names {} sentinels, and {SENTINELS_MAX} are the most", hosts.len()));
        }
        if let Some(twice) = hosts.iter().enumerate().find_map(|(n, host)| hosts[..n].contains(host).then_some(host)) {
            return Err(format!("names the sentinel {twice} twice"));
        }
        if name.is_empty() {
            return Err("does not say what its sentinels call the primary".into());
        }
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)) {
            return Err("has a name of the primary with other characters than A-Z a-z 0-9 . - _".into());
        }
        let mut found = Self { tls, login, hosts, name: name.to_owned(), database: 0, sentinel_login: String::new() };
        let (mut user, mut password) = ("", "");
        for (key, value) in
            query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        {
            match key {
                "db" => found.database = value.parse().map_err(|_| "has a db that is no number".to_owned())?,
                "sentinel_user" => user = value,
                "sentinel_password" => password = value,
                _ => return Err("has something else behind its ? than db, sentinel_user and sentinel_password".into()),
            }
        }
        if [user, password].iter().any(|word| word.contains(['/', '?', '#', '@', ':'])) {
            return Err("has a sentinel_user or sentinel_password with special characters that are not percent-encoded".into());
        }
        if !(user.is_empty() && password.is_empty()) {
            found.sentinel_login = format!("{user}:{password}@");
        }
        Ok(found)
    }

    /// The primary and its database, without who asks. What is written differently may still be the same.
    pub(crate) fn database(&self) -> String {
        let mut hosts = self.hosts.clone();
        hosts.sort();
        format!("{}/{}/{}", hosts.join(","), self.name, self.database)
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "rediss" } else { "redis" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> SentinelUrl {
        SentinelUrl::read(url).expect("of sentinel").expect(url)
    }

    #[test]
    fn a_url_is_read() {
        assert_eq!(SentinelUrl::read("redis://h/3"), None);
        let url = read("rediss+sentinel://u:p%40@H1:1,[::1],[::2]:2/my.main-1_?db=3&sentinel_user=a&sentinel_password=b%2F");
        assert_eq!(url.hosts, ["h1:1", "[::1]:26379", "[::2]:2"]);
        assert_eq!((url.tls, url.login.as_deref(), &*url.name, url.database), (true, Some("u:p%40"), "my.main-1_", 3));
        assert_eq!(url.sentinel_login, "a:b%2F@");
        assert_eq!(read("redis+sentinel://h2,h1:26379/m").database(), read("redis+sentinel://u:p@h1,h2/m?db=0").database());
    }
}
