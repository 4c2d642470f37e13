//! Puts Cairn onto machines: its own container image, signed bundles for machines without a network, and installing.
//!
//! Invariants: each room is a plan without side effects and a small part that carries it out. Files appear whole: they are
//! written under another name, synced and renamed. What comes from outside, such as a bundle, is written nowhere before its
//! signature holds, and gets its name only once its digest is right.

pub mod bundle;
pub mod oci;
pub mod systemd;

mod executable;
mod output;
mod sha256;
mod tarball;

pub use executable::{Architecture, ExecutableError, OWN_EXECUTABLE};
pub use output::OutputError;
pub use sha256::Sha256;
