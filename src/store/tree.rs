//! An ordered map of bytes with atomic batches: sled on disk, or a `BTreeMap` where no disk is usable.
//!
//! The only module that uses sled. sled panics on damaged files and on some failures, so every call into it catches
//! panics; a panic is an error like any other, after which the catalog is rebuilt at the next start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parking_lot::RwLock;

use super::CatalogError;

/// Time until a flush that has not returned is repeated; each further repeat doubles it.
const FLUSH_PAUSE: Duration = Duration::from_secs(1);

/// New values by key, `None` for removal; applied together or not at all.
pub(crate) type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A key with its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// See the module documentation.
pub(crate) enum Tree {
    Sled(SledTree),
    Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>),
}

/// A sled database; only its default tree is used, because only batches over one tree are atomic and cheap.
pub(crate) struct SledTree(Option<sled::Db>);

impl Tree {
    /// Opens or creates a sled database in `path`, without periodic flushes: an idle node writes nothing.
    ///
    /// * `cache_bytes`: size of the cached pages' content. Their memory is about four times as large.
    pub(crate) fn open_sled(path: &Path, cache_bytes: u64) -> Result<Self, CatalogError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        wait_until_free(path).map_err(|source| CatalogError::Engine { source: Box::new(source) })?;
        fenced(|| config.open()).map(|db| Self::Sled(SledTree(Some(db))))
    }

    pub(crate) fn in_memory() -> Self {
        Self::Memory(RwLock::default())
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        match self {
            Self::Sled(tree) => fenced(|| Ok(tree.db().get(key)?.map(|value| value.to_vec()))),
            Self::Memory(map) => Ok(map.read().get(key).cloned()),
        }
    }

    /// Calls `visit` for the pairs from `from` on, in key order, as long as keys begin with `prefix` and `visit`
    /// returns `true`.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, CatalogError>,
    ) -> Result<(), CatalogError> {
        match self {
            Self::Sled(tree) => {
                let mut pairs = fenced(|| Ok(tree.db().range(from..)))?;
                while let Some((key, value)) = fenced(|| pairs.next().transpose())? {
                    if !key.starts_with(prefix) || !visit(&key, &value)? {
                        break;
                    }
                }
            }
            Self::Memory(map) => {
                for (key, value) in map.read().range(from.to_vec()..) {
                    if !key.starts_with(prefix) || !visit(key, value)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// At most `limit` pairs whose keys begin with `prefix`, from `from` on, in key order.
    pub(crate) fn pairs(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Pair>, CatalogError> {
        let mut found = Vec::new();
        if limit > 0 {
            self.scan(prefix, from, |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                Ok(found.len() < limit)
            })?;
        }
        Ok(found)
    }

    /// Applies all of a batch.
    pub(crate) fn apply(&self, batch: Batch) -> Result<(), CatalogError> {
        match self {
            Self::Sled(tree) => {
                let mut changes = sled::Batch::default();
                for (key, value) in batch {
                    match value {
                        Some(value) => changes.insert(key, value),
                        None => changes.remove(key),
                    }
                }
                fenced(|| tree.db().apply_batch(changes))
            }
            Self::Memory(map) => {
                let mut map = map.write();
                for (key, value) in batch {
                    match value {
                        Some(value) => map.insert(key, value),
                        None => map.remove(&key),
                    };
                }
                Ok(())
            }
        }
    }

    /// Like [`Self::apply`], for a batch of any size: applies one change after the other, with `mark` among the keys
    /// from before the first until after the last. The engine frees garbage of a batch only at its end, 4 KiB or more
    /// for each key: 32,000 keys took 170 MB in one batch, and 25 MB and half the time one by one.
    ///
    /// The caller keeps readers out, and discards a tree that contains the mark.
    pub(crate) fn apply_in_steps(&self, batch: Batch, mark: &[u8]) -> Result<(), CatalogError> {
        self.apply(Batch::from([(mark.to_vec(), Some(Vec::new()))]))?;
        self.load(batch)?;
        self.apply(Batch::from([(mark.to_vec(), None)]))
    }

    /// Like [`Self::apply`], one change after the other instead of atomically. In key order each change finds the page
    /// of the previous one, while the engine's batches have an order of their own: fetching, checking and cataloguing
    /// 957,001 records took 18 s instead of 21. For a tree that is discarded when this is interrupted.
    pub(crate) fn load(&self, batch: Batch) -> Result<(), CatalogError> {
        let Self::Sled(tree) = self else { return self.apply(batch) };
        fenced(|| {
            for (key, value) in batch {
                match value {
                    Some(value) => tree.db().insert(key, value)?,
                    None => tree.db().remove(key)?,
                };
            }
            Ok(())
        })
    }

    /// Writes what is in memory and closes the files.
    pub(crate) fn close(mut self) -> Result<(), CatalogError> {
        match &mut self {
            Self::Sled(tree) => match tree.0.take() {
                Some(db) => flush_and_drop(db),
                None => Ok(()),
            },
            Self::Memory(_) => Ok(()),
        }
    }
}

impl SledTree {
    fn db(&self) -> &sled::Db {
        self.0.as_ref().expect("taken only by close, which consumes the tree")
    }
}

impl Drop for SledTree {
    fn drop(&mut self) {
        // An error only causes a rebuild at the next start.
        let _ = self.0.take().map(flush_and_drop);
    }
}

/// Waits until the files in `path` are closed; sled would return an error, which costs a rebuild. The data directory is this process's alone,
/// so a file that is locked is about to be closed: by the kernel, which closes the files of a killed process one after the other, or by a
/// thread of sled's, which may drop the database after [`flush_and_drop`] has returned.
fn wait_until_free(path: &Path) -> io::Result<()> {
    match File::open(path.join("db")) {
        Ok(file) => file.lock(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes what is in memory and closes the files.
fn flush_and_drop(db: sled::Db) -> Result<(), CatalogError> {
    let flushed = repeated(FLUSH_PAUSE, || fenced(|| db.flush().map(|_| ())));
    // sled flushes when dropped too, and panics if it cannot.
    let dropped = fenced(move || {
        drop(db);
        Ok(())
    });
    flushed.and(dropped)
}

/// The first result of `flush`, which is called again, in another thread, as long as there is none: after `pause`, after twice as
/// long, and so on.
///
/// In sled 0.34.7 a write that a flush waits for can fail without waking it (`exit_reservation` in logger.rs stores the error and notifies
/// nobody). A second flush finds the error, returns it, and wakes the first.
fn repeated<T: Send>(pause: Duration, flush: impl Fn() -> T + Sync) -> T {
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for doubling in 0..16 {
            let (sender, flush) = (sender.clone(), &flush);
            let flushing = move || drop(sender.send(flush()));
            if thread::Builder::new().name("flush".to_owned()).spawn_scoped(scope, flushing).is_err() {
                break;
            }
            if let Ok(result) = results.recv_timeout(pause * (1 << doubling)) {
                return result;
            }
        }
        // No more threads: one of the first returns, or this one does.
        results.try_recv().unwrap_or_else(|_| flush())
    })
}

/// Runs a call into sled and turns a panic into an error. sled's state in memory may be inconsistent afterwards; the
/// catalog disables itself on any error, so the state is not used.
fn fenced<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, CatalogError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(CatalogError::Engine { source: Box::new(source) }),
        Err(_) => Err(CatalogError::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use parking_lot::{Condvar, Mutex};

    use super::*;

    fn each(check: impl Fn(&Tree)) {
        let directory = tempfile::tempdir().expect("temporary directory");
        check(&Tree::in_memory());
        check(&Tree::open_sled(&directory.path().join("tree"), 1 << 20).expect("opened"));
    }

    fn keys(pairs: Vec<Pair>) -> Vec<Vec<u8>> {
        pairs.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn both_trees_scan_in_order_within_a_prefix() {
        each(|tree| {
            let words: [&[u8]; 6] = [b"a", b"ba", b"bb", b"bc", b"b", b"c"];
            tree.apply(words.iter().map(|key| (key.to_vec(), Some(vec![1]))).collect()).expect("applied");
            tree.apply(Batch::from([(b"bb".to_vec(), None), (b"bd".to_vec(), Some(vec![2]))])).expect("applied");
            assert_eq!(keys(tree.pairs(b"b", b"b", 9).expect("scan")), [&b"b"[..], b"ba", b"bc", b"bd"]);
            assert_eq!(keys(tree.pairs(b"b", b"bb", 1).expect("scan")), [b"bc"]);
            assert_eq!(keys(tree.pairs(b"b", b"b", 0).expect("scan")), [b""; 0]);
            assert_eq!((tree.get(b"bb").expect("get"), tree.get(b"bd").expect("get")), (None, Some(vec![2])));
        });
    }

    #[test]
    fn files_that_are_being_closed_are_waited_for() {
        let directory = tempfile::tempdir().expect("temporary directory");
        drop(Tree::open_sled(directory.path(), 1 << 20).expect("opened"));
        let held = File::open(directory.path().join("db")).expect("there");
        held.lock().expect("free");
        let is_open = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // A lock that is waited for has a second line, which begins with an arrow.
                let file = format!(":{} 0 EOF", held.metadata().expect("readable").ino());
                let waits = |locks: String| locks.lines().any(|line| line.contains("->") && line.contains(&file));
                while !is_open.load(Ordering::Relaxed) && !waits(fs::read_to_string("/proc/locks").expect("readable")) {
                    thread::yield_now();
                }
                drop(held);
            });
            let opened = Tree::open_sled(directory.path(), 1 << 20);
            is_open.store(true, Ordering::Relaxed);
            opened.expect("it waits");
        });
    }

    #[test]
    fn a_flush_that_is_not_woken_by_an_error_is_woken_by_the_next() {
        let (failed, woken) = (Mutex::new(false), Condvar::new());
        // As sled does: the first waits for a write, which fails and wakes nobody.
        let flush = || {
            let mut failed = failed.lock();
            if *failed {
                woken.notify_all();
            } else {
                *failed = true;
                woken.wait(&mut failed);
            }
            "failed"
        };
        assert_eq!(repeated(Duration::from_millis(1), flush), "failed");
        assert_eq!(repeated(Duration::from_secs(600), || 7), 7, "a flush that returns is not repeated");
    }

    #[test]
    fn a_panic_inside_is_an_error() {
        let outcome = fenced(|| -> sled::Result<()> { panic!("as sled does on damage") });
        assert!(matches!(outcome, Err(CatalogError::Panicked)));
    }
}
