//! The claim to the data: whether it fits what is asked for, growing it, and taking it out again where it was made in vain.
//!
//! A set's claim template cannot be changed. Where another one is asked for, the set is removed without its pod and its claim, and made
//! again around them.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::objects::{entries, includes};
use super::watch::{Deadline, containers};
use super::{Cause, Cluster, ClusterError, Pods};
use crate::base::ByteSize;
use crate::deploy::release::Release;

/// What of a set cannot be changed once it is there.
const FIXED: [&str; 4] =
    ["/spec/volumeClaimTemplates", "/spec/serviceName", "/spec/podManagementPolicy", "/spec/selector"];
/// Classes whose volumes are folders: they take what the disk has, whatever the claim includes.
const FOLDERS: &str = "rancher.io/local-path";
/// The mark of the class that claims get which name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// How the claim that is there, or a class for one that is not, goes with what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Fits,
    /// It is larger than asked for, and stays so.
    Larger(ByteSize),
    /// It is smaller, and its class lets it grow.
    Grows(ByteSize),
    /// It is smaller and stays so.
    TooSmall {
        /// What it has.
        found: ByteSize,
        /// Its class.
        class: String,
        /// Whether its size means nothing: the volume is a folder.
        is_folder: bool,
    },
    /// It is of another class.
    OtherClass(String),
    /// There is no claim yet, and no such class.
    NoClass,
    /// There is no claim yet, none was named, and the cluster has no default.
    NoDefault,
}

impl Cluster {
    /// Whether the volume that is there, or one that is made now, can be what is asked for.
    ///
    /// * `class`: of storage; `None` for the cluster's default.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn fit(&self, storage: ByteSize, class: Option<&str>) -> Result<Fit, ClusterError> {
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let claim = self.ask("show the claim", self.api::<PersistentVolumeClaim>().get_opt(&self.names.claim()))?;
        let Some(spec) = claim.and_then(|claim| claim.spec) else {
            let known = self.ask("show the storage classes", classes.list(&ListParams::default()))?.items;
            let is_default = |class: &StorageClass| {
                let marks = class.metadata.annotations.as_ref();
                marks.is_some_and(|marks| marks.get(DEFAULT_CLASS).is_some_and(|mark| mark == "true"))
            };
            return Ok(match class {
                Some(name) if known.iter().all(|class| class.metadata.name.as_deref() != Some(name)) => Fit::NoClass,
                None if !known.iter().any(is_default) => Fit::NoDefault,
                _ => Fit::Fits,
            });
        };
        let found_class = spec.storage_class_name.unwrap_or_default();
        if class.is_some_and(|class| class != found_class) {
            return Ok(Fit::OtherClass(found_class));
        }
        let requests = spec.resources.and_then(|resources| resources.requests);
        let Some(found) = requests.and_then(|requests| bytes(&requests.get("storage")?.0)) else {
            return Ok(Fit::Fits);
        };
        if found >= storage {
            return Ok(if found == storage { Fit::Fits } else { Fit::Larger(found) });
        }
        let known = self.ask("show the storage class", classes.get_opt(&found_class))?;
        let can_grow = known.as_ref().is_some_and(|class| class.allow_volume_expansion == Some(true));
        let is_folder = known.is_some_and(|class| class.provisioner == FOLDERS);
        Ok(if can_grow { Fit::Grows(found) } else { Fit::TooSmall { found, class: found_class, is_folder } })
    }

    /// Whether the claim was made by the set that is there, and nothing was ever written to its volume.
    pub(super) fn was_claimed_in_vain(&self) -> Result<bool, ClusterError> {
        let set = self.ask("show the StatefulSet", self.api::<StatefulSet>().get_opt(self.names.node()))?;
        let claim = self.ask("show the claim", self.api::<PersistentVolumeClaim>().get_opt(&self.names.claim()))?;
        let (Some(set), Some(claim)) = (set, claim) else { return Ok(false) };
        // A claim from before holds what an earlier installation wrote.
        let made = |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.map(|time| time.0);
        if made(claim.metadata.creation_timestamp) < made(set.metadata.creation_timestamp) {
            return Ok(false);
        }
        let pod = self.ask("show the pod", self.api::<Pod>().get_opt(&self.names.pod()))?;
        let has_run = pod.as_ref().is_some_and(|pod| {
            containers(pod).any(|container| {
                let is_named = container.container_id.as_ref().is_some_and(|id| !id.is_empty());
                is_named || container.restart_count > 0
            })
        });
        if !has_run {
            return Ok(true);
        }
        let folder = self.data_folder()?;
        Ok(folder.is_some_and(|folder| !folder.join("log").exists() && !folder.join("swap.json").exists()))
    }
}

impl Pods<'_> {
    /// Lets the set of a release come in the place of one that differs in what cannot be changed, and the claim grow.
    pub(super) fn make_room(&self, release: &Release, deadline: &Deadline) -> Result<(), Cause> {
        let (sets, name) = (self.cluster.api::<StatefulSet>(), self.cluster.names.node());
        let Some(live) = self.cluster.ask("show the StatefulSet", sets.get_opt(name))? else { return Ok(()) };
        let live = serde_json::to_value(&live).expect("it came as JSON");
        let wanted = entries(self.manifests(release)).into_iter().find(|entry| entry.kind == "StatefulSet");
        let Some(wanted) = wanted.map(|entry| entry.object) else { return Ok(()) };
        let differs = |pointer: &str| match (live.pointer(pointer), wanted.pointer(pointer)) {
            (Some(live), Some(wanted)) => !includes(live, wanted),
            (live, wanted) => live != wanted,
        };
        let class = |set: &Value| set.pointer("/spec/volumeClaimTemplates/0/spec/storageClassName").cloned();
        if !FIXED.into_iter().any(differs) && class(&live) == class(&wanted) {
            return Ok(());
        }
        self.grow(&wanted)?;
        match self.cluster.runtime.block_on(sets.delete(name, &DeleteParams::orphan())) {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            response => response
                .map(drop)
                .map_err(|error| self.cluster.refused("remove the StatefulSet without its pod", error))?,
        }
        let uid = live.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        deadline.wait(
            || {
                let found = self.cluster.ask("show the StatefulSet", sets.get_opt(name))?;
                // The server may have made the new one already.
                Ok(found.is_none_or(|found| found.metadata.uid != uid).then_some(()))
            },
            || "the StatefulSet was not deleted".to_owned(),
        )
    }

    /// Asks for as much as a set's template does, where the claim has less.
    fn grow(&self, set: &Value) -> Result<(), Cause> {
        let storage =
            set.pointer("/spec/volumeClaimTemplates/0/spec/resources/requests/storage").and_then(Value::as_str);
        let Some((text, storage)) = storage.and_then(|text| Some((text, bytes(text)?))) else { return Ok(()) };
        if !matches!(self.cluster.fit(storage, None)?, Fit::Grows(_)) {
            return Ok(());
        }
        let wanted = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": text}}}}));
        let (claims, name) = (self.cluster.api::<PersistentVolumeClaim>(), self.cluster.names.claim());
        let grown = self.cluster.runtime.block_on(claims.patch(&name, &PatchParams::default(), &wanted));
        grown.map(drop).map_err(|error| self.cluster.refused("enlarge the claim", error).into())
    }

    /// Removes the claim, and with it a volume that nothing was written to.
    pub(super) fn remove_claim(&self, deadline: &Deadline) -> Result<(), Cause> {
        let (claims, name) = (self.cluster.api::<PersistentVolumeClaim>(), self.cluster.names.claim());
        match self.cluster.runtime.block_on(claims.delete(&name, &DeleteParams::default())) {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            response => response.map(drop).map_err(|error| self.cluster.refused("remove the claim", error))?,
        }
        deadline.wait(
            || Ok(self.cluster.ask("show the claim", claims.get_opt(&name))?.is_none().then_some(())),
            || "the claim was not deleted".to_owned(),
        )
    }
}

/// What a quantity of Kubernetes is in bytes: a number with `Ki`, `Mi`, … or `k`, `M`, …, or without anything. `None` for others.
fn bytes(quantity: &str) -> Option<ByteSize> {
    const UNITS: [(&str, u64); 10] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(name, bytes)| Some((quantity.strip_suffix(name)?, *bytes)));
    let (number, unit) = unit.unwrap_or((quantity, 1));
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(unit).map(ByteSize);
    }
    let number: f64 = number.parse().ok()?;
    let bytes = number * unit as f64;
    (bytes.is_finite() && bytes >= 0.0).then_some(ByteSize(bytes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in
            [("8Gi", 8 << 30), ("1536Mi", 1536 << 20), ("10G", 10_000_000_000), ("4096", 4096), ("1.5Gi", 3 << 29)]
        {
            assert_eq!(bytes(text), Some(ByteSize(expected)), "{text}");
        }
        for text in ["", "Gi", "many", "-1Gi", "99999999999Pi"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
