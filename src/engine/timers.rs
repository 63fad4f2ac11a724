//! A room's timers: which are set, and which is due next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{FIELD_BYTES_MAX, TIMER_DATA_BYTES_MAX, TIMER_LATE_MAX, TIMERS_PER_ROOM_MAX};
use crate::rules::{Repeat, TimerCommand, TimerFault};
use crate::types::{Fire, RoomTime};

/// Missed moments of one timer that are counted.
const MISSED_MAX: u64 = 1_000_000;

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
        let mut changes = Vec::with_capacity(commands.len());
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let (mut count, known) = (self.len(), |name: &str| self.by_name.contains_key(name));
        for command in &commands {
            match command {
                TimerCommand::Set { name, when, data } => {
                    if !(1..=FIELD_BYTES_MAX).contains(&name.len()) {
                        return Err(TimerFault::Bad(format!("a name of {} bytes, not of 1 to {FIELD_BYTES_MAX}", name.len())));
                    }
                    if data.len() > TIMER_DATA_BYTES_MAX {
                        return Err(TimerFault::Data(data.len()));
                    }
                    if names.insert(name) && !known(name) {
                        count += 1;
                    }
                    let (due, repeat) = when.first(now)?;
                    changes.push((name.clone(), Some(Timer { due, missed: 0, repeat, data: data.clone() })));
                }
                TimerCommand::Cancel(name) => {
                    if names.remove(name.as_str()) || known(name) {
                        count = count.saturating_sub(1);
                    }
                    changes.push((name.clone(), None));
                }
            }
        }
        if count > TIMERS_PER_ROOM_MAX {
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

    /// Rule T5: of each repeating timer, the moments that lie further than [`TIMER_LATE_MAX`] behind `proof` become one.
    pub(super) fn thin_out(&mut self, proof: RoomTime) {
        let late_ns = u64::try_from(TIMER_LATE_MAX.as_nanos()).unwrap_or(u64::MAX);
        let limit = RoomTime(proof.0.saturating_sub(late_ns));
        let late: Vec<Arc<str>> = self.by_due.iter().take_while(|(due, _)| *due < limit).map(|(_, name)| name.clone()).collect();
        for name in late {
            let Some(timer) = self.by_name.get(&name).filter(|timer| timer.repeat != Repeat::Never) else { continue };
            let Some(last) = timer.repeat.last(timer.due, limit).filter(|last| *last > timer.due) else { continue };
            let missed = timer.repeat.count(timer.due, last, MISSED_MAX).saturating_sub(1);
            let timer = Timer { due: last, missed: timer.missed.saturating_add(missed), ..timer.clone() };
            self.put(&name, timer);
        }
    }

    /// Takes the timer that is due next, and its data. One that repeats is set to its next moment.
    pub(super) fn take_next(&mut self) -> Option<(Fire, Bytes)> {
        let (due, name) = self.by_due.first()?.clone();
        let missed = self.by_name.get(&name)?.missed;
        let data = self.take(&name, due)?;
        Some((Fire { name: name.to_string(), due, late_ns: 0, missed }, data))
    }

    /// Takes a timer as it fired according to the record, and returns its data. None if no such timer is set.
    pub(super) fn take_recorded(&mut self, fire: &Fire) -> Option<Bytes> {
        let timer = self.by_name.get(&*fire.name)?;
        // What was thinned out is not recorded elsewhere.
        let fits = timer.due == fire.due || timer.repeat != Repeat::Never && timer.due <= fire.due;
        if fits { self.take(&fire.name, fire.due) } else { None }
    }

    fn take(&mut self, name: &str, due: RoomTime) -> Option<Bytes> {
        let timer = self.remove(name)?;
        let data = timer.data.clone();
        if let Some(next) = timer.repeat.next(timer.due, due) {
            self.put(name, Timer { due: next, missed: 0, ..timer });
        }
        Some(data)
    }
}

#[cfg(test)]
mod tests;
