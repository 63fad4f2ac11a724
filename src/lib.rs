//! lasthit: who was first?

pub mod gateway;
pub mod journal;
pub mod limits;
pub mod rules;
pub mod types;
pub mod wire;
