//! Copies a tree, and writes the list of what it read.
//!
//! Invariants: the source is only read, and an error is reported where it changed meanwhile. A file gets its name in the target when its content
//! and its attributes are complete. Until a folder is complete, only root can enter its copy. A copy that was interrupted at any point is resumed
//! by the same call: a file whose size, time and hash are right is not written again, and what is not in the source is removed.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::chain::Chain;
use super::content::{Content, Method};
use super::destination::{Paths, check_space, check_target, owner};
use super::facts::{Facts, Identity, Kind, open_file, open_folder, open_handle};
use super::journal::Journal;
use super::manifest::{Entry, Footer, Manifest, line};
use super::walk::{Found, Measure, Names, Step, Walk, measure};
use super::{DataError, Observer, Progress, attributes, bytes_of, display, name_of, verify};

/// Name of a file that is not complete, in the root of the target.
const PARTIAL: &str = ".cairn-migrate.partial";
/// Sockets that are listed by name.
const SOCKETS_MAX: usize = 100;

/// What is to be copied.
#[derive(Debug, Clone, Copy)]
pub struct CopyRequest<'a> {
    /// The tree.
    pub source: &'a Path,
    /// Where its copy is to be: an empty folder, none, or that of a copy that was interrupted.
    pub target: &'a Path,
    /// Where the list is written; `None`: next to the target.
    pub manifest: Option<&'a Path>,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Entries of the tree.
    pub entries: u64,
    /// Files that were written.
    pub files: u64,
    /// Bytes of files that were written, without holes.
    pub bytes: u64,
    /// Files of an earlier run that were right.
    pub files_before: u64,
    /// Sockets, which are not copied, by name; at most 100.
    pub sockets: Vec<String>,
    /// How many they are.
    pub sockets_total: u64,
    /// Entries that may not be changed or only grow (`chattr +i`, `+a`), which their copies may.
    pub locked: u64,
    /// Where the list is.
    pub manifest: PathBuf,
}

/// Copies a tree.
///
/// # Errors
/// See [`DataError`]. What was copied stays, and the same call resumes.
pub fn copy(request: &CopyRequest<'_>, observer: &mut Observer<'_>) -> Result<Copied, DataError> {
    let paths = Paths::of(request)?;
    let open = |path: &Path| {
        let opened = open_handle(CWD, bytes_of(path)).and_then(open_folder);
        opened.map_err(|error| DataError::read(bytes_of(path), error))
    };
    let marker = paths.read_marker()?;
    let source = open(&paths.source)?;
    // Everything that can be refused is, before anything is written.
    let is_resumed = check_target(&paths, marker.as_ref(), request.manifest.is_some())?;
    let paths = match &marker {
        Some(marker) if is_resumed && request.manifest.is_none() => {
            use std::os::unix::ffi::OsStrExt as _;
            Paths { manifest: PathBuf::from(std::ffi::OsStr::from_bytes(&marker.manifest.0)), ..paths }
        }
        _ => paths,
    };
    let before =
        if is_resumed { measure(walk(open(&paths.target)?, None)?, |_, _| Ok(()))? } else { Measure::default() };
    let target_identity = if paths.target.exists() { Some(identity_of(&open(&paths.target)?)?) } else { None };
    let sum = measure(walk(source.try_clone().map_err(|error| DataError::read(b"", error))?, target_identity)?, owner)?;
    check_space(&paths.target, &sum, &before)?;
    if !paths.target.exists() {
        let made = rustix::fs::mkdir(&paths.target, Mode::RWXU);
        made.map_err(|error| DataError::write(bytes_of(&paths.target), error))?;
    }
    let target = open(&paths.target)?;
    rustix::fs::flock(&target, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => DataError::Locked { target: name_of(&paths.target) },
        error => DataError::write(bytes_of(&paths.target), error),
    })?;
    paths.write_marker(false)?;
    let journal = Journal::open(&paths.manifest, &paths.source)?;
    let walk = walk(source, Some(identity_of(&target)?))?;
    let progress = Progress { entries_total: sum.entries, bytes_total: sum.bytes, ..Progress::default() };
    let mut copier = Copier {
        partial: partial_name(&walk)?,
        walk,
        target: Chain::new(target).map_err(|error| DataError::read(b"", error))?,
        journal,
        content: Content::new(),
        progress,
        observer,
        is_resumed,
        shared: HashSet::new(),
        copied: Copied { manifest: paths.manifest.clone(), locked: sum.locked, ..Copied::default() },
    };
    copier.run()?;
    let Copier { journal, copied, progress, .. } = copier;
    let footer = Footer { entries: progress.entries, bytes: progress.bytes };
    journal.finish(footer)?;
    // What was read early may have changed late.
    let mut changed = None;
    verify::source_changes(&mut Manifest::open(&paths.manifest)?, &paths.source, &mut |path| {
        changed.get_or_insert_with(|| display(path));
    })?;
    if let Some(path) = changed {
        remove_footer(&paths.manifest, footer)?;
        return Err(DataError::InUse { path });
    }
    paths.write_marker(true)?;
    Ok(copied)
}

/// Without its last line a list is that of a copy that did not finish.
fn remove_footer(manifest: &Path, footer: Footer) -> Result<(), DataError> {
    let cut = || {
        let file = File::options().write(true).open(manifest)?;
        let length = file.metadata()?.len().saturating_sub(line(&footer).len() as u64);
        file.set_len(length)
    };
    cut().map_err(|error| DataError::write(bytes_of(manifest), error))
}

/// A walk through a folder that is open, which does not get into another one.
fn walk(folder: OwnedFd, other: Option<Identity>) -> Result<Walk, DataError> {
    let walk = Walk::new(folder).map_err(|error| DataError::read(b"", error))?;
    Ok(match other {
        Some(other) => walk.without(other),
        None => walk,
    })
}

fn identity_of(folder: &OwnedFd) -> Result<Identity, DataError> {
    Ok(Facts::of(folder).map_err(|error| DataError::read(b"", error))?.identity)
}

/// A name that the root of the source has not.
fn partial_name(walk: &Walk) -> Result<Vec<u8>, DataError> {
    let names = open_folder(walk.folder()).and_then(Names::read).map_err(|error| DataError::read(b"", error))?;
    let mut name = PARTIAL.as_bytes().to_owned();
    while names.contains(&name) {
        name.push(b'_');
    }
    Ok(name)
}

struct Copier<'a, 'b> {
    walk: Walk,
    target: Chain,
    journal: Journal,
    content: Content,
    progress: Progress,
    observer: &'a mut Observer<'b>,
    /// Name of the file that is written, in the root of the target.
    partial: Vec<u8>,
    is_resumed: bool,
    /// Files of an earlier run with several names which are in use again.
    shared: HashSet<Identity>,
    copied: Copied,
}

impl Copier<'_, '_> {
    fn run(&mut self) -> Result<(), DataError> {
        while let Some(step) = self.walk.next()? {
            self.observe()?;
            match step {
                Step::Enter(facts) => self.enter(&facts)?,
                Step::Leaf(found) => self.leaf(&found)?,
                Step::Leave(found) => self.leave(&found)?,
            }
        }
        self.sync()
    }

    fn observe(&mut self) -> Result<(), DataError> {
        if (self.observer)(&self.progress).is_break() {
            return Err(DataError::Stopped);
        }
        Ok(())
    }

    fn writing(&self, error: impl Into<io::Error>) -> DataError {
        DataError::write(self.walk.path(), error)
    }

    fn is_root(&self) -> bool {
        self.walk.path().is_empty()
    }

    fn enter(&mut self, facts: &Facts) -> Result<(), DataError> {
        if !self.is_root() {
            let name = self.walk.name();
            let there = self.there(name)?.filter(|(_, there)| there.kind == Kind::Directory);
            if there.is_none() {
                remove(self.target.last(), name).map_err(|error| self.writing(error))?;
                rustix::fs::mkdirat(self.target.last(), name, Mode::RWXU).map_err(|error| self.writing(error))?;
            }
            let opened = open_handle(self.target.last(), name).and_then(open_folder);
            let folder = opened.map_err(|error| self.writing(error))?;
            self.target.push(folder).map_err(|error| DataError::write(self.walk.path(), error))?;
        }
        rustix::fs::fchmod(self.target.last(), Mode::RWXU).map_err(|error| match error {
            Errno::PERM => DataError::Permission { path: display(self.walk.path()), name: "permissions".to_owned() },
            error => self.writing(error),
        })?;
        if self.is_resumed {
            let own = self.walk.names();
            let names = open_folder(self.target.last()).and_then(Names::read).map_err(|error| self.writing(error))?;
            for name in names.iter().filter(|name| !own.is_some_and(|own| own.contains(name))) {
                remove(self.target.last(), name).map_err(|error| self.writing(error))?;
            }
        }
        let entry = Entry::of_folder(self.walk.path(), facts, self.walk.folder())?;
        self.add(&entry)
    }

    fn leave(&mut self, found: &Found) -> Result<(), DataError> {
        self.check_unchanged(found, &found.handle)?;
        if self.is_root() {
            return attributes::apply(&found.handle, &found.facts, self.target.root(), b"");
        }
        let left = self.target.pop().map_err(|error| DataError::write(self.walk.path(), error))?;
        let folder = left.ok_or_else(|| DataError::InUse { path: display(self.walk.path()) })?;
        attributes::apply(&found.handle, &found.facts, &folder, self.walk.path())
    }

    fn leaf(&mut self, found: &Found) -> Result<(), DataError> {
        let mut entry = Entry::of_leaf(self.walk.path(), found)?;
        match entry.kind {
            Kind::File => self.file(found, &mut entry)?,
            Kind::Link => self.link(found)?,
            Kind::Socket => {
                remove(self.target.last(), self.walk.name()).map_err(|error| self.writing(error))?;
                self.copied.sockets_total += 1;
                if self.copied.sockets.len() < SOCKETS_MAX {
                    self.copied.sockets.push(display(self.walk.path()));
                }
            }
            Kind::Directory | Kind::Symlink | Kind::Fifo | Kind::Character | Kind::Block => self.node(found, &entry)?,
        }
        self.observe()?;
        self.add(&entry)
    }

    fn add(&mut self, entry: &Entry) -> Result<(), DataError> {
        self.journal.add(entry)?;
        self.progress.entries += 1;
        self.copied.entries += 1;
        Ok(())
    }

    /// What the target has under a name.
    fn there(&self, name: &[u8]) -> Result<Option<(OwnedFd, Facts)>, DataError> {
        let there = match open_handle(self.target.last(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            there => there.and_then(|there| Facts::of(&there).map(|facts| (there, facts))),
        };
        let (there, facts) = there.map_err(|error| self.writing(error))?;
        if facts.is_mount {
            return Err(DataError::Mount { path: display(self.walk.path()) });
        }
        Ok(Some((there, facts)))
    }

    fn check_unchanged(&self, found: &Found, handle: impl AsFd) -> Result<(), DataError> {
        let now = Facts::of(handle).map_err(|error| DataError::read(self.walk.path(), error))?;
        match now.is_as(&found.facts) {
            true => Ok(()),
            false => Err(DataError::InUse { path: display(self.walk.path()) }),
        }
    }

    fn file(&mut self, found: &Found, entry: &mut Entry) -> Result<(), DataError> {
        let (facts, done) = (&found.facts, self.progress.bytes);
        let source = open_file(&found.handle).map_err(|error| DataError::read(self.walk.path(), error))?;
        if self.reuse(found, &source, entry)? {
            self.copied.files_before += 1;
        } else {
            self.write(found, &source, entry)?;
            self.copied.files += 1;
            self.copied.bytes = self.copied.bytes.saturating_add(facts.bytes());
        }
        self.progress.bytes = done.saturating_add(facts.bytes());
        Ok(())
    }

    /// Leaves a file of an earlier run where it is right.
    fn reuse(&mut self, found: &Found, source: &File, entry: &mut Entry) -> Result<bool, DataError> {
        let facts = &found.facts;
        let Some((there, copy)) = self.there(self.walk.name())? else { return Ok(false) };
        let is_alike = copy.kind == Kind::File && (copy.size, copy.mtime) == (facts.size, facts.mtime);
        // A file that has a name too many would change under that one, too.
        let is_apart = copy.names == 1 || (facts.names > 1 && !self.shared.contains(&copy.identity));
        if !is_alike || !is_apart {
            return Ok(false);
        }
        let method = Method::of(facts);
        let hash = match self.journal.hash_before(entry).filter(|hash| hash.method == method) {
            Some(hash) => hash,
            None => self.hash(source, facts.size, method)?,
        };
        self.check_unchanged(found, source)?;
        let file = open_file(&there).map_err(|error| self.writing(error))?;
        if self.hash(&file, facts.size, method)? != hash {
            return Ok(false);
        }
        attributes::apply(&found.handle, facts, &there, self.walk.path())?;
        if copy.names > 1 {
            self.shared.insert(copy.identity);
        }
        entry.hash = Some(hash);
        Ok(true)
    }

    fn hash(&mut self, file: &File, size: u64, method: Method) -> Result<super::content::Hash, DataError> {
        let (observer, progress) = (&mut self.observer, &self.progress);
        self.content.read(file, size, method, self.walk.path(), |_, _| match observer(progress) {
            ControlFlow::Break(()) => Err(DataError::Stopped),
            ControlFlow::Continue(()) => Ok(()),
        })
    }

    fn write(&mut self, found: &Found, source: &File, entry: &mut Entry) -> Result<(), DataError> {
        let facts = &found.facts;
        remove(self.target.root(), &self.partial).map_err(|error| self.writing(error))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.target.root(), self.partial.as_slice(), flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(opened.map_err(|error| self.writing(error))?);
        self.observe()?;
        file.set_len(facts.size).map_err(|error| self.writing(error))?;
        let (observer, progress, path) = (&mut self.observer, &mut self.progress, self.walk.path());
        let hash = self.content.read(source, facts.size, Method::of(facts), path, |offset, bytes| {
            file.write_all_at(bytes, offset).map_err(|error| DataError::write(path, error))?;
            progress.bytes = progress.bytes.saturating_add(bytes.len() as u64);
            match observer(progress) {
                ControlFlow::Break(()) => Err(DataError::Stopped),
                ControlFlow::Continue(()) => Ok(()),
            }
        })?;
        self.check_unchanged(found, source)?;
        attributes::apply(&found.handle, facts, &file, self.walk.path())?;
        self.observe()?;
        let name = self.walk.name();
        if self.there(name)?.is_some_and(|(_, there)| there.kind == Kind::Directory) {
            remove(self.target.last(), name).map_err(|error| self.writing(error))?;
        }
        let renamed = rustix::fs::renameat(self.target.root(), self.partial.as_slice(), self.target.last(), name);
        renamed.map_err(|error| self.writing(error))?;
        entry.hash = Some(hash);
        Ok(())
    }

    /// Writes everything to the disk, once: a call for each file takes ten times as long where files are small. After a power cut before it,
    /// another run reads what it finds, and hashes it. Errors of earlier writes are reported here since Linux 5.8.
    fn sync(&self) -> Result<(), DataError> {
        rustix::fs::syncfs(self.target.root()).map_err(|error| DataError::write(b"", error))
    }

    fn node(&self, found: &Found, entry: &Entry) -> Result<(), DataError> {
        let (folder, name) = (self.target.last(), self.walk.name());
        remove(folder, name).map_err(|error| self.writing(error))?;
        let made = match (entry.kind, &entry.to) {
            (Kind::Symlink, Some(to)) => rustix::fs::symlinkat(to.0.as_slice(), folder, name),
            (kind, _) => {
                let kind = match kind {
                    Kind::Character => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let (major, minor) = entry.device.unwrap_or_default();
                rustix::fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, rustix::fs::makedev(major, minor))
            }
        };
        made.map_err(|error| match error {
            Errno::PERM => {
                DataError::Permission { path: display(self.walk.path()), name: entry.kind.as_str().to_owned() }
            }
            error => self.writing(error),
        })?;
        let handle = open_handle(folder, name).map_err(|error| self.writing(error))?;
        attributes::apply(&found.handle, &found.facts, &handle, self.walk.path())
    }

    fn link(&self, found: &Found) -> Result<(), DataError> {
        let first = found.link.as_deref().unwrap_or_default();
        let (parent, first_name) = open_below(self.target.root(), first).map_err(|error| self.writing(error))?;
        let handle = open_handle(&parent, first_name).map_err(|error| self.writing(error))?;
        let facts = Facts::of(&handle).map_err(|error| self.writing(error))?;
        let (folder, name) = (self.target.last(), self.walk.name());
        if self.there(name)?.is_some_and(|(_, there)| there.identity == facts.identity) {
            return Ok(());
        }
        remove(folder, name).map_err(|error| self.writing(error))?;
        rustix::fs::linkat(&parent, first_name, folder, name, AtFlags::empty()).map_err(|error| match error {
            Errno::MLINK => {
                DataError::Unsupported { path: display(self.walk.path()), name: "so many hard links".to_owned() }
            }
            error => self.writing(error),
        })
    }
}

/// The folder that a path leads to, from one name to the next, and the last name.
fn open_below<'a>(root: BorrowedFd<'_>, path: &'a [u8]) -> io::Result<(OwnedFd, &'a [u8])> {
    let mut folder = root.try_clone_to_owned()?;
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return Ok((folder, part));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        folder = rustix::fs::openat(&folder, part, flags, Mode::empty())?;
    }
    Ok((folder, path))
}

/// Removes what has a name in a folder, with all that is in it. With nothing to remove it succeeds.
fn remove(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return Ok(result?),
    }
    let handle = open_handle(folder, name)?;
    if Facts::of(&handle)?.kind != Kind::Directory {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut walk = Walk::new(open_folder(handle)?)?;
    while let Some(step) = walk.next().map_err(io::Error::other)? {
        let flags = match step {
            Step::Enter(_) => continue,
            Step::Leaf(_) => AtFlags::empty(),
            Step::Leave(_) if walk.path().is_empty() => continue,
            Step::Leave(_) => AtFlags::REMOVEDIR,
        };
        rustix::fs::unlinkat(walk.folder(), walk.name(), flags)?;
    }
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}
