//! The best passages of a query by BM25: the impacts of its words are added up, range by range.
//!
//! Invariants: sums cannot overflow, because the words' weights are shares of the maximum sum; a range is skipped if
//! its words together cannot reach the current threshold, so nothing among the best is skipped. Equal scores are
//! ordered by key, so the result depends neither on the order of the ranges nor on how passages are spread over
//! segments.

use std::cell::Cell;
use std::sync::Arc;

use tantivy::{DocAddress, SegmentReader};

use super::super::ones::ones;
use super::impacts::{BOUND, Impacts, Part, RANGE};
use super::matching::{Passages, count_ones};

/// A range with fewer postings than this is read by following them again instead of reading every sum.
const FOLLOWED: usize = RANGE / 8;
/// When a filter admits fewer than one passage in this many of a range, those are scored one by one; otherwise all sums
/// together.
const ADMITTED_PART: usize = 16;
/// Sums compared at once: if none is high enough, all are skipped.
const GROUP: usize = 64;
/// The greatest sum.
const SUM_MAX: u16 = u16::MAX;
/// Passages for which memory is reserved at first; a larger limit grows on demand.
const FOUND_ROOM: usize = 1 << 12;
/// Minimum weight, at which every impact still adds something: passages with any word of the query are found.
const WEIGHT_MIN: u16 = 256;
/// Maximum words of a query: with them the minimum weights take a quarter of the sum.
pub(super) const WORDS_MAX: usize = 64;

/// A word of a query with its weight.
pub(super) struct Word {
    /// Its inverse document frequency, reduced for a misspelling.
    pub(super) weight: f32,
    /// Its impacts in each segment.
    pub(super) impacts: Vec<Arc<Impacts>>,
}

/// A candidate for the best passages.
#[derive(Clone, Copy)]
struct Candidate {
    sum: u16,
    address: DocAddress,
    /// Looked up only to order equal sums, and at the end: it costs more than the sum.
    key: Option<u64>,
}

/// The passages with the greatest sums.
struct Best<'a> {
    found: Vec<Candidate>,
    limit: usize,
    /// The key of a passage.
    key: &'a dyn Fn(DocAddress) -> u64,
    /// Lower sums cannot be among the best.
    threshold: u16,
}

impl Best<'_> {
    fn offer(&mut self, sum: u16, address: DocAddress) {
        self.found.push(Candidate { sum, address, key: None });
        if self.found.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    /// Keeps the best `limit` of at least as many.
    fn cut(&mut self) {
        let (_, last, _) = self.found.select_nth_unstable_by(self.limit - 1, |left, right| right.sum.cmp(&left.sum));
        let least = last.sum;
        self.threshold = least;
        self.found.retain(|found| found.sum >= least);
        if self.found.len() > self.limit {
            for found in self.found.iter_mut().filter(|found| found.sum == least) {
                found.key.get_or_insert_with(|| (self.key)(found.address));
            }
            self.found.select_nth_unstable_by(self.limit - 1, order);
            self.found.truncate(self.limit);
        }
    }

    /// The keys of the best, best first, with their sums.
    fn into_sorted(mut self) -> Vec<(u16, u64)> {
        if self.found.len() > self.limit {
            self.cut();
        }
        for found in &mut self.found {
            found.key.get_or_insert_with(|| (self.key)(found.address));
        }
        self.found.sort_unstable_by(order);
        self.found.into_iter().map(|found| (found.sum, found.key.unwrap_or_default())).collect()
    }
}

/// Greatest sum first, then by key; keys that were not looked up belong to distinct sums.
fn order(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    right.sum.cmp(&left.sum).then(left.key.cmp(&right.key))
}

thread_local! {
    static SUMS: Cell<Option<Box<[u16; RANGE]>>> = const { Cell::new(None) };
}

/// A sum for each passage of a range, all 0 between ranges. Reused by the thread: allocating it costs more than some
/// searches.
struct Sums(Box<[u16; RANGE]>);

impl Sums {
    fn from_thread() -> Self {
        Self(SUMS.take().unwrap_or_else(|| Box::new([0; RANGE])))
    }

    /// Not after a panic: they may not be 0 then.
    fn give_back(self) {
        SUMS.set(Some(self.0));
    }
}

/// The keys of the `limit` best passages, with their scores, best first, equal scores by ascending key.
///
/// * `words`: [`WORDS_MAX`] at most.
/// * `limit`: at least 1.
/// * `among`: those that may be found.
/// * `key`: of a passage.
pub(super) fn best(
    segments: &[SegmentReader],
    words: &[Word],
    limit: usize,
    among: Option<&Passages>,
    key: impl Fn(DocAddress) -> u64,
) -> Vec<(f32, u64)> {
    let total: f32 = words.iter().map(|word| word.weight).sum();
    if words.is_empty() || total <= 0.0 {
        return Vec::new();
    }
    // A byte times this, without the lower eight bits, is the word's share of a sum.
    let shared = f32::from(SUM_MAX - WEIGHT_MIN * words.len().min(WORDS_MAX) as u16);
    let weights: Vec<u16> = words.iter().map(|word| ((word.weight / total * shared) as u16).max(WEIGHT_MIN)).collect();
    let addends: Vec<[u16; 256]> =
        weights.iter().map(|weight| std::array::from_fn(|impact| part_of(impact as u8, *weight))).collect();
    let mut ranges: Vec<(u16, usize, usize)> = Vec::new();
    for (ordinal, segment) in segments.iter().enumerate() {
        for range in 0..(segment.max_doc() as usize).div_ceil(RANGE) {
            let peaks =
                words.iter().zip(&weights).map(|(word, weight)| part_of(word.impacts[ordinal].peak(range), *weight));
            let bound = peaks.sum::<u16>();
            if bound > 0 {
                ranges.push((bound, ordinal, range));
            }
        }
    }
    ranges.sort_unstable_by(|left, right| right.0.cmp(&left.0).then((left.1, left.2).cmp(&(right.1, right.2))));
    let room = limit.saturating_mul(2).min(FOUND_ROOM);
    let mut best = Best { found: Vec::with_capacity(room), limit, key: &key, threshold: 1 };
    let mut sums = Sums::from_thread();
    let mut steps = Vec::with_capacity(words.len());
    for (bound, ordinal, range) in ranges {
        if bound < best.threshold {
            break;
        }
        steps.clear();
        for ((word, weight), addends) in words.iter().zip(&weights).zip(&addends) {
            steps.extend(word.impacts[ordinal].part(range).map(|part| Step { part, weight: *weight, addends }));
        }
        let segment = &segments[ordinal];
        let alive = segment.alive_bitset();
        let start = range * RANGE;
        let end = (segment.max_doc() as usize - start).min(RANGE);
        let admitted = among.map(|among| among.words(ordinal, start / 64..(start + RANGE) / 64));
        let offer = |best: &mut Best<'_>, place: usize, sum: u16| {
            let passage = (start + place) as u32;
            let is_admitted = admitted
                .is_none_or(|words| words.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0))
                && alive.is_none_or(|alive| alive.is_alive(passage));
            if is_admitted {
                best.offer(sum, DocAddress::new(ordinal as u32, passage));
            }
        };
        match admitted.map(|words| (words, count_ones(words))) {
            Some((_, 0)) => {}
            Some((words, count)) if count < end / ADMITTED_PART => {
                collect_admitted(&mut sums.0, (words, count), &steps, &mut best, &offer);
            }
            _ => {
                steps.iter().for_each(|step| step.add(&mut sums.0));
                collect(&mut sums.0[..end], &steps, &mut best, &offer);
            }
        }
    }
    sums.give_back();
    let scale = total * BOUND / (shared * 255.0 / 256.0);
    best.into_sorted().into_iter().map(|(sum, key)| (f32::from(sum) * scale, key)).collect()
}

/// The contribution of an impact to a sum: `impact · weight / 256`, truncated, in sixteen bits, of which a register
/// holds many.
#[inline]
fn part_of(impact: u8, weight: u16) -> u16 {
    let impact = u16::from(impact);
    impact * (weight >> 8) + ((impact * (weight & 0xff)) >> 8)
}

/// The contribution of a word to the sums of a range.
#[derive(Clone, Copy)]
struct Step<'a> {
    part: Part<'a>,
    weight: u16,
    /// The contribution of each impact at this weight.
    addends: &'a [u16; 256],
}

impl Step<'_> {
    /// The approximate cost of adding it, in postings.
    fn cost(&self) -> usize {
        match self.part {
            Part::Sparse(places, _) => places.len(),
            // A register at a time.
            Part::Dense(impacts) => impacts.len() / 8,
        }
    }

    /// The cost of looking up one passage in it, in the same unit.
    fn look_up_cost(&self) -> usize {
        match self.part {
            Part::Sparse(..) => 24,
            Part::Dense(_) => 4,
        }
    }

    fn add(&self, sums: &mut [u16; RANGE]) {
        match self.part {
            Part::Sparse(places, impacts) => {
                for (place, impact) in places.iter().zip(impacts) {
                    sums[usize::from(*place) % RANGE] += self.addends[usize::from(*impact)];
                }
            }
            Part::Dense(impacts) => {
                for (sum, impact) in sums.iter_mut().zip(impacts) {
                    *sum += part_of(*impact, self.weight);
                }
            }
        }
    }

    /// Its contribution to one passage.
    fn at(&self, place: usize) -> u16 {
        let impact = match self.part {
            Part::Sparse(places, impacts) => {
                places.binary_search(&(place as u16)).ok().and_then(|found| impacts.get(found))
            }
            Part::Dense(impacts) => impacts.get(place),
        };
        impact.map_or(0, |impact| self.addends[usize::from(*impact)])
    }
}

/// Offers the sums of the admitted passages that are high enough, and resets all sums to 0. Words that are cheaper to
/// look up for these passages than to add for all are looked up.
///
/// * `admitted`: a bit for each passage of the range, and how many are set.
fn collect_admitted(
    sums: &mut [u16; RANGE],
    (admitted, count): (&[u64], usize),
    steps: &[Step<'_>],
    best: &mut Best<'_>,
    offer: &impl Fn(&mut Best<'_>, usize, u16),
) {
    let is_looked_up = |step: &&Step<'_>| count * step.look_up_cost() < step.cost();
    let mut added = false;
    for step in steps.iter().filter(|step| !is_looked_up(step)) {
        step.add(sums);
        added = true;
    }
    for place in ones(admitted.iter().copied()) {
        let looked_up: u16 = steps.iter().filter(is_looked_up).map(|step| step.at(place)).sum();
        let sum = sums[place % RANGE] + looked_up;
        if sum >= best.threshold {
            offer(best, place, sum);
        }
    }
    if added {
        sums.fill(0);
    }
}

/// Offers the sums of a range that are high enough, and resets all of them to 0.
fn collect(sums: &mut [u16], steps: &[Step<'_>], best: &mut Best<'_>, offer: &impl Fn(&mut Best<'_>, usize, u16)) {
    let postings: Option<usize> = steps
        .iter()
        .map(|step| match step.part {
            Part::Sparse(places, _) => Some(places.len()),
            Part::Dense(_) => None,
        })
        .sum();
    if postings.is_some_and(|postings| postings < FOLLOWED) {
        for step in steps {
            let Part::Sparse(places, _) = step.part else { continue };
            for place in places.iter() {
                // For a later word it is 0 by then: each passage is offered once.
                let sum = std::mem::take(&mut sums[usize::from(*place)]);
                if sum >= best.threshold {
                    offer(best, usize::from(*place), sum);
                }
            }
        }
        return;
    }
    for (group, start) in sums.chunks_mut(GROUP).zip((0..).step_by(GROUP)) {
        if group.iter().copied().fold(0, u16::max) >= best.threshold {
            for (sum, place) in group.iter().zip(start..) {
                if *sum >= best.threshold {
                    offer(best, place, *sum);
                }
            }
        }
        group.fill(0);
    }
}
