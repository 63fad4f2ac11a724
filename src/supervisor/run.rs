//! The dispatcher carries the plan out: one loop takes what happened (signals, ends of processes, what children say, what is asked), gives it to the
//! plan, and does what comes of it.

mod rows;

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};

use super::ask::{Ask, Told};
use super::door::Door;
use super::gather::Gathering;
use super::host::{Doing, Host};
use super::logs::Logs;
use super::managed::Managed;
use super::plan::Plan;
use super::plan::step::{Action, ChildId, Command, Exit, Generation, Input, Load, RequestId, Settings};
use super::policy::names::{Role, Slot};
use super::spawn::{self, Binary, Cost, Spawned};
use super::strangers::Strangers;
use crate::child::channel::{self, ToChild, ToSupervisor, Upper, VERSION};
use crate::child::settings as child;
use crate::limits::{BEAT, SUPERVISOR_EVENTS_MAX, WISHES_MAX};

/// What happened.
enum Event {
    Said(ChildId, ToSupervisor, Option<OwnedFd>),
    /// A child's channel is closed. With a reason: by what it said.
    Closed(ChildId, Option<String>),
    Exited(ChildId, Exit),
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
    /// What it is told; its role is added.
    pub(super) child: child::Settings,
    /// What runs as a worker instead of it, by deployments.
    pub(super) workers: HashMap<String, spawn::Other>,
}

/// Reads settings and program again, for a reload, given the deployments that there are, and whether each listens. The error is one
/// line.
pub(super) type Prepare = Box<dyn FnMut(&BTreeMap<String, bool>) -> Result<Prepared, String>>;

/// A child's process.
struct Running {
    name: String,
    deployment: String,
    process: spawn::Process,
    channel: Arc<Upper>,
    /// What is said to it, in this order. None once it was asked to end: its channel closes when all was said.
    words: Option<mpsc::Sender<ToChild>>,
    is_ready: bool,
    /// It was asked to end.
    is_leaving: bool,
    said: channel::Load,
    /// When that was counted from which the rates are, and what was counted.
    since: (Instant, u64, Cost),
    load: Load,
}

struct Dispatcher {
    plan: Plan,
    began: Instant,
    kits: HashMap<Generation, Kit>,
    generation: Generation,
    prepare: Prepare,
    running: HashMap<ChildId, Running>,
    requests: HashMap<RequestId, mpsc::Sender<Told>>,
    next_request: u64,
    /// The reload that is under way.
    reload: Option<RequestId>,
    /// By the deployments that they lead into.
    doors: BTreeMap<String, Door>,
    logs: Logs,
    events: mpsc::Sender<Event>,
    gathering: Gathering,
    host: Host,
    strangers: Strangers,
    managed: Option<Managed>,
    /// What is done when everything has ended, but for Redis.
    last: Vec<Action>,
    code: Option<u8>,
}

/// Runs all processes until a signal ends them (`stop`), or a command. Returns the exit code.
///
/// # Errors
/// When no process can be made at all.
pub(super) async fn run(
    prepared: Prepared,
    prepare: Prepare,
    managed: Option<Managed>,
    logs: Logs,
    mut asks: mpsc::Receiver<Ask>,
    stop: tokio_util::sync::CancellationToken,
) -> std::io::Result<u8> {
    let (events, mut happened) = mpsc::channel(SUPERVISOR_EVENTS_MAX);
    let generation = Generation(1);
    let (plan, actions) = Plan::new(prepared.settings, generation, Duration::ZERO);
    let mut dispatcher = Dispatcher {
        plan,
        began: Instant::now(),
        kits: HashMap::from([(generation, prepared.kit)]),
        generation,
        prepare,
        running: HashMap::new(),
        requests: HashMap::new(),
        next_request: 0,
        reload: None,
        doors: BTreeMap::new(),
        logs,
        events,
        gathering: Gathering::default(),
        host: Host::start()?,
        strangers: Strangers::new(),
        managed,
        last: Vec::new(),
        code: None,
    };
    dispatcher.open(prepared.listeners)?;
    dispatcher.carry_out(actions);
    let mut beat = tokio::time::interval(BEAT);
    // After a pause there is one turn, not all that were missed.
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopping = false;
    while dispatcher.code.is_none() {
        let due = dispatcher.plan.next_due().map(|due| dispatcher.began + due);
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                dispatcher.step(Input::StopAll);
                dispatcher.report();
            }
            Some(event) = happened.recv() => dispatcher.take(event),
            Some(ask) = asks.recv() => dispatcher.answer(ask),
            _ = beat.tick() => dispatcher.measure(),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                // The tasks that read the channels come first, so that nobody is taken for silent who has spoken.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                while let Ok(event) = happened.try_recv() {
                    dispatcher.take(event);
                }
                dispatcher.step(Input::Looked);
            }
        }
    }
    let mut code = dispatcher.code.unwrap_or(0);
    if let Some(managed) = dispatcher.managed.take() {
        // Last, and whoever asked for the end hears of it then.
        code |= u8::from(!managed.stop().await);
        let last = std::mem::take(&mut dispatcher.last);
        dispatcher.carry_out(last);
    }
    Ok(code)
}

impl Dispatcher {
    fn open(&mut self, listeners: Vec<(String, TcpListener)>) -> std::io::Result<()> {
        for (deployment, listener) in listeners {
            self.doors.insert(deployment, Door::open(listener)?);
        }
        Ok(())
    }

    fn step(&mut self, input: Input) {
        let is_load = matches!(input, Input::Heard { .. });
        let actions = self.plan.step(input, self.began.elapsed());
        if is_load && actions.is_empty() {
            return;
        }
        self.carry_out(actions);
        let ready = self.plan.ready_gateways();
        let channel = |child| self.running.get(&child)?.channel.as_fd().try_clone_to_owned().ok();
        for (deployment, door) in &self.doors {
            let own: Vec<_> = ready.iter().filter(|(slot, _)| slot.group.deployment == *deployment).cloned().collect();
            door.set(&own, channel);
        }
    }

    fn take(&mut self, event: Event) {
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
                    if let Some(door) = self.doors.get(&gone.deployment) {
                        door.gone(child);
                    }
                    tracing::info!(process = gone.name, pid = gone.process.pid, "{exit}");
                }
                self.step(Input::Ended { child, exit });
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
        if let Some(door) = self.doors.get(&running.deployment) {
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
        for running in self.running.values_mut() {
            let Some(cost) = Cost::of(running.process.pid) else { continue };
            let (since, events, before) = std::mem::replace(&mut running.since, (now, running.said.events, cost));
            let passed_s = (now - since).as_secs_f64().max(0.001);
            running.load.cpu = (cost.cpu_s - before.cpu_s).max(0.0) / passed_s;
            running.load.memory_bytes = cost.memory_bytes;
            #[expect(clippy::cast_precision_loss, reason = "events of a second")]
            let rate = running.said.events.saturating_sub(events) as f64 / passed_s;
            running.load.actions_per_s = rate;
        }
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

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Ps(answer) => drop(answer.send(self.ps())),
            Ask::Metrics(answer) => {
                // Of a replacement's pair, one answers.
                let asked: Vec<_> = self.running.values().filter(|running| running.is_ready && !running.is_leaving).collect();
                let number = self.gathering.begin(answer, asked.len());
                for running in asked {
                    self.say(running, ToChild::Metrics { number });
                }
            }
            // Nobody would come in: the listener was opened for none.
            Ask::Do(Command::Scale { group, count }, told)
                if group.role == Role::Gateway
                    && count.most() > 0
                    && self.plan.deployments().contains_key(&*group.deployment)
                    && !self.doors.contains_key(&group.deployment) =>
            {
                let why = format!("{group}: it has --gateways 0 and listens nowhere: give it gateways, and reload");
                let _ = told.try_send(Told::Failed(why));
            }
            Ask::Do(command, told) => self.command(command, told),
            Ask::Reload(told) => match self.prepared() {
                Ok(Prepared { settings, kit, .. }) => {
                    self.generation = Generation(self.generation.0 + 1);
                    self.kits.insert(self.generation, kit);
                    self.reload.get_or_insert(RequestId(self.next_request));
                    self.command(Command::Reload { generation: self.generation, settings }, told);
                    let needed = self.plan.generations();
                    self.kits.retain(|generation, _| needed.contains(generation));
                }
                Err(why) => drop(told.try_send(Told::Failed(format!("nothing is changed: {why}")))),
            },
        }
    }

    /// What a reload would bring, with doors for what is new in it.
    fn prepared(&mut self) -> Result<Prepared, String> {
        let there = self.plan.deployments().into_keys().map(|name| (name.to_owned(), self.doors.contains_key(name))).collect();
        let mut prepared = (self.prepare)(&there)?;
        self.open(std::mem::take(&mut prepared.listeners)).map_err(|error| format!("a door cannot be opened: {error}"))?;
        Ok(prepared)
    }

    fn command(&mut self, command: Command, told: mpsc::Sender<Told>) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, told);
        self.step(Input::Command { request, command });
        self.report();
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let end = actions.iter().find_map(|action| if let Action::End { code } = action { Some(*code) } else { None });
        if end.is_some() && self.managed.is_some() {
            (self.code, self.last) = (end, actions);
            return;
        }
        for action in actions {
            match action {
                Action::Start { child, slot, generation } => {
                    let input = match self.start(child, &slot, generation) {
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
                        (running.words, running.is_leaving) = (None, true);
                    }
                }
                Action::AskToLeave { child, successor: _, window } => {
                    let Some(running) = self.running.get_mut(&child) else { continue };
                    running.is_leaving = true;
                    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                    self.tell(child, ToChild::Leave { window_ms });
                }
                Action::Kill { child, why } => {
                    if let Some(running) = self.running.get(&child) {
                        tracing::warn!(process = running.name, pid = running.process.pid, "{why}");
                        running.process.kill();
                    }
                }
                Action::Move { child, sessions } => {
                    self.tell(child, ToChild::Offer { sessions: usize::try_from(sessions).unwrap_or(usize::MAX) });
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
                Action::Finish { generation: _ } => self.step(Input::Finished { result: Ok(()) }),
                Action::End { code } => self.code = Some(code),
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

    fn tell(&self, child: ChildId, message: ToChild) {
        if let Some(running) = self.running.get(&child) {
            self.say(running, message);
        }
    }

    /// One that does not listen is noticed by its silence, and is told no more than it can read.
    fn say(&self, running: &Running, message: ToChild) {
        if let Some(words) = &running.words {
            let _ = words.try_send(message);
        }
    }

    fn start(&mut self, child: ChildId, slot: &Slot, generation: Generation) -> std::io::Result<u32> {
        let name = slot.to_string();
        let kit = self.kits.get(&generation).ok_or_else(|| std::io::Error::other("its settings are forgotten"))?;
        let (role, deployment) = (slot.group.role.as_str().to_owned(), slot.group.deployment.clone());
        let settings = child::Settings { role, deployment: deployment.clone(), ..kit.child.clone() };
        let file = channel::file_of("settings", &serde_json::to_vec(&settings)?)?;
        let other = kit.workers.get(&deployment).filter(|_| slot.group.role == Role::Worker);
        let Spawned { process, channel, output } = spawn::spawn(&kit.binary, other, &name)?;
        let channel = Arc::new(channel);
        let (pid, events) = (process.pid, self.events.clone());
        tokio::spawn(self.logs.clone().read(name.clone(), output.0));
        tokio::spawn(self.logs.clone().read(name.clone(), output.1));
        let (waited, ended) = (process.clone(), events.clone());
        tokio::spawn(async move {
            let exit = waited.ended().await.unwrap_or_else(|error| {
                tracing::error!(%error, "the end of a process cannot be waited for");
                Exit::Code(-1)
            });
            let _ = ended.send(Event::Exited(child, exit)).await;
        });
        let (heard, first) = (channel.clone(), ToChild::Start { v: VERSION, name: name.clone() });
        let (words, mut said) = mpsc::channel(WISHES_MAX);
        let saying = channel.clone();
        tokio::spawn(async move {
            let mut result = saying.say(&first, Some(file.as_fd())).await;
            // It has secrets.
            drop(file);
            while result.is_ok()
                && let Some(message) = said.recv().await
            {
                result = saying.say(&message, None).await;
            }
            let _ = rustix::net::shutdown(saying.as_fd(), rustix::net::Shutdown::Write);
        });
        tokio::spawn(async move {
            loop {
                let event = match heard.hear().await {
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
        let since = (Instant::now(), 0, Cost::default());
        let running = Running {
            name,
            deployment,
            process,
            channel,
            words: Some(words),
            is_ready: false,
            is_leaving: false,
            said: channel::Load::default(),
            since,
            load: Load::default(),
        };
        self.running.insert(child, running);
        Ok(pid)
    }
}
