//! The timers of a room, as its verdicts say that they must have been: each fires once, not before it is due, and in its place.

use std::collections::BTreeMap;

use lasthit::types::{Flags, Moment, Verdict, VerdictKind};

use super::super::game::Game;
use super::super::record::RoomRecord;

/// One thing that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chaos) enum Wrong {
    /// It was set, and never fired.
    Lost(String),
    /// It fired, and was not set, or had fired before.
    Doubled(String),
    /// It fired before it was due.
    Early(String),
    /// It fired at another moment, or behind what comes after it.
    OutOfOrder(String),
}

/// How many fired, and what was wrong.
pub(in crate::chaos) fn timers(room: &RoomRecord, game: &Game) -> (u64, Vec<Wrong>) {
    let (mut set, mut wrong): (BTreeMap<String, u64>, Vec<Wrong>) = (BTreeMap::new(), Vec::new());
    let (mut fires, mut before): (u64, Option<(Moment, bool, u64)>) = (0, None);
    for verdict in &room.verdicts {
        let at = place(room, verdict);
        let (seq, is_fire) = (verdict.seq, verdict.kind == VerdictKind::Timer);
        if let Some(fire) = &verdict.fire {
            fires += 1;
            let name = &fire.name;
            match set.remove(name) {
                None => wrong.push(Wrong::Doubled(format!("verdict {seq}: {name} fires, and was not set"))),
                Some(due) if at < due => wrong.push(Wrong::Early(format!("verdict {seq}: {name} is {} ns early", due - at))),
                Some(due) if at > due || fire.due.0 != due => {
                    wrong
                        .push(Wrong::OutOfOrder(format!("verdict {seq}: {name} has its place {} ns after its moment", at - due)));
                }
                Some(_) => {}
            }
        } else if let Some((name, ahead_ms)) = game.timer(verdict) {
            match ahead_ms {
                Some(ms) => set.insert(name, at + ms * 1_000_000),
                None => set.remove(&name),
            };
        }
        if (is_fire || verdict.kind == VerdictKind::Data) && !verdict.flags.has(Flags::UNPROVEN) {
            let moment = verdict.stamp.moment;
            if let Some((earlier, was_fire, other)) = before
                && (is_fire || was_fire)
                // A timer fires before an action with the same stamp.
                && (earlier > moment || (earlier == moment && is_fire && !was_fire))
            {
                wrong.push(Wrong::OutOfOrder(format!("verdict {seq} belongs before verdict {other}")));
            } else {
                before = Some((moment, is_fire, seq));
            }
        }
    }
    wrong.extend(set.into_keys().map(|name| Wrong::Lost(format!("{name} never fired"))));
    (fires, wrong)
}

/// The room's time at a verdict, in nanoseconds.
fn place(room: &RoomRecord, verdict: &Verdict) -> u64 {
    let epoch = room.epochs.iter().rev().find(|(from, _)| *from <= verdict.seq);
    verdict.stamp.moment.ns.wrapping_add(epoch.map_or(0, |(_, ns)| *ns))
}

#[cfg(test)]
mod tests {
    use lasthit::rules::js::{Budget, Program};
    use lasthit::types::{Fire, Outcome, RoomTime};

    use super::super::tests::verdict;
    use super::*;

    const MS: u64 = 1_000_000;

    fn game() -> Game {
        let program = Program::load("a.js", b"export default { name: 'a', version: 1 };", Budget::default()).expect("a program");
        Game::Arena(program)
    }

    fn at(ms: u64, mut verdict: Verdict) -> Verdict {
        verdict.stamp.moment.ns = ms * MS;
        verdict
    }

    /// A hit that takes the last points of the first target, which is away for 150 ms.
    fn win(seq: u64, ms: u64) -> Verdict {
        let body = Some(rmp_serde::to_vec_named(&serde_json::json!({"hp": 0})).expect("a body").into());
        at(ms, Verdict { contest: Some("k0".to_owned()), body, ..verdict(seq, "ann", &format!("h{seq}"), Outcome::Granted) })
    }

    fn fire(seq: u64, ms: u64) -> Verdict {
        let fire = Fire { name: "respawn:k0".to_owned(), due: RoomTime((7_000 + ms) * MS), late_ns: 0, missed: 0 };
        let of = verdict(seq, "ann", "", Outcome::Granted);
        at(ms, Verdict { kind: VerdictKind::Timer, player: None, id: None, fire: Some(Box::new(fire)), ..of })
    }

    fn found(verdicts: Vec<Verdict>) -> (u64, Vec<Wrong>) {
        let seq = verdicts.len() as u64;
        let room = RoomRecord {
            name: "arena-0".to_owned(),
            era: 1,
            seq,
            epochs: vec![(1, 7_000 * MS)],
            verdicts,
            accepted: Vec::new(),
            deviations: Vec::new(),
        };
        timers(&room, &game())
    }

    #[test]
    fn a_timer_that_fires_once_in_its_place_is_right() {
        assert_eq!(found(vec![win(1, 100), fire(2, 250), win(3, 300), fire(4, 450)]), (2, vec![]));
        let spawn = at(200, Verdict { contest: Some("k0".to_owned()), ..verdict(2, "keeper", "s2", Outcome::Granted) });
        assert_eq!(found(vec![win(1, 100), spawn]), (0, vec![]), "it is cancelled");
    }

    #[test]
    fn every_fault_is_found_as_what_it_is() {
        let one = |verdicts: Vec<Verdict>| {
            let (_, wrong) = found(verdicts);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            wrong.into_iter().next()
        };
        assert!(matches!(one(vec![win(1, 100)]), Some(Wrong::Lost(_))));
        assert!(matches!(one(vec![win(1, 100), fire(2, 250), fire(3, 250)]), Some(Wrong::Doubled(_))));
        assert!(matches!(one(vec![win(1, 100), fire(2, 249)]), Some(Wrong::Early(_))));
        assert!(matches!(one(vec![win(1, 100), fire(2, 251)]), Some(Wrong::OutOfOrder(_))));
        let hit = |seq, ms| at(ms, verdict(seq, "bob", "h9", Outcome::Denied("late".to_owned())));
        assert!(matches!(one(vec![win(1, 100), hit(2, 250), fire(3, 250)]), Some(Wrong::OutOfOrder(_))));
        assert!(matches!(one(vec![win(1, 100), fire(2, 250), hit(3, 249)]), Some(Wrong::OutOfOrder(_))));
        let unproven = |mut verdict: Verdict| {
            verdict.flags = Flags::UNPROVEN;
            verdict
        };
        assert_eq!(found(vec![win(1, 100), fire(2, 250), unproven(hit(3, 249)), hit(4, 250)]), (1, vec![]));
    }
}
