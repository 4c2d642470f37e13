//! The node's image on a machine of a cluster: its archive, and what containerd knows of it.

use std::process::{Command, Stdio};

use super::{Installation, Release, exists};
use crate::deploy::host::ClusterNode;
use crate::deploy::oci::REPOSITORY;
use crate::deploy::plan::Finding;
use crate::deploy::tree::Tree;

/// Where both distributions have containerd listen.
const SOCKET: &str = "/run/k3s/containerd/containerd.sock";
/// The namespace of containerd that the kubelet uses.
const NAMESPACE: &str = "k8s.io";
/// Where K3s and RKE2 have containerd's command, below their data directory.
const COMMANDS: [&str; 2] = ["data/current/bin/ctr", "bin/ctr"];
/// What prevents the kubelet from removing an image when the disk is nearly full.
const PIN: &str = "io.cri-containerd.pinned=pinned";
/// How long containerd may take to answer, in ctr's spelling.
const PATIENCE: [&str; 4] = ["--connect-timeout", "3s", "--timeout", "10s"];

/// What threatens the image of the node that is installed here.
pub(super) fn check(tree: &Tree, node: &ClusterNode) -> Option<Finding> {
    let record = Installation::read(tree).ok().flatten()?;
    let image = Release::load(tree, record.current.as_deref()?).ok().flatten()?.image?;
    if !exists(tree, &image.path) {
        let message = format!(
            "{} is gone, so {} cannot import the image again after the kubelet removes it under disk pressure; `cairn install` restores it",
            image.path.display(),
            node.distribution
        );
        return Some(Finding::warning("image", message));
    }
    match import_state(tree, node, &format!("{REPOSITORY}@{}", image.digest))? {
        ImportState::Pinned => None,
        ImportState::Unpinned => {
            let cache = node.images().join(".cache.json");
            // Up to 1.33.13, 1.34.9, 1.35.6 and 1.36.2 a server that finds its cache does not pin what is in it again.
            let before = if exists(tree, &cache) {
                format!("remove {}, by which older servers lose pins at each restart, then ", cache.display())
            } else {
                String::new()
            };
            let message = format!(
                "the image of Cairn is not pinned in containerd, so the kubelet removes it when the disk is nearly full; {before}\
                 `touch {}` and restart {}, which then imports and pins it again",
                image.path.display(),
                node.unit()
            );
            Some(Finding::warning("image", message))
        }
        ImportState::Missing => {
            let message = format!(
                "containerd does not have the image of Cairn, so its pod cannot start; `touch {}` makes {} import it again",
                image.path.display(),
                node.distribution
            );
            Some(Finding::obstacle("image", message))
        }
    }
}

enum ImportState {
    Pinned,
    Unpinned,
    Missing,
}

/// What containerd says of an image; `None` where it cannot be asked.
fn import_state(tree: &Tree, node: &ClusterNode, name: &str) -> Option<ImportState> {
    let command = COMMANDS.iter().map(|path| node.data_dir.join(path)).find(|path| exists(tree, path))?;
    let mut ctr = Command::new(tree.locate(command).ok()?);
    ctr.args(PATIENCE).args(["--namespace", NAMESPACE, "--address"]).arg(tree.locate(SOCKET).ok()?);
    let output = ctr.args(["images", "list", &format!("name=={name}")]).stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    // A heading, then a line for each image, which starts with its name and ends with its labels.
    let table = String::from_utf8_lossy(&output.stdout);
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    Some(match line {
        Some(line) if line.contains(PIN) => ImportState::Pinned,
        Some(_) => ImportState::Unpinned,
        None => ImportState::Missing,
    })
}
