//! Answering a question: both halves, fused, fitted into a token budget, remembered until the next write.
//!
//! Invariants:
//! * An answer says what was searched, how, and up to which position of the log. When one half cannot answer, the other
//!   does, and the answer says so.
//! * Equal requests on an unchanged collection give equal answers, from the cache or not; but for neighbours that its graph
//!   misses, once the node has found out that it has to look further, or where the GPU answers one and the CPU the other.
//! * Scores are from 0 to 1 and mean something within one answer only; the relevance of a passage means the same in every answer.

mod alike;
mod answer_cache;
mod assembly;
mod budget;
mod cursor;
mod embedding_cache;
mod fusion;
mod metrics;
mod order;
mod phrases;
mod ranking;
mod relevance;
mod snippet;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;

use crate::base::{Digest, Fault, Lsn, setting};
use crate::collection::{Access, Library, Passage, PassageKey, Searcher};
use crate::collection::{CollectionInfo, DocumentRecord, ReadError};
use crate::embed::EmbedError;
pub use crate::index::filter::Filter;
use crate::index::lexical::LexicalError;
use crate::index::vector::{DeviceAnswer, DeviceQuery};
use crate::task;

use self::answer_cache::AnswerCache;
use self::embedding_cache::EmbeddingCache;
use self::ranking::{Ranking, Target};
pub use assembly::{Hit, Surroundings, path};
pub use budget::{prefix_priced, price, price_of_json};
pub use cursor::Cursor;
pub use fusion::{Candidate, Fusion, fuse};
pub use metrics::Metrics;

/// Most hits in one answer.
pub const LIMIT_MAX: usize = 50;
/// Fewest and most tokens of one answer: what an id with its title may take, and what clients accept.
pub const TOKENS_MIN: usize = 100;
/// See [`TOKENS_MIN`].
pub const TOKENS_MAX: usize = 20_000;
/// Most tokens of a list of documents, for programs that read it to its end.
pub const LIST_TOKENS_MAX: usize = 200_000;
/// Longest query that is looked at, in bytes; the rest is cut off.
const QUERY_BYTES_MAX: usize = 8 << 10;
/// Passages of a document that are looked past when its neighbours are wanted.
const OWN_PASSAGES_MAX: usize = 1_000;
/// How deep a cursor can go.
const OFFSET_MAX: usize = 500;
/// Candidates of each half behind which nothing is looked for.
const DEPTH_MAX: usize = 2 * (OFFSET_MAX + LIMIT_MAX);
/// How many times deeper is looked for other documents than those that fill the first candidates.
const OTHER_DOCUMENTS: usize = 8;
/// Passages of one document before those of the others, and in long answers.
const PER_DOCUMENT: usize = 2;
const PER_DOCUMENT_LONG: usize = 3;
/// Results from which on an answer is a long one.
const LONG: usize = 20;

/// Defaults of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// Hits per answer.
    #[serde(deserialize_with = "setting::count::<_, 1, LIMIT_MAX>")]
    pub limit: usize,
    /// Tokens per answer.
    #[serde(deserialize_with = "setting::count::<_, TOKENS_MIN, TOKENS_MAX>")]
    pub tokens_max: usize,
    /// Candidates taken from each half.
    #[serde(deserialize_with = "setting::count::<_, 10, 1_000>")]
    pub candidates: usize,
    /// Memory for remembered answers.
    #[serde(deserialize_with = "setting::bytes::<_, 0>")]
    pub cache_bytes: u64,
    /// Memory for words that are searched for.
    #[serde(deserialize_with = "setting::bytes::<_, 0>")]
    pub word_cache_bytes: u64,
    /// Memory for passages and documents read from the log.
    #[serde(deserialize_with = "setting::bytes::<_, 0>")]
    pub passage_cache_bytes: u64,
}

/// Which halves are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Both, fused.
    #[default]
    Hybrid,
    /// Meaning alone: vectors.
    Dense,
    /// Words alone: BM25.
    Lexical,
}

impl Mode {
    /// As tools spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::Dense => "dense",
            Self::Lexical => "lexical",
        }
    }
}

/// How much of a passage an answer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Detail {
    /// Titles and places only.
    Ids,
    /// The part that fits the query best, about 300 characters.
    Snippet,
    /// As much as there is room for: long passages are shortened around what fits the query best, so that all results fit the
    /// budget.
    #[default]
    Fitted,
    /// The whole passage.
    Full,
}

/// A question.
#[derive(Debug, Clone, Default)]
pub struct SearchRequest {
    /// In words, or as a question.
    pub query: String,
    /// Names of collections; empty for all.
    pub collections: Vec<String>,
    /// Which halves are asked.
    pub mode: Mode,
    /// Hits wanted; `None` for the default.
    pub limit: Option<usize>,
    /// Where the last answer ended; `None` to begin.
    pub cursor: Option<Cursor>,
    /// Only documents whose metadata matches.
    pub filter: Option<Filter>,
    /// Tokens of the answer, its texts and what stands around them; `None` for the default.
    pub tokens_max: Option<usize>,
    /// Only hits with at least this score.
    pub min_score: Option<f32>,
    /// How much of a passage is given.
    pub detail: Detail,
    /// How the halves are fused; `None` for the model's way.
    pub fusion: Option<Fusion>,
    /// What the caller shows beside the texts, as a number of his own: it says apart answers that differ in nothing else, since it
    /// decides what fits.
    pub shown: u32,
}

/// An answer.
#[derive(Debug)]
pub struct SearchAnswer {
    /// Distinguishes answers; equal for an answer from the cache.
    pub id: u64,
    /// Best first.
    pub hits: Vec<Hit>,
    /// What was asked in the end.
    pub mode_used: Mode,
    /// Why it was not what the caller wanted.
    pub mode_reason: Option<String>,
    /// Names of the collections that were searched.
    pub searched: Vec<String>,
    /// Everything acknowledged up to here was searched.
    pub lsn: Lsn,
    /// Whether nothing of it fits well: what was asked for is probably not there.
    pub weak: bool,
    /// Whether more was found than the answer holds.
    pub truncated: bool,
    /// Where the next answer would begin.
    pub next: Option<Cursor>,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// No word in it.
    #[error("the query is empty")]
    EmptyQuery,
    /// A collection that does not exist.
    #[error("there is no collection '{name}'; there {}", listed(.known))]
    NoSuchCollection {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A document that does not exist.
    #[error("there is no document '{id}'")]
    NoSuchDocument {
        /// The id asked for.
        id: String,
    },
    /// A limit, offset or budget out of range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The argument.
        name: &'static str,
        /// Its value.
        found: usize,
        /// The range.
        expected: String,
    },
    /// An index cannot be read.
    #[error(transparent)]
    Lexical(#[from] LexicalError),
    /// The model of a collection is not on this node, or cannot answer.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The vectors of a collection are of another length than what its model makes of the question.
    #[error("the vectors of collection '{collection}' have {expected} dimensions, its model {model} gives {found}")]
    Dimensions {
        /// The collection.
        collection: String,
        /// The model that it names.
        model: String,
        /// Length of the question's embedding.
        found: usize,
        /// Length of the collection's.
        expected: usize,
    },
    /// The index of a collection is not open.
    #[error("{reason}")]
    NoIndex {
        /// Of which, and why.
        reason: String,
    },
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "are no collections yet".to_owned(),
        [name] => format!("is '{name}'"),
        names => format!("are {}", names.join(", ")),
    }
}

impl SearchError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::EmptyQuery
            | Self::NoSuchCollection { .. }
            | Self::NoSuchDocument { .. }
            | Self::OutOfRange { .. } => Fault::Caller,
            Self::Lexical(error) => error.fault(),
            // The caller named a collection, not its model.
            Self::Embed(EmbedError::Unknown { .. }) => Fault::Environment,
            Self::Embed(error) => error.fault(),
            Self::Read(error) => error.fault(),
            Self::Dimensions { .. } => Fault::Damage,
            Self::NoIndex { .. } => Fault::Environment,
        }
    }
}

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
struct Wanted {
    limit: usize,
    cursor: Cursor,
    tokens_max: usize,
}

/// A question taken: the views it is asked of, and what its answer is remembered by.
pub struct Asked<'a> {
    access: Access<'a>,
    /// The caller's, within what the call reaches.
    filter: Option<Filter>,
    searchers: Vec<Searcher>,
    /// Why collections that were asked for are not among them.
    left_out: Vec<String>,
    /// `None` where an answer may not be remembered.
    key: Option<Digest>,
    /// The defaults that the key is for.
    defaults: Config,
    ahead: Ahead,
}

/// What was done of a question ahead of answering it.
#[derive(Default)]
struct Ahead {
    embeddings: Embeddings,
    /// What the GPU found in each collection; nothing, where it was not asked.
    found: Vec<Option<DeviceAnswer>>,
}

/// A question's embedding by each model that is asked, or why that model gave none. They are few: a list.
#[derive(Default)]
struct Embeddings(Vec<(String, Embedded)>);

type Embedded = Result<Arc<[f32]>, EmbedError>;

impl Embeddings {
    /// The embedding by a model; `None` where it was not asked.
    fn of(&self, model: &str) -> Option<Result<&Arc<[f32]>, &EmbedError>> {
        self.0.iter().find(|(name, _)| name == model).map(|(_, made)| made.as_ref())
    }
}

/// A question that the GPU was asked: waiting for it takes no processor.
pub struct AskedDevices {
    questions: Vec<Option<DeviceQuery>>,
}

impl AskedDevices {
    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.iter().all(Option::is_none)
    }
}

impl Asked<'_> {
    /// Whether the GPU may be asked first.
    #[must_use]
    pub fn asks_device(&self, mode: Mode) -> bool {
        mode != Mode::Lexical && self.searchers.iter().any(Searcher::asks_device)
    }

    /// Takes over what the GPU found.
    pub async fn with(&mut self, asked: AskedDevices) {
        let AskedDevices { questions } = asked;
        let mut found = Vec::with_capacity(questions.len());
        // They have been asked one and all; none waits longer for those before it.
        for question in questions {
            found.push(match question {
                Some(question) => question.answer().await,
                None => None,
            });
        }
        self.ahead.found = found;
    }
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

    /// Sets what remembered answers may take from now on.
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
    pub fn ask<'a>(&self, access: Access<'a>, request: &SearchRequest) -> Result<Asked<'a>, SearchError> {
        if words(&request.query).is_empty() {
            return Err(SearchError::EmptyQuery);
        }
        let (searchers, left_out) = searchers(access, &request.collections)?;
        let filter = access.permit().reach().filter(request.filter.as_ref());
        let defaults = self.config();
        let key = self.cache.key(request, defaults, filter.as_ref(), &searchers).filter(|_| left_out.is_empty());
        Ok(Asked { access, filter, searchers, left_out, key, defaults, ahead: Ahead::default() })
    }

    /// Asks the GPU for the vector half of a question, where it searches; the answer goes into `asked`, see [`Asked::with`].
    ///
    /// * `request`: the one that was asked; [`Retrieval::embed`] was called for it.
    ///
    /// # Errors
    /// As for [`Retrieval::answer`].
    pub fn ask_devices(&self, request: &SearchRequest, asked: &Asked<'_>) -> Result<AskedDevices, SearchError> {
        let wanted = self.wanted(request)?;
        let candidates = self.candidates(&wanted, 0);
        let query = words(&request.query);
        if !phrases::of(query).0.is_empty() {
            return Ok(AskedDevices { questions: Vec::new() });
        }
        let mut questions = Vec::with_capacity(asked.searchers.len());
        for searcher in &asked.searchers {
            let info = searcher.collection();
            if !searcher.asks_device() {
                questions.push(None);
                continue;
            }
            let among = asked.filter.as_ref().map(|filter| searcher.matching(filter)).transpose()?;
            // Where there is none, the answer says so.
            let embedding = asked.ahead.embeddings.of(&info.model).and_then(Result::ok);
            let embedding = embedding.filter(|embedding| embedding.len() == info.dimensions as usize);
            questions
                .push(embedding.and_then(|embedding| searcher.ask_device(embedding, candidates, among.as_deref())));
        }
        Ok(AskedDevices { questions })
    }

    /// Embeds a question with the models of its collections, where its mode asks for meaning. This may wait for another machine, so call
    /// it before a turn is taken. A model that fails is in the answer's reasons, or its error.
    ///
    /// * `request`: the one that was asked.
    pub async fn embed(&self, request: &SearchRequest, asked: &mut Asked<'_>) {
        asked.ahead.embeddings = self.embeddings(words(&request.query), request.mode, &asked.searchers).await;
    }

    /// The answer to a question that was asked before, when nothing changed since. Cost: a lookup.
    #[must_use]
    pub fn remembered(&self, asked: &Asked<'_>) -> Option<Arc<SearchAnswer>> {
        let answer = self.cache.get(asked.key?, &self.library)?;
        self.metrics.search_cache_hits.inc();
        Some(answer)
    }

    /// Searches for the answer to a question, and remembers it.
    ///
    /// * `request`: the one that was asked; without [`Retrieval::embed`] before it is answered by words alone.
    /// * `surroundings`: what the answer costs beside its texts; equal for equal `request.shown`.
    ///
    /// # Errors
    /// [`SearchError`]; a caller's mistake names the argument.
    pub fn answer(
        &self,
        request: &SearchRequest,
        asked: &Asked<'_>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Arc<SearchAnswer>, SearchError> {
        self.metrics.search_cache_misses.inc();
        let target = Target::Text(words(&request.query));
        let answer = Arc::new(self.compose(&target, request, asked, (None, surroundings))?);
        // What was wrong may be right the next time; and the defaults may have changed on the way.
        let may_be_remembered = answer.mode_reason.is_none() && self.config() == asked.defaults;
        if let Some(key) = asked.key.filter(|_| may_be_remembered) {
            self.cache.insert(key, &answer);
        }
        Ok(answer)
    }

    /// Answers a question, from memory or by searching. Blocks while a model is asked.
    ///
    /// # Errors
    /// As for [`Retrieval::ask`] and [`Retrieval::answer`].
    pub fn search(&self, access: Access<'_>, request: &SearchRequest) -> Result<Arc<SearchAnswer>, SearchError> {
        let mut asked = self.ask(access, request)?;
        if let Some(known) = self.remembered(&asked) {
            return Ok(known);
        }
        task::block_on(self.embed(request, &mut asked));
        self.answer(request, &asked, &Surroundings::none())
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
        let asked =
            Asked { access, filter, searchers, left_out, key: None, defaults: self.config(), ahead: Ahead::default() };
        let target = Target::Embedding(embedding);
        let answer = self.compose(&target, &request, &asked, (Some(&source.document), surroundings))?;
        Ok(Arc::new(answer))
    }

    /// Ranks passages for a query without reading their texts: for evaluation. Blocks while a model is asked.
    ///
    /// * `collections`: names; empty for all.
    /// * `candidates`: how many are taken from each half.
    /// * `fusion`: how the halves are fused; `None` for the model's way.
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
        Ok(self
            .ranking(&Target::Text(query), mode, fusion, access.permit().reach().documents(), candidates, views)?
            .ranked)
    }

    /// Candidates per half that a search with the default limit takes.
    #[must_use]
    pub fn default_candidates(&self) -> usize {
        self.config().candidates
    }

    fn compose(
        &self,
        target: &Target<'_>,
        request: &SearchRequest,
        asked: &Asked<'_>,
        (without, surroundings): (Option<&DocumentRecord>, &Surroundings<'_>),
    ) -> Result<SearchAnswer, SearchError> {
        let Asked { access, filter, searchers, left_out, ahead, .. } = asked;
        let wanted = self.wanted(request)?;
        let Wanted { limit, cursor, tokens_max } = wanted;
        // The passages of the document itself are its nearest neighbours; they must not be all there is.
        let own = without.map_or(0, |document| document.chunks.len().min(OWN_PASSAGES_MAX));
        let filter = filter.as_ref();
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
            let views = (&searchers[..], &ahead.embeddings, found);
            self.ranking(target, request.mode, request.fusion, filter, depth, views)
        };
        let Ranking { ranked, mode_used, mut reasons, lsn } = rank(depth, &ahead.found)?;
        // One more than is shown says whether there is more.
        let enough = cursor.offset + limit + 1;
        let mut may_go_on = order.add(&ranked, depth, enough);
        let documents: u64 = searchers.iter().map(|searcher| searcher.collection().documents).sum();
        let other_depth = depth * OTHER_DOCUMENTS;
        // One long document may hold all that is near: others are looked for before more of it is shown.
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
        let page = assembly::Wanted {
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

    fn wanted(&self, request: &SearchRequest) -> Result<Wanted, SearchError> {
        let config = self.config();
        let limit = in_range("limit", request.limit, config.limit, 1..=LIMIT_MAX)?;
        let cursor = request.cursor.unwrap_or(Cursor { offset: 0, first: limit, state: 0 });
        in_range("cursor", Some(cursor.offset), 0, 0..=OFFSET_MAX)?;
        in_range("cursor", Some(cursor.first), 1, 1..=LIMIT_MAX)?;
        let tokens_max = in_range("max_tokens", request.tokens_max, config.tokens_max, TOKENS_MIN..=TOKENS_MAX)?;
        Ok(Wanted { limit, cursor, tokens_max })
    }

    /// Passages that are taken from each half first; by the size of the first page, so that the order is that of all pages.
    ///
    /// * `own`: passages among them that will be left out.
    fn candidates(&self, wanted: &Wanted, own: usize) -> usize {
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
            // One that was just deleted is missed by nobody.
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

/// What of a query is looked at.
fn words(query: &str) -> &str {
    let mut end = query.len().min(QUERY_BYTES_MAX);
    while !query.is_char_boundary(end) {
        end -= 1;
    }
    query[..end].trim()
}

fn in_range(
    name: &'static str,
    value: Option<usize>,
    default: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, SearchError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(SearchError::OutOfRange { name, found: value, expected })
}

/// A filter on the time of the last change, as `after` and `before` of a search.
#[must_use]
pub fn updated_between(after: Option<&str>, before: Option<&str>) -> Option<Filter> {
    let bound = |text: &str, inclusive| {
        let scalar = crate::index::filter::Filter::from_json(&serde_json::json!({ "_updated_at": text })).ok()?;
        match scalar {
            Filter::Equals(_, scalar) => Some((scalar, inclusive)),
            _ => None,
        }
    };
    let (lower, upper) = (after.and_then(|text| bound(text, true)), before.and_then(|text| bound(text, false)));
    (lower.is_some() || upper.is_some()).then(|| Filter::Range("_updated_at".to_owned(), lower, upper))
}

/// Metadata as an answer shows it.
#[must_use]
pub fn shown_metadata(bytes: &[u8]) -> serde_json::Map<String, Value> {
    serde_json::from_slice(bytes).unwrap_or_default()
}
