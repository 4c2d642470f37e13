//! Names of the swarm, and the keys that a stack file has for them.
//!
//! Invariants: two objects of one kind never have one key.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Kind, Object, Objects};

/// Whether an object belongs to the stack, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// As a stack file has it.
    pub(super) key: String,
    /// The stack does not make it.
    pub(super) is_external: bool,
    /// Its name is `STACK_KEY`.
    pub(super) is_plain: bool,
}

/// The stack that is read, and the keys of everything that its services use.
#[derive(Debug)]
pub(super) struct Names {
    /// The stack's name.
    pub(super) stack: String,
    /// Services without a label of a stack are the stack, and all that they use is theirs.
    pub(super) is_by_hand: bool,
    identities: BTreeMap<(Kind, String), Identity>,
    keys: BTreeSet<(Kind, String)>,
}

impl Names {
    pub(super) fn new(stack: &str, is_by_hand: bool, objects: &Objects) -> Self {
        let mut names =
            Self { stack: stack.to_owned(), is_by_hand, identities: BTreeMap::new(), keys: BTreeSet::new() };
        // Whose a volume is, the mounts say.
        for kind in [Kind::Service, Kind::Network, Kind::Config, Kind::Secret] {
            // First what the stack makes, which has the first choice of keys.
            for is_external in [false, true] {
                for object in objects.of(kind) {
                    if names.owns(object) != is_external {
                        names.identify(kind, &object.name, Some(is_external));
                    }
                }
            }
        }
        names
    }

    /// Whether an object is the stack's.
    pub(super) fn owns(&self, object: &Object) -> bool {
        match &object.stack {
            _ if object.is_of_docker => false,
            Some(stack) => !self.is_by_hand && *stack == self.stack,
            None => self.is_by_hand,
        }
    }

    /// What is known of a name.
    ///
    /// * `is_external`: `None` where the object is not described: its name says whose it is.
    pub(super) fn identify(&mut self, kind: Kind, name: &str, is_external: Option<bool>) -> Identity {
        let slot = (kind, name.to_owned());
        if let Some(found) = self.identities.get(&slot) {
            return found.clone();
        }
        let short = name.strip_prefix(&self.stack).and_then(|rest| rest.strip_prefix('_'));
        let short = short.filter(|short| !short.is_empty() && !short.contains("{{"));
        let is_external = is_external.unwrap_or(short.is_none() && !self.is_by_hand);
        let mut key = match short {
            Some(short) if !is_external => short.to_owned(),
            _ => without_placeholders(name),
        };
        let mut is_plain = short.is_some() && !is_external;
        if self.keys.contains(&(kind, key.clone())) {
            is_plain = false;
            name.clone_into(&mut key);
            while self.keys.contains(&(kind, key.clone())) {
                key.push('_');
            }
        }
        self.keys.insert((kind, key.clone()));
        let identity = Identity { key, is_external, is_plain };
        self.identities.insert(slot, identity.clone());
        identity
    }
}

/// `data-{{.Task.Slot}}` is the volume `data` of its file.
fn without_placeholders(name: &str) -> String {
    let (mut text, mut rest) = (String::new(), name);
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        rest = after.split_once("}}").map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let text = text.trim_matches(['-', '_', '.']);
    if text.is_empty() { name.to_owned() } else { text.to_owned() }
}
