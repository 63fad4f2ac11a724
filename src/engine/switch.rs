//! Which program decides a room, and the change to another one: a verdict of its own, between two events (rule P2).

use super::decided::Record;
use super::room::{Known, RULES_FAILED, Room};
use crate::rules::{Failure, Fault, Rules};
use crate::types::{Change, Failed, Incarnation, Moment, Outcome, ProgramId, Stamp, Verdict, VerdictKind};

impl Room {
    /// The number of the last push that reached the room.
    pub(crate) fn push(&self) -> u64 {
        self.push
    }

    /// The push that a new room begins with.
    pub(crate) fn take_push(&mut self, push: u64) {
        self.push = push;
    }

    /// The record says which program decides what follows. A room in which nothing was resolved yet begins with it.
    ///
    /// # Errors
    /// When it is not there, or another one than the room's.
    pub(crate) fn is_decided_by(
        &mut self,
        program: ProgramId,
        push: u64,
        open: impl FnOnce(ProgramId) -> Result<Box<dyn Rules>, String>,
    ) -> Result<(), String> {
        if self.rules.program() != program {
            if self.seq > 0 {
                return Err(format!(
                    "verdict {} was decided by the program {program}, the room has {}",
                    self.seq + 1,
                    self.rules.program()
                ));
            }
            self.rules = open(program)?;
            self.rules.follow(self.follows);
        }
        self.push = push;
        Ok(())
    }

    /// Says so if the state is another than the record's.
    pub(crate) fn differs(&self, record: &Record) -> Option<String> {
        let Record::File { fingerprint: Some(recorded), .. } = record else { return None };
        let now = self.rules.fingerprint().filter(|now| now.state != recorded.state)?;
        let engine = if now.engine == recorded.engine { "" } else { ", in another engine" };
        Some(format!("the program's state after it is another than it was then{engine}"))
    }

    /// Names the next change.
    pub(crate) fn change_name(&self, push: u64) -> Stamp {
        // No event and no fire has a stamp of this timeline.
        let moment = Moment { timeline: u32::MAX, ns: push };
        Stamp { moment, incarnation: Incarnation::NONE, ordinal: self.seq.saturating_add(1) }
    }

    /// Whether what is resolved from here on is recorded already.
    pub(crate) fn follow(&mut self, recorded: bool) {
        self.follows = recorded;
        self.rules.follow(recorded);
    }

    /// Changes to another version of the room's program. What comes of it is a verdict: if `next` does not take over the room's state, it
    /// is void, and the program before goes on. None if nothing changes: it is the same text, or nothing was resolved yet.
    ///
    /// # Panics
    /// As [`Room::resolve`].
    pub(crate) fn change_to(&mut self, push: u64, next: Box<dyn Rules>, known: Option<Known<'_>>) -> Option<Verdict> {
        if self.seq == 0 || next.program() == self.rules.program() {
            self.begin_again(push, next);
            return None;
        }
        let change = Change {
            program: next.program(),
            push,
            name: next.name().to_owned(),
            version: next.version(),
            from: self.rules.version(),
        };
        let void = self.void_if_known(known);
        Some(self.changed(change, Some(next), void))
    }

    /// Changes to a later version of the program outside that decides, if that runs by now.
    ///
    /// # Errors
    /// When it does not take over the room's state: the room rests.
    pub(crate) fn change_outside(&mut self) -> Result<Option<Verdict>, Fault> {
        let Some(process) = self.rules.as_process() else { return Ok(None) };
        let Some(from) = process.catch_up()?.filter(|_| self.seq > 0) else { return Ok(None) };
        let (name, version) = (self.rules.name().to_owned(), self.rules.version());
        self.migrated = true;
        let change = Change { program: ProgramId::NONE, push: self.push, name, version, from };
        Ok(Some(self.changed(change, None, None)))
    }

    /// The same as the record says, which has the state after it.
    ///
    /// # Errors
    /// When it has not, or another kind of rules decides the room now.
    pub(crate) fn change_outside_again(&mut self, change: &Change, record: Option<&Record>) -> Result<Verdict, String> {
        let state = match record {
            Some(Record::Outside { state: Some(state), .. }) => state,
            _ => return Err(format!("the record has no state of {} version {}", change.name, change.version)),
        };
        let process = self.rules.as_process().ok_or("a program outside decided it, the configuration says otherwise")?;
        process.take_up(&change.name, change.version, state)?;
        Ok(self.changed(change.clone(), None, None))
    }

    /// Changes as the record says. A recorded change that was void changes nothing again.
    ///
    /// # Errors
    /// When `next` does not take over the state now, but did.
    pub(crate) fn change_again(&mut self, change: &Change, next: Option<Box<dyn Rules>>) -> Result<Verdict, String> {
        let (void, failures) = (next.is_none().then(|| Outcome::Void(RULES_FAILED.to_owned())), self.failures.len());
        let verdict = self.changed(change.clone(), next, void);
        match self.failures.get(failures) {
            Some(Failed { seq, error, .. }) => {
                Err(format!("verdict {seq}: {} does not take over the state now: {error}", change.name))
            }
            None => Ok(verdict),
        }
    }

    /// The room has the text already: only the budget may be another.
    fn begin_again(&mut self, push: u64, mut next: Box<dyn Rules>) {
        if self.seq == 0 || next.restore(self.rules.version(), &self.rules.snapshot()).is_ok() {
            self.rules = next;
        }
        self.push = push;
    }

    fn changed(&mut self, change: Change, next: Option<Box<dyn Rules>>, void: Option<Outcome>) -> Verdict {
        self.seq = self.seq.saturating_add(1);
        let stamp = Stamp { moment: self.last, incarnation: Incarnation::NONE, ordinal: self.seq };
        self.push = change.push;
        let mut verdict = Verdict::granted(self.seq, stamp, VerdictKind::Rules);
        verdict.outcome = match (void, next) {
            (None, Some(next)) => self.take_over(next).map_or_else(
                |failure| {
                    self.failing = Some(failure);
                    Outcome::Void(RULES_FAILED.to_owned())
                },
                |()| Outcome::Granted,
            ),
            (void, _) => void.unwrap_or(Outcome::Granted),
        };
        verdict.change = Some(Box::new(change));
        self.keep_failed(&verdict, None, None);
        verdict
    }

    pub(super) fn take_over(&mut self, mut next: Box<dyn Rules>) -> Result<(), Failure> {
        let (from, state) = (self.rules.version(), self.rules.snapshot());
        let fault = |error: String| Err(Failure { error, stack: Vec::new() });
        if next.name() != self.rules.name() {
            return fault(format!(
                "the room is decided by {:?}, the program is {:?}: give it the same name",
                self.rules.name(),
                next.name()
            ));
        }
        if next.version() < from {
            return fault(format!(
                "the room is decided by version {from}, the program is of version {}: raise it",
                next.version()
            ));
        }
        let (facts, recorded) = (self.facts(), self.follows);
        next.follow(recorded);
        next.take_over(from, &state, facts)?;
        self.rules = next;
        Ok(())
    }
}
