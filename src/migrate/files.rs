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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tempfile::TempDir;

    use super::*;

    fn stack() -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("stack/sub")).expect("a folder");
        for name in ["outside.env", "stack/a.env", "stack/sub/b.env"] {
            fs::write(folder.path().join(name), name).expect("written");
        }
        folder
    }

    fn files(folder: &TempDir, allow_outside: bool) -> Files {
        Files::new(&folder.path().join("stack"), allow_outside).expect("the folder is there")
    }

    fn read(files: &Files, name: &str) -> Result<String, FileError> {
        files.read(files.root(), name).map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
    }

    #[test]
    fn names_are_below_the_folder_that_is_given_with_them() {
        let folder = stack();
        let files = files(&folder, false);
        assert_eq!(read(&files, "a.env").expect("read"), "stack/a.env");
        assert_eq!(read(&files, "./sub/../sub/b.env").expect("read"), "stack/sub/b.env");
        let sub = files.root().join("sub");
        assert_eq!(files.read(&sub, "b.env").expect("read"), b"stack/sub/b.env");
        assert_eq!(files.read(&sub, "../a.env").expect("read"), b"stack/a.env");
        let absolute = files.root().join("a.env");
        assert_eq!(read(&files, absolute.to_str().expect("UTF-8")).expect("read"), "stack/a.env");
    }

    #[test]
    fn files_outside_are_read_only_when_allowed() {
        let folder = stack();
        symlink(folder.path().join("outside.env"), folder.path().join("stack/link.env")).expect("a link");
        symlink("..", folder.path().join("stack/up")).expect("a link");
        symlink("sub/b.env", folder.path().join("stack/inner.env")).expect("a link");
        let absolute = folder.path().join("outside.env");
        let (closed, open) = (files(&folder, false), files(&folder, true));
        for name in
            ["../outside.env", "link.env", "up/outside.env", "sub/../../outside.env", absolute.to_str().expect("UTF-8")]
        {
            let error = read(&closed, name).expect_err(name);
            assert!(matches!(error, FileError::Outside { .. }), "{name}: {error}");
            assert!(error.to_string().ends_with("--allow-outside reads it"), "{error}");
            assert_eq!(read(&open, name).expect(name), "outside.env");
        }
        assert_eq!(read(&closed, "inner.env").expect("read"), "stack/sub/b.env");
    }

    #[test]
    fn a_folder_whose_name_begins_the_same_is_outside() {
        let folder = stack();
        fs::create_dir(folder.path().join("stack2")).expect("a folder");
        fs::write(folder.path().join("stack2/a.env"), "").expect("written");
        assert!(matches!(read(&files(&folder, false), "../stack2/a.env"), Err(FileError::Outside { .. })));
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_at_once() {
        let folder = stack();
        mknodat(CWD, folder.path().join("stack/pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        symlink("/dev/zero", folder.path().join("stack/zero")).expect("a link");
        symlink("loop", folder.path().join("stack/loop")).expect("a link");
        let (closed, open) = (files(&folder, false), files(&folder, true));
        for name in ["pipe", "sub", ".", ""] {
            assert!(matches!(read(&closed, name), Err(FileError::Kind { .. })), "{name}");
        }
        assert!(matches!(read(&open, "zero"), Err(FileError::Kind { .. })));
        for name in ["none.env", "loop", "a\0b", "a.env/x"] {
            let error = read(&closed, name).expect_err(name);
            assert!(matches!(error, FileError::Read { .. }), "{name:?}: {error}");
            assert_eq!(error.fault(), Fault::Environment);
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let folder = stack();
        let most = usize::try_from(BYTES_MAX).expect("small");
        fs::write(folder.path().join("stack/most"), vec![b'x'; most]).expect("written");
        fs::write(folder.path().join("stack/more"), vec![b'x'; most + 1]).expect("written");
        let files = files(&folder, false);
        assert!(matches!(read(&files, "more"), Err(FileError::TooLarge { .. })));
        for _ in 0..SUM_MAX / BYTES_MAX {
            assert_eq!(read(&files, "most").expect("read").len(), most);
        }
        assert!(matches!(read(&files, "most"), Err(FileError::Sum)));
        assert!(matches!(read(&files, "a.env"), Err(FileError::Sum)));
    }
}
