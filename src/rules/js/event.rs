//! What a handler reads and decides while an event is under way: the functions behind `ctx`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rquickjs::{Ctx, Exception, Filter, Function, Object, Result, String as Text, Value};

use super::data::{self, Encoder, Fault};
use super::state::{self, Index};
use crate::limits::{
    AUDIENCE_PLAYERS_MAX, DATA_BYTES_MAX, FIELD_BYTES_MAX, REASON_BYTES_MAX, TIMER_COMMANDS_MAX, TIMER_DATA_BYTES_MAX,
};
use crate::rules::{Decision, Facts, Ruling, TimerCommand, TimerFault, When, offset_s};
use crate::types::{Audience, PlayerId, RoomTime, SessionId, ns_of_ms};

/// The event that is under way in a context.
#[derive(Debug, Default)]
pub(super) struct Event {
    /// The state before it.
    pub(super) state: Bytes,
    /// Finds the keys of that state.
    pub(super) index: Index,
    pub(super) facts: Facts,
    /// Random numbers drawn.
    pub(super) draws: u32,
    pub(super) session: Option<SessionId>,
    /// How many sessions the player has inside; None until it is known that the program asks.
    pub(super) sessions: Option<usize>,
    /// The program has asked for what it was not given: the event is to be run again with it.
    pub(super) wants_sessions: bool,
    pub(super) ruling: Option<Ruling>,
    pub(super) contest: Option<String>,
    pub(super) next_round: bool,
    pub(super) audience: Option<Audience>,
    pub(super) body: Option<Bytes>,
    pub(super) timers: Vec<TimerCommand>,
    /// The state after it, if it differs.
    pub(super) changed: Option<Vec<u8>>,
}

/// Shared by a context and the functions in it.
pub(super) type Current = Rc<RefCell<Event>>;

impl Event {
    /// The value of a key of the state.
    fn value(&mut self, key: &[u8]) -> Option<Bytes> {
        let entry = self.index.find(&self.state, key)?;
        Some(self.state.slice(entry.value))
    }

    /// The decision. `contest` is the action's.
    pub(super) fn decision(&mut self, contest: Option<&str>) -> Decision {
        let ruling = self.ruling.take().unwrap_or(Ruling::Granted);
        let usual = if matches!(ruling, Ruling::Denied(_)) { Audience::Session } else { Audience::Room };
        Decision {
            ruling,
            contest: self.contest.take().or_else(|| contest.map(str::to_owned)),
            next_round: self.next_round,
            audience: self.audience.take().unwrap_or(usual),
            body: self.body.take(),
            timers: std::mem::take(&mut self.timers),
        }
    }

    /// Notes what `ctx.win`, `ctx.late`, `ctx.deny` and `ctx.nextRound` say. The error is what is wrong with it.
    fn rule(&mut self, what: &str, text: String) -> std::result::Result<(), String> {
        if what == "deny" {
            if !(1..=REASON_BYTES_MAX).contains(&text.len()) {
                return Err(format!("ctx.deny: a reason of {} bytes: use 1 to {REASON_BYTES_MAX}", text.len()));
            }
        } else if !(1..=FIELD_BYTES_MAX).contains(&text.len()) {
            return Err(format!("ctx.{what}: a contest's name of {} bytes: use 1 to {FIELD_BYTES_MAX}", text.len()));
        } else if self.contest.as_ref().is_some_and(|contest| *contest != text) {
            return Err(format!(
                "ctx.{what}: a verdict is about one contest: it was {:?} before",
                self.contest.as_deref().unwrap_or_default()
            ));
        }
        if what == "nextRound" {
            (self.contest, self.next_round) = (Some(text), true);
            return Ok(());
        }
        if self.ruling.is_some() {
            return Err(format!("ctx.{what}: this event was decided before: call one of win, late and deny, once"));
        }
        self.ruling = Some(match what {
            "deny" => Ruling::Denied(text),
            _ => {
                self.contest = Some(text);
                if what == "late" { Ruling::Late } else { Ruling::Won }
            }
        });
        Ok(())
    }

    fn to(&mut self, word: Option<&str>, players: &[String]) -> std::result::Result<(), String> {
        if players.len() > AUDIENCE_PLAYERS_MAX {
            return Err(format!("audience_too_large: {} players, at most {AUDIENCE_PLAYERS_MAX}", players.len()));
        }
        self.audience = Some(match word {
            Some("room") => Audience::Room,
            Some("sender") => Audience::Session,
            Some("server") => Audience::Server,
            Some(other) => {
                return Err(format!(
                    "ctx.to: {other:?} is not known: use \"room\", \"sender\", \"server\", or an array of players"
                ));
            }
            None => {
                let players: std::result::Result<Vec<PlayerId>, _> = players.iter().map(|name| PlayerId::new(name)).collect();
                Audience::Players(players.map_err(|e| format!("ctx.to: {e}"))?.into())
            }
        });
        Ok(())
    }

    fn command(&mut self, command: TimerCommand) -> std::result::Result<(), String> {
        if self.timers.len() >= TIMER_COMMANDS_MAX {
            return Err(format!("too_many_timers: one event sets and cancels at most {TIMER_COMMANDS_MAX}"));
        }
        self.timers.push(command);
        Ok(())
    }

    fn timer(&mut self, name: String, when: When, data: Vec<u8>) -> std::result::Result<(), String> {
        if !(1..=FIELD_BYTES_MAX).contains(&name.len()) {
            return Err(format!("bad_timer: a name of {} bytes: use 1 to {FIELD_BYTES_MAX}", name.len()));
        }
        if data.len() > TIMER_DATA_BYTES_MAX {
            return Err(TimerFault::Data(data.len()).to_string());
        }
        when.first(self.facts.now).map_err(|fault| fault.to_string())?;
        self.command(TimerCommand::Set { name, when, data: data.into() })
    }
}

fn when(kind: &str, value: &str, offset: &str) -> std::result::Result<When, String> {
    if kind == "cron" {
        let offset_s = offset_s(offset).map_err(|why| format!("bad_timer: {why}"))?;
        return Ok(When::Cron { expression: value.to_owned(), offset_s });
    }
    let bad = || format!("bad_timer: {kind}: {value} is no number of milliseconds from 0 on");
    let ns = value.parse().ok().and_then(ns_of_ms).ok_or_else(bad)?;
    Ok(match kind {
        "after" => When::After(Duration::from_nanos(ns)),
        "every" => When::Every(Duration::from_nanos(ns)),
        _ => When::At(RoomTime(ns)),
    })
}

fn told<T>(ctx: &Ctx<'_>, result: std::result::Result<T, String>) -> Result<T> {
    result.map_err(|why| Exception::throw_range(ctx, &why))
}

/// The object that the prelude calls `native`.
pub(super) fn native<'js>(ctx: &Ctx<'js>, event: &Current) -> Result<Object<'js>> {
    let native = Object::new(ctx.clone())?;
    let shared = || event.clone();

    let event = shared();
    let load = move |ctx: Ctx<'js>, key: String| -> Result<Value<'js>> {
        let value = event.borrow_mut().value(key.as_bytes());
        match value {
            Some(value) => data::decode(&ctx, &value),
            None => Ok(Value::new_undefined(ctx)),
        }
    };
    native.set("load", Function::new(ctx.clone(), load)?)?;

    let event = shared();
    let keys = move || -> Vec<String> {
        let state = &event.borrow().state;
        // The bytes were written here, or checked when they were restored.
        let entries = state::entries(state).unwrap_or_default();
        entries.into_iter().map(|entry| String::from_utf8_lossy(&state[entry.key]).into_owned()).collect()
    };
    native.set("keys", Function::new(ctx.clone(), keys)?)?;

    let event = shared();
    let random = move || -> f64 {
        let mut event = event.borrow_mut();
        let bits = event.facts.random(event.draws) >> 11;
        event.draws = event.draws.saturating_add(1);
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let fraction = bits as f64 / (1_u64 << 53) as f64;
        fraction
    };
    native.set("random", Function::new(ctx.clone(), random)?)?;

    let event = shared();
    let session = move || event.borrow().session.map(|session| session.to_string());
    native.set("session", Function::new(ctx.clone(), session)?)?;

    let event = shared();
    let sessions = move |ctx: Ctx<'js>| -> Result<u32> {
        let mut event = event.borrow_mut();
        if let Some(sessions) = event.sessions {
            return Ok(u32::try_from(sessions).unwrap_or(u32::MAX));
        }
        event.wants_sessions = true;
        Err(Exception::throw_internal(&ctx, "the event is run again"))
    };
    native.set("sessions", Function::new(ctx.clone(), sessions)?)?;

    let event = shared();
    let rule = move |ctx: Ctx<'js>, what: String, text: String| told(&ctx, event.borrow_mut().rule(&what, text));
    native.set("rule", Function::new(ctx.clone(), rule)?)?;

    let event = shared();
    let to = move |ctx: Ctx<'js>, word: Option<String>, players: Vec<String>| {
        told(&ctx, event.borrow_mut().to(word.as_deref(), &players))
    };
    native.set("to", Function::new(ctx.clone(), to)?)?;

    let event = shared();
    let timer = move |ctx: Ctx<'js>, said: Vec<String>, data: Value<'js>, plain: Object<'js>| {
        let [name, kind, value, offset] = <[String; 4]>::try_from(said).unwrap_or_default();
        let mut encoder = Encoder::new(plain, DATA_BYTES_MAX);
        encoder.value(&data).map_err(|fault| fault.throw(&ctx, "ctx.timer: data"))?;
        let set = when(&kind, &value, &offset).and_then(|when| event.borrow_mut().timer(name, when, encoder.bytes));
        told(&ctx, set)
    };
    native.set("timer", Function::new(ctx.clone(), timer)?)?;

    let event = shared();
    let cancel = move |ctx: Ctx<'js>, name: String| told(&ctx, event.borrow_mut().command(TimerCommand::Cancel(name)));
    native.set("cancel", Function::new(ctx.clone(), cancel)?)?;

    let event = shared();
    let done = move |ctx: Ctx<'js>, body: Value<'js>, touched: u32, state: Value<'js>, plain: Object<'js>| {
        done(&ctx, &event, &body, (touched, &state), plain)
    };
    native.set("done", Function::new(ctx.clone(), done)?)?;
    Ok(native)
}

/// Takes over what the handler has returned, and what it did to the state. `touched` is 0 if it did not look at it, 1 if the object
/// has the keys that it touched, 2 if it has all keys.
fn done<'js>(
    ctx: &Ctx<'js>,
    event: &Current,
    body: &Value<'js>,
    (touched, state): (u32, &Value<'js>),
    plain: Object<'js>,
) -> Result<()> {
    let mut encoder = Encoder::new(plain, DATA_BYTES_MAX);
    if !body.is_undefined() {
        encoder.value(body).map_err(|fault| fault.throw(ctx, "the returned value"))?;
        event.borrow_mut().body = Some(std::mem::take(&mut encoder.bytes).into());
    }
    if touched > 0 {
        let after = changed(&mut encoder, event, touched == 1, state).map_err(|fault| fault.throw(ctx, "state"))?;
        event.borrow_mut().changed = after;
    }
    Ok(())
}

/// The state after an event. None if it is the same.
fn changed<'js>(
    encoder: &mut Encoder<'js>,
    event: &Current,
    in_part: bool,
    state: &Value<'js>,
) -> std::result::Result<Option<Vec<u8>>, Fault> {
    let object = match state.as_object() {
        Some(object) if !state.is_array() => object,
        _ => return Err(Fault::odd("no object: the state is a plain object")),
    };
    if !in_part {
        encoder.check_plain(object)?;
    }
    // The event is not borrowed while values are read: that may run code of the program.
    let mut touched: Vec<(String, std::ops::Range<usize>)> = Vec::new();
    for prop in object.own_props::<Text<'js>, Value<'js>>(Filter::default()) {
        let (key, value) = prop?;
        let key = key.to_string()?;
        let start = encoder.bytes.len();
        if !value.is_undefined() {
            encoder.value(&value).map_err(|fault| fault.below(&key))?;
        }
        touched.push((key, start..encoder.bytes.len()));
    }
    // An empty value is a key that is undefined.
    let touched = touched.iter().map(|(key, value)| (key.as_bytes(), &encoder.bytes[value.clone()]));
    let event = &mut *event.borrow_mut();
    let (before, index) = (&event.state, &mut event.index);
    let after = if in_part {
        match state::with_changes(before, index, touched) {
            Some(after) => after,
            None => return Ok(None),
        }
    } else {
        let mut after = state::empty();
        touched.filter(|(_, value)| !value.is_empty()).for_each(|(key, value)| state::push(&mut after, key, value));
        after
    };
    if after.len() > DATA_BYTES_MAX {
        return Err(Fault::odd(format!("too large: {} bytes, at most {DATA_BYTES_MAX} a room", after.len())));
    }
    Ok((after != before[..]).then_some(after))
}
