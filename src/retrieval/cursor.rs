//! Positions at which an answer continues.

use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::str::FromStr;

use rustc_hash::FxHasher;

use crate::collection::Searcher;

/// A place in the order of results of a question.
///
/// As text: offset, size of the first page and state, such as `6.6.9f3a2b1c`. Callers pass it on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Results before it.
    pub offset: usize,
    /// Results that the first page was to hold, on which the order depends.
    pub first: usize,
    /// Identifies the state of what was searched.
    pub state: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:x}", self.offset, self.first, self.state)
    }
}

/// A text that no answer gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no cursor of a search")]
pub struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut parts = text.split('.');
        let mut number = |radix| {
            let part = parts.next().ok_or(NoCursor)?;
            u32::from_str_radix(part, radix).map_err(|_| NoCursor)
        };
        let (offset, first, state) = (number(10)? as usize, number(10)? as usize, number(16)?);
        if parts.next().is_some() {
            return Err(NoCursor);
        }
        Ok(Self { offset, first, state })
    }
}

/// The state of a question and of what is searched: it changes with every write to one of the collections.
pub(super) fn state(question: impl std::hash::Hash, searchers: &[Searcher]) -> u32 {
    let mut hasher = FxHasher::default();
    question.hash(&mut hasher);
    for searcher in searchers {
        let info = searcher.collection();
        (info.id.0.0, info.last_change.0).hash(&mut hasher);
    }
    // The upper half of this hash is the better one.
    (hasher.finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor { offset: 14, first: 7, state: 0x0009_f3a2 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "14", "14.7", "14.7.zz", "14.7.1.2", "-1.7.1", "14.7.1ffffffff"] {
            assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
        }
    }
}
