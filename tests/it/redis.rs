//! A Redis that is not fit.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::support::{Gateway, Process, redis};

/// Both roles end at once with one line that holds all of `words`, and without the password.
fn refused(url: &str, words: &[&str]) {
    for role in [&["gateway", "--listen", "127.0.0.1:0", "--admin", "none"][..], &["worker"][..]] {
        let process = Process::start(&[role, &["--redis", url][..]].concat(), &[]);
        let line = process.fails(1);
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
        assert!(!line.contains("hush"), "{line}");
    }
}

#[test]
fn one_that_is_missing() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    refused(&format!("redis://user:hush@{free}"), &["no redis at", &free.to_string(), "start one there"]);
    refused("unix:///nowhere/redis.sock", &["no redis at unix:///nowhere/redis.sock"]);
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
    let address = fake_redis("6.2.14");
    refused(&format!("redis://{address}"), &["6.2.14", "7.0 or newer"]);
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
    let _gateway = Gateway::on(&redis, &[]);
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
    let _gateway = Gateway::on(&redis, &[]);
}

#[test]
fn one_whose_deployment_has_another_durability() {
    let redis = redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    let _gateway = Gateway::on(&redis, &["--durability", "disk"]);
    let line = Process::start(&["worker", "--redis", &redis.url()], &[]).fails(1);
    assert!(line.contains("has durability disk") && line.contains("--durability disk"), "{line}");
}

/// A server that speaks just enough to say its version. Ends with the test's process.
fn fake_redis(version: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(connection, version));
        }
    });
    address
}

fn answer(connection: TcpStream, version: &str) -> Option<()> {
    let mut commands = BufReader::new(connection.try_clone().ok()?).lines().map_while(Result::ok);
    let mut connection = connection;
    loop {
        let parts: usize = commands.next()?.strip_prefix('*')?.parse().ok()?;
        let mut words = (0..parts).filter_map(|_| commands.nth(1)).collect::<Vec<_>>().into_iter();
        let answer = if words.next()?.eq_ignore_ascii_case("INFO") {
            let info = format!("redis_version:{version}\r\nloading:0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n");
            format!("${}\r\n{info}\r\n", info.len())
        } else {
            "+OK\r\n".to_owned()
        };
        connection.write_all(answer.as_bytes()).ok()?;
    }
}
