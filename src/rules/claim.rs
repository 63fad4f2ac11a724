//! Claim: the first to claim a key has it (a buzzer, a piece of loot, a seat) until it is released.
//!
//! ```
//! use lasthit::rules::{Claim, RulesBook};
//! use lasthit::types::Audience;
//!
//! // Everybody in the room sees who claimed what.
//! let book = RulesBook::new().room("*", || Claim::new(Audience::Room));
//! ```
//!
//! | op | who | contest | granted | body |
//! |---|---|---|---|---|
//! | `claim` | all | the key | to the first: it wins the key's round and holds it | |
//! | `release` | the holder, or a server session | the key | the key is free, and its next round begins | `holder`: the player who held it |
//!
//! `args` are ignored. What is denied, in the order in which it is checked:
//!
//! | reason | when | body |
//! |---|---|---|
//! | `unknown_op` | the op is neither | |
//! | `no_contest` | the action names no key | |
//! | `already_yours` | `claim` by the holder | |
//! | `late` | `claim` of a key that somebody else holds; with the margin | `holder` |
//! | `too_many_claims` | `claim` of one more than 100,000 keys | |
//! | `not_held` | `release` of a free key | |
//! | `not_holder` | `release` by another player | `holder` |
//!
//! A holder is a player, not a session: a player who leaves keeps its keys, and may release them later through any session. A
//! server session may release any key. A server session that claims for a named player makes that player the
//! holder.
//!
//! Denials except `late` go to their sender only. The constructor chooses who sees the other verdicts. A session that joins gets
//! in `welcome` the `state` `{held, claims: {key: holder}}`: how many keys are held, and the first 100 of them by name.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{Act, Decision, Happening, Rules, What, saved};
use crate::limits::{CLAIMS_LISTED_MAX, CLAIMS_PER_ROOM_MAX};
use crate::types::{Audience, PlayerId, Role};

/// Version 1: `[[holder...], [[key, holder's index]...]]`, the keys sorted.
const VERSION: u32 = 1;

/// The rules of a claim room: see the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    audience: Audience,
    /// The holders of the held keys. Nothing is stored about a free key: the core remembers its round.
    held: BTreeMap<String, PlayerId>,
}

#[derive(Serialize)]
struct State<'a> {
    held: usize,
    claims: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Holder<'a> {
    holder: &'a str,
}

impl Claim {
    /// Rules of a room in which nothing is held. `audience` sees joins, leaves, claims and releases.
    #[must_use]
    pub fn new(audience: Audience) -> Self {
        Self { audience, held: BTreeMap::new() }
    }

    fn act(&mut self, event: &Happening<'_>, act: Act<'_>) -> Decision {
        match (act.op, act.contest) {
            ("claim", Some(key)) => self.claim(event.player, key),
            ("release", Some(key)) => self.release(event, key),
            ("claim" | "release", None) => mistake("no_contest"),
            _ => mistake("unknown_op"),
        }
    }

    fn claim(&mut self, player: &PlayerId, key: &str) -> Decision {
        match self.held.get(key) {
            Some(holder) if holder == player => mistake("already_yours").about(key),
            Some(holder) => Decision::late(key).body(&Holder { holder: holder.as_str() }).to(self.audience.clone()),
            None if self.held.len() >= CLAIMS_PER_ROOM_MAX => mistake("too_many_claims"),
            None => {
                self.held.insert(key.to_owned(), player.clone());
                Decision::won(key).to(self.audience.clone())
            }
        }
    }

    fn release(&mut self, event: &Happening<'_>, key: &str) -> Decision {
        // The verdict does not name a free key as its contest: the core would remember a contest that nobody ever claimed.
        let Some(holder) = self.held.get(key) else { return mistake("not_held") };
        let body = Holder { holder: holder.as_str() };
        if holder != event.player && event.role != Role::Server {
            return mistake("not_holder").about(key).body(&body);
        }
        let decision = Decision::granted().about(key).next_round().body(&body).to(self.audience.clone());
        self.held.remove(key);
        decision
    }

    fn state(&self) -> State<'_> {
        let listed = self.held.iter().take(CLAIMS_LISTED_MAX);
        State { held: self.held.len(), claims: listed.map(|(key, holder)| (key.as_str(), holder.as_str())).collect() }
    }
}

fn mistake(why: &str) -> Decision {
    Decision::denied(why).to(Audience::Session)
}

impl Rules for Claim {
    fn name(&self) -> &'static str {
        "claim"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        match event.what {
            What::Open => Decision::granted().body(&self.state()).to(self.audience.clone()),
            What::Data(act) => self.act(event, act),
            What::End { .. } | What::Error { .. } | What::Close => Decision::granted().to(self.audience.clone()),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let (mut holders, mut indexes) = (Vec::new(), HashMap::new());
        let mut claims = Vec::with_capacity(self.held.len());
        for (key, holder) in &self.held {
            let index = *indexes.entry(holder).or_insert_with(|| {
                holders.push(holder.as_str());
                holders.len() - 1
            });
            claims.push((key.as_str(), index));
        }
        saved::encode(&(holders, claims))
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), String> {
        let (holders, claims): (Vec<String>, Vec<(String, usize)>) = saved::decode(version, VERSION, bytes)?;
        let holders: Result<Vec<_>, _> = holders.iter().map(|h| PlayerId::new(h)).collect();
        let holders = holders.map_err(|e| format!("state: {e}"))?;
        self.held = saved::by_name(claims, CLAIMS_PER_ROOM_MAX, |_, index| {
            holders.get(index).cloned().ok_or_else(|| format!("state: holder {index} of {} is not listed", holders.len()))
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
