//! What a gateway does now and then, whether anybody needs it or not.

use super::*;

/// Finds out whether the journal works while nobody needs it.
pub(super) async fn keep_asking(hub: std::sync::Weak<Inner>, stop: CancellationToken) {
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

pub(super) async fn keep_house(hub: std::sync::Weak<Inner>, timeline: u32, stop: CancellationToken) {
    let (mut tick, mut heads) = (tokio::time::interval(TICK), tokio::time::interval(HEADS_INTERVAL));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {
                let Some(hub) = hub.upgrade().map(Hub) else { return };
                hub.with(|state| state.core.tick(clock::monotonic_ns()));
            }
            _ = heads.tick() => {
                let Some(hub) = hub.upgrade().map(Hub) else { return };
                if let Err(error) = journal::keep_entered(&*hub.0.journal, timeline).await {
                    hub.trouble("keep the host's timeline", &error);
                }
                match journal::known_rooms(&*hub.0.journal).await {
                    Ok(known) => *hub.0.known.write() = known.map(|all| all.iter().map(|one| Pattern::new(one)).collect()),
                    Err(error) => hub.trouble("ask for which rooms there are rules", &error),
                }
                hub.with(|state| state.core.check_heads());
            }
        }
    }
}
