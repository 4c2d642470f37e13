//! The data of volumes: where each one is, how it gets to the cluster, and the proof that it arrived.
//!
//! Owns the copy of a tree of files and the list of their hashes. Invariants: the source is only read. A link is never followed: every step is
//! taken from a folder that is open, by one name. Trees of any depth and names of any bytes take bounded stack; memory grows with the largest
//! folder and with the number of files that have several names, not with the tree.

mod attributes;
mod chain;
mod claim;
mod content;
mod copy;
mod destination;
mod docker;
mod facts;
mod journal;
mod manifest;
mod needs;
mod plan;
mod text;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::base::{ByteSize, Fault};
use crate::deploy::OutputError;

pub use self::copy::{Copied, CopyRequest, copy};
pub use self::facts::{Kind, Time};
pub use self::manifest::{Entry, Header, Manifest};
pub use self::needs::of_conversion;
pub use self::plan::{
    Plan, PlanRequest, PlannedVolume, VolumeNeed, Way, host_name, needs as volume_needs, plan, write as write_plan,
};
pub use self::text::{RawText, display};
pub use self::verify::{Aspect, Difference, Expected, Verified, verify};

/// How far work on a tree is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries that are done.
    pub entries: u64,
    /// Entries of the tree; 0: not counted.
    pub entries_total: u64,
    /// Bytes that are done, without holes.
    pub bytes: u64,
    /// Bytes of the tree; 0: not counted.
    pub bytes_total: u64,
}

/// Hears how far work is, and may stop it.
pub type Observer<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + 'a;

/// Why a tree was not copied, compared or planned.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused to read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The system refused to write.
    #[error("cannot write {path}: {source}")]
    Write {
        /// What.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// It is not a folder.
    #[error("{path} is not a folder")]
    Kind {
        /// Which one.
        path: String,
    },
    /// It changed while it was read.
    #[error(
        "{path} changed while it was read: it is in use; stop the service first (docker service scale SERVICE=0), then run this again"
    )]
    InUse {
        /// What.
        path: String,
    },
    /// One of the two folders is in the other.
    #[error("{inner} is inside {outer}; choose a target outside the source, and a source outside the target")]
    Inside {
        /// The one inside.
        inner: String,
        /// The one around it.
        outer: String,
    },
    /// The target has files of somebody else.
    #[error("{target} is not empty, and no copy that was interrupted is recorded for it; choose an empty folder")]
    NotEmpty {
        /// Which one.
        target: String,
    },
    /// The target is that of another copy.
    #[error("{target} holds a copy of {found}, expected one of {expected}; choose another target")]
    OtherSource {
        /// Which one.
        target: String,
        /// What was copied to it.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The copy that was interrupted has its list elsewhere.
    #[error("the copy to {target} was started with --manifest {found}; run it again with that")]
    OtherManifest {
        /// The target.
        target: String,
        /// The list of the copy.
        found: String,
    },
    /// The list would be part of a tree.
    #[error("the manifest {path} is inside {tree}; write it elsewhere")]
    ManifestInside {
        /// The list.
        path: String,
        /// The tree.
        tree: String,
    },
    /// Another copy runs.
    #[error("another copy to {target} is running; wait for it")]
    Locked {
        /// Which one.
        target: String,
    },
    /// There is no room.
    #[error("{target} needs {needed} more, and {free} are free there; make room or choose another target")]
    Space {
        /// The target.
        target: String,
        /// What is missing there.
        needed: ByteSize,
        /// What may still be written.
        free: ByteSize,
    },
    /// There is no room for as many files.
    #[error("{target} needs room for {needed} more files, and its file system has {free}; choose another target")]
    Nodes {
        /// The target.
        target: String,
        /// Files and folders that are missing there.
        needed: u64,
        /// How many may still be made.
        free: u64,
    },
    /// Only root may give files to others.
    #[error("{path} belongs to {uid}:{gid}, and only root can copy it so; run this as root")]
    Owner {
        /// What.
        path: String,
        /// The owner's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// Only root may do it.
    #[error("cannot set {name} of {path}: not permitted; run this as root")]
    Permission {
        /// What.
        path: String,
        /// Which property of it.
        name: String,
    },
    /// The target's file system lacks something.
    #[error("{path} has {name}, and the file system of the target cannot hold it; choose a target on another one")]
    Unsupported {
        /// What.
        path: String,
        /// Which property of it.
        name: String,
    },
    /// Another file system is mounted in the tree.
    #[error("another file system is mounted at {path}; unmount it, or copy it separately")]
    Mount {
        /// Where.
        path: String,
    },
    /// It is not a list of this program, or only part of one.
    #[error("{path}:{line}: {message}")]
    Manifest {
        /// Which one.
        path: String,
        /// Where, from 1.
        line: u64,
        /// What was found and what was expected.
        message: String,
    },
    /// The folder of a conversion does not fit.
    #[error("{0}")]
    Plan(String),
    /// The observer stopped it.
    #[error("stopped; run it again to resume")]
    Stopped,
    /// A file could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl DataError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. }
            | Self::Write { .. }
            | Self::InUse { .. }
            | Self::Locked { .. }
            | Self::Space { .. }
            | Self::Nodes { .. }
            | Self::Stopped => Fault::Environment,
            Self::Kind { .. }
            | Self::Inside { .. }
            | Self::NotEmpty { .. }
            | Self::OtherSource { .. }
            | Self::OtherManifest { .. }
            | Self::ManifestInside { .. }
            | Self::Owner { .. }
            | Self::Permission { .. }
            | Self::Unsupported { .. }
            | Self::Mount { .. }
            | Self::Plan(_) => Fault::Caller,
            Self::Manifest { .. } => Fault::Damage,
            Self::Output(error) => error.fault(),
        }
    }

    fn read(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Read { path: display(path), source: source.into() }
    }

    fn write(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Write { path: display(path), source: source.into() }
    }
}

/// The bytes of a path.
fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// A path for messages.
fn name_of(path: &Path) -> String {
    display(bytes_of(path))
}

/// The folder itself, without links on its path.
fn real_folder(path: &Path) -> Result<PathBuf, DataError> {
    let real = path.canonicalize().map_err(|error| DataError::read(bytes_of(path), error))?;
    if real.is_dir() { Ok(real) } else { Err(DataError::Kind { path: name_of(path) }) }
}
