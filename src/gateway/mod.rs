//! Gateways: from sockets to the journal, and back.

pub mod auth;
