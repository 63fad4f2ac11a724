//! What somebody gets wrong: one line that says what, and what to do.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::{Home, Said, Up, shown};
use crate::support::{PATIENCE, redis, until};

#[test]
fn what_cannot_be_run_is_refused_before_anything_runs() {
    let redis = redis(&[]);
    let (home, url) = (Home::new(), redis.url());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let missing = shown(&home.file("missing.toml"));
    let broken = home.write("broken.toml", "gateways = \n");
    let both = home.write("both.toml", "gateways = 2\nhang_timeout = \"1s\"\n");
    let same = home.write("same.toml", "prefix = \"p\"\n[deployments.eu]\n[deployments.us]\n");
    for (code, args, expected) in [
        (
            1,
            &["--gateways", "0", "--workers", "0"][..],
            "gateway: 0, and worker: 0: there is nothing to run, give one of them at least 1",
        ),
        (1, &["--workers", "9"], "worker: 9 processes and 8 shards: give at most 8 workers, each needs a shard"),
        (
            2,
            &["--gateways", "many"],
            "--gateways: \"many\" does not fit: use auto, a whole number from 0 to 128, or auto:MIN..MAX",
        ),
        (2, &["--workers", "auto:2..1"], "--workers: \"auto:2..1\" is no range"),
        (2, &["--hang-timeout", "1s"], "--hang-timeout: \"1s\""),
        (2, &["--drain-window", "1h"], "--drain-window: \"1h\""),
        (2, &["--even", "perhaps"], "--even: \"perhaps\""),
        (2, &["--worker-command", " "], "--worker-command: \" \" names no program"),
        (1, &["--worker-command", "./no-worker --fast"], "worker_command: \"./no-worker\" cannot be run (No such file"),
        (1, &["--worker-command", "/etc/passwd"], "worker_command: \"/etc/passwd\" cannot be run (it is no program"),
        (2, &["--recycle-memory", "1GB"], "--recycle-memory: \"1GB\" is not a size"),
        (1, &["--listen", &taken], "cannot listen on "),
        (1, &["--admin", &taken], "cannot listen on "),
        (1, &["--control", "/proc/nowhere/sock"], "the control socket \"/proc/nowhere/sock\" cannot be made"),
        (2, &["--config", &missing], "missing.toml\" cannot be read"),
        (2, &["--config", &broken], "broken.toml"),
        (2, &["--config", &both], "hang_timeout"),
        (2, &["--config", &same], "same.toml, prefix: \"eu\" and \"us\" have the same redis (unix://"),
    ] {
        let has = |flag: &str| args.contains(&flag);
        let (control, folder) = (shown(&home.control()), shown(home.0.path()));
        let mut all = vec!["up", "--redis", &url, "--runtime-dir", &folder, "--log", "error"];
        for (flag, value) in [("--listen", "127.0.0.1:0"), ("--admin", "none"), ("--control", &control)] {
            if !has(flag) {
                all.extend([flag, value]);
            }
        }
        all.extend(args);
        let line = Said::of(&all).refused(code);
        assert!(line.contains(expected), "{args:?}: {line}");
        assert!(!home.control().exists(), "{args:?} leaves no socket");
    }
}

/// Redis has the deployment with other settings than these: nothing but a change of them helps.
#[test]
fn what_the_deployment_refuses_is_not_tried_again() {
    let redis = redis(&[]);
    drop(Up::on(&redis, &["--shards", "4"]));
    let up = Up::of(Home::new(), &redis, &["--admin", "none", "--shards", "8"]);
    let rows = until("all have failed", || {
        let rows = up.ps();
        rows.iter().all(|row| row.phase() == "failed").then_some(rows)
    });
    for row in rows {
        assert_eq!((row.crashes(), row.last_end()), (1, "ended with code 2 before it was ready"), "{row:?}");
        let said = up.process.line_with(&format!("{:<10} | lasthit: ", row.name()));
        assert!(said.contains("has 4 shards, and 8 are configured"), "{said}");
    }
}

#[test]
fn a_second_one_on_the_same_socket_is_refused() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    let before = up.children();
    let url = redis.url();
    let second = up.home.start(&["--redis", &url, "--listen", "127.0.0.1:0", "--admin", "none"], &[]);
    let line = second.fails(1);
    assert!(
        line.contains("supervisor.sock\" is answered by another supervisor: stop it, or give this one --control PATH"),
        "{line}"
    );
    assert!(up.home.control().exists() && up.children() == before);
    up.all_ready(4);
}

/// Only a socket that nobody answers is taken away.
#[test]
fn a_file_in_the_control_sockets_place_is_kept() {
    let home = Home::new();
    let notes = home.write("supervisor.sock", "notes\n");
    let line = home.start(&["--redis", "unix:///nowhere", "--listen", "127.0.0.1:0", "--admin", "none"], &[]).fails(1);
    assert!(line.contains("supervisor.sock\" cannot be made (Address already in use"), "{line}");
    assert_eq!(std::fs::read_to_string(notes).expect("it is there"), "notes\n");
}

#[test]
fn a_supervisor_that_does_not_answer_is_not_waited_for() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    up.process.signal("STOP");
    let line = up.ask(&["ps"]).refused(1);
    up.process.signal("CONT");
    assert!(line.starts_with("the supervisor does not answer within 5 s"), "{line}");
    up.all_ready(4);
}

#[test]
fn a_child_is_started_by_a_supervisor_alone() {
    let line = Said::of(&["child", "gateway-1"]).refused(2);
    assert_eq!(line, "stdin is no supervisor's channel: children are started by `lasthit up`");
}

/// Sends bytes to the control socket; what comes back, if anything does.
fn send(home: &Home, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(home.control()).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn garbage_on_the_control_socket_changes_nothing() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    let before = up.children();
    let post = |path: &str, body: &str| {
        let bytes = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        send(&up.home, bytes.as_bytes())
    };
    send(&up.home, &[0xff; 4096]);
    send(&up.home, b"up up up\r\n\r\n");
    let much = "x".repeat(5 * 1024 * 1024);
    for (path, body, expected) in [
        ("/v1/stop", "", "the body is not {\"names\": [\"gateway-1\", ...]}"),
        ("/v1/stop", "{\"names\": []}", "0 names: give 1 to 256"),
        ("/v1/stop", "{\"names\": [\"gateway-1\"], \"more\": 1}", "unknown field `more`"),
        ("/v1/scale", "[]", "the body is not {\"group\": \"gateway\", \"count\": \"3\"}"),
        ("/v1/stop", &much, "send at most 65536 bytes"),
    ] {
        let answer = post(path, body);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(expected), "{path}: {answer}");
    }
    assert!(post("/v1/fly", "{}").starts_with("HTTP/1.1 404 "));
    let many = format!("{{\"names\": [{}\"all\"]}}", "\"gateway-1\", ".repeat(256));
    assert!(post("/v1/stop", &many).contains("257 names: give 1 to 256"));
    assert!(send(&up.home, b"DELETE /v1/processes HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(send(&up.home, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).as_bytes()).lines().count() < 20);
    // Some say nothing, and one does not read on. There is room for the others.
    let connect = || UnixStream::connect(up.home.control()).expect("connected");
    let silent: Vec<UnixStream> = (0..8).map(|_| connect()).collect();
    let follower = UnixStream::connect(up.home.control()).expect("connected");
    (&follower).write_all(b"GET /v1/logs?follow HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    assert_eq!(up.children(), before);
    up.all_ready(4);
    drop((silent, follower));
    // Some promise more than they send, on every place that there is. They lose it.
    let promises: Vec<UnixStream> = (0..20).map(|_| connect()).collect();
    for mut stream in &promises {
        stream.write_all(b"POST /v1/end HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").expect("sent");
    }
    until("there is room again", || (up.ask(&["ps"]).code == Some(0)).then_some(()));
    drop(promises);
    assert_eq!(up.ask(&["stop", "gateway-1"]).done(), ["gateway-1 has ended"]);
}
