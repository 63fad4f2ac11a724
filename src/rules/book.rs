//! Which rules a room plays by.

use std::path::PathBuf;
use std::sync::Arc;

use wildmatch::WildMatch;

use super::js::{self, Checking, JsRules};
use super::{ProgramSpec, Rules};
use crate::limits::{KEEP_FAILED, PROGRAM_JOBS_PER_INSTANCE, RULES_ATTEMPTS};
use crate::types::{ProgramId, RoomId};

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
    /// The program in a file, if that decides.
    file: Option<FileRules>,
    /// The number of the push that the rules came with; 0 for rules that are not pushed.
    push: u64,
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

/// A program in a file, as it is configured.
#[derive(Debug, Clone)]
pub(crate) struct FileRules {
    /// Where the file is.
    pub(crate) path: PathBuf,
    /// What decides now.
    pub(crate) program: Arc<js::Program>,
    pub(crate) checking: Checking,
}

impl FileRules {
    /// Rules of a new room.
    pub(crate) fn new_room(&self) -> Box<dyn Rules> {
        Box::new(JsRules::new(self.program.clone(), self.checking))
    }

    /// The same with another text.
    ///
    /// # Errors
    /// One line: when that is no program.
    pub(crate) fn with_text(&self, text: &[u8]) -> Result<Self, String> {
        let program = js::Program::load(self.program.file(), text, self.program.budget());
        let program = program.map_err(|error| error.to_string())?;
        Ok(Self { program, path: self.path.clone(), checking: self.checking })
    }
}

/// Gives the rules of programs by their text, whichever was recorded.
pub(crate) trait Library: Send + Sync {
    /// New rules by this program, for a room whose rules are configured so.
    ///
    /// # Errors
    /// When it is not read yet, or not there.
    fn open(&self, room: &RoomId, program: ProgramId) -> Result<Box<dyn Rules>, Unopened>;
}

/// Why a program cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// It is to be read first.
    Unread,
    /// One line.
    Failed(String),
}

/// No program but those of the configuration.
#[cfg(test)]
pub(crate) struct NoLibrary;

#[cfg(test)]
impl Library for NoLibrary {
    fn open(&self, _room: &RoomId, program: ProgramId) -> Result<Box<dyn Rules>, Unopened> {
        Err(Unopened::Failed(format!("the program {program} is not there")))
    }
}

/// Which permits the jobs of a room need. Programs have permits of their own, so that no other room waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Crew {
    /// Rules inside the worker.
    #[default]
    Inside,
    /// Programs in files.
    Files,
    /// A program outside: its number, and how many of its jobs run at once.
    Process { number: usize, jobs: usize },
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

impl Page {
    /// A page that says nothing yet.
    fn new(pattern: &str) -> Self {
        Self { pattern: Pattern::new(pattern), make: None, program: None, keep: Keep::default(), file: None, push: 0 }
    }

    fn decided_by(&mut self, file: FileRules) {
        let made = file.clone();
        self.make = Some(Arc::new(move || made.new_room()));
        self.file = Some(file);
    }
}

impl std::fmt::Debug for RulesBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RulesBook").field(&self.patterns()).finish()
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
        self.pages.push(Page { make: Some(make), ..Page::new(pattern) });
        self
    }

    /// Adds rules for the rooms whose names match `pattern`: a program decides. The worker starts it, or waits for it.
    #[must_use]
    pub fn program(mut self, pattern: &str, program: ProgramSpec) -> Self {
        self.pages.push(Page { program: Some(program), ..Page::new(pattern) });
        self
    }

    /// The same book, whose last pattern keeps so much.
    pub(crate) fn keeping(mut self, keep: Keep) -> Self {
        if let Some(page) = self.pages.last_mut() {
            page.keep = keep;
        }
        self
    }

    /// Adds a program in a file.
    #[must_use]
    pub(crate) fn file(mut self, pattern: &str, file: FileRules) -> Self {
        let mut page = Page::new(pattern);
        page.decided_by(file);
        self.pages.push(page);
        self
    }

    /// The rules as they come with a push.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_push(mut self, push: u64) -> Self {
        self.pages.iter_mut().for_each(|page| page.push = push);
        self
    }

    /// The programs in files, by pattern.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &FileRules)> {
        self.pages.iter().filter_map(|page| Some((page.pattern.0.as_str(), page.file.as_ref()?)))
    }

    /// The program in a file that decides this room.
    pub(crate) fn file_of(&self, room: &RoomId) -> Option<&FileRules> {
        self.page(room)?.file.as_ref()
    }

    /// Sets the program of a pattern, as it was pushed.
    pub(crate) fn set_file(&mut self, pattern: &str, program: Arc<js::Program>, push: u64) {
        for page in self.pages.iter_mut().filter(|page| page.pattern.0 == pattern) {
            if let Some(file) = page.file.take() {
                page.decided_by(FileRules { program: program.clone(), ..file });
                page.push = push;
            }
        }
    }

    /// The number of the push that a new room begins with.
    pub(crate) fn push_of(&self, room: &RoomId) -> u64 {
        self.page(room).map_or(0, |page| page.push)
    }

    /// The same for a pattern.
    pub(crate) fn push_of_pattern(&self, pattern: &str) -> u64 {
        self.pages.iter().find(|page| page.pattern.0 == pattern).map_or(0, |page| page.push)
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
        let Some(number) = self.at(room) else { return Crew::Inside };
        match &self.pages[number] {
            Page { program: Some(program), .. } => {
                Crew::Process { number, jobs: program.instances.max(1) * PROGRAM_JOBS_PER_INSTANCE }
            }
            Page { file: Some(_), .. } => Crew::Files,
            _ => Crew::Inside,
        }
    }

    /// How much of its past a room keeps.
    pub(crate) fn keep_of(&self, room: &RoomId) -> Keep {
        self.page(room).map_or_else(Keep::default, |page| page.keep)
    }

    /// The pattern that a room matches.
    pub(crate) fn pattern_of(&self, room: &RoomId) -> Option<&str> {
        self.page(room).map(|page| page.pattern.0.as_str())
    }

    /// New rules for a room; None when no pattern matches.
    #[must_use]
    pub fn rules_for(&self, room: &RoomId) -> Option<Box<dyn Rules>> {
        self.page(room)?.make.as_ref().map(|make| make())
    }

    /// What makes the rules of a new room.
    pub(crate) fn factory_of(&self, room: &RoomId) -> Option<RulesFactory> {
        self.page(room)?.make.clone()
    }

    fn page(&self, room: &RoomId) -> Option<&Page> {
        self.at(room).map(|at| &self.pages[at])
    }

    fn at(&self, room: &RoomId) -> Option<usize> {
        self.pages.iter().position(|page| page.pattern.matches(room))
    }
}
