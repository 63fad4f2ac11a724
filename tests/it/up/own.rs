//! Workers and supervisors that are programs of somebody else: the examples.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Home, Up, kill, runs, shown};
use crate::support::{Process, redis, until};

/// A program that cargo built along with this test: examples lie beside the `deps` that this one runs from.
fn example(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("this test");
    let path = me.ancestors().nth(2).expect("target/<profile>/deps/<test>").join("examples").join(name);
    assert!(path.is_file(), "{} is missing: build it with `cargo build --examples`", path.display());
    path
}

/// What a bid of the auction comes to: the outcome, and the highest bid.
async fn bid(up: &Up, player: &str, amount: u64) -> (String, Value) {
    let mut session = up.ticket("art", player).join().await;
    let verdict = session.ask("bid", &format!("bid-{amount}"), "vase", json!(amount)).await;
    (verdict["outcome"].as_str().expect("an outcome").to_owned(), verdict["body"].clone())
}

fn granted(amount: u64) -> (String, Value) {
    ("granted".to_owned(), json!(amount))
}

/// It is watched, replaced and ended like the built-in one, and decides by its own rules.
#[tokio::test]
async fn a_worker_of_somebody_else_is_supervised() {
    let redis = redis(&[]);
    let home = Home::new();
    let worker = shown(&home.file("auctioneer"));
    std::fs::copy(example("embed_worker"), &worker).expect("copied");
    let mut up = Up::of(home, &redis, &["--admin", "none", "--worker-command", &format!("{worker} --fast")]);
    let rows = up.all_ready(4);
    let command_line = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a process");
    let pid = up.pid("worker-1");
    assert_eq!(command_line(pid), format!("{worker}\0--fast\0"));
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("a process"), "auctioneer\n");
    assert!(command_line(up.pid("gateway-1")).ends_with("lasthit\0child\0gateway-1\0"));
    assert_eq!(bid(&up, "ann", 100).await, granted(100));
    let low = bid(&up, "bob", 99).await;
    assert_eq!(low, ("denied".to_owned(), json!(100)));
    until("it says how much it does", || {
        up.ps().iter().any(|row| row.name().starts_with("worker") && row.actions_per_s() > 0.0).then_some(())
    });

    // Killed, it comes again, and knows what was bid.
    for row in rows.iter().filter(|row| row.name().starts_with("worker")) {
        let pid = row.pid().expect("it runs");
        kill(pid);
        assert_eq!(up.replaced(row.name(), pid).last_end(), "was ended by signal 9");
    }
    assert_eq!(bid(&up, "ann", 101).await, granted(101));

    // A reload takes what lies at its path by then.
    let before: Vec<_> = up.ps().iter().filter_map(super::Row::pid).collect();
    std::fs::rename(&worker, up.home.file("away")).expect("moved");
    let line = up.ask(&["reload"]).refused(1);
    let expected = format!("nothing is changed: worker_command: {worker:?} cannot be run (No such file or directory");
    assert!(line.starts_with(&expected) && line.ends_with("name a program that is there and may be run"), "{line}");
    // What runs is an open file: it is started from that, wherever it lies.
    let pid = up.pid("worker-2");
    kill(pid);
    up.replaced("worker-2", pid);
    std::fs::rename(up.home.file("away"), &worker).expect("moved back");
    up.ask(&["reload"]).done();
    let after = up.all_ready(4);
    assert!(after.iter().all(|row| row.pid().is_some_and(|pid| !before.contains(&pid)) && row.generation() == 2), "{after:?}");
    assert_eq!(bid(&up, "bob", 102).await, granted(102));

    let children = up.children();
    up.ask(&["down"]).done();
    assert_eq!(up.process.code(), Some(0), "each of them ended by itself");
    assert!(children.iter().all(|pid| !runs(*pid)), "{children:?}");
}

/// What is no child of a supervisor does not wait for one, and one that is no worker is not taken for one.
#[test]
fn a_program_that_does_not_attach_is_not_taken_for_ready() {
    let redis = redis(&[]);
    let up = Up::of(Home::new(), &redis, &["--admin", "none", "--ready-timeout", "2s", "--worker-command", "sleep 3600"]);
    let row = until("it is given up", || Some(up.row("worker-1")).filter(|row| row.crashes() > 0));
    assert_eq!(row.last_end(), "was not ready within 2 s, and was killed");
    until("the gateways are ready", || (up.row("gateway-2").phase() == "ready").then_some(()));
}

/// Its gateways and workers are the same program, with its own rules; its settings are asked for again at each reload.
#[tokio::test]
async fn a_program_is_its_own_supervisor() {
    let redis = redis(&[]);
    let home = Home::new();
    let program = shown(&home.file("game"));
    std::fs::copy(example("embed_supervisor"), &program).expect("copied");
    let free = servers::free_address().expect("a port");
    let (control, folder, url) = (shown(&home.control()), shown(home.0.path()), redis.url());
    let file = |workers: &str| {
        format!(
            "redis = \"{url}\"\nlisten = \"{free}\"\nadmin = \"none\"\ncontrol = \"{control}\"\nruntime_dir = \"{folder}\"\n\
             gateways = 1\nworkers = {workers}\n"
        )
    };
    let path = home.write("game.toml", &file("1"));
    let process = Process::of(std::process::Command::new(&program).arg(&path));
    let mut up = Up { process, address: free, home };
    until("it answers", || (up.ask(&["ps"]).code == Some(0)).then_some(()));
    up.all_ready(2);
    for name in ["gateway-1", "worker-1"] {
        let text = std::fs::read_to_string(format!("/proc/{}/cmdline", up.pid(name))).expect("a process");
        assert_eq!(text, format!("game\0child\0{name}\0"));
    }
    let mut ann = up.ticket("room", "ann").join().await;
    for n in 1..=3 {
        assert_eq!(ann.ask("any", &n.to_string(), "thing", json!(null)).await["body"], n, "its own rules");
    }

    let before = up.children();
    up.home.write("game.toml", &file("\"many\""));
    let line = up.ask(&["reload"]).refused(1);
    assert!(line.starts_with("nothing is changed: ") && line.contains("\"many\" does not fit"), "{line}");
    std::fs::remove_file(&path).expect("removed");
    let line = up.ask(&["reload"]).refused(1);
    assert!(line.starts_with("nothing is changed: ") && line.contains("game.toml\" cannot be read"), "{line}");
    assert_eq!(up.children(), before);
    up.home.write("game.toml", &file("2"));
    up.ask(&["reload"]).done();
    let after = up.all_ready(3);
    assert!(after.iter().all(|row| row.generation() == 2 && row.pid().is_some_and(|pid| !before.contains(&pid))), "{after:?}");
    let mut bob = up.ticket("room", "bob").join().await;
    assert_eq!(bob.ask("any", "1", "thing", json!(null)).await["body"], 4, "the room goes on");

    up.process.signal("TERM");
    assert_eq!(up.process.code(), Some(0));
    let refused = up.ask(&["ps"]).refused(1);
    assert!(refused.contains("no supervisor answers"), "{refused}");
    // What cannot be is said in one line, by the program itself.
    let wrong = up.home.write("game.toml", &file("\"many\""));
    let process = Process::of(std::process::Command::new(&program).arg(&wrong));
    until("it says why", || process.lines().iter().any(|line| line.contains("\"many\" does not fit")).then_some(()));
}
