//! What `lasthit ps` shows.

use super::Dispatcher;
use crate::supervisor::ask::{Process, seconds};
use crate::supervisor::managed::Managed;
use crate::supervisor::plan::step::Phase;
use crate::supervisor::policy::names::Role;

impl Dispatcher {
    pub(super) fn ps(&self) -> Vec<Process> {
        let mut all: Vec<Process> = self.managed.iter().map(Managed::row).collect();
        for slot in self.plan.slots() {
            let process = |phase: &str| Process {
                name: slot.slot.to_string(),
                phase: phase.to_owned(),
                pid: None,
                age_s: 0.0,
                cpu: 0.0,
                memory_bytes: 0,
                sessions: 0,
                actions_per_s: 0.0,
                crashes: slot.crashes,
                starts_in_s: None,
                last_end: slot.last_end.clone(),
                generation: slot.generation.0,
            };
            for child in &slot.children {
                let load = self.running.get(&child.child).map_or(child.load, |running| running.load);
                all.push(Process {
                    pid: child.pid,
                    age_s: seconds(child.age),
                    cpu: load.cpu,
                    memory_bytes: load.memory_bytes,
                    sessions: if slot.slot.group.role == Role::Gateway { load.sessions } else { 0 },
                    actions_per_s: load.actions_per_s,
                    generation: child.generation.0,
                    ..process(child.phase.as_str())
                });
            }
            if slot.children.is_empty() {
                let starts_in_s = match slot.phase {
                    Phase::Waiting(rest) => Some(seconds(rest)),
                    _ => None,
                };
                all.push(Process { starts_in_s, ..process(slot.phase.as_str()) });
            }
        }
        all
    }
}
