//! Programs that are tried on recorded rooms.

use std::sync::Arc;

use super::recorded::recorded;
use crate::engine::Room;
use crate::journal::StoredSnapshot;
use crate::replay::Recording;
use crate::rules::js::{Budget, Checking, JsRules, Program};
use crate::rules::{FileRules, RulesBook};
use crate::types::{Epoch, StreamId, VerdictBatch};
use crate::wire::verdicts;

/// From its joins on, a timer fires every 16 ms. None ever did in the rooms of earlier versions.
const BUSY: &str = "export default { name: 'busy', version: 1, state: () => ({}), onOpen(ctx) { ctx.timer('t', { every: 16 }) },
    onData: () => 1, timers: { t: () => 2 } };";

/// Needs more memory than a program has unless configured otherwise.
const LARGE: &str = "const large = new Uint8Array(100 * 1024 * 1024);
    export default { name: 'busy', version: 1, state: () => ({}) };";

/// A room of an earlier version, with a snapshot at its end by this program.
fn room(text: &str) -> (Recording, Arc<Program>) {
    let room = recorded().into_iter().find(|(path, _)| path.ends_with("quiz-1.dump")).expect("one of this name");
    let program = Program::load("busy.js", text.as_bytes(), Budget::most()).expect("a program");
    let mut recording = room.1;
    // Time passes in it.
    let first = verdicts::decode(&recording.verdicts[0]).expect("a batch");
    let epoch = Some(Epoch { source_ns: first.verdicts[0].stamp.moment.ns, ns: 0 });
    recording.verdicts[0] = verdicts::encode(&VerdictBatch { epoch, ..first });
    let mut at_end = Room::new(recording.era, Box::new(JsRules::new(program.clone(), Checking::Off)));
    at_end.count_as(recording.seq);
    let snapshot = StoredSnapshot { seq: recording.seq, cursor: StreamId::default(), bytes: at_end.snapshot() };
    recording.snapshot = Some(snapshot);
    (recording, program)
}

#[test]
fn only_trimmed_events_let_a_program_be_tried_from_the_snapshot_on() {
    let (mut recording, program) = room(BUSY);
    let tried = recording.try_program(&program).expect("tried");
    let fires = tried.otherwise.iter().filter(|one| one.recorded.is_none()).count();
    assert!(tried.from == 1 && tried.verdicts > 0 && fires > 10, "{} verdicts, {fires} timers", tried.verdicts);
    // It says what is wrong with the program, and does not pass over the verdicts that show it.
    let error = recording.try_within(&program, 10).expect_err("too many").to_string();
    assert!(error.ends_with("more than 10 timers would fire that have not"), "{error}");

    recording.entries.clear();
    let tried = recording.try_program(&program).expect("tried");
    assert_eq!((tried.from, tried.verdicts), (recording.seq + 1, 0), "nothing came after the snapshot");
}

#[test]
fn a_program_that_decided_in_a_larger_budget_gives_its_state() {
    let (mut recording, large) = room(LARGE);
    recording.programs.insert(large.id(), large.text().as_bytes().to_vec().into());
    recording.entries.clear();
    assert!(Program::load("large.js", LARGE.as_bytes(), Budget::default()).is_err());
    let program = Program::load("busy.js", BUSY.as_bytes(), Budget::default()).expect("a program");
    assert_eq!(recording.try_program(&program).expect("tried").from, recording.seq + 1);
    let file = FileRules { path: "busy.js".into(), program, checking: Checking::Off };
    assert_eq!(recording.resolve(&RulesBook::new().file("*", file)).expect("resolved").deviations, Vec::<String>::new());
}
