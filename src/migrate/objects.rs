//! The objects of a cluster that do what a stack did.
//!
//! Invariants: equal input gives equal bytes. What Swarm does without being told is written out where Kubernetes does something else without
//! being told. Each leaf that a module here reads is marked in the [`Ledger`] by that module, with the field that it went to.

mod container;
mod labels;
mod names;
mod network;
mod placement;
mod probes;
mod resources;
mod security;
#[cfg(test)]
mod service_test;
mod text;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use super::report::Target;
use super::stack::Stack;

pub use self::names::{Names, folded};
pub use self::text::HostNames;

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the objects are.
    pub namespace: String,
    /// Objects that a stack does not ask for.
    pub with: BTreeSet<With>,
    /// Whether the security of pods is tightened beyond what Swarm gave them.
    pub harden: bool,
    /// Whether passwords in plain variables become Secrets.
    pub moves_passwords: bool,
    /// The content of secrets by the key in the file, which no swarm gives away.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The content of configs by the key in the file.
    pub configs: BTreeMap<String, Vec<u8>>,
}

/// Objects that a stack does not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum With {
    /// A HorizontalPodAutoscaler for each Deployment.
    Hpa,
    /// A PodDisruptionBudget for each workload of several pods.
    Pdb,
    /// A NetworkPolicy for each network.
    NetworkPolicy,
    /// An ExternalSecret in place of each Secret.
    ExternalSecrets,
}

/// What every module here needs to know.
pub struct Context<'a> {
    /// The stack.
    pub stack: &'a Stack,
    /// What was asked for.
    pub options: &'a Options,
    /// The names of the objects.
    pub names: &'a Names,
}

/// The object that has the pod of a service, for the fields of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Kind and name: `Deployment/search`.
    pub object: String,
    /// Where the pod's template is in it: `spec.template`, of a CronJob `spec.jobTemplate.spec.template`.
    pub template: String,
}

impl Holder {
    /// A field of the pod: `volumes[0]`.
    #[must_use]
    pub fn pod(&self, field: &str) -> Target {
        Target::new(&self.object, format!("{}.spec.{field}", self.template))
    }

    /// A field of the pod's first container: `image`.
    #[must_use]
    pub fn container(&self, field: &str) -> Target {
        self.pod(&format!("containers[0].{field}"))
    }

    /// A field of the pod's metadata: `annotations`.
    #[must_use]
    pub fn metadata(&self, field: &str) -> Target {
        Target::new(&self.object, format!("{}.metadata.{field}", self.template))
    }

    /// A field of the object itself: `spec.replicas`.
    #[must_use]
    pub fn field(&self, field: &str) -> Target {
        Target::new(&self.object, field)
    }
}
