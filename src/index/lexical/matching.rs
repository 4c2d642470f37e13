//! The passages that a filter admits, in one read view: for both halves of a search.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::filter::Filter;
use super::super::vector::KeySet;

/// What the filters that are remembered may take with what they admit, each view.
const REMEMBERED_BYTES: usize = 8 << 20;
/// Longer filters, written out, are not remembered.
const FILTER_BYTES_MAX: usize = 4 << 10;
/// How many filters are remembered, each view.
const REMEMBERED: usize = 16;

/// Passages of one read view.
#[derive(Debug, Default)]
pub struct Passages {
    /// A bit for each passage of each segment.
    segments: Vec<Box<[u64]>>,
    keys: KeySet,
}

impl Passages {
    /// * `segments`: a bit for each passage, lowest first.
    /// * `keys`: those of the passages.
    pub(super) fn new(segments: Vec<Box<[u64]>>, keys: KeySet) -> Self {
        Self { segments, keys }
    }

    /// Whether a passage is among them.
    #[inline]
    pub(super) fn contains(&self, segment: usize, passage: u32) -> bool {
        let words = self.segments.get(segment).map(|words| &words[..]).unwrap_or_default();
        words.get(passage as usize / 64).is_some_and(|word| word & (1 << (passage % 64)) != 0)
    }

    /// Their keys.
    #[must_use]
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    fn bytes(&self) -> usize {
        self.segments.iter().map(|words| size_of_val(&**words)).sum::<usize>() + self.keys.len() * 9
    }
}

/// What the filters asked for lately admit. Made for one view and gone with it, so nothing in it grows old.
#[derive(Default)]
pub(super) struct Remembered(Mutex<VecDeque<(Filter, Arc<Passages>)>>);

impl Remembered {
    /// What a filter admits, from memory or by `find`.
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
