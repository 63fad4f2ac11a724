//! Where shards are, as a gateway knows it: here, at another host that players are sent to, or nowhere yet. How a shard leaves.
//!
//! What is known of a shard that is not here is at most [`HOME_STALE`] old. A session that joins such a shard is *held*, without a
//! number, until somebody says where it is; or it is sent on at once (rule H8). An answer with a lower number is dropped (rule H9).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::core::Core;
use super::moves::Departure;
use super::state::{Registration, Session, ShardOut, View, shard_of};
use super::step::{Command, Joining};
use crate::journal::ShardHome;
use crate::limits::{HOME_FRESH, HOME_STALE, LEAVE_EARLY, MOVE_WINDOW_MAX};
use crate::types::{Arrival, Home, HostId, Incarnation, RoomId, SessionId, ShardId};
use crate::wire::client::close;

/// Where a session's room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Located {
    /// This gateway takes its sessions in. The number of the home.
    Here(u32),
    /// Another host's gateways do, at this URL; it is empty if that host was told none.
    Away { url: String, number: u32 },
    /// It is nobody's, or its host does not beat.
    Held,
    /// Its server has not answered for long, and other hosts may have it by now.
    CutOff,
}

/// What the journal, or a worker, last said of a shard's home.
#[derive(Debug, Clone)]
pub(super) struct Known {
    home: Option<Home>,
    /// The successor, its URL, and when its name runs out.
    next: Option<(HostId, String, u64)>,
    told_ns: u64,
}

impl Known {
    fn number(&self) -> u32 {
        self.home.as_ref().map_or(0, |home| home.number)
    }

    fn is_younger(&self, than: Duration, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.told_ns) <= nanos(than)
    }
}

/// A shard that this gateway hands over: its sessions are asked to move, then closed.
#[derive(Debug)]
pub(super) struct Handing {
    url: String,
    departure: Departure,
    /// When those that are still here are closed.
    by_ns: u64,
    closed: bool,
}

/// Why a turn ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The gateway was declared dead in the shard.
    Dead,
    /// The shard has another home.
    Elsewhere,
    /// The gateway has handed it over, and nobody is inside any more.
    Left,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// Names this gateway's host. Without it, every home counts as its own.
    pub(crate) fn at(self, host: HostId) -> Self {
        Self { here: Some(host), ..self }
    }

    /// The hosts with a gateway that takes sessions, each with the URL that players reach it under, or an empty one.
    pub(crate) fn hosts(&mut self, hosts: BTreeMap<HostId, String>) {
        self.hosts = hosts;
    }

    /// Whether there are gateways on another host, which may take over what this one cannot serve.
    pub(crate) fn has_others(&self) -> bool {
        self.hosts.keys().any(|host| !self.is_me(host))
    }

    fn is_me(&self, host: &HostId) -> bool {
        self.here.as_ref().is_none_or(|here| here == host)
    }

    /// Where a room is. None if the journal has to be asked first: whoever asks is answered by [`Input::Home`] or, if a session
    /// `joins`, by [`Input::Registered`], and may ask again.
    ///
    /// [`Input::Home`]: super::step::Input::Home
    /// [`Input::Registered`]: super::step::Input::Registered
    pub(crate) fn locate(&mut self, room: &RoomId, joins: bool, now_ns: u64) -> Option<Located> {
        let shard = shard_of(&self.shards, room);
        if let Some(located) = self.place(shard, HOME_FRESH, now_ns) {
            return Some(located);
        }
        let out = &self.shards[usize::from(shard.0)];
        if joins && out.known.is_none() {
            // It has to register in any case, if this is the home. Then that is all that it takes.
            if out.registration == Registration::Unknown {
                self.register(shard);
            }
        } else {
            self.read_home(shard, false);
        }
        None
    }

    /// Where a room is, by what was known up to [`HOME_STALE`] ago: the journal does not say in time.
    pub(crate) fn last_located(&self, room: &RoomId, now_ns: u64) -> Option<Located> {
        self.place(shard_of(&self.shards, room), HOME_STALE, now_ns)
    }

    /// Where a shard is; None if what is known is missing or older than `fresh`.
    fn place(&self, shard: ShardId, fresh: Duration, now_ns: u64) -> Option<Located> {
        let out = &self.shards[usize::from(shard.0)];
        if self.cut_off.contains(&shard) {
            return Some(Located::CutOff);
        }
        match (&out.handing, out.home) {
            // Until it closes its sessions it takes in others, and asks them too: at the next home they would wait.
            (Some(handing), Some(number)) if handing.closed => return Some(Located::Away { url: handing.url.clone(), number }),
            (_, Some(number)) if out.is_registered() => return Some(Located::Here(number)),
            _ => {}
        }
        out.known.as_ref().filter(|known| known.is_younger(fresh, now_ns)).map(|known| self.place_of(known, now_ns))
    }

    fn place_of(&self, known: &Known, now_ns: u64) -> Located {
        let number = known.number();
        let next = known.next.as_ref().filter(|(_, _, until_ns)| *until_ns > now_ns);
        match (next, &known.home) {
            // Its sessions are held here until the shard comes.
            (Some((host, ..)), _) if self.is_me(host) => Located::Here(number),
            // Its gateways take sessions in until they leave, and send on who comes later.
            (Some(_), Some(home)) if !self.is_me(&home.host) && self.hosts.contains_key(&home.host) => self.at_home(home),
            (Some((_, url, _)), _) => Located::Away { url: url.clone(), number },
            (None, Some(home)) if self.is_me(&home.host) => Located::Here(number),
            // A home that does not beat is nobody to send anybody to: it may be this machine, before it booted.
            (None, Some(home)) => self.at_home(home),
            (None, None) => Located::Held,
        }
    }

    fn at_home(&self, home: &Home) -> Located {
        self.hosts.get(&home.host).map_or(Located::Held, |url| {
            let url = if url.is_empty() { &home.address } else { url };
            Located::Away { url: url.clone(), number: home.number }
        })
    }

    /// Whether what is known says that this gateway may register in a shard. It tries, too, where nothing is known.
    fn is_mine(&self, shard: ShardId) -> bool {
        let known = self.shards[usize::from(shard.0)].known.as_ref();
        known.is_none_or(|known| known.home.as_ref().is_some_and(|home| self.is_me(&home.host)))
    }

    /// Takes up what somebody said of a shard's home, unless a later home is known (rule H9).
    fn note(&mut self, shard: ShardId, known: Known, read: bool) -> bool {
        let Some(out) = self.shards.get_mut(usize::from(shard.0)) else { return false };
        let number = known.home.as_ref().map_or(0, |home| home.number);
        if out.home.is_some_and(|home| number < home) {
            return false;
        }
        if let Some(before) = &out.known
            && number < before.number()
            // What was read is of a moment ago. So the journal has lost what was known before.
            && (!read || before.is_younger(HOME_STALE, known.told_ns))
        {
            return false;
        }
        out.known = Some(known);
        true
    }

    /// The journal says where a shard is.
    pub(super) fn homed(&mut self, shard: ShardId, said: ShardHome, now_ns: u64) {
        self.now(now_ns);
        let Some(out) = self.shards.get_mut(usize::from(shard.0)) else { return };
        out.reading_home = false;
        let until_ns = now_ns.saturating_add(said.next_left_ms.saturating_mul(1_000_000));
        let next = said.next.filter(|_| said.next_left_ms > 0).map(|next| (next.host, next.url, until_ns));
        self.note(shard, Known { home: said.home, next, told_ns: now_ns }, true);
        self.follow(shard);
    }

    /// A worker says that a shard has another home from now on.
    pub(super) fn has_moved(&mut self, shard: ShardId, home: Home) {
        let told_ns = self.now_ns;
        if self.note(shard, Known { home: Some(home), next: None, told_ns }, false) {
            self.follow(shard);
        }
    }

    /// Does what is known of a shard's home: registers, leaves, or holds on.
    fn follow(&mut self, shard: ShardId) {
        let out = &self.shards[usize::from(shard.0)];
        let Some(known) = &out.known else { return };
        if let Some(number) = out.home {
            if known.home.as_ref().is_some_and(|home| home.number > number) {
                self.lose(shard, Loss::Elsewhere);
            }
            return;
        }
        if out.pending.is_empty() || out.registration != Registration::Unknown {
            return;
        }
        match self.place_of(known, self.now_ns) {
            Located::Away { .. } => self.lose(shard, Loss::Elsewhere),
            _ if self.is_mine(shard) => self.register(shard),
            _ => self.read_home(shard, true),
        }
    }

    /// Something waits for a shard to be here.
    pub(super) fn seek(&mut self, shard: ShardId) {
        if self.is_mine(shard) { self.register(shard) } else { self.read_home(shard, false) }
    }

    fn read_home(&mut self, shard: ShardId, again: bool) {
        let out = &mut self.shards[usize::from(shard.0)];
        if !std::mem::replace(&mut out.reading_home, true) {
            self.issue(Command::ReadHome { shard, again });
        }
    }

    /// A registration was refused: the shard's home is another, or it has none yet.
    pub(super) fn is_elsewhere(&mut self, shard: ShardId, home: Option<&Home>) {
        if self.shards[usize::from(shard.0)].home.is_some() {
            return self.refused(shard, home);
        }
        self.shards[usize::from(shard.0)].registration = Registration::Unknown;
        if home.is_none() {
            // Who has joined waits for the first claim, and is dismissed in time.
            self.note(shard, Known { home: None, next: None, told_ns: self.now_ns }, true);
            return self.follow(shard);
        }
        // To whom it is being handed over, the answer does not say.
        self.read_home(shard, home.is_some_and(|home| self.is_me(&home.host)));
    }

    /// The journal refuses what a turn says: the shard's home is another.
    pub(super) fn refused(&mut self, shard: ShardId, home: Option<&Home>) {
        let known = Known { home: home.cloned(), next: None, told_ns: self.now_ns };
        // The answer is the journal's own, to a turn that is over whatever its number was.
        self.shards[usize::from(shard.0)].home = None;
        self.note(shard, known, true);
        self.lose(shard, Loss::Elsewhere);
    }

    /// A turn is over: this gateway may append nothing more in `shard` under it. Its sessions there are dismissed, and the next turn
    /// begins at once: whoever joins from now on is of that. Nobody in another shard notices (rule H5).
    pub(super) fn lose(&mut self, shard: ShardId, why: Loss) {
        let (code, reason) = match why {
            Loss::Dead => (close::RESTARTED, "this gateway was declared dead for this room: connect again with since".to_owned()),
            Loss::Elsewhere | Loss::Left => self.way_out(shard),
        };
        self.turns = self.turns.saturating_add(1);
        let out = &mut self.shards[usize::from(shard.0)];
        // What the sessions were told of commits is not forgotten: a journal that has less hears of it (rule G2).
        let next = ShardOut {
            turn: self.incarnation.turn(self.turns),
            server: out.server,
            commit: out.commit,
            known: out.known.take().filter(|_| why != Loss::Dead),
            reading_home: out.reading_home,
            ..ShardOut::default()
        };
        let lost = std::mem::replace(out, next);
        for room in &lost.followed {
            for number in self.rooms.get(room).map_or(Vec::new(), |view| view.sessions.clone()) {
                self.dismiss(number, code, reason.clone());
            }
            self.unfollow(room);
        }
        self.check_all |= why == Loss::Dead;
        if why == Loss::Dead || why == Loss::Elsewhere && lost.registration == Registration::Done {
            self.issue(Command::Fenced(shard, why));
        }
        self.reads.forget(&lost.followed);
        self.read_more();
        // Those that have ended waited for nothing but their Open, which is void. Their rooms may have been let go before.
        let over = |s: &Session| matches!(s.view, View::Closed) && shard_of(&self.shards, &s.room) == shard;
        let over: Vec<u64> = self.sessions.iter().filter(|(_, session)| over(session)).map(|(number, _)| *number).collect();
        over.iter().for_each(|number| drop(self.sessions.remove(number)));
    }

    /// With which code and reason the sessions of a shard are closed that is elsewhere.
    fn way_out(&self, shard: ShardId) -> (u16, String) {
        let known = self.shards[usize::from(shard.0)].known.as_ref();
        match known.map(|known| self.place_of(known, self.now_ns)) {
            Some(Located::Away { url, number }) if !url.is_empty() => return sent_on(&url, number),
            Some(Located::Away { .. }) => return no_address(),
            Some(Located::Here(_)) => {
                return (close::RESTARTED, "this room was elsewhere for a moment: connect again with since".to_owned());
            }
            _ => {}
        }
        // Whoever has claimed it a moment ago lives, whether or not its first beat was heard.
        match known.and_then(|known| known.home.as_ref()) {
            Some(home) if !home.address.is_empty() => sent_on(&home.address, home.number),
            Some(_) => no_address(),
            None => (close::RESTARTED, "this room has lost its home: connect again with since".to_owned()),
        }
    }

    /// What a session is told that joins now, if it cannot even be held.
    pub(super) fn turned_away(&self, room: &RoomId, now_ns: u64) -> Option<(u16, String)> {
        let shard = shard_of(&self.shards, room);
        match self.place(shard, HOME_STALE, now_ns)? {
            Located::Away { url, number } if !url.is_empty() => Some(sent_on(&url, number)),
            Located::Away { .. } => Some(no_address()),
            Located::CutOff => Some((close::TRY_AGAIN, CUT_OFF.to_owned())),
            Located::Here(_) | Located::Held => None,
        }
    }

    /// Lets a session in that nothing is known of in the journal, and dismisses it at once.
    pub(super) fn turn_away(&mut self, joining: Joining, arrival: Arrival, (code, reason): (u16, String)) -> SessionId {
        self.next_session += 1;
        let number = self.next_session;
        // Of no turn, so nothing of it ever leaves.
        self.sessions.insert(number, Session::new(joining, Incarnation::NONE, arrival.ns));
        self.dismiss(number, code, reason);
        self.session_id(number)
    }

    /// The shards whose server has been silent for so long that other hosts may have them by now. Their sessions are told once.
    pub(crate) fn cut_off(&mut self, shards: BTreeSet<ShardId>) {
        let news: BTreeSet<ShardId> = shards.difference(&self.cut_off).copied().collect();
        self.cut_off = shards;
        if news.is_empty() {
            return;
        }
        let is_inside = |session: &Session| news.contains(&shard_of(&self.shards, &session.room));
        let inside: Vec<u64> = self.sessions.iter().filter(|(_, one)| is_inside(one)).map(|(number, _)| *number).collect();
        inside.into_iter().for_each(|number| self.dismiss(number, close::TRY_AGAIN, CUT_OFF));
    }

    /// A shard's owner hands it over to another host, which is to have it in `within_ms`. It says so again and again.
    pub(super) fn moving(&mut self, shard: ShardId, number: u32, host: HostId, url: String, within_ms: u64) {
        let Some(out) = self.shards.get(usize::from(shard.0)) else { return };
        let Some(here) = self.here.clone().filter(|here| *here != host) else { return };
        let until_ns = self.now_ns.saturating_add(within_ms.saturating_mul(1_000_000).min(nanos(MOVE_WINDOW_MAX)));
        let ours = out.home == Some(number) && out.is_registered() && out.handing.is_none();
        let home = Some(Home { number, host: here, address: String::new() });
        let known = Known { home, next: Some((host, url.clone(), until_ns)), told_ns: self.now_ns };
        if !self.note(shard, known, false) || !ours {
            return;
        }
        let by_ns = until_ns.saturating_sub(nanos(LEAVE_EARLY)).max(self.now_ns);
        let window = Duration::from_nanos(by_ns - self.now_ns);
        let departure = Departure::of_all(self.now_ns, window, url.as_str().into());
        self.shards[usize::from(shard.0)].handing = Some(Handing { url, departure, by_ns, closed: false });
        self.issue(Command::HandOver(shard));
    }

    /// Asks some more sessions of a shard that is handed over to move, or closes them when it is time (rule X5). Returns how many were
    /// asked; None once the gateway has left.
    pub(crate) fn hand_over(&mut self, shard: ShardId, now_ns: u64) -> Option<usize> {
        self.now(now_ns);
        let out = &mut self.shards[usize::from(shard.0)];
        let mut handing = out.handing.take()?;
        let number = out.home.unwrap_or_default();
        let inside = |view: &super::state::RoomView| view.sessions.clone();
        let sessions: Vec<u64> = out.followed.iter().filter_map(|room| self.rooms.get(room)).flat_map(inside).collect();
        let mut asked = 0;
        if handing.closed {
            // They are on their way out.
        } else if now_ns >= handing.by_ns {
            handing.closed = true;
            let (code, reason) = sent_on(&handing.url, number);
            sessions.iter().for_each(|session| self.dismiss(*session, code, reason.clone()));
        } else {
            asked = self.move_some_of(&mut handing.departure, sessions, now_ns);
        }
        self.shards[usize::from(shard.0)].handing = Some(handing);
        self.let_go_of(shard);
        self.shards[usize::from(shard.0)].handing.as_ref().map(|_| asked)
    }

    /// Leaves a shard that is handed over, once nobody is inside and everything is in the journal.
    pub(super) fn let_go_of(&mut self, shard: ShardId) {
        let out = &mut self.shards[usize::from(shard.0)];
        if out.handing.is_none() || !out.is_registered() || !out.is_empty() {
            return;
        }
        if out.followed.iter().any(|room| self.rooms.get(room).is_some_and(|view| !view.sessions.is_empty())) {
            return;
        }
        let turn = out.turn;
        self.issue(Command::Leave(shard, turn));
        self.lose(shard, Loss::Left);
    }
}

const CUT_OFF: &str = "this gateway does not reach what keeps this room: try again";

fn sent_on(url: &str, number: u32) -> (u16, String) {
    (close::ELSEWHERE, format!("{url}#{number}"))
}

fn no_address() -> (u16, String) {
    (close::TRY_AGAIN, "this room is at home on a host that was told no address: give it --advertise".to_owned())
}

#[cfg(test)]
mod tests;
