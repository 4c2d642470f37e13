//! Answering a query: both halves, fused, fitted into a token budget, cached until the next write.
//!
//! Invariants:
//! * An answer says what was searched, how, and up to which position of the log. When one half cannot answer, the other
//!   does, and the answer says so.
//! * Equal requests on an unchanged collection give equal answers, cached or not; except for neighbours that its graph
//!   misses, once a recall check has increased its candidates, or where the GPU answers one and the CPU the other.
//! * Scores are from 0 to 1 and comparable within one answer only; the relevance of a passage is comparable across
//!   answers.

mod alike;
mod answer_cache;
mod assembly;
mod budget;
mod cursor;
mod embedding_cache;
mod error;
mod fusion;
mod metrics;
mod order;
mod phrases;
mod prepared;
mod ranking;
mod relevance;
mod request;
mod snippet;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::collection::{Access, Library, Passage, PassageKey, Searcher};
use crate::collection::{CollectionInfo, DocumentRecord};
pub use crate::index::filter::Filter;
use crate::index::vector::DeviceAnswer;
use crate::task;

use self::answer_cache::AnswerCache;
use self::embedding_cache::EmbeddingCache;
use self::prepared::{Embeddings, Precomputed};
use self::ranking::{Among, Ranking, Target};
use self::request::{
    DEPTH_MAX, LONG, OFFSET_MAX, OTHER_DOCUMENTS, OWN_PASSAGES_MAX, PER_DOCUMENT, PER_DOCUMENT_LONG, QUERY_BYTES_MAX,
    in_range,
};
pub use assembly::{Hit, Surroundings, path};
pub use budget::{prefix_priced, price, price_of_json};
pub use cursor::Cursor;
pub use error::SearchError;
pub use fusion::{Candidate, Fusion, fuse};
pub use metrics::Metrics;
pub use prepared::{DeviceQueries, PreparedSearch};
pub use request::{
    Config, Detail, LIMIT_MAX, LIST_TOKENS_MAX, Mode, SearchAnswer, SearchRequest, TOKENS_MAX, TOKENS_MIN,
    shown_metadata, updated_between,
};

/// A passage ranked, before its text is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The passage.
    pub key: PassageKey,
    /// Position of its collection in the list searched.
    pub collection: usize,
    /// Its scores.
    pub scores: Candidate,
}

/// Sizes of an answer.
struct AnswerLimits {
    limit: usize,
    cursor: Cursor,
    tokens_max: usize,
}

/// The searching half of the node.
pub struct Retrieval {
    library: Arc<Library>,
    config: RwLock<Config>,
    cache: AnswerCache,
    embeddings: EmbeddingCache,
    metrics: Metrics,
}

impl Retrieval {
    /// A retrieval over the node's collections.
    #[must_use]
    pub fn new(library: Arc<Library>, config: Config, metrics: Metrics) -> Self {
        let cache = AnswerCache::new(config.cache_bytes);
        let config = RwLock::new(config);
        Self { library, config, cache, embeddings: EmbeddingCache::new(metrics.clone()), metrics }
    }

    /// Sets what a search does when its caller does not say, from now on. The sizes of caches stay.
    pub fn set_defaults(&self, defaults: Config) {
        *self.config.write() = defaults;
    }

    fn config(&self) -> Config {
        *self.config.read()
    }

    /// Memory for remembered answers, as it was set at the start.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.config().cache_bytes
    }

    /// Sets the size of the answer cache.
    pub fn set_cache_bytes(&self, bytes: u64) {
        self.cache.set_bytes(bytes);
    }

    /// The collections searched.
    #[must_use]
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Takes a question on the views of this moment.
    ///
    /// # Errors
    /// When the question is empty or names a collection that is not there.
    pub fn ask<'a>(&self, access: Access<'a>, request: &SearchRequest) -> Result<PreparedSearch<'a>, SearchError> {
        if words(&request.query).is_empty() {
            return Err(SearchError::EmptyQuery);
        }
        let (searchers, left_out) = searchers(access, &request.collections)?;
        let filter = access.permit().reach().filter(request.filter.as_ref());
        let defaults = self.config();
        let is_narrowed = access.permit().reach().documents().is_some();
        let key = self.cache.key(request, defaults, (filter.as_ref(), is_narrowed), &searchers);
        let key = key.filter(|_| left_out.is_empty());
        Ok(PreparedSearch { access, filter, searchers, left_out, key, defaults, precomputed: Precomputed::default() })
    }

    /// Sends the vector half of a query to the GPU, if it is used; the answer is added by [`PreparedSearch::with`].
    ///
    /// * `request`: the original request; [`Retrieval::embed`] was called for it.
    ///
    /// # Errors
    /// As for [`Retrieval::answer`].
    pub fn ask_devices(
        &self,
        request: &SearchRequest,
        prepared: &PreparedSearch<'_>,
    ) -> Result<DeviceQueries, SearchError> {
        let wanted = self.wanted(request)?;
        let candidates = self.candidates(&wanted, 0);
        let query = words(&request.query);
        if !phrases::of(query).0.is_empty() {
            return Ok(DeviceQueries { questions: Vec::new() });
        }
        let mut questions = Vec::with_capacity(prepared.searchers.len());
        for searcher in &prepared.searchers {
            let info = searcher.collection();
            if !searcher.asks_device() {
                questions.push(None);
                continue;
            }
            let among = prepared.filter.as_ref().map(|filter| searcher.matching(filter)).transpose()?;
            // If there is none, the answer says so.
            let embedding = prepared.precomputed.embeddings.of(&info.model).and_then(Result::ok);
            let embedding = embedding.filter(|embedding| embedding.len() == info.dimensions as usize);
            questions
                .push(embedding.and_then(|embedding| searcher.ask_device(embedding, candidates, among.as_deref())));
        }
        Ok(DeviceQueries { questions })
    }

    /// Embeds a query with the models of its collections, if its mode needs that. This may wait for another machine, so
    /// call it before acquiring a compute permit. A model that fails becomes one of the answer's reasons, or its error.
    ///
    /// * `request`: the original request.
    pub async fn embed(&self, request: &SearchRequest, prepared: &mut PreparedSearch<'_>) {
        prepared.precomputed.embeddings =
            self.embeddings(words(&request.query), request.mode, &prepared.searchers).await;
    }

    /// The answer to a question that was asked before, when nothing changed since. Cost: a lookup.
    #[must_use]
    pub fn remembered(&self, prepared: &PreparedSearch<'_>) -> Option<Arc<SearchAnswer>> {
        let answer = self.cache.get(prepared.key?, &self.library)?;
        self.metrics.search_cache_hits.inc();
        Some(answer)
    }

    /// Searches for the answer to a query, and caches it.
    ///
    /// * `request`: the original request; without a previous [`Retrieval::embed`] it is answered by words alone.
    /// * `surroundings`: the cost of the answer besides its texts; equal for equal `request.shown`.
    ///
    /// # Errors
    /// [`SearchError`]; a caller's mistake names the argument.
    pub fn answer(
        &self,
        request: &SearchRequest,
        prepared: &PreparedSearch<'_>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Arc<SearchAnswer>, SearchError> {
        self.metrics.search_cache_misses.inc();
        let target = Target::Text(words(&request.query));
        let answer = Arc::new(self.compose(&target, request, prepared, (None, surroundings))?);
        // The problem may be temporary; and the defaults may have changed meanwhile.
        let may_be_remembered = answer.mode_reason.is_none() && self.config() == prepared.defaults;
        if let Some(key) = prepared.key.filter(|_| may_be_remembered) {
            self.cache.insert(key, &answer);
        }
        Ok(answer)
    }

    /// Answers a question, from memory or by searching. Blocks while a model is asked.
    ///
    /// # Errors
    /// As for [`Retrieval::ask`] and [`Retrieval::answer`].
    pub fn search(&self, access: Access<'_>, request: &SearchRequest) -> Result<Arc<SearchAnswer>, SearchError> {
        let mut prepared = self.ask(access, request)?;
        if let Some(known) = self.remembered(&prepared) {
            return Ok(known);
        }
        task::block_on(self.embed(request, &mut prepared));
        self.answer(request, &prepared, &Surroundings::none())
    }

    /// Passages that mean the same as a document, or as one of its passages; that document's own are left out.
    ///
    /// # Errors
    /// When the document is not there, or an argument is out of range.
    pub fn find_similar(
        &self,
        access: Access<'_>,
        source: &Passage,
        whole_document: bool,
        request: &SearchRequest,
        surroundings: &Surroundings<'_>,
    ) -> Result<Arc<SearchAnswer>, SearchError> {
        let (searchers, left_out) = searchers(access, &request.collections)?;
        let mut embedding = vec![0f32; source.body.embedding.len()];
        let ordinals =
            if whole_document { 0..source.document.chunks.len() } else { source.ordinal..source.ordinal + 1 };
        for ordinal in ordinals {
            let passage = access.passages().passage(PassageKey::new(source.document.lsn, ordinal))?;
            for (sum, value) in embedding.iter_mut().zip(&passage.body.embedding) {
                *sum += value.to_f32();
            }
        }
        let norm = embedding.iter().map(|value| value * value).sum::<f32>().sqrt();
        if norm > 0.0 {
            embedding.iter_mut().for_each(|value| *value /= norm);
        }
        let request = SearchRequest { mode: Mode::Dense, ..request.clone() };
        let filter = access.permit().reach().filter(request.filter.as_ref());
        let prepared = PreparedSearch {
            access,
            filter,
            searchers,
            left_out,
            key: None,
            defaults: self.config(),
            precomputed: Precomputed::default(),
        };
        let target = Target::Embedding(embedding);
        let answer = self.compose(&target, &request, &prepared, (Some(&source.document), surroundings))?;
        Ok(Arc::new(answer))
    }

    /// Ranks passages for a query without reading their texts: for evaluation. Blocks while a model answers.
    ///
    /// * `collections`: names; empty for all.
    /// * `candidates`: how many are used from each half.
    /// * `fusion`: how the halves are fused; `None` for the model's default.
    ///
    /// # Errors
    /// As for [`Retrieval::search`].
    pub fn rank(
        &self,
        access: Access<'_>,
        query: &str,
        collections: &[String],
        mode: Mode,
        candidates: usize,
        fusion: Option<Fusion>,
    ) -> Result<Vec<Ranked>, SearchError> {
        let (searchers, _) = searchers(access, collections)?;
        let embeddings = task::block_on(self.embeddings(query, mode, &searchers));
        let views = (&searchers[..], &embeddings, &[][..]);
        let among = Among::of(access, access.permit().reach().documents());
        Ok(self.ranking(&Target::Text(query), mode, fusion, among, candidates, views)?.ranked)
    }

    /// Candidates from each half in a search with the default limit.
    #[must_use]
    pub fn default_candidates(&self) -> usize {
        self.config().candidates
    }

    fn compose(
        &self,
        target: &Target<'_>,
        request: &SearchRequest,
        prepared: &PreparedSearch<'_>,
        (without, surroundings): (Option<&DocumentRecord>, &Surroundings<'_>),
    ) -> Result<SearchAnswer, SearchError> {
        let PreparedSearch { access, filter, searchers, left_out, precomputed, .. } = prepared;
        let wanted = self.wanted(request)?;
        let AnswerLimits { limit, cursor, tokens_max } = wanted;
        // The passages of the document itself are its nearest neighbours; they must not be all there is.
        let own = without.map_or(0, |document| document.chunks.len().min(OWN_PASSAGES_MAX));
        let among = Among::of(*access, filter.as_ref());
        let per_document = if cursor.first >= LONG { PER_DOCUMENT_LONG } else { PER_DOCUMENT };
        let rules = order::Rules {
            per_document,
            min_score: request.min_score,
            folds: matches!(target, Target::Text(_)),
            without,
        };
        let mut order = order::Order::new(rules, searchers, *access);
        let mut depth = self.candidates(&wanted, own);
        let rank = |depth: usize, found: &[Option<DeviceAnswer>]| {
            let views = (&searchers[..], &precomputed.embeddings, found);
            self.ranking(target, request.mode, request.fusion, among, depth, views)
        };
        let Ranking { ranked, mode_used, mut reasons, lsn } = rank(depth, &precomputed.found)?;
        // One more than is shown says whether there is more.
        let enough = cursor.offset + limit + 1;
        let mut may_go_on = order.add(&ranked, depth, enough);
        let documents: u64 = searchers.iter().map(|searcher| searcher.collection().documents).sum();
        let other_depth = depth * OTHER_DOCUMENTS;
        // One long document may contain all near passages: other documents are searched for before more of it is shown.
        while may_go_on && order.placed.len() < enough && depth < other_depth && (order.documents() as u64) < documents
        {
            depth *= 2;
            may_go_on = order.add(&rank(depth, &[])?.ranked, depth, enough);
        }
        order.add_behind(enough);
        while may_go_on && order.placed.len() < enough && depth < DEPTH_MAX + own {
            depth *= 2;
            may_go_on = order.add(&rank(depth, &[])?.ranked, depth, enough);
            order.add_behind(enough);
        }
        let query = match target {
            Target::Text(query) => query,
            Target::Embedding(_) => "",
        };
        left_out.iter().for_each(|reason| reasons.add(reason.clone()));
        // A passage says nothing of how well it fits itself.
        let weak = matches!(target, Target::Text(_)) && relevance::is_weak(&ranked);
        let state = cursor::state((query, request.mode), searchers);
        if cursor.offset > 0 && cursor.state != state {
            reasons.add(
                "the cursor is of another question, or what is searched has changed since: results may come twice, or not at all"
                    .to_owned(),
            );
        }
        if let Some(reason) = order.unreadable()? {
            reasons.add(reason);
        }
        let searched: Vec<String> = searchers.iter().map(|searcher| searcher.collection().name.clone()).collect();
        let mode_reason = reasons.text();
        let envelope = (surroundings.envelope)(&searched, mode_reason.as_deref());
        let page = assembly::PageLimits {
            limit,
            offset: cursor.offset,
            tokens_max: (tokens_max / surroundings.copies.max(1)).saturating_sub(envelope),
            detail: request.detail,
            around: surroundings.hit,
        };
        let assembled = assembly::assemble(&order, &page, query, searchers, *access)?;
        let next = assembled.next_offset.filter(|offset| *offset <= OFFSET_MAX);
        Ok(SearchAnswer {
            id: self.cache.next_id(),
            hits: assembled.hits,
            mode_used,
            mode_reason,
            searched,
            lsn,
            weak,
            truncated: assembled.truncated,
            next: next.map(|offset| Cursor { offset, first: cursor.first, state }),
        })
    }

    fn wanted(&self, request: &SearchRequest) -> Result<AnswerLimits, SearchError> {
        let config = self.config();
        let limit = in_range("limit", request.limit, config.limit, 1..=LIMIT_MAX)?;
        let cursor = request.cursor.unwrap_or(Cursor { offset: 0, first: limit, state: 0 });
        in_range("cursor", Some(cursor.offset), 0, 0..=OFFSET_MAX)?;
        in_range("cursor", Some(cursor.first), 1, 1..=LIMIT_MAX)?;
        let tokens_max = in_range("max_tokens", request.tokens_max, config.tokens_max, TOKENS_MIN..=TOKENS_MAX)?;
        Ok(AnswerLimits { limit, cursor, tokens_max })
    }

    /// Passages used from each half at first; depends on the size of the first page, so that the order is the same for
    /// all pages.
    ///
    /// * `own`: passages among them that will be left out.
    fn candidates(&self, wanted: &AnswerLimits, own: usize) -> usize {
        self.config().candidates.max(wanted.cursor.first * 2) + own
    }

    /// The embeddings of a query by the models of these collections, each model asked once.
    async fn embeddings(&self, query: &str, mode: Mode, searchers: &[Searcher]) -> Embeddings {
        let mut made = Embeddings::default();
        if mode == Mode::Lexical || !has_meaning(query) {
            return made;
        }
        for searcher in searchers {
            let name = &searcher.collection().model;
            if made.of(name).is_none() {
                let embedding = match self.library.models().get(name) {
                    Ok(model) => self.embeddings.embed(&**model, query).await,
                    Err(unknown) => Err(unknown),
                };
                made.0.push((name.clone(), embedding));
            }
        }
        made
    }
}

/// The views of these collections, and why some have none.
fn searchers(access: Access<'_>, names: &[String]) -> Result<(Vec<Searcher>, Vec<String>), SearchError> {
    let all = access.collections();
    let wanted: Vec<Arc<CollectionInfo>> = if names.is_empty() || names.iter().any(|name| name == "*") {
        all
    } else {
        // One that is named twice is searched once: what it holds would be found twice, and count double.
        let mut seen = HashSet::new();
        names
            .iter()
            .filter(|name| seen.insert(name.as_str()))
            .map(|name| {
                all.iter().find(|info| info.name == *name).cloned().ok_or_else(|| SearchError::NoSuchCollection {
                    name: name.clone(),
                    known: all.iter().map(|info| info.name.clone()).collect(),
                })
            })
            .collect::<Result<_, _>>()?
    };
    let (mut searchers, mut left_out) = (Vec::with_capacity(wanted.len()), Vec::new());
    for info in &wanted {
        match access.searcher(info) {
            Some(searcher) => searchers.push(searcher),
            // A collection that was just deleted is not missed.
            None => left_out.extend(access.library().unindexed(info)),
        }
    }
    match left_out.pop() {
        Some(reason) if searchers.is_empty() => Err(SearchError::NoIndex { reason }),
        last => {
            left_out.extend(last);
            Ok((searchers, left_out))
        }
    }
}

/// Whether a query can be embedded: the vector of punctuation and pictures points anywhere.
fn has_meaning(query: &str) -> bool {
    query.contains(char::is_alphanumeric)
}

/// The part of a query that is used.
fn words(query: &str) -> &str {
    let mut end = query.len().min(QUERY_BYTES_MAX);
    while !query.is_char_boundary(end) {
        end -= 1;
    }
    query[..end].trim()
}
