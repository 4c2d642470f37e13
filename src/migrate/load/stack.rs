//! How `docker stack deploy` merges what several files say: docker/cli, `cli/compose/loader/merge.go`.
//!
//! It reads each file into its own types first, so that a value that is nothing to Go (an empty text, 0, false) is one that the file does not
//! have; and its lists of ports, volumes, configs and secrets lose items even where no file replaces them. Invariant: each leaf of both values
//! is in the result or in the notes.

use std::collections::HashSet;

use super::super::leaf::Path;
use super::super::source::Mistake;
use super::super::yaml::{Entry, Node, Value};
use super::compose::{build, merge_texts};
use super::notes::Notes;
use super::shape::{self, Keyed, is_bare, key, steps};
use super::unique::{Identity, Loss, unique};

/// How two values of a service become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Field by field.
    Fields,
    /// Lists one after the other.
    Append,
    /// The same; a map is a list of `NAME:ADDRESS`.
    Hosts,
    /// The same; a text is one for the shell.
    Test,
    /// `NAME=VALUE` by name; an empty value does not replace another.
    Environment,
    /// `NAME=VALUE` by name.
    Texts,
    /// By name, then its addresses and aliases.
    Networks,
    /// Field by field, unless both have a driver and another one.
    Logging,
    /// By name, each as a whole.
    Wholes,
    /// One after the other, and then one of each identity.
    Unique(Identity, &'static str),
    /// The later number, 0 among them.
    Number,
    /// The later one, unless it is an amount of nothing.
    Amount,
    /// The later one, unless it is empty, 0 or false.
    Value,
}

const PORTS: Rule = Rule::Unique(
    Identity::Published,
    "where several files have the service, docker stack deploy leaves one port of each published number, whatever its protocol and target, and \
     one of all that have none",
);
const CONFIGS: Rule = Rule::Unique(
    Identity::Source,
    "where several files have the service, docker stack deploy leaves one mount of each config and secret",
);
const VOLUMES: Rule = Rule::Unique(
    Identity::Volume,
    "where several files have the service, docker stack deploy leaves one mount of each path",
);

fn rule(steps: &[&str]) -> Rule {
    let [_, _, rest @ ..] = steps else { return Rule::Fields };
    match rest {
        []
        | ["build" | "credential_spec" | "deploy" | "healthcheck"]
        | ["deploy", "update_config" | "rollback_config" | "resources" | "restart_policy" | "placement"]
        | ["deploy", "resources", "limits" | "reservations"] => Rule::Fields,
        ["cap_add" | "cap_drop" | "depends_on" | "devices" | "dns" | "dns_search" | "env_file" | "expose"]
        | ["external_links" | "links" | "security_opt" | "tmpfs"]
        | ["build", "cache_from"]
        | ["deploy", "placement", "constraints" | "preferences"]
        | ["deploy", "resources", "reservations", "generic_resources"] => Rule::Append,
        ["extra_hosts"] | ["build", "extra_hosts"] => Rule::Hosts,
        ["healthcheck", "test"] => Rule::Test,
        ["environment"] | ["build", "args"] => Rule::Environment,
        ["labels" | "sysctls"] | ["build", "labels"] | ["deploy", "labels"] => Rule::Texts,
        ["networks"] => Rule::Networks,
        ["logging"] => Rule::Logging,
        ["ulimits"] => Rule::Wholes,
        ["ports"] => PORTS,
        ["configs" | "secrets"] => CONFIGS,
        ["volumes"] => VOLUMES,
        ["healthcheck", "retries"]
        | ["deploy", "replicas"]
        | ["deploy", "update_config" | "rollback_config", "parallelism"]
        | ["deploy", "restart_policy", "max_attempts"] => Rule::Number,
        ["stop_grace_period"]
        | ["healthcheck", "interval" | "timeout" | "start_period" | "start_interval"]
        | ["deploy", "update_config" | "rollback_config", "delay" | "monitor"]
        | ["deploy", "restart_policy", "delay" | "window"]
        | ["deploy", "resources", _, "memory"] => Rule::Amount,
        _ => Rule::Value,
    }
}

/// Merges a later file over an earlier one.
///
/// # Errors
/// When a list is in no form that can be merged.
pub(super) fn merge(base: Node, over: Node, notes: &mut Notes) -> Result<Node, Mistake> {
    let root = Path::default();
    let at = base.at.clone();
    if is_bare(&over) {
        notes.resolve(&over, &root, "the file is empty");
        return Ok(base);
    }
    if is_bare(&base) {
        notes.replace(&base, &root, &over.at);
        return Ok(over);
    }
    let (Value::Map(base), Value::Map(over)) = (base.value, over.value) else {
        return Err(Mistake { at, message: "found a single value, expected a map".to_owned() });
    };
    let mut found = Keyed::new(base);
    for entry in over {
        let path = key(&root, &entry.key);
        let Some(before) = found.get_mut(&entry.key) else {
            found.push(entry);
            continue;
        };
        let earlier = std::mem::replace(&mut before.node, shape::node(Value::Null, &before.at));
        before.node = match entry.key.as_str() {
            "services" => sections(earlier, entry.node, &path, notes, true)?,
            "networks" | "volumes" | "secrets" | "configs" => sections(earlier, entry.node, &path, notes, false)?,
            "version" => {
                notes.resolve(&entry.node, &path, &format!("it is the version of {}", earlier.at));
                earlier
            }
            _ => {
                notes.replace(&earlier, &path, &entry.node.at);
                entry.node
            }
        };
    }
    Ok(Node { value: Value::Map(found.entries), at, tag: None })
}

/// Merges sections name by name: services field by field, anything else as wholes.
fn sections(base: Node, over: Node, path: &Path, notes: &mut Notes, is_deep: bool) -> Result<Node, Mistake> {
    if let Some(result) = empties(&base, &over, path, notes) {
        return Ok(if result == Side::Base { base } else { over });
    }
    let at = base.at.clone();
    let (Value::Map(base), Value::Map(over)) = (base.value, over.value) else {
        return Err(Mistake {
            at: over.at,
            message: format!("{path}: found a list or a single value, expected a map"),
        });
    };
    let mut found = Keyed::new(base);
    for entry in over {
        let path = key(path, &entry.key);
        let Some(before) = found.get_mut(&entry.key) else {
            found.push(entry);
            continue;
        };
        if is_deep {
            let earlier = std::mem::replace(&mut before.node, shape::node(Value::Null, &before.at));
            before.node = value(earlier, entry.node, &path, notes)?;
        } else {
            notes.replace(&before.node, &path, &entry.node.at);
            *before = entry;
        }
    }
    Ok(Node { value: Value::Map(found.entries), at, tag: None })
}

#[derive(PartialEq, Eq)]
enum Side {
    Base,
    Over,
}

/// Which of two values is the result when one of them has nothing in it.
fn empties(base: &Node, over: &Node, path: &Path, notes: &mut Notes) -> Option<Side> {
    if over.value == Value::Null || is_bare(over) {
        notes.resolve(over, path, &format!("it is empty, and {} stays", base.at));
        return Some(Side::Base);
    }
    if base.value == Value::Null || is_bare(base) {
        notes.replace(base, path, &over.at);
        return Some(Side::Over);
    }
    None
}

fn value(base: Node, over: Node, path: &Path, notes: &mut Notes) -> Result<Node, Mistake> {
    let rule = rule(&steps(path));
    if let Some(side) = empties(&base, &over, path, notes) {
        let side_is_base = side == Side::Base;
        let result = if side_is_base { base } else { over };
        // A service that several files have, even if the later one has nothing in it.
        let is_merged = path.0.len() == 2 && side_is_base;
        return if is_merged { with_unique_lists(result, path, notes, &|_| true) } else { Ok(result) };
    }
    let at = base.at.clone();
    let map = |entries| Node { value: Value::Map(entries), at: at.clone(), tag: None };
    let list = |items| Node { value: Value::List(items), at: at.clone(), tag: None };
    match rule {
        Rule::Fields => fields(base, over, path, notes),
        Rule::Append | Rule::Hosts => {
            let items = shape::sequence(base, ':').into_iter().chain(shape::sequence(over, ':'));
            Ok(list(items.collect()))
        }
        Rule::Test => {
            notes.warn(
                &over.at,
                format!("{path}: docker stack deploy adds this test to the one at {at}, and both become one command; is that meant?"),
            );
            Ok(list(test(base).into_iter().chain(test(over)).collect()))
        }
        Rule::Environment | Rule::Texts => {
            let mut found = Keyed::new(texts(base, path, notes)?);
            let over = texts(over, path, notes)?;
            let mut counting = Vec::new();
            for entry in over {
                let is_empty = match &entry.node.value {
                    Value::Null => true,
                    Value::Text(text) => text.is_empty(),
                    _ => false,
                };
                match found.get_mut(&entry.key).filter(|_| is_empty && rule == Rule::Environment) {
                    Some(before) if is_worth(&before.node) => {
                        let reason =
                            format!("docker stack deploy does not let an empty value replace {}", before.node.at);
                        notes.warn(&entry.node.at, format!("{path}.{}: {reason}", entry.key));
                        notes.drop(&entry.node, &key(path, &entry.key), &reason);
                    }
                    _ => counting.push(entry),
                }
            }
            merge_texts(&mut found, counting, path, notes);
            Ok(map(found.entries))
        }
        Rule::Networks => {
            let nothing = |at: &_| shape::node(Value::Null, at);
            let mut found = Keyed::new(shape::names(base, path, &nothing)?);
            for entry in shape::names(over, path, &nothing)? {
                let path = key(path, &entry.key);
                match found.get_mut(&entry.key) {
                    Some(before) => {
                        let earlier = std::mem::replace(&mut before.node, shape::node(Value::Null, &before.at));
                        before.node = network(earlier, entry.node, &path, notes)?;
                    }
                    None => found.push(entry),
                }
            }
            Ok(map(found.entries))
        }
        Rule::Logging => logging(base, over, path, notes),
        Rule::Wholes => sections(base, over, path, notes, false),
        Rule::Unique(identity, reason) => {
            let items = shape::sequence(base, ':').into_iter().chain(shape::sequence(over, ':')).collect();
            unique(items, identity, &Loss::Unasked(reason), path, notes).map(list)
        }
        Rule::Number | Rule::Amount | Rule::Value => {
            let is_nothing = match (&over.value, rule) {
                (_, Rule::Number) => false,
                (Value::Text(text), Rule::Amount) => is_zero_amount(text),
                _ => !is_worth(&over),
            };
            if is_nothing {
                let reason = format!("docker stack deploy takes it for nothing, and {at} stays");
                if base.value != over.value {
                    notes.warn(&over.at, format!("{path}: {reason}"));
                }
                notes.drop(&over, path, &reason);
                return Ok(base);
            }
            notes.replace(&base, path, &over.at);
            Ok(over)
        }
    }
}

fn fields(base: Node, over: Node, path: &Path, notes: &mut Notes) -> Result<Node, Mistake> {
    let is_build = steps(path).get(2) == Some(&"build");
    let (base, over) = if is_build { (build(base), build(over)) } else { (base, over) };
    let at = base.at.clone();
    let (base, over) = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => (base, over),
        _ => return Err(Mistake { at, message: format!("{path}: found a list or a single value, expected a map") }),
    };
    let earlier: HashSet<String> = base.iter().map(|entry| entry.key.clone()).collect();
    let mut found = Keyed::new(base);
    for entry in over {
        match found.get_mut(&entry.key) {
            Some(before) => {
                let earlier = std::mem::replace(&mut before.node, shape::node(Value::Null, &before.at));
                before.node = value(earlier, entry.node, &key(path, &entry.key), notes)?;
            }
            None => found.push(entry),
        }
    }
    let merged = Node { value: Value::Map(found.entries), at, tag: None };
    match path.0.len() == 2 {
        true => with_unique_lists(merged, path, notes, &|key| earlier.contains(key)),
        false => Ok(merged),
    }
}

/// The lists of a service that several files have, though only the earlier one may have the list.
fn with_unique_lists(
    service: Node,
    path: &Path,
    notes: &mut Notes,
    is_earlier: &dyn Fn(&str) -> bool,
) -> Result<Node, Mistake> {
    let Node { value, at, tag } = service;
    let Value::Map(mut entries) = value else { return Ok(Node { value, at, tag }) };
    for entry in entries.iter_mut().filter(|entry| is_earlier(&entry.key)) {
        let path = key(path, &entry.key);
        let Rule::Unique(identity, reason) = rule(&steps(&path)) else { continue };
        if let Value::List(items) = &mut entry.node.value {
            *items = unique(std::mem::take(items), identity, &Loss::Unasked(reason), &path, notes)?;
        }
    }
    Ok(Node { value: Value::Map(entries), at, tag })
}

fn texts(node: Node, path: &Path, notes: &mut Notes) -> Result<Vec<Entry>, Mistake> {
    let (found, replaced) = shape::texts(node, path)?;
    for node in replaced {
        notes.resolve(&node, path, "the list has the name again, and the last one counts");
    }
    Ok(found)
}

/// A text is `CMD-SHELL` and itself.
fn test(node: Node) -> Vec<Node> {
    match node.value {
        Value::Text(_) => vec![shape::text("CMD-SHELL", &node.at.clone()), node],
        _ => shape::sequence(node, ':'),
    }
}

/// The later aliases, even if there are none; its addresses where it has them; nothing else of it.
fn network(base: Node, over: Node, path: &Path, notes: &mut Notes) -> Result<Node, Mistake> {
    if over.value == Value::Null {
        notes.resolve(&over, path, &format!("it is empty, and {} stays", base.at));
        return Ok(base);
    }
    if base.value == Value::Null || is_bare(&base) {
        notes.replace(&base, path, &over.at);
        return Ok(over);
    }
    let at = base.at.clone();
    let over_at = over.at.clone();
    if is_bare(&over) {
        notes.resolve(&over, path, &format!("it is empty, and the rest of {at} stays"));
    }
    let (Value::Map(base), Value::Map(over)) = (base.value, over.value) else {
        return Err(Mistake {
            at: over_at,
            message: format!("{path}: found a list or a single value, expected a map"),
        });
    };
    let has_aliases = over.iter().any(|entry| entry.key == "aliases");
    let mut found = Keyed::new(Vec::new());
    for entry in base {
        if entry.key == "aliases" && !has_aliases {
            let reason = format!(
                "docker stack deploy leaves out the aliases of an earlier file when it merges the network with {over_at}"
            );
            let path = key(path, "aliases");
            notes.warn(&entry.node.at, format!("{path}: {reason}"));
            notes.drop(&entry.node, &path, &reason);
        } else {
            found.push(entry);
        }
    }
    for entry in over {
        let path = key(path, &entry.key);
        match entry.key.as_str() {
            "aliases" | "ipv4_address" | "ipv6_address" if entry.key == "aliases" || is_worth(&entry.node) => {
                match found.get_mut(&entry.key) {
                    Some(before) => {
                        notes.replace(&before.node, &path, &entry.node.at);
                        *before = entry;
                    }
                    None => found.push(entry),
                }
            }
            _ => {
                let reason =
                    format!("docker stack deploy leaves it out when it merges the network with the one at {at}");
                notes.warn(&entry.node.at, format!("{path}: {reason}"));
                notes.drop(&entry.node, &path, &reason);
            }
        }
    }
    Ok(Node { value: Value::Map(found.entries), at, tag: None })
}

/// Options are merged into those of the earlier file, and are lost where it has none.
fn logging(base: Node, over: Node, path: &Path, notes: &mut Notes) -> Result<Node, Mistake> {
    let driver = |node: &Node| {
        node.get("driver").and_then(shape::as_text).filter(|driver| !driver.is_empty()).map(str::to_owned)
    };
    if let (Some(one), Some(other)) = (driver(&base), driver(&over))
        && one != other
    {
        notes.replace(&base, path, &over.at);
        return Ok(over);
    }
    let at = base.at.clone();
    let (Value::Map(base), Value::Map(over)) = (base.value, over.value) else {
        return Err(Mistake { at, message: format!("{path}: found a list or a single value, expected a map") });
    };
    let mut found = Keyed::new(base);
    for entry in over {
        let path = key(path, &entry.key);
        match (found.get_mut(&entry.key), entry.key.as_str()) {
            (Some(before), "options") => {
                let earlier = std::mem::replace(&mut before.node, shape::node(Value::Null, &before.at));
                before.node = sections(earlier, entry.node, &path, notes, false)?;
            }
            (Some(before), _) if is_worth(&entry.node) => {
                notes.replace(&before.node, &path, &entry.node.at);
                *before = entry;
            }
            (Some(before), _) => {
                notes.resolve(&entry.node, &path, &format!("it is empty, and {} stays", before.node.at))
            }
            (None, "options") => {
                let reason = "docker stack deploy leaves out options of logging where the earlier file has none";
                notes.warn(&entry.node.at, format!("{path}: {reason}"));
                notes.drop(&entry.node, &path, reason);
            }
            (None, _) => found.push(entry),
        }
    }
    Ok(Node { value: Value::Map(found.entries), at, tag: None })
}

/// Whether a value is anything to Go.
fn is_worth(node: &Node) -> bool {
    match &node.value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Int(value) => *value != 0,
        Value::Float(value) => *value != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
    }
}

/// Durations and sizes such as `0s` and `0M`.
fn is_zero_amount(text: &str) -> bool {
    let mut digits = text.bytes().filter(u8::is_ascii_digit).peekable();
    digits.peek().is_none() || digits.all(|digit| digit == b'0')
}
