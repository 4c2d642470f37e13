//! A walk through a tree in a fixed order: a folder before what is in it, names by their bytes.
//!
//! Invariants: nothing recurses. A link is not followed, no device or pipe is opened, and another file system that is mounted in the tree is an
//! error. Two walks through equal trees give equal sequences.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::RawDir;

use super::chain::Chain;
use super::facts::{Facts, Identity, open_folder, open_handle};
use super::{DataError, Kind};

/// Names of a folder in the order of their bytes.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    spans: Vec<(u32, u8)>,
}

impl Names {
    /// Those of an open folder.
    pub(super) fn read(folder: impl AsFd) -> io::Result<Self> {
        let mut names = Self::default();
        let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
        let mut entries = RawDir::new(folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let start = u32::try_from(names.bytes.len());
            let (Ok(start), Ok(length)) = (start, u8::try_from(name.len())) else {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the folder has too many names"));
            };
            names.bytes.extend_from_slice(name);
            names.spans.push((start, length));
        }
        let Self { bytes, spans } = &mut names;
        spans.sort_unstable_by(|one, other| slice(bytes, *one).cmp(slice(bytes, *other)));
        spans.shrink_to_fit();
        Ok(names)
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        Some(slice(&self.bytes, *self.spans.get(index)?))
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.spans.binary_search_by(|span| slice(&self.bytes, *span).cmp(name)).is_ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| slice(&self.bytes, *span))
    }
}

fn slice(bytes: &[u8], (start, length): (u32, u8)) -> &[u8] {
    let start = start as usize;
    &bytes[start..start + usize::from(length)]
}

/// An entry of a tree.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) facts: Facts,
    /// A handle of it; of a folder one that can be read.
    pub(super) handle: OwnedFd,
    /// The path at which the same file was found before.
    pub(super) link: Option<Rc<[u8]>>,
}

impl Found {
    pub(super) fn kind(&self) -> Kind {
        match self.facts.kind {
            // It is not copied, so that nothing can be another name of it.
            Kind::Socket => Kind::Socket,
            _ if self.link.is_some() => Kind::Link,
            kind => kind,
        }
    }
}

#[derive(Debug)]
pub(super) enum Step {
    /// A folder, before what is in it.
    Enter(Facts),
    /// Anything else.
    Leaf(Found),
    /// A folder, after what is in it. The walk is in the folder around it again.
    Leave(Found),
}

struct Frame {
    names: Names,
    next: usize,
    facts: Facts,
    path_length: usize,
}

pub(super) struct Walk {
    chain: Chain,
    frames: Vec<Frame>,
    path: Vec<u8>,
    root: Option<OwnedFd>,
    /// First paths of files with several names of which not all were found.
    first: HashMap<Identity, (Rc<[u8]>, u32)>,
    /// A folder that is not part of the tree, although something leads to it.
    other: Option<Identity>,
}

impl Walk {
    /// * `root`: a folder that is open to be read.
    pub(super) fn new(root: OwnedFd) -> io::Result<Self> {
        let chain = Chain::new(open_folder(&root)?)?;
        Ok(Self { chain, frames: Vec::new(), path: Vec::new(), root: Some(root), first: HashMap::new(), other: None })
    }

    /// The same, and an error where the walk gets into this folder.
    pub(super) fn without(mut self, other: Identity) -> Self {
        self.other = Some(other);
        self
    }

    /// The path of the entry that was given last, below the root; empty: the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Its last part.
    pub(super) fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// The folder that the walk is in.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.chain.last()
    }

    /// The names in the folder that was entered last.
    pub(super) fn names(&self) -> Option<&Names> {
        self.frames.last().map(|frame| &frame.names)
    }

    fn failure(&self, error: io::Error) -> DataError {
        match error.kind() {
            // It was there when the folder was read.
            io::ErrorKind::NotFound if !self.path.is_empty() => self.in_use(),
            _ => DataError::read(&self.path, error),
        }
    }

    fn in_use(&self) -> DataError {
        DataError::InUse { path: super::display(&self.path) }
    }

    /// The next step; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Step>, DataError> {
        if let Some(root) = self.root.take() {
            let facts = Facts::of(&root).map_err(|error| self.failure(error))?;
            return self.enter(facts, None).map(Some);
        }
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        self.path.truncate(frame.path_length);
        let Some(name) = frame.names.get(frame.next) else { return self.leave().map(Some) };
        frame.next += 1;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let opened = open_handle(self.chain.last(), name);
        let handle = opened.map_err(|error| self.failure(error))?;
        let facts = Facts::of(&handle).map_err(|error| self.failure(error))?;
        if facts.is_mount || self.other == Some(facts.identity) {
            return Err(DataError::Mount { path: super::display(&self.path) });
        }
        if facts.kind == Kind::Directory {
            let folder = open_folder(&handle).map_err(|error| self.failure(error))?;
            return self.enter(facts, Some(folder)).map(Some);
        }
        let link = self.first_name(&facts);
        Ok(Some(Step::Leaf(Found { facts, handle, link })))
    }

    fn enter(&mut self, facts: Facts, folder: Option<OwnedFd>) -> Result<Step, DataError> {
        if let Some(folder) = folder {
            self.chain.push(folder).map_err(|error| self.failure(error))?;
        }
        let names = Names::read(self.chain.last()).map_err(|error| self.failure(error))?;
        self.frames.push(Frame { names, next: 0, facts, path_length: self.path.len() });
        Ok(Step::Enter(facts))
    }

    fn leave(&mut self) -> Result<Step, DataError> {
        let facts = self.frames.pop().map(|frame| frame.facts).ok_or_else(|| self.in_use())?;
        let handle = if self.frames.is_empty() {
            self.chain.root().try_clone_to_owned().map_err(|error| self.failure(error))?
        } else {
            let left = self.chain.pop().map_err(|error| self.failure(error))?;
            left.ok_or_else(|| self.in_use())?
        };
        Ok(Step::Leave(Found { facts, handle, link: None }))
    }

    fn first_name(&mut self, facts: &Facts) -> Option<Rc<[u8]>> {
        if facts.names < 2 {
            return None;
        }
        if let Some((first, missing)) = self.first.get_mut(&facts.identity) {
            let first = Rc::clone(first);
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.first.remove(&facts.identity);
            }
            return Some(first);
        }
        self.first.insert(facts.identity, (self.path.as_slice().into(), facts.names - 1));
        None
    }
}

/// The order in which a walk finds two paths.
pub(super) fn order(one: &[u8], other: &[u8]) -> Ordering {
    // Mostly one is below the other, and that is found fast.
    if other.starts_with(one) || one.starts_with(other) {
        return one.len().cmp(&other.len());
    }
    // No name has a byte 0, so that it can be what ends one.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(key).cmp(other.iter().map(key))
}

/// What is in a tree, by the system's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Entries of any kind, the root among them.
    pub(super) entries: u64,
    /// Regular files, each once.
    pub(super) files: u64,
    /// Bytes that are read, without holes.
    pub(super) bytes: u64,
    /// Bytes on the disk, folders among them.
    pub(super) allocated: u64,
    /// Entries that may not be changed.
    pub(super) locked: u64,
    /// Entries that have an inode of their own.
    pub(super) nodes: u64,
}

/// Walks through a tree, and adds up.
pub(super) fn measure(
    mut walk: Walk,
    mut check: impl FnMut(&[u8], &Facts) -> Result<(), DataError>,
) -> Result<Measure, DataError> {
    let mut sum = Measure::default();
    while let Some(step) = walk.next()? {
        let (facts, is_link) = match &step {
            Step::Leave(_) => continue,
            Step::Enter(facts) => (facts, false),
            Step::Leaf(found) => (&found.facts, found.link.is_some()),
        };
        check(walk.path(), facts)?;
        sum.entries += 1;
        sum.locked += u64::from(facts.is_locked);
        if !is_link {
            sum.nodes += 1;
            sum.files += u64::from(facts.kind == Kind::File);
            sum.bytes = sum.bytes.saturating_add(facts.bytes());
            sum.allocated = sum.allocated.saturating_add(facts.allocated);
        }
    }
    Ok(sum)
}
