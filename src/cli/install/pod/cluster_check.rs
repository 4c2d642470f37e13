//! What the cluster is asked before anything is written: where the pod can run, and whether the cluster has what the manifests need.

use anyhow::Context as _;

use crate::base::ByteSize;
use crate::cli::Failure;
use crate::deploy::cluster::{Cluster, Fit, Member, this_machine};
use crate::deploy::k3s::{self, Facts, Settings};
use crate::deploy::{Action, ClusterNode, Finding, Tree};

/// Binds the pod to the node that has the image, where the cluster has more than one, and says so; and finds the names by which clients will
/// reach it.
pub(super) fn placement(
    tree: &Tree,
    node: &ClusterNode,
    cluster: &Cluster,
    settings: &Settings,
    facts: &mut Facts,
) -> Result<Vec<Finding>, Failure> {
    let members = cluster.members()?;
    let here = this_machine(tree, node, &members)?;
    let data = cluster.node_of_data()?;
    let mut findings = Vec::new();
    if members.len() > 1 && !settings.names_nodes() {
        let Some(target) = data.clone().or_else(|| here.map(|here| here.hostname.clone())) else {
            let message = format!(
                "the cluster has {} nodes, and none of them is recognised as this machine, which gets the image; set \
                 node.name to its label kubernetes.io/hostname, which `kubectl get nodes --show-labels` prints",
                members.len()
            );
            return Ok(vec![Finding::obstacle("node", message)]);
        };
        let message = format!(
            "the cluster has {} nodes, and only one of them gets the image, so the pod is bound to {target}; --set node.name=… or \
             node.selector=… selects others, which need the image as a file",
            members.len()
        );
        findings.push(Finding::warning("node", message));
        facts.node_name = Some(target);
    }
    let mut hosts: Vec<String> = Vec::new();
    if settings.balanced_port().is_some() {
        // Clients come by the nodes' addresses and names, and by the address of a balancer that was there already.
        hosts.extend(members.iter().flat_map(|member| member.addresses.clone()));
        hosts.extend(cluster.balanced_address()?);
    }
    if settings.has_certificate() {
        // A certificate of others has the address of the service once that is known; the node's own has it without.
        hosts.extend(cluster.service_address()?);
    }
    hosts.sort();
    hosts.dedup();
    facts.hosts = hosts;
    findings.extend(data.and_then(|data| data_elsewhere(tree, node, cluster, &members, here, &data, facts)));
    Ok(findings)
}

/// What is to be done where the data is bound to another node than the image comes to.
fn data_elsewhere(
    tree: &Tree,
    node: &ClusterNode,
    cluster: &Cluster,
    members: &[Member],
    here: Option<&Member>,
    data: &str,
    facts: &Facts,
) -> Option<Finding> {
    if here.is_none_or(|here| here.hostname == data) {
        return None;
    }
    let (namespace, claim) = (cluster.namespace(), cluster.names().claim());
    let empty =
        format!("if nothing was ever written to it, delete its claim: kubectl -n {namespace} delete pvc {claim}");
    let Some(member) = members.iter().find(|member| member.hostname == data) else {
        let message =
            format!("the data is on the node {data}, which is not in the cluster; bring the node back, or, {empty}");
        return Some(Finding::obstacle("node", message));
    };
    let digest = facts.image_digest.as_deref().unwrap_or_default();
    // With it a node takes images from the others.
    if !member.lacks(digest) || node.shares_images(tree) {
        return None;
    }
    let message = format!(
        "the data is on the node {data}, and this machine gets the image: run `cairn image build -o cairn.tar`, put the file into \
         {} on {data}, and run this again; or, {empty}",
        node.images().display()
    );
    Some(Finding::obstacle("node", message))
}

/// Whether the cluster has what the manifests need; and what is done to the volume.
pub(super) fn requirements(cluster: &Cluster, settings: &Settings) -> Result<(Vec<Finding>, Option<Action>), Failure> {
    let mut findings = Vec::new();
    for k3s::Requirement { version, kind, variant, from } in k3s::requirements(settings) {
        if !cluster.knows(version, kind).context("cannot ask which kinds the cluster knows")? {
            let message = format!(
                "the cluster does not know the kind {kind} of {version}, which `--with {variant}` needs: it comes with {from}. \
                 Install that first, or leave {variant} out"
            );
            findings.push(Finding::obstacle("kind", message));
        }
    }
    if let Some(class) = settings.runtime_class()
        && !cluster.has_runtime_class(class)?
    {
        let message = format!(
            "the cluster has no RuntimeClass {class}, which `--with gpu` needs; --set gpu.own-runtime-class=true makes it, and \
             --set gpu.runtime-class=… names another one"
        );
        findings.push(Finding::obstacle("runtime-class", message));
    }
    if let Some(class) = settings.ingress_class()
        && !cluster.has_ingress_class(class)?
    {
        let message = format!(
            "the cluster has no IngressClass {class}, so nothing serves the Ingress; --set ingress.class=… names another one"
        );
        findings.push(Finding::warning("ingress-class", message));
    }
    let wanted = settings.storage();
    let mut action = None;
    match cluster.fit(wanted, settings.storage_class())? {
        Fit::Fits => {}
        Fit::Larger(found) => {
            let message = format!("the volume keeps its {found}: volumes cannot shrink to {wanted}");
            findings.push(Finding::warning("storage", message));
        }
        Fit::Grows(found) => {
            let claim = cluster.names().claim();
            let what = format!("grow the volume from {found} to {wanted}: the claim {claim} and its StatefulSet");
            action = Some(Action::Run { what });
        }
        Fit::TooSmall { found, class, is_folder } => {
            findings.push(Finding::obstacle("storage", too_small(wanted, found, &class, is_folder)));
        }
        Fit::OtherClass(found) => {
            let message =
                format!("the volume is of the storage class {found}, and cannot change to another one; {}", to_move());
            findings.push(Finding::obstacle("storage", message));
        }
        Fit::NoClass => {
            let class = settings.storage_class().unwrap_or_default();
            let message =
                format!("the cluster has no storage class {class}; `kubectl get storageclass` lists those that it has");
            findings.push(Finding::obstacle("storage", message));
        }
        Fit::NoDefault => {
            let message = "the cluster has no default storage class, so the volume would never be made; name one with --set storage.class=…";
            findings.push(Finding::obstacle("storage", message));
        }
    }
    Ok((findings, action))
}

fn too_small(wanted: ByteSize, found: ByteSize, class: &str, is_folder: bool) -> String {
    if is_folder {
        format!(
            "the volume has {found}, and the storage class {class} does not let it grow to {wanted}. Its volumes are folders, which may \
             use the whole disk: leave storage.size as it was, and set config.store.max_bytes for a larger log"
        )
    } else {
        format!("the volume has {found}, and the storage class {class} does not let it grow to {wanted}; {}", to_move())
    }
}

/// The way to another volume.
fn to_move() -> &'static str {
    "to move the data, ship a snapshot elsewhere (--set backup.claim=… or config.snapshot.target=s3://…), run `cairn uninstall --purge`, \
     install with the settings that you want, and run `cairn snapshot restore`"
}
