//! The files that a stack names: its parts, variables, configs and secrets.
//!
//! Invariants: a file is within the folder of the stack, by its real path, unless the user allows others; it is a regular file of at most
//! [`BYTES_MAX`] bytes, and all of them together have at most [`SUM_MAX`].

use std::cell::Cell;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::base::{Fault, regular_file};

/// Largest file. A config of a swarm has at most 1,000 kB.
const BYTES_MAX: u64 = 4 << 20;
/// Largest sum of all files that are read for one stack.
const SUM_MAX: u64 = 64 << 20;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{path} is not a regular file")]
    Kind {
        /// Which one.
        path: PathBuf,
    },
    /// It is not in the stack's folder.
    #[error("{path} is outside the stack's folder {root}; --allow-outside reads it")]
    Outside {
        /// Which one, as it really is.
        path: PathBuf,
        /// The folder.
        root: PathBuf,
    },
    /// Larger than anything that a swarm takes.
    #[error("{path} has {bytes} bytes, expected at most {BYTES_MAX}")]
    TooLarge {
        /// Which one.
        path: PathBuf,
        /// Its length, as far as it was read.
        bytes: u64,
    },
    /// Many files.
    #[error("the files of the stack have more than {SUM_MAX} bytes together")]
    Sum,
}

impl FileError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } => Fault::Environment,
            Self::Kind { .. } | Self::Outside { .. } | Self::TooLarge { .. } | Self::Sum => Fault::Caller,
        }
    }
}

/// What may be read.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    is_open: bool,
    room: Cell<u64>,
}

impl Files {
    /// * `root`: the folder of the stack's first file.
    /// * `allow_outside`: whether files elsewhere are read, too.
    ///
    /// # Errors
    /// When the folder is not there.
    pub fn new(root: &Path, allow_outside: bool) -> Result<Self, FileError> {
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        let real = root.canonicalize().map_err(|source| FileError::Read { path: root.to_owned(), source })?;
        Ok(Self { root: real, is_open: allow_outside, room: Cell::new(SUM_MAX) })
    }

    /// The folder that relative names are below.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads a file.
    ///
    /// * `base`: the folder that a relative name is below.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn read(&self, base: &Path, name: &str) -> Result<Vec<u8>, FileError> {
        let path = base.join(name);
        let read = |source| FileError::Read { path: path.clone(), source };
        let real = path.canonicalize().map_err(read)?;
        if !self.is_open && !real.starts_with(&self.root) {
            return Err(FileError::Outside { path: real, root: self.root.clone() });
        }
        let opened = regular_file::open(&real).map_err(read)?;
        let (file, _) = opened.ok_or_else(|| FileError::Kind { path: path.clone() })?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        let length = bytes.len() as u64;
        if length > BYTES_MAX {
            return Err(FileError::TooLarge { path, bytes: length });
        }
        self.room.set(self.room.get().checked_sub(length).ok_or(FileError::Sum)?);
        Ok(bytes)
    }
}
