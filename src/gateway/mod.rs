//! Gateways: from a session to the journal and back. They stamp and deliver; they never decide.

pub mod arrival;
pub mod auth;
mod catch_up;
#[cfg(test)]
mod catch_up_tests;
pub(crate) mod core;
mod deliver;
mod frames;
pub mod front;
#[cfg(test)]
mod hostile_tests;
pub mod hub;
mod kept;
mod leaving;
pub mod page;
mod refused;
mod settle;
#[cfg(test)]
mod settle_tests;
pub mod sweep;
mod token;

pub use core::{Delivery, Joining};
pub use hub::{Hub, Outbox, Settle};
