//! A disk in memory that can lose its power and fail at any call.
//!
//! A power cut keeps what was synced. Of the rest, any subset survives: each 512-byte sector of each write, and each
//! change of a length, creation, renaming and removal independently. Most file systems lose less.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

const SECTOR: u64 = 512;

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Default, Clone)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
}

type Node = Arc<Mutex<Content>>;

#[derive(Default)]
struct Names {
    durable: BTreeMap<PathBuf, Node>,
    current: BTreeMap<PathBuf, Node>,
    /// Changes that a sync of the directory would make durable: a name with its file, or without one.
    unsynced: Vec<(PathBuf, Option<Node>)>,
}

/// How the failing call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Fails with `EIO`; a write has written half.
    Io,
    /// Fails with `ENOSPC`; a write has written half.
    Full,
}

struct Shared {
    names: Mutex<Names>,
    calls: AtomicU64,
    fail_at: AtomicU64,
    failure: Mutex<Failure>,
    free: AtomicU64,
}

/// See the module documentation.
#[derive(Clone)]
pub(crate) struct MemDisk(Arc<Shared>);

struct MemFile {
    disk: MemDisk,
    node: Node,
}

impl MemDisk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            names: Mutex::default(),
            calls: AtomicU64::new(0),
            fail_at: AtomicU64::new(u64::MAX),
            failure: Mutex::new(Failure::Io),
            free: AtomicU64::new(u64::MAX),
        }))
    }

    /// Makes change number `call` (from 0, counted from now) fail, and only that one.
    pub(crate) fn fail_at(&self, call: u64, failure: Failure) {
        self.0.calls.store(0, Ordering::SeqCst);
        self.0.fail_at.store(call, Ordering::SeqCst);
        *self.0.failure.lock() = failure;
    }

    /// Changes since [`Self::fail_at`], or since the disk was created.
    pub(crate) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn set_free(&self, bytes: u64) {
        self.0.free.store(bytes, Ordering::SeqCst);
    }

    /// The current bytes of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.0.names.lock().current[path].lock().current.clone()
    }

    /// Changes bytes on the disk directly, like decay.
    pub(crate) fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let names = self.0.names.lock();
        let mut content = names.current[path].lock();
        *content = Content { durable: bytes.clone(), current: bytes, unsynced: Vec::new() };
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.0.names.lock().current.keys().cloned().collect()
    }

    /// The disk after a power cut; `keep` decides for each unsynced piece in turn.
    pub(crate) fn power_cut(&self, mut keep: impl FnMut() -> bool) -> Self {
        let after = Self::new();
        let names = self.0.names.lock();
        let mut kept = names.durable.clone();
        for (path, node) in &names.unsynced {
            if keep() {
                match node {
                    Some(node) => kept.insert(path.clone(), Arc::clone(node)),
                    None => kept.remove(path),
                };
            }
        }
        let mut new_names = after.0.names.lock();
        for (path, node) in kept {
            let content = node.lock();
            let mut bytes = content.durable.clone();
            for change in &content.unsynced {
                match change {
                    Change::Length(length) if keep() => bytes.resize(*length as usize, 0),
                    Change::Length(_) => {}
                    Change::Write(offset, data) => {
                        let mut at = *offset;
                        let end = offset + data.len() as u64;
                        while at < end {
                            let next = ((at / SECTOR + 1) * SECTOR).min(end);
                            if keep() {
                                put(&mut bytes, at, &data[(at - offset) as usize..(next - offset) as usize]);
                            }
                            at = next;
                        }
                    }
                }
            }
            let content = Content { durable: bytes.clone(), current: bytes, unsynced: Vec::new() };
            let node = Arc::new(Mutex::new(content));
            new_names.durable.insert(path.clone(), Arc::clone(&node));
            new_names.current.insert(path, node);
        }
        drop(new_names);
        after
    }

    fn call(&self) -> io::Result<()> {
        let number = self.0.calls.fetch_add(1, Ordering::SeqCst);
        if number != self.0.fail_at.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(match *self.0.failure.lock() {
            Failure::Io => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
            Failure::Full => io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()),
        })
    }

    fn file(&self, node: &Node) -> Arc<dyn DiskFile> {
        Arc::new(MemFile { disk: self.clone(), node: Arc::clone(node) })
    }
}

fn put(bytes: &mut Vec<u8>, at: u64, data: &[u8]) {
    let at = at as usize;
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl Disk for MemDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.call()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        let mut names = self.0.names.lock();
        if names.current.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = Node::default();
        names.current.insert(path.to_owned(), Arc::clone(&node));
        names.unsynced.push((path.to_owned(), Some(Arc::clone(&node))));
        Ok(self.file(&node))
    }

    fn open(&self, path: &Path, _: bool) -> io::Result<Arc<dyn DiskFile>> {
        let names = self.0.names.lock();
        names.current.get(path).map(|node| self.file(node)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        let mut names = self.0.names.lock();
        let node = names.current.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.current.insert(to.to_owned(), Arc::clone(&node));
        names.unsynced.push((to.to_owned(), Some(node)));
        names.unsynced.push((from.to_owned(), None));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        let mut names = self.0.names.lock();
        names.current.remove(path).ok_or(io::ErrorKind::NotFound)?;
        names.unsynced.push((path.to_owned(), None));
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.call()?;
        let mut names = self.0.names.lock();
        let Names { durable, unsynced, .. } = &mut *names;
        unsynced.retain(|(path, node)| {
            if path.parent() != Some(directory) {
                return true;
            }
            match node {
                Some(node) => durable.insert(path.clone(), Arc::clone(node)),
                None => durable.remove(path),
            };
            false
        });
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let names = self.0.names.lock();
        let inside = names.current.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.free.load(Ordering::SeqCst))
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.node.lock().current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.node.lock();
        let rest = content.current.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let outcome = self.disk.call();
        let written = if outcome.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let mut content = self.node.lock();
        put(&mut content.current, offset, written);
        content.unsynced.push(Change::Write(offset, written.to_vec()));
        outcome
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.call()?;
        let mut content = self.node.lock();
        content.unsynced.clear();
        content.durable = content.current.clone();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.call()?;
        let mut content = self.node.lock();
        content.current.resize(length as usize, 0);
        content.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.call()?;
        let mut content = self.node.lock();
        let end = (offset + length).max(content.current.len() as u64);
        content.current.resize(end as usize, 0);
        content.unsynced.push(Change::Length(end));
        Ok(())
    }
}
