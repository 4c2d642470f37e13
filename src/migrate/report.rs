//! What became of each leaf of the input.
//!
//! Invariants: each leaf has exactly one entry. A leaf that a module read and forgot is `dropped`, never left out. Values are not in the
//! report, so that no secret is.

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

    /// Whether something is known of a leaf.
    #[must_use]
    pub fn is_marked(&self, leaf: Leaf) -> bool {
        self.marks[leaf.number()].outcome.is_some()
    }

    /// The leaves that nothing is known of.
    #[must_use]
    pub fn unmarked(&self) -> Vec<Leaf> {
        self.leaves.iter().map(|(leaf, _)| leaf).filter(|leaf| !self.is_marked(*leaf)).collect()
    }

    /// The report: a leaf's entry is where it is in the input, what was added comes last.
    #[must_use]
    pub fn finish(self) -> Report {
        let mut entries = Vec::with_capacity(self.marks.len() + self.added.len());
        for ((_, written), mark) in self.leaves.iter().zip(self.marks) {
            let mut targets = mark.targets.into_iter();
            let first = targets.next();
            let forgotten = "Cairn read this and wrote nothing for it";
            entries.push(Entry {
                path: written.path.clone(),
                file: written.at.file.to_string(),
                line: written.at.line,
                outcome: mark.outcome.unwrap_or(Outcome::Dropped),
                reason: if mark.outcome.is_none() { forgotten.to_owned() } else { mark.reasons.join("; ") },
                object: first.as_ref().map_or_else(String::new, |target| target.object.clone()),
                field: first.map_or_else(String::new, |target| target.field),
                also: targets.map(|target| format!("{} {}", target.object, target.field)).collect(),
            });
        }
        let mut added = self.added;
        added.sort();
        entries.extend(added.into_iter().map(|(target, reason)| Entry {
            path: Path::default(),
            file: String::new(),
            line: 0,
            outcome: Outcome::Added,
            reason,
            object: target.object,
            field: target.field,
            also: Vec::new(),
        }));
        Report { cannot_move: self.cannot_move, entries }
    }
}

impl Outcome {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Dropped, Self::NeedsInput, Self::Approximated, Self::Converted, Self::Added];

    /// As the report has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Converted => "converted",
            Self::Approximated => "approximated",
            Self::NeedsInput => "needs_input",
            Self::Dropped => "dropped",
        }
    }
}

/// What became of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What cannot run on Kubernetes at all.
    pub cannot_move: Vec<String>,
    /// One for each leaf, and for each thing that Cairn added.
    pub entries: Vec<Entry>,
}

impl Report {
    /// How many entries have an outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.entries.iter().filter(|entry| entry.outcome == outcome).count()
    }

    /// Whether every leaf was converted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.cannot_move.is_empty() && self.entries.iter().all(|entry| entry.outcome <= Outcome::Converted)
    }

    /// The report as Markdown, without a title: what people have to do first.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.cannot_move.is_empty() {
            text.push_str("## What cannot move\n\n");
            self.cannot_move.iter().for_each(|what| text.push_str(&format!("* {}\n", escaped(what))));
            text.push('\n');
        }
        text.push_str("| outcome | entries |\n|---|---:|\n");
        for outcome in Outcome::ALL {
            text.push_str(&format!("| {} | {} |\n", outcome.as_str(), self.count(outcome)));
        }
        for (outcome, title) in [
            (Outcome::NeedsInput, "Decide or provide"),
            (Outcome::Dropped, "Dropped"),
            (Outcome::Approximated, "Approximated"),
            (Outcome::Added, "Added by Cairn"),
            (Outcome::Converted, "Converted"),
        ] {
            if self.count(outcome) == 0 {
                continue;
            }
            text.push_str(&format!("\n## {title}\n\n"));
            let is_added = outcome == Outcome::Added;
            text.push_str(if is_added {
                "| field | why |\n|---|---|\n"
            } else {
                "| where | what | field | why |\n|---|---|---|---|\n"
            });
            for entry in self.entries.iter().filter(|entry| entry.outcome == outcome) {
                if !is_added {
                    text.push_str(&format!(
                        "| {}:{} | `{}` ",
                        escaped(&entry.file),
                        entry.line,
                        escaped(&entry.path.to_string())
                    ));
                }
                let field = format!("{} {}", entry.object, entry.field);
                let field = if entry.object.is_empty() { String::new() } else { format!("`{}`", escaped(&field)) };
                text.push_str(&format!("| {field} | {} |\n", escaped(&entry.reason)));
            }
        }
        text
    }
}

/// A text for a cell of a table.
fn escaped(text: &str) -> String {
    let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(clean).collect::<String>().replace('|', "\\|").replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{Item, Node, Source};

    fn ledger(text: &str) -> (Ledger, Vec<Leaf>) {
        let source = Source::of("stack.yml", text.as_bytes()).expect("text");
        let mut leaves = crate::migrate::Leaves::default();
        let tree = Item::number(&Node::documents(&source).expect("YAML")[0], Path::default(), &mut leaves);
        let all = tree.leaves();
        (Ledger::new(leaves), all)
    }

    #[test]
    fn each_leaf_has_one_entry_with_the_worst_outcome() {
        let (mut ledger, leaves) = ledger("a: [80, {}]\n\"b.c\": x\n");
        ledger.approximated(leaves[0], Target::new("Service/a", "spec.ports[0].port"), "one");
        ledger.converted(leaves[0], Target::new("Deployment/a", "spec"));
        ledger.needs_input(leaves[1], "two");
        ledger.needs_input(leaves[1], "three");
        ledger.added(Target::new("Service/a", "spec"), "four");
        assert_eq!(ledger.unmarked(), [leaves[2]]);
        let report = ledger.finish();
        let found: Vec<String> = report
            .entries
            .iter()
            .map(|entry| {
                format!(
                    "{} {} {} {} {} {:?}",
                    entry.path,
                    entry.line,
                    entry.outcome.as_str(),
                    entry.reason,
                    entry.object,
                    entry.also
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                r#"a[0] 1 approximated one Service/a ["Deployment/a spec"]"#,
                "a[1] 1 needs_input two; three  []",
                r#"["b.c"] 2 dropped Cairn read this and wrote nothing for it  []"#,
                " 0 added four Service/a []",
            ]
        );
        assert!(!report.is_complete());
        assert_eq!(serde_json::to_value(&report.entries[0].path).expect("JSON"), serde_json::json!(["a", 0]));
    }

    #[test]
    fn hostile_names_do_not_leave_their_cell() {
        let (mut ledger, leaves) = ledger("\"a|b`\\nc\": x\n");
        ledger.dropped(leaves[0], "why | not\nso");
        let text = ledger.finish().markdown();
        assert!(text.contains("| `a\\|b' c` |  | why \\| not so |"), "{text}");
    }
}
