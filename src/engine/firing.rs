//! What time it is in a room, and its timers that fire.

use super::room::{Known, Room};
use super::timers::Timer;
use crate::limits::{EPOCH_STEP_MIN, FIRES_ALONE_MAX, TIMER_LATE_MAX};
use crate::rules::{Due, Repeat};
use crate::types::{Arrival, Audience, Epoch, Fire, Flags, Incarnation, Moment, Outcome, RoomTime, Stamp, Verdict, VerdictKind};

/// The clocks of a worker's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HostClock {
    /// The timeline of its monotonic clock.
    pub(crate) timeline: u32,
    /// Its wall clock less its monotonic clock, in nanoseconds. 0 if no time is known: then no timer fires.
    pub(crate) epoch_ns: u64,
    /// When that was measured. A room that counts otherwise goes on to do so up to here.
    pub(crate) since_ns: u64,
    /// Since when the room's worker has owned it. A room whose time is ahead of this clock's goes on from here, and not from the host's
    /// boot.
    pub(crate) from_ns: u64,
}

impl HostClock {
    fn moment(self, ns: u64) -> Moment {
        Moment { timeline: self.timeline, ns }
    }
}

impl Room {
    /// The epoch of this clock's timeline that the room has, and, if the wall clock was stepped since, the one that it takes up after
    /// `clock.since_ns` (rule T1). Whatever that is, the room's time goes on from where it was.
    fn epochs(&self, clock: HostClock) -> (Option<Epoch>, Option<Epoch>) {
        let has = self.epoch.filter(|(timeline, _)| *timeline == clock.timeline).map(|(_, epoch)| epoch);
        let step = u64::try_from(EPOCH_STEP_MIN.as_nanos()).unwrap_or(u64::MAX);
        if has.is_some_and(|epoch| epoch.source_ns.abs_diff(clock.epoch_ns) < step) {
            return (has, None);
        }
        // Nothing that another clock says tells when the room got there.
        let reached_ns = if self.last.timeline == clock.timeline { self.last.ns } else { clock.from_ns };
        let least_ns = has.map_or(self.now.0.saturating_sub(reached_ns), |has| has.ns);
        (has, Some(Epoch { source_ns: clock.epoch_ns, ns: clock.epoch_ns.max(least_ns) }))
    }

    /// The epoch at a moment of this clock.
    fn epoch_at(&self, clock: HostClock, ns: u64) -> Epoch {
        match self.epochs(clock) {
            (Some(has), None) => has,
            (Some(has), Some(_)) if ns <= clock.since_ns => has,
            (_, next) => next.unwrap_or_default(),
        }
    }

    /// Called before whatever happens at `moment`. Returns the epoch if the room takes up another one; it belongs into the record.
    pub(crate) fn keep_time(&mut self, clock: HostClock, moment: Moment) -> Option<Epoch> {
        if clock.epoch_ns == 0 {
            return None;
        }
        let epoch = match self.epoch {
            _ if moment.timeline == clock.timeline => self.epoch_at(clock, moment.ns),
            // What comes from before the last boot counts as of that boot, as nothing else is known of its time.
            None => {
                let ns = clock.epoch_ns.saturating_sub(moment.ns);
                Epoch { source_ns: ns, ns }
            }
            Some(_) => return None,
        };
        let changed = self.epoch != Some((moment.timeline, epoch));
        self.take_epoch(moment.timeline, epoch);
        changed.then_some(epoch)
    }

    /// What [`Room::keep_time`] may change.
    pub(crate) fn time_kept(&self) -> Option<(u32, Epoch)> {
        self.epoch
    }

    /// Takes [`Room::keep_time`] back: nothing happens at that moment after all.
    pub(crate) fn put_time_back(&mut self, kept: Option<(u32, Epoch)>) {
        self.epoch = kept;
    }

    /// Takes up the epoch that the record says.
    pub(crate) fn take_epoch(&mut self, timeline: u32, epoch: Epoch) {
        self.epoch = Some((timeline, epoch));
    }

    /// The room's time at a moment; never below what it was.
    pub(crate) fn time_at(&self, moment: Moment) -> RoomTime {
        match self.epoch {
            Some((timeline, epoch)) if timeline == moment.timeline => self.now.max(RoomTime(epoch.ns.saturating_add(moment.ns))),
            _ => self.now,
        }
    }

    /// Where the next timer fires in the room's order: when it is due, or just after the last stamp if the room is further. None if
    /// none is set.
    pub(crate) fn next_fire(&self, clock: HostClock) -> Option<Moment> {
        let due = self.timers.next_due().filter(|_| clock.epoch_ns > 0)?;
        let at = |epoch: Epoch| due.0.saturating_sub(epoch.ns);
        let ns = match self.epochs(clock) {
            (Some(has), None) => at(has),
            (Some(has), Some(_)) if at(has) <= clock.since_ns => at(has),
            (Some(_), Some(next)) => at(next).max(clock.since_ns.saturating_add(1)),
            (None, next) => at(next?),
        };
        Some(self.behind_last(clock.moment(ns)))
    }

    /// Where the next timer fires if that is not behind the event at `moment`, which may be of an earlier boot of the host.
    pub(crate) fn next_fire_by(&self, clock: HostClock, moment: Moment) -> Option<Moment> {
        let place = match self.epoch {
            Some((timeline, epoch)) if timeline == moment.timeline && timeline != clock.timeline => {
                let due = self.timers.next_due().filter(|_| clock.epoch_ns > 0)?;
                self.behind_last(Moment { timeline, ns: due.0.saturating_sub(epoch.ns) })
            }
            _ => self.next_fire(clock)?,
        };
        (place <= moment).then_some(place)
    }

    /// Just after what was resolved last, if that is further. Fires that follow each other share a moment, so that nothing comes
    /// between them. What has a stamp of a later boot than this clock's is compared with nothing.
    fn behind_last(&self, place: Moment) -> Moment {
        match self.last {
            last if place > last || place.timeline < last.timeline => place,
            last if self.last_is_fire => last,
            last => last.plus(1),
        }
    }

    /// The moment of the room's next timer on the clock that the room counts by, which may be of an earlier boot: what a gateway that
    /// died then may have taken along counts against it (rule T2).
    pub(crate) fn next_moment(&self, clock: HostClock) -> Option<Moment> {
        let place = self.next_fire(clock)?;
        let due = self.timers.next_due()?;
        let earlier = self.epoch.filter(|(timeline, _)| *timeline < place.timeline);
        Some(earlier.map_or(place, |(timeline, epoch)| Moment { timeline, ns: due.0.saturating_sub(epoch.ns) }))
    }

    /// A timer that should have fired before what has this stamp, and does not repeat: it must not have been passed.
    pub(crate) fn passed_over(&self, moment: Moment) -> Option<&str> {
        self.timers.first_once_due(self.time_at(moment))
    }

    /// When the next timer is due, in room time.
    pub(crate) fn next_due(&self) -> Option<RoomTime> {
        self.timers.next_due()
    }

    /// Whether timers keep the room although nobody is inside (rule T6).
    pub(crate) fn is_kept_by_timers(&self) -> bool {
        self.timers.has_once() && self.alone <= FIRES_ALONE_MAX
    }

    /// Rule T5: moments of repeating timers that lie too far behind `proof` become one, if nothing is to be resolved between them: the
    /// next event is at `event`.
    pub(crate) fn thin_out(&mut self, clock: HostClock, proof: Moment, event: Option<Moment>) {
        if proof.timeline != clock.timeline || self.timers.next_due().is_none() {
            return;
        }
        let at = |ns: u64| RoomTime(self.epoch_at(clock, ns).ns.saturating_add(ns));
        let late_ns = u64::try_from(TIMER_LATE_MAX.as_nanos()).unwrap_or(u64::MAX);
        let limit = RoomTime(at(proof.ns).0.saturating_sub(late_ns));
        let limit = match event {
            Some(event) if event.timeline == clock.timeline => limit.min(at(event.ns)),
            Some(_) => return,
            None => limit,
        };
        self.timers.thin_out(limit);
    }

    /// The stamp of the fire at `place`.
    pub(crate) fn fire_stamp(&self, place: Moment) -> Stamp {
        Stamp { moment: place, incarnation: Incarnation::NONE, ordinal: self.fires.saturating_add(1) }
    }

    /// Names the next fire, wherever it takes place.
    pub(crate) fn fire_name(&self) -> Stamp {
        self.fire_stamp(Moment::default())
    }

    /// How much later than `due` it is on the clock.
    pub(super) fn late_ns(&self, due: RoomTime, (clock, now_ns): (HostClock, u64)) -> u64 {
        RoomTime(self.epoch_at(clock, now_ns).ns.saturating_add(now_ns)).since(due)
    }

    /// Fires the next timer at `place`, which [`Room::next_fire`] or [`Room::next_fire_by`] has told, when the clock is at `now`.
    /// None if none is set.
    ///
    /// # Panics
    /// As [`Room::resolve`].
    pub(crate) fn fire(
        &mut self,
        place: Moment,
        now: (HostClock, u64),
        flags: Flags,
        known: Option<Known<'_>>,
    ) -> Option<Verdict> {
        let (mut fire, timer) = self.timers.take_next()?;
        fire.late_ns = self.late_ns(fire.due, now);
        Some(self.fired(fire, &timer, place, flags, known))
    }

    /// Fires a timer as the record says. None if the room has no such timer.
    pub(crate) fn fire_again(&mut self, recorded: &Verdict, known: Option<Known<'_>>) -> Option<Verdict> {
        let fire = recorded.fire.as_deref()?;
        let timer = self.timers.take_recorded(fire)?;
        let flags = Flags(recorded.flags.0 & !Flags::PHOTO_FINISH.0);
        Some(self.fired(fire.clone(), &timer, recorded.stamp.moment, flags, known))
    }

    pub(super) fn fired(&mut self, fire: Fire, timer: &Timer, place: Moment, flags: Flags, known: Option<Known<'_>>) -> Verdict {
        let stamp = self.fire_stamp(place);
        self.seq = self.seq.saturating_add(1);
        self.fires = stamp.ordinal;
        self.alone = self.alone.saturating_add(u32::from(timer.repeat == Repeat::Never));
        (self.last, self.last_is_fire) = (self.last.max(place), true);
        self.now = self.time_at(place).max(fire.due);
        let arrival = Arrival { ns: place.ns, flags, ..Arrival::default() };
        let mut verdict = Verdict { flags, ..Verdict::granted(self.seq, stamp, VerdictKind::Timer) };
        if let Some(void) = self.void_if_known(known) {
            verdict.outcome = void;
        } else {
            let facts = self.facts();
            let Fire { name, due, late_ns, missed } = &fire;
            let decision = match known {
                Some(Known::Decided(decision)) => decision.clone(),
                _ => self.rules.fire(&Due { name, data: &timer.data, due: *due, late_ns: *late_ns, missed: *missed, facts }),
            };
            self.apply(decision, stamp, &arrival, &mut verdict);
        }
        if matches!(&verdict.outcome, Outcome::Void(reason) if reason == super::RULES_FAILED) {
            verdict.audience = Audience::Server;
        }
        self.keep_failed(&verdict, None, Some(&fire.name));
        verdict.fire = Some(Box::new(fire));
        verdict
    }
}
