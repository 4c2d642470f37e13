//! What the operator chose: stored in the record of the installation, so that an upgrade without flags repeats it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::arguments::Arguments;
use crate::cli::Failure;
use crate::cli::k3s::node_size;
use crate::deploy::Installation;
use crate::deploy::k3s::{self, Assignment, NodeSize, Options, ValuesFile, Variant};

/// The choices of an installation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Choices {
    /// systemd: where the node listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) listen: Option<SocketAddr>,
    /// K3s: how big the node is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_size: Option<NodeSize>,
    /// K3s: what is added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    with: Vec<Variant>,
    /// K3s: keys and their values; an empty value is the default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<String, String>,
    /// K3s: a file of settings, below the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<StoredValues>,
    /// The file where this call read it: it knows its lines.
    #[serde(skip)]
    file: Option<ValuesFile>,
    /// Those of a newer release, which stay in the record.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A file of settings, in the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredValues {
    /// Its name, without its folder.
    file: String,
    /// What was in it.
    settings: Map<String, Value>,
}

impl Choices {
    /// Those of what is installed, or of an unfinished installation; none where nothing is.
    ///
    /// # Errors
    /// When the record has others than were ever written.
    pub(super) fn of(record: Option<&Installation>) -> Result<Self, Failure> {
        let Some(record) = record else { return Ok(Self::default()) };
        serde_json::from_value(Value::Object(record.chosen().clone())).map_err(|_| {
            anyhow!("the choices in installation.json are damaged; run `cairn uninstall`, then install with the options that you want")
                .into()
        })
    }

    /// With those of a pod that the command line has: what it does not name stays, and what is newer wins. So a key of a file that is new
    /// replaces what an earlier call set.
    ///
    /// * `values`: the file of `--values`; it takes the place of the one before.
    pub(super) fn for_pod(mut self, arguments: &Arguments, values: Option<ValuesFile>) -> Self {
        if let Some(values) = values {
            self.set.retain(|key, _| !values.sets(key));
            if values.sets("node.size") || values.sets("node.memory") {
                self.node_size = None;
            }
            let name = arguments.values.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            // The same file renders the same, wherever it is.
            let values = values.with_argument(&name);
            self.values = Some(StoredValues { file: name.into_owned(), settings: values.settings() });
            self.file = Some(values);
        }
        let values = self.values();
        let has_size = values.as_ref().is_some_and(|file| file.sets("node.size") || file.sets("node.memory"));
        let of_machine = || (!has_size).then(|| node_size("auto").unwrap_or_default());
        self.node_size = arguments.node_size.or(self.node_size).or_else(of_machine);
        let with: Vec<Variant> = arguments.with.iter().copied().chain(arguments.gpu.then_some(Variant::Gpu)).collect();
        if !with.is_empty() {
            self.with = with;
        }
        // What was set for a variant that is not added any more means nothing.
        let is_added = |variant: Variant| {
            self.with.contains(&variant) || values.as_ref().is_some_and(|file| file.sets(variant.name()))
        };
        let groups: BTreeMap<String, Variant> =
            k3s::keys().into_iter().filter_map(|key| Some((key.name, key.variant?))).collect();
        self.set.retain(|key, _| groups.get(key).is_none_or(|variant| is_added(*variant)));
        self.set.extend(arguments.set.iter().map(|one| (one.key.clone(), one.value.clone())));
        self
    }

    /// The file of settings.
    fn values(&self) -> Option<ValuesFile> {
        let stored = || self.values.as_ref().map(|values| ValuesFile::stored(&values.file, &values.settings));
        self.file.clone().or_else(stored)
    }

    /// What the manifests are rendered from.
    pub(super) fn options(&self) -> Options {
        let assignment = |(key, value): (&String, &String)| Assignment { key: key.clone(), value: value.clone() };
        Options {
            values: self.values(),
            size: self.node_size,
            with: self.with.iter().copied().collect(),
            set: self.set.iter().map(assignment).collect(),
            brings_image: true,
            ..Options::default()
        }
    }

    /// The namespace of the pod.
    pub(super) fn namespace(&self) -> &str {
        self.name_at("namespace")
    }

    /// The name of the node in the cluster.
    pub(super) fn name(&self) -> &str {
        self.name_at("name")
    }

    /// What a key is set to whose default is the name of the program.
    fn name_at(&self, key: &str) -> &str {
        let of_file = || self.values.as_ref().and_then(|values| values.settings.get(key)?.as_str());
        // A key that was reset has its default, whatever the file says.
        let name = self.set.get(key).map(String::as_str).or_else(of_file).unwrap_or_default();
        if name.is_empty() { k3s::PROGRAM } else { name }
    }

    /// As the record has them.
    pub(super) fn to_record(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            // A struct with text keys is an object.
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_release_wrote_is_read_and_written_as_it_was() {
        let written = serde_json::json!({
            "listen": "0.0.0.0:7171", "node_size": "small", "with": ["loadbalancer", "gpu"],
            "set": {"namespace": "site", "storage.class": ""},
            "values": {"file": "site.yaml", "settings": {"name": "second", "hosts": ["a.example"], "config": {"search": {"limit": 3}}}},
            "of_a_newer_release": {"a": 1},
        });
        let choices: Choices = serde_json::from_value(written.clone()).expect("choices");
        assert_eq!(Value::Object(choices.to_record()), written);
        assert_eq!((choices.namespace(), choices.name()), ("site", "second"));
        assert_eq!(Choices::default().to_record(), Map::new());
        assert_eq!((Choices::default().namespace(), Choices::default().name()), ("cairn", "cairn"));
    }
}
