//! Slots and children: how they start, become ready, leave and end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::step::{Action, ChildId, Exit, Generation, Load, Phase};
use crate::limits::GATEWAY_SILENCE_MAX;
use crate::supervisor::policy::backoff::Backoff;
use crate::supervisor::policy::names::{Role, Slot};

/// The exit code of a child that found something that only a person can change: it is not tried again.
const EXIT_GIVEN_UP: i32 = 2;

/// A slot's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// What its next child runs, unless a roll says otherwise.
    pub(super) generation: Generation,
    pub(super) aim: Aim,
    /// The child that counts.
    pub(super) now: Option<ChildId>,
    /// Becomes `now` once it is ready. There is no `last` then.
    pub(super) next: Option<ChildId>,
    /// Was `now`, and leaves.
    pub(super) last: Option<ChildId>,
    /// Why there is no `now`.
    pub(super) rest: Rest,
    pub(super) backoff: Backoff,
    pub(super) crashes: u64,
    pub(super) last_end: Option<String>,
}

/// What is wanted of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Aim {
    Run,
    Stop,
    /// Stop, then forget it.
    Remove,
}

/// Why a slot has no child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rest {
    /// It never had one, or it has one.
    None,
    /// It crashed, and is started again at this moment of waking time.
    Waiting(Duration),
    Failed,
    Stopped,
}

impl Place {
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            generation,
            aim: Aim::Run,
            now: None,
            next: None,
            last: None,
            rest: Rest::None,
            backoff: Backoff::default(),
            crashes: 0,
            last_end: None,
        }
    }

    /// Its children, the one that counts first.
    pub(super) fn children(&self) -> impl Iterator<Item = ChildId> {
        [self.now, self.next, self.last].into_iter().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.children().next().is_none()
    }

    /// Whether two children share it, or one that is to take it over is on its way.
    pub(super) fn is_replaced(&self) -> bool {
        self.next.is_some() || self.last.is_some()
    }
}

/// One start of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) pid: Option<u32>,
    pub(super) life: Life,
    /// When it is killed unless something happens; in waking time, as all moments here.
    pub(super) deadline: Option<Duration>,
    pub(super) started: Duration,
    pub(super) ready_at: Option<Duration>,
    pub(super) heard: Duration,
    /// A gateway that says nothing: the door passes it over until it says something.
    pub(super) passed_over: bool,
    pub(super) load: Load,
    /// Sessions that were asked to move, until they are gone or the offer has expired.
    pub(super) offered: u64,
    pub(super) offered_at: Duration,
    /// It was killed, for this.
    pub(super) killed: Option<String>,
}

/// What a child is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    Starting,
    Ready,
    /// It was asked to leave, and still says what it does.
    Leaving,
    /// Its channel is closed.
    Ending,
}

impl Child {
    pub(super) fn phase(&self) -> Phase {
        match self.life {
            Life::Starting => Phase::Starting,
            Life::Ready => Phase::Ready,
            Life::Leaving | Life::Ending => Phase::Leaving,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.life == Life::Ready && self.killed.is_none()
    }

    /// When it gets no connections any more if nothing is heard of it: only of a gateway that gets some.
    pub(super) fn passed_over_at(&self) -> Option<Duration> {
        let gets_some = self.is_ready() && !self.passed_over && self.slot.group.role == Role::Gateway;
        gets_some.then(|| self.heard + GATEWAY_SILENCE_MAX)
    }

    /// When it is killed if nothing is heard of it: only of a child that has said that it is there, and that can say more.
    pub(super) fn silent_until(&self, hang_timeout: Duration) -> Option<Duration> {
        matches!(self.life, Life::Ready | Life::Leaving).then(|| self.heard + hang_timeout)
    }
}

impl Plan {
    /// Starts a child that becomes the slot's `now`.
    pub(super) fn fill(&mut self, slot: &Slot) {
        let Some(generation) = self.places.get(slot).map(|place| place.generation) else { return };
        let child = self.start(slot, generation);
        if let Some(place) = self.places.get_mut(slot) {
            debug_assert!(place.now.is_none() && place.next.is_none(), "{slot} has a child");
            (place.now, place.rest) = (Some(child), Rest::None);
        }
    }

    /// Starts a child that takes the slot over once it is ready.
    pub(super) fn start_next(&mut self, slot: &Slot, generation: Generation) {
        let child = self.start(slot, generation);
        if let Some(place) = self.places.get_mut(slot) {
            debug_assert!(!place.is_replaced(), "{slot} is being replaced");
            place.next = Some(child);
        }
    }

    fn start(&mut self, slot: &Slot, generation: Generation) -> ChildId {
        self.last_child += 1;
        let child = ChildId(self.last_child);
        let state = Child {
            slot: slot.clone(),
            generation,
            pid: None,
            life: Life::Starting,
            deadline: Some(self.awake + self.settings.ready_timeout),
            started: self.awake,
            ready_at: None,
            heard: self.awake,
            passed_over: false,
            load: Load::default(),
            offered: 0,
            offered_at: self.awake,
            killed: None,
        };
        self.children.insert(child, state);
        self.actions.push(Action::Start { child, slot: slot.clone(), generation });
        child
    }

    /// A child said that it can work. What it says after it was asked to end, or was killed, comes too late.
    pub(super) fn ready(&mut self, id: ChildId) {
        let awake = self.awake;
        let Some(child) = self.children.get_mut(&id).filter(|child| child.life == Life::Starting && child.killed.is_none())
        else {
            return;
        };
        (child.life, child.deadline, child.ready_at, child.heard) = (Life::Ready, None, Some(awake), awake);
        let (slot, generation) = (child.slot.clone(), child.generation);
        let Some(place) = self.places.get_mut(&slot) else { return };
        if place.next != Some(id) {
            return;
        }
        (place.last, place.now, place.next) = (place.now, Some(id), None);
        (place.generation, place.rest) = (generation, Rest::None);
        let last = place.last;
        self.rolled(&slot, id);
        if let Some(last) = last {
            self.leave(last, Some(id));
        }
    }

    /// Asks a child to go. If others of its kind go on, nobody is to notice it.
    pub(super) fn leave(&mut self, id: ChildId, successor: Option<ChildId>) {
        let Some(child) = self.children.get(&id) else { return };
        if !matches!(child.life, Life::Starting | Life::Ready) {
            return;
        }
        let (slot, is_ready) = (&child.slot, child.is_ready() && self.stopping.is_none());
        let window = if slot.group.role == Role::Gateway { self.settings.drain_window } else { Duration::ZERO };
        if is_ready && (successor.is_some() || self.ready_children().any(|(other, _)| other != slot && other.group == slot.group))
        {
            self.go(id, Life::Leaving, window + self.settings.stop_timeout);
            self.actions.push(Action::AskToLeave { child: id, successor, window });
        } else {
            self.end(id);
        }
    }

    /// Asks a child to end at once.
    fn end(&mut self, id: ChildId) {
        self.go(id, Life::Ending, self.settings.stop_timeout);
        self.actions.push(Action::AskToEnd { child: id });
    }

    fn go(&mut self, id: ChildId, life: Life, within: Duration) {
        if let Some(child) = self.children.get_mut(&id) {
            (child.life, child.deadline) = (life, Some(self.awake + within));
        }
    }

    /// Wants a slot to be empty: its children go, and no other comes.
    pub(super) fn retire(&mut self, slot: &Slot, aim: Aim) {
        let Some(place) = self.places.get_mut(slot) else { return };
        place.aim = aim;
        let children: Vec<ChildId> = place.children().collect();
        for child in children {
            if self.stopping.is_some() && self.children.get(&child).is_some_and(|child| child.life == Life::Leaving) {
                self.end(child);
            } else {
                self.leave(child, None);
            }
        }
        self.settle(slot);
    }

    /// An empty slot that is to be empty is stopped, or gone.
    fn settle(&mut self, slot: &Slot) {
        let Some(place) = self.places.get_mut(slot).filter(|place| place.is_empty()) else { return };
        match place.aim {
            Aim::Run => {}
            Aim::Stop => place.rest = Rest::Stopped,
            Aim::Remove => drop(self.places.remove(slot)),
        }
    }

    /// Wants a slot to have a child. One that goes is waited for.
    pub(super) fn revive(&mut self, slot: &Slot) {
        let Some(place) = self.places.get_mut(slot) else { return };
        place.aim = Aim::Run;
        place.backoff = Backoff::default();
        if place.now.is_none() && place.next.is_none() {
            self.fill(slot);
        }
    }

    /// Kills a child, once.
    pub(super) fn kill(&mut self, id: ChildId, why: String) {
        let Some(child) = self.children.get_mut(&id).filter(|child| child.killed.is_none()) else { return };
        child.killed = Some(why.clone());
        self.undrained |= matches!(child.life, Life::Leaving | Life::Ending);
        self.actions.push(Action::Kill { child: id, why });
    }

    /// A child's process is gone, or none could be made.
    pub(super) fn ended(&mut self, id: ChildId, exit: Result<Exit, String>) {
        let Some(child) = self.children.remove(&id) else { return };
        let gave_up = exit == Ok(Exit::Code(EXIT_GIVEN_UP));
        let how = match (child.killed.clone(), exit) {
            (Some(why), _) => why,
            (None, Ok(exit)) if child.ready_at.is_none() => format!("{exit} before it was ready"),
            (None, Ok(exit)) => exit.to_string(),
            (None, Err(why)) => format!("could not be started: {why}"),
        };
        let slot = child.slot.clone();
        let Some(place) = self.places.get_mut(&slot) else { return };
        if place.last == Some(id) {
            place.last = None;
        } else if place.next == Some(id) {
            place.next = None;
            let (runs, is_new) = (place.aim == Aim::Run, place.now.is_none() && place.rest == Rest::None);
            if place.rest == Rest::Stopped {
                place.aim = Aim::Stop;
            }
            if runs && is_new {
                // It was made for this child alone.
                self.places.remove(&slot);
            }
            if runs {
                self.roll_failed(&slot, &how);
            }
        } else if place.now == Some(id) {
            place.now = None;
            let asked = matches!(child.life, Life::Leaving | Life::Ending);
            if !asked {
                self.crashed(&slot, &child, how, gave_up);
            } else if place.aim == Aim::Run && place.next.is_none() {
                self.fill(&slot);
            } else if place.aim == Aim::Run {
                place.rest = Rest::Waiting(self.awake);
            }
        }
        self.settle(&slot);
    }

    fn crashed(&mut self, slot: &Slot, child: &Child, how: String, gave_up: bool) {
        let awake = self.awake;
        let Some(place) = self.places.get_mut(slot) else { return };
        place.crashes += 1;
        let pause = place.backoff.pause(child.ready_at.map_or(Duration::ZERO, |at| awake.saturating_sub(at)));
        let then = if place.aim != Aim::Run {
            String::new()
        } else if gave_up {
            place.rest = Rest::Failed;
            format!(": it is not started again by itself (lasthit start {slot})")
        } else {
            place.rest = Rest::Waiting(awake + pause);
            format!(": it is started again in {}", seconds(pause))
        };
        self.actions.push(Action::Log { line: format!("{slot} {how}{then}") });
        place.last_end = Some(how);
    }
}

/// A duration in words.
pub(super) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}
