//! The `lasthit` program: parses, sets up telemetry, runs a role.

fn main() {}
