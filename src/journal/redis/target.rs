//! Where a journal connects to: one address, or the primary that Sentinel names.

use std::sync::Arc;

use redis::{Client, RedisError};

use super::super::JournalError;
use super::connect::{client, without_secrets};
use super::error::journal_error;
use super::sentinel::{SentinelUrl, Sentinels};

/// Where a journal connects to.
pub(super) enum Target {
    Address(Arc<Server>),
    Sentinels(Arc<Sentinels>),
}

/// A server to connect to.
pub(super) struct Server {
    pub(super) client: Client,
    /// The URL without secrets.
    pub(super) shown: String,
    /// Who named it as the primary, if anybody did.
    pub(super) sentinels: Option<Arc<Sentinels>>,
}

impl Target {
    pub(super) fn of(url: &str) -> Result<Self, JournalError> {
        match SentinelUrl::read(url) {
            Some(found) => Ok(Self::Sentinels(Arc::new(Sentinels::of(url, found)?))),
            None => Ok(Self::Address(Arc::new(Server::at(url)?))),
        }
    }

    /// The server to connect to now.
    pub(super) async fn find(&self) -> Result<Arc<Server>, JournalError> {
        match self {
            Self::Address(server) => Ok(server.clone()),
            Self::Sentinels(sentinels) => Ok(Arc::new(sentinels.server(&sentinels.primary().await?)?)),
        }
    }

    pub(super) fn database(&self) -> i64 {
        match self {
            Self::Address(server) => server.client.get_connection_info().redis_settings().db(),
            Self::Sentinels(sentinels) => sentinels.database(),
        }
    }
}

impl Server {
    /// The server at a URL that names one.
    pub(super) fn at(url: &str) -> Result<Self, JournalError> {
        Ok(Self { client: client(url)?, shown: without_secrets(url), sentinels: None })
    }

    /// Converts an error of this server. A primary that Sentinel named and that is none any more has a successor: the next
    /// connection meets it.
    pub(super) fn error(&self, error: &RedisError) -> JournalError {
        match error.code() {
            Some("READONLY" | "MASTERDOWN") if self.sentinels.is_some() => {
                JournalError::Unreachable(format!("{} is not the primary any more: asking sentinel for the next one", self.shown))
            }
            _ => journal_error(error),
        }
    }

    /// What to say when nobody answers there.
    pub(super) fn missing(&self, why: &str) -> String {
        match self.sentinels {
            None => format!("no redis at {}: {why}: start one there, or correct the url", self.shown),
            Some(_) => format!("no redis at {}, which sentinel names: {why}: waiting for it or its successor", self.shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_no_primary_any_more_is_out_of_reach_only_if_there_is_a_successor() {
        let alone = Server::at("redis://h").expect("a url");
        let Ok(Target::Sentinels(sentinels)) = Target::of("redis+sentinel://h/main") else { panic!("a url") };
        let named = sentinels.server("h:1").expect("an address");
        for (code, is_final) in [("READONLY", true), ("MASTERDOWN", true), ("UNBLOCKED", false), ("LOADING", false)] {
            let error = redis::make_extension_error(code.into(), None);
            assert!(matches!(named.error(&error), JournalError::Unreachable(_)), "{code}");
            assert_eq!(matches!(alone.error(&error), JournalError::Refused(_)), is_final, "{code}");
        }
    }
}
