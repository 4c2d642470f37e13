//! Small files that only their owner can read: written completely or not at all, and read again only when they changed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::base::{Fault, small_file};

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}")]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }

    /// Always the environment's.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Environment
    }
}

/// Reads a small file; `None` when it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match small_file::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at(path)(error)),
    }
}

/// Creates a directory that only its owner can read, and those above it.
pub(super) fn make_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    let make = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        give_to_owner_of(Some(folder_of(path)), &File::open(path)?)
    };
    make().map_err(FileError::at(path))
}

/// Writes `bytes` to `path` so that a power cut leaves either the old content or the new: written under another name,
/// synced, renamed.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let partial = path.with_added_extension("partial");
    let directory = folder_of(path);
    let write = || -> io::Result<()> {
        // Created from scratch, so that nothing is written through a link that someone else placed there.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        give_to_owner_of(Some(directory), &file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(FileError::at(path))
}

/// The folder of `path`: the working directory if it is only a name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Files that root creates in the data directory of a node that runs as another user must be readable by that user.
fn give_to_owner_of(directory: Option<&Path>, file: &File) -> io::Result<()> {
    let Some(directory) = directory.filter(|_| rustix::process::geteuid().is_root()) else { return Ok(()) };
    // A K3s volume belongs to root and every user may write to it; the node's files there belong to the node.
    let log = fs::symlink_metadata(directory.join("log")).ok().filter(fs::Metadata::is_dir);
    let owner = log.map_or_else(|| fs::metadata(directory), Ok)?;
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// An advisory lock that keeps other processes from writing the same files until it is dropped. It is held only
/// briefly.
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock on the file `name` in `directory`.
    pub(super) fn acquire(directory: &Path, name: &str) -> Result<Self, FileError> {
        let path = directory.join(name);
        let lock = || -> io::Result<File> {
            let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
            let file = options.open(&path)?;
            give_to_owner_of(Some(directory), &file)?;
            file.lock()?;
            Ok(file)
        };
        lock().map(|file| Self { _file: file }).map_err(FileError::at(&path))
    }
}

/// Shows whether a file has changed since it was read, without reading it. Symbolic links are followed, so it detects
/// when a Kubernetes volume swaps its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, u64, i64, i64, i64, i64)>);

impl Stamp {
    /// The stamp of a missing file.
    pub(super) const NONE: Self = Self(None);

    /// The stamp of the file as it is now. Take it before reading the file, so that a change in between is noticed.
    pub(super) fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|file| {
            (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec())
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::base::left_out::left_out;

    #[test]
    fn what_is_written_is_whole_private_and_seen_as_changed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("a/key");
        make_directory(path.parent().expect("a parent")).expect("made");
        assert_eq!(read(&path).expect("no error"), None);
        let before = Stamp::of(&path);
        write(&path, b"one").expect("written");
        let first = Stamp::of(&path);
        write(&path, b"two").expect("written");
        assert!(before != first && first != Stamp::of(&path) && Stamp::of(&path) == Stamp::of(&path));
        assert_eq!(read(&path).expect("no error").as_deref(), Some(&b"two"[..]));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o600, 0o700));
        let names = fs::read_dir(path.parent().expect("a parent")).expect("readable").count();
        assert_eq!(names, 1, "nothing is left beside it");
    }

    /// The installer runs as root and the node does not.
    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        if !rustix::process::geteuid().is_root() {
            left_out("making files for another user takes root");
            return;
        }
        let directory = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::chown(directory.path(), Some(65_532), Some(65_532)).expect("given away");
        let inner = directory.path().join("tls");
        make_directory(&inner).expect("made");
        write(&inner.join("key"), b"key").expect("written");
        drop(FileLock::acquire(&inner, "lock").expect("locked"));
        for path in [inner.clone(), inner.join("key"), inner.join("lock")] {
            let file = fs::metadata(&path).expect("there");
            assert_eq!((file.uid(), file.gid()), (65_532, 65_532), "{}", path.display());
        }
        // In a directory without a particular owner, the file belongs to the owner of the node's log.
        let volume = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(volume.path().join("log")).expect("made");
        std::os::unix::fs::chown(volume.path().join("log"), Some(65_532), Some(65_532)).expect("given away");
        write(&volume.path().join("token.json"), b"{}").expect("written");
        assert_eq!(fs::metadata(volume.path().join("token.json")).expect("there").uid(), 65_532);
    }

    #[test]
    fn a_swapped_link_is_seen() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("token"), "same length").expect("written");
        }
        symlink("1", at("..data")).expect("linked");
        symlink("..data/token", at("token")).expect("linked");
        let before = Stamp::of(&at("token"));
        symlink("2", at("..new")).expect("linked");
        fs::rename(at("..new"), at("..data")).expect("swapped");
        assert_ne!(before, Stamp::of(&at("token")));
    }

    #[test]
    fn a_file_lock_admits_one_holder() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("count");
        fs::write(&path, "0").expect("written");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _lock = FileLock::acquire(directory.path(), "lock").expect("locked");
                    let count: u32 = fs::read_to_string(&path).expect("read").parse().expect("a number");
                    fs::write(&path, (count + 1).to_string()).expect("written");
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).expect("read"), "8");
    }
}
