//! What will presumably reach the rules next, for rules that are asked ahead. A guess that is wrong costs time only: each decision is
//! taken for the very event that it was asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::firing::HostClock;
use super::recent;
use super::resequence::Held;
use super::room::{Member, Room};
use crate::limits::{PROGRAM_EVENTS_MAX, ROOM_SESSIONS_MAX};
use crate::rules::{Act, Due, Facts, Fault, Happening, Inside, What, messages};
use crate::types::{EventKind, Fire, Moment, PlayerId, Role, RoomTime, SessionId, Stamp};
use crate::wire::action;

/// A room as it will be after some events, as far as what reaches the rules depends on it.
struct Ahead<'a> {
    room: &'a Room,
    seq: u64,
    now: RoomTime,
    /// Sessions that came (or went: None) since.
    sessions: BTreeMap<SessionId, Option<Member>>,
    ids: BTreeSet<(PlayerId, u64)>,
    /// How many sessions the players have inside who were asked for.
    inside: BTreeMap<PlayerId, usize>,
}

impl Room {
    /// Whether its rules are asked ahead.
    pub(crate) fn asks_ahead(&mut self) -> bool {
        self.rules.as_process().is_some()
    }

    /// Asks rules that are asked ahead for the decision on `next`, and on the events after it that come before the next fire, unless
    /// that was done. Changes nothing in the room. `is_void` tells which events do not reach the rules.
    ///
    /// # Errors
    /// When the program did not decide.
    pub(crate) fn ask_ahead<'e>(
        &mut self,
        next: &'e Held,
        after: impl Iterator<Item = &'e Held>,
        fire: Option<Moment>,
        is_void: impl Fn(Stamp) -> bool,
    ) -> Result<(), Fault> {
        let mut ahead = Ahead::of(self);
        let Some(first) = ahead.event(next, is_void(next.stamp)) else { return Ok(()) };
        if self.rules.as_process().is_none_or(|process| process.is_ready(&first)) {
            return Ok(());
        }
        let mut ahead = Ahead::of(self);
        let all = std::iter::once(next).chain(after.take_while(|held| fire.is_none_or(|fire| held.stamp.moment < fire)));
        // The events of a death are committed together: none is resolved before all are decided.
        let (mut events, mut least) = (Vec::new(), 0);
        for held in all {
            let together = events.is_empty() || held.is_of_death_with(next);
            if events.len() >= PROGRAM_EVENTS_MAX && !together {
                break;
            }
            events.extend(ahead.event(held, is_void(held.stamp)));
            least = if together { events.len() } else { least };
        }
        self.rules.as_process().map_or(Ok(()), |process| process.ask(events, least))
    }

    /// The same for the timer that fires at `place`.
    pub(crate) fn ask_for_fire(&mut self, place: Moment, now: (HostClock, u64)) -> Result<(), Fault> {
        let Some((fire, data)) = self.timers.peek_next() else { return Ok(()) };
        let Fire { name, due, missed, .. } = &fire;
        let facts = Facts::new(self.time_at(place).max(*due), self.seq.saturating_add(1), self.seed);
        let text =
            messages::timer_text(&Due { name, data: &data, due: *due, late_ns: self.late_ns(*due, now), missed: *missed, facts });
        match self.rules.as_process() {
            Some(process) if !process.is_ready(&text) => process.ask(vec![text], 1),
            _ => Ok(()),
        }
    }
}

impl<'a> Ahead<'a> {
    fn of(room: &'a Room) -> Self {
        let (sessions, ids, inside) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { room, seq: room.seq, now: room.now, sessions, ids, inside }
    }

    /// The event as the rules will see it, if it reaches them. Goes on behind it.
    fn event(&mut self, held: &Held, is_void: bool) -> Option<String> {
        self.seq = self.seq.saturating_add(1);
        self.now = self.now.max(self.room.time_at(held.stamp.moment));
        let kind = held.kind.as_ref()?;
        if let EventKind::Open { player, role } = kind {
            if self.count() >= ROOM_SESSIONS_MAX {
                return None;
            }
            self.inside(player);
            *self.inside.entry(player.clone()).or_default() += 1;
            self.sessions.insert(held.session, Some(Member { player: player.clone(), role: *role }));
        }
        let member =
            self.sessions.get(&held.session).cloned().unwrap_or_else(|| self.room.sessions.get(&held.session).cloned())?;
        let text = match kind {
            EventKind::Data(bytes) => {
                let action = action::decode(bytes).ok()?;
                let player = action.player.as_ref().filter(|_| member.role == Role::Server).unwrap_or(&member.player);
                let id = recent::hash(&action.id);
                if self.room.recent.knows(player, id) || !self.ids.insert((player.clone(), id)) {
                    return None;
                }
                let act = Act::new(&action.op, action.contest.as_deref(), &action.args);
                (!is_void).then(|| self.text(held.session, player, member.role, What::Data(act)))
            }
            _ if is_void => None,
            EventKind::Open { .. } => Some(self.text(held.session, &member.player, member.role, What::Open)),
            EventKind::End { code } => Some(self.text(held.session, &member.player, member.role, What::End { code: *code })),
            EventKind::Error { reason } => Some(self.text(held.session, &member.player, member.role, What::Error { reason })),
            EventKind::Close => Some(self.text(held.session, &member.player, member.role, What::Close)),
        };
        if matches!(kind, EventKind::Close) {
            self.inside(&member.player);
            self.inside.entry(member.player).and_modify(|count| *count = count.saturating_sub(1));
            self.sessions.insert(held.session, None);
        }
        text
    }

    fn text(&mut self, session: SessionId, player: &PlayerId, role: Role, what: What<'_>) -> String {
        let (count, facts) = (self.inside(player), Facts::new(self.now, self.seq, self.room.seed));
        messages::event_text(&Happening { session, player, role, what, facts, inside: Inside(&|_| count) })
    }

    /// How many sessions a player has inside.
    fn inside(&mut self, player: &PlayerId) -> usize {
        if let Some(count) = self.inside.get(player) {
            return *count;
        }
        // Nobody of this name came or went since.
        let count = self.room.sessions.values().filter(|member| member.player == *player).count();
        self.inside.insert(player.clone(), count);
        count
    }

    fn count(&self) -> usize {
        let known = |session: &SessionId| self.room.sessions.contains_key(session);
        let came = self.sessions.iter().filter(|(session, now)| now.is_some() && !known(session)).count();
        let went = self.sessions.iter().filter(|(session, now)| now.is_none() && known(session)).count();
        self.room.sessions.len() + came - went
    }
}
