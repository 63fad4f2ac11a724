//! Gateways terminate sockets: they stamp what arrives, journal it, and deliver what was decided. Gateways never decide.

pub mod arrival;
pub mod auth;
mod frames;
pub mod front;
pub mod hub;
pub mod page;
