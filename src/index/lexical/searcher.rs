//! An immutable read view of the lexical index: what a question finds, and what a filter admits.

use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::query::EnableScoring;
use tantivy::{DocAddress, IndexReader, TantivyError};

use super::super::analysis::{self, Language, QueryWord};
use super::super::filter::Filter;
use super::impacts::{self, Average, Impacts};
use super::matching::{Passages, Remembered};
use super::ranking::{self, Word};
use super::{Fields, LANGUAGE_SHARE, LexicalHit, Payload, WordCache, filtering, spelling};
use crate::base::Lsn;

/// Unknown words of a query whose neighbours are looked for: each look costs a walk through the dictionary, and a query in
/// which more are misspelled is none.
const GUESSES_MAX: usize = 8;

/// A term of a query that the collection knows.
struct Weighed {
    term: String,
    /// Its inverse document frequency, times what a misspelling leaves of it.
    weight: f32,
    /// Its impacts in each segment, where they are remembered.
    remembered: Vec<Option<Arc<Impacts>>>,
}

/// An immutable read view of the lexical index.
pub struct LexicalSearcher {
    lsn: Lsn,
    pub(super) fields: Fields,
    pub(super) searcher: tantivy::Searcher,
    /// The key column of each segment, by segment ordinal.
    pub(super) keys: Vec<Column<u64>>,
    languages: Vec<Language>,
    words: Arc<WordCache>,
    /// The length of its passages, as scores take it.
    average: Average,
    /// Passages that the segments hold, removed ones included: what scores are computed with.
    passages: u64,
    remembered: Arc<Remembered>,
}

impl LexicalSearcher {
    pub(super) fn new(
        reader: &IndexReader,
        fields: Fields,
        payload: &Payload,
        words: &Arc<WordCache>,
    ) -> Result<Self, TantivyError> {
        let searcher = reader.searcher();
        let keys = searcher
            .segment_readers()
            .iter()
            .map(|segment| segment.fast_fields().u64("key"))
            .collect::<Result<Vec<_>, _>>()?;
        let total: u64 = payload.languages.values().sum();
        let mut languages: Vec<(u64, Language)> = payload
            .languages
            .iter()
            .filter(|&(_, &count)| count * LANGUAGE_SHARE >= total)
            .map(|(code, &count)| (count, code.parse().unwrap_or_default()))
            .collect();
        languages.sort_by(|left, right| right.cmp(left));
        let languages = languages.into_iter().map(|(_, language)| language).collect();
        let (mut tokens, mut passages) = (0, 0);
        for segment in searcher.segment_readers() {
            tokens += segment.inverted_index(fields.text)?.total_num_tokens();
            passages += u64::from(segment.max_doc());
        }
        Ok(Self {
            lsn: Lsn(payload.lsn),
            fields,
            searcher,
            keys,
            languages,
            words: Arc::clone(words),
            average: Average::of(tokens, passages),
            passages,
            remembered: Arc::default(),
        })
    }

    pub(super) fn at(&self, lsn: Lsn) -> Self {
        Self {
            lsn,
            fields: self.fields,
            searcher: self.searcher.clone(),
            keys: self.keys.clone(),
            languages: self.languages.clone(),
            words: Arc::clone(&self.words),
            average: self.average,
            passages: self.passages,
            remembered: Arc::clone(&self.remembered),
        }
    }

    /// How many segments a search reads.
    pub(super) fn segments(&self) -> usize {
        self.searcher.segment_readers().len()
    }

    /// The state of the log that this view shows.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The language most passages are written in; [`Language::Other`] for an empty index.
    #[must_use]
    pub fn main_language(&self) -> Language {
        self.languages.first().copied().unwrap_or_default()
    }

    /// Number of passages.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.searcher.num_docs()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The passages that score best for `query`, best first, equal scores by ascending key, at most `limit`. None when
    /// the query has no word; of more than 64 terms the rarest count. Scores are BM25's to about one per cent of the best that
    /// the query could reach.
    ///
    /// * `among`: with it only those are found; this view has to have made it.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn search(&self, query: &str, limit: usize, among: Option<&Passages>) -> Result<Vec<LexicalHit>, TantivyError> {
        if limit == 0 || self.is_empty() {
            return Ok(Vec::new());
        }
        let mut terms = Vec::new();
        let mut guesses = GUESSES_MAX;
        for word in analysis::query_words(query, &self.languages) {
            self.known_terms(&word, &mut guesses, &mut terms)?;
        }
        terms.sort_by(|left, right| right.weight.total_cmp(&left.weight));
        terms.truncate(ranking::WORDS_MAX);
        let words: Vec<Word> = terms.into_iter().map(|term| self.word(term)).collect::<Result<_, _>>()?;
        let key = |address| self.key(address);
        let best = ranking::best(self.searcher.segment_readers(), &words, limit, among, key);
        Ok(best.into_iter().map(|(score, key)| LexicalHit { key, score }).collect())
    }

    /// The terms of a word that the collection knows; of one that it does not, the nearest that it does.
    ///
    /// * `guesses`: unknown words for which the nearest may still be looked for.
    fn known_terms(&self, word: &QueryWord, guesses: &mut usize, terms: &mut Vec<Weighed>) -> Result<(), TantivyError> {
        let known = terms.len();
        for term in &word.terms {
            terms.extend(self.known_term(term, 1.0)?);
        }
        if terms.len() == known
            && *guesses > 0
            && let Some(text) = word.terms.first().filter(|text| spelling::is_guessed(text))
        {
            *guesses -= 1;
            for (nearest, share) in spelling::nearest(&self.searcher, self.fields.text, text)? {
                terms.extend(self.known_term(&nearest, share)?);
            }
        }
        Ok(())
    }

    /// A term with its inverse document frequency, as BM25 has it; `None` when no passage has it.
    fn known_term(&self, term: &str, share: f32) -> Result<Option<Weighed>, TantivyError> {
        let (mut with, mut remembered) = (0, Vec::new());
        for segment in self.searcher.segment_readers() {
            let known = self.words.remembered(segment, term, self.average);
            with += u64::from(match &known {
                Some(impacts) => impacts.doc_freq(),
                None => impacts::doc_freq(segment, self.fields, term)?,
            });
            remembered.push(known);
        }
        let without = self.passages.saturating_sub(with);
        let weight = share * ((without as f64 + 0.5) / (with as f64 + 0.5)).ln_1p() as f32;
        Ok((with > 0).then(|| Weighed { term: term.to_owned(), weight, remembered }))
    }

    fn word(&self, term: Weighed) -> Result<Word, TantivyError> {
        let Weighed { term, weight, remembered } = term;
        let decode = |segment| self.words.decode(segment, self.fields, &term, self.average);
        let segments = self.searcher.segment_readers().iter().zip(remembered);
        let impacts = segments.map(|(segment, known)| known.map_or_else(|| decode(segment), Ok));
        Ok(Word { weight, impacts: impacts.collect::<Result<_, _>>()? })
    }

    /// The passages that match `filter`. Those of the filters asked for lately are remembered.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn matching(&self, filter: &Filter) -> Result<Arc<Passages>, TantivyError> {
        self.remembered.get(filter, || {
            let query = filtering::query(filter, self.fields.metadata);
            let weight = query.weight(EnableScoring::disabled_from_searcher(&self.searcher))?;
            let mut segments = Vec::new();
            for segment in self.searcher.segment_readers() {
                let mut words = vec![0u64; (segment.max_doc() as usize).div_ceil(64)];
                weight.for_each_no_score(segment, &mut |passages| {
                    for &passage in passages.iter().filter(|passage| !segment.is_deleted(**passage)) {
                        words[passage as usize / 64] |= 1 << (passage % 64);
                    }
                })?;
                segments.push(words.into());
            }
            Ok(Passages::new(segments, self.keys.clone()))
        })
    }

    pub(super) fn key(&self, address: DocAddress) -> u64 {
        self.keys[address.segment_ord as usize].first(address.doc_id).unwrap_or_default()
    }
}
