//! Judges what a session is told.

use std::time::Duration;

use anyhow::Result;

use super::answers::{Answers, Heard};
use super::audit::{Contiguity, Place, Round};
use super::client::Run;
use super::moves::Asked;
use super::tally::Counts;
use crate::speak::frame::{Frame, number};
use crate::speak::socket::Message;

/// What a session needs in order to judge a message.
pub(super) struct Seen<'a> {
    pub(super) number: u32,
    pub(super) room: u32,
    pub(super) id: &'a str,
    pub(super) earlier: &'a [String],
    pub(super) era: u64,
    /// Verdicts up to here were judged on another connection.
    pub(super) floor: u64,
    pub(super) run: &'a Run,
    pub(super) counts: &'a mut Counts,
    pub(super) contiguity: &'a mut Contiguity,
    pub(super) answers: &'a mut Answers,
    /// What the gateway asks, once it does.
    pub(super) asked: Option<Asked>,
}

impl Seen<'_> {
    pub(super) fn receive(&mut self, message: Message<'_>) -> Result<()> {
        let frame = self.run.dialect.hear(message.is_text, message.payload)?;
        match &*frame.t {
            "verdict" => self.verdict(&frame),
            // Its answer comes on the next connection.
            "error" if &*frame.code == "shutting_down" => {}
            "error" => {
                let action = (!frame.id.is_empty()).then(|| self.own(&frame.id));
                action.inspect(|action| self.answers.refused(*action));
                self.counts.refused(action, &frame.code);
            }
            "move" => {
                let url = (!frame.url.is_empty()).then(|| frame.url.to_string());
                self.asked = Some(Asked { within: Duration::from_millis(frame.within_ms), url });
            }
            _ => {}
        }
        Ok(())
    }

    fn verdict(&mut self, frame: &Frame<'_>) {
        let (run, granted) = (self.run, &*frame.outcome == "granted");
        let is_lasthit = run.dialect.is_lasthit();
        if is_lasthit {
            if frame.seq <= self.floor {
                return;
            }
            self.counts.audit.seen(self.contiguity, frame.from.unwrap_or(frame.seq), frame.seq);
            if granted && let Some(contest) = number(&run.tag, &frame.contest) {
                let round = Round { room: self.room, contest, round: frame.round };
                self.counts.audit.won(round, Place { era: self.era, seq: frame.seq });
            }
            // The room's joins and leaves have no id.
            let is_own = |session: &str| session == self.id || self.earlier.iter().any(|earlier| earlier == session);
            if frame.id.is_empty() || !is_own(&frame.session) {
                return;
            }
        }
        let action = self.own(&frame.id);
        if granted && !is_lasthit {
            // Others tell the claimer only that it has won, and whoever has won, again.
            let round = Round { room: self.room, contest: run.plan.action(action).contest, round: 1 };
            self.counts.audit.won(round, Place { era: 0, seq: u64::from(self.number) });
        }
        // Others have no count.
        let place = Some(frame.repeat_of.unwrap_or(frame.seq)).filter(|_| is_lasthit && &*frame.outcome != "void");
        match self.answers.decided(action, place) {
            Heard::Repeat => return,
            Heard::Answer { overtakes: true } => self.counts.audit.overtaken(),
            Heard::Answer { .. } => {}
        }
        self.counts.verdict(action, (&frame.outcome, &frame.reason), run.due(action), run.elapsed());
    }

    /// Which of this session's actions an id names; one that does not exist when it names none.
    fn own(&self, id: &str) -> u64 {
        let known = number(&self.run.tag, id).filter(|n| *n < self.run.plan.actions());
        known.filter(|n| self.run.plan.action(*n).session == self.number).unwrap_or(u64::MAX)
    }
}
