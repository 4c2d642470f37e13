//! The objects in the files, sorted by kind.
//!
//! A file is the one document of the script, or what `docker KIND inspect` printed: an array, or one object, whose kind its fields tell.
//!
//! Invariants: an object is there once. The same object in a second file is a note.

use std::collections::BTreeMap;

use super::fields::Reader;
use crate::migrate::{Item, Mistake, Node, Outcome, Path, Position, Segment, Source, Value, Written};

/// The version of the document that the script prints.
const VERSION: i128 = 1;

/// What `docker` calls a kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    Network,
    Volume,
    Config,
    Secret,
    Node,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Service, Self::Network, Self::Volume, Self::Config, Self::Secret, Self::Node];

    /// In messages.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Config => "config",
            Self::Secret => "secret",
            Self::Node => "node",
        }
    }

    /// In the document of the script and in paths.
    fn list(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Network => "networks",
            Self::Volume => "volumes",
            Self::Config => "configs",
            Self::Secret => "secrets",
            Self::Node => "nodes",
        }
    }

    /// By the fields that the Engine API has for it.
    fn of(node: &Node) -> Option<Self> {
        let has = |key: &str| node.get(key).is_some();
        match node.get("Spec") {
            Some(spec) if spec.get("TaskTemplate").is_some() => Some(Self::Service),
            Some(spec) if spec.get("Role").is_some() => Some(Self::Node),
            Some(spec) if spec.get("Data").is_some() => Some(Self::Config),
            Some(spec) if has("ID") && spec.get("Name").is_some() => Some(Self::Secret),
            None if has("IPAM") => Some(Self::Network),
            None if has("Mountpoint") => Some(Self::Volume),
            _ => None,
        }
    }
}

/// An object whose leaves have no numbers yet.
#[derive(Debug)]
pub(super) struct Object {
    node: Node,
    path: Path,
    /// As the swarm calls it.
    pub(super) name: String,
    /// Empty for a volume.
    pub(super) id: String,
    /// The stack that it belongs to.
    pub(super) stack: Option<String>,
    /// A network that each swarm has.
    pub(super) is_of_docker: bool,
}

impl Object {
    fn of(kind: Kind, node: Node, path: Path) -> Result<Self, Mistake> {
        let text = |node: Option<&Node>| match node.map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let inner = match kind {
            Kind::Service | Kind::Config | Kind::Secret => node.get("Spec"),
            Kind::Network | Kind::Volume => Some(&node),
            Kind::Node => node.get("Description"),
        };
        let key = if kind == Kind::Node { "Hostname" } else { "Name" };
        let name = text(inner.and_then(|inner| inner.get(key))).filter(|name| !name.is_empty());
        let id = text(node.get("ID").or_else(|| node.get("Id")));
        let labels = inner.and_then(|inner| inner.get("Labels"));
        let stack = text(labels.and_then(|labels| labels.get("com.docker.stack.namespace")));
        let id = id.or_else(|| (kind == Kind::Volume).then(String::new));
        match (name, id) {
            (Some(name), Some(id)) => {
                let is_of_docker =
                    kind == Kind::Network && matches!(name.as_str(), "host" | "bridge" | "none" | "ingress");
                Ok(Self { node, path, name, id, stack, is_of_docker })
            }
            _ => {
                let message = format!(
                    "found a {} without {key} or ID, expected what docker {} inspect prints; collect it again",
                    kind.word(),
                    kind.word()
                );
                Err(Mistake { at: node.at, message })
            }
        }
    }

    /// Gives its leaves their numbers.
    pub(super) fn number(&self, reader: &mut Reader) -> Item {
        Item::number(&self.node, self.path.clone(), &mut reader.leaves)
    }

    /// It is not part of what is converted: one entry for all of it.
    pub(super) fn note(&self, outcome: Outcome, reason: &str, reader: &mut Reader) {
        let leaf = reader.leaves.push(Written { path: self.path.clone(), at: self.node.at.clone() });
        reader.mark_leaf(leaf, outcome, reason);
    }
}

/// All objects, each kind in the order of the files.
#[derive(Debug, Default)]
pub(super) struct Objects {
    kinds: BTreeMap<Kind, Vec<Object>>,
    /// By ID, or by name where a kind has none.
    first: BTreeMap<(Kind, String), Position>,
}

impl Objects {
    /// Sorts what is in the files.
    pub(super) fn read(sources: &[Source], reader: &mut Reader) -> Self {
        let mut objects = Self::default();
        for source in sources {
            match Node::documents(source) {
                Err(mistakes) => reader.mistakes.extend(mistakes),
                Ok(documents) => documents.into_iter().for_each(|node| objects.add_file(node, reader)),
            }
        }
        objects
    }

    /// The objects of a kind.
    pub(super) fn of(&self, kind: Kind) -> &[Object] {
        self.kinds.get(&kind).map_or(&[], Vec::as_slice)
    }

    fn add_file(&mut self, file: Node, reader: &mut Reader) {
        let Value::Map(entries) = &file.value else {
            return self.add_list(file, reader);
        };
        let Some(version) = file.get("cairn_swarm") else {
            return self.add(file, reader);
        };
        if version.value != Value::Int(VERSION) {
            let message =
                format!("cairn_swarm: expected {VERSION}; collect it again with the script of this version of Cairn");
            reader.mistakes.push(Mistake { at: version.at.clone(), message });
            return;
        }
        for entry in entries {
            let is_list = Kind::ALL.iter().any(|kind| kind.list() == entry.key);
            if is_list {
                self.add_list(entry.node.clone(), reader);
                continue;
            }
            let path = Path::default().with(Segment::Key(entry.key.clone()));
            let item = Item::number(&entry.node, path, &mut reader.leaves);
            match entry.key.as_str() {
                "cairn_swarm" | "api_version" | "collected" => {
                    reader.mark(&item, Outcome::Converted, "about the file, not about the stack");
                }
                _ => reader.mark(&item, Outcome::Dropped, "Cairn does not know it"),
            }
        }
    }

    fn add_list(&mut self, list: Node, reader: &mut Reader) {
        match list.value {
            Value::List(nodes) => nodes.into_iter().for_each(|node| self.add(node, reader)),
            Value::Null => {}
            _ => {
                let message = "found a single value, expected the document of the script or the array of docker \
                               inspect; `cairn migrate script` prints the script"
                    .to_owned();
                reader.mistakes.push(Mistake { at: list.at, message });
            }
        }
    }

    fn add(&mut self, node: Node, reader: &mut Reader) {
        let Some(kind) = Kind::of(&node) else {
            let message = "found an object that is not a service, network, volume, config, secret or node of docker \
                           inspect; collect it with the script that `cairn migrate script` prints"
                .to_owned();
            reader.mistakes.push(Mistake { at: node.at, message });
            return;
        };
        let list = self.kinds.entry(kind).or_default();
        let path = Path(vec![Segment::Key(kind.list().to_owned()), Segment::Index(list.len())]);
        match Object::of(kind, node, path) {
            Err(mistake) => reader.mistakes.push(mistake),
            Ok(object) => {
                let identity = if object.id.is_empty() { &object.name } else { &object.id };
                let slot = (kind, identity.clone());
                if let Some(first) = self.first.get(&slot) {
                    let reason = format!("{} '{}' is here again; that of {first} counts", kind.word(), object.name);
                    object.note(Outcome::Converted, &reason, reader);
                } else {
                    self.first.insert(slot, object.node.at.clone());
                    list.push(object);
                }
            }
        }
    }
}
