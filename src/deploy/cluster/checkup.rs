//! What the API knows to be wrong with the node of this machine's server, for `cairn doctor`.
//!
//! Invariants: nothing is changed. A question that is refused is not a finding: not every account may ask everything.

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ListParams;

use super::objects::entries;
use super::watch::state;
use super::{ADDONS, Cluster, addon_name};
use crate::deploy::oci::REPOSITORY;
use crate::deploy::plan::Finding;
use crate::deploy::release::Release;
use crate::deploy::sha256::Sha256;
use crate::deploy::tree::Tree;

/// Everything that the API reports.
///
/// * `release`: the one that is to run, where it is known.
#[must_use]
pub fn examine(cluster: &Cluster, tree: &Tree, release: Option<&Release>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = release.map(|release| manifests(cluster, tree, release)).unwrap_or_default();
    findings.extend(pod(cluster));
    let image = release.and_then(|release| release.image.as_ref());
    findings.extend(image.and_then(|image| imported(cluster, &image.digest)));
    findings.extend(reclaimed(cluster));
    findings
}

/// Manifests that the server did not apply as they lie there, and objects that are not as they say. Events alone say little: a file
/// that is put back after one that failed may be applied without another one.
fn manifests(cluster: &Cluster, tree: &Tree, release: &Release) -> Vec<Finding> {
    let folder = cluster.node.manifests();
    let mut findings = Vec::new();
    for file in release.files.iter().filter(|file| file.path.parent() == Some(&folder)) {
        let (name, addon) = (file.path.file_name().unwrap_or_default().to_string_lossy(), addon_name(&file.path));
        let Ok(Some(bytes)) = tree.read(&file.path) else { continue };
        let Ok(checksum) = cluster.applied_checksum(&addon) else { continue };
        if checksum != Some(Sha256::of(&bytes).to_string()) {
            let words = last_failure(cluster, &addon).map_or_else(String::new, |words| format!(": {words}"));
            let message = format!("{name} is not applied{words}; `cairn install` writes it again");
            findings.push(Finding::obstacle("manifest", message));
        } else if let Ok(Some(astray)) = cluster.first_astray(&entries([file].into_iter())) {
            let message =
                format!("the cluster does not match {name}: {astray}; `cairn install` has the file applied again");
            findings.push(Finding::obstacle("manifest", message));
        }
    }
    findings
}

/// What the server said last, where that is a failure.
fn last_failure(cluster: &Cluster, addon: &str) -> Option<String> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), ADDONS);
    let about = ListParams::default().fields(&format!("involvedObject.name={addon},involvedObject.kind=Addon"));
    let list = cluster.ask("show events", events.list(&about)).ok()?;
    let newest = list.items.into_iter().max_by_key(|event| {
        let is_failure = event.reason.as_deref().unwrap_or_default().ends_with("Failed");
        // Times are whole seconds: of two in one, the failure came after the attempt.
        (event.last_timestamp.as_ref().map(|time| time.0), is_failure)
    });
    newest.filter(|event| event.reason.as_deref().unwrap_or_default().ends_with("Failed"))?.message
}

fn pod(cluster: &Cluster) -> Option<Finding> {
    let name = cluster.names.pod();
    let pod = cluster.ask("show the pod", cluster.api::<Pod>().get_opt(&name)).ok()?;
    let namespace = &cluster.namespace;
    let Some(pod) = pod else {
        let set = cluster.names.node();
        let message = format!("there is no pod {name}; `kubectl -n {namespace} describe statefulset {set}` says why");
        return Some(Finding::obstacle("pod", message));
    };
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    (!is_ready).then(|| {
        let words = state(&pod);
        let message = format!("the pod is not ready: {words}; `kubectl -n {namespace} logs {name}` shows its log");
        Finding::obstacle("pod", message)
    })
}

/// Whether a node's list of images has the one that is to run. A kubelet lists its largest 50, so that one that lacks it says nothing
/// when the list is full.
fn imported(cluster: &Cluster, digest: &str) -> Option<Finding> {
    const LISTED: usize = 50;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let nodes = cluster.ask("show the nodes", nodes.list(&ListParams::default())).ok()?;
    let lists: Vec<_> = nodes.items.into_iter().filter_map(|node| node.status?.images).collect();
    let name = format!("{REPOSITORY}@{digest}");
    let has =
        |image: &k8s_openapi::api::core::v1::ContainerImage| image.names.iter().flatten().any(|known| *known == name);
    let is_known = lists.iter().flatten().any(has) || lists.iter().any(|list| list.len() >= LISTED) || lists.is_empty();
    (!is_known).then(|| {
        let message = format!(
            "no node has the image {name}, so the pod cannot start again; `cairn install` puts its archive where {} imports it",
            cluster.node.distribution
        );
        Finding::obstacle("image", message)
    })
}

fn reclaimed(cluster: &Cluster) -> Option<Finding> {
    let claim_name = cluster.names.claim();
    let claim = cluster.ask("show the claim", cluster.api::<PersistentVolumeClaim>().get_opt(&claim_name)).ok()??;
    let name = claim.spec?.storage_class_name?;
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let class = cluster.ask("show the storage class", classes.get_opt(&name)).ok()??;
    (class.reclaim_policy.as_deref().unwrap_or("Delete") == "Delete").then(|| {
        let message = format!(
            "the storage class {name} deletes the data with the claim: deleting the claim {claim_name} or the namespace {} deletes \
             the data; keep snapshots elsewhere (--set backup.claim=… or config.snapshot.target), or patch the volume's \
             persistentVolumeReclaimPolicy to Retain",
            cluster.namespace
        );
        Finding::warning("storage", message)
    })
}
