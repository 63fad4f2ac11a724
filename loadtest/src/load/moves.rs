//! A session's next connection. It opens while the old one plays on, because the gateway asked for it, or when the old one was closed
//! as moved.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};

use super::client::Run;
use super::home::Known;
use super::joined::{Joined, join_known};
use crate::limits::{MOVE_HUSH, MOVE_KEPT_MAX, MOVE_PATIENCE, MOVE_RETRY};

/// What a gateway asks.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The time for it.
    pub(crate) within: Duration,
    /// Where to go, if it says so.
    pub(crate) url: Option<String>,
}

/// How the sessions of a run moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Moves {
    /// Sessions that changed over to a next connection that was there.
    pub(crate) followed: u64,
    /// Of them, those that had to pause for it.
    pub(crate) paused: u64,
    /// Sessions that were asked to change over and stayed.
    pub(crate) ignored: u64,
    /// Sessions that connected again because they were closed as moved.
    pub(crate) reconnected: u64,
    /// Sessions that connected again because their connection broke, or their gateway ended.
    pub(crate) returned: u64,
    /// Sessions that connected again because they were closed: their room is at home elsewhere.
    pub(crate) sent_on: u64,
    /// The longest time in which an action of a session could not leave.
    pub(crate) unconnected_ms: f64,
}

impl Moves {
    /// A session changed over.
    pub(crate) fn count(&mut self, away: Option<Away>, silent: Option<Duration>) {
        self.followed += u64::from(away.is_none());
        self.paused += u64::from(away.is_none() && silent.is_some());
        self.reconnected += u64::from(away == Some(Away::Moved));
        self.returned += u64::from(away == Some(Away::Lost));
        self.sent_on += u64::from(away == Some(Away::Elsewhere));
        let ms = silent.unwrap_or_default().as_secs_f64() * 1000.0;
        self.unconnected_ms = self.unconnected_ms.max((ms * 10.0).round() / 10.0);
    }

    /// Whether any session moved.
    pub(crate) fn any(&self) -> bool {
        self.followed + self.ignored + self.reconnected + self.returned + self.sent_on > 0
    }
}

/// Why a connection is over before the next one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Away {
    /// Its gateway closed it as moved.
    Moved,
    /// Its gateway closed it because its room is at home elsewhere.
    Elsewhere,
    /// It broke, or its gateway ended or failed.
    Lost,
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { followed, paused, ignored, reconnected, returned, sent_on, unconnected_ms } = self;
        write!(
            f,
            "{followed} followed, {paused} of them after a pause, {ignored} stayed, {reconnected} were closed and reconnected, "
        )?;
        if *sent_on > 0 {
            write!(f, "{sent_on} were sent to another host, ")?;
        }
        write!(f, "{returned} lost their connection and came back; unconnected for at most {unconnected_ms} ms")
    }
}

/// Whose next connection it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose {
    pub(crate) number: u32,
    pub(crate) room: u32,
    pub(crate) era: u64,
    pub(crate) seen: u64,
}

/// What to do about it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing.
    Waits,
    /// The move is given up; the old connection goes on.
    Stays,
    /// The next connection becomes the session's.
    Changes,
}

/// What it knows of the room's home afterwards comes with it.
type Joining = Pin<Box<dyn Future<Output = (Result<Joined>, Known)> + Send>>;

/// The next connection.
pub(crate) struct Next {
    url: Option<String>,
    known: Known,
    joining: Option<Joining>,
    /// What it said since its welcome is kept with it.
    pub(crate) joined: Option<Joined>,
    failures: u32,
    began: Instant,
    /// When the session begins to pause.
    ends: Instant,
    /// Since when nothing is sent.
    silent: Option<Instant>,
    /// Whether the old connection is over.
    pub(crate) away: Option<Away>,
    timer: Pin<Box<Sleep>>,
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("joined", &self.joined).field("silent", &self.silent).finish_non_exhaustive()
    }
}

impl Next {
    /// A gateway asked for it.
    pub(crate) fn asked(asked: Asked, known: Known) -> Self {
        let now = Instant::now();
        Self {
            url: asked.url,
            known,
            joining: None,
            joined: None,
            failures: 0,
            began: now,
            ends: now + asked.within,
            silent: None,
            away: None,
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// The session's connection is over, though no gateway asked it to move.
    pub(crate) fn away(away: Away, known: Known) -> Self {
        let mut next = Self::asked(Asked { within: Duration::ZERO, url: None }, known);
        if away == Away::Elsewhere && next.known.url().is_none() {
            // Where it was sent it must not go at once.
            next.timer.as_mut().reset(Instant::now() + MOVE_RETRY);
        }
        next.leave(away);
        next
    }

    /// The old connection has ended.
    pub(crate) fn leave(&mut self, away: Away) {
        self.away = Some(away);
        self.began = Instant::now();
        self.silent.get_or_insert(self.began);
    }

    /// Whether nothing may be sent now.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// For how long nothing was sent.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        self.silent.map(|since| since.elapsed())
    }

    /// Goes on with it. `quiet` says that nothing of the session waits for an answer.
    ///
    /// # Errors
    /// When the session can neither stay nor change over.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        run: &Run,
        whose: Whose,
        scratch: &mut [u8],
        quiet: bool,
    ) -> Result<Turn> {
        loop {
            if let Err(e) = self.listen(cx, scratch) {
                (self.joining, self.joined) = (None, None);
                self.failures += 1;
                if self.away.is_none() && Instant::now() >= self.ends {
                    return Ok(Turn::Stays);
                }
                ensure!(
                    self.away.is_none() || self.began.elapsed() < MOVE_PATIENCE,
                    "{e:#}, again and again for {MOVE_PATIENCE:?}"
                );
                self.timer.as_mut().reset(Instant::now() + MOVE_RETRY);
            }
            if let Some(joined) = &self.joined {
                if quiet || self.away.is_some() {
                    return Ok(Turn::Changes);
                }
                if joined.kept() > MOVE_KEPT_MAX {
                    self.ends = self.ends.min(Instant::now());
                }
                self.timer.as_mut().reset(self.silent.map_or(self.ends, |since| since + MOVE_HUSH));
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(Turn::Waits);
            }
            if self.joined.is_some() {
                if self.silent.is_some() {
                    return Ok(Turn::Changes);
                }
                self.silent = Some(Instant::now());
            } else {
                self.connect(run, whose)?;
                self.timer.as_mut().reset(Instant::now() + MOVE_PATIENCE);
            }
        }
    }

    fn connect(&mut self, run: &Run, whose: Whose) -> Result<()> {
        let Whose { number, room, era, seen } = whose;
        let room = run.dialect.room(run.audience, &run.tag, room)?;
        let (dialect, player) = (run.dialect, format!("p{number}&since={era}.{seen}"));
        // Who knows several addresses takes the next one.
        let turn = run.plan.seat(number).url as usize + 1 + self.failures as usize;
        let mut known = self.known.clone();
        let home = || known.url().map(str::to_owned);
        let url = self.url.clone().or_else(home).unwrap_or_else(|| run.urls[turn % run.urls.len()].clone());
        self.joining = Some(Box::pin(async move { (join_known(dialect, &mut known, &url, &room, &player).await, known) }));
        Ok(())
    }

    fn listen(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<()> {
        if let Some(joining) = &mut self.joining
            && let Poll::Ready((joined, known)) = joining.as_mut().poll(cx)
        {
            (self.joining, self.known) = (None, known);
            // A move that was sent on goes to the home the next time.
            self.url = self.url.take().filter(|_| self.known.url().is_none());
            let joined = joined?;
            ensure!(joined.resumed(), "the room does not go on where the session was");
            self.joined = Some(joined);
        }
        if let Some(joined) = &mut self.joined
            && let Poll::Ready(ended) = joined.keep(cx, scratch)
        {
            return ended;
        }
        Ok(())
    }
}
