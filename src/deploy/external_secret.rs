//! The External Secrets Operator's ExternalSecret, which makes a Secret of what a store outside of the cluster has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

/// Group and version.
const VERSION: &str = "external-secrets.io/v1";

/// An ExternalSecret.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSecret {
    api_version: &'static str,
    kind: &'static str,
    /// Its name and labels.
    pub metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    refresh_interval: &'static str,
    secret_store_ref: Store,
    target: Target,
    data: Vec<Data>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Store {
    name: String,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    name: String,
    creation_policy: &'static str,
    deletion_policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    secret_key: String,
    remote_ref: Remote,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Remote {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    property: Option<String>,
}

/// An entry of a store, and what it is called in the Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// In the Secret.
    pub secret_key: String,
    /// In the store.
    pub key: String,
    /// The field of the entry, where it has several.
    pub property: Option<String>,
}

impl ExternalSecret {
    /// * `metadata`: the Secret gets the same name.
    /// * `store`: the name and the kind of the store.
    #[must_use]
    pub fn new(metadata: ObjectMeta, store: (&str, &str), entries: Vec<StoreEntry>) -> Self {
        // A store that is out of reach, or lost the entry, locks nobody out.
        let target = Target {
            name: metadata.name.clone().unwrap_or_default(),
            creation_policy: "Owner",
            deletion_policy: "Retain",
        };
        let data = |entry: StoreEntry| Data {
            secret_key: entry.secret_key,
            remote_ref: Remote { key: entry.key, property: entry.property },
        };
        Self {
            api_version: VERSION,
            kind: "ExternalSecret",
            metadata,
            spec: Spec {
                refresh_interval: "1h",
                secret_store_ref: Store { name: store.0.to_owned(), kind: store.1.to_owned() },
                target,
                data: entries.into_iter().map(data).collect(),
            },
        }
    }

    /// Its group and version.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.api_version
    }
}
