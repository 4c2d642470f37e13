//! The storage of pods: volumes, folders of nodes, memory, and the files of configs and secrets.
//!
//! Invariants: a volume that each node or each slot has of its own in Swarm is not shared by pods of several; nothing is made for what is not
//! the stack's. Every leaf of a mount and of a volume is marked here.

mod binds;
mod claims;
mod driver_options;
mod filling;
mod memory;
mod nature;
mod pod;
#[cfg(test)]
pub(super) mod tests;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, PodAffinityTerm, Volume, VolumeMount};

use super::container::identity;
use super::text::{Downward, Scope};
use super::workload::WorkloadKind;
use super::{Context, Holder, Home, KubeObject, payloads};
use crate::migrate::Dialect;
use crate::migrate::images::ImageFacts;
use crate::migrate::leaf::Leaf;
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::{Mount, MountKind, Service, Stack};

pub(super) use self::claims::quantity;
use self::nature::{Nature, PlannedVolume, has_slots};
pub(super) use self::pod::{Pod, unprotected};
pub(super) use self::volumes::is_annotation;

/// What a pod gets for its mounts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodStorage {
    /// Of the pod; the claims of a StatefulSet's templates are not among them.
    pub volumes: Vec<Volume>,
    /// Of the pod's first container.
    pub mounts: Vec<VolumeMount>,
    /// Containers that fill empty volumes from the image.
    pub init_containers: Vec<Container>,
    /// Of a StatefulSet: claims that each pod has of its own.
    pub claim_templates: Vec<PersistentVolumeClaim>,
    /// The group that reads files which only their owner reads in Swarm.
    pub fs_group: Option<i64>,
    /// Whether the pod writes something that two pods must not write at a time.
    pub has_own_volume: bool,
    /// Variables that the mounts refer to.
    pub needs: BTreeSet<Downward>,
    /// Pods that have to be on the same node, as they use one volume. A pod meets its own terms, so that the first one starts.
    pub together: Vec<PodAffinityTerm>,
    /// Labels of the pod, which those terms find.
    pub labels: BTreeMap<String, String>,
}

/// An object that several services may use.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The file that it is in.
    pub home: Home,
    /// The object.
    pub object: KubeObject,
}

/// The volumes of a stack with the services that mount them.
pub struct Plan<'a> {
    dialect: Dialect,
    volumes: HashMap<&'a str, PlannedVolume<'a>>,
    /// Services that can be StatefulSets.
    slotted: HashSet<&'a str>,
    pub(super) configs: HashMap<&'a str, Vec<&'a Service>>,
    pub(super) secrets: HashMap<&'a str, Vec<&'a Service>>,
}

impl<'a> Plan<'a> {
    /// Finds the users of everything that is stored.
    #[must_use]
    pub fn of(stack: &'a Stack) -> Self {
        let mut plan = Self {
            dialect: stack.dialect,
            volumes: stack.volumes.iter().map(|volume| (volume.key.as_str(), PlannedVolume::of(volume))).collect(),
            slotted: HashSet::new(),
            configs: HashMap::new(),
            secrets: HashMap::new(),
        };
        for service in &stack.services {
            if has_slots(service) {
                plan.slotted.insert(&service.name);
            }
            for mount in service.mounts.iter().filter(|mount| is_named(mount)) {
                let source = mount.source.as_ref().map_or("", |source| source.value.as_str());
                if let Some(volume) = plan.volumes.get_mut(source) {
                    volume.add(service);
                }
            }
            service.configs.iter().for_each(|file| add(&mut plan.configs, &file.source.value, service));
            service.secrets.iter().for_each(|file| add(&mut plan.secrets, &file.source.value, service));
        }
        plan
    }

    /// What a volume is to a service.
    fn nature<'p>(&self, volume: &'p PlannedVolume<'_>, service: &Service) -> Nature<'p> {
        Nature::of(volume, service, self.slotted.contains(service.name.as_str()), self.dialect)
    }

    /// Whether each pod of a service needs a volume of its own, which only those of a StatefulSet have.
    #[must_use]
    pub fn needs_slots(&self, service: &Service) -> bool {
        service.mounts.iter().filter(|mount| is_named(mount)).any(|mount| {
            let source = mount.source.as_ref().map_or("", |source| source.value.as_str());
            let volume = self.volumes.get(source);
            volume.is_some_and(|volume| matches!(self.nature(volume, service), Nature::PerSlot { .. }))
        })
    }

    /// The storage of a pod.
    ///
    /// * `image`: where an archive has it.
    pub fn pod(
        &self,
        service: &Service,
        kind: WorkloadKind,
        context: &Context<'_>,
        holder: &Holder,
        image: Option<&ImageFacts>,
        ledger: &mut Ledger,
    ) -> PodStorage {
        let name = format!("{}_{}", context.stack.name, service.name);
        let labels: Vec<(String, String)> =
            service.service_labels.iter().map(|(key, value)| (key.clone(), value.value.clone())).collect();
        let is_job = matches!(kind, WorkloadKind::Job | WorkloadKind::CronJob);
        let replicas = service.mode.replicas.map_or(1, |replicas| replicas.value);
        let (is_numbered, is_per_node) = (kind == WorkloadKind::StatefulSet, kind == WorkloadKind::DaemonSet);
        let identity = identity(is_numbered, is_per_node, is_job, replicas);
        let scope = Scope { service: &name, labels: &labels, identity };
        let mut pod = Pod::new(service, self, context, holder, scope, image);
        for mount in &service.mounts {
            pod.add(mount, ledger);
        }
        payloads::mount(&mut pod, ledger);
        pod.volumes_of_image(ledger);
        pod.sum_of_memory(ledger);
        pod.finish(ledger)
    }

    /// Claims, PersistentVolumes, ConfigMaps and Secrets.
    pub fn shared(&self, context: &Context<'_>, ledger: &mut Ledger) -> Vec<Stored> {
        let mut all = Vec::new();
        for volume in &context.stack.volumes {
            let Some(planned) = self.volumes.get(volume.key.as_str()) else { continue };
            let objects = volumes::objects(planned, self, context, ledger);
            all.extend(objects.into_iter().map(|object| Stored { home: Home::Volumes, object }));
        }
        all.extend(payloads::objects(self, context, ledger));
        all
    }
}

fn is_named(mount: &Mount) -> bool {
    mount.kind.value == MountKind::Volume && mount.source.as_ref().is_some_and(|source| !source.value.is_empty())
}

/// Adds a user, once.
fn add<'a>(users: &mut HashMap<&'a str, Vec<&'a Service>>, key: &'a str, service: &'a Service) {
    let users = users.entry(key).or_default();
    // Services come one after the other.
    if users.last().is_none_or(|last| !std::ptr::eq(*last, service)) {
        users.push(service);
    }
}

impl Pod<'_> {
    fn add(&mut self, mount: &Mount, ledger: &mut Ledger) {
        for (name, leaf) in &mount.other {
            let (outcome, reason) = unmapped(name);
            ledger.mark(*leaf, outcome, reason, None);
        }
        match mount.kind.value {
            MountKind::Bind => self.bind(mount, ledger),
            MountKind::Volume if is_named(mount) => self.named(mount, ledger),
            MountKind::Volume => self.anonymous(mount, ledger),
            MountKind::Tmpfs => self.tmpfs(mount, ledger),
            MountKind::NamedPipe => self.refuse_windows(mount, ledger),
            MountKind::Image => self.files_of_image(mount, ledger),
            MountKind::Cluster => self.of_cluster(mount, ledger),
        }
        self.unfit(mount, ledger);
    }

    /// Options that say nothing for a mount of this type.
    fn unfit(&self, mount: &Mount, ledger: &mut Ledger) {
        let texts = [&mount.propagation, &mount.subpath].into_iter().flatten().map(|text| text.leaf);
        let flags =
            [mount.read_only, mount.no_copy, mount.create_host_path].into_iter().flatten().map(|flag| flag.leaf);
        let numbers = mount.tmpfs_size.map(|size| size.leaf).into_iter().chain(mount.tmpfs_mode.map(|mode| mode.leaf));
        let unmarked: Vec<Leaf> =
            texts.chain(flags).chain(numbers).chain(mount.source.as_ref().map(|source| source.leaf)).collect();
        for leaf in unmarked {
            if !ledger.is_marked(leaf) {
                ledger.mark(leaf, Outcome::Dropped, "it says nothing for a mount of this type", None);
            }
        }
    }

    /// Volumes that nothing mounts, as their mounts were refused, are left out.
    fn finish(mut self, ledger: &mut Ledger) -> PodStorage {
        let is_claim = |volume: &Volume| volume.persistent_volume_claim.is_some();
        let has_claims = !self.result.claim_templates.is_empty() || self.result.volumes.iter().any(is_claim);
        if self.result.fs_group.is_some() && has_claims {
            let reason = "the kubelet gives the files of claims to this group, too, where their storage class lets it; \
                          local-path of K3s does not";
            ledger.added(self.holder.pod("securityContext.fsGroup"), reason);
        }
        let of_fillers =
            self.result.init_containers.iter().filter_map(|filler| filler.volume_mounts.as_ref()).flatten();
        let used: BTreeSet<String> =
            self.result.mounts.iter().chain(of_fillers).map(|mount| mount.name.clone()).collect();
        self.result.volumes.retain(|volume| used.contains(&volume.name));
        self.result
    }
}

/// Why an option of a mount is not in the pod, by its name.
fn unmapped(name: &str) -> (Outcome, &'static str) {
    let first = name.split(['.', '[']).next().unwrap_or(name);
    match first {
        "selinux" | "z" | "Z" => (Outcome::Dropped, "the container runtime sets the SELinux labels of what it mounts"),
        "consistency" | "cached" | "delegated" | "consistent" => (Outcome::Dropped, "it is for Docker on macOS"),
        "labels" => (Outcome::Dropped, "Labels of Docker are for Docker; nothing in the cluster reads them"),
        "recursive" => (Outcome::Dropped, "a folder of the node is mounted with what is mounted in it"),
        "driver" => {
            (Outcome::NeedsInput, "an emptyDir has no driver: give the volume a name, and write a claim for it")
        }
        "cluster" => (Outcome::NeedsInput, "a volume of a CSI driver: write a claim of a storage class of that driver"),
        "options" | "exec" | "noexec" | "nosuid" | "suid" | "nodev" | "dev" | "uid" | "gid" => {
            (Outcome::Dropped, "an emptyDir has no mount options")
        }
        _ => (Outcome::Dropped, "Kubernetes has no field for this option of a mount"),
    }
}
