//! For tests, benches and the load generator: a private Redis server that ends with its handle, a proxy whose path to it can
//! fail, players' tokens, terminals, and WebSockets by hand. It knows nothing of lasthit, so that lasthit's own unit tests can use it.

mod proxy;
pub mod raw;
mod server;
mod terminal;
mod token;

pub use proxy::{Proxy, Upstream};
pub use server::RedisServer;
pub use terminal::Terminal;
pub use token::token;
