//! Where rooms are, for whoever asks the hub; shards that are handed over; and what happens when the journal is silent.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use quanta::Instant;
use tokio::sync::Notify;

use super::{Hub, State};
use crate::clock;
use crate::gateway::homes::Located;
use crate::gateway::step::Input;
use crate::journal::{Beats, Part};
use crate::limits::{HELD_TRIES, HOME_WITHIN, HOMES_PER_S, MOVE_STEP};
use crate::metrics as names;
use crate::types::{HostId, RoomId, ShardId};

/// What the hub keeps about homes.
pub(super) struct Homes {
    /// Notified when the journal has said where a shard is.
    pub(super) told: Notify,
    rate: DefaultDirectRateLimiter,
    /// For how long the journal may be silent before other hosts may have its rooms.
    silence_max: Duration,
    answered: Mutex<Instant>,
    /// The shards that the last ping did not reach.
    pub(super) lacks: Mutex<BTreeSet<ShardId>>,
}

impl Homes {
    pub(super) fn new(silence_max: Duration) -> Self {
        let rate = RateLimiter::direct(Quota::per_second(NonZeroU32::new(HOMES_PER_S).unwrap_or(NonZeroU32::MIN)));
        Self { told: Notify::new(), rate, silence_max, answered: Mutex::new(Instant::now()), lacks: Mutex::default() }
    }

    /// The journal has answered.
    pub(super) fn answered(&self) {
        *self.answered.lock() = Instant::now();
    }
}

impl Hub {
    /// Where a room is; `joins` says that a session is about to join it. None if nobody has said in time.
    pub(crate) async fn locate(&self, room: &RoomId, joins: bool) -> Option<Located> {
        let located = async {
            loop {
                // From here on no news is missed.
                let told = self.0.homes.told.notified();
                let now_ns = clock::monotonic_ns();
                if let Some(located) = self.with(|state| state.core.locate(room, joins, now_ns)) {
                    return located;
                }
                told.await;
            }
        };
        match tokio::time::timeout(HOME_WITHIN, located).await {
            Ok(located) => Some(located),
            Err(_) => self.0.state.lock().core.last_located(room, clock::monotonic_ns()),
        }
    }

    /// Takes up which hosts have a gateway that takes sessions, and under which URL.
    pub(super) fn heard(&self, beats: &Beats) {
        let mut hosts = BTreeMap::<HostId, String>::new();
        for process in beats.processes.iter().filter(|process| process.part == Part::Gateway && process.ready) {
            let url = hosts.entry(process.host.clone()).or_default();
            if url.is_empty() {
                url.clone_from(&process.url);
            }
        }
        self.with(|state| state.core.hosts(hosts));
    }

    pub(super) async fn read_home(self, shard: ShardId, again: bool) {
        if again {
            tokio::time::sleep(HELD_TRIES).await;
        }
        while self.0.homes.rate.check().is_err() {
            tokio::time::sleep(HELD_TRIES).await;
        }
        let home = self.insist("ask for a home", || self.0.journal.home(shard)).await;
        self.apply(Input::Home(shard, home, clock::monotonic_ns()));
        self.0.homes.told.notify_waiters();
    }

    pub(super) async fn hand_over(self, shard: ShardId) {
        tracing::info!(shard = shard.0, "a shard is handed over to another host: its sessions are asked to move");
        while let Some(asked) = self.with(|state| state.core.hand_over(shard, clock::monotonic_ns())) {
            metrics::counter!(names::MOVES_OFFERED_TOTAL).increment(asked as u64);
            tokio::time::sleep(MOVE_STEP).await;
        }
    }

    /// Closes all sessions once if the journal has been silent for too long. One that only this process has not heard, because it was
    /// paused, has not failed.
    pub(super) fn check_silence(&self, state: &mut State) {
        let homes = &self.0.homes;
        let silent = self.0.trouble.borrow().is_some() && homes.answered.lock().elapsed() > homes.silence_max;
        let is_cut_off = silent && state.core.has_others();
        state.core.cut_off(is_cut_off);
    }
}
