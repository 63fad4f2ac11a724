//! What is decided by numbers and names alone: each file is one question.

pub(crate) mod addresses;
pub(crate) mod backoff;
pub(crate) mod choose;
pub(crate) mod counts;
pub(crate) mod even;
pub(crate) mod names;
pub(crate) mod pace;
pub(crate) mod recycle;
pub(crate) mod scale;
