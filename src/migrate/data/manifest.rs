//! The list of what is in a tree: JSON, one line an entry, in the order of a walk.
//!
//! The first line is a [`Header`], the last one counts the entries. Invariants: reading takes bounded memory. A list without its last line is
//! that of a copy that did not finish, and is not used as proof. A path of more than 4,096 bytes, which no call of the system takes, is written
//! as its depth and its last name, so that the list grows with the tree and not with the square of its depth.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::content::Hash;
use super::facts::{Facts, Kind, Time};
use super::walk::Found;
use super::{DataError, RawText, attributes, bytes_of, name_of};

/// Version of the format.
pub(super) const FORMAT: u32 = 1;
/// Longest line in bytes.
const LINE_MAX: u64 = 64 << 20;
/// Longest path that is written whole: `PATH_MAX` of linux/limits.h.
const PATH_MAX: usize = 4096;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub cairn_manifest: u32,
    /// The tree, without links on its path.
    pub source: RawText,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Footer {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// What is known of an entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the root; empty: the root.
    #[serde(skip)]
    pub path: Vec<u8>,
    #[serde(rename = "path", default, skip_serializing_if = "Option::is_none")]
    whole: Option<RawText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    depth: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<RawText>,
    /// What it is.
    pub kind: Kind,
    /// What a symbolic link leads to; of a hard link the path at which the same file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RawText>,
    /// Major and minor number of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Bytes of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Hash of the content of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// Permissions with the three bits above them.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// When the content changed.
    pub mtime: Time,
    /// When anything of it changed, which nobody can set.
    pub ctime: Time,
    /// Extended attributes with the BLAKE3 of their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(RawText, String)>,
}

impl Entry {
    /// A folder.
    pub(super) fn of_folder(path: &[u8], facts: &Facts, handle: impl std::os::fd::AsFd) -> Result<Self, DataError> {
        let xattrs = attributes::digests(handle).map_err(|error| DataError::read(path, error))?;
        Ok(Self::new(path, Kind::Directory, facts, xattrs))
    }

    /// Anything else, without its hash.
    pub(super) fn of_leaf(path: &[u8], found: &Found) -> Result<Self, DataError> {
        let failure = |error: io::Error| DataError::read(path, error);
        let kind = found.kind();
        let xattrs = attributes::digests(&found.handle).map_err(failure)?;
        let mut entry = Self::new(path, kind, &found.facts, xattrs);
        match kind {
            Kind::Link => entry.to = found.link.as_deref().map(RawText::new),
            Kind::Symlink => {
                let to = rustix::fs::readlinkat(&found.handle, "", Vec::new());
                entry.to = Some(RawText(to.map_err(|error| failure(error.into()))?.into_bytes()));
            }
            Kind::File => entry.size = Some(found.facts.size),
            Kind::Character | Kind::Block => entry.device = Some(found.facts.device),
            Kind::Directory | Kind::Fifo | Kind::Socket => {}
        }
        Ok(entry)
    }

    fn new(path: &[u8], kind: Kind, facts: &Facts, xattrs: Vec<(RawText, String)>) -> Self {
        let (whole, depth, name) = match path.len() {
            0..=PATH_MAX => (Some(RawText::new(path)), None, None),
            _ => {
                let mut parts = path.rsplit(|byte| *byte == b'/');
                let name = parts.next().map(RawText::new);
                (None, Some(parts.count()), name)
            }
        };
        Self {
            path: path.to_owned(),
            whole,
            depth,
            name,
            kind,
            to: None,
            device: None,
            size: None,
            hash: None,
            mode: facts.mode,
            uid: facts.uid,
            gid: facts.gid,
            mtime: facts.mtime,
            ctime: facts.ctime,
            xattrs,
        }
    }

    /// Whether all but the hash is equal.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let Self {
            path,
            whole: _,
            depth: _,
            name: _,
            kind,
            to,
            device,
            size,
            hash: _,
            mode,
            uid,
            gid,
            mtime,
            ctime,
            xattrs,
        } = self;
        (path, kind, to, device, size) == (&other.path, &other.kind, &other.to, &other.device, &other.size)
            && (mode, uid, gid, mtime, ctime, xattrs)
                == (&other.mode, &other.uid, &other.gid, &other.mtime, &other.ctime, &other.xattrs)
    }

    /// Its line.
    pub(super) fn to_line(&self) -> Vec<u8> {
        line(self)
    }
}

pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("plain data is JSON");
    line.push(b'\n');
    line
}

/// Reads a list.
pub struct Manifest {
    file: BufReader<File>,
    shown: String,
    header: Header,
    /// Of the entry that was read last.
    path: Vec<u8>,
    line: u64,
    /// Up to where the file was read.
    offset: u64,
    footer: Option<Footer>,
    entries: u64,
}

impl Manifest {
    /// Opens a list.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let opened = crate::base::regular_file::open(path).map_err(|error| DataError::read(bytes_of(path), error))?;
        let not = |message: &str| DataError::Manifest { path: name_of(path), line: 1, message: message.to_owned() };
        let (file, _) = opened.ok_or_else(|| not("it is not a regular file"))?;
        let header = Header { cairn_manifest: 0, source: RawText::default() };
        let file = BufReader::with_capacity(256 << 10, file);
        let mut this =
            Self { file, shown: name_of(path), header, path: Vec::new(), line: 0, offset: 0, footer: None, entries: 0 };
        let line = this.next_line()?;
        let header = line.and_then(|line| serde_json::from_slice::<Header>(&line).ok());
        this.header =
            header.ok_or_else(|| not("it is not the manifest of a copy; `cairn migrate data copy` writes one"))?;
        if this.header.cairn_manifest != FORMAT {
            let message = format!(
                "its format is {}, expected {FORMAT}: another release of Cairn wrote it",
                this.header.cairn_manifest
            );
            return Err(not(&message));
        }
        Ok(this)
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The tree that it is of.
    #[must_use]
    pub fn source(&self) -> &Path {
        use std::os::unix::ffi::OsStrExt as _;
        Path::new(std::ffi::OsStr::from_bytes(&self.header.source.0))
    }

    /// Bytes of the files, once the last line was read.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.footer.map(|footer| footer.bytes)
    }

    /// Up to where the file was read, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    fn failure(&self, message: &str) -> DataError {
        DataError::Manifest { path: self.shown.clone(), line: self.line, message: message.to_owned() }
    }

    /// The next line without its end; `None` at the end, or where the last one has none.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, DataError> {
        self.line += 1;
        let mut line = Vec::new();
        let read = (&mut self.file).take(LINE_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| DataError::Read { path: self.shown.clone(), source: error })?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.offset += line.len() as u64;
        line.pop();
        Ok(Some(line))
    }

    /// The next entry; `None` after the last.
    ///
    /// # Errors
    /// When the list ends before its last line, or a line is something else.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, DataError> {
        if self.footer.is_some() {
            return Ok(None);
        }
        let Some(line) = self.next_line()? else {
            return Err(
                self.failure("the manifest ends here, expected more: the copy did not finish; run it again to resume")
            );
        };
        if let Ok(footer) = serde_json::from_slice::<Footer>(&line) {
            if footer.entries != self.entries {
                let message = format!("{} entries, expected {}: lines are missing", self.entries, footer.entries);
                return Err(self.failure(&message));
            }
            if self.next_line()?.is_some() {
                return Err(self.failure("a line follows the last one"));
            }
            self.footer = Some(footer);
            return Ok(None);
        }
        let entry = serde_json::from_slice::<Entry>(&line);
        let mut entry = entry.map_err(|error| self.failure(&format!("not an entry: {error}")))?;
        self.read_path(&entry)?;
        entry.path.clone_from(&self.path);
        self.entries += 1;
        Ok(Some(entry))
    }

    fn read_path(&mut self, entry: &Entry) -> Result<(), DataError> {
        let before = std::mem::take(&mut self.path);
        match (&entry.whole, entry.depth, &entry.name) {
            (Some(whole), ..) => self.path.clone_from(&whole.0),
            (None, Some(depth), Some(name)) => {
                let end = before.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
                let end = end.chain([before.len()]).nth(depth.saturating_sub(1));
                let end = end.filter(|_| depth > 0 && !before.is_empty());
                let end = end.ok_or_else(|| self.failure("the folder of the entry is not before it"))?;
                self.path = [&before[..end], b"/", &name.0].concat();
            }
            _ => return Err(self.failure("not an entry: it has no path")),
        }
        let is_first = self.entries == 0;
        if !is_first && super::walk::order(&before, &self.path) != std::cmp::Ordering::Less {
            return Err(self.failure("the entry is not behind the one before it in the order of a walk"));
        }
        Ok(())
    }
}
