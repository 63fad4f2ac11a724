//! `lasthit rules`: each tool on each example, and on a copy of it that was broken.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::support::program;

/// Runs a tool: exit code, stdout, stderr.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn tool(name: &str, file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let args = [&["rules", name, file.to_str().expect("UTF-8")], more].concat();
    run(&mut program(&args))
}

fn told(name: &str, file: &Path) -> Value {
    let (code, stdout, stderr) = tool(name, file, &["--json"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{name} {}: {stdout}", file.display());
    serde_json::from_str(&stdout).expect("JSON")
}

/// The one line on stderr of a tool that refuses a file.
fn refused(name: &str, file: &Path) -> String {
    let (code, stdout, stderr) = tool(name, file, &[]);
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{name}: {stderr}");
    stderr.trim_end().strip_prefix("lasthit: ").expect("ours").to_owned()
}

/// The files of `examples/rules` that somebody wrote, and a start, in a folder.
fn programs(folder: &Path) -> Vec<(PathBuf, String)> {
    let (code, _, stderr) = run(program(&["rules", "new", "start"]).current_dir(folder));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let examples = std::fs::read_dir(format!("{}/examples/rules", env!("CARGO_MANIFEST_DIR"))).expect("folder");
    let is_written = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()?.strip_suffix(".js")).is_some_and(|stem| !stem.ends_with(".bundled"))
    };
    let examples = examples.map(|entry| entry.expect("entry").path()).filter(is_written);
    let mut all: Vec<PathBuf> = examples.chain([folder.join("start.js")]).collect();
    all.sort();
    assert!(all.len() >= 3, "{all:?}");
    all.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).expect("text"))).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("folder")
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    path
}

/// A program with one action, `go`, and these steps as its only scenario, in line 2.
fn with_test(folder: &tempfile::TempDir, go: &str, steps: &str) -> PathBuf {
    let text = format!(
        "let n = 0; export default {{ name: 't', version: 1, state: () => ({{ n: 0 }}), on: {{ go(ctx, args) {{ {go} }} }}, \
         timers: {{ tick: (ctx) => ++ctx.state.n }} }};\nexport const tests = {{ one: [{steps}] }};\n"
    );
    file(folder, "t.js", &text)
}

/// What a failing scenario says.
fn problems(path: &Path) -> String {
    let (code, stdout, stderr) = tool("test", path, &[]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    assert!(stdout.contains("FAILED one") && stdout.contains("0 of 1 scenarios are as expected"), "{stdout}");
    stdout
}

/// The program of the ten minutes, and what its tests print.
#[test]
fn the_first_program_of_the_page_runs_as_it_stands() {
    let page = include_str!("../../docs/rules.md");
    let flag = page.split("\n```js\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("a program");
    let printed =
        page.split("    lasthit rules test flag.js\n\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("text");
    let printed: String = printed.lines().map(|line| format!("{}\n", line.trim_start_matches("    "))).collect();
    let folder = folder();
    file(&folder, "flag.js", flag);
    let (code, stdout, stderr) = run(program(&["rules", "test", "flag.js"]).current_dir(folder.path()));
    assert_eq!((code, stderr.as_str(), stdout), (Some(0), "", printed));
}

#[test]
fn each_tool_works_on_each_example() {
    let folder = folder();
    for (path, text) in programs(folder.path()) {
        let check = told("check", &path);
        assert_eq!((&check["bytes"], &check["version"]), (&json!(text.len()), &json!(1)), "{check}");
        assert_eq!((check["program"].as_str().map(str::len), check["timers"].as_array().map(Vec::len)), (Some(32), Some(1)));
        let (code, stdout, _) = tool("check", &path, &[]);
        assert!(code == Some(0) && stdout.contains(check["program"].as_str().expect("text")), "{stdout}");
        let test = told("test", &path);
        let count = test["scenarios"].as_array().map(Vec::len);
        assert!(count >= Some(2) && count == check["tests"].as_array().map(Vec::len) && test["failed"] == 0, "{test}");
        let (code, stdout, _) = tool("test", &path, &[]);
        assert!(code == Some(0) && stdout.contains("scenarios are as expected") && !stdout.contains("FAILED"), "{stdout}");
        let bench = &told("bench", &path)["bench"];
        assert!(bench["all"]["events"].as_u64() > Some(100) && bench["all"]["p50_us"].as_f64() > Some(0.0), "{bench}");
        assert!(bench["state_bytes"].as_u64() > check["state_bytes"].as_u64(), "{bench}");
        assert!(bench["by_event"].as_array().is_some_and(|all| all.iter().any(|one| one["event"] == "timer")), "{bench}");
    }
}

#[test]
fn each_tool_tells_what_is_wrong_with_a_broken_copy_and_where() {
    let folder = folder();
    for (path, text) in programs(folder.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("name");
        let line_of = |text: &str, part: &str| text.lines().position(|line| line.contains(part)).expect("part") + 1;
        let syntax = text.replacen("version: 1,", "version: 1,,", 1);
        let place = format!("{name}:{}:", line_of(&syntax, "version: 1,,"));
        let copy = file(&folder, name, &syntax);
        for tool in ["check", "test", "bench"] {
            let line = refused(tool, &copy);
            assert!(line.starts_with(&place) && line.contains("SyntaxError"), "{line}");
        }
        // A second export of this name would be another mistake.
        let untested = text.replace("export const tests", "const tests");
        let copy = file(&folder, name, &untested);
        assert_eq!(told("check", &copy)["tests"], json!([]));
        for tool in ["test", "bench"] {
            assert!(refused(tool, &copy).contains("it has no tests: write export const tests"));
        }
        let unexpected = text.replacen("outcome: \"granted\"", "outcome: \"void\"", 1);
        let (code, stdout, _) = tool("test", &file(&folder, name, &unexpected), &[]);
        assert!(code == Some(1) && stdout.contains("outcome is \"granted\", not \"void\""), "{stdout}");
        let typescript = file(&folder, &name.replace(".js", ".ts"), &text);
        assert!(refused("check", &typescript).contains("TypeScript is bundled to JavaScript first"));
    }
    assert!(refused("check", &folder.path().join("none.js")).contains("none.js cannot be read"));
}

#[test]
fn a_start_is_written_once() {
    let folder = folder();
    let new = |name: &str| run(program(&["rules", "new", name]).current_dir(folder.path()));
    let (code, stdout, _) = new("flag.js");
    assert!(code == Some(0) && stdout.contains("lasthit serve --rules flag.js"), "{stdout}");
    let types = std::fs::read_to_string(folder.path().join("lasthit.d.ts")).expect("types");
    assert!(types.contains("export interface Program"));
    assert_eq!(new("other").0, Some(0), "the same types serve both");
    for (name, expected) in [
        ("flag", "flag.js is there already"),
        ("a/b", "program name \"a/b\" is not allowed"),
        ("..", "begin with a letter or a digit"),
    ] {
        let (code, _, stderr) = new(name);
        assert!(code == Some(1) && stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
    }
    file(&folder, "lasthit.d.ts", "mine");
    let (code, _, stderr) = new("third");
    assert!(code == Some(1) && stderr.contains("lasthit.d.ts is there already"), "{stderr}");
    assert!(!folder.path().join("third.js").exists(), "all or nothing");
    assert_eq!(std::fs::read_to_string(folder.path().join("lasthit.d.ts")).expect("text"), "mine");
}

#[test]
fn what_comes_out_otherwise_than_expected_is_told() {
    let folder = folder();
    for (go, steps, expected) in [
        ("return 1", "{ who: 'a', op: 'go', expect: { body: 2 } }", "t.js:2:30: step 1: body is 1, not 2"),
        ("ctx.deny('no')", "{ who: 'a', op: 'go', expect: { reason: 'yes' } }", "step 1: reason is \"no\", not \"yes\""),
        ("ctx.to(['b'])", "{ who: 'a', op: 'go', expect: { to: ['a'] } }", "to is [\"b\"], not [\"a\"]"),
        ("throw new Error('x')", "{ who: 'a', op: 'go' }", "step 1: void rules_failed: t.js:1:"),
        ("ctx.win('x'); return 1", "{ who: 'a', op: 'go' },\n { who: 'a', op: 'go' }", "t.js:3:2: step 2: void second_winner"),
        ("for (let i = 0; i < 257; i++) ctx.timer('t' + i, { after: 100 })", "{ who: 'a', op: 'go' }", "void too_many_timers"),
        (
            "ctx.timer('tick', { after: 100 })",
            "{ who: 'a', op: 'go', fires: [] }, { after: 99.9, fires: ['tick'] }",
            "step 2: fires [], not [tick]",
        ),
        (
            "ctx.timer('tick', { after: 100 })",
            "{ who: 'a', op: 'go' }, { after: 100, fires: [{ timer: 'tick', body: 7 }] }",
            "step 2: timer tick: body is 1, not 7",
        ),
        (
            "ctx.timer('tick', { every: 16 })",
            "{ who: 'a', op: 'go' }, { after: 1e9 }",
            "step 2: more than 1000 timers fire in it",
        ),
        (
            "",
            "{ who: 'a', op: 'go' }, { who: 'a', role: 'server', op: 'go' }",
            "step 2: a is inside as player: a role belongs to",
        ),
    ] {
        let told = problems(&with_test(&folder, go, steps));
        assert!(told.contains(expected), "{go}\n{told}");
    }
    for (steps, expected) in [
        ("{ who: 'a' }", "t.js:2:30: step 1: op is missing"),
        ("{ op: 'go' }", "step 1: who is missing"),
        ("{ who: 'a b', op: 'go' }", "step 1: player name"),
        ("{ who: 'a', op: 'go', expct: {} }", "step 1: expct is not known in a step"),
        ("{ who: 'a', op: 'go', expect: { outcom: 1 } }", "step 1: outcom is not known in expect"),
        ("{ who: 'a', op: 'go', expect: { outcome: 'won' } }", "step 1: outcome \"won\" is not known"),
        ("{ who: 'a', op: 'go' }, { after: -1 }", "step 2: after -1 is no number of milliseconds"),
        ("{ after: 400 * 86400000 + 1 }", "step 1: after 34560000001 is no number"),
        ("{ after: 1, expect: {} }", "expect without an event"),
        ("{ after: 1, fires: 'tick' }", "fires is no array"),
        ("{ who: 'a', event: 'leave' }", "event \"leave\" does not fit"),
        ("{ who: 'a', role: 'king', op: 'go' }", "role \"king\" is not known"),
        ("{ who: 'a', session: 0, op: 'go' }", "session 0 is not allowed: use a whole number from 1 on"),
        ("{ who: 'a', event: 'end', code: 70000 }", "code 70000 is not allowed: use a whole number from 0 to 65535"),
        ("{ who: 'a', op: 'go', contest: 'c'.repeat(65) }", "c\" has 65 bytes: use 1 to 64"),
        ("{ who: 'a', event: 'open', contest: 'c' }", "contest is for an action only"),
        ("{ who: 'a', event: 'close', args: 1 }", "args is for an action only"),
        ("{ who: 'a', event: 'error', as: 'b' }", "as is for an action only"),
        ("{ who: 'a', op: 'go', code: 1000 }", "code is for the event end only"),
        ("{ who: 'a', event: 'end', reason: 'r' }", "reason is for the event error only"),
        ("{ who: 'a', op: 'go', expect: { outcome: 'repeat' } }", "step 1: outcome \"repeat\" is not known"),
        ("() => 1", "t.js:2:14: TypeError: tests.one[0]: a function"),
    ] {
        let line = refused("test", &with_test(&folder, "", steps));
        assert!(line.contains(expected), "{steps}\n{line}");
    }
}

#[test]
fn what_a_program_keeps_outside_its_state_is_found_with_both_decisions() {
    let folder = folder();
    let told = problems(&with_test(&folder, "return ++n", "{ who: 'a', op: 'go' }, { who: 'a', op: 'go' }"));
    let line = told.lines().find(|line| line.contains("outside ctx.state")).expect("found");
    assert!(line.contains("step 2: ") && line.contains("body 2,") && line.contains("body 1,"), "{line}");
    let (code, stdout, _) = tool(
        "test",
        &with_test(&folder, "return ++ctx.state.n", "{ who: 'a', op: 'go' }, { who: 'a', op: 'go', expect: { body: 2 } }"),
        &[],
    );
    assert_eq!(code, Some(0), "{stdout}");
}

#[test]
fn timers_fire_in_their_order_and_keep_a_room_as_in_a_worker() {
    let folder = folder();
    let passes = |go: &str, steps: &str| {
        let (code, stdout, stderr) = tool("test", &with_test(&folder, go, steps), &[]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    };
    passes(
        "ctx.timer('tick:b', { after: 200 }); ctx.timer('tick:a', { after: 100 }); ctx.timer('tick:c', { every: 150 })",
        "{ who: 'a', op: 'go' }, { after: 300, fires: ['tick:a', 'tick:c', { timer: 'tick:b', body: 3 }, 'tick:c'] }",
    );
    let (once, repeat) = ("ctx.timer('tick', { after: 100 })", "ctx.timer('tick', { every: 100 })");
    passes(once, "{ who: 'a', op: 'go' }, { who: 'a', event: 'close' }, { after: 100, fires: ['tick'] }");
    passes(repeat, "{ who: 'a', op: 'go' }, { who: 'a', event: 'close' }, { after: 100, fires: [] }");
    passes(
        "ctx.timer('tick', { cron: '0 9 * * FRI', offset: '+09:00' })",
        "{ who: 'a', op: 'go' }, { after: 86_399_998 }, { fires: ['tick'] }",
    );
    passes(
        "return [ctx.sessions, ctx.now]",
        "{ who: 'a', event: 'open' }, { who: 'a', session: 2, op: 'go', expect: { body: [2, 1767225600002] } }",
    );
}

#[test]
fn the_tools_explain_themselves() {
    for args in [
        &["rules", "--help"][..],
        &["rules", "new", "--help"],
        &["rules", "check", "--help"],
        &["rules", "test", "--help"],
        &["rules", "bench", "--help"],
    ] {
        let (code, stdout, _) = run(&mut program(args));
        assert!(code == Some(0) && stdout.contains("Examples:") && stdout.contains("lasthit rules "), "{stdout}");
    }
    let (code, _, stderr) = run(&mut program(&["rules"]));
    assert!(code == Some(2) && stderr.contains("use new, check, test, bench, push, list, try or drop"), "{stderr}");
}
