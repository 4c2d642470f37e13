//! `!reset` and `!override`: what they take out of earlier files.

use std::collections::HashMap;

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

/// Whether the value stays: it is not tagged `!reset`, and is not a list or map that had nothing but such values.
fn find(node: &mut Node, path: &Path, found: &mut Vec<Removal>, notes: &mut Notes) -> bool {
    if let Some(tag) = node.tag {
        found.push(Removal { path: path.clone(), tag, at: node.at.clone() });
        clear(node);
        if tag == Tag::Reset {
            notes.resolve(node, path, "!reset removes what earlier files say here, and has no value of its own");
        }
        return tag != Tag::Reset;
    }
    let was_bare = shape::is_bare(node);
    match &mut node.value {
        Value::Map(entries) => entries.retain_mut(|entry| find(&mut entry.node, &key(path, &entry.key), found, notes)),
        Value::List(items) => {
            let mut number = 0;
            items.retain_mut(|item| {
                number += 1;
                // docker compose takes nothing out of lists of earlier files.
                find(item, &shape::index(path, number - 1), &mut Vec::new(), notes)
            });
        }
        _ => {}
    }
    was_bare || !shape::is_bare(node)
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
///
/// Whether anything is left of it.
pub(super) fn apply(removals: &[Removal], tree: &mut Node, below: &Path, notes: &mut Notes) -> bool {
    let by_path: HashMap<&Path, &Removal> = removals.iter().map(|removal| (&removal.path, removal)).collect();
    by_path.is_empty() || take_out(&by_path, tree, below, notes)
}

/// Whether anything is left.
fn take_out(removals: &HashMap<&Path, &Removal>, tree: &mut Node, path: &Path, notes: &mut Notes) -> bool {
    let was_bare = shape::is_bare(tree);
    let Value::Map(entries) = &mut tree.value else { return true };
    entries.retain_mut(|entry| {
        let path = key(path, &entry.key);
        let Some(removal) = removals.get(&path) else {
            return take_out(removals, &mut entry.node, &path, notes);
        };
        let tag = match removal.tag {
            Tag::Reset => "!reset",
            Tag::Override => "!override",
        };
        notes.resolve(&entry.node, &path, &format!("{tag} at {} removes it", removal.at));
        false
    });
    was_bare || !entries.is_empty()
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
