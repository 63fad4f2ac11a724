//! lasthit: who was first?

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod embed;
pub mod engine;
pub mod gateway;
pub mod journal;
pub mod limits;
pub mod metrics;
pub mod roles;
pub mod rules;
pub mod runtime;
pub mod shutdown;
#[cfg(test)]
mod sim;
pub mod telemetry;
pub mod testing;
pub mod types;
pub mod wire;
pub mod worker;
