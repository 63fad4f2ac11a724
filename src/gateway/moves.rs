//! How a gateway asks its sessions to move: some quiet ones, so that gateways are used evenly, or all of them, because it leaves.
//!
//! A session that moves has a second one for a while, elsewhere or here. The client changes over when nothing is unanswered, so
//! the gateway only asks, and closes who stayed. Rule X1, rule X2 and rule X3 are the clients'.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::state::Session;
use super::step::{Command, Delivery};
use crate::limits::{MOVE_GRACE, MOVE_STEP};
use crate::wire::client::close;

/// A gateway's way out: from when to when it moves its sessions, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Departure {
    began_ns: u64,
    ends_ns: u64,
    /// When a session was here last.
    used_ns: u64,
    url: Option<Arc<str>>,
    /// How much less time than there is a session is told to have.
    spare_ns: u64,
}

impl Departure {
    /// Begins at `now_ns`.
    pub(crate) fn new(now_ns: u64, window: Duration, url: Option<Arc<str>>) -> Self {
        let ends_ns = now_ns.saturating_add(nanos(window));
        Self { began_ns: now_ns, ends_ns, used_ns: now_ns, url, spare_ns: nanos(MOVE_GRACE) }
    }

    /// Begins one in which nobody is welcomed at `url` before all have left here: whoever goes early has to wait. So they have all of
    /// the time, and are closed together.
    pub(super) fn of_all(now_ns: u64, window: Duration, url: Arc<str>) -> Self {
        Self { spare_ns: 0, ..Self::new(now_ns, window, Some(url)) }
    }

    /// Whether the time is over, or no session has been here for [`MOVE_GRACE`]: a client whose handshake was under way has come
    /// in by then.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.ends_ns || now_ns.saturating_sub(self.used_ns) >= nanos(MOVE_GRACE)
    }

    /// How many of `waiting` sessions are asked now, so that all have been after half of the time.
    fn share(&self, waiting: usize, now_ns: u64) -> usize {
        let half_ns = self.began_ns + (self.ends_ns - self.began_ns) / 2;
        let steps = half_ns.saturating_sub(now_ns) / nanos(MOVE_STEP);
        waiting.div_ceil(usize::try_from(steps).unwrap_or(usize::MAX).max(1))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// Rule X4. Asks at most `count` quiet sessions to move, those that have been here longest first. Returns how many were asked.
    pub(crate) fn offer_moves(&mut self, count: usize, now_ns: u64) -> usize {
        let (quiet_ns, again_ns) = (self.bounds.move_quiet_ns, self.bounds.move_again_ns);
        let rested = |since_ns: u64, time_ns: u64| now_ns.saturating_sub(since_ns) >= time_ns;
        let quiet = |session: &Session| {
            session.is_inside()
                && session.unanswered == 0
                && rested(session.last_order.0, quiet_ns)
                && (session.asked_to_move_ns == 0 || rested(session.asked_to_move_ns, again_ns))
        };
        let asked: Vec<u64> = self.sessions.iter().filter(|(_, s)| quiet(s)).map(|(n, _)| *n).take(count).collect();
        for number in &asked {
            self.ask_to_move(*number, self.bounds.move_within_ns, None, now_ns);
        }
        asked.len()
    }

    /// Asks the next share of the sessions to move. Returns how many were asked.
    pub(crate) fn move_some(&mut self, departure: &mut Departure, now_ns: u64) -> usize {
        if !self.sessions.is_empty() {
            departure.used_ns = now_ns;
        }
        let all = self.sessions.keys().copied().collect();
        self.move_some_of(departure, all, now_ns)
    }

    /// Asks the next share of these sessions to move. Returns how many were asked.
    pub(super) fn move_some_of(&mut self, departure: &mut Departure, mut next: Vec<u64>, now_ns: u64) -> usize {
        let waits = |session: &Session| session.is_inside() && session.asked_to_move_ns < departure.began_ns.max(1);
        next.retain(|number| self.sessions.get(number).is_some_and(waits));
        next.truncate(departure.share(next.len(), now_ns));
        let within_ns = departure.ends_ns.saturating_sub(now_ns).saturating_sub(departure.spare_ns);
        for number in &next {
            self.ask_to_move(*number, within_ns, departure.url.clone(), now_ns);
        }
        next.len()
    }

    /// Rule X5. Closes the sessions that did not move, and lets no more in.
    pub(crate) fn close_unmoved(&mut self) {
        self.drain(close::MOVED, "this gateway is leaving: connect again with since, at once");
    }

    fn ask_to_move(&mut self, number: u64, within_ns: u64, url: Option<Arc<str>>, now_ns: u64) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.asked_to_move_ns = now_ns;
            session.sent += 1;
            self.issue(Command::Deliver(number, Delivery::Move { within_ms: within_ns / 1_000_000, url }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn all_are_asked_in_equal_shares_within_half_of_the_time() {
        for (sessions, window_ms) in [(1, 5_000), (7, 5_000), (1_000, 5_000), (10, 200), (10, 0)] {
            let departure = Departure::new(MS, Duration::from_millis(window_ms), None);
            let (mut waiting, mut now_ns, mut shares) = (sessions, MS, Vec::new());
            while waiting > 0 {
                let share = departure.share(waiting, now_ns);
                shares.push(share);
                waiting -= share;
                now_ns += nanos(MOVE_STEP);
            }
            assert!(shares.len() as u64 <= (window_ms / 100).max(1), "{sessions} in {window_ms} ms: {shares:?}");
            assert!(shares.iter().max().unwrap_or(&0) - shares.iter().min().unwrap_or(&0) <= 1, "{shares:?}");
        }
    }

    #[test]
    fn a_departure_is_over_when_nobody_has_been_here_for_a_while_or_with_its_time() {
        let mut departure = Departure::new(0, Duration::from_secs(5), None);
        let mut core = Core::new(crate::types::Incarnation(1), 1, "test", 0);
        core.move_some(&mut departure, 100 * MS);
        assert!(!departure.is_over(499 * MS) && departure.is_over(500 * MS), "a handshake may be under way");
        let joining = super::super::step::Joining::new("pit".parse().expect("room"), "ann".parse().expect("player"));
        core.open(joining, crate::types::Arrival::at(1, 0)).expect("still let in");
        assert_eq!(core.move_some(&mut departure, 4_900 * MS), 0, "nobody is asked before the welcome");
        assert!(!departure.is_over(4_999 * MS) && departure.is_over(5_000 * MS));
    }
}
