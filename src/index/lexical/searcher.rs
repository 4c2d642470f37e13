//! An immutable read view of the lexical index, for searches and filters.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use tantivy::columnar::Column;
use tantivy::query::{BooleanQuery, EnableScoring, Occur, Query, TermSetQuery};
use tantivy::{DocAddress, IndexReader, TantivyError, Term};

use super::super::analysis::{self, Language, QueryWord};
use super::super::filter::Filter;
use super::impacts::{self, Average, Impacts};
use super::matching::{FilterCache, Passages};
use super::ranking::{self, Word};
use super::{Fields, LANGUAGE_SHARE, LexicalHit, Payload, WordCache, filtering, spelling};
use crate::base::Lsn;

/// Unknown words of a query whose neighbours are looked up: each lookup walks the dictionary, and a query with more
/// misspellings is not a real one.
const GUESSES_MAX: usize = 8;

/// The weight of a word that occurs exactly as written, in addition to its stem. Measured on five collections: with 0.3
/// nDCG@10 by words is .001 to .005 above that of stems alone, with 0.5 it falls below it.
const EXACT_SHARE: f32 = 0.3;
/// The weight of a name as written in addition to its parts: `on-call` in addition to `on` and `call`. From 0.3 on the
/// hyphens of ordinary words weigh too much (documentation: nDCG@10 .8935 instead of .8991).
const NAME_SHARE: f32 = 0.2;
/// The same for a name with a sign, which nobody writes by accident: `C++`, `--verify`.
const SIGNED_SHARE: f32 = 1.0;

/// A term of a query that exists in a view.
struct WeightedTerm {
    term: String,
    /// Its weight, reduced for a misspelling or for another form.
    share: f32,
    /// Passages that contain it, of all that are searched.
    with: u64,
    /// Its impacts in each segment, if cached.
    remembered: Vec<Option<Arc<Impacts>>>,
}

fn name_share(word: &QueryWord) -> f32 {
    match (word.is_name, word.is_signed()) {
        (false, _) => 1.0,
        (true, false) => NAME_SHARE,
        (true, true) => SIGNED_SHARE,
    }
}

/// The words of a query in one view, from [`look_up`].
pub struct Lookup {
    words: Vec<ResolvedWord>,
    /// Passages of all views that are searched.
    passages: u64,
}

/// A word of a query with its terms in a view.
struct ResolvedWord {
    word: QueryWord,
    terms: Vec<WeightedTerm>,
    /// Whether they only replace it, since nothing contains it.
    is_guessed: bool,
}

impl Lookup {
    /// The words that are not part of a name, in order, folded.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let alone = self.words.iter().map(|known| &known.word).filter(|word| !word.is_name);
        alone.map(|word| word.text.as_str()).filter(|text| text.chars().all(char::is_alphanumeric))
    }

    /// The minimum score of a passage that has every word of the query as often as is usual for its length: the weights
    /// of all words together. A word that nothing contains counts as maximally rare.
    #[must_use]
    pub fn total(&self) -> f32 {
        let weight = |known: &ResolvedWord| {
            let best = known.terms.iter().map(|term| self.weight(term)).reduce(f32::max).filter(|_| !known.is_guessed);
            best.unwrap_or_else(|| self.idf(0) * name_share(&known.word))
        };
        self.words.iter().map(weight).sum()
    }

    /// The words that nothing contains and that are replaced by similarly spelt ones.
    pub fn guessed(&self) -> impl Iterator<Item = &str> {
        let guessed = self.words.iter().filter(|known| known.is_guessed && !known.terms.is_empty());
        guessed.map(|known| known.word.text.as_str())
    }

    /// A term's weight: the inverse document frequency of BM25 over everything that is searched.
    fn weight(&self, term: &WeightedTerm) -> f32 {
        term.share * self.idf(term.with)
    }

    fn idf(&self, with: u64) -> f32 {
        let without = self.passages.saturating_sub(with);
        ((without as f64 + 0.5) / (with as f64 + 0.5)).ln_1p() as f32
    }
}

/// Looks up the words of a query in all of its views together: how common a word is counts over all of them, so that a
/// large collection does not hide a small one, and a word counts as misspelt only if none of them contains it.
pub fn look_up(searchers: &[&LexicalSearcher], query: &str) -> Vec<Result<Lookup, TantivyError>> {
    let mut lookups: Vec<_> = searchers.iter().map(|searcher| searcher.look_up(query)).collect();
    let words = || lookups.iter().flatten().flat_map(|lookup| &lookup.words);
    let known: FxHashSet<&str> =
        words().filter(|known| !known.terms.is_empty()).map(|known| known.word.text.as_str()).collect();
    let unknown: FxHashSet<String> =
        words().map(|known| &known.word.text).filter(|text| !known.contains(text.as_str())).cloned().collect();
    if !unknown.is_empty() {
        let guessed = |(lookup, searcher): (Result<Lookup, _>, &&LexicalSearcher)| searcher.guess(lookup?, &unknown);
        lookups = lookups.into_iter().zip(searchers).map(guessed).collect();
    }
    if searchers.len() > 1 {
        pool(&mut lookups);
    }
    lookups
}

/// Counts each term over all views.
fn pool(lookups: &mut [Result<Lookup, TantivyError>]) {
    let passages = lookups.iter().flatten().map(|lookup| lookup.passages).sum();
    let mut with: FxHashMap<String, u64> = FxHashMap::default();
    for term in lookups.iter().flatten().flat_map(|lookup| &lookup.words).flat_map(|known| &known.terms) {
        *with.entry(term.term.clone()).or_default() += term.with;
    }
    for lookup in lookups.iter_mut().flatten() {
        lookup.passages = passages;
        for term in lookup.words.iter_mut().flat_map(|known| &mut known.terms) {
            term.with = with.get(&term.term).copied().unwrap_or(term.with);
        }
    }
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
    /// The average length of its passages, as used in scores.
    average: Average,
    /// Passages in the segments, including removed ones: the basis of scores.
    passages: u64,
    remembered: Arc<FilterCache>,
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

    /// The state of the log that this view represents.
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

    /// The words of a query, with their terms in this view.
    fn look_up(&self, query: &str) -> Result<Lookup, TantivyError> {
        let words = if self.is_empty() { Vec::new() } else { analysis::query_words(query, &self.languages) };
        let known = |word| Ok(ResolvedWord { terms: self.known_terms(&word)?, word, is_guessed: false });
        let words = words.into_iter().map(known).collect::<Result<_, TantivyError>>()?;
        Ok(Lookup { words, passages: self.passages })
    }

    /// The passages that score best for the words of a query, best first, equal scores by ascending key, at most
    /// `limit`. None when the query has no words; of more than 64 terms the rarest count. Scores are BM25's to about
    /// one per cent of the best possible score of the query.
    ///
    /// * `lookup`: the result of [`look_up`] in this view.
    /// * `among`: if given, only these are found; must be from this view.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn search(
        &self,
        lookup: Lookup,
        limit: usize,
        among: Option<&Passages>,
    ) -> Result<Vec<LexicalHit>, TantivyError> {
        if limit == 0 || self.is_empty() {
            return Ok(Vec::new());
        }
        let weights =
            lookup.words.iter().flat_map(|known| &known.terms).map(|term| lookup.weight(term)).collect::<Vec<_>>();
        let terms = lookup.words.into_iter().flat_map(|known| known.terms);
        let mut terms: Vec<(f32, WeightedTerm)> = weights.into_iter().zip(terms).collect();
        terms.sort_by(|left, right| right.0.total_cmp(&left.0));
        terms.truncate(ranking::WORDS_MAX);
        let words: Vec<Word> =
            terms.into_iter().map(|(weight, term)| self.word(weight, term)).collect::<Result<_, _>>()?;
        let key = |address| self.key(address);
        let best = ranking::best(self.searcher.segment_readers(), &words, limit, among, key);
        Ok(best.into_iter().map(|(score, key)| LexicalHit { key, score }).collect())
    }

    /// The terms of a word that exist in this view.
    fn known_terms(&self, word: &QueryWord) -> Result<Vec<WeightedTerm>, TantivyError> {
        let mut terms = Vec::with_capacity(2);
        for term in &word.stems {
            terms.extend(self.known_term(term, name_share(word))?);
        }
        // Passages in which the word is its own stem are few in their language: that must not make it rarer.
        let with = terms.iter().map(|term| term.with).sum();
        if let Some(own) = terms.last_mut().filter(|own| own.term == word.text) {
            own.with = with;
        }
        if let Some(exact) = &word.exact {
            // If a word's stem does not occur, only the word itself counts.
            let share = if terms.is_empty() { 1.0 } else { EXACT_SHARE };
            terms.extend(self.known_term(exact, share)?);
        }
        Ok(terms)
    }

    /// Uses the terms nearest to the words that no view contains.
    fn guess(&self, mut lookup: Lookup, unknown: &FxHashSet<String>) -> Result<Lookup, TantivyError> {
        let misspelt = |known: &&mut ResolvedWord| unknown.contains(&known.word.text);
        for known in lookup.words.iter_mut().filter(misspelt).take(GUESSES_MAX) {
            let Some(stem) = known.word.stems.first() else { continue };
            known.is_guessed = true;
            for (nearest, share) in spelling::nearest(&self.searcher, self.fields.text, stem)? {
                known.terms.extend(self.known_term(&nearest, share)?);
            }
        }
        Ok(lookup)
    }

    /// A term with the number of passages that have it; `None` when none has.
    fn known_term(&self, term: &str, share: f32) -> Result<Option<WeightedTerm>, TantivyError> {
        let (mut with, mut remembered) = (0, Vec::new());
        for segment in self.searcher.segment_readers() {
            let known = self.words.remembered(segment, term, self.average);
            with += u64::from(match &known {
                Some(impacts) => impacts.doc_freq(),
                None => match impacts::doc_freq(segment, self.fields, term)? {
                    0 => self.words.note_absent(segment, term, self.average),
                    with => with,
                },
            });
            remembered.push(known);
        }
        Ok((with > 0).then(|| WeightedTerm { term: term.to_owned(), share, with, remembered }))
    }

    fn word(&self, weight: f32, term: WeightedTerm) -> Result<Word, TantivyError> {
        let WeightedTerm { term, remembered, .. } = term;
        let decode = |segment| self.words.decode(segment, self.fields, &term, self.average);
        let segments = self.searcher.segment_readers().iter().zip(remembered);
        let impacts = segments.map(|(segment, known)| known.map_or_else(|| decode(segment), Ok));
        Ok(Word { weight, impacts: impacts.collect::<Result<_, _>>()? })
    }

    /// The passages that match `filter`. Recent filters are cached.
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

    /// The passages that contain every word of a text, in some form, and that `admit` accepts: it gets their keys, and
    /// decides on each.
    ///
    /// * `among`: passages to choose from.
    ///
    /// # Errors
    /// When the index's files cannot be read.
    pub fn having(
        &self,
        text: &str,
        among: Option<&Passages>,
        admit: impl FnOnce(&[u64]) -> Vec<bool>,
    ) -> Result<Passages, TantivyError> {
        let words =
            analysis::query_words(text, &self.languages).into_iter().filter(|word| !word.is_name || word.is_signed());
        let every = words.map(|word| {
            let terms = word.stems.iter().chain(&word.exact).map(|term| Term::from_field_text(self.fields.text, term));
            (Occur::Must, Box::new(TermSetQuery::new(terms)) as Box<dyn Query>)
        });
        let query = BooleanQuery::new(every.collect());
        let weight = query.weight(EnableScoring::disabled_from_searcher(&self.searcher))?;
        let mut found = Vec::new();
        for (ordinal, segment) in self.searcher.segment_readers().iter().enumerate() {
            let admits = |passage: u32| {
                let place = passage as usize / 64;
                among.is_none_or(|among| {
                    among.words(ordinal, place..place + 1).iter().any(|word| word & (1 << (passage % 64)) != 0)
                })
            };
            weight.for_each_no_score(segment, &mut |passages| {
                let alive = passages.iter().filter(|passage| !segment.is_deleted(**passage) && admits(**passage));
                found.extend(alive.map(|passage| DocAddress::new(ordinal as u32, *passage)));
            })?;
        }
        let keys: Vec<u64> = found.iter().map(|address| self.key(*address)).collect();
        let mut segments: Vec<Box<[u64]>> = self
            .searcher
            .segment_readers()
            .iter()
            .map(|segment| vec![0u64; (segment.max_doc() as usize).div_ceil(64)].into())
            .collect();
        for (address, _) in found.iter().zip(admit(&keys)).filter(|(_, admitted)| *admitted) {
            segments[address.segment_ord as usize][address.doc_id as usize / 64] |= 1 << (address.doc_id % 64);
        }
        Ok(Passages::new(segments, self.keys.clone()))
    }

    pub(super) fn key(&self, address: DocAddress) -> u64 {
        self.keys[address.segment_ord as usize].first(address.doc_id).unwrap_or_default()
    }
}
