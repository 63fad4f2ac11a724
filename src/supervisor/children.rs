//! The processes of children, and the tasks around each: what it says, what it is told, what it writes, and its end. All of them can be
//! stopped where they are, and go on in another image.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::logs::Logs;
use super::parked::Descriptors;
use super::plan::step::{ChildId, Exit, Load};
use super::policy::names::Slot;
use super::run::Event;
use super::spawn::{self, Cost};
use super::state;
use crate::child::channel::{self, ToChild, Upper};
use crate::limits::WISHES_MAX;

/// A child's process.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) slot: Slot,
    pub(super) process: spawn::Process,
    pub(super) channel: Arc<Upper>,
    /// What is said to it, in this order. None once it was asked to end: its channel closes when all was said.
    words: Option<mpsc::Sender<ToChild>>,
    pub(super) is_ready: bool,
    /// It was asked to end.
    pub(super) is_leaving: bool,
    pub(super) said: channel::Load,
    /// When that was counted from which the rates are, and what was counted.
    since: (Instant, u64, Cost),
    pub(super) load: Load,
    /// What was not said yet.
    saying: JoinHandle<Vec<ToChild>>,
    /// Stdout and stderr, unless they are closed, and what of a line has come.
    reading: [JoinHandle<Option<Begun>>; 2],
}

/// A pipe that is open, and what of a line has come.
pub(super) type Begun = (OwnedFd, Vec<u8>);

/// What the tasks around children have in common.
#[derive(Clone)]
pub(super) struct Tasks {
    events: mpsc::Sender<Event>,
    logs: Logs,
    /// Nothing more is heard.
    deaf: CancellationToken,
    /// Those that hear.
    hearing: TaskTracker,
    /// Nothing more is said and logged.
    mute: CancellationToken,
}

/// What a child is told first, with its settings.
pub(super) type First = (ToChild, OwnedFd);

impl Tasks {
    pub(super) fn new(events: mpsc::Sender<Event>, logs: Logs) -> Self {
        let hearing = TaskTracker::new();
        hearing.close();
        Self { events, logs, deaf: CancellationToken::new(), hearing, mute: CancellationToken::new() }
    }

    /// Hears nothing more of any child. Returns once that is so: what was heard is in `events`, which somebody has to empty meanwhile.
    pub(super) async fn deafen(&self) {
        self.deaf.cancel();
        self.hearing.wait().await;
    }

    /// Looks after a child from here on.
    pub(super) fn attend(
        &self,
        state: state::Child,
        process: spawn::Process,
        channel: Upper,
        output: [Option<OwnedFd>; 2],
        first: Option<First>,
    ) -> Running {
        let state::Child { child, slot, words: waiting, is_ending, is_ready, is_leaving, said, load, begun, .. } = state;
        let (name, channel) = (slot.to_string(), Arc::new(channel));
        let mut begun = begun.into_iter();
        let reading = output.map(|output| {
            let (logs, name, mute) = (self.logs.clone(), name.clone(), self.mute.clone());
            let begun = begun.next().unwrap_or_default();
            tokio::spawn(async move { logs.read(&name, output?, begun, &mute).await })
        });
        let (events, deaf, waited) = (self.events.clone(), self.deaf.clone(), process.clone());
        self.hearing.spawn(async move {
            let ended = tokio::select! {
                biased;
                () = deaf.cancelled() => return,
                ended = waited.ended() => ended,
            };
            let exit = ended.unwrap_or_else(|error| {
                tracing::error!(%error, "the end of a process cannot be waited for");
                Exit::Code(-1)
            });
            let _ = events.send(Event::Exited(child, exit)).await;
        });
        let (words, said_to_it) = mpsc::channel(WISHES_MAX);
        let saying = tokio::spawn(say(channel.clone(), first, waiting.into(), said_to_it, self.mute.clone()));
        let (events, deaf, heard) = (self.events.clone(), self.deaf.clone(), channel.clone());
        self.hearing.spawn(async move {
            loop {
                let heard = tokio::select! {
                    biased;
                    () = deaf.cancelled() => return,
                    heard = heard.hear() => heard,
                };
                let event = match heard {
                    Ok(Some((message, beside))) => Event::Said(child, message, beside),
                    Ok(None) => Event::Closed(child, None),
                    Err(error) => Event::Closed(child, Some(error.to_string())),
                };
                let is_over = matches!(event, Event::Closed(..));
                if events.send(event).await.is_err() || is_over {
                    return;
                }
            }
        });
        let cost = Cost::of(process.pid).unwrap_or_default();
        let words = (!is_ending).then_some(words);
        let since = (Instant::now(), said.events, cost);
        Running { name, slot, process, channel, words, is_ready, is_leaving, said, since, load, saying, reading }
    }

    /// Looks after a child of another image.
    ///
    /// # Errors
    /// When a descriptor of it is missing.
    pub(super) fn resume(&self, state: state::Child, descriptors: &mut Descriptors) -> io::Result<Running> {
        let number = state.child.0;
        let process = spawn::Process::held(state.pid, descriptors.need(&format!("process {number}"))?)?;
        let channel = Upper::of(descriptors.need(&format!("channel {number}"))?)?;
        let output = ["stdout", "stderr"].map(|output| descriptors.take(&format!("{output} {number}")));
        Ok(self.attend(state, process, channel, output, None))
    }
}

impl Running {
    /// One that does not listen is noticed by its silence, and is told no more than it can read.
    pub(super) fn say(&self, message: ToChild) {
        if let Some(words) = &self.words {
            let _ = words.try_send(message);
        }
    }

    /// Measures what it costs.
    pub(super) fn measure(&mut self, now: Instant) {
        let Some(cost) = Cost::of(self.process.pid) else { return };
        let (since, events, before) = std::mem::replace(&mut self.since, (now, self.said.events, cost));
        let passed_s = (now - since).as_secs_f64().max(0.001);
        self.load.cpu = (cost.cpu_s - before.cpu_s).max(0.0) / passed_s;
        self.load.memory_bytes = cost.memory_bytes;
        #[expect(clippy::cast_precision_loss, reason = "events of a second")]
        let rate = self.said.events.saturating_sub(events) as f64 / passed_s;
        self.load.actions_per_s = rate;
    }

    /// Its channel closes once all was said.
    pub(super) fn end(&mut self) {
        (self.words, self.is_leaving) = (None, true);
    }

    /// For a look at the state: what is said and read goes on.
    pub(super) fn state(&self, child: ChildId) -> state::Child {
        state::Child {
            child,
            slot: self.slot.clone(),
            pid: self.process.pid,
            words: Vec::new(),
            is_ending: self.words.is_none(),
            is_ready: self.is_ready,
            is_leaving: self.is_leaving,
            said: self.said,
            load: self.load,
            begun: Default::default(),
        }
    }

    /// For the next image, once nothing is heard of it any more.
    ///
    /// # Errors
    /// When a descriptor cannot be kept: the child ends, and another one takes its place.
    pub(super) async fn park(self, child: ChildId, tasks: &Tasks, descriptors: &mut Descriptors) -> io::Result<state::Child> {
        tasks.mute.cancel();
        let mut state = self.state(child);
        state.words = self.saying.await.unwrap_or_default();
        for ((output, reading), begun) in ["stdout", "stderr"].into_iter().zip(self.reading).zip(&mut state.begun) {
            if let Some((descriptor, bytes)) = reading.await.unwrap_or_default() {
                descriptors.put(format!("{output} {}", child.0), descriptor);
                *begun = bytes;
            }
        }
        let channel = match Arc::try_unwrap(self.channel) {
            Ok(channel) => channel.into(),
            Err(shared) => shared.as_fd().try_clone_to_owned()?,
        };
        descriptors.put(format!("channel {}", child.0), channel);
        descriptors.put(format!("process {}", child.0), self.process.into_descriptor()?);
        Ok(state)
    }
}

/// Says everything in its order. Returns what was not said when it is stopped.
async fn say(
    channel: Arc<Upper>,
    first: Option<First>,
    mut waiting: VecDeque<ToChild>,
    mut words: mpsc::Receiver<ToChild>,
    mute: CancellationToken,
) -> Vec<ToChild> {
    if let Some((message, settings)) = first {
        // Nothing is in its way. The file has secrets, and is closed then.
        let said = channel.say(&message, Some(settings.as_fd())).await;
        if said.is_err() {
            return Vec::new();
        }
    }
    loop {
        let Some(message) = waiting.front() else {
            tokio::select! {
                biased;
                message = words.recv() => match message {
                    Some(message) => waiting.push_back(message),
                    None => break,
                },
                () = mute.cancelled() => return Vec::new(),
            }
            continue;
        };
        tokio::select! {
            biased;
            said = channel.say(message, None) => match said {
                Ok(()) => drop(waiting.pop_front()),
                Err(_) => break,
            },
            () = mute.cancelled() => {
                while let Ok(message) = words.try_recv() {
                    waiting.push_back(message);
                }
                return waiting.into();
            }
        }
    }
    let _ = rustix::net::shutdown(channel.as_fd(), rustix::net::Shutdown::Write);
    Vec::new()
}
