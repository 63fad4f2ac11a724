//! A server of one's own, as `lasthit up` runs it: what it is told so that it is fit, and whether it is.

use redis::AsyncConnectionConfig;

use super::super::JournalError;
use super::connect::{field, fit};
use super::durability::Durability;
use super::error::journal_error;
use super::socket;
use super::target::Server;
use crate::limits::REDIS_RESPONSE_TIMEOUT;

/// Settings of a server and their values. All of them can be set while it runs.
pub(crate) type ServerSettings = [(&'static str, &'static str); 6];

/// What a server is told to keep its data, and what the level promises. Nothing bounds its memory, and nothing is evicted.
pub(crate) fn server_settings(durability: Durability) -> ServerSettings {
    let fsync = if durability == Durability::Disk { "always" } else { "everysec" };
    [
        ("appendonly", "yes"),
        ("appendfsync", fsync),
        ("no-appendfsync-on-rewrite", "no"),
        ("save", ""),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
    ]
}

/// Gives a server these settings, once it has loaded its data. False while it loads.
///
/// # Errors
/// When it does not answer, or is not fit.
pub(crate) async fn set_up(url: &str, settings: &ServerSettings) -> Result<bool, JournalError> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_RESPONSE_TIMEOUT));
    let failed = |error| journal_error(&error);
    let server = Server::at(url)?;
    let (mut connection, _driver) = socket::connect(&server.client, config).await.map_err(failed)?;
    let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(failed)?;
    if field(&info, "loading") == "1" {
        return Ok(false);
    }
    let mut set = redis::cmd("CONFIG");
    set.arg("SET");
    for (name, value) in settings {
        set.arg(name).arg(value);
    }
    let () = set.query_async(&mut connection).await.map_err(failed)?;
    let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(failed)?;
    fit(&info, &server).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_what_its_level_wants() {
        for (level, fsync) in [(Durability::Disk, "always"), (Durability::Redis, "everysec")] {
            let told = server_settings(level).map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            assert_eq!(level.judge(&told, 0).expect("fit"), 0);
            assert_eq!(told["appendfsync"], fsync);
            assert_eq!((&*told["appendonly"], &*told["maxmemory-policy"]), ("yes", "noeviction"));
        }
    }
}
