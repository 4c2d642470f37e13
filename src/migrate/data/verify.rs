//! Compares a copy with its source, or with the list of what the source was.
//!
//! Invariants: both are read once, in the order of a walk, so that memory does not grow with the tree. What the target has in memory is dropped
//! before a file is read, so that the disk answers. Sockets of the source are not expected.

use std::cmp::Ordering;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, CWD};

use super::content::{Content, Hash, Method};
use super::facts::{Facts, Kind, Time, open_file, open_folder, open_handle};
use super::manifest::{Entry, Manifest};
use super::walk::{Found, Step, Walk, order};
use super::{DataError, Observer, Progress, bytes_of, display, real_folder};

/// What a copy is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The tree itself.
    Source(PathBuf),
    /// The list of what was in it.
    Manifest(PathBuf),
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aspect {
    /// The copy has no such entry.
    Missing,
    /// The source has no such entry.
    Extra,
    /// One is a file, for example, and one a folder.
    Kind,
    /// The bytes of a file.
    Content,
    /// Owner or group.
    Owner,
    /// Permissions.
    Mode,
    /// The time of the last change.
    Mtime,
    /// An extended attribute, access control lists among them.
    Xattr,
    /// What a symbolic link leads to, or which files are one.
    Link,
    /// The numbers of a device.
    Device,
    /// The source is not what it was when it was copied.
    Source,
}

impl Aspect {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::Mtime => "mtime",
            Self::Xattr => "xattr",
            Self::Link => "link",
            Self::Device => "device",
            Self::Source => "source",
        }
    }
}

/// A difference between a tree and its copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of the entry, below the root, for people.
    pub path: String,
    /// What differs.
    pub aspect: Aspect,
    /// What the source has.
    pub expected: String,
    /// What the copy has.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, aspect, expected, found } = self;
        match aspect {
            Aspect::Missing => write!(f, "{path}: missing: a {expected} was expected"),
            Aspect::Extra => write!(f, "{path}: extra: found a {found} that the source has not"),
            Aspect::Source => write!(f, "{path}: source: changed since it was copied; copy it again"),
            _ => write!(f, "{path}: {}: found {found}, expected {expected}", aspect.as_str()),
        }
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries that the source has, without its sockets.
    pub entries: u64,
    /// Bytes of the copy that were read.
    pub bytes: u64,
    /// How many differences there are.
    pub differences: u64,
    /// Whether the source of a list was on this machine, and was compared with it, too.
    pub source_compared: bool,
}

/// Compares.
///
/// * `report`: gets every difference.
///
/// # Errors
/// When one of both cannot be read, or changes meanwhile.
pub fn verify(
    expected: &Expected,
    target: &Path,
    observer: &mut Observer<'_>,
    report: &mut dyn FnMut(Difference),
) -> Result<Verified, DataError> {
    let mut side = match expected {
        Expected::Source(path) => Side::Tree { walk: open(path)?, content: Content::new() },
        Expected::Manifest(path) => Side::List(Box::new(Manifest::open(path)?)),
    };
    let mut comparison = Comparison {
        walk: open(target)?,
        content: Content::new(),
        progress: Progress::default(),
        observer,
        report,
        verified: Verified::default(),
    };
    comparison.run(&mut side)?;
    if let (Side::List(list), Expected::Manifest(path)) = (side, expected)
        && list.source().is_dir()
    {
        comparison.verified.source_compared = true;
        let mut paths = 0;
        let Comparison { report, .. } = &mut comparison;
        source_changes(&mut Manifest::open(path)?, list.source(), &mut |path| {
            paths += 1;
            report(Difference {
                path: display(path),
                aspect: Aspect::Source,
                expected: String::new(),
                found: String::new(),
            });
        })?;
        comparison.verified.differences += paths;
    }
    Ok(comparison.verified)
}

fn open(path: &Path) -> Result<Walk, DataError> {
    let real = real_folder(path)?;
    let opened = open_handle(CWD, bytes_of(&real)).and_then(open_folder).and_then(Walk::new);
    opened.map_err(|error| DataError::read(bytes_of(path), error))
}

/// Compares a list with the tree that it is of, without reading files.
pub(super) fn source_changes(
    list: &mut Manifest,
    source: &Path,
    changed: &mut dyn FnMut(&[u8]),
) -> Result<(), DataError> {
    let mut walk = open(source)?;
    let mut then = list.next_entry()?;
    loop {
        let entry = match walk.next()? {
            Some(Step::Leave(_)) => continue,
            Some(Step::Enter(facts)) => Some(Entry::of_folder(walk.path(), &facts, walk.folder())?),
            Some(Step::Leaf(found)) => Some(Entry::of_leaf(walk.path(), &found)?),
            None => None,
        };
        while let Some(gone) = &then
            && entry.as_ref().is_none_or(|entry| order(&gone.path, &entry.path) == Ordering::Less)
        {
            changed(&gone.path);
            then = list.next_entry()?;
        }
        let Some(entry) = entry else { return Ok(()) };
        match &then {
            Some(before) if before.path == entry.path => {
                if !before.is_as(&entry) {
                    changed(&entry.path);
                }
                then = list.next_entry()?;
            }
            _ => changed(&entry.path),
        }
    }
}

/// What is expected.
enum Side {
    List(Box<Manifest>),
    Tree { walk: Walk, content: Content },
}

struct Comparison<'a, 'b> {
    walk: Walk,
    content: Content,
    progress: Progress,
    observer: &'a mut Observer<'b>,
    report: &'a mut dyn FnMut(Difference),
    verified: Verified,
}

impl Comparison<'_, '_> {
    fn run(&mut self, side: &mut Side) -> Result<(), DataError> {
        let (mut expected, mut found) = (self.expected(side)?, self.found()?);
        loop {
            match (&expected, &found) {
                (None, None) => return Ok(()),
                (Some(entry), None) => {
                    self.missing(entry);
                    expected = self.expected(side)?;
                }
                (None, Some((there, _))) => {
                    self.differ(there, Aspect::Extra, String::new(), there.kind.as_str().to_owned());
                    found = self.found()?;
                }
                (Some(entry), Some((there, leaf))) => match order(&entry.path, &there.path) {
                    Ordering::Less => {
                        self.missing(entry);
                        expected = self.expected(side)?;
                    }
                    Ordering::Greater => {
                        self.differ(there, Aspect::Extra, String::new(), there.kind.as_str().to_owned());
                        found = self.found()?;
                    }
                    Ordering::Equal => {
                        self.compare(entry, there, leaf.as_ref())?;
                        (expected, found) = (self.expected(side)?, self.found()?);
                    }
                },
            }
        }
    }

    fn observe(&mut self) -> Result<(), DataError> {
        if (self.observer)(&self.progress).is_break() {
            return Err(DataError::Stopped);
        }
        Ok(())
    }

    /// The next entry of the source, with its hash.
    fn expected(&mut self, side: &mut Side) -> Result<Option<Entry>, DataError> {
        let entry = match side {
            Side::List(list) => list.next_entry()?,
            Side::Tree { walk, content } => loop {
                match walk.next()? {
                    None => break None,
                    Some(Step::Leave(_)) => {}
                    Some(Step::Enter(facts)) => break Some(Entry::of_folder(walk.path(), &facts, walk.folder())?),
                    Some(Step::Leaf(found)) => {
                        let mut entry = Entry::of_leaf(walk.path(), &found)?;
                        if entry.kind == Kind::File {
                            let (observer, progress) = (&mut self.observer, &self.progress);
                            let method = Method::of(&found.facts);
                            entry.hash = Some(hash(content, &found, method, walk.path(), observer, progress)?);
                        }
                        break Some(entry);
                    }
                }
            },
        };
        if entry.as_ref().is_some_and(|entry| entry.kind != Kind::Socket) {
            self.verified.entries += 1;
        }
        Ok(entry)
    }

    /// The next entry of the copy.
    fn found(&mut self) -> Result<Option<(Entry, Option<Found>)>, DataError> {
        loop {
            self.observe()?;
            return Ok(match self.walk.next()? {
                None => None,
                Some(Step::Leave(_)) => continue,
                Some(Step::Enter(facts)) => {
                    Some((Entry::of_folder(self.walk.path(), &facts, self.walk.folder())?, None))
                }
                Some(Step::Leaf(found)) => Some((Entry::of_leaf(self.walk.path(), &found)?, Some(found))),
            });
        }
    }

    fn missing(&mut self, entry: &Entry) {
        if entry.kind != Kind::Socket {
            self.differ(entry, Aspect::Missing, entry.kind.as_str().to_owned(), String::new());
        }
    }

    fn differ(&mut self, entry: &Entry, aspect: Aspect, expected: String, found: String) {
        self.verified.differences += 1;
        (self.report)(Difference { path: display(&entry.path), aspect, expected, found });
    }

    fn compare(&mut self, entry: &Entry, there: &Entry, leaf: Option<&Found>) -> Result<(), DataError> {
        self.progress.entries += 1;
        if entry.kind != there.kind {
            let is_link = entry.kind == Kind::Link || there.kind == Kind::Link;
            let aspect = if is_link { Aspect::Link } else { Aspect::Kind };
            self.differ(entry, aspect, entry.kind.as_str().to_owned(), there.kind.as_str().to_owned());
            return Ok(());
        }
        if entry.to != there.to {
            let text = |entry: &Entry| entry.to.as_ref().map(|to| display(&to.0)).unwrap_or_default();
            self.differ(entry, Aspect::Link, text(entry), text(there));
        }
        // Another name of an entry that was compared, or what is not copied.
        if matches!(entry.kind, Kind::Link | Kind::Socket) {
            return Ok(());
        }
        if entry.device != there.device {
            let text = |(major, minor): (u32, u32)| format!("{major}:{minor}");
            let (expected, found) = (entry.device.unwrap_or_default(), there.device.unwrap_or_default());
            self.differ(entry, Aspect::Device, text(expected), text(found));
        }
        if (entry.uid, entry.gid) != (there.uid, there.gid) {
            let text = |entry: &Entry| format!("{}:{}", entry.uid, entry.gid);
            self.differ(entry, Aspect::Owner, text(entry), text(there));
        }
        if entry.mode != there.mode && entry.kind != Kind::Symlink {
            self.differ(entry, Aspect::Mode, format!("{:04o}", entry.mode), format!("{:04o}", there.mode));
        }
        if entry.mtime != there.mtime {
            let text = |Time(seconds, nanoseconds): Time| format!("{seconds}.{nanoseconds:09}");
            self.differ(entry, Aspect::Mtime, text(entry.mtime), text(there.mtime));
        }
        self.compare_xattrs(entry, there);
        match leaf {
            Some(leaf) if entry.kind == Kind::File => self.compare_content(entry, there, leaf),
            _ => Ok(()),
        }
    }

    fn compare_xattrs(&mut self, entry: &Entry, there: &Entry) {
        for (name, digest) in &entry.xattrs {
            let found = there.xattrs.iter().find(|(other, _)| other == name);
            if found.is_none_or(|(_, other)| other != digest) {
                let found = found.map_or("none".to_owned(), |(_, other)| format!("blake3:{other}"));
                self.differ(entry, Aspect::Xattr, format!("{}=blake3:{digest}", display(&name.0)), found);
            }
        }
        for (name, digest) in &there.xattrs {
            if !entry.xattrs.iter().any(|(other, _)| other == name) {
                self.differ(entry, Aspect::Xattr, "none".to_owned(), format!("{}=blake3:{digest}", display(&name.0)));
            }
        }
    }

    fn compare_content(&mut self, entry: &Entry, there: &Entry, leaf: &Found) -> Result<(), DataError> {
        if entry.size != there.size {
            let text = |entry: &Entry| format!("{} bytes", entry.size.unwrap_or_default());
            self.differ(entry, Aspect::Content, text(entry), text(there));
            return Ok(());
        }
        let Some(expected) = entry.hash else {
            self.differ(entry, Aspect::Content, "a hash in the manifest".to_owned(), "none".to_owned());
            return Ok(());
        };
        let (observer, progress) = (&mut self.observer, &self.progress);
        let found = hash(&mut self.content, leaf, expected.method, self.walk.path(), observer, progress)?;
        self.progress.bytes = self.progress.bytes.saturating_add(leaf.facts.bytes());
        self.verified.bytes = self.progress.bytes;
        if found != expected {
            self.differ(entry, Aspect::Content, expected.to_string(), found.to_string());
        }
        Ok(())
    }
}

fn hash(
    content: &mut Content,
    found: &Found,
    method: Method,
    path: &[u8],
    observer: &mut Observer<'_>,
    progress: &Progress,
) -> Result<Hash, DataError> {
    let failure = |error: std::io::Error| DataError::read(path, error);
    let file = open_file(&found.handle).map_err(failure)?;
    // Only a request: what cannot be dropped is read from memory.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    let mut now = *progress;
    let hash = content.read(&file, found.facts.size, method, path, |_, bytes| {
        now.bytes = now.bytes.saturating_add(bytes.len() as u64);
        match observer(&now) {
            ControlFlow::Break(()) => Err(DataError::Stopped),
            ControlFlow::Continue(()) => Ok(()),
        }
    })?;
    match Facts::of(&file).map_err(failure)?.is_as(&found.facts) {
        true => Ok(hash),
        false => Err(DataError::InUse { path: display(path) }),
    }
}
