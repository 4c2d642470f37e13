//! Ranking: what each half finds in each collection, fused.
//!
//! A half that cannot answer for a collection is left out with its reason; only when nothing answers is that an error.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Candidate, Embeddings, Filter, Fusion, Mode, Ranked, Retrieval, SearchError, fuse, has_meaning, phrases, relevance,
};
use crate::base::{Lsn, with_causes};
use crate::collection::{Access, PassageKey, Searcher};
use crate::embed::Proximity;
use crate::index::lexical::{LexicalError, LexicalHit, Passages};
use crate::index::vector::DeviceAnswer;

/// Characters of a query that a reason repeats.
const SHOWN_CHARS_MAX: usize = 60;
/// Maximum reasons in one answer: the first ones suffice.
const REASONS_MAX: usize = 4;
/// Candidates of each collection whose pieces are scored: how close the words of the query are, and which window is
/// best. nDCG@10 is the same from 16 to 40.
const LOOKED_AT: usize = 20;
/// The same where meaning alone decides, which windows change more: 48 are too few (nDCG@10 of Wikipedia's paragraphs .848, else .853).
const LOOKED_AT_DENSE: usize = 64;
/// The same of all collections together: each costs some microseconds.
const LOOKED_AT_IN_ALL: usize = 160;

/// The bonus for words that follow each other as in the query, for each word of the query: in a query of two words the
/// order carries most of the meaning, in a long question little. A constant 0.2 is good for Wikipedia's paragraphs
/// (nDCG@10 .9158) and bad for documentation (.8986).
const NEAR_SHARE: f32 = 0.4;

/// The input of a ranking.
pub(super) enum Target<'a> {
    /// The words and meaning of a text.
    Text(&'a str),
    /// The neighbours of a passage.
    Embedding(Vec<f32>),
}

/// The documents that may be found.
#[derive(Clone, Copy)]
pub(super) struct Among<'a> {
    /// The caller's filter, within what the call reaches.
    filter: Option<&'a Filter>,
    /// Whether the call reaches all documents of its collections: what no document has may be said only then.
    is_all_reached: bool,
}

impl<'a> Among<'a> {
    /// * `filter`: the caller's, within what the call reaches.
    pub(super) fn of(access: Access<'_>, filter: Option<&'a Filter>) -> Self {
        Self { filter, is_all_reached: access.permit().reach().documents().is_none() }
    }
}

/// Everything a ranking found.
pub(super) struct Ranking {
    pub(super) ranked: Vec<Ranked>,
    pub(super) mode_used: Mode,
    pub(super) reasons: Reasons,
    pub(super) lsn: Lsn,
}

/// Why an answer is less than what was asked for, each reason once.
#[derive(Debug, Default)]
pub(super) struct Reasons(Vec<String>);

impl Reasons {
    pub(super) fn add(&mut self, reason: String) {
        if self.0.len() < REASONS_MAX && !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }

    /// In words; `None` when there is none.
    pub(super) fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// Both halves while they are asked.
#[derive(Default)]
struct Halves {
    lexical: Vec<(PassageKey, f32)>,
    dense: Vec<(PassageKey, f32)>,
    /// Position of the collection of each passage.
    places: FxHashMap<PassageKey, usize>,
    /// In how many collections words and meaning were searched.
    by_words: usize,
    by_meaning: usize,
    reasons: Reasons,
    /// The first half that could not answer.
    failure: Option<SearchError>,
    /// Weight of the meaning in each collection.
    weights: Vec<f32>,
    /// Whether its model knows the language of each collection.
    known: Vec<bool>,
    /// The score in each collection of a passage that has all words of the query.
    totals: Vec<f32>,
}

impl Halves {
    /// Leaves the best of each half, best first, and how near those of the words are in meaning: what one collection with all passages
    /// would have. Each half is normalised over what it has, so that more of one of them would change the weights of both.
    fn keep_best(&mut self, candidates: usize) {
        self.lexical.sort_by(by_score);
        self.lexical.truncate(candidates);
        self.dense.sort_by(by_score);
        let by_words: FxHashSet<PassageKey> = self.lexical.iter().map(|(key, _)| *key).collect();
        let mut nearest = 0;
        self.dense.retain(|(key, _)| {
            nearest += 1;
            nearest <= candidates || by_words.contains(key)
        });
    }

    /// Weight of the meaning of a passage.
    fn weight(&self, key: PassageKey) -> f32 {
        self.places.get(&key).and_then(|place| self.weights.get(*place)).copied().unwrap_or_default()
    }

    /// The candidates that may come to the top, of each collection.
    fn best(&self, fusion: Option<Fusion>) -> FxHashSet<PassageKey> {
        let (keys, most): (Vec<PassageKey>, usize) = match self.lexical.is_empty() {
            true => (self.dense.iter().map(|(key, _)| *key).collect(), LOOKED_AT_DENSE),
            false => {
                let fused = fuse(&self.lexical, &self.dense, fusion, |key| self.weight(key));
                (fused.into_iter().map(|(key, _)| key).collect(), LOOKED_AT)
            }
        };
        let mut counts = vec![0; self.weights.len()];
        let is_near = |key: &PassageKey| {
            let Some(count) = self.places.get(key).and_then(|place| counts.get_mut(*place)) else { return false };
            *count += 1;
            *count <= most
        };
        keys.into_iter().filter(is_near).take(LOOKED_AT_IN_ALL).collect()
    }

    fn leave_out(&mut self, error: SearchError) {
        self.reasons.add(with_causes(&error));
        self.failure.get_or_insert(error);
    }
}

impl Retrieval {
    /// * `candidates`: how many are used from each half.
    /// * `fusion`: how the halves are fused; `None` for the model's default.
    /// * `searchers`: the collections, the query's embeddings by their models, and the GPU's results in each.
    pub(super) fn ranking(
        &self,
        target: &Target<'_>,
        mode: Mode,
        fusion: Option<Fusion>,
        among: Among<'_>,
        candidates: usize,
        (searchers, embeddings, found): (&[Searcher], &Embeddings, &[Option<DeviceAnswer>]),
    ) -> Result<Ranking, SearchError> {
        let (weights, known) = searchers.iter().map(|searcher| self.weight(searcher)).unzip();
        let mut halves = Halves { weights, known, totals: vec![0.0; searchers.len()], ..Halves::default() };
        let has_meaning = match target {
            Target::Text(query) => has_meaning(query),
            Target::Embedding(_) => true,
        };
        if !has_meaning && mode != Mode::Lexical {
            halves.reasons.add("there is no letter and no digit in the query".to_owned());
        }
        let mut admitted = self.admitted(target, among.filter, searchers, &mut halves.reasons)?.into_iter();
        let mut lookups = match (target, mode) {
            (Target::Text(query), Mode::Hybrid | Mode::Lexical) => Searcher::look_up(searchers, query),
            _ => Vec::new(),
        }
        .into_iter();
        for (place, searcher) in searchers.iter().enumerate() {
            if let Some(reason) = searcher.broken().or_else(|| searcher.behind()) {
                halves.reasons.add(reason);
            }
            let passages = admitted.next().flatten();
            let model = self.library().models().get(&searcher.collection().model).ok();
            if let Some(lookup) = lookups.next() {
                let found = lookup.and_then(|lookup| {
                    halves.totals[place] = lookup.total();
                    // Where documents are hidden it would say which words they have.
                    for word in lookup.guessed().filter(|_| among.is_all_reached) {
                        halves.reasons.add(format!("nothing has {}; words spelt alike were looked for", quoted(word)));
                    }
                    let words: Vec<&str> = lookup.words().collect();
                    let count = words.len();
                    let near = model.and_then(|model| model.proximity(&words));
                    let mut found = searcher.lexical(lookup, candidates, passages.as_deref())?;
                    if let Some(near) = near {
                        score_proximity(searcher, &mut found, &*near, NEAR_SHARE / count as f32);
                    }
                    Ok(found)
                });
                by_words(&mut halves, place, found);
            }
            if mode == Mode::Lexical || !has_meaning {
                continue;
            }
            // A caller that requests the dense mode alone gets all results.
            if let (Target::Text(query), Some(model), Mode::Hybrid) = (target, model, mode)
                && !model.has_known_word(query)
            {
                halves.reasons.add(format!("the model {} knows no word of the query", model.info().name));
                continue;
            }
            let embedding: &[f32] = match target {
                Target::Embedding(embedding) => embedding,
                Target::Text(_) => match embeddings.of(&searcher.collection().model) {
                    Some(Ok(embedding)) => embedding,
                    Some(Err(error)) => {
                        halves.leave_out(error.clone().into());
                        continue;
                    }
                    None => continue,
                },
            };
            let asked =
                VectorQuery { embedding, candidates, among: passages.as_deref(), among_words: mode == Mode::Hybrid };
            by_meaning(&mut halves, place, searcher, &asked, found.get(place).and_then(Option::as_ref));
        }
        if halves.by_words + halves.by_meaning == 0
            && let Some(failure) = halves.failure
        {
            return Err(failure);
        }
        halves.keep_best(candidates);
        if matches!(target, Target::Text(_)) {
            self.look_closer(&mut halves, fusion, searchers, embeddings);
        }
        let lsn = searchers.iter().map(Searcher::lsn).min().unwrap_or_else(|| self.library().log().last());
        Ok(fused(halves, mode, fusion, lsn))
    }

    /// Also scores the best candidates by their best window: candidates further down would not reach the top by it.
    /// Leaves the nearest first.
    ///
    /// * `embeddings`: of the query by each model.
    fn look_closer(
        &self,
        halves: &mut Halves,
        fusion: Option<Fusion>,
        searchers: &[Searcher],
        embeddings: &Embeddings,
    ) {
        if halves.by_meaning == 0 {
            return;
        }
        let best = halves.best(fusion);
        for (place, searcher) in searchers.iter().enumerate() {
            let model = searcher.collection().model.as_str();
            let embedding = embeddings.of(model).and_then(Result::ok);
            let Some((embedding, model)) = embedding.zip(self.library().models().get(model).ok()) else { continue };
            let Some(mut windows) = model.windows(embedding) else { continue };
            let places = &halves.places;
            let own = |key: &PassageKey| best.contains(key) && places.get(key) == Some(&place);
            let mut chosen: Vec<&mut (PassageKey, f32)> = halves.dense.iter_mut().filter(|(key, _)| own(key)).collect();
            let keys: Vec<u64> = chosen.iter().map(|(key, _)| key.0).collect();
            searcher.runs(&keys, |place, run| {
                let score = &mut chosen[place].1;
                *score = windows.similarity(*score, run);
            });
        }
        halves.dense.sort_by(by_score);
    }

    /// The passages of each collection that may be found: those that the filter admits and that have the query's phrases. Where no
    /// collection has a phrase the answer says so, and what has its words is found.
    fn admitted(
        &self,
        target: &Target<'_>,
        filter: Option<&Filter>,
        searchers: &[Searcher],
        reasons: &mut Reasons,
    ) -> Result<Vec<Option<Arc<Passages>>>, SearchError> {
        let filtered = |searcher: &Searcher| filter.map(|filter| searcher.matching(filter)).transpose();
        let filtered = searchers.iter().map(filtered).collect::<Result<Vec<_>, _>>()?;
        let (phrases, left_out) = match target {
            Target::Text(query) => phrases::of(query),
            Target::Embedding(_) => (Vec::new(), 0),
        };
        if phrases.is_empty() {
            return Ok(filtered);
        }
        if left_out > 0 {
            reasons.add(format!("only the first {} phrases in quotation marks were looked for", phrases.len()));
        }
        let having = |(searcher, among): (&Searcher, &Option<Arc<Passages>>)| {
            let model = self.library().models().get(&searcher.collection().model).ok().map(|model| &**model);
            phrases::passages(&phrases, searcher, model, among.clone())
        };
        let having = searchers.iter().zip(&filtered).map(having).collect::<Result<Vec<_>, _>>()?;
        if having.iter().flatten().any(|passages| !passages.is_empty()) {
            return Ok(having);
        }
        let shown = phrases.iter().map(|phrase| quoted(phrase)).collect::<Vec<_>>();
        let (all, together) = match &shown[..] {
            [one] => (one.clone(), ""),
            all => (all.join(" and "), " together"),
        };
        reasons.add(format!("no passage has {all}{together} as it stands; searched without the quotation marks"));
        Ok(filtered)
    }

    /// Weight of the meaning in a collection, and whether its model knows the language.
    fn weight(&self, searcher: &Searcher) -> (f32, bool) {
        let language = searcher.main_language();
        let model = self.library().models().info(&searcher.collection().model);
        model.map_or((0.0, false), |model| (model.weight_for(language.code()), model.knows(language.code())))
    }
}

fn by_words(halves: &mut Halves, place: usize, found: Result<Vec<LexicalHit>, LexicalError>) {
    match found {
        Ok(hits) => {
            halves.by_words += 1;
            for hit in hits {
                halves.places.insert(PassageKey(hit.key), place);
                halves.lexical.push((PassageKey(hit.key), hit.score));
            }
        }
        Err(error) => halves.leave_out(error.into()),
    }
}

/// The query to the vectors of a collection.
struct VectorQuery<'a> {
    embedding: &'a [f32],
    candidates: usize,
    among: Option<&'a Passages>,
    /// Whether those that the words found are wanted with their similarity.
    among_words: bool,
}

fn by_meaning(
    halves: &mut Halves,
    place: usize,
    searcher: &Searcher,
    asked: &VectorQuery<'_>,
    device: Option<&DeviceAnswer>,
) {
    let &VectorQuery { embedding, candidates, among, among_words } = asked;
    let info = searcher.collection();
    if embedding.len() != info.dimensions as usize {
        let (collection, model) = (info.name.clone(), info.model.clone());
        let (found, expected) = (embedding.len(), info.dimensions as usize);
        return halves.leave_out(SearchError::Dimensions { collection, model, found, expected });
    }
    halves.by_meaning += 1;
    let mut nearest = device
        .and_then(|answer| searcher.collect(answer))
        .unwrap_or_else(|| searcher.nearest(embedding, candidates, among));
    if among_words {
        let found: FxHashSet<u64> = nearest.iter().map(|neighbor| neighbor.key).collect();
        let own = halves.lexical.iter().filter(|(key, _)| halves.places.get(key) == Some(&place)).map(|(key, _)| key.0);
        let mut rest: Vec<u64> = own.filter(|key| !found.contains(key)).collect();
        rest.sort_unstable();
        nearest.extend(searcher.similarities(embedding, &rest));
    }
    for neighbor in nearest {
        halves.places.insert(PassageKey(neighbor.key), place);
        halves.dense.push((PassageKey(neighbor.key), neighbor.score));
    }
}

/// A text in quotation marks, as long as a reason may repeat it.
fn quoted(text: &str) -> String {
    let end = text.char_indices().nth(SHOWN_CHARS_MAX).map(|(at, _)| at);
    end.map_or_else(|| format!("\"{text}\""), |end| format!("\"{}…\"", &text[..end]))
}

/// Words that are close to each other count more.
fn score_proximity(searcher: &Searcher, found: &mut [LexicalHit], near: &dyn Proximity, share: f32) {
    let best = found.len().min(LOOKED_AT);
    let found = &mut found[..best];
    let keys: Vec<u64> = found.iter().map(|hit| hit.key).collect();
    searcher.runs(&keys, |place, run| found[place].score *= 1.0 + share * near.of(run));
}

fn fused(halves: Halves, mode: Mode, fusion: Option<Fusion>, lsn: Lsn) -> Ranking {
    let Halves { lexical, dense, places, by_words, by_meaning, known, totals, .. } = &halves;
    let mode_used = match mode {
        Mode::Hybrid if *by_words == 0 && *by_meaning > 0 => Mode::Dense,
        Mode::Hybrid if *by_meaning == 0 && *by_words > 0 => Mode::Lexical,
        mode => mode,
    };
    let fused = match mode_used {
        Mode::Hybrid => fuse(lexical, dense, fusion, |key| halves.weight(key)),
        Mode::Dense => fuse(&[], dense, None, |_| 1.0),
        Mode::Lexical => fuse(lexical, &[], None, |_| 0.0),
    };
    let ranked = |(key, mut scores): (PassageKey, Candidate)| {
        // Every key came from a collection.
        let collection = places.get(&key).copied().unwrap_or_default();
        let total = totals.get(collection).copied().unwrap_or_default();
        let is_known = known.get(collection).copied().unwrap_or_default();
        scores.relevance = relevance::of(&scores, total, mode_used, is_known);
        Ranked { key, collection, scores }
    };
    let ranked = fused.into_iter().map(ranked).collect();
    Ranking { ranked, mode_used, reasons: halves.reasons, lsn }
}

/// Best first, equal scores by ascending key.
fn by_score(left: &(PassageKey, f32), right: &(PassageKey, f32)) -> std::cmp::Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}
