//! Only one process at a time opens a data directory.
//!
//! Two locks are taken: the file `LOCK`, which names its holder, and the directory itself, because a removed lock file
//! would no longer lock anything. A third one, `LOCK.wanted`, asks the holder to release them: a process that only acts as
//! a node does so.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Name of the lock file in the data directory.
const NAME: &str = "LOCK";
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Name of the file that is locked by those who want the data directory.
const WANTED: &str = "LOCK.wanted";

/// Asks the process that holds a data directory to release it. In force until dropped, or until the process ends for any
/// reason.
#[derive(Debug)]
pub struct HandoverRequest {
    _file: File,
}

impl HandoverRequest {
    /// Makes the request.
    ///
    /// # Errors
    /// When the file cannot be created or locked.
    pub fn make(data_dir: &Path) -> io::Result<Self> {
        let file = open_private(&data_dir.join(WANTED))?;
        // Several processes may want it.
        file.lock_shared()?;
        Ok(Self { _file: file })
    }

    /// Whether another process requests the data directory.
    #[must_use]
    pub fn is_made(data_dir: &Path) -> bool {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(NOFOLLOW);
        // No file: nobody has wanted it so far.
        let Ok(file) = options.open(data_dir.join(WANTED)) else { return false };
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    }
}

/// Whether a process has a data directory open.
#[must_use]
pub fn is_open(data_dir: &Path) -> bool {
    let mut options = OpenOptions::new();
    let Ok(file) = options.read(true).custom_flags(NOFOLLOW).open(data_dir.join(NAME)) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The process that holds a lock, for people: with its program and verb, such as `process 1234 (cairn mcp)`.
#[must_use]
pub fn holder(pid: Option<u32>) -> String {
    let Some(pid) = pid else { return "another process".to_owned() };
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).filter(|word| !word.is_empty());
    let Some(program) = words.next() else { return format!("process {pid}") };
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    // The verb, and nothing more: the rest may hold a token.
    let verb = words.find(|word| word != "--json").filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
    let command = [program].into_iter().chain(verb.map(String::from)).collect::<Vec<_>>().join(" ");
    format!("process {pid} ({})", command.escape_debug())
}

/// Opens or creates a file that only its owner can use. Links are not followed: their target would be overwritten.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NOFOLLOW).open(path)
}

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
        // Not truncated when opened: the content belongs to the holder until the lock is acquired.
        let mut file = open_private(path)?;
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
    fn a_handover_is_requested_for_as_long_as_somebody_wants_it() {
        let directory = tempfile::tempdir().expect("temporary directory");
        assert!(!HandoverRequest::is_made(directory.path()));
        let requests = [(); 2].map(|()| HandoverRequest::make(directory.path()).expect("made"));
        for request in requests {
            assert!(HandoverRequest::is_made(directory.path()));
            drop(request);
        }
        assert!(!HandoverRequest::is_made(directory.path()));
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
