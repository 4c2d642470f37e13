//! What the system knows of a file, and how one is opened without following a link.
//!
//! Invariants: a file is first opened as a mere handle, which neither waits for a pipe nor touches a device, and only a regular file or a folder
//! is opened further, through that handle. Reading leaves the time of the last access as it was where the system allows that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};

/// Kinds of entries of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A folder.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Another name of an entry before it.
    Link,
    /// A named pipe.
    Fifo,
    /// A socket, which is not copied: it has no content, and the program that listens makes it.
    Socket,
    /// A character device.
    Character,
    /// A block device.
    Block,
}

impl Kind {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "folder",
            Self::File => "file",
            Self::Symlink => "symbolic link",
            Self::Link => "hard link",
            Self::Fifo => "pipe",
            Self::Socket => "socket",
            Self::Character => "character device",
            Self::Block => "block device",
        }
    }
}

/// A time of a file: seconds since 1970-01-01 00:00 UTC, and nanoseconds in 0 to 999,999,999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time(pub i64, pub u32);

/// Which file it is: device and number.
pub(super) type Identity = (u64, u64);

/// What the system knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    /// Permissions with the three bits above them.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Bytes that it occupies.
    pub(super) allocated: u64,
    /// How many names it has.
    pub(super) names: u32,
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    pub(super) atime: Time,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) identity: Identity,
    /// Whether a file system is mounted here.
    pub(super) is_mount: bool,
    /// Whether it may not be changed or only grow: `chattr +i`, `+a`.
    pub(super) is_locked: bool,
}

impl Facts {
    pub(super) fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let mode = u32::from(stat.stx_mode);
        let kind = match mode & 0o170_000 {
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Symlink,
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            0o020_000 => Kind::Character,
            0o060_000 => Kind::Block,
            _ => Kind::File,
        };
        let attributes = stat.stx_attributes;
        Ok(Self {
            kind,
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            allocated: stat.stx_blocks.saturating_mul(512),
            names: stat.stx_nlink,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            atime: Time(stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
            mtime: Time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: Time(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            identity: (u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor), stat.stx_ino),
            is_mount: attributes.contains(StatxAttributes::MOUNT_ROOT),
            is_locked: attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
        })
    }

    /// Whether nothing was written to it in between.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let stamp = |facts: &Self| (facts.identity, facts.size, facts.mtime, facts.ctime);
        stamp(self) == stamp(other)
    }

    /// Bytes that are read of it, without its holes.
    pub(super) fn bytes(&self) -> u64 {
        if self.kind == Kind::File { self.size.min(self.allocated) } else { 0 }
    }
}

/// A handle of an entry of a folder, whatever it is.
pub(super) fn open_handle(folder: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// The folder of a handle, to be read.
pub(super) fn open_folder(handle: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat(handle.as_fd(), ".", flags, Mode::empty());
    // Only its owner and root may leave the time of access alone.
    Ok(open(flags | OFlags::NOATIME).or_else(|_| open(flags))?)
}

/// The regular file of a handle, to be read.
pub(super) fn open_file(handle: impl AsFd) -> io::Result<File> {
    let path = handle_path(&handle);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat(CWD, &path, flags, Mode::empty());
    Ok(open(flags | OFlags::NOATIME).or_else(|_| open(flags))?.into())
}

/// A path of what is open, for calls that know no handles: proc(5), `/proc/self/fd`.
pub(super) fn handle_path(handle: impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}
