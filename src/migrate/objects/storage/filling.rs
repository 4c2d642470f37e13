//! What Docker copies into a volume that is empty: the files that the image has at the mount's target, with the owner and the mode of their
//! folder. Kubernetes copies nothing, so a container before the service's does.
//!
//! Invariants: a volume with anything in it is left as it is, unless a copy of ours was cut off in it. No file is left behind that was not in
//! the image: some databases refuse a folder with one.

use k8s_openapi::api::core::v1::{Container, SecurityContext, VolumeMount};

use super::super::text::protected;
use super::pod::Pod;
use crate::migrate::report::Ledger;
use crate::migrate::stack::Mount;

/// Where the volume is while it is filled; the image's own files are at the target.
const FOLDER: &str = "/cairn-volume";
/// Copies `$1` into `$2`. `lost+found` is in every new file system of the kind ext4.
const SCRIPT: &str = r#"set -eu
from=$1 to=$2 mark=$2/.cairn-filling full=
for name in "$to"/* "$to"/.[!.]* "$to"/..?*; do
  case $name in "$to/lost+found" | "$mark") continue ;; esac
  if [ -e "$name" ] || [ -L "$name" ]; then full=1; fi
done
if [ -n "$full" ] && [ ! -e "$mark" ]; then exit 0; fi
: > "$mark"
cp -a "$from/." "$to/"
rm "$mark"
"#;

impl Pod<'_> {
    /// Fills the volume of a mount from the image, unless the mount says that it begins empty.
    pub(super) fn fill(&mut self, mount: &Mount, volume: &str, ledger: &mut Ledger) {
        if let Some(no_copy) = mount.no_copy {
            match no_copy.value {
                true => ledger.agrees(no_copy.leaf, "Kubernetes copies nothing into a volume"),
                false => ledger.agrees(no_copy.leaf, "Docker's own default"),
            }
            if no_copy.value {
                return;
            }
        }
        // Of a folder in a volume, Docker expects that it is there.
        if mount.subpath.is_some() || self.filled.contains(volume) {
            return;
        }
        if self.image.is_some() {
            self.fill_path(&mount.target.value, volume, ledger);
        } else {
            let reason = "where the image has files at this path, Docker copies them into an empty volume, and Kubernetes \
                          does not: name the image's archive with --images, and Cairn adds the copy";
            ledger.approximated(mount.target.leaf, self.holder.pod("initContainers"), reason);
        }
    }

    /// Fills a volume from a folder of the image, where that has something in it or an owner of its own.
    pub(super) fn fill_path(&mut self, path: &str, volume: &str, ledger: &mut Ledger) {
        let Some(image) = self.image else { return };
        let Some(folder) = image.folder(path) else { return };
        let is_owned = folder.owner.is_some_and(|owner| owner.user != 0 || owner.group != 0);
        let has_files = image.has_files_below(path) || !folder.is_complete;
        if !(has_files || is_owned) || !self.filled.insert(volume.to_owned()) {
            return;
        }
        let number = self.result.init_containers.len();
        let reference = self.service.image.as_ref().map(|image| image.value.clone());
        let security = SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            ..SecurityContext::default()
        };
        self.result.init_containers.push(Container {
            name: format!("fill-{number}"),
            image: reference,
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), protected(SCRIPT), "fill".to_owned()]),
            args: Some(vec![protected(path.trim_end_matches('/')), FOLDER.to_owned()]),
            security_context: Some(security),
            volume_mounts: Some(vec![VolumeMount {
                name: volume.to_owned(),
                mount_path: FOLDER.to_owned(),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        });
        let found = match has_files {
            true => format!("{} files", folder.files),
            false => "a folder with an owner of its own".to_owned(),
        };
        let reason = format!(
            "Docker copies what the image has at {path} ({found}) into an empty volume; this does so, as root, and needs \
             `sh` and `cp` in the image"
        );
        ledger.added(self.holder.pod(&format!("initContainers[{number}]")), reason);
    }
}
