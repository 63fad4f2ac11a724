//! What goes wrong.

use super::world::{Happening, Kind, Listening, MS, World};
use crate::supervisor::plan::step::Exit;
use crate::types::{Incarnation, RoomId};
use crate::worker::step::Input;

/// States of the journal that a restart may come back with, 3 ms apart.
const REMEMBERED: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    PauseGateway,
    PauseWorker,
    PauseJournal,
    KillGateway,
    KillWorker,
    StopWorker,
    BreakBells,
    BreakPushes,
    /// For longer than it takes until nobody knows it any more.
    PauseGatewayLong,
    /// Another server serves the journal, and the connections stay.
    ChangeServer,
    /// Somebody sets the wall clock.
    StepClock,
    /// A host goes down, and boots again: another name, and other clocks.
    Reboot,
    /// All processes of a host stand still.
    PauseHost,
    CutHostFromJournal,
    CutHostFromPlayers,
    /// An operator drains a host, or takes that back.
    DrainHost,
    /// An operator gives a shard to a host.
    GiveShard,
    /// Somebody pushes another program. Workers hear of it one by one.
    PushProgram,
    /// A key of a room is not what was written there, until it is mended.
    SpoilRoom,
    /// Somebody asks the supervisor for something.
    Ask,
    /// A process stands still until its supervisor kills it.
    Hang,
    KillSupervisor,
    PauseSupervisor,
}

impl Fault {
    /// Those of seeds with several hosts.
    pub(super) const OF_HOSTS: [Self; 7] = [
        Self::Reboot,
        Self::PauseHost,
        Self::CutHostFromJournal,
        Self::CutHostFromPlayers,
        Self::StepClock,
        Self::DrainHost,
        Self::GiveShard,
    ];
    /// Those that every seed may have.
    pub(super) const USUAL: [Self; 8] = [
        Self::PauseGateway,
        Self::PauseWorker,
        Self::PauseJournal,
        Self::KillGateway,
        Self::KillWorker,
        Self::StopWorker,
        Self::BreakBells,
        Self::BreakPushes,
    ];
}

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.below(self.options.fault_interval_ns * 2);
        self.after(pause, None, Happening::Fault);
        let any = self.below(self.options.faults.len() as u64) as usize;
        self.cause(self.options.faults[any]);
    }

    fn cause(&mut self, fault: Fault) {
        self.trace(|| format!("fault: {fault:?}"));
        let (gateways, workers) = (self.gateways_to_hit(), self.workers_to_hit());
        if gateways.is_empty() || workers.is_empty() {
            return;
        }
        let gateway = gateways[self.below(gateways.len() as u64) as usize];
        let worker = workers[self.below(workers.len() as u64) as usize];
        match fault {
            Fault::PauseGateway => {
                let until = self.now + self.below(200 * MS);
                self.pause_gateway(gateway, until);
                self.ledger.count("gateways paused");
            }
            Fault::PauseGatewayLong => {
                let until = self.now + 100 * MS + self.below(500 * MS);
                self.pause_gateway(gateway, until);
                self.ledger.count("gateways paused for long");
            }
            Fault::ChangeServer => {
                let loses = self.options.restart_interval_ns > 0 && self.below(2) > 0;
                self.change_server(loses);
            }
            Fault::StepClock => self.step_clock(),
            Fault::Reboot => {
                let host = self.any_host();
                self.reboot(host);
            }
            Fault::PauseHost => self.pause_host(),
            Fault::CutHostFromJournal => self.cut_host(),
            Fault::CutHostFromPlayers => self.cut_from_players(),
            Fault::DrainHost => self.drain_host(),
            Fault::GiveShard => self.give_shard(),
            Fault::PushProgram => {
                self.pushed += 1;
                self.trace(|| format!("push {}", self.pushed));
                for index in 0..self.workers.len() {
                    let (to, delay) = (self.worker_pid(index), self.below(60 * MS));
                    self.after(delay, Some(to), Happening::Pushed(self.pushed));
                }
                self.ledger.count("programs pushed");
            }
            Fault::SpoilRoom => {
                let any = self.below(self.rooms.len() as u64) as usize;
                let room = self.rooms[any].clone();
                self.trace(|| format!("{room} is spoiled"));
                // One stays so when the faults are over.
                if !self.spoiled.insert(room.clone()) || self.below(4) > 0 {
                    let mended = 20 * MS + self.below(300 * MS);
                    self.after(mended, None, Happening::Mend(room));
                }
                self.ledger.count("rooms spoiled");
            }
            Fault::PauseWorker => {
                let until = self.now + self.below(200 * MS);
                self.pause_worker(worker, until);
                self.ledger.count("workers paused");
            }
            Fault::PauseJournal => {
                // One that is away comes back no earlier: what waits there knows when.
                let until = self.now + self.below(200 * MS);
                self.journal_away_until = self.journal_away_until.max(until);
                self.ledger.count("pauses of the journal");
            }
            Fault::KillGateway => self.kill_gateway(gateway),
            Fault::KillWorker => {
                if self.workers[worker].core.is_some() {
                    self.trace(|| format!("worker {worker} dies"));
                    self.leave_lock(self.workers[worker].incarnation, worker);
                    self.end_worker(worker);
                    self.ledger.count("workers killed");
                }
            }
            Fault::StopWorker => {
                self.feed_worker(worker, Input::Stop);
                self.ledger.count("workers stopped");
            }
            Fault::Ask => self.ask(),
            Fault::Hang => self.hang(),
            Fault::KillSupervisor => self.kill_supervisor(),
            Fault::PauseSupervisor => self.put_supervisor_to_sleep(),
            Fault::BreakBells => self.break_bells(),
            Fault::BreakPushes => self.break_pushes(gateway),
        }
    }

    /// A process stands still. One that already does goes on no earlier for that: what waits for it knows when.
    pub(super) fn pause_gateway(&mut self, index: usize, until: u64) {
        let paused_until = &mut self.gateways[index].paused_until;
        *paused_until = until.max(*paused_until);
    }

    pub(super) fn pause_worker(&mut self, index: usize, until: u64) {
        let paused_until = &mut self.workers[index].paused_until;
        *paused_until = until.max(*paused_until);
    }

    /// Whom a fault may strike: of a supervisor's processes those that live.
    fn gateways_to_hit(&self) -> Vec<usize> {
        if self.supervisor.is_some() { self.gateways_alive() } else { (0..self.gateways.len()).collect() }
    }

    fn workers_to_hit(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|i| self.supervisor.is_none() || self.workers[*i].core.is_some()).collect()
    }

    pub(super) fn kill_gateway(&mut self, index: usize) {
        if self.gateways[index].core.is_none() {
            return;
        }
        self.trace(|| format!("gateway {index} dies"));
        let pid = self.gateway_pid(index);
        let incarnation = self.gateways[index].incarnation;
        self.leave_lock(incarnation, index);
        self.gateways[index].core = None;
        self.pushes.remove(&incarnation);
        self.lose_connections(pid);
        self.ledger.count("gateways killed");
        if self.supervisor.is_some() {
            return self.child_over((Kind::Gateway, index), Exit::Signal(9));
        }
        let delay = 10 * MS + self.below(150 * MS);
        self.after(delay, None, Happening::Revive { kind: Kind::Gateway, index });
    }

    /// A process that died leaves a free lock behind, unless its file was removed, or there never was one.
    fn leave_lock(&mut self, who: Incarnation, index: usize) {
        if self.chance(self.options.locks_per_mille) {
            self.free_locks.insert(who, index % self.hosts.len());
        }
    }

    pub(super) fn break_bells(&mut self) {
        let keys: Vec<_> = self.bells.keys().copied().collect();
        for key in keys {
            if self.below(2) == 0 {
                let pid = self.bells[&key].pid;
                self.listen(pid, Listening::Bells(key.1));
                self.ledger.count("bells broken");
            }
        }
    }

    fn break_pushes(&mut self, index: usize) {
        if self.gateways[index].core.is_some() {
            let (pid, incarnation) = (self.gateway_pid(index), self.gateways[index].incarnation);
            self.listen(pid, Listening::Pushes(incarnation));
            self.ledger.count("pushes broken");
        }
    }

    pub(super) fn mend(&mut self, room: &RoomId) {
        self.trace(|| format!("{room} is mended"));
        self.spoiled.remove(room);
    }

    /// What the journal's disk has: a restart may come back with it.
    pub(super) fn remember(&mut self) {
        if !self.calm {
            self.after(3 * MS, None, Happening::Remember);
            self.history.push_back((self.store.clone(), self.ledger.rooms.clone(), self.homes.now.clone()));
            if self.history.len() > REMEMBERED {
                self.history.pop_front();
            }
        }
    }

    pub(super) fn restart_in_a_while(&mut self) {
        if !self.calm {
            let pause = MS + self.below(self.options.restart_interval_ns);
            self.after(pause, None, Happening::Restart);
            let loses = self.below(3) > 0;
            self.restart(loses);
        }
    }

    /// Another server serves the journal, with everything that the last one had or with what it had a while ago.
    fn change_server(&mut self, loses: bool) {
        if loses && !self.history.is_empty() {
            let kept = self.below(self.history.len() as u64) as usize;
            self.history.truncate(kept + 1);
            let (store, rooms, homes) = self.history[kept].clone();
            (self.store, self.homes.now) = (store, homes);
            self.ledger.rolled_back(rooms);
            self.ledger.count("servers with a loss");
        } else {
            self.ledger.count("servers without a loss");
        }
        let server = self.incarnation();
        self.store.restart(server);
        self.forget_names();
        self.trace(|| format!("the journal's server is {server:?}, losing something: {loses}"));
    }

    /// The journal's server starts again: every connection breaks.
    fn restart(&mut self, loses: bool) {
        self.change_server(loses);
        self.connection += 1;
        for (pid, shard) in self.bells.iter().map(|((_, shard), s)| (s.pid, *shard)).collect::<Vec<_>>() {
            self.listen(pid, Listening::Bells(shard));
        }
        for (pid, incarnation) in self.pushes.iter().map(|(incarnation, s)| (s.pid, *incarnation)).collect::<Vec<_>>() {
            self.listen(pid, Listening::Pushes(incarnation));
        }
    }

    pub(super) fn revive(&mut self, kind: Kind, index: usize) {
        match kind {
            Kind::Gateway if self.gateways[index].core.is_none() => self.start_gateway(index),
            Kind::Worker if self.workers[index].core.is_none() => self.start_worker(index),
            _ => {}
        }
    }

    /// Faults are over; what is paused goes on, what is dead comes back by itself.
    pub(super) fn calm_down(&mut self) {
        self.trace(|| "calm".to_owned());
        self.calm = true;
        self.mend_supervisor();
        let long = ["servers with a loss", "servers without a loss", "reboots"];
        let excused = self.hosts.len() > 1 || long.iter().any(|what| self.ledger.counts.contains_key(what));
        self.calm_since = (self.spoiled.is_empty() && !excused).then_some(self.now);
    }
}
