//! The hosts of a world: each has a name and clocks of its own, and all of them change when it boots. What befalls hosts, and what an
//! operator asks of them. And what must hold of homes, told from what was asked and answered: the journal's own record of them is not
//! looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{Conn, Message};
use super::journal::{Call, LEASE_MS};
use super::process::SILENCE_NS;
use super::world::{EPOCH_NS, Happening, Kind, Listening, MS, Pid, World};
use crate::journal::{Flush, Lease, Part, ProcessRecord, Successor};
use crate::limits::{HEADS_INTERVAL, MOVE_STEP};
use crate::types::{HostId, Incarnation, RoomId, ShardId};

const SECOND: i64 = 1_000 * MS as i64;
/// How far another host's monotonic clock is from the first one's.
const APART: [i64; 5] = [1_000 * SECOND, MS as i64, 10 * 86_400 * SECOND, -(MS as i64), -900 * MS as i64];
/// What a clock shows when its host has booted, at most.
const BOOTED_NS: u64 = 20 * MS;
/// A slow wall clock loses a nanosecond in so many.
const SLOW: u64 = 10;

#[derive(Debug)]
pub(super) struct Host {
    /// No two boots have the same.
    pub(super) name: u32,
    /// Its monotonic clock less the world's time.
    ahead_ns: i64,
    /// Its wall clock less its monotonic clock, before what it has lost since it became slow.
    pub(super) epoch_ns: u64,
    /// From when to when its wall clock is slow.
    slow: (u64, u64),
    /// Until then nothing passes between it and the journal.
    cut_until: u64,
    /// Until then nothing passes between it and the players.
    no_players_until: u64,
}

/// Who had which shard: the number and the name of its home.
pub(super) type Now = BTreeMap<ShardId, (u32, u32)>;

/// What is known of homes from claims that were answered.
#[derive(Debug, Default)]
pub(super) struct Homes {
    pub(super) now: Now,
    /// Hosts that a number was given to: more than one only where the journal lost a claim.
    given: BTreeMap<(ShardId, u32), BTreeSet<u32>>,
    /// The successors that were named, and until when, in milliseconds of the journal's clock.
    named: BTreeMap<ShardId, (HostId, u64)>,
}

fn name_of(host: u32) -> HostId {
    HostId::new(&format!("boot-{host}")).expect("a name")
}

/// Under which URL players reach a host. It stays when the host boots.
fn url_of(place: usize) -> String {
    format!("ws://h{place}:1")
}

/// Which host a URL is of.
pub(super) fn place_of_url(url: &str) -> usize {
    url.strip_prefix("ws://h").and_then(|rest| rest.strip_suffix(":1")?.parse().ok()).expect("a URL of this world")
}

impl Host {
    /// What its monotonic clock says at a moment of the world.
    pub(super) fn local(&self, at: u64) -> u64 {
        at.checked_add_signed(self.ahead_ns).expect("it has booted before")
    }

    /// Its wall clock less its monotonic clock.
    pub(super) fn epoch(&self, at: u64) -> u64 {
        let (from, until) = self.slow;
        self.epoch_ns - at.min(until).saturating_sub(from) / SLOW
    }

    /// What its wall clock says, in nanoseconds.
    pub(super) fn wall(&self, at: u64) -> u64 {
        self.epoch(at) + self.local(at)
    }
}

impl Homes {
    /// Whether the number was, some time, that of this host.
    pub(super) fn was(&self, shard: ShardId, number: u32, host: u32) -> bool {
        self.given.get(&(shard, number)).is_some_and(|hosts| hosts.contains(&host))
    }
}

impl World {
    /// The hosts at the beginning. The first one's clock is the world's.
    pub(super) fn install_hosts(&mut self) {
        for name in 0..self.options.hosts {
            let ahead_ns = if name == 0 { 0 } else { APART[self.below(APART.len() as u64) as usize] };
            let off = if name == 0 { 0 } else { self.below(200 * MS) };
            let epoch_ns = EPOCH_NS.checked_add_signed(-ahead_ns).expect("after 1970") + off;
            let name = u32::try_from(name).expect("few");
            self.hosts.push(Host { name, ahead_ns, epoch_ns, slow: (0, 0), cut_until: 0, no_players_until: 0 });
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

    /// What a process says of itself with a beat, under the name of its host when it said so.
    pub(super) fn record(&self, pid: Pid, host: u32) -> ProcessRecord {
        let url = url_of(self.place_of(pid));
        let (who, part, ready) = match pid.kind {
            Kind::Gateway => (self.gateways[pid.index].incarnation, Part::Gateway, !self.gateways[pid.index].trouble),
            Kind::Worker => (self.workers[pid.index].incarnation, Part::Worker, true),
        };
        let url = if part == Part::Gateway { url } else { String::new() };
        ProcessRecord { ready, url, ..ProcessRecord::new(who, name_of(host), part) }
    }

    /// The name of a process' host.
    pub(super) fn host_id(&self, index: usize) -> HostId {
        name_of(self.host(index).name)
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
        // Its clock begins anew; or it is a machine that has been up for long, in its place.
        let ahead_ns = match self.below(2) {
            0 => i64::try_from(self.below(BOOTED_NS)).expect("short") - i64::try_from(self.now).expect("soon"),
            _ => APART[self.below(APART.len() as u64) as usize],
        };
        let now = self.now;
        let host = &mut self.hosts[host];
        host.epoch_ns = (host.epoch(now) + forth - back).checked_add_signed(host.ahead_ns - ahead_ns).expect("after 1970");
        (host.name, host.ahead_ns, host.slow) = (name, ahead_ns, (0, 0));
        self.trace(|| format!("a host boots as {name}, {ahead_ns} ns ahead"));
        self.ledger.count("reboots");
    }

    /// Somebody sets a host's wall clock, or it goes slow for a while.
    pub(super) fn step_clock(&mut self) {
        let (host, by, forth) = (self.any_host(), self.below(400 * MS), self.below(2) == 0);
        let (slow, now) = (self.hosts.len() > 1 && self.below(3) == 0, self.now);
        let host = &mut self.hosts[host];
        (host.epoch_ns, host.slow) = (host.epoch(now), (0, 0));
        if slow {
            host.slow = (now, now + 2 * by);
        } else {
            host.epoch_ns = if forth { host.epoch_ns + by } else { host.epoch_ns - by };
        }
        self.ledger.count(if slow { "wall clocks that go slow" } else { "steps of the wall clock" });
    }

    /// Everything on a host stands still: for as long as its machine does, or its memory is moved.
    pub(super) fn pause_host(&mut self) {
        let host = self.any_host();
        let most = if self.below(3) == 0 { 2_000 * MS } else { 300 * MS };
        let until = self.now + self.below(most);
        for index in self.gateways_on(host) {
            self.pause_gateway(index, until);
        }
        for index in self.workers_on(host) {
            self.pause_worker(index, until);
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
        self.ledger.count("hosts cut off from the journal");
    }

    /// Every connection between a host and the players breaks, at both of its ends, and none comes through.
    pub(super) fn cut_from_players(&mut self) {
        let host = self.any_host();
        self.hosts[host].no_players_until = self.now + 20 * MS + self.below(300 * MS);
        for gateway in self.gateways_on(host) {
            // Also those that it has not let in yet.
            let pid = self.gateway_pid(gateway);
            let here = |(_, conn): &(&u64, &Conn)| (conn.gateway, conn.start) == (pid.index, pid.start);
            let conns: Vec<u64> = self.conns.iter().filter(here).map(|(id, _)| *id).collect();
            conns.into_iter().for_each(|conn| self.say(conn, self.now, Message::Break));
            self.lose_connections(pid);
        }
        self.ledger.count("hosts cut off from the players");
    }

    /// Gateways that a player reaches.
    pub(super) fn gateways_in_reach(&self) -> Vec<usize> {
        let mut alive = self.gateways_alive();
        alive.retain(|index| self.host(*index).no_players_until <= self.now);
        alive
    }

    /// A gateway on this host, if a player reaches one.
    pub(super) fn gateway_at(&mut self, place: usize) -> Option<usize> {
        let mut there = self.gateways_in_reach();
        there.retain(|index| self.place(*index) == place);
        let any = self.below(there.len() as u64) as usize;
        there.get(any).copied()
    }

    /// `lasthit drain` a host; or `lasthit undrain`, if it was drained, or would be the last one.
    pub(super) fn drain_host(&mut self) {
        let host = self.any_host();
        let id = name_of(self.hosts[host].name);
        let drained = self.drained();
        let others = self.hosts.iter().any(|other| name_of(other.name) != id && !drained.contains(&name_of(other.name)));
        let drain = !drained.contains(&id) && others;
        self.store.drain(&id, drain);
        self.trace(|| format!("{id} is drained: {drain}"));
        self.ledger.count(if drain { "hosts drained" } else { "hosts undrained" });
    }

    /// The hosts that are to have no shard, as the journal says.
    pub(super) fn drained(&self) -> BTreeSet<HostId> {
        let nobody = ProcessRecord::new(Incarnation::NONE, name_of(u32::MAX), Part::Worker);
        self.store.clone().beat(&nobody, 0, self.now / MS).drained
    }

    /// `lasthit home`: a shard's owner is asked to hand it over to a host.
    pub(super) fn give_shard(&mut self) {
        let (shard, host) = (ShardId(self.below(u64::from(self.store.shards())) as u16), self.any_host());
        let owner = self.store.owners(self.now / MS)[usize::from(shard.0)].lease.map(|lease| lease.owner);
        let Some(index) = self.workers.iter().position(|w| w.core.is_some() && Some(w.incarnation) == owner) else { return };
        let (pid, to) = (self.worker_pid(index), name_of(self.hosts[host].name));
        let delay = self.delay() + self.cut_off_for(pid);
        self.trace(|| format!("{shard:?} is to move to {to}"));
        self.after(delay, Some(pid), Happening::Give(shard, to));
        self.ledger.count("shards given by hand");
    }

    /// A gateway looks whether the journal has been silent for too long. Then it says that it lives, unless it ends.
    pub(super) fn beat(&mut self, pid: Pid) {
        let gateway = &self.gateways[pid.index];
        if gateway.ending {
            return;
        }
        let good_for_ms = if gateway.alone { self.rest_ms() * 3 } else { LEASE_MS };
        let silent = gateway.trouble && self.now.saturating_sub(gateway.answered_at) > SILENCE_NS;
        let cut_off = self.with_gateway(pid.index, |core, _| {
            let is_cut_off = silent && core.has_others();
            let shards = if is_cut_off { core.all_shards() } else { Vec::new() };
            core.cut_off(shards.into_iter().collect());
            is_cut_off
        });
        if cut_off == Some(true) {
            self.ledger.count("beats of gateways that are cut off");
        }
        self.call(pid, Call::Beat { good_for_ms });
    }

    /// How long it is from one beat to the next of a gateway whose host is alone. Where others are to be found, they are found in time.
    fn rest_ms(&self) -> u64 {
        if self.hosts.len() > 1 { 100 } else { HEADS_INTERVAL.as_millis() as u64 }
    }

    /// It says so again: now and then while its host is alone, and as often as workers while another host is there, or was just before.
    pub(super) fn beat_again(&mut self, pid: Pid, was_alone: bool) {
        let rests = was_alone && self.gateways[pid.index].alone;
        let pause = if rests { self.rest_ms() * MS } else { LEASE_MS * MS / 4 };
        self.after(pause, Some(pid), Happening::Beat);
    }

    /// A gateway asks some more sessions of a shard to move, or closes them.
    pub(super) fn hand_over(&mut self, pid: Pid, shard: ShardId) {
        let asked = self.with_gateway(pid.index, |core, now| core.hand_over(shard, now)).flatten();
        let Some(asked) = asked else { return };
        (0..asked).for_each(|_| self.ledger.count("moves offered to hand over"));
        self.after(MOVE_STEP.as_nanos() as u64, Some(pid), Happening::HandOver(shard));
    }

    /// How long a process is still cut off from the journal.
    pub(super) fn cut_off_for(&self, pid: Pid) -> u64 {
        self.host(pid.index).cut_until.saturating_sub(self.now)
    }

    /// A successor was named, or its name was taken away.
    pub(super) fn named(&mut self, shard: ShardId, to: Option<&Successor>) {
        match to {
            Some(to) => drop(self.homes.named.insert(shard, (to.host.clone(), self.now / MS + LEASE_MS))),
            None => drop(self.homes.named.remove(&shard)),
        }
        self.ledger.count("successors named");
    }

    /// The journal is another one, and may have lost the names.
    pub(super) fn forget_names(&mut self) {
        self.homes.named.clear();
    }

    /// A claim took effect. Homes: a number is never given twice, and rises with each change (rule H1); whoever was registered
    /// under the last home is fenced (rule H3); while a successor is named, it is nobody else's (rule H7).
    pub(super) fn claimed(&mut self, shard: ShardId, lease: Lease, host: u32) {
        if let Some((next, until_ms)) = self.homes.named.remove(&shard) {
            let free = until_ms <= self.now / MS || next == name_of(host);
            assert!(free, "homes: {shard:?} is claimed by boot-{host}, and {next} was named until {until_ms} ms");
        }
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
        let era = self.store.heads(shard, std::slice::from_ref(room)).expect("a head")[0].era;
        let log = self.ledger.rooms.entry((room.clone(), era)).or_default();
        log.deaths.entry(gateway).or_insert(number);
    }

    /// Homes, in the end: every shard is at home on a host that runs, and on none that is drained.
    pub(super) fn check_homes(&self) {
        let drained = self.drained();
        for (shard, (number, name)) in &self.homes.now {
            let runs = self.hosts.iter().any(|host| host.name == *name);
            assert!(runs, "homes: {shard:?} is at home on boot-{name} ({number}), which is gone");
            assert!(!drained.contains(&name_of(*name)), "homes: {shard:?} is still at home on boot-{name}, which is drained");
        }
    }

    /// Whether a host that is drained still has a shard.
    pub(super) fn drains(&self) -> bool {
        let drained = self.drained();
        self.homes.now.values().any(|(_, name)| drained.contains(&name_of(*name)))
    }
}
