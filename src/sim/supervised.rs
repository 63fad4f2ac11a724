//! A supervisor in the world: its plan is the one that ships, and so is the choice of its door. Its children are the world's processes,
//! which come and go as it says. Its clock runs [`SPEED`] times as fast as the world's, whose processes give each other up as much faster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::journal::Call;
use super::process::{GatewayProcess, WorkerProcess};
use super::world::{Happening, Kind, MS, US, World};
use crate::gateway::core::Core;
use crate::gateway::moves::Departure;
use crate::limits::{EVEN_INTERVAL, EVEN_MOVES_PER_SECOND, MOVE_STEP, WISHES_MAX};
use crate::supervisor::plan::Plan;
use crate::supervisor::plan::step::{Action, ChildId, Command, Exit, Generation, Input, Load, RequestId, Settings};
use crate::supervisor::policy::choose::{Candidate, choose};
use crate::supervisor::policy::counts::{Count, Deployment};
use crate::supervisor::policy::names::{Group, Role, Slot};
use crate::supervisor::policy::recycle;
use crate::types::ShardId;
use crate::wire::client::close;
use crate::worker::step::Input as WorkerInput;

/// How many seconds pass for the plan while one passes in the world.
const SPEED: u32 = 10;
/// How often a child says what it has to do.
const CHILD_BEAT_NS: u64 = 1_000 * MS / SPEED as u64;
/// How long somebody who plays on may feel that a process died or stood still.
const AFTERMATH_NS: u64 = 1_500 * MS;

/// What a seed's supervisor is given, and what befalls it.
#[derive(Debug, Clone)]
pub(super) struct Supervised {
    gateways: Count,
    pub(super) workers: Count,
    recycle_events: Option<u64>,
    /// Nothing goes wrong but what is done on purpose; unless `crashes`, when processes die and hang now and then.
    pub(super) gentle: bool,
    pub(super) crashes: bool,
    /// Messages of a next connection that a player keeps.
    pub(super) kept_max: usize,
    /// Wishes that wait for a child: fewer than [`WISHES_MAX`], so that it is reached.
    wishes_max: usize,
}

impl Supervised {
    pub(super) fn new(below: &mut impl FnMut(u64) -> u64, gentle: bool, crashes: bool) -> Self {
        let mut count = |least: u64, most: u64| {
            let fixed = least + below(most - least + 1);
            let count = |n: u64| usize::try_from(n).expect("small");
            if below(4) == 0 { Count::Between { min: count(least), max: count(most) } } else { Count::Fixed(count(fixed)) }
        };
        let (gateways, workers) = (count(2, 4), count(1, 2));
        let recycle_events = (below(4) == 0).then(|| 40 + below(200));
        let (kept_max, wishes_max) = (1 + below(12) as usize, 1 + below(3) as usize);
        assert!(wishes_max < WISHES_MAX);
        Self { gateways, workers, recycle_events, gentle, crashes, kept_max, wishes_max }
    }

    /// One gateway is full, until somebody asks for more.
    pub(super) fn crowded(self) -> Self {
        Self { gateways: Count::Fixed(1), ..self }
    }

    fn settings(&self) -> Settings {
        let main = Deployment { name: String::new(), gateways: self.gateways, workers: self.workers, shards: 2 };
        Settings {
            deployments: vec![main],
            ready_timeout: Duration::from_secs(15),
            stop_timeout: Duration::from_secs(20),
            hang_timeout: Duration::from_secs(5),
            drain_window: Duration::from_secs(10),
            recycle: recycle::Bounds { events: self.recycle_events, ..recycle::Bounds::default() },
            even: true,
        }
    }
}

/// A supervisor's process.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// Which start of it.
    number: u64,
    plan: Plan,
    processes: BTreeMap<ChildId, (Kind, usize)>,
    /// Requests without an answer.
    open: BTreeSet<RequestId>,
    asked: u64,
    generation: u64,
    /// It stands still until then, and this is what it has not read meanwhile.
    asleep_until: u64,
    unread: Vec<Input>,
    looks_at: Option<u64>,
    /// That all are to run at the end, and how many. It is asked again for while another request keeps it from being done, and when a
    /// child that was on its way has given up.
    last: BTreeMap<RequestId, Command>,
}

/// A child, from its start to its end.
#[derive(Debug)]
pub(super) struct Child {
    supervisor: u64,
    id: ChildId,
    slot: Slot,
    /// What was said to it and it has not heard.
    wishes: VecDeque<Wish>,
    departure: Option<Departure>,
    /// It does not become ready: it hangs, or ends with this code.
    fails: Option<Option<i32>>,
    cpu: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Offer(u64),
    /// Within this time.
    Leave(Duration),
    /// The channel's end.
    End,
}

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Boot,
    Ready,
    Beat,
    Hear,
    Depart,
    Killed,
}

impl World {
    fn plan_time(&self) -> Duration {
        Duration::from_nanos(self.now) * SPEED
    }

    pub(super) fn start_supervisor(&mut self) {
        let settings = self.options.supervised.as_ref().expect("its settings").settings();
        let number = self.supervisor.as_ref().map_or(0, |before| before.number) + 1;
        let (plan, actions) = Plan::new(settings, Generation(1), self.plan_time());
        self.trace(|| format!("supervisor {number} starts"));
        self.supervisor = Some(Supervisor {
            number,
            plan,
            processes: BTreeMap::new(),
            open: BTreeSet::new(),
            asked: 0,
            generation: 1,
            asleep_until: 0,
            unread: Vec::new(),
            looks_at: None,
            last: BTreeMap::new(),
        });
        self.carry_out(actions);
        self.look_when_due();
    }

    fn tell_plan(&mut self, input: Input) {
        let (now, time) = (self.now, self.plan_time());
        let Some(supervisor) = &mut self.supervisor else { return };
        if supervisor.asleep_until > now {
            supervisor.unread.push(input);
            return;
        }
        let actions = supervisor.plan.step(input, time);
        self.carry_out(actions);
        self.look_when_due();
    }

    fn look_when_due(&mut self) {
        let Some(supervisor) = &mut self.supervisor else { return };
        let due = supervisor.plan.next_due().map(|due| u64::try_from(due.as_nanos().div_ceil(SPEED.into())).expect("soon"));
        let due = due.map(|due| due.max(self.now).max(supervisor.asleep_until));
        if due != supervisor.looks_at {
            supervisor.looks_at = due;
            let number = supervisor.number;
            due.into_iter().for_each(|due| self.at(due, None, Happening::Look { supervisor: number, due }));
        }
    }

    /// The supervisor looks after its children: first it reads what they have said.
    pub(super) fn look(&mut self, number: u64, due: u64) {
        let Some(supervisor) = self.supervisor.as_mut().filter(|s| s.number == number && s.looks_at == Some(due)) else { return };
        supervisor.looks_at = None;
        if supervisor.asleep_until > self.now {
            return self.look_when_due();
        }
        for input in std::mem::take(&mut supervisor.unread) {
            self.tell_plan(input);
        }
        self.tell_plan(Input::Looked);
        let Some(supervisor) = &mut self.supervisor else { return };
        let refused: Vec<RequestId> = supervisor.last.keys().copied().filter(|asked| !supervisor.open.contains(asked)).collect();
        for asked in refused {
            let command = self.supervisor.as_mut().and_then(|supervisor| supervisor.last.remove(&asked));
            command.into_iter().for_each(|command| self.insist(command));
        }
    }

    fn insist(&mut self, command: Command) {
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.last.insert(RequestId(supervisor.asked + 1), command.clone());
            self.command(command);
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.trace(|| format!("plan: {action:?}"));
            let key = |world: &Self, child| world.supervisor.as_ref().and_then(|s| s.processes.get(&child).copied());
            match action {
                Action::Start { child, slot, .. } => self.start_child(child, slot),
                Action::AskToEnd { child } => key(self, child).into_iter().for_each(|key| self.wish(key, Wish::End)),
                Action::AskToLeave { child, window, .. } => {
                    key(self, child).into_iter().for_each(|key| self.wish(key, Wish::Leave(window / SPEED)));
                }
                Action::Move { child, sessions } => {
                    if sessions == u64::from(EVEN_MOVES_PER_SECOND) * EVEN_INTERVAL.as_millis() as u64 / 1_000 {
                        self.ledger.reached.insert("even_moves_per_second");
                    }
                    key(self, child).into_iter().for_each(|key| self.wish(key, Wish::Offer(sessions)));
                }
                Action::Kill { child, why } => {
                    self.trace(|| format!("kill {child:?}: {why}"));
                    self.ledger.count("children killed by their supervisor");
                    key(self, child).into_iter().for_each(|key| self.after(US, None, Happening::Deed(key, Deed::Killed)));
                }
                Action::Answer { request, result } => {
                    let supervisor = self.supervisor.as_mut().expect("it answers");
                    // What somebody asked before may still wait for its turn, and change the count after this.
                    let last = &supervisor.last;
                    let waits = supervisor.open.iter().any(|other| *other < request && !last.contains_key(other));
                    if result.is_ok() && !waits {
                        supervisor.last.remove(&request);
                    }
                    assert!(supervisor.open.remove(&request), "answers: {request:?} is answered again");
                }
                Action::Finish { .. } => {
                    self.ledger.count("reloads");
                    self.tell_plan(Input::Finished { result: Ok(()) });
                }
                Action::Progress { .. } | Action::Log { .. } | Action::End { .. } => {}
            }
        }
    }

    fn start_child(&mut self, id: ChildId, slot: Slot) {
        let kind = if slot.group.role == Role::Gateway { Kind::Gateway } else { Kind::Worker };
        let index = match kind {
            Kind::Gateway => self.gateways.len(),
            Kind::Worker => self.workers.len(),
        };
        match kind {
            Kind::Gateway => self.gateways.push(GatewayProcess::nobody()),
            Kind::Worker => self.workers.push(WorkerProcess::nobody()),
        }
        let fails = self.chance(if self.gentle() { 0 } else { 100 }).then(|| [None, Some(1), Some(2)][self.below(3) as usize]);
        let number = {
            let supervisor = self.supervisor.as_mut().expect("it starts children");
            supervisor.processes.insert(id, (kind, index));
            supervisor.number
        };
        let cpu = if self.below(2) == 0 { 0.2 } else { 0.9 };
        let child = Child { supervisor: number, id, slot, wishes: VecDeque::new(), departure: None, fails, cpu };
        let beside = self.children.values().filter(|other| other.supervisor == number && other.slot == child.slot).count();
        assert!(beside < 2, "slots: {} has {beside} processes, and gets one more", child.slot);
        self.children.insert((kind, index), child);
        let delay = MS + self.below(20 * MS);
        self.after(delay, None, Happening::Deed((kind, index), Deed::Boot));
        self.tell_plan(Input::Started { child: id, pid: u32::try_from(index).expect("few") });
    }

    /// Says something to a child. One that does not listen is told no more than waits anyway; only the end always arrives.
    fn wish(&mut self, key: (Kind, usize), wish: Wish) {
        let most = self.options.supervised.as_ref().map_or(WISHES_MAX, |supervised| supervised.wishes_max);
        let Some(child) = self.children.get_mut(&key) else { return };
        if wish != Wish::End && child.wishes.len() >= most {
            self.ledger.reached.insert("wishes_max");
            return;
        }
        child.wishes.push_back(wish);
        let delay = self.delay();
        self.after(delay, self.process(key), Happening::Deed(key, Deed::Hear));
    }

    /// Its process, if it runs: what happens to one that stands still waits.
    fn process(&self, (kind, index): (Kind, usize)) -> Option<super::world::Pid> {
        let runs = match kind {
            Kind::Gateway => self.gateways[index].core.is_some(),
            Kind::Worker => self.workers[index].core.is_some(),
        };
        runs.then(|| if kind == Kind::Gateway { self.gateway_pid(index) } else { self.worker_pid(index) })
    }

    pub(super) fn deed(&mut self, key: (Kind, usize), deed: Deed) {
        let Some(child) = self.children.get(&key) else { return };
        let (id, of_this) = (child.id, self.supervisor.as_ref().is_some_and(|s| s.number == child.supervisor));
        match deed {
            Deed::Boot => self.boot(key),
            Deed::Killed => self.kill_process(key),
            Deed::Hear => self.hear(key),
            Deed::Depart => self.depart(key),
            Deed::Ready if of_this => self.tell_plan(Input::Ready { child: id }),
            Deed::Beat => {
                let (process, load) = (self.process(key), self.load(key));
                self.after(CHILD_BEAT_NS, process, Happening::Deed(key, Deed::Beat));
                if of_this {
                    self.tell_plan(Input::Heard { child: id, load });
                }
            }
            Deed::Ready => {}
        }
    }

    fn boot(&mut self, key: (Kind, usize)) {
        let (fails, wishes) = self.children.get(&key).map_or((None, 0), |child| (child.fails, child.wishes.len()));
        match (fails, key.0) {
            (Some(None), _) => {}
            (Some(Some(code)), _) => self.child_over(key, Exit::Code(code)),
            (None, Kind::Gateway) => self.start_gateway(key.1),
            (None, Kind::Worker) => self.start_worker(key.1),
        }
        let Some(process) = self.process(key) else { return };
        let ready = MS + self.below(10 * MS);
        self.after(ready, Some(process), Happening::Deed(key, Deed::Ready));
        self.after(ready + US, Some(process), Happening::Deed(key, Deed::Beat));
        // What was said to it before it listened.
        (0..wishes).for_each(|_| self.after(US, Some(process), Happening::Deed(key, Deed::Hear)));
    }

    /// A child hears what it is told, one thing after the other; only the end does not wait until its sessions have moved.
    fn hear(&mut self, key: (Kind, usize)) {
        let now = self.local(key.1);
        let Some(child) = self.children.get_mut(&key) else { return };
        let departs = child.departure.is_some();
        let ends = child.wishes.contains(&Wish::End);
        let wish = if ends && departs {
            Some(Wish::End)
        } else if departs {
            None
        } else {
            child.wishes.pop_front()
        };
        match (wish, key) {
            (None, _) => {}
            (Some(Wish::Offer(sessions)), (Kind::Gateway, index)) => {
                let most = usize::try_from(sessions).expect("few");
                let asked = self.with_gateway(index, |core, now| core.offer_moves(most, now)).unwrap_or_default();
                (0..asked).for_each(|_| self.ledger.count("moves offered to even out"));
                if asked > 0 {
                    self.ledger.reached.insert("move_quiet_ns");
                }
            }
            (Some(Wish::Offer(_)), _) => {}
            (Some(Wish::Leave(window)), (Kind::Gateway, _)) => {
                child.departure = Some(Departure::new(now, window, None));
                self.ledger.count("gateways that left");
                self.depart(key);
            }
            (Some(Wish::Leave(_) | Wish::End), (Kind::Worker, index)) => {
                self.ledger.count("workers that left");
                self.feed_worker(index, WorkerInput::Stop);
            }
            (Some(Wish::End), (Kind::Gateway, index)) => self.drain(index, |core| core.drain(close::GOING_AWAY, "bye")),
        }
    }

    fn depart(&mut self, key: (Kind, usize)) {
        let (now, index) = (self.local(key.1), key.1);
        let Some(mut departure) = self.children.get(&key).and_then(|child| child.departure.clone()) else { return };
        if departure.is_over(now) {
            if self.gateways[index].core.as_ref().is_some_and(|core| core.session_count() > 0) {
                self.ledger.reached.insert("drain window");
            }
            return self.drain(index, Core::close_unmoved);
        }
        self.with_gateway(index, |core, now| core.move_some(&mut departure, now));
        if let Some(child) = self.children.get_mut(&key) {
            child.departure = Some(departure);
        }
        let process = self.process(key);
        self.after(u64::try_from(MOVE_STEP.as_nanos()).expect("short"), process, Happening::Deed(key, Deed::Depart));
    }

    fn drain(&mut self, index: usize, close: impl FnOnce(&mut Core)) {
        self.gateways[index].ending = true;
        self.with_gateway(index, |core, _| close(core));
    }

    /// A gateway that ends has let everybody go, and its last events are in the journal.
    pub(super) fn gateway_is_drained(&mut self, index: usize) {
        let pid = self.gateway_pid(index);
        let incarnation = self.gateways[index].incarnation;
        let shards = self.gateways[index].core.as_mut().map(Core::leave).unwrap_or_default();
        for (shard, turn) in shards {
            self.call(pid, Call::Leave(shard, turn));
        }
        self.trace(|| format!("gateway {index} has ended"));
        self.gateways[index].core = None;
        self.pushes.remove(&incarnation);
        self.lose_connections(pid);
        self.child_over((Kind::Gateway, index), Exit::Code(0));
    }

    fn load(&self, key: (Kind, usize)) -> Load {
        let cpu = self.children.get(&key).map_or(0.0, |child| child.cpu);
        let (sessions, events) = match key.0 {
            Kind::Gateway => (self.sessions_at(key.1), self.gateways[key.1].events),
            Kind::Worker => (0, 0),
        };
        Load { sessions, cpu, events, ..Load::default() }
    }

    /// Connections that were passed to a gateway and are not gone.
    fn sessions_at(&self, index: usize) -> u64 {
        let gateway = &self.gateways[index];
        gateway.core.as_ref().map_or(0, |core| core.session_count() as u64) + gateway.coming
    }

    /// Rule U5: which gateway a connection is passed to. Where none takes one more, it waits.
    pub(super) fn door(&self) -> Option<usize> {
        let supervisor = self.supervisor.as_ref().filter(|s| s.asleep_until <= self.now)?;
        let gateways: Vec<(Slot, usize)> = supervisor
            .plan
            .ready_gateways()
            .into_iter()
            .filter_map(|(slot, child)| Some((slot, supervisor.processes.get(&child)?.1)))
            .collect();
        let most = self.options.bounds.sessions_max as u64;
        let candidates: Vec<Candidate> = gateways
            .iter()
            .map(|(slot, index)| Candidate {
                slot: slot.clone(),
                sessions: self.sessions_at(*index),
                actions_per_s: 0.0,
                free_sessions: most.saturating_sub(self.sessions_at(*index)),
                free_handshakes: most,
            })
            .collect();
        choose(&candidates).map(|chosen| gateways[chosen].1)
    }

    /// A process is gone. Its supervisor hears of it.
    pub(super) fn child_over(&mut self, key: (Kind, usize), exit: Exit) {
        let Some(child) = self.children.remove(&key) else { return };
        if exit != Exit::Code(0) {
            self.trouble_until = self.trouble_until.max(self.now + AFTERMATH_NS);
        }
        let delay = self.delay();
        self.after(delay, None, Happening::Exited { supervisor: child.supervisor, child: child.id, exit });
    }

    pub(super) fn exited(&mut self, number: u64, child: ChildId, exit: Exit) {
        if self.supervisor.as_ref().is_some_and(|s| s.number == number) {
            self.tell_plan(Input::Ended { child, exit });
        }
    }

    pub(super) fn kill_process(&mut self, key: (Kind, usize)) {
        match key {
            (Kind::Gateway, index) if self.gateways[index].core.is_some() => self.kill_gateway(index),
            (Kind::Worker, index) if self.workers[index].core.is_some() => self.end_worker(index),
            _ => self.child_over(key, Exit::Signal(9)),
        }
    }

    /// Somebody asks the supervisor for something.
    pub(super) fn ask(&mut self) {
        let group = |role| Group::new("", role);
        let gentle = self.gentle();
        // A crowd at one gateway is to be seen when there are more.
        let is_crowded = self.options.supervised.as_ref().is_some_and(|supervised| supervised.gateways == Count::Fixed(1));
        let command = match self.below(if gentle { 8 } else { 12 }) {
            0..=3 if is_crowded => {
                Command::Scale { group: group(Role::Gateway), count: Count::Fixed(2 + self.below(3) as usize) }
            }
            0..=1 => Command::Restart(vec!["gateway".to_owned()]),
            2 => Command::Restart(vec!["worker".to_owned()]),
            3 => Command::Recycle(vec!["all".to_owned()]),
            4..=5 => {
                let supervised = self.options.supervised.as_ref().expect("its settings");
                let settings = supervised.settings();
                let supervisor = self.supervisor.as_mut().expect("who is asked");
                supervisor.generation += 1;
                Command::Reload { generation: Generation(supervisor.generation), settings }
            }
            6 => Command::Scale { group: group(Role::Gateway), count: Count::Fixed(2 + self.below(3) as usize) },
            7 => Command::Scale { group: group(Role::Worker), count: Count::Fixed(1 + self.below(2) as usize) },
            8 => Command::Stop(vec![format!("gateway-{}", 1 + self.below(3))]),
            9 => Command::Start(vec!["all".to_owned()]),
            10 => Command::Delete(vec![format!("gateway-{}", 3 + self.below(2))]),
            _ => Command::Restart(vec!["all".to_owned()]),
        };
        self.command(command);
    }

    fn command(&mut self, command: Command) {
        let Some(supervisor) = &mut self.supervisor else { return };
        supervisor.asked += 1;
        let request = RequestId(supervisor.asked);
        supervisor.open.insert(request);
        self.ledger.count("requests");
        self.tell_plan(Input::Command { request, command });
    }

    /// Rule U6: it is gone, and its children end; another one begins at once.
    pub(super) fn kill_supervisor(&mut self) {
        self.trace(|| "the supervisor is killed".to_owned());
        self.trouble_until = self.trouble_until.max(self.now + AFTERMATH_NS);
        let keys: Vec<(Kind, usize)> = self.children.keys().copied().collect();
        for key in keys {
            if self.process(key).is_some() && !self.hangs(key) {
                self.wish(key, Wish::End);
            } else if self.hangs(key) {
                // Somebody looks after it by hand.
                self.kill_process(key);
            } else {
                self.child_over(key, Exit::Code(0));
            }
        }
        self.ledger.count("supervisors killed");
        self.start_supervisor();
    }

    pub(super) fn put_supervisor_to_sleep(&mut self) {
        let until = self.now + self.below(600 * MS);
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.asleep_until = until;
            self.ledger.count("supervisors that stood still");
        }
    }

    /// A process stands still until it is killed.
    pub(super) fn hang(&mut self) {
        let keys: Vec<(Kind, usize)> = self.children.keys().copied().filter(|key| self.process(*key).is_some()).collect();
        if keys.is_empty() {
            return;
        }
        let for_ever = self.now + 3_600_000 * MS;
        match keys[self.below(keys.len() as u64) as usize] {
            (Kind::Gateway, index) => self.gateways[index].paused_until = for_ever,
            (Kind::Worker, index) => self.workers[index].paused_until = for_ever,
        }
        // Until it is killed for that.
        self.trouble_until = self.trouble_until.max(self.now + 1_000 * MS + AFTERMATH_NS);
        self.ledger.count("processes that hang");
    }

    fn hangs(&self, (kind, index): (Kind, usize)) -> bool {
        let until = if kind == Kind::Gateway { self.gateways[index].paused_until } else { self.workers[index].paused_until };
        until > self.now + 1_800_000 * MS
    }

    /// Whoever was asked to stop or has given up starts again, and as many as at first are wanted.
    pub(super) fn mend_supervisor(&mut self) {
        let Some(Supervised { gateways, workers, .. }) = self.options.supervised.clone() else { return };
        self.supervisor.as_mut().expect("one is there").asleep_until = 0;
        self.insist(Command::Start(vec!["all".to_owned()]));
        for (role, count) in [(Role::Gateway, gateways), (Role::Worker, workers)] {
            self.insist(Command::Scale { group: Group::new("", role), count });
        }
    }

    pub(super) fn gentle(&self) -> bool {
        self.options.supervised.as_ref().is_some_and(|supervised| supervised.gentle)
    }

    /// Nothing has died or stood still lately, nor is about to: nobody has a reason to be without a connection.
    pub(super) fn is_smooth(&self) -> bool {
        self.gentle() && self.now > self.trouble_until
    }

    /// Supervision: everybody who asked was answered, as many run as are wanted, and nobody else does.
    pub(super) fn check_supervision(&self) {
        let Some(supervisor) = &self.supervisor else { return };
        assert!(supervisor.open.is_empty(), "answers: {:?} wait for ever", supervisor.open);
        let wanted = &self.options.supervised.as_ref().expect("its settings");
        let slots = supervisor.plan.slots();
        for (role, count) in [(Role::Gateway, wanted.gateways), (Role::Worker, wanted.workers)] {
            let there = slots.iter().filter(|slot| slot.slot.group.role == role).count();
            assert_eq!(there, count.nearest(there), "liveness: {there} of {role}");
        }
        let count = slots.iter().map(|slot| slot.children.len()).sum::<usize>();
        assert_eq!(count, self.children.len(), "liveness: {slots:?} are known, {:?} run", self.children);
        if self.gentle() && !self.options.supervised.as_ref().is_some_and(|s| s.crashes) {
            let mut store = self.store.clone();
            for shard in (0..store.shards()).map(ShardId) {
                for known in store.survey(shard, false).expect("a shard").gateways {
                    let lives = self.gateways.iter().any(|g| g.core.is_some() && g.incarnation == known.incarnation.process());
                    assert!(lives || known.fenced, "handover: {known:?} has left and is still registered in {shard:?}");
                }
            }
            assert_eq!(self.ledger.counts.get("fences"), None, "handover: a gateway that left was taken for dead");
            assert_eq!(self.ledger.counts.get("claims from the dead"), None, "handover: a worker that left was taken for dead");
        }
    }
}
