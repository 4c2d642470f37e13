//! Derived search structures.
pub mod analysis;
pub mod derived;
pub mod filter;
pub mod lexical;
mod stop_words;
