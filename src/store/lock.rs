//! Only one process at a time opens a data directory.
//!
//! Two locks are taken: the file `LOCK`, which names its holder, and the directory itself, because a removed lock file
//! would no longer lock anything.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Name of the lock file in the data directory.
const NAME: &str = "LOCK";
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Held until dropped, or until the process ends for any reason.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    /// `None` where the file system cannot lock directories, such as NFS.
    _directory: Option<File>,
}

/// Why the lock was not acquired.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it; `pid` as recorded by that process.
    Held { path: PathBuf, pid: Option<u32> },
    /// The lock file could not be used.
    Io { path: PathBuf, source: io::Error },
}

impl Lock {
    /// Acquires the lock of a data directory without waiting.
    pub(crate) fn acquire(data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.join(NAME);
        match Self::try_take(data_dir, &path) {
            Ok(Ok(lock)) => Ok(lock),
            Ok(Err(pid)) => Err(LockError::Held { path, pid }),
            Err(source) => Err(LockError::Io { path, source }),
        }
    }

    fn try_take(data_dir: &Path, path: &Path) -> io::Result<Result<Self, Option<u32>>> {
        // Not truncated when opened: the content belongs to the holder until the lock is acquired. Links are not
        // followed: their target would be overwritten.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NOFOLLOW);
        let mut file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // If it cannot be read, only the process id is missing in the message.
                let _ = file.take(32).read_to_string(&mut text);
                return Ok(Err(text.lines().next().and_then(|line| line.parse().ok())));
            }
            Err(TryLockError::Error(source)) => return Err(source),
        }
        let directory = File::open(data_dir)?;
        let directory = match directory.try_lock() {
            Ok(()) => Some(directory),
            // The holder lost its file, and with it the process id.
            Err(TryLockError::WouldBlock) => return Ok(Err(None)),
            Err(TryLockError::Error(_)) => None,
        };
        // A full disk only removes the process id from a later message and must not prevent this start.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Ok(Self { _file: file, _directory: directory }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_process_and_is_free_when_dropped() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let lock = Lock::acquire(directory.path()).expect("free");
        match Lock::acquire(directory.path()) {
            Err(LockError::Held { path, pid }) => {
                assert_eq!(path, directory.path().join(NAME));
                assert_eq!(pid, Some(std::process::id()));
            }
            other => panic!("expected a held lock, found {other:?}"),
        }
        drop(lock);
        Lock::acquire(directory.path()).expect("free again");
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_held() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let lock = Lock::acquire(directory.path()).expect("free");
        std::fs::remove_file(directory.path().join(NAME)).expect("there");
        assert!(matches!(Lock::acquire(directory.path()), Err(LockError::Held { pid: None, .. })));
        drop(lock);
        Lock::acquire(directory.path()).expect("free again");
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let other = directory.path().join("precious");
        std::fs::write(&other, "text").expect("written");
        std::os::unix::fs::symlink(&other, directory.path().join(NAME)).expect("linked");
        assert!(matches!(Lock::acquire(directory.path()), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read_to_string(&other).expect("there"), "text");
    }
}
