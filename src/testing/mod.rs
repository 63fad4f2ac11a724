//! For tests, benches and harnesses: a private Redis server that ends with its handle, a proxy whose path to it can fail, and
//! players' tokens.

mod proxy;
mod server;
mod token;

pub use proxy::{Proxy, Upstream};
pub use server::RedisServer;
pub use token::token;
