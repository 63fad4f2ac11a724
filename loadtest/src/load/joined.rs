//! Joining a room: the connection up to its welcome, and what comes behind it until the session begins.

use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::timeout;

use super::home::{Elsewhere, Known};
use crate::limits::{CONNECT_TIMEOUT, HOME_TIMEOUT, READ_BYTES};
use crate::speak::dialect::Dialect;
use crate::speak::socket::{Message, Socket};

/// A session that may begin.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(super) socket: Socket,
    pub(super) id: String,
    pub(super) era: u64,
    pub(super) seq: u64,
    resumed: bool,
    /// Where the room is at home.
    pub(super) known: Known,
    home: Option<u64>,
    /// What came behind the welcome.
    pub(super) early: Vec<(bool, Vec<u8>)>,
}

/// Joins a room and waits for the welcome, where there is one. Goes where it is sent.
pub(crate) async fn join(dialect: Dialect, url: &str, room: &str, player: &str) -> Result<Joined> {
    join_known(dialect, &mut Known::default(), url, room, player).await
}

/// The same for a session that knows something of the room's home.
pub(crate) async fn join_known(dialect: Dialect, known: &mut Known, url: &str, room: &str, player: &str) -> Result<Joined> {
    let mut url = url.to_owned();
    loop {
        let within = if known.url() == Some(&url) { HOME_TIMEOUT } else { CONNECT_TIMEOUT };
        match join_one(dialect, &url, room, player, within).await {
            Ok(mut joined) => {
                known.welcomed(&url, joined.home);
                joined.known = known.clone();
                return Ok(joined);
            }
            Err(e) => match Elsewhere::told(&e).filter(|to| known.sent(to)).and(known.url()) {
                Some(home) => home.clone_into(&mut url),
                None => {
                    known.forget();
                    return Err(e);
                }
            },
        }
    }
}

async fn join_one(dialect: Dialect, url: &str, room: &str, player: &str, within: Duration) -> Result<Joined> {
    let request = dialect.request(url, room, player)?;
    let address = request.uri().to_string();
    let joining = async {
        let socket = Socket::connect(request).await?;
        let mut joined = Joined {
            socket,
            id: String::new(),
            era: 0,
            seq: 0,
            resumed: false,
            known: Known::default(),
            home: None,
            early: Vec::new(),
        };
        if dialect.is_lasthit() {
            joined.welcome(dialect).await?;
        }
        Ok(joined)
    };
    let joined = timeout(within, joining).await.unwrap_or_else(|_| bail!("no welcome within {within:?}"));
    joined.with_context(|| format!("{address} cannot be joined"))
}

impl Joined {
    /// Era and seq of its welcome.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.era, self.seq)
    }

    /// What it knows of the room's home.
    #[cfg(test)]
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// What came right behind the welcome: whether it is text, and its bytes.
    pub(crate) fn take_early(&mut self) -> Vec<(bool, Vec<u8>)> {
        std::mem::take(&mut self.early)
    }

    /// What comes after that.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Whether it continues at the `since` that was asked for.
    pub(crate) fn resumed(&self) -> bool {
        self.resumed
    }

    /// How many messages are kept of it.
    pub(crate) fn kept(&self) -> usize {
        self.early.len()
    }

    /// Reads what is there and keeps it; Ready when the connection is over.
    pub(crate) fn keep(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<()>> {
        let Self { socket, early, .. } = self;
        let read = socket.poll_read(cx, scratch, |message| {
            early.push((message.is_text, message.payload.to_vec()));
            Ok(())
        });
        // A pong may be due.
        if read.is_pending()
            && let Poll::Ready(Err(e)) = socket.poll_write(cx)
        {
            return Poll::Ready(Err(e.into()));
        }
        read
    }

    async fn welcome(&mut self, dialect: Dialect) -> Result<()> {
        let Self { socket, id, era, seq, resumed, home, early, .. } = self;
        let welcomed = AtomicBool::new(false);
        let mut first = |message: Message<'_>| {
            if welcomed.load(Relaxed) {
                early.push((message.is_text, message.payload.to_vec()));
                return Ok(());
            }
            let frame = dialect.hear(message.is_text, message.payload)?;
            let (t, said) = (&*frame.t, &*frame.message);
            ensure!(t == "welcome", "the first message is {t:?} instead of a welcome: {said}");
            (*id, *era, *seq, *resumed, *home) = (frame.session.to_string(), frame.era, frame.seq, frame.resumed, frame.home);
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
