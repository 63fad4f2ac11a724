//! What time it is in a room, and its timers that fire.

use super::room::{Known, Room};
use crate::limits::{EPOCH_STEP_MIN, FIRES_ALONE_MAX};
use crate::rules::Due;
use crate::types::{Arrival, Audience, Epoch, Fire, Flags, Incarnation, Moment, Outcome, RoomTime, Stamp, Verdict, VerdictKind};

/// The clocks of a worker's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HostClock {
    /// The timeline of its monotonic clock.
    pub(crate) timeline: u32,
    /// Its wall clock less its monotonic clock, in nanoseconds. 0 if no time is known: then no timer fires.
    pub(crate) epoch_ns: u64,
}

impl Room {
    /// The epoch on this clock's timeline (rule T1). The room keeps the one that it has until the wall clock is stepped. Whatever it
    /// takes up instead, its time goes on from where it was.
    fn epoch_for(&self, clock: HostClock) -> Epoch {
        let step = u64::try_from(EPOCH_STEP_MIN.as_nanos()).unwrap_or(u64::MAX);
        match self.epoch {
            Some((timeline, epoch)) if timeline == clock.timeline && epoch.source_ns.abs_diff(clock.epoch_ns) < step => epoch,
            _ => {
                let reached_ns = if self.last.timeline == clock.timeline { self.last.ns } else { 0 };
                let ns = clock.epoch_ns.max(self.now.0.saturating_sub(reached_ns));
                Epoch { source_ns: clock.epoch_ns, ns }
            }
        }
    }

    /// Called before whatever happens at `moment`. Returns the epoch if the room takes up another one; it belongs into the record.
    pub(crate) fn keep_time(&mut self, clock: HostClock, moment: Moment) -> Option<Epoch> {
        if clock.epoch_ns == 0 || moment.timeline != clock.timeline {
            return None;
        }
        let epoch = self.epoch_for(clock);
        let changed = self.epoch != Some((clock.timeline, epoch));
        self.take_epoch(clock.timeline, epoch);
        changed.then_some(epoch)
    }

    /// Takes up the epoch that the record says.
    pub(crate) fn take_epoch(&mut self, timeline: u32, epoch: Epoch) {
        self.epoch = Some((timeline, epoch));
    }

    /// The room's time at a moment; never below what it was.
    pub(super) fn time_at(&self, moment: Moment) -> RoomTime {
        match self.epoch {
            Some((timeline, epoch)) if timeline == moment.timeline => self.now.max(RoomTime(epoch.ns.saturating_add(moment.ns))),
            _ => self.now,
        }
    }

    /// Where the next timer fires in the room's order: when it is due, or now if the room is further. None if none is set.
    pub(crate) fn next_fire(&self, clock: HostClock) -> Option<Moment> {
        let due = self.timers.next_due().filter(|_| clock.epoch_ns > 0)?;
        let ns = due.0.saturating_sub(self.epoch_for(clock).ns);
        Some(Moment { timeline: clock.timeline, ns }.max(self.last))
    }

    /// When the next timer is due, in room time.
    pub(crate) fn next_due(&self) -> Option<RoomTime> {
        self.timers.next_due()
    }

    /// Whether timers keep the room although nobody is inside (rule T6).
    pub(crate) fn is_kept_by_timers(&self) -> bool {
        self.timers.has_once() && self.alone <= FIRES_ALONE_MAX
    }

    /// Rule T5: moments of repeating timers that lie too far behind `proof` become one.
    pub(crate) fn thin_out(&mut self, clock: HostClock, proof: Moment) {
        if proof.timeline == clock.timeline && self.timers.next_due().is_some() {
            let epoch = self.epoch_for(clock);
            self.timers.thin_out(RoomTime(epoch.ns.saturating_add(proof.ns)));
        }
    }

    /// The stamp of the fire at `place`.
    pub(crate) fn fire_stamp(&self, place: Moment) -> Stamp {
        Stamp { moment: place, incarnation: Incarnation::NONE, ordinal: self.fires.saturating_add(1) }
    }

    /// Fires the next timer at `place`, which [`Room::next_fire`] has told; `now_ns` is the clock's time. None if none is set.
    ///
    /// # Panics
    /// As [`Room::resolve`].
    pub(crate) fn fire(&mut self, place: Moment, now_ns: u64, flags: Flags, known: Option<Known<'_>>) -> Option<Verdict> {
        let (mut fire, data) = self.timers.take_next()?;
        let noticed = self.time_at(Moment { ns: now_ns.max(place.ns), ..place });
        fire.late_ns = noticed.since(fire.due);
        Some(self.fired(fire, &data, place, flags, known))
    }

    /// Fires a timer as the record says. None if the room has no such timer.
    pub(crate) fn fire_again(&mut self, recorded: &Verdict, known: Option<Known<'_>>) -> Option<Verdict> {
        let fire = recorded.fire.as_deref()?;
        let data = self.timers.take_recorded(fire)?;
        let flags = Flags(recorded.flags.0 & !Flags::PHOTO_FINISH.0);
        Some(self.fired(fire.clone(), &data, recorded.stamp.moment, flags, known))
    }

    fn fired(&mut self, fire: Fire, data: &[u8], place: Moment, flags: Flags, known: Option<Known<'_>>) -> Verdict {
        let stamp = self.fire_stamp(place);
        self.seq = self.seq.saturating_add(1);
        self.fires = stamp.ordinal;
        self.alone = self.alone.saturating_add(1);
        self.last = self.last.max(place);
        self.now = self.time_at(place).max(fire.due);
        let arrival = Arrival { ns: place.ns, flags, ..Arrival::default() };
        let mut verdict = Verdict {
            seq: self.seq,
            stamp,
            kind: VerdictKind::Timer,
            session: 0,
            player: None,
            id: None,
            contest: None,
            round: 0,
            outcome: Outcome::Granted,
            uncertainty_ns: 0,
            behind_ns: None,
            flags,
            raw_ns: None,
            audience: Audience::Room,
            body: None,
            fire: None,
        };
        if let Some(reason) = known.and_then(Known::void) {
            (verdict.outcome, verdict.audience) = (Outcome::Void(reason.to_owned()), Audience::Server);
        } else {
            let facts = self.facts();
            let Fire { name, due, late_ns, missed } = &fire;
            let decision = self.rules.fire(&Due { name, data, due: *due, late_ns: *late_ns, missed: *missed, facts });
            self.apply(decision, stamp, &arrival, &mut verdict);
            if matches!(&verdict.outcome, Outcome::Void(reason) if reason == super::RULES_FAILED) {
                verdict.audience = Audience::Server;
            }
        }
        verdict.fire = Some(Box::new(fire));
        verdict
    }
}
