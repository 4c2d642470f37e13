//! What the files say that is not in the tree, with the reason; and what a reader of the report has to know of them.

use super::super::leaf::{Path, Segment, Written};
use super::super::report::Outcome;
use super::super::source::{Mistake, Position};
use super::super::yaml::{Node, Value};

/// A leaf of a file that is not in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Where it was.
    pub written: Written,
    /// Why it is not there: `override.yml:4:5 replaces it`.
    pub reason: String,
    /// [`Outcome::Converted`] where nothing is lost, because the files themselves ask for it; else [`Outcome::Dropped`].
    pub outcome: Outcome,
}

/// Gathers both.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) replaced: Vec<Replaced>,
    pub(super) warnings: Vec<Mistake>,
}

impl Notes {
    /// The leaves of a value are not in the tree, and nothing is lost.
    pub(super) fn resolve(&mut self, node: &Node, path: &Path, reason: &str) {
        self.remove(node, path, reason, Outcome::Converted);
    }

    /// Another value counts.
    pub(super) fn replace(&mut self, node: &Node, path: &Path, by: &Position) {
        self.resolve(node, path, &format!("{by} replaces it"));
    }

    /// The leaves of a value are lost.
    pub(super) fn drop(&mut self, node: &Node, path: &Path, reason: &str) {
        self.remove(node, path, reason, Outcome::Dropped);
    }

    pub(super) fn warn(&mut self, at: &Position, message: impl Into<String>) {
        self.warnings.push(Mistake { at: at.clone(), message: message.into() });
    }

    fn remove(&mut self, node: &Node, path: &Path, reason: &str, outcome: Outcome) {
        match &node.value {
            Value::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    self.remove(item, &path.with(Segment::Index(index)), reason, outcome);
                }
            }
            Value::Map(entries) if !entries.is_empty() => {
                for entry in entries {
                    self.remove(&entry.node, &path.with(Segment::Key(entry.key.clone())), reason, outcome);
                }
            }
            _ => {
                let written = Written { path: path.clone(), at: node.at.clone() };
                self.replaced.push(Replaced { written, reason: reason.to_owned(), outcome });
            }
        }
    }
}
