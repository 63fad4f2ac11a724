//! A shard that is handed over to another host: its successor is named, its gateways are told, and once they have left it is released.
//! A gateway that does not leave in time is fenced by the successor's claim.

use super::Shard;
use crate::journal::{Successor, Survey};
use crate::limits::HAND_WITHIN;
use crate::types::HostId;
use crate::wire::push::{self, Push};
use crate::worker::state::Shared;
use crate::worker::step::Command;

#[derive(Debug)]
pub(super) struct Handing {
    to: Successor,
    since_ns: u64,
    /// Whether the journal has the name. Before that others of this host might claim what is released.
    named: bool,
}

impl Shard {
    /// How many times something was appended since [`Shard::busy_from_here`].
    pub(in crate::worker) fn busy(&self) -> u32 {
        u32::try_from(self.append.saturating_sub(self.busy_from)).unwrap_or(u32::MAX)
    }

    pub(in crate::worker) fn busy_from_here(&mut self) {
        self.busy_from = self.append;
    }

    /// The host that it is handed over to.
    pub(in crate::worker) fn successor(&self) -> Option<&HostId> {
        self.handing.as_ref().map(|handing| &handing.to.host)
    }

    /// Hands it over to this host, or to none. Every call renews the name, and tells the gateways again.
    pub(in crate::worker) fn hand_to(&mut self, to: Option<Successor>, shared: &mut Shared) {
        let (shard, lease) = (self.id, self.lease);
        let Some(to) = to else {
            // What is being released goes where it was to go.
            if !self.releasing && self.handing.take().is_some() {
                shared.emit(Command::Name { shard, lease, to: None });
            }
            return;
        };
        let (since_ns, named) = match &self.handing {
            Some(handing) if handing.to.host == to.host => (handing.since_ns, handing.named),
            _ => (shared.now_ns, false),
        };
        shared.emit(Command::Name { shard, lease, to: Some(to.clone()) });
        let within_ns = u64::try_from(HAND_WITHIN.as_nanos()).unwrap_or(u64::MAX);
        let left_ns = within_ns.saturating_sub(shared.now_ns.saturating_sub(since_ns));
        let push = push::encode(&Push::Moving {
            shard,
            number: lease.home,
            host: to.host.clone(),
            url: to.url.clone(),
            within_ms: left_ns / 1_000_000,
        });
        for (gateway, _) in self.gateways.iter().filter(|(_, view)| !view.fenced) {
            shared.emit(Command::Publish { shard, gateway: *gateway, push: push.clone(), answer: false });
        }
        self.handing = Some(Handing { to, since_ns, named });
    }

    /// The journal has the name: asks which gateways are still inside.
    pub(in crate::worker) fn named(&mut self, shared: &mut Shared) {
        if let Some(handing) = &mut self.handing {
            handing.named = true;
            shared.emit(Command::Survey { shard: self.id, rooms: false });
        }
    }

    /// Lets go of it as soon as all gateways have left. Those that have not within the time and a lease have not heard of it.
    pub(super) fn look_who_is_inside(&mut self, survey: &Survey, shared: &Shared) {
        let Some(handing) = self.handing.as_ref().filter(|handing| handing.named) else { return };
        let patience_ns = u64::try_from(HAND_WITHIN.as_nanos()).unwrap_or(u64::MAX) + shared.limits.lease_ms * 1_000_000;
        let late = shared.now_ns.saturating_sub(handing.since_ns) >= patience_ns;
        if late || survey.gateways.iter().all(|gateway| gateway.fenced) {
            self.releasing = true;
        }
    }
}
