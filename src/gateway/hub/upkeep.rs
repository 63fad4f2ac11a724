//! What a gateway does periodically, whether or not anything happens.

use std::sync::Weak;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Hub, Inner, TICK};
use crate::clock;
use crate::gateway::step::Input;
use crate::journal::{self, ProcessRecord};
use crate::limits::{HEADS_INTERVAL, HOST_TIMEOUT};
use crate::rules::Pattern;
use crate::types::ShardId;

/// Pings the journal, so that an idle gateway notices when it fails.
pub(super) async fn ping_journal(hub: Weak<Inner>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let Some(journal) = hub.upgrade().map(|hub| hub.journal.clone()) else { return };
        let pings = async { tokio::join!(journal.ping(), journal.ping_shards()) };
        let Some((answer, away)) = stop.run_until_cancelled(pings).await else { return };
        let Some(hub) = hub.upgrade().map(Hub) else { return };
        journal::tell_away(&hub.0.away, &away);
        // Of a single server the one ping tells for all shards; of a cluster this one tells of what is of no shard.
        let all = (answer.is_err() && journal.beside(None).is_none()).then(|| (0..journal.shards()).map(ShardId));
        let parts = away.iter().flat_map(|(shards, _)| shards).copied();
        hub.0.homes.reached_all_but(parts.chain(all.into_iter().flatten()));
        match answer {
            Ok(()) => hub.works(),
            Err(error) => hub.trouble("ping", &error),
        }
    }
}

/// Says where this gateway runs: now and then while this host is alone, and as often as workers do while another host is there.
pub(super) async fn beat(hub: Weak<Inner>, lease: Duration, stop: CancellationToken) {
    let mut alone = true;
    loop {
        let Some(hub) = hub.upgrade().map(Hub) else { return };
        if hub.is_draining() {
            return;
        }
        let ready = hub.0.trouble.borrow().is_none();
        let lacks = hub.0.homes.lacks();
        let record = ProcessRecord { ready, lacks, offset_us: clock::epoch_us(), ..hub.0.record.clone() };
        let (good_for, until_next) = if alone { (HOST_TIMEOUT, HEADS_INTERVAL) } else { (lease, lease / 4) };
        match hub.0.journal.beat(&record, ms(good_for)).await {
            Ok(beats) => {
                alone = beats.other_home(&record).is_none();
                hub.heard(&beats);
                for damaged in &beats.damaged {
                    tracing::debug!("what a process says of itself cannot be read: {damaged}");
                }
            }
            Err(error) => hub.trouble("say where this gateway runs", &error),
        }
        drop(hub);
        // By what this beat was good for: whoever has just become alone says so in time, or it would be taken for gone.
        let pause = if alone { until_next } else { lease / 4 };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ticks the core, asks which rooms have rules, and compares heads.
pub(super) async fn run_timers(hub: Weak<Inner>, stop: CancellationToken) {
    let (mut tick, mut heads) = (tokio::time::interval(TICK), tokio::time::interval(HEADS_INTERVAL));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {
                let Some(hub) = hub.upgrade().map(Hub) else { return };
                hub.with(|state| {
                    hub.check_silence(state);
                    state.core.apply(Input::Tick(clock::monotonic_ns()));
                });
            }
            _ = heads.tick() => {
                let Some(hub) = hub.upgrade().map(Hub) else { return };
                match journal::known_rooms(&*hub.0.journal).await {
                    Ok(known) => *hub.0.known.write() = known.map(|all| all.iter().map(|one| Pattern::new(one)).collect()),
                    Err(error) => hub.trouble("ask which rooms have rules", &error),
                }
                hub.apply(Input::CheckHeads);
            }
        }
    }
}
