//! Who sends what: computed from numbers alone, so that what a slow system under test does never moves a send, and a run can
//! be repeated.
//!
//! Actions go round the rooms; in a room, a number of them in a row contend for one key, each from the next session.

use std::time::Duration;

use anyhow::{Result, ensure};
use lasthit::internals::limits::CONTESTS_PER_ROOM_MAX;

use crate::limits::{ACTIONS_MAX, CONTENDERS_MAX, FAST_PACE, FAST_RATE, PACE, RATE_MAX, SESSIONS_MAX};

/// Claims to one key, where nothing else was asked for.
pub(crate) const CONTENDERS: u32 = 10;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    sessions: u32,
    rooms: u32,
    urls: u32,
    contenders: u32,
    actions: u64,
}

/// Where a session plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Index of the room.
    pub(crate) room: u32,
    /// Index of the gateway's URL.
    pub(crate) url: u32,
}

/// One claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Who sends it.
    pub(crate) session: u32,
    /// In which room.
    pub(crate) room: u32,
    /// For which of the room's keys.
    pub(crate) contest: u64,
}

/// An open loop: when each action is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    rate: u32,
}

impl Schedule {
    /// `rate` actions a second over all sessions.
    pub(crate) fn new(rate: u32) -> Result<Self> {
        ensure!((1..=RATE_MAX).contains(&rate), "rate {rate}: use 1 to {RATE_MAX} actions a second");
        Ok(Self { rate })
    }

    /// How far wake-ups for it lie apart at least.
    pub(crate) fn pace(self) -> Duration {
        if self.rate < FAST_RATE { PACE } else { FAST_PACE }
    }

    /// Actions of a run of this length.
    pub(crate) fn actions(self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos() * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// When an action is due, from the start of the run.
    pub(crate) fn due(self, number: u64) -> Duration {
        Duration::from_nanos(u64::try_from(u128::from(number) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX))
    }
}

impl Plan {
    /// At most `actions` of them; `contenders` claims to each key.
    pub(crate) fn new(sessions: u32, rooms: u32, urls: u32, contenders: u32, actions: u64) -> Result<Self> {
        ensure!((1..=SESSIONS_MAX).contains(&sessions), "sessions {sessions}: use 1 to {SESSIONS_MAX}");
        ensure!((1..=sessions).contains(&rooms), "rooms {rooms}: use 1 to {sessions}, so that every room has a session");
        ensure!((1..=CONTENDERS_MAX).contains(&contenders), "contenders {contenders}: use 1 to {CONTENDERS_MAX}");
        ensure!(urls > 0, "url is missing: give at least one");
        ensure!(
            (1..=ACTIONS_MAX).contains(&actions),
            "{actions} actions: use a rate and a duration that make 1 to {ACTIONS_MAX} of them"
        );
        let plan = Self { sessions, rooms, urls, contenders, actions };
        let (contests, most) = (actions / u64::from(rooms) / u64::from(contenders), CONTESTS_PER_ROOM_MAX as u64);
        ensure!(
            contests <= most,
            "{contests} contests in each room, which holds at most {most}: use more rooms, more contenders or fewer actions"
        );
        Ok(plan)
    }

    /// As many actions as its rooms hold contests for.
    pub(crate) fn filled(sessions: u32, rooms: u32, urls: u32, contenders: u32) -> Result<Self> {
        let fit = u64::from(rooms) * u64::from(contenders) * CONTESTS_PER_ROOM_MAX as u64;
        Self::new(sessions, rooms, urls, contenders, fit.clamp(1, ACTIONS_MAX))
    }

    /// Actions of the whole run; they are numbered from 0.
    pub(crate) fn actions(&self) -> u64 {
        self.actions
    }

    /// Sessions of the run; they are numbered from 0.
    pub(crate) fn sessions(&self) -> u32 {
        self.sessions
    }

    /// A room's sessions are spread over all gateways.
    pub(crate) fn seat(&self, session: u32) -> Seat {
        Seat { room: session % self.rooms, url: (session / self.rooms) % self.urls }
    }

    /// One action.
    pub(crate) fn action(&self, number: u64) -> Planned {
        let rooms = u64::from(self.rooms);
        let (room, turn) = (number % rooms, number / rooms);
        let session = room + turn % self.seats(room) * rooms;
        Planned { session: narrow(session), room: narrow(room), contest: turn / u64::from(self.contenders) }
    }

    /// The number of a session's `nth` action, counted from 0; None when the run has none.
    pub(crate) fn nth(&self, session: u32, nth: u64) -> Option<u64> {
        let rooms = u64::from(self.rooms);
        let (room, seat) = (u64::from(session) % rooms, u64::from(session) / rooms);
        let turn = nth.checked_mul(self.seats(room))?.checked_add(seat)?;
        turn.checked_mul(rooms)?.checked_add(room).filter(|number| *number < self.actions)
    }

    /// Sessions of a room.
    fn seats(&self, room: u64) -> u64 {
        (u64::from(self.sessions) - room).div_ceil(u64::from(self.rooms))
    }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn plan(sessions: u32, rooms: u32, urls: u32) -> Plan {
        Plan::new(sessions, rooms, urls, 10, 10_000).expect("plan")
    }

    #[test]
    fn the_rate_is_kept_without_drift() {
        let schedule = Schedule::new(3).expect("schedule");
        assert_eq!(schedule.actions(Duration::from_secs(3000)), 9000);
        assert_eq!(schedule.due(3), Duration::from_secs(1));
        assert_eq!(schedule.due(8999), Duration::from_nanos(2_999_666_666_666));
    }

    #[test]
    fn every_session_sends_in_its_own_room() {
        let plan = plan(47, 10, 2);
        let mut senders = BTreeSet::new();
        for n in 0..plan.actions() {
            let action = plan.action(n);
            assert_eq!(plan.seat(action.session).room, action.room);
            senders.insert(action.session);
        }
        assert_eq!(senders.len(), 47);
    }

    #[test]
    fn a_sessions_own_actions_are_those_of_the_plan() {
        let plan = plan(47, 10, 2);
        for session in 0..47 {
            let own: Vec<u64> = (0..).map_while(|nth| plan.nth(session, nth)).collect();
            let planned: Vec<u64> = (0..plan.actions()).filter(|n| plan.action(*n).session == session).collect();
            assert_eq!(own, planned, "session {session}");
        }
        assert_eq!(plan.nth(0, u64::MAX), None);
    }

    #[test]
    fn a_contest_has_ten_contenders_from_ten_sessions_on_both_gateways() {
        let plan = plan(100, 10, 2);
        let mut contests: BTreeMap<(u32, u64), Vec<u32>> = BTreeMap::new();
        for n in 0..plan.actions() {
            let action = plan.action(n);
            contests.entry((action.room, action.contest)).or_default().push(action.session);
        }
        assert_eq!(contests.len(), 1000);
        for sessions in contests.values() {
            assert_eq!(sessions.iter().collect::<BTreeSet<_>>().len(), 10);
            let urls: BTreeSet<u32> = sessions.iter().map(|s| plan.seat(*s).url).collect();
            assert_eq!(urls.len(), 2);
        }
    }

    #[test]
    fn what_cannot_be_planned_is_named() {
        let error = |sessions, rooms, urls, contenders, actions| {
            Plan::new(sessions, rooms, urls, contenders, actions).expect_err("refused").to_string()
        };
        assert!(error(0, 1, 1, 10, 1).starts_with("sessions 0:"));
        assert!(error(5, 6, 1, 10, 1).starts_with("rooms 6:"));
        assert!(error(5, 5, 0, 10, 1).starts_with("url is missing"));
        assert!(error(5, 5, 1, 0, 1).starts_with("contenders 0:"));
        assert!(error(5, 5, 1, 10, 0).starts_with("0 actions"));
        assert!(error(5, 5, 1, 10, u64::MAX).contains("actions"));
        assert!(error(5, 1, 1, 10, 1_200_000).starts_with("120000 contests in each room"));
        assert!(Schedule::new(0).expect_err("refused").to_string().starts_with("rate 0:"));
        assert!(Plan::filled(5, 5, 1, 10).expect("plan").actions() > 1_000_000);
    }
}
