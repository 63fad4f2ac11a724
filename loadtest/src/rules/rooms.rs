//! Rooms with a timer each, and a session in each that sees it fire. They find what is lost, doubled, at another moment than it was
//! set for, or decided by another version than the room's.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use lasthit::internals::clock::monotonic_ns;
use lasthit::types::Incarnation;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::programs::Family;
use super::{LOOK_INTERVAL, SETTLE_TIMEOUT};
use crate::limits::{CLOSE_TIMEOUT, CONNECTING_MAX, READ_BYTES};
use crate::load::allow_files;
use crate::load::joined::{Joined, join};
use crate::load::record::{Times, nanos};
use crate::load::report::Broken;
use crate::speak::dialect::{Audience, Dialect};
use crate::speak::frame::{Encoding, Nanos, Text};
use crate::speak::socket::Message;

/// All rooms are set within this, so that their timers are not due at one moment.
pub(super) const SPREAD: Duration = Duration::from_secs(1);
/// Nothing fires any more when nothing has for so long.
const QUIET: Duration = Duration::from_millis(500);

/// When the timers are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Again and again. Whole milliseconds.
    Every(Duration),
    /// Once, so long after it was set. Whole milliseconds.
    After(Duration),
}

/// What came within a time.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) fires: u64,
    /// Moments that a fire stood for besides its own.
    pub(super) missed: u64,
    /// Due to read here.
    pub(super) late: Times,
}

/// One room, as its session sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    seq: u64,
    /// The moment of the last fire, or of the action that set the timer; 0 without one.
    from_ns: u64,
    /// Of the program that decides it, which all answers name; 0 if they name none.
    version: u32,
}

/// What all sessions share.
#[derive(Debug)]
struct State {
    rooms: Vec<Room>,
    /// What the timers are set to.
    every_ns: Option<u64>,
    /// They were set to the same before.
    as_before: bool,
    /// Answers to what was asked last.
    answered: u32,
    /// Something was heard last.
    fired: Instant,
    seen: Seen,
    /// A room has changed to another version last.
    changed: Instant,
    /// Answers by another version than the room's, and the first of them.
    wrong: u64,
    first_wrong: Option<String>,
    /// The first promise that was not kept.
    broken: Option<String>,
}

/// The rooms.
pub(super) struct Rooms {
    sessions: Vec<Arc<Mutex<Joined>>>,
    state: Arc<Mutex<State>>,
    tasks: JoinSet<()>,
}

/// What is looked at of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told<'a> {
    #[serde(borrow)]
    t: Text<'a>,
    seq: u64,
    from: Option<u64>,
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    outcome: Text<'a>,
    #[serde(borrow)]
    reason: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    arrival_ns: Nanos,
    missed: u64,
    #[serde(borrow)]
    rules: Text<'a>,
    version: u32,
    from_version: u32,
    /// The version that decided, and that of the room's state.
    body: Option<[u32; 2]>,
}

#[derive(Serialize)]
struct Action<'a> {
    op: &'a str,
    id: &'a str,
    args: Args,
}

#[derive(Serialize)]
struct Args {
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn nothing() -> Self {
        Self { fires: 0, missed: 0, late: Times::new() }
    }
}

impl Rooms {
    /// New rooms with a session each, on all gateways by turns.
    pub(super) async fn join(urls: &[String], family: Family, count: u32) -> Result<Self> {
        allow_files(u64::from(count) + 256)?;
        let tag = format!("{}{}", family.tag(), Incarnation::random());
        let joining = (0..count).zip(urls.iter().cycle()).map(|(n, url)| {
            let room = Dialect::Lasthit.room(Audience::Sender, &tag, n);
            async move { join(Dialect::Lasthit, url, &room?, &format!("p{n}")).await }
        });
        let joined: Vec<Joined> = stream::iter(joining).buffered(CONNECTING_MAX).try_collect().await?;
        let room = |joined: &Joined| Room { seq: joined.place().1, from_ns: 0, version: family.version() };
        let state = State::of(joined.iter().map(room).collect());
        let mut all = Self { sessions: Vec::new(), state: Arc::new(Mutex::new(state)), tasks: JoinSet::new() };
        let scratch = Arc::new(Mutex::new(vec![0; READ_BYTES]));
        for (n, joined) in joined.into_iter().enumerate() {
            let session = Arc::new(Mutex::new(joined));
            all.sessions.push(Arc::clone(&session));
            all.tasks.spawn(listen(n, session, Arc::clone(&all.state), Arc::clone(&scratch)));
        }
        Ok(all)
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.sessions.len()).unwrap_or(u32::MAX)
    }

    /// Sets every room's timer anew, one after the other within a second, and returns when all have answered.
    pub(super) async fn set(&self, when: When) -> Result<()> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (every, after) = match when {
            When::Every(time) => (Some(ms(time)), None),
            When::After(time) => (None, Some(ms(time))),
        };
        let every_ns = match when {
            When::Every(time) => Some(nanos(time)),
            When::After(_) => None,
        };
        self.ask("set", every_ns, || Args { every, after }).await
    }

    /// Cancels all timers, and returns when nothing that was due before comes any more.
    pub(super) async fn stop(&self, time_max: Duration) -> Result<()> {
        self.ask("stop", None, || Args { every: None, after: None }).await?;
        let deadline = Instant::now() + time_max;
        while locked(&self.state).fired.elapsed() < QUIET {
            ensure!(Instant::now() < deadline, "timers fire {time_max:?} after they were cancelled");
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn ask(&self, op: &str, every_ns: Option<u64>, args: impl Fn() -> Args) -> Result<()> {
        {
            let mut state = locked(&self.state);
            state.as_before = every_ns == state.every_ns;
            (state.every_ns, state.answered) = (every_ns, 0);
        }
        let (start, mut payload) = (Instant::now(), Vec::new());
        for (n, session) in (0..).zip(&self.sessions) {
            sleep_until(start + SPREAD * n / self.count()).await;
            payload.clear();
            let id = Incarnation::random().to_string();
            Encoding::Msgpack.write(&mut payload, &Action { op, id: &id, args: args() })?;
            let mut session = locked(session);
            session.socket().queue(false, &payload);
            session.socket().write().context("a session broke")?;
        }
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while locked(&self.state).answered < self.count() {
            self.check()?;
            let answered = locked(&self.state).answered;
            ensure!(Instant::now() < deadline, "{answered} of {} rooms answered within {SETTLE_TIMEOUT:?}", self.count());
            sleep(LOOK_INTERVAL).await;
        }
        self.check()
    }

    /// Returns when all rooms are decided by this version: how long after `start` the last one changed to it.
    pub(super) async fn until_version(&self, version: u32, start: Instant) -> Result<Duration> {
        let deadline = start + SETTLE_TIMEOUT;
        loop {
            self.check()?;
            let (changed, at) = {
                let state = locked(&self.state);
                (state.rooms.iter().filter(|room| room.version == version).count(), state.changed)
            };
            if changed == self.sessions.len() {
                return Ok(at - start);
            }
            ensure!(
                Instant::now() < deadline,
                "{changed} of {} rooms changed to version {version} within {SETTLE_TIMEOUT:?}",
                self.count()
            );
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// How many answers were another version's than their room's, and what the first of them was.
    pub(super) fn wrong(&self) -> (u64, Option<String>) {
        let state = locked(&self.state);
        (state.wrong, state.first_wrong.clone())
    }

    /// What comes from now on for so long.
    pub(super) async fn watch(&self, time: Duration) -> Result<Seen> {
        locked(&self.state).seen = Seen::nothing();
        sleep(time).await;
        let seen = std::mem::replace(&mut locked(&self.state).seen, Seen::nothing());
        self.check()?;
        Ok(seen)
    }

    /// Everybody leaves.
    pub(super) async fn leave(mut self) -> Result<()> {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        let sessions = self.sessions.drain(..).filter_map(Arc::into_inner);
        let leaving = sessions.map(|session| async {
            let mut joined = session.into_inner().unwrap_or_else(PoisonError::into_inner);
            // A goodbye that fails or takes too long costs nobody anything.
            let _ = timeout(CLOSE_TIMEOUT, joined.socket().close()).await;
        });
        stream::iter(leaving).buffer_unordered(CONNECTING_MAX).collect::<()>().await;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match locked(&self.state).broken.clone() {
            Some(broken) => Err(Broken(broken).into()),
            None => Ok(()),
        }
    }
}

/// Reads until the connection ends, which it does not while anything is measured.
async fn listen(n: usize, session: Arc<Mutex<Joined>>, state: Arc<Mutex<State>>, scratch: Arc<Mutex<Vec<u8>>>) {
    let ended: Result<()> = poll_fn(|cx| {
        let (mut session, mut state, mut scratch) = (locked(&session), locked(&state), locked(&scratch));
        let read = session.socket().poll_read(cx, &mut scratch, |message| state.hear(n, message, monotonic_ns()));
        if read.is_ready() {
            return read;
        }
        match session.socket().poll_write(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            _ => Poll::Pending,
        }
    })
    .await;
    let why = ended.err().unwrap_or_else(|| anyhow!("it ended"));
    locked(&state).broke(|| format!("the session of room {n} broke: {why:#}"));
}

impl State {
    fn of(rooms: Vec<Room>) -> Self {
        let (now, seen) = (Instant::now(), Seen::nothing());
        Self {
            rooms,
            every_ns: None,
            as_before: false,
            answered: 0,
            fired: now,
            seen,
            changed: now,
            wrong: 0,
            first_wrong: None,
            broken: None,
        }
    }

    fn broke(&mut self, why: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(why);
    }

    fn hear(&mut self, n: usize, message: Message<'_>, now_ns: u64) -> Result<()> {
        let told: Told<'_> = rmp_serde::from_slice(message.payload).context("a message is not understood")?;
        match &*told.t {
            "verdict" => self.verdict(n, &told, now_ns),
            "error" => self.broke(|| format!("room {n} refused: {}", &*told.message)),
            _ => {}
        }
        Ok(())
    }

    fn verdict(&mut self, n: usize, told: &Told<'_>, now_ns: u64) {
        let (at_ns, every_ns) = (told.arrival_ns.0, self.every_ns);
        let room = &mut self.rooms[n];
        let (before, since_ns) = (std::mem::replace(&mut room.seq, told.seq), at_ns.saturating_sub(room.from_ns));
        if told.from.unwrap_or(told.seq) > before + 1 || told.seq <= before {
            self.broke(|| format!("room {n} told verdict {} after {before}", told.seq));
            return;
        }
        match &*told.event {
            "rules" => return self.change(n, told),
            "data" | "timer" => self.decided(n, told),
            _ => {}
        }
        if &*told.event == "data" && !told.id.is_empty() {
            self.rooms[n].from_ns = if every_ns.is_some() { at_ns } else { 0 };
            self.answered += 1;
            if &*told.outcome != "granted" {
                self.broke(|| format!("room {n} set no timer: {} ({})", &*told.outcome, &*told.reason));
            }
        }
        if &*told.event != "timer" {
            return;
        }
        self.fired = Instant::now();
        self.seen.fires += 1;
        self.seen.missed += told.missed;
        self.seen.late.record(Duration::from_nanos(now_ns.saturating_sub(at_ns)));
        if &*told.outcome != "granted" {
            self.broke(|| format!("a timer of room {n} was {} ({})", &*told.outcome, &*told.reason));
        } else if now_ns < at_ns {
            self.broke(|| format!("a timer of room {n} came {} ns before it was due", at_ns - now_ns));
        }
        // A fire of before it was set anew has another distance.
        let sessions = self.sessions();
        let room = &mut self.rooms[n];
        let (from_ns, is_set) = (std::mem::replace(&mut room.from_ns, at_ns), self.as_before || self.answered == sessions);
        let wanted_ns = every_ns.map(|every| every * (told.missed + 1));
        if is_set && from_ns > 0 && wanted_ns.is_some_and(|wanted| wanted != since_ns) {
            self.broke(|| format!("a timer of room {n} fired {since_ns} ns after the last one instead of {wanted_ns:?}"));
        }
    }

    /// A room changes to the version after its own.
    fn change(&mut self, n: usize, told: &Told<'_>) {
        let has = std::mem::replace(&mut self.rooms[n].version, told.version);
        self.changed = Instant::now();
        let (rules, from, to) = (&*told.rules, told.from_version, told.version);
        if &*told.outcome != "granted" {
            self.broke(|| format!("room {n} stays with version {from} of {rules}: {} ({})", &*told.outcome, &*told.reason));
        } else if (from, to) != (has, has + 1) {
            self.broke(|| format!("room {n} changed from version {from} of {rules} to {to}, it had {has}"));
        }
    }

    /// An answer is of the room's version, and so is the state that it was made of.
    fn decided(&mut self, n: usize, told: &Told<'_>) {
        let (version, by) = (self.rooms[n].version, told.body.unwrap_or_default());
        if by != [version; 2] {
            self.wrong += 1;
            let seq = told.seq;
            self.first_wrong.get_or_insert_with(|| {
                let [program, state] = by;
                format!(
                    "verdict {seq} of room {n} is of version {program} with the state of {state}; the room has version {version}"
                )
            });
        }
    }

    fn sessions(&self) -> u32 {
        u32::try_from(self.rooms.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MS: u64 = 1_000_000;

    fn state(every_ms: u64) -> State {
        let mut state = State::of(vec![Room { seq: 1, ..Room::default() }]);
        state.every_ns = Some(every_ms * MS);
        told(&mut state, json!({"seq": 2, "event": "data", "id": "a", "outcome": "granted", "arrival_ns": 1_000 * MS}), 0);
        state
    }

    fn told(state: &mut State, mut verdict: Value, later_ns: u64) {
        verdict["t"] = json!("verdict");
        let now_ns = verdict["arrival_ns"].as_u64().expect("a moment") + later_ns;
        let payload = rmp_serde::to_vec_named(&verdict).expect("a message");
        state.hear(0, Message { is_text: false, payload: &payload }, now_ns).expect("understood");
    }

    fn fire(seq: u64, at_ms: u64, missed: u64) -> Value {
        json!({"seq": seq, "event": "timer", "outcome": "granted", "arrival_ns": at_ms * MS, "missed": missed})
    }

    #[test]
    fn fires_at_their_moments_are_counted_with_their_times() {
        let mut state = state(100);
        told(&mut state, fire(3, 1_100, 0), 2 * MS);
        told(&mut state, fire(4, 1_400, 2), 4 * MS);
        assert_eq!((state.broken.as_deref(), state.seen.fires, state.seen.missed), (None, 2, 2));
        assert!((3_990.0..4_010.0).contains(&state.seen.late.quantile_us(1.0)));
    }

    fn changes(outcome: &str, from: u32, to: u32) -> Value {
        json!({"seq": 2, "event": "rules", "outcome": outcome, "rules": "busy", "version": to, "from_version": from, "arrival_ns": 0})
    }

    #[test]
    fn a_room_changes_once_and_what_another_version_answers_is_counted() {
        let decided = |before: [u32; 2], after: [u32; 2]| {
            let mut state = State::of(vec![Room { seq: 0, version: 1, ..Room::default() }]);
            let data =
                |seq: u64, by: [u32; 2]| json!({"seq": seq, "event": "data", "outcome": "granted", "arrival_ns": 0, "body": by});
            told(&mut state, data(1, before), 0);
            told(&mut state, changes("granted", 1, 2), 0);
            told(&mut state, data(3, after), 0);
            assert_eq!((state.broken, state.rooms[0].version), (None, 2));
            (state.wrong, state.first_wrong.unwrap_or_default())
        };
        assert_eq!(decided([1, 1], [2, 2]), (0, String::new()));
        assert_eq!(decided([2, 2], [2, 2]).0, 1, "before its change");
        assert!(decided([1, 1], [1, 1]).1.contains("verdict 3 of room 0 is of version 1 with the state of 1"), "after it");
        assert_eq!(decided([1, 1], [2, 1]).0, 1, "a state that was not migrated");
        let broken = |verdict: Value| {
            let mut state = State::of(vec![Room { seq: 1, version: 1, ..Room::default() }]);
            told(&mut state, verdict, 0);
            state.broken.unwrap_or_default()
        };
        assert_eq!(broken(changes("granted", 1, 2)), "");
        assert!(broken(changes("void", 1, 2)).contains("room 0 stays with version 1 of busy: void"));
        assert!(broken(changes("granted", 2, 3)).contains("from version 2 of busy to 3, it had 1"));
    }

    #[test]
    fn what_is_lost_or_doubled_or_at_another_moment_is_found() {
        let broken = |verdict: Value| {
            let mut state = state(100);
            told(&mut state, verdict, 0);
            state.broken.unwrap_or_default()
        };
        assert!(broken(fire(4, 1_100, 0)).contains("verdict 4 after 2"));
        assert!(broken(fire(2, 1_100, 0)).contains("verdict 2 after 2"));
        assert!(broken(fire(3, 1_200, 0)).contains("200000000 ns after the last one"));
        assert!(broken(fire(3, 1_099, 0)).contains("99000000 ns after the last one"));
        assert!(broken(json!({"seq": 3, "event": "timer", "outcome": "void", "arrival_ns": 1_100 * MS})).contains("void"));
    }
}
