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
use crate::types::{HostId, Incarnation, RoomId, ShardId};

/// What the hub keeps about homes.
pub(super) struct Homes {
    /// Notified when the journal has said where a shard is.
    pub(super) told: Notify,
    rate: DefaultDirectRateLimiter,
    /// For how long a shard's server may be silent before other hosts may have its rooms.
    silence_max: Duration,
    reach: Mutex<Reach>,
    /// The gateways that beat: their hosts, and under which URLs players reach those.
    gateways: Mutex<BTreeMap<Incarnation, (HostId, String)>>,
}

/// Which shards the last ping has reached.
struct Reach {
    /// When the journal was last asked, and answered for all shards but those below.
    answered: Instant,
    /// The shards that it did not reach, and when each was last reached.
    lacks: BTreeMap<ShardId, Instant>,
}

impl Homes {
    pub(super) fn new(silence_max: Duration) -> Self {
        let rate = RateLimiter::direct(Quota::per_second(NonZeroU32::new(HOMES_PER_S).unwrap_or(NonZeroU32::MIN)));
        Self {
            told: Notify::new(),
            rate,
            silence_max,
            reach: Mutex::new(Reach { answered: Instant::now(), lacks: BTreeMap::new() }),
            gateways: Mutex::default(),
        }
    }

    /// The journal was asked, and answered for all shards but these.
    pub(super) fn reached_all_but(&self, lacks: impl IntoIterator<Item = ShardId>) {
        let mut reach = self.reach.lock();
        let last = |shard| (shard, reach.lacks.get(&shard).copied().unwrap_or(reach.answered));
        reach.lacks = lacks.into_iter().map(last).collect();
        reach.answered = Instant::now();
    }

    /// The shards that the last ping did not reach.
    pub(super) fn lacks(&self) -> BTreeSet<ShardId> {
        self.reach.lock().lacks.keys().copied().collect()
    }

    /// The shards that have been out of reach for too long.
    fn silent(&self) -> BTreeSet<ShardId> {
        let reach = self.reach.lock();
        reach.lacks.iter().filter(|(_, last)| last.elapsed() > self.silence_max).map(|(shard, _)| *shard).collect()
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
        let hosts = beats.ready_hosts(&self.0.record);
        self.with(|state| state.core.hosts(hosts));
        let gateways = beats.processes.iter().filter(|process| process.part == Part::Gateway);
        *self.0.homes.gateways.lock() =
            gateways.map(|process| (process.incarnation, (process.host.clone(), process.url.clone()))).collect();
    }

    /// This process.
    pub(crate) fn process(&self) -> Incarnation {
        self.0.record.incarnation
    }

    /// The host of this process.
    pub(crate) fn host(&self) -> &HostId {
        &self.0.record.host
    }

    /// The host of a gateway of this deployment, and under which URL players reach it, as the last beat's answer said.
    pub(crate) fn host_of(&self, gateway: Incarnation) -> Option<(HostId, String)> {
        if gateway == self.process() {
            return Some((self.0.record.host.clone(), self.0.record.url.clone()));
        }
        self.0.homes.gateways.lock().get(&gateway).cloned()
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

    /// Closes the sessions of each shard once whose server has been silent for too long; of other shards nobody notices. What only this
    /// process has not heard, because it was paused, has not failed.
    pub(super) fn check_silence(&self, state: &mut State) {
        let silent = if state.core.has_others() { self.0.homes.silent() } else { BTreeSet::new() };
        state.core.cut_off(silent);
    }
}
