//! The names of objects: those of the stack, as far as Kubernetes takes them.
//!
//! Invariants: names of one kind differ; a name that Kubernetes takes stays as it is, whatever else folds to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::migrate::stack::Stack;

/// Longest name: that of a Service is a DNS label, and a pod's is a value of a label.
const LENGTH_MAX: usize = 63;
/// Longest name of a service: a CronJob has 52 letters at most, and what a Deployment adds to its pods has to find room.
const SERVICE_LENGTH_MAX: usize = 52;

/// The names of the objects of a stack, by the keys in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    services: BTreeMap<String, String>,
    networks: BTreeMap<String, String>,
    volumes: BTreeMap<String, String>,
    configs: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    /// What Swarm calls configs and secrets, without the name of the stack, where it is not the key.
    configs_in_swarm: BTreeMap<String, String>,
    secrets_in_swarm: BTreeMap<String, String>,
}

impl Names {
    /// Those of a stack.
    #[must_use]
    pub fn of(stack: &Stack) -> Self {
        let attached = stack.services.iter().flat_map(|service| &service.networks).map(|other| other.network.as_str());
        let named = |name: Option<&crate::migrate::At<String>>| {
            let name = without_placeholders(&name?.value);
            // What Swarm puts before a key itself.
            let key = name.strip_prefix(&stack.name).and_then(|rest| rest.strip_prefix('_')).map(str::to_owned);
            Some(key.unwrap_or(name)).filter(|name| !name.is_empty())
        };
        let networks = stack.networks.iter().map(|one| (one.key.as_str(), named(one.name.as_ref())));
        let is_described = |key: &&str| stack.networks.iter().any(|network| network.key == *key);
        let undescribed = attached.chain(["default"]).filter(|key| !is_described(key)).map(|key| (key, None));
        let volumes = stack.volumes.iter().map(|one| (one.key.as_str(), named(one.name.as_ref())));
        let configs = stack.configs.iter().map(|one| (one.key.as_str(), named(one.name.as_ref())));
        let secrets = stack.secrets.iter().map(|one| (one.key.as_str(), named(one.name.as_ref())));
        let in_swarm = |all: &[(&str, Option<String>)]| {
            let other = all.iter().filter_map(|(key, name)| Some(((*key).to_owned(), name.clone()?)));
            other.collect()
        };
        let (configs, secrets): (Vec<_>, Vec<_>) = (configs.collect(), secrets.collect());
        Self {
            configs_in_swarm: in_swarm(&configs),
            secrets_in_swarm: in_swarm(&secrets),
            services: distinct(stack.services.iter().map(|service| service.name.as_str()), SERVICE_LENGTH_MAX),
            networks: by_name(networks.chain(undescribed)),
            volumes: by_name(volumes),
            configs: by_name(configs.into_iter()),
            secrets: by_name(secrets.into_iter()),
        }
    }

    /// Of the objects of a service.
    #[must_use]
    pub fn service(&self, key: &str) -> String {
        name(&self.services, key)
    }

    /// Of the NetworkPolicy of a network, and of its label.
    #[must_use]
    pub fn network(&self, key: &str) -> String {
        name(&self.networks, key)
    }

    /// Of the claim of a volume.
    #[must_use]
    pub fn volume(&self, key: &str) -> String {
        name(&self.volumes, key)
    }

    /// Of the ConfigMap of a config.
    #[must_use]
    pub fn config(&self, key: &str) -> String {
        name(&self.configs, key)
    }

    /// What Swarm calls a config, without the name of the stack.
    #[must_use]
    pub fn config_in_swarm<'k>(&'k self, key: &'k str) -> &'k str {
        self.configs_in_swarm.get(key).map_or(key, String::as_str)
    }

    /// The same of a secret.
    #[must_use]
    pub fn secret_in_swarm<'k>(&'k self, key: &'k str) -> &'k str {
        self.secrets_in_swarm.get(key).map_or(key, String::as_str)
    }

    /// Of the Secret of a secret.
    #[must_use]
    pub fn secret(&self, key: &str) -> String {
        name(&self.secrets, key)
    }
}

/// A name without its placeholders, and without what is between them and the rest: `data` of `data_{{.Task.Slot}}`.
fn without_placeholders(name: &str) -> String {
    let mut rest = name;
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once("{{") {
        plain.push_str(before);
        rest = after.split_once("}}").map_or("", |(_, behind)| behind);
    }
    plain.push_str(rest);
    if plain == name { plain } else { plain.trim_matches(['-', '_', '.']).to_owned() }
}

/// Names of things that may have a name besides their key, which is what Swarm calls them.
fn by_name<'a>(all: impl Iterator<Item = (&'a str, Option<String>)>) -> BTreeMap<String, String> {
    let all: Vec<(&str, String)> = all.map(|(key, name)| (key, name.unwrap_or_else(|| key.to_owned()))).collect();
    let names = distinct(all.iter().map(|(_, name)| name.as_str()), LENGTH_MAX);
    all.into_iter().map(|(key, name)| (key.to_owned(), names[&name].clone())).collect()
}

fn name(names: &BTreeMap<String, String>, key: &str) -> String {
    names.get(key).cloned().unwrap_or_else(|| folded(key, LENGTH_MAX))
}

/// A text as a DNS label: small letters, digits and hyphens, with a letter first.
///
/// * `length_max`: in letters.
#[must_use]
pub fn folded(text: &str, length_max: usize) -> String {
    let fold = |letter: char| match letter.to_ascii_lowercase() {
        letter if letter.is_ascii_lowercase() || letter.is_ascii_digit() => letter,
        _ => '-',
    };
    let all: String = text.chars().map(fold).collect();
    let inner = all.trim_matches('-');
    let name = match inner.starts_with(|first: char| first.is_ascii_lowercase()) {
        true => inner.to_owned(),
        false => format!("x-{inner}"),
    };
    let short: String = name.chars().take(length_max).collect();
    short.trim_end_matches('-').to_owned()
}

/// Folds names, and numbers those that would be the same.
fn distinct<'a>(keys: impl Iterator<Item = &'a str>, length_max: usize) -> BTreeMap<String, String> {
    let keys: BTreeSet<&str> = keys.collect();
    // A name that needs no folding has the first right to itself.
    let (same, other): (Vec<&str>, Vec<&str>) = keys.iter().partition(|key| folded(key, length_max) == **key);
    let mut used: BTreeSet<String> = same.iter().map(|key| (*key).to_owned()).collect();
    let mut names: BTreeMap<String, String> = used.iter().map(|name| (name.clone(), name.clone())).collect();
    for key in other {
        let mut name = folded(key, length_max);
        let mut number = 2;
        while !used.insert(name.clone()) {
            name = format!("{}-{number}", folded(key, length_max - 4));
            number += 1;
        }
        names.insert(key.to_owned(), name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_and_differ() {
        let names = distinct(["a_b", "a-b", "A.b", ".env.x", "7up", "web", "_", "größe"].into_iter(), 63);
        let found: Vec<(&str, &str)> = names.iter().map(|(key, name)| (key.as_str(), name.as_str())).collect();
        assert_eq!(
            found,
            [
                (".env.x", "env-x"),
                ("7up", "x-7up"),
                ("A.b", "a-b-2"),
                ("_", "x"),
                ("a-b", "a-b"),
                ("a_b", "a-b-3"),
                ("größe", "gr--e"),
                ("web", "web"),
            ]
        );
        let long = distinct(["x".repeat(80).as_str(), "x".repeat(81).as_str()].into_iter(), 52);
        assert_eq!(long.values().map(String::len).max(), Some(52));
        assert_eq!(long.values().collect::<BTreeSet<_>>().len(), 2);
    }
}
