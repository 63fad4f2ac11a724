//! Forged records: every fault is found as what it is, and nothing else with it.

use std::collections::BTreeSet;
use std::time::Duration;

use lasthit::types::{Audience, Flags, Incarnation, Moment, Outcome, PlayerId, Stamp, Verdict, VerdictKind};

use super::{Faults, judge};
use crate::chaos::game::Game;
use crate::chaos::record::{Acted, Answer, Record, RoomRecord, Seen, Told, digest_of};

const GATEWAY: Incarnation = Incarnation(7 << 96);
/// When players were welcomed.
const AT: Duration = Duration::from_secs(7);

fn stamp(ns: u64) -> Stamp {
    Stamp { moment: Moment { timeline: 1, ns }, incarnation: GATEWAY, ordinal: ns }
}

pub(super) fn verdict(seq: u64, player: &str, id: &str, outcome: Outcome) -> Verdict {
    Verdict {
        session: 1,
        player: Some(PlayerId::new(player).expect("a name")),
        id: Some(id.to_owned()),
        contest: Some("key".to_owned()),
        round: 1,
        outcome,
        ..Verdict::granted(seq, stamp(seq * 10), VerdictKind::Data)
    }
}

/// A run without a fault: ann opens, wins, repeats; bob is late.
struct Run {
    room: RoomRecord,
    ann: Record,
}

impl Run {
    fn new() -> Self {
        let open =
            Verdict { kind: VerdictKind::Open, id: None, contest: None, round: 0, ..verdict(1, "ann", "", Outcome::Granted) };
        let late = || Outcome::Denied("late".to_owned());
        let verdicts = vec![
            open,
            verdict(2, "ann", "c0", Outcome::Granted),
            verdict(3, "bob", "c0", late()),
            Verdict { audience: Audience::Server, ..verdict(4, "bob", "c0", Outcome::Repeat { of: 3 }) },
            verdict(5, "ann", "c0", Outcome::Repeat { of: 2 }),
            verdict(6, "ann", "c1", late()),
        ];
        let seen = |from: u64, of: u64, says: u64| {
            let digest = digest_of(&verdicts[says as usize - 1]);
            Told::Verdict(Seen { from, seq: from.max(says.max(if of > 0 { 5 } else { 0 })), repeat_of: of, digest })
        };
        let session = format!("{GATEWAY}-1");
        let welcome = |seq, resumed| Told::Welcome { at: AT, era: 1, seq, resumed, session: session.clone() };
        let told = vec![welcome(1, false), seen(2, 0, 2), welcome(2, true), seen(3, 0, 3), seen(4, 2, 2), seen(6, 0, 6)];
        let acted = |id: &str, seq| Acted {
            id: id.to_owned(),
            sent: Duration::ZERO,
            sends: 1,
            answer: Some(Answer { at: Duration::ZERO, seq }),
        };
        let ann = Record { player: "ann".to_owned(), room: 0, acted: vec![acted("c0", 2), acted("c1", 6)], told };
        let accepted = verdicts[1..].iter().map(|v| v.stamp).collect();
        let room = RoomRecord {
            name: "claim-0".to_owned(),
            era: 1,
            seq: 6,
            epochs: Vec::new(),
            verdicts,
            accepted,
            deviations: Vec::new(),
        };
        Self { room, ann }
    }

    fn faults(self) -> Faults {
        judge(&[self.ann], &[self.room], &Game::Claims, &BTreeSet::new()).faults
    }

    /// The room's verdicts change after the player saw them.
    fn with(change: impl FnOnce(&mut Self)) -> Faults {
        let mut run = Self::new();
        change(&mut run);
        run.faults()
    }
}

fn none() -> Faults {
    Faults::default()
}

#[test]
fn a_run_without_a_fault_has_none() {
    let findings = judge(&[Run::new().ann], &[Run::new().room], &Game::Claims, &BTreeSet::new());
    assert_eq!((findings.faults, findings.told), (none(), Vec::new()));
}

/// The room goes on from verdict 2 after ann saw 6, because a replica was elected that had no more.
#[test]
fn what_an_election_lost_is_taken_back_where_it_may_be() {
    for may_lose in [true, false] {
        let mut run = Run::new();
        let again = |seq: u64| verdict(seq, "ann", &format!("d{seq}"), Outcome::Denied("late".to_owned()));
        run.room.verdicts.truncate(2);
        run.room.verdicts.extend((3..=6).map(again));
        run.room.accepted = run.room.verdicts[1..].iter().map(|v| v.stamp).collect();
        run.room.era = 9;
        run.ann.told.push(Told::Welcome { at: AT, era: 9, seq: 2, resumed: false, session: "s".to_owned() });
        let seen = |seq: u64| Told::Verdict(Seen { from: seq, seq, repeat_of: 0, digest: digest_of(&again(seq)) });
        run.ann.told.extend((3..=6).map(seen));
        let found = judge(&[run.ann], &[run.room], &Game::Claims, &BTreeSet::from([usize::from(!may_lose)]));
        if may_lose {
            let expected = Faults { taken_back: 3, rolled_back: 1, ..none() };
            assert_eq!((found.faults, found.renewed), (expected, [((0, 9), AT)].into()), "{:?}", found.told);
        } else {
            assert!(found.faults.changed >= 2 && found.faults.taken_back == 0, "{found:?}");
        }
    }
}

#[test]
fn an_action_without_an_answer_is_lost() {
    assert_eq!(Run::with(|run| run.ann.acted[1].answer = None), Faults { lost: 1, ..none() });
}

#[test]
fn an_accepted_event_without_a_verdict_is_lost() {
    assert_eq!(Run::with(|run| run.room.accepted.push(stamp(99))), Faults { lost: 1, ..none() });
}

#[test]
fn an_id_that_acted_twice_is_doubled() {
    let twice = Run::with(|run| {
        run.room.verdicts.push(verdict(7, "ann", "c1", Outcome::Denied("late".to_owned())));
        run.room.seq = 7;
    });
    assert_eq!(twice, Faults { doubled: 1, ..none() });
}

#[test]
fn an_id_that_comes_again_is_new_only_behind_as_many_as_a_room_remembers() {
    let again_behind = |others: u64| {
        Run::with(|run| {
            let other = |n: u64| verdict(6 + n, "ann", &format!("c{}", 100 + n), Outcome::Denied("late".to_owned()));
            run.room.verdicts.extend((1..=others).map(other));
            run.room.verdicts.push(verdict(7 + others, "ann", "c1", Outcome::Denied("late".to_owned())));
            run.room.seq = 7 + others;
        })
    };
    assert_eq!(again_behind(1_023), Faults { doubled: 1, ..none() });
    assert_eq!(again_behind(1_024), none());
}

#[test]
fn an_event_with_two_verdicts_is_doubled() {
    let twice = Run::with(|run| {
        let again = Verdict { stamp: stamp(60), ..verdict(7, "ann", "c7", Outcome::Denied("late".to_owned())) };
        run.room.verdicts.push(again);
        run.room.seq = 7;
    });
    assert_eq!(twice, Faults { doubled: 1, ..none() });
}

#[test]
fn a_verdict_that_came_out_otherwise_is_changed() {
    let changes: [fn(&mut Verdict); 6] = [
        |v| v.outcome = Outcome::Denied("late".to_owned()),
        |v| v.round = 2,
        |v| v.contest = Some("other".to_owned()),
        |v| v.player = Some(PlayerId::new("eve").expect("a name")),
        |v| v.kind = VerdictKind::End,
        |v| v.outcome = Outcome::Void("rules_failed".to_owned()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        // Seen as itself, and once more by the repeat.
        let faults = Run::with(|run| change(&mut run.room.verdicts[1]));
        assert!(faults.changed >= 2, "{number}: {faults:?}");
    }
}

#[test]
fn a_verdict_that_is_gone_is_changed() {
    let faults = Run::with(|run| {
        run.room.verdicts.pop();
        run.room.accepted.pop();
        run.room.seq = 5;
    });
    assert_eq!(faults, Faults { changed: 1, ..none() });
}

#[test]
fn a_repeat_of_something_else_is_changed() {
    let faults = Run::with(|run| run.room.verdicts[3].outcome = Outcome::Repeat { of: 2 });
    assert_eq!(faults, Faults { changed: 1, ..none() });
}

#[test]
fn a_room_that_is_behind_its_player_is_changed() {
    assert_eq!(Run::with(|run| run.ann.told.push(Told::Ahead)), Faults { changed: 1, ..none() });
    let session = String::new();
    let anew = Told::Welcome { at: AT, era: 2, seq: 1, resumed: false, session };
    assert_eq!(Run::with(|run| run.ann.told.push(anew)), Faults { changed: 1, ..none() });
}

#[test]
fn a_new_era_that_a_player_was_told_of_is_counted_and_one_that_it_was_not_told_of_is_changed() {
    let renewed = |told: bool| {
        Run::with(|run| {
            run.room.era = 2;
            if told {
                run.ann.told.push(Told::Welcome { at: AT, era: 2, seq: 6, resumed: false, session: String::new() });
            }
        })
    };
    assert_eq!(renewed(true), Faults { rolled_back: 1, ..none() });
    assert_eq!(renewed(false), Faults { changed: 1, ..none() });
}

#[test]
fn two_claims_that_won_one_round_are_two_winners() {
    let second = |round| {
        move |run: &mut Run| {
            let win = Verdict { round, ..verdict(7, "bob", "c9", Outcome::Granted) };
            run.room.verdicts.push(win);
            run.room.seq = 7;
        }
    };
    assert_eq!(Run::with(second(1)), Faults { two_winners: 1, ..none() });
    assert_eq!(Run::with(second(2)), none());
}

#[test]
fn an_earlier_stamp_that_was_decided_later_is_an_inversion_unless_it_is_flagged() {
    let late = |flags| {
        move |run: &mut Run| {
            let verdict = verdict(7, "bob", "c9", Outcome::Denied("late".to_owned()));
            run.room.verdicts.push(Verdict { stamp: stamp(55), flags, ..verdict });
            run.room.seq = 7;
        }
    };
    assert_eq!(Run::with(late(Flags::default())), Faults { inversions: 1, ..none() });
    assert_eq!(Run::with(late(Flags::CLAMPED)), Faults { inversions: 1, clamped: 1, ..none() });
    assert_eq!(Run::with(late(Flags::UNPROVEN)), Faults { unproven: 1, ..none() });
}

#[test]
fn what_a_player_missed_is_a_gap() {
    // Not shown at all.
    assert_eq!(Run::with(|run| drop(run.ann.told.remove(3))), Faults { gaps: 1, ..none() });
    // Hidden in a range.
    let hidden = Run::with(|run| {
        run.ann.told.remove(3);
        if let Told::Verdict(seen) = &mut run.ann.told[3] {
            seen.from = 3;
        }
    });
    assert_eq!(hidden, Faults { gaps: 1, ..none() });
    // Lost while it was away.
    let afresh = Run::with(|run| {
        if let Told::Welcome { resumed, .. } = &mut run.ann.told[2] {
            *resumed = false;
        }
    });
    assert_eq!(afresh, Faults { gaps: 1, ..none() });
    // Behind what it had seen.
    let back = Run::with(|run| {
        if let Told::Welcome { seq, .. } = &mut run.ann.told[2] {
            *seq = 1;
        }
    });
    assert_eq!(back.changed, 1);
}

#[test]
fn a_number_that_the_journal_skips_is_a_gap() {
    let hole = Run::with(|run| {
        run.room.verdicts.remove(2);
        run.room.accepted.remove(1);
    });
    assert!(hole.gaps >= 1, "{hole:?}");
    assert_eq!(Run::with(|run| run.room.seq = 9), Faults { gaps: 1, ..none() });
}

#[test]
fn what_resolves_otherwise_is_told() {
    assert_eq!(Run::with(|run| run.room.deviations.push("verdict 2".to_owned())), Faults { replay: 1, ..none() });
}
