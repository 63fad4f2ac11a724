//! Puts one room's events back into stamp order.
//!
//! Each gateway's run is sorted by construction: a flush holds exactly the events between two watermarks. So an event may leave
//! as soon as the watermark of every gateway with sessions in the room has passed its stamp: no lower stamp can follow (rule R2).
//! There is no other way to leave, no time-out either (rule R8).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::UNPROVEN_PER_ROOM_MAX;
use crate::types::{Arrival, Entry, Event, EventKind, Flags, Incarnation, Moment, SessionId, Stamp, StreamId};

/// An event that was read, and waits until watermarks prove its place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The position of its entry in the room's stream.
    pub at: StreamId,
    /// Its place in the order.
    pub stamp: Stamp,
    /// Its arrival, and how well that is known.
    pub arrival: Arrival,
    /// The session that it belongs to.
    pub session: SessionId,
    /// The event. None for an unreadable entry.
    pub kind: Option<EventKind>,
    /// Why the entry is unreadable.
    pub unreadable: Option<String>,
    /// When the worker read it, in nanoseconds of the worker's clock. For metrics only.
    pub read_ns: u64,
}

impl Held {
    /// Whether a player can cause it at will: an action, an Open, or something unreadable.
    pub(crate) fn acts(&self) -> bool {
        matches!(self.kind, None | Some(EventKind::Data(_) | EventKind::Open { .. }))
    }

    /// Whether both are of one death, whose events have one stamp, and none of them acts.
    pub(super) fn is_of_death_with(&self, other: &Self) -> bool {
        !self.acts() && !other.acts() && self.is_stamped_with(other)
    }

    fn is_stamped_with(&self, other: &Self) -> bool {
        (self.stamp.moment, self.stamp.incarnation) == (other.stamp.moment, other.stamp.incarnation)
    }
}

/// A room's events that are read and not yet resolved.
#[derive(Debug, Default)]
pub struct Resequencer {
    /// The sessions inside, by gateway, as read (rule R1).
    sessions: BTreeMap<Incarnation, BTreeSet<u64>>,
    /// Held events by gateway, each run in stamp order.
    runs: BTreeMap<Incarnation, VecDeque<Held>>,
    /// The highest ordinal read from each gateway. An event at or below it is a duplicate (rule R3).
    read: BTreeMap<Incarnation, (u64, Moment)>,
    held: usize,
    /// The stretches of dead gateways, until every gateway inside has passed them (rule R7).
    unproven: Vec<Unproven>,
    /// Where the room's next timer fires.
    fire: Option<Moment>,
}

/// The stretch from a dead gateway's last watermark to its death. The gateway may have lost events of this time, which would have
/// come before those that others stamped within it (rule R7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unproven {
    /// The dead gateway; [`Incarnation::NONE`] for several that were merged ([`UNPROVEN_PER_ROOM_MAX`]).
    pub dead: Incarnation,
    /// Its last watermark.
    pub above: Moment,
    /// The moment of its death.
    pub until: Moment,
}

impl Unproven {
    pub(crate) fn covers(&self, stamp: Stamp) -> bool {
        // Merged stretches are nobody's, and so are fires.
        (stamp.incarnation != self.dead || self.dead == Incarnation::NONE)
            && stamp.moment > self.above
            && stamp.moment <= self.until
    }
}

impl Resequencer {
    /// Starts from a room's snapshot: the sessions inside, the last stamp resolved from each gateway, and the stretches of dead
    /// gateways.
    #[must_use]
    pub fn resume(
        sessions: impl Iterator<Item = SessionId>,
        marks: impl Iterator<Item = (Incarnation, u64, Moment)>,
        unproven: &[Unproven],
    ) -> Self {
        let mut this = Self { unproven: unproven.to_vec(), ..Self::default() };
        for session in sessions {
            this.sessions.entry(session.gateway).or_default().insert(session.number);
        }
        this.read.extend(marks.map(|(incarnation, ordinal, moment)| (incarnation, (ordinal, moment))));
        this
    }

    /// Takes in the entry at `at`. If the entry is a death, `last_watermark` is the dead gateway's, where its stretch begins
    /// (rule R7).
    pub fn read(&mut self, at: StreamId, entry: &Entry, last_watermark: Moment, now_ns: u64) {
        let known = self.read.get(&entry.incarnation).map_or(0, |(ordinal, _)| *ordinal);
        // A death that was written twice, or before the gateway's last entries were read. In that case another death follows.
        let stale = entry.death && entry.events.iter().any(|event| event.ordinal <= known);
        for event in entry.events.iter().filter(|_| !stale) {
            let stamp = entry.stamp(event);
            if self.read.get(&entry.incarnation).is_some_and(|(ordinal, _)| *ordinal >= event.ordinal) {
                continue;
            }
            self.read.insert(entry.incarnation, (event.ordinal, stamp.moment));
            match event.kind {
                EventKind::Open { .. } => {
                    self.sessions.entry(entry.incarnation).or_default().insert(event.session);
                }
                EventKind::Close => self.leave(entry.incarnation, event.session),
                EventKind::Data(_) | EventKind::End { .. } | EventKind::Error { .. } => {}
            }
            let kind = Some(event.kind.clone());
            let mut arrival = event.arrival;
            if self.unproven.iter().any(|stretch| stretch.covers(stamp)) {
                arrival.flags = arrival.flags.with(Flags::UNPROVEN);
            }
            let held = Held { at, stamp, arrival, session: entry.session(event), kind, unreadable: None, read_ns: now_ns };
            self.runs.entry(entry.incarnation).or_default().push_back(held);
            self.held += 1;
        }
        if entry.death
            && let Some(death_ns) = entry.events.last().map(|event| event.arrival.raw_ns.unwrap_or(event.arrival.ns))
        {
            // Deaths of later boots have this end already, unless an earlier version wrote them: then one below its own stamp has.
            let later_boot = entry.events.iter().any(|event| event.arrival.ns > death_ns);
            let until = Moment { timeline: entry.timeline, ns: if later_boot { Moment::END_NS } else { death_ns } };
            self.flag_unproven(Unproven { dead: entry.incarnation, above: last_watermark, until });
        }
    }

    /// Takes in an unreadable entry. It belongs to no gateway and waits for none.
    pub fn read_unreadable(&mut self, at: StreamId, reason: String) {
        let ordinal = (at.ms << 20) | at.seq;
        let mark = self.read.entry(Incarnation::NONE).or_default();
        if mark.0 >= ordinal {
            return;
        }
        mark.0 = ordinal;
        let stamp = Stamp { moment: Moment::default(), incarnation: Incarnation::NONE, ordinal };
        let session = SessionId { gateway: Incarnation::NONE, number: 0 };
        let held = Held { at, stamp, arrival: Arrival::default(), session, kind: None, unreadable: Some(reason), read_ns: 0 };
        self.runs.entry(Incarnation::NONE).or_default().push_back(held);
        self.held += 1;
    }

    fn leave(&mut self, gateway: Incarnation, session: u64) {
        if let Some(sessions) = self.sessions.get_mut(&gateway) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.sessions.remove(&gateway);
            }
        }
    }

    fn flag_unproven(&mut self, stretch: Unproven) {
        for held in self.runs.values_mut().flatten().filter(|held| stretch.covers(held.stamp)) {
            held.arrival.flags = held.arrival.flags.with(Flags::UNPROVEN);
        }
        // Other gateways' events within the stretch may be read later.
        self.unproven.retain(|other| other.dead != stretch.dead);
        self.unproven.push(stretch);
        if self.unproven.len() > UNPROVEN_PER_ROOM_MAX {
            // Merging the two oldest flags too many events; dropping one would flag too few.
            let oldest = self.unproven.remove(0);
            let next = &mut self.unproven[0];
            next.dead = Incarnation::NONE;
            (next.above, next.until) = (next.above.min(oldest.above), next.until.max(oldest.until));
        }
    }

    /// The stretches of dead gateways in which an event may still be read or held. They belong in the room's snapshot.
    #[must_use]
    pub fn unproven(&self) -> &[Unproven] {
        &self.unproven
    }

    /// Releases the proven events in stamp order: at most `max`, and then those with the same stamp as the last one. So a death is
    /// released whole: the rest of half a death would count as one that came too early.
    pub fn release(&mut self, max: usize, watermark_of: impl Fn(Incarnation) -> Moment) -> Vec<Held> {
        self.release_while(watermark_of, |released, next| {
            released.len() < max || released.last().is_some_and(|last| last.is_stamped_with(next))
        })
    }

    /// Releases the first event, if it is proven. If it does not act, the events with the same stamp that do not act follow: a
    /// death is released whole.
    pub fn release_one(&mut self, watermark_of: impl Fn(Incarnation) -> Moment) -> Vec<Held> {
        self.release_while(watermark_of, |released, next| {
            released.last().is_none_or(|last| !last.acts() && !next.acts() && last.is_stamped_with(next))
        })
    }

    fn release_while(
        &mut self,
        watermark_of: impl Fn(Incarnation) -> Moment,
        goes_on: impl Fn(&[Held], &Held) -> bool,
    ) -> Vec<Held> {
        let frontier = self.frontier(&watermark_of);
        let mut released: Vec<Held> = Vec::new();
        loop {
            let next = self.runs.iter().filter_map(|(gateway, run)| run.front().map(|held| (held, *gateway)));
            let Some((next, gateway)) = next.min_by_key(|(held, _)| held.stamp) else { break };
            if frontier.is_some_and(|frontier| next.stamp.moment > frontier) || !goes_on(&released, next) {
                break;
            }
            let Some(run) = self.runs.get_mut(&gateway) else { break };
            released.extend(run.pop_front());
            if run.is_empty() {
                self.runs.remove(&gateway);
            }
        }
        self.held -= released.len();
        // The next owner of the room reads the held events again: their stretches stay as long as they do.
        let first_held = self.first_held();
        // What is released may set timers, which fire later.
        let next = [first_held, self.fire, released.first().map(|held| held.stamp.moment)].into_iter().flatten().min();
        let passed = |until| frontier.is_none_or(|f| f >= until) && next.is_none_or(|next| next > until);
        self.unproven.retain(|stretch| !passed(stretch.until));
        released
    }

    /// Notes where the room's next timer fires: the stretches of dead gateways that it lies in stay until then.
    pub(crate) fn note_fire(&mut self, fire: Option<Moment>) {
        self.fire = fire;
    }

    /// Takes back the last events that were released: they were not resolved.
    pub fn take_back(&mut self, events: Vec<Held>) {
        self.held += events.len();
        for held in events.into_iter().rev() {
            self.runs.entry(held.stamp.incarnation).or_default().push_front(held);
        }
    }

    /// The moment of the first held event.
    #[must_use]
    pub fn first_held(&self) -> Option<Moment> {
        self.runs.values().filter_map(|run| run.front()).map(|held| held.stamp.moment).min()
    }

    /// Whether [`Resequencer::release`] would return any events.
    pub fn releasable(&self, watermark_of: impl Fn(Incarnation) -> Moment) -> bool {
        self.first_held().is_some_and(|first| self.frontier(&watermark_of).is_none_or(|frontier| first <= frontier))
    }

    /// The lowest watermark of the gateways inside. None if there are none.
    pub fn frontier(&self, watermark_of: impl Fn(Incarnation) -> Moment) -> Option<Moment> {
        self.sessions.keys().map(|gateway| watermark_of(*gateway)).min()
    }

    /// The gateways that held events, or a timer that is due at `fire`, wait for, each with the watermark that is needed.
    pub fn waits_for(&self, fire: Option<Moment>, watermark_of: impl Fn(Incarnation) -> Moment) -> Vec<(Incarnation, Moment)> {
        let held = self.runs.values().filter_map(|run| run.back()).map(|held| held.stamp.moment).max();
        let Some(until) = held.max(fire) else { return Vec::new() };
        self.sessions.keys().filter(|gateway| watermark_of(**gateway) < until).map(|gateway| (*gateway, until)).collect()
    }

    /// The gateways with sessions inside, as read.
    pub fn gateways(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.sessions.keys().copied()
    }

    /// A gateway's sessions inside, as read.
    pub fn sessions_of(&self, gateway: Incarnation) -> impl Iterator<Item = u64> + '_ {
        self.sessions.get(&gateway).into_iter().flatten().copied()
    }

    /// The ordinal and the moment of the last event read from a gateway.
    #[must_use]
    pub fn last_read(&self, gateway: Incarnation) -> Option<(u64, Moment)> {
        self.read.get(&gateway).copied()
    }

    /// The entry that ends a dead gateway's sessions: Error and Close for each, stamped just above the last event read from it
    /// (rule R6). The raw stamp is the moment of the death on the gateway's clock (rule R7, rule H4): another timeline's clock tells nothing of
    /// it, so then it is the end of the gateway's timeline. None if the gateway has no sessions inside.
    pub(crate) fn death_entry(&self, gateway: Incarnation, now: Moment) -> Option<Entry> {
        let (mut ordinal, last) = self.last_read(gateway)?;
        let raw_ns = if now.timeline == last.timeline { now.ns } else { Moment::END_NS };
        let arrival = Arrival { ns: last.ns.saturating_add(1), raw_ns: Some(raw_ns), ..Arrival::default() };
        let mut events = Vec::new();
        for session in self.sessions_of(gateway) {
            for kind in [EventKind::Error { reason: "its gateway died".to_owned() }, EventKind::Close] {
                ordinal = ordinal.checked_add(1)?;
                events.push(Event { session, ordinal, arrival, kind });
            }
        }
        (!events.is_empty()).then_some(Entry { incarnation: gateway, timeline: last.timeline, death: true, events })
    }

    /// The number of held events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// The position before the oldest held entry, or `position` if none is held. Everything up to it is resolved once the released
    /// events are (rule R3).
    #[must_use]
    pub fn cursor(&self, position: StreamId) -> StreamId {
        // A run is in stamp order and its entries came in stream order, so its first event lies in its oldest entry.
        self.runs.values().filter_map(|run| run.front()).map(|held| held.at.before()).min().unwrap_or(position)
    }
}
