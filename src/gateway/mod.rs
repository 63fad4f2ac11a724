//! Gateways: from a session to the journal and back. They stamp and deliver; they never decide.

mod backlog;
mod catch_up;
pub(crate) mod core;
mod deliver;
pub(crate) mod front;
pub(crate) mod homes;
pub(crate) mod hub;
mod leaving;
pub(crate) mod moves;
mod reads;
mod settle;
mod state;
pub(crate) mod step;

pub(crate) use hub::{Hub, Outbox, Presence, Settle};
pub use step::{Delivery, Joining};
