//! lasthit inside a server that has its own sockets: a gateway without WebSockets. The worker is [`crate::worker::run`]. Both
//! use one [`Journal`](crate::journal::Journal).
//!
//! ```
//! use std::sync::Arc;
//! use lasthit::embed::{Gateway, Joining, act};
//! use lasthit::journal::{Journal, memory::MemoryJournal};
//! use lasthit::rules::{RulesBook, claim::Claim};
//! use lasthit::types::{Audience, Outcome};
//! use lasthit::worker::{self, WorkerOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(4));
//! let rules = RulesBook::new().room("*", || Claim::new(Audience::Room));
//! tokio::spawn(worker::run(journal.clone(), rules, WorkerOptions::default(), Default::default(), Default::default()));
//!
//! let gateway = Gateway::start(journal).await?;
//! let mut ann = gateway.join(Joining::new("quiz".parse()?, "ann".parse()?))?;
//! ann.arrive(&act("claim", "a1").contest("buzzer"))?;
//! let verdict = loop {
//!     match ann.recv().await.ok_or("closed")?.verdict() {
//!         Some(verdict) if verdict.id.as_deref() == Some("a1") => break verdict.clone(),
//!         _ => {}
//!     }
//! };
//! assert_eq!(verdict.outcome, Outcome::Granted);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub use crate::gateway::{Delivery, Joining};
use crate::gateway::{Hub, Outbox, Presence, Settle};
use crate::journal::{GatewayJournal, JournalError};
use crate::limits::{LEASE_TIMEOUT, MOVE_URL_BYTES_MAX, SESSIONS_MAX};
use crate::types::{Action, Arrival, PlayerId, SessionId, Since, advertised};
use crate::wire::client::{Encoding, ErrorCode, Refusal, close, parse_action};

/// What a gateway says of its place among those of other hosts. The values of one host do for [`GatewayOptions::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Under which URL players reach the gateways of this host: `ws://HOST:PORT` or `wss://HOST`, at most 96 bytes. Whoever joins a room at
    /// another host that is at home here is sent to it. None is refused while another host has a worker.
    pub advertise: Option<String>,
    /// How long a heartbeat is valid: the `lease` of the workers.
    pub lease: Duration,
    /// After how long without an answer of the journal the sessions are closed, as other hosts may have the rooms by then: the
    /// `rehome_after` of the workers. None is two leases.
    pub rehome_after: Option<Duration>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self { advertise: None, lease: LEASE_TIMEOUT, rehome_after: None }
    }
}

/// A gateway without sockets. It is cheap to clone, and belongs to the runtime that it was started on.
#[derive(Debug, Clone)]
pub struct Gateway(Hub);

impl Gateway {
    /// Starts a gateway under a new identity.
    ///
    /// # Errors
    /// When the journal fails.
    pub async fn start(journal: Arc<dyn GatewayJournal>) -> Result<Self, JournalError> {
        Self::start_with(journal, GatewayOptions::default()).await
    }

    /// Starts a gateway that is one of several hosts'.
    ///
    /// # Errors
    /// When the journal fails, `advertise` is no URL for players, or there is none although another host has a worker.
    pub async fn start_with(journal: Arc<dyn GatewayJournal>, options: GatewayOptions) -> Result<Self, JournalError> {
        let told = |url: String| advertised(&url).map_err(|why| JournalError::Refused(format!("advertise {url:?} {why}")));
        let GatewayOptions { advertise, lease, rehome_after } = options;
        let presence = Presence {
            advertise: advertise.map(told).transpose()?,
            lease,
            rehome_after: rehome_after.unwrap_or(lease.saturating_mul(2)),
        };
        Ok(Self(Hub::start(journal, Settle::Lock, SESSIONS_MAX, "read", 0, presence).await?))
    }

    /// A session joins its room. The first delivery is its welcome; or, where the room is at home on another host, a
    /// [`Delivery::Close`] with [`close::ELSEWHERE`], whose reason is the URL of that host's gateways.
    ///
    /// # Errors
    /// A refusal when a bound is reached or the gateway is stopping.
    pub fn join(&self, joining: Joining) -> Result<Seat, Refusal> {
        let (session, outbox) = self.0.join(joining)?;
        Ok(Seat { hub: self.0.clone(), session, outbox, left: false })
    }

    /// Asks at most `count` quiet sessions to move ([`Delivery::Move`]), so that another gateway can take them: sessions that have
    /// nothing unanswered and have not acted for 1 s. A session is asked so at most once a minute. Returns how many were asked.
    pub fn offer_moves(&self, count: usize) -> usize {
        self.0.offer_moves(count)
    }

    /// Moves all sessions to other gateways. Asks each to move ([`Delivery::Move`]), spread over the first half of `window`. At its
    /// end, closes those that are still there with code 4504, and lets nobody in any more. Returns when no session is left, at
    /// the latest some 4 s after `window`, of which at most 600 s count. Then [`Gateway::drain`] it.
    ///
    /// A client that does as `docs/protocol.md` says loses no action, and plays on without a pause if `window` is at least 2 s.
    /// `url` is the address of the gateway to move to (`ws://` or `wss://`); None lets the client use the address that it knows.
    ///
    /// # Errors
    /// When `url` is no such address, or has more than 256 bytes. Nobody is asked then.
    pub async fn move_sessions(&self, window: Duration, url: Option<&str>) -> Result<(), String> {
        if let Some(url) = url.filter(|url| !is_address(url)) {
            return Err(format!("{url:?} is no address to move to: use ws:// or wss:// and at most {MOVE_URL_BYTES_MAX} bytes"));
        }
        self.0.move_sessions(window, url.map(Into::into)).await;
        Ok(())
    }

    /// Closes all sessions. Returns when they are gone, all accepted actions are in the journal, and the gateway's registrations
    /// are removed.
    pub async fn drain(&self) {
        self.0.drain().await;
    }
}

fn is_address(url: &str) -> bool {
    url.len() <= MOVE_URL_BYTES_MAX && (url.starts_with("ws://") || url.starts_with("wss://"))
}

/// One session of one player in one room. Dropping it closes the session with code 1006 (no goodbye). After a
/// [`Delivery::Close`] the gateway ends the session within 4 s, whether or not the seat is dropped.
#[derive(Debug)]
pub struct Seat {
    hub: Hub,
    session: SessionId,
    outbox: Outbox,
    left: bool,
}

impl Seat {
    /// The session's identity. Verdicts on its actions carry it.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// An action arrives now. It is stamped under the lock that guards the watermark, so actions are ordered as these calls
    /// are.
    ///
    /// # Errors
    /// A refusal. The action was not accepted and may be sent again under the same id.
    pub fn arrive(&self, action: &ActionBuilder) -> Result<(), Refusal> {
        let action = action.build()?;
        self.hub.arrive(|hub, now| hub.act(self.session.number, &action, now))
    }

    /// An action arrived at `ns` of this host's `CLOCK_MONOTONIC`, known to within `uncertainty_ns`. A time below a published
    /// watermark is moved just above it and flagged `clamped`. A time in the future counts as now.
    ///
    /// # Errors
    /// As [`Seat::arrive`].
    pub fn arrive_at(&self, action: &ActionBuilder, ns: u64, uncertainty_ns: u64) -> Result<(), Refusal> {
        let action = action.build()?;
        self.hub.arrive(|hub, now| hub.act(self.session.number, &action, Arrival::at(ns.min(now.ns), uncertainty_ns)))
    }

    /// The next delivery; None once the session is closed.
    pub async fn recv(&mut self) -> Option<Delivery> {
        self.outbox.recv().await
    }

    /// Ends the session with a WebSocket close code.
    pub fn leave(mut self, code: u16) {
        self.end(code);
    }

    fn end(&mut self, code: u16) {
        if !std::mem::replace(&mut self.left, true) {
            self.hub.leave(self.session, code);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end(close::ABNORMAL);
    }
}

/// Begins an action: what to do, and the client's id for it.
#[must_use]
pub fn act(op: &str, id: &str) -> ActionBuilder {
    ActionBuilder { op: op.to_owned(), id: id.to_owned(), contest: None, player: None, seen: None, args: Ok(rmpv::Value::Nil) }
}

/// Builds an action. It is subject to the same bounds as a client's.
#[derive(Debug, Clone, Serialize)]
pub struct ActionBuilder {
    op: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    contest: Option<String>,
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    player: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<String>,
    #[serde(serialize_with = "value")]
    args: Result<rmpv::Value, String>,
}

fn value<S: Serializer>(args: &Result<rmpv::Value, String>, serializer: S) -> Result<S::Ok, S::Error> {
    args.as_ref().map_err(serde::ser::Error::custom)?.serialize(serializer)
}

impl ActionBuilder {
    /// Names the contest.
    #[must_use]
    pub fn contest(mut self, contest: &str) -> Self {
        self.contest = Some(contest.to_owned());
        self
    }

    /// Acts for a player. Only server sessions may.
    #[must_use]
    pub fn as_player(mut self, player: &PlayerId) -> Self {
        self.player = Some(player.as_str().to_owned());
        self
    }

    /// Marks the action as sent again. `since` is the last verdict that its sender had seen when it sent the action first. If the
    /// room may have forgotten the action's id, the action is void (`forgotten`) and cannot count twice.
    #[must_use]
    pub fn again(mut self, since: Since) -> Self {
        self.seen = Some(since.to_string());
        self
    }

    /// Sets the arguments: anything that serializes to nil, booleans, numbers, strings, arrays and maps with string keys.
    #[must_use]
    pub fn args(mut self, args: &impl Serialize) -> Self {
        // Through bytes, so that structs become maps with their fields' names.
        let bytes = rmp_serde::to_vec_named(args).map_err(|e| e.to_string());
        self.args = bytes.and_then(|b| rmpv::decode::read_value(&mut b.as_slice()).map_err(|e| e.to_string()));
        self
    }

    fn build(&self) -> Result<Action, Refusal> {
        let bytes = rmp_serde::to_vec_named(self).map_err(|e| Refusal {
            code: ErrorCode::BadAction,
            id: Some(self.id.clone()),
            message: format!("args: {e}"),
        })?;
        parse_action(Encoding::Msgpack, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryJournal;
    use crate::rules::{RulesBook, claim::Claim};
    use crate::types::{Audience, HostId};
    use crate::worker::{self, WorkerOptions};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Rooms are at home at the first host. Whoever joins at the second one is told the first one's URL.
    #[tokio::test]
    async fn a_gateway_of_another_host_sends_sessions_on() {
        let [first, second] = ["first", "second"].map(|name| HostId::new(name).expect("a name"));
        let journal = MemoryJournal::new(1);
        let (here, there) = (journal.on_host(first), journal.on_host(second));
        let at = |url: &str| GatewayOptions { advertise: Some(url.to_owned()), ..GatewayOptions::default() };
        let home = Gateway::start_with(Arc::new(here.clone()), at("wss://first.example/")).await.expect("a gateway");
        let rules = RulesBook::new().room("*", || Claim::new(Audience::Room));
        tokio::spawn(worker::run(Arc::new(here), rules, WorkerOptions::default(), Default::default(), Default::default()));
        let join = |gateway: &Gateway, player: &str| {
            let joining = Joining::new("pit".parse().expect("room"), player.parse().expect("player"));
            gateway.join(joining).expect("joined")
        };
        let mut ann = join(&home, "ann");
        let first = tokio::time::timeout(PATIENCE, ann.recv()).await.expect("in time");
        assert!(matches!(first, Some(Delivery::Welcome { .. })), "{first:?}");

        let refused = Gateway::start(Arc::new(there.clone())).await.expect_err("without a URL");
        assert!(refused.to_string().contains("give this one --advertise"), "{refused}");
        let bad =
            Gateway::start_with(Arc::new(there.clone()), at("https://second.example")).await.expect_err("no URL for players");
        assert!(bad.to_string().contains("advertise \"https://second.example\" is no address for players"), "{bad}");
        let away = Gateway::start_with(Arc::new(there), at("wss://second.example")).await.expect("a gateway");
        let sent_on = async {
            loop {
                // It may not have heard of the first host yet.
                match join(&away, "bob").recv().await {
                    Some(Delivery::Close { code: close::ELSEWHERE, reason }) => return reason,
                    other => assert!(!matches!(other, Some(Delivery::Welcome { .. })), "{other:?}"),
                }
            }
        };
        let reason = tokio::time::timeout(PATIENCE, sent_on).await.expect("in time");
        assert!(reason.starts_with("wss://first.example#"), "{reason}");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_session_that_left() {
        let gateway = Gateway::start(Arc::new(MemoryJournal::at_home(1))).await.expect("gateway");
        let join = |player: &str| {
            let joining = Joining::new("pit".parse().expect("room"), player.parse().expect("player"));
            gateway.join(joining).expect("joined")
        };
        let (ann, bob) = (join("ann"), join("bob"));
        assert_eq!(gateway.0.outbox_count(), 2);
        ann.leave(close::NORMAL);
        drop(bob);
        assert_eq!(gateway.0.outbox_count(), 0);
        tokio::time::timeout(Duration::from_secs(10), gateway.drain()).await.expect("drained");
        assert_eq!(gateway.0.session_count(), 0);
    }
}
