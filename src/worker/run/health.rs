//! What keeps a worker from working: for its log, and for whoever watches it.

use tokio::sync::watch;

use crate::journal::{self, JournalError};
use crate::metrics as names;
use crate::types::ShardId;
use crate::worker::step::Failure;

/// The last trouble, until a heartbeat shows that it is over.
#[derive(Debug)]
pub(super) struct Health {
    trouble: watch::Sender<Option<String>>,
    /// Whether a claim was refused since the last heartbeat. The journal takes heartbeats meanwhile.
    claim_refused: bool,
    away: watch::Sender<Option<String>>,
}

/// Why the worker does not work, and which shards are out of reach while it does.
pub(super) type Told = (watch::Sender<Option<String>>, watch::Sender<Option<String>>);

impl Health {
    pub(super) fn new(trouble: watch::Sender<Option<String>>, away: watch::Sender<Option<String>>) -> Self {
        Self { trouble, claim_refused: false, away }
    }

    /// Which nodes of a cluster are away. It is told when that changes.
    pub(super) fn away(&self, failures: &[(Vec<ShardId>, JournalError)]) {
        journal::tell_away(&self.away, failures);
    }

    /// The journal took a heartbeat.
    pub(super) fn alive(&mut self) {
        if !std::mem::take(&mut self.claim_refused) {
            self.trouble.send_if_modified(|trouble| trouble.take().is_some());
        }
    }

    /// Reports a failed step to the operator.
    pub(super) fn failed(&mut self, failure: &Failure) {
        let Failure { what, error, .. } = failure;
        metrics::counter!(names::JOURNAL_ERRORS_TOTAL, "kind" => error.kind()).increment(1);
        let refused = failure.is_refused_claim();
        self.claim_refused |= refused;
        if failure.is_of_a_node() {
            tracing::debug!(%error, "a step on a node of the cluster failed: {what}; it is tried again until it works");
        } else if failure.excuse_ns().is_none() && !refused {
            tracing::warn!(%error, "a step on a part of the journal failed: {what}; it is tried again until it works");
        } else if self.trouble.send_if_modified(|trouble| trouble.replace(error.to_string()).is_none()) {
            tracing::warn!(%error, "the journal does not work: {what}; it is tried again until it works");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::step::Scope;

    #[test]
    fn a_refused_claim_is_told_until_none_is_refused() {
        let (sender, trouble) = watch::channel(None);
        let mut health = Health::new(sender, watch::Sender::new(None));
        let refused = |why: &str| Failure::new("claim shard", Scope::Claim, JournalError::Refused(why.to_owned()));
        for off in ["3.1 s", "3.2 s"] {
            health.failed(&refused(off));
            assert!(trouble.borrow().as_ref().is_some_and(|why| why.contains(off)), "{off}");
            health.alive();
            assert!(trouble.borrow().is_some(), "the heartbeat was taken, the shard was not");
        }
        health.alive();
        assert_eq!(*trouble.borrow(), None, "a heartbeat long nothing was refused");
        let away = JournalError::Unreachable("away".to_owned());
        health.failed(&Failure::new("ping", Scope::Ping, away));
        health.alive();
        assert_eq!(*trouble.borrow(), None);
        assert_eq!(refused("").excuse_ns(), None, "gateways can be reached as ever");
    }
}
