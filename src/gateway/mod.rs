//! The process that terminates WebSockets: stamps, appends, delivers.

pub mod page;
