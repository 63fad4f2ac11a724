//! What the supervisor does next: a step function over slots and children. An input and the time go in, actions come out.
//!
//! A **slot** is a place for a process, with a name. A **child** is one start of it. A slot has one child; while it is replaced it has
//! two: the next one, until it is ready, or the last one, until it has ended (rule U1).
//!
//! ```text
//!            +--------------------- after a pause ---------------------+
//!            v                                                         |
//!  start --> starting --- ready --> ready --- ended unasked --------> waiting
//!            |   |                   |  ^                              ^
//!            |   +- ended, or late --|--|------------------------------+
//!            |                       |  +-- the next child is ready, the last one leaves
//!            +------- code 2 --------+----> failed
//!                                    |
//!                                    +- asked to --> leaving --> stopped, or gone
//! ```
//!
//! All waits are counted in the supervisor's own **waking time**: of a gap between two inputs only one [`BEAT`] counts. They end only in
//! [`Input::Looked`]: a supervisor that was stopped, or had no core, first hears what its children have said meanwhile (rule U3).

mod place;
mod requests;
mod roll;
pub(crate) mod step;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::BEAT;
use crate::supervisor::policy::counts::Count;
use crate::supervisor::policy::even::Even;
use crate::supervisor::policy::names::{Group, Role, Slot};
use crate::supervisor::policy::scale::Scale;
use place::{Aim, Child, Place, Rest};
use requests::Pending;
use roll::Roll;
use step::{Action, ChildId, ChildView, Generation, Input, Phase, RequestId, Settings, SlotView};

/// The form of [`Plan::save`]. It says how to read what an earlier image has saved.
const FORM: u32 = 1;

/// The state of a supervisor. The dispatcher owns it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    form: u32,
    settings: Settings,
    /// What a new slot runs.
    generation: Generation,
    /// How many of each, as the settings or a command said last.
    counts: BTreeMap<Group, Count>,
    places: BTreeMap<Slot, Place>,
    children: BTreeMap<ChildId, Child>,
    last_child: u64,
    pending: Vec<Pending>,
    roll: Option<Roll>,
    /// Begins when the roll before it has ended.
    queued: Option<Roll>,
    /// No replacement by itself before.
    recycle_from: Duration,
    scales: BTreeMap<Group, Scale>,
    /// By deployment.
    evens: BTreeMap<String, Even>,
    evened: Duration,
    /// Which role ends now, once everything is to end.
    stopping: Option<Role>,
    /// Who asked for that.
    enders: Vec<RequestId>,
    /// A child that was to end had to be killed.
    undrained: bool,
    is_over: bool,
    /// How long the supervisor was awake.
    awake: Duration,
    /// Of that, when the channels were read.
    looked: Duration,
    /// When the last input came.
    last: Duration,
    #[serde(skip)]
    actions: Vec<Action>,
}

impl Plan {
    /// A plan, and the first starts. The settings are those that [`crate::supervisor::policy::counts::check`] lets through. `now` is the
    /// time of a monotonic clock, here and below.
    pub(crate) fn new(settings: Settings, generation: Generation, now: Duration) -> (Self, Vec<Action>) {
        let mut plan = Self {
            form: FORM,
            counts: counts_of(&settings),
            settings,
            generation,
            places: BTreeMap::new(),
            children: BTreeMap::new(),
            last_child: 0,
            pending: Vec::new(),
            roll: None,
            queued: None,
            recycle_from: Duration::ZERO,
            scales: BTreeMap::new(),
            evens: BTreeMap::new(),
            evened: Duration::ZERO,
            stopping: None,
            enders: Vec::new(),
            undrained: false,
            is_over: false,
            awake: Duration::ZERO,
            looked: Duration::ZERO,
            last: now,
            actions: Vec::new(),
        };
        for (group, count) in plan.counts.clone() {
            plan.adjust(&group, count.nearest(0));
        }
        let actions = std::mem::take(&mut plan.actions);
        (plan, actions)
    }

    /// What is to be done now. Actions are to be carried out in their order. What an input says of a child that has ended changes nothing.
    pub(crate) fn step(&mut self, input: Input, now: Duration) -> Vec<Action> {
        self.awake += now.saturating_sub(self.last).min(BEAT);
        self.last = self.last.max(now);
        match input {
            Input::Started { child, pid } => {
                if let Some(child) = self.children.get_mut(&child) {
                    child.pid = Some(pid);
                }
            }
            Input::StartFailed { child, why } => self.ended(child, Err(why)),
            Input::Ready { child } => self.ready(child),
            Input::Heard { child, load } => self.heard(child, load),
            Input::Ended { child, exit } => self.ended(child, Ok(exit)),
            Input::Looked => {
                self.looked = self.awake;
                self.looked();
            }
            Input::Command { request, command } => self.command(request, command),
            Input::Finished { result } => self.finished(result),
            Input::StopAll => self.stop_all(),
        }
        // Rolls and the end of everything change what requests wait for, and the last act of a roll waits for requests.
        self.turn_roll();
        self.turn_stopping();
        self.turn_requests();
        self.turn_roll();
        std::mem::take(&mut self.actions)
    }

    /// When [`Input::Looked`] is due next, by the clock of [`Plan::step`]. None: only an input changes anything.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.next_moment().filter(|_| !self.is_over).map(|moment| self.last + moment.saturating_sub(self.awake))
    }

    /// Whether everything is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// All slots by name, for `ps`.
    pub(crate) fn slots(&self) -> Vec<SlotView> {
        let view = |id: ChildId| {
            let child = self.children.get(&id)?;
            Some(ChildView {
                child: id,
                pid: child.pid,
                phase: child.phase(),
                generation: child.generation,
                age: self.awake.saturating_sub(child.started),
                load: child.load,
            })
        };
        let mut slots: Vec<SlotView> = self
            .places
            .iter()
            .map(|(slot, place)| SlotView {
                slot: slot.clone(),
                phase: self.phase(place),
                generation: place.generation,
                crashes: place.crashes,
                last_end: place.last_end.clone(),
                children: place.children().filter_map(view).collect(),
            })
            .collect();
        slots.sort_by(|a, b| {
            let key = |slot: &Slot| (slot.group.deployment.clone(), std::cmp::Reverse(slot.group.role), slot.number);
            key(&a.slot).cmp(&key(&b.slot))
        });
        slots
    }

    fn phase(&self, place: &Place) -> Phase {
        let now = place.now.or(place.next).or(place.last).and_then(|id| self.children.get(&id));
        match (now, place.rest) {
            (Some(child), _) => child.phase(),
            (None, Rest::Waiting(until)) => Phase::Waiting(until.saturating_sub(self.awake)),
            (None, Rest::Failed) => Phase::Failed,
            (None, Rest::None | Rest::Stopped) => Phase::Stopped,
        }
    }

    /// The gateways that the door may choose from: ready, not asked to leave, and heard of lately. Sorted by name.
    pub(crate) fn ready_gateways(&self) -> Vec<(Slot, ChildId)> {
        let speaks = |id: &ChildId| self.children.get(id).is_some_and(|child| !child.passed_over);
        let gateways = self.ready_children().filter(|(slot, id)| slot.group.role == Role::Gateway && speaks(id));
        gateways.map(|(slot, child)| (slot.clone(), child)).collect()
    }

    /// The generations that a slot may be started with: the dispatcher keeps what they run, and forgets all others.
    pub(crate) fn generations(&self) -> Vec<Generation> {
        let of_roll = [&self.roll, &self.queued].into_iter().flatten().filter_map(|roll| match &roll.kind {
            roll::Kind::Reload(generation, _) => Some(*generation),
            _ => None,
        });
        let of_places = self.places.values().map(|place| place.generation);
        let of_children = self.children.values().map(|child| child.generation);
        let mut all: Vec<Generation> = of_places.chain(of_children).chain(of_roll).chain([self.generation]).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The deployments that there are, or that a reload is about to bring, and whether they have gateways.
    pub(crate) fn deployments(&self) -> BTreeMap<&str, bool> {
        let of_roll = [&self.roll, &self.queued].into_iter().flatten().filter_map(|roll| match &roll.kind {
            roll::Kind::Reload(_, settings) => Some(settings),
            _ => None,
        });
        let mut all = BTreeMap::new();
        for deployment in of_roll.chain([&self.settings]).flat_map(|settings| &settings.deployments) {
            *all.entry(deployment.name.as_str()).or_default() |= deployment.gateways.most() > 0;
        }
        all
    }

    /// What everything runs, but for what a reload that is under way has replaced.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether [`Action::Finish`] is being carried out.
    pub(crate) fn is_finishing(&self) -> bool {
        self.roll.as_ref().is_some_and(Roll::is_finishing)
    }

    /// What the next image of the supervisor needs to go on: to be taken when [`Action::Finish`] is carried out.
    pub(crate) fn save(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| format!("the supervisor's state cannot be written: {error}"))
    }

    /// Goes on where another image was. Its channels are read before anything is judged.
    ///
    /// # Errors
    /// One line when the text is no such state.
    pub(crate) fn restore(saved: &str, now: Duration) -> Result<Self, String> {
        let mut plan: Self =
            serde_json::from_str(saved).map_err(|error| format!("the supervisor's state cannot be read: {error}"))?;
        if plan.form != FORM {
            return Err(format!("the supervisor's state has form {}, this version reads {FORM}", plan.form));
        }
        plan.last = now;
        Ok(plan)
    }

    /// The slots of a group that are wanted, by number.
    fn slots_of(&self, group: &Group) -> impl Iterator<Item = &Slot> {
        let places = self.places.iter().filter(move |(slot, place)| slot.group == *group && place.aim != Aim::Remove);
        places.map(|(slot, _)| slot)
    }

    /// The children that work, and are to go on.
    fn ready_children(&self) -> impl Iterator<Item = (&Slot, ChildId)> {
        let of_place = |(slot, place): (_, &Place)| {
            let id = place.now?;
            self.children.get(&id).filter(|child| child.is_ready()).map(|_| (slot, id))
        };
        self.places.iter().filter_map(of_place)
    }
}

fn counts_of(settings: &Settings) -> BTreeMap<Group, Count> {
    let deployments = settings.deployments.iter();
    deployments
        .flat_map(|deployment| Role::ALL.map(|role| (Group::new(&deployment.name, role), deployment.count(role))))
        .collect()
}
