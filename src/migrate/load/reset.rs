//! `!reset` and `!override`: what they take out of earlier files.

use std::collections::HashMap;

use super::super::Dialect;
use super::super::leaf::Path;
use super::super::source::{Mistake, Position};
use super::super::yaml::{Node, Tag, Value};
use super::notes::Notes;
use super::shape::{self, key};

/// A path that a tag takes out of what earlier files say.
#[derive(Debug, Clone)]
pub(super) struct Removal {
    path: Path,
    tag: Tag,
    at: Position,
}

/// Finds the tags of a document for `docker compose`. What is tagged `!reset` is removed, and other tags are, too.
pub(super) fn removals(document: &mut Node, notes: &mut Notes) -> Vec<Removal> {
    let mut found = Vec::new();
    find(document, &Path::default(), &mut found, notes);
    found
}

fn find(node: &mut Node, path: &Path, found: &mut Vec<Removal>, notes: &mut Notes) {
    if let Some(tag) = node.tag {
        found.push(Removal { path: path.clone(), tag, at: node.at.clone() });
        clear(node);
        return;
    }
    let is_reset = |node: &Node| node.tag == Some(Tag::Reset);
    match &mut node.value {
        Value::Map(entries) => {
            for entry in entries.iter_mut() {
                let path = key(path, &entry.key);
                let reset = is_reset(&entry.node);
                find(&mut entry.node, &path, found, notes);
                if reset {
                    entry.node.tag = Some(Tag::Reset);
                    notes.resolve(
                        &entry.node,
                        &path,
                        "!reset removes what earlier files say here, and has no value of its own",
                    );
                }
            }
            entries.retain(|entry| !is_reset(&entry.node));
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let path = shape::index(path, index);
                let reset = is_reset(item);
                // docker compose takes nothing out of lists of earlier files.
                find(item, &path, &mut Vec::new(), notes);
                if reset {
                    item.tag = Some(Tag::Reset);
                    notes.resolve(item, &path, "!reset removes the item");
                }
            }
            items.retain(|item| !is_reset(item));
        }
        _ => {}
    }
}

fn clear(node: &mut Node) {
    node.tag = None;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(clear),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| clear(&mut entry.node)),
        _ => {}
    }
}

/// Takes what the tags name out of a tree.
///
/// * `below`: where the tree is.
pub(super) fn apply(removals: &[Removal], tree: &mut Node, below: &Path, notes: &mut Notes) {
    if !removals.is_empty() {
        let by_path: HashMap<&Path, &Removal> = removals.iter().map(|removal| (&removal.path, removal)).collect();
        take_out(&by_path, tree, below, notes);
    }
}

fn take_out(removals: &HashMap<&Path, &Removal>, tree: &mut Node, path: &Path, notes: &mut Notes) {
    let Value::Map(entries) = &mut tree.value else { return };
    entries.retain_mut(|entry| {
        let path = key(path, &entry.key);
        let Some(removal) = removals.get(&path) else {
            take_out(removals, &mut entry.node, &path, notes);
            return true;
        };
        let tag = match removal.tag {
            Tag::Reset => "!reset",
            Tag::Override => "!override",
        };
        notes.resolve(&entry.node, &path, &format!("{tag} at {} removes it", removal.at));
        false
    });
}

/// Tags in a file for `docker stack deploy`, whose parser passes over them, except that a tagged text is a text.
///
/// # Errors
/// Each tag on a single value.
pub(super) fn without_tags(document: &mut Node, notes: &mut Notes) -> Result<(), Vec<Mistake>> {
    let mut mistakes = Vec::new();
    strip(document, &Path::default(), notes, &mut mistakes);
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

fn strip(node: &mut Node, path: &Path, notes: &mut Notes, mistakes: &mut Vec<Mistake>) {
    if let Some(tag) = node.tag.take() {
        let tag = if tag == Tag::Reset { "!reset" } else { "!override" };
        if shape::is_container(node) {
            notes.warn(
                &node.at,
                format!("{path}: docker stack deploy passes over the tag {tag}, which only docker compose knows"),
            );
        } else {
            let message = format!(
                "{path}: found the tag {tag}, which only docker compose knows; remove it, or use --dialect compose"
            );
            mistakes.push(Mistake { at: node.at.clone(), message });
        }
    }
    match &mut node.value {
        Value::List(items) => {
            items
                .iter_mut()
                .enumerate()
                .for_each(|(number, item)| strip(item, &shape::index(path, number), notes, mistakes));
        }
        Value::Map(entries) => {
            entries.iter_mut().for_each(|entry| strip(&mut entry.node, &key(path, &entry.key), notes, mistakes));
        }
        _ => {}
    }
}

/// The name of a dialect's program.
pub(super) fn program(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Stack => "docker stack deploy",
        Dialect::Compose => "docker compose",
    }
}
