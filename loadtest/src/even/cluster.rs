//! A Node cluster, measured beside a supervisor: loadtest/peers/cluster.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::ASK_TIMEOUT;
use crate::spawn::{Fleet, Peers};
use crate::supervised::Process;

/// How its processes come to their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    /// All accept from one socket.
    Shared,
    /// The primary process passes them on in turn.
    RoundRobin,
}

impl Accept {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shared => "Node cluster, shared accept",
            Self::RoundRobin => "Node cluster, round-robin",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::RoundRobin => "round-robin",
        }
    }
}

/// Where a running cluster says how it is.
#[derive(Debug)]
pub(super) struct Cluster {
    stats: SocketAddr,
}

impl Cluster {
    /// Starts one of so many processes.
    pub(super) async fn start(peers: &Peers, accept: Accept, processes: u16) -> Result<(Self, Fleet)> {
        // Both ports are taken before either is let go, so that they differ.
        let taken = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [address, stats] = [taken[0].local_addr()?, taken[1].local_addr()?];
        drop(taken);
        let env = [
            ("PORT", address.port().to_string()),
            ("STATS_PORT", stats.port().to_string()),
            ("WORKERS", processes.to_string()),
            ("ACCEPT", accept.setting().to_owned()),
        ];
        let fleet = Fleet::start_listening_script(&peers.folder("cluster")?, "cluster.mjs", &env, address).await?;
        Ok((Self { stats }, fleet))
    }

    /// What it says of its processes.
    pub(super) async fn processes(&self) -> Result<Vec<Process>> {
        let asked = async {
            let mut stream = TcpStream::connect(self.stats).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = timeout(ASK_TIMEOUT, asked).await.context("the cluster does not answer in time")??;
        let (head, body) = answer.split_once("\r\n\r\n").context("the cluster's answer has no body")?;
        ensure!(head.contains(" 200 "), "the cluster answers: {answer}");
        serde_json::from_str(body).with_context(|| format!("the cluster's answer: {body}"))
    }
}
