//! Why a repository could not be read or written.

use std::io;
use std::path::PathBuf;

use super::super::bucket::BucketError;
use super::super::crypt::KeyError;
use super::super::manifest::ManifestError;
use super::super::marker::MarkerError;
use super::super::target_check::TargetError;
use super::super::whose::WhoseError;
use crate::base::{Digest, Fault};

/// Why a repository did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The bucket failed.
    #[error("{name} in the bucket")]
    Bucket {
        /// The requested name.
        name: String,
        /// The service's error.
        source: BucketError,
    },
    /// A file that a manifest names is not there.
    #[error("{name} is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A file's content is not what the manifest says.
    #[error("{name}: digest is {actual}, the manifest says {expected}")]
    DigestMismatch {
        /// Its name.
        name: String,
        /// The expected value.
        expected: String,
        /// The actual value.
        actual: Digest,
    },
    /// A manifest cannot be used.
    #[error("{name}")]
    Manifest {
        /// Its name.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// The repository's own description of itself cannot be used.
    #[error("{name} of {target}")]
    Marker {
        /// Its name.
        name: String,
        /// Where.
        target: String,
        /// Why.
        source: MarkerError,
    },
    /// The content is not what this node stored there.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It is unclear whose snapshots are meant.
    #[error(transparent)]
    Whose(#[from] WhoseError),
    /// A removed file still exists.
    #[error("{target} still has {name} after it was removed")]
    NotRemoved {
        /// What.
        name: String,
        /// Where.
        target: String,
    },
    /// The file is encrypted and there is no key.
    #[error("{name} is encrypted; set snapshot.encryption_key_file to the key that it was written with")]
    NoKey {
        /// Its name.
        name: String,
    },
    /// The file does not open with the key.
    #[error(
        "{name} does not open with the key of snapshot.encryption_key_file: the key is another one, or the file is damaged"
    )]
    WrongKey {
        /// Its name.
        name: String,
    },
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no such snapshot.
    #[error("there is no snapshot {id} in {target}; `cairn snapshot list` shows what there is")]
    NoSuchSnapshot {
        /// The requested name.
        id: String,
        /// Where.
        target: String,
    },
    /// There is no snapshot at all.
    #[error("there is no snapshot in {target}; `cairn snapshot create` makes one")]
    Empty {
        /// Where.
        target: String,
    },
}

impl RepositoryError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Write { .. } | Self::Marker { .. } | Self::NotRemoved { .. } => {
                Fault::Environment
            }
            Self::Target(error) => error.fault(),
            Self::Whose(error) => error.fault(),
            Self::Bucket { source, .. } => source.fault(),
            Self::Missing { .. } | Self::DigestMismatch { .. } => Fault::Damage,
            Self::Manifest { source, .. } => source.fault(),
            Self::NoKey { .. } | Self::WrongKey { .. } | Self::NoSuchSnapshot { .. } | Self::Empty { .. } => {
                Fault::Caller
            }
            Self::Key(error) => error.fault(),
        }
    }
}
