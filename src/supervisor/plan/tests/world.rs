//! Children and a dispatcher that carries out what the plan says. After each step it checks what always holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limits::{BEAT, DRAIN_WINDOW, HANG_TIMEOUT, READY_TIMEOUT, STOP_TIMEOUT};
use crate::supervisor::plan::Plan;
use crate::supervisor::plan::step::{Action, ChildId, Command, Exit, Generation, Input, Load, Phase, RequestId, Settings};
use crate::supervisor::policy::counts::{Count, Deployment};
use crate::supervisor::policy::names::{Role, Slot};
use crate::supervisor::policy::recycle::Bounds;

/// The settings of one deployment.
pub(super) fn settings(gateways: Count, workers: Count) -> Settings {
    let main = Deployment { name: String::new(), gateways, workers, shards: 8 };
    Settings {
        deployments: vec![main],
        ready_timeout: READY_TIMEOUT,
        stop_timeout: STOP_TIMEOUT,
        hang_timeout: HANG_TIMEOUT,
        drain_window: DRAIN_WINDOW,
        recycle: Bounds::default(),
        even: true,
    }
}

/// The same with a small deployment beside it.
pub(super) fn with_eu(gateways: Count, workers: Count) -> Settings {
    let mut settings = settings(gateways, workers);
    let one = Count::Fixed(1);
    settings.deployments.push(Deployment { name: "eu".to_owned(), gateways: one, workers: one, shards: 8 });
    settings
}

/// How children behave when [`World::run_for`] lets them. Lists are used in turn, by the child's number.
#[derive(Debug, Clone)]
pub(super) struct Manners {
    /// How long a start takes. `u64::MAX`: for ever.
    pub(super) ready_ms: Vec<u64>,
    /// How long the end takes once it was asked for.
    pub(super) end_ms: Vec<u64>,
    /// Whether it crashes instead of becoming ready.
    pub(super) crashes: Vec<bool>,
    pub(super) events_per_beat: u64,
}

impl Default for Manners {
    fn default() -> Self {
        Self { ready_ms: vec![100], end_ms: vec![200], crashes: vec![false], events_per_beat: 0 }
    }
}

impl Manners {
    pub(super) fn all_in_time(ready_ms: &[u64], end_ms: &[u64]) -> Self {
        Self { ready_ms: ready_ms.to_vec(), end_ms: end_ms.to_vec(), ..Self::default() }
    }
}

/// A process.
#[derive(Debug, Clone)]
pub(super) struct Living {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    started: Duration,
    pub(super) ready: bool,
    pub(super) asked: Option<Duration>,
    killed: bool,
    events: u64,
    beat: Duration,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Duration,
    pub(super) living: BTreeMap<ChildId, Living>,
    pub(super) manners: Manners,
    /// Requests without an answer.
    pub(super) open: BTreeSet<RequestId>,
    pub(super) answers: BTreeMap<RequestId, Result<(), String>>,
    pub(super) lines: Vec<String>,
    pub(super) killed: Vec<String>,
    pub(super) moves: Vec<(ChildId, u64)>,
    pub(super) left: Vec<(ChildId, Option<ChildId>)>,
    pub(super) finish: Option<Generation>,
    pub(super) ended_with: Option<u8>,
    /// At least so many gateways and workers are ready after each step.
    pub(super) wanted: Option<(usize, usize)>,
    failed: BTreeSet<Slot>,
    next_request: u64,
    next_generation: u64,
    /// Messages wait while the supervisor sleeps.
    asleep: bool,
    /// It has not heard yet who is gone.
    catches_up: bool,
    /// Whether [`Self::run_for`] says what children do, and that a reload has done its last act.
    beats: bool,
    finishes: bool,
    inbox: Vec<Input>,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        let now = Duration::from_secs(1_000);
        let (plan, actions) = Plan::new(settings, Generation(1), now);
        let mut world = Self {
            plan,
            now,
            living: BTreeMap::new(),
            manners: Manners::default(),
            open: BTreeSet::new(),
            answers: BTreeMap::new(),
            lines: Vec::new(),
            killed: Vec::new(),
            moves: Vec::new(),
            left: Vec::new(),
            finish: None,
            ended_with: None,
            wanted: None,
            failed: BTreeSet::new(),
            next_request: 0,
            next_generation: 1,
            asleep: false,
            catches_up: false,
            beats: true,
            finishes: true,
            inbox: Vec::new(),
        };
        world.carry_out(actions, true);
        world
    }

    /// Gives an input, carries out what is said, and checks what always holds.
    pub(super) fn step(&mut self, input: Input) {
        if self.asleep {
            self.inbox.push(input);
            return;
        }
        // What else may start a slot that has failed is a command, or a roll that one began.
        let may_start_failed = matches!(input, Input::Command { .. }) || !self.open.is_empty();
        let looked = matches!(input, Input::Looked);
        let actions = self.plan.step(input, self.now);
        self.carry_out(actions, may_start_failed);
        if self.catches_up {
            return;
        }
        self.check();
        if let (true, Some(due)) = (looked, self.plan.next_due()) {
            assert!(due > self.now, "a look at {:?} is due again at {due:?}", self.now);
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>, may_start_failed: bool) {
        for action in actions {
            assert!(self.ended_with.is_none() || matches!(action, Action::Answer { .. }), "after the end: {action:?}");
            match action {
                Action::Start { child, slot, generation } => {
                    assert!(may_start_failed || !self.failed.contains(&slot), "{slot} had failed");
                    let living = Living {
                        slot,
                        generation,
                        started: self.now,
                        ready: false,
                        asked: None,
                        killed: false,
                        events: 0,
                        beat: self.now,
                    };
                    assert!(self.living.insert(child, living).is_none(), "{child:?} was used before");
                    let pid = child.0 as u32;
                    let more = self.plan.step(Input::Started { child, pid }, self.now);
                    assert!(more.is_empty(), "{more:?}");
                }
                Action::AskToEnd { child } => self.asked(child),
                Action::AskToLeave { child, successor, window: _ } => {
                    if let Some(successor) = successor {
                        assert!(self.living[&successor].ready, "{child:?} is to leave before {successor:?} is ready");
                    }
                    self.left.push((child, successor));
                    self.asked(child);
                }
                Action::Kill { child, why } => {
                    let living = self.living.get_mut(&child).expect("a living child");
                    assert!(!std::mem::replace(&mut living.killed, true), "{child:?} was killed before");
                    self.killed.push(format!("{}: {why}", living.slot));
                }
                Action::Move { child, sessions } => {
                    assert!(sessions > 0 && self.living[&child].ready);
                    self.moves.push((child, sessions));
                }
                Action::Progress { request, line } => {
                    assert!(self.open.contains(&request), "{request:?} is not open: {line}");
                    self.line(line);
                }
                Action::Answer { request, result } => {
                    assert!(self.open.remove(&request), "{request:?} is answered twice, or never asked: {result:?}");
                    if let Err(line) = &result {
                        assert!(!line.contains('\n'), "{line}");
                    }
                    self.answers.insert(request, result);
                }
                Action::Log { line } => self.line(line),
                Action::Finish { generation } => {
                    assert!(self.living.values().all(|living| living.generation == generation), "an old one is left");
                    self.finish = Some(generation);
                }
                Action::End { code } => {
                    assert!(self.living.is_empty(), "left: {:?}", self.living);
                    self.ended_with = Some(code);
                }
            }
        }
    }

    fn asked(&mut self, child: ChildId) {
        let living = self.living.get_mut(&child).expect("a living child");
        living.asked.get_or_insert(self.now);
    }

    fn line(&mut self, line: String) {
        assert!(!line.contains('\n'), "{line}");
        self.lines.push(line);
    }

    /// What holds after each step.
    fn check(&mut self) {
        let mut per_slot: BTreeMap<&Slot, Vec<&Living>> = BTreeMap::new();
        for living in self.living.values() {
            per_slot.entry(&living.slot).or_default().push(living);
        }
        for (slot, children) in &per_slot {
            assert!(children.len() <= 2, "{slot} has {} children", children.len());
        }
        let replaced: Vec<_> = per_slot.iter().filter(|(_, children)| children.len() > 1).map(|(slot, _)| slot).collect();
        assert!(replaced.len() <= 1, "replaced at one time: {replaced:?}");
        let views = self.plan.slots();
        let shown: BTreeSet<ChildId> = views.iter().flat_map(|view| &view.children).map(|child| child.child).collect();
        assert!(shown.iter().eq(self.living.keys()), "{shown:?} are shown, {:?} live", self.living);
        self.failed = views.iter().filter(|view| view.phase == Phase::Failed).map(|view| view.slot.clone()).collect();
        let last = views.iter().find(|view| view.children.iter().any(|child| child.pid.is_none()));
        assert!(last.is_none(), "{last:?} has no pid");
        if !self.living.is_empty() {
            let due = self.plan.next_due().expect("children are looked after");
            assert!(due <= self.now + BEAT, "{due:?} at {:?}", self.now);
        }
        if let Some((gateways, workers)) = self.wanted {
            let ready = self.ready_counts();
            assert!(ready.0 >= gateways && ready.1 >= workers, "{ready:?} are ready");
        }
        let gateways = self.plan.ready_gateways();
        assert!(gateways.iter().all(|(_, child)| self.living[child].ready && self.living[child].asked.is_none()), "{gateways:?}");
        let generations = self.plan.generations();
        assert!(self.living.values().all(|living| generations.contains(&living.generation)));
    }

    /// Gateways and workers that are ready and not asked to go.
    pub(super) fn ready_counts(&self) -> (usize, usize) {
        let count = |role: Role| {
            let works = |living: &&Living| living.slot.group.role == role && living.ready && living.asked.is_none();
            self.living.values().filter(works).count()
        };
        (count(Role::Gateway), count(Role::Worker))
    }

    /// The `n`th living child, or one that never was.
    fn pick(&self, n: usize) -> ChildId {
        let nobody = self.living.len() > 3 && n.is_multiple_of(16) || self.living.is_empty();
        if nobody { ChildId(1 << 40) } else { *self.living.keys().nth(n % self.living.len()).expect("one") }
    }

    pub(super) fn give(&mut self, input: impl FnOnce(ChildId) -> Input, n: usize) {
        let child = self.pick(n);
        let input = input(child);
        if let (Input::Ready { .. }, Some(living)) = (&input, self.living.get_mut(&child)) {
            living.ready = true;
        }
        self.step(input);
    }

    pub(super) fn end(&mut self, n: usize, exit: Exit) {
        let child = self.pick(n);
        self.living.remove(&child);
        self.step(Input::Ended { child, exit });
    }

    pub(super) fn fail_to_start(&mut self, n: usize) {
        let child = self.pick(n);
        self.living.remove(&child);
        self.step(Input::StartFailed { child, why: "no more processes".to_owned() });
    }

    pub(super) fn ask(&mut self, command: impl FnOnce(Generation) -> Command) -> RequestId {
        self.next_request += 1;
        self.next_generation += 1;
        let request = RequestId(self.next_request);
        self.open.insert(request);
        self.step(Input::Command { request, command: command(Generation(self.next_generation)) });
        request
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn look_after(&mut self, time: Duration) {
        self.now += time;
        // What was killed is gone by now.
        let dead: Vec<ChildId> = self.living.iter().filter(|(_, living)| living.killed).map(|(child, _)| *child).collect();
        for child in dead {
            self.living.remove(&child);
            self.step(Input::Ended { child, exit: Exit::Signal(9) });
        }
        self.step(Input::Looked);
    }

    /// All that the plan has said and done, and when it wants to be asked again.
    pub(super) fn told(&self) -> String {
        let Self { living, answers, lines, killed, moves, left, finish, ended_with, .. } = self;
        format!(
            "{living:?} {answers:?} {lines:?} {killed:?} {moves:?} {left:?} {finish:?} {ended_with:?} {:?}",
            self.plan.next_due()
        )
    }

    pub(super) fn exec(&mut self) {
        self.step(Input::Started { child: ChildId(0), pid: 1 });
        let saved = self.plan.save().expect("saved");
        self.plan = Plan::restore(&saved, self.now).expect("restored");
        assert!(self.plan.save().as_ref() == Ok(&saved), "another state");
        self.check();
    }

    /// From StopAll on: nobody obeys but every third, and what is killed ends.
    pub(super) fn runs_to_its_end(&mut self) {
        for turn in 0..200_u64 {
            if self.ended_with.is_some() {
                break;
            }
            if turn % 5 == 0 {
                let asked = self
                    .living
                    .iter()
                    .find(|(child, living)| living.asked.is_some() && child.0 % 3 == 0)
                    .map(|(child, _)| *child);
                if let Some(child) = asked {
                    self.living.remove(&child);
                    self.step(Input::Ended { child, exit: Exit::Code(0) });
                }
            }
            let due = self.plan.next_due().unwrap_or(self.now);
            self.look_after(due.saturating_sub(self.now));
        }
        assert!(self.ended_with.is_some(), "no end: {:?}", self.plan);
        assert!(self.open.is_empty(), "unanswered: {:?}", self.open);
        assert_eq!(self.plan.next_due(), None);
        let request = self.ask(|_| Command::Start(vec!["all".to_owned()]));
        assert!(self.answers[&request].is_err());
    }

    /// The one child says each beat that it is there.
    pub(super) fn hear_and_look_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.give(|child| Input::Heard { child, load: Load::default() }, 0);
            self.look_after((until - self.now).min(BEAT / 2));
        }
    }

    /// Children do what their manners say, and the dispatcher looks when it is due.
    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let due = self.plan.next_due().unwrap_or(until).max(self.now);
            let next = self.living.iter().filter_map(|(child, living)| self.next_of(*child, living)).min().unwrap_or(until);
            self.now = if self.asleep { next.max(self.now).min(until) } else { due.min(next).max(self.now).min(until) };
            self.live();
            if !self.asleep && self.plan.next_due().is_some_and(|due| due <= self.now) {
                self.step(Input::Looked);
            }
            if self.finishes && self.finish.take().is_some() {
                self.step(Input::Finished { result: Ok(()) });
            }
        }
    }

    /// Until the last act of a reload is asked for.
    pub(super) fn run_until_finish(&mut self) {
        self.finishes = false;
        self.run_for(Duration::from_millis(10));
        self.finishes = true;
    }

    /// What children say of their load is left to the test.
    pub(super) fn run_with_loads(&mut self, time: Duration) {
        self.beats = false;
        self.run_for(time);
        self.beats = true;
    }

    fn of<T: Copy>(list: &[T], child: ChildId) -> T {
        list[child.0 as usize % list.len()]
    }

    /// When a child does something next.
    fn next_of(&self, child: ChildId, living: &Living) -> Option<Duration> {
        let ready_ms = Self::of(&self.manners.ready_ms, child);
        let start = (!living.ready && living.asked.is_none() && ready_ms < u64::MAX)
            .then(|| living.started + Duration::from_millis(ready_ms));
        let end = living.asked.map(|asked| asked + Duration::from_millis(Self::of(&self.manners.end_ms, child)));
        let beat = (living.ready && self.beats).then(|| living.beat + BEAT);
        let killed = living.killed.then_some(self.now);
        [start, end, beat, killed].into_iter().flatten().min()
    }

    /// What children do at this moment.
    fn live(&mut self) {
        for (child, living) in self.living.clone() {
            if self.next_of(child, &living).is_none_or(|at| at > self.now) {
                continue;
            }
            let ended = living.asked.map(|asked| asked + Duration::from_millis(Self::of(&self.manners.end_ms, child)));
            if living.killed || ended.is_some_and(|at| at <= self.now) {
                let exit = if living.killed { Exit::Signal(9) } else { Exit::Code(0) };
                self.living.remove(&child);
                self.step(Input::Ended { child, exit });
            } else if !living.ready && Self::of(&self.manners.crashes, child) {
                self.living.remove(&child);
                self.step(Input::Ended { child, exit: Exit::Code(1) });
            } else if !living.ready {
                let state = self.living.get_mut(&child).expect("it lives");
                (state.ready, state.beat) = (true, self.now);
                self.step(Input::Ready { child });
            } else {
                let state = self.living.get_mut(&child).expect("it lives");
                (state.beat, state.events) = (self.now, state.events + self.manners.events_per_beat);
                let load = Load { events: state.events, ..Load::default() };
                self.step(Input::Heard { child, load });
            }
        }
    }

    /// The supervisor gets no core for so long. Then it reads what was said meanwhile, and looks.
    pub(super) fn sleep(&mut self, time: Duration) {
        self.asleep = true;
        self.run_for(time);
        (self.asleep, self.catches_up) = (false, true);
        for input in std::mem::take(&mut self.inbox) {
            self.step(input);
        }
        self.catches_up = false;
        self.step(Input::Looked);
    }
}
