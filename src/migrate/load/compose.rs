//! How `docker compose` merges what several files say: compose-go, `override/merge.go` and `override/uncity.go`.
//!
//! The place of a value decides the rule. Invariant: each leaf of both values is in the result or in the notes.

use std::collections::HashMap;

use super::super::leaf::Path;
use super::super::source::{Mistake, Position};
use super::super::yaml::{Entry, Node, Value};
use super::notes::Notes;
use super::shape::{self, Keyed, as_text, entries, is_bare, is_container, key, steps};
use super::unique::{Identity, Loss, unique};

/// How two values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Maps by key, lists one after the other, anything else the later one.
    Default,
    /// The later one.
    Whole,
    /// `NAME=VALUE` by name.
    Texts,
    /// Lists one after the other; a text is a list, and so is a map.
    Sequence,
    /// By name; a list of names is a map of defaults.
    DependsOn,
    /// By name; a list of names is a map of nothing.
    Names,
    /// By key, unless both have a driver and another one.
    Logging,
    /// By key; a text is the context.
    Build,
    /// By key where both are maps, else the later one.
    Ulimit,
    /// By subnet.
    Pools,
}

fn rule(steps: &[&str]) -> Rule {
    match steps {
        ["networks", _, "ipam", "config"] => Rule::Pools,
        ["networks" | "volumes" | "secrets" | "configs", _, "labels"] | ["services", _, "deploy", "labels"] => {
            Rule::Texts
        }
        ["services" | "jobs", _, rest @ ..] => match rest {
            ["annotations" | "environment" | "labels" | "sysctls"]
            | ["build", "args" | "additional_contexts" | "labels"]
            | ["volumes", _, "volume", "labels"] => Rule::Texts,
            ["dns" | "dns_opt" | "dns_search" | "env_file" | "label_file" | "extra_hosts" | "tmpfs"]
            | ["build", "extra_hosts"] => Rule::Sequence,
            ["command" | "entrypoint"] | ["healthcheck", "test"] => Rule::Whole,
            ["depends_on"] => Rule::DependsOn,
            ["models" | "networks"] => Rule::Names,
            ["logging"] => Rule::Logging,
            ["build"] => Rule::Build,
            ["ulimits", _] => Rule::Ulimit,
            _ => Rule::Default,
        },
        _ => Rule::Default,
    }
}

/// Merges a later value over an earlier one.
///
/// # Errors
/// When one is a map and the other is none, or likewise a list.
pub(super) fn merge(base: Node, over: Node, path: &Path, notes: &mut Notes) -> Result<Node, Mistake> {
    let rule = rule(&steps(path));
    let (base, over) = match steps(path)[..] {
        ["networks" | "volumes" | "secrets" | "configs", _] => (with_external_name(base, &over, path)?, over),
        _ => (base, over),
    };
    if rule == Rule::Whole {
        notes.replace(&base, path, &over.at);
        return Ok(over);
    }
    if over.value == Value::Null || (is_bare(&over) && is_container(&base)) {
        notes.resolve(&over, path, &format!("it is empty, and {} stays", base.at));
        return Ok(base);
    }
    if base.value == Value::Null || (is_bare(&base) && is_container(&over)) {
        notes.replace(&base, path, &over.at);
        return Ok(over);
    }
    let at = base.at.clone();
    let map = |entries| Node { value: Value::Map(entries), at: at.clone(), tag: None };
    match rule {
        Rule::Texts => {
            if matches!((&base.value, &over.value), (Value::Map(_), Value::Map(_))) {
                return mappings(base, over, path, notes, true).map(map);
            }
            let mut found = Keyed::new(texts(base, path, notes)?);
            merge_texts(&mut found, texts(over, path, notes)?, path, notes);
            Ok(map(found.entries))
        }
        Rule::Sequence => {
            let items = joined(shape::sequence(base, '='), shape::sequence(over, '='), path, notes);
            Ok(Node { value: Value::List(items), at, tag: None })
        }
        Rule::DependsOn | Rule::Names => {
            let started = |at: &Position| {
                let field =
                    |name: &str, value| Entry { key: name.to_owned(), at: at.clone(), node: shape::node(value, at) };
                let condition = field("condition", Value::Text("service_started".to_owned()));
                shape::node(Value::Map(vec![condition, field("required", Value::Bool(true))]), at)
            };
            let nothing = |at: &Position| shape::node(Value::Null, at);
            let value: &dyn Fn(&Position) -> Node = if rule == Rule::Names { &nothing } else { &started };
            let (base, over) = (shape::names(base, path, value)?, shape::names(over, path, value)?);
            merge_entries(base, over, path, notes).map(map)
        }
        Rule::Logging => {
            let driver = |node: &Node| node.get("driver").and_then(as_text).map(str::to_owned);
            match (driver(&base), driver(&over)) {
                (Some(one), Some(other)) if one != other => {
                    notes.replace(&base, path, &over.at);
                    Ok(over)
                }
                _ => mappings(base, over, path, notes, false).map(map),
            }
        }
        Rule::Build => mappings(build(base), build(over), path, notes, false).map(map),
        Rule::Ulimit if !(matches!(base.value, Value::Map(_)) && matches!(over.value, Value::Map(_))) => {
            notes.replace(&base, path, &over.at);
            Ok(over)
        }
        Rule::Pools => pools(base, over, path, notes),
        _ => match (&base.value, &over.value) {
            (Value::Map(_), _) | (Value::List(_), Value::Map(_)) => mappings(base, over, path, notes, false).map(map),
            (Value::List(_), Value::List(_)) => {
                let items = joined(shape::sequence(base, '='), shape::sequence(over, '='), path, notes);
                Ok(Node { value: Value::List(items), at, tag: None })
            }
            (Value::List(_), _) => Err(cannot(&base, &over, path)),
            _ => {
                notes.replace(&base, path, &over.at);
                Ok(over)
            }
        },
    }
}

/// `external: {name: N}`, the older form, as `name: N`, where a later file says something of `external`, too.
fn with_external_name(base: Node, over: &Node, path: &Path) -> Result<Node, Mistake> {
    let Some(external) = over.get("external") else { return Ok(base) };
    let Node { value, at, tag } = base;
    let Value::Map(mut fields) = value else { return Ok(Node { value, at, tag }) };
    let older = fields.iter().position(|entry| entry.key == "external" && matches!(entry.node.value, Value::Map(_)));
    let Some(place) = older else { return Ok(Node { value: Value::Map(fields), at, tag }) };
    let name = entries(&fields[place].node).iter().find(|entry| entry.key == "name").cloned();
    match (name, external.get("name")) {
        (Some(name), Some(other)) if name.node.value != other.value => {
            let message = format!(
                "{path}: found the name {}, and {} in {}; use `name` alone",
                other.value, name.node.value, name.node.at
            );
            return Err(Mistake { at: other.at.clone(), message });
        }
        // The later file has the same form.
        (_, Some(_)) | (None, None) => {}
        (Some(name), None) => {
            fields.remove(place);
            if !fields.iter().any(|entry| entry.key == "name") {
                fields.push(name);
            }
        }
    }
    Ok(Node { value: Value::Map(fields), at, tag })
}

fn cannot(base: &Node, over: &Node, path: &Path) -> Mistake {
    let kind = |node: &Node| match node.value {
        Value::Map(_) => "a map",
        Value::List(_) => "a list",
        _ => "a single value",
    };
    let message =
        format!("{path}: found {}, expected {} as in {}; write both in the same form", kind(over), kind(base), base.at);
    Mistake { at: over.at.clone(), message }
}

/// `NAME=VALUE` of a map or a list, with a note of each that the list itself replaces.
fn texts(node: Node, path: &Path, notes: &mut Notes) -> Result<Vec<Entry>, Mistake> {
    let at = node.at.clone();
    let (found, replaced) = shape::texts(node, path)?;
    for node in replaced {
        notes.resolve(&node, path, &format!("the list at {at} has the name again, and the last one counts"));
    }
    Ok(found)
}

/// Later values replace earlier ones as wholes.
pub(super) fn merge_texts(base: &mut Keyed, over: Vec<Entry>, path: &Path, notes: &mut Notes) {
    for entry in over {
        match base.get_mut(&entry.key) {
            Some(before) => {
                notes.replace(&before.node, &key(path, &entry.key), &entry.node.at);
                *before = entry;
            }
            None => base.push(entry),
        }
    }
}

fn mappings(base: Node, over: Node, path: &Path, notes: &mut Notes, is_flat: bool) -> Result<Vec<Entry>, Mistake> {
    match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) if is_flat => {
            let mut found = Keyed::new(base);
            merge_texts(&mut found, over, path, notes);
            Ok(found.entries)
        }
        (Value::Map(base), Value::Map(over)) => merge_entries(base, over, path, notes),
        (one, other) => {
            let (base, over) = (Node { value: one, ..base }, Node { value: other, ..over });
            Err(cannot(&base, &over, path))
        }
    }
}

/// Merges maps key by key.
pub(super) fn merge_entries(
    base: Vec<Entry>,
    over: Vec<Entry>,
    path: &Path,
    notes: &mut Notes,
) -> Result<Vec<Entry>, Mistake> {
    let mut found = Keyed::new(base);
    for entry in over {
        match found.get_mut(&entry.key) {
            Some(before) => {
                let empty = shape::node(Value::Null, &before.at);
                let base = std::mem::replace(&mut before.node, empty);
                before.node = merge(base, entry.node, &key(path, &entry.key), notes)?;
            }
            None => found.push(entry),
        }
    }
    Ok(found.entries)
}

/// One list after the other, without the items of the second that are there already.
fn joined(base: Vec<Node>, over: Vec<Node>, path: &Path, notes: &mut Notes) -> Vec<Node> {
    let mut known: HashMap<String, Position> =
        base.iter().map(|item| (shape::fingerprint(item), item.at.clone())).collect();
    let mut result = base;
    for (number, item) in over.into_iter().enumerate() {
        let print = shape::fingerprint(&item);
        match known.get(&print) {
            Some(at) => notes.resolve(&item, &shape::index(path, number), &format!("{at} says the same")),
            None => {
                known.insert(print, item.at.clone());
                result.push(item);
            }
        }
    }
    result
}

/// A build as a map.
pub(super) fn build(node: Node) -> Node {
    match &node.value {
        Value::Text(_) => {
            let (at, entry_at) = (node.at.clone(), node.at.clone());
            let context = Entry { key: "context".to_owned(), at: entry_at, node };
            Node { value: Value::Map(vec![context]), at, tag: None }
        }
        _ => node,
    }
}

/// Pools of addresses. compose-go pairs each earlier one with each later one, which comes to: the same subnet is merged, and later ones whose
/// subnet is another are added before it. An earlier one that no later one has the subnet of is lost.
fn pools(base: Node, over: Node, path: &Path, notes: &mut Notes) -> Result<Node, Mistake> {
    let at = base.at.clone();
    let (Value::List(base), Value::List(over)) = (base.value, over.value) else {
        return Err(Mistake { at, message: format!("{path}: found a single value, expected a list of maps") });
    };
    let subnet = |node: &Node| node.get("subnet").map(shape::fingerprint);
    let mut base: Vec<Option<Node>> = base.into_iter().map(Some).collect();
    let mut by_subnet: HashMap<Option<String>, usize> = HashMap::new();
    for (number, pool) in base.iter().enumerate() {
        if let Some(pool) = pool {
            by_subnet.entry(subnet(pool)).or_insert(number);
        }
    }
    let mut result = Vec::new();
    for (number, pool) in over.into_iter().enumerate() {
        let same = by_subnet.get(&subnet(&pool)).and_then(|number| base[*number].take());
        result.push(match same {
            Some(before) => merge(before, pool, &shape::index(path, number), notes)?,
            None => pool,
        });
    }
    for (number, pool) in base.into_iter().enumerate() {
        if let Some(pool) = pool {
            let reason =
                "docker compose leaves out the pools of an earlier file whose subnet a later file does not have";
            notes.warn(&pool.at, format!("{path}: {reason}"));
            notes.drop(&pool, &shape::index(path, number), reason);
        }
    }
    Ok(Node { value: Value::List(result), at, tag: None })
}

/// What makes two items of a list the same.
fn identity(steps: &[&str]) -> Option<Identity> {
    Some(match steps {
        ["networks", _, "labels"] | ["networks", _, "ipam", "options"] => Identity::Name,
        ["services", _, rest @ ..] => match rest {
            [
                "annotations" | "cap_add" | "cap_drop" | "dns" | "dns_opt" | "dns_search" | "environment" | "labels"
                | "links",
            ]
            | ["profiles" | "sysctls" | "tmpfs"]
            | ["build", "args" | "additional_contexts" | "platform" | "tags" | "labels"]
            | ["deploy", "labels"]
            | ["networks", _, "aliases" | "link_local_ips"] => Identity::Name,
            ["devices"] => Identity::Device,
            ["configs"] => Identity::Config,
            ["secrets"] => Identity::Secret,
            ["env_file"] => Identity::EnvFile,
            ["expose"] => Identity::Whole,
            ["ports"] => Identity::Port,
            ["volumes"] => Identity::Volume,
            _ => return None,
        },
        _ => return None,
    })
}

/// Of the items of lists that are the same thing, leaves the last one.
///
/// # Errors
/// When a list is too long.
pub(super) fn without_repetitions(tree: Node, path: &Path, notes: &mut Notes) -> Result<Node, Mistake> {
    // Nothing is unique further down.
    if path.0.len() > 5 {
        return Ok(tree);
    }
    let Node { value, at, tag } = tree;
    let value = match value {
        Value::Map(entries) => {
            let each = |mut entry: Entry| {
                entry.node = without_repetitions(entry.node, &key(path, &entry.key), notes)?;
                Ok(entry)
            };
            Value::Map(entries.into_iter().map(each).collect::<Result<_, Mistake>>()?)
        }
        Value::List(items) => match identity(&steps(path)) {
            Some(identity) => Value::List(unique(items, identity, &Loss::Asked, path, notes)?),
            None => Value::List(items),
        },
        other => other,
    };
    Ok(Node { value, at, tag })
}
