//! Named volumes: what a pod mounts for one, and the objects that are there for it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, PersistentVolumeClaimVolumeSource, PodAffinityTerm,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::super::text::{Identity, Scope};
use super::super::{Context, KubeObject, folded};
use super::Plan;
use super::claims::{SIZE_REASON, claim, export};
use super::driver_options::leaves as leaves_of_options;
use super::nature::{Nature, PlannedVolume};
use super::pod::{Pod, refuse, unprotected};
use crate::migrate::Dialect;
use crate::migrate::leaf::Leaf;
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::{Mount, Service, Volume as StackVolume};

/// Before the name of a claim: the label of the pods that use it together.
const TOGETHER: &str = "volume.cairn.local/";
/// Most services that a reason names.
const NAMES_MAX: usize = 8;
/// Why nothing but a reference is written.
const EXTERNAL: &str =
    "the volume is not the stack's, so that nothing is made for it: make a claim of this name with its data";

impl Pod<'_> {
    /// A mount of a volume with a name.
    pub(super) fn named(&mut self, mount: &Mount, ledger: &mut Ledger) {
        let key = mount.source.as_ref().map_or("", |source| source.value.as_str());
        let plan = self.plan;
        let Some(planned) = plan.volumes.get(key) else {
            refuse(mount, Outcome::NeedsInput, "the stack has no volume of this name; describe it", ledger);
            return;
        };
        let source = mount.source.as_ref().map_or(mount.kind.leaf, |source| source.leaf);
        let (volume, nature) = (planned.volume, plan.nature(planned, self.service));
        if let Nature::Folder { path, .. } = &nature
            && self.refuse_docker(mount, path, ledger)
        {
            let reason = "it is a folder of Docker's own, which is not mounted";
            leaves_of_options(&volume.driver_options).for_each(|leaf| ledger.needs_input(leaf, reason));
            return;
        }
        let name = self.context.names.volume(key);
        let is_read_only = mount.read_only.is_some_and(|read_only| read_only.value);
        let index = match &nature {
            Nature::One { is_shared, .. } => {
                let index = self.claimed(mount, &name, ledger);
                if *is_shared && index.is_some() {
                    self.join(&name, source, planned, ledger);
                }
                index
            }
            Nature::PerService { .. } => {
                let name = of_service(&name, self.service, self.context);
                self.claimed(mount, &name, ledger)
            }
            Nature::PerSlot { .. } if self.scope.identity != Identity::Numbered => {
                ledger.needs_input(source, "each pod has a volume of its own in Swarm; write a claim for each");
                self.claimed(mount, &name, ledger)
            }
            Nature::PerSlot { size, is_named, is_shared } => {
                self.template_of(mount, volume, &name, *size, ledger).inspect(|_| {
                    let outcome = match (is_named, is_shared) {
                        (true, false) => None,
                        (true, true) => Some((
                            Outcome::NeedsInput,
                            "other services mount the volumes of these slots, too; here each has claims of its own, so \
                             decide which of them has the data",
                        )),
                        (false, _) => Some((
                            Outcome::Approximated,
                            "in Swarm each node has a volume of this name, which the tasks on it share; here each pod \
                             has one: copy the data of each node to the claim of its pod (`cairn migrate data`)",
                        )),
                    };
                    if let Some((outcome, reason)) = outcome {
                        ledger.mark(source, outcome, reason, None);
                    }
                })
            }
            Nature::PerNode => {
                let path = format!("/var/lib/{}-volumes/{name}", folded(&self.context.stack.name, 63));
                let index = self.folder(mount, &name, &path, "DirectoryOrCreate", false, ledger);
                let reason = format!(
                    "each node has a volume of its own, as in Swarm: here the folder {path}. Copy the data on each node \
                     (`cairn migrate data`)"
                );
                ledger.approximated(source, self.holder.pod(&format!("volumes[name={name}].hostPath")), reason);
                index
            }
            Nature::Folder { path, is_read_only } => {
                let index = self.folder(mount, &name, path, "Directory", *is_read_only, ledger);
                let target = self.holder.pod(&format!("volumes[name={name}].hostPath.path"));
                leaves_of_options(&volume.driver_options).for_each(|leaf| ledger.converted(leaf, target.clone()));
                ledger.approximated(
                    source,
                    target,
                    "a folder of the node, which each node that may run the pod has to have; the pod does not start \
                     where it is missing, as in Swarm",
                );
                index
            }
            Nature::Export(_) => self.claimed(mount, &name, ledger),
            Nature::Memory { size, has_owner, is_shared } => {
                let index = self.memory_volume(mount, &name, *size, ledger);
                let target = self.holder.pod(&format!("volumes[name={name}].emptyDir"));
                for leaf in leaves_of_options(&volume.driver_options) {
                    match has_owner {
                        true => ledger.approximated(
                            leaf,
                            target.clone(),
                            "an emptyDir has neither owner nor mode: everyone may write it",
                        ),
                        false => ledger.converted(leaf, target.clone()),
                    }
                }
                if *is_shared {
                    let reason = "services on one node share it in Swarm; here each pod has memory of its own";
                    ledger.approximated(source, target, reason);
                }
                index
            }
            Nature::PerTask => {
                let name = self.empty(&name, Some(format!("task {name}")), EmptyDirVolumeSource::default());
                let reason = "each task has a new volume; Docker keeps the old ones, and here it ends with its pod";
                ledger.approximated(source, self.holder.pod(&format!("volumes[name={name}].emptyDir")), reason);
                self.attach(mount, &name, "emptyDir", VolumeMount::default(), ledger)
            }
            Nature::External => {
                ledger.needs_input(source, EXTERNAL);
                self.claimed(mount, &name, ledger)
            }
            Nature::Other { reason } => {
                ledger.needs_input(source, reason.clone());
                self.claimed(mount, &name, ledger)
            }
        };
        let Some(index) = index else { return };
        self.result.has_own_volume |= !is_read_only && !matches!(nature, Nature::Memory { .. } | Nature::PerTask);
        self.subpath(mount, index, ledger);
        let volume = self.result.mounts[index].name.clone();
        self.fill(mount, &volume, ledger);
    }

    /// Mounts a claim.
    fn claimed(&mut self, mount: &Mount, claim: &str, ledger: &mut Ledger) -> Option<usize> {
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: None };
        let volume = Volume { persistent_volume_claim: Some(source), ..Volume::default() };
        let name = self.volume(claim, Some(format!("claim {claim}")), volume);
        self.attach(mount, &name, "persistentVolumeClaim.claimName", VolumeMount::default(), ledger)
    }

    /// Mounts a folder of the node.
    fn folder(
        &mut self,
        mount: &Mount,
        name: &str,
        path: &str,
        kind: &str,
        is_read_only: bool,
        ledger: &mut Ledger,
    ) -> Option<usize> {
        let source = HostPathVolumeSource { path: path.to_owned(), type_: Some(kind.to_owned()) };
        let volume = Volume { host_path: Some(source), ..Volume::default() };
        let name = self.volume(name, Some(format!("host {kind} {path}")), volume);
        let part = VolumeMount { read_only: is_read_only.then_some(true), ..VolumeMount::default() };
        self.attach(mount, &name, "hostPath.path", part, ledger)
    }

    /// Mounts the claim that each pod of a StatefulSet has.
    fn template_of(
        &mut self,
        mount: &Mount,
        volume: &StackVolume,
        name: &str,
        size: Option<u64>,
        ledger: &mut Ledger,
    ) -> Option<usize> {
        let (name, is_new) = self.template(name);
        let field = format!("spec.volumeClaimTemplates[name={name}]");
        if is_new {
            let target = self.holder.field(&format!("{field}.metadata.annotations"));
            let annotations = annotations(volume, Some(self.service), self.context, &target, ledger);
            self.result.claim_templates.push(claim(&name, None, size, annotations));
            if size.is_none() {
                let target = self.holder.field(&format!("{field}.spec.resources.requests.storage"));
                ledger.added(target, SIZE_REASON);
            }
        }
        self.attach(mount, &name, &field, VolumeMount::default(), ledger)
    }

    /// Brings the pod to the node of the others that use a claim.
    fn join(&mut self, claim: &str, source: Leaf, planned: &PlannedVolume<'_>, ledger: &mut Ledger) {
        let label = format!("{TOGETHER}{claim}");
        let labels = BTreeMap::from([(label.clone(), "shared".to_owned())]);
        if self.result.labels.insert(label, "shared".to_owned()).is_none() {
            self.result.together.push(PodAffinityTerm {
                label_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
                topology_key: "kubernetes.io/hostname".to_owned(),
                ..PodAffinityTerm::default()
            });
        }
        let mut users: Vec<&str> = planned.users.iter().take(NAMES_MAX).map(|user| user.name.as_str()).collect();
        if planned.users.len() > NAMES_MAX {
            users.push("others");
        }
        let target = self.holder.pod("affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution");
        let before = match self.context.stack.dialect {
            Dialect::Stack => "in Swarm only tasks on one node share it, and each node has a volume of its own",
            Dialect::Compose => "everything is on one machine, and shares it",
        };
        let reason = format!(
            "{before}; here all pods of {} are on one node and share one claim. For several nodes, choose a storage class \
             with ReadWriteMany and remove the affinity",
            users.join(", ")
        );
        ledger.approximated(source, target, reason);
    }

    /// The folder of a volume that is mounted.
    pub(super) fn subpath(&mut self, mount: &Mount, index: usize, ledger: &mut Ledger) {
        let Some(subpath) = &mount.subpath else { return };
        let path = subpath.value.trim_matches('/');
        if path.split('/').any(|part| part == "..") {
            ledger.needs_input(subpath.leaf, "Kubernetes takes no folder with `..` in it; write the folder's own path");
            return;
        }
        ledger.converted(subpath.leaf, self.field_of_mount(index, "subPath"));
        let written = &mut self.result.mounts[index].sub_path;
        *written = Some(path.to_owned()).filter(|path| !path.is_empty());
    }

    /// A mount of type `cluster`.
    pub(super) fn of_cluster(&mut self, mount: &Mount, ledger: &mut Ledger) {
        let Some(source) = &mount.source else {
            refuse(mount, Outcome::NeedsInput, "a mount of a cluster volume needs its name", ledger);
            return;
        };
        let reason = "a volume of a CSI driver: write a claim of this name, of a storage class of that driver";
        ledger.needs_input(source.leaf, reason);
        ledger.needs_input(mount.kind.leaf, reason);
        let name = match source.value.strip_prefix("group:") {
            Some(group) => folded(group, 63),
            None => self.context.names.volume(&source.value),
        };
        if let Some(index) = self.claimed(mount, &name, ledger) {
            self.subpath(mount, index, ledger);
        }
    }

    /// A mount of type `image`.
    pub(super) fn files_of_image(&mut self, mount: &Mount, ledger: &mut Ledger) {
        let Some(source) = &mount.source else {
            refuse(mount, Outcome::NeedsInput, "a mount of an image needs its name", ledger);
            return;
        };
        let reason = "Kubernetes mounts images where the feature ImageVolume is on, by default from 1.35 on: check the \
                      cluster, and remove the mount where it is off";
        ledger.needs_input(source.leaf, reason);
        let image =
            ImageVolumeSource { reference: Some(source.value.clone()), pull_policy: Some("IfNotPresent".to_owned()) };
        let volume = Volume { image: Some(image), ..Volume::default() };
        let name = self.volume("image-files", Some(format!("image {}", source.value)), volume);
        let part = VolumeMount { read_only: Some(true), ..VolumeMount::default() };
        if let Some(index) = self.attach(mount, &name, "image.reference", part, ledger) {
            self.subpath(mount, index, ledger);
        }
    }
}

/// The claim of one service, where the volume's name has the service's.
fn of_service(volume: &str, service: &Service, context: &Context<'_>) -> String {
    folded(&format!("{volume}-{}", context.names.service(&service.name)), 63)
}

/// The objects of a volume. Marks what the mounts of its users do not.
pub(super) fn objects(
    planned: &PlannedVolume<'_>,
    plan: &Plan<'_>,
    context: &Context<'_>,
    ledger: &mut Ledger,
) -> Vec<KubeObject> {
    let volume = planned.volume;
    let Some(first) = planned.users.first() else {
        let reason = "no service mounts it, and Docker makes none either";
        leaves(volume).for_each(|leaf| ledger.dropped(leaf, reason));
        return Vec::new();
    };
    let (name, namespace) = (context.names.volume(&volume.key), context.options.namespace.as_str());
    let claim_field = |field: &str| Target::new(format!("PersistentVolumeClaim/{name}"), field);
    let nature = plan.nature(planned, first);
    if let Some(driver) = &volume.driver
        && matches!(driver.value.as_str(), "local" | "")
    {
        ledger.agrees(driver.leaf, "Docker's own driver, which stores on the node");
    }
    let mut objects: Vec<KubeObject> = Vec::new();
    for user in &planned.users {
        let Nature::PerService { size } = plan.nature(planned, user) else { continue };
        let name = of_service(&name, user, context);
        let field = |field: &str| Target::new(format!("PersistentVolumeClaim/{name}"), field);
        let annotations = annotations(volume, Some(user), context, &field("metadata.annotations"), ledger);
        objects.push(claim(&name, Some(namespace), size, annotations).into());
        sized(volume, size, &field("spec.resources.requests.storage"), ledger);
    }
    // Options are the volume's, so that all users but those of slots see the same.
    let subject = match &nature {
        Nature::One { size, .. } => {
            let annotations = annotations(volume, Some(first), context, &claim_field("metadata.annotations"), ledger);
            objects.push(claim(&name, Some(namespace), *size, annotations).into());
            sized(volume, *size, &claim_field("spec.resources.requests.storage"), ledger);
            claim_field("metadata.name")
        }
        Nature::PerService { .. } => {
            Target::new(format!("PersistentVolumeClaim/{}", of_service(&name, first, context)), "metadata.name")
        }
        Nature::PerSlot { size, .. } => {
            let set = format!("StatefulSet/{}", context.names.service(&first.name));
            let field = format!("spec.volumeClaimTemplates[name={name}]");
            if size.is_some() {
                let target = Target::new(&set, format!("{field}.spec.resources.requests.storage"));
                sized(volume, *size, &target, ledger);
            }
            Target::new(set, format!("{field}.metadata.name"))
        }
        Nature::Export(found) => {
            // PersistentVolumes are the cluster's: two stacks may have a volume of one name.
            let persistent = folded(&format!("{namespace}-{name}"), 253);
            let annotations = annotations(volume, Some(first), context, &claim_field("metadata.annotations"), ledger);
            let (object, claim) = export(&name, namespace, &persistent, found, annotations);
            objects.extend([KubeObject::from(object), claim.into()]);
            mark_export(volume, &persistent, !found.options.is_empty(), ledger);
            ledger.added(
                Target::new(format!("PersistentVolume/{persistent}"), "spec.capacity"),
                "a folder of a server has no size, and Kubernetes asks for one; nothing enforces it",
            );
            claim_field("metadata.name")
        }
        Nature::External => {
            leaves(volume).for_each(|leaf| ledger.needs_input(leaf, EXTERNAL));
            return objects;
        }
        Nature::Other { reason } => {
            // What a person has to write holds of all that the stack says.
            let reason = format!("{reason}; the pods wait for a claim {name}");
            leaves(volume).for_each(|leaf| ledger.needs_input(leaf, reason.clone()));
            return objects;
        }
        Nature::PerNode | Nature::PerTask | Nature::Folder { .. } | Nature::Memory { .. } => {
            for (_, label) in &volume.labels {
                ledger.dropped(label.leaf, "the pod's volume has no labels, and there is no claim");
            }
            let reason = "there is no claim: the volume is in the pods of the services that mount it";
            for leaf in volume.name.iter().map(|name| name.leaf).chain(volume.empty) {
                match nature {
                    Nature::PerNode | Nature::PerTask => {
                        ledger.mark(
                            leaf,
                            Outcome::Approximated,
                            "a folder of each node, as in Swarm, at another path",
                            None,
                        );
                    }
                    _ => ledger.agrees(leaf, reason),
                }
            }
            for leaf in leaves_of_options(&volume.driver_options) {
                if matches!(nature, Nature::PerNode | Nature::PerTask) {
                    ledger.dropped(leaf, "a folder of the node has no quota");
                }
            }
            mark_external(volume, ledger);
            return objects;
        }
    };
    let is_sizeless = match &nature {
        Nature::One { size, .. } | Nature::PerService { size } | Nature::PerSlot { size, .. } => size.is_none(),
        _ => false,
    };
    for leaf in volume.name.iter().map(|name| name.leaf).chain(volume.empty) {
        match is_sizeless {
            true => {
                ledger.approximated(leaf, subject.clone(), SIZE_REASON);
            }
            false => ledger.converted(leaf, subject.clone()),
        }
    }
    mark_external(volume, ledger);
    objects
}

/// `external: false`
fn mark_external(volume: &StackVolume, ledger: &mut Ledger) {
    if let Some(external) = volume.external {
        ledger.agrees(external.leaf, "the volume is the stack's");
    }
}

/// Marks the size of a claim: the option, or what Cairn adds.
fn sized(volume: &StackVolume, size: Option<u64>, target: &Target, ledger: &mut Ledger) {
    for (name, option) in &volume.driver_options {
        match (name.as_str(), size) {
            ("size", Some(_)) => ledger.converted(option.leaf, target.clone()),
            ("size", None) => ledger.needs_input(option.leaf, "not an amount of bytes such as 10g; write it"),
            _ => ledger.agrees(option.leaf, "Docker's own default"),
        }
    }
    if size.is_none() {
        ledger.added(target.clone(), SIZE_REASON);
    }
}

fn mark_export(volume: &StackVolume, persistent: &str, has_options: bool, ledger: &mut Ledger) {
    let field = |field: &str| Target::new(format!("PersistentVolume/{persistent}"), field);
    for (name, option) in &volume.driver_options {
        match name.as_str() {
            "device" => ledger.converted(option.leaf, field("spec.nfs.path")),
            "o" => {
                ledger.converted(option.leaf, field("spec.nfs.server"));
                if has_options {
                    ledger.converted(option.leaf, field("spec.mountOptions"));
                }
            }
            "size" => ledger.dropped(option.leaf, "Docker sets no quota on a server either"),
            _ => ledger.converted(option.leaf, field("spec.nfs")),
        }
    }
}

/// The labels of a volume as annotations.
fn annotations(
    volume: &StackVolume,
    user: Option<&Service>,
    context: &Context<'_>,
    target: &Target,
    ledger: &mut Ledger,
) -> BTreeMap<String, String> {
    let service = user.map_or_else(String::new, |user| format!("{}_{}", context.stack.name, user.name));
    let labels: Vec<(String, String)> = user
        .map(|user| user.service_labels.iter().map(|(key, value)| (key.clone(), value.value.clone())).collect())
        .unwrap_or_default();
    let scope = Scope { service: &service, labels: &labels, identity: Identity::None };
    let mut all = BTreeMap::new();
    for (key, label) in &volume.labels {
        if !is_annotation(key) {
            ledger.dropped(label.leaf, "an annotation has no such key (63 letters, digits, `-`, `_` and `.`)");
            continue;
        }
        let expanded = scope.expand(&label.value);
        if !expanded.is_static() {
            ledger.dropped(label.leaf, "it differs from task to task, and a claim has one text");
            continue;
        }
        all.insert(key.clone(), unprotected(&expanded.text));
        ledger.converted(label.leaf, target.clone());
    }
    all
}

/// Whether Kubernetes takes a key: `NAME`, or a domain, a slash and a name.
pub(in crate::migrate::objects) fn is_annotation(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let is_part = |part: &str, others: &[u8]| {
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = part.as_bytes();
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || others.contains(byte);
        is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(is_inner)
    };
    let is_domain = |domain: &str| {
        let is_small = !domain.bytes().any(|byte| byte.is_ascii_uppercase());
        domain.len() <= 253 && is_small && domain.split('.').all(|part| is_part(part, b"-"))
    };
    name.len() <= 63 && is_part(name, b"-_.") && domain.is_none_or(is_domain)
}

/// All leaves of a volume.
fn leaves(volume: &StackVolume) -> impl Iterator<Item = Leaf> {
    // A new field does not compile until it is here.
    let StackVolume { key: _, empty, name, external, driver, driver_options, labels, cluster } = volume;
    let texts = [name, driver].into_iter().flatten().map(|text| text.leaf);
    let named = driver_options.iter().chain(labels).map(|(_, value)| value.leaf);
    let external = external.iter().map(|external| external.leaf);
    empty.iter().copied().chain(texts).chain(external).chain(named).chain(cluster.iter().map(|(_, leaf)| *leaf))
}
