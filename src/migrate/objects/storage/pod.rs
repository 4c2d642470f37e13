//! The volumes of one pod while they are gathered, with the mounts of its container.
//!
//! Invariants: names of volumes differ, and what is the same is one volume. Nothing is mounted twice at one path.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume, VolumeMount};

use super::super::text::Scope;
use super::super::{Context, Holder, folded};
use super::{Plan, PodStorage};
use crate::migrate::Dialect;
use crate::migrate::images::ImageFacts;
use crate::migrate::leaf::{At, Leaf};
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::{Mount, Service};

/// What `compose.rs` calls its own volumes.
const RESERVED: &str = "shared-memory";
/// Longest name of a volume of a pod.
const LENGTH_MAX: usize = 63;

/// A pod whose storage is gathered.
pub struct Pod<'a> {
    /// The service.
    pub service: &'a Service,
    /// All services that use volumes.
    pub plan: &'a Plan<'a>,
    /// The stack, and what was asked for.
    pub context: &'a Context<'a>,
    /// For the report.
    pub holder: &'a Holder,
    /// What placeholders come to.
    pub scope: Scope<'a>,
    /// The image, where an archive has it.
    pub image: Option<&'a ImageFacts>,
    /// What there is so far.
    pub result: PodStorage,
    /// Bytes of memory of all `emptyDir`s with a size.
    pub memory: u64,
    /// Leaves of mounts in memory, whose reason has the sum.
    pub memory_leaves: Vec<(Leaf, Target)>,
    /// Names of volumes by what they are.
    volumes: BTreeMap<String, String>,
    names: BTreeSet<String>,
    /// Paths that something is mounted at.
    paths: BTreeSet<String>,
    /// Volumes that are filled from the image.
    pub filled: BTreeSet<String>,
}

impl<'a> Pod<'a> {
    /// Nothing is mounted yet.
    pub fn new(
        service: &'a Service,
        plan: &'a Plan<'a>,
        context: &'a Context<'a>,
        holder: &'a Holder,
        scope: Scope<'a>,
        image: Option<&'a ImageFacts>,
    ) -> Self {
        let devices = (0..service.compose.devices.len()).map(|number| format!("device-{number}"));
        Self {
            service,
            plan,
            context,
            holder,
            scope,
            image,
            result: PodStorage::default(),
            memory: 0,
            memory_leaves: Vec::new(),
            volumes: BTreeMap::new(),
            names: devices.chain([RESERVED.to_owned()]).collect(),
            paths: BTreeSet::new(),
            filled: BTreeSet::new(),
        }
    }

    /// The name of a volume: a new one, or that of the same.
    ///
    /// * `wanted`: folded, and numbered where another volume has it.
    /// * `same`: what two volumes that are one have in common; `None`: it is like no other.
    pub fn volume(&mut self, wanted: &str, same: Option<String>, volume: Volume) -> String {
        if let Some(name) = same.as_ref().and_then(|same| self.volumes.get(same)) {
            return name.clone();
        }
        let name = self.name(wanted);
        self.volumes.extend(same.map(|same| (same, name.clone())));
        self.result.volumes.push(Volume { name: name.clone(), ..volume });
        name
    }

    /// The name of the template of a claim, which is a volume of the pod as well.
    ///
    /// Returns whether it is new, too.
    pub fn template(&mut self, wanted: &str) -> (String, bool) {
        let same = format!("template {wanted}");
        if let Some(name) = self.volumes.get(&same) {
            return (name.clone(), false);
        }
        let name = self.name(wanted);
        self.volumes.insert(same, name.clone());
        (name, true)
    }

    fn name(&mut self, wanted: &str) -> String {
        let mut name = folded(wanted, LENGTH_MAX);
        let mut number = 2_u32;
        while !self.names.insert(name.clone()) {
            name = format!("{}-{number}", folded(wanted, LENGTH_MAX - 11));
            number += 1;
        }
        name
    }

    /// An empty folder that ends with the pod.
    pub fn empty(&mut self, wanted: &str, same: Option<String>, source: EmptyDirVolumeSource) -> String {
        self.volume(wanted, same, Volume { empty_dir: Some(source), ..Volume::default() })
    }

    /// Mounts a volume. `Err`: why it cannot be.
    ///
    /// Returns the number of the mount.
    pub fn mount(&mut self, mount: VolumeMount) -> Result<usize, String> {
        let path = mount.mount_path.trim_end_matches('/').to_owned();
        if path.is_empty() || !path.starts_with('/') {
            return Err("something is mounted below /, at an absolute path; choose one".to_owned());
        }
        if path.contains(':') {
            return Err("Kubernetes mounts nothing at a path with a colon; choose another".to_owned());
        }
        if !self.paths.insert(path) {
            return Err("something else is mounted at this path already; choose another".to_owned());
        }
        self.result.mounts.push(mount);
        Ok(self.result.mounts.len() - 1)
    }

    /// Whether something is mounted at a path.
    pub fn is_mounted(&self, path: &str) -> bool {
        self.paths.contains(path.trim_end_matches('/'))
    }

    /// Whether a text has placeholders, which only Swarm expands.
    pub fn expands(&self, text: &str) -> bool {
        self.context.stack.dialect == Dialect::Stack && text.contains("{{")
    }

    /// A text whose placeholders are the same for every pod. `Err`: why they are not.
    pub fn fixed(&self, text: &At<String>, ledger: &mut Ledger) -> Result<String, String> {
        if !self.expands(&text.value) {
            return Ok(text.value.clone());
        }
        let expanded = self.scope.expand(&text.value);
        if !expanded.is_static() {
            return Err(
                "its placeholders differ from pod to pod, which Kubernetes has no field for; write it out".to_owned()
            );
        }
        for (outcome, note) in expanded.notes {
            ledger.mark(text.leaf, outcome, note, None);
        }
        Ok(unprotected(&expanded.text))
    }

    /// Mounts what a mount of the stack asks for, and marks its leaves.
    ///
    /// * `volume`: the name of the pod's volume.
    /// * `field`: what it is in the volume: `hostPath`.
    /// * `part`: `subPath` or `subPathExpr` in the mount, in place of the stack's.
    pub fn attach(
        &mut self,
        mount: &Mount,
        volume: &str,
        field: &str,
        part: VolumeMount,
        ledger: &mut Ledger,
    ) -> Option<usize> {
        let target = match self.fixed(&mount.target, ledger) {
            Ok(target) => target,
            Err(reason) => {
                ledger.needs_input(mount.target.leaf, format!("{reason}; nothing is mounted there"));
                rest(mount, ledger);
                return None;
            }
        };
        let is_read_only = mount.read_only.is_some_and(|read_only| read_only.value) || part.read_only == Some(true);
        let placed = self.mount(VolumeMount {
            name: volume.to_owned(),
            mount_path: target,
            read_only: is_read_only.then_some(true),
            ..part
        });
        let index = match placed {
            Ok(index) => index,
            Err(reason) => {
                ledger.needs_input(mount.target.leaf, reason);
                rest(mount, ledger);
                return None;
            }
        };
        let is_template = field.starts_with("spec.");
        let source = match is_template {
            true => self.holder.field(field),
            false => self.holder.pod(&format!("volumes[name={volume}].{field}")),
        };
        ledger.converted(mount.kind.leaf, source.clone());
        if let Some(written) = &mount.source {
            ledger.converted(written.leaf, source);
        }
        let of_mount = |name: &str| self.holder.container(&format!("volumeMounts[{index}].{name}"));
        ledger.converted(mount.target.leaf, of_mount("mountPath"));
        if let Some(read_only) = mount.read_only {
            match read_only.value {
                true => ledger.converted(read_only.leaf, of_mount("readOnly")),
                false => ledger.agrees(read_only.leaf, "a mount can be written"),
            }
        }
        Some(index)
    }

    /// A field of a mount of the container.
    pub fn field_of_mount(&self, index: usize, name: &str) -> Target {
        self.holder.container(&format!("volumeMounts[{index}].{name}"))
    }
}

/// A text that was protected from Kubernetes' expansion, and stays without one.
pub fn unprotected(text: &str) -> String {
    text.replace("$$", "$")
}

/// The leaves of a mount that is not there.
pub fn refuse(mount: &Mount, outcome: Outcome, reason: &str, ledger: &mut Ledger) {
    for leaf in leaves(mount) {
        ledger.mark(leaf, outcome, reason, None);
    }
}

/// Leaves that belong to a mount whose target is refused.
fn rest(mount: &Mount, ledger: &mut Ledger) {
    for leaf in leaves(mount) {
        if leaf != mount.target.leaf {
            ledger.dropped(leaf, "nothing is mounted, as its target needs a decision");
        }
    }
}

/// All leaves of a mount.
fn leaves(mount: &Mount) -> Vec<Leaf> {
    // A new field does not compile until it is here.
    let Mount {
        kind,
        source,
        target,
        read_only,
        propagation,
        create_host_path,
        no_copy,
        subpath,
        tmpfs_size,
        tmpfs_mode,
        other,
    } = mount;
    let texts = [source, propagation, subpath].into_iter().flatten().map(|text| text.leaf);
    let flags = [read_only, create_host_path, no_copy].into_iter().flatten().map(|flag| flag.leaf);
    let numbers = tmpfs_size.iter().map(|size| size.leaf).chain(tmpfs_mode.iter().map(|mode| mode.leaf));
    let all = [kind.leaf, target.leaf].into_iter().chain(texts).chain(flags).chain(numbers);
    all.chain(other.iter().map(|(_, leaf)| *leaf)).collect()
}
