//! Trees for the tests, and what is in one by the system's own calls, without the code that is tested.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};

pub(super) struct Tree {
    pub(super) folder: tempfile::TempDir,
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
}

impl Tree {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("there");
        let (source, target) = (root.join("source"), root.join("target"));
        fs::create_dir(&source).expect("made");
        fs::set_permissions(&source, PermissionsExt::from_mode(0o755)).expect("set");
        Self { folder, source, target }
    }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(super) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("set");
}

pub(super) fn chown(path: &Path, uid: u32, gid: u32) {
    let mode = fs::symlink_metadata(path).expect("there");
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("given to another");
    if !mode.is_symlink() {
        chmod(path, mode.mode() & 0o7777);
    }
}

pub(super) fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set");
}

pub(super) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).expect("set");
}

pub(super) fn remove_xattr(path: &Path, name: &str) {
    rustix::fs::lremovexattr(path, name).expect("removed");
}

fn mtime(path: &Path) -> (i64, i64) {
    let facts = fs::symlink_metadata(path).expect("there");
    (facts.mtime(), facts.mtime_nsec())
}

/// Changes what is in a folder, whose time stays.
pub(super) fn unchanged_parent(path: &Path, change: impl FnOnce(&Path)) {
    let parent = path.parent().expect("a parent");
    let (seconds, nanoseconds) = mtime(parent);
    change(path);
    set_mtime(parent, seconds, nanoseconds);
}

/// Another content with the same time and permissions.
pub(super) fn rewrite(path: &Path, text: &str) {
    let (seconds, nanoseconds) = mtime(path);
    fs::write(path, text).expect("written");
    set_mtime(path, seconds, nanoseconds);
}

pub(super) fn rewrite_at(path: &Path, offset: u64, bytes: &[u8]) {
    let (seconds, nanoseconds) = mtime(path);
    File::options().write(true).open(path).expect("opened").write_all_at(bytes, offset).expect("written");
    set_mtime(path, seconds, nanoseconds);
}

pub(super) fn relink(path: &Path, to: &str) {
    let facts = fs::symlink_metadata(path).expect("there");
    unchanged_parent(path, |path| {
        fs::remove_file(path).expect("removed");
        symlink(to, path).expect("linked");
    });
    std::os::unix::fs::lchown(path, Some(facts.uid()), Some(facts.gid())).expect("the owner");
    set_mtime(path, facts.mtime(), facts.mtime_nsec());
}

/// A file of its own in place of another name of one.
pub(super) fn unshare(path: &Path) {
    let (seconds, nanoseconds) = mtime(path);
    unchanged_parent(path, |path| {
        let near = path.with_extension("near");
        fs::copy(path, &near).expect("copied");
        fs::rename(&near, path).expect("renamed");
    });
    set_mtime(path, seconds, nanoseconds);
}

pub(super) fn other_device(path: &Path) {
    let (facts, (seconds, nanoseconds)) = (fs::symlink_metadata(path).expect("there"), mtime(path));
    unchanged_parent(path, |path| {
        fs::remove_file(path).expect("removed");
        device(path, 1, 5);
    });
    chmod(path, facts.mode() & 0o7777);
    set_mtime(path, seconds, nanoseconds);
}

fn device(path: &Path, major: u32, minor: u32) {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).expect("made");
}

/// An access control list as acl(5) describes it and the kernel stores it: a version, and entries of tag, permissions and number.
fn access_list(user: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 5, user), (4, 5, u32::MAX), (0x10, 5, u32::MAX), (0x20, 0, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, number) in entries {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&number.to_le_bytes());
    }
    list
}

/// A tree with every kind of entry and attribute.
pub(super) fn everything(root: &Path) {
    let path = |name: &str| root.join(name);
    for folder in ["sub", "empty", "sticky", "shared", "run", "deep/er/and/deeper"] {
        fs::create_dir_all(path(folder)).expect("made");
    }
    fs::write(path("sub/text"), "hello").expect("written");
    fs::write(path("sub/none"), "").expect("written");
    fs::write(path("sub/setuid"), "#!").expect("written");
    fs::write(path("deep/er/and/deeper/large"), (0..3_000_000_u32).map(|n| (n >> 7) as u8).collect::<Vec<_>>())
        .expect("written");
    fs::write(path("one"), "two names").expect("written");
    fs::hard_link(path("one"), path("sub/two")).expect("linked");
    symlink("sub/text", path("link")).expect("linked");
    symlink("/etc/hostname", path("sub/outside")).expect("linked");
    symlink("nowhere\n", path("dangling")).expect("linked");
    fs::hard_link(path("dangling"), path("dangling too")).expect("linked");
    let sparse = File::create(path("sparse")).expect("made");
    sparse.set_len(3 << 30).expect("set");
    sparse.write_all_at(b"middle", 1 << 30).expect("written");
    let small = File::create(path("sub/hole")).expect("made");
    small.set_len(300_000).expect("set");
    small.write_all_at(b"middle", 150_000).expect("written");
    let pipe = |name| rustix::fs::mknodat(CWD, path(name), FileType::Fifo, Mode::from_raw_mode(0o640), 0);
    pipe("run/pipe").expect("made");
    drop(std::os::unix::net::UnixListener::bind(path("run/socket")).expect("bound"));
    set_xattr(&path("sub/text"), "user.note", b"a note\0with bytes");
    set_xattr(&path("sub"), "user.folder", b"");
    set_xattr(&path("one"), "user.long", &[7; 3000]);
    chmod(&path("sticky"), 0o1777);
    chmod(&path("sub/none"), 0o000);
    if is_root() {
        chown(&path("sub/text"), 1000, 1001);
        chown(&path("sub/none"), 4_000_000_000, 65_534);
        chown(&path("link"), 1000, 1000);
        chown(&path("empty"), 999, 999);
        device(&path("run/null"), 1, 3);
        chmod(&path("run/null"), 0o620);
        // Version 2, effective, CAP_NET_BIND_SERVICE: capabilities(7).
        fs::write(path("sub/capable"), "x").expect("written");
        let capability: Vec<u8> = [0x0200_0001_u32, 1 << 10, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
        set_xattr(&path("sub/capable"), "security.capability", &capability);
        set_xattr(&path("link"), "trusted.of-the-link", b"1");
        set_xattr(&path("shared"), "system.posix_acl_access", &access_list(1234));
        set_xattr(&path("shared"), "system.posix_acl_default", &access_list(4321));
        fs::write(path("shared/inherits"), "x").expect("written");
    }
    chmod(&path("sub/setuid"), 0o6755);
    set_mtime(&path("sub/text"), 1_500_000_000, 123_456_789);
    set_mtime(&path("dangling"), -5, 7);
    set_mtime(&path("run/pipe"), 1_400_000_000, 1);
    chmod(&path("deep/er"), 0o500);
    for folder in ["sub", "empty", "sticky", "shared", "run", "deep/er/and", "deep/er", "deep"] {
        set_mtime(&path(folder), 1_300_000_000, 42);
    }
    // What is written last is not older than anything: the clock of files has steps.
    set_mtime(root, 1_200_000_000, 1);
}

/// What changes with every change of a file.
pub(super) fn untouchable(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let facts = |path: &Path| {
        let facts = fs::symlink_metadata(root.join(path)).expect("there");
        (facts.ino(), facts.ctime(), facts.ctime_nsec())
    };
    snapshot(root).into_keys().map(|path| (path.clone(), facts(&path))).collect()
}

/// What is in a tree: for each path the facts that a copy has to have.
pub(super) fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = open.pop() {
        let facts = fs::symlink_metadata(&path).expect("there");
        let kind = facts.file_type();
        let content = if kind.is_dir() {
            open.extend(fs::read_dir(&path).expect("read").map(|entry| entry.expect("read").path()));
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("link {:?}", fs::read_link(&path).expect("read"))
        } else if kind.is_socket() {
            "socket".to_owned()
        } else if kind.is_fifo() || kind.is_char_device() {
            format!("device {kind:?} {}", facts.rdev())
        } else if facts.len() < 100 << 20 && (facts.mode() & 0o400 != 0 || is_root()) {
            blake3::hash(&fs::read(&path).expect("read")).to_string()
        } else {
            let mut bytes = [0; 6];
            File::open(&path).expect("opened").read_exact_at(&mut bytes, 1 << 30).expect("read");
            format!("{bytes:?}")
        };
        let size = if kind.is_dir() { 0 } else { facts.len() };
        let mut list = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut list[..]).expect("listed");
        let mut names: Vec<&[u8]> = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        let value = |name: &[u8]| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).expect("read");
            (String::from_utf8_lossy(name).into_owned(), blake3::hash(&value[..length]))
        };
        let xattrs: Vec<_> = names.into_iter().map(value).collect();
        let links = if kind.is_dir() { 0 } else { facts.nlink() };
        let text = format!(
            "{content} {size} {:o} {}:{} {}.{} {links} {xattrs:?}",
            facts.mode(),
            facts.uid(),
            facts.gid(),
            facts.mtime(),
            facts.mtime_nsec()
        );
        found.insert(path.strip_prefix(root).expect("below").to_owned(), text);
    }
    found
}

/// Folders in each other, and a file with two names and a note at the end.
pub(super) fn deep(root: &Path, depth: usize) {
    let mut folder = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opened");
    for _ in 0..depth {
        rustix::fs::mkdirat(&folder, "d", Mode::RWXU).expect("made");
        folder = rustix::fs::openat(&folder, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opened");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(&folder, "file", flags, Mode::RUSR | Mode::WUSR).expect("made");
    File::from(file).write_all(b"at the end").expect("written");
    rustix::fs::linkat(&folder, "file", &folder, "name", AtFlags::empty()).expect("linked");
}

/// Removes what has too many folders in each other for the standard library.
pub(super) fn remove_deep(root: &Path) {
    let open = |fd: &std::os::fd::OwnedFd, name: &str| {
        rustix::fs::openat(fd, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).ok()
    };
    let mut folder = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opened");
    let mut depth = 0;
    while let Some(inner) = open(&folder, "d") {
        folder = inner;
        depth += 1;
    }
    for name in ["file", "name"] {
        let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
    }
    for _ in 0..depth {
        folder = open(&folder, "..").expect("opened");
        rustix::fs::unlinkat(&folder, "d", AtFlags::REMOVEDIR).expect("removed");
    }
}

/// An entry of a random tree.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    folder: usize,
    name: Vec<u8>,
    kind: u8,
    size: usize,
    mode: u32,
    owner: u32,
    time: (i64, i64),
    xattr: Option<Vec<u8>>,
}

pub(super) fn random() -> impl Strategy<Value = Vec<Planned>> {
    let letter =
        prop_oneof![4 => 0x61_u8..0x64, 1 => any::<u8>().prop_filter("a name", |byte| ![0, b'/'].contains(byte))];
    let entry = (
        any::<usize>(),
        proptest::collection::vec(letter, 1..6).prop_filter("a name", |name| name != b"." && name != b".."),
        0_u8..7,
        prop_oneof![3 => 0_usize..9000, 1 => 0_usize..3_000_000],
        0_u32..0o10000,
        prop_oneof![Just(0_u32), 1000_u32..1003],
        (-1_000_000_i64..4_000_000_000, 0_i64..1_000_000_000),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
    );
    let planned = entry.prop_map(|(folder, name, kind, size, mode, owner, time, xattr)| Planned {
        folder,
        name,
        kind,
        size,
        mode,
        owner,
        time,
        xattr,
    });
    proptest::collection::vec(planned, 0..40)
}

pub(super) fn build(root: &Path, plan: &[Planned]) {
    use std::os::unix::ffi::OsStrExt as _;
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::<PathBuf>::new());
    for planned in plan {
        let path = folders[planned.folder % folders.len()].join(std::ffi::OsStr::from_bytes(&planned.name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match planned.kind {
            0 | 1 => {
                fs::create_dir(&path).expect("made");
                folders.push(path.clone());
            }
            2 => symlink(folders[planned.size % folders.len()].join("x"), &path).expect("linked"),
            3 if !files.is_empty() => {
                fs::hard_link(&files[planned.size % files.len()], &path).expect("linked");
                continue;
            }
            4 => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).expect("made"),
            _ => {
                let bytes: Vec<u8> = (0..planned.size).map(|at| if at % 9973 < 5000 { 0 } else { at as u8 }).collect();
                fs::write(&path, bytes).expect("written");
                if let Some(value) = &planned.xattr {
                    set_xattr(&path, "user.random", value);
                }
            }
        }
        files.push(path.clone());
        if path.is_dir() {
            files.pop();
        }
    }
    for (planned, path) in plan.iter().cycle().zip(files.iter().rev().chain(folders.iter().rev())) {
        if is_root() {
            std::os::unix::fs::lchown(path, Some(planned.owner), Some(planned.owner)).expect("given to another");
        }
        if !path.is_symlink() {
            let mode = if is_root() { planned.mode } else { planned.mode | 0o700 };
            chmod(path, mode);
        }
        set_mtime(path, planned.time.0, planned.time.1);
    }
}
