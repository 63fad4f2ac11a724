//! `[[rooms]]`: rules by room name.

use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::outside;
use super::sources::Sources;
use crate::limits::{
    BUDGET_MS_MAX, KEEP_DONE_MAX, KEEP_DONE_MIN, KEEP_FAILED_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN, NAME_BYTES_MAX,
    PROGRAM_BYTES_MAX, RULES_ATTEMPTS_MAX, STACK_KIB_MAX, STACK_KIB_MIN, STACK_LINES_MAX,
};
use crate::rules::js::{Budget, Checking, Program};
use crate::rules::{FileRules, Keep, ProgramSpec, RulesBook, claim::Claim, last_hit::LastHit};
use crate::types::Audience;

/// Which rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesChoice {
    /// The hit that takes a target's last points wins.
    LastHit,
    /// The first to claim a key has it.
    Claim {
        /// Who sees the verdicts.
        audience: Audience,
    },
    /// A program in one file, and where that is.
    File(Arc<Program>, PathBuf),
    /// A program outside decides.
    Program(ProgramSpec),
}

/// Rules for the rooms whose names match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRules {
    /// `*` is any run of characters, `?` is one.
    pub pattern: String,
    /// The rules of these rooms.
    pub rules: RulesChoice,
    /// How often they try an event, and how much they keep.
    pub keep: Keep,
}

/// The rules when none are configured.
pub(super) fn defaults() -> Vec<RoomRules> {
    let page = |pattern: &str, rules| RoomRules { pattern: pattern.to_owned(), rules, keep: Keep::default() };
    vec![
        page("load-*", RulesChoice::Claim { audience: Audience::Session }),
        page("claim-*", RulesChoice::Claim { audience: Audience::Room }),
        page("*", RulesChoice::LastHit),
    ]
}

pub(super) fn book(rooms: &[RoomRules], checking: Checking) -> RulesBook {
    rooms.iter().fold(RulesBook::new(), |book, room| {
        let book = match room.rules.clone() {
            RulesChoice::LastHit => book.room(&room.pattern, LastHit::new),
            RulesChoice::Claim { audience } => book.room(&room.pattern, move || Claim::new(audience.clone())),
            RulesChoice::File(program, path) => book.file(&room.pattern, FileRules { path, program, checking }),
            RulesChoice::Program(program) => book.program(&room.pattern, program),
        };
        book.keeping(room.keep)
    })
}

/// The rules when one program decides all rooms.
pub(super) fn all_by(program: Arc<Program>, path: PathBuf) -> Vec<RoomRules> {
    vec![RoomRules { pattern: "*".to_owned(), rules: RulesChoice::File(program, path), keep: Keep::default() }]
}

/// Reads the text of a program.
pub(crate) fn program_text(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    // A byte more than fits, so that what is too large is told as such.
    let file = std::fs::File::open(path).and_then(|file| file.take(PROGRAM_BYTES_MAX as u64 + 1).read_to_end(&mut text));
    file.map_err(|e| format!("cannot be read ({e}): name a file with rules in JavaScript"))?;
    Ok(text)
}

/// Loads a program.
pub(super) fn load(path: &Path, budget: Budget) -> Result<Arc<Program>, String> {
    let text = program_text(path)?;
    Program::load(&path.to_string_lossy(), &text, budget).map_err(|e| format!("is no program: {e}"))
}

/// The file's tables; None if there are none. Mistakes are reported.
pub(super) fn read(from: &mut Sources<'_>) -> Option<Vec<RoomRules>> {
    let (value, path) = from.rooms()?;
    let folder = from.folder();
    let Some(tables) = value.as_array().filter(|tables| !tables.is_empty() && tables.iter().all(toml::Value::is_table)) else {
        from.mistake(format!("{path}, rooms: is not a list of tables: write each as [[rooms]] with pattern and rules"));
        return None;
    };
    let mut rooms: Vec<RoomRules> = Vec::new();
    for (at, table) in tables.iter().filter_map(toml::Value::as_table).enumerate() {
        let place = format!("{path}, rooms number {}", at + 1);
        match page(table, &folder) {
            Ok(room) => {
                if let Some(earlier) = rooms.iter().find(|r| r.pattern == "*" || r.pattern == room.pattern) {
                    from.mistake(format!(
                        "{place}: pattern {:?} is never reached after {:?}: move it before that, or remove it",
                        room.pattern, earlier.pattern
                    ));
                }
                rooms.push(room);
            }
            Err(problems) => problems.into_iter().for_each(|problem| from.mistake(format!("{place}: {problem}"))),
        }
    }
    Some(rooms)
}

/// `folder` is that of the configuration: paths are relative to it.
fn page(table: &toml::Table, folder: &Path) -> Result<RoomRules, Vec<String>> {
    let mut problems = Vec::new();
    unknown(table, &["pattern", "rules", "audience", "keep_done", "keep_failed"], "", &mut problems);
    let word = |key: &str| table.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    let pattern = word("pattern").unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'*' | b'?');
    if !(1..=NAME_BYTES_MAX).contains(&pattern.len()) || !pattern.bytes().all(allowed) {
        problems.push(format!("pattern {pattern:?} matches no room: use 1 to 64 characters out of A-Z a-z 0-9 . _ - * ?"));
    }
    let audience = match word("audience").as_deref() {
        None => None,
        Some("room") => Some(Audience::Room),
        Some("sender") => Some(Audience::Session),
        Some(other) => {
            problems.push(format!("audience {other:?} is not known: use room or sender"));
            None
        }
    };
    let mut keep = Keep::default();
    if table.contains_key("keep_done") {
        keep.done = Some(whole(table, "keep_done", KEEP_DONE_MIN..=KEEP_DONE_MAX, KEEP_DONE_MIN, "", &mut problems));
    }
    keep.failed = whole(table, "keep_failed", 0..=KEEP_FAILED_MAX, keep.failed, "", &mut problems);
    if let Some(rules) = table.get("rules").and_then(toml::Value::as_table) {
        keep.attempts = whole(rules, "attempts", 1..=RULES_ATTEMPTS_MAX, keep.attempts, "rules: ", &mut problems);
        if table.contains_key("audience") {
            problems.push("audience is for rules = \"claim\" only: remove it".to_owned());
        }
        if rules.contains_key("process") || rules.contains_key("socket") {
            let rules = RulesChoice::Program(outside::read(rules, folder, &mut problems));
            return if problems.is_empty() { Ok(RoomRules { pattern, rules, keep }) } else { Err(problems) };
        }
        if !rules.contains_key("file") {
            let given: Vec<&str> = rules.keys().map(String::as_str).collect();
            problems.push(format!("rules: [{}] name no program: give file, process or socket, one of them", given.join(", ")));
            return Err(problems);
        }
        return match file(rules, folder, &mut problems) {
            Some((program, path)) if problems.is_empty() => {
                Ok(RoomRules { pattern, rules: RulesChoice::File(program, path), keep })
            }
            _ => Err(problems),
        };
    }
    let rules = match word("rules").as_deref() {
        Some("claim") => RulesChoice::Claim { audience: audience.unwrap_or(Audience::Room) },
        Some("last_hit") => {
            if table.contains_key("audience") {
                problems.push("audience is for rules = \"claim\" only: remove it".to_owned());
            }
            RulesChoice::LastHit
        }
        other => {
            let other = other.unwrap_or_default();
            problems.push(format!(
                "rules {other:?} are not known: use last_hit, claim, or a file as in {{ file = \"baron.js\" }}, or {{ process = [\"python3\", \"quiz.py\"] }}"
            ));
            RulesChoice::LastHit
        }
    };
    if problems.is_empty() { Ok(RoomRules { pattern, rules, keep }) } else { Err(problems) }
}

/// Reports the keys of a table that are no settings.
pub(super) fn unknown(table: &toml::Table, known: &[&str], place: &str, problems: &mut Vec<String>) {
    let unknown = table.keys().filter(|key| !known.contains(&key.as_str()));
    problems.extend(unknown.map(|key| format!("{place}{key:?} is not a setting: use {}", known.join(", "))));
}

/// A whole number of a table, which has to be in a range; `usual` if it is not there.
pub(super) fn whole<N: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy>(
    table: &toml::Table,
    key: &str,
    range: RangeInclusive<N>,
    usual: N,
    place: &str,
    problems: &mut Vec<String>,
) -> N {
    let Some(value) = table.get(key) else { return usual };
    let number = value.as_integer().and_then(|n| N::try_from(n).ok()).filter(|n| range.contains(n));
    number.unwrap_or_else(|| {
        problems.push(format!("{place}{key} {value} is not allowed: use a number from {} to {}", range.start(), range.end()));
        usual
    })
}

/// `{ file = "baron.js", budget_ms = 50 }`.
fn file(table: &toml::Table, folder: &Path, problems: &mut Vec<String>) -> Option<(Arc<Program>, PathBuf)> {
    unknown(table, &["file", "budget_ms", "memory_mib", "stack_kib", "stack_lines", "attempts"], "rules: ", problems);
    let mut number = |key: &str, least: u32, most: u32, usual: u32| whole(table, key, least..=most, usual, "rules: ", problems);
    let usual = Budget::default();
    let budget = Budget {
        time_ms: number("budget_ms", 1, BUDGET_MS_MAX, usual.time_ms),
        memory_mib: number("memory_mib", MEMORY_MIB_MIN, MEMORY_MIB_MAX, usual.memory_mib),
        stack_kib: number("stack_kib", STACK_KIB_MIN, STACK_KIB_MAX, usual.stack_kib),
        stack_lines: number("stack_lines", 0, STACK_LINES_MAX, usual.stack_lines),
    };
    let Some(name) = table.get("file").and_then(toml::Value::as_str).filter(|name| !name.is_empty()) else {
        problems.push("rules: file has no name: write rules = { file = \"baron.js\" }".to_owned());
        return None;
    };
    let path = folder.join(name);
    let program = load(&path, budget).map_err(|problem| problems.push(format!("file {name:?} {problem}"))).ok()?;
    Some((program, path))
}
