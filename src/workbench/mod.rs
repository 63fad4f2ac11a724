//! `lasthit rules`: what helps to write a program. It needs no server, and starts none.

mod bench;
mod play;
mod scenario;
mod start;
mod test;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

pub(crate) use self::play::shown;
use crate::config::program_text;
use crate::rules::js::{Budget, Program};

/// What to do with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) task: Task,
    /// Whether to print JSON instead of text.
    pub(crate) json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Write a start of this name.
    New(String),
    /// Say what is in it.
    Check(PathBuf),
    /// Play its scenarios.
    Test(PathBuf),
    /// Measure it.
    Bench(PathBuf),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What to print.
    pub(crate) text: String,
    /// Whether a scenario failed.
    pub(crate) failed: bool,
}

/// Carries out the task.
///
/// # Errors
/// One line: what is wrong with the file, and where.
pub(crate) fn run(work: &Work) -> Result<Told, String> {
    let told = |text: String| Told { text, failed: false };
    match &work.task {
        Task::New(name) => start::write(name, Path::new(""), work.json).map(told),
        Task::Check(path) => check(path, work.json).map(told),
        Task::Test(path) => test(path, work.json),
        Task::Bench(path) => bench(path, work.json).map(told),
    }
}

fn load(path: &Path) -> Result<Arc<Program>, String> {
    let text = program_text(path).map_err(|why| format!("{} {why}", path.display()))?;
    Program::load(&path.to_string_lossy(), &text, Budget::default()).map_err(|e| e.to_string())
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Loads a program and checks what it exports.
///
/// # Errors
/// One line: what is wrong with the file, and where.
pub(crate) fn checked(path: &Path) -> Result<Arc<Program>, String> {
    let program = load(path)?;
    scenario::of(&program).map_err(|e| e.to_string())?;
    Ok(program)
}

fn check(path: &Path, json: bool) -> Result<String, String> {
    let program = load(path)?;
    let scenarios = scenario::of(&program).map_err(|e| e.to_string())?;
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    let hash = program.id().to_string();
    let (bytes, state_bytes) = (program.text().len(), program.state_bytes());
    if json {
        return Ok(pretty(&json!({
            "file": program.file(), "name": program.name(), "version": program.version(), "actions": program.ops(),
            "events": program.events(), "timers": program.timers(), "migrates": program.migrates(), "tests": names,
            "bytes": bytes, "state_bytes": state_bytes, "program": hash,
        })));
    }
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let texts = |names: &[String]| list(&names.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(format!(
        "{}: {} version {}\n  actions  {}\n  events   {}\n  timers   {}\n  tests    {}\n  size     {bytes} bytes; a new room's state \
         {state_bytes} bytes\n  program  {hash}",
        program.file(),
        program.name(),
        program.version(),
        texts(program.ops()),
        list(program.events()),
        texts(program.timers()),
        if names.is_empty() { "none".to_owned() } else { names.join("; ") },
    ))
}

/// The scenarios, of which there must be one.
fn scenarios(program: &Program) -> Result<Vec<scenario::Scenario>, String> {
    let scenarios = scenario::of(program).map_err(|e| e.to_string())?;
    if scenarios.is_empty() {
        let how = "it has no tests: write export const tests = { \"what is shown\": [{ who: \"ann\", op: \"...\" }] }";
        return Err(program.wrong_test(None, None, how.to_owned()).to_string());
    }
    Ok(scenarios)
}

fn test(path: &Path, json: bool) -> Result<Told, String> {
    let program = load(path)?;
    let (mut text, mut all, mut failed) = (String::new(), Vec::new(), 0);
    for scenario in scenarios(&program)? {
        let name = &scenario.name;
        let problems = test::test(&program, &scenario).map_err(|e| e.to_string())?;
        let problems: Vec<String> = problems.iter().map(|problem| problem.told(&program, name).to_string()).collect();
        let is_ok = problems.is_empty();
        failed += usize::from(!is_ok);
        let _ = writeln!(text, "{} {name}", if is_ok { "ok    " } else { "FAILED" });
        for problem in &problems {
            let _ = writeln!(text, "       {problem}");
        }
        all.push(json!({"name": name, "steps": scenario.steps.len(), "ok": is_ok, "problems": problems}));
    }
    let _ = write!(text, "{}: {} of {} scenarios are as expected", program.file(), all.len() - failed, all.len());
    if json {
        text = pretty(&json!({
            "file": program.file(), "name": program.name(), "version": program.version(), "failed": failed, "scenarios": all,
        }));
    }
    Ok(Told { text, failed: failed > 0 })
}

fn bench(path: &Path, json: bool) -> Result<String, String> {
    let program = load(path)?;
    let measured = bench::bench(&program, &scenarios(&program)?)?;
    if json {
        return Ok(pretty(
            &json!({"file": program.file(), "name": program.name(), "version": program.version(), "bench": measured}),
        ));
    }
    let mut text = format!("{}: state of at most {} bytes; microseconds an event:", program.file(), measured.state_bytes);
    let _ = write!(text, "\n  {:<24} {:>9} {:>9} {:>9} {:>9}", "event", "events", "mean", "p50", "p99");
    for m in [&measured.all].into_iter().chain(&measured.by_event) {
        let _ = write!(text, "\n  {:<24} {:>9} {:>9.2} {:>9.2} {:>9.2}", m.event, m.events, m.mean_us, m.p50_us, m.p99_us);
    }
    Ok(text)
}
