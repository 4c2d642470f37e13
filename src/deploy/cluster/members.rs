//! The nodes of the cluster: which one this machine is, which one has the data, which ones have the image.
//!
//! The image comes as a file of this machine, and a volume of `local-path` stays on the node of its first pod. So with more than one
//! node the pod is bound to one, or the scheduler takes whichever is emptiest.

use std::path::Path;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::ListParams;

use super::{Cluster, ClusterError};
use crate::deploy::host::ClusterNode;
use crate::deploy::oci::REPOSITORY;
use crate::deploy::tree::{Tree, TreeError};

/// The label by which a pod is bound to a node.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Images that a kubelet lists, the largest: of one that is not on a full list nothing is known.
const LISTED: usize = 50;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its label `kubernetes.io/hostname`, by which pods are bound to it.
    pub hostname: String,
    /// Names and addresses at which it is reached, each once.
    pub addresses: Vec<String>,
    name: String,
    machine_id: String,
    images: Vec<String>,
    lists_all: bool,
}

impl Member {
    fn of(node: Node) -> Option<Self> {
        let name = node.metadata.name?;
        let status = node.status.unwrap_or_default();
        let images = status.images.unwrap_or_default();
        let mut addresses: Vec<String> = status
            .addresses
            .into_iter()
            .flatten()
            .map(|address| address.address)
            .filter(|text| !text.is_empty())
            .collect();
        addresses.sort();
        addresses.dedup();
        Some(Self {
            hostname: node
                .metadata
                .labels
                .and_then(|mut labels| labels.remove(HOSTNAME))
                .unwrap_or_else(|| name.clone()),
            addresses,
            name,
            machine_id: status.node_info.map(|info| info.machine_id).unwrap_or_default(),
            lists_all: images.len() < LISTED,
            images: images.into_iter().flat_map(|image| image.names.unwrap_or_default()).collect(),
        })
    }

    /// Whether it is known not to have an image.
    #[must_use]
    pub fn lacks(&self, digest: &str) -> bool {
        let name = format!("{REPOSITORY}@{digest}");
        self.lists_all && !self.images.contains(&name)
    }
}

impl Cluster {
    /// All nodes, by name.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn members(&self) -> Result<Vec<Member>, ClusterError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let nodes = self.ask("show the nodes", nodes.list(&ListParams::default()))?;
        let mut members: Vec<Member> = nodes.items.into_iter().filter_map(Member::of).collect();
        members.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(members)
    }

    /// The label of the node that the data is bound to; `None` where there is no data, or it is on no node in particular.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn node_of_data(&self) -> Result<Option<String>, ClusterError> {
        let claim = self.ask("show the claim", self.api::<PersistentVolumeClaim>().get_opt(&self.names.claim()))?;
        let Some(name) = claim.and_then(|claim| claim.spec?.volume_name) else { return Ok(None) };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = self.ask("show the volume", volumes.get_opt(&name))?;
        let terms =
            volume.and_then(|volume| volume.spec?.node_affinity?.required).map(|required| required.node_selector_terms);
        let expressions = terms.into_iter().flatten().flat_map(|term| term.match_expressions.unwrap_or_default());
        let mut here = expressions.filter(|expression| expression.key == HOSTNAME && expression.operator == "In");
        Ok(here.find_map(|expression| expression.values?.into_iter().next()))
    }
}

/// Which of the nodes this machine is. By the name that K3s has in its settings or takes from the machine; where that is none of theirs, by the
/// machine's id.
///
/// # Errors
/// When a file cannot be read.
pub fn this_machine<'m>(
    tree: &Tree,
    node: &ClusterNode,
    members: &'m [Member],
) -> Result<Option<&'m Member>, TreeError> {
    let name = match &node.name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
    };
    if let Some(found) = members.iter().find(|member| member.name == name) {
        return Ok(Some(found));
    }
    let id = tree.read(Path::new("/etc/machine-id"))?.unwrap_or_default();
    let id = String::from_utf8_lossy(&id).trim().to_owned();
    // Machines that were copied share it.
    let mut same = members.iter().filter(|member| !id.is_empty() && member.machine_id == id);
    Ok(same.next().filter(|_| same.next().is_none()))
}
