//! The URL of a cluster.

use super::super::connect::names_a_host;
use crate::limits::CLUSTER_HOSTS_MAX;

/// The form of a URL.
pub(crate) const FORM: &str = "redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT with some of the cluster's nodes";
/// Where a node listens unless the URL says otherwise.
const PORT: &str = "6379";

/// What a URL with the scheme `redis+cluster` or `rediss+cluster` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClusterUrl {
    pub(super) tls: bool,
    /// `user:password` of all nodes, as it stands in the URL.
    pub(super) login: Option<String>,
    /// Some of the nodes, as `host:port`.
    pub(super) hosts: Vec<String>,
}

impl ClusterUrl {
    /// Reads a URL. None if it is not one of a cluster. The error says what is wrong with it, and shows nothing of it that may be secret.
    pub(crate) fn read(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            "redis+cluster" => false,
            "rediss+cluster" => true,
            _ => return None,
        };
        Some(Self::parts(tls, rest))
    }

    fn parts(tls: bool, rest: &str) -> Result<Self, String> {
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login.to_owned()), rest));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (hosts, behind) = rest.split_at(end);
        if hosts.is_empty() {
            return Err("names no node of a cluster".into());
        }
        if !hosts.split(',').all(names_a_host) {
            return Err("has a node that is no HOST or HOST:PORT".into());
        }
        if !["", "/", "/0"].contains(&behind) {
            return Err("has something behind its hosts, and a cluster has no other database than 0".into());
        }
        let with_port = |host: &str| match host.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => host.to_ascii_lowercase(),
            _ => format!("{}:{PORT}", host.to_ascii_lowercase()),
        };
        let hosts: Vec<String> = hosts.split(',').map(with_port).collect();
        if hosts.len() > CLUSTER_HOSTS_MAX {
            return Err(format!("names {} nodes, and {CLUSTER_HOSTS_MAX} are the most: some are enough", hosts.len()));
        }
        if let Some(twice) = hosts.iter().enumerate().find_map(|(n, host)| hosts[..n].contains(host).then_some(host)) {
            return Err(format!("names the node {twice} twice"));
        }
        Ok(Self { tls, login, hosts })
    }

    /// The cluster, without who asks. Two URLs that name other nodes of the same one look different.
    pub(crate) fn database(&self) -> String {
        let mut hosts = self.hosts.clone();
        hosts.sort();
        format!("{}/0", hosts.join(","))
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "rediss" } else { "redis" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read() {
        for other in ["redis://h/3", "redis+sentinel://h/m", "h"] {
            assert_eq!(ClusterUrl::read(other), None);
        }
        let read = |url: &str| ClusterUrl::read(url).expect("of a cluster");
        let url = read("rediss+cluster://u:p%40@H1:1,[::1],[::2]:2,h").expect("fit");
        assert_eq!(url.hosts, ["h1:1", "[::1]:6379", "[::2]:2", "h:6379"]);
        assert_eq!((url.tls, url.login.as_deref(), url.scheme()), (true, Some("u:p%40"), "rediss"));
        let database = |url: &str| read(url).expect("fit").database();
        assert_eq!(database("redis+cluster://b,a:6379/"), database("redis+cluster://u:p@a,b/0"));
        for (bad, says) in [
            ("redis+cluster://", "names no node"),
            ("redis+cluster:///0", "names no node"),
            ("redis+cluster://u:secret@", "names no node"),
            ("redis+cluster://h,i:x", "is no HOST or HOST:PORT"),
            ("redis+cluster://u:secret", "is no HOST or HOST:PORT"),
            ("redis+cluster://h,", "is no HOST or HOST:PORT"),
            ("redis+cluster://h/3", "no other database than 0"),
            ("redis+cluster://h?db=1", "no other database than 0"),
            ("redis+cluster://h,h:6379", "the node h:6379 twice"),
        ] {
            let why = read(bad).expect_err(bad);
            assert!(why.contains(says) && !why.contains("secret"), "{bad}: {why}");
        }
        let many = (0..=CLUSTER_HOSTS_MAX).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        assert!(read(&format!("redis+cluster://{many}")).expect_err("too many").contains("are the most"));
    }
}
