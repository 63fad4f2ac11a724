//! One session: joins a room, sends what is due, reads what comes and tells the audit.

use std::collections::VecDeque;
use std::fmt::Write;
use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep_until, timeout};

use super::audit::{Contiguity, Place, Round};
use super::plan::{Plan, Schedule};
use super::tally::{Counts, Tally};
use crate::limits::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, DUE_ACTIONS_MAX, READ_BYTES};
use crate::speak::dialect::Dialect;
use crate::speak::frame::{Frame, number};
use crate::speak::socket::{Message, Socket};

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
    /// Tells this run's ids and contests from those of others in the same rooms.
    pub(crate) tag: String,
    /// How the sessions speak.
    pub(crate) dialect: Dialect,
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
    fn due(&self, action: u64) -> Option<Duration> {
        self.schedule.map(|schedule| schedule.due(action))
    }
}

/// A session that may begin.
#[derive(Debug)]
pub(crate) struct Joined {
    socket: Socket,
    id: String,
    era: u64,
    seq: u64,
    /// What came right behind the welcome.
    early: Vec<(bool, Vec<u8>)>,
}

/// Joins a room and waits for the welcome, where there is one.
pub(crate) async fn join(dialect: Dialect, url: &str, room: &str, player: &str) -> Result<Joined> {
    let request = dialect.request(url, room, player)?;
    let address = request.uri().to_string();
    let joining = async {
        let socket = Socket::connect(request).await?;
        let mut joined = Joined { socket, id: String::new(), era: 0, seq: 0, early: Vec::new() };
        if dialect.is_lasthit() {
            joined.welcome(dialect).await?;
        }
        Ok(joined)
    };
    let joined = timeout(CONNECT_TIMEOUT, joining).await.unwrap_or_else(|_| bail!("no welcome within {CONNECT_TIMEOUT:?}"));
    joined.with_context(|| format!("{address} cannot be joined"))
}

impl Joined {
    /// Era and seq of its welcome.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.era, self.seq)
    }

    /// What came right behind the welcome: whether it is text, and its bytes.
    pub(crate) fn take_early(&mut self) -> Vec<(bool, Vec<u8>)> {
        std::mem::take(&mut self.early)
    }

    /// What comes after that.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    async fn welcome(&mut self, dialect: Dialect) -> Result<()> {
        let Self { socket, id, era, seq, early } = self;
        let welcomed = AtomicBool::new(false);
        let mut first = |message: Message<'_>| {
            if welcomed.load(Relaxed) {
                early.push((message.is_text, message.payload.to_vec()));
                return Ok(());
            }
            let frame = dialect.hear(message.is_text, message.payload)?;
            let (t, said) = (&*frame.t, &*frame.message);
            ensure!(t == "welcome", "the first message is {t:?} instead of a welcome: {said}");
            (*id, *era, *seq) = (frame.session.to_string(), frame.era, frame.seq);
            welcomed.store(true, Relaxed);
            Ok(())
        };
        socket.carried(&mut first)?;
        let mut scratch = vec![0; READ_BYTES];
        poll_fn(|cx| {
            let ended = if welcomed.load(Relaxed) { Poll::Pending } else { socket.poll_read(cx, &mut scratch, &mut first) };
            if welcomed.load(Relaxed) && ended.is_pending() { Poll::Ready(Ok(())) } else { ended }
        })
        .await
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
    /// As the gateway calls it.
    id: String,
    era: u64,
    contiguity: Contiguity,
    /// Actions that are written with the next system call.
    pending: Vec<u64>,
    /// In a closed loop: actions that were sent.
    turn: u64,
    /// In an open one: what was due while too many waited for their answers.
    due: VecDeque<u64>,
    /// Actions that wait for their answers.
    waiting: u32,
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
        let Joined { socket, id, era, seq, early } = joined;
        Self(Mutex::new(State {
            socket,
            number,
            room: run.plan.seat(number).room,
            id,
            era,
            contiguity: Contiguity::after(seq),
            pending: Vec::new(),
            turn: 0,
            due: VecDeque::new(),
            waiting: 0,
            waker: None,
            early,
            phase: Phase::Plays,
        }))
    }

    /// An action is due: it leaves with the next [`Self::flush`], or when fewer wait for their answers.
    pub(crate) fn queue(&self, run: &Run, action: u64) -> Result<()> {
        let mut state = self.lock();
        if state.waiting < run.outstanding {
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
        let mut seen = Seen { number: self.number, room: self.room, id: &self.id, era: self.era, run, counts: &mut counts };
        let (contiguity, mut answered) = (&mut self.contiguity, 0);
        for (is_text, payload) in self.early.drain(..) {
            answered += seen.receive(Message { is_text, payload: &payload }, contiguity)?;
        }
        let read = self.socket.poll_read(cx, &mut scratch, |message| {
            answered += seen.receive(message, contiguity)?;
            Ok(())
        });
        if let Poll::Ready(ended) = read {
            return Poll::Ready(ended);
        }
        drop(scratch);
        self.waiting = self.waiting.saturating_sub(answered);
        if self.phase == Phase::Plays && self.waiting < run.outstanding {
            self.go_on(run, &mut counts)?;
        }
        let written = self.socket.poll_write(cx)?;
        if self.phase == Phase::Over && written.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// As many actions as may wait for their answers: in a closed loop the next ones, in an open one what is overdue.
    fn go_on(&mut self, run: &Run, counts: &mut Counts) -> Result<()> {
        while self.waiting < run.outstanding {
            let action = if run.schedule.is_some() {
                let Some(action) = self.due.pop_front() else { break };
                action
            } else {
                if run.elapsed() >= run.end {
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
        let Pen { id, contest, payload } = &mut *pen;
        id.clear();
        contest.clear();
        payload.clear();
        write!(id, "{}-{action}", run.tag)?;
        write!(contest, "{}-{}", run.tag, run.plan.action(action).contest)?;
        run.dialect.claim(payload, id, contest, &run.args)?;
        if self.socket.queue(run.dialect.is_text(), payload) {
            self.pending.push(action);
            self.waiting = self.waiting.saturating_add(1);
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

/// What a session needs in order to judge a message.
struct Seen<'a> {
    number: u32,
    room: u32,
    id: &'a str,
    era: u64,
    run: &'a Run,
    counts: &'a mut Counts,
}

impl Seen<'_> {
    /// How many of the session's own actions it answers.
    fn receive(&mut self, message: Message<'_>, contiguity: &mut Contiguity) -> Result<u32> {
        let frame = self.run.dialect.hear(message.is_text, message.payload)?;
        match &*frame.t {
            "verdict" => Ok(self.verdict(&frame, contiguity)),
            "error" => {
                let action = (!frame.id.is_empty()).then(|| self.own(&frame.id));
                self.counts.refused(action, &frame.code);
                Ok(u32::from(action.is_some()))
            }
            _ => Ok(0),
        }
    }

    fn verdict(&mut self, frame: &Frame<'_>, contiguity: &mut Contiguity) -> u32 {
        let (run, granted) = (self.run, &*frame.outcome == "granted");
        let is_lasthit = run.dialect.is_lasthit();
        if is_lasthit {
            self.counts.audit.seen(contiguity, frame.from.unwrap_or(frame.seq), frame.seq);
            if granted && let Some(contest) = number(&run.tag, &frame.contest) {
                let round = Round { room: self.room, contest, round: frame.round };
                self.counts.audit.won(round, Place { era: self.era, seq: frame.seq });
            }
            // The room's joins and leaves have no id.
            if *frame.session != *self.id || frame.id.is_empty() {
                return 0;
            }
        }
        let action = self.own(&frame.id);
        if granted && !is_lasthit {
            // Others tell the claimer only that it has won, and whoever has won, again.
            let round = Round { room: self.room, contest: run.plan.action(action).contest, round: 1 };
            self.counts.audit.won(round, Place { era: 0, seq: u64::from(self.number) });
        }
        self.counts.verdict(action, (&frame.outcome, &frame.reason), run.due(action), run.elapsed());
        1
    }

    /// Which of this session's actions an id names; one that does not exist when it names none.
    fn own(&self, id: &str) -> u64 {
        let known = number(&self.run.tag, id).filter(|n| *n < self.run.plan.actions());
        known.filter(|n| self.run.plan.action(*n).session == self.number).unwrap_or(u64::MAX)
    }
}
