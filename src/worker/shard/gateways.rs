//! A shard's gateways: what they promised, what they are asked for, and when they count as dead.

use std::collections::BTreeSet;

use super::{Shard, State};
use crate::journal::GatewayRecord;
use crate::types::{Incarnation, Moment, RoomId};
use crate::wire::push;
use crate::worker::lane::Lane;
use crate::worker::state::Shared;
use crate::worker::step::Command;

/// Longest stretch between two ticks that counts as a gateway's silence: what is longer is this worker's own pause.
pub(super) const SILENCE_STEP_NS: u64 = 50_000_000;
/// A part of the gateways' timeout: a journal that takes longer over an answer counts as out of reach.
const HINT: u64 = 4;
/// How long a gateway with sessions may be unheard of before it is asked although nothing waits, in nanoseconds.
const HEARTBEAT_NS: u64 = 5_000_000_000;

/// How long a gateway without sessions may be unheard of before it is asked, in nanoseconds: one that is gone is found.
const IDLE_NS: u64 = 60_000_000_000;
/// Gateways that are forgotten in one step.
const FORGET_MAX: usize = 256;

/// A gateway as this shard's owner sees it.
#[derive(Debug, Default)]
pub(super) struct GatewayView {
    pub(super) watermark: Moment,
    pub(super) fenced: bool,
    pub(super) fencing: bool,
    /// The highest watermark that a room waits for.
    pub(super) wanted: Moment,
    /// The rooms that waited for it when they were looked at last.
    pub(super) waiters: BTreeSet<RoomId>,
    /// A room still did at the last tick.
    pub(super) renewed: bool,
    /// It was not heard of for long, and is asked for this although no room waits.
    pub(super) checked: Option<Moment>,
    /// How long it has owed that, in time during which this worker was awake and reached the journal (rule R5).
    pub(super) silent_ns: u64,
    pub(super) probed: Moment,
    pub(super) probed_at_ns: u64,
    /// Since when the journal has owed the answer to a repeated question.
    pub(super) unanswered_since_ns: Option<u64>,
    /// Nobody listened to the last repeated question.
    pub(super) deaf: bool,
    /// It is registered with an earlier server of the journal.
    pub(super) on_earlier_server: bool,
    pub(super) heard_at_ns: u64,
    /// When it was found to be fenced and in no room.
    pub(super) gone_at_ns: Option<u64>,
}

impl GatewayView {
    /// It was asked, by this worker or with another gateway's append: its answer, or the interval, allows the next question.
    pub(super) fn asked(&mut self, until: Moment, now_ns: u64) {
        self.probed = self.probed.max(until);
        self.probed_at_ns = now_ns;
    }
}

impl Shard {
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
        // One question at a time; its answer, or the interval, allows the next.
        let answered = gateway.watermark >= gateway.probed;
        let interval_over = shared.now_ns.saturating_sub(gateway.probed_at_ns) >= shared.limits.probe_interval_ns;
        if (answered && gateway.wanted > gateway.probed) || interval_over {
            gateway.asked(gateway.wanted, shared.now_ns);
            let push = push::encode(&push::Push::Probe { shard: self.id, until: gateway.wanted });
            // Whether the journal answers matters only when the gateway does not.
            if !answered {
                gateway.unanswered_since_ns.get_or_insert(shared.now_ns);
            }
            shared.emit(Command::Publish { gateway: incarnation, push, answer: !answered });
        }
    }

    /// Asks the gateways that rooms still wait for. A room that does no more, for another reason than a watermark, is let go.
    pub(super) fn want_again(&mut self, shared: &mut Shared) {
        let mut wanted = Vec::new();
        for (incarnation, gateway) in &mut self.gateways {
            let (lanes, passed) = (&self.lanes, gateway.watermark);
            let far = Moment { timeline: u32::MAX, ns: u64::MAX };
            let reached = |g: Incarnation| if g == *incarnation { passed } else { far };
            let waits = |room: &RoomId| lanes.get(room).is_some_and(|lane| !lane.waits_for(reached).is_empty());
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

    /// A repeated question reached the journal: so the journal can be reached, and the gateway hears it or not.
    pub(in crate::worker) fn published(&mut self, incarnation: Incarnation, listeners: u64) {
        if let Some(gateway) = self.gateways.get_mut(&incarnation) {
            gateway.unanswered_since_ns = None;
            gateway.deaf = listeners == 0;
        }
    }

    pub(in crate::worker) fn fenced(&mut self, record: &GatewayRecord, shared: &mut Shared) {
        let gateway = self.gateways.entry(record.incarnation).or_default();
        gateway.fencing = false;
        // Its watermark counts when its last bells were heard (rule R2): its death comes behind them.
        gateway.fenced = true;
        let rooms: Vec<RoomId> = self.lanes.keys().cloned().collect();
        for room in rooms {
            self.advance(&room, shared);
        }
    }

    /// What it has promised is not known any more, and it can append nothing: it is fenced without being waited for.
    pub(super) fn fence_damaged(&mut self, incarnation: Incarnation, shared: &mut Shared) {
        let gateway = self.gateways.entry(incarnation).or_default();
        if !gateway.fenced && !std::mem::replace(&mut gateway.fencing, true) {
            shared
                .emit(Command::Warn(format!("gateway {incarnation}: its record in shard {} is damaged; it is fenced", self.id)));
            shared.emit(Command::Fence { shard: self.id, lease: self.lease, gateway: incarnation });
        }
    }

    pub(in crate::worker) fn fence_failed(&mut self, incarnation: Incarnation) {
        if let Some(gateway) = self.gateways.get_mut(&incarnation) {
            (gateway.fencing, gateway.silent_ns) = (false, 0);
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

    /// Counts the silence of gateways that something waits for, and fences those that were silent for too long.
    pub(super) fn tick_gateways(&mut self, elapsed_ns: u64, shared: &mut Shared) {
        let checked: Vec<(Incarnation, Moment)> = self
            .gateways
            .iter()
            .filter_map(|(i, g)| g.checked.filter(|until| g.watermark < *until).map(|until| (*i, until)))
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
                // The journal does not answer either: the gateway may have said everything.
                gateway.silent_ns = 0;
                continue;
            }
            if gateway.on_earlier_server && shared.now_ns < self.excused_until_ns {
                continue;
            }
            gateway.silent_ns += elapsed_ns.min(SILENCE_STEP_NS);
            if gateway.silent_ns > if gateway.deaf { shared.limits.deaf_timeout_ns } else { timeout_ns } {
                gateway.fencing = true;
                shared.emit(Command::Fence { shard: self.id, lease: self.lease, gateway: *incarnation });
            }
        }
    }

    /// Lets go of what is known of gateways that are fenced and in no room: nothing can come from them any more. One that is
    /// met again all the same (in a room that was not loaded) is a stranger who says nothing, and is fenced again.
    pub(in crate::worker) fn forget_gateways(&mut self, shared: &mut Shared) {
        if !matches!(self.state, State::Live)
            || !self.gateways.values().any(|g| g.fenced)
            || self.forgot_at_ns + shared.limits.bounds.check_interval_ns > shared.now_ns
        {
            return;
        }
        self.forgot_at_ns = shared.now_ns;
        // Rooms that were not read yet may know one. (Those that are being read are this worker's unanswered steps.)
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

    /// The journal has let go of them.
    pub(in crate::worker) fn forgotten(&mut self, gateways: &[Incarnation]) {
        for gateway in gateways {
            self.gateways.remove(gateway);
            for lane in self.lanes.values_mut() {
                lane.forget(*gateway);
            }
        }
    }

    /// Asks gateways that were not heard of for long: they may have died where nothing waits.
    pub(super) fn check_gateways(&mut self, shared: &mut Shared) {
        let inside: BTreeSet<Incarnation> = self.lanes.values().flat_map(Lane::gateways).collect();
        let now = Moment { timeline: shared.limits.timeline, ns: shared.now_ns };
        for (incarnation, gateway) in &mut self.gateways {
            let unheard_ns = shared.now_ns.saturating_sub(gateway.heard_at_ns);
            let quiet = unheard_ns > if inside.contains(incarnation) { HEARTBEAT_NS } else { IDLE_NS };
            gateway.checked = match gateway.checked {
                _ if gateway.fenced || !quiet => None,
                Some(until) if gateway.watermark < until => Some(until),
                _ => Some(now),
            };
        }
    }
}
