//! The passages that a filter admits, in one read view: for both halves of a search.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tantivy::columnar::Column;

use super::super::filter::Filter;
use super::super::ones::ones;
use super::super::vector::{RowSet, View};

/// Memory for cached filters and their passages, for each view.
const REMEMBERED_BYTES: usize = 8 << 20;
/// Filters with a longer text form are not cached.
const FILTER_BYTES_MAX: usize = 4 << 10;
/// Number of cached filters for each view.
const REMEMBERED: usize = 16;

/// Passages of one read view.
#[derive(Default)]
pub struct Passages {
    /// A bit for each passage of each segment.
    segments: Vec<Box<[u64]>>,
    /// The key column of each segment.
    columns: Vec<Column<u64>>,
    /// Their rows in the vector index, once requested.
    rows: Mutex<Option<Arc<RowSet>>>,
}

impl Passages {
    /// * `segments`: a bit for each passage, lowest first.
    /// * `columns`: the key of each passage.
    pub(super) fn new(segments: Vec<Box<[u64]>>, columns: Vec<Column<u64>>) -> Self {
        Self { segments, columns, rows: Mutex::default() }
    }

    /// The bits of the passages of a segment, from passage `64 * word` on.
    #[inline]
    pub(super) fn words(&self, segment: usize, words: Range<usize>) -> &[u64] {
        let all = self.segments.get(segment).map(|words| &words[..]).unwrap_or_default();
        &all[words.start.min(all.len())..words.end.min(all.len())]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(|words| count_ones(words)).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their keys, ascending.
    #[must_use]
    pub fn keys(&self) -> Vec<u64> {
        let mut keys = Vec::with_capacity(self.len());
        for (words, column) in self.segments.iter().zip(&self.columns) {
            keys.extend(ones(words.iter().copied()).map(|passage| column.first(passage as u32).unwrap_or_default()));
        }
        if !keys.is_sorted() {
            keys.sort_unstable();
        }
        keys
    }

    /// Their rows in a view of the vectors of the same collection. Looked up once and cached.
    #[must_use]
    pub fn rows(&self, vectors: &View) -> Arc<RowSet> {
        // Other callers wait meanwhile: they would do the same work.
        let mut rows = self.rows.lock();
        match &*rows {
            Some(known) if vectors.numbers(known) => Arc::clone(known),
            _ => Arc::clone(rows.insert(Arc::new(vectors.row_set(&self.keys())))),
        }
    }

    fn bytes(&self) -> usize {
        // There are about as many rows as passages, even before they are requested.
        self.segments.iter().map(|words| size_of_val(&**words) * 2 + 64).sum::<usize>()
    }
}

/// How many bits are set.
pub(super) fn count_ones(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// The passages of recently used filters. Belongs to one view and is dropped with it, so no entry becomes outdated.
#[derive(Default)]
pub(super) struct FilterCache(Mutex<VecDeque<(Filter, Arc<Passages>)>>);

impl FilterCache {
    /// The passages of a filter, from the cache or by `find`.
    pub(super) fn get<E>(
        &self,
        filter: &Filter,
        find: impl FnOnce() -> Result<Passages, E>,
    ) -> Result<Arc<Passages>, E> {
        if let Some((_, known)) = self.0.lock().iter().find(|(known, _)| known == filter) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(find()?);
        if filter.bytes() > FILTER_BYTES_MAX {
            return Ok(found);
        }
        let mut remembered = self.0.lock();
        remembered.push_front((filter.clone(), Arc::clone(&found)));
        remembered.truncate(REMEMBERED);
        let mut bytes: usize = remembered.iter().map(|(_, passages)| passages.bytes()).sum();
        while bytes > REMEMBERED_BYTES {
            let Some((_, oldest)) = remembered.pop_back() else { break };
            bytes -= oldest.bytes();
        }
        Ok(found)
    }
}
