//! The supervisor under attack: what is asked of it, and what is done to the processes that it looks after.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::Slot;
use crate::chaos::plan::{Fault, Kind};
use crate::limits::SCALE_HOLD;
use crate::supervised::{Process, Supervised};

/// Its settings: shorter than the usual ones, so that more happens in a run.
const SETTINGS: [&str; 8] = ["--drain-window", "1s", "--hang-timeout", "3s", "--ready-timeout", "10s", "--stop-timeout", "6s"];
/// What is kept of that which it did not do.
const UNDONE_MAX: usize = 100;

/// How much there is to attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Gateways by themselves.
    pub(crate) gateways: usize,
    /// Workers by themselves.
    pub(crate) workers: usize,
    /// Gateways and workers of a supervisor, if there is one.
    pub(crate) supervised: Option<(usize, usize)>,
    /// Hosts, each with so many gateways and workers, in the place of those by themselves; 0 for none.
    pub(crate) hosts: usize,
}

impl From<(usize, usize)> for Size {
    fn from((gateways, workers): (usize, usize)) -> Self {
        Self { gateways, workers, supervised: None, hosts: 0 }
    }
}

impl Size {
    /// An error when nobody could play.
    pub(super) fn checked(self) -> Result<Self> {
        let (gateways, workers) = self.supervised.unwrap_or_default();
        for (what, count) in [("gateways", self.gateways + gateways), ("workers", self.workers + workers)] {
            ensure!(count > 0, "{what} 0: use at least 1, or add --supervised gateways=2,workers=2");
        }
        Ok(self)
    }
}

/// A supervisor, over all of its lives.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) slot: Mutex<Slot>,
    pub(super) supervised: Supervised,
    /// A copy of its own, so that another program can be put in its place.
    pub(super) program: PathBuf,
    /// What it is told beside what all are.
    pub(super) args: Vec<String>,
    counts: (usize, usize),
    had: std::sync::Mutex<Had>,
}

/// What it was asked for, or had to do about its processes.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Had {
    /// How often it was started.
    pub(crate) starts: u32,
    /// What it did, by kind.
    pub(crate) done: BTreeMap<String, u64>,
    /// What it did not do: while Redis was away, for one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) undone: Vec<String>,
}

impl Up {
    pub(super) fn new(slot: Mutex<Slot>, counts: (usize, usize), binary: &Path, dir: &Path) -> Result<Self> {
        let (program, control) = (dir.join("lasthit"), dir.join("control.sock"));
        std::fs::copy(binary, &program).with_context(|| format!("{} cannot be copied", binary.display()))?;
        let (gateways, workers, path) = (counts.0.to_string(), counts.1.to_string(), control.display().to_string());
        let args = ["--gateways", &gateways, "--workers", &workers, "--control", &path];
        let args = args.into_iter().chain(SETTINGS).map(str::to_owned).collect();
        let supervised = Supervised::at(control, program.clone());
        Ok(Self { slot, supervised, program, args, counts, had: std::sync::Mutex::default() })
    }

    /// Whether a fault is something that it is asked for, or that happens to a process of its.
    pub(super) fn does(&self, kind: Kind) -> bool {
        kind.needs_supervisor() && !matches!(kind, Kind::SupervisorKill | Kind::SupervisorPause)
    }

    /// Returns when it is over. What it does not do, because Redis is in a fault for one, fails nothing by itself: what counts is that
    /// nothing is lost, and that all is ready in the end.
    pub(super) async fn inflict(&self, fault: Fault) -> Result<()> {
        // One thing at a time, and none while it is down.
        let _alone = self.slot.lock().await;
        let outcome = self.carry_out(fault).await;
        let Ok(mut had) = self.had.lock() else { return Ok(()) };
        match outcome {
            Ok(()) => *had.done.entry(fault.kind.name()).or_default() += 1,
            Err(why) if had.undone.len() < UNDONE_MAX => had.undone.push(format!("{}: {why:#}", fault.kind.name())),
            Err(_) => {}
        }
        Ok(())
    }

    async fn carry_out(&self, fault: Fault) -> Result<()> {
        let (supervised, (gateways, workers)) = (&self.supervised, self.counts);
        // Any of them, by the plan alone.
        let one = |role: &str, count: usize| format!("{role}-{}", 1 + fault.lasts.as_millis() as usize % count.max(1));
        match fault.kind {
            Kind::Reload => supervised.reload().await,
            Kind::Exec => {
                supervised.put_another_program().await?;
                supervised.reload().await
            }
            Kind::Scale => {
                for (role, count) in [("gateway", gateways), ("worker", workers)] {
                    supervised.scale(role, count + 1).await?;
                    sleep(SCALE_HOLD / 2).await;
                    supervised.scale(role, count).await?;
                }
                Ok(())
            }
            Kind::Recycle => {
                supervised.recycle(&one("gateway", gateways)).await?;
                supervised.recycle(&one("worker", workers)).await
            }
            kind => {
                let name = if kind == Kind::GatewayHang { one("gateway", gateways) } else { one("worker", workers) };
                let before = supervised.signal(&name, Signal::SIGSTOP).await?;
                supervised.until_replaced(&name, before).await
            }
        }
    }

    pub(super) async fn had(&self) -> Had {
        let starts = self.slot.lock().await.lives;
        Had { starts, ..self.had.lock().map(|had| had.clone()).unwrap_or_default() }
    }

    /// The processes that it looks after, by name.
    pub(super) async fn pids(&self) -> Vec<(String, Pid)> {
        let all = self.supervised.processes().await.unwrap_or_default();
        all.iter().filter_map(|process| Some((format!("up/{}", process.name), Process::pid(process)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_must_serve() {
        let size =
            |gateways, workers, supervised| Size { gateways, workers, supervised, hosts: 0 }.checked().map_err(|e| e.to_string());
        assert!(size(1, 1, None).is_ok() && size(0, 0, Some((1, 1))).is_ok() && size(0, 1, Some((1, 0))).is_ok());
        assert!(size(0, 1, None).expect_err("nowhere to connect").starts_with("gateways 0"));
        assert!(size(1, 0, Some((1, 0))).expect_err("nobody decides").starts_with("workers 0"));
    }
}
