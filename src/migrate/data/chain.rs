//! The folders from the root of a tree down to one of them, open.
//!
//! Invariants: at most [`OPEN_MAX`] of them and the root are open at once, however deep the tree is. A folder that is opened again is found
//! through its child, and is the same as before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::facts::{Facts, Identity};

/// Most folders that are open at once, without the root.
const OPEN_MAX: usize = 48;

pub(super) struct Chain {
    levels: Vec<Level>,
}

struct Level {
    /// `None`: closed for now.
    fd: Option<OwnedFd>,
    identity: Identity,
}

impl Chain {
    pub(super) fn new(root: OwnedFd) -> io::Result<Self> {
        let identity = Facts::of(&root)?.identity;
        Ok(Self { levels: vec![Level { fd: Some(root), identity }] })
    }

    /// The root.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        open(self.levels.first())
    }

    /// The deepest folder.
    pub(super) fn last(&self) -> BorrowedFd<'_> {
        open(self.levels.last())
    }

    /// Goes into a folder of the deepest one.
    pub(super) fn push(&mut self, fd: OwnedFd) -> io::Result<()> {
        let identity = Facts::of(&fd)?.identity;
        if let Some(far) = self.levels.len().checked_sub(OPEN_MAX).filter(|far| *far > 0) {
            self.levels[far].fd = None;
        }
        self.levels.push(Level { fd: Some(fd), identity });
        Ok(())
    }

    /// Leaves the deepest folder. `None`: another folder is around it now, or it was the root.
    pub(super) fn pop(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.levels.len() < 2 {
            return Ok(None);
        }
        let Some(fd) = self.levels.pop().and_then(|level| level.fd) else { return Ok(None) };
        if let Some(parent) = self.levels.last_mut().filter(|parent| parent.fd.is_none()) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let around = rustix::fs::openat(&fd, "..", flags, Mode::empty())?;
            if Facts::of(&around)?.identity != parent.identity {
                return Ok(None);
            }
            parent.fd = Some(around);
        }
        Ok(Some(fd))
    }
}

fn open(level: Option<&Level>) -> BorrowedFd<'_> {
    level.and_then(|level| level.fd.as_ref()).expect("the first and the last are open").as_fd()
}
