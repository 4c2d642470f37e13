//! Files of a repository in a directory: whole and on stable storage, or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::PARTIAL;
use crate::base::Digest;

/// Digest of a file, read in pieces.
pub(in crate::snapshot) fn digest_of(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                progress(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}

pub(in crate::snapshot) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(in crate::snapshot) fn create_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

pub(in crate::snapshot) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Copies a file to a new one and syncs it.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<File> {
    let mut out = create(to)?;
    io::copy(&mut File::open(from)?, &mut out)?;
    out.sync_all()?;
    Ok(out)
}

/// Reads what was written to a file and synced, from the disk rather than from memory where the system lets that be asked for.
pub(super) fn read_back(written: &File, path: &Path, digest: &Digest) -> io::Result<()> {
    // Not every file system can; the bytes are compared in any case.
    let _ = rustix::fs::fadvise(written, 0, None, rustix::fs::Advice::DontNeed);
    match digest_of(path, &mut |_| {})? {
        found if found == *digest => Ok(()),
        _ => Err(io::Error::other("the disk gives back other bytes than were written to it")),
    }
}

/// A file that is removed when this is dropped, unless it was renamed.
pub(super) struct Leftover<'a>(pub(super) &'a Path);

impl Drop for Leftover<'_> {
    fn drop(&mut self) {
        // Not there when it was never made, or has its name.
        let _ = fs::remove_file(self.0);
    }
}

/// Passes on what is written and hashes it.
pub(super) struct Hashing {
    pub(super) out: File,
    pub(super) hasher: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A name for a temporary file in the directory of `path`.
pub(super) fn tempfile_beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{PARTIAL}{}-{name}{suffix}", std::process::id()))
}
