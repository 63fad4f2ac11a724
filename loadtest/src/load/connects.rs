//! Further connections beside a run: each opens, waits for its welcome and closes, by a schedule that waits for none of them. On a thread
//! of their own, because the generator's must be on time.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::allow_files;
use super::joined::{Joined, join};
use super::phases::How;
use super::plan::Schedule;
use crate::limits::{CLOSE_TIMEOUT, CONNECT_ROOMS, CONNECT_TIMEOUT, CONNECTS_OPEN_MAX};
use crate::speak::dialect::{Audience, Dialect};

/// Where to connect, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Connecting {
    pub(crate) urls: Vec<String>,
    pub(crate) dialect: Dialect,
    /// Tells their rooms apart from all others.
    pub(crate) tag: String,
    /// Connections a second.
    pub(crate) rate: u32,
    /// Sessions that are open beside them.
    pub(crate) sessions: u32,
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    /// When it was due, from the start on.
    pub(crate) at: Duration,
    /// From then to its welcome, or its end.
    pub(crate) took: Duration,
    /// How much later than due it began: the generator's own fault.
    pub(crate) behind: Duration,
    pub(crate) how: How,
    /// What was said, or found, when it was not welcomed.
    pub(crate) why: Option<String>,
}

/// Connections that are being made until this is ended.
#[derive(Debug)]
pub(crate) struct Connector {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Connector {
    /// Begins at `start`; every connection is told once it is welcomed or over.
    ///
    /// # Errors
    /// When the rate is out of bounds, or so many files may not be open.
    pub(crate) fn start(connecting: Connecting, start: Instant, told: impl Fn(Connect) + Send + 'static) -> Result<Self> {
        let schedule = Schedule::new(connecting.rate)?;
        // As many as are open at a time if none is answered.
        let unanswered = u64::from(connecting.rate) * (CONNECT_TIMEOUT + CLOSE_TIMEOUT).as_secs();
        allow_files(unanswered.min(CONNECTS_OPEN_MAX as u64) + u64::from(connecting.sessions) + 1024)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("connects".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(connect_all(connecting, schedule, start, &stopped, told))
        })?;
        Ok(Self { stop, thread })
    }

    /// Makes no more, and returns when all have ended.
    pub(crate) async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        ended.map_err(|_| anyhow!("the thread of further connections panicked"))?
    }
}

async fn connect_all(
    connecting: Connecting,
    schedule: Schedule,
    start: Instant,
    stop: &AtomicBool,
    told: impl Fn(Connect),
) -> Result<()> {
    let (connecting, mut tasks) = (Arc::new(connecting), JoinSet::new());
    for number in 0.. {
        let at = schedule.due(number);
        let due = start + at;
        let mut sleeping = std::pin::pin!(sleep_until(due));
        // What is over is told as it comes.
        loop {
            tokio::select! {
                biased;
                () = &mut sleeping, if tasks.len() < CONNECTS_OPEN_MAX => break,
                Some(done) = tasks.join_next() => told(done?),
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let connecting = Arc::clone(&connecting);
        tasks.spawn(async move {
            let began = Instant::now();
            let joined = connecting.join(number).await;
            let took = due.elapsed();
            let why = joined.as_ref().err().map(|why| format!("{why:#}"));
            let how = match joined {
                Ok(mut joined) => {
                    // A goodbye that fails or takes too long is no other's business.
                    let _ = timeout(CLOSE_TIMEOUT, joined.socket().close()).await;
                    How::Welcomed
                }
                Err(_) if began.elapsed() >= CONNECT_TIMEOUT => How::Forgotten,
                Err(why) => how_failed(&why),
            };
            Connect { at, took, behind: began.saturating_duration_since(due), how, why }
        });
    }
    while let Some(done) = tasks.join_next().await {
        told(done?);
    }
    Ok(())
}

impl Connecting {
    async fn join(&self, number: u64) -> Result<Joined> {
        let room = u32::try_from(number % CONNECT_ROOMS)?;
        let room = self.dialect.room(Audience::Sender, &format!("{}c", self.tag), room)?;
        let url = &self.urls[usize::try_from(number)? % self.urls.len()];
        join(self.dialect, url, &room, &format!("p-connect-{number}")).await
    }
}

/// Whether somebody said no, or nobody said anything.
fn how_failed(why: &anyhow::Error) -> How {
    let kind = why.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        None | Some(ErrorKind::ConnectionRefused) => How::Refused,
        Some(_) => How::Reset,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What becomes of twenty connections a second, made for a while to a server that does this with each.
    async fn made(serve: fn(tokio::net::TcpStream) -> tokio::task::JoinHandle<()>, listens: bool) -> Vec<How> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let urls = vec![format!("ws://{}", listener.local_addr().expect("an address"))];
        if listens {
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    serve(stream);
                }
            });
        } else {
            drop(listener);
        }
        let connecting = Connecting { urls, dialect: Dialect::LasthitJson, tag: "t".into(), rate: 50, sessions: 0 };
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let connector = Connector::start(connecting, Instant::now(), move |one| tell.lock().expect("told").push(one.how));
        let connector = connector.expect("started");
        while told.lock().expect("told").len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connector.end().await.expect("ended");
        let told = told.lock().expect("told");
        told.clone()
    }

    #[tokio::test]
    async fn who_is_refused_is_told_from_who_is_reset() {
        let nothing = |_| tokio::spawn(async {});
        assert!(made(nothing, false).await.iter().all(|how| *how == How::Refused));
        assert!(made(|stream| tokio::spawn(async { drop(stream) }), true).await.iter().all(|how| *how == How::Reset));
        let says_no = |mut stream: tokio::net::TcpStream| {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
            })
        };
        assert!(made(says_no, true).await.iter().all(|how| *how == How::Refused));
    }

    #[tokio::test]
    async fn who_is_welcomed_is_told_with_the_time_of_it() {
        let mock = crate::tests::mock::Mock::start(crate::tests::mock::Fault::None).await;
        let connecting = Connecting { urls: mock.urls(1), dialect: Dialect::Lasthit, tag: "t".into(), rate: 100, sessions: 0 };
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let connector =
            Connector::start(connecting, Instant::now(), move |one| tell.lock().expect("told").push(one)).expect("started");
        while told.lock().expect("told").len() < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connector.end().await.expect("ended");
        let told = told.lock().expect("told");
        assert!(told.iter().all(|one| one.how == How::Welcomed && one.took >= one.behind), "{told:?}");
        let due: Vec<Duration> = told.iter().take(3).map(|one| one.at).collect();
        assert!(due.iter().all(|at| at.as_millis().is_multiple_of(10)), "they are due by the schedule: {due:?}");
    }
}
