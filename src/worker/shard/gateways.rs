//! A shard's gateways: their watermarks, the probes sent to them, and when they count as dead.

use std::collections::BTreeSet;

use super::{Shard, State};
use crate::journal::GatewayRecord;
use crate::types::{Incarnation, Moment, RoomId};
use crate::wire::push;
use crate::worker::lane::Lane;
use crate::worker::state::Shared;
use crate::worker::step::Command;

/// A journal that takes longer over an answer than this part of the gateways' timeout counts as out of reach.
const HINT: u64 = 4;
/// A gateway with sessions is probed when nothing was heard of it for this long, though no room waits for it.
const HEARTBEAT_NS: u64 = 5_000_000_000;
/// The same for a gateway without sessions, so that a dead one is found.
const IDLE_NS: u64 = 60_000_000_000;
/// How many gateways are forgotten in one step, at most.
const FORGET_MAX: usize = 256;

/// A gateway as this shard's owner sees it.
#[derive(Debug, Default)]
pub(super) struct GatewayView {
    pub(super) watermark: Moment,
    pub(super) fenced: bool,
    pub(super) fencing: bool,
    /// The highest watermark that a room waits for.
    pub(super) wanted: Moment,
    /// The rooms that waited for the gateway when they were last advanced.
    pub(super) waiters: BTreeSet<RoomId>,
    /// Whether something has waited for the gateway since the last tick.
    pub(super) renewed: bool,
    /// The watermark that is asked of it only because nothing was heard of it for long.
    pub(super) checked: Option<Moment>,
    /// How long it has owed a watermark, not counting time in which this worker slept or the journal was out of reach (rule R5).
    pub(super) silent_ns: u64,
    /// The highest watermark that it was probed for.
    pub(super) probed: Moment,
    pub(super) probed_at_ns: u64,
    /// Since when the journal has not answered to a repeated probe.
    pub(super) unanswered_since_ns: Option<u64>,
    /// Whether nobody received the last repeated probe.
    pub(super) deaf: bool,
    /// Whether it is registered only with an earlier server of the journal.
    pub(super) on_earlier_server: bool,
    pub(super) heard_at_ns: u64,
    /// Until when nobody looks at its lock, because the fence failed.
    pub(super) spared_until_ns: u64,
    /// Since when it has been fenced and in no room.
    pub(super) gone_at_ns: Option<u64>,
}

impl GatewayView {
    /// The gateway was probed, by this worker or by another gateway's append.
    pub(super) fn asked(&mut self, until: Moment, now_ns: u64) {
        self.probed = self.probed.max(until);
        self.probed_at_ns = now_ns;
    }
}

impl Shard {
    /// Something waits for this watermark of the gateway: probes it, if that is due (rule R4).
    pub(super) fn want(&mut self, incarnation: Incarnation, until: Moment, shared: &mut Shared) {
        let gateway = self.gateways.entry(incarnation).or_default();
        if gateway.wanted <= gateway.watermark {
            gateway.silent_ns = 0;
        }
        gateway.wanted = gateway.wanted.max(until);
        gateway.renewed = true;
        if gateway.fenced {
            return;
        }
        // One probe at a time: the next one follows its answer, or the interval.
        let answered = gateway.watermark >= gateway.probed;
        let interval_over = shared.now_ns.saturating_sub(gateway.probed_at_ns) >= shared.limits.probe_interval_ns;
        if (answered && gateway.wanted > gateway.probed) || interval_over {
            gateway.asked(gateway.wanted, shared.now_ns);
            let push = push::encode(&push::Push::Probe { shard: self.id, until: gateway.wanted });
            // The journal's answer matters only if the gateway does not answer.
            if !answered {
                gateway.unanswered_since_ns.get_or_insert(shared.now_ns);
            }
            shared.emit(Command::Publish { shard: self.id, gateway: incarnation, push, answer: !answered });
        }
    }

    /// Probes the gateways that rooms still wait for. Drops waiters that wait no more.
    pub(super) fn want_again(&mut self, shared: &mut Shared) {
        let mut wanted = Vec::new();
        let clock = self.clock(shared);
        for (incarnation, gateway) in &mut self.gateways {
            let (lanes, passed) = (&self.lanes, gateway.watermark);
            let far = Moment { timeline: u32::MAX, ns: u64::MAX };
            let reached = |g: Incarnation| if g == *incarnation { passed } else { far };
            let waits = |room: &RoomId| {
                lanes.get(room).is_some_and(|lane| !lane.waits_for(lane.due_fire(clock, shared.now_ns), reached).is_empty())
            };
            while gateway.waiters.first().is_some_and(|room| !waits(room)) {
                gateway.waiters.pop_first();
            }
            if !gateway.waiters.is_empty() {
                wanted.push((*incarnation, gateway.wanted));
            }
        }
        for (incarnation, until) in wanted {
            self.want(incarnation, until, shared);
        }
    }

    /// The journal has answered to a repeated probe, and said how many received it.
    pub(in crate::worker) fn published(&mut self, incarnation: Incarnation, listeners: u64) {
        if let Some(gateway) = self.gateways.get_mut(&incarnation) {
            gateway.unanswered_since_ns = None;
            gateway.deaf = listeners == 0;
        }
    }

    pub(in crate::worker) fn fenced(&mut self, record: &GatewayRecord, shared: &mut Shared) {
        let gateway = self.gateways.entry(record.incarnation).or_default();
        gateway.fencing = false;
        // The record's watermark counts only after the gateway's last bells (rule R2). Its death follows those.
        gateway.fenced = true;
        let rooms: Vec<RoomId> = self.lanes.keys().cloned().collect();
        for room in rooms {
            self.advance(&room, shared);
        }
    }

    /// The processes of these are gone: they are fenced without being waited for (rule R9).
    pub(in crate::worker) fn gone(&mut self, who: &[Incarnation], shared: &mut Shared) {
        let gone = self
            .gateways
            .iter()
            .filter(|(turn, gateway)| gateway.spared_until_ns <= shared.now_ns && who.contains(&turn.process()));
        for turn in gone.map(|(turn, _)| *turn).collect::<Vec<_>>() {
            self.fence(turn, shared);
        }
    }

    /// The gateway's record cannot be read. Its watermark is unknown and it cannot append, so it is fenced at once.
    pub(super) fn fence_damaged(&mut self, incarnation: Incarnation, shared: &mut Shared) {
        if self.fence(incarnation, shared) {
            shared
                .emit(Command::Warn(format!("gateway {incarnation}: its record in shard {} is damaged; it is fenced", self.id)));
        }
    }

    /// Whether it was not fenced yet.
    fn fence(&mut self, incarnation: Incarnation, shared: &mut Shared) -> bool {
        let gateway = self.gateways.entry(incarnation).or_default();
        let news = !gateway.fenced && !std::mem::replace(&mut gateway.fencing, true);
        if news {
            shared.emit(Command::Fence { shard: self.id, lease: self.lease, gateway: incarnation });
        }
        news
    }

    /// A journal that was out of reach for a moment is asked again soon, one that refuses the fence after a time-out.
    pub(in crate::worker) fn fence_failed(&mut self, incarnation: Incarnation, refused: bool, shared: &Shared) {
        if let Some(gateway) = self.gateways.get_mut(&incarnation) {
            (gateway.fencing, gateway.silent_ns) = (false, 0);
            let spared_ns = if refused { shared.limits.gateway_timeout_ns } else { shared.limits.look_interval_ns };
            gateway.spared_until_ns = shared.now_ns.saturating_add(spared_ns);
        }
    }

    /// The journal was out of reach: no gateway's silence counts (rule R5).
    pub(in crate::worker) fn excuse_gateways(&mut self) {
        for gateway in self.gateways.values_mut() {
            gateway.silent_ns = 0;
            gateway.unanswered_since_ns = None;
            gateway.fencing = false;
        }
    }

    /// Counts the silence of gateways that owe a watermark, and fences those that were silent for too long.
    pub(super) fn tick_gateways(&mut self, elapsed_ns: u64, shared: &mut Shared) {
        let checked: Vec<(Incarnation, Moment)> = self
            .gateways
            .iter()
            .filter_map(|(i, g)| g.checked.filter(|until| !g.fenced && g.watermark < *until).map(|until| (*i, until)))
            .collect();
        for (incarnation, until) in checked {
            self.want(incarnation, until, shared);
        }
        for (incarnation, gateway) in &mut self.gateways {
            if gateway.fenced || gateway.fencing {
                continue;
            }
            if !gateway.renewed || gateway.wanted <= gateway.watermark {
                gateway.wanted = Moment::default();
                gateway.silent_ns = 0;
                continue;
            }
            let timeout_ns = shared.limits.gateway_timeout_ns;
            if gateway.unanswered_since_ns.is_some_and(|since| shared.now_ns.saturating_sub(since) > timeout_ns / HINT) {
                // The journal does not answer either: perhaps it is out of reach for the gateway, too.
                gateway.silent_ns = 0;
                continue;
            }
            if gateway.on_earlier_server && shared.now_ns < self.excused_until_ns {
                continue;
            }
            gateway.silent_ns += shared.awake_ns(elapsed_ns);
            if gateway.silent_ns >= shared.limits.look_after_ns && gateway.spared_until_ns <= shared.now_ns {
                shared.owing.insert(incarnation.process());
            }
            if gateway.silent_ns > if gateway.deaf { shared.limits.deaf_timeout_ns } else { timeout_ns } {
                gateway.fencing = true;
                shared.emit(Command::Fence { shard: self.id, lease: self.lease, gateway: *incarnation });
            }
        }
    }

    /// Forgets gateways that are fenced and in no room. A forgotten gateway that turns up again, in a room that was not loaded, is
    /// fenced again for its silence.
    pub(in crate::worker) fn forget_gateways(&mut self, shared: &mut Shared) {
        if !matches!(self.state, State::Live)
            || !self.gateways.values().any(|g| g.fenced)
            || self.forgot_at_ns + shared.limits.bounds.check_interval_ns > shared.now_ns
        {
            return;
        }
        self.forgot_at_ns = shared.now_ns;
        // A room that is not loaded may have one inside. (While a room is being loaded, the core does not call this.)
        if !self.adopt.is_empty() {
            return;
        }
        let inside: BTreeSet<Incarnation> = self.lanes.values().flat_map(Lane::gateways).collect();
        let mut gone = Vec::new();
        for (incarnation, gateway) in &mut self.gateways {
            if !gateway.fenced || inside.contains(incarnation) {
                gateway.gone_at_ns = None;
                continue;
            }
            let since = *gateway.gone_at_ns.get_or_insert(shared.now_ns);
            if shared.now_ns.saturating_sub(since) >= shared.limits.bounds.forget_ns && gone.len() < FORGET_MAX {
                gone.push(*incarnation);
            }
        }
        if !gone.is_empty() {
            shared.emit(Command::Forget { shard: self.id, lease: self.lease, gateways: gone });
        }
    }

    /// The journal has forgotten these gateways.
    pub(in crate::worker) fn forgotten(&mut self, gateways: &[Incarnation]) {
        for gateway in gateways {
            self.gateways.remove(gateway);
            for lane in self.lanes.values_mut() {
                lane.forget(*gateway);
            }
        }
    }

    /// The gateways to be probed because they were not heard of for long: they may have died while no room waits for them.
    pub(in crate::worker) fn quiet_gateways(&self, now_ns: u64) -> Vec<Incarnation> {
        if !matches!(self.state, State::Live) {
            return Vec::new();
        }
        let inside: BTreeSet<Incarnation> = self.lanes.values().flat_map(Lane::gateways).collect();
        let is_quiet = |(incarnation, gateway): &(&Incarnation, &GatewayView)| {
            let quiet_ns = if inside.contains(*incarnation) { HEARTBEAT_NS } else { IDLE_NS };
            let is_checked = gateway.checked.is_some_and(|until| gateway.watermark < until);
            !gateway.fenced && !is_checked && now_ns.saturating_sub(gateway.heard_at_ns) > quiet_ns
        };
        self.gateways.iter().filter(is_quiet).map(|(incarnation, _)| *incarnation).collect()
    }

    /// Probes this gateway from the next tick on, until it answers or is fenced.
    pub(in crate::worker) fn check_gateway(&mut self, incarnation: Incarnation, shared: &Shared) {
        let now = self.now(shared);
        if let Some(gateway) = self.gateways.get_mut(&incarnation) {
            gateway.checked = Some(now);
        }
    }
}
