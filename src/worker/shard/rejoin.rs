//! A shard whose journal has another server than before: it may have less than was confirmed. Nothing is loaded, released
//! or committed until every gateway that may know better has said what it has seen, or the window is over (rule G2).

use super::*;

/// Longest stretch between two ticks that counts as waiting: what is longer is this worker's own pause.
const WAIT_STEP_NS: u64 = 50_000_000;

/// What an earlier ownership of the shard leaves to the next one of the same worker.
#[derive(Debug, Default)]
pub(in crate::worker) struct Memory {
    /// The last commit that was confirmed, or found there.
    pub(in crate::worker) confirmed: u64,
    /// The last commit that was sent.
    sent: u64,
    /// Gateways that had registered, and whether they were fenced.
    gateways: BTreeMap<Incarnation, bool>,
}

/// What the shard waits for.
#[derive(Debug)]
pub(super) struct Rejoin {
    /// Gateways that this server has not heard of.
    absent: BTreeSet<Incarnation>,
    step: Step,
    waited_ns: u64,
    probed_at_ns: u64,
    /// The last commit that is stored.
    commit: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Waiting,
    /// The rooms are beginning a new era.
    Renewing,
    /// The window is over, and whoever is absent is being fenced.
    Fencing,
}

impl Shard {
    /// What the next ownership should know.
    pub(in crate::worker) fn memory(&self) -> Memory {
        let gateways = self.gateways.iter().map(|(incarnation, gateway)| (*incarnation, gateway.fenced));
        let sent = self.in_flight.as_ref().map_or(self.commit, |commit| commit.number);
        let known = Memory { confirmed: self.commit, sent, gateways: gateways.collect() };
        // One that was lost before it was surveyed knows what the one before it knew.
        match &self.memory {
            Some(earlier) => Memory {
                confirmed: known.confirmed.max(earlier.confirmed),
                sent: known.sent.max(earlier.sent),
                gateways: earlier.gateways.iter().map(|(i, fenced)| (*i, *fenced)).chain(known.gateways).collect(),
            },
            None => known,
        }
    }

    /// Whether the shard has to wait before it may go on from this survey.
    pub(super) fn must_rejoin(&mut self, survey: &Survey, shared: &mut Shared) -> bool {
        let memory = self.memory.as_ref();
        let known: BTreeMap<Incarnation, bool> = survey.gateways.iter().map(|g| (g.incarnation, g.fenced)).collect();
        let here = |g: &&GatewayRecord| g.fenced || g.server == self.lease.server;
        let mut absent: BTreeSet<Incarnation> = survey.gateways.iter().filter(|g| !here(g)).map(|g| g.incarnation).collect();
        let remembered = memory.into_iter().flat_map(|m| &m.gateways);
        let mut fences = Vec::new();
        for (incarnation, fenced) in remembered {
            match known.get(incarnation) {
                // Rule G1: a fence that was lost is written again.
                Some(false) if *fenced => fences.push(*incarnation),
                None if *fenced => fences.push(*incarnation),
                None => _ = absent.insert(*incarnation),
                Some(_) => {}
            }
        }
        absent.extend(&fences);
        for gateway in fences {
            shared.act(Action::Fence { shard: self.id, lease: self.lease, gateway });
        }
        if absent.is_empty() {
            self.memory = None;
            return false;
        }
        let rejoin = Rejoin { absent, step: Step::Waiting, waited_ns: 0, probed_at_ns: 0, commit: survey.commit };
        self.state = State::Rejoining(rejoin);
        true
    }

    /// A gateway is here, or fenced. When all are, the shard is surveyed anew.
    pub(super) fn rejoined(&mut self, incarnation: Incarnation, shared: &mut Shared) {
        if let State::Rejoining(rejoin) = &mut self.state
            && rejoin.absent.remove(&incarnation)
            && rejoin.absent.is_empty()
            && rejoin.step != Step::Renewing
        {
            self.subscribed(shared);
        }
    }

    /// The rooms began a new era.
    pub(in crate::worker) fn renewed(&mut self, shared: &mut Shared) {
        match &self.state {
            State::Rejoining(rejoin) if rejoin.absent.is_empty() => self.subscribed(shared),
            State::Rejoining(rejoin) if rejoin.step == Step::Renewing => self.fence_absent(shared),
            _ => {}
        }
    }

    fn fence_absent(&mut self, shared: &mut Shared) {
        let State::Rejoining(rejoin) = &mut self.state else { return };
        rejoin.step = Step::Fencing;
        for gateway in rejoin.absent.clone() {
            shared.act(Action::Fence { shard: self.id, lease: self.lease, gateway });
        }
    }

    /// Asks who is absent, and fences them when the window is over.
    pub(super) fn tick_rejoin(&mut self, elapsed_ns: u64, shared: &mut Shared) {
        let State::Rejoining(rejoin) = &mut self.state else { return };
        if rejoin.absent.is_empty() {
            return;
        }
        if shared.now_ns.saturating_sub(rejoin.probed_at_ns) >= shared.limits.probe_interval_ns {
            rejoin.probed_at_ns = shared.now_ns;
            let until = Moment { timeline: shared.limits.timeline, ns: shared.now_ns };
            let push = push::encode(&push::Push::Probe { shard: self.id, until });
            for gateway in &rejoin.absent {
                shared.act(Action::Publish { gateway: *gateway, push: push.clone(), answer: false });
            }
        }
        rejoin.waited_ns += elapsed_ns.min(WAIT_STEP_NS);
        let window_ns = shared.limits.rejoin_window_ns.max(shared.limits.gateway_timeout_ns);
        if rejoin.waited_ns > window_ns && rejoin.step == Step::Waiting {
            // What they have delivered is not known. Where the journal may lose what it confirmed, a commit whose outcome is
            // unknown may be lost and delivered; and a worker that did not own the shard before cannot tell of any commit.
            if shared.limits.commits_may_be_lost && self.memory.as_ref().is_none_or(|m| m.sent > rejoin.commit) {
                rejoin.step = Step::Renewing;
                shared.act(Action::Renew { shard: self.id, seen: u64::MAX });
            } else {
                self.fence_absent(shared);
            }
        }
    }

    /// The journal was out of reach: waiting begins anew (rule R5).
    pub(super) fn excuse_absent(&mut self) {
        if let State::Rejoining(rejoin) = &mut self.state {
            rejoin.waited_ns = 0;
            if rejoin.step == Step::Fencing {
                rejoin.step = Step::Waiting;
            }
        }
    }
}
