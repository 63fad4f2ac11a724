//! Sessions that keep the gateways busy while rivals race, from a thread of their own with a runtime of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::ARGS;
use crate::limits::{BACKGROUND_ROOMS, BACKGROUND_SESSIONS, CONNECT_TIMEOUT, PACE, READ_BYTES};
use crate::load::pace::Pacer;
use crate::load::plan::CONTENDERS;
use crate::speak::dialect::{Audience, Dialect};

/// Claims that are being sent at a steady rate until this is ended.
pub(super) struct Background {
    shared: Arc<Shared>,
    began: Instant,
    thread: JoinHandle<Result<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Background {
    /// Returns when all sessions are there and claims are being sent.
    pub(super) fn start(dialect: Dialect, urls: Vec<String>, tag: String, rate: u32) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("background".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(play(dialect, &urls, &tag, rate, &theirs, ready))
        })?;
        // An error is in the thread's result.
        if is_ready.recv().is_err() {
            thread.join().map_err(|_| anyhow!("the background's thread panicked"))??;
            bail!("the background ended before it began");
        }
        Ok(Self { shared, began: Instant::now(), thread })
    }

    /// Ends it; claims a second that were sent.
    pub(super) fn end(self) -> Result<f64> {
        let rate = self.shared.sent.load(Relaxed) as f64 / self.began.elapsed().as_secs_f64();
        self.shared.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the background's thread panicked"))??;
        Ok(rate)
    }
}

async fn play(dialect: Dialect, urls: &[String], tag: &str, rate: u32, shared: &Shared, ready: mpsc::Sender<()>) -> Result<()> {
    let (mut writers, mut readers) = (Vec::new(), JoinSet::new());
    for n in 0..BACKGROUND_SESSIONS {
        // A room's sessions are spread over all gateways. Room 0 is the rivals'.
        let url = &urls[(n / BACKGROUND_ROOMS) as usize % urls.len()];
        let request = dialect.request(url, &dialect.room(Audience::Sender, tag, 1 + n % BACKGROUND_ROOMS)?, &format!("p-{n}"))?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BYTES).write_buffer_size(READ_BYTES);
        let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let (socket, _) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.context("no answer in time")??;
        let (writer, mut reader) = socket.split();
        writers.push(writer);
        readers.spawn(async move {
            loop {
                match reader.next().await {
                    Some(Ok(Message::Close(frame))) => return anyhow!("closed by its gateway: {frame:?}"),
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return anyhow!("{e}"),
                    None => return anyhow!("the connection ended"),
                }
            }
        });
    }
    // The gateways hold back what is sent before a session's room knows it; a moment later nothing is.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _ = ready.send(());
    let (mut pacer, start, mut next) = (Pacer::new()?, Instant::now(), 0u64);
    let due = |n: u64| start + Duration::from_nanos(n * 1_000_000_000 / u64::from(rate));
    while !shared.stop.load(Relaxed) {
        let now = Instant::now();
        let mut touched = Vec::new();
        while due(next) <= now {
            let (room, turn) = (next % u64::from(BACKGROUND_ROOMS), next / u64::from(BACKGROUND_ROOMS));
            let seats = u64::from(BACKGROUND_SESSIONS / BACKGROUND_ROOMS);
            let session = usize::try_from(room + turn % seats * u64::from(BACKGROUND_ROOMS))?;
            let mut payload = Vec::new();
            dialect.claim(&mut payload, &format!("bg-{next}"), &format!("bg-{}", turn / u64::from(CONTENDERS)), ARGS)?;
            let message = if dialect.is_text() { Message::text(String::from_utf8(payload)?) } else { Message::binary(payload) };
            writers[session].feed(message).await?;
            touched.push(session);
            next += 1;
        }
        for session in touched {
            writers[session].flush().await?;
        }
        shared.sent.store(next, Relaxed);
        if let Some(broken) = readers.try_join_next() {
            return Err(broken?.context("a background session broke"));
        }
        // Idle rates must notice the end, too.
        pacer.until(due(next).max(now + PACE).min(now + Duration::from_millis(100))).await?;
    }
    for mut writer in writers {
        // The fleet or the gateway may be gone already.
        writer.close().await.ok();
    }
    Ok(())
}
