//! From the merged tree of a stack's files to the typed [`Stack`], by the rules of the program that the files are for: docker/cli 29.9.3 or
//! compose-go 2.16.2.
//!
//! Owns the short forms of every key and what amounts, commands and lists of variables mean. Invariants: the tree may be anything, and
//! what does not fit is a [`Mistake`]; all of them are found, not only the first. Every leaf that is read is in the stack, or in a
//! [`Remark`] that says why it is not. Values of variables, configs and secrets are in no message.

mod amounts;
mod compose;
mod deploy;
mod environment;
mod forms;
mod health;
mod holders;
mod mounts;
mod networks;
mod payloads;
mod ports;
mod resources;
mod service;
mod volumes;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub(super) use self::amounts::bytes;
pub use self::holders::leaves_of;
use super::leaf::{Item, ItemValue, Leaf, Leaves};
use super::report::Outcome;
use super::stack::Stack;
use super::{Dialect, Files, Mistake};
use crate::base::tree::nearest;

/// Most ports and variables of a stack. A short text can say many: a range of ports, or a file of variables that each service names.
const MANY_MAX: usize = 400_000;
/// Most mistakes that are reported; a file with more is not a stack.
const MISTAKES_MAX: usize = 1_000;

/// The value of a variable of the shell that deploys, as far as the user says it.
pub type Lookup<'l> = dyn Fn(&str) -> Option<String> + 'l;

/// What the files say.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadStack {
    /// The stack.
    pub stack: Stack,
    /// Leaves that are in no field of it, or of which more is to be said.
    pub remarks: Vec<Remark>,
}

/// What became of a leaf while it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Which one.
    pub leaf: Leaf,
    /// [`Outcome::Converted`] where it says what is so anyway.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
}

/// Reads a tree. Variables that the files leave to the shell that deploys have no value.
///
/// * `tree`: the files, merged and interpolated, after a check of kinds and keys.
/// * `name`: that of the stack.
/// * `files`: what the tree may name; relative names are below its root.
/// * `leaves`: those of the tree.
///
/// # Errors
/// Everything in the tree that the program would refuse.
pub fn read(
    tree: &Item,
    name: &str,
    dialect: Dialect,
    files: &Files,
    leaves: &Leaves,
) -> Result<ReadStack, Vec<Mistake>> {
    read_with(tree, name, dialect, files, leaves, &|_| None)
}

/// Reads a tree as [`read`] does.
///
/// * `lookup`: variables of the shell that deploys. docker/cli uses them in place of values that are missing **or empty**, compose-go
///   where they are missing.
///
/// # Errors
/// As [`read`].
pub fn read_with(
    tree: &Item,
    name: &str,
    dialect: Dialect,
    files: &Files,
    leaves: &Leaves,
    lookup: &Lookup<'_>,
) -> Result<ReadStack, Vec<Mistake>> {
    let keys = |section: &str| tree.get(section).into_iter().flat_map(Item::entries).map(|(key, _)| key).collect();
    let mut reader = Reader {
        dialect,
        files,
        leaves,
        lookup,
        services: keys("services"),
        networks: keys("networks"),
        volumes: keys("volumes"),
        configs: keys("configs"),
        secrets: keys("secrets"),
        room: MANY_MAX,
        mistakes: Vec::new(),
        remarks: Vec::new(),
    };
    if !matches!(tree.value, ItemValue::Map(_) | ItemValue::NoKeys(_)) {
        reader.wrong(tree, "a map with the key 'services'");
    }
    let stack = Stack {
        name: name.to_owned(),
        dialect,
        services: reader.section(tree, "services", Reader::service),
        networks: reader.section(tree, "networks", |reader, key, item| Some(reader.network(key, item))),
        volumes: reader.section(tree, "volumes", |reader, key, item| Some(reader.volume(key, item))),
        configs: reader.section(tree, "configs", |reader, key, item| Some(reader.payload(key, item, "config"))),
        secrets: reader.section(tree, "secrets", |reader, key, item| Some(reader.payload(key, item, "secret"))),
    };
    if dialect == Dialect::Compose {
        reader.check_cycles(&stack.services);
    }
    match reader.mistakes.is_empty() {
        true => Ok(ReadStack { stack, remarks: reader.remarks }),
        false => Err(reader.mistakes),
    }
}

/// What is read so far, and what it is read by.
struct Reader<'r> {
    dialect: Dialect,
    files: &'r Files,
    leaves: &'r Leaves,
    lookup: &'r Lookup<'r>,
    services: BTreeSet<&'r str>,
    networks: BTreeSet<&'r str>,
    volumes: BTreeSet<&'r str>,
    configs: BTreeSet<&'r str>,
    secrets: BTreeSet<&'r str>,
    /// How many more ports and variables there may be.
    room: usize,
    mistakes: Vec<Mistake>,
    remarks: Vec<Remark>,
}

impl Reader<'_> {
    fn is_compose(&self) -> bool {
        self.dialect == Dialect::Compose
    }

    fn is_full(&self) -> bool {
        self.mistakes.len() >= MISTAKES_MAX
    }

    fn push(&mut self, mistake: Mistake) {
        if !self.is_full() {
            self.mistakes.push(mistake);
        }
    }

    /// A mistake at a value.
    fn mistake(&mut self, item: &Item, message: impl Into<String>) {
        self.push(item.mistake(message));
    }

    /// A mistake at a leaf.
    fn mistake_at(&mut self, leaf: Leaf, message: impl Into<String>) {
        self.push(self.leaves.mistake(leaf, message));
    }

    /// A value of a wrong kind.
    fn wrong(&mut self, item: &Item, expected: &str) {
        let found = match &item.value {
            ItemValue::Scalar(scalar) => match &scalar.value {
                super::Value::Null => "nothing",
                super::Value::Bool(_) => "true or false",
                super::Value::Int(_) | super::Value::Float(_) => "a number",
                _ => "text",
            },
            ItemValue::List(_) | ItemValue::NoItems(_) => "a list",
            ItemValue::Map(_) | ItemValue::NoKeys(_) => "a map",
        };
        self.mistake(item, format!("{}: found {found}, expected {expected}", item.path));
    }

    fn remark(&mut self, leaf: Leaf, outcome: Outcome, reason: impl Into<String>) {
        self.remarks.push(Remark { leaf, outcome, reason: reason.into() });
    }

    /// A remark for every leaf of a value.
    fn remark_all(&mut self, item: &Item, outcome: Outcome, reason: &str) {
        for leaf in item.leaves() {
            self.remark(leaf, outcome, reason);
        }
    }

    /// The leaf of a value with nothing in it, which says the same as a key that is not written.
    fn nothing(&mut self, item: &Item) {
        self.remark_all(item, Outcome::Converted, "nothing is written here, which is the same as no such key");
    }

    /// Room for so many more ports or variables.
    fn spend(&mut self, item: &Item, count: usize) -> bool {
        match self.room.checked_sub(count) {
            Some(room) => {
                self.room = room;
                true
            }
            None => {
                if self.room > 0 {
                    self.mistake(item, format!("more than {MANY_MAX} ports and variables in the stack up to here"));
                }
                self.room = 0;
                false
            }
        }
    }

    /// The entries of a section, sorted by name.
    fn section<T>(
        &mut self,
        tree: &Item,
        section: &str,
        mut entry: impl FnMut(&mut Self, &str, &Item) -> Option<T>,
    ) -> Vec<T> {
        let Some(item) = tree.get(section) else { return Vec::new() };
        self.sorted_entries(item).into_iter().filter_map(|(key, item)| entry(self, key, item)).collect()
    }

    /// The keys of a map with their values, sorted by name.
    fn sorted_entries<'i>(&mut self, item: &'i Item) -> Vec<(&'i str, &'i Item)> {
        if !self.is_map(item) {
            return Vec::new();
        }
        let mut entries: Vec<_> = item.entries().collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    }

    /// A reference to something that the stack has to describe.
    ///
    /// * `kind`: what it is, in a message.
    fn undefined(&mut self, leaf: Leaf, kind: &str, name: &str) {
        if self.is_full() {
            return;
        }
        let names = match kind {
            "network" => &self.networks,
            "volume" => &self.volumes,
            "config" => &self.configs,
            "secret" => &self.secrets,
            _ => &self.services,
        };
        let message = format!(
            "undefined {kind} '{}': describe it under the top-level key '{kind}s'{}",
            excerpt(name),
            hint(name, names.iter().copied())
        );
        self.mistake_at(leaf, message);
    }
}

/// The name that was meant, behind a message. Long names and many of them would take long to compare.
fn hint<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    const LENGTH_MAX: usize = 100;
    const NAMES_MAX: usize = 1_000;
    let names = names.into_iter().filter(|name| name.len() <= LENGTH_MAX).take(NAMES_MAX);
    let near = if name.len() <= LENGTH_MAX { nearest(name, names) } else { None };
    near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default()
}

/// The beginning of a text, for a message.
fn excerpt(text: &str) -> &str {
    const LENGTH_MAX: usize = 200;
    text.char_indices().nth(LENGTH_MAX).map_or(text, |(end, _)| &text[..end])
}
