//! A game on other servers than the installed redis-server, where they are found.

use servers::{Program, RedisServer};

use super::outages::{Running, tell};

/// Killed in the middle of a game, and started again on its file.
#[tokio::test]
async fn killed_and_started_again_on_its_file() {
    for program in Program::ALL {
        let options = ["--appendonly", "yes", "--appendfsync", "always"];
        let Some(mut server) = RedisServer::start_other(program, &options, false).expect("a server") else { continue };
        let mut running = Running::on(&server, &["--durability", "disk"]).await;
        running.act().await;
        server.kill().expect("killed");
        running.act().await;
        server.restart().expect("started again");
        running.recovers(&server).await;
    }
}

/// Its connections break and its scripts are forgotten.
#[tokio::test]
async fn killed_connections_and_forgotten_scripts() {
    for program in Program::ALL {
        let Some(server) = RedisServer::start_other(program, &[], false).expect("a server") else { continue };
        let mut running = Running::on(&server, &[]).await;
        for command in [&["CLIENT", "KILL", "TYPE", "normal"][..], &["CLIENT", "KILL", "TYPE", "pubsub"], &["SCRIPT", "FLUSH"]] {
            running.act().await;
            tell(&server, command);
        }
        running.recovers(&server).await;
    }
}

/// A replica that has everything takes over.
#[tokio::test]
async fn lost_to_a_replica() {
    for program in Program::ALL {
        let flags = ["--min-replicas-to-write", "1"];
        let Some(mut first) = RedisServer::start_other(program, &flags, true).expect("a server") else { continue };
        let second = first.replica(&[]).expect("a replica");
        let mut running = Running::on(&first, &["--durability", "replicated"]).await;
        running.act().await;
        first.kill().expect("killed");
        running.act().await;
        tell(&second, &["REPLICAOF", "NO", "ONE"]);
        let third = second.replica(&[]).expect("a replica");
        tell(&second, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
        running.proxy.lead_to(second.upstream());
        running.recovers(&second).await;
        drop(third);
    }
}
