//! A context: one program on one thread. It never changes threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rquickjs::context::{EvalOptions, intrinsic};
use rquickjs::function::Function;
use rquickjs::{Array, Context, Ctx, Module, Object, Persistent, Runtime, Value};

use super::budget::{Budget, Measure, Stopwatch};
use super::data::{self, Encoder};
use super::event::{self, Current, Event};
use super::program::{Program, Source};
use super::thrown::{Thrown, thrown};
use crate::limits::{AUDIENCE_PLAYERS_MAX, CONTEXTS_PER_THREAD_MAX, DATA_BYTES_MAX, NAME_BYTES_MAX};
use crate::rules::{Decision, Facts};
use crate::types::{Role, SessionId};

const BOUNDED: &str = include_str!("bounded.js");
const PRELUDE: &str = include_str!("prelude.js");

/// The interpreter, as `Cargo.lock` has it: another one is named here, so that what it decides otherwise is told apart.
pub(super) const INTERPRETER: &str = "rquickjs 0.14";

/// Names what decides beside the program's text: the interpreter, the prelude, and the machine, whose mathematics it uses.
pub(super) fn engine() -> u32 {
    static ENGINE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let machine = match (cfg!(target_arch = "x86_64"), cfg!(all(target_os = "linux", target_env = "gnu"))) {
        (true, true) => "x86_64 gnu",
        (true, false) => "x86_64",
        (false, true) => "gnu",
        (false, false) => "other",
    };
    *ENGINE.get_or_init(|| crc32fast::hash([BOUNDED, PRELUDE, INTERPRETER, machine].join("|").as_bytes()))
}

/// What both files are called in stack traces.
pub(super) const PRELUDE_NAME: &str = "lasthit:prelude";

type Handler = Persistent<Function<'static>>;

/// What a program has handlers for.
#[derive(Default)]
struct Handlers {
    /// In the order of [`Socket`].
    socket: [Option<Handler>; EVENTS.len()],
    on: HashMap<String, Handler>,
    timers: HashMap<String, Handler>,
    migrate: Option<Handler>,
    state: Option<Handler>,
}

/// What a program says about itself.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) ops: Vec<String>,
    pub(super) timers: Vec<String>,
    /// The five socket events that it handles.
    pub(super) events: Vec<&'static str>,
    pub(super) migrates: bool,
}

/// A socket event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    Open,
    Data,
    End,
    Error,
    Close,
}

/// The names of their handlers, in the order of [`Socket`].
const EVENTS: [&str; 5] = ["onOpen", "onData", "onEnd", "onError", "onClose"];

/// Which handler decides.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    Socket(Socket),
    /// The handler of this op, or else `onData`.
    On(&'a str),
    Timer(&'a str),
}

/// What a handler gets.
pub(super) enum Args<'a> {
    None,
    /// MessagePack.
    Encoded(&'a [u8]),
    Code(u16),
    Reason(&'a str),
    Due {
        data: &'a [u8],
        due_ms: f64,
        late_ns: u64,
        missed: u64,
    },
}

/// An event, as a context takes it.
pub(super) struct Call<'a> {
    pub(super) which: Which<'a>,
    pub(super) args: Args<'a>,
    pub(super) player: Option<&'a str>,
    pub(super) role: Option<Role>,
    pub(super) session: Option<SessionId>,
    pub(super) contest: Option<&'a str>,
    pub(super) facts: Facts,
    /// How many sessions the player has inside.
    pub(super) sessions: &'a dyn Fn() -> usize,
}

/// What came of an event: the decision, and the state after it if that differs.
pub(super) type Outcome = (Decision, Option<Vec<u8>>);

// The handlers go before the context, and the context before its runtime.
pub(super) struct Vm {
    run: Handler,
    migrate: Handler,
    handlers: Handlers,
    /// What the program exports as `tests`.
    tests: Persistent<Value<'static>>,
    event: Current,
    stopwatch: Rc<Stopwatch>,
    context: Context,
    runtime: Runtime,
}

impl Vm {
    /// A context that has evaluated the program.
    pub(super) fn new(source: &Source, measure: Measure) -> Result<(Self, Described), Thrown> {
        let budget = source.budget.measured(measure);
        let setting_up = |error: rquickjs::Error| Thrown::setting_up(&error.to_string());
        let runtime = Runtime::new().map_err(setting_up)?;
        runtime.set_max_stack_size(budget.stack_kib as usize * 1024);
        let stopwatch = Rc::new(Stopwatch::new());
        let watched = stopwatch.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || watched.is_over())));
        // Rule P3: the prelude takes the machine's clock and random numbers away, and there is no file and no socket to begin with.
        type Intrinsics = (
            intrinsic::Date,
            intrinsic::Eval,
            intrinsic::RegExpCompiler,
            intrinsic::RegExp,
            intrinsic::Json,
            intrinsic::Proxy,
            intrinsic::MapSet,
            intrinsic::TypedArrays,
            intrinsic::Promise,
        );
        let context = Context::custom::<Intrinsics>(&runtime).map_err(setting_up)?;
        let event = Current::default();
        let (run, migrate, inspect) = context.with(|ctx| {
            let prelude = || -> rquickjs::Result<(Handler, Handler, Handler)> {
                let named = || {
                    let mut options = EvalOptions::default();
                    options.filename = Some(PRELUDE_NAME.to_owned());
                    options
                };
                ctx.eval_with_options::<(), _>(BOUNDED, named())?;
                let prelude: Function<'_> = ctx.eval_with_options(PRELUDE, named())?;
                let made: Array<'_> =
                    prelude.call((event::native(&ctx, &event)?, EVENTS.to_vec(), AUDIENCE_PLAYERS_MAX, NAME_BYTES_MAX))?;
                let save = |at| made.get::<Function<'_>>(at).map(|function| Persistent::save(&ctx, function));
                Ok((save(0)?, save(1)?, save(2)?))
            };
            prelude().map_err(|error| thrown(&ctx, error, source, &stopwatch, true))
        })?;
        // From here on the program runs: it pays for what it takes.
        runtime.set_memory_limit(budget.memory_mib as usize * 1024 * 1024);
        stopwatch.start(budget.time_ms);
        let loaded = context.with(|ctx| {
            let program = || -> rquickjs::Result<(Handlers, Described, Persistent<Value<'static>>)> {
                let module = Module::declare(ctx.clone(), source.file.as_str(), source.text.as_str())?;
                let (module, evaluated) = module.eval()?;
                evaluated.result::<Value<'_>>().ok_or(rquickjs::Error::WouldBlock)??;
                let program: Value<'_> = module.get("default")?;
                let inspect = inspect.restore(&ctx)?;
                let (handlers, described) = handlers(&ctx, &inspect.call::<_, Array<'_>>((program, module.meta()?))?)?;
                Ok((handlers, described, Persistent::save(&ctx, module.get::<_, Value<'_>>("tests")?)))
            };
            program().map_err(|error| thrown(&ctx, error, source, &stopwatch, true))
        });
        let (handlers, described, tests) = clean(&runtime, &stopwatch, budget, loaded)?;
        Ok((Self { run, migrate, handlers, tests, event, stopwatch, context, runtime }, described))
    }

    /// Decides an event. The state is that before it.
    pub(super) fn decide(&self, program: &Program, measure: Measure, state: &Bytes, call: &Call<'_>) -> Result<Outcome, Thrown> {
        let handlers = &self.handlers;
        let (handler, op) = match call.which {
            Which::Socket(event) => (handlers.socket[event as usize].as_ref(), None),
            Which::On(op) => match handlers.on.get(op) {
                Some(handler) => (Some(handler), None),
                None => (handlers.socket[Socket::Data as usize].as_ref(), Some(op)),
            },
            // What follows a colon only tells timers of one handler apart.
            Which::Timer(name) => {
                let kind = || name.split_once(':').and_then(|(kind, _)| handlers.timers.get(kind));
                (handlers.timers.get(name).or_else(kind), None)
            }
        };
        let Some(handler) = handler else {
            let decision = match call.which {
                Which::Socket(_) => Decision::granted(),
                Which::On(_) => {
                    // About what the action contests, as every other denial of a program.
                    let denied = Decision::denied("unknown_op").to(crate::types::Audience::Session);
                    call.contest.into_iter().fold(denied, Decision::about)
                }
                Which::Timer(_) => Decision::denied("unknown_timer"),
            };
            return Ok((decision, None));
        };
        let asks = program.asks_for_sessions.load(Ordering::Relaxed);
        let first = self.run(program, measure, state, call, (handler, op), asks);
        if !asks && self.event.borrow().wants_sessions {
            // It has changed nothing, and runs again with what it asked for.
            program.asks_for_sessions.store(true, Ordering::Relaxed);
            return self.run(program, measure, state, call, (handler, op), true);
        }
        first
    }

    fn run(
        &self,
        program: &Program,
        measure: Measure,
        state: &Bytes,
        call: &Call<'_>,
        (handler, op): (&Handler, Option<&str>),
        counts_sessions: bool,
    ) -> Result<Outcome, Thrown> {
        let sessions = counts_sessions.then(|| (call.sessions)());
        *self.event.borrow_mut() =
            Event { state: state.clone(), facts: call.facts, session: call.session, sessions, ..Event::default() };
        let budget = program.source.budget.measured(measure);
        self.begin(&program.source, budget);
        let ran = self.context.with(|ctx| {
            let run = || -> rquickjs::Result<()> {
                let text = |text: Option<&str>| match text {
                    Some(text) => rquickjs::String::from_str(ctx.clone(), text).map(rquickjs::String::into_value),
                    None => Ok(Value::new_null(ctx.clone())),
                };
                let role = match call.role {
                    Some(Role::Player) => 0,
                    Some(Role::Server) => 1,
                    None => 2,
                };
                let (player, contest, args) = (text(call.player)?, text(call.contest)?, args(&ctx, &call.args)?);
                let now = call.facts.now.fractional_ms();
                let run = self.run.clone().restore(&ctx)?;
                run.call((handler.clone().restore(&ctx)?, player, role, contest, now, args, op))
            };
            run().map_err(|error| thrown(&ctx, error, &program.source, &self.stopwatch, false))
        });
        clean(&self.runtime, &self.stopwatch, budget, ran)?;
        let mut event = self.event.borrow_mut();
        let changed = event.changed.take();
        Ok((event.decision(call.contest), changed))
    }

    fn begin(&self, source: &Source, budget: Budget) {
        self.runtime.set_memory_limit(budget.memory_mib as usize * 1024 * 1024);
        self.runtime.set_max_stack_size(budget.stack_kib as usize * 1024);
        // What an event before it has left behind is collected in time: the interpreter raises this to what was alive then.
        self.runtime.set_gc_threshold(source.budget.memory_mib as usize * 1024 * 1024 / 2);
        self.stopwatch.start(budget.time_ms);
    }

    /// The state of a new room.
    pub(super) fn initial(&self, source: &Source) -> Result<Vec<u8>, Thrown> {
        match &self.handlers.state {
            Some(state) => self.make(source, (state, None), Measure::Budget, Facts::default()),
            None => Ok(super::state::empty()),
        }
    }

    /// The state that the program makes of one of version `from`: the same if it has no `migrate`.
    pub(super) fn migrated(
        &self,
        source: &Source,
        measure: Measure,
        (state, from): (&[u8], u32),
        facts: Facts,
    ) -> Result<Vec<u8>, Thrown> {
        match &self.handlers.migrate {
            Some(migrate) => self.make(source, (migrate, Some((state, from))), measure, facts),
            None => Ok(state.to_vec()),
        }
    }

    /// What the program exports as `tests`, as MessagePack; None if it exports nothing of this name.
    pub(super) fn tests(&self, source: &Source) -> Result<Option<Vec<u8>>, Thrown> {
        self.stopwatch.start(source.budget.time_ms);
        self.context.with(|ctx| {
            let encode = || -> rquickjs::Result<Option<Vec<u8>>> {
                let tests = self.tests.clone().restore(&ctx)?;
                if tests.is_undefined() {
                    return Ok(None);
                }
                let plain = ctx.globals().get::<_, Object<'_>>("Object")?.get("prototype")?;
                let mut encoder = Encoder::new(plain, DATA_BYTES_MAX);
                encoder.value(&tests).map_err(|fault| fault.throw(&ctx, "tests"))?;
                Ok(Some(encoder.bytes))
            };
            encode().map_err(|error| thrown(&ctx, error, source, &self.stopwatch, false))
        })
    }

    fn make(
        &self,
        source: &Source,
        (function, before): (&Handler, Option<(&[u8], u32)>),
        measure: Measure,
        facts: Facts,
    ) -> Result<Vec<u8>, Thrown> {
        *self.event.borrow_mut() = Event { state: super::state::empty().into(), facts, ..Event::default() };
        let budget = source.budget.measured(measure);
        self.begin(source, budget);
        let ran = self.context.with(|ctx| {
            let run = || -> rquickjs::Result<()> {
                let state = Object::new(ctx.clone())?;
                let (bytes, from) = before.unwrap_or_default();
                for entry in super::state::entries(bytes).unwrap_or_default() {
                    let key = String::from_utf8_lossy(&bytes[entry.key]).into_owned();
                    state.set(key, data::decode(&ctx, &bytes[entry.value])?)?;
                }
                let function = function.clone().restore(&ctx)?;
                self.migrate.clone().restore(&ctx)?.call((function, state, from))
            };
            run().map_err(|error| thrown(&ctx, error, source, &self.stopwatch, false))
        });
        clean(&self.runtime, &self.stopwatch, budget, ran)?;
        Ok(self.event.borrow_mut().changed.take().unwrap_or_else(super::state::empty))
    }
}

/// What a program left behind counts, whatever it returned or threw: a job that would run in the next event, or a time-out that it caught.
fn clean<T>(runtime: &Runtime, stopwatch: &Stopwatch, budget: Budget, ran: Result<T, Thrown>) -> Result<T, Thrown> {
    match ran {
        Err(thrown) if thrown.is_fatal => Err(thrown),
        _ if stopwatch.has_stopped() => Err(Thrown::time(budget)),
        _ if runtime.is_job_pending() => Err(Thrown::promise()),
        other => other,
    }
}

fn args<'js>(ctx: &Ctx<'js>, args: &Args<'_>) -> rquickjs::Result<Value<'js>> {
    let object = match args {
        Args::None => return Ok(Value::new_undefined(ctx.clone())),
        Args::Encoded(bytes) => return data::decode(ctx, bytes),
        _ => Object::new(ctx.clone())?,
    };
    match args {
        Args::Code(code) => object.set("code", *code)?,
        Args::Reason(reason) => object.set("reason", *reason)?,
        Args::Due { data, due_ms, late_ns, missed } => {
            object.set("data", data::decode(ctx, data)?)?;
            object.set("due", *due_ms)?;
            #[expect(clippy::cast_precision_loss, reason = "a JavaScript number")]
            let (late_ns, missed) = (*late_ns as f64, *missed as f64);
            object.set("late_ns", late_ns)?;
            object.set("missed", missed)?;
        }
        Args::None | Args::Encoded(_) => {}
    }
    Ok(object.into_value())
}

/// Takes what the prelude has found in a program.
fn handlers<'js>(ctx: &Ctx<'js>, found: &Array<'js>) -> rquickjs::Result<(Handlers, Described)> {
    let save = |function: Function<'js>| Persistent::save(ctx, function);
    let optional = |at| found.get::<Option<Function<'js>>>(at).map(|function| function.map(save));
    let table = |at| -> rquickjs::Result<(HashMap<String, Handler>, Vec<String>)> {
        let (mut table, mut names) = (HashMap::new(), Vec::new());
        for pair in found.get::<Array<'js>>(at)?.iter::<Array<'js>>() {
            let pair = pair?;
            let name: String = pair.get(0)?;
            table.insert(name.clone(), save(pair.get(1)?));
            names.push(name);
        }
        Ok((table, names))
    };
    let sockets: Array<'js> = found.get(3)?;
    let mut handlers = Handlers { state: optional(2)?, migrate: optional(6)?, ..Handlers::default() };
    let mut events = Vec::new();
    for (at, name) in EVENTS.into_iter().enumerate() {
        handlers.socket[at] = sockets.get::<Option<Function<'js>>>(at)?.map(save);
        events.extend(handlers.socket[at].is_some().then_some(name));
    }
    let (on, ops) = table(4)?;
    let (timers, timer_names) = table(5)?;
    (handlers.on, handlers.timers) = (on, timers);
    let version: f64 = found.get(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the prelude has checked it")]
    let version = version as u32;
    let migrates = handlers.migrate.is_some();
    let described = Described { name: found.get(0)?, version, ops, timers: timer_names, events, migrates };
    Ok((handlers, described))
}

/// A context of this thread.
struct Kept {
    program: std::sync::Weak<Program>,
    copy: Copy,
    /// Events that it has seen.
    events: u32,
    vm: Box<Vm>,
}

/// Which of the contexts of a program: the one that decides, or the one that checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    Deciding,
    /// It is made anew after so many events, so that it does not remember what the other one does.
    Checking(u32),
}

thread_local! {
    /// Last used first. A context that is in use is not among them.
    static CONTEXTS: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// Decides an event in this thread's context of the program. After a failure that may have left something behind, the context is
/// dropped; the next event gets a new one.
pub(super) fn decide(
    program: &Arc<Program>,
    measure: Measure,
    copy: Copy,
    state: &Bytes,
    call: &Call<'_>,
) -> Result<Outcome, Thrown> {
    in_context(program, measure, copy, |vm| vm.decide(program, measure, state, call))
}

/// Makes the state of another version of the program this one's.
pub(super) fn migrate(program: &Arc<Program>, measure: Measure, before: (&[u8], u32), facts: Facts) -> Result<Vec<u8>, Thrown> {
    in_context(program, measure, Copy::Deciding, |vm| vm.migrated(&program.source, measure, before, facts))
}

fn in_context<T>(
    program: &Arc<Program>,
    measure: Measure,
    copy: Copy,
    act: impl Fn(&Vm) -> Result<T, Thrown>,
) -> Result<T, Thrown> {
    let is_it = |kept: &Kept| {
        std::mem::discriminant(&kept.copy) == std::mem::discriminant(&copy)
            && std::ptr::eq(kept.program.as_ptr(), Arc::as_ptr(program))
    };
    let found = CONTEXTS.with_borrow_mut(|contexts| contexts.iter().position(is_it).map(|at| contexts.remove(at)));
    let mut kept = match found {
        Some(kept) => kept,
        None => Kept { program: Arc::downgrade(program), copy, events: 0, vm: Box::new(Vm::new(&program.source, measure)?.0) },
    };
    let mut outcome = act(&kept.vm);
    if kept.events > 0 && outcome.as_ref().is_err_and(|thrown| thrown.is_memory) {
        // The events before it may have left too little: what it takes by itself counts.
        kept.vm = Box::new(Vm::new(&program.source, measure)?.0);
        outcome = act(&kept.vm);
    }
    kept.events += 1;
    let is_spent = matches!(kept.copy, Copy::Checking(most) if kept.events >= most);
    if !is_spent && outcome.as_ref().err().is_none_or(|thrown| !thrown.is_fatal) {
        CONTEXTS.with_borrow_mut(|contexts| {
            if contexts.len() >= CONTEXTS_PER_THREAD_MAX {
                contexts.pop();
            }
            contexts.retain(|kept| kept.program.strong_count() > 0);
            contexts.insert(0, kept);
        });
    }
    outcome
}
