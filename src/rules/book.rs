//! Which rules a room plays by.

use std::sync::Arc;

use wildmatch::WildMatch;

use super::Rules;
use crate::types::RoomId;

/// Makes the rules of a new room.
pub type RulesFactory = Arc<dyn Fn() -> Box<dyn Rules> + Send + Sync>;

/// Rules by room name pattern (`*` any run of characters, `?` one); the first that matches counts.
#[derive(Clone, Default)]
pub struct RulesBook {
    pages: Vec<(Pattern, RulesFactory)>,
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
        self.pages.push((Pattern::new(pattern), Arc::new(move || Box::new(make()))));
        self
    }

    /// The patterns of the rooms that it has rules for.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        self.pages.iter().map(|(pattern, _)| pattern.0.clone()).collect()
    }

    /// Whether a pattern matches.
    #[must_use]
    pub fn knows(&self, room: &RoomId) -> bool {
        self.pages.iter().any(|(pattern, _)| pattern.matches(room))
    }

    /// New rules for a room; None when no pattern matches.
    #[must_use]
    pub fn rules_for(&self, room: &RoomId) -> Option<Box<dyn Rules>> {
        self.pages.iter().find(|(pattern, _)| pattern.matches(room)).map(|(_, make)| make())
    }
}
