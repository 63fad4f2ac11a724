//! Answers that go on: the lines about a command, each as it comes, and those of the log. Whoever reads slowly waits for nobody else,
//! and a change of the supervisor's image does not end them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ask::Told;
use super::state::Then;
use crate::limits::STREAM_UNSENT_BYTES_MAX;

/// Where the lines of an answer come from.
#[derive(Debug)]
pub(super) enum Source {
    /// What is told of a command, until the last word.
    Told(mpsc::Receiver<Told>),
    /// These lines, and then those that follow.
    Lines(std::vec::IntoIter<String>, Option<broadcast::Receiver<String>>),
}

/// The answers that go on. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stop: CancellationToken,
    all: Mutex<JoinSet<Option<Left>>>,
}

/// An answer that was stopped.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) stream: UnixStream,
    pub(super) unsent: Vec<u8>,
    pub(super) then: Then,
}

impl Source {
    /// Whether it goes on for as long as whoever asked wants it to.
    pub(super) fn follows(&self) -> bool {
        matches!(self, Self::Lines(_, Some(_)))
    }

    /// The next line with its end. None: that was all.
    pub(super) async fn next(&mut self) -> Option<String> {
        let mut line = match self {
            Self::Told(told) => serde_json::to_string(&told.recv().await?).unwrap_or_default(),
            Self::Lines(first, following) => match (first.next(), following) {
                (Some(line), _) => line,
                (None, None) => return None,
                (None, Some(following)) => match following.recv().await {
                    Ok(line) => line,
                    Err(broadcast::error::RecvError::Lagged(lost)) => lost_lines(lost),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            },
        };
        line.push('\n');
        Some(line)
    }

    /// What has come already, and what then follows. It is bounded: what is above is counted.
    async fn rest(mut self, unsent: &mut Vec<u8>) -> Then {
        if let Self::Told(told) = &mut self {
            let mut is_over = false;
            // Whoever waits to say the last word says it once there is room.
            for _ in 0..2 {
                while let Ok(told) = told.try_recv() {
                    is_over = !matches!(told, Told::Progress(_));
                    unsent.extend(serde_json::to_vec(&told).unwrap_or_default());
                    unsent.push(b'\n');
                }
                tokio::task::yield_now().await;
            }
            return if is_over || told.is_closed() { Then::Nothing } else { Then::Told };
        }
        let Self::Lines(first, following) = self else { return Then::Nothing };
        let then = if following.is_some() { Then::Lines } else { Then::Nothing };
        let (mut lost, mut following) = (0, following);
        let more = std::iter::from_fn(|| {
            loop {
                match following.as_mut()?.try_recv() {
                    Ok(line) => return Some(line),
                    Err(broadcast::error::TryRecvError::Lagged(count)) => lost += count,
                    Err(_) => return None,
                }
            }
        });
        let mut above = 0;
        for line in first.chain(more) {
            if unsent.len() + line.len() < STREAM_UNSENT_BYTES_MAX {
                unsent.extend_from_slice(line.as_bytes());
                unsent.push(b'\n');
            } else {
                above += 1;
            }
        }
        if lost + above > 0 {
            unsent.extend_from_slice(lost_lines(lost + above).as_bytes());
            unsent.push(b'\n');
        }
        then
    }
}

fn lost_lines(count: u64) -> String {
    format!("lasthit: {count} lines were dropped, as they were not read in time")
}

impl Streams {
    /// Sends bytes, and then the lines of a source, to whoever asked. It gives its place back at the end.
    pub(super) fn run(&self, stream: UnixStream, unsent: Vec<u8>, source: Option<Source>, place: Option<OwnedSemaphorePermit>) {
        let mut all = self.0.all.lock();
        while all.try_join_next().is_some() {}
        let stop = self.0.stop.clone();
        all.spawn(async move {
            let _place = place;
            flow(stream, unsent, source, &stop).await
        });
    }

    /// Stops all of them where they are.
    pub(super) async fn stop(&self) -> Vec<Left> {
        self.0.stop.cancel();
        let mut all = std::mem::take(&mut *self.0.all.lock());
        let mut left = Vec::new();
        while let Some(ended) = all.join_next().await {
            left.extend(ended.ok().flatten());
        }
        left
    }

    /// The end: whoever was told something hears it, within a time.
    pub(super) async fn finish(&self, within: Duration) {
        let send = async {
            for mut left in self.stop().await {
                let _ = left.stream.write_all(&left.unsent).await;
            }
        };
        let _ = tokio::time::timeout(within, send).await;
    }
}

impl Left {
    /// The connection, outside of any runtime.
    pub(super) fn into_descriptor(self) -> io::Result<OwnedFd> {
        self.stream.into_std().map(Into::into)
    }
}

/// None: it has ended.
async fn flow(mut stream: UnixStream, mut unsent: Vec<u8>, source: Option<Source>, stop: &CancellationToken) -> Option<Left> {
    let mut source = source;
    loop {
        if unsent.is_empty() {
            let more = source.as_mut()?;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                line = more.next() => match line {
                    Some(line) => unsent.extend_from_slice(line.as_bytes()),
                    None => source = None,
                },
                () = gone(&stream) => return None,
            }
        } else {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                sent = stream.write(&unsent) => match sent {
                    Ok(sent @ 1..) => drop(unsent.drain(..sent)),
                    _ => return None,
                },
            }
        }
    }
    let then = match source {
        Some(source) => source.rest(&mut unsent).await,
        None => Then::Nothing,
    };
    Some(Left { stream, unsent, then })
}

/// Returns when the other end is closed. What it still sends is of no interest.
async fn gone(stream: &UnixStream) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut [0; 256]) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn text(mut stream: UnixStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("read");
        text
    }

    #[tokio::test]
    async fn an_answer_that_is_stopped_goes_on_where_it_was() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (told, telling) = mpsc::channel(2);
        let streams = Streams::default();
        streams.run(near, b"head\n".to_vec(), Some(Source::Told(telling)), None);
        told.send(Told::Progress("one".to_owned())).await.expect("heard");
        tokio::task::yield_now().await;
        told.send(Told::Progress("two".to_owned())).await.expect("heard");
        let mut left = streams.stop().await;
        let left = left.pop().expect("one");
        assert_eq!(left.then, Then::Told);
        let (told, telling) = mpsc::channel(2);
        let again = Streams::default();
        again.run(left.stream, left.unsent, Some(Source::Told(telling)), None);
        told.send(Told::Done).await.expect("heard");
        drop(told);
        assert_eq!(text(far).await, "head\n{\"progress\":\"one\"}\n{\"progress\":\"two\"}\n\"done\"\n");
    }

    /// Whoever reads nothing still has all lines before it when it is stopped, also the last word that waited for room.
    #[tokio::test]
    async fn what_was_not_read_is_not_lost() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (told, telling) = mpsc::channel(1);
        let streams = Streams::default();
        let much = "x".repeat(1 << 20);
        streams.run(near, much.clone().into_bytes(), Some(Source::Told(telling)), None);
        told.send(Told::Progress("one".to_owned())).await.expect("room");
        let last = tokio::spawn(async move { told.send(Told::Failed("no".to_owned())).await });
        tokio::task::yield_now().await;
        let left = streams.stop().await.pop().expect("one");
        last.await.expect("told").expect("heard");
        assert_eq!(left.then, Then::Nothing);
        assert!(left.unsent.len() < much.len() && left.unsent.ends_with(b"{\"progress\":\"one\"}\n{\"failed\":\"no\"}\n"));
        let again = Streams::default();
        again.run(left.stream, left.unsent, None, None);
        assert_eq!(text(far).await, much + "{\"progress\":\"one\"}\n{\"failed\":\"no\"}\n");
    }

    #[tokio::test]
    async fn a_follower_is_bounded_and_told_what_it_missed() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (lines, following) = (broadcast::Sender::new(4_096), broadcast::Sender::<String>::new(1).subscribe());
        drop(following);
        let source = Source::Lines(vec!["kept".to_owned()].into_iter(), Some(lines.subscribe()));
        let streams = Streams::default();
        streams.run(near, Vec::new(), Some(source), None);
        for _ in 0..1_000 {
            lines.send("y".repeat(1_000)).expect("followed");
        }
        let left = streams.stop().await.pop().expect("one");
        assert_eq!(left.then, Then::Lines);
        assert!(left.unsent.len() < STREAM_UNSENT_BYTES_MAX + 100);
        assert!(String::from_utf8_lossy(&left.unsent).contains(" lines were dropped"));
        drop(far);
        let again = Streams::default();
        again.run(left.stream, Vec::new(), Some(Source::Lines(Vec::new().into_iter(), Some(lines.subscribe()))), None);
        // It notices that nobody listens: nothing is left of it.
        tokio::time::timeout(Duration::from_secs(20), async {
            while !again.0.all.lock().is_empty() {
                while again.0.all.lock().try_join_next().is_some() {}
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("it ends");
    }
}
