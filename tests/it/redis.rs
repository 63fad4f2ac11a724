//! A Redis that is not fit, or in which a room is damaged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use lasthit::journal::redis::shard_key;
use lasthit::types::ShardId;
use serde_json::json;

use super::outages::tell;
use super::support::{GatewayProcess, Process, WorkerProcess, redis, until};

/// Both roles end with one line that holds all of `words`, and without the password.
pub(super) fn refused(url: &str, words: &[&str]) {
    let roles = [&["gateway", "--listen", "127.0.0.1:0", "--admin", "none"][..], &["worker"][..]];
    for process in roles.map(|role| Process::start(&[role, &["--redis", url][..]].concat(), &[])) {
        let line = process.fails(1);
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
        assert!(!line.contains("hush"), "{line}");
    }
}

/// It may come: it is waited for before they end.
#[test]
fn one_that_is_missing() {
    // Bound and not listening: it refuses connections, and no other test gets the port.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let free = held.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    std::thread::scope(|scope| {
        scope.spawn(|| refused(&format!("redis://user:hush@{free}"), &["no redis at", &free.to_string(), "start one there"]));
        scope.spawn(|| refused("unix:///nowhere/redis.sock", &["no redis at unix:///nowhere/redis.sock"]));
    });
}

/// While it is waited for they say so, and end when they are asked to.
#[test]
fn one_that_never_comes() {
    for role in ["gateway", "worker"] {
        let args = [role, "--redis", "unix:///nowhere/redis.sock", "--admin", "127.0.0.1:0"];
        let mut process = Process::start(&args, &[]);
        process.line_with("waiting for redis");
        process.signal("TERM");
        assert_eq!(process.code(), Some(0));
    }
}

#[test]
fn one_that_refuses_the_password() {
    let redis = redis(&["--requirepass", "secret"]);
    refused(&redis.url(), &["user or password", "url"]);
    refused(&format!("{}?pass=hush", redis.url()), &["user or password", "url"]);
    let url = format!("{}?pass=secret", redis.url());
    let gateway = Process::start(&["gateway", "--redis", &url, "--listen", "127.0.0.1:0", "--admin", "none"], &[]);
    gateway.line_with("open http://");
}

#[test]
fn one_that_is_too_old() {
    let address = fake_redis("6.2.14", false);
    refused(&format!("redis://{address}"), &[&address.to_string(), "6.2.14", "7.0 or newer is needed: upgrade it"]);
    // As the node of a cluster that has all slots.
    let node = fake_redis("6.2.14", true);
    refused(&format!("redis+cluster://{node}"), &[&format!("redis://{node}"), "6.2.14", "7.0 or newer is needed: upgrade it"]);
}

/// A cluster has nodes, and its URL names some.
#[test]
fn one_that_no_url_of_a_cluster_names() {
    for url in ["redis+cluster://", "rediss+cluster:///0", "redis+cluster://user:hush@"] {
        for role in ["gateway", "worker"] {
            let line = Process::start(&[role, "--redis", url], &[]).fails(2);
            let says = ["names no node of a cluster", "redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT"];
            assert!(says.iter().all(|word| line.contains(word)) && !line.contains("hush"), "{line}");
        }
    }
}

#[test]
fn one_that_evicts() {
    let redis = redis(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    refused(&redis.url(), &["allkeys-lru", "noeviction"]);
}

#[test]
fn one_that_is_a_replica() {
    let redis = redis(&["--replicaof", "127.0.0.1", "1"]);
    refused(&redis.url(), &["slave", "primary"]);
}

#[test]
fn one_that_is_full() {
    let redis = redis(&["--maxmemory", "1"]);
    refused(&redis.url(), &["full", "maxmemory"]);
}

#[test]
fn one_with_another_number_of_shards() {
    let redis = redis(&[]);
    let _gateway = GatewayProcess::on(&redis, &[]);
    let worker = Process::start(&["worker", "--redis", &redis.url(), "--shards", "5"], &[]);
    let line = worker.fails(1);
    assert!(line.contains('5') && line.contains('8'), "{line}");
}

#[test]
fn one_that_keeps_less_than_is_wanted() {
    let redis = redis(&["--appendonly", "yes"]);
    for role in [&["gateway", "--listen", "127.0.0.1:0", "--admin", "none"][..], &["worker"]] {
        for (level, fix) in [("disk", "CONFIG SET appendfsync always"), ("replicated", "CONFIG SET min-replicas-to-write 1")] {
            let flags = ["--redis", &redis.url(), "--durability", level];
            let line = Process::start(&[role, &flags].concat(), &[]).fails(1);
            assert!(line.contains(&format!("durability {level} needs")) && line.contains(fix), "{line}");
        }
    }
    let _gateway = GatewayProcess::on(&redis, &[]);
}

#[test]
fn one_whose_deployment_has_another_durability() {
    let redis = redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    let _gateway = GatewayProcess::on(&redis, &["--durability", "disk"]);
    let line = Process::start(&["worker", "--redis", &redis.url()], &[]).fails(1);
    assert!(line.contains("has durability disk") && line.contains("--durability disk"), "{line}");
}

/// Somebody writes over a key of one room. It rests, by name; the others on its gateway, shard and worker go on. Mended, it
/// goes on itself.
#[tokio::test]
async fn one_in_which_a_room_is_damaged() {
    for key in ["room", "state", "out"] {
        let redis = redis(&[]);
        // One shard: whatever a damaged room would stop, it would stop for all.
        let (gateway, worker) = (GatewayProcess::on(&redis, &["--shards", "1"]), WorkerProcess::on(&redis, &["--shards", "1"]));
        let mut ann = gateway.ticket("claim-bad", "ann").join().await;
        let mut bob = gateway.ticket("claim-good", "bob").join().await;
        assert_eq!(ann.ask("claim", "before", "a", json!(null)).await["outcome"], "granted");
        let name = shard_key(ShardId(0), 1, &format!("{key}:claim-bad"));
        tell(&redis, &["RENAME", &name, "lasthit:aside"]);
        tell(&redis, &["SET", &name, "not ours"]);
        ann.act("claim", "meanwhile", "b", json!(null)).await;
        for round in 0..20 {
            let id = round.to_string();
            assert_eq!(bob.ask("claim", &id, &id, json!(null)).await["outcome"], "granted", "{key}");
        }
        if key == "out" {
            // What was accepted stays accepted, and waits.
            worker.process.line_with("room claim-bad cannot be continued");
            until("the resting room is counted", || (worker.metric("lasthit_rooms_quarantined") == 1.0).then_some(()));
        } else {
            gateway.process.line_with("rooms are damaged in the journal, and their sessions were dismissed: claim-bad");
        }
        assert_eq!(ann.close_code().await.0, 1013, "{key}: sent away, not accepted and lost");
        tell(&redis, &["RENAME", "lasthit:aside", &name]);
        until("the room is brought back", || (worker.metric("lasthit_rooms_quarantined") == 0.0).then_some(()));
        let mut again = gateway.ticket("claim-bad", "ann").join().await;
        if key == "out" {
            assert_eq!(again.ask("claim", "meanwhile", "b", json!(null)).await["outcome"], "granted");
        }
        assert_eq!(
            again.ask("claim", "after", "b", json!(null)).await["outcome"],
            if key == "out" { "denied" } else { "granted" }
        );
        until("no room rests", || (worker.metric("lasthit_rooms_quarantined") == 0.0).then_some(()));
        assert_eq!((gateway.ready().0, worker.ready().0), (200, 200), "{key}");
    }
}

/// Somebody writes over the record of one shard before anybody owns it: the worker says so, and takes the others.
#[test]
fn one_in_which_a_shard_is_damaged() {
    for (field, garbage) in [("commit", "garbage"), ("owner", "garbage"), ("epoch", "1.5"), ("home", "garbage")] {
        let (redis, shard) = (redis(&[]), shard_key(ShardId(1), 3, "shard"));
        tell(&redis, &["HSET", &shard, "owner", &"7".repeat(32), "epoch", "1", "commit", "1"]);
        tell(&redis, &["HSET", &shard, field, garbage]);
        let worker = WorkerProcess::on(&redis, &["--shards", "3"]);
        let line = worker.process.line_with("claim shard");
        assert!(line.contains(&format!("{shard} is damaged")), "{line}");
        until("the other shards are owned", || (worker.metric("lasthit_shards_owned") == 2.0).then_some(()));
        assert!(worker.metric("lasthit_journal_errors_total") > 0.0, "{field}");
    }
}

/// A server that speaks just enough to say its version, perhaps as the only node of a cluster. Ends with the test's process.
fn fake_redis(version: &'static str, is_node: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(connection, version, is_node.then_some(address)));
        }
    });
    address
}

fn answer(connection: TcpStream, version: &str, node: Option<SocketAddr>) -> Option<()> {
    let mut commands = BufReader::new(connection.try_clone().ok()?).lines().map_while(Result::ok);
    let mut connection = connection;
    loop {
        let parts: usize = commands.next()?.strip_prefix('*')?.parse().ok()?;
        let mut words = (0..parts).filter_map(|_| commands.nth(1)).collect::<Vec<_>>().into_iter();
        let said = match (words.next()?.to_ascii_uppercase().as_str(), node) {
            ("INFO", node) => {
                let cluster = u8::from(node.is_some());
                Some(format!(
                    "redis_version:{version}\r\nloading:0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:{cluster}\r\n"
                ))
            }
            ("CLUSTER", Some(at)) => {
                let id = "7".repeat(40);
                Some(format!("{id} {at}@{} myself,master - 0 0 1 connected 0-16383\n", at.port()))
            }
            _ => None,
        };
        let answer = said.map_or_else(|| "+OK\r\n".to_owned(), |said| format!("${}\r\n{said}\r\n", said.len()));
        connection.write_all(answer.as_bytes()).ok()?;
    }
}
