//! Puts one room's events back into stamp order.
//!
//! Each gateway's run is sorted by construction (a flush holds exactly the events between two watermarks), so an event
//! may leave as soon as every gateway with sessions in the room has passed its stamp: nothing can come in below it (rule R2).
//! Nothing else lets it leave, no time-out either (rule R8).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::UNPROVEN_PER_ROOM_MAX;
use crate::types::{Arrival, Entry, Event, EventKind, Flags, Incarnation, Moment, SessionId, Stamp, StreamId};

/// An event that was read and waits for its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where it lies in the room's stream.
    pub at: StreamId,
    /// Its place in the order.
    pub stamp: Stamp,
    /// How well the arrival is known.
    pub arrival: Arrival,
    /// Whose.
    pub session: SessionId,
    /// What happened; None for an entry that nobody can read, with the reason in `unreadable`.
    pub kind: Option<EventKind>,
    /// Why the entry could not be read.
    pub unreadable: Option<String>,
    /// When it was read, on the reader's clock in nanoseconds; for metrics only.
    pub read_ns: u64,
}

impl Held {
    /// An action, an Open, or what nobody can read: what a player has in hand.
    fn acts(&self) -> bool {
        matches!(self.kind, None | Some(EventKind::Data(_) | EventKind::Open { .. }))
    }

    fn is_stamped_with(&self, other: &Self) -> bool {
        (self.stamp.moment, self.stamp.incarnation) == (other.stamp.moment, other.stamp.incarnation)
    }
}

/// What a room has read and not yet resolved.
#[derive(Debug, Default)]
pub struct Resequencer {
    /// Gateways with sessions here, as read (rule R1).
    sessions: BTreeMap<Incarnation, BTreeSet<u64>>,
    /// Held events by gateway, each run in stamp order.
    runs: BTreeMap<Incarnation, VecDeque<Held>>,
    /// The highest ordinal read per gateway: what is at or below it is a duplicate (rule R3).
    read: BTreeMap<Incarnation, (u64, Moment)>,
    held: usize,
    /// What dead gateways may have taken along, until everybody inside has passed it (rule R7).
    unproven: Vec<Unproven>,
}

/// The stretch from a dead gateway's last watermark to its death: what others stamped within it may have been beaten by
/// what that gateway took along (rule R7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unproven {
    /// Whose; [`Incarnation::NONE`] for several that were merged ([`UNPROVEN_PER_ROOM_MAX`]).
    pub dead: Incarnation,
    /// The last watermark.
    pub above: Moment,
    /// The death.
    pub until: Moment,
}

impl Unproven {
    fn covers(&self, stamp: Stamp) -> bool {
        stamp.incarnation != self.dead && stamp.moment > self.above && stamp.moment <= self.until
    }
}

impl Resequencer {
    /// Starts from a room's snapshot: who is inside, the last stamp resolved per gateway, and what dead gateways may have
    /// taken along.
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

    /// Takes in an entry read at `at`. `last_watermark` is what its gateway last promised, for entries that a worker
    /// wrote after fencing it: what is held above it may have been beaten by what the dead gateway lost (rule R7).
    pub fn read(&mut self, at: StreamId, entry: &Entry, last_watermark: Moment, now_ns: u64) {
        let known = self.read.get(&entry.incarnation).map_or(0, |(ordinal, _)| *ordinal);
        // Written twice, or before the gateway's last entries were read: then another one follows.
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
            // Below its own stamp it is of a later boot: everything of the gateway's own may have been beaten.
            let later_boot = entry.events.iter().any(|event| event.arrival.ns > death_ns);
            let until = Moment { timeline: entry.timeline, ns: if later_boot { u64::MAX } else { death_ns } };
            self.flag_unproven(Unproven { dead: entry.incarnation, above: last_watermark, until });
        }
    }

    /// Takes in an entry that nobody can read. It belongs to no gateway and waits for none.
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
        // What another gateway stamped within it may be read later.
        self.unproven.retain(|other| other.dead != stretch.dead);
        self.unproven.push(stretch);
        if self.unproven.len() > UNPROVEN_PER_ROOM_MAX {
            // Rather one long stretch than one forgotten.
            let oldest = self.unproven.remove(0);
            let next = &mut self.unproven[0];
            next.dead = Incarnation::NONE;
            (next.above, next.until) = (next.above.min(oldest.above), next.until.max(oldest.until));
        }
    }

    /// The stretches that something may still be read or held in; they belong into the room's snapshot.
    #[must_use]
    pub fn unproven(&self) -> &[Unproven] {
        &self.unproven
    }

    /// Everything that is proven, in stamp order: at most `max` events, and behind them what one gateway stamped with the
    /// same moment as the last. So a death is released whole: half of one would pass for one that came too early.
    pub fn release(&mut self, max: usize, watermark_of: impl Fn(Incarnation) -> Moment) -> Vec<Held> {
        self.release_while(watermark_of, |released, next| {
            released.len() < max || released.last().is_some_and(|last| last.is_stamped_with(next))
        })
    }

    /// The first that is proven, when it acts; else with it what its gateway stamped with the same moment and does not act
    /// either: a death is released whole.
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
        // What is held now is read again by whoever takes the room over: it needs its stretch as long.
        let first_held = self.runs.values().filter_map(|run| run.front()).map(|held| held.stamp.moment).min();
        let passed = |until| frontier.is_none_or(|f| f >= until) && first_held.is_none_or(|first| first > until);
        self.unproven.retain(|stretch| !passed(stretch.until));
        released
    }

    /// Whether [`Resequencer::release`] would yield anything.
    pub fn releasable(&self, watermark_of: impl Fn(Incarnation) -> Moment) -> bool {
        let first = self.runs.values().filter_map(|run| run.front()).map(|held| held.stamp.moment).min();
        first.is_some_and(|first| self.frontier(&watermark_of).is_none_or(|frontier| first <= frontier))
    }

    /// The lowest watermark among the gateways inside; None when nobody is.
    fn frontier(&self, watermark_of: impl Fn(Incarnation) -> Moment) -> Option<Moment> {
        self.sessions.keys().map(|gateway| watermark_of(*gateway)).min()
    }

    /// Which gateways the held events wait for, and until when each must promise.
    pub fn waits_for(&self, watermark_of: impl Fn(Incarnation) -> Moment) -> Vec<(Incarnation, Moment)> {
        let Some(until) = self.runs.values().filter_map(|run| run.back()).map(|held| held.stamp.moment).max() else {
            return Vec::new();
        };
        self.sessions.keys().filter(|gateway| watermark_of(**gateway) < until).map(|gateway| (*gateway, until)).collect()
    }

    /// Gateways with sessions here, as read.
    pub fn gateways(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.sessions.keys().copied()
    }

    /// A gateway's sessions here, as read.
    pub fn sessions_of(&self, gateway: Incarnation) -> impl Iterator<Item = u64> + '_ {
        self.sessions.get(&gateway).into_iter().flatten().copied()
    }

    /// The last stamp read of a gateway: its ordinal and moment.
    #[must_use]
    pub fn last_read(&self, gateway: Incarnation) -> Option<(u64, Moment)> {
        self.read.get(&gateway).copied()
    }

    /// The entry that ends a dead gateway's sessions here: Error and Close for each, stamped just above the last that was read
    /// of it (rule R6). The raw stamp is the moment of the death, for rule R7. None when it has no sessions here.
    pub(crate) fn death_entry(&self, gateway: Incarnation, now: Moment) -> Option<Entry> {
        let (mut ordinal, last) = self.last_read(gateway)?;
        let arrival = Arrival { ns: last.ns.saturating_add(1), raw_ns: Some(now.ns), ..Arrival::default() };
        let mut events = Vec::new();
        for session in self.sessions_of(gateway) {
            for kind in [EventKind::Error { reason: "its gateway died".to_owned() }, EventKind::Close] {
                ordinal = ordinal.checked_add(1)?;
                events.push(Event { session, ordinal, arrival, kind });
            }
        }
        (!events.is_empty()).then_some(Entry { incarnation: gateway, timeline: last.timeline, death: true, events })
    }

    /// Events held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Everything at or before this is resolved, once what was released is: below the oldest held entry (rule R3).
    #[must_use]
    pub fn cursor(&self, position: StreamId) -> StreamId {
        // A run is in stamp order and its entries came in stream order, so its first event lies in its oldest entry.
        self.runs.values().filter_map(|run| run.front()).map(|held| held.at.before()).min().unwrap_or(position)
    }
}
