//! Redis journal.
