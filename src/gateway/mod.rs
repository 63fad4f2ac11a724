//! Gateways: from a session to the journal and back. They stamp and deliver; they never decide.

pub(crate) mod arrival;
pub(crate) mod auth;
mod catch_up;
#[cfg(test)]
mod catch_up_tests;
pub(crate) mod core;
mod deliver;
mod frames;
pub(crate) mod front;
#[cfg(test)]
mod hostile_tests;
pub(crate) mod hub;
mod kept;
mod leaving;
pub(crate) mod page;
mod refused;
mod settle;
#[cfg(test)]
mod settle_tests;
pub(crate) mod sweep;
mod token;

pub use core::{Delivery, Joining};
pub(crate) use hub::{Hub, Outbox, Settle};
