//! What the project says of itself is true: its pages, its protocol, and the walls between its parts.

mod pages;
mod programs;
mod protocol;
mod scan;
mod tidy;
mod tree;
