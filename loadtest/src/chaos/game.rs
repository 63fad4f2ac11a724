//! What the players of a run play: claims by the built-in rules, or hits by a program whose targets come back with a timer.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use lasthit::rules::RulesBook;
use lasthit::rules::claim::Claim;
use lasthit::rules::js::{Budget, Checking, JsRules, Program};
use lasthit::types::{Audience, Outcome, Verdict};
use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// Keys, or targets, that the players of a room contend for.
const KEYS: u32 = 6;
/// Points of a target: some hits.
const HP: u32 = 6;
/// The most that one hit takes.
const DAMAGE_MAX: u32 = 3;
/// How long the first target is away, and how much longer each of the others.
const RESPAWN_MS: u64 = 150;
/// How often, of a hundred times, a keeper sets a target, and takes one away, instead of hitting it.
const SPAWNS: u32 = 20;
const DESPAWNS: u32 = 4;

/// What is played.
#[derive(Debug, Clone)]
pub(crate) enum Game {
    /// `claim` and `release`.
    Claims,
    /// `spawn`, `despawn` and `hit`, as in `examples/rules/arena.js`, by this program.
    Arena(Arc<Program>),
}

/// What an action says besides its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) op: &'static str,
    pub(crate) key: String,
    pub(crate) args: Option<Args>,
}

/// Arguments of an arena's actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Args {
    #[serde(skip_serializing_if = "Option::is_none")]
    hp: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    respawn_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<u32>,
}

/// What an arena's verdict says of its target.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    hp: Option<u64>,
}

impl Game {
    /// That of a program, or claims without one.
    pub(crate) fn of(program: Option<&Path>) -> Result<Self> {
        let Some(path) = program else { return Ok(Self::Claims) };
        let text = std::fs::read(path).with_context(|| format!("--rules {}", path.display()))?;
        let program = Program::load(&path.display().to_string(), &text, Budget::default());
        program.map(Self::Arena).map_err(|error| anyhow!("--rules {error}"))
    }

    /// A room's name, which chooses its rules where there is no program.
    pub(crate) fn room(&self, number: usize) -> String {
        match self {
            Self::Claims => format!("claim-{number}"),
            Self::Arena(_) => format!("arena-{number}"),
        }
    }

    /// The rules by which the rooms are resolved again.
    pub(crate) fn book(&self) -> RulesBook {
        match self {
            Self::Claims => RulesBook::new().room("*", || Claim::new(Audience::Room)),
            Self::Arena(program) => {
                let program = Arc::clone(program);
                RulesBook::new().room("*", move || JsRules::new(Arc::clone(&program), Checking::Off))
            }
        }
    }

    /// Whether rooms need a session of a server, which sets their targets.
    pub(crate) fn has_keepers(&self) -> bool {
        matches!(self, Self::Arena(_))
    }

    /// What a player does next. `held`: keys that it has, from which what is given back is taken.
    pub(crate) fn next(&self, random: &mut StdRng, held: &mut Vec<String>, keeper: bool) -> Move {
        if matches!(self, Self::Claims) {
            let release = !held.is_empty() && random.random_bool(0.5);
            return match if release { held.pop() } else { None } {
                Some(key) => Move { op: "release", key, args: None },
                None => Move { op: "claim", key: format!("k{}", random.random_range(0..KEYS)), args: None },
            };
        }
        let number = random.random_range(0..KEYS);
        let key = format!("k{number}");
        match random.random_range(0..100) {
            n if keeper && n < SPAWNS => {
                let args = Args { hp: Some(HP), respawn_ms: Some(respawn_ms(&key)), damage: None };
                Move { op: "spawn", key, args: Some(args) }
            }
            n if keeper && n < SPAWNS + DESPAWNS => Move { op: "despawn", key, args: None },
            _ => {
                let args = Args { damage: Some(random.random_range(1..=DAMAGE_MAX)), ..Args::default() };
                Move { op: "hit", key, args: Some(args) }
            }
        }
    }

    /// Whether a verdict made a winner.
    pub(crate) fn is_win(&self, verdict: &Verdict) -> bool {
        let is = |op| verdict.outcome == Outcome::Granted && verdict.id.as_deref().is_some_and(|id| id.starts_with(op));
        match self {
            Self::Claims => is('c'),
            Self::Arena(_) => is('h') && is_down(verdict),
        }
    }

    /// The timer that a verdict sets, with its time, or the one that it cancels. None if it does neither.
    pub(crate) fn timer(&self, verdict: &Verdict) -> Option<(String, Option<u64>)> {
        let (Self::Arena(_), Outcome::Granted) = (self, &verdict.outcome) else { return None };
        let (id, key) = (verdict.id.as_deref()?, verdict.contest.as_deref()?);
        let name = || format!("respawn:{key}");
        match id.chars().next()? {
            'h' if is_down(verdict) => Some((name(), Some(respawn_ms(key)))),
            's' | 'd' => Some((name(), None)),
            _ => None,
        }
    }
}

/// Whether a target has no points left.
fn is_down(verdict: &Verdict) -> bool {
    let body = verdict.body.as_ref().and_then(|body| rmp_serde::from_slice::<Body>(body).ok());
    body.is_some_and(|body| body.hp == Some(0))
}

/// How long a target is away: the same each time, so that whoever reads a verdict knows it.
fn respawn_ms(key: &str) -> u64 {
    let number: u64 = key.trim_start_matches('k').parse().unwrap_or(0);
    RESPAWN_MS * (1 + number)
}
