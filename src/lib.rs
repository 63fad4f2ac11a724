//! lasthit: who was first?

pub mod journal;
pub mod limits;
pub mod rules;
pub mod testing;
pub mod types;
pub mod wire;
