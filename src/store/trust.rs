//! Decides whether the catalog on disk may be used, and brings it up to date with the log.
//!
//! `views/catalog.json` decides. It says either *clean*, with a digest of every file, or *dirty*, with the boot id of
//! the machine. Clean and unchanged: used. Dirty and the machine has not restarted since: the process died, but the
//! kernel had all its writes, so the catalog is used after every pair was read once. Anything else: deleted and
//! rebuilt. In each case the record that the catalog applied last must be the one in the log.
//!
//! A start and stop without a write in between change nothing, except for the snapshot that sled writes at the first
//! start after writes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::OpenError;
use super::catalog::{Applied, Catalog, CatalogError};
use super::dead::DeadRecords;
use super::disk::{Disk, read_file, replace_file};
use super::log::{Log, ReadError};
use super::record::{Record, kind};
use super::tree::Tree;
use super::update::Update;
use crate::base::{Digest, Lsn, NodeId, UnixMillis};

/// Changes when the keys or values of the catalog do; an older catalog is rebuilt.
const FORMAT: u32 = 3;
/// The manifest names a handful of files.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Changed keys of one batch while catching up, which bounds its memory.
const CATCH_UP_KEYS: usize = 4096;
/// The same during a rebuild: about 10 MB.
const REBUILD_KEYS: usize = 65_536;

/// A batch that is read ahead ends with the record that brings it to this many records, or to this many payload bytes.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait. With the one being read and the one being applied, three are in memory: 3 MiB, more where single
/// records are larger.
const READ_AHEAD: usize = 1;

/// How the catalog was obtained at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewState {
    /// The store is new.
    Created,
    /// It was up to date.
    Trusted,
    /// The last records were missing.
    CaughtUp {
        /// The last record it contained.
        from: Lsn,
        /// The last record it contains now.
        to: Lsn,
    },
    /// It was rebuilt from the log.
    Rebuilt {
        /// The reason.
        reason: String,
    },
}

/// Where the catalog is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatalogStorage {
    /// In sled's files.
    Disk,
    /// In memory, rebuilt at every start.
    #[cfg(test)]
    Memory,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    node: String,
    state: State,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum State {
    Clean { applied: Lsn, files: Vec<ManifestFile> },
    Dirty { boot_id: Option<String> },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    name: String,
    bytes: u64,
    blake3: String,
}

/// Keeps `catalog.json` true while the store is open.
pub(crate) struct Trust {
    disk: Arc<dyn Disk>,
    manifest: PathBuf,
    directory: PathBuf,
    node: NodeId,
    boot_id: Option<String>,
    /// See [`Tree::open_sled`].
    cache_bytes: u64,
    mark: Mark,
}

/// The state of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Clean,
    Dirty,
    /// There is no manifest, and none may be written: the files are missing or bad.
    None,
}

/// Boot id of the running kernel.
pub(crate) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

/// What a run that shut down cleanly knew to be on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CleanShutdown {
    /// The node that wrote the log, as text.
    pub(crate) node: String,
    /// Its last record.
    pub(crate) last: Lsn,
}

/// The manifest that the last run wrote.
pub(crate) struct PreviousManifest(Result<Manifest, Refusal>);

impl PreviousManifest {
    /// Reads `views/catalog.json`.
    pub(crate) fn read(disk: &dyn Disk, views: &Path) -> Self {
        let read = read_file(disk, &manifest_path(views), MANIFEST_BYTES_MAX);
        let parsed = read.map_err(|_| Refusal::distrust("there is no manifest of the catalog")).and_then(|bytes| {
            serde_json::from_slice(&bytes).map_err(|_| Refusal::distrust("the manifest of the catalog is damaged"))
        });
        Self(parsed)
    }

    /// The node, when its log had a record, or may have had one.
    pub(crate) fn node_with_records(&self) -> Option<&str> {
        let Ok(Manifest { node, state, .. }) = &self.0 else { return None };
        // The loss of an empty log loses nothing. While a node runs, the manifest does not say how far it came.
        let is_empty = matches!(state, State::Clean { applied: Lsn::ZERO, .. });
        (!is_empty).then_some(node)
    }

    /// The state at the last run's shutdown; `None` when it was not clean. A log that ends earlier is damaged: nobody
    /// shuts down cleanly after a torn write.
    pub(crate) fn clean_shutdown(&self) -> Option<CleanShutdown> {
        match &self.0 {
            Ok(Manifest { node, state: State::Clean { applied, .. }, .. }) => {
                Some(CleanShutdown { node: node.clone(), last: *applied })
            }
            _ => None,
        }
    }
}

fn manifest_path(views: &Path) -> PathBuf {
    views.join("catalog.json")
}

/// Opens the catalog of `log` under `views`, which exists, and brings it up to date with the log.
pub(crate) fn open_catalog(
    disk: Arc<dyn Disk>,
    views: &Path,
    previous: PreviousManifest,
    log: &Log,
    boot_id: Option<String>,
    storage: CatalogStorage,
    cache_bytes: u64,
) -> Result<(Catalog, Trust, ViewState), OpenError> {
    let mut trust = Trust {
        disk,
        manifest: manifest_path(views),
        directory: views.join("catalog"),
        node: log.node,
        boot_id,
        cache_bytes,
        mark: Mark::None,
    };
    let reason = match storage {
        CatalogStorage::Disk => match trust.open_trusted(previous, log) {
            Ok((catalog, state)) => return Ok((catalog, trust, state)),
            Err(Refusal::Distrust(reason)) => reason,
            Err(Refusal::Log(error)) => return Err(OpenError::replay(error)),
        },
        #[cfg(test)]
        CatalogStorage::Memory => {
            let catalog = rebuild(Tree::in_memory(), log)?;
            return Ok((catalog, trust, ViewState::Rebuilt { reason: "kept in memory".to_owned() }));
        }
    };
    let rebuilt = trust.recreate().and_then(|tree| rebuild(tree, log));
    if rebuilt.is_ok() {
        trust.mark_rebuilt();
    }
    match rebuilt {
        Ok(catalog) if log.last() == Lsn::ZERO => Ok((catalog, trust, ViewState::Created)),
        Ok(catalog) => Ok((catalog, trust, ViewState::Rebuilt { reason })),
        Err(OpenError::Catalog { source }) => {
            // Usually a full disk: sled cannot even open then. A node without its catalog on disk still works.
            trust.withdraw();
            let catalog = rebuild(Tree::in_memory(), log)?;
            let reason = format!("{reason}; kept in memory, because on disk {source}");
            Ok((catalog, trust, ViewState::Rebuilt { reason }))
        }
        Err(error) => Err(error),
    }
}

/// Why a catalog on disk is not used.
enum Refusal {
    /// It may be wrong.
    Distrust(String),
    /// The log could not be read to update it.
    Log(ReadError),
}

impl Refusal {
    fn distrust(reason: &str) -> Self {
        Self::Distrust(reason.to_owned())
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        Self::Distrust(error.to_string())
    }
}

impl Trust {
    fn open_trusted(&mut self, previous: PreviousManifest, log: &Log) -> Result<(Catalog, ViewState), Refusal> {
        let distrust = Refusal::distrust;
        let manifest = previous.0?;
        if manifest.format != FORMAT || manifest.node != self.node.to_string() {
            return Err(distrust("the catalog is of another format or node"));
        }
        let clean_at = match manifest.state {
            State::Clean { applied, files } => {
                if hash_files(&self.directory).ok().as_ref() != Some(&files) {
                    return Err(distrust("the files of the catalog are not those in its manifest"));
                }
                self.mark = Mark::Clean;
                Some(applied)
            }
            State::Dirty { boot_id } => {
                if boot_id.is_none() || boot_id != self.boot_id {
                    return Err(distrust("the machine stopped while the catalog was being written"));
                }
                self.mark = Mark::Dirty;
                None
            }
        };
        let before = stamps(&self.directory).ok();
        let catalog = Catalog::open(Tree::open_sled(&self.directory, self.cache_bytes)?)?;
        if stamps(&self.directory).ok() != before {
            self.mark_dirty();
        }
        if catalog.is_unfinished()? {
            return Err(distrust("a large change of the catalog was cut off"));
        }
        *log.dead.lock() = DeadRecords::load(catalog.dead()?, |first| log.has_segment(first));
        let applied = catalog.applied()?;
        match clean_at {
            None => catalog.check()?,
            Some(lsn) if lsn != applied.lsn => return Err(distrust("the catalog is not the one in its manifest")),
            Some(_) => {}
        }
        if applied.lsn > log.last() {
            return Err(distrust("the catalog is ahead of the log"));
        }
        if applied.lsn != Lsn::ZERO && log.fingerprint(applied.lsn).ok() != Some(applied.fingerprint) {
            return Err(distrust("the catalog belongs to another history of the log"));
        }
        if log.next_readable(applied.lsn.next()) > log.last() {
            return Ok((catalog, ViewState::Trusted));
        }
        self.mark_dirty();
        match apply_after(&catalog, log, applied.lsn, CATCH_UP_KEYS, |update, reached| update.finish(reached)) {
            Ok(to) => Ok((catalog, ViewState::CaughtUp { from: applied.lsn, to })),
            Err(ReadError::Catalog { source }) => Err(source.into()),
            Err(error) => Err(Refusal::Log(error)),
        }
    }

    /// Deletes the existing files and opens an empty tree.
    fn recreate(&mut self) -> Result<Tree, OpenError> {
        self.withdraw();
        match fs::remove_dir_all(&self.directory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Write { path: self.directory.clone(), source });
            }
            _ => {}
        }
        Tree::open_sled(&self.directory, self.cache_bytes).map_err(|source| OpenError::Catalog { source })
    }

    /// The catalog was rebuilt completely. Until now there was no manifest: a partial catalog must not be mistaken for
    /// a complete one.
    fn mark_rebuilt(&mut self) {
        self.mark = Mark::Clean;
        self.mark_dirty();
    }

    /// Before the first change of the catalog's files. A failure costs the next start a rebuild and nothing else,
    /// because a clean manifest no longer matches the files then; so errors are ignored.
    pub(crate) fn mark_dirty(&mut self) {
        if self.mark == Mark::Clean {
            self.mark = Mark::Dirty;
            let _ = self.write(State::Dirty { boot_id: self.boot_id.clone() });
        }
    }

    /// Whether [`Self::mark_clean`] would write.
    pub(crate) fn is_dirty(&self) -> bool {
        self.mark == Mark::Dirty
    }

    /// Called after the catalog was closed cleanly, and the log is on the disk up to `applied`. A failure only costs
    /// the next start a rebuild.
    pub(crate) fn mark_clean(&mut self, applied: Applied) {
        if self.mark == Mark::Dirty
            && let Ok(files) = hash_files(&self.directory)
            && self.write(State::Clean { applied: applied.lsn, files }).is_ok()
        {
            self.mark = Mark::Clean;
        }
    }

    /// The catalog on disk must not be used again.
    pub(crate) fn withdraw(&mut self) {
        self.mark = Mark::None;
        let _ = self.disk.remove(&self.manifest);
    }

    fn write(&self, state: State) -> io::Result<()> {
        let manifest = Manifest { format: FORMAT, node: self.node.to_string(), state };
        let bytes = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
        replace_file(&*self.disk, &self.manifest, &bytes)
    }
}

/// Builds a catalog in an empty tree.
fn rebuild(tree: Tree, log: &Log) -> Result<Catalog, OpenError> {
    let catalog = Catalog::open(tree).map_err(|source| OpenError::Catalog { source })?;
    *log.dead.lock() = DeadRecords::default();
    match apply_after(&catalog, log, Lsn::ZERO, REBUILD_KEYS, |update, reached| update.load(reached)) {
        Ok(_) => Ok(catalog),
        Err(error) => Err(OpenError::replay(error)),
    }
}

/// Applies the records after `applied`, writes after about every `keys` keys, and returns the last one applied. Damaged
/// records are skipped.
fn apply_after(
    catalog: &Catalog,
    log: &Log,
    applied: Lsn,
    keys: usize,
    write: impl Fn(Update<'_>, Applied) -> Result<(), CatalogError>,
) -> Result<Lsn, ReadError> {
    std::thread::scope(|scope| {
        // A separate thread for reading and decoding saves two or three seconds of the minute that a restore of 1 GiB
        // takes.
        let (sender, receiver) = sync_channel(READ_AHEAD);
        std::thread::Builder::new()
            .name("log-reader".to_owned())
            .spawn_scoped(scope, move || read_after(log, applied, &sender))
            .map_err(|source| ReadError::Io { path: log.dir.clone(), source })?;
        let mut update = Update::new(catalog, log);
        let mut reached = Applied { lsn: applied, fingerprint: 0 };
        let mut orphans = OrphanChunks::default();
        for batch in receiver {
            for Decoded { applied, time, record } in batch? {
                match record {
                    Replayed::Chunk => orphans.add_chunk(applied.lsn, time),
                    Replayed::Skipped => {}
                    Replayed::Record(record) => {
                        orphans.remove_named(&record);
                        update.apply(applied.lsn, time, &record, None)?;
                    }
                }
                reached = applied;
                if update.len() >= keys {
                    write(update, reached)?;
                    update = Update::new(catalog, log);
                }
            }
        }
        // Otherwise a record that cannot be read may refer to them; and an earlier run counted those before `applied`.
        if applied == Lsn::ZERO && !log.has_lost_records() {
            orphans.0.into_iter().for_each(|(lsn, written)| update.count_orphan(lsn, written));
        }
        if reached.lsn > applied {
            write(update, reached)?;
        }
        Ok(reached.lsn)
    })
}

/// Chunks to which no record that was replayed so far refers, with the time at which they were written. At the end of
/// the log they are dead: compaction dropped every version of a document that had them, so nothing says when they died.
/// The time at which they were written errs towards erasing too early rather than too late.
#[derive(Default)]
struct OrphanChunks(BTreeMap<Lsn, UnixMillis>);

impl OrphanChunks {
    fn add_chunk(&mut self, lsn: Lsn, written: UnixMillis) {
        self.0.insert(lsn, written);
    }

    fn remove_named(&mut self, record: &Record) {
        if let Record::DocumentPut(document) = record {
            for chunk in &document.chunks {
                self.0.remove(&chunk.lsn);
            }
        }
    }
}

/// A decoded record, to be applied to the catalog.
struct Decoded {
    /// The catalog's position after it.
    applied: Applied,
    time: UnixMillis,
    record: Replayed,
}

/// What the catalog needs of a record.
enum Replayed {
    /// That it is a chunk.
    Chunk,
    /// That it exists.
    Skipped,
    /// All of it.
    Record(Record),
}

/// Sends the records after `applied` in batches, until the last one, an error, or the receiver is dropped.
fn read_after(log: &Log, applied: Lsn, sender: &SyncSender<Result<Vec<Decoded>, ReadError>>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut lsn = log.next_readable(applied.next());
    while lsn <= log.last() {
        match decode(log, lsn) {
            Ok((decoded, size)) => {
                batch.push(decoded);
                bytes += size;
            }
            Err(error) if error.is_damage() => {}
            Err(error) => {
                // Records read before it are not applied: the next start reads them again.
                let _ = sender.send(Err(error));
                return;
            }
        }
        if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
            bytes = 0;
            if sender.send(Ok(std::mem::take(&mut batch))).is_err() {
                return;
            }
        }
        lsn = log.next_readable(lsn.next());
    }
    let _ = sender.send(Ok(batch));
}

/// A record and the length of its payload.
fn decode(log: &Log, lsn: Lsn) -> Result<(Decoded, usize), ReadError> {
    let (header, fingerprint) = log.header_and_fingerprint(lsn)?;
    let (applied, time) = (Applied { lsn, fingerprint }, header.time);
    if header.kind == kind::CHUNK || header.is_skipped() {
        let record = if header.kind == kind::CHUNK { Replayed::Chunk } else { Replayed::Skipped };
        return Ok((Decoded { applied, time, record }, 0));
    }
    let frame = log.read(lsn)?;
    let record =
        Record::decode(header.kind, lsn, time, &frame.payload).map_err(|error| log.unreadable(lsn, error.0))?;
    Ok((Decoded { applied, time, record: Replayed::Record(record) }, frame.payload.len()))
}

/// The files under `directory`, sorted by name.
fn files(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), directory.to_owned())];
    while let Some((prefix, path)) = pending.pop() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                pending.push((format!("{name}/"), entry.path()));
            } else {
                found.push((name, entry.path()));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn hash_files(directory: &Path) -> io::Result<Vec<ManifestFile>> {
    files(directory)?
        .into_iter()
        .map(|(name, path)| {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(path)?)?;
            let blake3 = Digest(*hasher.finalize().as_bytes()).to_string();
            Ok(ManifestFile { name, bytes: hasher.count(), blake3 })
        })
        .collect()
}

/// Quick indicators of whether a file was written: its name, length and modification time.
fn stamps(directory: &Path) -> io::Result<Vec<(String, u64, SystemTime)>> {
    files(directory)?
        .into_iter()
        .map(|(name, path)| {
            let metadata = path.metadata()?;
            Ok((name, metadata.len(), metadata.modified()?))
        })
        .collect()
}
