//! A service.

use std::collections::BTreeMap;

use super::super::Value;
use super::super::leaf::{At, Item, ItemValue, Leaf};
use super::super::report::Outcome;
use super::super::stack::{ComposeOnly, ExtraHost, FileMount, Logging, Service, Ulimit};
use super::{Reader, excerpt};

/// Longest name of a host (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;

impl Reader<'_> {
    /// A service by its key.
    pub(super) fn service(&mut self, name: &str, item: &Item) -> Option<Service> {
        let ItemValue::Map(_) = &item.value else {
            self.mistake(item, format!("{}: a service needs at least 'image'", item.path));
            return None;
        };
        if !["image", "build", "provider"].iter().any(|key| item.get(key).is_some()) {
            self.mistake(item, format!("{}: a service needs 'image'", item.path));
        }
        // What `docker stack deploy` does not have is not read for it, and the table of keys says so.
        let compose = self.is_compose();
        let only = |key: &str| item.get(key).filter(|_| compose);
        let deploy = item.get("deploy").filter(|deploy| self.is_map(deploy));
        let from_deploy = |key: &str| deploy.and_then(|deploy| deploy.get(key));
        let endpoint_mode = from_deploy("endpoint_mode").and_then(|item| self.endpoint_mode(item));
        let mut labels: BTreeMap<String, At<String>> = BTreeMap::new();
        let label_files = only("label_file").map(|item| self.label_files(item, &mut labels)).unwrap_or_default();
        labels.extend(item.get("labels").map(|item| self.labels(item)).unwrap_or_default());
        let compose_only = match compose {
            true => ComposeOnly { label_files, ..self.compose_only(name, item) },
            false => ComposeOnly::default(),
        };
        Some(Service {
            name: name.to_owned(),
            at: item.at.clone(),
            image: self.field(item, "image", Self::text),
            entrypoint: self.field(item, "entrypoint", Self::words),
            command: self.field(item, "command", Self::words),
            environment: self.environment(item),
            working_dir: self.field(item, "working_dir", Self::text),
            user: self.field(item, "user", Self::text),
            groups: only("group_add").map(|item| self.texts(item)).unwrap_or_default(),
            hostname: self.field(item, "hostname", Self::text),
            init: self.field(item, "init", Self::truth),
            tty: self.field(item, "tty", Self::truth),
            stdin_open: self.field(item, "stdin_open", Self::truth),
            read_only: self.field(item, "read_only", Self::truth),
            stop_signal: self.field(item, "stop_signal", Self::text),
            stop_grace_period: self.field(item, "stop_grace_period", Self::duration),
            health_check: self.field(item, "healthcheck", Self::health_check),
            extra_hosts: item.get("extra_hosts").map(|item| self.extra_hosts(item)).unwrap_or_default(),
            dns_servers: item.get("dns").map(|item| self.name_servers(item)).unwrap_or_default(),
            dns_search: item.get("dns_search").map(|item| self.one_or_texts(item)).unwrap_or_default(),
            dns_options: only("dns_opt").map(|item| self.texts(item)).unwrap_or_default(),
            capabilities_added: item.get("cap_add").map(|item| self.texts(item)).unwrap_or_default(),
            capabilities_dropped: item.get("cap_drop").map(|item| self.texts(item)).unwrap_or_default(),
            sysctls: item.get("sysctls").map(|item| self.labels(item)).unwrap_or_default(),
            ulimits: item.get("ulimits").map(|item| self.ulimits(item)).unwrap_or_default(),
            labels: labels.into_iter().collect(),
            service_labels: from_deploy("labels").map(|item| self.labels(item)).unwrap_or_default(),
            mode: self.mode(item, deploy),
            resources: self.resources(item, deploy),
            placement: from_deploy("placement").map(|item| self.placement(item)).unwrap_or_default(),
            update: from_deploy("update_config").and_then(|item| self.update_config(item)),
            rollback: from_deploy("rollback_config").and_then(|item| self.update_config(item)),
            restart: self.restart(item, deploy),
            endpoint_mode,
            ports: item
                .get("ports")
                .map(|item| self.ports(item, endpoint_mode.map(|mode| mode.value)))
                .unwrap_or_default(),
            networks: self.attachments(item),
            mounts: self.mounts(item),
            configs: item.get("configs").map(|item| self.file_mounts(item, "config")).unwrap_or_default(),
            secrets: item.get("secrets").map(|item| self.file_mounts(item, "secret")).unwrap_or_default(),
            logging: self.field(item, "logging", Self::logging),
            compose: compose_only,
        })
    }

    fn logging(&mut self, item: &Item) -> Option<Logging> {
        self.is_map(item).then(|| Logging {
            driver: self.field(item, "driver", Self::text),
            options: item.get("options").map(|item| self.labels(item)).unwrap_or_default(),
        })
    }

    /// Labels from files, which the service's own replace.
    fn label_files(&mut self, item: &Item, labels: &mut BTreeMap<String, At<String>>) -> Vec<At<String>> {
        let files = self.one_or_texts(item);
        for file in &files {
            let found = self.variables_of(item, file, true, self.dialect);
            labels.extend(found.into_iter().map(|(name, value)| (name, At::new(value.unwrap_or_default(), file.leaf))));
        }
        files
    }

    /// Name servers. docker/cli drops what is not an address, in silence.
    fn name_servers(&mut self, item: &Item) -> Vec<At<String>> {
        let mut servers = self.one_or_texts(item);
        if !self.is_compose() {
            servers.retain(|server| {
                let is_address = server.value.parse::<std::net::IpAddr>().is_ok();
                if !is_address {
                    let reason = "not an IP address; docker stack deploy drops it in silence";
                    self.remark(server.leaf, Outcome::Dropped, reason);
                }
                is_address
            });
        }
        servers
    }

    /// `NAME:ADDRESS` or `NAME=ADDRESS` in a list, or a map. compose-go has several addresses of a name, as a list or with commas.
    fn extra_hosts(&mut self, item: &Item) -> Vec<At<ExtraHost>> {
        let mut lines: Vec<(String, String, Leaf)> = Vec::new();
        match &item.value {
            ItemValue::List(items) => {
                for item in items {
                    let Some(text) = self.text(item) else { continue };
                    let split = text.value.split_once('=').or_else(|| text.value.split_once(':'));
                    match split {
                        Some((name, address)) => lines.push((name.to_owned(), address.to_owned(), text.leaf)),
                        None if self.is_compose() => {
                            self.mistake(
                                item,
                                format!("{}: '{}' has no address; write NAME=ADDRESS", item.path, excerpt(&text.value)),
                            );
                        }
                        None => self.remark(
                            text.leaf,
                            Outcome::Dropped,
                            "it has no address; docker stack deploy drops it in silence",
                        ),
                    }
                }
            }
            ItemValue::NoItems(_) => self.nothing(item),
            _ if self.is_map(item) => {
                for (name, item) in item.entries() {
                    match &item.value {
                        ItemValue::Scalar(At { value: Value::Null, leaf }) if !self.is_compose() => {
                            let reason = "it has no address; docker stack deploy drops it in silence";
                            self.remark(*leaf, Outcome::Dropped, reason);
                        }
                        _ => {
                            let addresses = self.one_or_texts(item).into_iter();
                            lines.extend(addresses.map(|address| (name.to_owned(), address.value, address.leaf)));
                        }
                    }
                }
            }
            _ => {}
        }
        let mut hosts = Vec::new();
        for (name, address, leaf) in lines {
            if !self.is_compose() {
                // The two halves become one text, which is split at its first colon.
                let line = format!("{name}:{address}");
                let (name, address) = line.split_once(':').unwrap_or((&line, ""));
                hosts
                    .push(At::new(ExtraHost { name: name.to_owned(), address: unbracketed(address).to_owned() }, leaf));
                continue;
            }
            if name.is_empty() || name.len() > NAME_MAX || name.contains([':', '=']) {
                let message = format!("'{}' is not the name of a host; write NAME=ADDRESS", excerpt(&name));
                self.mistake_at(leaf, message);
                continue;
            }
            if !self.spend(item, address.split(',').count()) {
                break;
            }
            for address in address.split(',') {
                let host = ExtraHost { name: name.clone(), address: unbracketed(address).to_owned() };
                hosts.push(At::new(host, leaf));
            }
        }
        hosts
    }

    /// `ulimits`: one number for both limits, or a map.
    fn ulimits(&mut self, item: &Item) -> Vec<Ulimit> {
        let mut limits = Vec::new();
        for (name, item) in self.sorted_entries(item) {
            let (soft, hard) = match &item.value {
                ItemValue::Map(_) => (self.field(item, "soft", Self::number), self.field(item, "hard", Self::number)),
                _ => {
                    let both = self.number(item);
                    (both, both)
                }
            };
            match (soft, hard) {
                (Some(soft), Some(hard)) => limits.push(Ulimit { name: name.to_owned(), soft, hard }),
                _ if matches!(item.value, ItemValue::Map(_)) => {
                    self.mistake(item, format!("{}: a limit needs 'soft' and 'hard'", item.path));
                }
                _ => {}
            }
        }
        limits
    }

    /// `configs` or `secrets` of a service, in the order of the file.
    fn file_mounts(&mut self, item: &Item, kind: &str) -> Vec<FileMount> {
        let (mut mounts, mut targets) = (Vec::new(), BTreeMap::new());
        for item in self.list(item) {
            let mount = if let ItemValue::Map(_) = &item.value {
                let Some(source) = self.field(item, "source", Self::text) else {
                    self.mistake(item, format!("{}: a {kind} needs 'source', its key", item.path));
                    continue;
                };
                FileMount {
                    source,
                    target: self.field(item, "target", Self::some_text),
                    uid: self.field(item, "uid", Self::text),
                    gid: self.field(item, "gid", Self::text),
                    mode: self.field(item, "mode", Self::permissions),
                }
            } else {
                let Some(source) = self.text(item) else { continue };
                FileMount { source, target: None, uid: None, gid: None, mode: None }
            };
            let names = if kind == "config" { &self.configs } else { &self.secrets };
            if !names.contains(mount.source.value.as_str()) {
                self.undefined(mount.source.leaf, kind, &mount.source.value);
            }
            let target = mount.target.as_ref().unwrap_or(&mount.source).value.clone();
            let same = targets.insert(target, mount.source.leaf).filter(|_| !self.is_compose());
            if let Some(same) = same {
                let first = self.leaves.written(same).at.clone();
                self.mistake(item, format!("{}: the {kind} in {first} has the same target", item.path));
            }
            mounts.push(mount);
        }
        mounts
    }
}

/// An address without brackets.
fn unbracketed(address: &str) -> &str {
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| !inner.is_empty()).unwrap_or(address)
}
