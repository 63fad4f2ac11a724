//! The way in: pending events settle, leave as flushes, and are acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::core::{Action, Core};
use super::deliver::View;
use super::kept::Share;
use crate::journal::{Appended, Flush, FlushEntry, Registered, RoomHead, Seen};
use crate::metrics::Waits;
use crate::types::{Arrival, Entry, Event, EventKind, Incarnation, Moment, RoomId, ShardId};
use crate::wire::entry;

/// An event that its gateway has read and not yet appended.
#[derive(Debug)]
pub(super) struct PendingEvent {
    /// Stamp, raw stamp, and the order of reading: the order in which ordinals are given.
    pub(super) order: (u64, u64, u64),
    pub(super) room: RoomId,
    pub(super) session: u64,
    pub(super) arrival: Arrival,
    pub(super) kind: EventKind,
    pub(super) share: Share,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Registration {
    #[default]
    Unknown,
    Asked,
    Done,
}

/// One shard as this gateway writes to it.
#[derive(Debug, Default)]
pub(super) struct ShardOut {
    registration: Registration,
    /// The journal's server that it is registered with.
    server: Incarnation,
    /// The highest commit that was heard of since.
    commit: u64,
    pub(super) fenced: bool,
    /// Its rooms that the gateway follows.
    pub(super) followed: BTreeSet<RoomId>,
    /// The last flush that was sent: its number and watermark.
    number: u64,
    watermark: Moment,
    ordinal: u64,
    pending: Vec<PendingEvent>,
    pub(super) in_flight: Option<Arc<Flush>>,
    /// The shares of its events.
    kept_in_flight: Vec<Share>,
    /// An earlier server was sent it too.
    resent: bool,
    /// Sessions whose Open is in the flush in flight.
    pub(super) opening: Vec<u64>,
    /// Sessions that are gone, and whose damaged room was not told.
    pub(super) owed: BTreeMap<RoomId, BTreeSet<u64>>,
    /// A worker waits for this watermark.
    probed: Moment,
}

impl ShardOut {
    /// Takes an event in; true when the shard must be registered first.
    pub(super) fn pend(&mut self, event: PendingEvent) -> bool {
        self.pending.push(event);
        self.registration == Registration::Unknown
    }

    /// Whether a registration is under way.
    pub(super) fn is_registering(&self) -> bool {
        self.registration == Registration::Asked && !self.fenced
    }

    /// Whether the journal knows this gateway, and has not fenced it.
    pub(super) fn is_registered(&self) -> bool {
        self.registration == Registration::Done && !self.fenced
    }

    /// What this gateway has of the shard for sure.
    fn seen(&self) -> Seen {
        Seen { server: self.server, flush: self.number - u64::from(self.in_flight.is_some()), commit: self.commit }
    }

    /// The lowest stamp that is not promised away.
    pub(super) fn first_free_ns(&self) -> u64 {
        if self.number == 0 { 0 } else { self.watermark.ns.saturating_add(1) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_none()
    }

    pub(super) fn fence(&mut self) {
        self.fenced = true;
        self.owed.clear();
        self.pending.clear();
        self.in_flight = None;
        self.kept_in_flight.clear();
    }

    fn ready(&self) -> bool {
        self.registration == Registration::Done && self.in_flight.is_none() && !self.fenced
    }

    /// Whether a settled moment would let something leave.
    fn wants(&self) -> bool {
        self.ready() && (!self.pending.is_empty() || self.probed > self.watermark)
    }
}

impl Core {
    /// Whether something waits for [`Core::settled`].
    #[must_use]
    pub(crate) fn wants_settling(&self) -> bool {
        self.shards.iter().any(ShardOut::wants)
    }

    /// Everything that arrived at or before `until_ns` has been read: what is pending up to there leaves, one flush
    /// per shard, and the watermark goes with it.
    pub(crate) fn settled(&mut self, until_ns: u64) {
        let until = Moment { timeline: self.timeline, ns: until_ns };
        for index in 0..self.shards.len() {
            if self.shards[index].wants() && until > self.shards[index].watermark {
                self.flush(index, until);
            }
        }
    }

    fn flush(&mut self, index: usize, until: Moment) {
        let shard = &mut self.shards[index];
        shard.pending.sort_unstable_by_key(|event| event.order);
        let settled = shard.pending.partition_point(|event| event.arrival.ns <= until.ns);
        let (mut bytes, bytes_max) = (0, self.bounds.flush_bytes_max);
        let mut fits = |event: &PendingEvent| {
            bytes += event.share.bytes();
            bytes <= bytes_max
        };
        let fitting = shard.pending[..settled.min(self.bounds.flush_events_max)].iter().take_while(|event| fits(event)).count();
        let taken = fitting.max(settled.min(1));
        let watermark = match shard.pending[..taken].last() {
            Some(last) if taken < settled => Moment { ns: last.arrival.ns, ..until },
            _ => until,
        };
        // What bears the stamp that the flush ends with and found no place in it is stamped just above (rule W2).
        for event in shard.pending[taken..].iter_mut().take_while(|event| event.arrival.ns <= watermark.ns) {
            event.arrival = event.arrival.clamped_to(watermark.ns.saturating_add(1));
            event.order.0 = event.arrival.ns;
        }
        if taken == 0 && shard.probed > watermark {
            return;
        }
        if taken == 0 && shard.probed <= shard.watermark {
            return;
        }
        let mut rooms: BTreeMap<RoomId, Vec<Event>> = BTreeMap::new();
        shard.opening.clear();
        let mut waits = Waits::default();
        for event in shard.pending.drain(..taken) {
            shard.ordinal += 1;
            waits.add(event.arrival.raw_ns.unwrap_or(event.arrival.ns));
            if matches!(event.kind, EventKind::Open { .. }) {
                shard.opening.push(event.session);
            }
            shard.kept_in_flight.push(event.share);
            let (session, arrival, kind) = (event.session, event.arrival, event.kind);
            rooms.entry(event.room).or_default().push(Event { session, ordinal: shard.ordinal, arrival, kind });
        }
        let (incarnation, timeline) = (self.incarnation, self.timeline);
        let entries = rooms.into_iter().map(|(room, events)| {
            let entry = Entry { incarnation, timeline, death: false, events };
            FlushEntry { room, top: entry.top(), bytes: entry::encode(&entry) }
        });
        #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
        let flush = Arc::new(Flush {
            shard: ShardId(index as u16),
            server: shard.server,
            incarnation,
            number: shard.number + 1,
            previous: shard.watermark,
            watermark,
            entries: entries.collect(),
        });
        shard.number += 1;
        shard.watermark = watermark;
        shard.in_flight = Some(flush.clone());
        self.act_on(Action::Append { flush, waits });
    }

    /// A worker waits until this gateway promises `until`.
    pub(crate) fn probed(&mut self, shard: ShardId, until: Moment) {
        let Some(out) = self.shards.get_mut(usize::from(shard.0)) else { return };
        out.probed = out.probed.max(until);
        if out.registration == Registration::Unknown {
            self.register(shard);
        }
    }

    /// Makes this gateway known to the journal's server, and tells it what an earlier one had (rule G2). From here on
    /// nothing that the earlier one said is delivered any more: what was seen is what was told.
    pub(super) fn register(&mut self, shard: ShardId) {
        let out = &mut self.shards[usize::from(shard.0)];
        out.registration = Registration::Asked;
        let seen = out.seen();
        let rooms = self.rooms_of(shard);
        self.act_on(Action::Register { shard, seen, rooms });
    }

    /// Whether what `server` said of a shard counts. When it is another than the one that this gateway is registered with,
    /// it registers again: what the old one said may be lost, what the new one says may contradict it.
    pub(super) fn hears(&mut self, shard: ShardId, server: Incarnation, commit: u64) -> bool {
        let Some(out) = self.shards.get_mut(usize::from(shard.0)) else { return false };
        if out.registration != Registration::Done || out.fenced {
            return false;
        }
        if out.server != server {
            self.register(shard);
            return false;
        }
        out.commit = out.commit.max(commit);
        true
    }

    /// Slow heartbeats: a gateway that was fenced while it had nothing to say finds out.
    pub(super) fn beat(&mut self) {
        for out in &mut self.shards {
            out.probed = out.probed.max(out.watermark.plus(1));
        }
        self.tell_owed();
    }

    /// The answer to [`Action::Register`].
    pub(crate) fn registered(&mut self, shard: ShardId, answer: &Registered) {
        let out = &mut self.shards[usize::from(shard.0)];
        let record = &answer.record;
        if record.incarnation != self.incarnation || out.registration != Registration::Asked || out.fenced {
            return;
        }
        // A journal that has less than it confirmed: this incarnation's promises are void.
        if record.fenced || !(out.seen().flush..=out.number).contains(&record.number) {
            self.fence(shard);
            return;
        }
        (out.registration, out.server, out.commit) = (Registration::Done, answer.server, answer.commit);
        if let Some(flush) = out.in_flight.take() {
            let flush = Arc::new(Flush { server: answer.server, ..Arc::unwrap_or_clone(flush) });
            (out.in_flight, out.resent) = (Some(flush.clone()), true);
            self.act_on(Action::Append { flush, waits: Waits::default() });
        }
        for head in &answer.rooms {
            self.moved(head);
        }
    }

    /// The answer to [`Action::Append`]; `now_ns` is when it was read. `repeated` says that the flush was sent more than
    /// once: then it may have been resolved before this answer, whose heads lie behind what is still to be delivered.
    pub(crate) fn appended(&mut self, flush: &Flush, answer: &Appended, repeated: bool, now_ns: u64) {
        let out = &mut self.shards[usize::from(flush.shard.0)];
        let expected = |f: &Arc<Flush>| (f.number, f.server) == (flush.number, flush.server);
        if flush.incarnation != self.incarnation
            || out.registration != Registration::Done
            || !out.in_flight.as_ref().is_some_and(expected)
        {
            return;
        }
        match answer {
            Appended::Stored(heads) => {
                out.in_flight = None;
                out.kept_in_flight.clear();
                let repeated = std::mem::take(&mut out.resent) || repeated;
                let opening = std::mem::take(&mut out.opening);
                for head in heads {
                    self.learn(&head.room, head.era, if repeated { 0 } else { head.seq });
                }
                for number in opening {
                    self.acknowledge(number, heads, now_ns);
                }
                self.check_reborn();
            }
            Appended::Moved => self.register(flush.shard),
            Appended::Gap { .. } | Appended::Fenced => self.fence(flush.shard),
            Appended::Refused(rooms) => self.refused(flush, rooms),
        }
    }

    /// Rule S7: from here on the session's stamps lie above this moment and above everything in the room.
    fn acknowledge(&mut self, number: u64, heads: &[RoomHead], now_ns: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let top = heads.iter().find(|head| head.room == session.room).map_or(0, |head| head.top.ns);
        session.opened = true;
        session.floor_ns = now_ns.max(top.saturating_add(1));
        let waiting = std::mem::take(&mut session.waiting);
        let closed = matches!(session.view, View::Closed);
        for (kind, arrival, share) in waiting {
            self.pend(number, kind, arrival, share);
        }
        if closed {
            self.sessions.remove(&number);
        }
    }
}
