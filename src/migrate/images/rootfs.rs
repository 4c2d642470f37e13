//! The few paths of an image's root that a conversion needs, out of all of its layers: which files are below the targets of volumes, and
//! two files with accounts.
//!
//! Invariants: a layer's whiteouts hide what is in layers below it and nothing of its own. Links are followed within the root. What is
//! stored of the paths below targets is at most [`BELOW_BYTES_MAX`], and a count that is therefore too low says so; what is stored of
//! those that lead to them is at most [`WAY_BYTES_MAX`], and more is an error.
//!
//! Source: the OCI Image Format Specification 1.1, `layer.md`, "Representing Changes" and "Whiteouts"; in the order in which containerd
//! applies a layer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::members::{Kind, Member};

/// What is stored of paths below targets, for one archive: some 300,000 of them.
const BELOW_BYTES_MAX: usize = 48 << 20;
/// What is stored of the paths that lead to targets, and of files with accounts, for one archive.
const WAY_BYTES_MAX: usize = 32 << 20;
/// What the wanted paths and those that lead to them have together.
const INTEREST_BYTES_MAX: usize = 4 << 20;
/// Of a file with accounts.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of a path, and of the path in a link. Linux's limit.
const PATH_BYTES_MAX: usize = 4096;
/// Links on one path. Linux's limit.
const LINKS_MAX: usize = 40;
/// Paths that are gone through when layers are laid over one another, for all images of an archive.
const APPLIED_MAX: usize = 1 << 26;
/// What one path takes apart from its letters.
const OVERHEAD: usize = 64;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why paths were not collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the layers have more entries at the paths of volumes than can be counted")]
pub(super) struct TooMany;

/// A path within a root: names with `/` between them, none of them empty, `.` or `..`. The root is empty.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

/// The parents of a path, from its own up to the root's children; itself not among them.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at])
}

/// The paths that are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Interest {
    files: BTreeSet<Vec<u8>>,
    folders: BTreeSet<Vec<u8>>,
    /// Both, and their parents.
    on_way: HashSet<Vec<u8>>,
    bytes: usize,
}

impl Interest {
    /// A file whose content is wanted. Returns whether it was not among them.
    pub(super) fn add_file(&mut self, path: Vec<u8>) -> Result<bool, TooMany> {
        self.add_way(&path)?;
        Ok(self.files.insert(path))
    }

    /// A folder of which the number of files is wanted. Returns whether it was not among them.
    pub(super) fn add_folder(&mut self, path: Vec<u8>) -> Result<bool, TooMany> {
        self.add_way(&path)?;
        Ok(self.folders.insert(path))
    }

    fn add_way(&mut self, path: &[u8]) -> Result<(), TooMany> {
        for part in parents(path).chain([path]) {
            if !self.on_way.contains(part) {
                self.bytes += part.len() + OVERHEAD;
                if self.bytes > INTEREST_BYTES_MAX {
                    return Err(TooMany);
                }
                self.on_way.insert(part.to_vec());
            }
        }
        Ok(())
    }

    fn is_below(&self, path: &[u8]) -> bool {
        self.folders.contains(&b""[..]) || parents(path).any(|parent| self.folders.contains(parent))
    }

    /// Whether the content of a file is wanted.
    fn wants(&self, path: &[u8]) -> bool {
        self.files.contains(path)
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Folder {
        mode: u32,
        user: u64,
        group: u64,
    },
    /// With its length, and its content where that is wanted and is not too long.
    File {
        bytes: u64,
        content: Option<Arc<[u8]>>,
    },
    Link(Vec<u8>),
    Other,
}

/// What may be stored yet.
#[derive(Debug)]
pub(super) struct Budget {
    below: usize,
    way: usize,
    applied: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { below: BELOW_BYTES_MAX, way: WAY_BYTES_MAX, applied: APPLIED_MAX }
    }
}

/// The wanted paths of one layer.
#[derive(Debug, Default)]
pub(super) struct LayerPaths {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// What is hidden of lower layers, with everything below.
    removed: BTreeSet<Vec<u8>>,
    /// The folders of which everything in lower layers is hidden.
    emptied: BTreeSet<Vec<u8>>,
    is_cut: bool,
}

impl LayerPaths {
    /// Adds a member of the layer where it is wanted.
    ///
    /// * `content`: reads the member's content; `None` when it is too long.
    pub(super) fn add<E: From<TooMany>>(
        &mut self,
        member: Member,
        interest: &Interest,
        budget: &mut Budget,
        content: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), E> {
        let path = clean(&member.name);
        // No file can have such a name, and nothing unpacks it.
        if path.len() > PATH_BYTES_MAX {
            return Ok(());
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], &path[..]),
        };
        if name == OPAQUE {
            let parent = parent.to_vec();
            if self.charge(&parent, interest, budget, 0)? {
                self.emptied.insert(parent);
            }
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // Two of them are bookkeeping of AUFS.
            if hidden.is_empty() || hidden.starts_with(WHITEOUT) {
                return Ok(());
            }
            let hidden = if parent.is_empty() { hidden.to_vec() } else { [parent, b"/", hidden].concat() };
            if self.charge(&hidden, interest, budget, 0)? {
                self.removed.insert(hidden);
            }
            return Ok(());
        }
        let is_on_way = interest.on_way.contains(&path);
        let node = match member.kind {
            Kind::Folder => Node::Folder { mode: member.mode, user: member.user, group: member.group },
            Kind::Symlink(to) if to.len() <= PATH_BYTES_MAX => Node::Link(to),
            // Its content is at the other path.
            Kind::HardLink(to) if is_on_way && to.len() < PATH_BYTES_MAX => Node::Link([b"/", &to[..]].concat()),
            Kind::HardLink(_) => Node::File { bytes: 0, content: None },
            Kind::Symlink(_) | Kind::Special => Node::Other,
            Kind::File => Node::File {
                bytes: member.bytes,
                content: if interest.wants(&path) { content()?.map(Arc::from) } else { None },
            },
        };
        let more = match &node {
            Node::Link(to) => to.len(),
            Node::File { content, .. } => content.as_ref().map_or(0, |content| content.len()),
            _ => 0,
        };
        if self.charge(&path, interest, budget, more)? {
            self.nodes.insert(path, node);
        }
        Ok(())
    }

    /// Whether a path is to be stored.
    ///
    /// * `more`: what is stored apart from the path.
    fn charge(&mut self, path: &[u8], interest: &Interest, budget: &mut Budget, more: usize) -> Result<bool, TooMany> {
        let bytes = path.len() + OVERHEAD + more;
        if path.is_empty() || interest.on_way.contains(path) {
            budget.way = budget.way.checked_sub(bytes).ok_or(TooMany)?;
            return Ok(true);
        }
        if !interest.is_below(path) {
            return Ok(false);
        }
        match budget.below.checked_sub(bytes) {
            Some(left) => budget.below = left,
            None => self.is_cut = true,
        }
        Ok(!self.is_cut)
    }
}

/// What the folder of an image has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FolderContent {
    /// Files, links and devices below it, at any depth.
    pub files: u64,
    /// Folders below it, at any depth.
    pub folders: u64,
    /// Sum of the lengths of the files. A second name of a file counts nothing.
    pub bytes: u64,
    /// Of the folder. `None` when no layer has it as an entry of its own.
    pub owner: Option<FolderOwner>,
    /// Whether everything was counted. With more than some 300,000 paths, numbers are too low.
    pub is_complete: bool,
}

/// Whose a folder is. Docker gives a new volume the owner and the mode of the folder that it is mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderOwner {
    /// By number.
    pub user: u64,
    /// By number.
    pub group: u64,
    /// Permission bits, with those of set-user-ID, set-group-ID and the sticky bit.
    pub mode: u32,
}

/// The wanted paths of an image.
#[derive(Debug, Default)]
pub(super) struct RootFs<'a> {
    nodes: BTreeMap<Cow<'a, [u8]>, &'a Node>,
    is_cut: bool,
}

impl<'a> RootFs<'a> {
    /// * `layers`: from the lowest.
    pub(super) fn of(layers: impl IntoIterator<Item = &'a LayerPaths>, budget: &mut Budget) -> Result<Self, TooMany> {
        let mut root = Self::default();
        for layer in layers {
            let paths = layer.nodes.len() + layer.removed.len() + layer.emptied.len();
            budget.applied = budget.applied.checked_sub(paths).ok_or(TooMany)?;
            root.apply(layer);
        }
        Ok(root)
    }

    fn apply(&mut self, layer: &'a LayerPaths) {
        self.is_cut |= layer.is_cut;
        for path in &layer.removed {
            let path = self.at_parent(path);
            self.remove_below(&path);
            self.nodes.remove(&path);
        }
        for path in &layer.emptied {
            let path = self.at_parent(path);
            self.remove_below(&path);
        }
        for (path, node) in &layer.nodes {
            let path = self.at_parent(path);
            if !matches!(node, Node::Folder { .. }) {
                self.remove_below(&path);
            }
            self.nodes.insert(path, node);
        }
    }

    /// Where a path of a layer comes to be: its parent may be a link of a lower layer.
    fn at_parent(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let parent = path.iter().rposition(|byte| *byte == b'/').map(|at| (&path[..at], &path[at..]));
        match parent.and_then(|(parent, name)| Some((self.resolve(parent)?, parent, name))) {
            Some((real, parent, name)) if real != parent => Cow::Owned([&real[..], name].concat()),
            _ => Cow::Borrowed(path),
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        let below: Vec<_> = self.below(path).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    fn below(&self, path: &[u8]) -> impl Iterator<Item = (&Cow<'a, [u8]>, &&'a Node)> {
        let first = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let from = Cow::<[u8]>::Owned(first.clone());
        self.nodes
            .range(from..)
            .take_while(move |(path, _)| path.starts_with(&first))
            .filter(|(path, _)| !path.is_empty())
    }

    /// The path without links; `None` where links run in a circle.
    pub(super) fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let reversed = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (mut left, mut real, mut links) = (reversed(path), Vec::new(), 0);
        while let Some(name) = left.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let before = real.len();
            if before > 0 {
                real.push(b'/');
            }
            real.extend_from_slice(&name);
            if let Some(Node::Link(to)) = self.nodes.get(&real[..]) {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                real.truncate(if to.starts_with(b"/") { 0 } else { before });
                left.extend(reversed(to));
            }
        }
        Some(real)
    }

    /// The content of a wanted file, at a path without links.
    pub(super) fn content(&self, path: &[u8]) -> Option<Arc<[u8]>> {
        match self.nodes.get(path)? {
            Node::File { content, .. } => content.clone(),
            _ => None,
        }
    }

    /// What is below a wanted folder, at a path without links; `None` where there is none, or something else.
    pub(super) fn folder(&self, path: &[u8]) -> Option<FolderContent> {
        let owner = match self.nodes.get(path) {
            Some(Node::Folder { mode, user, group }) => Some(FolderOwner { user: *user, group: *group, mode: *mode }),
            Some(_) => return None,
            None => None,
        };
        let mut content = FolderContent { owner, is_complete: !self.is_cut, ..FolderContent::default() };
        for (_, node) in self.below(path) {
            match node {
                Node::Folder { .. } => content.folders += 1,
                Node::File { bytes, .. } => {
                    content.files += 1;
                    content.bytes = content.bytes.saturating_add(*bytes);
                }
                Node::Link(_) | Node::Other => content.files += 1,
            }
        }
        let is_there = owner.is_some() || content.files + content.folders > 0 || path.is_empty();
        is_there.then_some(content)
    }
}
