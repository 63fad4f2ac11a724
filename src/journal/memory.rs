//! Memory journal.
