//! lasthit inside another program: the road through the embedding API, and the examples, run.

mod examples;
mod road;
