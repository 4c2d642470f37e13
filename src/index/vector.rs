//! Vectors of one collection: an append-only matrix, scanned exactly while it is small and searched through a graph
//! when it is large. Derived data: every file can be deleted and is rebuilt from the log.
//!
//! # How a search runs
//! A search gets one immutable view (rows, which of them are alive, how far the graph reaches) and then
//! * without a filter, scans all rows while the graph reaches few; otherwise walks the graph and scans the rows that
//!   the graph has not reached yet, so a write is found immediately;
//! * with a filter, scans exactly the allowed rows when they are few, because a walk costs more the fewer rows its
//!   filter admits; otherwise walks.
//!
//! Scores are computed by the same kernel on every path, so all paths give a row bit-identical scores.
//!
//! # Invariants
//! * Keys ascend with rows. All stored vectors are unit vectors in f16, so the inner product is the cosine.
//! * A batch becomes visible as a whole, when its owner publishes it: searches never see its removals without its
//!   additions. A search gets its view as an argument, so that its owner can publish it together with other state that
//!   follows the log.
//! * Readers never wait for the writer. They may wait while the graph's table is doubled.
//! * Row numbers live as long as a matrix. When more than half of the rows are removed, a second matrix with its own
//!   graph is built next to the first; it takes over at the next checkpoint after it is complete.
//!
//! # Durability
//! A checkpoint makes the state durable and hashes it. After it, each batch writes its rows and then a record in a
//! journal, unsynced. After the process ended ([`Trust::SameBoot`]) the checkpoint and the journal are used. After the
//! machine went down ([`Trust::Verify`]) only the checkpoint counts, and only if each file matches its digest. Anything
//! else is deleted and [`VectorIndex::open`] returns how far back the log must be replayed; a graph that alone is
//! damaged is rebuilt from the rows. The graph is hashed at every open since damaged bytes in it would crash the
//! process; rows, which could only be scored wrongly, are hashed at open after the machine went down and otherwise by
//! the next checkpoint.
//!
//! # Left out
//! Threads: linking and verifying are steps that the owner's workers call. A lock on the directory: the store holds the
//! data directory's. Also bytes for the scan: they would halve its time, but need half as much memory again.

mod bits;
mod column;
mod device;
mod disk;
mod engine;
mod error;
mod graph;
pub mod kernels;
mod keys;
mod matrix;
mod recall;
mod row_set;
mod runs;
mod scan;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use half::f16;
use parking_lot::Mutex;
use serde::Deserialize;

pub(super) use self::bits::Bits;
use self::column::MappedFile;
use self::device::DevicePlacement;
pub use self::device::{DeviceAnswer, DeviceQuery};
pub use self::disk::DiskError;
use self::disk::{Journal, Record, Sealed, SealedGraph, VectorManifest};
use self::engine::{Engine as _, Flat, Hnsw};
pub use self::error::{ApplyError, BuildError, CheckpointError, GraphError, OpenError};
use self::graph::Graph;
pub use self::graph::Verified;
use self::matrix::Matrix;
pub use self::matrix::View;
pub use self::recall::Recall;
use self::recall::Sample;
pub use self::row_set::RowSet;
pub(super) use self::scan::coarse as bytes_of;
pub use self::scan::dot as inner_product;
use crate::base::{Digest, Lsn, setting};

/// Fewest and most numbers a vector may have.
const DIMENSIONS: std::ops::RangeInclusive<usize> = 64..=4096;
/// A graph is written again when at least this part of its nodes was linked since it was last written: the rest is
/// linked again after a restart, and a checkpoint of a large collection does not write hundreds of MiB for a few rows.
const GRAPH_REWRITE_PART: usize = 16;
/// Matrices with fewer removed rows are not rewritten.
const REWRITE_ROWS_MIN: usize = 1024;
/// Memory of a graph node besides its copy of the vector and its links, and of a link, in bytes. Measured with a
/// million nodes of 256 and 16 links: 545 bytes each.
const NODE_BYTES: usize = 100;
const LINK_BYTES: usize = 6;
/// A walk returns at most one row in this many; larger results are scanned.
const WALK_PART: usize = 16;
/// The cost of a walk with `e` candidates among `m` of `n` rows grows with `e · n / m`, that of a scan of the `m` with
/// `m`: they break even where `m²` is this many times `e · n`. Measured with 100,000 and 1,000,000 × 256: 1.35 µs for a
/// candidate, 18 to 35 ns for a row.
const SCAN_WALK_RATIO: usize = 40;
/// Factor of the candidates for a walk with a filter, relative to the recall of a whole collection: callers who filter
/// expect to see everything that passes.
const FILTERED_EXPANSION: f64 = 1.7;

/// The layout and search configuration of an index.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// Numbers in a vector, 64 to 4096; not a setting, the model of a collection decides it.
    #[serde(skip)]
    pub dimensions: usize,
    /// Up to this many live vectors there is no graph.
    #[serde(deserialize_with = "setting::count::<_, 0, 10_000_000>")]
    pub flat_max: usize,
    /// Links of a graph node (M).
    #[serde(deserialize_with = "setting::count::<_, 4, 128>")]
    pub connectivity: usize,
    /// Candidates considered when a node is linked (efConstruction).
    #[serde(deserialize_with = "setting::count::<_, 8, 2_048>")]
    pub expansion_add: usize,
    /// Minimum candidates considered in a search (ef).
    #[serde(deserialize_with = "setting::count::<_, 8, 2_048>")]
    pub expansion_search: usize,
    /// The recall@10 that a walk should have on actual queries, 0 to 1: [`VectorIndex::check_recall`] increases the
    /// candidates if it is clearly lower.
    #[serde(deserialize_with = "setting::share")]
    pub recall: f64,
    /// A filter that allows at most this many keys is always answered by an exact scan of them.
    #[serde(deserialize_with = "setting::count::<_, 0, 10_000_000>")]
    pub scan_max: usize,
}

impl Config {
    /// The measured defaults for vectors of `dimensions` numbers.
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        Self {
            dimensions,
            flat_max: 20_000,
            connectivity: 16,
            expansion_add: 128,
            expansion_search: 80,
            recall: 0.95,
            scan_max: 20_000,
        }
    }
}

/// How far the files of an earlier run can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The machine has kept running since they were written: everything written is there, synced or not.
    SameBoot,
    /// The machine went down in between: only a checkpoint with matching digests is used.
    Verify,
}

/// A search result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// The key that it was added under.
    pub key: u64,
    /// Cosine of its angle to the query, about -1 to 1.
    pub score: f32,
}

/// Counts and sizes at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Position in the log that the index represents.
    pub applied: Lsn,
    /// Rows, removed ones included.
    pub rows: usize,
    /// Vectors that a search can return.
    pub live: usize,
    /// Vectors that were refused because they are zero or not unit vectors.
    pub skipped: u64,
    /// Rows that the graph reaches.
    pub linked: usize,
    /// Linked rows that the graph does not find; searches score them when they reach the nearest row that it finds.
    pub strays: usize,
    /// Bytes of allocated memory, most of it the graph.
    pub memory_bytes: usize,
    /// Bytes of the mapped files; page cache, which the kernel reclaims under pressure.
    pub mapped_bytes: usize,
    /// Bytes in the journal; a checkpoint empties it.
    pub journal_bytes: u64,
}

/// The vectors of one collection. One thread applies and takes checkpoints, any number search, workers link.
pub struct VectorIndex {
    dir: PathBuf,
    config: Config,
    view: ArcSwap<View>,
    journal_bytes: AtomicU64,
    writer: Mutex<Writer>,
    sample: Mutex<Sample>,
    /// Held during a checkpoint, so that two do not mix. Taken before `writer`.
    checkpoint: Mutex<()>,
    /// The GPU placement; empty if none is used.
    device: OnceLock<DevicePlacement>,
}

struct Writer {
    current: Matrix,
    /// The rewritten matrix, from the time that most rows of `current` are removed until a checkpoint replaces it.
    successor: Option<Matrix>,
    journal: Journal,
    manifest: VectorManifest,
    next_number: u64,
    /// Whether a batch was applied since the last [`VectorIndex::publish`].
    has_hidden: bool,
}

impl VectorIndex {
    /// Opens the index in `dir`, which is created if needed and must not be in use. The position is that of the last
    /// batch it represents: replay the log after it. [`Lsn::ZERO`] when it starts empty.
    ///
    /// # Errors
    /// Those of [`OpenError`]; damaged or foreign files are discarded with a warning instead.
    pub fn open(dir: &Path, config: Config, trust: Trust) -> Result<(Self, Lsn), OpenError> {
        if !DIMENSIONS.contains(&config.dimensions) {
            return Err(OpenError::Dimensions { found: config.dimensions });
        }
        std::fs::create_dir_all(dir).map_err(DiskError::of("create", dir))?;
        let mut next_number = VectorManifest::next_number(dir)?;
        let opened = match VectorManifest::read(dir)? {
            Some(manifest) if manifest.dimensions == config.dimensions => {
                let opened = Self::reopen(dir, &config, manifest, trust)?;
                if opened.is_none() {
                    tracing::warn!(dir = %dir.display(), "vector index is damaged and will be rebuilt");
                }
                opened
            }
            _ => None,
        };
        let (current, journal, manifest) = match opened {
            Some(opened) => opened,
            None => {
                let manifest = VectorManifest::empty(config.dimensions, next_number);
                let current = Matrix::create(dir, &config, next_number)?;
                let journal = Journal::create(dir, next_number)?;
                current.sync()?;
                disk::write_synced(&VectorManifest::path(dir, "alive", next_number), &[])?;
                manifest.write(dir)?;
                next_number += 1;
                (current, journal, manifest)
            }
        };
        manifest.sweep(dir, None);
        let view = current.view();
        let applied = view.applied;
        let index = Self {
            dir: dir.to_owned(),
            config,
            view: ArcSwap::from_pointee(view),
            journal_bytes: AtomicU64::new(journal.len()),
            writer: Mutex::new(Writer { current, successor: None, journal, manifest, next_number, has_hidden: false }),
            sample: Mutex::default(),
            checkpoint: Mutex::new(()),
            device: OnceLock::new(),
        };
        Ok((index, applied))
    }

    /// Loads what `manifest` describes; `None` when a file is missing or does not match.
    fn reopen(
        dir: &Path,
        config: &Config,
        manifest: VectorManifest,
        trust: Trust,
    ) -> Result<Option<(Matrix, Journal, VectorManifest)>, OpenError> {
        let alive_path = VectorManifest::path(dir, "alive", manifest.number);
        let Some((journal, records)) = Journal::open(dir, manifest.number)? else { return Ok(None) };
        let (journal, records) = match trust {
            Trust::SameBoot => (journal, records),
            Trust::Verify => (Journal::create(dir, manifest.number)?, Vec::new()),
        };
        let Ok(alive) = std::fs::read(&alive_path) else { return Ok(None) };
        let Some(alive) =
            manifest.alive.matches(&alive).then(|| bits::Bits::from_bytes(&alive, manifest.rows)).flatten()
        else {
            return Ok(None);
        };
        let rows = records.last().map_or(manifest.rows, |record| record.rows);
        let Some(mut current) = Matrix::open(dir, config, &manifest, rows)? else { return Ok(None) };
        current.adopt(alive, &manifest);
        for record in records {
            if !current.replay(&record) {
                return Ok(None);
            }
        }
        // Hashing is bound by memory or disk, and the graph and the rows are about as large: in parallel.
        let (graph, rows_intact) = std::thread::scope(|scope| {
            let graph = scope.spawn(|| Self::load_graph(dir, config, &manifest));
            let rows_intact = current.verify(&manifest, trust == Trust::Verify);
            (graph.join().unwrap_or(None), rows_intact)
        });
        if !rows_intact {
            return Ok(None);
        }
        let mut manifest = manifest;
        match graph {
            Some(graph) => current.graph = Arc::new(graph),
            None if manifest.graph.is_some() => {
                tracing::warn!(dir = %dir.display(), "vector graph is damaged or of another shape and will be rebuilt");
                manifest.graph = None;
            }
            None => {}
        }
        Ok(Some((current, journal, manifest)))
    }

    fn load_graph(dir: &Path, config: &Config, manifest: &VectorManifest) -> Option<Graph> {
        let sealed = manifest.graph.as_ref()?;
        let file = MappedFile::open(&VectorManifest::path(dir, "graph", sealed.number)).ok()?;
        // The engine does not validate what it loads, so only files written by `checkpoint` are loaded.
        if !sealed.file.matches(file.bytes()) {
            return None;
        }
        Graph::load(config, file.bytes(), &sealed.state, manifest.rows).ok()
    }

    /// Applies the batch at `lsn`: first removes the stored keys in `removed`, then adds the vectors of `added`, whose
    /// keys ascend and are above all added before. Visible after the next [`Self::publish`]; survives the end of the
    /// process, and that of the machine from the next checkpoint on. A batch at or below the applied position is
    /// ignored.
    ///
    /// A vector that is not a finite unit vector (a chunk without meaningful text has a zero vector) is left out and
    /// counted in [`Stats::skipped`].
    ///
    /// # Errors
    /// Those of [`ApplyError`]; nothing has changed then.
    pub fn apply(&self, lsn: Lsn, removed: &[Range<u64>], added: &[(u64, &[f16])]) -> Result<(), ApplyError> {
        self.apply_made_of(lsn, removed, added, &[])
    }

    /// The same with the pieces of each vector of `added`, which [`View::pieces`] returns; missing ones are empty.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub fn apply_made_of(
        &self,
        lsn: Lsn,
        removed: &[Range<u64>],
        added: &[(u64, &[f16])],
        pieces: &[Vec<u16>],
    ) -> Result<(), ApplyError> {
        let mut writer = self.writer.lock();
        let Writer { current, successor, journal, has_hidden, .. } = &mut *writer;
        if lsn <= current.applied {
            return Ok(());
        }
        self.check_batch(current.last_key(), added)?;
        let (keys, vectors, pieces) = sound(added, pieces);
        let skipped = (added.len() - keys.len()) as u64;
        current.write(&keys, &vectors, &pieces)?;
        let record = Record {
            applied: lsn,
            rows: current.rows() + keys.len(),
            skipped: current.skipped + skipped,
            removed: current.rows_of(removed),
        };
        journal.append(&record)?;
        current.commit(&record);
        if let Some(next) = successor {
            let record = Record { rows: next.rows() + keys.len(), removed: next.rows_of(removed), ..record };
            match next.write(&keys, &vectors, &pieces) {
                Ok(()) => next.commit(&record),
                // The batch is complete without it; a later step starts the rewrite again.
                Err(_) => *successor = None,
            }
        }
        *has_hidden = true;
        Ok(())
    }

    /// Makes everything that was applied visible.
    pub fn publish(&self) {
        let mut writer = self.writer.lock();
        if std::mem::take(&mut writer.has_hidden) {
            self.store_view(&writer.current, &writer.journal);
        }
    }

    /// The visible view, for [`Self::search`] and similar methods.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    fn check_batch(&self, last: Option<u64>, added: &[(u64, &[f16])]) -> Result<(), ApplyError> {
        let mut previous = last;
        for (key, vector) in added {
            if vector.len() != self.config.dimensions {
                let (found, expected) = (vector.len(), self.config.dimensions);
                return Err(ApplyError::Dimensions { key: *key, found, expected });
            }
            if let Some(previous) = previous.filter(|previous| previous >= key) {
                return Err(ApplyError::Order { key: *key, previous });
            }
            previous = Some(*key);
        }
        Ok(())
    }

    /// Up to `limit` vectors nearest to `query` (of any nonzero length). Best first, equal scores by ascending key.
    /// Exact, hence deterministic, where it scans (see the module); otherwise with the graph's recall, but always as
    /// many hits as possible. A query that is zero, not finite or of the wrong number of dimensions finds nothing.
    #[must_use]
    pub fn search(&self, view: &View, query: &[f32], limit: usize) -> Vec<Neighbor> {
        let Some(query) = scan::unit_query(query, self.config.dimensions) else { return Vec::new() };
        self.nearest(view, &query, limit, |sample, query| sample.record(query))
    }

    /// The same for a unit vector.
    ///
    /// * `walked`: called with a query that walks the graph.
    fn nearest(
        &self,
        view: &View,
        query: &[f16],
        limit: usize,
        walked: impl FnOnce(&mut Sample, &[f16]),
    ) -> Vec<Neighbor> {
        let reach = view.graph.linked().min(view.vectors.count());
        let limit = limit.min(view.live);
        let flat = || Flat.nearest(view, query, limit, None).unwrap_or_default();
        if !self.is_walk_worth_it(reach, limit, view.live) {
            return flat();
        }
        if let Some(mut sample) = self.sample.try_lock() {
            walked(&mut sample, query);
        }
        let graph = Hnsw { expansion: view.graph.expansion_search(), reach };
        graph.nearest(view, query, limit, None).unwrap_or_else(flat)
    }

    /// The same among the rows of `allowed`; `None` when they are from another matrix.
    #[must_use]
    pub fn search_among(&self, view: &View, query: &[f32], limit: usize, allowed: &RowSet) -> Option<Vec<Neighbor>> {
        if !view.numbers(allowed) {
            return None;
        }
        let Some(query) = scan::unit_query(query, self.config.dimensions) else { return Some(Vec::new()) };
        let reach = view.graph.linked().min(view.vectors.count());
        let admitted = allowed.len().min(view.live);
        let limit = limit.min(admitted);
        let expansion = self.filtered_expansion(view, admitted);
        let is_narrow = admitted <= self.config.scan_max
            || admitted.saturating_mul(admitted) <= view.live.saturating_mul(expansion * SCAN_WALK_RATIO);
        let walk = self.is_walk_worth_it(reach, limit, admitted) && !is_narrow;
        let graph = Hnsw { expansion, reach };
        let walked = walk.then(|| graph.nearest(view, &query, limit, Some(allowed))).flatten();
        walked.or_else(|| Flat.nearest(view, &query, limit, Some(allowed)))
    }

    /// Candidates of a walk among `admitted` rows. More than the configured number are needed where many vectors are
    /// close together, and the fewer rows a filter admits, the less that occurs.
    fn filtered_expansion(&self, view: &View, admitted: usize) -> usize {
        let least = self.config.expansion_search;
        let more = view.graph.expansion_search().saturating_sub(least) as f64;
        let share = admitted as f64 / view.live.max(1) as f64;
        ((least as f64 + more * share) * FILTERED_EXPANSION) as usize
    }

    /// A walk over few nodes costs more than the scan that it saves; a long result includes most rows anyway.
    fn is_walk_worth_it(&self, reach: usize, limit: usize, admitted: usize) -> bool {
        reach > self.config.flat_max / 2 && limit < admitted / WALK_PART
    }

    /// The exact result of a search: scans every row, or those with the keys in `among`, which ascend.
    #[must_use]
    pub fn exact(&self, view: &View, query: &[f32], limit: usize, among: Option<&[u64]>) -> Vec<Neighbor> {
        let Some(query) = scan::unit_query(query, self.config.dimensions) else { return Vec::new() };
        let limit = limit.min(view.live);
        match among {
            None => view.scan(&query, limit, None),
            Some(keys) => view.scan_keys(&query, limit, keys),
        }
    }

    /// Whether [`Self::check_recall`] would find something new.
    #[must_use]
    pub fn is_recall_due(&self) -> bool {
        self.sample.lock().is_due(self.view.load().graph.linked())
    }

    /// Compares the graph with an exact scan, on recent queries, and adjusts the candidates of walks to reach the
    /// configured recall. For idle times: 256 scans of all rows, by the GPU where it answers. `None` if there is no
    /// graph or it is incomplete.
    pub fn check_recall(&self) -> Option<Recall> {
        let view = self.view.load_full();
        let linked = view.graph.linked();
        if linked == 0 || linked < view.vectors.count() {
            return None;
        }
        let questions = self.sample.lock().take_sample();
        let exact = self
            .exact_by_device(&view, &questions, recall::NEIGHBORS)
            .unwrap_or_else(|| questions.iter().map(|question| view.scan(question, recall::NEIGHBORS, None)).collect());
        let recall = recall::measure(&view, &questions, &exact, self.config.expansion_search, self.config.recall)?;
        self.sample.lock().end(recall, linked);
        Some(recall)
    }

    /// The result of the last [`Self::check_recall`].
    #[must_use]
    pub fn recall(&self) -> Option<Recall> {
        self.sample.lock().last()
    }

    /// How many rows wait for [`Self::build_step`]; 0 if no graph is needed.
    #[must_use]
    pub fn pending_graph(&self) -> usize {
        let writer = self.writer.lock();
        let matrix = writer.successor.as_ref().unwrap_or(&writer.current);
        matrix.pending(&self.config)
    }

    /// Rows that searches scan because the graph has not reached them yet; 0 while all are scanned anyway. Takes no
    /// lock.
    #[must_use]
    pub fn scanned_tail(&self) -> usize {
        let view = self.view.load();
        let tail = view.vectors.count().saturating_sub(view.graph.linked());
        if view.live > self.config.flat_max { tail } else { 0 }
    }

    /// Links up to `max` more rows, and starts to rewrite the matrix when more than half of its rows are removed. For
    /// background threads, several in parallel if desired. Searches continue; batches wait while a matrix is copied. A
    /// quarter of a millisecond for each row at 256 dimensions. Returns the number of rows processed: 0 when nothing is
    /// left to do.
    ///
    /// # Errors
    /// Those of [`BuildError`]; the rows concerned stay pending.
    pub fn build_step(&self, max: usize) -> Result<usize, BuildError> {
        let (view, wanted) = {
            let mut writer = self.writer.lock();
            let view = writer.current.view();
            let dead = view.vectors.count() - view.live;
            if writer.successor.is_none() && dead >= REWRITE_ROWS_MIN && dead > view.live {
                let number = writer.next_number;
                writer.next_number += 1;
                let rewritten = writer.current.rewrite(&self.dir, &self.config, number)?;
                writer.successor = Some(rewritten);
            }
            let matrix = writer.successor.as_ref().unwrap_or(&writer.current);
            (matrix.view(), matrix.wants_graph(&self.config))
        };
        if !wanted {
            return Ok(0);
        }
        Ok(view.graph.grow(&view.vectors, &view.alive, max)?)
    }

    /// Searches for up to `max` linked rows by their own vectors and links those again that are not found: occasionally
    /// nothing points to a node (9 of 100,000 × 256 with one builder, 18 with two). Call it after [`Self::build_step`]
    /// returned 0, until `checked` is 0. Takes about as long as a search for each row.
    ///
    /// # Errors
    /// Those of [`GraphError`].
    pub fn verify_graph(&self, max: usize) -> Result<Verified, GraphError> {
        let view = {
            let writer = self.writer.lock();
            writer.successor.as_ref().unwrap_or(&writer.current).view()
        };
        view.graph.verify(&view.vectors, &view.alive, max)
    }

    /// Makes the current state durable, and records that the log has been applied up to `lsn` (records without vectors
    /// count too). Searches continue; batches wait while rows added since the last checkpoint are hashed and small
    /// files are written, but not while the graph is written.
    ///
    /// # Errors
    /// Those of [`CheckpointError`]; the previous checkpoint stays valid.
    pub fn checkpoint(&self, lsn: Lsn) -> Result<(), CheckpointError> {
        let _one = self.checkpoint.lock();
        // The long part, without blocking the writer: the files written here are named by the manifest below or never.
        let (number, graph, files, saved) = {
            let mut writer = self.writer.lock();
            let number = writer.next_number;
            writer.next_number += 1;
            let complete = writer.successor.as_ref().is_some_and(|next| next.pending(&self.config) == 0);
            let saved = if complete { None } else { writer.manifest.graph.clone() };
            let subject = if complete { writer.successor.as_ref() } else { None }.unwrap_or(&writer.current);
            (number, Arc::clone(&subject.graph), subject.handles()?, saved)
        };
        let sealed = self.save_graph(&graph, number, saved)?;
        for (file, path) in files {
            file.sync_all().map_err(DiskError::of("sync", &path))?;
        }
        let mut writer = self.writer.lock();
        let Writer { current, successor, journal, manifest, has_hidden, .. } = &mut *writer;
        // The successor may have been dropped since. The graph shows which matrix was saved.
        let succeeds = successor.as_ref().is_some_and(|next| Arc::ptr_eq(&next.graph, &graph));
        let subject = match successor {
            Some(next) if succeeds => next,
            _ => current,
        };
        let sealed = if Arc::ptr_eq(&subject.graph, &graph) { sealed } else { manifest.graph.clone() };
        subject.applied = subject.applied.max(lsn);
        let [vectors, keys, ends, pieces] = subject.digests().ok_or(CheckpointError::Damaged)?;
        subject.sync()?;
        let alive = subject.alive.to_bytes();
        disk::write_synced(&VectorManifest::path(&self.dir, "alive", number), &alive)?;
        let next_journal = Journal::create(&self.dir, number)?;
        next_journal.sync()?;
        disk::sync_dir(&self.dir)?;
        let next = VectorManifest {
            number,
            generation: subject.generation,
            applied: subject.applied,
            rows: subject.rows(),
            skipped: subject.skipped,
            vectors,
            keys,
            ends,
            pieces,
            alive: Sealed::new(Digest::of(&alive)),
            graph: sealed,
            ..manifest.clone()
        };
        next.write(&self.dir)?;
        (*journal, *manifest) = (next_journal, next);
        if succeeds && let Some(next) = successor.take() {
            *current = next;
        }
        // The owner publishes pending changes, which then includes the current matrix.
        if !*has_hidden {
            self.store_view(current, journal);
        }
        manifest.sweep(&self.dir, successor.as_ref().map(|next| next.generation));
        Ok(())
    }

    /// Saves the graph under `number`, unless the previously saved one is good enough.
    fn save_graph(
        &self,
        graph: &Graph,
        number: u64,
        saved: Option<SealedGraph>,
    ) -> Result<Option<SealedGraph>, CheckpointError> {
        let linked = graph.linked();
        let good_enough = saved.as_ref().is_some_and(|saved| {
            let newly_verified = saved.state.verified < saved.state.linked && graph.verified() >= linked;
            linked.saturating_sub(saved.state.linked) <= linked / GRAPH_REWRITE_PART && !newly_verified
        });
        if linked == 0 || good_enough {
            return Ok(saved.map(|mut saved| {
                saved.state.expansion_found = graph.expansion_found();
                saved
            }));
        }
        let path = VectorManifest::path(&self.dir, "graph", number);
        let state = graph.save(&self.config, &path)?;
        disk::sync_file(&path)?;
        let file = Sealed::new(Digest::of(MappedFile::open(&path)?.bytes()));
        Ok(Some(SealedGraph { number, file, state }))
    }

    /// Rows, removed ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.view.load().vectors.count()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Vectors that a search can return.
    #[must_use]
    pub fn live(&self) -> usize {
        self.view.load().live
    }

    /// Removed rows that are still stored.
    #[must_use]
    pub fn deleted(&self) -> usize {
        let view = self.view.load();
        view.vectors.count() - view.live
    }

    /// Bytes of allocated memory; the mapped files are page cache and not counted.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.stats().memory_bytes
    }

    /// The same, once everything is linked: the memory that a node needs.
    #[must_use]
    pub fn memory_bytes_built(&self) -> usize {
        let view = self.view.load();
        let linked = view.graph.linked();
        let rows = view.vectors.count();
        let dead = rows.saturating_sub(view.live);
        let node = self.config.dimensions + NODE_BYTES + 2 * self.config.connectivity * LINK_BYTES;
        let wanted = if view.live > self.config.flat_max { rows.saturating_sub(linked) } else { 0 };
        // A matrix that is being rewritten has a separate graph until it takes over.
        let rewritten = if dead >= REWRITE_ROWS_MIN && dead > view.live { view.live } else { 0 };
        self.memory_bytes() + (wanted + rewritten) * node
    }

    /// Removes the rows from this process's memory; they stay in the kernel's cache while it has room, and are mapped
    /// again page by page when a search scores them.
    pub fn release_mapped(&self) {
        let view = self.view.load();
        view.vectors.release();
        view.pieces.release();
    }

    /// Counts and sizes. Takes no lock that a batch, a checkpoint or a step holds for long.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let view = self.view.load();
        let rows = view.vectors.count();
        Stats {
            applied: view.applied,
            rows,
            live: view.live,
            skipped: view.skipped,
            linked: view.graph.linked(),
            strays: view.graph.strays().len(),
            memory_bytes: view.graph.memory_bytes() + rows / 8,
            mapped_bytes: rows * (self.config.dimensions * size_of::<f16>() + size_of::<u64>()) + view.pieces.bytes(),
            journal_bytes: self.journal_bytes.load(Ordering::Relaxed),
        }
    }

    fn store_view(&self, current: &Matrix, journal: &Journal) {
        self.journal_bytes.store(journal.len(), Ordering::Relaxed);
        self.view.store(Arc::new(current.view()));
        if let Some(device) = self.device.get() {
            device.grew(current.rows());
        }
    }
}

/// Keys, numbers and pieces of the vectors that can be searched.
fn sound<'a>(added: &[(u64, &[f16])], pieces: &'a [Vec<u16>]) -> (Vec<u64>, Vec<f16>, Vec<&'a [u16]>) {
    let mut keys = Vec::with_capacity(added.len());
    let mut vectors = Vec::with_capacity(added.iter().map(|(_, vector)| vector.len()).sum());
    let mut runs = Vec::with_capacity(added.len());
    for (place, (key, vector)) in added.iter().enumerate().filter(|(_, (_, vector))| scan::is_unit(vector)) {
        keys.push(*key);
        vectors.extend_from_slice(vector);
        runs.push(pieces.get(place).map_or(&[][..], Vec::as_slice));
    }
    (keys, vectors, runs)
}
