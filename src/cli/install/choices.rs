//! What the operator chose: stored in the record of the installation, so that an upgrade without flags repeats it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::arguments::Arguments;
use crate::cli::Failure;
use crate::cli::k3s::node_size;
use crate::deploy::Installation;
use crate::deploy::k3s::{self, Assignment, NodeSize, Options, Variant};

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
    /// Those of a newer release, which stay in the record.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Choices {
    /// Those of what is installed, or was begun; none where nothing is.
    ///
    /// # Errors
    /// When the record has others than were ever written.
    pub(super) fn of(record: Option<&Installation>) -> Result<Self, Failure> {
        let Some(record) = record else { return Ok(Self::default()) };
        serde_json::from_value(Value::Object(record.chosen().clone())).map_err(|_| {
            anyhow!("the choices in installation.json are damaged; uninstall, and install with the flags you want")
                .into()
        })
    }

    /// With those of a pod that the command line has: what it does not name stays.
    pub(super) fn for_pod(mut self, arguments: &Arguments) -> Self {
        self.node_size = arguments.node_size.or(self.node_size).or_else(|| Some(node_size("auto").unwrap_or_default()));
        let with: Vec<Variant> = arguments.with.iter().copied().chain(arguments.gpu.then_some(Variant::Gpu)).collect();
        if !with.is_empty() {
            self.with = with;
        }
        self.set.extend(arguments.set.iter().map(|one| (one.key.clone(), one.value.clone())));
        self
    }

    /// What the manifests are rendered from.
    pub(super) fn options(&self) -> Options {
        let assignment = |(key, value): (&String, &String)| Assignment { key: key.clone(), value: value.clone() };
        Options {
            size: self.node_size,
            with: self.with.iter().copied().collect(),
            set: self.set.iter().map(assignment).collect(),
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
        self.set.get(key).filter(|name| !name.is_empty()).map_or(k3s::PROGRAM, String::as_str)
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
            "set": {"namespace": "site", "storage.class": ""}, "of_a_newer_release": {"a": 1},
        });
        let choices: Choices = serde_json::from_value(written.clone()).expect("choices");
        assert_eq!(Value::Object(choices.to_record()), written);
        assert_eq!(choices.namespace(), "site");
        assert_eq!(Choices::default().to_record(), Map::new());
        assert_eq!((Choices::default().namespace(), Choices::default().name()), ("cairn", "cairn"));
    }
}
