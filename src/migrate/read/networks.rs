//! Networks, and which of them a service is on.

use super::super::Value;
use super::super::leaf::{At, Item, ItemValue, Leaf};
use super::super::stack::{Attachment, Network};
use super::Reader;
use super::forms::named_leaves;

/// The network of a service that names none.
const DEFAULT: &str = "default";

impl Reader<'_> {
    /// A network by its key.
    pub(super) fn network(&mut self, key: &str, item: &Item) -> Network {
        let (name, external) = self.name_and_external(item, "network");
        let mut addressing = Vec::new();
        for key in ["ipam", "enable_ipv4", "enable_ipv6"] {
            addressing.extend(item.get(key).into_iter().flat_map(|item| named_leaves(key, item)));
        }
        Network {
            key: key.to_owned(),
            empty: self.empty(item),
            name,
            external,
            driver: self.field(item, "driver", Self::text),
            driver_options: item.get("driver_opts").map(|item| self.labels(item)).unwrap_or_default(),
            internal: self.field(item, "internal", Self::truth),
            attachable: self.field(item, "attachable", Self::truth),
            labels: item.get("labels").map(|item| self.labels(item)).unwrap_or_default(),
            addressing,
            subnets: subnets(item),
        }
    }

    /// The leaf of something that nothing is written of.
    pub(super) fn empty(&mut self, item: &Item) -> Option<Leaf> {
        match &item.value {
            ItemValue::Map(_) => None,
            ItemValue::NoKeys(leaf) | ItemValue::Scalar(At { value: Value::Null, leaf }) => Some(*leaf),
            _ => {
                self.wrong(item, "a map, or nothing");
                None
            }
        }
    }

    /// `name` and `external`, which may have a name in it.
    pub(super) fn name_and_external(&mut self, item: &Item, kind: &str) -> (Option<At<String>>, Option<At<bool>>) {
        let mut name = self.field(item, "name", Self::some_text);
        let Some(external) = item.get("external") else { return (name, None) };
        let external = match &external.value {
            ItemValue::NoKeys(leaf) => Some(At::new(true, *leaf)),
            ItemValue::Map(_) => {
                let old = self.field(external, "name", Self::text);
                let leaf = external.leaves().first().copied();
                if let Some(old) = old {
                    match &name {
                        Some(name) if !self.is_compose() || name.value != old.value => self.mistake(
                            external,
                            format!(
                                "{kind}: 'name' and 'external.name' exclude each other; write name and 'external: true'"
                            ),
                        ),
                        Some(_) => {}
                        None => name = Some(old),
                    }
                }
                leaf.map(|leaf| At::new(true, leaf))
            }
            _ => self.truth(external),
        };
        (name, external)
    }

    /// `networks` of a service, sorted by name.
    pub(super) fn attachments(&mut self, service: &Item) -> Vec<Attachment> {
        let Some(item) = service.get("networks") else { return Vec::new() };
        if self.is_compose() && service.get("network_mode").is_some() {
            self.mistake(item, format!("{}: 'networks' and 'network_mode' exclude each other", service.path));
        }
        let mut found = Vec::new();
        match &item.value {
            ItemValue::List(items) => {
                for item in items {
                    let Some(name) = self.text(item) else { continue };
                    found.push((attachment(name.value, Some(name.leaf)), name.leaf));
                }
            }
            ItemValue::NoItems(_) => self.nothing(item),
            _ if self.is_map(item) => {
                for (name, item) in item.entries() {
                    let Some(first) = item.leaves().first().copied() else { continue };
                    let attachment = self.attachment(name, item);
                    found.push((attachment, first));
                }
            }
            _ => {}
        }
        for (attachment, leaf) in &found {
            if attachment.network != DEFAULT && !self.networks.contains(attachment.network.as_str()) {
                self.undefined(*leaf, "network", &attachment.network);
            }
        }
        let mut found: Vec<_> = found.into_iter().map(|(attachment, _)| attachment).collect();
        found.sort_by(|one, other| one.network.cmp(&other.network));
        found
    }

    fn attachment(&mut self, name: &str, item: &Item) -> Attachment {
        let leaf = self.empty(item);
        let mut addresses = Vec::new();
        for key in ["ipv4_address", "ipv6_address"] {
            addresses.extend(self.field(item, key, Self::address));
        }
        Attachment {
            aliases: item.get("aliases").map(|item| self.texts(item)).unwrap_or_default(),
            addresses,
            driver_options: item.get("driver_opts").map(|item| self.labels(item)).unwrap_or_default(),
            ..attachment(name.to_owned(), leaf)
        }
    }
}

/// An attachment of which nothing more is written.
fn attachment(network: String, leaf: Option<Leaf>) -> Attachment {
    Attachment { network, leaf, aliases: Vec::new(), addresses: Vec::new(), driver_options: Vec::new() }
}

/// The texts below `ipam.config`: address ranges, gateways, and names with addresses.
fn subnets(item: &Item) -> Vec<String> {
    let configs = item.get("ipam").and_then(|ipam| ipam.get("config")).map(Item::items).unwrap_or_default();
    let texts = configs.iter().flat_map(Item::entries).filter_map(|(_, item)| match item.scalar()?.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}
