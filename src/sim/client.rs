//! Players: they join, race for contests, leave, vanish, come back with `since` and send again what was not answered.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::follow::Moving;
use super::process::Unread;
use super::world::{Channel, Happening, MS, Pid, US, World};
use crate::gateway::homes::Located;
use crate::gateway::{Delivery, Joining};
use crate::types::{Action, Arrival, PlayerId, Role, RoomId, ShardId, Since, Verdict};
use crate::wire::client::{ErrorCode, VerdictFrames, Welcome, close};

const CONTESTS: u64 = 3;
/// How long a player waits at its room's home for a welcome before it asks others.
const WELCOME_NS: u64 = 400 * MS;
/// How often in a row it goes where it is sent.
const FOLLOW_MAX: u32 = 4;
/// Actions that a player who follows moves leaves unanswered.
const OPEN_MAX: usize = 6;

#[derive(Debug)]
pub(super) enum Message {
    Open(Joining),
    Act(Action),
    Leave,
    Break,
}

/// A connection, for as long as anybody may speak of it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) gateway: usize,
    pub(super) start: u64,
    pub(super) session: Option<u64>,
    opened_at: u64,
    last_arrival_ns: u64,
    /// What it continues after.
    pub(super) asked: Option<Since>,
    /// What it was told: which of its client's.
    pub(super) told: Option<usize>,
}

/// What one session was told: everything in (after, to] that it may see.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) era: u64,
    pub(super) after: u64,
    pub(super) to: u64,
    pub(super) verdicts: BTreeMap<u64, Verdict>,
    pub(super) session: crate::types::SessionId,
    pub(super) resumed: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) player: PlayerId,
    pub(super) role: Role,
    pub(super) room: RoomId,
    pub(super) conn: Option<u64>,
    pub(super) welcomed: bool,
    /// The host that is its room's home, as far as it knows, and the number.
    pub(super) home: Option<usize>,
    home_number: u32,
    /// How often in a row it was sent on, and told of an earlier home.
    follows_on: u32,
    lower: u32,
    pub(super) seen: Option<Since>,
    /// How much of `told` it knows to be void, for it was ahead of what the journal has.
    pub(super) void: usize,
    /// Sent and not answered.
    pub(super) open: BTreeMap<String, Action>,
    /// Of these, what waits for an answer, and on which connection.
    pub(super) sent_on: BTreeMap<String, u64>,
    pub(super) refused: BTreeSet<String>,
    /// What was refused, or sent again after its answer: it takes its place when it is sent again.
    pub(super) late: BTreeSet<String>,
    pub(super) answered: Vec<Action>,
    pub(super) next: u64,
    pub(super) told: Vec<Told>,
    /// Whether it moves when it is asked to.
    pub(super) follows: bool,
    pub(super) moving: Option<Moving>,
    pub(super) moves: u64,
}

impl Client {
    pub(super) fn new(index: usize, room: RoomId, moved: bool) -> Self {
        Self {
            // The first two are one player on two connections; some are game servers.
            player: PlayerId::new(&format!("p{}", index.max(1))).expect("a name"),
            role: if index % 5 == 4 { Role::Server } else { Role::Player },
            room,
            conn: None,
            welcomed: false,
            home: None,
            home_number: 0,
            follows_on: 0,
            lower: 0,
            seen: None,
            void: 0,
            open: BTreeMap::new(),
            sent_on: BTreeMap::new(),
            refused: BTreeSet::new(),
            late: BTreeSet::new(),
            answered: Vec::new(),
            next: 0,
            told: Vec::new(),
            // Some ignore it.
            follows: moved && index % 4 != 3,
            moving: None,
            moves: 0,
        }
    }

    /// What waits for an answer, oldest first.
    pub(super) fn unanswered(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.open.keys().cloned().collect();
        ids.sort_by_key(|id| (id.len(), id.clone()));
        ids
    }
}

impl World {
    pub(super) fn client_step(&mut self, index: usize) {
        // A crowd together does not do more than a few.
        let crowd = (self.clients.len() as u64).div_ceil(20);
        let pause = crowd * if self.calm { 50 * MS } else { self.options.leisure * (3 * MS + self.below(50 * MS)) };
        self.after(pause, None, Happening::ClientStep(index));
        let (conn, welcomed) = (self.clients[index].conn, self.clients[index].welcomed);
        let Some(conn) = conn else {
            self.join(index, None);
            return;
        };
        let waits = self.hosts.len() > 1 && self.conns[&conn].opened_at + WELCOME_NS < self.now;
        if waits && !welcomed && self.clients[index].home.take().is_some() {
            self.say(conn, self.now, Message::Leave);
            self.part(index);
            self.ledger.count("players that forget a home");
            return;
        }
        if !self.clients[index].is_silent() {
            for id in std::mem::take(&mut self.clients[index].refused) {
                self.send_action(index, &id, self.now);
            }
        }
        if self.calm {
            return;
        }
        let rude = self.options.rude && index == 1;
        match self.below(100) {
            0..50 if rude => self.repeat(index, conn),
            50..75 if rude => {
                self.say(conn, self.now, Message::Leave);
                self.part(index);
            }
            0..75 if welcomed || self.hasty(200) => self.act(index, self.now),
            75..83 => self.repeat(index, conn),
            83..90 => {
                self.say(conn, self.now, Message::Leave);
                self.part(index);
            }
            90..95 => {
                let noticed = self.now + self.below(40 * MS);
                self.say(conn, noticed, Message::Break);
                self.part(index);
            }
            _ => {}
        }
    }

    /// The client no longer listens to its connection, nor to that of a move.
    fn part(&mut self, index: usize) {
        if let Some(next) = self.clients[index].next_conn() {
            self.say(next, self.now, Message::Leave);
        }
        self.clients[index].moving = None;
        self.clients[index].conn = None;
        self.clients[index].welcomed = false;
    }

    /// Its connection has ended.
    fn lose(&mut self, index: usize, code: u16, why: &str) {
        if self.clients[index].next_conn().is_some() {
            if !self.clients[index].moving.as_ref().is_some_and(|moving| moving.welcomed) {
                self.unconnected(index, why);
            }
            return self.go_on_with_next(index);
        }
        self.unconnected(index, why);
        self.part(index);
        if code == close::MOVED {
            self.ledger.count("sessions closed as moved");
            self.join(index, None);
        } else if code == close::ELSEWHERE && self.sent_on(index, why) {
            self.join(index, None);
        }
    }

    /// A player is told where its room is. Tells whether it goes there at once (rule H9).
    pub(super) fn sent_on(&mut self, index: usize, reason: &str) -> bool {
        let (url, number) = reason.split_once('#').expect("a URL and a number");
        let number: u32 = number.parse().expect("a number");
        let client = &mut self.clients[index];
        if number < client.home_number {
            self.ledger.count("answers of earlier homes");
            client.lower += 1;
            if client.lower == FOLLOW_MAX {
                (client.home_number, client.lower) = (0, 0);
            }
            return false;
        }
        (client.home, client.home_number, client.lower) = (Some(super::hosts::place_of_url(url)), number, 0);
        client.follows_on += 1;
        self.ledger.count("players sent on");
        if client.follows_on > FOLLOW_MAX {
            (client.home, client.follows_on) = (None, 0);
            self.ledger.count("players sent on too often");
            return false;
        }
        true
    }

    /// Whether it acts before it is welcomed. Who moves keeps its actions in order, and waits.
    fn hasty(&mut self, per_mille: u32) -> bool {
        self.chance(per_mille) && self.supervisor.is_none()
    }

    pub(super) fn join(&mut self, index: usize, gateway: Option<usize>) {
        let alive = self.gateways_in_reach();
        if alive.is_empty() {
            return;
        }
        // The connection to its home fails where nobody is in reach there.
        let home = self.clients[index].home.and_then(|home| self.gateway_at(home));
        let gateway = match gateway.or(home) {
            Some(gateway) => gateway,
            None if self.supervisor.is_some() => match self.door() {
                Some(gateway) => gateway,
                None => return,
            },
            None => alive[self.below(alive.len() as u64) as usize],
        };
        let fresh = self.chance(150);
        let since = self.clients[index].seen.filter(|_| !fresh);
        let id = self.open_conn(index, gateway, since);
        self.clients[index].conn = Some(id);
        self.clients[index].welcomed = false;
        if self.hasty(300) {
            // Sent along with the upgrade (rule S7).
            self.act(index, self.now);
        }
    }

    /// Opens a connection to a gateway.
    pub(super) fn open_conn(&mut self, index: usize, gateway: usize, since: Option<Since>) -> u64 {
        let client = &self.clients[index];
        let joining = Joining { room: client.room.clone(), player: client.player.clone(), role: client.role, since };
        let id = self.conns.len() as u64 + 1;
        let start = self.gateways[gateway].start;
        let conn = Conn {
            client: index,
            gateway,
            start,
            session: None,
            opened_at: self.now,
            last_arrival_ns: self.now,
            asked: since,
            told: None,
        };
        self.conns.insert(id, conn);
        self.trace(|| format!("client {index} joins {} at gateway {gateway}: conn {id}", self.clients[index].room));
        // A supervisor passes it on.
        let slowly = self.supervisor.is_some() && self.below(3) == 0;
        let passing = if slowly { self.below(40 * MS) } else { 0 };
        self.gateways[gateway].coming += 1;
        self.say(id, self.now + passing, Message::Open(joining));
        id
    }

    /// Sends an action that waits for its answer.
    pub(super) fn send_action(&mut self, index: usize, id: &str, at: u64) {
        let client = &mut self.clients[index];
        let (Some(conn), Some(action)) = (client.conn, client.open.get(id).cloned()) else { return };
        client.sent_on.insert(id.to_owned(), conn);
        self.say(conn, at, Message::Act(action));
    }

    /// The client sends something that reaches the machine `at` or soon after.
    pub(super) fn say(&mut self, conn: u64, at: u64, message: Message) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let at = at.max(c.last_arrival_ns + 1).max(self.now);
        c.last_arrival_ns = at;
        self.at(at, None, Happening::Arrive { conn, message });
    }

    pub(super) fn act(&mut self, index: usize, at: u64) {
        let contest = format!("c{}", self.below(CONTESTS));
        let op = match self.below(12) {
            0..6 => "hit",
            6..8 => "next",
            8..10 => "arm",
            10 => ["tick", "stop"][self.below(2) as usize],
            // Of the same length, and without another number drawn: a seed plays on as it did.
            _ => ["note", "fail"][usize::from(self.clients[index].next % 2 == 1)],
        };
        self.act_on(index, at, op, &contest);
    }

    pub(super) fn act_on(&mut self, index: usize, at: u64, op: &str, contest: &str) {
        let Some(conn) = self.clients[index].conn else { return };
        let client = &mut self.clients[index];
        if client.open.len() >= OPEN_MAX && client.follows {
            return;
        }
        client.next += 1;
        let id = format!("{index}-{}", client.next);
        let (op, contest) = (op.to_owned(), Some(contest.to_owned()));
        let action = Action { op, id: id.clone(), contest, player: None, seen: None, args: Bytes::from_static(&[0xc0]) };
        // It says so only when it sends it again.
        client.open.insert(id.clone(), Action { seen: client.seen, ..action.clone() });
        if client.is_silent() {
            return;
        }
        client.sent_on.insert(id, conn);
        self.say(conn, at, Message::Act(action));
    }

    fn repeat(&mut self, index: usize, conn: u64) {
        let answered = self.clients[index].answered.len() as u64;
        if answered > 0 && !self.clients[index].is_silent() {
            let which = self.below(answered) as usize;
            let action = self.clients[index].answered[which].clone();
            self.clients[index].late.insert(action.id.clone());
            self.say(conn, self.now, Message::Act(action));
        }
    }

    /// Everybody in a room hits at nearly the same time.
    pub(super) fn rally(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.options.leisure * (2 * MS + self.below(12 * MS));
        self.after(pause, None, Happening::Rally);
        let any = self.below(self.rooms.len() as u64) as usize;
        let room = self.rooms[any].clone();
        let contest = format!("c{}", self.below(CONTESTS));
        for index in 0..self.clients.len() {
            if self.clients[index].room == room && self.clients[index].welcomed {
                let at = self.now + self.below(30 * US);
                self.act_on(index, at, "hit", &contest);
            }
        }
    }

    pub(super) fn arrive(&mut self, conn: u64, message: Message) {
        let c = &self.conns[&conn];
        let (gateway, index) = (&self.gateways[c.gateway], c.gateway);
        if gateway.core.is_none() || gateway.start != c.start {
            self.along(Channel::ToClient(conn), None, Happening::ConnectionLost(conn));
            return;
        }
        if let Message::Act(action) = &message {
            let client = &self.clients[c.client];
            let key = (client.room.clone(), client.player.clone(), action.id.clone());
            let host = self.host(index);
            let (name, arrival_ns) = (host.name, host.local(self.now));
            self.ledger.arrivals.entry(key).or_default().insert((name, arrival_ns));
            // A gateway that dies takes it along; whoever it could have beaten must know (rule R7).
            if client.welcomed && client.conn == Some(conn) {
                let (room, shard) = (client.room.clone(), ShardId::of(&client.room, self.store.shards()));
                let core = gateway.core.as_ref().expect("it lives");
                let (incarnation, timeline) = (core.session_id(c.session.unwrap_or_default()).gateway, core.home_of(&room));
                // A session of an earlier turn takes nothing in any more.
                if incarnation == core.turn_in(shard) {
                    self.ledger.lost.push(super::ledger::Lost { incarnation, room, timeline, arrival_ns });
                }
            }
        }
        let arrival_ns = self.local(index);
        self.gateways[index].sockets.push(Unread { arrival_ns, conn, message });
        let slowly = self.chance(30);
        self.want_turn(index, 3 * US, if slowly { 3 * MS } else { 60 * US });
    }

    /// A gateway reads what a session sent.
    pub(super) fn feed(&mut self, index: usize, unread: Unread) {
        let Unread { arrival_ns, conn, message } = unread;
        let arrival = Arrival::at(arrival_ns, 0);
        match message {
            Message::Open(joining) if self.is_answered(index, conn, &joining) => {
                self.gateways[index].coming = self.gateways[index].coming.saturating_sub(1);
            }
            Message::Open(joining) => {
                let gateway = &mut self.gateways[index];
                gateway.coming = gateway.coming.saturating_sub(1);
                let Some(core) = &mut gateway.core else { return };
                match core.open(joining, arrival) {
                    Ok(session) => {
                        gateway.sessions.insert(session.number, conn);
                        self.conns.get_mut(&conn).expect("a connection").session = Some(session.number);
                    }
                    Err(refusal) => {
                        self.refused_for(&refusal.message);
                        self.along(Channel::ToClient(conn), None, Happening::ConnectionLost(conn));
                    }
                }
                // What it says follows, also to one that is dismissed at once.
                self.with_gateway(index, |_, _| ());
            }
            Message::Act(action) => {
                let Some(session) = self.live_session(index, conn) else { return };
                self.gateways[index].events += 1;
                if let Some(Err(refusal)) = self.with_gateway(index, |core, _| core.act(session, &action, arrival)) {
                    let process = self.gateways[index].incarnation;
                    self.ledger.lost.retain(|lost| (lost.incarnation.process(), lost.arrival_ns) != (process, arrival_ns));
                    let delivery = Delivery::Refused(Box::new(refusal));
                    self.along(Channel::ToClient(conn), None, Happening::Deliver { conn, delivery });
                }
            }
            Message::Leave | Message::Break => {
                let Some(session) = self.live_session(index, conn) else { return };
                let broke = matches!(message, Message::Break);
                self.with_gateway(index, |core, _| {
                    if broke {
                        core.error(session, "reset by peer", arrival);
                    }
                    core.end(session, if broke { close::ABNORMAL } else { close::NORMAL }, arrival);
                    core.close(session, arrival);
                });
                self.gateways[index].sessions.remove(&session);
            }
        }
    }

    /// Whether a client that asks for it before it has a session is told at once that its room is elsewhere (status 421).
    fn is_answered(&mut self, index: usize, conn: u64, joining: &Joining) -> bool {
        if self.hosts.len() == 1 || conn.is_multiple_of(2) {
            return false;
        }
        let located = self.with_gateway(index, |core, now| core.locate(&joining.room, true, now));
        let Some(Some(Located::Away { url, number })) = located else { return false };
        self.ledger.count("players answered before they come in");
        let delivery = Delivery::Close { code: close::ELSEWHERE, reason: format!("{url}#{number}") };
        self.along(Channel::ToClient(conn), None, Happening::Deliver { conn, delivery });
        true
    }

    pub(super) fn connection_lost(&mut self, conn: u64) {
        let index = self.conns[&conn].client;
        if self.clients[index].conn == Some(conn) {
            self.lose(index, close::ABNORMAL, "its connection broke");
        } else if self.clients[index].next_conn() == Some(conn) {
            self.next_failed(index, close::ABNORMAL);
        }
    }

    pub(super) fn delivered(&mut self, conn: u64, delivery: Delivery) {
        let index = self.conns[&conn].client;
        let is_next = self.clients[index].next_conn() == Some(conn);
        if self.clients[index].conn != Some(conn) && !is_next {
            return;
        }
        match delivery {
            Delivery::Welcome(welcome) => {
                self.welcomed(index, conn, &welcome);
                let gateway = self.conns[&conn].gateway;
                let home = (self.hosts.len() > 1).then(|| gateway % self.hosts.len());
                let client = &mut self.clients[index];
                (client.home, client.home_number) = (home, welcome.home);
                (client.follows_on, client.lower) = (0, 0);
                if is_next {
                    return self.next_welcomed(index, welcome.resumed);
                }
                self.begin(index, conn);
                self.clients[index].refused.clear();
                for id in self.clients[index].unanswered() {
                    self.send_action(index, &id, self.now);
                }
            }
            Delivery::Verdict { from, frames } => {
                self.told(index, conn, from, &frames);
                if is_next { self.keep(index, from, &frames) } else { self.apply(index, from, &frames) }
            }
            Delivery::Refused(refusal) => {
                assert_ne!(refusal.code, ErrorCode::Expired, "once: {refusal} although everything is kept");
                self.trace(|| format!("client {index} is refused: {refusal}"));
                self.refused_for(&refusal.message);
                self.ledger.count("actions refused");
                let client = &mut self.clients[index];
                if let Some(id) = refusal.id {
                    client.sent_on.remove(&id);
                    client.late.insert(id.clone());
                    client.refused.insert(id);
                }
                self.change_when_quiet(index);
            }
            Delivery::Move { within_ms, url } if is_next => self.keep_move(index, within_ms, url),
            Delivery::Move { within_ms, url } => self.asked_to_move(index, within_ms, url.as_deref()),
            Delivery::Close { code, reason } => {
                self.trace(|| format!("client {index} is closed: {code} {reason}"));
                if code == close::SINCE_AHEAD {
                    let asked = self.conns[&conn].asked;
                    let life = asked.map(|asked| (self.clients[index].room.clone(), asked.era));
                    let lost = life.is_some_and(|life| self.ledger.shortened.contains(&life));
                    assert!(lost, "contiguity: client {index} is refused: {reason}");
                    // Nobody was left who knew, and what it has seen is gone: it was told so.
                    let client = &mut self.clients[index];
                    if !is_next {
                        (client.seen, client.void) = (None, client.told.len());
                    }
                }
                self.ledger.count("sessions closed by gateways");
                if is_next { self.next_closed(index, code, &reason) } else { self.lose(index, code, &reason) }
            }
        }
    }

    fn welcomed(&mut self, index: usize, conn: u64, welcome: &Welcome) {
        let client = &mut self.clients[index];
        let conn = self.conns.get_mut(&conn).expect("a connection");
        assert!(conn.told.replace(client.told.len()).is_none(), "contiguity: client {index} is welcomed twice");
        match conn.asked {
            Some(asked) if welcome.resumed => {
                assert_eq!((welcome.era, welcome.seq), (asked.era, asked.seq), "contiguity: client {index} resumes elsewhere");
            }
            Some(asked) => {
                assert!(welcome.gone, "contiguity: client {index} neither resumes at {asked} nor is it gone");
                let log = self.ledger.rooms.get(&(client.room.clone(), asked.era));
                let trimmed = log.is_some_and(|log| asked.seq < log.trimmed);
                assert!(welcome.era != asked.era || trimmed, "contiguity: client {index} is told that {asked} is gone");
            }
            None => assert!(!welcome.resumed && !welcome.gone, "contiguity: client {index} resumes without a since"),
        }
        client.told.push(Told {
            era: welcome.era,
            after: welcome.seq,
            to: welcome.seq,
            verdicts: BTreeMap::new(),
            session: welcome.session,
            resumed: welcome.resumed,
        });
    }

    /// A connection is told something: each the whole of its part.
    fn told(&mut self, index: usize, conn: u64, from: Option<u64>, frames: &VerdictFrames) {
        let verdict = frames.verdict();
        self.trace(|| {
            format!("client {index} is told {} {:?} {:?} {:?}", verdict.seq, verdict.kind, verdict.id, verdict.outcome)
        });
        let client = &mut self.clients[index];
        let told = self.conns[&conn].told;
        assert!(told.is_some(), "contiguity: client {index} gets a verdict before its welcome");
        let told = &mut client.told[told.unwrap_or_default()];
        let first = from.unwrap_or(verdict.seq);
        assert_eq!(first, told.to + 1, "contiguity: client {index} was told up to {}, then {first} to {}", told.to, verdict.seq);
        assert!(verdict.seq >= first, "contiguity: client {index}: a range from {first} to {}", verdict.seq);
        told.to = verdict.seq;
        told.verdicts.insert(verdict.seq, verdict.clone());
    }

    /// The player takes a verdict in, by its count over all connections.
    pub(super) fn apply(&mut self, index: usize, from: Option<u64>, frames: &VerdictFrames) {
        let verdict = frames.verdict();
        let client = &mut self.clients[index];
        let seen = client.seen.expect("a welcome came first");
        if verdict.seq <= seen.seq {
            return;
        }
        let first = from.unwrap_or(verdict.seq);
        assert!(first <= seen.seq + 1, "switch: client {index} has seen up to {}, then {first} to {}", seen.seq, verdict.seq);
        client.seen = Some(Since { seq: verdict.seq, ..seen });
        if verdict.player.as_ref() == Some(&client.player)
            && let Some(id) = &verdict.id
            && let Some(action) = client.open.remove(id)
        {
            client.sent_on.remove(id);
            client.answered.push(action);
            // One plays on and on while it moves: something of it is always unanswered.
            if index == 2 && client.moving.is_some() && !client.is_silent() && !self.calm {
                self.act(index, self.now);
            }
            self.change_when_quiet(index);
        }
    }

    pub(super) fn lose_connections(&mut self, pid: Pid) {
        let lost: Vec<u64> =
            self.conns.iter().filter(|(_, c)| c.gateway == pid.index && c.start == pid.start).map(|(id, _)| *id).collect();
        for conn in lost {
            self.along(Channel::ToClient(conn), None, Happening::ConnectionLost(conn));
        }
    }
}
