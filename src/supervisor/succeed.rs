//! How one image of the supervisor follows another: a program is asked whether it can, everything is handed over, and the new image goes
//! on (rule U7). If it cannot be executed, this one goes on in the same way.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::ask::{Ask, Told};
use super::control::Control;
use super::door::Door;
use super::gather::Gathering;
use super::managed::Managed;
use super::parked::{Descriptors, Parked};
use super::plan::step::{Command, Generation, Input, RequestId};
use super::run::{Check, Dispatcher, End, Event, Kit, Prepared};
use super::spawn::{Binary, Other};
use super::state::{Doors, Parts, State, Stream, Then};
use super::stream::{Source, Streams};
use super::takeover::Question;
use crate::limits::{CHECKS_MAX, PARK_TIMEOUT, PROGRESS_LINES_WAITING};
use crate::runtime::hold_signals;

/// How long signals that have come before they were held may take until they are heard of.
const SETTLE: Duration = Duration::from_millis(1);

/// What a reload comes to whose children are all new.
fn stays_old(why: &str) -> String {
    format!("all processes are new, and the supervisor goes on with its old program: {why}")
}

impl Dispatcher {
    /// Asks a program whether it can take over, with the settings as they are now.
    pub(super) fn check(
        &mut self,
        binary: Option<PathBuf>,
        told: mpsc::Sender<Told>,
        check: impl FnOnce(Box<Prepared>, mpsc::Sender<Told>) -> Check,
    ) {
        let there = self.plan.deployments().into_keys().map(|name| (name.to_owned(), self.doors.contains_key(name))).collect();
        let now = self.kits.get(&self.plan.generation());
        let path = binary.or_else(|| Some(now?.path.clone())).unwrap_or_default();
        let prepared = if self.plan.is_finishing() {
            Err("a reload is at its last act: ask again in a moment".to_owned())
        } else if self.checks >= CHECKS_MAX {
            Err(format!("{CHECKS_MAX} programs are being checked: ask again in a moment"))
        } else {
            now.ok_or_else(|| "what runs now is not known".to_owned()).and_then(|now| (self.prepare)(&path, now, &there))
        };
        let prepared = match prepared {
            Ok(prepared) if self.surroundings.stays => {
                return match check(Box::new(prepared), told) {
                    Check::Only(_, told) => {
                        let why = "this supervisor is a program of somebody else: end it and start it again to change it";
                        drop(told.try_send(Told::Failed(why.to_owned())));
                    }
                    check => {
                        self.checks += 1;
                        self.checked(check, Ok(String::new()));
                    }
                };
            }
            other => other,
        };
        let asked = prepared.and_then(|prepared| {
            let question = Question::new(prepared.kit.child.clone(), self.state()?.write()?);
            Ok((question, prepared))
        });
        match asked {
            Ok((question, prepared)) => {
                let binary = prepared.kit.binary.clone();
                self.ask(question, binary, path, check(Box::new(prepared), told));
            }
            Err(why) => drop(told.try_send(Told::Failed(format!("nothing is changed: {why}")))),
        }
    }

    fn ask(&mut self, question: Question, binary: Binary, path: PathBuf, check: Check) {
        self.checks += 1;
        let events = self.events.clone();
        tokio::spawn(async move {
            let answer = question.ask(binary, &path).await;
            let _ = events.send(Event::Checked(check, answer)).await;
        });
    }

    pub(super) fn checked(&mut self, check: Check, result: Result<String, String>) {
        self.checks -= 1;
        match (check, result) {
            (Check::Only(path, told), Ok(version)) => {
                let line = format!("{} is lasthit {version}: it can take over, and the settings have no mistake", path.display());
                let _ = told.try_send(Told::Progress(line));
                let _ = told.try_send(Told::Done);
            }
            (Check::Reload(prepared, told), Ok(_)) => {
                let Prepared { settings, kit, listeners } = *prepared;
                if let Err(error) = self.open(listeners) {
                    drop(told.try_send(Told::Failed(format!("nothing is changed: a door cannot be opened: {error}"))));
                    return;
                }
                self.generation = Generation(self.generation.0 + 1);
                self.kits.insert(self.generation, kit);
                self.reload.get_or_insert(RequestId(self.next_request));
                self.command(Command::Reload { generation: self.generation, settings }, told);
                let needed = self.plan.generations();
                self.kits.retain(|generation, _| needed.contains(generation));
            }
            (Check::Only(_, told) | Check::Reload(_, told), Err(why)) => {
                drop(told.try_send(Told::Failed(format!("nothing is changed: {why}"))));
            }
            (Check::Finish, Ok(_)) => self.become_quiet(),
            (Check::Finish, Err(why)) => self.finished(Err(stays_old(&why))),
        }
        self.succeed();
    }

    /// The last act of a reload. If the program is another, it is asked once more, with the state as it is now.
    pub(super) fn finish(&mut self, generation: Generation) {
        if self.surroundings.stays {
            return self.finished(Ok(()));
        }
        let Some(kit) = self.kits.get(&generation).cloned() else { return };
        let is_own = kit.binary.is_own().map_err(|error| error.to_string());
        let question = self.state().and_then(|state| Ok(Question::new(kit.child, state.write()?)));
        match is_own.and_then(|is_own| Ok((is_own, question?))) {
            Ok((true, _)) => self.finished(Ok(())),
            Ok((false, question)) => self.ask(question, kit.binary, kit.path, Check::Finish),
            Err(why) => self.finished(Err(stays_old(&why))),
        }
    }

    /// Whoever is just asking something has its answer before another image goes on.
    fn become_quiet(&self) {
        let _ = self.surroundings.open.send(false);
        let (connections, events) = (self.surroundings.connections.clone(), self.events.clone());
        connections.close();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PARK_TIMEOUT, connections.wait()).await;
            let _ = events.send(Event::Quiet).await;
        });
    }

    fn finished(&mut self, result: Result<(), String>) {
        self.step(Input::Finished { result });
        if std::mem::take(&mut self.hangup) {
            self.answer(Ask::Hangup);
        }
    }

    /// Goes on to the next image once nobody waits for anything but that.
    pub(super) fn succeed(&mut self) {
        if !self.is_quiet || self.checks > 0 {
            return;
        }
        if self.plan.is_finishing() {
            self.end = Some(End::Execute(self.plan.generation()));
        } else {
            // Everything is to end instead.
            self.is_quiet = false;
            self.surroundings.connections.reopen();
            let _ = self.surroundings.open.send(true);
        }
    }

    /// The state as it is now, but for what only those who are stopped can tell.
    fn state(&self) -> Result<State, String> {
        let kits = self.kits.iter().map(|(generation, kit)| Parts {
            generation: *generation,
            path: kit.path.clone(),
            child: kit.child.clone(),
            workers: kit.workers.iter().map(|(name, other)| (name.clone(), other.words.clone())).collect(),
            fixed: kit.fixed.clone(),
            level: kit.level.map(|level| level.as_str().to_owned()),
        });
        let doors = self.doors.iter().map(|(name, door)| Doors { name: name.clone(), gates: door.gates() });
        Ok(State {
            form: State::FORM,
            plan: self.plan.save()?,
            generation: self.generation,
            kits: kits.collect(),
            children: self.running.iter().map(|(child, running)| running.state(*child)).collect(),
            doors: doors.collect(),
            reload: self.requests.keys().next().copied(),
            next_request: self.next_request,
            streams: Vec::new(),
            managed: None,
            gathering: self.gathering.number(),
            lines: Vec::new(),
            lost_lines: 0,
            json: self.surroundings.json,
            log: self.surroundings.log.clone(),
            control: self.surroundings.control.clone(),
            hangup: self.hangup,
            stops: self.stop.is_cancelled(),
        })
    }

    /// Stops where it is: everything for the next image. Signals are held from here on.
    ///
    /// # Errors
    /// When the runtime does not let something go. Nothing can go on then.
    pub(super) async fn park(mut self, streams: &Streams) -> io::Result<(State, Descriptors)> {
        hold_signals()?;
        let tasks = self.tasks.clone();
        loop {
            tokio::select! {
                biased;
                Some(event) = self.happened.recv() => self.take(event),
                () = tasks.deafen() => break,
            }
        }
        tokio::time::sleep(SETTLE).await;
        while let Ok(event) = self.happened.try_recv() {
            self.take(event);
        }
        while let Ok(ask) = self.asks.try_recv() {
            self.answer(ask);
        }
        let mut state = self.state().map_err(io::Error::other)?;
        let mut descriptors = Descriptors::default();
        state.doors.clear();
        for (name, door) in std::mem::take(&mut self.doors) {
            let ((listener, waits), gates) = door.close()?;
            descriptors.put(format!("door {name}"), listener);
            if let Some(waits) = waits {
                descriptors.put(format!("waits {name}"), waits);
            }
            state.doors.push(Doors { name, gates });
        }
        state.children.clear();
        for (child, running) in std::mem::take(&mut self.running) {
            state.children.push(running.park(child, &tasks, &mut descriptors).await?);
        }
        for (generation, kit) in std::mem::take(&mut self.kits) {
            descriptors.put(format!("binary {}", generation.0), kit.binary.into_descriptor()?);
            for (name, other) in kit.workers {
                descriptors.put(format!("worker {} {name}", generation.0), other.binary.into_descriptor()?);
            }
        }
        if let Some(managed) = self.managed.take() {
            state.managed = Some(managed.park(&mut descriptors).await?);
        }
        for (number, left) in streams.stop().await.into_iter().enumerate() {
            state.streams.push(Stream { unsent: left.unsent.clone(), then: left.then });
            descriptors.put(format!("stream {number}"), left.into_descriptor()?);
        }
        (state.lines, state.lost_lines) = self.surroundings.logs.park();
        Ok((state, descriptors))
    }

    /// Goes on where another image, or this one, has stopped. `self` has the plan of that, and nothing else yet.
    ///
    /// # Errors
    /// When a descriptor is missing, or the system has no place for it.
    pub(super) fn resume(&mut self, state: State, parked: &mut Parked, streams: &Streams, control: &Control) -> io::Result<()> {
        let descriptors = &mut parked.descriptors;
        for Parts { generation, path, child, workers, fixed, level } in state.kits {
            let level = level.and_then(|level| level.parse().ok());
            let binary = Binary::from(descriptors.need(&format!("binary {}", generation.0))?);
            let mut kit = Kit { binary, path, child, workers: HashMap::new(), fixed, level };
            for (name, words) in workers {
                let binary = Binary::from(descriptors.need(&format!("worker {} {name}", generation.0))?);
                kit.workers.insert(name, Other { binary, words });
            }
            self.kits.insert(generation, kit);
        }
        for child in state.children {
            self.running.insert(child.child, self.tasks.resume(child, descriptors)?);
        }
        for Doors { name, gates } in state.doors {
            let listener = descriptors.need(&format!("door {name}"))?.into();
            let waits = descriptors.take(&format!("waits {name}")).map(Into::into);
            let gates = gates.into_iter().filter_map(|gate| {
                let channel = self.running.get(&gate.child)?.channel.as_fd().try_clone_to_owned().ok()?;
                Some((gate, channel))
            });
            self.doors.insert(name, Door::resume(listener, waits, gates.collect())?);
        }
        let logs = self.surroundings.logs.clone();
        self.managed = state.managed.map(|managed| Managed::resume(managed, descriptors, logs)).transpose()?;
        let mut telling = state.reload.map(|request| {
            let (told, telling) = mpsc::channel(PROGRESS_LINES_WAITING);
            self.requests.insert(request, told);
            telling
        });
        for (number, Stream { unsent, then }) in state.streams.into_iter().enumerate() {
            let stream = UnixStream::from_std(descriptors.need(&format!("stream {number}"))?.into())?;
            let source = match then {
                Then::Nothing => None,
                Then::Told => telling.take().map(Source::Told),
                Then::Lines => Some(Source::Lines(Vec::new().into_iter(), Some(self.surroundings.logs.follow().1))),
            };
            let place = control.place(source.as_ref());
            streams.run(stream, unsent, source, place);
        }
        // It was a signal, or whoever asked has gone.
        if let Some(telling) = telling {
            tokio::spawn(tell_the_log(telling));
        }
        (self.generation, self.next_request, self.reload) = (state.generation, state.next_request, state.reload);
        (self.gathering, self.hangup) = (Gathering::resume(state.gathering), state.hangup);
        let result = parked.failed.take().map_or(Ok(()), |why| Err(stays_old(&why)));
        self.finished(result);
        Ok(())
    }
}

/// What becomes of a SIGHUP.
pub(super) async fn tell_the_log(mut telling: mpsc::Receiver<Told>) {
    while let Some(told) = telling.recv().await {
        match told {
            Told::Progress(line) => tracing::info!("reload: {line}"),
            Told::Done => tracing::info!("reload: done"),
            Told::Failed(why) => tracing::error!("reload: {why}"),
        }
    }
}
