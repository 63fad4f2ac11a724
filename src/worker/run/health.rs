//! What keeps a worker from working: for its log, and for whoever watches it.

use tokio::sync::watch;

use crate::metrics as names;
use crate::worker::step::Failure;

/// The last trouble, until a heartbeat shows that it is over.
#[derive(Debug)]
pub(super) struct Health {
    trouble: watch::Sender<Option<String>>,
    /// Whether a claim was refused since the last heartbeat. The journal takes heartbeats meanwhile.
    claim_refused: bool,
}

impl Health {
    pub(super) fn new(trouble: watch::Sender<Option<String>>) -> Self {
        Self { trouble, claim_refused: false }
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
        if failure.excuse_ns().is_none() && !refused {
            tracing::warn!(%error, "a step on a part of the journal failed: {what}; it is tried again until it works");
        } else if self.trouble.send_if_modified(|trouble| trouble.replace(error.to_string()).is_none()) {
            tracing::warn!(%error, "the journal does not work: {what}; it is tried again until it works");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::JournalError;
    use crate::worker::step::Scope;

    #[test]
    fn a_refused_claim_is_told_until_none_is_refused() {
        let (sender, trouble) = watch::channel(None);
        let mut health = Health::new(sender);
        let refused =
            |why: &str| Failure { what: "claim shard", scope: Scope::Claim, error: JournalError::Refused(why.to_owned()) };
        for off in ["3.1 s", "3.2 s"] {
            health.failed(&refused(off));
            assert!(trouble.borrow().as_ref().is_some_and(|why| why.contains(off)), "{off}");
            health.alive();
            assert!(trouble.borrow().is_some(), "the heartbeat was taken, the shard was not");
        }
        health.alive();
        assert_eq!(*trouble.borrow(), None, "a heartbeat long nothing was refused");
        let away = JournalError::Unreachable("away".to_owned());
        health.failed(&Failure { what: "ping", scope: Scope::Ping, error: away });
        health.alive();
        assert_eq!(*trouble.borrow(), None);
        assert_eq!(refused("").excuse_ns(), None, "gateways can be reached as ever");
    }
}
