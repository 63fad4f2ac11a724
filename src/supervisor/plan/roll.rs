//! One slot after the other is replaced: in a reload, by a command, or because a child has done enough.
//!
//! The next child starts; when it is ready the last one leaves; when that has ended, and what came with it has settled, the next slot
//! follows. A child that does not become ready ends the roll, and the one that was there stays (rule U2).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::place::{Aim, Place, Rest};
use super::requests::list;
use super::step::{Action, ChildId, Generation, RequestId, Settings};
use crate::limits::{RECYCLE_RETRY, ROLL_REST};
use crate::supervisor::policy::names::{Group, Role, Slot};

/// What is replaced, and how far that is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Roll {
    /// Who asked. None: the plan itself.
    pub(super) request: Option<RequestId>,
    pub(super) kind: Kind,
    /// What comes next, in this order.
    pub(super) left: VecDeque<Slot>,
    /// Whose turn it is.
    at: Option<Slot>,
    done: Vec<Slot>,
    /// When the next slot may follow, in waking time. A state of an image that knows no such pause has none.
    #[serde(default)]
    rests_until: Duration,
    /// Why it ends early.
    failed: Option<String>,
    step: Step,
}

/// Why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Another generation, whose settings count from the end on.
    Reload(Generation, Settings),
    /// By command, also what does not run.
    Restart,
    /// Only what is ready.
    Recycle,
}

/// What a roll does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// It waits for the roll before it.
    Queued,
    Replacing,
    /// All are replaced, and what is not wanted any more goes.
    Clearing,
    /// [`Action::Finish`] is on its way.
    Finishing,
}

impl Roll {
    pub(super) fn new(request: Option<RequestId>, kind: Kind, left: VecDeque<Slot>) -> Self {
        Self { request, kind, left, at: None, done: Vec::new(), rests_until: Duration::ZERO, failed: None, step: Step::Queued }
    }

    pub(super) fn is_reload(&self) -> bool {
        matches!(self.kind, Kind::Reload(..))
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.step == Step::Finishing
    }

    /// When its pause ends.
    pub(super) fn next_moment(&self) -> Option<Duration> {
        (self.step == Step::Replacing && self.at.is_none() && !self.left.is_empty()).then_some(self.rests_until)
    }

    /// As a line names it: `a reload (2 of 4 replaced)`.
    pub(super) fn in_words(&self) -> String {
        let what = match self.kind {
            Kind::Reload(..) => "reload",
            Kind::Restart => "restart",
            Kind::Recycle => "recycle",
        };
        // A slot is done when the new one is ready, and at its turn until the old one has ended.
        let at = self.at.iter().filter(|slot| !self.done.contains(slot)).count();
        let (done, all) = (self.done.len(), self.done.len() + self.left.len() + at);
        format!("a {what} ({done} of {all} replaced)")
    }
}

impl Plan {
    /// A child took its slot over.
    pub(super) fn rolled(&mut self, slot: &Slot, child: ChildId) {
        let Some(roll) = self.roll.as_mut().filter(|roll| roll.at.as_ref() == Some(slot)) else { return };
        roll.done.push(slot.clone());
        let request = roll.request;
        self.say(request, format!("{slot}: the new one (child {}) is ready, the old one leaves", child.0));
    }

    /// The child that was to take a slot over is gone.
    pub(super) fn roll_failed(&mut self, slot: &Slot, how: &str) {
        if let Some(roll) = self.roll.as_mut().filter(|roll| roll.at.as_ref() == Some(slot)) {
            roll.failed.get_or_insert_with(|| format!("{slot}: the new one {how}"));
        }
    }

    /// Does what a roll can do now.
    pub(super) fn turn_roll(&mut self) {
        loop {
            if self.roll.is_none() {
                self.roll = self.queued.take();
            }
            // Taken out, so that what it changes may look at the rest.
            let Some(mut roll) = self.roll.take() else { return };
            if self.stopping.is_some() {
                self.answer(roll.request, Err("everything is being stopped".to_owned()));
                continue;
            }
            let goes_on = match roll.step {
                Step::Queued => {
                    self.begin(&mut roll);
                    true
                }
                Step::Replacing => {
                    if roll.at.take_if(|slot| !self.places.get(slot).is_some_and(Place::is_replaced)).is_some() {
                        roll.rests_until = self.awake + ROLL_REST;
                    }
                    match (&roll.at, roll.failed.take(), roll.left.front().cloned()) {
                        (Some(_), failed, _) => {
                            roll.failed = failed;
                            false
                        }
                        (None, Some(failed), _) => {
                            self.roll_stops(roll, &failed);
                            continue;
                        }
                        (None, None, Some(_)) if self.looked < roll.rests_until => false,
                        (None, None, Some(slot)) => self.replace(&mut roll, slot),
                        (None, None, None) => {
                            let Kind::Reload(generation, settings) = &roll.kind else {
                                self.answer(roll.request, Ok(()));
                                continue;
                            };
                            roll.left = self.left_behind(*generation, settings);
                            if roll.left.is_empty() {
                                self.apply(*generation, settings.clone());
                                roll.step = Step::Clearing;
                            }
                            true
                        }
                    }
                }
                Step::Clearing => {
                    let generation = self.generation;
                    let is_clear = self.children.values().all(|child| child.generation == generation) && self.pending.is_empty();
                    if is_clear {
                        roll.step = Step::Finishing;
                        self.actions.push(Action::Finish { generation });
                    }
                    false
                }
                Step::Finishing => false,
            };
            self.roll = Some(roll);
            if !goes_on {
                return;
            }
        }
    }

    /// A reload replaces what the new settings keep, and adds what they want more.
    fn begin(&self, roll: &mut Roll) {
        if let Kind::Reload(_, settings) = &roll.kind {
            roll.left = self.wanted(settings).into();
        }
        roll.step = Step::Replacing;
    }

    /// The slots that settings want, given those that are there, in the order of a roll.
    fn wanted(&self, settings: &Settings) -> Vec<Slot> {
        let mut slots = Vec::new();
        for deployment in &settings.deployments {
            for role in Role::ALL {
                let group = Group::new(&deployment.name, role);
                let mut there: Vec<usize> = self.slots_of(&group).map(|slot| slot.number).collect();
                let count = deployment.count(role).nearest(there.len());
                let free: Vec<usize> =
                    (1..).filter(|number| !there.contains(number)).take(count.saturating_sub(there.len())).collect();
                there.truncate(count);
                slots.extend(there.into_iter().chain(free).map(|number| group.slot(number)));
            }
        }
        slots.sort();
        slots
    }

    /// Slots that a reload passed over, because they were stopped, and that somebody has started since: what runs there is of before,
    /// and would be waited for as long as it runs (rule U4).
    fn left_behind(&self, generation: Generation, settings: &Settings) -> VecDeque<Slot> {
        let is_old = |slot: &Slot| {
            let place = self.places.get(slot).filter(|place| place.aim == Aim::Run);
            let child = place.and_then(|place| place.now).and_then(|now| self.children.get(&now));
            child.is_some_and(|child| child.generation != generation)
        };
        self.wanted(settings).into_iter().filter(is_old).collect()
    }

    /// Begins with a slot. False if it has to wait.
    fn replace(&mut self, roll: &mut Roll, slot: Slot) -> bool {
        if let Kind::Reload(generation, _) = &roll.kind {
            self.places.entry(slot.clone()).or_insert_with(|| Place::new(*generation));
        }
        let Some(place) = self.places.get_mut(&slot) else {
            roll.left.pop_front();
            self.say(roll.request, format!("{slot} is gone"));
            return true;
        };
        let skipped = match &roll.kind {
            Kind::Reload(..) if place.aim == Aim::Stop => Some("is stopped"),
            Kind::Reload(..) => None,
            Kind::Restart | Kind::Recycle if place.aim == Aim::Remove => Some("is being removed"),
            Kind::Restart => None,
            Kind::Recycle if place.now.and_then(|now| self.children.get(&now)).is_some_and(|child| child.is_ready()) => None,
            Kind::Recycle => Some("is not ready, and stays as it is"),
        };
        if let Some(why) = skipped {
            roll.left.pop_front();
            self.say(roll.request, format!("{slot} {why}"));
            return true;
        }
        if place.is_replaced() || place.aim != Aim::Run && !place.is_empty() {
            // What leaves is gone soon.
            return false;
        }
        place.aim = Aim::Run;
        let generation = if let Kind::Reload(generation, _) = roll.kind { generation } else { place.generation };
        roll.left.pop_front();
        self.say(roll.request, format!("{slot}: a new one is started"));
        self.start_next(&slot, generation);
        roll.at = Some(slot);
        true
    }

    /// The settings of a reload count: every slot that they want has a child of theirs, or is stopped.
    fn apply(&mut self, generation: Generation, settings: Settings) {
        let wanted: BTreeSet<Slot> = self.wanted(&settings).into_iter().collect();
        self.generation = generation;
        self.counts = super::counts_of(&settings);
        self.settings = settings;
        self.scales.clear();
        self.evens.clear();
        for place in self.places.values_mut() {
            place.generation = generation;
        }
        let extra: Vec<Slot> = self.places.keys().filter(|slot| !wanted.contains(slot)).cloned().collect();
        for slot in extra {
            self.retire(&slot, Aim::Remove);
        }
    }

    /// The last act of a reload is done, or the supervisor's own program could not be changed.
    pub(super) fn finished(&mut self, result: Result<(), String>) {
        if let Some(roll) = self.roll.take_if(|roll| roll.is_finishing()) {
            self.answer(roll.request, result);
        }
    }

    fn roll_stops(&mut self, roll: Roll, failed: &str) {
        let is_old = |slot: &&Slot| !roll.done.contains(slot);
        let old: Vec<&Slot> = match roll.kind {
            Kind::Reload(..) => {
                let runs = self.places.iter().filter(|(_, place)| place.aim == Aim::Run || place.rest != Rest::Stopped);
                runs.map(|(slot, _)| slot).filter(is_old).collect()
            }
            _ => roll.left.iter().collect(),
        };
        let line = format!("{failed}; new: {}; as before: {}", list(roll.done.iter()), list(old.into_iter()));
        if roll.request.is_none() {
            self.recycle_from = self.awake + RECYCLE_RETRY;
        }
        self.answer(roll.request, Err(line));
    }
}
