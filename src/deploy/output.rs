//! A file that appears whole under its name, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::base::{ByteSize, Fault};

/// Why a file could not be written. What had its name before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// There is no room for it.
    #[error("{path} needs {needed}, and {free} are free there; make room or write it elsewhere")]
    Space {
        /// Which one.
        path: PathBuf,
        /// Its length.
        needed: ByteSize,
        /// What an ordinary process may still write there.
        free: ByteSize,
    },
    /// The system refused.
    #[error("cannot write {path}")]
    Write {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl OutputError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Space { .. } | Self::Write { .. } => Fault::Environment,
        }
    }
}

/// The name under which a file is written until it is whole: with `.partial` at its end, which neither K3s nor anybody else
/// takes for the file.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    path.with_file_name(name)
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Refuses a file that there is no room for.
///
/// # Errors
/// [`OutputError::Space`], or [`OutputError::Write`] when the folder cannot be read.
pub(super) fn check_space(path: &Path, needed: u64) -> Result<(), OutputError> {
    check_space_in(folder_of(path), path, needed)
}

/// The same for something that is to lie in a folder; `path` is what the message names.
pub(super) fn check_space_in(folder: &Path, path: &Path, needed: u64) -> Result<(), OutputError> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(|error| OutputError::Write { path: path.to_owned(), source: error.into() })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        return Err(OutputError::Space { path: path.to_owned(), needed: ByteSize(needed), free: ByteSize(free) });
    }
    Ok(())
}

/// Writes a file with these permissions and this content, in the place of the one that has its name. On an error nothing of it
/// stays.
///
/// # Errors
/// See [`OutputError`].
pub fn write_file(path: &Path, mode: u32, content: &[u8]) -> Result<(), OutputError> {
    check_space(path, content.len() as u64)?;
    write_whole(path, mode, |out| {
        out.write_all(content).map_err(|source| OutputError::Write { path: path.to_owned(), source })
    })
}

/// Writes a file with these permissions; `fill` gives its content. On an error of either kind nothing of it stays.
///
/// # Errors
/// What `fill` says, or [`OutputError::Write`].
pub(super) fn write_whole<T, E: From<OutputError>>(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    let write = |source| OutputError::Write { path: path.to_owned(), source };
    // A rename would put a file in the place of a device.
    if path.symlink_metadata().is_ok_and(|there| !there.is_file() && !there.is_symlink()) {
        let what = "it exists and is not a file";
        return Err(write(io::Error::new(io::ErrorKind::AlreadyExists, what)).into());
    }
    let partial = partial(path);
    let result = (|| {
        // Left by a run that was interrupted. Made again, so that nobody else's file or link is written through.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write(error).into()),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial).map_err(write)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let value = fill(&mut out)?;
        out.flush().map_err(write)?;
        out.get_ref().sync_all().map_err(write)?;
        fs::rename(&partial, path).map_err(write)?;
        File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(write)?;
        Ok(value)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&partial);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_fails_half_way_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        fs::write(&path, "old").unwrap();
        let error = write_whole(&path, 0o644, |out| {
            out.write_all(b"new").unwrap();
            Err::<(), _>(OutputError::Write { path: path.clone(), source: io::ErrorKind::StorageFull.into() })
        });
        assert!(error.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(write_whole::<_, OutputError>(&path, 0o644, |_| Ok(())).is_err());
        use std::os::unix::fs::FileTypeExt as _;
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_leftover_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        fs::write(folder.path().join("image.tar.partial"), "a longer leftover").unwrap();
        write_whole::<_, OutputError>(&path, 0o644, |out| {
            out.write_all(b"new").map_err(|source| OutputError::Write { path: path.clone(), source })
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
