//! Off Docker Swarm: reads the files of a stack, and says of each value in them where it stands.
//!
//! Owns the dialects in which such files are written: what `docker stack deploy` reads and what `docker compose` reads differ in how
//! variables are replaced, which keys count and which are refused.
//!
//! Invariants: nothing of the machine that converts gets into a result unasked, its environment variables among it. A file of any content
//! takes bounded time and memory.

mod check;
mod conversion;
pub mod cutover;
pub mod data;
mod defaults;
mod env_file;
mod files;
pub mod folder;
pub mod helm;
pub mod images;
mod interpolation;
mod keys;
mod leaf;
pub mod live;
mod load;
pub mod objects;
pub mod read;
mod report;
mod source;
pub mod stack;
mod yaml;

pub use self::conversion::{Conversion, ConversionError, Request, convert};
pub use self::env_file::{Variable, variables};
pub use self::files::{FileError, Files};
pub use self::interpolation::{Interpolated, InterpolationError, Interpolator};
pub use self::keys::{Fate, Key, key_of, keys, markdown as keys_markdown, matching as keys_matching};
pub use self::leaf::{At, Item, ItemValue, Leaf, Leaves, Path, Segment, Written};
pub use self::live::SCRIPT;
pub use self::load::LoadError;
pub use self::report::{Entry as ReportEntry, Ledger, Outcome, Report, Target};
pub use self::source::{Mistake, Position, Source, SourceError};
pub use self::yaml::{Entry, Node, Tag, Value};

/// The program that a file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `docker stack deploy`, as docker/cli 29 reads it.
    Stack,
    /// `docker compose`, as compose-go 2 reads it.
    Compose,
}
