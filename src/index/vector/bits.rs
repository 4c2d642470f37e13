//! A growable set of row numbers that is cheap to copy: pages of bits with copy-on-write.
//!
//! Each search holds such a copy, so a batch of removals and additions becomes visible at one moment, and a change
//! copies the pages it modifies (4 KiB) and the list of pages (8 bytes for each 32,768 rows), not the whole set.

use std::sync::Arc;

use super::super::ones::ones;

const WORDS: usize = 512;
const PAGE_BITS: usize = WORDS * 64;

/// Which of the rows `0..len` are in the set.
#[derive(Clone, Default)]
pub(in crate::index) struct Bits {
    pages: Vec<Arc<[u64; WORDS]>>,
    len: usize,
}

impl Bits {
    /// Rows `0..len` with a set bit in `bytes` (bit `i % 8` of byte `i / 8`). `None` when the number of bytes does not
    /// match `len`.
    pub(in crate::index) fn from_bytes(bytes: &[u8], len: usize) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) {
            return None;
        }
        let mut bits = Self::default();
        bits.extend(len);
        for row in (0..len).filter(|row| bytes[row / 8] & (1 << (row % 8)) == 0) {
            bits.remove(row);
        }
        Some(bits)
    }

    /// The inverse of [`Self::from_bytes`].
    pub(in crate::index) fn to_bytes(&self) -> Vec<u8> {
        let words = self.pages.iter().flat_map(|page| page.iter());
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    pub(in crate::index) fn len(&self) -> usize {
        self.len
    }

    /// Whether `row` is in the set.
    #[inline]
    pub(in crate::index) fn contains(&self, row: usize) -> bool {
        self.word(row / 64) & (1 << (row % 64)) != 0
    }

    /// The bits of rows `64 * index..64 * index + 64`, lowest first; rows past the end are absent.
    #[inline]
    pub(in crate::index) fn word(&self, index: usize) -> u64 {
        self.pages.get(index / WORDS).map_or(0, |page| page[index % WORDS])
    }

    /// Appends `count` rows, all in the set.
    pub(in crate::index) fn extend(&mut self, count: usize) {
        let end = self.len + count;
        self.pages.resize_with(end.div_ceil(PAGE_BITS), || Arc::new([0; WORDS]));
        while self.len < end {
            let (page, bit) = (self.len / PAGE_BITS, self.len % PAGE_BITS);
            let step = (64 - bit % 64).min(end - self.len);
            let mask = if step == 64 { u64::MAX } else { ((1 << step) - 1) << (bit % 64) };
            Arc::make_mut(&mut self.pages[page])[bit / 64] |= mask;
            self.len += step;
        }
    }

    /// Removes `row`; returns whether it was in the set.
    pub(in crate::index) fn remove(&mut self, row: usize) -> bool {
        if !self.contains(row) {
            return false;
        }
        Arc::make_mut(&mut self.pages[row / PAGE_BITS])[row % PAGE_BITS / 64] &= !(1 << (row % 64));
        true
    }

    /// How many rows are in the set.
    pub(in crate::index) fn count(&self) -> usize {
        self.pages.iter().flat_map(|page| page.iter()).map(|word| word.count_ones() as usize).sum()
    }

    /// The rows in the set, ascending.
    pub(in crate::index) fn iter(&self) -> impl Iterator<Item = usize> {
        ones((0..self.len.div_ceil(64)).map(|index| self.word(index)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any sequence of growth and removal leaves the same rows as a plain set, also after a trip through bytes,
        /// and a copy made before a change does not see it.
        #[test]
        fn behaves_as_a_set(steps in vec((0_usize..5000, vec(0_usize..40_000, 0..20)), 1..12)) {
            let (mut bits, mut model) = (Bits::default(), BTreeSet::new());
            for (grow, removals) in steps {
                let (before, rows_before) = (bits.clone(), model.clone());
                model.extend(bits.len()..bits.len() + grow);
                bits.extend(grow);
                for row in removals {
                    prop_assert_eq!(bits.remove(row), model.remove(&row));
                }
                prop_assert!(before.iter().eq(rows_before.iter().copied()));
            }
            prop_assert_eq!(bits.count(), model.len());
            prop_assert!(bits.iter().eq(model.iter().copied()));
            let copy = Bits::from_bytes(&bits.to_bytes(), bits.len()).expect("right length");
            prop_assert!(copy.iter().eq(bits.iter()));
            prop_assert!(Bits::from_bytes(&bits.to_bytes(), bits.len() + 8).is_none());
        }
    }
}
