//! Jobs of rooms that a program outside decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::rules::messages::{self, Decided, FromProgram};
use crate::rules::{Fault, Process, Program, ProgramIdentity};

/// Decides what an action's arguments say, and counts in the state. Fails on `fail`, while it is told to.
#[derive(Debug, Default)]
struct Obedient {
    asked: AtomicUsize,
    fails: AtomicBool,
}

impl Program for Obedient {
    fn migrate(&self, who: &ProgramIdentity, state: &str, from: u32) -> Result<Result<Arc<str>, String>, Fault> {
        Ok(Ok(format!("[{from},{},{state}]", who.version).into()))
    }

    fn identity(&self) -> Result<ProgramIdentity, Fault> {
        Ok(ProgramIdentity { name: "obedient".to_owned(), version: 3 })
    }

    fn resolve(&self, _who: &ProgramIdentity, state: &str, events: &[String]) -> Result<Vec<Decided>, Fault> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut count = serde_json::from_str::<Value>(state).expect("a state").as_u64().unwrap_or(0);
        let mut decisions = Vec::new();
        for event in events {
            let event: Value = serde_json::from_str(event).expect("an event");
            if event["op"] == "fail" && self.fails.load(Ordering::Relaxed) {
                return Err(Fault::Failed("it died".to_owned()));
            }
            count += 1;
            let mut decision = if event["event"] == "data" { event["args"].clone() } else { json!({"outcome": "granted"}) };
            if decision["outcome"] != "failed" {
                decision["state"] = json!(count);
            }
            decisions.push(decision);
        }
        let answer = json!({"type": "resolved", "id": 1, "decisions": decisions}).to_string();
        match messages::read(&answer, events.len()) {
            Ok(FromProgram::Resolved(_, decided)) => Ok(decided),
            other => panic!("{other:?}"),
        }
    }
}

/// Must not be asked.
#[derive(Debug)]
struct Absent;

impl Program for Absent {
    fn migrate(&self, who: &ProgramIdentity, state: &str, from: u32) -> Result<Result<Arc<str>, String>, Fault> {
        Ok(Ok(format!("[{from},{},{state}]", who.version).into()))
    }

    fn identity(&self) -> Result<ProgramIdentity, Fault> {
        Err(Fault::Failed("it is not there".to_owned()))
    }

    fn resolve(&self, _who: &ProgramIdentity, _: &str, events: &[String]) -> Result<Vec<Decided>, Fault> {
        panic!("asked: {events:?}")
    }
}

fn room(program: &Arc<impl Program + 'static>) -> Box<Room> {
    Box::new(Room::new(1, Box::new(Process::new(program.clone()))))
}

fn act(n: u64, op: &str, decision: Value) -> Event {
    let args = rmp_serde::to_vec_named(&decision).expect("memory");
    let action = Action { op: op.to_owned(), id: n.to_string(), contest: None, player: None, seen: None, args: args.into() };
    event(n, EventKind::Data(action::encode(&action)))
}

fn event(n: u64, kind: EventKind) -> Event {
    Event { session: 1, ordinal: n, arrival: Arrival::at(n, 0), kind }
}

fn story() -> Entry {
    let open = EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player };
    let won = json!({"outcome": "won", "contest": "c", "timers": [{"name": "t", "after": 1000, "data": [1]}], "body": 7});
    let events = vec![
        event(1, open),
        act(2, "win", won.clone()),
        act(3, "late", json!({"outcome": "late", "contest": "c", "timers": [{"name": "u", "every": 50}]})),
        act(4, "again", won),
        act(5, "large", json!({"outcome": "granted", "contest": "c", "next_round": true, "body": "x".repeat(17_000)})),
        act(
            6,
            "next",
            json!({"outcome": "granted", "contest": "c", "next_round": true, "timers": [{"name": "t", "cancel": true}]}),
        ),
        act(7, "to", json!({"outcome": "denied", "reason": "no", "contest": "d", "to": ["ann", "bob"]})),
        act(8, "raise", json!({"outcome": "failed", "error": "it raised"})),
        event(9, EventKind::End { code: 1000 }),
        event(10, EventKind::Close),
    ];
    Entry { incarnation: Incarnation(1), timeline: 1, death: false, events }
}

fn held(entry: &Entry) -> Vec<Held> {
    let mut hold = Resequencer::default();
    hold.read(StreamId { ms: 1, seq: 0 }, entry, Moment::default(), 0);
    hold.release(usize::MAX, |_| Moment { timeline: 1, ns: u64::MAX })
}

fn job(room: Box<Room>, events: Vec<Held>) -> Job {
    let clock = HostClock { timeline: 1, epoch_ns: 1_790_000_000_000_000_000, ..HostClock::default() };
    Job::Resolve(Resolving { clock, ..resolving(*room, events) })
}

fn outcomes(part: &Resolved) -> Vec<String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Granted => "granted".to_owned(),
        Outcome::Denied(reason) | Outcome::Void(reason) => reason.clone(),
        Outcome::Repeat { .. } => "repeat".to_owned(),
    };
    verdicts::decode(&part.verdicts).expect("a batch").verdicts.iter().map(|v| word(&v.outcome)).collect()
}

/// Rule P4: contests, timers and the state come from the record, also where a verdict turned void after the decision.
#[test]
fn the_next_owner_follows_what_a_program_decided() {
    let (program, entry) = (Arc::new(Obedient::default()), story());
    let DoneOutcome::Resolved(mut first, mut parts, rest) = job(room(&program), held(&entry)).run().outcome else {
        panic!("resolved")
    };
    assert!(rest.is_empty());
    assert_eq!(parts.len(), 1, "the state belongs to its last verdict");
    let part = parts.pop_front().expect("a part");
    let expected =
        ["granted", "granted", "late", "second_winner", "body_too_large", "granted", "no", "rules_failed", "granted", "granted"];
    assert_eq!(outcomes(&part), expected);
    assert_eq!(program.asked.load(Ordering::Relaxed), 3, "once, and again behind each void verdict that took a state back");
    let pushed = part.pushes.iter().all(|(_, push)| verdicts::decode(push).expect("a push").decided.is_none());
    assert!(pushed, "it is nobody else's");

    let mut next = Room::new(1, Box::new(Process::new(Arc::new(Absent))));
    let entries = [(StreamId { ms: 1, seq: 0 }, Ok(entry))];
    next.keep_time(
        HostClock { timeline: 1, epoch_ns: 1_790_000_000_000_000_000, ..HostClock::default() },
        Moment { timeline: 1, ns: 1 },
    );
    let (count, deviations) =
        replay(&mut next, &entries, &[part.verdicts], Programs::Followed, &|_| Err(String::new()), |_: &Room, _: &Verdict| {})
            .expect("followed");
    assert_eq!((count, deviations), (10, Vec::<String>::new()));
    next.take_up_program_state(&part.program.expect("a state")).expect("its own");
    assert_eq!(next.snapshot(), first.snapshot());
    assert!(first.take_program_state().is_none() && next.take_program_state().is_none(), "nothing has changed since");
}

/// What came before is kept, what it failed on comes back, and nothing of that is in the room.
#[test]
fn events_that_a_program_does_not_decide_come_back() {
    let program = Arc::new(Obedient::default());
    program.fails.store(true, Ordering::Relaxed);
    let open = EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player };
    let events = vec![
        event(1, open),
        act(2, "win", json!({"outcome": "won", "contest": "c"})),
        // Void, so that the rest is asked for again.
        act(3, "again", json!({"outcome": "won", "contest": "c"})),
        act(4, "fail", json!({"outcome": "granted"})),
    ];
    let entry = |events: &[Event]| Entry { incarnation: Incarnation(1), timeline: 1, death: false, events: events.to_vec() };
    // Asked for all at once, it fails on all.
    let done = job(room(&program), held(&entry(&events))).run();
    assert_eq!(done.fault, Some(Fault::Failed("it died".to_owned())));
    let DoneOutcome::Resolved(same, parts, rest) = done.outcome else { panic!("resolved") };
    assert_eq!((same.seq(), parts.len(), rest.len()), (0, 0, 4));
    assert_eq!(same.snapshot(), room(&program).snapshot(), "not even the time");

    let mut one_by_one = same;
    for (at, one) in held(&entry(&events)).into_iter().enumerate() {
        let done = job(one_by_one, vec![one]).run();
        assert_eq!(done.fault.is_some(), at == 3);
        let DoneOutcome::Resolved(after, parts, rest) = done.outcome else { panic!("resolved") };
        assert_eq!((parts.len(), rest.len()), if at == 3 { (0, 1) } else { (1, 0) });
        one_by_one = after;
    }
    assert_eq!(one_by_one.seq(), 3);
}

/// A death is never cut: what the program does not decide of it is void.
#[test]
fn the_events_of_a_death_stay_together() {
    let program = Arc::new(Obedient::default());
    let open = |n: u64| Event {
        session: n,
        ..event(n, EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player })
    };
    let leaves = |n: u64, ordinal: u64, kind| Event { session: n, ordinal, arrival: Arrival::at(100, 0), kind };
    let mut events: Vec<Event> = (1..=20).map(open).collect();
    for n in 1..=20 {
        events.push(leaves(n, 20 + 2 * n - 1, EventKind::Error { reason: "gone".to_owned() }));
        events.push(leaves(n, 20 + 2 * n, EventKind::Close));
    }
    let entry = Entry { incarnation: Incarnation(1), timeline: 1, death: true, events };
    let (mut room, mut rest, mut sizes) = (room(&program), held(&entry), Vec::new());
    while !rest.is_empty() {
        let Job::Resolve(mut next) = job(room, rest) else { panic!("a job") };
        // So little that each verdict fills it.
        next.bytes_max = 1;
        let DoneOutcome::Resolved(after, parts, more) = Job::Resolve(next).run().outcome else { panic!("resolved") };
        assert_eq!(parts.len(), 1);
        sizes.push(parts[0].to - parts[0].from);
        (room, rest) = (after, more);
    }
    assert_eq!(sizes.last(), Some(&40), "{sizes:?}");
    assert!(sizes[..sizes.len() - 1].iter().all(|size| *size == 1), "{sizes:?}");
}

/// Panics when it is asked.
#[derive(Debug)]
struct Broken;

impl Program for Broken {
    fn migrate(&self, who: &ProgramIdentity, state: &str, from: u32) -> Result<Result<Arc<str>, String>, Fault> {
        Ok(Ok(format!("[{from},{},{state}]", who.version).into()))
    }

    fn identity(&self) -> Result<ProgramIdentity, Fault> {
        Obedient::default().identity()
    }

    fn resolve(&self, _who: &ProgramIdentity, _: &str, events: &[String]) -> Result<Vec<Decided>, Fault> {
        panic!("asked: {events:?}")
    }
}

/// Whatever panics, the job has a result.
#[test]
fn a_job_that_panics_while_a_program_is_asked_is_done() {
    let events = held(&story());
    let first = events[0].stamp;
    let done = job(room(&Arc::new(Broken)), events).run();
    assert!(matches!(done.outcome, DoneOutcome::Panicked { stamp, .. } if stamp == first));
    assert_eq!(done.of.token, 1);
}
