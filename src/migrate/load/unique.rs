//! Lists whose items have an identity: of two items that are the same thing, the later one counts.
//!
//! Invariant: an item that is several things of which only some are replaced is split, so that nothing is lost and nothing is there twice.

use std::collections::HashMap;

use super::super::leaf::Path;
use super::super::source::{Mistake, Position};
use super::super::yaml::{Node, Value};
use super::notes::Notes;
use super::shape::{self, as_text};
use super::short;

/// Most things in one list, for a range of ports is short to write.
const THINGS_MAX: usize = 200_000;

/// What makes two items the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// docker/cli: the published number alone, 0 where there is none.
    Published,
    /// compose-go: address, published port, target and protocol.
    Port,
    /// The path in the container.
    Volume,
    /// docker/cli: the name of the config or secret.
    Source,
    /// compose-go: where a config is mounted.
    Config,
    /// compose-go: where a secret is mounted.
    Secret,
    /// The path in the container.
    Device,
    /// The name before `=`, or the whole text.
    Name,
    /// The path.
    EnvFile,
    /// The text or number.
    Whole,
}

/// Why the earlier of two items does not count.
pub(super) enum Loss {
    /// The files ask for it.
    Asked,
    /// The program does it, whatever the files ask for.
    Unasked(&'static str),
}

/// One thing of an item.
struct Thing {
    identity: String,
    /// The item of this thing alone, where the item is several.
    alone: Option<Node>,
}

/// Of items that are the same, the last one stays, at the place of the first.
///
/// # Errors
/// When the list has too many things.
pub(super) fn unique(
    items: Vec<Node>,
    identity: Identity,
    loss: &Loss,
    path: &Path,
    notes: &mut Notes,
) -> Result<Vec<Node>, Mistake> {
    let mut slots: Vec<(usize, Thing)> = Vec::with_capacity(items.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut live = vec![0_usize; items.len()];
    let mut counts = vec![0_usize; items.len()];
    let mut by: HashMap<usize, Position> = HashMap::new();
    let mut total = 0;
    for (number, item) in items.iter().enumerate() {
        let things = things(item, identity);
        total += things.len();
        if total > THINGS_MAX {
            let message = format!("{path}: more than {THINGS_MAX} entries up to here");
            return Err(Mistake { at: item.at.clone(), message });
        }
        counts[number] = things.len();
        for thing in things {
            live[number] += 1;
            match places.get(&thing.identity) {
                Some(place) => {
                    let (before, _) = &slots[*place];
                    live[*before] -= 1;
                    by.insert(*before, item.at.clone());
                    slots[*place] = (number, thing);
                }
                None => {
                    places.insert(thing.identity.clone(), slots.len());
                    slots.push((number, thing));
                }
            }
        }
    }
    let mut items: Vec<Option<Node>> = items.into_iter().map(Some).collect();
    for (number, item) in items.iter_mut().enumerate() {
        if live[number] > 0 {
            continue;
        }
        if let (Some(lost), Some(by)) = (item.take(), by.get(&number)) {
            let path = shape::index(path, number);
            match loss {
                Loss::Asked => notes.replace(&lost, &path, by),
                Loss::Unasked(reason) => {
                    notes.warn(&lost.at, format!("{path}: {reason}; {by} is the one that counts"));
                    notes.drop(&lost, &path, reason);
                }
            }
        }
    }
    let mut result = Vec::with_capacity(slots.len());
    for (number, thing) in slots {
        if live[number] == counts[number] {
            result.extend(items[number].take());
        } else {
            result.extend(thing.alone);
        }
    }
    Ok(result)
}

fn things(item: &Node, identity: Identity) -> Vec<Thing> {
    let one = |identity: String| vec![Thing { identity, alone: None }];
    let field = |name: &str| item.get(name);
    let field_text = |name: &str| field(name).map(|node| node.value.to_string()).unwrap_or_default();
    // What nothing is known of is only the same as itself.
    let other = || one(format!("?{}", shape::fingerprint(item)));
    let is_map = matches!(item.value, Value::Map(_));
    let scalar = match &item.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    };
    match identity {
        Identity::Published | Identity::Port => match scalar {
            Some(text) => match short::ports(&text, identity == Identity::Published) {
                Some(ports) => {
                    let thing = |port: &short::Port| Thing {
                        identity: port_identity(port, identity),
                        alone: Some(port.item(&item.at)),
                    };
                    ports.iter().map(thing).collect()
                }
                None => other(),
            },
            None if !is_map => other(),
            None if identity == Identity::Published => match field("published").map(|node| &node.value) {
                None | Some(Value::Null) => one("0".to_owned()),
                Some(value) => one(value.to_string()),
            },
            None => {
                let published = match field("published").map(|node| &node.value) {
                    // For compose-go the number 80 and the text "80" are two things.
                    Some(Value::Text(text)) => text.clone(),
                    Some(value) => format!("number {value}"),
                    None => String::new(),
                };
                let or = |name, default: &str| field(name).map_or(default.to_owned(), |_| field_text(name));
                let (address, protocol) = (or("host_ip", "0.0.0.0"), or("protocol", "tcp"));
                one(format!("{address}:{published}:{}/{protocol}", field_text("target")))
            }
        },
        Identity::Volume | Identity::Device if is_map => one(field_text("target")),
        Identity::Volume => match as_text(item) {
            Some(text) => one(short::volume(text).1.to_owned()),
            None => other(),
        },
        Identity::Device => match as_text(item) {
            Some(text) => one(text.split(':').nth(1).unwrap_or(text).to_owned()),
            None => other(),
        },
        Identity::Source if is_map => one(field_text("source")),
        Identity::Config | Identity::Secret => {
            let folder = if identity == Identity::Secret { "/run/secrets" } else { "" };
            match (as_text(item), field("target")) {
                (Some(name), _) => one(format!("{folder}/{name}")),
                (None, Some(_)) => one(field_text("target")),
                (None, None) if is_map => one(format!("{folder}/{}", field_text("source"))),
                (None, None) => other(),
            }
        }
        Identity::EnvFile if is_map => one(field_text("path")),
        Identity::Name => match as_text(item) {
            Some(text) => one(text.split('=').next().unwrap_or(text).to_owned()),
            None => other(),
        },
        Identity::Source | Identity::EnvFile | Identity::Whole => scalar.map_or_else(other, one),
    }
}

fn port_identity(port: &short::Port, identity: Identity) -> String {
    if identity == Identity::Published {
        return if port.published.is_empty() { "0".to_owned() } else { port.published.clone() };
    }
    let address = if port.address.is_empty() { "0.0.0.0" } else { &port.address };
    format!("{address}:{}:{}/{}", port.published, port.target, port.protocol)
}
