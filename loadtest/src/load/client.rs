//! One session: joins a room, sends what is due, reads what comes and tells the audit.

use std::collections::VecDeque;
use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep_until, timeout};

use super::answers::Answers;
use super::audit::Contiguity;
use super::home::{Elsewhere, Known};
use super::joined::Joined;
use super::judge::Seen;
use super::moves::{Asked, Away, Next, Turn, Whose};
use super::plan::{Plan, Schedule};
use super::tally::{Counts, Tally};
use crate::limits::{CLOSE_TIMEOUT, DUE_ACTIONS_MAX, EARLIER_SESSIONS_MAX, READ_BYTES};
use crate::speak::dialect::{Audience, Dialect};
use crate::speak::socket::{Closed, Message, Socket};
use lasthit::wire::client::close;

/// What all sessions of a run share.
pub(crate) struct Run {
    /// Who sends what.
    pub(crate) plan: Plan,
    /// When; None in a closed loop, where each session sends when it was answered.
    pub(crate) schedule: Option<Schedule>,
    /// Actions of a session that may wait for their answers at a time.
    pub(crate) outstanding: u32,
    /// When sending begins.
    pub(crate) start: Instant,
    /// From then on: when it ends.
    pub(crate) end: Duration,
    /// Set when it ends before that: when.
    pub(crate) cut: OnceLock<Duration>,
    /// Tells this run's ids and contests from those of others in the same rooms.
    pub(crate) tag: String,
    /// How the sessions speak.
    pub(crate) dialect: Dialect,
    /// Who is told of a verdict.
    pub(crate) audience: Audience,
    /// The gateways.
    pub(crate) urls: Vec<String>,
    /// Whether sessions move when a gateway asks them to.
    pub(crate) follows: bool,
    /// What every claim carries.
    pub(crate) args: String,
    /// What was seen.
    pub(crate) tally: Tally,
    /// Where claims are written before they are sent.
    pub(crate) pen: Mutex<Pen>,
    /// Where all sessions read.
    pub(crate) scratch: Mutex<Vec<u8>>,
}

/// Buffers for one claim.
#[derive(Debug, Default)]
pub(crate) struct Pen {
    id: String,
    contest: String,
    payload: Vec<u8>,
}

impl Pen {
    /// Writes an action's id and contest.
    fn name(&mut self, run: &Run, action: u64) -> Result<&mut Self> {
        self.id.clear();
        self.contest.clear();
        self.payload.clear();
        write!(self.id, "{}-{action}", run.tag)?;
        write!(self.contest, "{}-{}", run.tag, run.plan.action(action).contest)?;
        Ok(self)
    }
}

impl Run {
    /// What all sessions read into.
    pub(crate) fn scratch() -> Mutex<Vec<u8>> {
        Mutex::new(vec![0; READ_BYTES])
    }

    /// Time of the run.
    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }

    /// When an action is due; None in a closed loop.
    pub(super) fn due(&self, action: u64) -> Option<Duration> {
        self.schedule.map(|schedule| schedule.due(action))
    }
}

/// A session that plays. Its task reads; in an open loop, the schedule's task sends.
#[derive(Debug)]
pub(crate) struct Session(Mutex<State>);

#[derive(Debug)]
struct State {
    socket: Socket,
    number: u32,
    room: u32,
    /// Where the room is at home.
    known: Known,
    /// As the gateway calls it.
    id: String,
    /// Before that: its own sessions on other connections.
    earlier: Vec<String>,
    era: u64,
    contiguity: Contiguity,
    /// The last `seq` that it had seen when it moved: the next connection may be behind, and says it again.
    floor: u64,
    /// Actions that are written with the next system call.
    pending: Vec<u64>,
    /// In a closed loop: actions that were sent.
    turn: u64,
    /// In an open one: what was due while too many waited for their answers.
    due: VecDeque<u64>,
    /// Its actions and their answers.
    answers: Answers,
    /// The connection that it moves to.
    next: Option<Next>,
    /// Its task, which must write what the socket did not take.
    waker: Option<Waker>,
    early: Vec<(bool, Vec<u8>)>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Plays,
    Broken,
    Over,
}

impl Session {
    /// Nothing is sent yet.
    pub(crate) fn new(joined: Joined, number: u32, run: &Run) -> Self {
        let Joined { socket, known, id, era, seq, early, .. } = joined;
        Self(Mutex::new(State {
            socket,
            number,
            room: run.plan.seat(number).room,
            known,
            id,
            earlier: Vec::new(),
            era,
            contiguity: Contiguity::after(seq),
            floor: 0,
            pending: Vec::new(),
            turn: 0,
            due: VecDeque::new(),
            answers: Answers::default(),
            next: None,
            waker: None,
            early,
            phase: Phase::Plays,
        }))
    }

    /// An action is due: it leaves with the next [`Self::flush`], or when fewer wait for their answers.
    pub(crate) fn queue(&self, run: &Run, action: u64) -> Result<()> {
        let mut state = self.lock();
        if state.may_send(run) {
            return state.queue(run, action, &mut run.tally.lock());
        }
        let mut counts = run.tally.lock();
        // The generator was there in time; what waits now is the system's doing.
        run.due(action).inspect(|due| counts.late(*due, run.elapsed()));
        if state.due.len() < DUE_ACTIONS_MAX {
            state.due.push_back(action);
        } else {
            counts.unsent += 1;
        }
        Ok(())
    }

    /// Writes all that was queued with one system call.
    pub(crate) fn flush(&self, run: &Run) {
        let (mut state, mut counts) = (self.lock(), run.tally.lock());
        let now = run.elapsed();
        for due in state.pending.iter().filter_map(|action| run.due(*action)) {
            counts.late(due, now);
        }
        state.flush(run, &mut counts, now);
    }

    /// Nothing more will be sent.
    pub(crate) fn end(&self, run: &Run) {
        let mut state = self.lock();
        run.tally.lock().unsent += state.due.drain(..).count() as u64;
        if state.phase == Phase::Plays {
            state.phase = Phase::Over;
        }
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until the session is ended, then says goodbye; tells the tally if it breaks before.
pub(crate) async fn play(session: Arc<Session>, run: Arc<Run>) {
    if run.schedule.is_none() {
        sleep_until(run.start).await;
    }
    if let Err(e) = poll_fn(|cx| session.lock().poll(cx, &run)).await {
        let mut state = session.lock();
        state.phase = Phase::Broken;
        run.tally.lock().broke(state.number, &e);
        return;
    }
    let session = Arc::into_inner(session).map(|session| session.0.into_inner().unwrap_or_else(PoisonError::into_inner));
    if let Some(mut state) = session {
        // A goodbye that fails or takes too long costs nobody anything: the run is over.
        let _ = timeout(CLOSE_TIMEOUT, state.socket.close()).await;
    }
}

impl State {
    /// Reads all that is there; Ready when the session was ended and everything has left.
    fn poll(&mut self, cx: &mut Context<'_>, run: &Run) -> Poll<Result<()>> {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        let mut counts = run.tally.lock();
        let mut scratch = run.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let early = std::mem::take(&mut self.early);
        self.hear(run, &mut counts, early)?;
        if !self.is_away()
            && let Err(e) = self.read(cx, run, &mut counts, &mut scratch)
        {
            self.lose(run, e)?;
        }
        self.turn(cx, run, &mut counts, &mut scratch)?;
        drop(scratch);
        if self.phase == Phase::Plays && self.may_send(run) {
            self.go_on(run, &mut counts)?;
        }
        if self.is_away() {
            return if self.phase == Phase::Over { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let written = match self.socket.poll_write(cx) {
            Poll::Ready(Err(e)) => {
                self.lose(run, e.into())?;
                // Its place is taken with the next turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            written => written,
        };
        if self.phase == Phase::Over && written.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether another action may leave now.
    fn may_send(&self, run: &Run) -> bool {
        self.answers.waiting() < run.outstanding && !self.next.as_ref().is_some_and(Next::is_silent)
    }

    /// Whether its connection is over, and the next one is not there.
    fn is_away(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.away.is_some())
    }

    /// What judges its messages, and where they come from.
    fn seeing<'a>(&'a mut self, run: &'a Run, counts: &'a mut Counts) -> (Seen<'a>, &'a mut Socket) {
        let Self { number, room, id, earlier, era, contiguity, floor, answers, socket, .. } = self;
        let (number, room, era, floor) = (*number, *room, *era, *floor);
        (Seen { number, room, id, earlier, era, floor, run, counts, contiguity, answers, asked: None }, socket)
    }

    /// Judges what is there; an error when the connection is over.
    fn read(&mut self, cx: &mut Context<'_>, run: &Run, counts: &mut Counts, scratch: &mut [u8]) -> Result<()> {
        let (mut seen, socket) = self.seeing(run, counts);
        let read = socket.poll_read(cx, scratch, |message| seen.receive(message));
        let asked = seen.asked;
        self.asked(run, counts, asked);
        if let Poll::Ready(ended) = read { ended } else { Ok(()) }
    }

    /// Judges what was kept.
    fn hear(&mut self, run: &Run, counts: &mut Counts, kept: Vec<(bool, Vec<u8>)>) -> Result<()> {
        let (mut seen, _) = self.seeing(run, counts);
        for (is_text, payload) in kept {
            seen.receive(Message { is_text, payload: &payload })?;
        }
        let asked = seen.asked;
        self.asked(run, counts, asked);
        Ok(())
    }

    fn asked(&mut self, run: &Run, counts: &mut Counts, asked: Option<Asked>) {
        let Some(asked) = asked.filter(|_| self.next.is_none()) else { return };
        if run.follows {
            self.next = Some(Next::asked(asked, self.known.clone()));
        } else {
            counts.moved(run.elapsed(), None, |moves| moves.ignored += 1);
        }
    }

    /// The connection is over. The next one takes its place, if there may be one.
    fn lose(&mut self, run: &Run, why: anyhow::Error) -> Result<()> {
        let away = match Elsewhere::told(&why) {
            Some(to) => {
                // Whether it goes at once, or pauses, the next connection sees by what is known.
                let _ = self.known.sent(&to);
                Some(Away::Elsewhere)
            }
            None => away(&why).filter(|_| run.dialect.is_lasthit()),
        };
        match (&mut self.next, away) {
            (Some(next), away) => next.leave(away.unwrap_or(Away::Lost)),
            (None, Some(away)) => self.next = Some(Next::away(away, self.known.clone())),
            (None, None) => return Err(why),
        }
        Ok(())
    }

    /// Goes on with the next connection, if there is one.
    fn turn(&mut self, cx: &mut Context<'_>, run: &Run, counts: &mut Counts, scratch: &mut [u8]) -> Result<()> {
        while let Some(next) = &mut self.next {
            let whose = Whose { number: self.number, room: self.room, era: self.era, seen: self.contiguity.seen() };
            match next.poll(cx, run, whose, scratch, self.answers.waiting() == 0)? {
                Turn::Waits => return Ok(()),
                Turn::Stays => self.next = None,
                Turn::Changes => self.change(run, counts)?,
            }
        }
        Ok(())
    }

    /// The next connection is the session's from now on.
    fn change(&mut self, run: &Run, counts: &mut Counts) -> Result<()> {
        let Some((next, joined)) = self.next.take().and_then(|mut next| next.joined.take().map(|joined| (next, joined))) else {
            return Ok(());
        };
        let (away, silent) = (next.away, next.silent_for());
        counts.moved(run.elapsed(), silent, |moves| moves.count(away, silent));
        let Joined { socket, known, id, early, .. } = joined;
        self.known = known;
        let mut old = std::mem::replace(&mut self.socket, socket);
        if away.is_none() {
            tokio::spawn(async move { timeout(CLOSE_TIMEOUT, old.close()).await });
        }
        self.earlier.push(std::mem::replace(&mut self.id, id));
        if self.earlier.len() > EARLIER_SESSIONS_MAX {
            self.earlier.remove(0);
        }
        self.floor = self.contiguity.seen();
        self.hear(run, counts, early)?;
        let mut pen = run.pen.lock().unwrap_or_else(PoisonError::into_inner);
        for (action, seen) in self.answers.send_again() {
            let Pen { id, contest, payload } = pen.name(run, action)?;
            run.dialect.claim_again(payload, id, contest, &run.args, &format!("{}.{seen}", self.era))?;
            ensure!(self.socket.queue(run.dialect.is_text(), payload), "what is unanswered does not fit into the socket");
        }
        // What is wrong with a connection, the task learns when it reads.
        let _ = self.socket.write();
        Ok(())
    }

    /// As many actions as may wait for their answers: in a closed loop the next ones, in an open one what is overdue.
    fn go_on(&mut self, run: &Run, counts: &mut Counts) -> Result<()> {
        while self.may_send(run) {
            let action = if run.schedule.is_some() {
                let Some(action) = self.due.pop_front() else { break };
                action
            } else {
                if run.elapsed() >= run.end || run.cut.get().is_some() {
                    break;
                }
                self.turn += 1;
                run.plan.nth(self.number, self.turn - 1).context("the rooms hold no more contests: use more rooms")?
            };
            self.queue(run, action, counts)?;
        }
        self.flush(run, counts, run.elapsed());
        Ok(())
    }

    fn queue(&mut self, run: &Run, action: u64, counts: &mut Counts) -> Result<()> {
        if self.phase != Phase::Plays {
            return Ok(());
        }
        let mut pen = run.pen.lock().unwrap_or_else(PoisonError::into_inner);
        let Pen { id, contest, payload } = pen.name(run, action)?;
        run.dialect.claim(payload, id, contest, &run.args)?;
        if self.socket.queue(run.dialect.is_text(), payload) {
            self.pending.push(action);
            self.answers.sent(action, self.contiguity.seen());
        } else {
            counts.unsent += 1;
        }
        Ok(())
    }

    fn flush(&mut self, run: &Run, counts: &mut Counts, now: Duration) {
        if self.pending.is_empty() {
            return;
        }
        for action in self.pending.drain(..) {
            counts.sent(action, run.due(action), now);
        }
        // What is wrong with a connection, the task learns when it reads.
        if self.socket.write().is_err() || self.socket.owes() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// What clients do about the end of a connection, as the protocol says it: they come back, unless they did something wrong themselves.
fn away(why: &anyhow::Error) -> Option<Away> {
    match why.downcast_ref::<Closed>() {
        Some(Closed { code: Some(close::MOVED), .. }) => Some(Away::Moved),
        Some(Closed { code: Some(close::GOING_AWAY | close::INTERNAL | close::TRY_AGAIN | close::RESTARTED), .. }) => {
            Some(Away::Lost)
        }
        Some(_) => None,
        None => why.is::<io::Error>().then_some(Away::Lost),
    }
}
