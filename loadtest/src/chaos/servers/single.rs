//! One server, or a primary and the replica that takes over from it when the run says so.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::sleep;

use servers::{Proxy, RedisServer};

use crate::chaos::Durability;
use crate::chaos::plan::{Fault, Kind};

/// At `replicated` there are two, which change their parts.
#[derive(Debug)]
pub(crate) struct Single {
    primary: RedisServer,
    replica: Option<RedisServer>,
    /// One that comes and goes, and that nothing depends on.
    guest: Option<RedisServer>,
    /// It is here.
    attached: bool,
    /// Where it is reached.
    address: Ipv4Addr,
}

impl Single {
    /// Starts what the level needs; blocks until it is ready.
    pub(super) fn start(durability: Durability, address: Ipv4Addr) -> io::Result<Self> {
        let mut options = durability.persistence().to_vec();
        if !address.is_loopback() {
            // Nobody else is on the network of the hosts.
            options.extend(["--bind", "0.0.0.0", "--protected-mode", "no"]);
        }
        if durability != Durability::Replicated {
            let primary = RedisServer::start_tcp(&options)?;
            return Ok(Self { primary, replica: None, guest: None, attached: false, address });
        }
        options.extend(["--min-replicas-to-write", "1"]);
        let (primary, replica) = (RedisServer::start_tcp(&options)?, RedisServer::start_tcp(&options)?);
        replica.follow(&primary)?;
        Ok(Self { primary, replica: Some(replica), guest: None, attached: false, address })
    }

    /// Where the first server is reached.
    pub(super) fn url(&self) -> String {
        match self.primary.address() {
            Some(at) if !self.address.is_loopback() => format!("redis://{}:{}", self.address, at.port()),
            _ => self.primary.url(),
        }
    }

    /// The server that all depends on.
    pub(super) fn first(&self) -> &RedisServer {
        &self.primary
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

    /// Does what a fault says, and undoes it after its time; blocks.
    pub(super) fn inflict(&mut self, fault: Fault, ways: &[Arc<Proxy>]) -> io::Result<()> {
        let lead_on = |primary: &RedisServer| ways.iter().for_each(|way| way.lead_to(primary.upstream()));
        match fault.kind {
            Kind::RedisKill | Kind::RedisRestart => {
                self.end(fault.kind == Kind::RedisRestart)?;
                sleep(fault.lasts);
                self.start_again()
            }
            Kind::RedisFailover => {
                self.end(false)?;
                sleep(fault.lasts);
                self.promote()?;
                lead_on(&self.primary);
                self.demote(true)
            }
            Kind::RedisDemote => {
                self.promote()?;
                // What is connected stays with the old one, which takes writes that nobody confirms.
                lead_on(&self.primary);
                sleep(fault.lasts);
                self.demote(false)
            }
            Kind::ReplicaAttach => {
                self.detach()?;
                self.attach()?;
                // Whoever never takes over must not be the one that confirms.
                if self.replica.is_some() { self.detach() } else { Ok(()) }
            }
            Kind::ReplicaDetach => {
                if !self.attached {
                    self.attach()?;
                }
                self.detach()
            }
            Kind::RedisPauseShort | Kind::RedisPauseLong => super::pause(&self.primary, fault),
            _ => super::command(&self.primary, fault).map(drop),
        }
    }
}
