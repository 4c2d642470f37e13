//! Sets of rows to which a search is restricted.

use super::keys::{gallop, locate};

/// Fewer keys than one in this many are looked up individually, more by stepping from each to the next.
const FEW_PART: usize = 64;

/// Rows of one matrix, a bit for each: created from keys once by [`super::View::row_set`], so that a walk tests a row
/// instantly and a scan goes straight to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSet {
    generation: u64,
    words: Box<[u64]>,
    len: usize,
}

impl RowSet {
    /// The rows of `keys`.
    ///
    /// * `all`: the key of each row of the matrix, ascending.
    /// * `keys`: ascending; missing ones are left out.
    pub(super) fn new(generation: u64, all: &[u64], keys: &[u64]) -> Self {
        let mut words = vec![0u64; all.len().div_ceil(64)].into_boxed_slice();
        let is_few = keys.len() < all.len() / FEW_PART;
        let (mut row, mut len) = (0, 0);
        for key in keys {
            row = if is_few { locate(all, *key) } else { gallop(all, row, *key) };
            if all.get(row) == Some(key) {
                len += usize::from(words[row / 64] & (1 << (row % 64)) == 0);
                words[row / 64] |= 1 << (row % 64);
            }
        }
        Self { generation, words, len }
    }

    /// The matrix they belong to.
    pub(in crate::index) fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of its bits.
    pub(in crate::index) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `row` is in the set.
    #[inline]
    pub(super) fn contains(&self, row: usize) -> bool {
        self.word(row / 64) & (1 << (row % 64)) != 0
    }

    /// The bits of rows `64 * index..64 * index + 64`, lowest first.
    #[inline]
    pub(in crate::index) fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_the_rows_of_the_keys_that_are_there(
            all in btree_set(0_u64..2_000, 0..400),
            keys in btree_set(0_u64..2_000, 0..400),
            few in btree_set(any::<u64>(), 0..3),
        ) {
            let all: Vec<u64> = all.into_iter().collect();
            for keys in [keys, few] {
                let set = RowSet::new(1, &all, &keys.iter().copied().collect::<Vec<_>>());
                let rows: BTreeSet<usize> = (0..all.len()).filter(|row| keys.contains(&all[*row])).collect();
                prop_assert_eq!(set.len(), rows.len());
                prop_assert!((0..all.len() + 100).all(|row| set.contains(row) == rows.contains(&row)));
            }
        }
    }
}
