//! What the API knows to be wrong with the node of this machine's server, for `cairn doctor`.
//!
//! Invariants: nothing is changed. A question that is refused is no finding: not every account may ask everything.

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ListParams;

use super::watch::state;
use super::{ADDONS, CLAIM, Cluster, NAME, POD};
use crate::deploy::k3s::{MAIN_FILE, NAMESPACE_FILE};
use crate::deploy::oci::REPOSITORY;
use crate::deploy::plan::Finding;

/// Everything that the API tells.
///
/// * `image`: digest of the image that is to run, where it is known.
#[must_use]
pub fn examine(cluster: &Cluster, image: Option<&str>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = manifests(cluster);
    findings.extend(pod(cluster));
    findings.extend(image.and_then(|digest| imported(cluster, digest)));
    findings.extend(reclaimed(cluster));
    findings
}

/// A manifest whose last event is a failure is not applied.
fn manifests(cluster: &Cluster) -> Vec<Finding> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), ADDONS);
    let mut findings = Vec::new();
    for file in [NAMESPACE_FILE, MAIN_FILE] {
        let addon = file.split('.').next().unwrap_or(file);
        let about = ListParams::default().fields(&format!("involvedObject.name={addon},involvedObject.kind=Addon"));
        let Ok(told) = cluster.ask("show events", events.list(&about)) else { continue };
        let newest = told.items.into_iter().max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        let failed = newest.filter(|event| event.reason.as_deref().unwrap_or_default().ends_with("Failed"));
        if let Some(event) = failed {
            let words = event.message.unwrap_or_default();
            let message = format!("{file} is not applied: {words}; `cairn install` writes it again");
            findings.push(Finding::obstacle("manifest", message));
        }
    }
    findings
}

fn pod(cluster: &Cluster) -> Option<Finding> {
    let pod = cluster.ask("show the pod", cluster.api::<Pod>().get_opt(POD)).ok()?;
    let namespace = &cluster.namespace;
    let Some(pod) = pod else {
        let message = format!("there is no pod {POD}; `kubectl -n {namespace} describe statefulset {NAME}` says why");
        return Some(Finding::obstacle("pod", message));
    };
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    (!is_ready).then(|| {
        let words = state(&pod);
        let message = format!("the pod is not ready: {words}; `kubectl -n {namespace} logs {POD}` shows its log");
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
            "no node has the image {name}, so that the pod cannot start again; `cairn install` puts its archive where {} imports it",
            cluster.node.distribution
        );
        Finding::obstacle("image", message)
    })
}

fn reclaimed(cluster: &Cluster) -> Option<Finding> {
    let claim = cluster.ask("show the claim", cluster.api::<PersistentVolumeClaim>().get_opt(CLAIM)).ok()??;
    let name = claim.spec?.storage_class_name?;
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let class = cluster.ask("show the storage class", classes.get_opt(&name)).ok()??;
    (class.reclaim_policy.as_deref().unwrap_or("Delete") == "Delete").then(|| {
        let message = format!(
            "the storage class {name} deletes the data with the claim: whoever deletes the claim {CLAIM} or the namespace {} deletes \
             the data; keep snapshots elsewhere (--set backup.claim=… or config.snapshot.target), or patch the volume's \
             persistentVolumeReclaimPolicy to Retain",
            cluster.namespace
        );
        Finding::warning("storage", message)
    })
}
