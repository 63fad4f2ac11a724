//! Test support: counts rounds and winners as the core does, and fails where it would call a verdict void.

use std::collections::BTreeMap;

use super::{Act, Decision, Facts, Happening, Inside, Rules, Ruling, What};
use crate::limits::BODY_BYTES_MAX;
use crate::types::{Incarnation, PlayerId, Role, SessionId};

/// A contest's round, and whether it was won.
#[derive(Debug, Default)]
pub(super) struct Referee(BTreeMap<String, (u64, bool)>);

impl Referee {
    /// Applies a decision. Returns the round that it belongs to (0 without a contest).
    pub(super) fn apply(&mut self, decision: &Decision) -> u64 {
        assert!(decision.body.as_ref().is_none_or(|b| b.len() <= BODY_BYTES_MAX), "body too large");
        let Some(contest) = &decision.contest else {
            assert!(!decision.next_round, "a new round of no contest: {decision:?}");
            return 0;
        };
        let known = self.0.contains_key(contest);
        let (round, won) = self.0.entry(contest.clone()).or_insert((1, false));
        if decision.next_round {
            assert!(known, "a new round of a contest that never had one: {decision:?}");
            (*round, *won) = (*round + 1, false);
        }
        match decision.ruling {
            Ruling::Won => assert!(!std::mem::replace(won, true), "second winner of {contest} in round {round}"),
            Ruling::Late => assert!(*won, "late for {contest}, whose round {round} nobody won"),
            Ruling::Granted | Ruling::Denied(_) => {}
            Ruling::Failed(_) => panic!("{decision:?}"),
        }
        *round
    }
}

/// Lets `player` act.
pub(super) fn act(
    rules: &mut impl Rules,
    role: Role,
    player: &str,
    op: &str,
    contest: Option<&str>,
    args: &rmpv::Value,
) -> Decision {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, args).expect("memory");
    happen(rules, role, player, What::Data(Act::new(op, contest, &bytes)))
}

/// Lets something happen on `player`'s session.
pub(super) fn happen(rules: &mut impl Rules, role: Role, player: &str, what: What<'_>) -> Decision {
    let session = SessionId { gateway: Incarnation(1), number: 1 };
    let player = PlayerId::new(player).expect("name");
    rules.resolve(&Happening { session, player: &player, role, what, facts: Facts::default(), inside: Inside(&|_| 1) })
}

/// The decision's body.
pub(super) fn body(decision: &Decision) -> serde_json::Value {
    rmp_serde::from_slice(decision.body.as_ref().expect("body")).expect("a MessagePack value")
}
