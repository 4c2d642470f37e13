//! Rows of one generation: vectors, keys, which of them are alive, and the graph over them.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;

use super::bits::Bits;
use super::column::{Column, Rows};
use super::disk::{DiskError, Record, Sealed, VectorManifest};
use super::graph::{Graph, hosted};
use super::keys::locate;
use super::row_set::RowSet;
use super::runs::{Runs, RunsView};
use super::scan::Best;
use super::{BuildError, Config, Neighbor, scan};
use crate::base::Lsn;

/// Rows copied at a time while a matrix is rewritten.
const REWRITE_ROWS: usize = 1024;
/// How many rows ahead their pieces are prefetched.
const AHEAD: usize = 4;
/// Up to this many strays are all scored, which costs less than to find their hosts.
const STRAYS_SCANNED: usize = 64;
/// While fewer than one row in this many is removed, a walk does not check each row that it meets, which takes a fifth
/// of its time: it finds more than needed, and removed ones are dropped.
const DEAD_PART: usize = 10;
/// A filter that admits at least one row in this many is applied to the result of a longer walk: checking each row on
/// the way takes twice the time.
const WIDE_PART: usize = 3;

/// The view of a search: never changes, except that the graph reaches further.
pub struct View {
    pub(super) vectors: Rows<f16>,
    /// The file with the vectors, row after row.
    pub(super) file: Arc<File>,
    pub(super) keys: Rows<u64>,
    pub(super) pieces: RunsView,
    pub(super) alive: Bits,
    pub(super) live: usize,
    pub(super) applied: Lsn,
    pub(super) skipped: u64,
    /// Identifies the matrix: row numbers are valid as long as it lives.
    pub(super) generation: u64,
    pub(super) graph: Arc<Graph>,
}

impl View {
    /// Position in the log that it shows.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// Vectors that a search can return.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// The rows of `keys`, which ascend, for [`super::VectorIndex::search_among`]. Keys without a row are left out.
    /// Cost: that of reading the keys.
    #[must_use]
    pub fn row_set(&self, keys: &[u64]) -> RowSet {
        RowSet::new(self.generation, self.keys.all(), keys)
    }

    /// The pieces of the vectors with these keys, in their order; empty where there are none.
    pub fn pieces(&self, keys: &[u64], mut found: impl FnMut(usize, &[u16])) {
        let all = self.keys.all();
        let rows: Vec<Option<usize>> =
            keys.iter().map(|key| Some(locate(all, *key)).filter(|row| all.get(*row) == Some(key))).collect();
        rows.iter().take(AHEAD).flatten().for_each(|row| self.pieces.prefetch(*row));
        for (place, row) in rows.iter().enumerate() {
            if let Some(Some(next)) = rows.get(place + AHEAD) {
                self.pieces.prefetch(*next);
            }
            found(place, row.map_or(&[], |row| self.pieces.of(row)));
        }
    }

    /// Whether `rows` are those of its matrix.
    #[must_use]
    pub fn numbers(&self, rows: &RowSet) -> bool {
        rows.generation() == self.generation
    }

    /// The best of all allowed rows.
    pub(super) fn scan(&self, query: &[f16], limit: usize, allowed: Option<&RowSet>) -> Vec<Neighbor> {
        let mut best = Best::new(limit);
        let rows = self.vectors.count();
        match allowed {
            None => scan::scan(&self.vectors, &self.alive, query, 0..rows, &mut best, |_| true),
            Some(allowed) => scan::scan_allowed(&self.vectors, &self.alive, query, allowed, &mut best),
        }
        self.neighbors(best)
    }

    /// The best of the rows with these keys, which ascend.
    pub(super) fn scan_keys(&self, query: &[f16], limit: usize, keys: &[u64]) -> Vec<Neighbor> {
        let mut best = Best::new(limit);
        scan::scan_keys(&self.vectors, self.keys.all(), &self.alive, query, keys, &mut best);
        self.neighbors(best)
    }

    /// The best of the allowed rows that the graph finds below `reach`, of its strays near them and of all rows from
    /// `reach` on. `None` when the graph does not find enough, so that a scan must decide.
    ///
    /// * `expansion`: candidates that the walk considers.
    pub(super) fn walk(
        &self,
        query: &[f16],
        limit: usize,
        expansion: usize,
        allowed: Option<&RowSet>,
        reach: usize,
    ) -> Option<Vec<Neighbor>> {
        // Read before the walk: a row that stops being a stray meanwhile is found both ways. One that becomes a stray
        // meanwhile leaves the graph only within the write lock, and returns to it there.
        let strays = self.graph.strays();
        let passes = |row: usize| allowed.is_none_or(|allowed| allowed.contains(row));
        // A row at `reach` or above was linked by a newer view than this one.
        let admit = |row: usize| row < reach && self.alive.contains(row) && passes(row);
        let wanted = limit.max(expansion);
        let mut rows = Vec::new();
        let is_wide = allowed.is_none_or(|allowed| allowed.len() * WIDE_PART >= self.live);
        if is_wide && (self.vectors.count() - self.live) * DEAD_PART <= self.live {
            // Enough that the wanted number is likely to pass.
            let share = allowed.map_or(1.0, |allowed| self.live as f64 / allowed.len().max(1) as f64);
            let more = (wanted as f64 * share.max(1.0)) as usize;
            rows = self.graph.nearest(query, more, None::<fn(usize) -> bool>).ok()?;
            let more: Vec<usize> = if strays.len() <= STRAYS_SCANNED {
                strays.iter().map(|stray| stray.row).collect()
            } else {
                rows.iter().flat_map(|row| hosted(&strays, *row)).collect()
            };
            rows.extend(more);
            rows.retain(|row| admit(*row));
        }
        if rows.len() < limit {
            rows = self.graph.nearest(query, wanted, Some(admit)).ok()?;
            rows.extend(strays.iter().map(|stray| stray.row).filter(|row| admit(*row)));
        }
        rows.sort_unstable();
        rows.dedup();
        let mut best = Best::new(limit);
        let found = rows.len();
        scan::pick(&self.vectors, query, &rows, &mut best);
        scan::scan(&self.vectors, &self.alive, query, reach..self.vectors.count(), &mut best, passes);
        (found >= limit).then(|| self.neighbors(best))
    }

    pub(super) fn neighbors(&self, best: Best) -> Vec<Neighbor> {
        let keys = self.keys.all();
        best.into_sorted().into_iter().map(|(score, row)| Neighbor { key: keys[row], score }).collect()
    }
}

/// The writing end of a [`View`].
pub(super) struct Matrix {
    vectors: Column<f16>,
    keys: Column<u64>,
    pieces: Runs,
    pub(super) alive: Bits,
    live: usize,
    pub(super) applied: Lsn,
    pub(super) skipped: u64,
    pub(super) generation: u64,
    pub(super) graph: Arc<Graph>,
}

impl Matrix {
    /// An empty matrix with files of its own.
    pub(super) fn create(dir: &Path, config: &Config, generation: u64) -> Result<Self, BuildError> {
        Ok(Self {
            vectors: Column::create(&VectorManifest::path(dir, "vectors", generation), config.dimensions)?,
            keys: Column::create(&VectorManifest::path(dir, "keys", generation), 1)?,
            pieces: Runs::create(dir, generation)?,
            alive: Bits::default(),
            live: 0,
            applied: Lsn::ZERO,
            skipped: 0,
            generation,
            graph: Arc::new(Graph::new(config)?),
        })
    }

    /// Opens the files that `manifest` names with `rows` rows; `None` when they have fewer. Must be followed by
    /// [`Self::adopt`].
    pub(super) fn open(
        dir: &Path,
        config: &Config,
        manifest: &VectorManifest,
        rows: usize,
    ) -> Result<Option<Self>, BuildError> {
        let path = |kind| VectorManifest::path(dir, kind, manifest.generation);
        let vectors = Column::open(&path("vectors"), config.dimensions, rows)?;
        let keys = Column::open(&path("keys"), 1, rows)?;
        let pieces = Runs::open(dir, manifest.generation, rows)?;
        let (Some(vectors), Some(keys), Some(pieces)) = (vectors, keys, pieces) else { return Ok(None) };
        Ok(Some(Self {
            vectors,
            keys,
            pieces,
            alive: Bits::default(),
            live: 0,
            applied: Lsn::ZERO,
            skipped: 0,
            generation: manifest.generation,
            graph: Arc::new(Graph::new(config)?),
        }))
    }

    /// Applies the state of a checkpoint.
    pub(super) fn adopt(&mut self, alive: Bits, manifest: &VectorManifest) {
        self.live = alive.count();
        self.alive = alive;
        self.applied = manifest.applied;
        self.skipped = manifest.skipped;
    }

    /// Applies a record of the journal; `false` when it does not fit the current state.
    pub(super) fn replay(&mut self, record: &Record) -> bool {
        let fits = record.rows >= self.rows()
            && record.applied > self.applied
            && record.removed.iter().all(|range| range.start <= range.end && range.end <= self.rows());
        if fits {
            self.commit(record);
        }
        fits
    }

    /// Checks the rows of the checkpoint: by their digest now, or without reading them, leaving the digest to the next
    /// checkpoint. The keys, on which every lookup relies, are checked for order in either case.
    pub(super) fn verify(&mut self, manifest: &VectorManifest, read: bool) -> bool {
        let (Some(vectors), Some(keys)) = (manifest.vectors.digest(), manifest.keys.digest()) else { return false };
        let (Some(ends), Some(pieces)) = (manifest.ends.digest(), manifest.pieces.digest()) else { return false };
        self.vectors.trust(manifest.rows, vectors);
        self.keys.trust(manifest.rows, keys);
        let intact = !read || self.vectors.digest(manifest.rows) == Some(vectors);
        intact
            && self.pieces.verify(manifest.rows, (ends, pieces), read)
            && self.keys.digest(manifest.rows) == Some(keys)
            && self.keys.rows(self.rows()).all().is_sorted_by(|a, b| a < b)
    }

    pub(super) fn rows(&self) -> usize {
        self.alive.len()
    }

    pub(super) fn last_key(&self) -> Option<u64> {
        self.keys.rows(self.rows()).all().last().copied()
    }

    /// The ranges of stored rows whose keys are in `removed`.
    pub(super) fn rows_of(&self, removed: &[Range<u64>]) -> Vec<Range<usize>> {
        let keys = self.keys.rows(self.rows());
        let first_at = |bound: u64| keys.all().partition_point(|key| *key < bound);
        let ranges = removed.iter().map(|range| first_at(range.start)..first_at(range.end));
        ranges.filter(|range| !range.is_empty()).collect()
    }

    /// Writes rows after the existing ones. They do not count before [`Self::commit`].
    pub(super) fn write(&mut self, keys: &[u64], vectors: &[f16], pieces: &[&[u16]]) -> Result<(), DiskError> {
        let rows = self.rows();
        self.vectors.append(rows, vectors)?;
        self.pieces.append(rows, pieces.iter().copied())?;
        self.keys.append(rows, keys)
    }

    /// Counts the rows that were written and removes those in the removed ranges.
    pub(super) fn commit(&mut self, record: &Record) {
        let added = record.rows - self.rows();
        let removed = record.removed.iter().cloned().flatten().filter(|row| self.alive.remove(*row)).count();
        self.alive.extend(added);
        self.live = self.live + added - removed;
        self.applied = record.applied;
        self.skipped = record.skipped;
    }

    pub(super) fn view(&self) -> View {
        View {
            vectors: self.vectors.rows(self.rows()),
            file: Arc::clone(self.vectors.file()),
            keys: self.keys.rows(self.rows()),
            pieces: self.pieces.view(self.rows()),
            alive: self.alive.clone(),
            live: self.live,
            applied: self.applied,
            skipped: self.skipped,
            generation: self.generation,
            graph: Arc::clone(&self.graph),
        }
    }

    /// Whether a graph is worth its cost, or exists.
    pub(super) fn wants_graph(&self, config: &Config) -> bool {
        self.live > config.flat_max || self.graph.linked() > 0
    }

    /// Rows that the graph should reach but does not.
    pub(super) fn pending(&self, config: &Config) -> usize {
        if self.wants_graph(config) { self.rows() - self.graph.linked().min(self.rows()) } else { 0 }
    }

    /// Copies the live rows into a separate matrix, without a graph.
    pub(super) fn rewrite(&self, dir: &Path, config: &Config, generation: u64) -> Result<Self, BuildError> {
        let mut next = Self::create(dir, config, generation)?;
        let view = self.view();
        let (mut keys, mut vectors) = (Vec::new(), Vec::new());
        let alive: Vec<usize> = view.alive.iter().collect();
        for rows in alive.chunks(REWRITE_ROWS) {
            keys.clear();
            vectors.clear();
            for row in rows {
                keys.extend_from_slice(view.keys.row(*row));
                vectors.extend_from_slice(view.vectors.row(*row));
            }
            let pieces: Vec<&[u16]> = rows.iter().map(|row| view.pieces.of(*row)).collect();
            next.write(&keys, &vectors, &pieces)?;
            next.commit(&Record {
                applied: self.applied,
                rows: next.rows() + rows.len(),
                skipped: self.skipped,
                removed: Vec::new(),
            });
        }
        next.applied = self.applied;
        next.skipped = self.skipped;
        Ok(next)
    }

    /// Digests of vectors, keys, and ends and pieces; `None` when trusted rows do not match.
    pub(super) fn digests(&mut self) -> Option<[Sealed; 4]> {
        let rows = self.rows();
        let (vectors, keys) = (Sealed::new(self.vectors.digest(rows)?), Sealed::new(self.keys.digest(rows)?));
        let (ends, pieces) = self.pieces.digests(rows)?;
        Some([vectors, keys, ends, pieces])
    }

    /// Returns once all rows are on stable storage.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.vectors.sync()?;
        self.pieces.sync()?;
        self.keys.sync()
    }

    /// Handles to sync the files without holding the matrix.
    pub(super) fn handles(&self) -> Result<[(File, PathBuf); 4], DiskError> {
        let [ends, pieces] = self.pieces.handles()?;
        Ok([self.vectors.handle()?, self.keys.handle()?, ends, pieces])
    }
}
