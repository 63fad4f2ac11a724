//! Whether this process can do its work, according to its parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Named checks that the parts of a process set. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness {
    /// The reason why each check fails, or None if it passes. The names are fixed in the code, so there are only a few.
    checks: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
    /// What is told of a part although it can do its work.
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
    changed: Arc<Notify>,
}

impl Readiness {
    /// Nothing was checked yet, so not ready.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The check passes from now on.
    pub(crate) fn pass(&self, check: &'static str) {
        if self.checks.lock().insert(check, None).flatten().is_some() {
            tracing::info!(check, "passes again");
        }
        self.changed.notify_waiters();
    }

    /// The check fails from now on; `reason` is one line.
    pub(crate) fn fail(&self, check: &'static str, reason: impl Into<String>) {
        let reason = reason.into().replace('\n', " ");
        let before = self.checks.lock().insert(check, Some(reason.clone()));
        if !matches!(before, Some(Some(_))) {
            tracing::info!(check, reason, "not ready");
        }
    }

    /// Sets the check from a result.
    pub(crate) fn set<E: std::fmt::Display>(&self, check: &'static str, result: Result<(), E>) {
        match result {
            Ok(()) => self.pass(check),
            Err(error) => self.fail(check, error.to_string()),
        }
    }

    /// Sets what is told of a part although it can do its work. None: nothing.
    pub(crate) fn note(&self, part: &'static str, note: Option<String>) {
        let mut notes = self.notes.lock();
        match note {
            Some(note) => _ = notes.insert(part, note.replace('\n', " ")),
            None => _ = notes.remove(part),
        }
    }

    /// `part: note` for each part that has one.
    #[must_use]
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().iter().map(|(part, note)| format!("{part}: {note}")).collect()
    }

    /// Returns once no check fails.
    pub(crate) async fn passed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.failing().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// `check: reason` for each that fails. Empty: ready.
    #[must_use]
    pub(crate) fn failing(&self) -> Vec<String> {
        let checks = self.checks.lock();
        if checks.is_empty() {
            return vec!["start: nothing has been checked yet".to_owned()];
        }
        checks.iter().filter_map(|(check, reason)| reason.as_ref().map(|reason| format!("{check}: {reason}"))).collect()
    }
}
