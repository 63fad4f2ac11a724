//! What is done to the system while a run goes on, and what its players and further connections have of it meanwhile. Pure.
//!
//! What happened in a phase is what any of its time fell into: an action that was due before a gateway was killed, and was answered after
//! it, belongs to the kill.

use std::time::Duration;

use super::connects::Connect;
use super::moves::Moves;
use super::record::Times;

/// How a further connection ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Welcomed,
    /// Nobody listened, or the server said no.
    Refused,
    /// It ended without a word.
    Reset,
    /// It was not welcomed in any time.
    Forgotten,
}

/// One stretch of a run.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// From the start of the run.
    pub(crate) from: Duration,
    /// None while it goes on.
    pub(crate) to: Option<Duration>,
    /// How long what was done took.
    pub(crate) took: Duration,
    /// Why it was not done, or not as promised.
    pub(crate) failed: Option<String>,
    pub(crate) what: What,
    /// Of actions: from the intended send to the verdict.
    pub(crate) latency: Times,
    pub(crate) moves: Moves,
    pub(crate) connects: Connects,
}

/// What is done in a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct What {
    pub(crate) name: &'static str,
    /// Whether connections may be reset: a process that has them is killed.
    pub(crate) resets: bool,
    /// How much longer connections may take.
    pub(crate) allowance: Duration,
}

/// Nothing.
pub(crate) const OUTSIDE: What = What { name: "outside", resets: false, allowance: Duration::ZERO };

/// What became of further connections.
#[derive(Debug, Clone)]
pub(crate) struct Connects {
    pub(crate) made: u64,
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) late: u64,
    /// Why the first of those failed that were not welcomed.
    pub(crate) first: Option<String>,
    /// Of those that were welcomed: from when they were due to their welcome.
    pub(crate) times: Times,
}

impl Connects {
    fn new() -> Self {
        Self { made: 0, refused: 0, reset: 0, late: 0, first: None, times: Times::new() }
    }
}

impl Stretch {
    fn new(what: What, from: Duration) -> Self {
        Self {
            from,
            to: None,
            took: Duration::ZERO,
            failed: None,
            what,
            latency: Times::new(),
            moves: Moves::default(),
            connects: Connects::new(),
        }
    }

    fn touches(&self, from: Duration, to: Duration) -> bool {
        self.from <= to && self.to.is_none_or(|end| from < end)
    }
}

/// The phases of a run, and what is outside of all of them.
#[derive(Debug)]
pub(crate) struct Phases {
    outside: Stretch,
    all: Vec<Stretch>,
    /// From when on a connection is late.
    late_after: Duration,
}

impl Phases {
    /// None yet.
    pub(crate) fn new(late_after: Duration) -> Self {
        Self { outside: Stretch::new(OUTSIDE, Duration::ZERO), all: Vec::new(), late_after }
    }

    pub(crate) fn outside(&self) -> &Stretch {
        &self.outside
    }

    pub(crate) fn all(&self) -> &[Stretch] {
        &self.all
    }

    pub(crate) fn late_after(&self) -> Duration {
        self.late_after
    }

    /// The name of the one that goes on.
    pub(crate) fn current(&self) -> Option<&'static str> {
        self.all.last().filter(|stretch| stretch.to.is_none()).map(|stretch| stretch.what.name)
    }

    /// One begins.
    pub(crate) fn begin(&mut self, what: What, at: Duration) {
        self.all.push(Stretch::new(what, at));
    }

    /// What is done in the last one is done, or has failed.
    pub(crate) fn done(&mut self, at: Duration, failed: Option<String>) {
        if let Some(stretch) = self.all.last_mut() {
            (stretch.took, stretch.failed) = (at.saturating_sub(stretch.from), failed);
        }
    }

    /// The last one ends.
    pub(crate) fn end(&mut self, at: Duration) {
        if let Some(stretch) = self.all.last_mut() {
            stretch.to = Some(at);
        }
    }

    /// An action that was due at `due` was answered at `now`.
    pub(crate) fn answered(&mut self, due: Duration, now: Duration) {
        self.of(due, now).latency.record(now.saturating_sub(due));
    }

    /// A session changed over at `now`, after a silence.
    pub(crate) fn moved(&mut self, now: Duration, count: impl FnOnce(&mut Moves), silent: Option<Duration>) {
        count(&mut self.of(now.saturating_sub(silent.unwrap_or_default()), now).moves);
    }

    /// A further connection came to its end, or its welcome.
    pub(crate) fn connected(&mut self, Connect { at, took, how, why, .. }: Connect) {
        let late_after = self.late_after;
        let stretch = self.of(at, at + took);
        let is_late = took > late_after + stretch.what.allowance;
        let connects = &mut stretch.connects;
        connects.made += 1;
        connects.first = connects.first.take().or(why);
        match how {
            How::Welcomed => {
                connects.times.record(took);
                connects.late += u64::from(is_late);
            }
            How::Refused => connects.refused += 1,
            How::Reset => connects.reset += 1,
            How::Forgotten => connects.late += 1,
        }
    }

    /// The latest stretch that any of the time fell into.
    fn of(&mut self, from: Duration, to: Duration) -> &mut Stretch {
        self.all.iter_mut().rev().find(|stretch| stretch.touches(from, to)).unwrap_or(&mut self.outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const KILL: What = What { name: "kill", resets: true, allowance: Duration::ZERO };
    const STOP: What = What { name: "stop", resets: false, allowance: Duration::from_secs(5) };

    /// A kill from 10 s to 20 s, and a stop from 30 s on.
    fn phases() -> Phases {
        let mut phases = Phases::new(S);
        phases.begin(KILL, 10 * S);
        phases.done(15 * S, None);
        phases.end(20 * S);
        phases.begin(STOP, 30 * S);
        phases
    }

    #[test]
    fn an_action_belongs_to_the_phase_that_any_of_its_life_fell_into() {
        let mut phases = phases();
        for (due, now) in [(1, 2), (9, 10), (11, 12), (19, 21), (20, 21), (25, 29), (29, 31), (40, 41), (19, 31)] {
            phases.answered(due * S, now * S);
        }
        let counts: Vec<u64> = phases.all().iter().map(|stretch| stretch.latency.count()).collect();
        assert_eq!((phases.outside().latency.count(), counts), (3, vec![3, 3]));
        assert_eq!((phases.all()[0].took, phases.current()), (5 * S, Some("stop")));
        phases.end(50 * S);
        assert_eq!(phases.current(), None);
    }

    #[test]
    fn a_connection_is_late_by_what_its_phase_allows() {
        let mut phases = phases();
        for (at, took, how) in [
            (1, 1, How::Welcomed),
            (2, 2, How::Welcomed),
            (12, 0, How::Reset),
            (13, 2, How::Welcomed),
            (31, 6, How::Welcomed),
            (31, 7, How::Welcomed),
            (32, 0, How::Refused),
            (33, 15, How::Forgotten),
        ] {
            let why = (how != How::Welcomed).then(|| format!("{how:?} at {at}"));
            phases.connected(Connect { at: at * S, took: took * S, behind: Duration::ZERO, how, why });
        }
        assert_eq!(
            phases.all()[1].connects.first.as_deref(),
            Some("Refused at 32"),
            "the first that failed, not the first that was late"
        );
        let of = |stretch: &Stretch| {
            let Connects { made, refused, reset, late, .. } = stretch.connects;
            (made, refused, reset, late)
        };
        assert_eq!(
            (of(phases.outside()), of(&phases.all()[0]), of(&phases.all()[1])),
            ((2, 0, 0, 1), (2, 0, 1, 1), (4, 1, 0, 2))
        );
        assert_eq!(phases.all()[1].connects.times.count(), 2, "only those that were welcomed have a time");
    }

    #[test]
    fn a_silence_counts_where_it_began() {
        let mut phases = phases();
        phases.moved(21 * S, |moves| moves.followed += 1, Some(2 * S));
        phases.moved(21 * S, |moves| moves.followed += 1, None);
        assert_eq!((phases.all()[0].moves.followed, phases.outside().moves.followed), (1, 1));
    }
}
