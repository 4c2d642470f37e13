//! What the cluster has for a claim: a volume that is reserved for it, and the folder that K3s' provisioner makes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolume,
    PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::{GIB, PlanRequest, PlannedVolume};
use super::{DataError, bytes_of, name_of};

/// Class of claims that name none: that of K3s' own provisioner.
const STORAGE_CLASS: &str = "local-path";

/// The folder of a claim: K3s' provisioner names it `pvc-UID_NAMESPACE_CLAIM`.
pub(super) fn claim_folder(storage: &Path, namespace: &str, claim: &str) -> Result<Option<String>, DataError> {
    let failure = |error| DataError::read(bytes_of(storage), error);
    let entries = match fs::read_dir(storage) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(failure)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failure)?;
        let path = entry.path();
        let is_of_claim = entry.file_name().to_str().is_some_and(|name| {
            let rest = name.strip_prefix("pvc-").and_then(|rest| rest.strip_suffix(claim)?.strip_suffix('_'));
            rest.and_then(|rest| rest.strip_suffix(namespace))
                .and_then(|rest| rest.strip_suffix('_'))
                .is_some_and(|uid| !uid.contains('_'))
        });
        if is_of_claim && path.is_dir() {
            found.extend(path.to_str().map(str::to_owned));
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => Err(DataError::Plan(format!(
            "{} has several folders of claim {claim} ({}); remove those of claims that are gone",
            name_of(storage),
            several.join(", ")
        ))),
    }
}

/// A volume at the folder of a machine, reserved for a claim.
pub(super) fn persistent_volume(
    request: &PlanRequest,
    volume: &PlannedVolume,
    claim: &str,
    source: &str,
) -> PersistentVolume {
    let need = &volume.need;
    // A claim is bound to no volume that is smaller than what it asks for.
    let requested = need.request.map_or(0, |bytes| bytes.div_ceil(GIB));
    let size = Quantity(format!("{}Gi", volume.size_gib.max(requested)));
    let modes = if need.access_modes.is_empty() { vec!["ReadWriteOnce".to_owned()] } else { need.access_modes.clone() };
    let this_node = NodeSelectorRequirement {
        key: "kubernetes.io/hostname".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![request.node.clone()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![this_node]), match_fields: None };
    let labels = BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "cairn".to_owned())]);
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(format!("{}-{claim}", need.namespace)),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(modes),
            capacity: Some(BTreeMap::from([("storage".to_owned(), size)])),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                name: Some(claim.to_owned()),
                namespace: Some(need.namespace.clone()),
                ..ObjectReference::default()
            }),
            local: Some(LocalVolumeSource { path: source.to_owned(), fs_type: None }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            // The data is the only copy.
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            storage_class_name: Some(need.storage_class.clone().unwrap_or_else(|| STORAGE_CLASS.to_owned())),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}
