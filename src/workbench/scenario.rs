//! The scenarios that a program exports as `tests`.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::limits::{FIELD_BYTES_MAX, STEP_AFTER_MAX};
use crate::rules::js::{Program, ProgramError};
use crate::types::{PlayerId, Role};

/// Nanoseconds of a step that does not say how many pass.
const AFTER_NS: u64 = 1_000_000;

/// Events, and what is expected of them.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) struct Step {
    /// Room time since the step before.
    pub(super) after_ns: u64,
    /// None if only time passes.
    pub(super) event: Option<Happens>,
    /// What its verdict is like.
    pub(super) expect: Expected,
    /// The timers that fire on the way; None if that is not checked.
    pub(super) fires: Option<Vec<Expected>>,
}

/// What happens on a session.
#[derive(Debug)]
pub(super) struct Happens {
    pub(super) who: PlayerId,
    /// Which of the player's sessions.
    pub(super) session: u64,
    /// None if the step does not say it.
    pub(super) role: Option<Role>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Open,
    Act {
        op: String,
        contest: Option<String>,
        /// Whom a server acts for.
        player: Option<PlayerId>,
        /// MessagePack.
        args: Bytes,
    },
    End {
        code: u16,
    },
    Error {
        reason: String,
    },
    Close,
}

/// What is wrong with a scenario.
#[derive(Debug)]
pub(super) struct Problem {
    /// The step, from 1; None if it is not one step's.
    step: Option<usize>,
    what: String,
}

impl Problem {
    pub(super) fn of(step: usize, what: String) -> Self {
        Self { step: Some(step), what }
    }

    pub(super) fn of_all(what: String) -> Self {
        Self { step: None, what }
    }

    /// With its place in the program.
    pub(super) fn told(&self, program: &Program, scenario: &str) -> ProgramError {
        program.wrong_test(Some(scenario), self.step, self.to_string())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.step.map_or(Ok(()), |step| write!(f, "step {step}: ")).and_then(|()| f.write_str(&self.what))
    }
}

/// What a verdict is like: the fields that are given.
#[derive(Debug, Default)]
pub(super) struct Expected(pub(super) Map<String, Value>);

const STEP: [&str; 13] =
    ["after", "who", "session", "role", "event", "op", "contest", "as", "args", "code", "reason", "expect", "fires"];
const VERDICT: [&str; 6] = ["outcome", "reason", "contest", "round", "body", "to"];

/// The scenarios of a program, in their order.
pub(super) fn of(program: &Program) -> Result<Vec<Scenario>, ProgramError> {
    let wrong = |what: &str| program.wrong_test(None, None, what.to_owned());
    let Some(bytes) = program.tests()? else { return Ok(Vec::new()) };
    let tests = rmp_serde::from_slice(&bytes).unwrap_or(rmpv::Value::Nil);
    let rmpv::Value::Map(tests) = tests else {
        return Err(wrong("tests is no object: write export const tests = { \"what is shown\": [ ...steps ] }"));
    };
    let scenarios = tests.into_iter().map(|(name, steps)| {
        let name = name.as_str().unwrap_or_default().to_owned();
        let steps = serde_json::to_value(steps).unwrap_or_default();
        let Value::Array(steps) = steps else {
            return Err(program.wrong_test(Some(&name), None, "a scenario is an array of steps".to_owned()));
        };
        let read = |(at, value)| step(value).map_err(|what| Problem::of(at, what).told(program, &name));
        let steps: Result<Vec<Step>, _> = (1..).zip(steps).map(read).collect();
        steps.map(|steps| Scenario { name, steps })
    });
    scenarios.collect()
}

fn object(value: Value, what: &str, known: &[&str]) -> Result<Map<String, Value>, String> {
    let Value::Object(map) = value else { return Err(format!("{what} is no object: use {}", known.join(", "))) };
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(odd) => Err(format!("{odd} is not known in {what}: use {}", known.join(", "))),
        None => Ok(map),
    }
}

fn step(value: Value) -> Result<Step, String> {
    let mut map = object(value, "a step", &STEP)?;
    let after_ns = match map.remove("after") {
        None => AFTER_NS,
        Some(after) => ns(&after)?,
    };
    let expect = map.remove("expect");
    let fires = match map.remove("fires") {
        None => None,
        Some(Value::Array(fires)) => Some(fires.into_iter().map(fire).collect::<Result<_, _>>()?),
        Some(_) => return Err("fires is no array: write fires: [\"respawn:baron\"], or [] for none".to_owned()),
    };
    let event = if map.is_empty() { None } else { Some(happens(map)?) };
    let expect = match expect {
        None => Expected::default(),
        Some(_) if event.is_none() => return Err("expect without an event: use fires for what timers do".to_owned()),
        Some(expect) => expected(object(expect, "expect", &VERDICT)?)?,
    };
    Ok(Step { after_ns, event, expect, fires })
}

/// Nanoseconds of milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the bound")]
fn ns(after: &Value) -> Result<u64, String> {
    let most_ms = STEP_AFTER_MAX.as_secs_f64() * 1e3;
    let ms = after.as_f64().filter(|ms| (0.0..=most_ms).contains(ms));
    ms.map(|ms| (ms * 1e6).round() as u64)
        .ok_or_else(|| format!("after {after} is no number of milliseconds from 0 to {most_ms}"))
}

fn fire(value: Value) -> Result<Expected, String> {
    if let Value::String(name) = value {
        return Ok(Expected(Map::from_iter([("timer".to_owned(), name.into())])));
    }
    let known: Vec<&str> = ["timer"].into_iter().chain(VERDICT).collect();
    let map = object(value, "fires", &known)?;
    if !map.get("timer").is_some_and(Value::is_string) {
        return Err("fires: timer is missing: write the timer's name".to_owned());
    }
    expected(map)
}

fn expected(map: Map<String, Value>) -> Result<Expected, String> {
    let outcomes = ["granted", "denied", "void"];
    match map.get("outcome") {
        Some(odd) if !odd.as_str().is_some_and(|outcome| outcomes.contains(&outcome)) => {
            Err(format!("outcome {odd} is not known: use {}", outcomes.join(", ")))
        }
        _ => Ok(Expected(map)),
    }
}

fn happens(mut map: Map<String, Value>) -> Result<Happens, String> {
    let keys: Vec<String> = map.keys().cloned().collect();
    let mut text = |key: &str| match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(odd) => Err(format!("{key} {odd} is no text")),
    };
    let player = |name: String| PlayerId::new(&name).map_err(|e| e.to_string());
    let who = text("who")?.ok_or("who is missing: name the player")?;
    let (event, op, contest, reason) = (text("event")?, text("op")?, text("contest")?, text("reason")?);
    let for_player = text("as")?.map(player).transpose()?;
    let role = match text("role")?.as_deref() {
        None => None,
        Some("player") => Some(Role::Player),
        Some("server") => Some(Role::Server),
        Some(odd) => return Err(format!("role {odd:?} is not known: use player or server")),
    };
    let session = match map.get("session") {
        None => 1,
        Some(session) => session
            .as_u64()
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("session {session} is not allowed: use a whole number from 1 on"))?,
    };
    let code = match map.get("code") {
        None => 1000,
        Some(code) => code
            .as_u64()
            .and_then(|code| u16::try_from(code).ok())
            .ok_or_else(|| format!("code {code} is not allowed: use a whole number from 0 to {}", u16::MAX))?,
    };
    let kind = match (event.as_deref(), op) {
        (None, Some(op)) => {
            for (what, text) in [("op", Some(&op)), ("contest", contest.as_ref())] {
                if text.is_some_and(|text| !(1..=FIELD_BYTES_MAX).contains(&text.len())) {
                    let text = text.map(String::as_str).unwrap_or_default();
                    return Err(format!("{what} {text:?} has {} bytes: use 1 to {FIELD_BYTES_MAX}", text.len()));
                }
            }
            let args = rmp_serde::to_vec_named(&map.remove("args").unwrap_or_default()).map_err(|e| e.to_string())?;
            Kind::Act { op, contest, player: for_player, args: args.into() }
        }
        (Some("open"), None) => Kind::Open,
        (Some("end"), None) => Kind::End { code },
        (Some("error"), None) => Kind::Error { reason: reason.unwrap_or_else(|| "connection reset".to_owned()) },
        (Some("close"), None) => Kind::Close,
        (None, None) => return Err("op is missing: name the action, or an event: open, end, error or close".to_owned()),
        (Some(event), _) => return Err(format!("event {event:?} does not fit: use open, end, error or close, without op")),
    };
    for (odd, whose, fits) in [
        ("contest", "an action", matches!(kind, Kind::Act { .. })),
        ("args", "an action", matches!(kind, Kind::Act { .. })),
        ("as", "an action", matches!(kind, Kind::Act { .. })),
        ("code", "the event end", matches!(kind, Kind::End { .. })),
        ("reason", "the event error", matches!(kind, Kind::Error { .. })),
    ] {
        if !fits && keys.iter().any(|key| key == odd) {
            return Err(format!("{odd} is for {whose} only: remove it"));
        }
    }
    Ok(Happens { who: player(who)?, session, role, kind })
}
