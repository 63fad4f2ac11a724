//! From a URL to a server that was looked at and found fit.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion};

use super::super::JournalError;
use super::error::journal_error;
use super::keys::Keys;
use super::reply::Reply;
use super::scripts::{Call, DEPLOYMENT};
use crate::types::Incarnation;
use crate::limits::{REDIS_CONNECT_TIMEOUT, REDIS_RESPONSE_TIMEOUT, SHARDS_DEFAULT, SHARDS_MAX};

/// The version of everything that is kept in Redis.
const FORMAT: u32 = 2;
/// The oldest server that has what the scripts use.
const VERSION_MIN: (u32, u32) = (7, 0);
/// Characters of a prefix.
const PREFIX_MAX: usize = 64;

/// A client for the URL. The password is in none of the errors.
pub(super) fn client(url: &str) -> Result<Client, JournalError> {
    let info = url.into_connection_info().map_err(|error| bad_url(url, error.detail().unwrap_or("it does not parse")))?;
    if !["redis", "rediss", "unix"].iter().any(|scheme| url.starts_with(&format!("{scheme}://"))) {
        return Err(bad_url(url, "unknown scheme"));
    }
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    // A peer that vanished without a word: the kernel gives the connection up, so that a new one is made.
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(REDIS_RESPONSE_TIMEOUT);
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    let info = info.set_tcp_settings(tcp).set_redis_settings(settings);
    Client::open(info).map_err(|error| journal_error(&error))
}

fn bad_url(url: &str, why: &str) -> JournalError {
    JournalError::Refused(format!(
        "redis url {:?} is not usable ({why}): write redis://[[user]:password@]host[:port][/db], rediss://... for tls, or \
         unix:///path/to/redis.sock[?user=&pass=&db=], with special characters percent-encoded",
        without_secrets(url)
    ))
}

/// The URL without user, password and query, cut to 100 characters.
pub(super) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let separator = if scheme.is_empty() { "" } else { "://" };
    [scheme, separator, rest].concat().chars().take(100).collect()
}

/// A connection to a server that is fit to be a journal, and which one that is. `url` is for people.
pub(super) async fn open(client: &Client, url: &str) -> Result<(MultiplexedConnection, Incarnation), JournalError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(REDIS_CONNECT_TIMEOUT))
        .set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT));
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| match journal_error(&error) {
            JournalError::Unreachable(why) => {
                JournalError::Unreachable(format!("no redis at {url}: {why}: start one there, or correct the url"))
            }
            other => other,
        })?;
    let server = match redis::cmd("INFO").query_async::<String>(&mut connection).await {
        Ok(info) => fit(&info)?,
        Err(error) => match journal_error(&error) {
            // Managed servers forbid this and that: then its owner must know.
            JournalError::Refused(why) if error.code() == Some("NOPERM") => {
                tracing::warn!(
                    %why,
                    "redis does not tell its version, eviction policy and run id: 7.0 and noeviction are taken for granted, and \
                     a restart that loses data is not noticed"
                );
                Incarnation::NONE
            }
            other => return Err(other),
        },
    };
    Ok((connection, server))
}

/// Which server it is that `INFO` tells of, when it can be a journal: another after a restart (run id), and after it was
/// another one's replica (replication id).
fn fit(info: &str) -> Result<Incarnation, JournalError> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim();
    let refused = |why: String| Err(JournalError::Refused(why));
    if field("loading") == "1" {
        return Err(JournalError::Unreachable("redis is loading its data: wait for it".into()));
    }
    let version = field("redis_version");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = VERSION_MIN;
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < VERSION_MIN {
        return refused(format!("redis has version {version:?}: {major}.{minor} or newer is needed"));
    }
    let role = field("role");
    if role != "master" {
        return refused(format!("redis has the role {role:?}, a read-only replica: give the url of the primary"));
    }
    let policy = field("maxmemory_policy");
    if policy != "noeviction" {
        return refused(format!("redis may evict keys (maxmemory-policy is {policy:?}): set it to noeviction"));
    }
    let half = |name: &str| field(name).get(..16).and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_default();
    Ok(Incarnation(half("run_id") << 64 | half("master_replid")))
}

/// The deployment's number of shards: as recorded, or recorded now.
pub(super) async fn deployment(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    configured: Option<u16>,
) -> Result<u16, JournalError> {
    let refused = |why: String| Err(JournalError::Refused(why));
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
    if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.chars().all(allowed) {
        return refused(format!(
            "key prefix {prefix:?} is not allowed: use 1 to {PREFIX_MAX} characters out of A-Z a-z 0-9 . : _ -"
        ));
    }
    if let Some(shards) = configured
        && !(1..=SHARDS_MAX).contains(&shards)
    {
        return refused(format!("{shards} shards are not possible: use 1 to {SHARDS_MAX}"));
    }
    let mut call = Call::new(&DEPLOYMENT, 1, 2, 64);
    call.text(Keys::deployment(prefix)).text(FORMAT).text(configured.unwrap_or(SHARDS_DEFAULT));
    let mut reply = Reply::new("deployment", call.send(connection).await.map_err(|error| journal_error(&error))?)?;
    let format: u32 = reply.parse()?;
    if format != FORMAT {
        return refused(format!(
            "deployment {prefix:?} has format {format}, this lasthit knows format {FORMAT}: use the version that made it, or \
             another prefix"
        ));
    }
    let shards: u16 = reply.parse()?;
    reply.end()?;
    match configured {
        _ if !(1..=SHARDS_MAX).contains(&shards) => Err(JournalError::Unexpected(format!("deployment of {shards} shards"))),
        Some(other) if other != shards => refused(format!(
            "deployment {prefix:?} has {shards} shards, and {other} are configured: the number is fixed for a deployment, leave \
             it out or set it to {shards}"
        )),
        _ => Ok(shards),
    }
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
            "unix://relative?pass=secret",
        ] {
            let error = client(bad).expect_err(bad);
            assert!(matches!(error, JournalError::Refused(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("redis://[[user]:password@]host"), "{text}");
            assert!(!text.contains("secret") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_server_is_judged_by_what_it_says() {
        let good = "redis_version:7.0.15\r\nloading:0\r\nmaxmemory_policy:noeviction\r\nrole:master\r\n";
        fit(good).expect("good");
        fit(&good.replace("7.0.15", "10.1.0")).expect("newer");
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
