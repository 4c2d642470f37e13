//! Puts Cairn onto machines: its own container image, manifests for K3s, signed bundles for machines without a
//! network, and installing.
//!
//! Invariants: each room is a plan without side effects and a small part that carries it out. Files appear whole: they are
//! written under another name, synced and renamed. What comes from outside, such as a bundle, is written nowhere before its
//! signature holds, and gets its name only once its digest is right.

pub mod bundle;
pub mod checkup;
pub mod k3s;
pub mod oci;
pub mod shape;
pub mod systemd;

mod change;
pub mod cluster;
mod elf;
mod executable;
pub(crate) mod external_secret;
mod host;
pub(crate) mod kube_object;
mod loader;
pub(crate) mod manifest;
mod node;
mod output;
mod plan;
mod release;
mod service;
mod sha256;
mod tarball;
mod tree;

pub use change::{Cause, Change, ChangeError, Changed, Node, Report, Runner};
pub use cluster::{Cluster, ClusterError, PodNode, Pods};
pub use executable::{Architecture, ExecutableError, OWN_EXECUTABLE, RELEASE_MARK};
pub use host::{ClusterNode, Distribution, Host, Role};
pub use node::{FormatOf, HostNode};
pub use output::{OutputError, write_file};
pub use plan::{Action, Finding, Need, Plan};
pub use release::{
    ImageFile, Installation, ManagedFile, NodeAddress, Pending, Platform, Program, Release, ReleaseError, command,
    current, folder,
};
pub use service::{CommandError, Systemd, UNIT, VERSION_MIN};
pub use sha256::Sha256;
pub(crate) use sha256::Sha256Hasher;
pub use tree::{Tree, TreeError, Volume};
