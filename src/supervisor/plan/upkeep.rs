//! What time alone brings: children that are too late, starts after a crash, replacements, and load that is spread.

use std::time::Duration;

use super::Plan;
use super::place::{Aim, Child, Life, Rest, seconds};
use super::roll::{Kind, Roll};
use super::step::{Action, ChildId, Load};
use crate::limits::{BEAT, EVEN_INTERVAL, EVEN_MOVES_PER_SECOND, EVEN_OFFER, GATEWAY_SILENCE_MAX};
use crate::supervisor::policy::counts::Count;
use crate::supervisor::policy::even::{Even, Gateway};
use crate::supervisor::policy::names::{Group, Role, Slot};
use crate::supervisor::policy::recycle;
use crate::supervisor::policy::scale::Change;

impl Plan {
    /// All channels were read: what nobody has said by now was not said in time.
    pub(super) fn looked(&mut self) {
        self.pass_over();
        self.kill_late();
        self.start_waiting();
        if self.stopping.is_none() {
            self.recycle();
            self.follow_load();
            self.even_out();
        }
    }

    pub(super) fn heard(&mut self, id: ChildId, load: Load) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.offered = child.offered.saturating_sub(child.load.sessions.saturating_sub(load.sessions));
        (child.heard, child.load) = (self.awake, load);
        if std::mem::take(&mut child.passed_over) {
            self.actions.push(Action::Log { line: format!("{} says something again: it gets connections", child.slot) });
        }
    }

    /// Gateways that say nothing get no connections.
    fn pass_over(&mut self) {
        for child in self.children.values_mut() {
            if child.passed_over_at().is_some_and(|at| at <= self.awake) {
                child.passed_over = true;
                let line =
                    format!("{} has said nothing for {}: others get its connections", child.slot, seconds(GATEWAY_SILENCE_MAX));
                self.actions.push(Action::Log { line });
            }
        }
    }

    fn kill_late(&mut self) {
        let (awake, settings) = (self.awake, &self.settings);
        let why = |child: &Child| {
            let is_late = child.deadline.is_some_and(|deadline| deadline <= awake);
            let is_silent = child.silent_until(settings.hang_timeout).is_some_and(|until| until <= awake);
            match child.life {
                Life::Starting if is_late => Some(format!("was not ready within {}", seconds(settings.ready_timeout))),
                _ if is_late => Some(format!("did not end within {}", seconds(settings.stop_timeout))),
                _ if is_silent => Some(format!("said nothing for {}", seconds(settings.hang_timeout))),
                _ => None,
            }
        };
        let late: Vec<(ChildId, String)> = self
            .children
            .iter()
            .filter(|(_, child)| child.killed.is_none())
            .filter_map(|(id, child)| Some((*id, why(child)?)))
            .collect();
        for (id, why) in late {
            self.kill(id, format!("{why}, and was killed"));
        }
    }

    fn start_waiting(&mut self) {
        let is_due = |rest: Rest| matches!(rest, Rest::Waiting(until) if until <= self.awake);
        let due: Vec<Slot> = self
            .places
            .iter()
            .filter(|(_, place)| place.aim == Aim::Run && place.now.is_none() && place.next.is_none() && is_due(place.rest))
            .map(|(slot, _)| slot.clone())
            .collect();
        for slot in due {
            self.fill(&slot);
        }
    }

    /// One child that has done enough is replaced.
    fn recycle(&mut self) {
        if self.roll.is_some() || self.queued.is_some() || self.awake < self.recycle_from {
            return;
        }
        let due = self.ready_children().find_map(|(slot, id)| {
            let child = self.children.get(&id)?;
            let age = self.awake.saturating_sub(child.started);
            let why = recycle::due(&self.settings.recycle, id.0, age, child.load.events, child.load.memory_bytes)?;
            Some((slot.clone(), why))
        });
        if let Some((slot, why)) = due {
            self.actions.push(Action::Log { line: format!("{slot} is replaced: {why}") });
            self.queued = Some(Roll::new(None, Kind::Recycle, vec![slot].into()));
        }
    }

    /// Roles that follow load get one process more, or give one up.
    fn follow_load(&mut self) {
        if self.roll.is_some() || self.queued.is_some() {
            // Two at once would be counted as two.
            self.scales.clear();
            return;
        }
        let groups: Vec<(Group, usize, usize)> = self
            .counts
            .iter()
            .filter_map(|(group, count)| match count {
                Count::Between { min, max } => Some((group.clone(), *min, *max)),
                Count::Fixed(_) => None,
            })
            .collect();
        for (group, min, max) in groups {
            let all = self.slots_of(&group).count();
            if all < min {
                self.adjust(&group, min);
                continue;
            }
            let Some(cpu) = self.settled_cpu(&group) else {
                self.scales.remove(&group);
                continue;
            };
            let others = all - cpu.len();
            let change = self.scales.entry(group.clone()).or_default().step(self.awake, &cpu, min, max.saturating_sub(others));
            let count = match change {
                Some(Change::More) => all + 1,
                Some(Change::Less) => all - 1,
                None => continue,
            };
            let mean = cpu.iter().sum::<f64>() / cpu.len() as f64 * 100.0;
            self.actions.push(Action::Log { line: format!("{group}: {count} instead of {all}, at {mean:.0} % of a core") });
            self.adjust(&group, count);
        }
    }

    /// What each child of a group costs. None while one of them comes or goes.
    fn settled_cpu(&self, group: &Group) -> Option<Vec<f64>> {
        let places = self.places.iter().filter(|(slot, _)| slot.group == *group);
        let running = places.filter(|(_, place)| !matches!(place.rest, Rest::Failed | Rest::Stopped));
        running
            .map(|(_, place)| {
                let child = self.children.get(&place.now?).filter(|child| child.is_ready())?;
                (!place.is_replaced()).then_some(child.load.cpu)
            })
            .collect()
    }

    /// The fullest gateway of each deployment offers sessions to move while it is too full.
    fn even_out(&mut self) {
        if !self.settings.even || self.awake.saturating_sub(self.evened) < EVEN_INTERVAL {
            return;
        }
        self.evened = self.awake;
        let mut left = u64::from(EVEN_MOVES_PER_SECOND) * EVEN_INTERVAL.as_millis() as u64 / 1_000;
        let names: Vec<String> = self.settings.deployments.iter().map(|deployment| deployment.name.clone()).collect();
        for name in names {
            let ready: Vec<ChildId> = self
                .ready_children()
                .filter(|(slot, _)| slot.group.role == Role::Gateway && slot.group.deployment == name)
                .map(|(_, child)| child)
                .collect();
            let now = self.awake;
            let gateways = ready.iter().filter_map(|id| {
                let child = self.children.get(id)?;
                let offered = if now.saturating_sub(child.offered_at) < EVEN_OFFER { child.offered } else { 0 };
                Some(Gateway { sessions: child.load.sessions, offered })
            });
            let gateways: Vec<Gateway> = gateways.collect();
            let Some((index, sessions)) = self.evens.entry(name).or_default().step(now, &gateways, left) else { continue };
            left -= sessions;
            if let Some(child) = self.children.get_mut(&ready[index]) {
                (child.offered, child.offered_at) = (gateways[index].offered + sessions, now);
            }
            self.actions.push(Action::Move { child: ready[index], sessions });
        }
    }

    /// In waking time, the next moment at which [`Plan::looked`] has something to do by itself.
    pub(super) fn next_moment(&self) -> Option<Duration> {
        let children = self.children.values().filter(|child| child.killed.is_none());
        let hang_timeout = self.settings.hang_timeout;
        let deadlines = children
            .flat_map(|child| [child.deadline, child.passed_over_at(), child.silent_until(hang_timeout)].into_iter().flatten());
        let starts = self.places.values().filter_map(|place| match place.rest {
            Rest::Waiting(until) if place.aim == Aim::Run && place.next.is_none() => Some(until),
            _ => None,
        });
        let evens_out = self.settings.even && self.stopping.is_none() && self.evens.values().any(Even::is_uneven);
        let evening = evens_out.then_some(self.evened + EVEN_INTERVAL);
        let beat = (!self.children.is_empty()).then_some(self.looked + BEAT);
        let roll = self.roll.iter().filter_map(Roll::next_moment).filter(|moment| *moment > self.looked);
        deadlines.chain(starts).chain(evening).chain(beat).chain(roll).min()
    }
}
