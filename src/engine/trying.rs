//! A recorded room, decided by a program that never decided it: what differs shows what that program would change.

use super::room::Room;
use crate::rules::Rules;
use crate::types::{Epoch, Fire, Flags, Moment, RoomTime, Verdict};

impl Room {
    /// Lets `next` go on from the room's state, as a change of programs does, without a verdict.
    ///
    /// # Errors
    /// One line: why it does not take the state over.
    pub(crate) fn try_with(&mut self, next: Box<dyn Rules>) -> Result<(), String> {
        if next.program() == self.rules.program() {
            return Ok(());
        }
        self.take_over(next).map_err(|failure| failure.error)
    }

    /// Goes on as if the last verdict had this `seq`: the record has verdicts that this program does not come to, and the other way round.
    pub(crate) fn count_as(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// Fires the next timer that is due before `limit`, when it is due, but for the one that is recorded to fire now.
    pub(crate) fn fire_before(&mut self, limit: RoomTime, recorded: Option<&str>) -> Option<Verdict> {
        let (due, name) = self.timers.first_before(limit, recorded)?;
        let timer = self.timers.take(&name, due)?;
        let at = |(timeline, epoch): (u32, Epoch)| Moment { timeline, ns: due.0.saturating_sub(epoch.ns) };
        let place = self.epoch.map_or(self.last, at).max(self.last);
        let fire = Fire { name: name.to_string(), due, late_ns: 0, missed: timer.missed };
        Some(self.fired(fire, &timer, place, Flags::default(), None))
    }
}
