//! Last hit: targets with hit points; the hit that takes the points to zero wins the target.
//!
//! ```
//! use lasthit::rules::{LastHit, RulesBook};
//!
//! let book = RulesBook::new().room("pit-*", LastHit::new);
//! ```
//!
//! | op | who | contest | args | granted | body |
//! |---|---|---|---|---|---|
//! | `spawn` | server | the target's name | `hp`: 1 to 10^12 | the target exists, with all its points; when it was spawned before, this starts the next round | `target`, `hp`, `max_hp`, `round` |
//! | `despawn` | server | the target | | the target is gone, won or not | `target`, `hp`, `max_hp`, `round` |
//! | `hit` | all | the target | `damage`: 1 to 10^9 | the points are taken; who takes the last one wins the round | `target`, `hp`, `max_hp`, `round`, `damage`; the last hit also has `overkill` |
//!
//! Points do not fall below 0: the points that the last hit took beyond zero are its `overkill`. Hits on a slain
//! target are denied as `late`, with the margin, until it is spawned or despawned. Further fields in `args` are ignored.
//!
//! What is denied, in the order in which it is checked:
//!
//! | reason | when |
//! |---|---|
//! | `unknown_op` | the op is none of the above |
//! | `server_only` | a player spawns or despawns |
//! | `no_contest` | the action names no target |
//! | `bad_args` | `hp` or `damage` is missing or no integer, or `args` is no map |
//! | `bad_hp` | `hp` is 0, negative or above 10^12 |
//! | `no_damage`, `negative_damage`, `too_much_damage` | `damage` is 0, negative or above 10^9 |
//! | `already_spawned` | `spawn` of a target that lives; it keeps its points |
//! | `too_many_targets` | `spawn` of one more than 64 targets (slain ones count until they are despawned), or than 1,024 names over the room's life |
//! | `unknown_target` | `hit` or `despawn` of a target that was never spawned, or was despawned |
//! | `late` | `hit` of a slain target |
//!
//! Everybody in the room sees what is granted and `late`; the other denials go to their sender only. A session that joins gets
//! in `welcome` the `state` `{targets: {name: {hp, max_hp, round, winner?}}}`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Act, Decision, Happening, Rules, What, saved};
use crate::limits::{HIT_DAMAGE_MAX, TARGET_HP_MAX, TARGET_NAMES_PER_ROOM_MAX, TARGETS_PER_ROOM_MAX};
use crate::types::{Audience, PlayerId, Role};

/// Version 1: `[[name, hp, max_hp (0 when despawned), round, winner | nil]...]`, sorted by name.
const VERSION: u32 = 1;

type Saved = Vec<(String, u64, u64, u64, Option<String>)>;

/// The rules of a last-hit room: see the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastHit {
    /// Despawned targets stay, so that the next spawn starts the next round, and no round has a second winner.
    targets: BTreeMap<String, Target>,
    /// The count of targets that are spawned.
    present: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// 0: slain.
    hp: u64,
    /// 0: despawned.
    max_hp: u64,
    round: u64,
    winner: Option<PlayerId>,
}

#[derive(Serialize)]
struct State<'a> {
    targets: BTreeMap<&'a str, TargetState<'a>>,
}

#[derive(Serialize)]
struct TargetState<'a> {
    hp: u64,
    max_hp: u64,
    round: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<&'a str>,
}

#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    hp: u64,
    max_hp: u64,
    round: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overkill: Option<u64>,
}

impl Target {
    fn report<'a>(&self, target: &'a str, damage: Option<u64>, overkill: Option<u64>) -> Report<'a> {
        Report { target, hp: self.hp, max_hp: self.max_hp, round: self.round, damage, overkill }
    }
}

/// A denial that only its sender sees.
type Mistake = &'static str;

impl LastHit {
    /// Rules of a room without targets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn act(&mut self, event: &Happening<'_>, act: Act<'_>) -> Result<Decision, Mistake> {
        let target = || act.contest.ok_or("no_contest");
        match act.op {
            "hit" => self.hit(event.player, target()?, damage(&act)?),
            "spawn" | "despawn" if event.role != Role::Server => Err("server_only"),
            "spawn" => self.spawn(target()?, hp(&act)?),
            "despawn" => self.despawn(target()?),
            _ => Err("unknown_op"),
        }
    }

    fn spawn(&mut self, name: &str, hp: u64) -> Result<Decision, Mistake> {
        let known = self.targets.get(name);
        if known.is_some_and(|t| t.hp > 0) {
            return Err("already_spawned");
        }
        let newly_present = known.is_none_or(|t| t.max_hp == 0);
        let full = newly_present && self.present >= TARGETS_PER_ROOM_MAX;
        if full || known.is_none() && self.targets.len() >= TARGET_NAMES_PER_ROOM_MAX {
            return Err("too_many_targets");
        }
        let round = known.map_or(1, |t| t.round + 1);
        let target = Target { hp, max_hp: hp, round, winner: None };
        let decision = Decision::granted().about(name).body(&target.report(name, None, None));
        self.present += usize::from(newly_present);
        self.targets.insert(name.to_owned(), target);
        Ok(if round == 1 { decision } else { decision.next_round() })
    }

    fn despawn(&mut self, name: &str) -> Result<Decision, Mistake> {
        let target = self.targets.get_mut(name).filter(|t| t.max_hp > 0).ok_or("unknown_target")?;
        let decision = Decision::granted().about(name).body(&target.report(name, None, None));
        *target = Target { hp: 0, max_hp: 0, round: target.round, winner: None };
        self.present -= 1;
        Ok(decision)
    }

    fn hit(&mut self, player: &PlayerId, name: &str, damage: u64) -> Result<Decision, Mistake> {
        let target = self.targets.get_mut(name).filter(|t| t.max_hp > 0).ok_or("unknown_target")?;
        if target.hp == 0 {
            return Ok(Decision::late(name).body(&target.report(name, Some(damage), None)));
        }
        let overkill = damage.saturating_sub(target.hp);
        target.hp = target.hp.saturating_sub(damage);
        if target.hp > 0 {
            return Ok(Decision::granted().about(name).body(&target.report(name, Some(damage), None)));
        }
        target.winner = Some(player.clone());
        Ok(Decision::won(name).body(&target.report(name, Some(damage), Some(overkill))))
    }

    fn state(&self) -> State<'_> {
        let present = self.targets.iter().filter(|(_, t)| t.max_hp > 0);
        let targets = present.map(|(name, t)| {
            let winner = t.winner.as_ref().map(PlayerId::as_str);
            (name.as_str(), TargetState { hp: t.hp, max_hp: t.max_hp, round: t.round, winner })
        });
        State { targets: targets.collect() }
    }
}

/// An integer of the arguments; Ok(None) if it is negative.
fn integer(act: &Act<'_>, field: &str) -> Result<Option<u64>, Mistake> {
    let args: rmpv::Value = act.args().map_err(|_| "bad_args")?;
    let value = args.as_map().and_then(|map| map.iter().find(|(key, _)| key.as_str() == Some(field)));
    match value {
        Some((_, value)) if value.is_u64() => Ok(value.as_u64()),
        Some((_, value)) if value.is_i64() => Ok(None),
        _ => Err("bad_args"),
    }
}

fn damage(act: &Act<'_>) -> Result<u64, Mistake> {
    match integer(act, "damage")? {
        None => Err("negative_damage"),
        Some(0) => Err("no_damage"),
        Some(damage) if damage > HIT_DAMAGE_MAX => Err("too_much_damage"),
        Some(damage) => Ok(damage),
    }
}

fn hp(act: &Act<'_>) -> Result<u64, Mistake> {
    integer(act, "hp")?.filter(|hp| (1..=TARGET_HP_MAX).contains(hp)).ok_or("bad_hp")
}

impl Rules for LastHit {
    fn name(&self) -> &'static str {
        "last_hit"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        match event.what {
            What::Open => Decision::granted().body(&self.state()),
            What::Data(act) => self.act(event, act).unwrap_or_else(|why| Decision::denied(why).to(Audience::Session)),
            What::End { .. } | What::Error { .. } | What::Close => Decision::granted(),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let target = |(name, t): (&String, &Target)| {
            (name.clone(), t.hp, t.max_hp, t.round, t.winner.as_ref().map(|w| w.as_str().to_owned()))
        };
        saved::encode(&self.targets.iter().map(target).collect::<Saved>())
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), String> {
        let saved: Saved = saved::decode(version, VERSION, bytes)?;
        let saved = saved.into_iter().map(|(name, hp, max_hp, round, winner)| (name, (hp, max_hp, round, winner))).collect();
        let targets = saved::by_name(saved, TARGET_NAMES_PER_ROOM_MAX, |name, (hp, max_hp, round, winner)| {
            let winner = winner.map(|w| PlayerId::new(&w)).transpose().map_err(|e| format!("state: {e}"))?;
            // A spawned target has a winner exactly if it has no points left.
            if hp > max_hp || max_hp > TARGET_HP_MAX || round == 0 || winner.is_some() != (max_hp > 0 && hp == 0) {
                return Err(format!("state: target {name:?} has {hp} of {max_hp} points in round {round}, won by {winner:?}"));
            }
            Ok(Target { hp, max_hp, round, winner })
        })?;
        let present = targets.values().filter(|target| target.max_hp > 0).count();
        if present > TARGETS_PER_ROOM_MAX {
            return Err(format!("state: {present} targets present instead of at most {TARGETS_PER_ROOM_MAX}"));
        }
        *self = Self { targets, present };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
