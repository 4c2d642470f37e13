//! What became of each leaf of the input.
//!
//! Invariants: each leaf has exactly one entry, and one that nothing was written for is never `converted`. Values are not in the report, so
//! that no secret is.

use serde::Serialize;

use super::leaf::{Leaf, Leaves, Path};

/// What became of a leaf, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Cairn wrote it of its own; the entry has no leaf.
    Added,
    /// The objects do what it says.
    Converted,
    /// The objects do something like it; the reason says what differs.
    Approximated,
    /// A person has to decide or to provide something.
    NeedsInput,
    /// Nothing in the objects says it; the reason says why.
    Dropped,
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Kind and name: `Deployment/search`.
    pub object: String,
    /// From the object's root: `spec.template.spec.containers[0].image`.
    pub field: String,
}

impl Target {
    /// A field of an object.
    #[must_use]
    pub fn new(object: impl Into<String>, field: impl Into<String>) -> Self {
        Self { object: object.into(), field: field.into() }
    }
}

/// An entry of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// From the root of the input; nothing for what was added.
    pub path: Path,
    /// The file; nothing for what was added.
    pub file: String,
    /// From 1; 0 for what was added.
    pub line: usize,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, or how; nothing where there is nothing to say.
    pub reason: String,
    /// The object that has it, as `Deployment/search`; nothing where it is in none.
    pub object: String,
    /// Where it is in the object.
    pub field: String,
    /// Further fields that have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}

/// What is known of a leaf so far.
#[derive(Debug, Clone, Default)]
struct Mark {
    outcome: Option<Outcome>,
    reasons: Vec<String>,
    targets: Vec<Target>,
}

/// Gathers what became of each leaf. A leaf may be marked several times: the worst outcome counts, and all reasons and fields.
#[derive(Debug, Clone)]
pub struct Ledger {
    leaves: Leaves,
    marks: Vec<Mark>,
    added: Vec<(Target, String)>,
    cannot_move: Vec<String>,
}

impl Ledger {
    /// Nothing is marked yet.
    #[must_use]
    pub fn new(leaves: Leaves) -> Self {
        let marks = vec![Mark::default(); leaves.iter().len()];
        Self { leaves, marks, added: Vec::new(), cannot_move: Vec::new() }
    }

    /// The leaves.
    #[must_use]
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// The objects do what the leaf says.
    pub fn converted(&mut self, leaf: Leaf, target: Target) {
        self.mark(leaf, Outcome::Converted, "", Some(target));
    }

    /// The leaf needs no field of its own: it says what is so anyway.
    pub fn agrees(&mut self, leaf: Leaf, reason: &str) {
        self.mark(leaf, Outcome::Converted, reason, None);
    }

    /// The objects do something like it.
    pub fn approximated(&mut self, leaf: Leaf, target: Target, reason: impl Into<String>) {
        self.mark(leaf, Outcome::Approximated, reason, Some(target));
    }

    /// A person has to decide.
    pub fn needs_input(&mut self, leaf: Leaf, reason: impl Into<String>) {
        self.mark(leaf, Outcome::NeedsInput, reason, None);
    }

    /// Nothing in the objects says it.
    pub fn dropped(&mut self, leaf: Leaf, reason: impl Into<String>) {
        self.mark(leaf, Outcome::Dropped, reason, None);
    }

    /// Any outcome.
    pub fn mark(&mut self, leaf: Leaf, outcome: Outcome, reason: impl Into<String>, target: Option<Target>) {
        let mark = &mut self.marks[leaf.number()];
        mark.outcome = mark.outcome.max(Some(outcome));
        let reason = reason.into();
        if !reason.is_empty() && !mark.reasons.contains(&reason) {
            mark.reasons.push(reason);
        }
        mark.targets.extend(target.filter(|target| !mark.targets.contains(target)));
    }

    /// Cairn wrote something that the input does not have.
    pub fn added(&mut self, target: Target, reason: impl Into<String>) {
        let added = (target, reason.into());
        if !self.added.contains(&added) {
            self.added.push(added);
        }
    }

    /// Something of the stack cannot run on Kubernetes at all; it is at the top of the report.
    pub fn cannot_move(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.cannot_move.contains(&what) {
            self.cannot_move.push(what);
        }
    }

    /// The leaves that nothing is known of.
    pub fn unmarked(&self) -> Vec<Leaf> {
        let marks = self.leaves.iter().zip(&self.marks);
        marks.filter(|(_, mark)| mark.outcome.is_none()).map(|((leaf, _), _)| leaf).collect()
    }
}
