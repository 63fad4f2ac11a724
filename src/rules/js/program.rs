//! A program: rules in one file, checked, and shared by all rooms that play by it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::budget::{Budget, Measure};
use super::scan;
use super::thrown::Thrown;
use super::vm::{Described, Vm};
use crate::limits::PROGRAM_BYTES_MAX;
use crate::types::{ProgramId, check_program_name};

/// The text of a program, and what it may take.
#[derive(Debug)]
pub(super) struct Source {
    /// The file's name, without its folder.
    pub(super) file: String,
    pub(super) text: String,
    pub(super) budget: Budget,
}

/// Rules in one file.
#[derive(Debug)]
pub struct Program {
    pub(super) source: Source,
    described: Described,
    id: ProgramId,
    /// The state of a new room.
    pub(super) initial: Bytes,
    /// Whether handlers ask how many sessions a player has. To count them takes time, so that it is done once somebody has asked.
    pub(super) asks_for_sessions: AtomicBool,
}

/// Whether they decide the same, in the same budget.
impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.source.file == other.source.file && self.source.budget == other.source.budget
    }
}

impl Eq for Program {}

/// Why a file is no program. It reads `file:line:column: what, and the way out`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {what}")]
pub struct ProgramError {
    /// The file's name.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// One line: what is wrong, and the way out.
    pub what: String,
}

/// Endings of files that are programs, and in another language.
const OTHER: [&str; 10] = ["py", "pl", "rb", "lua", "php", "go", "rs", "java", "cs", "sh"];

/// The endings of TypeScript's files.
const TYPESCRIPT: [&str; 4] = ["ts", "tsx", "mts", "cts"];

impl Program {
    /// Reads a program of at most 1 MiB of UTF-8, and checks it: it is evaluated once, and makes the state of a new room.
    ///
    /// # Errors
    /// [`ProgramError`] with the first mistake.
    pub fn load(file: &str, text: &[u8], budget: Budget) -> Result<Arc<Self>, ProgramError> {
        let name = Path::new(file).file_name().map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned());
        let wrong = |(line, column): (u32, u32), what: String| ProgramError { file: name.clone(), line, column, what };
        let bundle = || {
            let stem = Path::new(&name).file_stem().map_or_else(|| "rules".into(), |stem| stem.to_string_lossy());
            format!("npx esbuild {name} --bundle --format=esm --outfile={stem}.bundled.js")
        };
        let ending = Path::new(&name).extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
        if TYPESCRIPT.contains(&ending.as_str()) {
            return Err(wrong((1, 1), format!("TypeScript is bundled to JavaScript first: {}, and use that file", bundle())));
        }
        if OTHER.contains(&ending.as_str()) {
            return Err(wrong(
                (1, 1),
                "a file of rules is JavaScript; a program in another language is a process: see docs/rules-protocol.md"
                    .to_owned(),
            ));
        }
        if text.len() > PROGRAM_BYTES_MAX {
            return Err(wrong(
                (1, 1),
                format!("{} bytes, a program has at most {PROGRAM_BYTES_MAX}: leave something out", text.len()),
            ));
        }
        let text = std::str::from_utf8(text).map_err(|e| {
            let valid = String::from_utf8_lossy(&text[..e.valid_up_to()]);
            wrong(scan::place(&valid, valid.len()), "a byte that is not UTF-8: save the file as UTF-8".to_owned())
        })?;
        if let Some(at) = text.find('\0') {
            return Err(wrong(scan::place(text, at), "a zero byte: the file is no text".to_owned()));
        }
        let source = Source { file: name.clone(), text: text.to_owned(), budget: budget.bounded() };
        let place = |thrown: Thrown| {
            if thrown.what.contains("could not load module") {
                let place = scan::import(text).map_or((1, 1), |at| scan::place(text, at));
                return wrong(place, format!("a program is one file and imports nothing: {}, and use that file", bundle()));
            }
            let of_part = thrown.part.as_deref().and_then(|part| scan::part(text, part));
            let place = of_part.map(|at| scan::place(text, at)).or(thrown.place);
            wrong(place.unwrap_or_else(|| scan::place(text, scan::default_export(text))), thrown.what)
        };
        let (vm, described) = Vm::new(&source, Measure::Budget).map_err(place)?;
        let at_part = |part: &str| scan::part(text, part).map_or((1, 1), |at| scan::place(text, at));
        if let Err(error) = check_program_name(&described.name) {
            return Err(wrong(at_part("name"), error.to_string()));
        }
        if let Some((name, at)) = scan::twice(text) {
            return Err(wrong(
                scan::place(text, at),
                format!("{name} is there twice, and only the last one would count: remove one"),
            ));
        }
        let initial = vm
            .initial(&source)
            .map_err(|thrown| Thrown { part: thrown.place.is_none().then(|| "state".to_owned()), ..thrown })
            .map_err(place)?;
        let id = ProgramId::of(source.text.as_bytes());
        Ok(Arc::new(Self { source, described, id, initial: initial.into(), asks_for_sessions: AtomicBool::new(false) }))
    }

    /// Its name, which snapshots record.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.described.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.described.version
    }

    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.file
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// Bytes of the state of a new room.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.initial.len()
    }

    /// Names its text.
    #[must_use]
    pub fn id(&self) -> ProgramId {
        self.id
    }

    /// The actions that have a handler of their own.
    #[must_use]
    pub fn ops(&self) -> &[String] {
        &self.described.ops
    }

    /// The timers that have a handler.
    #[must_use]
    pub fn timers(&self) -> &[String] {
        &self.described.timers
    }

    /// The socket events that have a handler, by its name, such as `onOpen`.
    #[must_use]
    pub fn events(&self) -> &[&'static str] {
        &self.described.events
    }

    /// Whether it takes over the state of other versions.
    #[must_use]
    pub fn migrates(&self) -> bool {
        self.described.migrates
    }

    /// What it may take.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.source.budget
    }

    /// What it exports as `tests`: one MessagePack value of at most 1 MiB. None if it exports nothing of this name.
    ///
    /// # Errors
    /// [`ProgramError`] when that is no plain data.
    pub fn tests(&self) -> Result<Option<Vec<u8>>, ProgramError> {
        let tests = Vm::new(&self.source, Measure::Budget).and_then(|(vm, _)| vm.tests(&self.source));
        tests.map_err(|thrown| self.wrong_test(None, None, thrown.what))
    }

    /// What is wrong with its tests, with one of them, or with a step of that (from 1). The place is the nearest that is found.
    pub(crate) fn wrong_test(&self, scenario: Option<&str>, step: Option<usize>, what: String) -> ProgramError {
        let text = &self.source.text;
        let of_step = scenario.zip(step).and_then(|(scenario, step)| scan::step(text, scenario, step));
        let at = of_step.or_else(|| scan::tests(text, scenario)).or_else(|| scan::tests(text, None)).unwrap_or_default();
        let (line, column) = scan::place(text, at);
        ProgramError { file: self.source.file.clone(), line, column, what }
    }

    /// A failure in one line, with its place.
    pub(super) fn told(&self, thrown: &Thrown) -> String {
        match thrown.place {
            Some((line, column)) => format!("{}:{line}:{column}: {}", self.source.file, thrown.what),
            None => format!("{}: {}", self.source.file, thrown.what),
        }
    }
}
