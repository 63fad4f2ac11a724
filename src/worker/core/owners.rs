//! Which shards a core claims, hands over and moves, after what a heartbeat's answer and the journal say.

use std::collections::BTreeSet;

use super::{Core, HAND_OVER_STEPS};
use crate::journal::{Beats, Homing, Lease, Leased, Part, ProcessRecord, ShardOwner, Successor, WorkerRecord};
use crate::types::{Home, HostId, Incarnation, ShardId};
use crate::wire::push::{self, Push};
use crate::worker::homes::{ShardRow, Table};
use crate::worker::ownership;
use crate::worker::shard::Shard;
use crate::worker::step::{Command, Failure};

impl Core {
    pub(super) fn alive(&mut self, living: Vec<WorkerRecord>, beats: Beats, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.failed(failure);
        }
        self.away.heard(self.shared.now_ns, self.shared.limits.lease_ms);
        let record = |worker: &Incarnation| living.iter().find(|record| record.incarnation == *worker);
        self.unlocked.retain(|worker| record(worker).is_some());
        self.gone.retain(|worker, lists| {
            let Some(now) = record(worker).map(|record| &record.shards) else { return false };
            if lists.as_ref().is_none_or(|lists| lists == now) {
                *lists = Some(now.clone());
                return true;
            }
            self.unlocked.insert(*worker);
            self.shared.emit(Command::Warn(format!(
                "worker {worker} lives although its lock file is free: do all workers use the same runtime directory, on a local file system?"
            )));
            false
        });
        // Who has not said where it runs is of an earlier version, which knows one host.
        let abroad: BTreeSet<Incarnation> = beats
            .processes
            .iter()
            .filter(|process| process.host != self.shared.limits.host)
            .map(|process| process.incarnation)
            .collect();
        (self.abroad, self.living) = living.into_iter().partition(|worker| abroad.contains(&worker.incarnation));
        self.beats = beats;
        self.look_around();
    }

    /// Looks whether there is anything to claim, to hand over, or to move.
    fn look_around(&mut self) {
        self.living.retain(|worker| !self.gone.contains_key(&worker.incarnation));
        let everybody = || self.living.iter().chain(&self.abroad);
        self.suspected.retain(|shard, _| !everybody().any(|worker| worker.shards.contains(shard)));
        if self.stopping {
            if self.hands_over.is_none() {
                let steps = if self.others().is_empty() { 1 } else { HAND_OVER_STEPS };
                self.hands_over = Some(self.shards.len().div_ceil(steps).max(1));
                self.hand_over_next();
            }
            return;
        }
        // Two workers list the same shard. The one that lost it may have nothing to commit, and would not notice otherwise.
        let others = everybody().filter(|w| w.incarnation != self.me);
        let contested = others.flat_map(|w| &w.shards).any(|shard| self.shards.contains_key(shard));
        // As long as there is one host only, all shards are its own, and all of them are somebody's: nobody asks for more.
        let plan = self.share(&(0..self.shards_total).map(ShardId).collect::<Vec<_>>());
        if plan.claim > 0 || contested || !self.is_alone() || !self.given.is_empty() {
            self.shared.emit(Command::ReadOwners);
        } else {
            self.hand_on(&plan);
        }
    }

    fn is_alone(&self) -> bool {
        self.beats.processes.iter().all(|process| process.host == self.shared.limits.host)
    }

    /// This worker's share of the shards of its host.
    fn share(&self, homes: &[ShardId]) -> ownership::Plan {
        let mine: BTreeSet<ShardId> = self.shards.keys().chain(self.claiming.keys()).copied().collect();
        ownership::plan(self.me, &mine, &self.living, homes)
    }

    /// Hands over what is beyond this worker's share.
    fn hand_on(&mut self, plan: &ownership::Plan) {
        self.beyond_since_ns = plan.release.map(|_| self.beyond_since_ns.unwrap_or(self.shared.now_ns));
        // A worker that is being replaced counts beside its successor for a moment: no shard moves for that.
        let is_settled = self
            .beyond_since_ns
            .is_some_and(|since_ns| self.shared.now_ns.saturating_sub(since_ns) >= self.shared.limits.heartbeat_interval_ns / 2);
        if is_settled && let Some(shard) = plan.release.and_then(|id| self.shards.get_mut(&id)) {
            shard.releasing = true;
        }
    }

    pub(super) fn others(&self) -> Vec<Incarnation> {
        self.living.iter().map(|w| w.incarnation).filter(|w| *w != self.me).collect()
    }

    /// The living workers of another host.
    pub(super) fn workers_of(&self, host: &HostId) -> Vec<Incarnation> {
        let there = self.beats.processes.iter().filter(|process| process.host == *host && process.part == Part::Worker);
        there.map(|process| process.incarnation).collect()
    }

    pub(super) fn give(&mut self, shard: ShardId, host: HostId) {
        self.given.push((shard, host));
        self.heartbeat();
    }

    /// Plans which shards are this host's, and which of them are this worker's. Claims what nobody alive owns, up to its share.
    pub(super) fn owners(&mut self, rows: &[ShardOwner]) {
        let row = |id: ShardId| rows.get(usize::from(id.0));
        let newer = |id: ShardId, lease: Lease| row(id).and_then(|row| row.lease).is_some_and(|l| l.epoch > lease.epoch);
        let lost: Vec<ShardId> = self.shards.iter().filter(|(id, shard)| newer(**id, shard.lease)).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|shard| self.lose(shard));
        if self.stopping {
            return;
        }
        let (now_ns, table) = (self.shared.now_ns, self.table(rows));
        for (shard, host) in std::mem::take(&mut self.given) {
            match self.homes.ask(now_ns, &table, shard, &host) {
                Ok(()) => {}
                Err(refusal) => self.shared.emit(Command::Warn(format!("a shard that was to move stays: {refusal}"))),
            }
        }
        let plan = self.homes.plan(now_ns, &table);
        self.eligible = plan.eligible;
        self.hand_to(plan.name.as_ref());
        let me = table.me;
        let is_here = |id: &ShardId| {
            let Some(row) = row(*id) else { return false };
            let named = row.next.as_ref().is_some_and(|next| next.host != me);
            let home = row.home.as_ref().is_some_and(|home| home.host == me) && !(named && row.lease.is_none());
            home || plan.claim.contains(id) || self.shards.contains_key(id) || self.claiming.contains_key(id)
        };
        let homes: Vec<ShardId> = (0..self.shards_total).map(ShardId).filter(is_here).collect();
        let share = self.share(&homes);
        self.hand_on(&share);
        let (mut missing, mut free) = (share.claim, share.free);
        self.away.order(&mut free);
        for shard in free {
            let ShardOwner { lease: from, home, .. } = row(shard).cloned().unwrap_or_default();
            if missing == 0 || self.unanswered.contains_key(&shard) {
                continue;
            }
            // The plan takes a shard from a living worker if its host serves no players.
            let moves = home.as_ref().is_none_or(|home| home.host != me);
            let lives = |lease: &Lease| self.is_living(lease.owner) && (home.is_none() || !moves);
            if let Some(lease) = from.filter(lives)
                && !self.is_forgotten(shard, lease)
            {
                continue;
            }
            let others = from.filter(|lease| lease.owner != self.me && !self.gone.contains_key(&lease.owner));
            if self.away.spares(others, self.shared.now_ns) {
                continue;
            }
            self.suspected.remove(&shard);
            self.claiming.insert(shard, moves);
            let homing = Homing { moves, seen: home, address: self.address() };
            self.shared.emit(Command::Claim { shard, from, homing });
            missing -= 1;
        }
    }

    /// Under which URL players reach this host.
    fn address(&self) -> String {
        let here = self.beats.processes.iter().filter(|process| process.host == self.shared.limits.host);
        here.map(|process| process.url.as_str()).filter(|url| !url.is_empty()).min().unwrap_or_default().to_owned()
    }

    fn is_living(&self, worker: Incarnation) -> bool {
        worker != self.me && self.living.iter().chain(&self.abroad).any(|living| living.incarnation == worker)
    }

    fn table(&mut self, rows: &[ShardOwner]) -> Table {
        let row = |(i, row): (usize, &ShardOwner)| {
            let shard = ShardId(u16::try_from(i).ok()?);
            let owner = row.lease.map(|lease| lease.owner).filter(|owner| *owner == self.me || self.is_living(*owner));
            Some(ShardRow {
                shard,
                home: row.home.as_ref().map(|home| (home.number, home.host.clone())),
                next: row.next.as_ref().map(|next| next.host.clone()),
                owner,
                busy: self.shards.get(&shard).map_or(0, Shard::busy),
            })
        };
        let shards = rows.iter().enumerate().filter_map(row).collect();
        self.shards.values_mut().for_each(Shard::busy_from_here);
        let limits = &self.shared.limits;
        let mut processes = self.beats.processes.clone();
        // The answer that names it may be on its way.
        if processes.iter().all(|process| process.incarnation != self.me) {
            processes.push(ProcessRecord::new(self.me, limits.host.clone(), Part::Worker));
        }
        Table {
            me: limits.host.clone(),
            worker: self.me,
            lease_ns: limits.lease_ms.saturating_mul(1_000_000),
            rehome_after_ns: limits.rehome_after_ns,
            processes,
            drained: self.beats.drained.clone(),
            shards,
        }
    }

    /// Hands this shard over to this host, and no other one.
    fn hand_to(&mut self, name: Option<&(ShardId, HostId)>) {
        for (id, shard) in &mut self.shards {
            let to = name.filter(|(shard, _)| shard == id).map(|(_, host)| host);
            let url = |host: &HostId| self.eligible.get(host).cloned().unwrap_or_default();
            shard.hand_to(to.map(|host| Successor { host: host.clone(), url: url(host) }), &mut self.shared);
        }
    }

    pub(super) fn named(&mut self, shard: ShardId, lease: Lease, answer: &Leased<()>) {
        if self.shards.get(&shard).is_none_or(|owned| owned.lease != lease) {
            return;
        }
        match answer {
            Leased::Done(()) => self.with(shard, Shard::named),
            Leased::Lost => self.lose(shard),
        }
    }

    /// Tells all gateways where a shard is from now on: those of its home before, and those that hold sessions for it.
    pub(super) fn tell_of_home(&mut self, shard: ShardId, number: u32) {
        let home = Home { number, host: self.shared.limits.host.clone(), address: self.address() };
        let push = push::encode(&Push::Home { shard, home });
        for process in self.beats.processes.iter().filter(|process| process.part == Part::Gateway) {
            self.shared.emit(Command::Tell(process.incarnation, push.clone()));
        }
    }

    /// Whether a living owner did not list a shard, and did not list it with its next heartbeat either: it does not know that it owns
    /// it. The answer to its claim was lost.
    fn is_forgotten(&mut self, shard: ShardId, lease: Lease) -> bool {
        let now_ns = self.shared.now_ns;
        let (suspect, since_ns) = self.suspected.entry(shard).or_insert((lease, now_ns));
        if *suspect != lease {
            (*suspect, *since_ns) = (lease, now_ns);
        }
        now_ns.saturating_sub(*since_ns) >= self.shared.limits.heartbeat_interval_ns / 2
    }
}
