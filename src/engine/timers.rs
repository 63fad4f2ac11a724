//! A room's timers: which are set, and which is due next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{FIELD_BYTES_MAX, TIMER_COMMANDS_MAX, TIMER_DATA_BYTES_MAX, TIMERS_PER_ROOM_MAX};
use crate::rules::{Repeat, TimerCommand, TimerFault};
use crate::types::{Fire, RoomTime};

/// Moments of cron timers that are counted at a time. Each takes microseconds; beyond it, `missed` says fewer than there were.
const CRON_COUNTED_MAX: u64 = 2_000;

/// A timer that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) due: RoomTime,
    /// Moments before `due` that were noticed too late.
    pub(super) missed: u64,
    pub(super) repeat: Repeat,
    pub(super) data: Bytes,
}

/// Timers that are set, and cancelled (None), in this order.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(String, Option<Timer>)>);

/// A room's timers, by name. At most [`TIMERS_PER_ROOM_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Timers {
    by_name: BTreeMap<Arc<str>, Timer>,
    by_due: BTreeSet<(RoomTime, Arc<str>)>,
    /// How many do not repeat.
    once: usize,
}

impl Timers {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether one is set that does not repeat.
    pub(super) fn has_once(&self) -> bool {
        self.once > 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Timer)> {
        self.by_name.iter().map(|(name, timer)| (&**name, timer))
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<RoomTime> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// The first timer that does not repeat and is due before `now`.
    pub(super) fn first_once_due(&self, now: RoomTime) -> Option<&str> {
        let due = self.by_due.iter().take_while(|(due, _)| *due < now).map(|(_, name)| &**name);
        due.into_iter().find(|name| self.by_name.get(*name).is_some_and(|timer| timer.repeat == Repeat::Never))
    }

    /// Sets a timer, in the place of one of the same name.
    pub(super) fn put(&mut self, name: &str, timer: Timer) {
        self.remove(name);
        let name: Arc<str> = Arc::from(name);
        self.once += usize::from(timer.repeat == Repeat::Never);
        self.by_due.insert((timer.due, name.clone()));
        self.by_name.insert(name, timer);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Timer> {
        let (name, timer) = self.by_name.remove_entry(name)?;
        self.once -= usize::from(timer.repeat == Repeat::Never);
        self.by_due.remove(&(timer.due, name));
        Some(timer)
    }

    /// What the commands of a decision at the moment `now` change, or the bound that one of them goes over.
    pub(super) fn check(&self, commands: Vec<TimerCommand>, now: RoomTime) -> Result<Changes, TimerFault> {
        if commands.is_empty() {
            return Ok(Changes::default());
        }
        if commands.len() > TIMER_COMMANDS_MAX {
            return Err(TimerFault::TooMany);
        }
        let mut changes = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                TimerCommand::Set { name, when, data } => {
                    if !(1..=FIELD_BYTES_MAX).contains(&name.len()) {
                        return Err(TimerFault::Bad(format!("a name of {} bytes, not of 1 to {FIELD_BYTES_MAX}", name.len())));
                    }
                    if data.len() > TIMER_DATA_BYTES_MAX {
                        return Err(TimerFault::Data(data.len()));
                    }
                    let (due, repeat) = when.first(now)?;
                    changes.push((name, Some(Timer { due, missed: 0, repeat, data })));
                }
                TimerCommand::Cancel(name) => changes.push((name, None)),
            }
        }
        // The last word on each name counts.
        let after: BTreeMap<&str, bool> = changes.iter().map(|(name, timer)| (name.as_str(), timer.is_some())).collect();
        let gone = after.keys().filter(|name| self.by_name.contains_key(**name)).count();
        let set = after.values().filter(|is_set| **is_set).count();
        if self.len() - gone + set > TIMERS_PER_ROOM_MAX {
            return Err(TimerFault::TooMany);
        }
        Ok(Changes(changes))
    }

    /// Carries out what was checked.
    pub(super) fn apply(&mut self, Changes(changes): Changes) {
        for (name, timer) in changes {
            match timer {
                Some(timer) => self.put(&name, timer),
                None => drop(self.remove(&name)),
            }
        }
    }

    /// Rule T5: of each repeating timer, the moments up to `limit` become one.
    pub(super) fn thin_out(&mut self, limit: RoomTime) {
        let late: Vec<Arc<str>> = self.by_due.iter().take_while(|(due, _)| *due < limit).map(|(_, name)| name.clone()).collect();
        let mut counted = 0;
        for name in late {
            let Some(timer) = self.by_name.get(&name).filter(|timer| timer.repeat != Repeat::Never) else { continue };
            let Some(last) = timer.repeat.last(timer.due, limit).filter(|last| *last > timer.due) else { continue };
            let missed = timer.repeat.count(timer.due, last, CRON_COUNTED_MAX.saturating_sub(counted)).saturating_sub(1);
            if matches!(timer.repeat, Repeat::Cron(..)) {
                counted = counted.saturating_add(missed);
            }
            let timer = Timer { due: last, missed: timer.missed.saturating_add(missed), ..timer.clone() };
            self.put(&name, timer);
        }
    }

    /// The timer that is due next, and its data.
    pub(super) fn peek_next(&self) -> Option<(Fire, Bytes)> {
        let (due, name) = self.by_due.first()?;
        let timer = self.by_name.get(name)?;
        Some((Fire { name: name.to_string(), due: *due, late_ns: 0, missed: timer.missed }, timer.data.clone()))
    }

    /// The first that is due before `limit` and has another name.
    pub(super) fn first_before(&self, limit: RoomTime, other_than: Option<&str>) -> Option<(RoomTime, Arc<str>)> {
        let due = self.by_due.iter().take_while(|(due, _)| *due < limit);
        due.into_iter().find(|(_, name)| Some(&**name) != other_than).cloned()
    }

    /// Takes the timer that is due next. One that repeats is set to its next moment.
    pub(super) fn take_next(&mut self) -> Option<(Fire, Timer)> {
        let (due, name) = self.by_due.first()?.clone();
        let timer = self.take(&name, due)?;
        Some((Fire { name: name.to_string(), due, late_ns: 0, missed: timer.missed }, timer))
    }

    /// Takes a timer as it fired according to the record. None if no such timer is set.
    pub(super) fn take_recorded(&mut self, fire: &Fire) -> Option<Timer> {
        let timer = self.by_name.get(&*fire.name)?;
        // What was thinned out is not recorded elsewhere.
        let fits = timer.due == fire.due || timer.repeat != Repeat::Never && timer.due <= fire.due;
        if fits { self.take(&fire.name, fire.due) } else { None }
    }

    pub(super) fn take(&mut self, name: &str, due: RoomTime) -> Option<Timer> {
        let timer = self.remove(name)?;
        // A damaged record may have moments that do not rise.
        if let Some(next) = timer.repeat.next(timer.due, due).filter(|next| *next > due) {
            self.put(name, Timer { due: next, missed: 0, ..timer.clone() });
        }
        Some(timer)
    }
}

#[cfg(test)]
mod tests;
