//! Several hosts on one Redis. Each is a time namespace of this machine: it has a name and a clock of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use lasthit::internals::clock::timeline_name_of;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{CommonJournal as _, Part, ProcessRecord, WorkerJournal as _};
use lasthit::types::{Home, HostId, Incarnation};
use serde_json::{Value, json};
use servers::RedisServer;

use super::support::{GatewayProcess, Process, Session, WorkerProcess, get, program, redis, until};

const ROOMS: usize = 8;
const SHARDS: [&str; 2] = ["--shards", "4"];

/// A host that has been up for so many seconds more than this machine.
pub(crate) struct Host {
    holder: Child,
    name: HostId,
    pid: u32,
    dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn up_for(more_s: u32) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--time", "--monotonic", &more_s.to_string(), "--fork", "--kill-child", "--"]);
        // The first process of the namespace: its clock is the host's.
        let script = "echo $$; exec sleep 600";
        let spawned = command.args(["sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut holder = spawned.unwrap_or_else(|error| panic!("unshare: {error}: it is in the package util-linux"));
        let mut lines = BufReader::new(holder.stdout.take().expect("stdout")).lines();
        let pid = lines.next().expect("a line: is /proc/sys/user/max_time_namespaces 0?").expect("text");
        let name = HostId::new(&timeline_name_of(&pid)).expect("a name");
        Self { holder, name, pid: pid.parse().expect("a pid"), dir: tempfile::tempdir().expect("a directory") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--user", "--time", "--preserve-credentials", "--no-fork", "--"]);
        command.arg(env!("CARGO_BIN_EXE_lasthit")).args(args);
        command.args(["--runtime-dir", &self.dir.path().display().to_string()]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LASTHIT_")) {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn gateway(&self, redis: &RedisServer, more: &[&str]) -> Process {
        self.gateway_at(&redis.url(), &[&SHARDS[..], more].concat())
    }

    pub(crate) fn gateway_at(&self, url: &str, more: &[&str]) -> Process {
        let args = ["gateway", "--redis", url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Process::of(&mut self.command(&[&args[..], more].concat()))
    }

    pub(crate) fn worker(&self, redis: &RedisServer, more: &[&str]) -> WorkerProcess {
        self.worker_at(&redis.url(), &[&SHARDS[..], more].concat())
    }

    pub(crate) fn worker_at(&self, url: &str, more: &[&str]) -> WorkerProcess {
        let args = ["worker", "--redis", url, "--admin", "127.0.0.1:0"];
        WorkerProcess::of(Process::of(&mut self.command(&[&args[..], more].concat())))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

async fn journal(redis: &RedisServer) -> RedisJournal {
    RedisJournal::connect(&redis.url(), RedisOptions::default()).await.expect("a journal")
}

/// The homes of all shards.
async fn homes(redis: &RedisServer) -> Vec<Option<Home>> {
    journal(redis).await.owners().await.expect("owners").into_iter().map(|owner| owner.home).collect()
}

async fn all_at_home_on(redis: &RedisServer, host: &HostId, number: u32) {
    for home in homes(redis).await {
        assert!(home.as_ref().is_some_and(|home| home.host == *host && home.number == number), "{home:?} on {host} by {number}");
    }
}

pub(crate) fn owns(worker: &WorkerProcess, shards: f64) {
    until("the shards have their owner", || (worker.metric("lasthit_shards_owned") == shards).then_some(()));
}

async fn join(gateway: &GatewayProcess, player: &str) -> Vec<Session> {
    let mut players = Vec::new();
    for room in 0..ROOMS {
        players.push(gateway.ticket(&format!("claim-{room}"), player).join().await);
    }
    players
}

/// The outcome of one claim in each room.
async fn claim(players: &mut [Session], id: &str, key: &str) -> Vec<String> {
    let mut outcomes = Vec::new();
    for player in players {
        let verdict = player.ask("claim", id, key, json!(null)).await;
        outcomes.push(verdict["outcome"].as_str().expect("an outcome").to_owned());
    }
    outcomes
}

/// Waits until nobody of a host beats as a worker.
async fn silent(redis: &RedisServer, host: &HostId) {
    let (journal, nobody) = (journal(redis).await, HostId::new("nobody").expect("a name"));
    let reader = ProcessRecord::new(Incarnation(0), nobody, Part::Worker);
    while journal
        .beat(&reader, 0)
        .await
        .expect("beats")
        .processes
        .iter()
        .any(|process| process.part == Part::Worker && process.host == *host)
    {
        tokio::task::yield_now().await;
    }
}

/// A home that lives keeps its shards. If all of it is killed, the other host takes them, and no contest is decided twice.
#[tokio::test]
async fn the_shards_of_a_host_that_is_killed_go_to_another() {
    let redis = redis(&[]);
    // The clock of the second shows much less.
    let (a, b) = (Host::up_for(500_000), Host::up_for(1_000));
    assert_ne!(a.name, b.name);
    let mut of_a = GatewayProcess::of(a.gateway(&redis, &["--advertise", "ws://a.example:7777"]));
    let mut worker_a = a.worker(&redis, &[]);
    owns(&worker_a, 4.0);
    let mut ann = join(&of_a, "ann").await;
    assert_eq!(claim(&mut ann, "1", "first").await, ["granted"; ROOMS]);

    // A gateway that players cannot be sent to does not join.
    let refused = b.gateway(&redis, &[]).fails(1);
    assert!(refused.contains("ws://a.example:7777") && refused.contains("--advertise URL"), "{refused}");
    let of_b = GatewayProcess::of(b.gateway(&redis, &["--advertise", "ws://b.example:7777"]));
    let worker_b = b.worker(&redis, &[]);
    assert_eq!(claim(&mut ann, "2", "second").await, ["granted"; ROOMS]);
    all_at_home_on(&redis, &a.name, 1).await;
    assert_eq!(worker_b.metric("lasthit_shards_owned"), 0.0);

    worker_a.process.kill();
    of_a.process.kill();
    owns(&worker_b, 4.0);
    all_at_home_on(&redis, &b.name, 2).await;
    let address = homes(&redis).await[0].as_ref().expect("a home").address.clone();
    assert_eq!(address, "ws://b.example:7777");
    let mut bob = join(&of_b, "bob").await;
    for (id, key) in [("1", "first"), ("2", "second")] {
        assert_eq!(claim(&mut bob, id, key).await, ["denied"; ROOMS], "ann has it");
    }
    assert_eq!(claim(&mut bob, "3", "third").await, ["granted"; ROOMS]);
}

/// A boot is a change of home: the clock is another one. Nobody needs an address for it.
#[tokio::test]
async fn a_host_that_boots_takes_its_shards_again() {
    let redis = redis(&[]);
    let before = Host::up_for(500_000);
    let mut gateway = GatewayProcess::of(before.gateway(&redis, &[]));
    let mut worker = before.worker(&redis, &[]);
    owns(&worker, 4.0);
    assert_eq!(claim(&mut join(&gateway, "ann").await, "1", "first").await, ["granted"; ROOMS]);
    worker.process.kill();
    gateway.process.kill();
    silent(&redis, &before.name).await;

    let after = Host::up_for(10);
    let gateway = GatewayProcess::of(after.gateway(&redis, &[]));
    let worker = after.worker(&redis, &[]);
    owns(&worker, 4.0);
    all_at_home_on(&redis, &after.name, 2).await;
    let mut bob = join(&gateway, "bob").await;
    assert_eq!(claim(&mut bob, "1", "first").await, ["denied"; ROOMS]);
    assert_eq!(claim(&mut bob, "2", "second").await, ["granted"; ROOMS]);
}

/// A host that boots is not another one beside what it was before, though that one's gateway seems to beat for a while: whoever comes
/// waits here for the claim, and is not sent to where he has come to.
#[tokio::test]
async fn a_host_that_has_just_booted_sends_nobody_to_itself() {
    for advertise in [&["--advertise", "ws://a.example:7777"][..], &[]] {
        let redis = redis(&[]);
        let before = Host::up_for(500_000);
        let mut gateway = GatewayProcess::of(before.gateway(&redis, advertise));
        let mut worker = before.worker(&redis, &[]);
        owns(&worker, 4.0);
        assert_eq!(claim(&mut join(&gateway, "ann").await, "1", "first").await, ["granted"; ROOMS]);
        worker.process.kill();
        gateway.process.kill();
        silent(&redis, &before.name).await;

        let after = Host::up_for(10);
        let gateway = GatewayProcess::of(after.gateway(&redis, advertise));
        let mut early = gateway.ticket("claim-0", "bob").open().await;
        // It hears with its first beat what it was before.
        until("both seem to beat", || (told(&redis, &["hosts"])["hosts"].as_array().expect("hosts").len() == 2).then_some(()));
        assert_eq!(get(gateway.address, "/v1/route/claim-0").0, 503, "it is nowhere");
        let worker = after.worker(&redis, &[]);
        let welcome = early.next().await.message();
        assert_eq!((&welcome["t"], &welcome["home"]), (&json!("welcome"), &json!(2)), "{advertise:?}: {welcome}");
        owns(&worker, 4.0);
    }
}

/// Whoever asks any gateway is told the home, who comes to the wrong one is sent there, and who is inside is moved along.
#[tokio::test]
async fn players_find_the_home_of_their_room() {
    let redis = redis(&[]);
    let (a, b) = (Host::up_for(500_000), Host::up_for(1_000));
    let (at_a, at_b) = ("ws://a.example:7777", "ws://b.example:7777");
    let of_a = GatewayProcess::of(a.gateway(&redis, &["--advertise", at_a]));
    let worker_a = a.worker(&redis, &[]);
    owns(&worker_a, 4.0);
    let mut ann = of_a.ticket("claim-0", "ann").join().await;
    assert_eq!(
        (ann.ask("claim", "1", "first", json!(null)).await["outcome"].as_str(), &ann.welcome["home"]),
        (Some("granted"), &json!(1))
    );
    let of_b = GatewayProcess::of(b.gateway(&redis, &["--advertise", at_b]));
    let worker_b = b.worker(&redis, &[]);
    let route = |gateway: &GatewayProcess, url: &str, home: u32| {
        let expected = json!({"url": url, "home": home, "room": "claim-0"});
        let (status, body) = get(gateway.address, "/v1/route/claim-0");
        (status == 200 && serde_json::from_str::<Value>(&body).expect("JSON") == expected).then_some(())
    };
    for gateway in [&of_a, &of_b] {
        until("it knows the home", || route(gateway, at_a, 1));
    }
    assert_eq!(of_b.ticket("claim-0", "bob").open().await.close_code().await, (4421, format!("{at_a}#1")));

    until("both hosts are eligible", || {
        let hosts = told(&redis, &["hosts"]);
        let hosts = hosts["hosts"].as_array().expect("hosts");
        (hosts.iter().filter(|host| host["eligible"] == true && host["workers"] == 1).count() == 2).then_some(())
    });
    told(&redis, &["drain", at_a]);
    let asked = loop {
        let message = ann.recv().await;
        if message["t"] == "move" {
            break message;
        }
    };
    assert_eq!(asked["url"], at_b);
    assert_eq!(ann.close_code().await, (4421, format!("{at_b}#1")), "it has not moved");
    owns(&worker_b, 4.0);
    for gateway in [&of_a, &of_b] {
        until("it knows the home", || route(gateway, at_b, 2));
    }
    let mut again = of_b.ticket("claim-0", "ann").join().await;
    assert_eq!(again.welcome["home"], 2);
    assert_eq!(again.ask("claim", "2", "first", json!(null)).await["reason"], "already_yours");
    assert_eq!(of_a.ticket("claim-0", "bob").open().await.close_code().await, (4421, format!("{at_b}#2")));
}

/// What a command says that ends well, as JSON.
pub(crate) fn told(redis: &RedisServer, words: &[&str]) -> Value {
    let output = program(&[words, &["--redis", &redis.url(), "--json"]].concat()).output().expect("run");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The one line that a command ends with that cannot do it.
fn refused(redis: &RedisServer, words: &[&str]) -> String {
    let output = program(&[words, &["--redis", &redis.url()]].concat()).output().expect("run");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.code().is_some_and(|code| code > 0) && said.lines().count() == 1, "{words:?}: {said:?}");
    said
}

/// Shards move by hand, and away from a host that is drained.
#[tokio::test]
async fn shards_are_handed_over_by_hand_and_by_a_drain() {
    let redis = redis(&[]);
    let (a, b) = (Host::up_for(500_000), Host::up_for(1_000));
    let (at_a, at_b) = ("ws://a.example:7777", "ws://b.example:7777");
    let gateway = GatewayProcess::of(a.gateway(&redis, &["--advertise", at_a]));
    let worker_a = a.worker(&redis, &[]);
    owns(&worker_a, 4.0);
    // In one of its shards somebody plays.
    let mut ann = gateway.ticket("claim-0", "ann").join().await;
    assert_eq!(ann.ask("claim", "1", "first", json!(null)).await["outcome"], "granted");
    assert!(refused(&redis, &["home", "3", at_b]).contains("is not known"));
    let of_b = GatewayProcess::of(b.gateway(&redis, &["--advertise", at_b]));
    let worker_b = b.worker(&redis, &[]);
    until("both hosts are eligible", || {
        let hosts = told(&redis, &["hosts"]);
        let hosts = hosts["hosts"].as_array().expect("hosts");
        (hosts.iter().filter(|host| host["eligible"] == true && host["workers"] == 1).count() == 2).then_some(())
    });

    let moved = told(&redis, &["home", "3", at_b]);
    assert_eq!(moved, json!({"shard": 3, "host": b.name.as_str(), "home": 2}));
    owns(&worker_b, 1.0);
    owns(&worker_a, 3.0);
    assert!(refused(&redis, &["home", "3", b.name.as_str()]).contains("already"));
    assert!(refused(&redis, &["home", "4", at_b]).contains("shard 4 does not exist: there are 4"));
    assert!(refused(&redis, &["home", "x", at_b]).contains("\"x\" is no number"));
    told(&redis, &["drain", at_b]);
    assert!(refused(&redis, &["home", "1", at_b]).contains("lasthit undrain"));
    owns(&worker_a, 4.0);
    told(&redis, &["undrain", at_b]);

    told(&redis, &["drain", at_a]);
    owns(&worker_b, 4.0);
    until("nothing is at home there", || {
        let hosts = told(&redis, &["hosts"]);
        let hosts = hosts["hosts"].as_array().expect("hosts");
        hosts.iter().any(|host| host["url"] == at_a && host["drained"] == true && host["shards"] == json!([])).then_some(())
    });
    let mut bob = of_b.ticket("claim-0", "bob").join().await;
    assert_eq!(bob.ask("claim", "1", "first", json!(null)).await["outcome"], "denied");
    // The other one goes on beside it, without a shard.
    assert_eq!(worker_a.metric("lasthit_shards_owned"), 0.0);
}
