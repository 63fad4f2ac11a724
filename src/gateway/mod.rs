//! Gateways: from a session to the journal and back. They stamp and deliver; they never decide.

mod core;
mod deliver;
mod settle;

pub use core::{Action, Core, Delivery, Joining, Reading};
