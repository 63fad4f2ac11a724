//! The hosts of a world: each has a name and clocks of its own, and all of them change when it boots. And what must hold of homes,
//! told from what was asked and answered: the journal's own record of them is not looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{EPOCH_NS, Listening, MS, Pid, World};
use crate::journal::{Flush, Lease};
use crate::types::{Incarnation, RoomId, ShardId};

const SECOND: i64 = 1_000 * MS as i64;
/// How far another host's monotonic clock is from the first one's.
const APART: [i64; 5] = [1_000 * SECOND, MS as i64, 10 * 86_400 * SECOND, -(MS as i64), -900 * MS as i64];

#[derive(Debug)]
pub(super) struct Host {
    /// No two boots have the same.
    pub(super) name: u32,
    /// Its monotonic clock less the world's time.
    ahead_ns: i64,
    /// Its wall clock less its monotonic clock.
    pub(super) epoch_ns: u64,
    /// Until then nothing passes between it and the journal.
    pub(super) cut_until: u64,
}

/// Who had which shard: the number and the name of its home.
pub(super) type Now = BTreeMap<ShardId, (u32, u32)>;

/// What is known of homes from claims that were answered.
#[derive(Debug, Default)]
pub(super) struct Homes {
    pub(super) now: Now,
    /// Hosts that a number was given to: more than one only where the journal lost a claim.
    given: BTreeMap<(ShardId, u32), BTreeSet<u32>>,
    /// The number under which a gateway's death was written.
    deaths: BTreeMap<(RoomId, Incarnation), u32>,
}

impl Host {
    /// What its monotonic clock says at a moment of the world.
    pub(super) fn local(&self, at: u64) -> u64 {
        at.checked_add_signed(self.ahead_ns).expect("it has booted before")
    }

    /// What its wall clock says, in nanoseconds.
    pub(super) fn wall(&self, at: u64) -> u64 {
        self.epoch_ns + self.local(at)
    }
}

impl Homes {
    /// Whether the number was, some time, that of this host.
    pub(super) fn was(&self, shard: ShardId, number: u32, host: u32) -> bool {
        self.given.get(&(shard, number)).is_some_and(|hosts| hosts.contains(&host))
    }

    /// The end of what a dead gateway may have taken along: a clock of another home says nothing about it (rule H4).
    pub(super) fn death_ends(&self, room: &RoomId, gateway: Incarnation, timeline: u32, raw_ns: u64) -> u64 {
        let same = self.deaths.get(&(room.clone(), gateway)).is_none_or(|number| *number == timeline);
        if same { raw_ns } else { u64::MAX }
    }
}

impl World {
    /// The hosts at the beginning. The first one's clock is the world's.
    pub(super) fn install_hosts(&mut self) {
        for name in 0..self.options.hosts {
            let ahead_ns = if name == 0 { 0 } else { APART[self.below(APART.len() as u64) as usize] };
            let off = if name == 0 { 0 } else { self.below(200 * MS) };
            let epoch_ns = EPOCH_NS.checked_add_signed(-ahead_ns).expect("after 1970") + off;
            self.hosts.push(Host { name: u32::try_from(name).expect("few"), ahead_ns, epoch_ns, cut_until: 0 });
        }
        self.boots = u32::try_from(self.hosts.len()).expect("few") - 1;
    }

    /// Processes are spread over the hosts by their index: each host with a worker has a gateway.
    fn place(&self, index: usize) -> usize {
        index % self.hosts.len()
    }

    /// Where a process runs.
    pub(super) fn host(&self, index: usize) -> &Host {
        &self.hosts[self.place(index)]
    }

    pub(super) fn place_of(&self, pid: Pid) -> usize {
        self.place(pid.index)
    }

    /// What the clock of a process says now.
    pub(super) fn local(&self, index: usize) -> u64 {
        self.host(index).local(self.now)
    }

    /// How long it is, for a process, until its clock says so.
    pub(super) fn until(&self, index: usize, local_ns: u64) -> u64 {
        local_ns.saturating_sub(self.local(index))
    }

    /// The host that has a shard, unless it has booted since.
    pub(super) fn home_host(&self, shard: ShardId) -> Option<&Host> {
        let (_, name) = self.homes.now.get(&shard)?;
        self.hosts.iter().find(|host| host.name == *name)
    }

    /// One of the hosts. Where there is one only, nothing is drawn.
    pub(super) fn any_host(&mut self) -> usize {
        if self.hosts.len() == 1 { 0 } else { self.below(self.hosts.len() as u64) as usize }
    }

    fn gateways_on(&self, host: usize) -> Vec<usize> {
        (0..self.gateways.len()).filter(|index| self.place(*index) == host).collect()
    }

    fn workers_on(&self, host: usize) -> Vec<usize> {
        (0..self.workers.len()).filter(|index| self.place(*index) == host).collect()
    }

    /// A host goes down with everything on it, and boots: its name and its clocks are others.
    pub(super) fn reboot(&mut self, host: usize) {
        for index in self.gateways_on(host) {
            self.kill_gateway(index);
        }
        for index in self.workers_on(host) {
            if self.workers[index].core.is_some() {
                self.end_worker(index);
            }
        }
        if self.supervisor.is_some() {
            self.kill_supervisor();
        }
        self.boots += 1;
        let (name, forth, back) = (self.boots, self.below(200 * MS), self.below(200 * MS));
        let ahead_ns = match self.hosts.len() {
            1 => 0,
            _ => APART[self.below(APART.len() as u64) as usize],
        };
        let host = &mut self.hosts[host];
        host.epoch_ns = (host.epoch_ns + forth - back).checked_add_signed(host.ahead_ns - ahead_ns).expect("after 1970");
        (host.name, host.ahead_ns) = (name, ahead_ns);
        self.trace(|| format!("a host boots as {name}, {ahead_ns} ns ahead"));
        self.ledger.count("reboots");
    }

    /// Everything on a host stands still: for as long as its machine does, or its memory is moved.
    pub(super) fn pause_host(&mut self) {
        let host = self.any_host();
        let most = if self.below(3) == 0 { 2_000 * MS } else { 300 * MS };
        let until = self.now + self.below(most);
        for index in self.gateways_on(host) {
            self.gateways[index].paused_until = until;
        }
        for index in self.workers_on(host) {
            self.workers[index].paused_until = until;
        }
        self.ledger.count("hosts paused");
    }

    /// Nothing passes between a host and the journal, in either direction.
    pub(super) fn cut_host(&mut self) {
        let host = self.any_host();
        self.hosts[host].cut_until = self.now + 10 * MS + self.below(1_000 * MS);
        let bells: Vec<_> = self.bells.iter().map(|((_, shard), s)| (s.pid, Listening::Bells(*shard))).collect();
        let pushes: Vec<_> = self.pushes.iter().map(|(gateway, s)| (s.pid, Listening::Pushes(*gateway))).collect();
        for (pid, what) in bells.into_iter().chain(pushes).filter(|(pid, _)| self.place_of(*pid) == host).collect::<Vec<_>>() {
            self.listen(pid, what);
        }
        self.ledger.count("hosts cut off");
    }

    /// How long a process is still cut off from the journal.
    pub(super) fn cut_off_for(&self, pid: Pid) -> u64 {
        self.host(pid.index).cut_until.saturating_sub(self.now)
    }

    /// A claim took effect. Homes: a number is never given twice, and rises with each change (rule H1); whoever was registered
    /// under the last home is fenced (rule H3).
    pub(super) fn claimed(&mut self, shard: ShardId, lease: Lease, host: u32) {
        match self.homes.now.insert(shard, (lease.home, host)) {
            Some((number, before)) if before == host => {
                assert_eq!(number, lease.home, "homes: {shard:?} stays at boot-{host}, and has another number");
                return;
            }
            Some((number, _)) => {
                assert!(number < lease.home, "homes: {shard:?} moves from {number} to {}", lease.home);
                self.ledger.count("homes moved");
            }
            None => {}
        }
        self.trace(|| format!("the home of {shard:?} is {} at boot-{host}", lease.home));
        self.homes.given.entry((shard, lease.home)).or_default().insert(host);
        let known = self.store.survey(shard, false).expect("a shard").gateways;
        let free = known.iter().find(|gateway| !gateway.fenced);
        assert!(free.is_none(), "homes: {shard:?} has moved to {}, and {free:?} is not fenced", lease.home);
    }

    /// A flush was stored. Homes: only by a gateway of the home, under its number (rule H2).
    pub(super) fn appended_at_home(&self, flush: &Flush, host: u32) {
        let entries = flush.entries.iter().map(|entry| crate::wire::entry::decode(&entry.bytes).expect("an entry").timeline);
        for number in entries.chain([flush.watermark.timeline]) {
            assert_eq!(
                self.homes.now.get(&flush.shard),
                Some(&(number, host)),
                "homes: {:?} of boot-{host} stored something of {number} in {:?}",
                flush.incarnation,
                flush.shard
            );
        }
    }

    /// A gateway was registered, under this number. Homes: only one of the home (rule H2).
    pub(super) fn registered_at_home(&self, shard: ShardId, gateway: Incarnation, number: u32, host: u32) {
        let home = self.homes.now.get(&shard);
        assert_eq!(home, Some(&(number, host)), "homes: {gateway:?} of boot-{host} is registered in {shard:?} under {number}");
    }

    /// A gateway's death was written.
    pub(super) fn death_written(&mut self, shard: ShardId, room: &RoomId, gateway: Incarnation) {
        let number = self.homes.now.get(&shard).map_or(0, |(number, _)| *number);
        self.homes.deaths.entry((room.clone(), gateway)).or_insert(number);
    }

    /// Whether a player has waited long enough: its room may live on another host, and its gateway holds it until then.
    pub(super) fn waits_in_vain(&mut self, conn: u64) -> bool {
        let patience = 150 * MS + if self.hosts.len() > 1 { self.below(150 * MS) } else { 0 };
        self.hosts.len() > 1 && self.conns[&conn].opened_at + patience < self.now
    }

    /// The gateway after this one that lives: on another host, where there is one.
    pub(super) fn another_gateway(&self, than: usize) -> Option<usize> {
        let alive = self.gateways_alive();
        alive.iter().find(|index| **index > than).or(alive.first()).copied()
    }
}
