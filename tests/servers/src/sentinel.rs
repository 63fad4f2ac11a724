//! Sentinels over a primary.

use std::io;
use std::time::Duration;

use super::RedisServer;
use super::server::{START_TIMEOUT, wait_until};

/// What the sentinels call the primary.
const NAME: &str = "main";
/// How long a server may be silent until a sentinel takes it for down, in ms.
const DOWN_AFTER_MS: u32 = 500;
/// How long a failover may take until another one is tried, in ms.
const FAILOVER_MS: u32 = 1500;
/// How long they may take to elect a successor. Now and then no candidate gets enough votes, and they begin anew.
const ELECTION_PATIENCE: Duration = Duration::from_secs(30);
/// What sentinels do every so many ms; by default these are 1 to 10 s.
const QUICKER: [&str; 10] =
    ["info-period", "200", "ping-period", "100", "ask-period", "200", "publish-period", "200", "election-timeout", "1000"];

/// Sentinels that watch a primary and its replicas. They end with the handle.
#[derive(Debug)]
pub struct Sentinels(Vec<RedisServer>);

impl Sentinels {
    /// Starts `count` sentinels, of the primary's own program, and waits until they know each other and `replicas` replicas. More
    /// than half of them agree on a failover.
    ///
    /// # Errors
    /// When one does not start, or they do not find each other.
    pub fn start(primary: &RedisServer, count: usize, replicas: usize) -> io::Result<Self> {
        let port =
            primary.address().ok_or_else(|| io::Error::other("sentinels need a primary with a port: use start_tcp"))?.port();
        let configuration = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} {quorum}\nsentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {NAME} {FAILOVER_MS}\nsentinel parallel-syncs {NAME} 4\n",
            quorum = count / 2 + 1
        );
        let all = Self((0..count).map(|_| primary.sentinel(&configuration)).collect::<io::Result<_>>()?);
        for sentinel in &all.0 {
            sentinel.ask::<()>(&[&["SENTINEL", "DEBUG"], &QUICKER[..]].concat())?;
        }
        all.until("they know each other and all replicas", |sentinel| {
            let info: String = sentinel.ask(&["INFO", "sentinel"])?;
            Ok(info.contains(&format!("status=ok,address=127.0.0.1:{port},slaves={replicas},sentinels={count}")))
        })?;
        Ok(all)
    }

    /// Where they listen and what they call the primary, as `redis+sentinel://...`.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts = self.0.iter().filter_map(RedisServer::address).map(|address| address.to_string());
        format!("redis+sentinel://{}/{NAME}", hosts.collect::<Vec<_>>().join(","))
    }

    /// The sentinels themselves.
    #[must_use]
    pub fn all(&self) -> &[RedisServer] {
        &self.0
    }

    /// What they call the primary.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The port of the primary that the first of them names.
    ///
    /// # Errors
    /// When it does not answer, or names none.
    pub fn named(&self) -> io::Result<u16> {
        let first = self.0.first().ok_or_else(|| io::Error::other("no sentinels"))?;
        let named: Vec<String> = first.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
        named.get(1).and_then(|port| port.parse().ok()).ok_or_else(|| io::Error::other("a sentinel names no primary"))
    }

    /// Waits until all name this server as the primary.
    ///
    /// # Errors
    /// When they do not.
    pub fn all_name(&self, server: &RedisServer) -> io::Result<()> {
        let port = server.address().map(|address| address.port().to_string()).unwrap_or_default();
        self.until("they name the new primary", |sentinel| {
            let named: Vec<String> = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
            Ok(named.get(1) == Some(&port))
        })
    }

    /// Whether all of them take the primary that they name for well, and none of them is at replacing it.
    #[must_use]
    pub fn are_calm(&self) -> bool {
        let flags = |sentinel: &RedisServer| {
            let said: Vec<String> = sentinel.ask(&["SENTINEL", "MASTER", NAME]).ok()?;
            said.chunks_exact(2).find(|pair| pair[0] == "flags").map(|pair| pair[1].clone())
        };
        self.0.iter().all(|sentinel| flags(sentinel).as_deref() == Some("master"))
    }

    /// The one of these servers that more than half name as the primary, once it is not `old`.
    ///
    /// # Errors
    /// When that does not come.
    pub fn successor<'a>(&self, servers: &'a [RedisServer], old: &RedisServer) -> io::Result<&'a RedisServer> {
        let found = wait_until(ELECTION_PATIENCE, || {
            let port = Some(self.named()?);
            let named = servers.iter().find(|server| server.address().map(|address| address.port()) == port);
            Ok(named.filter(|named| named.address() != old.address()))
        })?;
        let found = found.ok_or_else(|| io::Error::other("the sentinels elect nobody"))?;
        self.all_name(found).map(|()| found)
    }

    /// Tells all of them something.
    ///
    /// # Errors
    /// When one does not answer, or refuses.
    pub fn tell(&self, command: &[&str]) -> io::Result<()> {
        self.0.iter().try_for_each(|sentinel| sentinel.ask::<redis::Value>(command).map(drop))
    }

    fn until(&self, what: &str, so: impl Fn(&RedisServer) -> io::Result<bool>) -> io::Result<()> {
        let all = wait_until(START_TIMEOUT, || {
            Ok(self.0.iter().map(&so).collect::<io::Result<Vec<_>>>()?.iter().all(|so| *so).then_some(()))
        })?;
        all.ok_or_else(|| io::Error::other(format!("not in time: {what}")))
    }
}
