//! For tests, benches and harnesses: a private Redis server that ends with its handle, and a proxy whose path to it can fail.

mod proxy;
mod server;

pub use proxy::{Proxy, Upstream};
pub use server::RedisServer;
