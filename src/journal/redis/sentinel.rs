//! Sentinel: servers that watch a primary and its replicas, and tell where the primary is.
//!
//! They are asked at every connection, and every second while one is up. More than half of those in the URL must name the
//! same primary. So a primary that was deposed is left even if it is on this side of a broken network and nobody there knows.

mod url;

use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Value, cmd};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::JournalError;
use super::Inner;
use super::connect::{bad_url, client, field, is_other_level};
use super::error::{breaks, journal_error};
use super::target::Server;
use crate::limits::{REDIS_RESPONSE_TIMEOUT, REPLICAS_LOOKED_AT, SENTINEL_INTERVAL, SENTINEL_UNANSWERED_MAX};
use url::PORT;
pub(crate) use url::{FORM, SentinelUrl};

/// The sentinels of one primary.
pub(super) struct Sentinels {
    url: SentinelUrl,
    all: Vec<Sentinel>,
}

/// One of them.
struct Sentinel {
    client: Client,
    /// `host:port`.
    shown: String,
    /// The connection, and how many questions on it nobody has waited for since its last answer.
    kept: parking_lot::Mutex<Option<(MultiplexedConnection, u32)>>,
}

/// What a sentinel says to the question for the primary.
#[derive(Debug)]
enum Said {
    /// Its address, `host:port`.
    Primary(String),
    /// It knows no primary of that name.
    Unknown,
    /// It is no sentinel.
    NoSentinel,
    /// It did not answer, or refuses to.
    Nothing(JournalError),
}

impl Sentinels {
    pub(super) fn of(url: &str, found: Result<SentinelUrl, String>) -> Result<Self, JournalError> {
        let found = found.map_err(|why| bad_url(url, &why))?;
        let sentinel = |host: &String| {
            let client = client(&format!("{}://{}{host}", found.scheme(), found.sentinel_login))?;
            Ok(Sentinel { client, shown: host.clone(), kept: parking_lot::Mutex::new(None) })
        };
        let all =
            found.hosts.iter().map(sentinel).collect::<Result<_, _>>().map_err(|_: JournalError| {
                bad_url(url, "one of its sentinels, sentinel_user or sentinel_password does not parse")
            })?;
        let sentinels = Self { url: found, all };
        // What is wrong with user or password is told at once.
        sentinels.address("localhost:1").map_err(|_| bad_url(url, "its user or password does not parse"))?;
        Ok(sentinels)
    }

    pub(super) fn database(&self) -> i64 {
        self.url.database.into()
    }

    /// The server at an address that a sentinel named.
    pub(super) fn server(self: &Arc<Self>, address: &str) -> Result<Server, JournalError> {
        Ok(Server { client: self.address(address)?, shown: self.shown(address), sentinels: Some(self.clone()), cluster: None })
    }

    fn shown(&self, address: &str) -> String {
        format!("{}://{address}", self.url.scheme())
    }

    fn address(&self, address: &str) -> Result<Client, JournalError> {
        let login = self.url.login.as_ref().map(|login| format!("{login}@")).unwrap_or_default();
        client(&format!("{}://{login}{address}/{}", self.url.scheme(), self.url.database))
    }

    /// How many must name the same primary.
    fn needed(&self) -> usize {
        self.all.len() / 2 + 1
    }

    /// The address of the primary that more than half of the sentinels name.
    pub(super) async fn primary(&self) -> Result<String, JournalError> {
        let mut said: Vec<(usize, Said)> = Vec::with_capacity(self.all.len());
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.url.name);
        let named = self.poll(&question, |n, answer| {
            said.push((n, Said::of(answer)));
            majority(&said, self.needed()).map(str::to_owned)
        });
        if let Some(named) = named.await {
            return Ok(named);
        }
        said.sort_by_key(|(n, _)| *n);
        Err(self.explain(&said).await)
    }

    /// How many replicas of the primary Sentinel knows, those that are down included: any of them may be elected one day. Of several
    /// sentinels' numbers it is the highest.
    async fn replicas(&self) -> Result<u32, JournalError> {
        let (mut counts, mut failure) = (Vec::new(), None);
        let mut question = cmd("SENTINEL");
        question.arg("REPLICAS").arg(&self.url.name);
        let known = self.poll(&question, |_, answer: RedisResult<Vec<Value>>| {
            match answer {
                Ok(replicas) => counts.push(u32::try_from(replicas.len()).unwrap_or(u32::MAX)),
                Err(error) => failure = Some(journal_error(&error)),
            }
            if counts.len() < self.needed() { None } else { counts.iter().max().copied() }
        });
        let known = known.await;
        known.ok_or_else(|| {
            let why = failure.map(|error| format!(": {error}")).unwrap_or_default();
            JournalError::Unreachable(format!(
                "fewer than {} of {} sentinels tell the replicas of {:?}{why}",
                self.needed(),
                self.all.len(),
                self.url.name
            ))
        })
    }

    /// Checks that whichever replica is elected has confirmed everything: `wanted` is how many the server waits for.
    pub(super) async fn covered(&self, wanted: u32, server: &str) -> Result<(), JournalError> {
        match self.replicas().await? {
            known if known <= wanted => Ok(()),
            known => Err(JournalError::Refused(format!(
                "durability replicated needs min-replicas-to-write {known} or more, as sentinel may elect any of the {known} replicas \
                 that it knows of {name}, and {server} has {wanted}: CONFIG SET min-replicas-to-write {known} there and on the \
                 replicas, or, if one of them is gone for good, SENTINEL RESET {name} on every sentinel",
                name = self.url.name
            ))),
        }
    }

    /// Asks all at once, and hands the answers on until they are enough.
    async fn poll<T: FromRedisValue, R>(
        &self,
        command: &Cmd,
        mut take: impl FnMut(usize, RedisResult<T>) -> Option<R>,
    ) -> Option<R> {
        let asked = self.all.iter().enumerate().map(async |(n, sentinel)| (n, sentinel.ask(command).await));
        let mut asked: FuturesUnordered<_> = asked.collect();
        while let Some((n, answer)) = asked.next().await {
            if let Some(enough) = take(n, answer) {
                return Some(enough);
            }
        }
        None
    }

    /// Why there is no primary, by what all have said.
    async fn explain(&self, said: &[(usize, Said)]) -> JournalError {
        let (name, needed) = (&self.url.name, self.needed());
        let shown = |n: usize| self.all[n].shown.as_str();
        let mut unknown = Vec::new();
        for (n, said) in said {
            match said {
                Said::NoSentinel => {
                    return JournalError::Unfit(format!(
                        "{at} is a redis server and no sentinel: use {scheme}://{at} for that one server, or {scheme}+sentinel:// with \
                         the hosts of its sentinels (their port is {PORT} unless configured)",
                        at = shown(*n),
                        scheme = self.url.scheme()
                    ));
                }
                Said::Nothing(JournalError::Refused(why)) => {
                    return JournalError::Refused(format!("sentinel {}: {why}", shown(*n)));
                }
                Said::Unknown => unknown.push(*n),
                Said::Primary(_) | Said::Nothing(_) => {}
            }
        }
        if unknown.len() >= needed {
            let names = match unknown.first() {
                Some(n) => self.all[*n].names().await,
                None => Vec::new(),
            };
            let hosts = self.url.hosts.join(",");
            let meant = match &names[..] {
                [] => "they know none: SENTINEL MONITOR one there, or correct the hosts".to_owned(),
                [only] => format!("use {}+sentinel://{hosts}/{only}", self.url.scheme()),
                names => format!("use one of {} at the end of the url", names.join(", ")),
            };
            let at = unknown.iter().map(|n| shown(*n)).collect::<Vec<_>>().join(", ");
            return JournalError::Refused(format!("no sentinel of {at} knows a primary {name:?}: {meant}"));
        }
        let all = said.iter().map(|(n, said)| match said {
            Said::Primary(address) => format!("{} names {address}", shown(*n)),
            Said::Unknown => format!("{} knows none of that name", shown(*n)),
            Said::NoSentinel => format!("{} is no sentinel", shown(*n)),
            Said::Nothing(error) => format!("{} does not tell ({error})", shown(*n)),
        });
        let all = all.collect::<Vec<_>>().join("; ");
        if said.iter().all(|(_, said)| matches!(said, Said::Nothing(_))) {
            return JournalError::Unreachable(format!("no sentinel answers: {all}: start them, or correct the url"));
        }
        let count = said.len();
        JournalError::Unreachable(format!(
            "{needed} of {count} sentinels must name the same primary of {name:?}, and they do not: {all}: if no failover is under \
             way, compare what they monitor"
        ))
    }
}

impl Sentinel {
    /// Asks on the connection that was kept, or on another if that one broke meanwhile. Whoever has heard enough from others does not wait
    /// for the answer: of a sentinel that hangs the questions would pile up, so after some its connection is given up.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let asked = async {
            if let Some(mut kept) = self.next_kept() {
                match command.query_async(&mut kept).await {
                    Err(error) if breaks(&error) => *self.kept.lock() = None,
                    answer => {
                        self.kept.lock().iter_mut().for_each(|(_, unanswered)| *unanswered = 0);
                        return answer;
                    }
                }
            }
            let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            *self.kept.lock() = Some((connection.clone(), 1));
            command.query_async(&mut connection).await
        };
        timeout(REDIS_RESPONSE_TIMEOUT, asked).await.unwrap_or_else(|_| {
            *self.kept.lock() = None;
            Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
        })
    }

    /// The connection that was kept, for one more question.
    fn next_kept(&self) -> Option<MultiplexedConnection> {
        let mut kept = self.kept.lock();
        let (connection, unanswered) = kept.take_if(|(_, unanswered)| *unanswered < SENTINEL_UNANSWERED_MAX)?;
        *kept = Some((connection.clone(), unanswered + 1));
        Some(connection)
    }

    /// What it calls the primaries that it watches.
    async fn names(&self) -> Vec<String> {
        let info = self.ask::<String>(cmd("INFO").arg("sentinel")).await;
        info.map(|info| names(&info).map(str::to_owned).collect()).unwrap_or_default()
    }
}

impl Said {
    fn of(answer: RedisResult<Option<(String, u16)>>) -> Self {
        match answer {
            Ok(Some((host, port))) if host.contains(':') => Self::Primary(format!("[{host}]:{port}")),
            Ok(Some((host, port))) => Self::Primary(format!("{host}:{port}")),
            Ok(None) => Self::Unknown,
            Err(error) if error.detail().is_some_and(|said| said.contains("unknown command")) => Self::NoSentinel,
            Err(error) => Self::Nothing(sentinel_error(&error)),
        }
    }
}

/// Sorts an error of a sentinel into its class.
fn sentinel_error(error: &RedisError) -> JournalError {
    if error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) {
        return JournalError::Refused(format!(
            "it does not accept user or password: user and password before the @ are for the server, give those of sentinels as \
             ?sentinel_user=...&sentinel_password=... (it said: {})",
            error.detail().unwrap_or_default()
        ));
    }
    journal_error(error)
}

/// The address that as many as are needed name.
fn majority(said: &[(usize, Said)], needed: usize) -> Option<&str> {
    let named = |address: &str| said.iter().filter(|(_, said)| matches!(said, Said::Primary(other) if other == address)).count();
    said.iter().find_map(|(_, said)| match said {
        Said::Primary(address) if named(address) >= needed => Some(address.as_str()),
        _ => None,
    })
}

/// The names of the primaries in a sentinel's INFO.
fn names(info: &str) -> impl Iterator<Item = &str> {
    info.lines().filter_map(|line| line.strip_prefix("master")?.split_once(":name=")?.1.split(',').next())
}

/// What to say of a server that is a sentinel, by its INFO. `shown` is its URL without secrets.
pub(super) fn is_a_sentinel(info: &str, shown: &str) -> Option<JournalError> {
    if ![field(info, "redis_mode"), field(info, "server_mode")].contains(&"sentinel") {
        return None;
    }
    let name = names(info).next().unwrap_or("NAME");
    let meant = match shown.split_once("://") {
        Some((scheme @ ("redis" | "rediss"), rest)) => {
            format!("{scheme}+sentinel://{}/{name}", rest.split('/').next().unwrap_or_default())
        }
        _ => format!("redis+sentinel://HOST:PORT/{name}"),
    };
    Some(JournalError::Unfit(format!("{shown} is a sentinel: use {meant}, and name the other sentinels too")))
}

/// Looks every second whether the journal's connections lead to the primary that the sentinels name, and gives up those that do not;
/// at `replicated` it also looks whether the server waits for every replica that may be elected. Ends with the journal.
pub(super) async fn watch(journal: Weak<Inner>, sentinels: Arc<Sentinels>) {
    let mut ticks = interval(SENTINEL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1u32.. {
        ticks.tick().await;
        if journal.strong_count() == 0 {
            return;
        }
        let named = sentinels.primary().await;
        let Some(here) = journal.upgrade() else { return };
        for (link, live) in here.nodes.all().iter().flat_map(|node| node.links()) {
            let why = match &named {
                Ok(address) if sentinels.shown(address) == live.at.shown => continue,
                Ok(address) => format!("the sentinels name {address}"),
                Err(error) => error.to_string(),
            };
            tracing::warn!("leaving {}: {why}", live.at.shown);
            link.give_up(&live);
        }
        let met = here.nodes.all().iter().find_map(|node| node.link.met());
        drop(here);
        if let Some(mut live) = met.filter(|_| tick.is_multiple_of(REPLICAS_LOOKED_AT)) {
            if !is_other_level(&mut live).await {
                continue;
            }
            let Some(here) = journal.upgrade() else { return };
            for node in here.nodes.all() {
                node.links().for_each(|(link, live)| link.give_up(&live));
            }
        }
    }
}

#[cfg(test)]
mod tests;
