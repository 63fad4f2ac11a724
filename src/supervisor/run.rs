//! The dispatcher carries the plan out: one loop takes what happened (signals, ends of processes, what children say, what is asked), gives it to the
//! plan, and does what comes of it.

mod rows;

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ask::{Ask, Told};
use super::children::{Running, Tasks};
use super::door::Door;
use super::gather::Gathering;
use super::host::{Doing, Host};
use super::logs::Logs;
use super::managed::Managed;
use super::plan::Plan;
use super::plan::step::{Action, ChildId, Command, Exit, Generation, Input, RequestId, Settings};
use super::policy::names::{Role, Slot};
use super::spawn::{self, Binary, Spawned};
use super::state;
use super::strangers::Strangers;
use super::succeed::tell_the_log;
use crate::child::channel::{self, ToChild, ToSupervisor, VERSION};
use crate::child::settings as child;
use crate::journal::redis::Durability;
use crate::limits::{BEAT, PROGRESS_LINES_WAITING, SUPERVISOR_EVENTS_MAX};

/// What happened.
pub(super) enum Event {
    Said(ChildId, ToSupervisor, Option<OwnedFd>),
    /// A child's channel is closed. With a reason: by what it said.
    Closed(ChildId, Option<String>),
    Exited(ChildId, Exit),
    /// A program was asked whether it can take over: its version, or what speaks against it.
    Checked(Check, Result<String, String>),
    /// Nobody is just asking anything, or they have had the time for it.
    Quiet,
}

/// A question to a program, and what it is for.
pub(super) enum Check {
    /// `lasthit check`.
    Only(PathBuf, mpsc::Sender<Told>),
    /// A reload, before anything changes.
    Reload(Box<Prepared>, mpsc::Sender<Told>),
    /// The last act of a reload, before the program is executed in this one's place.
    Finish,
}

/// What a generation of children runs.
pub(super) struct Prepared {
    pub(super) settings: Settings,
    pub(super) kit: Kit,
    /// Listeners that are new, by their deployments.
    pub(super) listeners: Vec<(String, TcpListener)>,
}

/// What is needed to start a child.
#[derive(Clone)]
pub(super) struct Kit {
    pub(super) binary: Binary,
    /// Where that was.
    pub(super) path: PathBuf,
    /// What it is told; its role is added.
    pub(super) child: child::Settings,
    /// What runs as a worker instead of it, by deployments.
    pub(super) workers: HashMap<String, spawn::Other>,
    /// What a reload may not change, by the names of the settings.
    pub(super) fixed: Vec<(String, String)>,
    /// The level of the supervisor's own Redis, if it has one.
    pub(super) level: Option<Durability>,
}

/// Reads settings and the program at a path again, for a reload, given what runs now and the deployments that there are, and whether each
/// listens. The error is one line.
pub(super) type Prepare = Box<dyn FnMut(&Path, &Kit, &BTreeMap<String, bool>) -> Result<Prepared, String>>;

/// The loop's state.
pub(super) struct Dispatcher {
    pub(super) plan: Plan,
    began: Instant,
    pub(super) kits: HashMap<Generation, Kit>,
    /// The highest that was used.
    pub(super) generation: Generation,
    pub(super) prepare: Prepare,
    pub(super) running: HashMap<ChildId, Running>,
    pub(super) requests: HashMap<RequestId, mpsc::Sender<Told>>,
    pub(super) next_request: u64,
    /// The reload that is under way.
    pub(super) reload: Option<RequestId>,
    /// By the deployments that they lead into.
    pub(super) doors: BTreeMap<String, Door>,
    pub(super) surroundings: Surroundings,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) happened: mpsc::Receiver<Event>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: Tasks,
    pub(super) gathering: Gathering,
    host: Host,
    strangers: Strangers,
    pub(super) managed: Option<Managed>,
    /// What is done first, and what when everything has ended but for Redis.
    first: Vec<Action>,
    last: Vec<Action>,
    /// Programs that are being asked, and whether their answers alone are waited for.
    pub(super) checks: usize,
    pub(super) is_quiet: bool,
    /// A SIGHUP came when it was too late for it.
    pub(super) hangup: bool,
    pub(super) end: Option<End>,
}

/// What is around the loop.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) logs: Logs,
    /// The format and the filter of the log.
    pub(super) json: bool,
    pub(super) log: String,
    pub(super) control: PathBuf,
    /// It is a program of somebody else: it is not asked whether it can take over, and no other is executed in its place.
    pub(super) stays: bool,
    /// Whether connections to the control socket and for health are accepted, and those that are not through.
    pub(super) open: watch::Sender<bool>,
    pub(super) connections: TaskTracker,
}

/// How the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing runs any more: the exit code.
    Code(u8),
    /// The binary of a generation is to be executed in this one's place.
    Execute(Generation),
}

impl Dispatcher {
    /// One that starts everything once it is run.
    ///
    /// # Errors
    /// When a door cannot be opened.
    pub(super) fn start(
        prepared: Prepared,
        prepare: Prepare,
        surroundings: Surroundings,
        asks: mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let generation = Generation(1);
        let (plan, actions) = Plan::new(prepared.settings, generation, Duration::ZERO);
        let mut dispatcher = Self::of(plan, prepare, surroundings, asks, stop)?;
        dispatcher.open(prepared.listeners)?;
        dispatcher.kits.insert(generation, prepared.kit);
        dispatcher.first = actions;
        Ok(dispatcher)
    }

    /// Opens doors.
    pub(super) fn open(&mut self, listeners: Vec<(String, TcpListener)>) -> std::io::Result<()> {
        for (deployment, listener) in listeners {
            self.doors.insert(deployment, Door::open(listener)?);
        }
        Ok(())
    }

    /// One without children.
    ///
    /// # Errors
    /// When a thread cannot start.
    pub(super) fn of(
        plan: Plan,
        prepare: Prepare,
        surroundings: Surroundings,
        asks: mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let (events, happened) = mpsc::channel(SUPERVISOR_EVENTS_MAX);
        let tasks = Tasks::new(events.clone(), surroundings.logs.clone());
        Ok(Self {
            plan,
            began: Instant::now(),
            kits: HashMap::new(),
            generation: Generation(1),
            prepare,
            running: HashMap::new(),
            requests: HashMap::new(),
            next_request: 0,
            reload: None,
            doors: BTreeMap::new(),
            surroundings,
            events,
            happened,
            asks,
            stop,
            tasks,
            gathering: Gathering::default(),
            host: Host::start()?,
            strangers: Strangers::new(),
            managed: None,
            first: Vec::new(),
            last: Vec::new(),
            checks: 0,
            is_quiet: false,
            hangup: false,
            end: None,
        })
    }

    /// Runs all processes until a signal ends them, or a command, or another image is to go on.
    pub(super) async fn run(&mut self) -> End {
        let mut beat = tokio::time::interval(BEAT);
        // After a pause there is one turn, not all that were missed.
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopping = false;
        let first = std::mem::take(&mut self.first);
        self.carry_out(first);
        loop {
            match (self.end, self.managed.take_if(|_| matches!(self.end, Some(End::Code(_))))) {
                (Some(End::Code(code)), Some(managed)) => {
                    // Last, and whoever asked for the end hears of it then.
                    let code = code | u8::from(!managed.stop().await);
                    let last = std::mem::take(&mut self.last);
                    self.carry_out(last);
                    return End::Code(code);
                }
                (Some(end), _) => return end,
                (None, _) => {}
            }
            let due = self.plan.next_due().map(|due| self.began + due);
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.step(Input::StopAll);
                    self.report();
                }
                Some(event) = self.happened.recv() => self.take(event),
                Some(ask) = self.asks.recv() => self.answer(ask),
                _ = beat.tick() => self.measure(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    // The tasks that read the channels come first, so that nobody is taken for silent who has spoken.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    while let Ok(event) = self.happened.try_recv() {
                        self.take(event);
                    }
                    self.step(Input::Looked);
                }
            }
        }
    }

    pub(super) fn step(&mut self, input: Input) {
        let is_load = matches!(input, Input::Heard { .. });
        let actions = self.plan.step(input, self.began.elapsed());
        if is_load && actions.is_empty() {
            return;
        }
        // First of all: nobody is passed to a gateway that is told, or said, to get no more.
        let ready = self.plan.ready_gateways();
        let channel = |child| self.running.get(&child)?.channel.as_fd().try_clone_to_owned().ok();
        for (deployment, door) in &self.doors {
            let own: Vec<_> = ready.iter().filter(|(slot, _)| slot.group.deployment == *deployment).cloned().collect();
            door.set(&own, channel);
        }
        self.carry_out(actions);
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Said(child, ToSupervisor::Ready { v }, _) => {
                let Some(running) = self.running.get_mut(&child) else { return };
                if v != VERSION {
                    self.refuse(child, &format!("speaks version {v} of the channel, and this supervisor {VERSION}"));
                } else if std::mem::replace(&mut running.is_ready, true) {
                    self.refuse(child, "says `ready` twice");
                } else {
                    tracing::info!(process = running.name, pid = running.process.pid, "ready");
                    self.step(Input::Ready { child });
                    self.report();
                }
            }
            Event::Said(child, ToSupervisor::Load(said), _) => self.heard(child, said),
            Event::Said(child, ToSupervisor::Gone { numbers }, _) => {
                if let Some(door) = self.running.get(&child).and_then(|running| self.doors.get(&running.slot.group.deployment)) {
                    door.gone(child, &numbers);
                }
            }
            Event::Said(child, ToSupervisor::Metrics { number }, Some(file)) => {
                if let Some(running) = self.running.get(&child) {
                    self.gathering.take(number, &running.name, file);
                }
            }
            // The file was lost on its way: this process has too many open.
            Event::Said(_, ToSupervisor::Metrics { number }, None) => {
                tracing::warn!("metrics are left out: raise the limit of open files");
                self.gathering.miss(number);
            }
            Event::Closed(child, Some(why)) => self.refuse(child, &why),
            // Its end follows, or it drains.
            Event::Closed(_, None) => {}
            Event::Exited(child, exit) => {
                let gone = self.running.remove(&child);
                if let Some(gone) = &gone {
                    if let Some(door) = self.doors.get(&gone.slot.group.deployment) {
                        door.ended(child);
                    }
                    tracing::info!(process = gone.name, pid = gone.process.pid, "{exit}");
                }
                self.step(Input::Ended { child, exit });
            }
            Event::Checked(check, result) => self.checked(check, result),
            Event::Quiet => {
                self.is_quiet = true;
                self.succeed();
            }
        }
    }

    /// A child that cannot be understood is ended; another one takes its place, as after a crash.
    fn refuse(&self, child: ChildId, why: &str) {
        if let Some(running) = self.running.get(&child) {
            tracing::error!(process = running.name, pid = running.process.pid, "killed: {why}");
            running.process.kill();
        }
    }

    fn heard(&mut self, child: ChildId, said: channel::Load) {
        let Some(running) = self.running.get_mut(&child) else { return };
        running.said = said;
        running.load.events = said.events;
        running.load.sessions = said.sessions;
        if let Some(door) = self.doors.get(&running.slot.group.deployment) {
            door.heard(child, said, running.load.actions_per_s);
            running.load.sessions = door.sessions(child).unwrap_or(said.sessions);
        }
        let load = running.load;
        self.step(Input::Heard { child, load });
    }

    /// Measures what each process costs. What a child says by itself tells that it is there, this does not.
    fn measure(&mut self) {
        self.gathering.grow_old();
        if let Some(managed) = &self.managed {
            managed.measure();
        }
        let now = Instant::now();
        self.running.values_mut().for_each(|running| running.measure(now));
        let of_redis = self.managed.as_ref().and_then(|managed| managed.row().pid);
        self.strangers.look(|pid| Some(pid) == of_redis || self.running.values().any(|running| running.process.pid == pid));
        self.report();
    }

    /// Tells the service manager what is new.
    fn report(&mut self) {
        if self.host.listens() {
            let door_answers = self.doors.values().filter(|door| !door.answers()).count() == 0;
            let doing = Doing { reloads: self.reload.is_some(), stops: self.plan.is_stopping(), door_answers };
            self.host.look(&self.ps(), doing);
        }
    }

    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Ps(answer) => drop(answer.send(self.ps())),
            Ask::Metrics(answer) => {
                // Of a replacement's pair, one answers.
                let asked: Vec<_> = self.running.values().filter(|running| running.is_ready && !running.is_leaving).collect();
                let number = self.gathering.begin(answer, asked.len());
                for running in asked {
                    running.say(ToChild::Metrics { number });
                }
            }
            // Nobody would come in: the listener was opened for none.
            Ask::Do(Command::Scale { group, count }, told)
                if group.role == Role::Gateway && count.most() > 0 && self.listens(&group.deployment) == Some(false) =>
            {
                let why = format!("{group}: it has --gateways 0 and listens nowhere: give it gateways, and reload");
                let _ = told.try_send(Told::Failed(why));
            }
            Ask::Do(command, told) => self.command(command, told),
            Ask::Reload(binary, told) => self.check(binary, told, Check::Reload),
            Ask::Check(binary, told) => self.check(binary, told, |prepared, told| Check::Only(prepared.kit.path, told)),
            Ask::Hangup if self.plan.is_finishing() => self.hangup = true,
            Ask::Hangup => {
                let (told, telling) = mpsc::channel(PROGRESS_LINES_WAITING);
                tokio::spawn(tell_the_log(telling));
                self.check(None, told, Check::Reload);
            }
        }
    }

    /// Whether a deployment has a door. None: there is no such deployment.
    fn listens(&self, deployment: &str) -> Option<bool> {
        self.plan.deployments().get(deployment).map(|_| self.doors.contains_key(deployment))
    }

    pub(super) fn command(&mut self, command: Command, told: mpsc::Sender<Told>) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, told);
        self.step(Input::Command { request, command });
        self.report();
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let end = actions.iter().find_map(|action| if let Action::End { code } = action { Some(End::Code(*code)) } else { None });
        if end.is_some() && self.managed.is_some() {
            (self.end, self.last) = (end, actions);
            return;
        }
        for action in actions {
            match action {
                Action::Start { child, slot, generation } => {
                    let input = match self.start_child(child, &slot, generation) {
                        Ok(pid) => Input::Started { child, pid },
                        Err(error) => {
                            tracing::error!(process = %slot, %error, "cannot start");
                            Input::StartFailed { child, why: error.to_string() }
                        }
                    };
                    self.step(input);
                }
                Action::AskToEnd { child } => {
                    if let Some(running) = self.running.get_mut(&child) {
                        running.end();
                    }
                }
                Action::AskToLeave { child, successor: _, window } => {
                    let Some(running) = self.running.get_mut(&child) else { continue };
                    running.is_leaving = true;
                    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                    running.say(ToChild::Leave { window_ms });
                }
                Action::Kill { child, why } => {
                    if let Some(running) = self.running.get(&child) {
                        tracing::warn!(process = running.name, pid = running.process.pid, "{why}");
                        running.process.kill();
                    }
                }
                Action::Move { child, sessions } => {
                    if let Some(running) = self.running.get(&child) {
                        running.say(ToChild::Offer { sessions: usize::try_from(sessions).unwrap_or(usize::MAX) });
                    }
                }
                Action::Progress { request, line } => {
                    // Whoever asked may be gone, or read slowly: then a line is lost.
                    if let Some(asker) = self.requests.get(&request) {
                        let _ = asker.try_send(Told::Progress(line));
                    }
                }
                Action::Answer { request, result } => {
                    // A reload has brought them or taken them away, or it has failed.
                    let there = self.plan.deployments();
                    self.doors.retain(|name, _| there.get(name.as_str()).copied().unwrap_or(false));
                    self.answered(request, result.map_or_else(Told::Failed, |()| Told::Done));
                    if self.reload.take_if(|reload| *reload == request).is_some() {
                        self.report();
                    }
                }
                Action::Log { line } => tracing::info!("{line}"),
                Action::Finish { generation } => self.finish(generation),
                Action::End { code } => self.end = Some(End::Code(code)),
            }
        }
    }

    /// The last word. Whoever reads slowly gets it all the same; whoever is gone is not waited for.
    fn answered(&mut self, request: RequestId, told: Told) {
        let Some(asker) = self.requests.remove(&request) else { return };
        if let Err(TrySendError::Full(told)) = asker.try_send(told) {
            tokio::spawn(async move { asker.send(told).await });
        }
    }

    fn start_child(&mut self, child: ChildId, slot: &Slot, generation: Generation) -> std::io::Result<u32> {
        let name = slot.to_string();
        let kit = self.kits.get(&generation).ok_or_else(|| std::io::Error::other("its settings are forgotten"))?;
        let (role, deployment) = (slot.group.role.as_str().to_owned(), slot.group.deployment.clone());
        let other = kit.workers.get(&deployment).filter(|_| slot.group.role == Role::Worker);
        let settings = child::Settings { role, deployment, ..kit.child.clone() };
        let file = channel::file_of("settings", &serde_json::to_vec(&settings)?)?;
        let Spawned { process, channel, output } = spawn::spawn(&kit.binary, other, &name)?;
        let pid = process.pid;
        let first = (ToChild::Start { v: VERSION, name }, file);
        let state = state::Child::new(child, slot.clone(), pid);
        self.running.insert(child, self.tasks.attend(state, process, channel, output.map(Some), Some(first)));
        Ok(pid)
    }
}
