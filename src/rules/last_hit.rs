//! Last hit.
