//! A shard's gateways: what they promised, what they are asked for, and when they count as dead.

use super::*;

/// Longest stretch between two ticks that counts as a gateway's silence: what is longer is this worker's own pause.
const SILENCE_STEP_NS: u64 = 50_000_000;
/// How long a gateway with sessions may be unheard of before it is asked although nothing waits, in nanoseconds.
const HEARTBEAT_NS: u64 = 5_000_000_000;

/// A gateway as this shard's owner sees it.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    pub(super) watermark: Moment,
    pub(super) fenced: bool,
    pub(super) fencing: bool,
    /// The highest watermark that a room waits for.
    pub(super) wanted: Moment,
    /// A room still did at the last tick.
    pub(super) renewed: bool,
    /// It was not heard of for long, and is asked for this although no room waits.
    pub(super) checked: Option<Moment>,
    /// How long it has owed that, in time during which this worker was awake and reached the journal.
    pub(super) silent_ns: u64,
    pub(super) probed: Moment,
    pub(super) probed_at_ns: u64,
    pub(super) heard_at_ns: u64,
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
            gateway.probed = gateway.wanted;
            gateway.probed_at_ns = shared.now_ns;
            let push = push::encode(&push::Push::Probe { shard: self.id, until: gateway.wanted });
            shared.act(Action::Publish { gateway: incarnation, push });
        }
    }

    pub(in crate::worker) fn fenced(&mut self, record: &GatewayRecord, shared: &mut Shared) {
        self.rejoined(record.incarnation, shared);
        let gateway = self.gateways.entry(record.incarnation).or_default();
        gateway.fencing = false;
        // Its watermark counts when its last bells were heard (rule R2): its death comes behind them.
        gateway.fenced = true;
        let rooms: Vec<RoomId> = self.lanes.keys().cloned().collect();
        for room in rooms {
            self.advance(&room, shared);
        }
    }

    /// The journal was out of reach: no gateway's silence counts (rule R5).
    pub(in crate::worker) fn excuse_gateways(&mut self) {
        self.excuse_absent();
        for gateway in self.gateways.values_mut() {
            gateway.silent_ns = 0;
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
            gateway.silent_ns += elapsed_ns.min(SILENCE_STEP_NS);
            if gateway.silent_ns > shared.limits.gateway_timeout_ns {
                gateway.fencing = true;
                shared.act(Action::Fence { shard: self.id, lease: self.lease, gateway: *incarnation });
            }
        }
    }

    /// Asks gateways that have sessions here and were not heard of for long: they may have died where nothing waits.
    pub(super) fn check_gateways(&mut self, shared: &mut Shared) {
        let inside: BTreeSet<Incarnation> = self.lanes.values().flat_map(|lane| lane.hold.gateways()).collect();
        let now = Moment { timeline: shared.limits.timeline, ns: shared.now_ns };
        for (incarnation, gateway) in &mut self.gateways {
            let quiet = shared.now_ns.saturating_sub(gateway.heard_at_ns) > HEARTBEAT_NS;
            gateway.checked = match gateway.checked {
                _ if !inside.contains(incarnation) || !quiet => None,
                Some(until) if gateway.watermark < until => Some(until),
                _ => Some(now),
            };
        }
    }
}
