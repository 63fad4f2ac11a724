//! Orphans. Where the supervisor is the first process of a container, the kernel makes it the parent of whoever loses its own: it
//! waits for them when they end, or their places in the table of processes would never be free again.

use std::collections::BTreeSet;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The orphans of a first process.
#[derive(Debug)]
pub(super) struct Strangers {
    is_first: bool,
    /// Children that had ended at the last look, and that nobody had waited for.
    ended: BTreeSet<i32>,
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self { is_first: std::process::id() == 1, ended: BTreeSet::new() }
    }

    /// Waits for those that had ended at the last look already. Whoever has started a process waits for it at once: what is still
    /// there a beat later is nobody's. `is_own` names the others for good.
    pub(super) fn look(&mut self, is_own: impl Fn(u32) -> bool) {
        if !self.is_first {
            return;
        }
        let ended: BTreeSet<i32> = children().into_iter().filter(|pid| has_ended(*pid)).collect();
        for pid in ended.intersection(&self.ended).filter(|pid| !u32::try_from(**pid).is_ok_and(&is_own)) {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
        }
        self.ended = ended;
    }
}

/// The children of this process, by whichever thread they came.
fn children() -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Whether it has ended and nobody has waited for it.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn ended() -> Child {
        let child = Command::new("true").spawn().expect("a process");
        let pid = i32::try_from(child.id()).expect("a pid");
        while !has_ended(pid) {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn what_nobody_waits_for_is_waited_for_at_the_second_look() {
        let (mut stranger, mut own) = (ended(), ended());
        let is_own = |pid| pid == own.id();
        let mut strangers = Strangers { is_first: true, ended: BTreeSet::new() };
        // Those of other tests, which run beside this one, are never looked at twice.
        let mine = |strangers: &mut Strangers| {
            let pids = [stranger.id(), own.id()];
            strangers.ended.retain(|pid| pids.iter().any(|mine| i32::try_from(*mine) == Ok(*pid)));
        };
        strangers.look(is_own);
        mine(&mut strangers);
        assert_eq!(strangers.ended.len(), 2);
        strangers.look(is_own);
        assert!(!has_ended(i32::try_from(stranger.id()).expect("a pid")) && stranger.wait().is_err(), "it was waited for");
        assert!(own.wait().is_ok_and(|status| status.success()), "it is its starter's");
        let mut not_first = Strangers { is_first: false, ended: BTreeSet::new() };
        not_first.look(|_| false);
        assert!(not_first.ended.is_empty());
    }
}
