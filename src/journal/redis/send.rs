//! How a step is sent: to the server that has what it is about, and only if that server is still the one that the caller knows.

use std::fmt;
use std::sync::Arc;

use ::redis::Value;

use super::super::JournalError;
use super::connect;
use super::keys::Hex;
use super::link::{Link, Live};
use super::nodes::Node;
use super::reply::{Reply, code};
use super::scripts::{CONFIRM, Call, HEARTBEAT, MEET, PING, ROOM_BYTES};
use super::{Durability, RedisJournal};
use crate::types::{Incarnation, ShardId};

/// Where a step goes.
pub(super) struct Place {
    node: Arc<Node>,
    pub(super) live: Live,
    /// The name of the server that has what the step is about.
    pub(super) server: Incarnation,
}

impl RedisJournal {
    /// The connection to whoever has a shard, or what is of none.
    pub(super) async fn at(&self, of: Option<ShardId>) -> Result<Place, JournalError> {
        let place = self.reach(of).await?;
        let server = self.name(&place.node.link, &place.live, of).await?;
        Ok(Place { server, ..place })
    }

    /// As [`Self::at`], in a cluster without the server's name: to read.
    pub(super) async fn reach(&self, of: Option<ShardId>) -> Result<Place, JournalError> {
        let node = self.0.nodes.of(of)?;
        let live = node.link.live().await?;
        let server = live.found.server;
        Ok(Place { node, live, server })
    }

    /// The server's name by what it has. A single server has one for all. In a cluster each shard has its own, which changes when data
    /// may have been lost, or another node has it (rule N1); it is asked for once a connection.
    async fn name(&self, link: &Link, live: &Live, of: Option<ShardId>) -> Result<Incarnation, JournalError> {
        if !self.0.nodes.is_cluster() {
            return Ok(live.found.server);
        }
        if let Some(name) = live.name(of) {
            return Ok(name);
        }
        let mut connection = live.connection.clone();
        let name = match of {
            None => connect::deployment(&mut connection, &link.wanted(), &live.at).await?.2,
            Some(shard) => {
                let mut call = Call::new(&MEET, 1, 1, ROOM_BYTES);
                call.text(&self.0.keys.shard(shard).shard).text(Hex(Incarnation::random()));
                let answer = call.send(&mut connection).await;
                Reply::new("meet", Value::Array(vec![link.judge(live, answer)?]))?.incarnation()?
            }
        };
        live.is_named(of, name);
        Ok(name)
    }

    pub(super) async fn send(&self, of: Option<ShardId>, call: &Call) -> Result<Value, JournalError> {
        self.send_on(&self.at(of).await?, call).await
    }

    pub(super) async fn send_on(&self, place: &Place, call: &Call) -> Result<Value, JournalError> {
        let answer = call.send(&mut place.live.connection.clone()).await;
        place.judge(answer)
    }

    /// A connection for steps that bind their caller to its server (registrations, claims, testimonies), and for `/readyz`. It
    /// checks that the server takes steps and is still the same as when the connection was made. A server that lost its data
    /// since then (it was flushed, or was a replica for a moment) is another server.
    pub(super) async fn met(&self, of: Option<ShardId>) -> Result<Place, JournalError> {
        let place = self.at(of).await?;
        if self.is_still(&place, of).await? {
            return Ok(place);
        }
        place.node.link.give_up(&place.live);
        let place = self.at(of).await?;
        match self.is_still(&place, of).await? {
            true => Ok(place),
            false => Err(JournalError::Unreachable("redis keeps losing its data: trying again".into())),
        }
    }

    /// Whether the node of a shard takes steps, whatever it has.
    pub(super) async fn takes_steps(&self, of: Option<ShardId>) -> Result<(), JournalError> {
        let place = Place { server: Incarnation::NONE, ..self.reach(of).await? };
        self.is_still(&place, of).await.map(drop)
    }

    async fn is_still(&self, place: &Place, of: Option<ShardId>) -> Result<bool, JournalError> {
        let of = of.filter(|_| self.0.nodes.is_cluster());
        let mut call = Call::new(&PING, 1, 2, 128);
        call.text(self.0.keys.root(of));
        match place.server {
            Incarnation::NONE => call.bytes(&[]),
            server => call.text(Hex(server)),
        };
        call.text(if of.is_some() { "name" } else { "server" });
        match code("ping", &self.send_on(place, &call).await?)? {
            0 => Ok(true),
            1 => Ok(false),
            other => Err(JournalError::Unexpected(format!("reply to ping: code {other}"))),
        }
    }

    /// Sends a step that is bound to a server. Returns None, and sends nothing, if the journal has another server. A connection
    /// always leads to one server, so the step need not ask. If that server lost data in the meantime, the step itself notices (no
    /// lease, no registration, another number), or the next ping does.
    pub(super) async fn send_to(&self, server: Incarnation, shard: ShardId, call: &Call) -> Result<Option<Value>, JournalError> {
        let place = self.at(Some(shard)).await?;
        if place.server != server {
            return Ok(None);
        }
        self.send_on(&place, call).await.map(Some)
    }

    /// As [`Self::send_to`], for a script that publishes: its subscribers are woken before the caller.
    pub(super) async fn announce_to(
        &self,
        server: Incarnation,
        shard: ShardId,
        call: Call,
    ) -> Result<Option<Value>, JournalError> {
        if self.durability() != Durability::Redis {
            return self.send_confirmed_to(server, shard, &call).await;
        }
        let place = self.at(Some(shard)).await?;
        if place.server != server {
            return Ok(None);
        }
        let answer = call.announce(&mut place.live.connection.clone()).await;
        place.judge(answer).map(Some)
    }

    /// Sends a step and returns only when what the step wrote, or read, has survived what the durability names (rule C3).
    pub(super) async fn send_confirmed(&self, shard: ShardId, call: &Call) -> Result<(Incarnation, Value), JournalError> {
        let place = self.confirming(shard).await?;
        Ok((place.server, self.confirm(shard, place, call).await?))
    }

    /// As [`Self::send_to`].
    pub(super) async fn send_confirmed_to(
        &self,
        server: Incarnation,
        shard: ShardId,
        call: &Call,
    ) -> Result<Option<Value>, JournalError> {
        let place = self.confirming(shard).await?;
        if place.server != server {
            return Ok(None);
        }
        self.confirm(shard, place, call).await.map(Some)
    }

    /// By the connection that waits for replicas. If it has another server name than the connection for the other steps, one of them
    /// was made before a loss: both are made again.
    async fn confirming(&self, shard: ShardId) -> Result<Place, JournalError> {
        let place = self.at(Some(shard)).await?;
        if place.node.waiting.is_empty() {
            return Ok(place);
        }
        let link = place.node.confirming(shard);
        let live = link.live().await?;
        let server = self.name(link, &live, Some(shard)).await?;
        if server == place.server {
            return Ok(Place { live, server, ..place });
        }
        place.node.link.give_up(&place.live);
        link.give_up(&live);
        let live = link.live().await?;
        let server = self.name(link, &live, Some(shard)).await?;
        Ok(Place { live, server, ..place })
    }

    async fn confirm(&self, shard: ShardId, mut place: Place, call: &Call) -> Result<Value, JournalError> {
        let link = place.node.confirming(shard);
        let answer = call.send(&mut place.live.connection).await;
        let answer = link.judge(&place.live, answer)?;
        if place.node.waiting.is_empty() {
            return Ok(answer);
        }
        let mut mark = Call::new(&CONFIRM, 1, 0, 64);
        mark.text(&self.0.keys.shard(shard).confirm);
        link.confirm(&mut place.live, &mark).await.map(|()| answer)
    }

    /// Stores a heartbeat or a worker's patterns for `good_for_ms` (0 withdraws them). The reply has all entries that have not
    /// expired by this server's clock.
    pub(super) async fn enter_in(
        &self,
        step: &'static str,
        key: &str,
        who: impl fmt::Display,
        good_for_ms: u64,
        said: &str,
    ) -> Result<Reply, JournalError> {
        let mut call = Call::new(&HEARTBEAT, 1, 3, ROOM_BYTES + said.len());
        call.text(key).text(who).text(good_for_ms).text(said);
        Reply::new(step, self.send(None, &call).await?)
    }
}

impl Place {
    /// As [`Link::judge`].
    pub(super) fn judge<T>(&self, answer: ::redis::RedisResult<T>) -> Result<T, JournalError> {
        self.node.link.judge(&self.live, answer)
    }
}
