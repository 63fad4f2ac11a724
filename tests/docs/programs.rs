//! The conversations of `docs/rules-protocol.md` are held with every program of `examples/rules` that plays them.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tree::root;

const DOC: &str = include_str!("../../docs/rules-protocol.md");
const PATIENCE: Duration = Duration::from_secs(20);

/// Who speaks, and what.
fn conversation() -> Vec<(&'static str, Value)> {
    let fenced = DOC.split("\n```").skip(1).step_by(2);
    let said = fenced.filter_map(|block| block.split_once('\n')).filter(|(who, _)| matches!(*who, "worker" | "program"));
    said.map(|(who, text)| (who, serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")))).collect()
}

fn send(stream: &mut UnixStream, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("short");
    stream.write_all(&[&length.to_be_bytes(), body].concat()).expect("sent");
}

fn receive(stream: &mut UnixStream) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("a frame");
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body).expect("a whole frame");
    body
}

/// A process that ends with its handle.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a test waits")]
fn converse(words: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).expect("bound");
    listener.set_nonblocking(true).expect("set");
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(root()).env("LASTHIT_RULES", &path).stdin(Stdio::null());
    let mut program = match command.spawn() {
        Ok(program) => Started(program),
        Err(error) => return eprintln!("left out: {} is not there: {error}", words[0]),
    };
    let began = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(began.elapsed() < PATIENCE, "{words:?} does not connect"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream.set_nonblocking(false).expect("set");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    for (who, message) in conversation() {
        if who == "worker" {
            send(&mut stream, message.to_string().as_bytes());
        } else {
            let said: Value = serde_json::from_slice(&receive(&mut stream)).expect("JSON");
            assert_eq!(said, message, "{words:?}");
        }
    }
    drop(stream);
    let began = Instant::now();
    while program.0.try_wait().expect("a child").is_none() {
        assert!(began.elapsed() < PATIENCE, "{words:?} does not end with its socket");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_program_holds_the_conversation_of_its_page() {
    assert_eq!(conversation().len(), 9);
    converse(&["python3", "examples/rules/flag.py"]);
    converse(&["node", "rules/js/lasthit-rules.mjs", "examples/rules/flag.mjs"]);
    converse(&["perl", "examples/rules/flag.pl"]);
}

/// What the worker would make of the page's answers, and of what it says about them.
#[test]
fn the_worker_reads_the_pages_answers() {
    for (who, message) in conversation() {
        let events = message["decisions"].as_array().map_or(0, Vec::len);
        let read = lasthit::internals::programs::check(message.to_string().as_bytes(), events);
        assert_eq!(read.is_ok(), who == "program", "{message}: {read:?}");
    }
}

/// The page's table has every bound, as it counts.
#[test]
fn the_page_has_the_bounds_that_there_are() {
    use lasthit::internals::limits as is;
    let kib = |bytes: usize| {
        if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
    };
    let (hello, lines) = (is::PROGRAM_HELLO_TIMEOUT.as_secs(), is::PROGRAM_LINES_PER_SECOND);
    let (least, most) = (is::PROGRAM_BUDGET_MS_MIN, is::PROGRAM_BUDGET_MS_MAX / 1_000);
    let rows = [
        format!("state of a room, as JSON | {} |", kib(is::PROGRAM_STATE_BYTES_MAX)),
        format!("frame, in both directions | {} |", kib(is::PROGRAM_FRAME_BYTES_MAX)),
        format!("events in a request | {}, and as many as fit into {}, ", is::PROGRAM_EVENTS_MAX, kib(is::PROGRAM_EVENTS_BYTES)),
        format!("time for a request | {} s, or `budget_ms` ({least} to {most},000): ", is::PROGRAM_BUDGET.as_secs()),
        format!("time from the start until the program connects, and from then to `hello` | {hello} s each; "),
        format!("nesting of a state, a body, a timer's data | {} lists and maps in each other; ", is::PROGRAM_DEPTH_MAX),
        format!(
            "lines for the log | {lines} a second from `log`, {lines} from stdout, {lines} from stderr, of {} each |",
            kib(is::PROGRAM_LINE_BYTES_MAX)
        ),
        format!("instances | {} |", is::PROGRAM_INSTANCES_MAX),
    ];
    let table = DOC.split("\n## Bounds\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("bounds");
    let told: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| ")).skip(1).collect();
    assert_eq!(told.len(), rows.len(), "{told:?}");
    for (told, row) in told.iter().zip(&rows) {
        assert!(told.starts_with(row), "{told}\ninstead of\n{row}");
    }
}

/// The helpers are as short as they are said to be.
#[test]
fn the_helpers_are_short() {
    for helper in ["rules/js/lasthit-rules.mjs", "rules/python/lasthit_rules.py"] {
        let lines = super::tree::read(&root().join(helper)).lines().count();
        assert!(lines < 300, "{helper}: {lines} lines");
    }
}
