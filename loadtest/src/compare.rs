//! lasthit beside what it stands in for, in one run.

pub(crate) mod matrix;
