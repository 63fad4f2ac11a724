//! The Redis that is broken: one server, or a primary and the replica that takes over from it.

use std::io;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use servers::{Proxy, RedisServer, Upstream};
use tokio::sync::OwnedMutexGuard;
use tokio::time::sleep;

use super::Durability;
use super::plan::{Fault, Kind};

/// At `replicated` there are two, which change their parts.
#[derive(Debug)]
pub(super) struct Servers {
    primary: RedisServer,
    replica: Option<RedisServer>,
    /// One that comes and goes, and that nothing depends on.
    guest: Option<RedisServer>,
    /// It is here.
    attached: bool,
}

impl Servers {
    /// Starts what the level needs; blocks until it is ready.
    pub(super) fn start(durability: Durability) -> io::Result<Self> {
        let options = durability.redis_options();
        if durability != Durability::Replicated {
            return Ok(Self { primary: RedisServer::start_tcp(options)?, replica: None, guest: None, attached: false });
        }
        let (primary, replica) = (RedisServer::start_tcp(options)?, RedisServer::start_tcp(options)?);
        replica.follow(&primary)?;
        Ok(Self { primary, replica: Some(replica), guest: None, attached: false })
    }

    /// The server that the paths to Redis lead to.
    pub(super) fn upstream(&self) -> Upstream {
        self.primary.upstream()
    }

    /// The primary's process.
    pub(super) fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.primary.pid())?))
    }

    /// Asks the primary something; blocks.
    pub(super) fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> io::Result<T> {
        self.primary.ask(command)
    }

    fn end(&mut self, orderly: bool) -> io::Result<()> {
        if orderly {
            // It answers by ending.
            let _ = self.primary.ask::<()>(&["SHUTDOWN"]);
        }
        self.primary.kill()
    }

    /// The primary is there again, on what it left.
    fn start_again(&mut self) -> io::Result<()> {
        self.primary.restart()?;
        self.replica.as_ref().map_or(Ok(()), |replica| replica.follow(&self.primary))
    }

    /// The guest has caught up.
    fn attach(&mut self) -> io::Result<()> {
        let guest = match self.guest.take() {
            Some(guest) => guest,
            None => RedisServer::start_tcp(&[])?,
        };
        self.attached = true;
        self.guest.insert(guest).follow(&self.primary)
    }

    /// The guest follows nobody.
    fn detach(&mut self) -> io::Result<()> {
        self.attached = false;
        self.guest.as_ref().map_or(Ok(()), |guest| guest.ask(&["REPLICAOF", "NO", "ONE"]))
    }

    /// The replica is the primary from here on, and the primary, which may be dead, is to be its replica.
    fn promote(&mut self) -> io::Result<()> {
        let replica = self.replica.as_mut().ok_or_else(|| io::Error::other("there is no replica to promote"))?;
        replica.ask::<()>(&["REPLICAOF", "NO", "ONE"])?;
        std::mem::swap(&mut self.primary, replica);
        Ok(())
    }

    /// The old primary follows the new one.
    fn demote(&mut self, restart: bool) -> io::Result<()> {
        let replica = self.replica.as_mut().ok_or_else(|| io::Error::other("there is no primary to demote"))?;
        if restart {
            replica.restart()?;
        }
        replica.follow(&self.primary)
    }
}

/// Does what a fault says, and undoes it after its time.
pub(super) async fn inflict(servers: OwnedMutexGuard<Servers>, fault: Fault, ways: &[Arc<Proxy>]) -> Result<()> {
    match fault.kind {
        Kind::RedisKill | Kind::RedisRestart => {
            let servers = off(servers, move |servers| servers.end(fault.kind == Kind::RedisRestart)).await?;
            sleep(fault.lasts).await;
            off(servers, Servers::start_again).await.context("redis does not start again")?;
        }
        Kind::RedisFailover => {
            let servers = off(servers, |servers| servers.end(false)).await?;
            sleep(fault.lasts).await;
            let servers = off(servers, Servers::promote).await?;
            ways.iter().for_each(|way| way.lead_to(servers.upstream()));
            off(servers, |servers| servers.demote(true)).await.context("the old primary does not come back")?;
        }
        Kind::RedisDemote => {
            let servers = off(servers, Servers::promote).await?;
            // What is connected stays with the old one, which takes writes that nobody confirms.
            ways.iter().for_each(|way| way.lead_to(servers.upstream()));
            sleep(fault.lasts).await;
            off(servers, |servers| servers.demote(false)).await.context("the old primary does not follow")?;
        }
        Kind::ReplicaAttach => {
            let servers = off(servers, Servers::detach).await?;
            let servers = off(servers, Servers::attach).await.context("no further replica")?;
            if servers.replica.is_some() {
                // Whoever never takes over must not be the one that confirms.
                off(servers, Servers::detach).await?;
            }
        }
        Kind::ReplicaDetach => {
            let attached = servers.attached;
            let servers = if attached { servers } else { off(servers, Servers::attach).await.context("no further replica")? };
            off(servers, Servers::detach).await?;
        }
        Kind::RedisPauseShort | Kind::RedisPauseLong => {
            kill(servers.pid()?, Signal::SIGSTOP)?;
            sleep(fault.lasts).await;
            kill(servers.pid()?, Signal::SIGCONT)?;
        }
        kind => {
            let lasts_ms = fault.lasts.as_millis().to_string();
            let asked = move |servers: &mut Servers| match kind {
                Kind::ClientKill => servers.ask(&["CLIENT", "KILL", "TYPE", "normal"]),
                Kind::SubscriberKill => servers.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]),
                Kind::ClientPause => servers.ask(&["CLIENT", "PAUSE", &lasts_ms, "ALL"]),
                _ => servers.ask(&["SCRIPT", "FLUSH"]),
            };
            off(servers, asked).await?;
        }
    }
    Ok(())
}

/// Blocks on a thread of its own.
async fn off(
    mut servers: OwnedMutexGuard<Servers>,
    work: impl FnOnce(&mut Servers) -> io::Result<()> + Send + 'static,
) -> Result<OwnedMutexGuard<Servers>> {
    Ok(tokio::task::spawn_blocking(move || work(&mut servers).map(|()| servers)).await??)
}
