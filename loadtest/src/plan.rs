//! What is sent when, by whom: an open-loop schedule. It is computed from numbers alone, so that what a slow system
//! under test does never moves a send, and a run can be repeated.
//!
//! Actions go round the rooms; in a room, [`CONTENDERS`] in a row contend for one key, each from the next session.

use std::time::Duration;

use anyhow::{Result, ensure};
use lasthit::limits::CONTESTS_PER_ROOM_MAX;

use crate::limits::{ACTIONS_MAX, RATE_MAX, SESSIONS_MAX};

/// Claims to one key.
pub(crate) const CONTENDERS: u64 = 10;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    sessions: u32,
    rooms: u32,
    urls: u32,
    rate: u32,
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
    /// From the start of the run.
    pub(crate) due: Duration,
    /// Who sends it.
    pub(crate) session: u32,
    /// In which room.
    pub(crate) room: u32,
    /// For which of the room's keys.
    pub(crate) contest: u64,
}

impl Plan {
    /// `rate` actions a second over all sessions, for `duration`.
    pub(crate) fn new(sessions: u32, rooms: u32, urls: u32, rate: u32, duration: Duration) -> Result<Self> {
        ensure!((1..=SESSIONS_MAX).contains(&sessions), "sessions {sessions}: use 1 to {SESSIONS_MAX}");
        ensure!((1..=sessions).contains(&rooms), "rooms {rooms}: use 1 to {sessions}, so that every room has a session");
        ensure!((1..=RATE_MAX).contains(&rate), "rate {rate}: use 1 to {RATE_MAX} actions a second");
        ensure!(urls > 0, "url is missing: give at least one");
        let actions = u64::try_from(duration.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX);
        ensure!(
            (1..=ACTIONS_MAX).contains(&actions),
            "{actions} actions ({rate} a second for {duration:?}): use rate and duration that make 1 to {ACTIONS_MAX}"
        );
        let contests = actions / u64::from(rooms) / CONTENDERS;
        ensure!(
            contests <= CONTESTS_PER_ROOM_MAX as u64,
            "{contests} contests in each room, which holds at most {CONTESTS_PER_ROOM_MAX}: use more rooms or fewer actions"
        );
        Ok(Self { sessions, rooms, urls, rate, actions })
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
        let seats = (u64::from(self.sessions) - room).div_ceil(rooms);
        let session = room + turn % seats * rooms;
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Planned { due: self.due(number), session: narrow(session), room: narrow(room), contest: turn / CONTENDERS }
    }

    /// When an action is due, from the start of the run.
    pub(crate) fn due(&self, number: u64) -> Duration {
        Duration::from_nanos(u64::try_from(u128::from(number) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn plan(sessions: u32, rooms: u32, urls: u32) -> Plan {
        Plan::new(sessions, rooms, urls, 1000, Duration::from_secs(10)).expect("plan")
    }

    #[test]
    fn the_rate_is_kept_without_drift() {
        let plan = Plan::new(1, 1, 1, 3, Duration::from_secs(3000)).expect("plan");
        assert_eq!(plan.actions(), 9000);
        assert_eq!(plan.due(3), Duration::from_secs(1));
        assert_eq!(plan.due(8999), Duration::from_nanos(2_999_666_666_666));
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
        let error = |sessions, rooms, urls, rate, seconds| {
            Plan::new(sessions, rooms, urls, rate, Duration::from_secs(seconds)).expect_err("refused").to_string()
        };
        assert!(error(0, 1, 1, 1, 1).starts_with("sessions 0:"));
        assert!(error(5, 6, 1, 1, 1).starts_with("rooms 6:"));
        assert!(error(5, 5, 0, 1, 1).starts_with("url is missing"));
        assert!(error(5, 5, 1, 0, 1).starts_with("rate 0:"));
        assert!(error(5, 5, 1, 1, 0).starts_with("0 actions"));
        assert!(error(5, 5, 1, RATE_MAX, 1 << 40).contains("actions"));
        assert!(error(5, 1, 1, 200_000, 6).starts_with("120000 contests in each room"));
    }
}
