//! The exact half of a search: dot products over rows, and the best of them.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use numkong::Dot;

use super::super::ones::ones;
use super::bits::Bits;
use super::column::{Rows, as_kernel};
use super::keys::locate;
use super::row_set::RowSet;

/// How many standard deviations of a component the byte form can represent. Those of a unit vector of `n` numbers have
/// `1/√n`.
const SPREAD: f32 = 5.0;
/// Largest accepted distance of a vector's squared length from 1. Rounding to f16 moves it by less than 0.002.
const UNIT_TOLERANCE: f32 = 0.05;

/// Inner product of two vectors, accumulated in f32; 0 when their lengths differ.
#[inline]
#[must_use]
pub fn dot(a: &[f16], b: &[f16]) -> f32 {
    numkong::f16::dot(as_kernel(a), as_kernel(b)).unwrap_or(0.0)
}

/// Whether `vector` has length 1, hence is finite and nonzero. Both engines rely on it: one vector that is not finite
/// ruins the graph around it.
pub(super) fn is_unit(vector: &[f16]) -> bool {
    (dot(vector, vector) - 1.0).abs() <= UNIT_TOLERANCE
}

/// How many rows ahead the next one is prefetched.
const AHEAD: usize = 4;
/// Rows that are gathered before they are scored.
const PICKED: usize = 256;

/// `query` scaled to length 1; `None` when it is zero, not finite or not of `dimensions` numbers.
pub(super) fn unit_query(query: &[f32], dimensions: usize) -> Option<Vec<f16>> {
    if query.len() != dimensions {
        return None;
    }
    // In f64 because the square of a small number may underflow in f32.
    let norm = query.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let scaled: Vec<f32> = query.iter().map(|x| (f64::from(*x) / norm) as f32).collect();
    let mut unit = vec![f16::ZERO; dimensions];
    unit.convert_from_f32_slice(&scaled);
    is_unit(&unit).then_some(unit)
}

/// A unit vector in bytes, for the graph: the same scale for all, so that inner products order like those of the
/// vectors. Values that are too large are clamped.
pub(in crate::index) fn coarse(vector: &[f16]) -> Vec<i8> {
    let scale = 127.0 * (vector.len() as f32).sqrt() / SPREAD;
    let mut exact = vec![0f32; vector.len()];
    vector.convert_to_f32_slice(&mut exact);
    // The conversion to a byte saturates.
    exact.into_iter().map(|value| (value * scale).round_ties_even() as i8).collect()
}

/// Keeps the `limit` best of the rows offered: greatest score first, equal scores by ascending row.
pub(super) struct Best {
    found: Vec<(f32, usize)>,
    limit: usize,
    /// No row below this score can be among the best.
    threshold: f32,
}

impl Best {
    pub(super) fn new(limit: usize) -> Self {
        Self { found: Vec::with_capacity(limit.saturating_mul(2)), limit, threshold: f32::NEG_INFINITY }
    }

    #[inline]
    pub(super) fn offer(&mut self, score: f32, row: usize) {
        if score >= self.threshold {
            self.found.push((score, row));
            if self.found.len() >= self.limit.saturating_mul(2) {
                self.shrink();
            }
        }
    }

    #[cold]
    fn shrink(&mut self) {
        if self.found.len() > self.limit && self.limit > 0 {
            let (_, last, _) = self.found.select_nth_unstable_by(self.limit - 1, rank);
            self.threshold = last.0;
        }
        self.found.truncate(self.limit);
    }

    pub(super) fn into_sorted(mut self) -> Vec<(f32, usize)> {
        self.found.sort_unstable_by(rank);
        self.found.truncate(self.limit);
        self.found
    }
}

fn rank(a: &(f32, usize), b: &(f32, usize)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Offers the rows of `range` that are in `alive` and that `admit` accepts. `admit` is called only for rows that score
/// well enough.
pub(super) fn scan(
    vectors: &Rows<f16>,
    alive: &Bits,
    query: &[f16],
    range: Range<usize>,
    best: &mut Best,
    admit: impl Fn(usize) -> bool,
) {
    let range = range.start..range.end.min(vectors.count());
    let (all, dimensions) = (vectors.all(), query.len());
    let mut row = range.start;
    while row < range.end {
        let end = range.end.min((row / 64 + 1) * 64);
        let word = alive.word(row / 64);
        for (row, vector) in (row..end).zip(all[row * dimensions..end * dimensions].chunks_exact(dimensions)) {
            if word & (1 << (row % 64)) != 0 {
                let score = dot(vector, query);
                if score >= best.threshold && admit(row) {
                    best.offer(score, row);
                }
            }
        }
        row = end;
    }
}

/// Offers these rows, wherever they are.
pub(super) fn pick(vectors: &Rows<f16>, query: &[f16], rows: &[usize], best: &mut Best) {
    rows.iter().take(AHEAD).for_each(|row| vectors.prefetch(*row));
    for (place, row) in rows.iter().enumerate() {
        if let Some(next) = rows.get(place + AHEAD) {
            vectors.prefetch(*next);
        }
        best.offer(dot(vectors.row(*row), query), *row);
    }
}

/// Offers the rows that are in `alive` and in `allowed`.
pub(super) fn scan_allowed(vectors: &Rows<f16>, alive: &Bits, query: &[f16], allowed: &RowSet, best: &mut Best) {
    let mut rows = Vec::with_capacity(PICKED);
    let both = (0..vectors.count().div_ceil(64)).map(|index| alive.word(index) & allowed.word(index));
    for row in ones(both) {
        rows.push(row);
        if rows.len() == PICKED {
            pick(vectors, query, &rows, best);
            rows.clear();
        }
    }
    pick(vectors, query, &rows, best);
}

/// Offers the rows in `alive` with these keys, which ascend.
pub(super) fn scan_keys(vectors: &Rows<f16>, all: &[u64], alive: &Bits, query: &[f16], keys: &[u64], best: &mut Best) {
    let found = |key: &u64| Some(locate(all, *key)).filter(|row| all.get(*row) == Some(key) && alive.contains(*row));
    let rows: Vec<usize> = keys.iter().filter_map(found).collect();
    pick(vectors, query, &rows, best);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The result is the first `limit` of all rows in rank order, whatever order they are offered in.
        #[test]
        fn the_best_are_kept(scores in vec(-3_i8..3, 0..200), limit in 0_usize..20, backwards: bool) {
            let mut rows: Vec<(f32, usize)> = scores.iter().map(|score| f32::from(*score)).zip(0..).collect();
            let mut best = Best::new(limit);
            if backwards {
                rows.iter().rev().for_each(|(score, row)| best.offer(*score, *row));
            } else {
                rows.iter().for_each(|(score, row)| best.offer(*score, *row));
            }
            rows.sort_by(rank);
            rows.truncate(limit);
            prop_assert_eq!(best.into_sorted(), rows);
        }

        /// The kernel agrees with a plain sum for every length, including lengths that are not a multiple of a
        /// register.
        #[test]
        fn the_kernel_computes_the_inner_product(pairs in vec((-1.0_f32..1.0, -1.0_f32..1.0), 1..700)) {
            let (a, b): (Vec<f16>, Vec<f16>) = pairs.iter().map(|(a, b)| (f16::from_f32(*a), f16::from_f32(*b))).unzip();
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
            prop_assert!((f64::from(dot(&a, &b)) - expected).abs() < 1e-3, "{} {}", dot(&a, &b), expected);
        }
    }

    #[test]
    fn only_unit_vectors_pass() {
        assert!(unit_query(&[3.0, 4.0], 2).is_some_and(|unit| is_unit(&unit)));
        assert!(unit_query(&[1e-30, 0.0], 2).is_some(), "a tiny query still has a direction");
        for query in [&[0.0, 0.0][..], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &[1.0], &[]] {
            assert!(unit_query(query, 2).is_none(), "{query:?}");
        }
        for bad in [f16::NAN, f16::INFINITY, f16::ZERO, f16::from_f32(3.0), f16::MAX] {
            assert!(!is_unit(&[bad; 64]), "{bad}");
        }
    }
}
