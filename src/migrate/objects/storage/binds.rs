//! Folders and files of the node in a container.
//!
//! Swarm starts a task only where the path is there, and Kubernetes makes an empty folder of a missing one, unless it knows what has to be
//! there. Invariant: nothing of Docker's own folders, nor its socket, is mounted: a node of K3s has neither.

use std::path::Path;

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Volume, VolumeMount};

use super::memory::base_name;
use super::pod::{Pod, refuse, unprotected};
use crate::migrate::leaf::At;
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::Mount;

/// Paths that every Linux node has, with their kinds in Kubernetes.
const OF_EVERY_NODE: &[(&str, &str)] = &[
    ("/", "Directory"),
    ("/dev", "Directory"),
    ("/dev/shm", "Directory"),
    ("/etc", "Directory"),
    ("/etc/group", "File"),
    ("/etc/hostname", "File"),
    ("/etc/hosts", "File"),
    ("/etc/localtime", "File"),
    ("/etc/machine-id", "File"),
    ("/etc/os-release", "File"),
    ("/etc/passwd", "File"),
    ("/etc/resolv.conf", "File"),
    ("/lib/modules", "Directory"),
    ("/proc", "Directory"),
    ("/run", "Directory"),
    ("/sys", "Directory"),
    ("/sys/fs/cgroup", "Directory"),
    ("/tmp", "Directory"),
    ("/usr", "Directory"),
    ("/var/log", "Directory"),
    ("/var/run", "Directory"),
];

/// A path of Docker's: what a node of K3s has in its place.
enum OfDocker {
    /// Nothing: the program drives Docker.
    Socket,
    /// Something, at another path.
    Elsewhere(&'static str),
}

impl Pod<'_> {
    /// A mount of type `bind`.
    pub(super) fn bind(&mut self, mount: &Mount, ledger: &mut Ledger) {
        let Some(source) = &mount.source else {
            refuse(mount, Outcome::NeedsInput, "a bind mount needs a source", ledger);
            return;
        };
        if is_of_windows(&source.value) || is_of_windows(&mount.target.value) {
            self.refuse_windows(mount, ledger);
            return;
        }
        if self.refuse_docker(mount, &source.value, ledger) {
            return;
        }
        if !source.value.starts_with('/') {
            let reason = "the path on the node has to be absolute (`~` is the home of the one who deploys); write it out; \
                          nothing is mounted";
            refuse(mount, Outcome::NeedsInput, reason, ledger);
            return;
        }
        let Some((path, part)) = self.path_of(source, mount, ledger) else { return };
        let creates = mount.create_host_path.is_some_and(|creates| creates.value);
        let kind = OF_EVERY_NODE.iter().find(|(of_node, _)| *of_node == path).map(|(_, kind)| *kind);
        let of_kernel = ["/proc/", "/sys/"].iter().any(|folder| path.starts_with(folder));
        let written = kind.unwrap_or(if creates && part.sub_path_expr.is_none() { "DirectoryOrCreate" } else { "" });
        let host_path = HostPathVolumeSource { path: path.clone(), type_: Some(written.to_owned()) };
        let wanted = match base_name(&path) {
            "" => "host-root".to_owned(),
            name => format!("host-{name}"),
        };
        let volume = Volume { host_path: Some(host_path), ..Volume::default() };
        let name = self.volume(&wanted, Some(format!("host {written} {path}")), volume);
        let Some(index) = self.attach(mount, &name, "hostPath.path", part, ledger) else { return };
        if let Some(creates) = mount.create_host_path {
            let target = self.holder.pod(&format!("volumes[name={name}].hostPath.type"));
            match creates.value {
                true => ledger.converted(creates.leaf, target),
                false => ledger.approximated(
                    creates.leaf,
                    target,
                    "what is there is not known, and so Kubernetes makes a folder of a missing path: write the type \
                     Directory or File",
                ),
            }
        }
        if let Some(no_copy) = mount.no_copy {
            ledger.agrees(no_copy.leaf, "nothing is copied into a folder of the node");
        }
        self.subpath(mount, index, ledger);
        self.propagation(mount, index, ledger);
        let is_read_only = mount.read_only.is_some_and(|read_only| read_only.value);
        if matches!(path.as_str(), "/run" | "/var/run") {
            let target = self.holder.pod(&format!("volumes[name={name}].hostPath.path"));
            ledger.approximated(source.leaf, target, "on a node of K3s there is no docker.sock in it");
        } else if kind.is_none() && !of_kernel {
            self.result.has_own_volume |= !is_read_only;
            self.say_where(source, &path, &name, ledger);
        }
    }

    /// Refuses what is Docker's own. Returns whether it was.
    pub(super) fn refuse_docker(&self, mount: &Mount, path: &str, ledger: &mut Ledger) -> bool {
        let path = clean(path);
        match of_docker(&path) {
            Some(OfDocker::Socket) => {
                ledger.cannot_move(format!(
                    "service {}: it drives Docker through the socket {path}, and K3s has no Docker: replace what it does \
                     there",
                    self.service.name
                ));
                let reason = "K3s has no Docker, and nothing that answers at its socket; nothing is mounted";
                refuse(mount, Outcome::Dropped, reason, ledger);
                true
            }
            Some(OfDocker::Elsewhere(advice)) => {
                refuse(mount, Outcome::NeedsInput, &format!("{advice}; nothing is mounted"), ledger);
                true
            }
            None => false,
        }
    }

    /// The path of the node, and what of it differs from pod to pod.
    fn path_of(&mut self, source: &At<String>, mount: &Mount, ledger: &mut Ledger) -> Option<(String, VolumeMount)> {
        if !self.expands(&source.value) {
            return Some((clean(&source.value), VolumeMount::default()));
        }
        let expanded = self.scope.expand(&source.value);
        if expanded.notes.iter().any(|(outcome, _)| *outcome >= Outcome::NeedsInput) {
            let reason = "its placeholders are more than Kubernetes expands; write the path out; nothing is mounted";
            refuse(mount, Outcome::NeedsInput, reason, ledger);
            return None;
        }
        for (outcome, note) in expanded.notes {
            ledger.mark(source.leaf, outcome, note, None);
        }
        if expanded.needs.is_empty() {
            return Some((clean(&unprotected(&expanded.text)), VolumeMount::default()));
        }
        let before = expanded.text.find("$(").unwrap_or(0);
        let split = expanded.text[..before].rfind('/').unwrap_or(0);
        let (fixed, rest) = (unprotected(&expanded.text[..split]), clean(&expanded.text[split..]));
        let rest = rest.trim_start_matches('/').to_owned();
        self.result.needs.extend(expanded.needs);
        let reason = "Kubernetes makes a missing folder of this name; Swarm did not start the task";
        ledger.mark(source.leaf, Outcome::Approximated, reason, None);
        let part = VolumeMount { sub_path_expr: Some(rest), ..VolumeMount::default() };
        Some((clean(&fixed), part))
    }

    fn propagation(&mut self, mount: &Mount, index: usize, ledger: &mut Ledger) {
        let Some(propagation) = &mount.propagation else { return };
        let target = self.field_of_mount(index, "mountPropagation");
        let is_privileged = self.service.compose.privileged.is_some_and(|privileged| privileged.value);
        let written = match propagation.value.as_str() {
            "rslave" | "slave" => {
                ledger.converted(propagation.leaf, target);
                "HostToContainer"
            }
            "rshared" | "shared" if is_privileged => {
                ledger.converted(propagation.leaf, target);
                "Bidirectional"
            }
            "rshared" | "shared" => {
                let reason = "Kubernetes lets only privileged containers mount for their node (Bidirectional); this one \
                              gets the mounts of the node, and the node none of its own";
                ledger.approximated(propagation.leaf, target, reason);
                "HostToContainer"
            }
            _ => {
                ledger.agrees(propagation.leaf, "mounts are private where nothing is written");
                return;
            }
        };
        self.result.mounts[index].mount_propagation = Some(written.to_owned());
    }

    /// Which nodes have to have the path.
    fn say_where(&self, source: &At<String>, path: &str, volume: &str, ledger: &mut Ledger) {
        let target = self.holder.pod(&format!("volumes[name={volume}].hostPath"));
        if is_below_stack(path, source, ledger) {
            ledger.needs_input(
                source.leaf,
                "this is in the folder of the stack's file, which Swarm expects at this path on every node: make a config \
                 of a file, or a claim of a folder, or copy it to the nodes",
            );
            return;
        }
        let is_pinned = self.service.placement.constraints.iter().any(|constraint| {
            let text: String = constraint.value.split_whitespace().collect();
            text.to_ascii_lowercase().starts_with("node.hostname==")
        });
        let is_global = super::nature::is_global(self.service);
        if is_pinned {
            ledger.mark(
                source.leaf,
                Outcome::Converted,
                "the node that the constraint names has to have it",
                Some(target),
            );
        } else if is_global {
            let reason = "each node has to have it; Kubernetes makes an empty folder of a missing path, where Swarm does \
                          not start the task";
            ledger.approximated(source.leaf, target, reason);
        } else {
            let reason = "each node that may run the pod has to have it: pin the pod to one that has (a constraint on \
                          node.hostname), or copy it to all; Kubernetes makes an empty folder of a missing path, where \
                          Swarm does not start the task";
            ledger.approximated(source.leaf, target, reason);
        }
    }

    /// Paths and pipes of Windows.
    pub(super) fn refuse_windows(&mut self, mount: &Mount, ledger: &mut Ledger) {
        ledger.cannot_move(format!(
            "service {}: it mounts something of Windows, and K3s runs Linux only",
            self.service.name
        ));
        refuse(mount, Outcome::Dropped, "it is of Windows, and K3s runs Linux only; nothing is mounted", ledger);
    }
}

/// Whether a path is one of Windows: `C:\x`, `\\.\pipe\x`.
fn is_of_windows(path: &str) -> bool {
    let mut letters = path.chars();
    let is_drive = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic()) && letters.next() == Some(':');
    is_drive || path.starts_with('\\')
}

/// Whether it is below the folder of the file that names it.
fn is_below_stack(path: &str, source: &At<String>, ledger: &Ledger) -> bool {
    let file = Path::new(&*ledger.leaves().written(source.leaf).at.file).to_owned();
    let folder = file.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    // The JSON of a running stack is about its nodes, wherever the file is.
    let is_stack = file.extension().is_none_or(|extension| extension != "json") && file.is_file();
    let real = folder.filter(|_| is_stack).and_then(|folder| folder.canonicalize().ok());
    real.is_some_and(|folder| folder.parent().is_some() && Path::new(path).starts_with(folder))
}

/// What a node of K3s has in place of a path of Docker's.
fn of_docker(path: &str) -> Option<OfDocker> {
    if path.ends_with("/docker.sock") {
        return Some(OfDocker::Socket);
    }
    let advice = |text| Some(OfDocker::Elsewhere(text));
    if path.ends_with("/containerd.sock") {
        return advice(
            "containerd of K3s answers at /run/k3s/containerd/containerd.sock; write that, if the program needs it",
        );
    }
    let of_data = path.strip_prefix("/var/lib/docker")?;
    match of_data.split('/').nth(1).unwrap_or_default() {
        _ if !(of_data.is_empty() || of_data.starts_with('/')) => None,
        "containers" => advice("the logs of containers are in /var/log/pods on a node of K3s, in another form (CRI)"),
        "volumes" => advice("it is the folder of a volume of Docker's: mount the claim of that volume"),
        _ => advice(
            "Docker's folder is not on a node of K3s: logs are in /var/log/pods, images and layers in \
             /var/lib/rancher/k3s/agent/containerd",
        ),
    }
}

/// A path without `.`, `..` and slashes that say nothing; Kubernetes refuses `..`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
