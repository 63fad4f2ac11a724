//! Where a journal connects to: one address, or the primary that Sentinel names.

use std::sync::Arc;

use redis::{Client, RedisError};
use tokio::sync::Notify;

use super::super::JournalError;
use super::connect::{client, without_secrets};
use super::error::{breaks, journal_error};
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
    /// In a cluster: to be told when its nodes may serve something else.
    pub(super) cluster: Option<Arc<Notify>>,
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
        Ok(Self { client: client(url)?, shown: without_secrets(url), sentinels: None, cluster: None })
    }

    /// Converts an error of this server. A primary that Sentinel named and that is none any more has a successor: the next
    /// connection meets it.
    pub(super) fn error(&self, error: &RedisError) -> JournalError {
        if let Some(look) = &self.cluster {
            return self.error_of_node(error, look);
        }
        match error.code() {
            Some("READONLY" | "MASTERDOWN") if self.sentinels.is_some() => {
                JournalError::Unreachable(format!("{} is not the primary any more: asking sentinel for the next one", self.shown))
            }
            _ => journal_error(error),
        }
    }

    /// As [`Self::error`], of a node of a cluster: which of them it is, is said. What shows that the nodes may serve something else
    /// is told to whoever keeps the map.
    fn error_of_node(&self, error: &RedisError, look: &Notify) -> JournalError {
        if breaks(error) || matches!(error.code(), Some("MOVED" | "CLUSTERDOWN")) {
            look.notify_one();
        }
        let shown = &self.shown;
        match error.code() {
            Some("READONLY" | "MASTERDOWN") => {
                JournalError::Unreachable(format!("{shown} is not a primary any more: asking the cluster for its successor"))
            }
            _ => match journal_error(error) {
                JournalError::Unreachable(why) => JournalError::Unreachable(format!("{shown}: {why}")),
                JournalError::Silent(why) => JournalError::Silent(format!("{shown}: {why}")),
                JournalError::Refused(why) => JournalError::Refused(format!("{shown}: {why}")),
                other => other,
            },
        }
    }

    /// What an error means that came instead of a connection.
    pub(super) fn unreached(&self, error: &RedisError) -> JournalError {
        // Its successor may be elected at any moment.
        if let Some(look) = &self.cluster {
            look.notify_one();
        }
        match journal_error(error) {
            JournalError::Unreachable(why) => JournalError::Unreachable(self.missing(&why)),
            JournalError::Silent(why) => JournalError::Silent(self.missing(&why)),
            _ => self.error(error),
        }
    }

    /// What to say when nobody answers there.
    fn missing(&self, why: &str) -> String {
        if self.cluster.is_some() {
            return format!(
                "no redis at {}, which is named as a node of the cluster: {why}: start it, or let it announce an address that is reached \
                 from here (CONFIG SET cluster-announce-ip, cluster-announce-port)",
                self.shown
            );
        }
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
