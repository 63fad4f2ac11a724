//! What rules do wrong: the event is void, and what they did is kept apart.

use bytes::Bytes;

use super::room::{Known, RULES_FAILED, Room};
use crate::limits::STACK_LINES_MAX;
use crate::rules::Failure;
use crate::types::{Failed, Outcome, Verdict, failure_line};
use crate::wire::failed;

/// What a program had trouble with.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// What it failed on, by `seq`.
    pub(crate) failures: Vec<Failed>,
    /// What came out otherwise the second time, in words.
    pub(crate) impure: Vec<String>,
}

impl Trouble {
    /// What it failed on in the verdict with this `seq`.
    pub(crate) fn failures_of(&self, seq: u64) -> impl Iterator<Item = &Failed> {
        let at = self.failures.partition_point(|failed| failed.seq < seq);
        self.failures[at..].iter().take_while(move |failed| failed.seq == seq)
    }
}

impl Room {
    /// What the program had trouble with since the last call.
    pub(crate) fn take_trouble(&mut self) -> Trouble {
        Trouble { failures: std::mem::take(&mut self.failures), impure: self.rules.take_impure() }
    }

    /// Bytes of what is kept of the verdict with this `seq`, if it is the last that the rules failed on.
    pub(crate) fn failed_bytes(&self, seq: u64) -> usize {
        self.failures.last().filter(|failed| failed.seq == seq).map_or(0, failed::bytes_of)
    }

    /// A decision that goes over a bound, or breaks the contract.
    pub(super) fn broken(&mut self, reason: &str, error: String) -> Outcome {
        self.failing = Some(Failure { error, stack: Vec::new() });
        Outcome::Void(reason.to_owned())
    }

    /// The outcome of an event that is known to be void.
    pub(super) fn void_if_known(&mut self, known: Option<Known<'_>>) -> Option<Outcome> {
        if let Some(Known::Failed(error)) = known {
            return Some(self.broken(RULES_FAILED, error.to_owned()));
        }
        known.and_then(Known::void).map(|reason| Outcome::Void(reason.to_owned()))
    }

    /// Keeps what the rules did wrong in this verdict's event, if they did.
    pub(super) fn keep_failed(&mut self, verdict: &Verdict, action: Option<&Bytes>, timer: Option<&str>) {
        let (Some(failure), Outcome::Void(reason)) = (self.failing.take(), &verdict.outcome) else { return };
        self.failures.push(Failed {
            era: self.era,
            seq: verdict.seq,
            now: self.now,
            kind: verdict.kind,
            timer: timer.map(str::to_owned),
            player: verdict.player.clone(),
            action: action.cloned(),
            program: self.rules.name().to_owned(),
            version: self.rules.version(),
            reason: reason.clone(),
            error: failure_line(&failure.error),
            stack: failure.stack.iter().take(STACK_LINES_MAX as usize).map(|line| failure_line(line)).collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Held;
    use crate::limits::{BODY_BYTES_MAX, FAILURE_BYTES_MAX};
    use crate::rules::{Act, Decision, Happening, Rules, What};
    use crate::types::{
        Action, Arrival, Audience, EventKind, Incarnation, Moment, PlayerId, Role, SessionId, Stamp, StreamId, VerdictKind,
    };
    use crate::wire::action;

    /// Does what an op says.
    struct Clumsy;

    impl Rules for Clumsy {
        fn name(&self) -> &str {
            "clumsy"
        }

        fn version(&self) -> u32 {
            4
        }

        fn resolve(&mut self, event: &Happening<'_>) -> Decision {
            let What::Data(Act { op, .. }) = event.what else { return Decision::granted() };
            match op {
                "large" => Decision::granted().body(&"x".repeat(BODY_BYTES_MAX)),
                "many" => Decision::granted().to(Audience::Players(vec![event.player.clone(); 300].into())),
                "late" => Decision::late("pit"),
                "won" => Decision::won("pit"),
                "far" => Decision::granted().timer("t", crate::rules::When::After(std::time::Duration::ZERO), &()),
                "throw" => Decision::failed("x\n".repeat(FAILURE_BYTES_MAX), vec!["at a\tb".to_owned(); 200]),
                _ => Decision::denied("unknown_op"),
            }
        }

        fn snapshot(&self) -> Vec<u8> {
            Vec::new()
        }

        fn restore(&mut self, _: u32, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }

    fn held(ordinal: u64, kind: EventKind) -> Held {
        let stamp = Stamp { moment: Moment { timeline: 1, ns: ordinal }, incarnation: Incarnation(1), ordinal };
        let session = SessionId { gateway: Incarnation(1), number: 1 };
        let (at, arrival) = (StreamId { ms: ordinal, seq: 0 }, Arrival::at(ordinal, 0));
        Held { at, stamp, arrival, session, kind: Some(kind), unreadable: None, read_ns: 0 }
    }

    fn act(op: &str, ordinal: u64) -> (Held, Bytes) {
        let args = Bytes::from_static(&[0xc0]);
        let action = Action { op: op.to_owned(), id: format!("i{ordinal}"), contest: None, player: None, seen: None, args };
        let bytes = action::encode(&action);
        (held(ordinal, EventKind::Data(bytes.clone())), bytes)
    }

    #[test]
    fn whatever_rules_break_is_kept_with_its_event() {
        let mut room = Room::new(7, Box::new(Clumsy));
        let ann = PlayerId::new("ann").expect("name");
        room.resolve(&held(1, EventKind::Open { player: ann.clone(), role: Role::Player }), None);
        let cases = [
            ("large", "body_too_large", "the body has 16387 bytes, at most 16384"),
            ("many", "audience_too_large", "the verdict is to 300 players, at most 256"),
            ("late", "no_winner", "the round of \"pit\" has no winner to come after"),
            ("won", "", ""),
            ("won", "second_winner", "the round of \"pit\" has a winner already"),
            ("far", "timer_too_soon", "timer_too_soon: it is due less than 16 ms ahead"),
            ("nothing", "", ""),
        ];
        for (ordinal, (op, reason, error)) in (2..).zip(cases) {
            let (event, action) = act(op, ordinal);
            let verdict = room.resolve(&event, None);
            let failures = room.take_trouble().failures;
            if reason.is_empty() {
                assert!(!matches!(verdict.outcome, Outcome::Void(_)) && failures.is_empty(), "{op}: {failures:?}");
                continue;
            }
            assert_eq!(verdict.outcome, Outcome::Void(reason.to_owned()), "{op}");
            let failed = Failed {
                era: 7,
                seq: ordinal,
                now: room.facts().now,
                kind: VerdictKind::Data,
                timer: None,
                player: Some(ann.clone()),
                action: Some(action),
                program: "clumsy".to_owned(),
                version: 4,
                reason: reason.to_owned(),
                error: error.to_owned(),
                stack: Vec::new(),
            };
            assert_eq!(failures, [failed], "{op}");
        }
    }

    #[test]
    fn what_is_told_is_bounded_and_what_is_known_to_be_void_says_why() {
        let mut room = Room::new(7, Box::new(Clumsy));
        let open = EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player };
        room.resolve(&held(1, open), Some(Known::Failed("no worker survived it")));
        room.resolve(&act("throw", 2).0, None);
        // From the record: it was kept when the verdict was made.
        room.resolve(&act("throw", 3).0, Some(Known::Void(RULES_FAILED)));
        let failures = room.take_trouble().failures;
        let told: Vec<(u64, VerdictKind, &str)> = failures.iter().map(|f| (f.seq, f.kind, f.reason.as_str())).collect();
        assert_eq!(told, [(1, VerdictKind::Open, RULES_FAILED), (2, VerdictKind::Data, RULES_FAILED)]);
        assert_eq!((failures[0].error.as_str(), failures[0].action.as_ref()), ("no worker survived it", None));
        let Failed { error, stack, .. } = &failures[1];
        assert!(error.len() <= FAILURE_BYTES_MAX && error.starts_with("x x x"), "{error}");
        assert!(stack.len() == STACK_LINES_MAX as usize && stack[0] == "at a b", "{stack:?}");
        assert!(room.take_trouble().failures.is_empty(), "told once");
    }
}
