//! lasthit: who was first?

pub mod engine;
pub mod gateway;
pub mod journal;
pub mod limits;
pub mod rules;
pub mod types;
pub mod wire;
pub mod worker;
