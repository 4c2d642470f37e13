//! Owner and mode of the files of configs and secrets.
//!
//! Swarm gives such a file any owner; Kubernetes gives it to root, and where the pod has an `fsGroup` to that group, which may then read it.
//! Invariant: a file is not readable by everyone unless it was in Swarm.

use super::super::storage::Pod;
use crate::migrate::Dialect;
use crate::migrate::report::{Ledger, Target};
use crate::migrate::stack::FileMount;

/// What Swarm gives a file without a mode.
const MODE: u32 = 0o444;

/// The mode of a file, and the group that the pod needs for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Permission bits, at most 0777.
    pub mode: u32,
    /// `fsGroup`.
    pub group: Option<u32>,
}

impl Rights {
    /// The rights of a file, and the marks of its leaves.
    ///
    /// * `target`: the field of the mode.
    pub fn of(file: &FileMount, pod: &Pod<'_>, target: &Target, ledger: &mut Ledger) -> Self {
        if pod.context.stack.dialect == Dialect::Compose {
            let owners = [&file.uid, &file.gid].into_iter().flatten().map(|owner| owner.leaf);
            for leaf in owners.chain(file.mode.map(|mode| mode.leaf)) {
                ledger.dropped(leaf, "`docker compose` does not set it");
            }
            return Self { mode: MODE, group: None };
        }
        let written = file.mode.map_or(MODE, |mode| mode.value);
        let mode = written & 0o777;
        let owners = [&file.uid, &file.gid].map(|owner| owner.as_ref().map(|owner| owner.value.trim().parse::<u32>()));
        for (owner, number) in [&file.uid, &file.gid].into_iter().zip(&owners) {
            if let (Some(owner), Some(Err(_))) = (owner, number) {
                ledger.needs_input(owner.leaf, "the owner of a file is a number; write it");
            }
        }
        let [uid, gid] = owners.map(|owner| owner.and_then(Result::ok).unwrap_or(0));
        let mut mark_owner = |reason: &str, target: &Target| {
            for (owner, number) in [(&file.uid, uid), (&file.gid, gid)] {
                if let Some(owner) = owner {
                    match number {
                        0 => ledger.agrees(owner.leaf, "files of the cluster belong to root"),
                        _ => ledger.approximated(owner.leaf, target.clone(), reason),
                    }
                }
            }
        };
        let is_owned = uid != 0 || gid != 0;
        let is_root = user(pod) == Some(0);
        let rights = match mode & 0o004 == 0 && is_owned && !is_root {
            true => {
                let group = if gid == 0 { group_of(uid, pod) } else { gid };
                let reason = format!(
                    "files of the cluster belong to root: the pod has the group {group} (fsGroup), which may read it"
                );
                mark_owner(&reason, &pod.holder.pod("securityContext.fsGroup"));
                Self { mode: mode | (mode & 0o700) >> 3, group: Some(group) }
            }
            false => {
                let reason = match (is_owned, mode & 0o004 == 0) {
                    (true, true) => {
                        "files of the cluster belong to root, as which the container starts; a program that changes its \
                         user cannot read the file, unless its mode is 0444"
                    }
                    _ => "files of the cluster belong to root; everyone may read this one, as its mode says",
                };
                mark_owner(reason, target);
                Self { mode, group: None }
            }
        };
        if let Some(mode) = file.mode {
            if rights.mode != written {
                let reason = match written > 0o777 {
                    true => "Kubernetes has no bits for set-user-ID, set-group-ID and the sticky bit here".to_owned(),
                    false => format!(
                        "the mode is {:04o}, as the file belongs to root and is read by the group of the pod (fsGroup)",
                        rights.mode
                    ),
                };
                ledger.approximated(mode.leaf, target.clone(), reason);
            } else {
                ledger.converted(mode.leaf, target.clone());
            }
        }
        rights
    }
}

/// The number of the user that the container starts as, where it is known.
fn user(pod: &Pod<'_>) -> Option<u32> {
    let written = pod.service.user.as_ref().map(|user| user.value.as_str()).filter(|user| !user.is_empty());
    let of_image = || pod.image.map(|image| image.user.as_deref().unwrap_or("0"));
    let user = written.or_else(of_image)?;
    let name = user.split(':').next().unwrap_or(user);
    match name {
        "root" => Some(0),
        name => name.parse().ok().or_else(|| pod.image?.user_id(name)),
    }
}

/// A group that the owner of a file is in; any number does for the pod, whose processes all get it.
fn group_of(uid: u32, pod: &Pod<'_>) -> u32 {
    let written = pod.service.user.as_ref().and_then(|user| user.value.split_once(':')?.1.parse::<u32>().ok());
    let of_image = || pod.image.and_then(|image| image.primary_group_id(&uid.to_string()));
    written.or_else(of_image).filter(|group| *group != 0).unwrap_or(uid)
}
