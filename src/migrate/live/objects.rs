//! What the services of a stack use: networks, configs, secrets; and the nodes of the swarm.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SwarmNode;
use super::document::{Kind, Object, Objects};
use super::fields::{Fields, Reader};
use super::names::{Identity, Names};
use super::service::{BOOKKEEPING, bookkeeping};
use crate::migrate::stack::{Network, Payload};
use crate::migrate::{At, Item, ItemValue, Leaf, Outcome, Value};

/// The label that names the stack of an object.
pub(super) const STACK_LABEL: &str = "com.docker.stack.namespace";
/// What Docker adds to the options of an overlay.
const VXLAN_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// Labels without those that `docker stack deploy` adds.
pub(super) fn labels(fields: &mut Fields<'_>, reader: &mut Reader) -> Vec<(String, At<String>)> {
    let (of_docker, others): (Vec<_>, Vec<_>) =
        fields.named_texts("Labels", reader).into_iter().partition(|(name, _)| name.starts_with("com.docker.stack."));
    for (name, label) in of_docker {
        let reason = match name.as_str() {
            "com.docker.stack.image" => "the image before its digest was looked up; bookkeeping of the swarm",
            _ => BOOKKEEPING,
        };
        reader.mark_leaf(label.leaf, Outcome::Converted, reason);
    }
    others
}

/// Why an object is not converted.
pub(super) fn not_part(kind: Kind, object: &Object) -> String {
    let owner = match &object.stack {
        Some(stack) => format!("belongs to the stack '{stack}'"),
        None => "belongs to none of the stacks".to_owned(),
    };
    format!("not part of this stack: the {} '{}' {owner}", kind.word(), object.name)
}

/// The networks that services are on.
#[derive(Debug)]
pub(super) struct Networks {
    /// By ID and by name.
    names: BTreeMap<String, String>,
    /// By their names in the swarm, with the first place where one is used.
    used: BTreeMap<String, Leaf>,
}

impl Networks {
    pub(super) fn new(objects: &Objects) -> Self {
        let networks = objects.of(Kind::Network).iter();
        let names =
            networks.flat_map(|object| [&object.name, &object.id].map(|key| (key.clone(), object.name.clone())));
        Self { names: names.collect(), used: BTreeMap::new() }
    }

    /// A service is on a network; returns its key.
    ///
    /// * `target`: the ID, as the swarm has it.
    pub(super) fn attach(&mut self, target: &At<String>, names: &mut Names) -> String {
        let name = self.names.get(&target.value).unwrap_or(&target.value);
        self.used.entry(name.clone()).or_insert(target.leaf);
        names.identify(Kind::Network, name, None).key
    }

    /// No file describes it.
    pub(super) fn is_unknown(&self, target: &str) -> bool {
        !self.names.contains_key(target)
    }

    /// The networks of the stack, and those that its services are on.
    pub(super) fn finish(mut self, objects: &Objects, names: &mut Names, reader: &mut Reader) -> Vec<Network> {
        let mut networks = Vec::new();
        for object in objects.of(Kind::Network) {
            let is_used = self.used.remove(&object.name).is_some();
            if !is_used && (names.is_by_hand || !names.owns(object)) {
                object.note(Outcome::Converted, &not_part(Kind::Network, object), reader);
                continue;
            }
            let identity = names.identify(Kind::Network, &object.name, None);
            let item = object.number(reader);
            networks.push(read_network(&item, &identity, reader));
        }
        for (name, leaf) in self.used {
            let identity = names.identify(Kind::Network, &name, None);
            let mut network = empty_network(&identity);
            if !identity.is_plain {
                network.name = Some(At::new(name, leaf));
            }
            network.external = identity.is_external.then(|| At::new(true, leaf));
            networks.push(network);
        }
        networks.sort_by(|a, b| a.key.cmp(&b.key));
        networks
    }
}

fn empty_network(identity: &Identity) -> Network {
    Network {
        key: identity.key.clone(),
        empty: None,
        name: None,
        external: None,
        driver: None,
        driver_options: Vec::new(),
        internal: None,
        attachable: None,
        labels: Vec::new(),
        addressing: Vec::new(),
        subnets: Vec::new(),
    }
}

fn read_network(item: &Item, identity: &Identity, reader: &mut Reader) -> Network {
    let mut network = empty_network(identity);
    let mut fields = reader.open(item);
    let name = fields.text("Name", reader);
    if identity.is_external {
        network.external = name.as_ref().map(|name| At::new(true, name.leaf));
        network.name = name;
        if let Some(internal) = fields.bool("Internal", reader) {
            let (outcome, reason) = if internal.value {
                (Outcome::Approximated, "the network is not the stack's; isolate what becomes of it")
            } else {
                (Outcome::Converted, "the network is not the stack's")
            };
            reader.mark_leaf(internal.leaf, outcome, reason);
        }
        for (_, item) in fields.all() {
            reader.mark(item, Outcome::Converted, "the network is not the stack's");
        }
        return network;
    }
    match name {
        Some(name) if identity.is_plain => {
            reader.mark_leaf(name.leaf, Outcome::Converted, "the name of the network");
        }
        name => network.name = name,
    }
    let keys =
        ["Id", "Created", "Scope", "Ingress", "ConfigFrom", "ConfigOnly", "Containers", "Peers", "Services", "Status"];
    fields.mark(&keys, Outcome::Converted, BOOKKEEPING, reader);
    network.driver = fields.text("Driver", reader);
    network.internal = fields.bool("Internal", reader);
    network.attachable = fields.bool("Attachable", reader);
    network.labels = labels(&mut fields, reader);
    for (name, option) in fields.named_texts("Options", reader) {
        if name == VXLAN_OPTION {
            reader.mark_leaf(option.leaf, Outcome::Converted, BOOKKEEPING);
        } else {
            network.driver_options.push((name, option));
        }
    }
    for (key, name, usual) in [("EnableIPv4", "enable_ipv4", true), ("EnableIPv6", "enable_ipv6", false)] {
        match fields.bool(key, reader) {
            Some(At { value, leaf }) if value == usual => {
                reader.mark_leaf(leaf, Outcome::Converted, "Docker's default");
            }
            Some(At { leaf, .. }) => network.addressing.push((name.to_owned(), leaf)),
            None => {}
        }
    }
    if let Some(ipam) = fields.map("IPAM", reader) {
        read_addresses(ipam, &mut network, reader);
    }
    fields.end(reader);
    network
}

/// The ranges of a network. Whether somebody wrote them or the swarm chose them is not recorded; those of the swarm's own pool are taken
/// for its choice.
fn read_addresses(mut ipam: Fields<'_>, network: &mut Network, reader: &mut Reader) {
    if let Some(driver) = ipam.text("Driver", reader) {
        if driver.value == "default" {
            reader.mark_leaf(driver.leaf, Outcome::Converted, "Docker's default");
        } else {
            network.addressing.push(("ipam.driver".to_owned(), driver.leaf));
        }
    }
    for (name, option) in ipam.named_texts("Options", reader) {
        network.addressing.push((format!("ipam.options.{name}"), option.leaf));
    }
    for item in ipam.list("Config", reader) {
        let subnet = item.get("Subnet").and_then(Item::scalar).map(|subnet| subnet.value.to_string());
        if subnet.as_ref().is_some_and(|subnet| is_of_default_pool(subnet)) {
            let reason = "a range of the swarm's own pool (10.0.0.0/8 in parts of /24), which the swarm chooses from";
            reader.mark(item, Outcome::Converted, reason);
            continue;
        }
        network.subnets.extend(subnet);
        for (key, item) in reader.open(item).all() {
            network.addressing.extend(item.leaves().into_iter().map(|leaf| (format!("ipam.config.{key}"), leaf)));
        }
    }
    ipam.end(reader);
}

/// The pool that `docker swarm init` sets up where nothing else is asked for.
fn is_of_default_pool(subnet: &str) -> bool {
    let parts = subnet.strip_suffix("/24").and_then(|address| address.parse::<std::net::Ipv4Addr>().ok());
    parts.is_some_and(|address| address.octets()[0] == 10 && address.octets()[3] == 0)
}

/// The configs and secrets that services use, by their names in the swarm, with the first place where one is used.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) configs: BTreeMap<String, Leaf>,
    pub(super) secrets: BTreeMap<String, Leaf>,
}

/// The configs or secrets of the stack, and those that its services use.
pub(super) fn payloads(
    kind: Kind,
    mut used: BTreeMap<String, Leaf>,
    objects: &Objects,
    names: &mut Names,
    reader: &mut Reader,
) -> Vec<Payload> {
    let mut payloads = Vec::new();
    for object in objects.of(kind) {
        let is_used = used.remove(&object.name).is_some();
        if !is_used && (names.is_by_hand || !names.owns(object)) {
            object.note(Outcome::Converted, &not_part(kind, object), reader);
            continue;
        }
        let identity = names.identify(kind, &object.name, None);
        let item = object.number(reader);
        payloads.push(read_payload(&item, kind, &identity, reader));
    }
    for (name, leaf) in used {
        let identity = names.identify(kind, &name, None);
        let mut payload = empty_payload(&identity);
        payload.external = identity.is_external.then(|| At::new(true, leaf));
        if !identity.is_plain {
            payload.name = Some(At::new(name, leaf));
        }
        payloads.push(payload);
    }
    payloads.sort_by(|a, b| a.key.cmp(&b.key));
    payloads
}

fn empty_payload(identity: &Identity) -> Payload {
    Payload {
        key: identity.key.clone(),
        empty: None,
        name: None,
        external: None,
        content: None,
        template_driver: None,
        driver: None,
        driver_options: Vec::new(),
        labels: Vec::new(),
    }
}

fn read_payload(item: &Item, kind: Kind, identity: &Identity, reader: &mut Reader) -> Payload {
    let mut payload = empty_payload(identity);
    let mut fields = reader.open(item);
    bookkeeping(&mut fields, reader);
    if let Some(mut spec) = fields.map("Spec", reader) {
        let name = spec.text("Name", reader);
        payload.external = name.as_ref().filter(|_| identity.is_external).map(|name| At::new(true, name.leaf));
        match name {
            Some(name) if identity.is_plain => {
                reader.mark_leaf(name.leaf, Outcome::Converted, &format!("the name of the {}", kind.word()));
            }
            name => payload.name = name,
        }
        payload.labels = labels(&mut spec, reader);
        if kind == Kind::Config {
            payload.content = spec.item("Data").and_then(|item| {
                reader.scalar(item, "text in base64", |value| match value {
                    Value::Text(text) => STANDARD.decode(text).ok(),
                    _ => None,
                })
            });
        }
        if let Some(mut driver) = spec.map("Driver", reader) {
            payload.driver = driver.text("Name", reader);
            payload.driver_options = driver.named_texts("Options", reader);
            driver.end(reader);
        }
        if let Some(mut templating) = spec.map("Templating", reader) {
            payload.template_driver = templating.text("Name", reader);
            templating.mark(&["Options"], Outcome::Dropped, "no template driver of Docker's has options", reader);
            templating.end(reader);
        }
        if identity.is_external {
            for (_, label) in payload.labels.drain(..) {
                reader.mark_leaf(label.leaf, Outcome::Converted, "the object is not the stack's");
            }
        }
        spec.end(reader);
    }
    fields.end(reader);
    payload
}

/// The nodes, with what placement asks of them.
pub(super) fn nodes(objects: &Objects, reader: &mut Reader) -> Vec<SwarmNode> {
    const FOR_LABELS: &str = "a command of kubectl label node in the report";
    let mut nodes = Vec::new();
    for object in objects.of(Kind::Node) {
        let item = object.number(reader);
        let mut marked = BTreeSet::new();
        let mut texts = |item: Option<&Item>, reader: &mut Reader| {
            let mut texts = Vec::new();
            for (name, item) in item.into_iter().flat_map(Item::entries) {
                marked.extend(item.leaves());
                let text = reader.text(item);
                texts.extend(text.map(|text| (name.to_owned(), text.value)));
            }
            texts
        };
        let spec = item.get("Spec");
        let description = item.get("Description");
        let platform = description.and_then(|description| description.get("Platform"));
        let engine = description.and_then(|description| description.get("Engine"));
        let text = |item: Option<&Item>, key: &str| match &item.and_then(|item| item.get(key))?.value {
            ItemValue::Scalar(At { value: Value::Text(text), .. }) => Some(text.clone()),
            _ => None,
        };
        nodes.push(SwarmNode {
            id: object.id.clone(),
            hostname: object.name.clone(),
            role: text(spec, "Role").unwrap_or_default(),
            labels: texts(spec.and_then(|spec| spec.get("Labels")), reader),
            engine_labels: texts(engine.and_then(|engine| engine.get("Labels")), reader),
            architecture: text(platform, "Architecture"),
            os: text(platform, "OS"),
            at: item.at.clone(),
        });
        for leaf in item.leaves() {
            let reason = if marked.contains(&leaf) { FOR_LABELS } else { BOOKKEEPING };
            reader.mark_leaf(leaf, Outcome::Converted, reason);
        }
    }
    nodes.sort_by(|a, b| a.hostname.cmp(&b.hostname).then(a.id.cmp(&b.id)));
    nodes
}
