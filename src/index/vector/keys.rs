//! Lookup of keys in the ascending column of all keys.

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

/// First position whose key is not below `key`; starts where it would be if keys were spread evenly, as positions of a
/// log nearly are. So it reads a few neighbours instead of half of all levels of a bisection.
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
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    proptest! {
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
}
