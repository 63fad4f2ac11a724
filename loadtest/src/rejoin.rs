//! Measures what other rooms notice when many sessions reconnect at once with an old `since`.
//!
//! These sessions have a thread of their own, because the generator's thread must be on time.

use std::fmt;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{READ_BYTES, REJOIN_TIMEOUT};
use crate::load::joined::{Joined, join};
use crate::load::report::Report;
use crate::load::{Load, allow_files};
use crate::speak::dialect::Dialect;

/// Who comes again, and where.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    pub(crate) urls: Vec<String>,
    pub(crate) dialect: Dialect,
    /// Rooms that have a history.
    pub(crate) rooms: Vec<String>,
    /// Sessions over all rooms and gateways.
    pub(crate) sessions: u32,
    /// When, from now on.
    pub(crate) after: Duration,
}

/// What the crowd was told.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Caught {
    pub(crate) sessions: u32,
    /// Verdicts that they had missed, and were told.
    pub(crate) verdicts: u64,
    /// Until the last session had them all.
    pub(crate) took_s: f64,
}

/// The others, without the crowd and beside it.
#[derive(Debug, Serialize)]
pub(crate) struct Rejoined {
    pub(crate) before: Report,
    pub(crate) beside: Report,
    pub(crate) crowd: Caught,
    /// The others' p99 beside the crowd by that before it, from the actual send.
    pub(crate) p99_ratio: f64,
}

impl Crowd {
    /// Of the rooms that `load` played in, as `tag` names them.
    pub(crate) fn of(load: &Load, tag: &str, sessions: u32) -> Result<Self> {
        ensure!(load.dialect.is_lasthit(), "--rejoin needs lasthit's protocol: the others have no since");
        let rooms = (0..load.rooms).map(|number| load.dialect.room(load.audience, tag, number)).collect::<Result<_>>()?;
        Ok(Self { urls: load.urls.clone(), dialect: load.dialect, rooms, sessions, after: load.warm_up })
    }

    /// Comes again, on a thread of its own.
    pub(crate) fn start(self) -> std::thread::JoinHandle<Result<Caught>> {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let come = async { timeout(REJOIN_TIMEOUT, self.come()).await };
            runtime.block_on(come).map_err(|_| anyhow!("not all sessions caught up within {REJOIN_TIMEOUT:?}"))?
        })
    }

    async fn come(self) -> Result<Caught> {
        allow_files(u64::from(self.sessions) + 256)?;
        let mut known = Vec::new();
        for room in &self.rooms {
            known.push(self.join(0, room, None).await?.place());
        }
        sleep(self.after).await;
        let (began, scratch) = (Instant::now(), Mutex::new(vec![0; READ_BYTES]));
        let comers = (0..self.sessions).map(|number| {
            let at = number as usize % self.rooms.len();
            let (room, (era, seq), this, scratch) = (&self.rooms[at], known[at], &self, &scratch);
            async move { caught_up(this.join(number, room, Some(era)).await?, this.dialect, seq, scratch).await }
        });
        // Those who have caught up stay connected until all have.
        let comers: Vec<(Joined, u64)> = stream::iter(comers).buffer_unordered(self.sessions as usize).try_collect().await?;
        let verdicts = comers.iter().map(|(_, verdicts)| verdicts).sum();
        Ok(Caught { sessions: self.sessions, verdicts, took_s: began.elapsed().as_secs_f64() })
    }

    /// Without an era as somebody new, else with what the room said first already seen.
    async fn join(&self, number: u32, room: &str, era: Option<u64>) -> Result<Joined> {
        let url = &self.urls[number as usize % self.urls.len()];
        let player = era.map_or_else(|| "before".to_owned(), |era| format!("again-{number}&since={era}.1"));
        join(self.dialect, url, room, &player).await
    }
}

/// Reads until `seq` was told.
async fn caught_up(mut joined: Joined, dialect: Dialect, seq: u64, scratch: &Mutex<Vec<u8>>) -> Result<(Joined, u64)> {
    let (mut last, mut verdicts) = (0, 0);
    for (is_text, payload) in joined.take_early() {
        let frame = dialect.hear(is_text, &payload)?;
        if &*frame.t == "verdict" {
            (last, verdicts) = (frame.seq, verdicts + 1);
        }
    }
    poll_fn(|cx| {
        let mut scratch = scratch.lock().map_err(|_| anyhow!("another session failed"))?;
        let read = joined.socket().poll_read(cx, &mut scratch, |message| {
            let frame = dialect.hear(message.is_text, message.payload)?;
            if &*frame.t == "verdict" {
                (last, verdicts) = (frame.seq, verdicts + 1);
            }
            Ok(())
        });
        match read {
            _ if last >= seq => Poll::Ready(Ok(())),
            Poll::Ready(ended) => Poll::Ready(ended.and(Err(anyhow!("the session was closed")))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
    .with_context(|| format!("caught up to {last} of {seq}"))?;
    Ok((joined, verdicts))
}

impl Rejoined {
    pub(crate) fn of(before: Report, beside: Report, crowd: Caught) -> Self {
        let p99 = |report: &Report| report.service_us.p99.max(1.0);
        let p99_ratio = p99(&beside) / p99(&before);
        Self { before, beside, crowd, p99_ratio }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.before.failure().or_else(|| self.beside.failure())
    }
}

impl fmt::Display for Rejoined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Caught { sessions, verdicts, took_s } = self.crowd;
        writeln!(f, "before:\n{}\nbeside those who came again:\n{}", self.before, self.beside)?;
        write!(
            f,
            "{sessions} sessions came again with an old since and were told {verdicts} verdicts in {took_s:.2} s; \
             the others' p99: {:.2} times that before",
            self.p99_ratio
        )
    }
}
