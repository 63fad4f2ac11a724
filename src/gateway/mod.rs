//! Terminates sockets: stamps what arrives, journals it, and delivers what was decided. Gateways never decide.

pub mod arrival;
mod frames;
