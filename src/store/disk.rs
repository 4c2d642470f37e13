//! The few file operations the store needs, behind a trait, so that tests can cut the power and make any call fail.
//!
//! Paths are full paths; offsets and lengths are bytes. Nothing here retries: a failed sync in particular must not be
//! repeated, because the kernel may have dropped the dirty pages and would report success the second time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::base::Digest;

/// Whether a call failed because this process, or the machine, cannot open more files.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    code == Some(Errno::MFILE.raw_os_error()) || code == Some(Errno::NFILE.raw_os_error())
}

/// A file system.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Creates `path` and its parents, readable by the owner only; succeeds when it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a file for reading and writing; fails when it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists, for reading and, with `writable`, for writing.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file within its directory, replacing any file with that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a directory, in no order; names that are not UTF-8 are left out (Cairn creates none).
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Bytes that an ordinary process may still write to the file system of `path`.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`; on an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the written bytes durable, with the length if reading them back needs it.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the written bytes and all metadata durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Sets the length.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Reserves space, which then reads as zeros and counts in the length. Does nothing where the file system has no
    /// such call: the file then grows with each write.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;
}

/// Reads `buffer.len()` bytes or fails with `UnexpectedEof`.
pub(crate) fn read_exact_at(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    if file.read_at(buffer, offset)? == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, false)?;
    let length = file.len()?;
    if length > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; length as usize];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// A line with a checksum: the BLAKE3 of `text` in hex, a space, `text`, which has no line feed, and a line feed.
pub(crate) fn checked_line(text: &str) -> String {
    format!("{} {text}\n", Digest::of(text.as_bytes()))
}

/// The text of a line made by [`checked_line`]; `None` when it is damaged.
pub(crate) fn text_in(line: &[u8]) -> Option<&str> {
    let (digest, text) = std::str::from_utf8(line).ok()?.trim_end().split_once(' ')?;
    (Digest::of(text.as_bytes()).to_string() == digest).then_some(text)
}

/// Replaces a small file so that a crash leaves either the old or the new one, complete.
pub(crate) fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&temporary)?;
    file.write_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().expect("a file in the data directory has a parent"))
}

/// The machine's file system.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        // A store creates no links, so a link is foreign and may lead anywhere.
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        Ok(Arc::new(OpenOptions::new().read(true).write(writable).custom_flags(nofollow).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let mut total = 0;
        while !buffer.is_empty() {
            match FileExt::read_at(self, buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    total += count;
                    offset += count as u64;
                    buffer = &mut buffer[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), offset, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs two syncs in parallel: writers wait for both, and a journalling file system commits them as one. Runs them one
/// after the other where no thread can be started.
pub(crate) fn side_by_side<A: Send, B>(aside: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| match std::thread::Builder::new().spawn_scoped(scope, &aside) {
        Ok(thread) => {
            let done = here();
            (thread.join().expect("a disk does not panic"), done)
        }
        Err(_) => {
            let done = here();
            (aside(), done)
        }
    })
}
