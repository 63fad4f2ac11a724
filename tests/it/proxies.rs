//! Proxies in front of two hosts, with the configurations of docs/hosts.md and the maps that `lasthit route` prints.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use lasthit::types::{RoomId, ShardId};
use serde_json::json;
use servers::RedisServer;

use super::hosts::{Host, owns, told};
use super::support::{GatewayProcess, Process, Ticket, WorkerProcess, program, redis, until};

/// As many as hosts.rs gives a deployment.
const SHARDS: u16 = 4;

/// Two hosts, each with a gateway and a worker. The last shard is at home on the second one.
struct Deployment {
    redis: RedisServer,
    gateways: [GatewayProcess; 2],
    _workers: [WorkerProcess; 2],
    _hosts: [Host; 2],
}

impl Deployment {
    fn new() -> Self {
        let redis = redis(&[]);
        let (a, b) = (Host::up_for(500_000), Host::up_for(1_000));
        let of_a = GatewayProcess::of(a.gateway(&redis, &["--advertise", "ws://a.example"]));
        let at_a = a.worker(&redis, &[]);
        owns(&at_a, SHARDS.into());
        let of_b = GatewayProcess::of(b.gateway(&redis, &["--advertise", "ws://b.example"]));
        let at_b = b.worker(&redis, &[]);
        until("both hosts are eligible", || {
            let hosts = told(&redis, &["hosts"]);
            let hosts = hosts["hosts"].as_array().expect("hosts");
            (hosts.iter().filter(|host| host["eligible"] == true && host["workers"] == 1).count() == 2).then_some(())
        });
        told(&redis, &["home", "3", "ws://b.example"]);
        owns(&at_b, 1.0);
        Self { redis, gateways: [of_a, of_b], _workers: [at_a, at_b], _hosts: [a, b] }
    }

    /// What `lasthit route --map` prints.
    fn map(&self, words: &[&str]) -> String {
        let output = program(&[&["route", "--map"], words, &["--redis", &self.redis.url()]].concat()).output().expect("run");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Joins a room of each shard through a proxy, under the name that all share. Nobody is sent on.
    async fn joins_through(&self, proxy: SocketAddr, rooms: &[String]) {
        until("the proxy listens", || TcpStream::connect(proxy).ok());
        let before = self.sent_on();
        for room in rooms {
            let mut ann = Ticket::new(proxy, room, "ann").join().await;
            assert_eq!(ann.ask("claim", "1", "a", json!(null)).await["outcome"], "granted", "{room}");
        }
        assert_eq!(self.sent_on(), before);
    }

    /// How many sessions the gateways have closed with 4421.
    fn sent_on(&self) -> f64 {
        self.gateways.iter().map(|gateway| gateway.metric("lasthit_sessions_total{how=\"elsewhere\"}")).sum()
    }
}

/// Of each shard two rooms. Their names have all that names may have.
fn rooms() -> Vec<String> {
    let of = |shard| {
        let names = (0..).map(|n| format!("claim-{n}.R_x"));
        names.filter(move |name| ShardId::of(&RoomId::new(name).expect("a name"), SHARDS) == ShardId(shard)).take(2)
    };
    (0..SHARDS).flat_map(of).collect()
}

/// Whether a program is here; words on stderr, if it is not.
fn is_here(name: &str) -> bool {
    let is_here = Command::new(name).arg("-v").output().is_ok();
    if !is_here {
        eprintln!("skipped: {name} is not here: apt-get install {name}");
    }
    is_here
}

/// The indented block of docs/hosts.md that holds `part`, with what a reader has to fit fitted.
fn recipe(part: &str, listens: (&str, SocketAddr), map: &Path, gateways: &[GatewayProcess; 2]) -> String {
    let docs = include_str!("../../docs/hosts.md");
    let is_code = |line: &str| line.is_empty() || line.starts_with("    ");
    let lines: Vec<&str> = docs.lines().collect();
    let blocks = lines.split(|line| !is_code(line)).map(|block| block.join("\n"));
    let text = blocks.into_iter().find(|block| block.contains(part)).expect("a recipe");
    let fitted = [
        (listens.0, listens.1.to_string()),
        ("mod(8)", format!("mod({SHARDS})")),
        ("10.0.0.1:7777", gateways[0].address.to_string()),
        ("10.0.0.2:7777", gateways[1].address.to_string()),
        ("/etc/haproxy/lasthit.map", map.display().to_string()),
        ("/etc/nginx/lasthit.map", map.display().to_string()),
    ];
    fitted.iter().fold(text, |text, (from, to)| text.replace(from, to)) + "\n"
}

/// An address where nobody listens.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

#[tokio::test]
async fn haproxy_tells_the_home_of_a_room_by_its_shard() {
    if !is_here("haproxy") {
        return;
    }
    let (deployment, dir, address) = (Deployment::new(), tempfile::tempdir().expect("a directory"), free());
    let (map, config) = (dir.path().join("lasthit.map"), dir.path().join("haproxy.cfg"));
    std::fs::write(&map, deployment.map(&["haproxy"])).expect("written");
    let recipe = recipe("frontend play", (":443 ssl crt /etc/haproxy/play.pem", address), &map, &deployment.gateways);
    std::fs::write(&config, recipe).expect("written");
    let _haproxy = Process::of(Command::new("haproxy").args(["-db", "-f"]).arg(&config));
    deployment.joins_through(address, &rooms()).await;
}

#[tokio::test]
async fn nginx_tells_the_home_of_rooms_that_are_named() {
    if !is_here("nginx") {
        return;
    }
    let (deployment, dir, address) = (Deployment::new(), tempfile::tempdir().expect("a directory"), free());
    let (map, config, rooms) = (dir.path().join("lasthit.map"), dir.path().join("nginx.conf"), rooms());
    let words: Vec<&str> = ["nginx"].into_iter().chain(rooms.iter().map(String::as_str)).collect();
    std::fs::write(&map, deployment.map(&words)).expect("written");
    let recipe = recipe("upstream all", ("443 ssl", address), &map, &deployment.gateways);
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path tmp-{name};\n")).concat();
    let whole = format!("pid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{recipe}}}\n");
    std::fs::write(&config, whole).expect("written");
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(dir.path()).arg("-c").arg(&config).args(["-e", "stderr", "-g", "daemon off; master_process off;"]);
    let _nginx = Process::of(&mut nginx);
    deployment.joins_through(address, &rooms).await;
}
