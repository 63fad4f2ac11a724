//! Several deployments under one supervisor: each has its own players, processes and port, and notices nothing of the others.

use std::net::SocketAddr;

use servers::RedisServer;

use super::player::Player;
use super::{Home, Row, Up, kill};
use crate::support::{Ticket, get, redis, until};

const TOP: &str = "drain_window = \"500ms\"\ngateways = 1\nworkers = 1\nlisten = \"127.0.0.1:0\"\n";

fn table(name: &str, redis: &RedisServer, more: &str) -> String {
    format!("[deployments.{name}]\nredis = \"{}\"\nprefix = \"{name}\"\n{more}\n", redis.url())
}

/// One whose deployments are in its file, and where each of those that are named listens.
fn from_file(file: &str, names: &[&str], processes: usize) -> (Up, Vec<SocketAddr>) {
    let home = Home::new();
    let config = home.write("lasthit.toml", file);
    let process = home.start(&["--config", &config, "--admin", "127.0.0.1:0"], &[]);
    let addresses: Vec<SocketAddr> = names.iter().map(|name| process.address_in(&format!("{name}: open http://"))).collect();
    process.line_with("come in at");
    let up = Up { process, address: addresses[0], home };
    up.all_ready(processes);
    (up, addresses)
}

fn named<'a>(rows: &'a [Row], deployment: &str) -> Vec<(&'a str, Option<u32>, u64)> {
    let own = rows.iter().filter(|row| row.name().starts_with(deployment));
    own.map(|row| (row.name(), row.pid(), row.crashes())).collect()
}

#[tokio::test]
async fn deployments_are_played_beside_each_other_and_notice_nothing_of_the_others() {
    let (shared, own) = (redis(&[]), redis(&[]));
    let rooms = "[[deployments.us.rooms]]\npattern = \"claim-*\"\nrules = \"claim\"";
    let file = [TOP, &table("eu", &shared, "workers = 2"), &table("us", &shared, rooms), &table("solo", &own, "")].concat();
    let (up, addresses) = from_file(&file, &["eu", "us", "solo"], 7);
    let admin = up.process.address_in("health and metrics on http://");
    let mut players = Vec::new();
    for address in &addresses {
        players.push(Player::join(*address, "claim-1", "ann").await);
    }
    for _ in 0..5 {
        for player in &mut players {
            player.play().await;
        }
    }
    players.iter().for_each(Player::is_content);
    // The same room and contest: whoever comes to the same one meets there, though the gateways of the others have fewer sessions.
    let mut sessions = Vec::new();
    for (address, player, outcome) in [
        (addresses[0], "bob", "granted"),
        (addresses[0], "cid", "denied"),
        (addresses[0], "dan", "denied"),
        (addresses[1], "bob", "granted"),
        (addresses[2], "bob", "granted"),
    ] {
        let mut session = Ticket::new(address, "claim-2", player).join().await;
        assert_eq!(session.ask("claim", "1", "hat", serde_json::json!(null)).await["outcome"], outcome, "{player} at {address}");
        sessions.push(session);
    }
    drop(sessions);
    // The rules are those of each.
    Ticket::new(addresses[0], "arena", "bob").join().await.leave(1000).await;

    let before = up.ps();
    let names: Vec<&str> = before.iter().map(Row::name).collect();
    let expected =
        ["eu/gateway-1", "eu/worker-1", "eu/worker-2", "solo/gateway-1", "solo/worker-1", "us/gateway-1", "us/worker-1"];
    assert_eq!(names, expected);
    // One of them loses its processes, and gets more.
    for name in ["eu/gateway-1", "eu/worker-1"] {
        let pid = up.pid(name);
        kill(pid);
        for player in &mut players {
            player.play().await;
        }
        up.replaced(name, pid);
    }
    assert_eq!(up.ask(&["scale", "eu/gateway", "2"]).done(), ["eu/gateway-2 is ready"]);
    assert_eq!(up.ask(&["stop", "eu/worker"]).done().len(), 2);
    assert_eq!(get(admin, "/readyz"), (200, "ready\n".to_owned()), "what is stopped is not missing");
    for player in &mut players[1..] {
        player.play().await;
    }
    up.ask(&["start", "eu/all"]).done();
    assert!(up.ask(&["restart", "eu/gateway-1..2"]).done().len() >= 4);
    for player in &mut players {
        player.play().await;
        player.is_content();
    }
    let after = up.ps();
    for other in ["us/", "solo/"] {
        assert_eq!(named(&before, other), named(&after, other));
    }
    assert_eq!(players.iter().map(|player| player.returns > 0).collect::<Vec<_>>(), [true, false, false]);

    let (_, metrics) = get(admin, "/metrics");
    for process in ["eu/gateway-2", "us/worker-1", "solo/gateway-1"] {
        assert!(metrics.contains(&format!("process=\"{process}\"")), "{process}");
    }
    let us = up.ask(&["logs"]).done().into_iter().filter(|line| line.starts_with("us/worker-1 ")).count();
    assert!(us > 0, "its lines have its name");
    // Of a deployment that has no worker left, the health says which.
    let pid = up.pid("solo/worker-1");
    up.ask(&["stop", "us/worker-1"]).done();
    crate::support::end_by_signal(own.pid(), "STOP");
    kill(pid);
    until("it is missing", || (get(admin, "/readyz") == (503, "solo/worker: none is ready\n".to_owned())).then_some(()));
    crate::support::end_by_signal(own.pid(), "CONT");
    for (args, expected) in [
        (&["restart", "worker-1"][..], "\"worker-1\" is no process: there is eu/worker-1..2, solo/worker-1, us/worker-1, "),
        (&["scale", "worker", "2"], "worker is not there: there is eu/worker, eu/gateway, solo/worker, solo/gateway, us/worker"),
        (&["scale", "eu/worker", "9"], "eu/worker: 9 processes and 8 shards: give at most 8 workers"),
    ] {
        let line = up.ask(args).refused(1);
        assert!(line.starts_with(expected), "{line}");
    }
}

#[tokio::test]
async fn a_reload_brings_a_deployment_and_takes_it_away() {
    let redis = redis(&[]);
    let eu = [TOP, &table("eu", &redis, "")].concat();
    let both = [&eu[..], &table("us", &redis, "")].concat();
    let (up, _) = from_file(&eu, &["eu"], 2);
    let mut ann = Player::join(up.address, "claim-1", "ann").await;
    ann.play().await;
    up.home.write("lasthit.toml", &both);
    up.ask(&["reload"]).done();
    let us = up.process.address_in("us: open http://");
    up.all_ready(4);
    let mut bob = Player::join(us, "claim-1", "bob").await;
    bob.play().await;
    ann.play().await;
    // What its processes share cannot change from now on.
    up.home.write("lasthit.toml", &both.replace("prefix = \"us\"", "prefix = \"as\""));
    let line = up.ask(&["reload"]).refused(1);
    assert!(line.starts_with("nothing is changed: us/prefix cannot change while it runs"), "{line}");
    let eu_pids = ["eu/gateway-1", "eu/worker-1"].map(|name| up.pid(name));
    up.home.write("lasthit.toml", &eu);
    up.ask(&["reload"]).done();
    assert!(up.all_ready(2).iter().all(|row| row.name().starts_with("eu/") && !eu_pids.contains(&row.pid().expect("a pid"))));
    assert!(std::net::TcpStream::connect(us).is_err(), "nobody listens there any more");
    ann.play().await;
    ann.is_content();
    // Redis is managed from the start, or not at all.
    up.home.write("lasthit.toml", &format!("{eu}[deployments.own]\n"));
    let line = up.ask(&["reload"]).refused(1);
    assert!(line.starts_with("nothing is changed: a managed redis of durability disk is brought by a start alone"), "{line}");
    // A port that is another's: nothing has changed.
    let taken = format!("{both}listen = \"{}\"\n", up.address);
    up.home.write("lasthit.toml", &taken);
    let line = up.ask(&["reload"]).refused(1);
    assert!(line.starts_with(&format!("nothing is changed: cannot listen on {}", up.address)), "{line}");
    up.home.write("lasthit.toml", &both);
    up.ask(&["reload"]).done();
    up.all_ready(4);
}
