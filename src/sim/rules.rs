//! The rules of the simulated rooms: `hit` is a race for a contest, `next` starts its next round, `note` is for the sender, `fail`
//! fails. `arm` sets a timer that starts a contest's next round, perhaps again and again; `stop` cancels it. `tick` sets one that
//! repeats a few times.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;

use crate::rules::{Act, Decision, Due, Facts, Failure, Fingerprint, Happening, Library, Rules, RulesBook, Unopened, What, When};
use crate::types::{Audience, ProgramId, RoomId};

/// After so many fires the repeating timer is cancelled.
const TICKS: u8 = 5;
/// The name of the repeating timer.
pub(super) const TICK: &str = "tick";

#[derive(Debug, Default)]
pub(super) struct Race {
    pub(super) won: BTreeSet<String>,
    pub(super) slow: bool,
    pub(super) ticks: u8,
    /// Which push it came with: each decides a little otherwise.
    pub(super) edition: u64,
}

impl Race {
    /// The rules of a room, as they come with a push.
    pub(super) fn of(room: &RoomId, edition: u64) -> Self {
        Self { slow: room.as_str().starts_with("slow"), edition, ..Self::default() }
    }

    /// Every fourth edition does not take over what was before it.
    pub(super) fn is_refused(edition: u64) -> bool {
        edition % 4 == 3
    }
}

/// The book of a push.
pub(super) fn book(push: u64) -> RulesBook {
    let slow = move || Race { slow: true, edition: push, ..Race::default() };
    RulesBook::new().room("slow*", slow).room("*", move || Race { edition: push, ..Race::default() }).with_push(push)
}

/// The editions of the rules. Each is to be read before it is opened.
#[derive(Debug, Default)]
pub(super) struct Editions(Mutex<BTreeSet<ProgramId>>);

impl Editions {
    pub(super) fn read(&self, program: ProgramId) {
        self.0.lock().insert(program);
    }
}

/// Opens an edition.
pub(super) fn open(room: &RoomId, program: ProgramId) -> Box<dyn Rules> {
    Box::new(Race::of(room, u64::try_from(program.0 - 1).expect("a push")))
}

impl Library for Editions {
    fn open(&self, room: &RoomId, program: ProgramId) -> Result<Box<dyn Rules>, Unopened> {
        if self.0.lock().contains(&program) { Ok(open(room, program)) } else { Err(Unopened::Unread) }
    }
}

/// What a verdict says of timers: the name, after how many nanoseconds it is due (0: it is cancelled), and whether it repeats.
pub(super) type Said = (String, u64, bool);

fn arm(decision: Decision, name: &str, facts: &Facts, again: u8, edition: u64) -> Decision {
    let ms = 16 + facts.random(0) % 45 + edition % 5;
    let said: Said = (name.to_owned(), ms * 1_000_000, false);
    decision.timer(name, When::After(Duration::from_millis(ms)), &again).body(&said)
}

impl Rules for Race {
    fn name(&self) -> &str {
        "race"
    }

    fn version(&self) -> u32 {
        1 + u32::try_from(self.edition / 2).expect("few pushes")
    }

    fn program(&self) -> ProgramId {
        ProgramId(u128::from(self.edition) + 1)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(Fingerprint { engine: 1, state: xxhash_rust::xxh3::xxh3_64(&self.snapshot()) })
    }

    fn take_over(&mut self, version: u32, state: &[u8], _facts: Facts) -> Result<(), Failure> {
        match Self::is_refused(self.edition) {
            true => Err(Failure { error: "as it must".to_owned(), stack: Vec::new() }),
            false => self.restore(version, state).map_err(|error| Failure { error, stack: Vec::new() }),
        }
    }

    fn is_quick(&self) -> bool {
        !self.slow
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        match event.what {
            What::Data(Act { op: "hit", contest: Some(contest), .. }) if self.won.contains(contest) => Decision::late(contest),
            What::Data(Act { op: "hit", contest: Some(contest), .. }) => {
                self.won.insert(contest.to_owned());
                Decision::won(contest)
            }
            What::Data(Act { op: "next", contest: Some(contest), .. }) if self.won.remove(contest) => {
                Decision::granted().about(contest).next_round()
            }
            What::Data(Act { op: "arm", contest: Some(contest), .. }) => {
                // Some go on for longer than timers may keep an empty room.
                let again = [0, 0, 1, 3, 40][(event.facts.random(1) % 5) as usize];
                arm(
                    Decision::granted().to(Audience::Players([event.player.clone()].into())),
                    contest,
                    &event.facts,
                    again,
                    self.edition,
                )
            }
            What::Data(Act { op: "stop", contest: Some(contest), .. }) => {
                let said: Said = (contest.to_owned(), 0, false);
                Decision::granted().cancel(contest).body(&said)
            }
            What::Data(Act { op: "tick", .. }) => {
                self.ticks = 0;
                let ms = 16 + event.facts.random(0) % 20;
                let said: Said = (TICK.to_owned(), ms * 1_000_000, true);
                Decision::granted().timer(TICK, When::Every(Duration::from_millis(ms)), &()).body(&said)
            }
            What::Data(Act { op: "fail", .. }) => Decision::failed("on purpose".to_owned(), vec!["at fail".to_owned()]),
            What::Data(_) => Decision::denied("noted").to(Audience::Session),
            _ => Decision::granted(),
        }
    }

    fn fire(&mut self, timer: &Due<'_>) -> Decision {
        if timer.name == TICK {
            self.ticks += 1;
            let said: Said = (TICK.to_owned(), 0, false);
            let decision = Decision::granted().to(Audience::Server);
            return if self.ticks < TICKS { decision } else { decision.cancel(TICK).body(&said) };
        }
        let decision = match self.won.remove(timer.name) {
            true => Decision::granted().about(timer.name).next_round(),
            false => Decision::denied("nothing_to_do"),
        };
        match timer.data {
            [0] => decision,
            data => arm(decision, timer.name, &timer.facts, data[0] - 1, self.edition),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let won = self.won.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        [&[self.ticks], won.as_bytes()].concat()
    }

    fn restore(&mut self, _version: u32, bytes: &[u8]) -> Result<(), String> {
        let (ticks, won) = bytes.split_first().ok_or("no state")?;
        let text = std::str::from_utf8(won).map_err(|e| e.to_string())?;
        self.ticks = *ticks;
        self.won = text.split_whitespace().map(str::to_owned).collect();
        Ok(())
    }
}
