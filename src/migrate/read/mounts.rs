//! What is mounted into a container: `volumes` and `tmpfs`.
//!
//! Short forms are `[SOURCE:]TARGET[:OPTIONS]`, where a source that begins with `.`, `/`, `~`, a drive letter or `\\` is a path and any other
//! is the name of a volume (docker/cli, `internal/volumespec`; compose-go, `format`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::Value;
use super::super::leaf::{At, Item, ItemValue, Leaf};
use super::super::report::Outcome;
use super::super::stack::{Mount, MountKind};
use super::forms::named_leaves;
use super::holders::leaves_of_mount;
use super::{Reader, amounts, excerpt};

const KINDS: [(&str, MountKind); 6] = [
    ("bind", MountKind::Bind),
    ("volume", MountKind::Volume),
    ("tmpfs", MountKind::Tmpfs),
    ("npipe", MountKind::NamedPipe),
    ("image", MountKind::Image),
    ("cluster", MountKind::Cluster),
];

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

impl Reader<'_> {
    /// `volumes` and `tmpfs` of a service, in the order of the file.
    pub(super) fn mounts(&mut self, service: &Item) -> Vec<Mount> {
        let mut mounts = Vec::new();
        if let Some(item) = service.get("volumes") {
            for item in self.list(item) {
                let mount = match &item.value {
                    ItemValue::Map(_) | ItemValue::NoKeys(_) => self.long_mount(item),
                    ItemValue::Scalar(At { value, leaf }) if *value != Value::Null => {
                        self.short_mount(item, &value.to_string(), *leaf)
                    }
                    _ => {
                        self.wrong(item, "a volume such as data:/data, or a map with 'type'");
                        None
                    }
                };
                if let Some(mount) = mount {
                    self.check_mount(item, &mount);
                    mounts.push(self.resolved(mount));
                }
            }
        }
        if let Some(item) = service.get("tmpfs") {
            if self.is_compose() {
                let texts = self.one_or_texts(item);
                mounts.extend(texts.iter().filter_map(|text| self.tmpfs(text)));
            } else {
                let reason = "docker stack deploy ignores this key: the folder was part of the container's own files; \
                              a volume of type tmpfs is memory";
                self.remark_all(item, Outcome::Dropped, reason);
            }
        }
        self.unique_targets(mounts)
    }

    /// Each place is used once. To compose-go the last one of `volumes` counts.
    fn unique_targets(&mut self, mounts: Vec<Mount>) -> Vec<Mount> {
        let mut targets: BTreeMap<String, usize> = BTreeMap::new();
        let mut replaced = BTreeSet::new();
        for (index, mount) in mounts.iter().enumerate() {
            let Some(first) = targets.insert(mount.target.value.clone(), index) else { continue };
            if self.is_compose() && self.leaves.written(mount.target.leaf).path.key(2) == Some("volumes") {
                replaced.insert(first);
                continue;
            }
            let first = self.leaves.written(mounts[first].target.leaf).at.clone();
            let message = format!("something is mounted at {} already, in {first}", excerpt(&mount.target.value));
            self.mistake_at(mount.target.leaf, message);
        }
        let mut left = Vec::new();
        for (index, mount) in mounts.into_iter().enumerate() {
            if replaced.contains(&index) {
                for leaf in leaves_of_mount(&mount) {
                    self.remark(leaf, Outcome::Dropped, "a later volume at the same place replaces it");
                }
            } else {
                left.push(mount);
            }
        }
        left
    }

    fn short_mount(&mut self, item: &Item, text: &str, leaf: Leaf) -> Option<Mount> {
        let parts = match sections(text) {
            Ok(parts) => parts,
            Err(expected) => {
                self.mistake(item, format!("{}: '{}' is not a volume: {expected}", item.path, excerpt(text)));
                return None;
            }
        };
        let (source, target) = match parts.as_slice() {
            [target] => (None, *target),
            [source, target, ..] => (Some((*source).to_owned()), *target),
            [] => (None, text),
        };
        let kind = match &source {
            Some(source) if is_path(source) => MountKind::Bind,
            _ => MountKind::Volume,
        };
        let mut mount = mount(At::new(kind, leaf), At::new(target.to_owned(), leaf));
        mount.source = source.map(|source| At::new(source, leaf));
        for option in parts.get(2).into_iter().flat_map(|options| options.split(',')) {
            match option {
                "ro" | "rw" => mount.read_only = Some(At::new(option == "ro", leaf)),
                "nocopy" => mount.no_copy = Some(At::new(true, leaf)),
                _ if PROPAGATIONS.contains(&option) => mount.propagation = Some(At::new(option.to_owned(), leaf)),
                "z" | "Z" => mount.other.push(("selinux".to_owned(), leaf)),
                other => mount.other.push((other.to_owned(), leaf)),
            }
        }
        if !self.is_compose() {
            if kind == MountKind::Bind && mount.no_copy.is_some() {
                self.mistake(item, format!("{}: 'nocopy' is for volumes, and this is a folder", item.path));
            }
            if kind == MountKind::Volume && mount.propagation.is_some() {
                self.mistake(item, format!("{}: propagation is for folders, and this is a volume", item.path));
            }
        }
        Some(mount)
    }

    fn long_mount(&mut self, item: &Item) -> Option<Mount> {
        let first = *item.leaves().first()?;
        let kind = self.field(item, "type", |reader, item| reader.choice(item, &KINDS));
        let Some(target) = self.field(item, "target", Self::some_text) else {
            self.mistake(item, format!("{}: a mount needs 'target', the path in the container", item.path));
            return None;
        };
        let mut mount = mount(kind.unwrap_or(At::new(MountKind::Volume, first)), target);
        mount.source = self.field(item, "source", Self::some_text);
        mount.read_only = self.field(item, "read_only", Self::truth);
        if let Some(consistency) = item.get("consistency") {
            mount.other.extend(named_leaves("consistency", consistency));
        }
        for (name, kind) in KINDS {
            let Some(options) = item.get(name) else { continue };
            if matches!(&options.value, ItemValue::Scalar(At { value: Value::Null, .. })) {
                self.nothing(options);
                continue;
            }
            if kind != mount.kind.value && !self.is_compose() {
                let message = format!("{}: options of '{name}' do not fit a mount of another type", options.path);
                self.mistake(options, message);
                continue;
            }
            self.mount_options(options, kind, &mut mount);
        }
        Some(mount)
    }

    fn mount_options(&mut self, options: &Item, kind: MountKind, mount: &mut Mount) {
        if !self.is_map(options) {
            return;
        }
        for (key, item) in options.entries() {
            match (kind, key) {
                (MountKind::Bind, "propagation") => mount.propagation = self.text(item),
                (MountKind::Bind, "create_host_path") => mount.create_host_path = self.truth(item),
                (MountKind::Volume, "nocopy") => mount.no_copy = self.truth(item),
                (MountKind::Volume | MountKind::Image, "subpath") => mount.subpath = self.text(item),
                (MountKind::Tmpfs, "size") => mount.tmpfs_size = self.bytes(item),
                (MountKind::Tmpfs, "mode") => mount.tmpfs_mode = self.permissions(item),
                _ => mount.other.extend(named_leaves(key, item)),
            }
        }
    }

    /// `PATH[:OPTIONS]`, with options as `mount` has them.
    fn tmpfs(&mut self, text: &At<String>) -> Option<Mount> {
        let (target, options) = text.value.split_once(':').unwrap_or((&text.value, ""));
        let leaf = text.leaf;
        let mut mount = mount(At::new(MountKind::Tmpfs, leaf), At::new(clean(target), leaf));
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => match amounts::bytes(size, self.dialect).map(u64::try_from) {
                    Some(Ok(size)) => mount.tmpfs_size = Some(At::new(size, leaf)),
                    _ => self
                        .mistake_at(leaf, format!("'{}' is not an amount of bytes such as size=64m", excerpt(option))),
                },
                Some(("mode", mode)) => match u32::from_str_radix(mode, 8) {
                    Ok(mode) => mount.tmpfs_mode = Some(At::new(mode, leaf)),
                    Err(_) => self
                        .mistake_at(leaf, format!("'{}' is not octal permissions such as mode=1777", excerpt(option))),
                },
                None if matches!(option, "ro" | "rw") => mount.read_only = Some(At::new(option == "ro", leaf)),
                _ => mount.other.push((option.to_owned(), leaf)),
            }
        }
        if !target.starts_with('/') {
            self.mistake_at(leaf, format!("'{}' is not an absolute path", excerpt(target)));
            return None;
        }
        Some(mount)
    }

    /// What the program checks of a mount.
    fn check_mount(&mut self, item: &Item, mount: &Mount) {
        let kind = mount.kind.value;
        let source = mount.source.as_ref();
        match (kind, source) {
            (MountKind::Volume | MountKind::Cluster, Some(source)) => {
                let is_group = kind == MountKind::Cluster && (self.is_compose() || source.value.starts_with("group:"));
                if !is_group && !self.volumes.contains(source.value.as_str()) {
                    self.undefined(source.leaf, "volume", &source.value);
                }
            }
            (MountKind::Tmpfs, Some(source)) if !self.is_compose() => {
                self.mistake_at(source.leaf, "a mount of type tmpfs has no 'source'; remove it");
            }
            (MountKind::Bind | MountKind::NamedPipe | MountKind::Image | MountKind::Cluster, None) => {
                self.mistake(item, format!("{}: a mount of this type needs 'source'", item.path));
            }
            _ => {}
        }
    }

    /// Relative paths are below the stack's folder. `~` is the home of the one who deploys, and stays.
    fn resolved(&self, mut mount: Mount) -> Mount {
        if self.is_compose() {
            mount.target.value = clean(&mount.target.value);
        }
        if mount.kind.value == MountKind::Bind
            && let Some(source) = &mut mount.source
        {
            source.value = below(self.files.root(), &source.value);
        }
        mount
    }
}

/// A mount with nothing else written of it.
fn mount(kind: At<MountKind>, target: At<String>) -> Mount {
    Mount {
        kind,
        source: None,
        target,
        read_only: None,
        propagation: None,
        create_host_path: None,
        no_copy: None,
        subpath: None,
        tmpfs_size: None,
        tmpfs_mode: None,
        other: Vec::new(),
    }
}

/// The parts between colons, but for a colon behind a single letter, which is a drive.
fn sections(text: &str) -> Result<Vec<&str>, &'static str> {
    match text.len() {
        0 => return Err("it is empty"),
        1 | 2 => return Ok(vec![text]),
        _ => {}
    }
    let (mut parts, mut begin) = (Vec::new(), 0);
    for (at, _) in text.match_indices(':').chain([(text.len(), "")]) {
        let part = &text[begin..at];
        let mut letters = part.chars();
        let is_drive = at < text.len() && letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none();
        if is_drive {
            continue;
        }
        if part.is_empty() {
            return Err("there is nothing between two colons, or at an end");
        }
        parts.push(part);
        begin = at + 1;
    }
    if parts.len() > 3 {
        return Err("it has too many colons; expected SOURCE:TARGET:OPTIONS");
    }
    Ok(parts)
}

/// Whether a source is a path, and not the name of a volume.
fn is_path(source: &str) -> bool {
    let mut letters = source.chars();
    let is_drive = letters.next().is_some_and(char::is_alphabetic) && letters.next() == Some(':');
    source.starts_with(['.', '/', '~']) || source.starts_with(r"\\") || is_drive
}

/// An absolute path, also of Windows, or one that is below a folder.
pub(super) fn below(root: &Path, path: &str) -> String {
    let mut letters = path.chars();
    let is_drive = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic())
        && letters.next() == Some(':')
        && matches!(letters.next(), Some('\\' | '/'));
    if path.starts_with(['/', '~']) || path.starts_with(r"\\") || is_drive {
        return path.to_owned();
    }
    clean(&root.join(path).to_string_lossy())
}

/// A path without `.`, `..`, and slashes that say nothing, as Go's `path.Clean` has it; not the real path of what is there.
fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}
