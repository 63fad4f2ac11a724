//! Plays a scenario in a room, without gateway, journal and clock.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::scenario::{Expected, Happens, Kind, Problem, Scenario, Step};
use crate::engine::{Held, HostClock, Room, Trouble};
use crate::limits::STEP_FIRES_MAX;
use crate::rules::Rules;
use crate::types::{
    Action, Arrival, Audience, EventKind, Flags, Incarnation, Moment, Outcome, PlayerId, Role, SessionId, Stamp, StreamId,
    Verdict,
};
use crate::wire::action;

/// 2026-01-01 00:00 UTC, a Thursday: the room time at which every scenario begins.
const BEGIN_NS: u64 = 1_767_225_600_000_000_000;
/// When that is on the host's monotonic clock.
const BOOTED_NS: u64 = 1_000_000_000;
const CLOCK: HostClock = HostClock { timeline: 1, epoch_ns: BEGIN_NS - BOOTED_NS, since_ns: 0, from_ns: 0 };
/// The seed of every room.
const SEED: u128 = 0x6c61_7374_6869_7400_6c61_7374_6869_7400;
const GATEWAY: Incarnation = Incarnation(1);

/// Decides what happens next in a room. None if nothing does.
pub(super) type Next<'a> = &'a mut dyn FnMut(&mut Room) -> Option<Verdict>;

/// Lets it happen: it gets the room, and the name of what happens.
pub(super) type Around<'a> = &'a mut dyn FnMut(&mut Room, &str, Next<'_>) -> Option<Verdict>;

/// A verdict, and what the program had trouble with.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) trouble: Trouble,
}

/// What a step led to.
#[derive(Debug)]
pub(super) struct Led {
    pub(super) fires: Vec<Decided>,
    /// The Open of a session that was not inside.
    pub(super) joined: Option<Decided>,
    pub(super) decided: Option<Decided>,
}

struct Player<'a> {
    room: Room,
    around: Around<'a>,
    now_ns: u64,
    ordinal: u64,
    /// By player and number.
    sessions: BTreeMap<(PlayerId, u64), (SessionId, Role)>,
}

/// Plays the steps. The error is told of the step that could not be played.
pub(super) fn play(scenario: &Scenario, rules: Box<dyn Rules>, around: Around<'_>) -> Result<Vec<Led>, Problem> {
    let room = Room::with_seed(1, SEED, rules);
    let mut player = Player { room, around, now_ns: BOOTED_NS, ordinal: 0, sessions: BTreeMap::new() };
    let steps = (1..).zip(&scenario.steps);
    steps.map(|(at, step)| player.step(step).map_err(|what| Problem::of(at, what))).collect()
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<Led, String> {
        self.now_ns = self.now_ns.saturating_add(step.after_ns);
        let fires = self.fire()?;
        let Some(event) = &step.event else { return Ok(Led { fires, joined: None, decided: None }) };
        let of = (event.who.clone(), event.session);
        let mut joined = None;
        let session = match self.sessions.get(&of) {
            Some(_) if matches!(event.kind, Kind::Open) => return Err(format!("{} is inside already", event.who)),
            Some((_, role)) if event.role.is_some_and(|said| said != *role) => {
                return Err(format!("{} is inside as {}: a role belongs to the step that joins", event.who, role.as_str()));
            }
            Some((session, _)) => *session,
            None => {
                let (session, role) =
                    (SessionId { gateway: GATEWAY, number: self.ordinal + 1 }, event.role.unwrap_or(Role::Player));
                self.sessions.insert(of.clone(), (session, role));
                let open = EventKind::Open { player: event.who.clone(), role };
                joined = self.event(session, "open", open);
                session
            }
        };
        let Some((name, kind)) = self.kind(event) else {
            // The session has joined.
            return Ok(Led { fires, joined: None, decided: joined });
        };
        let decided = self.event(session, &name, kind);
        if matches!(event.kind, Kind::Close) {
            self.sessions.remove(&of);
        }
        Ok(Led { fires, joined, decided })
    }

    /// What happens on a session that is inside: its name, and the event.
    fn kind(&self, event: &Happens) -> Option<(String, EventKind)> {
        Some(match &event.kind {
            Kind::Open => return None,
            Kind::Act { op, contest, player, args } => {
                let action = Action {
                    op: op.clone(),
                    id: self.ordinal.to_string(),
                    contest: contest.clone(),
                    player: player.clone(),
                    seen: None,
                    args: args.clone(),
                };
                (op.clone(), EventKind::Data(action::encode(&action)))
            }
            Kind::End { code } => ("end".to_owned(), EventKind::End { code: *code }),
            Kind::Error { reason } => ("error".to_owned(), EventKind::Error { reason: reason.clone() }),
            Kind::Close => ("close".to_owned(), EventKind::Close),
        })
    }

    fn event(&mut self, session: SessionId, name: &str, kind: EventKind) -> Option<Decided> {
        self.ordinal += 1;
        let moment = Moment { timeline: CLOCK.timeline, ns: self.now_ns };
        let held = Held {
            at: StreamId { ms: self.ordinal, seq: 0 },
            stamp: Stamp { moment, incarnation: GATEWAY, ordinal: self.ordinal },
            arrival: Arrival::at(self.now_ns, 0),
            session,
            kind: Some(kind),
            unreadable: None,
            read_ns: 0,
        };
        self.room.keep_time(CLOCK, moment);
        let verdict = (self.around)(&mut self.room, name, &mut |room| Some(room.resolve(&held, None)));
        verdict.map(|verdict| Decided { verdict, trouble: self.room.take_trouble() })
    }

    /// Fires what is due by now, as long as somebody is inside or the timers keep the room.
    fn fire(&mut self) -> Result<Vec<Decided>, String> {
        let limit = Moment { timeline: CLOCK.timeline, ns: self.now_ns };
        let mut fires: Vec<Decided> = Vec::new();
        while self.room.sessions().next().is_some() || self.room.is_kept_by_timers() {
            let Some(place) = self.room.next_fire_by(CLOCK, limit) else { break };
            if fires.len() == STEP_FIRES_MAX {
                return Err(format!("more than {STEP_FIRES_MAX} timers fire in it: let less time pass"));
            }
            self.room.keep_time(CLOCK, place);
            let verdict =
                (self.around)(&mut self.room, "timer", &mut |room| room.fire(place, (CLOCK, place.ns), Flags::default(), None));
            let Some(verdict) = verdict else { break };
            fires.push(Decided { verdict, trouble: self.room.take_trouble() });
        }
        Ok(fires)
    }
}

/// A verdict as the tests speak of it.
pub(crate) fn shown(verdict: &Verdict) -> Value {
    let (outcome, reason) = match &verdict.outcome {
        Outcome::Granted => ("granted", None),
        Outcome::Denied(reason) => ("denied", Some(reason)),
        Outcome::Void(reason) => ("void", Some(reason)),
        Outcome::Repeat { .. } => ("repeat", None),
    };
    let to = match &verdict.audience {
        Audience::Room => json!("room"),
        Audience::Session => json!("sender"),
        Audience::Server => json!("server"),
        Audience::Players(players) => players.iter().map(|player| Value::from(player.as_str())).collect(),
    };
    let body: Option<Value> = verdict.body.as_ref().and_then(|body| rmp_serde::from_slice(body).ok());
    let mut shown = json!({ "outcome": outcome, "to": to });
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown[key] = value;
        }
    };
    put("reason", reason.map(|reason| json!(reason)));
    put("contest", verdict.contest.as_ref().map(|contest| json!(contest)));
    put("round", verdict.contest.as_ref().map(|_| json!(verdict.round)));
    put("body", body);
    put("timer", verdict.fire.as_ref().map(|fire| json!(fire.name)));
    shown
}

impl Expected {
    /// What is otherwise in a verdict, one line each.
    pub(super) fn differs(&self, verdict: &Verdict) -> Vec<String> {
        let shown = shown(verdict);
        let odd = self.0.iter().filter(|(key, expected)| shown.get(key).unwrap_or(&Value::Null) != *expected);
        odd.map(|(key, expected)| format!("{key} is {}, not {expected}", shown.get(key).unwrap_or(&Value::Null))).collect()
    }

    /// Whether the program is expected to fail.
    pub(super) fn is_void(&self) -> bool {
        self.0.get("outcome").is_some_and(|outcome| outcome == "void")
    }
}
