//! Processes on a cluster of Redis.

use serde_json::json;
use servers::Cluster;

use super::support::{GatewayProcess, WorkerProcess, until};

/// Of each node one room, of the nodes that do not have the catalog.
fn rooms(cluster: &Cluster) -> [(usize, String); 2] {
    use lasthit::journal::redis::{catalog_key, shard_key};
    use lasthit::types::{RoomId, ShardId};
    let catalog = cluster.first_owner(&catalog_key("workers")).expect("an owner");
    let of = |node: usize| {
        let names = (0..).map(|n| format!("claim-{n}"));
        let shard = |name: &String| ShardId::of(&RoomId::new(name).expect("a name"), 8);
        let mut own = names.filter(|name| cluster.first_owner(&shard_key(shard(name), 8, "shard")).expect("an owner") == node);
        (node, own.next().expect("endless"))
    };
    [of((catalog + 1) % 3), of((catalog + 2) % 3)]
}

#[tokio::test]
async fn one_of_which_a_node_is_lost_and_comes_back() {
    let mut cluster = Cluster::start(3, 0, &["--appendonly", "yes", "--appendfsync", "always"]).expect("a cluster");
    let [(lost, theirs), (_, ours)] = rooms(&cluster);
    let (gateway, worker) = (GatewayProcess::at(&cluster.url(), &[]), WorkerProcess::at(&cluster.url(), &[]));
    let (mut ann, mut bob) = (gateway.ticket(&theirs, "ann").join().await, gateway.ticket(&ours, "bob").join().await);
    assert_eq!(ann.ask("claim", "1", "a", json!(null)).await["outcome"], "granted");
    assert_eq!(bob.ask("claim", "1", "a", json!(null)).await["outcome"], "granted");

    cluster.nodes_mut()[lost].kill().expect("killed");
    let names_it = |ready: (u16, String)| (ready.0 == 200 && ready.1.contains("journal: shards ")).then_some(());
    until("the gateway tells which shards wait", || names_it(gateway.ready()));
    until("so does the worker", || names_it(worker.ready()));
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
    let mut dora = gateway.ticket(&theirs, "dora").join().await;
    assert_eq!(dora.ask("claim", "2", "b", json!(null)).await["outcome"], "granted");
    assert_eq!(bob.ask("claim", "last", "last", json!(null)).await["outcome"], "granted");
}
