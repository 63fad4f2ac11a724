//! A front with real sockets, and a hub whose journal shows what reached it. `tests/it` tests whole processes with their default
//! settings. Here are the deadlines that would take a minute there, and what happens below the level of messages.

mod bounds;
mod homes;
mod life;
mod moves;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use servers::raw::{frame, raw_session, rest, upgrade};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::arrival::{Drains, listen};
use super::auth::Gatekeeper;
use super::sweep::sweep;
use super::{Front, Settings};
use crate::clock::Clock;
use crate::gateway::hub::{Hub, Presence, Settle};
use crate::journal::Journal;
use crate::journal::memory::MemoryJournal;
use crate::rules::{LastHit, RulesBook};
use crate::types::{Event, EventKind, RoomId, StreamId};
use crate::wire::{action, entry};
use crate::worker::{self, WorkerOptions};

/// Longer than anything here takes on a busy machine. No passing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
const JSON: &str = "lasthit.v1.json";

struct TestGateway {
    address: SocketAddr,
    hub: Hub,
    drains: Drains,
    journal: Arc<dyn Journal>,
    stop: CancellationToken,
    _stop: DropGuard,
}

/// Starts a front and a worker. `change` changes the front's default settings.
async fn gateway(change: impl FnOnce(&mut Settings)) -> TestGateway {
    let gateway = gateway_without_worker(change).await;
    let rules = RulesBook::new().room("*", LastHit::new);
    let stop = gateway.stop.clone();
    tokio::spawn(worker::run(gateway.journal.clone(), rules, WorkerOptions::default(), stop, Default::default()));
    gateway
}

async fn gateway_without_worker(change: impl FnOnce(&mut Settings)) -> TestGateway {
    gateway_on(MemoryJournal::at_home(1), change).await
}

async fn gateway_on(journal: MemoryJournal, change: impl FnOnce(&mut Settings)) -> TestGateway {
    let mut settings = Settings::default();
    change(&mut settings);
    let (drains, stop) = (Drains::default(), CancellationToken::new());
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let journal: Arc<dyn Journal> = Arc::new(journal);
    let advertise = Some(settings.advertise.clone()).filter(|url| !url.is_empty());
    let presence = Presence { advertise, ..Presence::default() };
    let hub = Hub::start(journal.clone(), Settle::Sweep, settings.sessions_max, "read", 0, presence).await.unwrap();
    tokio::spawn(sweep(hub.clone(), drains.clone(), stop.clone()));
    let gatekeeper = Gatekeeper::new(None, Vec::new(), false);
    let front = Front::new(hub.clone(), gatekeeper, |_| None, Clock::new(), drains.clone(), settings, stop.child_token());
    tokio::spawn(Arc::new(front).serve(listener, stop.clone()));
    TestGateway { address, hub, drains, journal, stop: stop.clone(), _stop: stop.drop_guard() }
}

impl TestGateway {
    /// Upgrades by hand, and reads nothing of the session.
    async fn join(&self, player: &str) -> TcpStream {
        raw_session(self.address, &target(player), JSON).await
    }

    /// What reached the journal of a player's session.
    async fn events(&self, player: &str) -> Vec<Event> {
        let room: RoomId = "pit".parse().unwrap();
        let entries =
            crate::journal::pages::entries(&*self.journal, &room, StreamId::default(), Default::default()).await.unwrap();
        let events: Vec<Event> = entries.iter().flat_map(|(_, bytes)| entry::decode(bytes).unwrap().events).collect();
        let opens = |event: &&Event| matches!(&event.kind, EventKind::Open { player: name, .. } if name.as_str() == player);
        let session = events.iter().find(opens).map(|event| event.session);
        events.into_iter().filter(|event| Some(event.session) == session).collect()
    }

    /// Waits until `count` events of a player's session are there.
    async fn events_at_least(&self, player: &str, count: usize) -> Vec<Event> {
        let there = async {
            loop {
                let events = self.events(player).await;
                if events.len() >= count {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, there).await.expect("events")
    }

    /// A player's session from open to close, once it is closed.
    async fn life(&self, player: &str) -> Vec<String> {
        let closed = async {
            loop {
                let events = self.events(player).await;
                if matches!(events.last(), Some(Event { kind: EventKind::Close, .. })) {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let events = timeout(PATIENCE, closed).await.unwrap_or_else(|_| panic!("{player} was not closed"));
        events.into_iter().map(|event| word(event.kind)).collect()
    }
}

fn word(kind: EventKind) -> String {
    match kind {
        EventKind::Open { .. } => "open".to_owned(),
        EventKind::Data(bytes) => format!("act {}", action::decode(&bytes).unwrap().id),
        EventKind::End { code } => format!("end {code}"),
        EventKind::Error { reason } => format!("error {reason}"),
        EventKind::Close => "close".to_owned(),
    }
}

fn target(player: &str) -> String {
    format!("/v1/room/pit?player={player}")
}

fn act(id: &str) -> Vec<u8> {
    frame(0x81, format!(r#"{{"op":"hit","id":"{id}"}}"#).as_bytes())
}
