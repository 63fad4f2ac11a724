//! From a URL to a server that was checked.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion};

use super::super::JournalError;
use super::durability::Durability;
use super::error::journal_error;
use super::keys::{Hex, Keys, Tags};
use super::link::Live;
use super::nodes::{self, members, own_replicas};
use super::reply::Reply;
use super::scripts::{Call, DEPLOYMENT};
use super::sentinel;
use super::socket::{self, Driver};
use super::target::Server;
use crate::limits::{PREFIX_BYTES_MAX, REDIS_RESPONSE_TIMEOUT, SHARDS_DEFAULT, SHARDS_MAX};
use crate::types::Incarnation;

/// The version of all stored forms in Redis.
pub(crate) const FORMAT: u32 = 5;
/// The oldest version that is read, and taken over. In version 3 rooms have no seed, and no timers.
const FORMAT_MIN: u32 = 3;
/// The oldest version of Redis that has everything that the scripts use.
const VERSION_MIN: (u32, u32) = (7, 0);

/// A client for the URL. The password is in none of the errors.
pub(super) fn client(url: &str) -> Result<Client, JournalError> {
    let info = url.into_connection_info().map_err(|error| bad_url(url, error.detail().unwrap_or("it does not parse")))?;
    if !["redis", "rediss", "unix"].iter().any(|scheme| url.starts_with(&format!("{scheme}://"))) {
        return Err(bad_url(url, "unknown scheme"));
    }
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    // If the peer vanishes silently, the kernel ends the connection, and a new one is made.
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(REDIS_RESPONSE_TIMEOUT);
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    let info = info.set_tcp_settings(tcp).set_redis_settings(settings);
    Client::open(info).map_err(|error| journal_error(&error))
}

pub(super) fn bad_url(url: &str, why: &str) -> JournalError {
    JournalError::Unfit(format!(
        "redis url {:?} is not usable ({why}): write redis://[[user]:password@]host[:port][/db], rediss://... for tls, \
         unix:///path/to/redis.sock[?user=&pass=&db=], {}, or {}, with special characters percent-encoded",
        without_secrets(url),
        sentinel::FORM,
        nodes::FORM
    ))
}

/// The URL without user, password and query, cut to 100 characters.
pub(super) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let open = rest.split(['?', '#']).next().unwrap_or_default();
    let rest = match open.rsplit_once('@') {
        Some((_, host)) => host,
        // The password itself may have a character that must be percent-encoded, or stand where a port should.
        None if scheme == "unix" => open,
        None if rest.contains('@') => "***",
        None if scheme.contains('+') && !open.split('/').next().unwrap_or_default().split(',').all(names_a_host) => "***",
        None => open,
    };
    let separator = if scheme.is_empty() { "" } else { "://" };
    [scheme, separator, rest].concat().chars().take(100).collect()
}

/// Whether a text is a host and, if any, a numeric port. (`user:password` without `@host` is not.)
pub(crate) fn names_a_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':').unwrap_or(port)),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    !name.is_empty() && (port.is_empty() || port.parse::<u16>().is_ok())
}

/// What the caller wants of a server and its deployment.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    prefix: String,
    shards: Option<u16>,
    durability: Option<Durability>,
    /// None: the deployment's, or those of a new one.
    tags: Option<Tags>,
    /// Whether a deployment of an earlier format is taken over, or only read.
    takes_over: bool,
}

/// What a server and its deployment have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The server's name. It changes exactly when data may have been lost (`deployment.lua`). NONE if the server does not tell.
    pub(super) server: Incarnation,
    pub(super) shards: u16,
    pub(super) durability: Durability,
    pub(super) tags: Tags,
    /// How many replicas must confirm a write; 0 except at [`Durability::Replicated`].
    pub(super) replicas: u32,
}

impl Wanted {
    /// With the deployment's values where the caller gave none.
    pub(super) fn new(
        prefix: &str,
        shards: Option<u16>,
        durability: Option<Durability>,
        takes_over: bool,
    ) -> Result<Self, JournalError> {
        let refused = |why: String| Err(JournalError::Unfit(why));
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.chars().all(allowed) {
            return refused(format!(
                "key prefix {prefix:?} is not allowed: use 1 to {PREFIX_BYTES_MAX} characters out of A-Z a-z 0-9 . : _ -"
            ));
        }
        if let Some(shards) = shards
            && !(1..=SHARDS_MAX).contains(&shards)
        {
            return refused(format!("{shards} shards are not possible: use 1 to {SHARDS_MAX}"));
        }
        Ok(Self { prefix: prefix.to_owned(), shards, durability, tags: None, takes_over })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What there is, where every value was found.
    pub(super) fn found(&self) -> Option<Found> {
        let (shards, durability, tags) = (self.shards?, self.durability?, self.tags?);
        Some(Found { server: Incarnation::NONE, shards, durability, tags, replicas: 0 })
    }

    pub(super) fn fixed(self, found: &Found) -> Self {
        Self { shards: Some(found.shards), durability: Some(found.durability), tags: Some(found.tags), ..self }
    }
}

/// Connects to a server.
pub(super) async fn reach(server: &Server) -> Result<(MultiplexedConnection, Driver), JournalError> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT));
    socket::connect(&server.client, config).await.map_err(|error| server.unreached(&error))
}

/// Checks that a node of a cluster can be a journal's, of whatever part. What it has of the deployment is looked at when it is needed.
pub(super) async fn look_at_node(
    connection: &mut MultiplexedConnection,
    wanted: &Wanted,
    server: &Server,
) -> Result<Found, JournalError> {
    let found = wanted.found().ok_or_else(|| JournalError::Unexpected("a node without a deployment".to_owned()))?;
    let info = redis::cmd("INFO").query_async::<String>(connection).await.map_err(|error| server.error(&error))?;
    fit(&info, server)?;
    redis::cmd("EVAL").arg("return 1").arg(0).exec_async(connection).await.map_err(|error| server.error(&error))?;
    let replicas = keeps(connection, found.durability, Some(&info), server).await?;
    Ok(Found { replicas, ..found })
}

/// Warns of a node that takes no steps while a part of the slots is served by nobody.
pub(super) async fn warn_of_coverage(live: &mut Live) {
    const SETTING: &str = "cluster-require-full-coverage";
    let asked = redis::cmd("CONFIG").arg("GET").arg(SETTING).query_async(&mut live.connection).await;
    let settings: HashMap<String, String> = asked.unwrap_or_default();
    if settings.get(SETTING).is_some_and(|value| value == "yes") {
        tracing::warn!(
            "when one primary of the cluster is lost, {} stops its shards, too: CONFIG SET {SETTING} no there, and keep it in its redis.conf",
            live.at.shown
        );
    }
}

/// Whether a server that was met before keeps something else now, or less, than the level promises. The next connection tells what.
pub(super) async fn is_other_level(live: &mut Live) -> bool {
    match look_again(live).await {
        Ok(wanted) if wanted == live.found.replicas => return false,
        Ok(wanted) => tracing::info!("{} wants {wanted} replicas to confirm from now on", live.at.shown),
        Err(error @ JournalError::Refused(_)) => tracing::error!("leaving {}: {error}", live.at.shown),
        // The next step notices.
        Err(_) => return false,
    }
    true
}

/// How many replicas must confirm on a server that was met before.
async fn look_again(live: &mut Live) -> Result<u32, JournalError> {
    let info = match live.found.durability {
        Durability::Redis | Durability::Disk => return Ok(live.found.replicas),
        Durability::Replicated => redis::cmd("INFO").arg("replication").query_async::<String>(&mut live.connection).await,
    };
    let info = info.map_err(|error| live.at.error(&error))?;
    keeps(&mut live.connection, live.found.durability, Some(&info), &live.at).await
}

/// Checks that a server can be a journal, and that its deployment is the wanted one.
pub(super) async fn look(
    connection: &mut MultiplexedConnection,
    wanted: &Wanted,
    server: &Server,
) -> Result<Found, JournalError> {
    let info = match redis::cmd("INFO").query_async::<String>(connection).await {
        Ok(info) => Some(info),
        // Managed servers may forbid the command. Then the operator must check the settings.
        Err(error) if error.code() == Some("NOPERM") => {
            let why = journal_error(&error);
            tracing::warn!(%why, "redis does not tell its version, eviction policy and run id: 7.0 and noeviction are taken for granted, and a restart that loses data is not noticed");
            None
        }
        Err(error) => return Err(server.error(&error)),
    };
    if let Some(info) = &info {
        fit(info, server)?;
    }
    // This comes before the record is written: it must not promise what the server cannot keep.
    let recorded = redis::cmd("HGET").arg(Keys::record(&wanted.prefix)).arg("durability").query_async(connection).await;
    let recorded: Option<String> = recorded.map_err(|error| server.error(&error))?;
    let level = recorded.and_then(|level| level.parse().ok()).or(wanted.durability).unwrap_or_default();
    let replicas = keeps(connection, level, info.as_deref(), server).await?;
    let (shards, durability, server, tags) = deployment(connection, wanted, server).await?;
    Ok(Found { server, shards, durability, tags, replicas })
}

/// Checks that the server keeps what the level promises. Returns how many replicas must confirm.
pub(super) async fn keeps(
    connection: &mut MultiplexedConnection,
    durability: Durability,
    info: Option<&str>,
    server: &Server,
) -> Result<u32, JournalError> {
    let mut settings = HashMap::new();
    if !durability.settings().is_empty() {
        let asked = redis::cmd("CONFIG").arg("GET").arg(durability.settings()).query_async(connection).await;
        settings = asked.map_err(|error| match error.code() {
            Some("NOPERM" | "ERR") => JournalError::Refused(format!(
                "durability {durability} cannot be checked: give the redis user +config|get +info, or use durability redis (redis \
                 said: {})",
                error.detail().unwrap_or_default()
            )),
            _ => server.error(&error),
        })?;
    }
    if let (Durability::Replicated, Some(sentinels)) = (durability, &server.sentinels) {
        sentinels.covered(Durability::confirming(&settings), &server.shown).await?;
    }
    if let (Durability::Replicated, Some(_)) = (durability, &server.cluster) {
        let said: String =
            redis::cmd("CLUSTER").arg("NODES").query_async(connection).await.map_err(|error| server.error(&error))?;
        let (known, waits) = (own_replicas(&members(&said, "", false)), Durability::confirming(&settings));
        if known > waits {
            return Err(JournalError::Refused(format!(
                "durability replicated needs min-replicas-to-write {known} or more, as the cluster may elect any of the {known} replicas \
                 that it knows of {shown}, which has {waits}: CONFIG SET min-replicas-to-write {known} there and on its replicas, or, if one \
                 of them is gone for good, CLUSTER FORGET its id on every node",
                shown = server.shown
            )));
        }
    }
    let connected = info.map(|info| field(info, "connected_slaves").parse().unwrap_or(0));
    match connected {
        None if durability == Durability::Replicated => {
            Err(JournalError::Refused(format!("durability {durability} cannot be checked: give the redis user +info")))
        }
        connected => durability.judge(&settings, connected.unwrap_or(0)),
    }
}

pub(super) fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

/// Checks by its `INFO` that a server can be a journal.
pub(super) fn fit(info: &str, server: &Server) -> Result<(), JournalError> {
    let field = |name: &str| field(info, name);
    let refused = |why: String| Err(JournalError::Refused(why));
    if let Some(error) = sentinel::is_a_sentinel(info, &server.shown) {
        return Err(error);
    }
    let is_node = field("cluster_enabled") == "1";
    if server.cluster.is_some() && !is_node {
        return Err(JournalError::Unfit(format!("{0} is a single server and no node of a cluster: use {0}", server.shown)));
    }
    if server.cluster.is_none() && is_node {
        let host = server.shown.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or_default();
        let (scheme, host) = match server.shown.split_once("://").map_or("", |(scheme, _)| scheme) {
            "unix" => ("redis", "HOST:PORT"),
            scheme => (scheme, host),
        };
        return Err(JournalError::Unfit(format!("{} is a node of a cluster: use {scheme}+cluster://{host}", server.shown)));
    }
    if field("loading") == "1" {
        return Err(JournalError::Unreachable("redis is loading its data: wait for it".into()));
    }
    // Each Valkey also tells the version of Redis whose commands it has.
    let name = if field("server_name") == "valkey" { format!("valkey {}", field("valkey_version")) } else { "redis".to_owned() };
    let version = field("redis_version");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = VERSION_MIN;
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < VERSION_MIN {
        let at = server.shown.as_str();
        return refused(format!("{name} at {at} has version {version:?}: {major}.{minor} or newer is needed: upgrade it"));
    }
    let role = field("role");
    if role != "master" && server.cluster.is_some() {
        return Err(JournalError::Unreachable(format!(
            "{} has the role {role:?}, and is named as a primary of the cluster: waiting until they agree",
            server.shown
        )));
    }
    if role != "master" && server.sentinels.is_some() {
        return Err(JournalError::Unreachable(format!(
            "{} has the role {role:?}, and sentinel names it as the primary: waiting until they agree",
            server.shown
        )));
    }
    if role != "master" {
        return refused(format!("{name} is a read-only replica (it has the role {role:?}): give the url of the primary"));
    }
    let policy = field("maxmemory_policy");
    if policy != "noeviction" {
        return refused(format!(
            "{name} at {} may evict keys (maxmemory-policy is {policy:?}): set it to noeviction (CONFIG SET maxmemory-policy noeviction)",
            server.shown
        ));
    }
    Ok(())
}

/// The deployment's shards, durability and tags, and the server's name, from the record. Writes the record if there is none.
pub(super) async fn deployment(
    connection: &mut MultiplexedConnection,
    wanted: &Wanted,
    server: &Server,
) -> Result<(u16, Durability, Incarnation, Tags), JournalError> {
    let refused = |why: String| Err(JournalError::Unfit(why));
    let prefix = &wanted.prefix;
    let (format, shards, durability, name, tags) = record(connection, wanted, FORMAT, server).await?;
    if !(FORMAT_MIN..=FORMAT).contains(&format) {
        return refused(format!(
            "deployment {prefix:?} has format {format}, this lasthit knows formats {FORMAT_MIN} to {FORMAT}: use the version that \
             made it, or another prefix"
        ));
    }
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Err(JournalError::Unexpected(format!("deployment of {shards} shards")));
    }
    if let Some(other) = wanted.shards.filter(|other| *other != shards) {
        return refused(format!(
            "deployment {prefix:?} has {shards} shards, and {other} are configured: the number is fixed for a deployment, leave \
             it out or set it to {shards}"
        ));
    }
    if let Some(other) = wanted.durability.filter(|other| *other != durability) {
        return refused(format!(
            "deployment {prefix:?} has durability {durability}, and {other} is configured: all processes need the same, use \
             --durability {durability}, or stop them all and HSET {} durability {other}",
            Keys::record(prefix)
        ));
    }
    if server.cluster.is_some() && tags != Tags::NEW.recorded() {
        return refused(format!(
            "deployment {prefix:?} was made on a single server, and its keys have names that no cluster holds together: use another prefix"
        ));
    }
    let Some(tags) = Tags::of_record(&tags) else {
        return refused(format!(
            "deployment {prefix:?} has names of kind {tags:?}, this lasthit knows kinds up to {:?}: use the version that made it, or \
             another prefix",
            Tags::NEW.recorded()
        ));
    };
    if wanted.tags.is_some_and(|other| other != tags) {
        return refused(format!(
            "deployment {prefix:?} was made anew, with other names, while this process used it: start the process again"
        ));
    }
    if format < FORMAT && wanted.takes_over {
        tracing::info!(
            "deployment {prefix:?} had format {format} and has {FORMAT} now: processes of earlier versions cannot join it"
        );
        record(connection, wanted, FORMAT_MIN, server).await?;
    }
    Ok((shards, durability, name, tags))
}

/// Reads the record, or writes it if there is none. A deployment of format `takes_over` or a later one gets this version's.
async fn record(
    connection: &mut MultiplexedConnection,
    wanted: &Wanted,
    takes_over: u32,
    server: &Server,
) -> Result<(u32, u16, Durability, Incarnation, String), JournalError> {
    let mut call = Call::new(&DEPLOYMENT, 1, 6, 128);
    call.text(Keys::record(&wanted.prefix)).text(FORMAT).text(wanted.shards.unwrap_or(SHARDS_DEFAULT));
    call.text(wanted.durability.unwrap_or_default()).text(Hex(Incarnation::random())).text(takes_over);
    call.text(wanted.tags.unwrap_or(Tags::NEW).recorded());
    let mut reply = Reply::new("deployment", call.send(connection).await.map_err(|error| server.error(&error))?)?;
    let format: u32 = reply.parse()?;
    // What a newer version has written beside its format may be anything.
    if format > FORMAT {
        return Ok((format, SHARDS_DEFAULT, Durability::default(), Incarnation::NONE, String::new()));
    }
    let found = (format, reply.parse()?, reply.parse()?, reply.incarnation_or_empty()?, reply.parse()?);
    reply.end()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_never_show_their_password() {
        for good in [
            "redis://127.0.0.1",
            "redis://user:p%40ss@host:6380/2",
            "rediss://:pw@host",
            "unix:///tmp/redis.sock?user=a&pass=secret",
        ] {
            client(good).expect(good);
        }
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://user:secret@host",
            "redis://user:secret@host:99999",
            "redis://:se@secret@:1/",
            "redis://user:secret@host/x",
            "user:secret@host",
            "unix://relative?pass=sec@ret",
        ] {
            let error = client(bad).expect_err(bad);
            assert!(matches!(error, JournalError::Unfit(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("redis://[[user]:password@]host"), "{text}");
            assert!(!text.contains("secret") && !text.contains("ret\"") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        for (url, shown) in [
            ("redis://u:secret@h:1/2?secret", "redis://h:1/2"),
            ("redis://user?secret@host:1/x", "redis://***"),
            ("unix:///s?pass=sec@ret", "unix:///s"),
            ("redis+sentinel://u:secret@h,i:1/m?sentinel_password=a@b", "redis+sentinel://h,i:1/m"),
            ("redis+sentinel://u:secret", "redis+sentinel://***"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_server_is_judged_by_what_it_says() {
        let good = "redis_version:7.0.15\r\nredis_mode:standalone\r\nloading:0\r\nmaxmemory_policy:noeviction\r\nrole:master\r\n";
        let at = Server::at("redis://u:secret@h:26379/3").expect("a url");
        let fit = |info: &str| fit(info, &at);
        fit(good).expect("good");
        fit(&good.replace("7.0.15", "10.1.0")).expect("newer");
        let valkey = format!("{}server_name:valkey\r\nvalkey_version:9.1.2\r\n", good.replace("redis_mode", "server_mode"));
        fit(&valkey.replace("7.0.15", "7.2.4")).expect("valkey");
        let error = fit(&valkey.replace("master", "slave")).expect_err("a replica").to_string();
        assert!(error.contains("valkey 9.1.2 is a read-only replica"), "{error}");
        for (own, masters) in [("redis_mode", "master0:name=main,status=ok,address=h:1,slaves=2\r\n"), ("server_mode", "")] {
            let info = format!("redis_version:7.0.15\r\n{own}:sentinel\r\n{masters}");
            let error = fit(&info).expect_err("a sentinel").to_string();
            let name = if masters.is_empty() { "NAME" } else { "main" };
            assert!(error.contains(&format!("redis://h:26379/3 is a sentinel: use redis+sentinel://h:26379/{name},")), "{error}");
        }
        for (from, to, says) in [
            ("7.0.15", "6.2.9", "7.0 or newer"),
            ("noeviction", "allkeys-lru", "noeviction"),
            ("master", "slave", "primary"),
            ("loading:0", "loading:1", "loading"),
        ] {
            let error = fit(&good.replace(from, to)).expect_err(to);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
