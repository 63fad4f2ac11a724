//! What is done to a supervisor while a run goes on, one thing after the other: through its own commands, or by signals to processes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, sleep_until, timeout};

use crate::limits::{PHASE_REST, PHASE_SETTLE, PHASE_TIMEOUT, SCALE_HOLD, SUPERVISOR_STOP};
use crate::load::client::Run;
use crate::load::connects::{Connecting, Connector};
use crate::load::phases::{Phases, What};
use crate::load::{Beside, Load};
use crate::supervised::Supervised;

/// One thing that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deed {
    /// `lasthit reload`: all processes are replaced
    Reload,
    /// Another program is put in the place of the one that runs, then `lasthit reload`
    Exec,
    /// `lasthit scale`: one gateway and one worker more, and back again
    Scale,
    /// Kill a gateway with -9, then a worker; both are started again
    Crash,
    /// Stop the supervisor itself (SIGSTOP) for 5 s
    SupervisorStop,
}

impl Deed {
    fn what(self) -> What {
        let name = match self {
            Self::Reload => "reload",
            Self::Exec => "exec",
            Self::Scale => "scale",
            Self::Crash => "crash",
            Self::SupervisorStop => "supervisor-stop",
        };
        // Nobody accepts while the supervisor is stopped: connections wait.
        let allowance = if self == Self::SupervisorStop { SUPERVISOR_STOP } else { Duration::ZERO };
        What { name, resets: self == Self::Crash, allowance }
    }
}

/// What is done beside a run.
#[derive(Debug, Clone)]
pub(crate) struct During {
    pub(crate) deeds: Vec<Deed>,
    /// The supervisor and its process, where something is done to it.
    pub(crate) supervisor: Option<(Supervised, Pid)>,
    /// The first of them begins after the warm-up, and the run goes on at least so long.
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    /// Further connections a second.
    pub(crate) connects: u32,
}

impl During {
    /// How much longer than planned a run with these deeds takes at most.
    pub(crate) fn extra(deeds: &[Deed]) -> Duration {
        (PHASE_TIMEOUT + PHASE_SETTLE + PHASE_REST) * u32::try_from(deeds.len()).unwrap_or(u32::MAX)
    }

    /// What a load is measured beside; None when there is nothing.
    pub(crate) fn of(deeds: &[Deed], load: &Load, supervisor: Option<(Supervised, Pid)>) -> Option<Beside> {
        if deeds.is_empty() && load.connects == 0 {
            return None;
        }
        let (deeds, connects) = (deeds.to_vec(), load.connects);
        let during = Self { deeds, supervisor, duration: load.duration, warm_up: load.warm_up, connects };
        Some(Box::new(|run| Box::pin(during.go(run))))
    }

    async fn go(self, run: Arc<Run>) -> Result<()> {
        let connector = (self.connects > 0).then(|| {
            let connecting = Connecting {
                urls: run.urls.clone(),
                dialect: run.dialect,
                tag: run.tag.clone(),
                rate: self.connects,
                sessions: run.plan.sessions(),
            };
            let told = Arc::clone(&run);
            Connector::start(connecting, run.start, move |one| told.tally.lock().connected(one))
        });
        let connector = connector.transpose()?;
        sleep_until(run.start + self.warm_up).await;
        if let Some((supervised, pid)) = &self.supervisor {
            for deed in &self.deeds {
                sleep(PHASE_REST).await;
                phase(*deed, supervised, *pid, &run).await;
            }
            if !self.deeds.is_empty() {
                sleep(PHASE_REST).await;
            }
        }
        sleep_until(run.start + self.warm_up + self.duration).await;
        if let Some(connector) = connector {
            connector.end().await?;
        }
        Ok(())
    }
}

/// Does one thing, and tells the run's counts of it.
async fn phase(deed: Deed, supervised: &Supervised, supervisor: Pid, run: &Run) {
    let tell = |told: &dyn Fn(&mut Phases)| {
        if let Some(phases) = &mut run.tally.lock().phases {
            told(phases);
        }
    };
    tell(&|phases| phases.begin(deed.what(), run.elapsed()));
    let done = timeout(PHASE_TIMEOUT, deed.carry_out(supervised, supervisor)).await;
    let done = done.unwrap_or_else(|_| bail!("it is not over after {} s", PHASE_TIMEOUT.as_secs()));
    let failed = done.err().map(|why| format!("{why:#}"));
    tell(&|phases| phases.done(run.elapsed(), failed.clone()));
    sleep(PHASE_SETTLE).await;
    tell(&|phases| phases.end(run.elapsed()));
}

impl Deed {
    async fn carry_out(self, supervised: &Supervised, supervisor: Pid) -> Result<()> {
        match self {
            Self::Reload => supervised.reload().await?,
            Self::Exec => {
                supervised.put_another_program().await?;
                supervised.reload().await?;
                ensure!(supervised.runs_program(supervisor), "the supervisor itself runs the program of before");
            }
            Self::Scale => {
                for role in ["gateway", "worker"] {
                    let of_role = |name: &str| name.rsplit_once('-').is_some_and(|(of, _)| of == role);
                    let count = supervised.processes().await?.iter().filter(|process| of_role(&process.name)).count();
                    supervised.scale(role, count + 1).await?;
                    sleep(SCALE_HOLD).await;
                    supervised.scale(role, count).await?;
                }
            }
            Self::Crash => {
                for name in ["gateway-1", "worker-1"] {
                    let before = supervised.signal(name, Signal::SIGKILL).await?;
                    supervised.until_replaced(name, before).await?;
                }
            }
            Self::SupervisorStop => {
                kill(supervisor, Signal::SIGSTOP)?;
                // Whatever ends the run meanwhile, it goes on.
                let goes_on = GoesOn(supervisor);
                sleep(SUPERVISOR_STOP).await;
                drop(goes_on);
                supervised.until_ready().await?;
            }
        }
        Ok(())
    }
}

/// Wakes a stopped process when it is dropped.
struct GoesOn(Pid);

impl Drop for GoesOn {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
