//! What a gateway does periodically, whether or not anything happens.

use std::sync::Weak;

use tokio_util::sync::CancellationToken;

use super::{Hub, Inner, TICK};
use crate::clock;
use crate::gateway::step::Input;
use crate::journal;
use crate::limits::HEADS_INTERVAL;
use crate::rules::Pattern;

/// Pings the journal, so that an idle gateway notices when it fails.
pub(super) async fn ping_journal(hub: Weak<Inner>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let Some(journal) = hub.upgrade().map(|hub| hub.journal.clone()) else { return };
        let Some(answer) = stop.run_until_cancelled(journal.ping()).await else { return };
        let Some(hub) = hub.upgrade().map(Hub) else { return };
        match answer {
            Ok(()) => hub.works(),
            Err(error) => hub.trouble("ping", &error),
        }
    }
}

/// Ticks the core, keeps this host entered, asks which rooms have rules, and compares heads.
pub(super) async fn run_timers(hub: Weak<Inner>, timeline: u32, stop: CancellationToken) {
    let (mut tick, mut heads, mut alone) = (tokio::time::interval(TICK), tokio::time::interval(HEADS_INTERVAL), true);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {
                let Some(hub) = hub.upgrade().map(Hub) else { return };
                hub.apply(Input::Tick(clock::monotonic_ns()));
            }
            _ = heads.tick() => {
                let Some(hub) = hub.upgrade().map(Hub) else { return };
                if let Err(error) = journal::keep_entered(&*hub.0.journal, timeline, &mut alone).await {
                    hub.trouble("keep the host entered", &error);
                }
                match journal::known_rooms(&*hub.0.journal).await {
                    Ok(known) => *hub.0.known.write() = known.map(|all| all.iter().map(|one| Pattern::new(one)).collect()),
                    Err(error) => hub.trouble("ask which rooms have rules", &error),
                }
                hub.apply(Input::CheckHeads);
            }
        }
    }
}
