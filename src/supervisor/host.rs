//! What the service manager of the host (systemd) is told: that all is ready, that a reload is under way, how many processes there
//! are, and that the door and the dispatcher answer.

use std::collections::BTreeSet;
use std::sync::mpsc::{SyncSender, sync_channel};

use sd_notify::NotifyState;

use super::ask::Process;
use crate::limits::HOST_WORDS_WAITING;
use crate::runtime::start_thread;

/// Variables that a service manager sets for the process that it has started, and for no child of it.
pub(super) const ENV: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// What is said at once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Ready,
    Reloading,
    Stopping,
    Alive,
    Status(String),
}

/// What the supervisor is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Doing {
    /// A reload is under way.
    pub(super) reloads: bool,
    /// Everything is to end.
    pub(super) stops: bool,
    /// The door's thread has answered since it was asked last.
    pub(super) door_answers: bool,
}

/// Tells a service manager, if there is one.
#[derive(Debug)]
pub(super) struct Host {
    words: Option<SyncSender<Vec<Word>>>,
    watched: bool,
    said: Said,
}

/// What was said last.
#[derive(Debug, Default)]
struct Said {
    ready: bool,
    reloads: bool,
    stops: bool,
    status: String,
}

impl Host {
    /// One that tells whoever the environment names. A thread does, so that a manager that hears nothing holds nobody up.
    pub(super) fn start() -> std::io::Result<Self> {
        let watched = sd_notify::watchdog_enabled().is_some();
        let words = if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let (words, said) = sync_channel::<Vec<Word>>(HOST_WORDS_WAITING);
            start_thread("host", move || said.into_iter().for_each(|words| tell(&words)))?;
            Some(words)
        } else {
            None
        };
        Ok(Self { words, watched, said: Said::default() })
    }

    /// Whether anybody is told anything.
    pub(super) fn listens(&self) -> bool {
        self.words.is_some()
    }

    /// Tells what is new, and that all is well if the manager wants to hear it.
    pub(super) fn look(&mut self, processes: &[Process], doing: Doing) {
        let Some(words) = &self.words else { return };
        let mut news = self.said.news(processes, doing);
        if self.watched && doing.door_answers {
            news.push(Word::Alive);
        }
        if !news.is_empty() {
            // Where the manager hears nothing for so long, the next look tells what then is.
            let _ = words.try_send(news);
        }
    }
}

fn tell(words: &[Word]) {
    let mut states = Vec::new();
    for word in words {
        match word {
            Word::Ready => states.push(NotifyState::Ready),
            Word::Reloading => {
                states.push(NotifyState::Reloading);
                states.extend(NotifyState::monotonic_usec_now());
            }
            Word::Stopping => states.push(NotifyState::Stopping),
            Word::Alive => states.push(NotifyState::Watchdog),
            Word::Status(status) => states.push(NotifyState::Status(status)),
        }
    }
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

impl Said {
    /// What differs from what was said.
    fn news(&mut self, processes: &[Process], doing: Doing) -> Vec<Word> {
        let mut words = Vec::new();
        if doing.stops {
            if !std::mem::replace(&mut self.stops, true) {
                words.push(Word::Stopping);
            }
        } else if self.ready && doing.reloads {
            if !std::mem::replace(&mut self.reloads, true) {
                words.push(Word::Reloading);
            }
        } else if std::mem::take(&mut self.reloads) || !self.ready && are_up(processes) {
            self.ready = true;
            words.push(Word::Ready);
        }
        let status = status(processes);
        if status != self.status {
            self.status.clone_from(&status);
            words.push(Word::Status(status));
        }
        words
    }
}

/// Names of the processes in these phases.
fn names<'a>(processes: &'a [Process], phases: &[&str]) -> BTreeSet<&'a str> {
    processes.iter().filter(|process| phases.contains(&&*process.phase)).map(|process| &*process.name).collect()
}

/// Whether nobody is waited for any more. One that has failed waits for a person: the others need not.
fn are_up(processes: &[Process]) -> bool {
    let ready = names(processes, &["ready"]);
    let rest = names(processes, &["starting", "waiting"]);
    !ready.is_empty() && rest.is_subset(&ready)
}

/// One line: how many processes are ready, how many sessions there are, and who has failed.
pub(super) fn status(processes: &[Process]) -> String {
    let ready = names(processes, &["ready"]).len();
    let all = names(processes, &["starting", "ready", "leaving", "waiting", "failed"]).len();
    let sessions: u64 = processes.iter().map(|process| process.sessions).sum();
    let s = if sessions == 1 { "" } else { "s" };
    let failed = names(processes, &["failed"]);
    let failed = if failed.is_empty() {
        String::new()
    } else {
        format!("; failed: {}", failed.into_iter().collect::<Vec<_>>().join(", "))
    };
    format!("{ready} of {all} processes ready, {sessions} session{s}{failed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, phase: &str, sessions: u64) -> Process {
        Process { name: name.to_owned(), phase: phase.to_owned(), sessions, ..Process::default() }
    }

    #[test]
    fn what_is_new_is_said_once() {
        let mut said = Said::default();
        let starting = [process("gateway-1", "ready", 0), process("worker-1", "starting", 0)];
        let status = |text: &str| Word::Status(text.to_owned());
        let idle = Doing::default();
        assert_eq!(said.news(&starting, idle), [status("1 of 2 processes ready, 0 sessions")]);
        assert_eq!(said.news(&starting, Doing { reloads: true, ..idle }), [], "nothing runs yet that is reloaded");
        let ready = [process("gateway-1", "ready", 1), process("worker-1", "ready", 0)];
        assert_eq!(said.news(&ready, idle), [Word::Ready, status("2 of 2 processes ready, 1 session")]);
        assert_eq!(said.news(&ready, idle), []);
        // A process that crashes later takes nothing back.
        let crashed = [process("gateway-1", "waiting", 0), process("worker-1", "ready", 0)];
        assert_eq!(said.news(&crashed, idle), [status("1 of 2 processes ready, 0 sessions")]);
        // While it is replaced, a slot has two children and counts once.
        let pair = [process("gateway-1", "leaving", 3), process("gateway-1", "ready", 1), process("worker-1", "ready", 0)];
        let reloads = Doing { reloads: true, ..idle };
        assert_eq!(said.news(&pair, reloads), [Word::Reloading, status("2 of 2 processes ready, 4 sessions")]);
        assert_eq!(said.news(&pair, reloads), []);
        assert_eq!(said.news(&ready, idle), [Word::Ready, status("2 of 2 processes ready, 1 session")]);
        let stops = Doing { stops: true, ..idle };
        assert_eq!(said.news(&ready, stops), [Word::Stopping]);
        assert_eq!(said.news(&ready, stops), []);
    }

    #[test]
    fn a_process_that_has_failed_is_named_and_not_waited_for() {
        let mut said = Said::default();
        let all = [process("gateway-1", "ready", 0), process("worker-1", "failed", 0), process("worker-2", "stopped", 0)];
        let status = Word::Status("1 of 2 processes ready, 0 sessions; failed: worker-1".to_owned());
        assert_eq!(said.news(&all, Doing::default()), [Word::Ready, status]);
        assert!(!are_up(&[process("worker-1", "failed", 0)]) && !are_up(&[]), "nothing works");
    }

    #[test]
    fn a_watchdog_hears_nothing_when_a_door_does_not_answer() {
        let (words, said) = sync_channel(HOST_WORDS_WAITING);
        let mut host = Host { words: Some(words), watched: true, said: Said::default() };
        let ready = [process("worker-1", "ready", 0)];
        host.look(&ready, Doing { door_answers: true, ..Doing::default() });
        assert!(said.try_recv().expect("said").contains(&Word::Alive));
        host.look(&ready, Doing::default());
        assert!(said.try_recv().is_err(), "nothing is new, and not all is well");
        // A manager that does not listen holds nobody up.
        for _ in 0..=HOST_WORDS_WAITING {
            host.look(&ready, Doing { door_answers: true, ..Doing::default() });
        }
        assert_eq!(said.try_iter().count(), HOST_WORDS_WAITING);
    }
}
