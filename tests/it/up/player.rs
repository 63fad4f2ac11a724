//! A player who comes back after each loss, with what was not answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Heard, PATIENCE, Session, Ticket, now};

/// Between two actions of a player who takes it easy.
const PAUSE: Duration = Duration::from_millis(250);
/// How soon it tries again.
const RETRY: Duration = Duration::from_millis(10);

pub(super) struct Player {
    name: String,
    ticket: Ticket,
    session: Session,
    actions: usize,
    /// Verdicts by their place.
    seen: BTreeMap<u64, Value>,
    /// How often it was asked to move.
    pub(super) asked_to_move: usize,
    /// How often it had to come back.
    pub(super) returns: usize,
}

impl Player {
    pub(super) async fn join(address: SocketAddr, room: &str, name: &str) -> Self {
        let ticket = Ticket::new(address, room, name);
        let session = ticket.join().await;
        let (name, seen) = (name.to_owned(), BTreeMap::new());
        Self { name, ticket, session, actions: 0, seen, asked_to_move: 0, returns: 0 }
    }

    /// Claims what nobody else claims, until there is an answer.
    pub(super) async fn play(&mut self) {
        let id = format!("a{}", self.actions);
        self.actions += 1;
        let action = json!({"op": "claim", "id": id, "contest": format!("{} {id}", self.name), "args": null});
        let _ = self.session.ws.send(Message::text(action.to_string())).await;
        loop {
            match self.hear().await {
                Some(told) if told["id"] == id.as_str() && told["player"] == self.name.as_str() => return,
                Some(_) => {}
                // What was sent into a session that is lost may have got through: the same id says that it is the same action.
                None => drop(self.session.ws.send(Message::text(action.to_string())).await),
            }
        }
    }

    /// Within four actions in a second.
    pub(super) async fn play_slowly(&mut self) {
        tokio::time::sleep(PAUSE).await;
        self.play().await;
    }

    /// The next message. None: the session was lost, and there is another one.
    async fn hear(&mut self) -> Option<Value> {
        match self.session.next().await {
            Heard::Message(told) => {
                assert_ne!(told["t"], "error", "{told}");
                match told["t"].as_str() {
                    Some("verdict") => {
                        let seq = told["seq"].as_u64().expect("seq");
                        assert_eq!(told["from"].as_u64().unwrap_or(seq), self.session.seq + 1, "contiguous: {told}");
                        self.session.seq = seq;
                        assert!(self.seen.insert(seq, told.clone()).is_none(), "told twice: {told}");
                    }
                    Some("move") => self.asked_to_move += 1,
                    _ => {}
                }
                Some(told)
            }
            Heard::Close(..) | Heard::Lost(_) => {
                self.come_back().await;
                None
            }
        }
    }

    /// Until it is let in: a gateway that ends takes what it was just given with it.
    async fn come_back(&mut self) {
        let (era, seq, began) = (self.session.era(), self.session.seq, now());
        self.returns += 1;
        loop {
            if let Some(session) = self.ticket.clone().since(era, seq).try_join().await {
                assert_eq!((session.era(), session.seq), (era, seq), "it goes on where it was: {}", session.welcome);
                self.session = session;
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{} is not let in", self.name);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Each action was decided, and once.
    pub(super) fn is_content(&self) {
        let of_own = |id: &str| {
            let own = self.seen.values().filter(|v| v["player"] == self.name.as_str() && v["id"] == id);
            own.filter(|v| v["outcome"] == "granted" && v["repeat_of"].is_null()).count()
        };
        for n in 0..self.actions {
            assert_eq!(of_own(&format!("a{n}")), 1, "action {n} of {}: {:?}", self.name, self.seen);
        }
    }
}
