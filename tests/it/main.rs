//! The whole thing: real `lasthit` processes on real sockets, with a private Redis per test.
//!
//! Every process ends with its handle. Nothing sleeps for a fixed time where a condition can be waited for.

mod advertised;
mod cli;
mod clients;
mod cluster;
mod events;
mod gateways;
mod hosts;
mod input;
mod messages;
mod operating;
mod other_servers;
mod outages;
mod process;
mod proxies;
mod redis;
mod resume;
mod road;
mod rollback;
mod rules;
mod sentinel;
mod stream;
mod support;
mod suspects;
mod timers;
mod tools;
mod up;
mod workers;
