//! The objects of a manifest, as the API holds them: whether it knows their kinds, whether they are there as the file says, and removing
//! those that a manifest left behind.
//!
//! K3s applies every object of a file, also when one of them fails, and writes the file's checksum down after a success only. So a
//! checksum says which file went well last, and nothing of what was applied in part since.

use std::collections::BTreeSet;

use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use serde::Deserialize as _;
use serde_json::Value;

use super::{Cluster, ClusterError, PROGRAM};
use crate::deploy::release::ManagedFile;

/// The label that every object of Cairn's has.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// An object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// All of it.
    pub(super) object: Value,
}

impl Entry {
    /// Whether both are about the same object of the cluster.
    fn is_same(&self, other: &Self) -> bool {
        (&self.kind, &self.namespace, &self.name) == (&other.kind, &other.namespace, &other.name)
    }

    /// For people.
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    fn group_version_kind(&self) -> GroupVersionKind {
        let (group, version) = self.version.split_once('/').unwrap_or(("", &self.version));
        GroupVersionKind::gvk(group, version, &self.kind)
    }
}

/// The documents of a YAML file.
pub(crate) fn documents(bytes: &[u8]) -> impl Iterator<Item = Result<Value, serde_yaml::Error>> {
    serde_yaml::Deserializer::from_slice(bytes).map(Value::deserialize)
}

/// The objects of manifests. What cannot be read was not rendered by Cairn, and is passed over.
pub(super) fn entries<'f>(files: impl Iterator<Item = &'f ManagedFile>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for file in files {
        for object in documents(&file.bytes).filter_map(Result::ok) {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
            if !kind.is_empty() && !name.is_empty() {
                let namespace = text("/metadata/namespace");
                entries.push(Entry { version, kind, namespace, name, object });
            }
        }
    }
    entries
}

/// Whether `live` has everything that `wanted` has. The API adds defaults, and nothing else is in a list.
pub(super) fn includes(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|live| includes(live, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| includes(live, wanted))
        }
        _ => live == wanted,
    }
}

impl Cluster {
    /// Whether the API knows a kind.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn knows(&self, version: &str, kind: &str) -> Result<bool, ClusterError> {
        let response = self.runtime.block_on(async {
            match version.split_once('/') {
                Some(_) => self.client.list_api_group_resources(version).await,
                None => self.client.list_core_api_resources(version).await,
            }
        });
        match response {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == kind)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(self.refused("show the kinds that it knows", error)),
        }
    }

    /// The way to objects of a kind; `None` where the API does not know it.
    fn dynamic(&self, entry: &Entry) -> Result<Option<Api<DynamicObject>>, ClusterError> {
        let kind = entry.group_version_kind();
        let found: (ApiResource, _) = match self.runtime.block_on(pinned_kind(&self.client, &kind)) {
            Ok(found) => found,
            Err(kube::Error::Discovery(_)) => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(self.refused("show the kinds that it knows", error)),
        };
        let (resource, capabilities) = found;
        Ok(Some(match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), &entry.namespace, &resource),
        }))
    }

    /// An object as the API holds it; `None` where there is none.
    fn live(&self, entry: &Entry) -> Result<Option<Value>, ClusterError> {
        let Some(api) = self.dynamic(entry)? else { return Ok(None) };
        let found = self.ask("show an object", api.get_opt(&entry.name))?;
        Ok(found.map(|object| serde_json::to_value(&object).expect("it came as JSON")))
    }

    /// The first object of manifests that the API does not hold as they say; `None` when it holds all.
    pub(super) fn first_unlike(&self, entries: &[Entry]) -> Result<Option<String>, ClusterError> {
        for entry in entries {
            match self.live(entry)? {
                Some(live) if includes(&live, &entry.object) => {}
                Some(_) => return Ok(Some(format!("{} differs", entry.label()))),
                None => return Ok(Some(format!("{} is missing", entry.label()))),
            }
        }
        Ok(None)
    }

    /// The first object of manifests that is missing, or, of the set, runs something else; `None` when there is none. Other
    /// differences are those of programs that change objects on their way in.
    pub(super) fn first_astray(&self, entries: &[Entry]) -> Result<Option<String>, ClusterError> {
        const CONTAINER: &str = "/spec/template/spec/containers/0";
        for entry in entries {
            let Some(live) = self.live(entry)? else { return Ok(Some(format!("{} is missing", entry.label()))) };
            let image = format!("{CONTAINER}/image");
            let devices = format!("{CONTAINER}/resources/limits");
            let settings = "/spec/template/metadata/annotations";
            let is_astray = |pointer: &str| match (entry.object.pointer(pointer), live.pointer(pointer)) {
                (Some(wanted), Some(live)) => {
                    !includes(live, wanted) || (pointer == devices && !includes(wanted, live))
                }
                (Some(_), None) => true,
                (None, _) => false,
            };
            if entry.kind == "StatefulSet" && [image.as_str(), &devices, settings].into_iter().any(is_astray) {
                return Ok(Some(format!("{} has another image, other devices or other settings", entry.label())));
            }
        }
        Ok(None)
    }

    /// Removes the objects of a manifest that are not among those of another one, as far as they are Cairn's.
    ///
    /// The namespace stays: the data is in it.
    pub(super) fn remove_all(&self, entries: &[Entry], but: &[Entry]) -> Result<(), ClusterError> {
        let mut unknown = BTreeSet::new();
        for entry in entries.iter().filter(|entry| entry.kind != "Namespace") {
            if but.iter().any(|other| other.is_same(entry)) || unknown.contains(&entry.kind) {
                continue;
            }
            let Some(api) = self.dynamic(entry)? else {
                unknown.insert(entry.kind.clone());
                continue;
            };
            let found = self.ask("show an object", api.get_opt(&entry.name))?;
            let is_ours = |object: &DynamicObject| {
                object
                    .metadata
                    .labels
                    .as_ref()
                    .is_some_and(|labels| labels.get(MANAGED_BY).is_some_and(|by| by == PROGRAM))
            };
            if !found.as_ref().is_some_and(is_ours) {
                continue;
            }
            match self.runtime.block_on(api.delete(&entry.name, &DeleteParams::default())) {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                response => response.map(drop).map_err(|error| self.refused("remove a leftover object", error))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_adds_is_no_difference() {
        let wanted = json!({"spec": {"ports": [{"port": 7171}], "type": "ClusterIP"}});
        let live = json!({"spec": {"ports": [{"port": 7171, "protocol": "TCP"}], "type": "ClusterIP", "clusterIP": "10.43.0.7"}});
        assert!(includes(&live, &wanted));
        assert!(!includes(&wanted, &live));
        assert!(!includes(&json!({"spec": {"ports": [{"port": 7171}, {"port": 1}], "type": "ClusterIP"}}), &wanted));
    }

    #[test]
    fn a_manifest_is_read_object_by_object() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: cairn\n  namespace: site\n---\napiVersion: apps/v1\n\
                    kind: StatefulSet\nmetadata:\n  name: cairn\n";
        let file = ManagedFile { path: "/m/cairn.yaml".into(), mode: 0o600, bytes: text.into() };
        let found: Vec<String> = entries([&file].into_iter()).iter().map(Entry::label).collect();
        assert_eq!(found, ["Service cairn", "StatefulSet cairn"]);
    }
}
