//! A shard whose journal has moved to another server, which may lack commits that were confirmed (rule G1, rule G2, rule G3).
//! Nothing is loaded, released or committed until it is known that no commit is missing, or all rooms have begun a new era.

use std::collections::BTreeSet;

use super::{Shard, State};
use crate::journal::{Survey, Witness};
use crate::types::Incarnation;
use crate::wire::push;
use crate::worker::lane::Lane;
use crate::worker::state::Shared;
use crate::worker::step::Command;

/// What an ownership of the shard hands to the same worker's next one.
#[derive(Debug)]
pub(in crate::worker) struct Memory {
    /// What the ownership knows of commits.
    pub(in crate::worker) witness: Witness,
    /// The processes of gateways that were in the shard's rooms. No other one can have seen a commit whose outcome is unknown. A process
    /// tells what it has seen whatever its turn is by now.
    inside: BTreeSet<Incarnation>,
}

/// What a rejoining shard waits for.
#[derive(Debug)]
pub(super) struct Rejoin {
    /// Processes of gateways that have not registered with this server. Empty while the rooms begin a new era.
    absent: BTreeSet<Incarnation>,
    waited_ns: u64,
    probed_at_ns: u64,
}

impl Shard {
    /// What the next ownership should know. An ownership that did not get as far as to know hands on what it was given.
    pub(in crate::worker) fn memory(mut self) -> Option<Memory> {
        if !self.whole {
            return self.memory.take();
        }
        let sent = self.in_flight.as_ref().map_or(self.commit, |commit| commit.number);
        let (server, epoch) = (self.lease.server, Some(self.lease.epoch));
        let inside = self.lanes.values().flat_map(Lane::gateways).map(Incarnation::process).collect();
        Some(Memory { witness: Witness { server, epoch, confirmed: self.commit, sent }, inside })
    }

    /// Whether the shard may go on from this survey: no commit is missing, or nobody can have seen a missing one.
    pub(super) fn is_whole(&mut self, survey: &Survey, shared: &mut Shared) -> bool {
        // Without an id, a server cannot be told from another.
        if let Some(epoch) = survey.doubt.filter(|_| !self.whole && survey.server != Incarnation::NONE) {
            let here: BTreeSet<Incarnation> =
                survey.gateways.iter().filter(|g| g.server == self.lease.server).map(|g| g.incarnation.process()).collect();
            let absent = match self.memory.as_ref().filter(|memory| memory.witness.epoch == Some(epoch)) {
                _ if !shared.limits.commits_may_be_lost => Some(BTreeSet::new()),
                Some(memory) if memory.witness.sent <= survey.commit => Some(BTreeSet::new()),
                Some(memory) => Some(memory.inside.difference(&here).copied().collect()),
                None => None,
            };
            match absent {
                None => {
                    self.renew(shared);
                    return false;
                }
                Some(absent) if !absent.is_empty() => {
                    self.state = State::Rejoining(Rejoin { absent, waited_ns: 0, probed_at_ns: 0 });
                    return false;
                }
                Some(_) => {
                    let witness = Witness { server: Incarnation::NONE, epoch: Some(epoch), confirmed: 0, sent: 0 };
                    shared.emit(Command::Testify { shard: self.id, witness });
                }
            }
        }
        (self.whole, self.memory) = (true, None);
        true
    }

    fn renew(&mut self, shared: &mut Shared) {
        self.state = State::Rejoining(Rejoin { absent: BTreeSet::new(), waited_ns: 0, probed_at_ns: 0 });
        shared.emit(Command::Testify { shard: self.id, witness: Witness::NONE });
    }

    /// A gateway has registered. When the last one has, another survey shows whether one of them had seen more: then the rooms are
    /// in a new era.
    pub(super) fn rejoined(&mut self, incarnation: Incarnation, shared: &mut Shared) {
        if let State::Rejoining(rejoin) = &mut self.state
            && rejoin.absent.remove(&incarnation.process())
            && rejoin.absent.is_empty()
        {
            self.subscribed(shared);
        }
    }

    /// The journal has taken the testimony; the rooms have begun a new era if they had to.
    pub(in crate::worker) fn testified(&mut self, shared: &mut Shared) {
        if let State::Rejoining(rejoin) = &self.state
            && rejoin.absent.is_empty()
        {
            self.subscribed(shared);
        }
    }

    /// Probes absent gateways. When the window is over, the rooms begin a new era: what the absent have delivered stays unknown.
    /// Time in which the journal was out of reach does not count (rule R5).
    pub(super) fn tick_rejoin(&mut self, elapsed_ns: u64, shared: &mut Shared) {
        let until = self.now(shared);
        let State::Rejoining(rejoin) = &mut self.state else { return };
        if rejoin.absent.is_empty() {
            return;
        }
        if shared.now_ns.saturating_sub(rejoin.probed_at_ns) >= shared.limits.probe_interval_ns {
            rejoin.probed_at_ns = shared.now_ns;
            let push = push::encode(&push::Push::Probe { shard: self.id, until });
            for gateway in &rejoin.absent {
                shared.emit(Command::Publish { shard: self.id, gateway: *gateway, push: push.clone(), answer: false });
            }
        }
        rejoin.waited_ns += shared.awake_ns(elapsed_ns);
        if rejoin.waited_ns > shared.limits.rejoin_window_ns {
            self.renew(shared);
        }
    }
}
