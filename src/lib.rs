//! lasthit: who was first?
//!
//! Players' actions reach several processes within microseconds of each other. Gateways stamp them with the moment at which
//! they reached the machine, workers put each room's actions back into that order and decide, and every decision (a verdict)
//! is made once.
//!
//! ```text
//!  player                gateway                     journal                     worker
//!                                              (Redis, or memory)
//!   action ──► arrival ──► settle ──► append ──► room's stream ──► resequence ──► resolve ──► commit
//!              kernel's    what was   a flush,   and the shard's   stamp order,   rules,      once, fenced
//!              stamp       read is    and its    bell              proven by      verdicts    by the lease
//!                          complete   watermark                    watermarks                    │
//!                                                                                                ▼
//!   verdict ◄── deliver ◄──────────────────────── pushes ◄─────────────────────── room's verdict stream
//!               in seq order, gaps filled
//! ```
//!
//! # The way, in reading order
//!
//! | stage | where | what it is |
//! |---|---|---|
//! | values | [`types`] | what the stages exchange: [`Stamp`](types::Stamp), [`Event`](types::Event), [`Verdict`](types::Verdict) |
//! | arrival | `clock`, `gateway::front::arrival` | a socket that keeps the kernel's stamp of its last read |
//! | session | `gateway::front`, [`wire::client`] | from an HTTP upgrade to actions, and verdicts back |
//! | settle | `gateway::front::sweep` | when everything up to a moment has been read |
//! | append | `gateway::Hub`, [`GatewayJournal::append`](journal::GatewayJournal::append) | a flush: a gateway's events up to a watermark, and the watermark |
//! | record | [`journal`] | a trait for gateways and one for workers, in [`memory`](journal::memory) and in [`redis`](journal::redis); [`wire`] has its forms |
//! | resequence | `engine::Resequencer` | one room's events back in stamp order |
//! | resolve | `engine::Room`, [`rules`] | events become verdicts; the game's part is [`rules::Rules`] |
//! | commit | [`worker`], [`WorkerJournal::commit`](journal::WorkerJournal::commit) | verdicts become final, then are pushed |
//! | deliver | `gateway::Hub`, `gateway::Outbox` | verdicts reach the sessions that may see them, in `seq` order |
//!
//! To use it inside a server: [`embed`] and [`worker::run`]. Modules without a link are the program's own; `ARCHITECTURE.md`
//! describes them and the invariants that they keep.

// What the stages exchange.
mod limits;
pub mod types;

// The way.
mod clock;
mod gateway;

pub mod journal;
pub mod wire;

mod engine;
pub mod rules;
pub mod worker;

// Inside another server.
pub mod embed;

// The program.
mod arena;
pub mod child;
mod cli;
mod config;
mod failed;
mod hosts;
mod process;
mod program;
mod roles;
mod runtime;
pub mod shutdown;
pub mod supervisor;

// Its operation.
mod admin;
mod metrics;
mod replay;
mod telemetry;
mod versions;
mod workbench;

#[doc(hidden)]
pub mod internals;

#[cfg(test)]
mod sim;
