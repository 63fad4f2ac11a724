//! `[[rooms]]`: rules by room name.

use super::sources::Sources;
use crate::limits::NAME_BYTES_MAX;
use crate::rules::{RulesBook, claim::Claim, last_hit::LastHit};
use crate::types::Audience;

/// The built-in rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesChoice {
    /// The hit that takes a target's last points wins.
    LastHit,
    /// The first to claim a key has it.
    Claim {
        /// Who sees the verdicts.
        audience: Audience,
    },
}

/// Rules for the rooms whose names match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRules {
    /// `*` is any run of characters, `?` is one.
    pub pattern: String,
    /// The rules of these rooms.
    pub rules: RulesChoice,
}

/// The rules when none are configured.
pub(super) fn defaults() -> Vec<RoomRules> {
    let page = |pattern: &str, rules| RoomRules { pattern: pattern.to_owned(), rules };
    vec![
        page("load-*", RulesChoice::Claim { audience: Audience::Session }),
        page("claim-*", RulesChoice::Claim { audience: Audience::Room }),
        page("*", RulesChoice::LastHit),
    ]
}

pub(super) fn book(rooms: &[RoomRules]) -> RulesBook {
    rooms.iter().fold(RulesBook::new(), |book, room| match room.rules.clone() {
        RulesChoice::LastHit => book.room(&room.pattern, LastHit::new),
        RulesChoice::Claim { audience } => book.room(&room.pattern, move || Claim::new(audience.clone())),
    })
}

/// The file's tables; None if there are none. Mistakes are reported.
pub(super) fn read(from: &mut Sources<'_>) -> Option<Vec<RoomRules>> {
    let (value, path) = from.rooms()?;
    let Some(tables) = value.as_array().filter(|tables| !tables.is_empty() && tables.iter().all(toml::Value::is_table)) else {
        from.mistake(format!("{path}, rooms: is not a list of tables: write each as [[rooms]] with pattern and rules"));
        return None;
    };
    let mut rooms: Vec<RoomRules> = Vec::new();
    for (at, table) in tables.iter().filter_map(toml::Value::as_table).enumerate() {
        let place = format!("{path}, rooms number {}", at + 1);
        match page(table) {
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

fn page(table: &toml::Table) -> Result<RoomRules, Vec<String>> {
    let mut problems: Vec<String> = table
        .keys()
        .filter(|key| !["pattern", "rules", "audience"].contains(&key.as_str()))
        .map(|key| format!("{key:?} is not a setting: use pattern, rules, audience"))
        .collect();
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
    let rules = match word("rules").as_deref() {
        Some("claim") => RulesChoice::Claim { audience: audience.unwrap_or(Audience::Room) },
        Some("last_hit") => {
            if table.contains_key("audience") {
                problems.push("audience is for rules = \"claim\" only: remove it".to_owned());
            }
            RulesChoice::LastHit
        }
        other => {
            problems.push(format!("rules {:?} are not known: use last_hit or claim", other.unwrap_or_default()));
            RulesChoice::LastHit
        }
    };
    if problems.is_empty() { Ok(RoomRules { pattern, rules }) } else { Err(problems) }
}
