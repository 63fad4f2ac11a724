//! What a program threw, in words.

use rquickjs::{Coerced, Ctx, Error, Exception, Object};

use super::budget::{Budget, Stopwatch};
use super::program::Source;
use super::vm::PRELUDE_NAME;
use crate::types::failure_line as line;

/// Why a program, or a handler of it, came to no end.
#[derive(Debug)]
pub(super) struct Thrown {
    /// One line, without the place.
    pub(super) what: String,
    /// Line and column of the file.
    pub(super) place: Option<(u32, u32)>,
    /// Innermost first.
    pub(super) stack: Vec<String>,
    /// The part of the program that is wrong, such as `on.hit`.
    pub(super) part: Option<String>,
    /// Whether the context may be in no good state.
    pub(super) is_fatal: bool,
    /// Whether it is for want of memory.
    pub(super) is_memory: bool,
}

impl Thrown {
    fn fatal(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_fatal: true, ..Self::at(String::new()) }
    }

    fn at(what: String) -> Self {
        Self { what, place: None, stack: Vec::new(), part: None, is_fatal: false, is_memory: false }
    }

    /// It took too long.
    pub(super) fn time(budget: Budget) -> Self {
        Self::fatal(format!("budget_ms: it takes more than {} ms: an endless loop?", budget.time_ms))
    }

    /// It took too much memory.
    fn memory(budget: Budget) -> Self {
        let what = format!("memory_mib: it takes more than {} MiB of memory", budget.memory_mib);
        Self { is_memory: true, ..Self::fatal(what) }
    }

    /// The interpreter could not be set up.
    pub(super) fn setting_up(why: &str) -> Self {
        Self::fatal(format!("no context for it: {why}"))
    }

    pub(super) fn promise() -> Self {
        Self::fatal("a promise was begun, which nobody waits for: decide at once, without async, await and import()")
    }
}

/// What to do instead of using what is not there.
fn instead_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "eval" => "text cannot become code here: write the function into the file",
        "setTimeout" | "setInterval" | "setImmediate" => "use ctx.timer, and a handler in timers",
        "Promise" | "queueMicrotask" => "a handler decides at once: call what you need, and return",
        "WeakRef" | "FinalizationRegistry" => "what is forgotten when differs from run to run: keep it in ctx.state",
        "SharedArrayBuffer" | "Atomics" | "Worker" => {
            "a room is decided by one handler at a time: keep what you share in ctx.state"
        }
        "performance" => "use ctx.now, the room's time in milliseconds",
        "crypto" => "use ctx.random()",
        "console" | "print" => "return what you want to see, or throw it",
        "fetch" | "XMLHttpRequest" | "WebSocket" | "require" | "process" | "Deno" | "Bun" | "fs" => {
            "a program reaches nothing outside its room: let a server session ask, and send the answer as an action"
        }
        "window" | "document" | "self" | "global" => {
            "this is no browser and no Node.js: use globalThis for what the language has"
        }
        _ => return None,
    })
}

/// Lines of a stack trace that are looked at.
const TRACE_LINES_MAX: usize = 256;

/// Takes the exception out of the context, and says it in words. While a program is loaded, the prelude throws arrays: the part, what is wrong
/// with it, and perhaps the function.
pub(super) fn thrown(ctx: &Ctx<'_>, error: Error, source: &Source, stopwatch: &Stopwatch, loading: bool) -> Thrown {
    let budget = source.budget;
    let value = match error {
        Error::Exception => ctx.catch(),
        Error::Allocation => return Thrown::memory(budget),
        Error::WouldBlock => return Thrown::promise(),
        Error::InvalidString(_) => return Thrown::fatal("a zero byte: the file is no text"),
        error => return Thrown::fatal(line(&error.to_string())),
    };
    if value.is_null() {
        // What the interpreter throws when there is no memory for an error, either.
        let memory = Thrown::memory(budget);
        return Thrown { what: format!("{} (or it threw null)", memory.what), ..memory };
    }
    if let Some(wrong) = value.as_array().filter(|_| loading) {
        let text = |at| wrong.get::<String>(at).unwrap_or_default();
        let place = wrong
            .get::<Object<'_>>(2)
            .ok()
            .and_then(|function| Some((function.get("lineNumber").ok()?, function.get("columnNumber").ok()?)));
        return Thrown { place, part: Some(text(0)), ..Thrown::at(line(&text(1))) };
    }
    let Some(exception) = value.as_object().and_then(|object| Exception::from_object(object.clone())) else {
        if stopwatch.has_stopped() {
            return Thrown::time(budget);
        }
        let text = value.get::<Coerced<String>>().map_or_else(
            |_| {
                ctx.catch();
                "a value that cannot be shown".to_owned()
            },
            |text| text.0,
        );
        return Thrown::at(line(&format!("threw {text:?}: throw an Error, to see where")));
    };
    let all = exception.stack().unwrap_or_default();
    let lines = all.lines().take(TRACE_LINES_MAX).map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.contains(PRELUDE_NAME) && !line.contains("(native)"));
    let stack: Vec<String> = lines.map(line).collect();
    let place = stack.iter().find_map(|line| place_in(line, &source.file));
    let stack: Vec<String> = stack.into_iter().take(budget.stack_lines as usize).collect();
    if stopwatch.has_stopped() {
        return Thrown { place, stack, ..Thrown::time(budget) };
    }
    let name = exception.get::<_, Coerced<String>>("name").map_or_else(|_| "Error".to_owned(), |name| name.0);
    let message = exception.message().unwrap_or_default();
    // What failed may have thrown again while it was read.
    ctx.catch();
    if name == "InternalError" && message == "out of memory" {
        return Thrown { place, stack, ..Thrown::memory(budget) };
    }
    let is_stack = message.contains("call stack size exceeded") || message == "stack overflow";
    let mut what = if is_stack {
        format!("stack_kib: it takes more than {} KiB of stack: an endless recursion?", budget.stack_kib)
    } else {
        format!("{name}: {message}")
    };
    if name == "ReferenceError"
        && let Some(instead) = message.strip_suffix(" is not defined").and_then(|name| instead_of(name.trim_matches('\'')))
    {
        what = format!("{what} here: {instead}");
    }
    Thrown { place, stack, ..Thrown::at(line(&what)) }
}

/// Line and column of `file:line:column` in a line of a stack trace.
fn place_in(text: &str, file: &str) -> Option<(u32, u32)> {
    let at = text.find(&format!("{file}:"))? + file.len() + 1;
    let mut numbers = text[at..].split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next().and_then(|column| column.parse().ok()).unwrap_or(1)))
}
