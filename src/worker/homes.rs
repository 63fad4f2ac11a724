//! Which host should be the home of which shard. Every host computes the same shares from the same table: orphans go to whoever is
//! furthest below its share, a drained host hands over all that it has, and a host above its share hands over what another lacks.
//!
//! Nothing here is trusted for order (H6): the journal's `claim` compares the home that the claimer saw, and one of two wins.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::journal::{Beats, Part, ProcessRecord};
use crate::limits::{BALANCE_AFTER, CHOSEN_LEASES, REHOME_WITHIN};
use crate::types::{HostId, Incarnation, ShardId};

/// What the journal says of a shard.
#[derive(Debug, Clone)]
pub(super) struct ShardRow {
    pub(super) shard: ShardId,
    /// Number and host of its home. None: it never had one.
    pub(super) home: Option<(u32, HostId)>,
    /// The successor that its owner has named, if the name has not run out.
    pub(super) next: Option<HostId>,
    /// Its owner, if that worker lives and has not let go of it.
    pub(super) owner: Option<Incarnation>,
    /// Events a second, if this worker owns it.
    pub(super) busy: u32,
}

impl ShardRow {
    fn host(&self) -> Option<&HostId> {
        self.home.as_ref().map(|(_, host)| host)
    }

    fn number(&self) -> Option<u32> {
        self.home.as_ref().map(|(number, _)| *number)
    }
}

/// What one heartbeat's answer said. Equal tables give equal plans on all hosts.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// This worker's host.
    pub(super) me: HostId,
    pub(super) worker: Incarnation,
    pub(super) lease_ns: u64,
    /// How long after the last heartbeat of its gateways, or of its workers, another host takes over a shard. At least a lease: for so long
    /// `processes` holds who has gone without a word.
    pub(super) rehome_after_ns: u64,
    /// The processes that beat, as the last heartbeat's answer said.
    pub(super) processes: Vec<ProcessRecord>,
    /// The hosts that are to have no shard.
    pub(super) drained: BTreeSet<HostId>,
    /// All shards of the deployment, in their order.
    pub(super) shards: Vec<ShardRow>,
}

/// The hosts that may be a home, with their URLs, as every worker finds them.
pub(crate) fn eligible(beats: &Beats) -> BTreeMap<HostId, String> {
    let table = Table {
        me: HostId::new("nobody").expect("a name"),
        worker: Incarnation::NONE,
        lease_ns: 0,
        rehome_after_ns: 0,
        processes: beats.processes.clone(),
        drained: beats.drained.clone(),
        shards: Vec::new(),
    };
    Hosts::of(&table).eligible()
}

/// What a worker does about homes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The shards that this host takes: their home does not serve them, or has named this host and let go, or they never had one.
    /// Its workers share them out as they do with the shards that are at home here.
    pub(super) claim: BTreeSet<ShardId>,
    /// The shard that this worker is handing over, and the host that it names. It is told again until the home has changed. If
    /// it is told no more while the worker still owns the shard, the move is off.
    pub(super) name: Option<(ShardId, HostId)>,
    /// The hosts that may become a home, with their URLs.
    pub(super) eligible: BTreeMap<HostId, String>,
}

/// Why a shard is not moved to a host that somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("shard {0} is not owned by this worker: ask its owner")]
    NotMine(ShardId),
    #[error("shard {0} is at home on {1} already")]
    Already(ShardId, HostId),
    #[error("shard {0} is moving to {1}: wait until it is there")]
    Moving(ShardId, HostId),
    #[error("{0} is drained: `lasthit undrain {0}` first")]
    Drained(HostId),
    #[error(
        "{0} is not eligible for shard {1}: it needs a worker and a ready gateway with --advertise that reach the shard's Redis"
    )]
    NotEligible(HostId, ShardId),
}

/// What a worker remembers between heartbeats. Time counts only while they are answered, and by this worker's clock.
#[derive(Debug, Default)]
pub(super) struct Memory {
    answered_ns: Option<u64>,
    shards: BTreeMap<ShardId, Seen>,
    /// How long the hosts have been out of balance.
    uneven_ns: u64,
    moving: Option<Moving>,
    /// No move is begun until then: one has failed.
    paused_until_ns: u64,
}

#[derive(Debug, Default)]
struct Seen {
    number: Option<u32>,
    /// How long its home has not served it.
    lost_ns: u64,
    /// When its home was seen to change.
    moved_ns: Option<u64>,
}

/// The move that this worker has begun.
#[derive(Debug)]
struct Moving {
    shard: ShardId,
    /// The number of the home that it leaves.
    number: Option<u32>,
    to: HostId,
    since_ns: u64,
}

impl Memory {
    /// Plans after the answer to a heartbeat, which was received at `now_ns`.
    pub(super) fn plan(&mut self, now_ns: u64, table: &Table) -> Plan {
        let hosts = Hosts::of(table);
        let last_ns = self.answered_ns.replace(now_ns).unwrap_or(now_ns);
        let passed_ns = Some(now_ns.saturating_sub(last_ns)).filter(|passed| *passed <= table.lease_ns).unwrap_or_default();
        for row in &table.shards {
            let seen = self.shards.entry(row.shard).or_insert_with(|| Seen { number: row.number(), ..Seen::default() });
            if seen.number != row.number() {
                *seen = Seen { number: row.number(), lost_ns: 0, moved_ns: Some(now_ns) };
            } else if hosts.stays(row) || hosts.waits(row) {
                seen.lost_ns = 0;
            } else if seen.lost_ns == 0 {
                // It begins now: before the last answer it may have served.
                seen.lost_ns = 1;
            } else {
                seen.lost_ns += passed_ns;
            }
        }
        self.uneven_ns = match hosts.highest(table) {
            Some(_) if self.uneven_ns > 0 => self.uneven_ns + passed_ns,
            Some(_) => 1,
            None => 0,
        };
        Plan { claim: self.claims(table, &hosts), name: self.names(now_ns, table, &hosts), eligible: hosts.eligible() }
    }

    /// Begins to move a shard because somebody has asked for it. The next plan names it.
    pub(super) fn ask(&mut self, now_ns: u64, table: &Table, shard: ShardId, to: &HostId) -> Result<(), Refusal> {
        let row = table.shards.iter().find(|row| row.shard == shard && row.owner == Some(table.worker));
        let row = row.ok_or(Refusal::NotMine(shard))?;
        if row.host() == Some(to) {
            return Err(Refusal::Already(shard, to.clone()));
        }
        if let Some(moving) = &self.moving {
            return Err(Refusal::Moving(moving.shard, moving.to.clone()));
        }
        if table.drained.contains(to) {
            return Err(Refusal::Drained(to.clone()));
        }
        if !Hosts::of(table).is_eligible(to, shard) {
            return Err(Refusal::NotEligible(to.clone(), shard));
        }
        self.moving = Some(Moving { shard, number: row.number(), to: to.clone(), since_ns: now_ns });
        Ok(())
    }

    /// The shards that this host is to take.
    fn claims(&self, table: &Table, hosts: &Hosts<'_>) -> BTreeSet<ShardId> {
        let me = &table.me;
        let chosen = hosts.orphans(table);
        let takes = |row: &&ShardRow| {
            if row.host() == Some(me) {
                return false;
            }
            if let Some(next) = &row.next {
                // Named: nobody else claims it (H7), and its successor does as soon as the owner has let go.
                return next == me && row.owner.is_none() && hosts.takes(me, row);
            }
            let Some(chosen) = chosen.get(&row.shard) else { return false };
            let lost_ns = self.shards.get(&row.shard).map_or(0, |seen| seen.lost_ns);
            // A shard that never had a home waits for nobody. Of the others, whoever is missed now has not beaten for a lease.
            let patience_ns = if row.home.is_some() { table.rehome_after_ns.saturating_sub(table.lease_ns) } else { 0 };
            let anybody_ns = patience_ns + table.lease_ns * u64::from(CHOSEN_LEASES);
            lost_ns >= patience_ns && *chosen == me || lost_ns >= anybody_ns && hosts.takes(me, row)
        };
        table.shards.iter().filter(takes).map(|row| row.shard).collect()
    }

    /// The shard that this worker hands over, and to whom: one at a time.
    fn names(&mut self, now_ns: u64, table: &Table, hosts: &Hosts<'_>) -> Option<(ShardId, HostId)> {
        if let Some(moving) = &self.moving {
            let row = table.shards.iter().find(|row| row.shard == moving.shard)?;
            if row.number() == moving.number {
                let other_owner = row.owner.is_some_and(|owner| owner != table.worker);
                let late = now_ns.saturating_sub(moving.since_ns) >= ns(REHOME_WITHIN);
                if !other_owner && !late && hosts.is_eligible(&moving.to, moving.shard) {
                    // Without an owner it is on its way.
                    return row.owner.map(|_| (moving.shard, moving.to.clone()));
                }
                self.paused_until_ns = now_ns.saturating_add(ns(BALANCE_AFTER));
            }
            self.moving = None;
        }
        if now_ns < self.paused_until_ns {
            return None;
        }
        let (shard, number, to) = self.next_move(now_ns, table, hosts)?;
        self.moving = Some(Moving { shard, number, to: to.clone(), since_ns: now_ns });
        Some((shard, to))
    }

    fn next_move(&self, now_ns: u64, table: &Table, hosts: &Hosts<'_>) -> Option<(ShardId, Option<u32>, HostId)> {
        let here = |row: &&ShardRow| row.host() == Some(&table.me);
        // One worker of a host names: the owner of its first shard. So no two do it at once.
        if table.shards.iter().filter(here).find_map(|row| row.owner) != Some(table.worker) {
            return None;
        }
        let mut mine: Vec<&ShardRow> = table.shards.iter().filter(|row| here(row) && row.owner == Some(table.worker)).collect();
        mine.sort_by_key(|row| (row.busy, row.shard));
        let moves = |row: &ShardRow| row.next.is_some();
        if table.drained.contains(&table.me) {
            if table.shards.iter().filter(here).any(moves) {
                return None;
            }
            return mine
                .iter()
                .find_map(|row| Some((row.shard, row.number(), hosts.lowest(row, |host| hosts.above(host))?.clone())));
        }
        let highest = hosts.highest(table).filter(|_| self.uneven_ns >= ns(BALANCE_AFTER))?;
        if *highest != table.me || table.shards.iter().any(moves) {
            return None;
        }
        let rests = |row: &&&ShardRow| {
            let moved_ns = self.shards.get(&row.shard).and_then(|seen| seen.moved_ns);
            moved_ns.is_none_or(|moved| now_ns.saturating_sub(moved) >= ns(BALANCE_AFTER))
        };
        mine.iter().filter(rests).find_map(|row| {
            let to = hosts.lowest(row, |host| hosts.above(host)).filter(|to| hosts.above(&table.me) - hosts.above(to) > 1)?;
            Some((row.shard, row.number(), to.clone()))
        })
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The hosts that beat, and how the shards are spread over them.
struct Hosts<'a> {
    hosts: BTreeMap<&'a HostId, Host<'a>>,
    /// Those that a shard may go to. Where no host is eligible: none.
    eligible: BTreeSet<&'a HostId>,
    shares: BTreeMap<&'a HostId, i64>,
    have: BTreeMap<&'a HostId, i64>,
}

#[derive(Default)]
struct Host<'a> {
    gateways: Vec<&'a ProcessRecord>,
    workers: Vec<&'a ProcessRecord>,
    cores: u64,
}

impl Host<'_> {
    /// Where players reach it. Its gateways were told one URL; of several, everybody takes the same.
    fn url(&self) -> &str {
        self.gateways.iter().map(|gateway| gateway.url.as_str()).filter(|url| !url.is_empty()).min().unwrap_or_default()
    }
}

impl<'a> Hosts<'a> {
    fn of(table: &'a Table) -> Self {
        let mut hosts: BTreeMap<&HostId, Host<'_>> = BTreeMap::new();
        for process in &table.processes {
            let host = hosts.entry(&process.host).or_default();
            host.cores = host.cores.max(u64::from(process.cores.max(1)));
            match process.part {
                Part::Gateway if process.ready => host.gateways.push(process),
                Part::Gateway => {}
                Part::Worker => host.workers.push(process),
            }
        }
        // To a host without a URL no player can be sent. One that is alone has no need to: without a worker no other can be a home.
        let alone = hosts.values().filter(|host| !host.workers.is_empty()).count() == 1;
        let is_eligible = |(name, host): &(&&HostId, &Host<'_>)| {
            let serves = !host.gateways.is_empty() && !host.workers.is_empty();
            serves && !table.drained.contains(**name) && (alone || !host.url().is_empty())
        };
        let eligible: BTreeSet<&HostId> = hosts.iter().filter(is_eligible).map(|(name, _)| *name).collect();
        // Before the first gateway is ready, shards that never had a home go to hosts with workers.
        let with_workers = |(name, host): (&&'a HostId, &Host<'_>)| (!host.workers.is_empty()).then_some(*name);
        let sharing = if eligible.is_empty() { hosts.iter().filter_map(with_workers).collect() } else { eligible.clone() };
        let cores: Vec<(&HostId, u64)> =
            sharing.iter().map(|name| (*name, hosts.get(name).map_or(1, |host| host.cores))).collect();
        let shares = shares(table.shards.len(), &cores);
        let mut this = Self { hosts, eligible, shares, have: BTreeMap::new() };
        for row in table.shards.iter().filter(|row| this.stays(row)).collect::<Vec<_>>() {
            if let Some(host) = row.host() {
                *this.have.entry(host).or_default() += 1;
            }
        }
        this
    }

    /// Whether a ready gateway and a worker of this host beat and reach the shard's node.
    fn serves(&self, host: &HostId, shard: ShardId) -> bool {
        let reaches = |processes: &[&ProcessRecord]| processes.iter().any(|process| !process.lacks.contains(&shard));
        self.hosts.get(host).is_some_and(|host| reaches(&host.gateways) && reaches(&host.workers))
    }

    /// Whether this shard's home serves it.
    fn stays(&self, row: &ShardRow) -> bool {
        row.host().is_some_and(|host| self.serves(host, row.shard))
    }

    /// Whether nobody could serve this shard better than its home, which beats: its server is out of reach for all. That is no failure of
    /// the home, and whoever reaches the server first when it is back has no right to the shard.
    fn waits(&self, row: &ShardRow) -> bool {
        let home = row.host().and_then(|home| self.hosts.get(home));
        let beats = home.is_some_and(|host| !host.gateways.is_empty() && !host.workers.is_empty());
        beats && !self.eligible.iter().any(|host| self.serves(host, row.shard))
    }

    fn is_eligible(&self, host: &HostId, shard: ShardId) -> bool {
        self.eligible.contains(host) && self.serves(host, shard)
    }

    /// Whether this host may take this orphan.
    fn takes(&self, host: &HostId, row: &ShardRow) -> bool {
        let first = self.eligible.is_empty() && row.home.is_none() && self.shares.contains_key(host);
        first || self.is_eligible(host, row.shard)
    }

    /// How many shards more than its share a host has.
    fn above(&self, host: &HostId) -> i64 {
        self.have.get(host).copied().unwrap_or_default() - self.shares.get(host).copied().unwrap_or_default()
    }

    /// The host furthest below its share that may take this shard. Of several the first by name.
    fn lowest(&self, row: &ShardRow, above: impl Fn(&HostId) -> i64) -> Option<&'a HostId> {
        self.shares.keys().filter(|host| self.takes(host, row)).min_by_key(|host| (above(host), **host)).copied()
    }

    /// Shards whose home does not serve them, or that never had one, and the host that each should go to.
    fn orphans(&self, table: &Table) -> BTreeMap<ShardId, &'a HostId> {
        let mut given: BTreeMap<&HostId, i64> = BTreeMap::new();
        let mut chosen = BTreeMap::new();
        for row in table.shards.iter().filter(|row| !self.stays(row)) {
            let above = |host: &HostId| self.above(host) + given.get(host).copied().unwrap_or_default();
            let Some(host) = self.lowest(row, above) else { continue };
            *given.entry(host).or_default() += 1;
            chosen.insert(row.shard, host);
        }
        chosen
    }

    /// The host furthest above its share, if one is below its own and the difference is more than one shard. None while a shard is
    /// where it cannot stay.
    fn highest(&self, table: &Table) -> Option<&'a HostId> {
        let settled = |row: &ShardRow| self.stays(row) && row.host().is_some_and(|host| !table.drained.contains(host));
        if self.eligible.is_empty() || !table.shards.iter().all(settled) {
            return None;
        }
        let highest = self.shares.keys().max_by_key(|host| (self.above(host), Reverse(**host)))?;
        let least = self.shares.keys().map(|host| self.above(host)).min()?;
        (self.above(highest) - least > 1).then_some(*highest)
    }

    fn eligible(&self) -> BTreeMap<HostId, String> {
        let url = |name: &HostId| self.hosts.get(name).map(|host| host.url().to_owned()).unwrap_or_default();
        self.eligible.iter().map(|name| ((*name).clone(), url(name))).collect()
    }
}

/// How many of `shards` each host should have: by cores, rounded down, and the rest by name, one each.
fn shares<'a>(shards: usize, cores: &[(&'a HostId, u64)]) -> BTreeMap<&'a HostId, i64> {
    let shards = u64::try_from(shards).unwrap_or(u64::MAX);
    let all: u64 = cores.iter().map(|(_, cores)| cores).sum();
    let mut rest = shards - cores.iter().map(|(_, cores)| shards * cores / all).sum::<u64>();
    let share = |(host, cores): &(&'a HostId, u64)| {
        let one = u64::from(rest > 0);
        rest -= one;
        (*host, i64::try_from(shards * cores / all + one).unwrap_or(i64::MAX))
    };
    cores.iter().map(share).collect()
}

#[cfg(test)]
mod tests;
