//! For tests, benches and the load generator: a private Redis server that ends with its handle, sentinels over it, a cluster, a proxy whose path to it can
//! fail, players' tokens, terminals, and WebSockets by hand. It knows nothing of lasthit, so that lasthit's own unit tests can use it.

mod cluster;
mod port;
mod program;
mod proxy;
pub mod raw;
mod sentinel;
mod server;
mod terminal;
mod token;

pub use cluster::{Cluster, Shape};
pub use port::free_address;
pub use program::Program;
pub use proxy::{Proxy, Upstream};
pub use sentinel::Sentinels;
pub use server::RedisServer;
pub use terminal::Terminal;
pub use token::token;
