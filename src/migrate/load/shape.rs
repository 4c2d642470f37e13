//! Values in the forms in which several files can be merged: lists as maps, maps as lists, and the names by which items of lists are the same.
//!
//! Invariants: what is rebuilt has the place of what it was read from. Nothing takes more than linear time, for a list may have a hundred
//! thousand items.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::super::leaf::{Path, Segment};
use super::super::source::{Mistake, Position};
use super::super::yaml::{Entry, Node, Value};

/// A step to a key.
pub(super) fn key(path: &Path, key: &str) -> Path {
    path.with(Segment::Key(key.to_owned()))
}

/// A step to an item.
pub(super) fn index(path: &Path, index: usize) -> Path {
    path.with(Segment::Index(index))
}

/// The steps of a path, with `[]` for each place in a list.
pub(super) fn steps(path: &Path) -> Vec<&str> {
    let step = |segment| match segment {
        &Segment::Index(_) => "[]",
        Segment::Key(key) => key.as_str(),
    };
    path.0.iter().map(step).collect()
}

/// A value without a tag.
pub(super) fn node(value: Value, at: &Position) -> Node {
    Node { value, at: at.clone(), tag: None }
}

/// A text.
pub(super) fn text(text: impl Into<String>, at: &Position) -> Node {
    node(Value::Text(text.into()), at)
}

/// The text, where it is one.
pub(super) fn as_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The entries of a map; none of anything else.
pub(super) fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => &[],
    }
}

/// The value of a key.
pub(super) fn get_mut<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    let Value::Map(entries) = &mut node.value else { return None };
    entries.iter_mut().find(|entry| entry.key == name).map(|entry| &mut entry.node)
}

/// Removes a key whose list or map has lost all that it had, for it is not a leaf of any file.
pub(super) fn without_bare(node: &mut Node, name: &str) {
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|entry| entry.key != name || !is_bare(&entry.node));
    }
}

/// The items of a list; none of anything else.
pub(super) fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => &[],
    }
}

/// A list or a map with nothing in it.
pub(super) fn is_bare(node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        _ => false,
    }
}

/// A list or a map.
pub(super) fn is_container(node: &Node) -> bool {
    matches!(node.value, Value::List(_) | Value::Map(_))
}

/// How many values there are at and below a node.
pub(super) fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
        _ => 0,
    }
}

/// Entries with their places by key.
pub(super) struct Keyed {
    pub(super) entries: Vec<Entry>,
    places: HashMap<String, usize>,
}

impl Keyed {
    /// Keys are there once each.
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let places = entries.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
        Self { entries, places }
    }

    /// The entry of a key.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.places.get(key).map(|place| &mut self.entries[*place])
    }

    /// A key that is not there yet.
    pub(super) fn push(&mut self, entry: Entry) {
        self.places.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
    }
}

/// The entries of a map, or of a list of `NAME=VALUE`, whose later items replace earlier ones; those come as the second.
///
/// * `path`: for the message.
///
/// # Errors
/// When it is neither.
pub(super) fn texts(node: Node, path: &Path) -> Result<(Vec<Entry>, Vec<Node>), Mistake> {
    let items = match node.value {
        Value::Null => return Ok((Vec::new(), Vec::new())),
        Value::Map(entries) => return Ok((entries, Vec::new())),
        Value::List(items) => items,
        Value::Text(text) => vec![self::text(text, &node.at)],
        other => {
            let message = format!("{path}: found {other}, expected a map or a list of NAME=VALUE");
            return Err(Mistake { at: node.at, message });
        }
    };
    let (mut found, mut replaced) = (Keyed::new(Vec::new()), Vec::new());
    for item in items {
        let Value::Text(whole) = &item.value else {
            let message =
                format!("{path}: found {} in a list of NAME=VALUE, expected text; put it in quotes", item.value);
            return Err(Mistake { at: item.at, message });
        };
        let (name, value) = match whole.split_once('=') {
            Some((name, value)) => (name.to_owned(), Value::Text(value.to_owned())),
            None => (whole.clone(), Value::Null),
        };
        let node = Node { value, at: item.at.clone(), tag: None };
        match found.get_mut(&name) {
            Some(entry) => replaced.push(std::mem::replace(&mut entry.node, node)),
            None => found.push(Entry { key: name, at: item.at, node }),
        }
    }
    Ok((found.entries, replaced))
}

/// The items of a list; a text is a list of itself, and a map a list of `KEY` and its value with `separator` between them.
pub(super) fn sequence(node: Node, separator: char) -> Vec<Node> {
    match node.value {
        Value::List(items) => items,
        Value::Map(entries) => {
            let item = |entry: Entry| match entry.node.value {
                Value::Null => text(entry.key, &entry.node.at),
                value => text(format!("{}{separator}{value}", entry.key), &entry.node.at),
            };
            entries.into_iter().map(item).collect()
        }
        Value::Null => Vec::new(),
        _ => vec![node],
    }
}

/// The entries of a map, or of a list of names.
///
/// * `value`: what a name in a list means.
pub(super) fn names(node: Node, path: &Path, value: &dyn Fn(&Position) -> Node) -> Result<Vec<Entry>, Mistake> {
    let items = match node.value {
        Value::Null => return Ok(Vec::new()),
        Value::Map(entries) => return Ok(entries),
        Value::List(items) => items,
        Value::Text(text) => vec![self::text(text, &node.at)],
        other => {
            let message = format!("{path}: found {other}, expected a map or a list of names");
            return Err(Mistake { at: node.at, message });
        }
    };
    let mut found = Keyed::new(Vec::new());
    for item in items {
        let Value::Text(name) = item.value else {
            let message = format!("{path}: found {}, expected a name", item.value);
            return Err(Mistake { at: item.at, message });
        };
        // A name that is there again says nothing more, and both programs take it so.
        if found.get_mut(&name).is_none() {
            let node = value(&item.at);
            found.push(Entry { key: name, at: item.at, node });
        }
    }
    Ok(found.entries)
}

/// A text that two values have in common exactly when they are the same, whatever the order of their keys.
pub(super) fn fingerprint(node: &Node) -> String {
    let mut result = String::new();
    write_fingerprint(node, &mut result);
    result
}

fn write_fingerprint(node: &Node, result: &mut String) {
    match &node.value {
        Value::List(items) => {
            result.push('[');
            for item in items {
                write_fingerprint(item, result);
                result.push(',');
            }
            result.push(']');
        }
        Value::Map(entries) => {
            let mut sorted: Vec<&Entry> = entries.iter().collect();
            sorted.sort_by(|one, other| one.key.cmp(&other.key));
            result.push('{');
            for entry in sorted {
                let _ = write!(result, "{:?}:", entry.key);
                write_fingerprint(&entry.node, result);
                result.push(',');
            }
            result.push('}');
        }
        Value::Text(text) => {
            let _ = write!(result, "{text:?}");
        }
        // An integer and a float are never the same in Go.
        Value::Float(value) => {
            let _ = write!(result, "f{value}");
        }
        other => {
            let _ = write!(result, "{other}");
        }
    }
}
