//! What a worker and a program say to each other: `docs/rules-protocol.md` has every field. Messages to a program are made of parts
//! that are JSON texts already; messages from one are read strictly, because a misspelt field would be a decision that is not meant.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Identity;
use crate::limits::{FIELD_BYTES_MAX, PROGRAM_DEPTH_MAX, PROGRAM_LINE_BYTES_MAX, PROGRAM_STACK_LINES_MAX, REASON_BYTES_MAX};
use crate::rules::{Decision, Due, Happening, What, When, offset_s};
use crate::types::{Audience, PlayerId, RoomTime, check_program_name, ns_of_ms};

/// The version of the protocol.
pub(crate) const PROTOCOL: u32 = 1;

/// A decision of a program, and the state after it if it changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decided {
    pub(crate) decision: Decision,
    pub(crate) state: Option<Arc<str>>,
}

/// What a program says.
#[derive(Debug)]
pub(crate) enum FromProgram {
    Hello(Identity),
    /// Answers the request of this number.
    Resolved(u64, Vec<Decided>),
    Pong(u64),
    /// Answers the request of this number: the state that this version made of another one's, or why it did not.
    Migrated(u64, Result<Arc<str>, String>),
    /// A line for the worker's log.
    Log(String),
}

/// An event as its JSON text. Equal events have equal texts.
#[derive(Default, Serialize)]
struct Event<'a> {
    event: &'a str,
    seq: u64,
    /// The room's time in milliseconds.
    now: f64,
    /// 128 random bits.
    seed: [u32; 4],
    #[serde(skip_serializing_if = "Option::is_none")]
    player: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

impl<'a> Event<'a> {
    fn new(event: &'a str, facts: crate::rules::Facts) -> Self {
        let [a, b] = [facts.random(0), facts.random(1)].map(|bits| [(bits >> 32) as u32, (bits & 0xffff_ffff) as u32]);
        Self { event, seq: facts.seq, now: facts.now.fractional_ms(), seed: [a[0], a[1], b[0], b[1]], ..Self::default() }
    }

    fn text(&self) -> String {
        // Strings, numbers and JSON values always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The core has checked arguments and data; what cannot be said in JSON is null.
fn value(bytes: &[u8]) -> Value {
    rmp_serde::from_slice(bytes).unwrap_or_default()
}

/// An event that reaches the rules.
pub(crate) fn event_text(happening: &Happening<'_>) -> String {
    let name = match happening.what {
        What::Open => "open",
        What::Data(_) => "data",
        What::End { .. } => "end",
        What::Error { .. } => "error",
        What::Close => "close",
    };
    let mut event = Event {
        player: Some(happening.player.as_str()),
        role: Some(happening.role.as_str()),
        session: Some(happening.session.to_string()),
        sessions: Some(happening.sessions_of(happening.player)),
        ..Event::new(name, happening.facts)
    };
    match happening.what {
        What::Data(act) => {
            (event.op, event.contest, event.args) = (Some(act.op), act.contest, Some(value(act.args)));
        }
        What::End { code } => event.code = Some(code),
        What::Error { reason } => event.reason = Some(reason),
        What::Open | What::Close => {}
    }
    event.text()
}

/// A timer that is due.
pub(crate) fn timer_text(timer: &Due<'_>) -> String {
    let event = Event {
        name: Some(timer.name),
        data: Some(value(timer.data)),
        due: Some(timer.due.fractional_ms()),
        late_ns: Some(timer.late_ns),
        missed: Some(timer.missed),
        ..Event::new("timer", timer.facts)
    };
    event.text()
}

/// Asks for decisions.
pub(crate) fn resolve(id: u64, state: &str, events: &[String]) -> String {
    let bytes: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut text = String::with_capacity(64 + state.len() + bytes);
    text.push_str(&format!(r#"{{"type":"resolve","id":{id},"state":{state},"events":["#));
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(event);
    }
    text.push_str("]}");
    text
}

/// Asks for this version's state, made of one that version `from` left.
pub(crate) fn migrate(id: u64, state: &str, from: u32) -> String {
    format!(r#"{{"type":"migrate","id":{id},"state":{state},"from":{from}}}"#)
}

/// Asks whether the program is there.
pub(crate) fn ping(id: u64) -> String {
    format!(r#"{{"type":"ping","id":{id}}}"#)
}

/// Says why the connection ends.
pub(crate) fn refused(error: &str) -> String {
    serde_json::json!({ "type": "refused", "error": error }).to_string()
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    #[serde(rename = "type")]
    _kind: serde::de::IgnoredAny,
    protocol: u32,
    name: String,
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolved<'a> {
    #[serde(rename = "type")]
    _kind: serde::de::IgnoredAny,
    id: u64,
    #[serde(borrow)]
    decisions: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pong {
    #[serde(rename = "type")]
    _kind: serde::de::IgnoredAny,
    id: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Migrated<'a> {
    #[serde(rename = "type")]
    _kind: serde::de::IgnoredAny,
    id: u64,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(rename = "type")]
    _kind: serde::de::IgnoredAny,
    text: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Granted,
    Denied,
    Won,
    Late,
    Failed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<'a> {
    outcome: Outcome,
    reason: Option<String>,
    contest: Option<String>,
    #[serde(default)]
    next_round: bool,
    to: Option<To>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(default, borrow)]
    timers: Vec<Timer<'a>>,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    error: Option<String>,
    #[serde(default)]
    stack: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum To {
    Word(String),
    Players(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timer<'a> {
    name: String,
    after: Option<f64>,
    at: Option<f64>,
    every: Option<f64>,
    cron: Option<String>,
    offset: Option<String>,
    #[serde(default)]
    cancel: bool,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads a message of a program that was asked for decisions on at most `most` events. A decision that says what it may not is one that
/// failed, and the last.
///
/// # Errors
/// One line that says what is wrong.
pub(crate) fn read(text: &str, most: usize) -> Result<FromProgram, String> {
    let Kind { kind } = parse(text)?;
    match &*kind {
        "hello" => {
            let Hello { protocol, name, version, .. } = parse(text)?;
            if protocol != PROTOCOL {
                return Err(format!("protocol {protocol}: this worker speaks {PROTOCOL}"));
            }
            check_program_name(&name).map_err(|e| e.to_string())?;
            Ok(FromProgram::Hello(Identity { name, version }))
        }
        "resolved" => {
            let Resolved { id, decisions, .. } = parse(text)?;
            if decisions.is_empty() || decisions.len() > most {
                return Err(format!("{} decisions on {most} events", decisions.len()));
            }
            Ok(FromProgram::Resolved(id, read_decisions(&decisions)))
        }
        "migrated" => {
            let Migrated { id, state, error, .. } = parse(text)?;
            match (state, error) {
                (Some(state), None) => {
                    check_depth(state, "the state")?;
                    Ok(FromProgram::Migrated(id, Ok(Arc::from(state.get()))))
                }
                (None, Some(error)) => Ok(FromProgram::Migrated(id, Err(line(&error)))),
                _ => Err("migrated has either a state or an error".to_owned()),
            }
        }
        "pong" => parse::<Pong>(text).map(|pong| FromProgram::Pong(pong.id)),
        "log" => parse::<Log>(text).map(|log| FromProgram::Log(line(&log.text))),
        other => Err(format!("type {other:?}: use hello, resolved, migrated, pong or log")),
    }
}

/// Reads the body of a frame from a program that speaks as the body is written, as an answer on at most `most` events. What it says, for
/// tests.
///
/// # Errors
/// As `read`.
pub fn check(body: &[u8], most: usize) -> Result<String, String> {
    let text = super::frames::read(super::frames::encoding(body), body.to_vec()).map_err(|e| e.to_string())?;
    read(&text, most).map(|said| format!("{said:?}"))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| format!("no message: {e}"))
}

/// A text as one bounded line.
pub(crate) fn line(text: &str) -> String {
    cut(text, PROGRAM_LINE_BYTES_MAX).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// Reads decisions up to the first that is none. That one has failed: what is wrong with it may come from a client's arguments, and
/// another instance would say the same. What follows rests on a state that is not there.
fn read_decisions(texts: &[&RawValue]) -> Vec<Decided> {
    let mut all = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        match serde_json::from_str(text.get()).map_err(|e| e.to_string()).and_then(decided) {
            Ok(decided) => all.push(decided),
            Err(why) => {
                let why = line(&format!("decisions[{i}]: {why}"));
                all.push(Decided { decision: Decision::failed(why, Vec::new()), state: None });
                break;
            }
        }
    }
    all
}

fn decided(said: Said<'_>) -> Result<Decided, String> {
    let Said { outcome, reason, contest, next_round, to, body, timers, state, error, stack } = said;
    let contest_of = |word: &str| contest.as_deref().ok_or_else(|| format!("outcome {word} needs a contest"));
    if reason.is_some() != (outcome == Outcome::Denied) {
        return Err("a reason belongs to the outcome denied, and only to that".to_owned());
    }
    if error.is_some() != (outcome == Outcome::Failed) {
        return Err("an error belongs to the outcome failed, and only to that".to_owned());
    }
    let mut decision = match outcome {
        Outcome::Granted => Decision::granted(),
        Outcome::Denied => Decision::denied(short(&reason.unwrap_or_default(), "a reason", REASON_BYTES_MAX)?),
        Outcome::Won => Decision::won(contest_of("won")?),
        Outcome::Late => Decision::late(contest_of("late")?),
        Outcome::Failed => {
            if state.is_some() {
                return Err("an event that failed changes no state".to_owned());
            }
            let stack = stack.iter().take(PROGRAM_STACK_LINES_MAX).map(|at| line(at)).collect();
            return Ok(Decided { decision: Decision::failed(line(&error.unwrap_or_default()), stack), state: None });
        }
    };
    if let Some(contest) = contest {
        decision = decision.about(&short(&contest, "a contest", FIELD_BYTES_MAX)?);
    } else if next_round {
        return Err("next_round needs a contest".to_owned());
    }
    if next_round {
        decision = decision.next_round();
    }
    match to {
        None if outcome == Outcome::Denied => decision = decision.to(Audience::Session),
        None => {}
        Some(To::Word(word)) => {
            decision = decision.to(match word.as_str() {
                "room" => Audience::Room,
                "sender" => Audience::Session,
                "server" => Audience::Server,
                other => return Err(format!("to {other:?}: use room, sender, server, or a list of players")),
            });
        }
        Some(To::Players(names)) => {
            let players = names.iter().map(|name| PlayerId::new(name).map_err(|e| format!("to {name:?}: {e}")));
            decision = decision.to(Audience::Players(players.collect::<Result<Arc<[_]>, _>>()?));
        }
    }
    if let Some(body) = body {
        decision.body = Some(pack(&plain(body, "the body")?)?);
    }
    for timer in timers {
        decision = timed(decision, timer)?;
    }
    if let Some(state) = state {
        check_depth(state, "the state")?;
    }
    Ok(Decided { decision, state: state.map(|state| Arc::from(state.get())) })
}

/// Deeper values could not be read again, or not by every program.
fn check_depth(value: &RawValue, what: &str) -> Result<(), String> {
    let (mut depth, mut most, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in value.get().bytes() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    if most > PROGRAM_DEPTH_MAX {
        Err(format!("{what} is nested {most} levels deep, not at most {PROGRAM_DEPTH_MAX}"))
    } else {
        Ok(())
    }
}

fn plain(value: &RawValue, what: &str) -> Result<Value, String> {
    check_depth(value, what)?;
    serde_json::from_str(value.get()).map_err(|e| format!("{what}: {e}"))
}

fn short(text: &str, what: &str, most: usize) -> Result<String, String> {
    match text.len() {
        bytes if (1..=most).contains(&bytes) => Ok(text.to_owned()),
        bytes => Err(format!("{what} of {bytes} bytes, not of 1 to {most}")),
    }
}

fn pack(value: &Value) -> Result<Bytes, String> {
    rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|e| e.to_string())
}

fn timed(decision: Decision, timer: Timer<'_>) -> Result<Decision, String> {
    let Timer { name, after, at, every, cron, offset, cancel, data } = timer;
    let said = [after.is_some(), at.is_some(), every.is_some(), cron.is_some(), cancel];
    if said.into_iter().filter(|is| *is).count() != 1 {
        return Err(format!("timer {name:?}: give one of after, at, every, cron and cancel"));
    }
    if offset.is_some() && cron.is_none() {
        return Err(format!("timer {name:?}: an offset belongs to cron"));
    }
    let ns = |ms: f64| ns_of_ms(ms).ok_or_else(|| format!("timer {name:?}: {ms} is no number of milliseconds from 0 on"));
    // A moment that the core's bounds do not allow makes the verdict void there.
    let when = if let Some(ms) = after {
        When::After(Duration::from_nanos(ns(ms)?))
    } else if let Some(ms) = at {
        When::At(RoomTime(ns(ms)?))
    } else if let Some(ms) = every {
        When::Every(Duration::from_nanos(ns(ms)?))
    } else if let Some(expression) = cron {
        let offset_s = offset.as_deref().map_or(Ok(0), offset_s).map_err(|e| format!("timer {name:?}: {e}"))?;
        When::Cron { expression, offset_s }
    } else {
        return Ok(decision.cancel(&name));
    };
    let data = data.map_or(Ok(Value::Null), |data| plain(data, &format!("the data of timer {name:?}")))?;
    Ok(decision.timer(&name, when, &data))
}
