//! One session: joins a room, sends what its outbox says, reads what comes and tells the audit.
//!
//! It must be cheap, because it shares the machine with the system under test: one task per session, all that is ready is
//! read in one go, all that is due is written with one system call.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::audit::{Contiguity, Place, Round};
use crate::frame::{Action, Encoding, Frame, number};
use crate::limits::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, READ_BYTES, WRITE_BYTES_MAX};
use crate::plan::Plan;
use crate::tally::Tally;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What all sessions of a run share.
pub(crate) struct Run {
    /// Who sends what when.
    pub(crate) plan: Plan,
    /// Tells this run's ids and contests from those of others in the same rooms.
    pub(crate) tag: String,
    /// How the sessions speak.
    pub(crate) encoding: Encoding,
    /// What every claim carries.
    pub(crate) args: String,
    /// What was seen.
    pub(crate) tally: Tally,
}

/// A session that was welcomed.
pub(crate) struct Joined {
    socket: Socket,
    id: String,
    era: u64,
    seq: u64,
}

/// Joins a room and waits for the welcome.
pub(crate) async fn join(url: &str, room: &str, player: &str, encoding: Encoding) -> Result<Joined> {
    let address = format!("{}/v1/room/{room}?player={player}", url.trim_end_matches('/'));
    let joining = async {
        let mut request = address.as_str().into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(encoding.subprotocol()));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(READ_BYTES)
            .max_write_buffer_size(WRITE_BYTES_MAX);
        let connected = tokio_tungstenite::connect_async_with_config(request, Some(config), true).await;
        let (mut socket, _) = connected.map_err(told)?;
        loop {
            let message = socket.next().await.ok_or_else(|| anyhow!("closed before the welcome"))?.map_err(told)?;
            match &message {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => bail!("closed before the welcome: {}", reason(frame.as_ref())),
                _ => {
                    let frame: Frame<'_> = encoding.read(&message)?;
                    ensure!(
                        &*frame.t == "welcome",
                        "the first message is {:?} instead of a welcome: {}",
                        &*frame.t,
                        &*frame.message
                    );
                    let (id, era, seq) = (frame.session.to_string(), frame.era, frame.seq);
                    return Ok(Joined { socket, id, era, seq });
                }
            }
        }
    };
    let joined = timeout(CONNECT_TIMEOUT, joining).await.unwrap_or_else(|_| bail!("no welcome within {CONNECT_TIMEOUT:?}"));
    joined.with_context(|| format!("{address} cannot be joined"))
}

/// Plays a session until its outbox is closed and empty, then says goodbye; tells the tally if it breaks before.
pub(crate) async fn play(joined: Joined, number: u32, start: Instant, run: Arc<Run>, outbox: mpsc::Receiver<u64>) {
    let room = run.plan.seat(number).room;
    let Joined { socket, id, era, seq } = joined;
    let contiguity = Contiguity::after(seq);
    let mut session = Session { socket, number, room, id, era, contiguity, start, run, outbox, unflushed: false };
    if let Err(e) = std::future::poll_fn(|cx| session.poll(cx)).await {
        session.run.tally.lock().broke(number, &e);
        return;
    }
    // A goodbye that fails or takes too long costs nobody anything: the run is over.
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    let _ = timeout(CLOSE_TIMEOUT, async {
        session.socket.close(Some(goodbye)).await?;
        while let Some(message) = session.socket.next().await {
            message?;
        }
        Ok::<(), tungstenite::Error>(())
    })
    .await;
}

struct Session {
    socket: Socket,
    number: u32,
    room: u32,
    /// As the gateway calls it.
    id: String,
    era: u64,
    contiguity: Contiguity,
    start: Instant,
    run: Arc<Run>,
    outbox: mpsc::Receiver<u64>,
    unflushed: bool,
}

impl Session {
    /// Sends and reads all that can be; Ready when the outbox is closed and everything in it has left.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut over = false;
        // A socket that takes no more leaves the rest in the outbox, and is read all the same.
        while !over && self.socket.poll_ready_unpin(cx)?.is_ready() {
            match self.outbox.poll_recv(cx) {
                Poll::Ready(Some(action)) => self.send(action)?,
                Poll::Ready(None) => over = true,
                Poll::Pending => break,
            }
        }
        if self.unflushed && self.socket.poll_flush_unpin(cx)?.is_ready() {
            self.unflushed = false;
        }
        while let Poll::Ready(message) = self.socket.poll_next_unpin(cx) {
            let message = message.ok_or_else(|| anyhow!("the connection ended"))?.map_err(told)?;
            self.receive(&message)?;
        }
        if over && !self.unflushed { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn send(&mut self, number: u64) -> Result<()> {
        let run = &*self.run;
        let planned = run.plan.action(number);
        let (id, contest) = (format!("{}-{number}", run.tag), format!("{}-{}", run.tag, planned.contest));
        let action = Action { op: "claim", id: &id, contest: &contest, args: &run.args };
        self.socket.start_send_unpin(run.encoding.write(&action)?)?;
        self.unflushed = true;
        run.tally.lock().sent(number, self.elapsed().saturating_sub(planned.due));
        Ok(())
    }

    fn receive(&mut self, message: &Message) -> Result<()> {
        match message {
            Message::Text(_) | Message::Binary(_) => {}
            Message::Close(frame) => bail!("closed by the gateway: {}", reason(frame.as_ref())),
            _ => return Ok(()),
        }
        let run = &*self.run;
        let frame: Frame<'_> = run.encoding.read(message)?;
        match &*frame.t {
            "verdict" => {
                let mut tally = run.tally.lock();
                tally.audit.seen(&mut self.contiguity, frame.from.unwrap_or(frame.seq), frame.seq);
                if &*frame.outcome == "granted"
                    && let Some(contest) = number(&run.tag, &frame.contest)
                {
                    let round = Round { room: self.room, contest, round: frame.round };
                    tally.audit.won(round, Place { era: self.era, seq: frame.seq });
                }
                if *frame.session == *self.id && !frame.id.is_empty() {
                    let (action, due) = self.own(&frame.id);
                    tally.verdict(action, (&frame.outcome, &frame.reason), due, self.elapsed());
                }
            }
            "error" => {
                let action = (!frame.id.is_empty()).then(|| self.own(&frame.id).0);
                run.tally.lock().refused(action, &frame.code);
            }
            _ => {}
        }
        Ok(())
    }

    /// Which of this session's actions an id names, and when it was due; one that does not exist when it names none.
    fn own(&self, id: &str) -> (u64, Duration) {
        let known = number(&self.run.tag, id).filter(|n| *n < self.run.plan.actions());
        let planned = known.map(|n| (n, self.run.plan.action(n)));
        planned.filter(|(_, p)| p.session == self.number).map_or((u64::MAX, Duration::ZERO), |(n, p)| (n, p.due))
    }

    /// Time of the run.
    fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }
}

/// A socket's error in one line; of a refused handshake also what the gateway said.
fn told(error: tungstenite::Error) -> anyhow::Error {
    match &error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            anyhow!("{error}: {}", String::from_utf8_lossy(body).chars().take(300).collect::<String>())
        }
        _ => anyhow!("{error}"),
    }
}

fn reason(frame: Option<&CloseFrame>) -> String {
    frame.map_or_else(|| "no code".to_owned(), |f| format!("{} {}", u16::from(f.code), f.reason))
}
