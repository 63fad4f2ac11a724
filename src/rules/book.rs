//! Which rules a room plays by.

use std::sync::Arc;

use wildmatch::WildMatch;

use super::{ProgramSpec, Rules};
use crate::limits::{KEEP_FAILED, PROGRAM_JOBS_PER_INSTANCE, RULES_ATTEMPTS};
use crate::types::RoomId;

/// Makes the rules of a new room.
pub type RulesFactory = Arc<dyn Fn() -> Box<dyn Rules> + Send + Sync>;

/// Rules by room name pattern (`*` any run of characters, `?` one); the first that matches counts.
#[derive(Clone, Default)]
pub struct RulesBook {
    pages: Vec<Page>,
}

#[derive(Clone)]
struct Page {
    pattern: Pattern,
    /// None for a program that is not started yet.
    make: Option<RulesFactory>,
    program: Option<ProgramSpec>,
    keep: Keep,
}

/// How often the rooms of a pattern try an event, and how much of their past they keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Attempts at an event that ends its worker, or that no instance of its program decides. After them it is void.
    pub attempts: u32,
    /// The most resolved verdicts of a room that the journal keeps, if there is such a bound.
    pub done: Option<u64>,
    /// The most failed events of all its rooms that the journal keeps. None is kept with 0.
    pub failed: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { attempts: RULES_ATTEMPTS, done: None, failed: KEEP_FAILED }
    }
}

/// Which permits the jobs of a room need. Rooms of a program have permits of their own, so that no other room waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Crew {
    /// 0 for the rules inside the worker, otherwise the program's number.
    pub(crate) number: usize,
    /// How many jobs of a program run at once.
    pub(crate) jobs: usize,
}

/// Room names: `*` is any run of characters, `?` one.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(String, WildMatch);

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_owned(), WildMatch::new(pattern))
    }

    pub(crate) fn matches(&self, room: &RoomId) -> bool {
        self.1.matches(room.as_str())
    }
}

impl RulesBook {
    /// A book without rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds rules for the rooms whose names match `pattern`.
    #[must_use]
    pub fn room<R: Rules>(mut self, pattern: &str, make: impl Fn() -> R + Send + Sync + 'static) -> Self {
        let make: RulesFactory = Arc::new(move || Box::new(make()));
        self.pages.push(Page { pattern: Pattern::new(pattern), make: Some(make), program: None, keep: Keep::default() });
        self
    }

    /// Adds rules for the rooms whose names match `pattern`: a program decides. The worker starts it, or waits for it.
    #[must_use]
    pub fn program(mut self, pattern: &str, program: ProgramSpec) -> Self {
        self.pages.push(Page { pattern: Pattern::new(pattern), make: None, program: Some(program), keep: Keep::default() });
        self
    }

    /// The same book, whose last pattern keeps so much.
    pub(crate) fn keeping(mut self, keep: Keep) -> Self {
        if let Some(page) = self.pages.last_mut() {
            page.keep = keep;
        }
        self
    }

    /// The book with its programs started: `start` is called for each, and returns what makes its rooms' rules.
    pub(crate) fn with_programs<R: Rules, E, M: Fn() -> R + Send + Sync + 'static>(
        mut self,
        mut start: impl FnMut(&ProgramSpec) -> Result<M, E>,
    ) -> Result<Self, E> {
        for page in &mut self.pages {
            if let (None, Some(program)) = (&page.make, &page.program) {
                let make = start(program)?;
                page.make = Some(Arc::new(move || Box::new(make())));
            }
        }
        Ok(self)
    }

    /// Only what decides this room.
    pub(crate) fn of_room(mut self, room: &RoomId) -> Self {
        let at = self.at(room);
        self.pages = at.map(|at| self.pages.swap_remove(at)).into_iter().collect();
        self
    }

    /// The patterns of the rooms that it has rules for.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        self.pages.iter().map(|page| page.pattern.0.clone()).collect()
    }

    /// Whether a pattern matches.
    #[must_use]
    pub fn knows(&self, room: &RoomId) -> bool {
        self.at(room).is_some()
    }

    /// Which permits the jobs of a room need.
    pub(crate) fn crew_of(&self, room: &RoomId) -> Crew {
        let program = self.at(room).and_then(|at| Some((at, self.pages[at].program.as_ref()?)));
        program.map_or(Crew::default(), |(at, program)| Crew {
            number: at + 1,
            jobs: program.instances.max(1) * PROGRAM_JOBS_PER_INSTANCE,
        })
    }

    /// How much of its past a room keeps.
    pub(crate) fn keep_of(&self, room: &RoomId) -> Keep {
        self.at(room).map_or_else(Keep::default, |at| self.pages[at].keep)
    }

    /// The pattern that a room matches.
    pub(crate) fn pattern_of(&self, room: &RoomId) -> Option<&str> {
        self.at(room).map(|at| self.pages[at].pattern.0.as_str())
    }

    /// New rules for a room; None when no pattern matches.
    #[must_use]
    pub fn rules_for(&self, room: &RoomId) -> Option<Box<dyn Rules>> {
        self.at(room).and_then(|at| self.pages[at].make.as_ref()).map(|make| make())
    }

    fn at(&self, room: &RoomId) -> Option<usize> {
        self.pages.iter().position(|page| page.pattern.matches(room))
    }
}
