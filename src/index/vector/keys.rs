//! Sets of keys that a search is limited to.

/// Keys per bucket, on average: one cache line of keys.
const BUCKET_KEYS: usize = 8;

/// A set of keys: sorted, with a table over their range for quick membership tests.
///
/// The table cuts the range between the least and the greatest key into buckets of equal width. Keys are log positions,
/// so they spread evenly and a test looks at a handful of neighbours; where they do not, it is a binary search.
/// 8 bytes a key and half a byte for the table.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<u64>,
    /// `starts[b]..starts[b + 1]` are the keys of bucket `b`, whose members agree in `(key - least) >> shift`.
    starts: Vec<u32>,
    shift: u32,
}

impl KeySet {
    /// The set of `keys`. They are expected in ascending order and distinct; otherwise they are sorted first.
    #[must_use]
    pub fn from_sorted(mut keys: Vec<u64>) -> Self {
        if !keys.is_sorted_by(|a, b| a < b) {
            keys.sort_unstable();
            keys.dedup();
        }
        let (Some(&least), Some(&greatest)) = (keys.first(), keys.last()) else {
            return Self::default();
        };
        let Ok(count) = u32::try_from(keys.len()) else {
            // A table of u32 cannot address this many; one bucket, so every test is a binary search.
            return Self { keys, starts: Vec::new(), shift: 0 };
        };
        // With two buckets or more a shift by 63 is enough for every range.
        let buckets = (keys.len() / BUCKET_KEYS).max(2) as u64;
        let mut shift = 0;
        while (greatest - least) >> shift >= buckets {
            shift += 1;
        }
        let table = ((greatest - least) >> shift) as usize + 1;
        let mut starts = vec![count; table + 1];
        for (position, key) in (0..count).zip(&keys).rev() {
            starts[((key - least) >> shift) as usize] = position;
        }
        // An empty bucket starts where the next one does.
        for bucket in (0..table).rev() {
            starts[bucket] = starts[bucket].min(starts[bucket + 1]);
        }
        Self { keys, starts, shift }
    }

    /// Whether `key` is in the set. Never panics.
    #[inline]
    #[must_use]
    pub fn contains(&self, key: u64) -> bool {
        let Some(offset) = self.keys.first().and_then(|least| key.checked_sub(*least)) else {
            return false;
        };
        let bucket = usize::try_from(offset >> self.shift).unwrap_or(usize::MAX);
        let members = match (self.starts.get(bucket), self.starts.get(bucket.saturating_add(1))) {
            (Some(&start), Some(&end)) => self.keys.get(start as usize..end as usize).unwrap_or_default(),
            _ if self.starts.is_empty() => &self.keys,
            _ => return false,
        };
        members.binary_search(&key).is_ok()
    }

    /// The keys, ascending.
    #[must_use]
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl FromIterator<u64> for KeySet {
    fn from_iter<I: IntoIterator<Item = u64>>(keys: I) -> Self {
        Self::from_sorted(keys.into_iter().collect())
    }
}

/// First position at or after `from` whose key is not below `key`; found in O(log distance).
pub(super) fn gallop(keys: &[u64], from: usize, key: u64) -> usize {
    let (mut low, mut step) = (from, 1);
    while keys.get(low + step - 1).is_some_and(|found| *found < key) {
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(keys.len());
    low + keys.get(low..high).unwrap_or_default().partition_point(|found| *found < key)
}

/// First position whose key is not below `key`; looked for around the place where it would be if keys were spread evenly, as
/// positions of a log nearly are. So it touches a few neighbours instead of half of all levels of a bisection.
pub(super) fn locate(keys: &[u64], key: u64) -> usize {
    let (Some(&first), Some(&last)) = (keys.first(), keys.last()) else { return 0 };
    if key <= first {
        return 0;
    }
    if key > last {
        return keys.len();
    }
    let share = (key - first) as f64 / (last - first) as f64;
    let guess = ((share * (keys.len() - 1) as f64) as usize).min(keys.len() - 1);
    if keys[guess] < key {
        return gallop(keys, guess + 1, key);
    }
    // The first key is below the wanted one, so this ends.
    let (mut high, mut step) = (guess, 1);
    while keys[high.saturating_sub(step)] >= key {
        high = high.saturating_sub(step);
        step *= 2;
    }
    let low = high.saturating_sub(step);
    low + keys[low..high].partition_point(|found| *found < key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_exactly_its_keys(
            near in btree_set(0_u64..500, 0..200),
            far in btree_set(any::<u64>(), 0..50),
            probes in vec(any::<u64>(), 0..50),
        ) {
            let model: BTreeSet<u64> = near.union(&far).copied().collect();
            let set: KeySet = model.iter().copied().collect();
            prop_assert!(set.keys().iter().eq(model.iter()));
            for key in probes.into_iter().chain(0..500).chain(far).chain([u64::MAX]) {
                prop_assert_eq!(set.contains(key), model.contains(&key), "{}", key);
            }
        }

        #[test]
        fn gallops_to_the_lower_bound(keys in btree_set(0_u64..3000, 0..400), from in 0_usize..400, key in 0_u64..3100) {
            let keys: Vec<u64> = keys.into_iter().collect();
            let from = from.min(keys.len());
            prop_assert_eq!(gallop(&keys, from, key), keys.partition_point(|found| *found < key).max(from));
        }

        #[test]
        fn locates_the_lower_bound(
            near in btree_set(0_u64..3000, 0..400),
            far in btree_set(any::<u64>(), 0..20),
            key in prop_oneof![0_u64..3100, any::<u64>()],
        ) {
            let keys: Vec<u64> = near.union(&far).copied().collect();
            prop_assert_eq!(locate(&keys, key), keys.partition_point(|found| *found < key));
        }
    }

    #[test]
    fn unsorted_keys_are_sorted() {
        let set = KeySet::from_sorted(vec![9, 3, 9, 1]);
        assert_eq!(set.keys(), [1, 3, 9]);
        assert!(set.contains(3) && !set.contains(2) && !KeySet::default().contains(0));
    }
}
