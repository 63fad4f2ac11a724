//! How a player follows a `move`, as docs/protocol.md says it (rule X1, rule X2, rule X3): a second connection beside the one that
//! counts, which is left when nothing on it is unanswered, or after a pause.

use std::sync::Arc;

use super::client::{Client, Message};
use super::hosts::place_of_url;
use super::world::{Happening, MS, World};
use crate::types::Since;
use crate::wire::client::{VerdictFrames, close};

/// How long nothing is sent before a move that is late is done all the same.
const HUSH_NS: u64 = 250 * MS;

/// A move under way.
#[derive(Debug)]
pub(super) struct Moving {
    number: u64,
    /// The host that it goes to; None where it is let in.
    to: Option<usize>,
    /// The next connection, and whether it was welcomed.
    pub(super) conn: Option<u64>,
    pub(super) welcomed: bool,
    kept: Vec<Kept>,
    /// Its time is over.
    late: bool,
    /// Nothing is sent.
    pub(super) silent: bool,
}

/// What a next connection said.
#[derive(Debug)]
enum Kept {
    Verdict(Option<u64>, Arc<VerdictFrames>),
    Move(u64, Option<Arc<str>>),
}

/// What a move waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Following {
    /// Its time is over.
    Late,
    /// Nothing was sent for a while.
    Hushed,
    /// Another connection is tried.
    Again,
}

impl Client {
    /// Whether nothing may be sent now.
    pub(super) fn is_silent(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.silent)
    }

    pub(super) fn next_conn(&self) -> Option<u64> {
        self.moving.as_ref().and_then(|moving| moving.conn)
    }
}

impl World {
    /// A player is asked to move. Only one move is under way at a time.
    pub(super) fn asked_to_move(&mut self, index: usize, within_ms: u64, url: Option<&str>) {
        let client = &self.clients[index];
        if !client.follows || !client.welcomed || client.moving.is_some() {
            return;
        }
        self.clients[index].moves += 1;
        let (number, to) = (self.clients[index].moves, url.map(place_of_url));
        self.trace(|| format!("client {index} moves within {within_ms} ms"));
        self.clients[index].moving =
            Some(Moving { number, to, conn: None, welcomed: false, kept: Vec::new(), late: false, silent: false });
        self.after(within_ms * MS, None, Happening::Follow { client: index, number, step: Following::Late });
        self.open_next(index);
    }

    pub(super) fn follow(&mut self, index: usize, number: u64, step: Following) {
        if self.clients[index].moving.as_ref().is_none_or(|moving| moving.number != number) {
            return;
        }
        match step {
            Following::Late => self.hurry(index),
            Following::Hushed => {
                self.ledger.count("moves after a pause");
                self.change(index);
            }
            Following::Again => self.open_next(index),
        }
    }

    fn open_next(&mut self, index: usize) {
        let seen = self.clients[index].seen;
        let to = self.clients[index].moving.as_ref().and_then(|moving| moving.to);
        let gateway = if let Some(to) = to { self.gateway_at(to) } else { self.door() };
        let Some(gateway) = gateway else { return self.try_again(index) };
        let conn = self.open_conn(index, gateway, seen);
        if let Some(moving) = &mut self.clients[index].moving {
            moving.conn = Some(conn);
        }
        if !self.gentle() && self.chance(100) {
            // The network fails it, before its welcome or behind it.
            let at = self.now + self.below(30 * MS);
            self.say(conn, at, Message::Break);
            self.next_failed(index, close::ABNORMAL);
        }
    }

    pub(super) fn next_failed(&mut self, index: usize, code: u16) {
        self.ledger.count("next connections that failed");
        let Some(moving) = &mut self.clients[index].moving else { return };
        (moving.conn, moving.welcomed) = (None, false);
        moving.kept.clear();
        if moving.late {
            return self.stay(index);
        }
        if code == close::MOVED { self.open_next(index) } else { self.try_again(index) }
    }

    /// The next connection was closed. It may be sent on, and the move goes on.
    pub(super) fn next_closed(&mut self, index: usize, code: u16, reason: &str) {
        if code == close::ELSEWHERE {
            self.sent_on(index, reason);
            let home = self.clients[index].home;
            self.clients[index].moving.iter_mut().for_each(|moving| moving.to = home.or(moving.to));
        }
        self.next_failed(index, code);
    }

    fn try_again(&mut self, index: usize) {
        let Some(number) = self.clients[index].moving.as_ref().map(|moving| moving.number) else { return };
        let pause = 5 * MS + self.below(20 * MS);
        self.after(pause, None, Happening::Follow { client: index, number, step: Following::Again });
    }

    /// The old connection goes on.
    fn stay(&mut self, index: usize) {
        self.trace(|| format!("client {index} stays"));
        self.ledger.count("moves that were left");
        if let Some(conn) = self.clients[index].moving.take().and_then(|moving| moving.conn) {
            self.say(conn, self.now, Message::Leave);
        }
        self.send_rest(index);
    }

    pub(super) fn next_welcomed(&mut self, index: usize, resumed: bool) {
        let Some(moving) = &mut self.clients[index].moving else { return };
        moving.welcomed = true;
        let late = moving.late;
        if !resumed {
            self.ledger.count("moves to another life of the room");
            return self.change(index);
        }
        if late {
            self.hurry(index);
        }
        self.change_when_quiet(index);
    }

    pub(super) fn keep_move(&mut self, index: usize, within_ms: u64, url: Option<Arc<str>>) {
        if let Some(moving) = &mut self.clients[index].moving {
            moving.kept.push(Kept::Move(within_ms, url));
            self.ledger.count("moves during a move");
        }
    }

    pub(super) fn keep(&mut self, index: usize, from: Option<u64>, frames: &Arc<VerdictFrames>) {
        let most = self.options.supervised.as_ref().map_or(usize::MAX, |supervised| supervised.kept_max);
        let seen = self.clients[index].seen.map_or(0, |seen| seen.seq);
        let Some(moving) = &mut self.clients[index].moving else { return };
        if frames.verdict().seq <= seen {
            return;
        }
        moving.kept.push(Kept::Verdict(from, frames.clone()));
        if moving.kept.len() > most {
            moving.kept.retain(|kept| !matches!(kept, Kept::Verdict(_, frames) if frames.verdict().seq <= seen));
        }
        if moving.kept.len() > most {
            self.ledger.reached.insert("kept messages");
            if moving.silent { self.change(index) } else { self.hurry(index) }
        }
    }

    /// Changes over if nothing is unanswered on the current connection: then no action overtakes another.
    pub(super) fn change_when_quiet(&mut self, index: usize) {
        let client = &self.clients[index];
        let waits = client.sent_on.values().any(|conn| Some(*conn) == client.conn);
        if !waits && client.moving.as_ref().is_some_and(|moving| moving.welcomed) {
            self.change(index);
        }
    }

    /// The time is over: whoever sends on and on pauses for it.
    fn hurry(&mut self, index: usize) {
        let Some(moving) = &mut self.clients[index].moving else { return };
        moving.late = true;
        if !moving.welcomed {
            if moving.conn.is_none() {
                self.stay(index);
            }
            return;
        }
        if !std::mem::replace(&mut moving.silent, true) {
            let number = moving.number;
            self.after(HUSH_NS, None, Happening::Follow { client: index, number, step: Following::Hushed });
        }
    }

    /// From now on the next connection is the current one.
    fn change(&mut self, index: usize) {
        let Some(Moving { conn: Some(next), kept, .. }) = self.clients[index].moving.take() else { return };
        self.trace(|| format!("client {index} changes over to conn {next}"));
        self.ledger.count("moves");
        if let Some(old) = self.clients[index].conn {
            self.say(old, self.now, Message::Leave);
        }
        self.clients[index].conn = Some(next);
        self.begin(index, next);
        for kept in kept {
            if self.clients[index].conn != Some(next) {
                return;
            }
            match kept {
                Kept::Verdict(from, frames) => self.apply(index, from, &frames),
                Kept::Move(within_ms, url) => self.asked_to_move(index, within_ms, url.as_deref()),
            }
        }
        self.send_rest(index);
    }

    /// The current connection has ended during its move: the next one takes its place.
    pub(super) fn go_on_with_next(&mut self, index: usize) {
        self.ledger.count("moves whose old connection ended first");
        let Some(moving) = &self.clients[index].moving else { return };
        if moving.welcomed {
            self.clients[index].conn = None;
            return self.change(index);
        }
        (self.clients[index].conn, self.clients[index].welcomed) = (moving.conn, false);
        self.clients[index].moving = None;
    }

    /// Where a player's count begins on a connection that counts from now on: more may have been seen than it began with.
    pub(super) fn begin(&mut self, index: usize, conn: u64) {
        let told = &self.clients[index].told[self.conns[&conn].told.expect("it was welcomed")];
        let (began, resumed) = (Since { era: told.era, seq: told.after }, told.resumed);
        let client = &mut self.clients[index];
        client.welcomed = true;
        let ahead = client.seen.filter(|seen| resumed && seen.era == began.era && seen.seq > began.seq);
        client.seen = Some(ahead.unwrap_or(began));
    }

    /// Sends what the current connection was not sent yet, oldest first.
    pub(super) fn send_rest(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(conn) = client.conn.filter(|_| client.welcomed) else { return };
        client.refused.clear();
        for id in client.unanswered() {
            if self.clients[index].sent_on.get(&id) != Some(&conn) {
                self.send_action(index, &id, self.now);
            }
        }
    }

    /// Somebody who follows was left without a connection. That may only be where something has died or stood still.
    pub(super) fn unconnected(&self, index: usize, why: &str) {
        let client = &self.clients[index];
        assert!(
            !(self.is_smooth() && client.follows && client.welcomed),
            "unconnected: client {index} at {} ms: {why}",
            self.now / MS
        );
    }
}
