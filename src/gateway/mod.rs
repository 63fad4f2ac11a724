//! Gateways: from a session to the journal and back. They stamp and deliver; they never decide.

pub mod arrival;
pub mod auth;
mod core;
mod deliver;
mod frames;
mod settle;

pub(crate) use core::{Action, Core, Reading};
pub use core::{Delivery, Joining};
