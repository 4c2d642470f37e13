//! The files of a disk that can lose its power: what was synced is kept apart from what was only written.
//!
//! The promises are those of a lenient POSIX file system: only a sync of a file makes its data and length durable, only a
//! sync of a directory makes the names in it durable, a rename is kept or lost as a whole. Whatever else was done before a
//! power cut survives in any part and any order; [`Tree::survive`] draws one.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo};

const ROOT: u64 = 1;

/// Numbers that look random and follow from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whether something with a chance of `percent` happens.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A change of a file that no sync has covered.
#[derive(Debug, Clone)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Debug, Clone, Default)]
pub struct Content {
    /// What readers see.
    pub live: Vec<u8>,
    /// What is there after a power cut if nothing else is.
    durable: Vec<u8>,
    pending: Vec<Change>,
}

fn write_into(bytes: &mut Vec<u8>, at: u64, written: &[u8]) {
    let end = at as usize + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at as usize..end].copy_from_slice(written);
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes: written } => write_into(bytes, *at, written),
        Change::Length(length) => bytes.resize(*length as usize, 0),
    }
}

impl Content {
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        write_into(&mut self.live, at, bytes);
        self.pending.push(Change::Write { at, bytes: bytes.to_vec() });
    }

    pub fn set_length(&mut self, length: u64) {
        self.live.resize(length as usize, 0);
        self.pending.push(Change::Length(length));
    }

    pub fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// The kernel could not write what was pending, and dropped it.
    pub fn lose_pending(&mut self) {
        self.pending.clear();
    }

    /// What is left of it after a power cut.
    fn survive(&self, fate: Fate, random: &mut Random) -> Vec<u8> {
        let mut kept = self.durable.clone();
        match fate {
            Fate::Nothing => {}
            Fate::Everything => kept.clone_from(&self.live),
            Fate::Prefix => {
                let whole = random.below(self.pending.len() as u64 + 1) as usize;
                self.pending[..whole].iter().for_each(|change| apply(&mut kept, change));
                // The next one is torn at a sector.
                if let Some(Change::Write { at, bytes }) = self.pending.get(whole) {
                    let sectors = (bytes.len() as u64).div_ceil(512);
                    let end = ((*at / 512 + random.below(sectors + 1)) * 512).saturating_sub(*at);
                    write_into(&mut kept, *at, &bytes[..bytes.len().min(end as usize)]);
                }
            }
            Fate::Scattered { sector } => {
                let percent = [10, 50, 90][random.below(3) as usize];
                for change in &self.pending {
                    let Change::Write { at, bytes } = change else {
                        if random.percent(percent) {
                            apply(&mut kept, change);
                        }
                        continue;
                    };
                    let (mut start, end) = (*at, *at + bytes.len() as u64);
                    while start < end {
                        let next = ((start / sector + 1) * sector).min(end);
                        if random.percent(percent) {
                            write_into(&mut kept, start, &bytes[(start - at) as usize..(next - at) as usize]);
                        }
                        start = next;
                    }
                }
            }
            Fate::ZeroTail => kept.resize(self.live.len(), 0),
        }
        kept
    }
}

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Nothing,
    Everything,
    /// The changes up to some point, the last one torn.
    Prefix,
    /// Any sectors of any changes.
    Scattered {
        sector: u64,
    },
    /// The length, and zeros.
    ZeroTail,
}

impl Fate {
    fn draw(random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::Prefix,
            3 => Self::Scattered { sector: 512 },
            4 => Self::Scattered { sector: 4096 },
            _ => Self::ZeroTail,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Names, with the place of each in a listing: it stays while others come and go.
    pub live: BTreeMap<OsString, (u64, u64)>,
    durable: BTreeMap<OsString, u64>,
    next_place: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    File(Content),
    Directory(Directory),
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    perm: u16,
    links: u32,
    changed: SystemTime,
}

impl Node {
    fn content(&mut self) -> Result<&mut Content, Errno> {
        match &mut self.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::EISDIR),
        }
    }
}

/// A change of names that no sync of a directory has covered.
#[derive(Debug, Clone)]
struct NameChange {
    removed: Option<(u64, OsString)>,
    added: Option<(u64, OsString, u64)>,
}

impl NameChange {
    fn touches(&self, directory: u64) -> bool {
        self.removed.as_ref().is_some_and(|(parent, _)| *parent == directory)
            || self.added.as_ref().is_some_and(|(parent, ..)| *parent == directory)
    }
}

/// Files and directories, as they are seen and as they are durable. A clone is a copy of the disk.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: HashMap<u64, Node>,
    names: Vec<NameChange>,
    next: u64,
}

impl Tree {
    pub fn new() -> Self {
        let root =
            Node { kind: Kind::Directory(Directory::default()), perm: 0o755, links: 1, changed: SystemTime::now() };
        Self { nodes: HashMap::from([(ROOT, root)]), names: Vec::new(), next: ROOT + 1 }
    }

    fn node(&self, inode: u64) -> Result<&Node, Errno> {
        self.nodes.get(&inode).ok_or(Errno::ENOENT)
    }

    pub fn directory(&self, inode: u64) -> Result<&Directory, Errno> {
        match &self.node(inode)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn directory_mut(&mut self, inode: u64) -> Result<&mut Directory, Errno> {
        let node = self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)?;
        node.changed = SystemTime::now();
        match &mut node.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub fn content(&self, inode: u64) -> Result<&Content, Errno> {
        match &self.node(inode)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::EISDIR),
        }
    }

    /// A file that is about to change.
    pub fn content_mut(&mut self, inode: u64) -> Result<&mut Content, Errno> {
        let node = self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)?;
        node.changed = SystemTime::now();
        node.content()
    }

    /// A file whose content stays as it is seen.
    pub fn content_to_sync(&mut self, inode: u64) -> Result<&mut Content, Errno> {
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)?.content()
    }

    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.directory(parent)?.live.get(name).map(|(inode, _)| *inode).ok_or(Errno::ENOENT)
    }

    fn name(&mut self, parent: u64, name: &OsStr, inode: u64) -> Result<(), Errno> {
        let directory = self.directory_mut(parent)?;
        directory.next_place += 1;
        let place = directory.next_place;
        directory.live.insert(name.to_owned(), (inode, place));
        Ok(())
    }

    pub fn create(&mut self, parent: u64, name: &OsStr, perm: u16, is_directory: bool) -> Result<u64, Errno> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let kind = if is_directory { Kind::Directory(Directory::default()) } else { Kind::File(Content::default()) };
        let inode = self.next;
        self.name(parent, name, inode)?;
        self.next += 1;
        self.nodes.insert(inode, Node { kind, perm, links: 1, changed: SystemTime::now() });
        self.names.push(NameChange { removed: None, added: Some((parent, name.to_owned(), inode)) });
        Ok(inode)
    }

    pub fn link(&mut self, inode: u64, parent: u64, name: &OsStr) -> Result<(), Errno> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.content(inode)?;
        self.name(parent, name, inode)?;
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)?.links += 1;
        self.names.push(NameChange { removed: None, added: Some((parent, name.to_owned(), inode)) });
        Ok(())
    }

    /// Content stays until the disk is mounted anew, as somebody may have it open.
    fn unlink(&mut self, inode: u64) {
        if let Some(node) = self.nodes.get_mut(&inode) {
            node.links = node.links.saturating_sub(1);
        }
    }

    pub fn remove(&mut self, parent: u64, name: &OsStr, is_directory: bool) -> Result<(), Errno> {
        let inode = self.lookup(parent, name)?;
        match (&self.node(inode)?.kind, is_directory) {
            (Kind::Directory(directory), true) if !directory.live.is_empty() => return Err(Errno::ENOTEMPTY),
            (Kind::Directory(_), true) | (Kind::File(_), false) => {}
            (Kind::Directory(_), false) => return Err(Errno::EISDIR),
            (Kind::File(_), true) => return Err(Errno::ENOTDIR),
        }
        self.directory_mut(parent)?.live.remove(name);
        self.unlink(inode);
        self.names.push(NameChange { removed: Some((parent, name.to_owned())), added: None });
        Ok(())
    }

    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), may_replace: bool) -> Result<(), Errno> {
        let inode = self.lookup(from.0, from.1)?;
        if let Ok(replaced) = self.lookup(to.0, to.1) {
            if !may_replace {
                return Err(Errno::EEXIST);
            }
            if replaced == inode {
                return Ok(());
            }
            if let Kind::Directory(directory) = &self.node(replaced)?.kind
                && !directory.live.is_empty()
            {
                return Err(Errno::ENOTEMPTY);
            }
            self.unlink(replaced);
        }
        self.directory_mut(from.0)?.live.remove(from.1);
        self.name(to.0, to.1, inode)?;
        let removed = Some((from.0, from.1.to_owned()));
        self.names.push(NameChange { removed, added: Some((to.0, to.1.to_owned(), inode)) });
        Ok(())
    }

    fn apply_names(&mut self, change: NameChange) {
        if let Some((parent, name)) = change.removed
            && let Some(Node { kind: Kind::Directory(directory), .. }) = self.nodes.get_mut(&parent)
        {
            directory.durable.remove(&name);
        }
        if let Some((parent, name, inode)) = change.added
            && let Some(Node { kind: Kind::Directory(directory), .. }) = self.nodes.get_mut(&parent)
        {
            directory.durable.insert(name, inode);
        }
    }

    pub fn sync_directory(&mut self, inode: u64) {
        let (synced, pending) = std::mem::take(&mut self.names).into_iter().partition(|change| change.touches(inode));
        self.names = pending;
        let synced: Vec<NameChange> = synced;
        synced.into_iter().for_each(|change| self.apply_names(change));
    }

    /// The name under which a file is seen.
    pub fn ends_with(&self, inode: u64, ending: &str) -> bool {
        self.nodes.values().any(|node| match &node.kind {
            Kind::Directory(directory) => directory
                .live
                .iter()
                .any(|(name, (named, _))| *named == inode && name.to_string_lossy().ends_with(ending)),
            Kind::File(_) => false,
        })
    }

    /// Sets the permissions.
    pub fn set_mode(&mut self, inode: u64, mode: u32) {
        if let Some(node) = self.nodes.get_mut(&inode) {
            node.perm = (mode & 0o7777) as u16;
        }
    }

    pub fn attributes(&self, inode: u64) -> Result<FileAttr, Errno> {
        let node = self.node(inode)?;
        let (kind, size) = match &node.kind {
            Kind::File(content) => (FileType::RegularFile, content.live.len() as u64),
            Kind::Directory(_) => (FileType::Directory, 4096),
        };
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: node.changed,
            mtime: node.changed,
            ctime: node.changed,
            crtime: node.changed,
            kind,
            perm: node.perm,
            nlink: node.links,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// What a power cut leaves of it.
    pub fn survive(mut self, random: &mut Random) -> Self {
        // Now and then all of the disk has the same fate: the two ends of what a cache may have written.
        let common = match random.below(10) {
            0 => Some(Fate::Nothing),
            1 => Some(Fate::Everything),
            _ => None,
        };
        let names = std::mem::take(&mut self.names);
        let (first, percent) = match common.unwrap_or_else(|| Fate::draw(random)) {
            Fate::Nothing => (0, 0),
            Fate::Everything => (names.len(), 0),
            Fate::Prefix => (random.below(names.len() as u64 + 1) as usize, 0),
            Fate::Scattered { .. } | Fate::ZeroTail => (0, [20, 50, 80][random.below(3) as usize]),
        };
        for (number, change) in names.into_iter().enumerate() {
            if number < first || random.percent(percent) {
                self.apply_names(change);
            }
        }
        let mut survivors = Self::new();
        survivors.adopt(&self, ROOT, ROOT, &mut HashMap::new(), &mut |content| {
            let fate = common.unwrap_or_else(|| Fate::draw(random));
            content.survive(fate, random)
        });
        survivors
    }

    /// Copies what is durable below a directory, each file once however many names it has.
    fn adopt(
        &mut self,
        old: &Self,
        from: u64,
        to: u64,
        known: &mut HashMap<u64, u64>,
        content_of: &mut dyn FnMut(&Content) -> Vec<u8>,
    ) {
        let Ok(directory) = old.directory(from) else { return };
        for (name, inode) in &directory.durable {
            let Ok(node) = old.node(*inode) else { continue };
            if let Some(copied) = known.get(inode).copied() {
                self.link(copied, to, name).expect("a file, and the name is free");
                continue;
            }
            let is_directory = matches!(node.kind, Kind::Directory(_));
            let copy = self.create(to, name, node.perm, is_directory).expect("the name is free");
            match &node.kind {
                Kind::Directory(_) => self.adopt(old, *inode, copy, known, content_of),
                Kind::File(content) => {
                    known.insert(*inode, copy);
                    let bytes = content_of(content);
                    *self.content_mut(copy).expect("a file") =
                        Content { live: bytes.clone(), durable: bytes, pending: Vec::new() };
                }
            }
        }
        self.sync_directory(to);
    }
}
