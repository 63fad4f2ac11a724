//! The program as a process: help, mistakes, precedence, exit codes, signals.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use super::support::{GatewayProcess, PATIENCE, Process, end_by_signal, get, program};

/// Runs a command that ends by itself: exit code, stdout, stderr.
fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let id = child.id();
    let (sender, output) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        end_by_signal(id, "KILL");
        panic!("still running: {command:?}");
    };
    let Output { status, stdout, stderr } = output.expect("waited");
    (status.code(), String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"))
}

/// The lines on stderr of a command that must end with exit code 2.
fn mistakes(command: &mut Command) -> Vec<String> {
    let (code, stdout, stderr) = ended(command);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    stderr.lines().map(|line| line.strip_prefix("lasthit: ").unwrap_or_else(|| panic!("whose is {line:?}?")).to_owned()).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

#[test]
fn every_command_explains_itself_with_examples() {
    for (args, expected) in [
        (vec!["--help"], "worker "),
        (vec!["serve", "--help"], "lasthit serve --listen"),
        (vec!["gateway", "--help"], "lasthit gateway --redis redis://"),
        (vec!["worker", "--help"], "lasthit worker --redis redis://"),
    ] {
        let (code, stdout, stderr) = ended(&mut program(&args));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.contains(expected), "{stdout}");
        assert!(args.len() == 1 || stdout.contains("Examples:"), "{stdout}");
    }
    let (code, stdout, _) = ended(&mut program(&["--version"]));
    assert_eq!((code, stdout.trim()), (Some(0), concat!("lasthit ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn usage_mistakes_are_one_line() {
    for (args, expected) in [
        (vec![], "a command is missing: use serve, up, gateway, worker, ps, "),
        (vec!["fly"], "'fly'"),
        (vec!["worker", "--listen", "127.0.0.1:1"], "'--listen'"),
        (vec!["gateway", "--redis"], "'--redis <URL>'"),
    ] {
        let lines = mistakes(&mut program(&args));
        assert!(lines.len() == 1 && lines[0].contains(expected), "{lines:?}");
    }
}

#[test]
fn configuration_mistakes_come_all_at_once() {
    let toml = file("shards = 9999\ncolour = 'red'\n[[rooms]]\npattern = '*'\nrules = 'chess'\n");
    let path = toml.path().to_str().expect("path");
    let lines = mistakes(
        program(&["gateway", "--config", path, "--listen", "0.0.0.0:7777"])
            .env("LASTHIT_RETENTION", "long")
            .env("LASTHIT_REDIS", "http://user:hush@host"),
    );
    let expected = [
        format!("{path}: \"colour\" is not a setting"),
        "LASTHIT_REDIS: \"http://***@host\" is not the address of a redis".to_owned(),
        format!("{path}, shards: \"9999\" does not fit: use a whole number from 1 to 1024"),
        "LASTHIT_RETENTION: \"long\" is not a duration".to_owned(),
        format!("{path}, rooms number 1: rules \"chess\" are not known: use last_hit, claim, or a file"),
        "--listen: \"0.0.0.0:7777\" is reachable from other hosts and there is no key".to_owned(),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(expected), "{line}\nshould begin with\n{expected}");
    }
}

#[test]
fn flags_win_over_environment_over_file() {
    let toml = file("lease_ms = 'from file'");
    let path = toml.path().to_str().expect("path");
    let from_file = mistakes(program(&["serve"]).env("LASTHIT_CONFIG", path));
    assert!(from_file[0].contains("\"from file\""), "{from_file:?}");
    let from_env = mistakes(program(&["serve", "--config", path]).env("LASTHIT_LEASE_MS", "from env"));
    assert!(from_env[0].starts_with("LASTHIT_LEASE_MS: \"from env\""), "{from_env:?}");
    let from_flag =
        mistakes(program(&["serve", "--config", path, "--lease-ms", "from flag"]).env("LASTHIT_LEASE_MS", "from env"));
    assert!(from_flag.len() == 1 && from_flag[0].starts_with("--lease-ms: \"from flag\""), "{from_flag:?}");
}

#[test]
fn listening_beyond_loopback_is_refused_without_a_key() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let lines = mistakes(&mut program(&["serve", "--listen", address]));
        assert!(lines.len() == 1 && lines[0].contains("--allow-keyless") && lines[0].contains(address), "{lines:?}");
    }
}

#[test]
fn it_says_what_is_open_answers_health_and_ends_on_sigterm() {
    let mut serve = GatewayProcess::serve(&["--log-format", "json"]);
    assert_eq!(get(serve.admin, "/healthz").0, 200);
    assert_eq!(get(serve.admin, "/metrics").0, 200);
    serve.process.signal("TERM");
    assert_eq!(serve.process.code(), Some(0));
    assert!(TcpStream::connect(serve.admin).is_err(), "nothing listens any more");
}

/// Name, nice value and scheduling policy of each thread of a process (proc(5)).
fn threads(pid: u32) -> Vec<(String, i32, i32)> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let read = |thread: std::fs::DirEntry| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        let fields: Vec<i64> = stat.rsplit_once(')')?.1.split_whitespace().skip(1).map(|n| n.parse().unwrap_or(-1)).collect();
        Some((name.trim().to_owned(), i32::try_from(fields[15]).ok()?, i32::try_from(fields[37]).ok()?))
    };
    threads.filter_map(|thread| read(thread.ok()?)).collect()
}

#[tokio::test]
async fn realtime_priority_is_taken_by_a_roles_own_threads_or_refused_in_words() {
    const ROUND_ROBIN: i32 = 2;
    let args = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--priority", "realtime"];
    let mut without = Command::new("prlimit");
    if nix::unistd::geteuid().is_root() {
        without = Command::new("setpriv");
        without.args(["--bounding-set=-sys_nice", "prlimit"]);
    }
    let (code, _, stderr) = ended(without.args(["--rtprio=0", env!("CARGO_BIN_EXE_lasthit")]).args(args));
    let last = stderr.lines().last().unwrap_or_default();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(last.starts_with("lasthit: --priority realtime: ") && last.contains("LimitRTPRIO"), "{stderr}");
    if !Command::new("chrt").args(["-r", "1", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return;
    }
    let serve = GatewayProcess::serve(&["--priority", "realtime"]);
    // A thread that may block loads the room.
    let _ann = serve.ticket("pit", "ann").join().await;
    let own = ["lasthit", "worker"];
    let others = threads(serve.process.id()).into_iter().filter(|(name, ..)| !own.contains(&name.as_str())).count();
    assert!(others > 0);
    for (name, nice, policy) in threads(serve.process.id()) {
        let is_own = own.contains(&name.as_str());
        assert_eq!(policy == ROUND_ROBIN, is_own, "{name}");
        // What these inherit of the tests' nice value means nothing to real-time threads, and Linux resets it in those that they start.
        assert!(is_own || nice == 0, "{name}: {nice}");
    }
}

#[test]
fn it_says_at_start_that_roles_are_believed_and_ends_on_sigint() {
    let mut serve = GatewayProcess::serve(&[]);
    assert!(serve.process.line_with("no jwt key").contains("role=server"));
    serve.process.signal("INT");
    assert_eq!(serve.process.code(), Some(0));
}

#[test]
fn a_taken_address_is_a_failure_while_running() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    let (code, _, stderr) = ended(&mut program(&["serve", "--listen", "127.0.0.1:0", "--admin", &address]));
    let last = stderr.lines().last().unwrap_or_default();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(last.starts_with(&format!("lasthit: admin cannot listen on {address}")) && last.contains("--admin"), "{last}");
}

#[test]
#[ignore = "is the child process of the next test"]
fn child_that_never_drains() {
    let runtime = lasthit::internals::runtime::worker(lasthit::internals::runtime::Priority::Normal).expect("runtime");
    runtime.block_on(async {
        let shutdown = lasthit::shutdown::Shutdown::new();
        shutdown.watch_signals().expect("signals");
        eprintln!("watching");
        shutdown.requested().await;
        eprintln!("draining");
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let this = std::env::current_exe().expect("this test");
    let mut child = Process::of(Command::new(this).args(["--exact", "cli::child_that_never_drains", "--ignored", "--nocapture"]));
    child.line_with("watching");
    child.signal("TERM");
    child.line_with("draining");
    child.signal("TERM");
    assert_eq!(child.code(), Some(1));
}
