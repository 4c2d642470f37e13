//! Whose a volume is in Swarm: one for all, one for each node, for each slot, or for each task.
//!
//! A volume of the driver `local` is on one node. Several tasks share it where they are on one node, and have one each where they are not.

use super::super::labels;
use super::super::text::has_slot;
use super::super::update::{Lifetime, lifetime};
use super::driver_options::{LocalVolume, NfsExport, excerpt};
use crate::migrate::Dialect;
use crate::migrate::stack::{ModeKind, Service, Volume};

/// A volume with what is the same for all services that mount it.
pub struct PlannedVolume<'a> {
    /// As written.
    pub volume: &'a Volume,
    /// All services that mount it.
    pub users: Vec<&'a Service>,
    /// What its options say.
    local: LocalVolume,
    name: NameKind,
    has_global: bool,
    has_plural: bool,
}

/// What the name of a volume differs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameKind {
    Plain,
    Task,
    Slot,
    Service,
}

impl<'a> PlannedVolume<'a> {
    /// A volume that nothing mounts yet.
    pub fn of(volume: &'a Volume) -> Self {
        let name = volume.name.as_ref().map_or("", |name| name.value.as_str());
        let kind = match name {
            name if !name.contains("{{") => NameKind::Plain,
            name if name.contains(".Task.ID") || name.contains(".Task.Name") => NameKind::Task,
            name if has_slot(name) => NameKind::Slot,
            name if name.contains(".Service.") => NameKind::Service,
            // That of a node is one more name of what each node has of its own anyway.
            _ => NameKind::Plain,
        };
        let local = LocalVolume::of(&volume.driver_options);
        Self { volume, users: Vec::new(), local, name: kind, has_global: false, has_plural: false }
    }

    /// One more user, in the order of the stack.
    pub fn add(&mut self, service: &'a Service) {
        if self.users.last().is_none_or(|last| !std::ptr::eq(*last, service)) {
            self.users.push(service);
            self.has_global |= is_global(service);
            self.has_plural |= is_plural(service);
        }
    }
}

/// What a volume is to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nature<'a> {
    /// Nothing of it is the stack's.
    External,
    /// One folder.
    One {
        /// A quota in bytes.
        size: Option<u64>,
        /// Whether several pods are to have it, which are on one node then.
        is_shared: bool,
    },
    /// One folder for each service, as its name has the service's.
    PerService {
        /// A quota in bytes.
        size: Option<u64>,
    },
    /// One folder for each pod of the service.
    PerSlot {
        /// A quota in bytes.
        size: Option<u64>,
        /// Whether the name says so; otherwise it is by the node in Swarm.
        is_named: bool,
        /// Whether other services mount it, too.
        is_shared: bool,
    },
    /// One folder on each node.
    PerNode,
    /// A folder for each task.
    PerTask,
    /// A folder of the node that is there already.
    Folder {
        /// Its path.
        path: &'a str,
        /// Nothing is written to it.
        is_read_only: bool,
    },
    /// A folder of a server.
    Export(&'a NfsExport),
    /// Memory.
    Memory {
        /// Bytes.
        size: Option<u64>,
        /// Whether owner, group or mode are written.
        has_owner: bool,
        /// Whether other services mount it, too.
        is_shared: bool,
    },
    /// Cairn makes no object for it.
    Other {
        /// Why, and what to do.
        reason: String,
    },
}

impl<'a> Nature<'a> {
    /// What a volume is to one of its users.
    ///
    /// * `has_slots`: whether the user can be a StatefulSet.
    #[must_use]
    pub fn of(planned: &'a PlannedVolume<'_>, user: &Service, has_slots: bool, dialect: Dialect) -> Self {
        let volume = planned.volume;
        if volume.external.is_some_and(|external| external.value) {
            return Self::External;
        }
        if !volume.cluster.is_empty() {
            let reason = "a volume of a CSI driver: write a claim of a storage class of that driver";
            return Self::Other { reason: reason.to_owned() };
        }
        if let Some(driver) = volume.driver.as_ref().filter(|driver| !matches!(driver.value.as_str(), "local" | "")) {
            return Self::Other { reason: other_driver(&driver.value) };
        }
        let is_shared = planned.users.len() > 1;
        let size = match &planned.local {
            LocalVolume::Plain { size } => *size,
            LocalVolume::Folder { path, is_read_only } => return Self::Folder { path, is_read_only: *is_read_only },
            LocalVolume::Export(export) => return Self::Export(export),
            LocalVolume::Memory { size, has_owner } => {
                return Self::Memory { size: *size, has_owner: *has_owner, is_shared };
            }
            LocalVolume::Other { reason } => return Self::Other { reason: reason.clone() },
        };
        if dialect == Dialect::Compose && !planned.has_global {
            // `docker compose` runs everything on one machine, and expands no placeholders.
            return Self::One { size, is_shared: is_shared || planned.has_plural };
        }
        match planned.name {
            NameKind::Task => return Self::PerTask,
            NameKind::Slot => {
                return match (is_global(user), has_slots) {
                    (true, _) => Self::PerNode,
                    (false, true) => Self::PerSlot { size, is_named: true, is_shared },
                    (false, false) => {
                        let reason = "the pods of a job have no number, so that there is no claim for each; write one";
                        Self::Other { reason: reason.to_owned() }
                    }
                };
            }
            _ if planned.has_global => return Self::PerNode,
            NameKind::Service => {
                return match is_plural(user) && has_slots {
                    true => Self::PerSlot { size, is_named: false, is_shared: false },
                    false => Self::PerService { size },
                };
            }
            NameKind::Plain => {}
        }
        if !is_shared && planned.has_plural && has_slots {
            return Self::PerSlot { size, is_named: false, is_shared: false };
        }
        Self::One { size, is_shared: is_shared || planned.has_plural }
    }
}

/// Whether one of it is on each node.
#[must_use]
pub fn is_global(service: &Service) -> bool {
    matches!(service.mode.kind.map(|kind| kind.value), Some(ModeKind::Global | ModeKind::GlobalJob))
}

/// Whether several of it may run at a time.
#[must_use]
pub fn is_plural(service: &Service) -> bool {
    service.mode.replicas.is_some_and(|replicas| replicas.value > 1)
}

/// Whether it can be a StatefulSet: it runs on and on, and not by a schedule.
#[must_use]
pub fn has_slots(service: &Service) -> bool {
    let is_replicated = service.mode.kind.is_none_or(|kind| kind.value == ModeKind::Replicated);
    is_replicated && labels::schedule(service).is_none() && lifetime(service).0 == Lifetime::Server
}

fn other_driver(driver: &str) -> String {
    let name = driver.split(':').next().unwrap_or(driver);
    let advice = match name {
        "vieux/sshfs" => "Kubernetes mounts nothing by SSH: mount the folder on the nodes, or serve it by NFS",
        name if name.contains("glusterfs") => {
            "Kubernetes has no volumes of GlusterFS any more: serve the folder by NFS"
        }
        name if name.contains("netapp") || name.contains("trident") => "install the CSI driver Trident",
        name if name.contains("nfs") => "write a PersistentVolume with the NFS server and its folder",
        name if name.contains("rexray") || name.contains("cloudstor") => "install the CSI driver of that storage",
        name if name.contains("portworx") || name == "pxd" => "install the CSI driver of Portworx",
        name if name.contains("rbd") || name.contains("ceph") => "install ceph-csi",
        _ => "install a CSI driver of that storage",
    };
    format!("the cluster has no driver {:?} of Docker's; {advice}, and make the claim", excerpt(driver))
}
