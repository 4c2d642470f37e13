//! The approximate half of a search: an HNSW graph over the rows of one matrix, by usearch.
//!
//! A node's key is its row number; rows keep their numbers as long as the graph lives, and removed rows stay as nodes
//! that no search returns. The graph reaches a prefix of the rows, `0..linked`; callers scan the rest. *Strays* are
//! nodes that the graph contains but does not find: among many nearly equal vectors all links may go to others. Each is
//! stored with a *host*, the nearest row that is found, and is scored when its host is found.
//!
//! Requirements of usearch, and how they are met:
//! * `reserve` concurrent with any other call is a segmentation fault: it runs under the write lock of `index`,
//!   everything else under the read lock.
//! * A call needs one of the reserved thread contexts: [`Permits`] issues exactly that many.
//! * The check for duplicate keys races: a row is claimed by one builder at a time.
//! * Vectors that are zero or not finite poison the graph: the matrix contains unit vectors only.
//! * A panic in a filter aborts the process: filters are bit tests and table lookups that cannot panic.
//! * Additions, above all concurrent ones, can leave a node that no other links to: [`Graph::verify`] searches for
//!   every row.
//! * Loading damaged bytes is a segmentation fault, and a load silently replaces dimensions and metric: bytes are
//!   loaded only after their digest matched, and their header is checked first.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use half::f16;
use parking_lot::{Condvar, Mutex, RwLock};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::bits::Bits;
use super::column::Rows;
use super::scan::{coarse, dot};
use super::{Config, GraphError};
use crate::task;

/// Maximum rows that one builder claims at a time; rows that other builders finish after an open claim are scanned
/// until it closes.
const CLAIM_ROWS: usize = 256;
/// Minimum capacity that is reserved.
const CAPACITY_MIN: usize = 4096;
/// The number of neighbours in which a row's own vector must be found, so that a few equal vectors are not a false
/// alarm.
const SELF_SEARCH: usize = 16;

/// The result of a verification step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Rows that were looked up. 0 when all have been.
    pub checked: usize,
    /// Rows that were not found until they were linked again.
    pub repaired: usize,
    /// Rows that are still not found; searches score them with their hosts.
    pub strays: usize,
}

/// Which rows have been linked.
#[derive(Default)]
struct Progress {
    /// Rows below this are linked or claimed.
    next: usize,
    /// Finished claims after an open one: start and end.
    finished: BTreeMap<usize, usize>,
    /// Claims that failed and are claimed again first.
    failed: Vec<Range<usize>>,
}

pub(super) struct Graph {
    index: RwLock<Index>,
    permits: Permits,
    /// Held for reading while rows are linked, for writing while the graph is saved.
    growth: RwLock<()>,
    progress: Mutex<Progress>,
    linked: AtomicUsize,
    /// Rows below this have been looked up.
    verified: Mutex<usize>,
    /// Linked rows that the graph does not find, by host and row.
    strays: ArcSwap<Vec<Stray>>,
    /// Candidates of a walk, as configured.
    expansion_search: usize,
    /// The number that was found to be needed; 0 if that is not higher, or was never checked.
    expansion_found: AtomicUsize,
}

impl Graph {
    pub(super) fn new(config: &Config) -> Result<Self, GraphError> {
        let index = Index::new(&options(config)).map_err(GraphError::engine)?;
        Ok(Self {
            index: RwLock::new(index),
            permits: Permits::new(task::cores().saturating_mul(2).clamp(4, 128)),
            growth: RwLock::new(()),
            progress: Mutex::default(),
            linked: AtomicUsize::new(0),
            verified: Mutex::new(0),
            strays: ArcSwap::default(),
            expansion_search: config.expansion_search,
            expansion_found: AtomicUsize::new(0),
        })
    }

    /// Loads the bytes written by [`Self::save`]. `bytes` must match the digest that was recorded then.
    pub(super) fn load(config: &Config, bytes: &[u8], state: &GraphState, rows: usize) -> Result<Self, GraphError> {
        let found = Index::metadata_from_buffer(bytes).map_err(GraphError::engine)?;
        let fits = found.dimensions == config.dimensions as u64
            && found.metric == MetricKind::IP
            && found.quantization == ScalarKind::I8
            && !found.multi
            && state.linked <= rows
            && state.verified <= state.linked
            && state.strays.iter().all(|stray| stray.row < state.linked && stray.host < state.linked)
            && state.strays.is_sorted()
            && state.connectivity == config.connectivity;
        if !fits {
            return Err(GraphError::Unfit);
        }
        let graph = Self::new(config)?;
        {
            let index = graph.index.write();
            index.load_from_buffer(bytes).map_err(GraphError::engine)?;
            if index.size() != state.nodes || index.size() > rows || index.dimensions() != config.dimensions {
                return Err(GraphError::Unfit);
            }
            index.change_expansion_add(config.expansion_add);
            index.change_expansion_search(config.expansion_search);
            reserve(&index, index.size(), &graph.permits)?;
        }
        graph.progress.lock().next = state.linked;
        graph.linked.store(state.linked, Ordering::Release);
        *graph.verified.lock() = state.verified;
        graph.strays.store(Arc::new(state.strays.clone()));
        graph.expansion_found.store(state.expansion_found, Ordering::Relaxed);
        Ok(graph)
    }

    /// The rows `0..linked` are nodes, except those that were removed before their turn came.
    pub(super) fn linked(&self) -> usize {
        self.linked.load(Ordering::Acquire)
    }

    /// Candidates of a walk: as many as it returns at the same cost.
    pub(super) fn expansion_search(&self) -> usize {
        self.expansion_search.max(self.expansion_found())
    }

    /// The number found to be needed beyond the settings; 0 for none.
    pub(super) fn expansion_found(&self) -> usize {
        self.expansion_found.load(Ordering::Relaxed)
    }

    /// Records how many candidates the configured recall needs.
    pub(super) fn set_expansion_found(&self, candidates: usize) {
        let found = if candidates > self.expansion_search { candidates } else { 0 };
        self.expansion_found.store(found, Ordering::Relaxed);
    }

    pub(super) fn strays(&self) -> Arc<Vec<Stray>> {
        self.strays.load_full()
    }

    pub(super) fn verified(&self) -> usize {
        *self.verified.lock()
    }

    /// Bytes allocated by the engine: links and its copy of the vectors.
    pub(super) fn memory_bytes(&self) -> usize {
        let stats = self.index.read().memory_stats();
        let index_bytes = self.index.read().capacity() * 3 * size_of::<u64>();
        stats.graph_allocated + stats.vectors_allocated + index_bytes
    }

    /// Up to `wanted` rows near `query` that `admit` accepts (all without it), nearest first to the precision of the
    /// graph's copy. `admit` must not panic.
    pub(super) fn nearest(
        &self,
        query: &[f16],
        wanted: usize,
        admit: Option<impl Fn(usize) -> bool>,
    ) -> Result<Vec<usize>, GraphError> {
        let query = coarse(query);
        let _permit = self.permits.acquire();
        let index = self.index.read();
        let found = match admit {
            // The engine calls back for every candidate of a filtered walk: a fifth of its time.
            None => index.search(&query, wanted),
            Some(admit) => {
                let admit = |key: u64| admit(usize::try_from(key).unwrap_or(usize::MAX));
                index.filtered_search(&query, wanted, admit)
            }
        }
        .map_err(GraphError::engine)?;
        Ok(found.keys.into_iter().filter_map(|key| usize::try_from(key).ok()).collect())
    }

    /// Links up to `max` rows of `vectors` that are not linked yet; skips rows that are not in `alive`. May be called
    /// from several threads in parallel. Returns the number of rows processed, 0 when none is left to claim.
    pub(super) fn grow(&self, vectors: &Rows<f16>, alive: &Bits, max: usize) -> Result<usize, GraphError> {
        let _growing = self.growth.read();
        let mut done = 0;
        while done < max {
            let Some(claim) = self.claim(vectors.count(), (max - done).min(CLAIM_ROWS)) else { break };
            let linked = self.link(vectors, alive, claim.clone());
            done += claim.len();
            self.close(claim, linked.is_ok());
            linked?;
        }
        Ok(done)
    }

    fn claim(&self, rows: usize, max: usize) -> Option<Range<usize>> {
        let mut progress = self.progress.lock();
        // The caller's view may be older than the one that the failed claim was made from.
        if let Some(position) = progress.failed.iter().position(|claim| claim.end <= rows) {
            return Some(progress.failed.swap_remove(position));
        }
        let claim = progress.next..rows.min(progress.next.saturating_add(max));
        (!claim.is_empty()).then(|| {
            progress.next = claim.end;
            claim
        })
    }

    fn close(&self, claim: Range<usize>, linked: bool) {
        let mut progress = self.progress.lock();
        if !linked {
            progress.failed.push(claim);
            return;
        }
        progress.finished.insert(claim.start, claim.end);
        let mut end = self.linked();
        while let Some(next) = progress.finished.remove(&end) {
            end = next;
        }
        self.linked.store(end, Ordering::Release);
    }

    fn link(&self, vectors: &Rows<f16>, alive: &Bits, claim: Range<usize>) -> Result<(), GraphError> {
        let short = self.index.read().capacity() < claim.end;
        if short {
            let index = self.index.write();
            if index.capacity() < claim.end {
                reserve(&index, claim.end, &self.permits)?;
            }
        }
        for row in claim.filter(|row| alive.contains(*row)) {
            let _permit = self.permits.acquire();
            let index = self.index.read();
            // A claim that failed half-way is claimed again, and a loaded graph may be ahead of its `linked`.
            if !index.contains(row as u64) {
                index.add(row as u64, &coarse(vectors.row(row))).map_err(GraphError::engine)?;
            }
        }
        Ok(())
    }

    /// Searches for the next `max` linked rows by their own vectors. One that is not found is linked again; one that is
    /// still not found becomes a stray. Costs a search for each row. One caller at a time; others wait.
    pub(super) fn verify(&self, vectors: &Rows<f16>, alive: &Bits, max: usize) -> Result<Verified, GraphError> {
        let mut cursor = self.verified.lock();
        let mut report = Verified::default();
        let end = self.linked().min(vectors.count()).min(cursor.saturating_add(max));
        for row in (*cursor..end).filter(|row| alive.contains(*row)) {
            let vector = &coarse(vectors.row(row));
            if let Some(host) = self.host_of_lost(vectors, row, vector)? {
                // Searches score it from here on, so that it is found while it is out of the graph.
                self.set_stray(row, Some(host));
                self.relink(row, vector)?;
                let host = self.host_of_lost(vectors, row, vector)?;
                self.set_stray(row, host);
                report.repaired += usize::from(host.is_none());
                report.strays += usize::from(host.is_some());
            }
        }
        report.checked = end.saturating_sub(*cursor);
        *cursor = end.max(*cursor);
        Ok(report)
    }

    /// The row that a search for `row`'s own vector returns first, if it does not return `row`; `None` if it does, or
    /// returns so many equal vectors that `row` may legitimately be missing.
    fn host_of_lost(&self, vectors: &Rows<f16>, row: usize, vector: &[i8]) -> Result<Option<usize>, GraphError> {
        let _permit = self.permits.acquire();
        let index = self.index.read();
        let found = index.search(vector, SELF_SEARCH).map_err(GraphError::engine)?;
        if found.keys.contains(&(row as u64)) {
            return Ok(None);
        }
        // Compares the vectors themselves: in bytes, one that is only near can appear nearer than the row itself.
        let own = vectors.row(row);
        let least = dot(own, own);
        let equal = |key: &u64| usize::try_from(*key).is_ok_and(|other| dot(own, vectors.row(other)) >= least);
        if found.keys.len() == SELF_SEARCH && found.keys.iter().all(equal) {
            return Ok(None);
        }
        // A graph that finds nothing makes callers scan, so that any host will do.
        Ok(Some(found.keys.first().and_then(|key| usize::try_from(*key).ok()).unwrap_or_default()))
    }

    fn relink(&self, row: usize, vector: &[i8]) -> Result<(), GraphError> {
        let index = self.index.write();
        index.remove(row as u64).map_err(GraphError::engine)?;
        index.add(row as u64, vector).map_err(GraphError::engine)
    }

    /// * `host`: `None` when the row is found again.
    fn set_stray(&self, row: usize, host: Option<usize>) {
        let mut strays = self.strays().as_ref().clone();
        strays.retain(|stray| stray.row != row);
        if let Some(host) = host {
            // A host that is a stray itself is found by its own host, and so are all that it hosts.
            let host = strays.iter().find(|stray| stray.row == host).map_or(host, |stray| stray.host);
            strays.iter_mut().filter(|stray| stray.host == row).for_each(|stray| stray.host = host);
            strays.push(Stray { host, row });
            strays.sort_unstable();
        }
        self.strays.store(Arc::new(strays));
    }

    /// Writes the graph to `path`, neither synced nor hashed. Searches continue meanwhile, growth and repair wait.
    pub(super) fn save(&self, config: &Config, path: &Path) -> Result<GraphState, GraphError> {
        let _no_growth = self.growth.write();
        let verified = self.verified.lock();
        let index = self.index.read();
        let name = path.to_str().ok_or(GraphError::Unfit)?;
        index.save(name).map_err(GraphError::engine)?;
        // The engine ignores the result of closing the file.
        let written = std::fs::metadata(path).map(|file| file.len()).unwrap_or(0);
        let expected = index.serialized_length() as u64;
        if written != expected {
            return Err(GraphError::Short { written, expected });
        }
        Ok(GraphState {
            connectivity: config.connectivity,
            nodes: index.size(),
            linked: self.linked(),
            verified: *verified,
            strays: self.strays().as_ref().clone(),
            expansion_found: self.expansion_found(),
        })
    }
}

/// Metadata of a saved graph.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GraphState {
    pub(super) connectivity: usize,
    pub(super) nodes: usize,
    pub(super) linked: usize,
    pub(super) verified: usize,
    pub(super) strays: Vec<Stray>,
    /// Candidates that walks were found to need beyond the settings; 0 for none.
    #[serde(default)]
    pub(super) expansion_found: usize,
}

/// A linked row that the graph does not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stray {
    /// The nearest row that is found.
    pub(super) host: usize,
    pub(super) row: usize,
}

/// The strays of one host.
pub(super) fn hosted(strays: &[Stray], host: usize) -> impl Iterator<Item = usize> {
    let start = strays.partition_point(|stray| stray.host < host);
    strays[start..].iter().take_while(move |stray| stray.host == host).map(|stray| stray.row)
}

fn options(config: &Config) -> IndexOptions {
    IndexOptions {
        dimensions: config.dimensions,
        // For unit vectors this orders like the cosine, and computes one sum instead of three.
        metric: MetricKind::IP,
        // Half the memory of f16 and three fifths of the time of a walk. The lost precision is restored when the rows
        // that a walk finds are rescored.
        quantization: ScalarKind::I8,
        connectivity: config.connectivity,
        expansion_add: config.expansion_add,
        expansion_search: config.expansion_search,
        multi: false,
    }
}

/// Makes room for `nodes`, doubling. The caller holds the write lock.
fn reserve(index: &Index, nodes: usize, permits: &Permits) -> Result<(), GraphError> {
    let capacity = nodes.max(CAPACITY_MIN).next_power_of_two();
    index.reserve_capacity_and_threads(capacity, permits.total).map_err(GraphError::engine)
}

/// Counts the callers inside the engine. A permit is held for one search or one addition.
struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
    total: usize,
}

impl Permits {
    fn new(total: usize) -> Self {
        Self { free: Mutex::new(total), returned: Condvar::new(), total }
    }

    /// Waits for a permit. Always taken before the lock on the index, never after it.
    fn acquire(&self) -> Permit<'_> {
        let mut free = self.free.lock();
        self.returned.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Permit(self)
    }
}

struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::Column;
    use super::super::scan;
    use super::*;

    #[test]
    fn a_row_that_the_graph_lost_is_linked_anew() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = Config::new(64);
        let mut column = Column::create(&dir.path().join("vectors"), 64).expect("created");
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from((seed >> 16) as u16) - 32_768.0
        };
        for row in 0..600 {
            let numbers: Vec<f32> = (0..64).map(|_| next()).collect();
            column.append(row, &scan::unit_query(&numbers, 64).expect("not zero")).expect("appended");
        }
        let (vectors, mut alive) = (column.rows(600), Bits::default());
        alive.extend(600);
        let graph = Graph::new(&config).expect("made");
        assert_eq!(graph.grow(&vectors, &alive, 1000).expect("linked"), 600);
        for row in [7, 333] {
            graph.index.write().remove(row).expect("removed");
        }
        let found = |row: usize| graph.nearest(vectors.row(row), 1, Some(|_| true)).expect("searched") == [row];
        assert!(!found(7) && !found(333));
        let report = graph.verify(&vectors, &alive, 1000).expect("verified");
        assert_eq!(report, Verified { checked: 600, repaired: 2, strays: 0 });
        assert!((0..600).all(found) && graph.strays().is_empty());
        assert_eq!(graph.verify(&vectors, &alive, 1000).expect("verified").checked, 0);
    }

    #[test]
    fn strays_are_hosted_by_rows_that_are_found() {
        let graph = Graph::new(&Config::new(64)).expect("made");
        let of = |host: usize| hosted(&graph.strays(), host).collect::<Vec<_>>();
        for (row, host) in [(1, 9), (2, 9), (3, 5)] {
            graph.set_stray(row, Some(host));
        }
        assert_eq!((of(9), of(5)), (vec![1, 2], vec![3]));
        // When a host is not found, its strays move with it to its own host. A stray cannot be a host.
        graph.set_stray(9, Some(5));
        graph.set_stray(4, Some(2));
        assert_eq!((of(9), of(2), of(5)), (vec![], vec![], vec![1, 2, 3, 4, 9]));
        graph.set_stray(2, None);
        assert_eq!(of(5), [1, 3, 4, 9]);
    }

    #[test]
    fn a_claim_that_failed_is_claimed_again() {
        let graph = Graph::new(&Config::new(64)).expect("made");
        let (first, second) = (graph.claim(100, 40).expect("rows"), graph.claim(100, 40).expect("rows"));
        graph.close(second, true);
        assert_eq!(graph.linked(), 0);
        graph.close(first.clone(), false);
        assert_eq!(graph.claim(100, 40), Some(first.clone()));
        graph.close(first, true);
        assert_eq!(graph.linked(), 80);
        assert_eq!((graph.claim(100, 40), graph.claim(100, 40)), (Some(80..100), None));
    }
}
