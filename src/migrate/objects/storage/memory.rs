//! Folders that end with the pod: memory, and volumes without a name.

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, VolumeMount};

use super::claims::quantity;
use super::pod::Pod;
use crate::migrate::report::{Ledger, Outcome};
use crate::migrate::stack::Mount;

/// What Docker gives a `tmpfs` without a mode.
const MODE: u32 = 0o1777;

impl Pod<'_> {
    /// A mount of type `tmpfs`.
    pub(super) fn tmpfs(&mut self, mount: &Mount, ledger: &mut Ledger) {
        let size = mount.tmpfs_size.map(|size| size.value).filter(|size| *size > 0);
        let name = self.empty(&format!("tmpfs-{}", base_name(&mount.target.value)), None, memory(size));
        if self.attach(mount, &name, "emptyDir", VolumeMount::default(), ledger).is_none() {
            return;
        }
        if let Some(size) = mount.tmpfs_size {
            let target = self.holder.pod(&format!("volumes[name={name}].emptyDir.sizeLimit"));
            match size.value {
                0 => ledger.agrees(size.leaf, "0: as large as the node's memory allows"),
                _ => ledger.converted(size.leaf, target),
            }
        }
        if let Some(mode) = mount.tmpfs_mode {
            let target = self.holder.pod(&format!("volumes[name={name}].emptyDir"));
            match mode.value == MODE {
                true => ledger.mark(
                    mode.leaf,
                    Outcome::Converted,
                    "everyone may write it; an emptyDir has no sticky bit",
                    Some(target),
                ),
                false => {
                    ledger.approximated(mode.leaf, target, "an emptyDir has no mode: everyone may write it (0777)")
                }
            }
        }
        self.count_memory(mount, &name, size);
    }

    /// A volume of the driver `local` that is memory.
    ///
    /// Returns the number of the mount.
    pub(super) fn memory_volume(
        &mut self,
        mount: &Mount,
        name: &str,
        size: Option<u64>,
        ledger: &mut Ledger,
    ) -> Option<usize> {
        let name = self.empty(name, Some(format!("memory {name}")), memory(size));
        let index = self.attach(mount, &name, "emptyDir", VolumeMount::default(), ledger)?;
        self.count_memory(mount, &name, size);
        Some(index)
    }

    fn count_memory(&mut self, mount: &Mount, name: &str, size: Option<u64>) {
        self.memory = self.memory.saturating_add(size.unwrap_or(0));
        let leaf = mount.tmpfs_size.map_or(mount.target.leaf, |size| size.leaf);
        self.memory_leaves.push((leaf, self.holder.pod(&format!("volumes[name={name}].emptyDir"))));
    }

    /// A volume without a name.
    pub(super) fn anonymous(&mut self, mount: &Mount, ledger: &mut Ledger) {
        let wanted = format!("anonymous-{}", base_name(&mount.target.value));
        let name = self.empty(&wanted, None, EmptyDirVolumeSource::default());
        let Some(index) = self.attach(mount, &name, "emptyDir", VolumeMount::default(), ledger) else { return };
        ledger.approximated(
            mount.target.leaf,
            self.holder.pod(&format!("volumes[name={name}].emptyDir")),
            "a volume without a name is new for each task, as here for each pod; Docker keeps the old one until somebody \
             removes it, and here it ends with its pod",
        );
        self.subpath(mount, index, ledger);
        self.fill(mount, &name, ledger);
    }

    /// The volumes that the image declares and the stack does not mount.
    pub(super) fn volumes_of_image(&mut self, ledger: &mut Ledger) {
        let Some(image) = self.image else { return };
        for path in &image.volumes {
            let is_path = path.starts_with('/') && path.len() > 1 && !path.contains(':');
            if !is_path || self.is_mounted(path) {
                continue;
            }
            let name = self.empty(&format!("image-{}", base_name(path)), None, EmptyDirVolumeSource::default());
            let placed =
                self.mount(VolumeMount { name: name.clone(), mount_path: path.clone(), ..VolumeMount::default() });
            if placed.is_err() {
                continue;
            }
            let target = self.holder.pod(&format!("volumes[name={name}].emptyDir"));
            ledger
                .added(target, format!("the image declares a volume at {path}; Docker makes a new one for each task"));
            self.fill_path(path, &name, ledger);
        }
    }

    /// What memory counts as, with the sum of the pod.
    pub(super) fn sum_of_memory(&mut self, ledger: &mut Ledger) {
        let Some(limit) = self.service.resources.memory_limit else {
            for (leaf, target) in std::mem::take(&mut self.memory_leaves) {
                let reason = "what is in it counts as memory of the container, as in Docker; there is no memory limit";
                ledger.mark(leaf, Outcome::Converted, reason, Some(target));
            }
            return;
        };
        let (sum, limit) = (quantity(self.memory).0, quantity(limit.value).0);
        for (leaf, target) in std::mem::take(&mut self.memory_leaves) {
            let reason = format!(
                "what is in it counts against the memory limit of {limit}; all such folders of the pod may have {sum} \
                 together, besides those without a size"
            );
            ledger.approximated(leaf, target, reason);
        }
    }
}

fn memory(size: Option<u64>) -> EmptyDirVolumeSource {
    EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: size.map(quantity) }
}

/// The last part of a path.
pub(super) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}
