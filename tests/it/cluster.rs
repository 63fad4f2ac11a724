//! Processes on a cluster of Redis.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use servers::Cluster;

use super::hosts::{Host, owns};
use super::support::{GatewayProcess, PATIENCE, Process, Session, WorkerProcess, get, program, until};

/// Of each node one room: first of the two that do not have the catalog, then of the one that has it.
fn rooms_of_all(cluster: &Cluster) -> [(usize, String); 3] {
    use lasthit::journal::redis::{catalog_key, shard_key};
    use lasthit::types::{RoomId, ShardId};
    let catalog = cluster.first_owner(&catalog_key("workers")).expect("an owner");
    let of = |node: usize| {
        let names = (0..).map(|n| format!("claim-{n}"));
        let shard = |name: &String| ShardId::of(&RoomId::new(name).expect("a name"), 8);
        let mut own = names.filter(|name| cluster.first_owner(&shard_key(shard(name), 8, "shard")).expect("an owner") == node);
        (node, own.next().expect("endless"))
    };
    [1, 2, 3].map(|after| of((catalog + after) % 3))
}

/// Of each node one room, of the nodes that do not have the catalog.
fn rooms(cluster: &Cluster) -> [(usize, String); 2] {
    let [first, second, _] = rooms_of_all(cluster);
    [first, second]
}

#[tokio::test]
async fn one_of_which_a_node_is_lost_and_comes_back() {
    let mut cluster = Cluster::start(3, 0, &["--appendonly", "yes", "--appendfsync", "always"]).expect("a cluster");
    let [(lost, theirs), (kept, ours)] = rooms(&cluster);
    let (gateway, worker) = (GatewayProcess::at(&cluster.url(), &[]), WorkerProcess::at(&cluster.url(), &[]));
    let (mut ann, mut bob) = (gateway.ticket(&theirs, "ann").join().await, gateway.ticket(&ours, "bob").join().await);
    assert_eq!(ann.ask("claim", "1", "a", json!(null)).await["outcome"], "granted");
    assert_eq!(bob.ask("claim", "1", "a", json!(null)).await["outcome"], "granted");

    cluster.nodes_mut()[lost].kill().expect("killed");
    let names_it = |ready: (u16, String)| (ready.0 == 200 && ready.1.contains("journal: shards ")).then_some(());
    until("the gateway tells which shards wait", || names_it(gateway.ready()));
    until("so does the worker", || names_it(worker.ready()));
    // Hosts that do reach it may take its shards over.
    let lack = |count: usize| {
        use lasthit::journal::redis::catalog_key;
        let catalog = &cluster.nodes()[(0..3).find(|node| ![lost, kept].contains(node)).expect("the third")];
        let said: Vec<String> = catalog.ask(&["HVALS", &catalog_key("procs")]).expect("an answer");
        let lacks = |process: &&String| process.split('|').nth(6).is_some_and(|shards| !shards.is_empty());
        (said.iter().filter(lacks).count() == count && said.len() == 2).then_some(())
    };
    until("both say which shards they lack", || lack(2));
    let shows = |gateway: &GatewayProcess, node: SocketAddr, reached: u8| {
        let line = format!("lasthit_node_reached{{node=\"redis://{node}\"}} {reached}");
        get(gateway.admin, "/metrics").1.lines().any(|one| one == line).then_some(())
    };
    let [lost_at, kept_at] = [lost, kept].map(|node| cluster.nodes()[node].address().expect("a port"));
    until("its metrics show the node", || shows(&gateway, lost_at, 0).and(shows(&gateway, kept_at, 1)));
    assert!(get(worker.admin, "/metrics").1.contains(&format!("lasthit_node_errors_total{{node=\"redis://{lost_at}\"}}")));
    for round in 0..20 {
        let id = format!("b{round}");
        assert_eq!(bob.ask("claim", &id, &id, json!(null)).await["outcome"], "granted", "{round}");
    }
    // Somebody who leaves the rooms of the others is noticed there.
    let mut carl = gateway.ticket(&ours, "carl").join().await;
    assert_eq!(carl.ask("claim", "c", "c", json!(null)).await["outcome"], "granted");
    let mut dora = gateway.ticket(&theirs, "dora").open().await;
    assert_eq!(dora.close_code().await.0, 1013, "a room that nobody can reach takes nobody in");
    assert_eq!((gateway.ready().0, worker.ready().0), (200, 200), "the others are served");

    cluster.nodes_mut()[lost].restart().expect("restarted");
    until("all is there again", || (gateway.ready().1 == "ready\n" && worker.ready().1 == "ready\n").then_some(()));
    until("its metrics show that, too", || shows(&gateway, lost_at, 1));
    let mut dora = gateway.ticket(&theirs, "dora").join().await;
    assert_eq!(dora.ask("claim", "2", "b", json!(null)).await["outcome"], "granted");
    assert_eq!(bob.ask("claim", "last", "last", json!(null)).await["outcome"], "granted");
}

/// Who is at home on one host, on a cluster on which another host's gateway lives, too.
async fn in_a_room_of_each_node(cluster: &Cluster, gateway: &GatewayProcess) -> Vec<(usize, String, Session)> {
    let mut inside = Vec::new();
    for (node, room) in rooms_of_all(cluster) {
        let mut player = gateway.ticket(&room, "ann").join().await;
        assert_eq!(player.ask("claim", "1", "first", json!(null)).await["outcome"], "granted");
        inside.push((node, room, player));
    }
    inside
}

fn route(gateway: &GatewayProcess, room: &str) -> (u16, String) {
    get(gateway.address, &format!("/v1/route/{room}"))
}

/// A host that does not reach one node lets go of that node's rooms alone; a host that does reach it takes them.
#[tokio::test]
async fn a_host_that_is_cut_off_from_one_node_loses_that_nodes_rooms() {
    let cluster = Cluster::start(3, 0, &[]).expect("a cluster");
    let (a, b) = (Host::up_for(500_000), Host::up_for(1_000));
    // The nodes know the first host by its own user: each of them can shut it out.
    for node in cluster.nodes() {
        node.ask::<String>(&["ACL", "SETUSER", "a", "on", ">a", "~*", "&*", "+@all"]).expect("a user");
    }
    let (of_a, at_a, at_b) = (cluster.url().replace("://", "://a:a@"), "ws://a.example", "ws://b.example");
    let gateway_a = GatewayProcess::of(a.gateway_at(&of_a, &["--advertise", at_a]));
    let worker_a = a.worker_at(&of_a, &[]);
    owns(&worker_a, 8.0);
    let mut inside = in_a_room_of_each_node(&cluster, &gateway_a).await;
    let gateway_b = GatewayProcess::of(b.gateway_at(&cluster.url(), &["--advertise", at_b]));
    until("it is ready", || gateway_b.ready().1.starts_with("ready").then_some(()));

    let (lost, theirs, mut ann) = inside.remove(0);
    let node = &cluster.nodes()[lost];
    node.ask::<String>(&["ACL", "SETUSER", "a", "off"]).expect("shut out");
    node.ask::<u64>(&["CLIENT", "KILL", "USER", "a"]).expect("killed");
    // No other host has a worker, so nobody else can be the rooms' home yet.
    let (code, why) = ann.close_code().await;
    assert!(code == 1013 && why.contains("does not reach"), "{code} {why}");
    assert_eq!(route(&gateway_a, &theirs).0, 503);
    assert_eq!(gateway_a.ticket(&theirs, "bob").open().await.close_code().await.0, 1013);

    // Now one has, and reaches the node.
    let worker_b = b.worker_at(&cluster.url(), &[]);
    let joined = async {
        loop {
            if let Some(session) = gateway_b.ticket(&theirs, "bob").try_join().await {
                return session;
            }
        }
    };
    let mut bob = tokio::time::timeout(PATIENCE, joined).await.expect("it has another home");
    assert_eq!(bob.welcome["home"], 2);
    assert_eq!(bob.ask("claim", "1", "first", json!(null)).await["outcome"], "denied", "ann has it");
    for (_, room, player) in &mut inside {
        assert_eq!(player.ask("claim", "2", "second", json!(null)).await["outcome"], "granted", "{room}");
        assert_eq!(route(&gateway_a, room), route(&gateway_b, room));
        assert!(route(&gateway_a, room).1.contains(at_a), "{room} has stayed");
    }
    let took = worker_b.metric("lasthit_shards_owned");
    assert!((1.0..8.0).contains(&took), "{took}");

    node.ask::<String>(&["ACL", "SETUSER", "a", "on"]).expect("let in");
    until("it knows where the rooms are", || (route(&gateway_a, &theirs) == route(&gateway_b, &theirs)).then_some(()));
    assert_eq!(gateway_a.ticket(&theirs, "ann").open().await.close_code().await, (4421, format!("{at_b}#2")));
}

/// The node that has the catalog stops: its rooms' players are told, as others might have them, and the others play on.
#[tokio::test]
async fn the_loss_of_the_catalog_stops_no_room_of_another_node() {
    let mut cluster = Cluster::start(3, 0, &[]).expect("a cluster");
    let (a, b) = (Host::up_for(500_000), Host::up_for(1_000));
    let gateway_b = GatewayProcess::of(b.gateway_at(&cluster.url(), &["--advertise", "ws://b.example"]));
    let gateway_a = GatewayProcess::of(a.gateway_at(&cluster.url(), &["--advertise", "ws://a.example"]));
    let worker_a = a.worker_at(&cluster.url(), &[]);
    owns(&worker_a, 8.0);
    until("it is ready", || gateway_b.ready().1.starts_with("ready").then_some(()));
    let mut inside = in_a_room_of_each_node(&cluster, &gateway_a).await;
    let (lost, _, mut ann) = inside.pop().expect("of the catalog's node");
    cluster.nodes_mut()[lost].kill().expect("killed");
    assert_eq!(ann.close_code().await.0, 1013);
    for (_, room, player) in &mut inside {
        assert_eq!(player.ask("claim", "2", "second", json!(null)).await["outcome"], "granted", "{room}");
        assert_eq!(route(&gateway_a, room).0, 200, "{room}");
    }
}

/// A certificate that signs itself, for 127.0.0.1, and its key.
pub(crate) fn certificate(dir: &Path) -> [PathBuf; 2] {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| dir.join(name));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args([
        "-subj",
        "/CN=lasthit tests",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=CA:FALSE",
    ]);
    command.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    let output = command.output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    [certificate, key]
}

/// Nodes that speak TLS alone and know one user, whose name and password have characters that are percent-encoded in a URL.
#[tokio::test]
async fn one_that_speaks_tls_and_wants_a_password() {
    let dir = tempfile::tempdir().expect("a directory");
    let [certificate, key] = certificate(dir.path());
    let cluster = Cluster::start_tls(3, &certificate, &key, &[]).expect("a cluster");
    let rooms = rooms(&cluster);
    for node in cluster.nodes() {
        let may = ["~lasthit:*", "&lasthit:*", "+@all", "-@dangerous", "+info", "+cluster|nodes", "+cluster|info"];
        let user = [&["ACL", "SETUSER", "the@baron", "on", ">se/cret"][..], &may].concat();
        node.ask::<String>(&user).expect("a user");
        node.ask::<String>(&["ACL", "SETUSER", "default", "off", "resetpass"]).expect("the only one");
    }
    let hosts = cluster.url().replace("redis+cluster://", "");
    let start = |role: &str, login: &str, flags: &[&str]| {
        let url = format!("rediss+cluster://{login}{hosts}");
        let args = [&[role, "--redis", &url, "--admin", "127.0.0.1:0"], flags].concat();
        Process::of(program(&args).env("SSL_CERT_FILE", &certificate))
    };
    let login = "the%40baron:se%2Fcret@";
    let gateway = GatewayProcess::of(start("gateway", login, &["--listen", "127.0.0.1:0"]));
    let _worker = WorkerProcess::of(start("worker", login, &[]));
    for (_, room) in rooms {
        let mut ann = gateway.ticket(&room, "ann").join().await;
        assert_eq!(ann.ask("claim", "1", "a", json!(null)).await["outcome"], "granted");
    }
    for login in ["", "the%40baron:wrong@"] {
        let said = start("worker", login, &[]).fails(1);
        assert!(said.contains("redis does not accept user or password") && !said.contains("wrong@"), "{said}");
    }
    // Nobody vouches for the certificate.
    let url = format!("rediss+cluster://{login}{hosts}");
    let said = Process::start(&["worker", "--redis", &url], &[]).fails(1);
    assert!(said.contains("certificate") && !said.contains("se%2Fcret"), "{said}");
}
