//! What somebody asks for, and when it is answered: each request exactly once (rule U4).

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::place::{Aim, Life, Place, Rest};
use super::roll::{Kind, Roll};
use super::step::{Action, Command, RequestId};
use crate::limits::REQUESTS_MAX;
use crate::supervisor::policy::counts::{self, Count};
use crate::supervisor::policy::names::{self, Group, Role, Slot};

/// A request that waits for slots.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    request: RequestId,
    open: BTreeMap<Slot, Goal>,
    /// What is to go when nothing is open any more, and how.
    then: Option<(Vec<Slot>, Aim)>,
    problems: Vec<String>,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Goal {
    /// It is ready, or did not become it.
    Ready,
    /// It has no child, or is wanted again.
    Gone,
}

impl Plan {
    /// Begins with a request, or refuses it.
    pub(super) fn command(&mut self, request: RequestId, command: Command) {
        if let Err(why) = self.begin_command(request, command) {
            self.answer(Some(request), Err(why));
        }
    }

    fn begin_command(&mut self, request: RequestId, command: Command) -> Result<(), String> {
        if command == Command::End {
            if self.is_over {
                return Err("everything has ended".to_owned());
            }
            self.stop_all();
            self.enders.push(request);
            return Ok(());
        }
        if self.stopping.is_some() {
            return Err("everything is being stopped".to_owned());
        }
        if self.roll.as_ref().is_some_and(Roll::is_finishing) {
            return Err("a reload is at its last act: ask again in a moment".to_owned());
        }
        if self.pending.len() >= REQUESTS_MAX {
            return Err(format!("{REQUESTS_MAX} requests are under way: ask again when one of them has ended"));
        }
        match command {
            Command::Start(names) => {
                let slots = self.named(&names)?;
                for slot in &slots {
                    self.revive(slot);
                }
                self.wait(request, slots, Goal::Ready);
            }
            Command::Stop(names) => self.retire_in_turn(request, &names, Aim::Stop)?,
            Command::Delete(names) => self.retire_in_turn(request, &names, Aim::Remove)?,
            Command::Restart(names) => {
                let slots = self.named(&names)?;
                self.enqueue(Roll::new(Some(request), Kind::Restart, slots.into()))?;
            }
            Command::Recycle(names) => {
                let slots = self.named(&names)?;
                self.enqueue(Roll::new(Some(request), Kind::Recycle, slots.into()))?;
            }
            Command::Reload { generation, settings } => {
                counts::check(&settings.deployments)?;
                if generation <= self.generation {
                    return Err(format!("generation {} is not newer than {}", generation.0, self.generation.0));
                }
                self.enqueue(Roll::new(Some(request), Kind::Reload(generation, settings), Vec::new().into()))?;
            }
            Command::Scale { group, count } => self.scale(request, &group, count)?,
            Command::End => {}
        }
        Ok(())
    }

    /// The slots that names mean, workers first.
    fn named(&self, names: &[String]) -> Result<Vec<Slot>, String> {
        let there: Vec<&Slot> = self.places.keys().collect();
        names::select(names, &there)
    }

    /// One roll at a time. One that nobody asked for has one slot and is waited for.
    fn enqueue(&mut self, roll: Roll) -> Result<(), String> {
        if let Some(other) = [&self.queued, &self.roll].into_iter().flatten().find(|roll| roll.request.is_some()) {
            return Err(format!("{} is under way: ask again when it has ended", other.in_words()));
        }
        self.queued = Some(roll);
        Ok(())
    }

    fn is_reloading(&self) -> bool {
        [&self.queued, &self.roll].into_iter().flatten().any(Roll::is_reload)
    }

    /// Gateways go first, so that workers decide what they leave.
    fn retire_in_turn(&mut self, request: RequestId, names: &[String], aim: Aim) -> Result<(), String> {
        let slots = self.named(names)?;
        if aim == Aim::Remove {
            if self.is_reloading() {
                return Err("a reload is under way: ask again when it has ended".to_owned());
            }
            for slot in slots.iter().filter(|slot| self.places.get(slot).is_some_and(|place| place.aim != Aim::Remove)) {
                if let Some(Count::Fixed(count)) = self.counts.get_mut(&slot.group) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        let (first, then): (Vec<Slot>, Vec<Slot>) = slots.into_iter().partition(|slot| slot.group.role == Role::Gateway);
        for slot in &first {
            self.retire(slot, aim);
        }
        self.wait(request, first, Goal::Gone);
        if let Some(pending) = self.pending.last_mut().filter(|_| !then.is_empty()) {
            pending.then = Some((then, aim));
        }
        Ok(())
    }

    fn scale(&mut self, request: RequestId, group: &Group, count: Count) -> Result<(), String> {
        if self.is_reloading() {
            return Err("a reload is under way: ask again when it has ended".to_owned());
        }
        let mut settings = self.settings.deployments.clone();
        for deployment in &mut settings {
            for role in Role::ALL {
                let of_group = Group::new(&deployment.name, role);
                let wanted = if of_group == *group { Some(count) } else { self.counts.get(&of_group).copied() };
                *deployment.count_mut(role) = wanted.unwrap_or(deployment.count(role));
            }
        }
        if !settings.iter().any(|deployment| deployment.name == group.deployment) {
            let names = settings.iter().flat_map(|deployment| Role::ALL.map(|role| Group::new(&deployment.name, role)));
            return Err(format!("{group} is not there: there is {}", list(names)));
        }
        counts::check(&settings)?;
        self.counts.insert(group.clone(), count);
        self.scales.remove(group);
        let (more, less) = self.adjust(group, count.nearest(self.slots_of(group).count()));
        self.wait(request, more, Goal::Ready);
        if let Some(pending) = self.pending.last_mut() {
            pending.open.extend(less.into_iter().map(|slot| (slot, Goal::Gone)));
        }
        Ok(())
    }

    /// Gives a group so many slots: the lowest free numbers come, the highest go. Returns both.
    pub(super) fn adjust(&mut self, group: &Group, count: usize) -> (Vec<Slot>, Vec<Slot>) {
        let there: Vec<Slot> = self.slots_of(group).cloned().collect();
        let less: Vec<Slot> = there.iter().skip(count).cloned().collect();
        for slot in &less {
            self.retire(slot, Aim::Remove);
        }
        let free = (1..).map(|number| group.slot(number)).filter(|slot| !there.contains(slot));
        let more: Vec<Slot> = free.take(count.saturating_sub(there.len())).collect();
        for slot in &more {
            let generation = self.generation;
            self.places.entry(slot.clone()).or_insert_with(|| Place::new(generation));
            self.revive(slot);
        }
        (more, less)
    }

    fn wait(&mut self, request: RequestId, slots: Vec<Slot>, goal: Goal) {
        let open = slots.into_iter().map(|slot| (slot, goal)).collect();
        self.pending.push(Pending { request, open, then: None, problems: Vec::new() });
    }

    /// Answers what has nothing left to wait for. What one request sets off may be what another waits for.
    pub(super) fn turn_requests(&mut self) {
        while self.turn_each_request() {}
    }

    /// Whether one of them has set something off.
    fn turn_each_request(&mut self) -> bool {
        let mut goes_on = false;
        for mut pending in std::mem::take(&mut self.pending) {
            loop {
                let mut lines = Vec::new();
                pending.open.retain(|slot, goal| match self.reached(slot, *goal) {
                    None => true,
                    Some(Ok(line)) => {
                        lines.push(line);
                        false
                    }
                    Some(Err(problem)) => {
                        pending.problems.push(problem);
                        false
                    }
                });
                for line in lines {
                    self.say(Some(pending.request), line);
                }
                let Some((slots, aim)) = pending.then.take_if(|_| pending.open.is_empty()) else { break };
                goes_on = true;
                for slot in &slots {
                    self.retire(slot, aim);
                }
                pending.open = slots.into_iter().map(|slot| (slot, Goal::Gone)).collect();
            }
            if !pending.open.is_empty() {
                self.pending.push(pending);
            } else if pending.problems.is_empty() {
                self.answer(Some(pending.request), Ok(()));
            } else {
                self.answer(Some(pending.request), Err(pending.problems.join("; ")));
            }
        }
        goes_on
    }

    /// What came of a goal. None: it is still open.
    fn reached(&self, slot: &Slot, goal: Goal) -> Option<Result<String, String>> {
        let place = self.places.get(slot);
        match (goal, place) {
            (Goal::Gone, None) => Some(Ok(format!("{slot} has ended"))),
            (Goal::Gone, Some(place)) if place.aim == Aim::Run => Some(Err(format!("{slot} was started again meanwhile"))),
            (Goal::Gone, Some(place)) => place.is_empty().then(|| Ok(format!("{slot} has ended"))),
            (Goal::Ready, None) => Some(Err(format!("{slot} was removed meanwhile"))),
            (Goal::Ready, Some(place)) if place.aim != Aim::Run => Some(Err(format!("{slot} was stopped meanwhile"))),
            (Goal::Ready, Some(place)) => {
                let child = place.now.and_then(|now| self.children.get(&now));
                let how = || place.last_end.as_deref().unwrap_or("has ended");
                match (child.map(|child| child.life), place.next, place.rest) {
                    (Some(Life::Ready), ..) => Some(Ok(format!("{slot} is ready"))),
                    (None, None, Rest::Failed) => Some(Err(format!("{slot} {}: it is not started again by itself", how()))),
                    (None, None, Rest::Waiting(_)) => Some(Err(format!("{slot} {}: it is tried again", how()))),
                    _ => None,
                }
            }
        }
    }

    /// Everything is to end: gateways first, then workers.
    pub(super) fn stop_all(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Role::Gateway);
        self.retire_all(Role::Gateway);
    }

    fn retire_all(&mut self, role: Role) {
        let slots: Vec<Slot> = self.places.keys().filter(|slot| slot.group.role == role).cloned().collect();
        for slot in slots {
            let aim = self.places.get(&slot).map_or(Aim::Stop, |place| place.aim);
            self.retire(&slot, if aim == Aim::Run { Aim::Stop } else { aim });
        }
    }

    /// Goes on with the end of everything.
    pub(super) fn turn_stopping(&mut self) {
        let is_empty = |role: Role| self.children.values().all(|child| child.slot.group.role != role);
        if self.stopping == Some(Role::Gateway) && is_empty(Role::Gateway) {
            self.stopping = Some(Role::Worker);
            self.retire_all(Role::Worker);
        }
        if self.stopping == Some(Role::Worker) && self.children.is_empty() && !self.is_over {
            self.is_over = true;
            // What waits for slots is through now.
            self.turn_requests();
            for request in std::mem::take(&mut self.enders) {
                self.answer(Some(request), Ok(()));
            }
            self.actions.push(Action::End { code: u8::from(self.undrained) });
        }
    }

    /// A line for whoever asked, or for the log.
    pub(super) fn say(&mut self, request: Option<RequestId>, line: String) {
        self.actions.push(match request {
            Some(request) => Action::Progress { request, line },
            None => Action::Log { line },
        });
    }

    /// The last word about a request. What nobody asked for is told to the log if it failed.
    pub(super) fn answer(&mut self, request: Option<RequestId>, result: Result<(), String>) {
        match (request, result) {
            (Some(request), result) => self.actions.push(Action::Answer { request, result }),
            (None, Err(line)) => self.actions.push(Action::Log { line }),
            (None, Ok(())) => {}
        }
    }
}

/// Names in a line.
pub(super) fn list(names: impl Iterator<Item = impl Display>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
