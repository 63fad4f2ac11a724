//! The processes under test, started by the load generator itself: a private Redis, gateways and workers, or the
//! one-process form. They are held by their handles and end with [`Fleet::end`], or are killed when it is dropped.

pub(crate) mod binary;
pub(crate) mod process;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::limits::SPAWN_MAX;
use process::Process;

/// What to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spawn {
    /// One process that plays all roles, without Redis.
    Serve,
    /// Processes on a Redis of their own.
    Redis {
        /// How many gateways.
        gateways: u16,
        /// How many workers.
        workers: u16,
    },
}

impl FromStr for Spawn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "serve" {
            return Ok(Self::Serve);
        }
        let (mut gateways, mut workers) = (None, None);
        for part in text.split(',') {
            let (what, count) = part.split_once('=').unwrap_or((part, ""));
            let slot = match what {
                "gateways" => &mut gateways,
                "workers" => &mut workers,
                _ => return Err(format!("spawn {text:?} is not of the form gateways=2,workers=2, nor serve")),
            };
            let count = count.parse().ok().filter(|n| (1..=SPAWN_MAX).contains(n));
            let count = count.ok_or_else(|| format!("spawn {part:?}: use 1 to {SPAWN_MAX} {what}, as in {what}=2"))?;
            if slot.replace(count).is_some() {
                return Err(format!("spawn {text:?} gives {what} twice"));
            }
        }
        Ok(Self::Redis { gateways: gateways.unwrap_or(1), workers: workers.unwrap_or(1) })
    }
}

/// Running processes. Field order is drop order: processes before the directory that their logs and socket are in.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// In the order of their start; they end in the reverse one.
    processes: Vec<Process>,
    urls: Vec<String>,
    dir: TempDir,
}

impl Fleet {
    /// Starts everything, and returns when all of it is ready; ends what it started when something is not.
    pub(crate) async fn start(spawn: Spawn) -> Result<Self> {
        Self::start_with(spawn, None).await
    }

    /// The same, with this guard of the gateways' sweeps instead of the default.
    pub(crate) async fn start_with(spawn: Spawn, sweep_guard_us: Option<u64>) -> Result<Self> {
        let binary = binary::lasthit()?;
        let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for logs and sockets")?;
        let mut fleet = Self { processes: Vec::new(), urls: Vec::new(), dir };
        match fleet.start_all(&binary, spawn, sweep_guard_us).await {
            Ok(()) => Ok(fleet),
            Err(e) => {
                eprintln!("{}", fleet.logs());
                fleet.end().await;
                Err(e)
            }
        }
    }

    /// Starts the usual stack out of `peer`: a Redis, two gateways, one worker.
    pub(crate) async fn start_peer(peer: &Path) -> Result<Self> {
        ensure!(peer.join("node_modules").is_dir(), "peer {} has no node_modules: run `npm install` there", peer.display());
        let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().context("no directory for logs and sockets")?;
        let mut fleet = Self { processes: Vec::new(), urls: Vec::new(), dir };
        match fleet.start_all_of_peer(peer).await {
            Ok(()) => Ok(fleet),
            Err(e) => {
                eprintln!("{}", fleet.logs());
                fleet.end().await;
                Err(e)
            }
        }
    }

    async fn start_all_of_peer(&mut self, peer: &Path) -> Result<()> {
        let socket = self.dir.path().join("redis.sock");
        self.processes.push(Process::redis(self.dir.path(), &socket)?);
        self.ready().await?;
        let redis = socket.display().to_string();
        self.processes.push(Process::peer(peer, "worker.mjs", "worker", &[("REDIS_URL", &redis)], self.dir.path())?);
        for name in ["g1", "g2"] {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let env = [("REDIS_URL", redis.as_str()), ("PORT", &address.port().to_string()), ("GATEWAY_ID", name)];
            self.processes.push(Process::peer(peer, "gateway.mjs", name, &env, self.dir.path())?);
            self.urls.push(url(address));
        }
        self.ready().await
    }

    async fn start_all(&mut self, binary: &Path, spawn: Spawn, sweep_guard_us: Option<u64>) -> Result<()> {
        let guard = sweep_guard_us.map(|us| us.to_string());
        let guard: Vec<&str> = guard.iter().flat_map(|us| ["--sweep-guard-us", us]).collect();
        let Spawn::Redis { gateways, workers } = spawn else {
            self.start_role(binary, "serve", "serve", &guard, true)?;
            return self.ready().await;
        };
        let socket = self.dir.path().join("redis.sock");
        self.processes.push(Process::redis(self.dir.path(), &socket)?);
        self.ready().await?;
        let redis = format!("unix://{}", socket.display());
        for n in 1..=workers {
            self.start_role(binary, "worker", &format!("worker-{n}"), &["--redis", &redis], false)?;
        }
        for n in 1..=gateways {
            let args = [&["--redis", &redis], &guard[..]].concat();
            self.start_role(binary, "gateway", &format!("gateway-{n}"), &args, true)?;
        }
        self.ready().await
    }

    fn start_role(&mut self, binary: &Path, role: &str, name: &str, args: &[&str], listens: bool) -> Result<()> {
        // Both ports are taken before either is let go, so that they differ.
        let taken = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [admin, listen] = [taken[0].local_addr()?, taken[1].local_addr()?];
        drop(taken);
        let (admin_text, listen_text) = (admin.to_string(), listen.to_string());
        let mut all = vec![role, "--admin", &admin_text];
        all.extend_from_slice(args);
        if listens {
            all.extend(["--listen", &listen_text]);
            self.urls.push(url(listen));
        }
        self.processes.push(Process::lasthit(binary, name, &all, admin, self.dir.path())?);
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        for process in &mut self.processes {
            process.ready().await?;
        }
        Ok(())
    }

    /// Where the gateways listen.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// What the processes said last, for when something went wrong.
    pub(crate) fn logs(&mut self) -> String {
        let logs: Vec<String> = self.processes.iter_mut().map(Process::log).collect();
        logs.join("\n")
    }

    /// Ends all processes, gateways first and Redis last, each within its time.
    pub(crate) async fn end(mut self) {
        // Gateways and workers drain side by side; Redis stays until they have.
        let at = self.processes.iter().position(|p| !p.is_redis()).unwrap_or(self.processes.len());
        let roles = self.processes.split_off(at);
        futures_util::future::join_all(roles.into_iter().rev().map(Process::end)).await;
        for redis in self.processes {
            redis.end().await;
        }
    }
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_start_is_parsed() {
        assert_eq!("serve".parse(), Ok(Spawn::Serve));
        assert_eq!("gateways=2,workers=3".parse(), Ok(Spawn::Redis { gateways: 2, workers: 3 }));
        assert_eq!("workers=3".parse(), Ok(Spawn::Redis { gateways: 1, workers: 3 }));
        for bad in ["", "gateways", "gateways=0", "gateways=65", "workers=-1", "serve,workers=1", "gateways=1,gateways=2"] {
            assert!(bad.parse::<Spawn>().is_err(), "{bad}");
        }
    }
}
