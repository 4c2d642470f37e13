//! Owners, permissions, extended attributes and times of a file: read, and given to its copy.
//!
//! Extended attributes that belong to a machine and not to the data are not part of a tree: the labels of `SELinux`, which the target's policy
//! gives, the signatures of IMA and EVM, and what a network file system shows of its own. Access control lists are two attributes named
//! `system.posix_acl_*` (acl(5), xattr(7)). Invariant: what a copy has and its source has not is removed.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::facts::{Facts, Time, handle_path};
use super::{DataError, Kind, RawText, display};
use crate::base::Digest;

/// Longest list of names and longest value in bytes: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of linux/limits.h.
const LONGEST: usize = 64 << 10;

/// Attributes of the machine.
const OF_MACHINE: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

fn is_of_data(name: &[u8]) -> bool {
    let is_list = name.starts_with(b"system.posix_acl_");
    !OF_MACHINE.contains(&name) && (is_list || !name.starts_with(b"system."))
}

/// Reads into a buffer that is long enough.
fn read(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<u8>> {
    for length in [1 << 10, LONGEST] {
        let mut buffer = vec![0; length];
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::RANGE.into())
}

/// The names of the attributes in the order of their bytes.
fn names(path: &str) -> io::Result<Vec<Vec<u8>>> {
    let list = match read(|buffer| rustix::fs::listxattr(path, buffer)) {
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return Ok(Vec::new()),
        list => list?,
    };
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && is_of_data(name));
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_owned).collect();
    names.sort();
    Ok(names)
}

fn value(path: &str, name: &[u8]) -> io::Result<Vec<u8>> {
    read(|buffer| rustix::fs::getxattr(path, name, buffer))
}

/// The attributes of a file with the digests of their values.
pub(super) fn digests(handle: impl AsFd) -> io::Result<Vec<(RawText, String)>> {
    let path = handle_path(handle);
    let digest = |name: Vec<u8>| Ok((RawText::new(&name), Digest::of(&value(&path, &name)?).to_string()));
    names(&path)?.into_iter().map(digest).collect()
}

/// Gives a copy what its source has.
///
/// * `path`: below the roots, for messages.
pub(super) fn apply(source: impl AsFd, facts: &Facts, copy: impl AsFd, path: &[u8]) -> Result<(), DataError> {
    let (from, to) = (handle_path(source), handle_path(&copy));
    // The owner first: changing it removes the bits above the permissions, and what a program may do.
    let owner = (Some(Uid::from_raw(facts.uid)), Some(Gid::from_raw(facts.gid)));
    rustix::fs::chownat(&copy, "", owner.0, owner.1, AtFlags::EMPTY_PATH).map_err(|error| match error {
        Errno::PERM => DataError::Owner { path: display(path), uid: facts.uid, gid: facts.gid },
        error => DataError::write(path, error),
    })?;
    let wanted = names(&from).map_err(|error| DataError::read(path, error))?;
    for name in names(&to).map_err(|error| DataError::read(path, error))? {
        if !wanted.contains(&name) {
            let removed = rustix::fs::removexattr(&to, name.as_slice());
            removed.map_err(|error| refused(error, path, &name))?;
        }
    }
    for name in &wanted {
        let value = value(&from, name).map_err(|error| DataError::read(path, error))?;
        let set = rustix::fs::setxattr(&to, name.as_slice(), &value, XattrFlags::empty());
        set.map_err(|error| refused(error, path, name))?;
    }
    if facts.kind != Kind::Symlink {
        let mode = Mode::from_raw_mode(facts.mode);
        rustix::fs::chmod(&to, mode).map_err(|error| refused(error, path, b"permissions"))?;
    }
    let time = |Time(seconds, nanoseconds): Time| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time(facts.atime), last_modification: time(facts.mtime) };
    rustix::fs::utimensat(CWD, &to, &times, AtFlags::empty()).map_err(|error| DataError::write(path, error))
}

fn refused(error: Errno, path: &[u8], name: &[u8]) -> DataError {
    let (path_shown, name) = (display(path), display(name));
    match error {
        Errno::PERM | Errno::ACCESS => DataError::Permission { path: path_shown, name },
        Errno::OPNOTSUPP | Errno::NOSPC | Errno::TOOBIG | Errno::RANGE => {
            DataError::Unsupported { path: path_shown, name }
        }
        error => DataError::write(path, error),
    }
}
