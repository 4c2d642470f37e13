//! What only `docker compose` reads of a service.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Mistake;
use super::super::leaf::{At, Item, ItemValue};
use super::super::report::Outcome;
use super::super::stack::{ComposeOnly, Dependency, Hook, Service, Words};
use super::forms::named_leaves;
use super::{Reader, excerpt};

/// Before the name of a service.
const SERVICE: &str = "service:";

const CONDITIONS: [&str; 3] = ["service_started", "service_healthy", "service_completed_successfully"];

impl Reader<'_> {
    /// * `name`: of the service.
    pub(super) fn compose_only(&mut self, name: &str, item: &Item) -> ComposeOnly {
        let found = ComposeOnly {
            privileged: self.field(item, "privileged", Self::truth),
            security_options: item.get("security_opt").map(|item| self.texts(item)).unwrap_or_default(),
            devices: item.get("devices").map(|item| self.devices(item)).unwrap_or_default(),
            shm_size: self.field(item, "shm_size", Self::bytes),
            network_mode: self.field(item, "network_mode", Self::text),
            pid: self.field(item, "pid", Self::text),
            ipc: self.field(item, "ipc", Self::text),
            container_name: self.field(item, "container_name", Self::text),
            domain_name: self.field(item, "domainname", Self::text),
            expose: item.get("expose").map(|item| self.texts(item)).unwrap_or_default(),
            links: item.get("links").map(|item| self.texts(item)).unwrap_or_default(),
            depends_on: item.get("depends_on").map(|item| self.dependencies(name, item)).unwrap_or_default(),
            platform: self.field(item, "platform", Self::text),
            pull_policy: self.field(item, "pull_policy", Self::text),
            runtime: self.field(item, "runtime", Self::text),
            oom_score_adj: self.field(item, "oom_score_adj", Self::number),
            label_files: Vec::new(),
            hooks: self.hooks(item),
        };
        let shared = shared(&found).filter_map(|mode| Some((mode.value.strip_prefix(SERVICE)?, mode.leaf)));
        for (other, leaf) in shared.chain(found.links.iter().map(|link| (linked(&link.value), link.leaf))) {
            if !self.services.contains(other) {
                self.undefined(leaf, "service", other);
            }
        }
        found
    }

    /// Devices of the node: text, or a map of `source`, `target` and `permissions`.
    fn devices(&mut self, item: &Item) -> Vec<At<String>> {
        let mut devices = Vec::new();
        for item in self.list(item) {
            if !matches!(item.value, ItemValue::Map(_)) {
                devices.extend(self.text(item));
                continue;
            }
            let Some(mut device) = self.field(item, "source", Self::text) else {
                self.mistake(item, format!("{}: a device needs 'source', its path on the node", item.path));
                continue;
            };
            let target = self.field(item, "target", Self::text);
            let permissions = self.field(item, "permissions", Self::text);
            let target_text = target.as_ref().map_or(device.value.clone(), |target| target.value.clone());
            if target.is_some() || permissions.is_some() {
                device.value = format!("{}:{target_text}", device.value);
            }
            if let Some(permissions) = &permissions {
                device.value = format!("{}:{}", device.value, permissions.value);
            }
            for part in target.into_iter().chain(permissions) {
                self.remark(part.leaf, Outcome::NeedsInput, "a part of the device that 'source' names");
            }
            devices.push(device);
        }
        devices
    }

    /// Services that have to be there before, sorted by name.
    fn dependencies(&mut self, name: &str, item: &Item) -> Vec<Dependency> {
        let mut found = Vec::new();
        match &item.value {
            ItemValue::List(items) => {
                for item in items {
                    let Some(service) = self.text(item) else { continue };
                    found.push(Dependency { service: service.value, condition: None, leaves: vec![service.leaf] });
                }
            }
            ItemValue::NoItems(_) => self.nothing(item),
            _ if self.is_map(item) => {
                for (service, item) in item.entries() {
                    let condition = self.field(item, "condition", Self::text);
                    if let Some(condition) = &condition
                        && !CONDITIONS.contains(&condition.value.as_str())
                    {
                        let message =
                            format!("found '{}', expected one of {}", excerpt(&condition.value), CONDITIONS.join(", "));
                        self.mistake_at(condition.leaf, message);
                    }
                    let is_optional = self.field(item, "required", Self::truth).is_some_and(|required| !required.value);
                    let held = condition.as_ref().map(|condition| condition.leaf);
                    let leaves = item.leaves().into_iter().filter(|leaf| Some(*leaf) != held).collect();
                    if is_optional && !self.services.contains(service) {
                        self.remark_all(item, Outcome::Converted, "the service is not there, and is not required");
                        continue;
                    }
                    found.push(Dependency { service: service.to_owned(), condition, leaves });
                }
            }
            _ => {}
        }
        for dependency in &found {
            if dependency.service == name {
                self.mistake(item, format!("{}: the service depends on itself", item.path));
            } else if !self.services.contains(dependency.service.as_str()) {
                let leaf = dependency.leaves.first().copied().or(dependency.condition.as_ref().map(|at| at.leaf));
                if let Some(leaf) = leaf {
                    self.undefined(leaf, "service", &dependency.service);
                }
            }
        }
        found.sort_by(|one, other| one.service.cmp(&other.service));
        found
    }

    /// Services that wait for each other, or share what another one has first.
    pub(super) fn check_cycles(&mut self, services: &[Service]) {
        let mut left: BTreeMap<&str, BTreeSet<&str>> =
            services.iter().map(|service| (service.name.as_str(), needs(service))).collect();
        let names: BTreeSet<&str> = left.keys().copied().collect();
        let mut needed_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, needs) in &mut left {
            needs.retain(|need| names.contains(need));
            for need in needs.iter() {
                needed_by.entry(need).or_default().push(name);
            }
        }
        // What needs nothing can start, and then what needs nothing else.
        let mut ready: Vec<&str> = left.iter().filter(|(_, needs)| needs.is_empty()).map(|(name, _)| *name).collect();
        while let Some(name) = ready.pop() {
            left.remove(name);
            for other in needed_by.remove(name).unwrap_or_default() {
                if let Some(needs) = left.get_mut(other)
                    && needs.remove(name)
                    && needs.is_empty()
                {
                    ready.push(other);
                }
            }
        }
        let Some(mut name) = left.keys().next().copied() else { return };
        let mut way = vec![name];
        let mut steps: BTreeMap<&str, usize> = BTreeMap::from([(name, 0)]);
        while let Some(next) = left.get(name).and_then(BTreeSet::first) {
            if let Some(begin) = steps.insert(next, way.len()) {
                way.drain(..begin);
                break;
            }
            way.push(next);
            name = next;
        }
        if let Some(service) = services.iter().find(|service| way.first() == Some(&service.name.as_str())) {
            way.push(&service.name);
            let message = format!("services wait for each other: {}", excerpt(&way.join(" → ")));
            self.push(Mistake { at: service.at.clone(), message });
        }
    }

    /// Commands after the start and before the stop, in the order of the file.
    fn hooks(&mut self, service: &Item) -> Vec<Hook> {
        let mut hooks = Vec::new();
        for (key, is_pre_stop) in [("post_start", false), ("pre_stop", true)] {
            for item in service.get(key).map(|item| self.list(item)).unwrap_or_default() {
                if !self.is_map(item) {
                    continue;
                }
                let Some(command) =
                    self.field(item, "command", Self::words).filter(|Words { words, .. }| !words.is_empty())
                else {
                    self.mistake(item, format!("{}: a hook needs 'command'", item.path));
                    continue;
                };
                let others = item.entries().filter(|(key, _)| *key != "command");
                let other = others.flat_map(|(key, item)| named_leaves(key, item)).collect();
                hooks.push(Hook { is_pre_stop, command, other });
            }
        }
        hooks
    }
}

/// The services that have to be there before a service, as compose-go has them.
fn needs(service: &Service) -> BTreeSet<&str> {
    let only = &service.compose;
    let depends = only.depends_on.iter().map(|dependency| dependency.service.as_str());
    let links = only.links.iter().map(|link| linked(&link.value));
    let shared = shared(only).filter_map(|mode| mode.value.strip_prefix(SERVICE));
    depends.chain(links).chain(shared).collect()
}

/// What may be another service's.
fn shared(only: &ComposeOnly) -> impl Iterator<Item = &At<String>> {
    [&only.network_mode, &only.pid, &only.ipc].into_iter().flatten()
}

/// The service of a link: `NAME` or `NAME:ALIAS`.
fn linked(link: &str) -> &str {
    match link.split_once(':') {
        Some((name, alias)) if !alias.contains(':') => name,
        _ => link,
    }
}
