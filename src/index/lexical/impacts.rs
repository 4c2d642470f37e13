//! The contribution of a word to the score of each passage of a segment, decoded once and cached, in addition to
//! tantivy's postings.
//!
//! BM25 gives a passage `idf · impact` for each word of the query that it contains, where the impact `tf · (k1 + 1) /
//! (tf + k1 · (1 − b + b · length / average))` depends only on the passage and the word. So it is computed once for
//! each searched word, as a byte, and a search only adds. Postings are cut into ranges of passages whose sums fit the
//! processor's L1 cache.
//!
//! Invariants:
//! * An impact is the byte nearest to its share of the bound `k1 + 1`, and at least 1: 0 means that the word does not
//!   occur.
//! * The average length changes with every write, so it is rounded to steps of two per cent: decoded impacts stay valid
//!   as long as the step is the same, and equal views give equal scores, whenever they were decoded.
//! * The cache is bounded. Segments that no longer exist are not read any more, so their words are evicted in time.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, OptionsBuilder, Weighter};
use rustc_hash::FxBuildHasher;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::index::SegmentId;
use tantivy::schema::IndexRecordOption;
use tantivy::{SegmentReader, TantivyError, Term};

use super::Fields;
use crate::task;

/// Passages in each range.
pub(super) const RANGE: usize = 1 << 14;
/// BM25's saturation of a word that is repeated.
const K1: f32 = 1.2;
/// BM25's weight of a passage's length.
const B: f32 = 0.75;
/// The upper bound of an impact.
pub(super) const BOUND: f32 = K1 + 1.0;
/// A word in at least one passage of this many is stored as a byte for each passage: adding those is faster than
/// following postings, and needs at most twice their memory.
const DENSE_PART: usize = 6;
/// Steps of the average length for each factor of e.
const STEPS: f32 = 50.0;
/// Memory of one cache shard: enough for many words of large segments.
const SHARD_BYTES: u64 = 32 << 20;
/// Memory of an entry besides its postings.
const ENTRY_BYTES: u64 = 256;

/// The average length of the passages, to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Average(i16);

impl Average {
    pub(super) fn of(tokens: u64, passages: u64) -> Self {
        let average = (tokens as f32 / passages.max(1) as f32).max(1.0);
        Self((average.ln() * STEPS).round() as i16)
    }

    fn value(self) -> f32 {
        (f32::from(self.0) / STEPS).exp()
    }
}

/// The impacts of one word in one segment.
#[derive(Debug)]
pub(super) struct Impacts {
    /// See [`doc_freq`].
    doc_freq: u32,
    /// The greatest impact of each range, 0 if the word is in none of its passages.
    peaks: Box<[u8]>,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    /// The position of each passage in its range, and its impact; those of range `r` are `starts[r]..starts[r + 1]`.
    Sparse { starts: Box<[u32]>, offsets: Box<[u16]>, impacts: Box<[u8]> },
    /// An impact for each passage of the segment.
    Dense(Box<[u8]>),
}

/// A word's impacts in one range.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// Passages by their position in the range, ascending, with their impacts.
    Sparse(&'a [u16], &'a [u8]),
    /// An impact for each passage of the range.
    Dense(&'a [u8]),
}

impl Impacts {
    /// Decodes a word's postings.
    fn read(segment: &SegmentReader, fields: Fields, word: &str, average: Average) -> Result<Self, TantivyError> {
        let inverted = segment.inverted_index(fields.text)?;
        let Some(info) = inverted.get_term_info(&Term::from_field_text(fields.text, word))? else {
            return Ok(Self::none());
        };
        let lengths = segment.get_fieldnorms_reader(fields.text)?;
        let mut block = inverted.read_block_postings_from_terminfo(&info, IndexRecordOption::WithFreqs)?;
        let average = average.value();
        let norms: Vec<f32> =
            (0..=255).map(|id| K1 * (1.0 - B + B * FieldNormReader::id_to_fieldnorm(id) as f32 / average)).collect();
        let impact = |frequency: u32, passage: u32| {
            let frequency = frequency as f32;
            let share = frequency / (frequency + norms[usize::from(lengths.fieldnorm_id(passage))]);
            // To the nearest, by truncation: `round` is a function call on processors without the instruction.
            ((share * 255.0 + 0.5) as u8).max(1)
        };
        let passages = segment.max_doc() as usize;
        let mut peaks = vec![0u8; passages.div_ceil(RANGE)];
        let is_dense = info.doc_freq as usize * DENSE_PART >= passages;
        let mut dense = vec![0u8; if is_dense { passages } else { 0 }];
        let count = if is_dense { 0 } else { info.doc_freq as usize };
        let (mut offsets, mut impacts) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut starts = vec![0u32];
        while !block.docs().is_empty() {
            for (&passage, &frequency) in block.docs().iter().zip(block.freqs()) {
                let (place, impact) = (passage as usize, impact(frequency, passage));
                let peak = &mut peaks[place / RANGE];
                *peak = impact.max(*peak);
                if is_dense {
                    dense[place] = impact;
                } else {
                    starts.resize(place / RANGE + 1, offsets.len() as u32);
                    offsets.push((place % RANGE) as u16);
                    impacts.push(impact);
                }
            }
            block.advance();
        }
        let layout = if is_dense {
            Layout::Dense(dense.into())
        } else {
            starts.resize(peaks.len() + 1, offsets.len() as u32);
            Layout::Sparse { starts: starts.into(), offsets: offsets.into(), impacts: impacts.into() }
        };
        let doc_freq = doc_freq(segment, fields, word)?;
        Ok(Self { doc_freq, peaks: peaks.into(), layout })
    }

    fn none() -> Self {
        let layout = Layout::Sparse { starts: Box::default(), offsets: Box::default(), impacts: Box::default() };
        Self { doc_freq: 0, peaks: Box::default(), layout }
    }

    /// See [`doc_freq`].
    pub(super) fn doc_freq(&self) -> u32 {
        self.doc_freq
    }

    /// The greatest impact in a range.
    pub(super) fn peak(&self, range: usize) -> u8 {
        self.peaks.get(range).copied().unwrap_or_default()
    }

    /// The word's impacts in a range; `None` if it is in no passage of it.
    pub(super) fn part(&self, range: usize) -> Option<Part<'_>> {
        if self.peak(range) == 0 {
            return None;
        }
        match &self.layout {
            Layout::Sparse { starts, offsets, impacts } => {
                let part = starts[range] as usize..starts[range + 1] as usize;
                Some(Part::Sparse(&offsets[part.clone()], &impacts[part]))
            }
            Layout::Dense(impacts) => {
                let start = range * RANGE;
                Some(Part::Dense(&impacts[start..impacts.len().min(start + RANGE)]))
            }
        }
    }

    fn bytes(&self) -> u64 {
        let layout = match &self.layout {
            Layout::Sparse { starts, offsets, impacts } => {
                size_of_val(&**starts) + size_of_val(&**offsets) + impacts.len()
            }
            Layout::Dense(impacts) => impacts.len(),
        };
        (layout + self.peaks.len()) as u64
    }
}

/// Passages that contain the word, including those removed since, but not those that only have it through repeated
/// text. A table with a hundred parts does not make the names of its columns common words.
pub(super) fn doc_freq(segment: &SegmentReader, fields: Fields, word: &str) -> Result<u32, TantivyError> {
    let of = |field| {
        segment.inverted_index(field)?.doc_freq(&Term::from_field_text(field, word)).map_err(TantivyError::from)
    };
    let with: u32 = of(fields.text)?;
    Ok(with.saturating_sub(of(fields.repeated)?).max(with.min(1)))
}

/// A word in a segment.
#[derive(Debug, Clone)]
struct Key {
    segment: SegmentId,
    average: Average,
    word: Box<str>,
}

/// The same with a borrowed word.
struct KeyOf<'a> {
    segment: SegmentId,
    average: Average,
    word: &'a str,
}

impl Key {
    fn borrowed(&self) -> KeyOf<'_> {
        KeyOf { segment: self.segment, average: self.average, word: &self.word }
    }
}

impl Hash for KeyOf<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.segment, self.average, self.word).hash(state);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrowed().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.borrowed().equivalent(other)
    }
}

impl Eq for Key {}

impl Equivalent<Key> for KeyOf<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        (self.segment, self.average, self.word) == (key.segment, key.average, &*key.word)
    }
}

#[derive(Clone)]
struct ImpactsWeighter;

impl Weighter<Key, Arc<Impacts>> for ImpactsWeighter {
    fn weight(&self, key: &Key, impacts: &Arc<Impacts>) -> u64 {
        ENTRY_BYTES + key.word.len() as u64 + impacts.bytes()
    }
}

/// The recently searched words of all collections.
pub struct WordCache {
    words: Cache<Key, Arc<Impacts>, ImpactsWeighter, FxBuildHasher>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl WordCache {
    /// An empty cache.
    ///
    /// * `bytes`: its size; one word of a segment of a million passages needs a megabyte at most. With 0 nothing is
    ///   cached.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        // A word is not a secret here, and flooding one bucket only slows down the client who does it.
        let options = OptionsBuilder::new()
            .estimated_items_capacity((bytes / 4_096).clamp(16, 1 << 20) as usize)
            .weight_capacity(bytes)
            // Each shard has its share of the memory and stores nothing larger than that.
            .shards(((bytes / SHARD_BYTES) as usize).clamp(1, task::cores()))
            .build()
            .expect("both capacities are given");
        let words = Cache::with_options(options, ImpactsWeighter, FxBuildHasher, DefaultLifecycle::default());
        Self { words, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Changes the size of the cache; surplus entries are evicted.
    pub fn set_bytes(&self, bytes: u64) {
        self.words.set_capacity(bytes);
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.words.weight()
    }

    /// Cache hits and decoded words since the start.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// A word's impacts in a segment, if cached.
    pub(super) fn remembered(&self, segment: &SegmentReader, word: &str, average: Average) -> Option<Arc<Impacts>> {
        let known = self.words.get(&KeyOf { segment: segment.segment_id(), average, word });
        let counter = if known.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        known
    }

    /// Caches that a segment lacks a word: finding that out costs as much as finding the word, and most words are
    /// searched in more forms than exist. Returns 0, the number of passages that contain it.
    pub(super) fn note_absent(&self, segment: &SegmentReader, word: &str, average: Average) -> u32 {
        let key = Key { segment: segment.segment_id(), average, word: word.into() };
        self.words.insert(key, Arc::new(Impacts::none()));
        0
    }

    /// Decodes a word's impacts in a segment, and caches them.
    pub(super) fn decode(
        &self,
        segment: &SegmentReader,
        fields: Fields,
        word: &str,
        average: Average,
    ) -> Result<Arc<Impacts>, TantivyError> {
        let impacts = Arc::new(Impacts::read(segment, fields, word, average)?);
        let key = Key { segment: segment.segment_id(), average, word: word.into() };
        self.words.insert(key, Arc::clone(&impacts));
        Ok(impacts)
    }
}

impl std::fmt::Debug for WordCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WordCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
