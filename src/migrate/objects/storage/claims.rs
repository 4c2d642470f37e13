//! The claims of volumes, and the PersistentVolumes of those that Cairn knows a server of.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NFSVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::driver_options::NfsExport;

/// What a claim asks for where nothing is known: Kubernetes takes no claim without a size, and a volume of Docker's has none.
const SIZE: u64 = 1 << 30;
/// Why.
pub const SIZE_REASON: &str = "a volume of Docker's has no size, and a claim needs one: measure the volume (`cairn migrate data plan`), \
                               and write more than it has; local-path of K3s does not enforce it";

/// An amount of bytes as people read it.
#[must_use]
pub fn quantity(bytes: u64) -> Quantity {
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units.into_iter().find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size));
    Quantity(unit.map_or_else(|| bytes.to_string(), |(size, name)| format!("{}{name}", bytes / size)))
}

/// A claim for one node at a time, of the cluster's storage class.
///
/// * `namespace`: none for the template of a StatefulSet.
/// * `size`: in bytes.
#[must_use]
pub fn claim(
    name: &str,
    namespace: Option<&str>,
    size: Option<u64>,
    annotations: BTreeMap<String, String>,
) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: namespace.map(str::to_owned),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(requests(size)),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn requests(size: Option<u64>) -> VolumeResourceRequirements {
    let storage = BTreeMap::from([("storage".to_owned(), quantity(size.unwrap_or(SIZE)))]);
    VolumeResourceRequirements { requests: Some(storage), limits: None }
}

/// A folder of an NFS server, for all nodes at a time: a PersistentVolume and the claim that alone gets it.
///
/// * `volume`: the name of the PersistentVolume, which is the cluster's and not the namespace's.
#[must_use]
pub fn export(
    name: &str,
    namespace: &str,
    volume: &str,
    export: &NfsExport,
    annotations: BTreeMap<String, String>,
) -> (PersistentVolume, PersistentVolumeClaim) {
    let modes = Some(vec![if export.is_read_only { "ReadOnlyMany" } else { "ReadWriteMany" }.to_owned()]);
    let spec = PersistentVolumeSpec {
        access_modes: modes.clone(),
        capacity: Some(BTreeMap::from([("storage".to_owned(), quantity(SIZE))])),
        claim_ref: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        }),
        mount_options: Some(export.options.clone()).filter(|options| !options.is_empty()),
        nfs: Some(NFSVolumeSource {
            server: export.server.clone(),
            path: export.path.clone(),
            read_only: export.is_read_only.then_some(true),
        }),
        persistent_volume_reclaim_policy: Some("Retain".to_owned()),
        storage_class_name: Some(String::new()),
        ..PersistentVolumeSpec::default()
    };
    let metadata = ObjectMeta { name: Some(volume.to_owned()), ..ObjectMeta::default() };
    let persistent = PersistentVolume { metadata, spec: Some(spec), ..PersistentVolume::default() };
    let mut claim = claim(name, Some(namespace), None, annotations);
    if let Some(spec) = &mut claim.spec {
        spec.access_modes = modes;
        spec.storage_class_name = Some(String::new());
        spec.volume_name = Some(volume.to_owned());
    }
    (persistent, claim)
}
