//! Commands to a running supervisor: what they change, what they say, and how they end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::json;

use super::{Home, Row, Up, runs};
use crate::support::{end_by_signal, get, redis, until};

fn names(rows: &[Row]) -> Vec<(&str, &str)> {
    rows.iter().map(|row| (row.name(), row.phase())).collect()
}

#[tokio::test]
async fn roles_get_more_and_fewer_processes() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &["--drain-window", "200ms"]);
    assert_eq!(up.ask(&["scale", "gateway", "3"]).done(), ["gateway-3 is ready"]);
    let mut more = up.ask(&["scale", "workers", "4"]).done();
    more.sort();
    assert_eq!(more, ["worker-3 is ready", "worker-4 is ready"]);
    up.all_ready(7);
    // The highest numbers go.
    let mut fewer = up.ask(&["scale", "worker", "1"]).done();
    fewer.sort();
    assert_eq!(fewer, ["worker-2 has ended", "worker-3 has ended", "worker-4 has ended"]);
    assert!(up.ask(&["scale", "worker", "1"]).done().is_empty(), "it has one");
    assert_eq!(up.ask(&["scale", "gateway", "auto:1..2"]).done(), ["gateway-3 has ended"]);
    assert_eq!(names(&up.ps()), [("gateway-1", "ready"), ("gateway-2", "ready"), ("worker-1", "ready")]);
    // Nobody is left over.
    assert_eq!(up.children().len(), 3);
    let mut ann = up.ticket("claim-1", "ann").join().await;
    assert_eq!(ann.ask("claim", "1", "hat", json!(null)).await["outcome"], "granted");

    for (args, expected) in [
        (["worker", "9"], "worker: 9 processes and 8 shards: give at most 8 workers, each needs a shard"),
        (["worker", "auto:1..9"], "worker: 9 processes and 8 shards: give at most 8 workers, each needs a shard"),
        (["gateway", "129"], "\"129\" does not fit: use auto, a whole number from 0 to 128, or auto:MIN..MAX"),
        (["gateway", "many"], "\"many\" does not fit: use auto, a whole number from 0 to 128, or auto:MIN..MAX"),
        (["gateway", "auto:3..2"], "\"auto:3..2\" is no range: use auto:MIN..MAX such as auto:1..6, from 1 to 128"),
        (["gateway", "auto"], "auto is what `lasthit up` begins with: give a number, or auto:MIN..MAX"),
        (["fish", "1"], "\"fish\" is no group of processes: use gateway, worker, or a deployment before them as in eu/gateway"),
        (["eu/gateway", "1"], "eu/gateway is not there: there is worker, gateway"),
    ] {
        assert_eq!(up.ask(&["scale", args[0], args[1]]).refused(1), expected);
    }
    assert_eq!(up.ask(&["scale", "gateway", "0"]).done().len(), 2);
    let nothing = up.ask(&["scale", "worker", "0"]).refused(1);
    assert_eq!(nothing, "gateway: 0, and worker: 0: there is nothing to run, give one of them at least 1");
    assert_eq!(names(&up.ps()), [("worker-1", "ready")]);
}

#[tokio::test]
async fn processes_are_stopped_started_replaced_and_deleted() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &["--drain-window", "200ms"]);
    let before = up.ps();
    let pid = |name: &str| before.iter().find(|row| row.name() == name).and_then(Row::pid).expect("a pid");

    assert_eq!(up.ask(&["stop", "gateway-1", "worker-1"]).done(), ["gateway-1 has ended", "worker-1 has ended"]);
    let rows = up.ps();
    let phases = [("gateway-1", "stopped"), ("gateway-2", "ready"), ("worker-1", "stopped"), ("worker-2", "ready")];
    assert_eq!(names(&rows), phases);
    assert!(!runs(pid("gateway-1")) && !runs(pid("worker-1")) && rows[0].pid().is_none());
    // To be asked to stop is no crash.
    assert!(rows.iter().all(|row| row.crashes() == 0 && row.last_end().is_empty()), "{rows:?}");
    let mut ann = up.ticket("claim-1", "ann").join().await;
    assert_eq!(ann.ask("claim", "1", "hat", json!(null)).await["outcome"], "granted");
    assert_eq!(up.ask(&["recycle", "worker-1"]).done(), ["worker-1 is not ready, and stays as it is"]);
    let mut started = up.ask(&["start", "all"]).done();
    started.sort();
    assert_eq!(started, ["gateway-1 is ready", "gateway-2 is ready", "worker-1 is ready", "worker-2 is ready"]);
    assert_eq!((up.pid("gateway-2"), up.pid("worker-2")), (pid("gateway-2"), pid("worker-2")), "they ran already");

    for command in ["restart", "recycle"] {
        let before = up.pid("worker-2");
        let lines = up.ask(&[command, "worker-2"]).done();
        let [first, second] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(first, "worker-2: a new one is started");
        assert!(
            second.starts_with("worker-2: the new one (child ") && second.ends_with(") is ready, the old one leaves"),
            "{second}"
        );
        let row = up.replaced("worker-2", before);
        assert_eq!((row.crashes(), row.generation()), (0, 1));
        until("the old one is gone", || (!runs(before)).then_some(()));
    }
    // All, one after the other, workers first.
    let lines = up.ask(&["restart", "gateway", "worker-1..2"]).done();
    let begun: Vec<&str> = lines.iter().filter_map(|line| line.strip_suffix(": a new one is started")).collect();
    assert_eq!(begun, ["worker-1", "worker-2", "gateway-1", "gateway-2"]);
    up.all_ready(4);

    assert_eq!(up.ask(&["delete", "gateway-2"]).done(), ["gateway-2 has ended"]);
    assert_eq!(names(&up.ps()), [("gateway-1", "ready"), ("worker-1", "ready"), ("worker-2", "ready")]);
    for (command, name) in
        [("stop", "gateway-2"), ("start", "gateway-3"), ("delete", "fish"), ("restart", "worker-0"), ("recycle", "eu/all")]
    {
        let line = up.ask(&[command, name]).refused(1);
        assert_eq!(line, format!("{name:?} is no process: there is worker-1..2, gateway-1"), "{command}");
    }
    // A wrong name among right ones: nothing is done.
    up.ask(&["stop", "gateway-1", "gateway-2"]).refused(1);
    assert_eq!(up.row("gateway-1").phase(), "ready");
    assert!(up.ask(&["stop"]).refused(2).contains("<NAME>"));
    let json = up.ask(&["stop", "gateway-1", "--json"]).done();
    assert_eq!(json, ["{\"progress\":\"gateway-1 has ended\"}", "\"done\""]);
}

/// One replacement at a time, and whoever asks meanwhile is told so.
#[tokio::test]
async fn commands_that_come_at_the_same_time_wait_or_are_refused() {
    let redis = redis(&[]);
    let mut up = Up::of(Home::new(), &redis, &["--admin", "127.0.0.1:0"]);
    let admin = up.process.address_in("health and metrics on http://");
    up.all_ready(4);
    // The new one cannot become ready, as the journal does not answer.
    end_by_signal(redis.pid(), "STOP");
    let restart = up.asks(&["restart", "worker-1"]);
    until("it is being replaced", || (up.ps().len() == 5).then_some(()));
    assert_eq!(
        up.ask(&["recycle", "gateway"]).refused(1),
        "a restart (0 of 1 replaced) is under way: ask again when it has ended"
    );
    assert_eq!(up.ask(&["reload"]).refused(1), "a restart (0 of 1 replaced) is under way: ask again when it has ended");
    assert_eq!(get(admin, "/readyz"), (200, "ready\n".to_owned()), "the old one does the work");
    end_by_signal(redis.pid(), "CONT");
    restart.join().expect("restarted").done();
    // Two may ask for the end. One hears of it, and so does the other if it does not come too late.
    let both = [up.asks(&["down"]), up.asks(&["down"])];
    let refused = both.map(|down| down.join().expect("down")).into_iter().filter(|said| said.code != Some(0)).count();
    assert!(refused < 2);
    assert_eq!(up.process.code(), Some(0));
    assert!(TcpStream::connect(up.address).is_err());
}

/// Whoever follows the logs, for however long, takes no place from commands.
#[test]
fn followers_of_the_logs_keep_nobody_out() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    let follow = || {
        let mut stream = UnixStream::connect(up.home.control()).expect("connected");
        stream.write_all(b"GET /v1/logs?follow HTTP/1.1\r\nhost: lasthit\r\n\r\n").expect("asked");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        head.ends_with(b" 200").then_some(stream)
    };
    let followers: Vec<_> = (0..16).map(|number| follow().unwrap_or_else(|| panic!("{number}"))).collect();
    assert_eq!(up.ps().len(), 4);
    assert_eq!(up.ask(&["logs", "--follow"]).refused(1), "16 follow the logs already: end one of them");
    assert_eq!(up.ask(&["stop", "worker-1"]).done(), ["worker-1 has ended"]);
    drop(followers);
    until("there is a place again", follow);
}
