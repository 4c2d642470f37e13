//! The indexes of a collection: by words ([`lexical`]) and by meaning ([`vector`]).
//!
//! Derived data only: every file here can be deleted and is rebuilt from the log. Neither index stores texts.

pub mod analysis;
pub mod derived;
pub mod filter;
pub mod gpu;
pub mod lexical;
mod ones;
mod stop_words;
pub mod vector;
