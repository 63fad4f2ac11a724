//! Reports as pages and pictures.

mod chart;
pub(crate) mod page;
pub(crate) mod svg;
