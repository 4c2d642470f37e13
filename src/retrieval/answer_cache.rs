//! A cache of answers to repeated queries.
//!
//! The key contains the position of each collection's last change, so a write invalidates it. An answer is not cached
//! while its view is behind that position, nor beyond the first expiry of a document in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{Config, Filter, Fusion, SearchAnswer, SearchRequest};
use crate::base::Digest;
use crate::collection::{Library, Searcher};

#[derive(Clone)]
struct AnswerWeighter;

impl Weighter<Digest, Arc<SearchAnswer>> for AnswerWeighter {
    fn weight(&self, _: &Digest, answer: &Arc<SearchAnswer>) -> u64 {
        answer.hits.iter().map(|hit| 512 + hit.text().len() as u64).sum::<u64>() + 256
    }
}

/// The cache.
pub(super) struct AnswerCache {
    answers: Option<Cache<Digest, Arc<SearchAnswer>, AnswerWeighter>>,
    ids: AtomicU64,
}

impl AnswerCache {
    pub(super) fn new(bytes: u64) -> Self {
        let answers = (bytes > 0).then(|| Cache::with_weighter(4_096, bytes, AnswerWeighter));
        Self { answers, ids: AtomicU64::new(1) }
    }

    /// Sets the size of the cache; surplus entries are evicted.
    pub(super) fn set_bytes(&self, bytes: u64) {
        if let Some(answers) = &self.answers {
            answers.set_capacity(bytes);
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The key of a request on these views; `None` when its answer must not be kept.
    ///
    /// * `defaults`: what holds where the request does not say.
    /// * `filter`: the request's, within what the call reaches, and whether that is less than all. With `searchers` it says all that two
    ///   callers may see apart.
    pub(super) fn key(
        &self,
        request: &SearchRequest,
        defaults: Config,
        (filter, is_narrowed): (Option<&Filter>, bool),
        searchers: &[Searcher],
    ) -> Option<Digest> {
        self.answers.as_ref()?;
        let filter = filter.map(|filter| format!("{filter:?}")).unwrap_or_default();
        let mut numbers = numbers(request, defaults, is_narrowed, searchers.len() * 16);
        for searcher in searchers {
            let info = searcher.collection();
            if searcher.lsn() < info.last_change || searcher.broken().is_some() {
                return None;
            }
            numbers.extend_from_slice(&info.id.0.0.to_le_bytes());
            numbers.extend_from_slice(&info.last_change.0.to_le_bytes());
        }
        Some(Digest::of_parts([request.query.as_bytes(), filter.as_bytes(), &numbers]))
    }

    pub(super) fn get(&self, key: Digest, library: &Library) -> Option<Arc<SearchAnswer>> {
        let answer = self.answers.as_ref()?.get(&key)?;
        answer.hits.iter().all(|hit| library.is_current(&hit.passage.document)).then_some(answer)
    }

    pub(super) fn insert(&self, key: Digest, answer: &Arc<SearchAnswer>) {
        if let Some(answers) = &self.answers {
            answers.insert(key, Arc::clone(answer));
        }
    }
}

/// The settings of a request, and the defaults where it has none: what callers choose freely, so no hash that they could make equal for two
/// requests. There is space for `more` bytes.
///
/// postcard writes small numbers in a byte, and what is left out as one of its own, so no two requests give the same bytes. They are few:
/// with the query they fit into two blocks of the hash, which costs a remembered answer less than anything else of its key.
fn numbers(request: &SearchRequest, defaults: Config, is_narrowed: bool, more: usize) -> Vec<u8> {
    let cursor = request.cursor.map(|cursor| (cursor.offset, cursor.first, cursor.state));
    let fusion = request.fusion.map(|fusion| match fusion {
        Fusion::Convex { dense_weight } => (true, dense_weight.to_bits()),
        Fusion::ReciprocalRank { k } => (false, k),
    });
    let choices = (request.mode as u8, request.detail as u8, is_narrowed, fusion);
    let limits = (request.limit, request.tokens_max, request.min_score, cursor, request.shown);
    let defaults = (defaults.limit, defaults.tokens_max, defaults.candidates);
    postcard::to_extend(&(choices, limits, defaults), Vec::with_capacity(32 + more))
        .expect("numbers fit into a vector that grows")
}

#[cfg(test)]
mod tests {
    use super::super::{Cursor, Detail, Mode};
    use super::*;

    #[test]
    fn each_setting_is_part_of_the_key() {
        let defaults = Config {
            limit: 6,
            tokens_max: 1_000,
            candidates: 50,
            cache_bytes: 0,
            word_cache_bytes: 0,
            passage_cache_bytes: 0,
        };
        let plain = SearchRequest::default;
        let at = |offset, first, state| Some(Cursor { offset, first, state });
        let requests = [
            plain(),
            SearchRequest { mode: Mode::Lexical, ..plain() },
            SearchRequest { detail: Detail::Full, ..plain() },
            SearchRequest { limit: Some(0), ..plain() },
            SearchRequest { limit: Some(6), ..plain() },
            SearchRequest { tokens_max: Some(6), ..plain() },
            SearchRequest { min_score: Some(0.0), ..plain() },
            SearchRequest { min_score: Some(0.5), ..plain() },
            SearchRequest { cursor: at(0, 6, 0), ..plain() },
            SearchRequest { cursor: at(6, 0, 0), ..plain() },
            SearchRequest { cursor: at(0, 6, 1), ..plain() },
            SearchRequest { shown: 1, ..plain() },
            SearchRequest { shown: 1, cursor: at(0, 6, 1), ..plain() },
            SearchRequest { fusion: Some(Fusion::ReciprocalRank { k: 0 }), ..plain() },
            SearchRequest { fusion: Some(Fusion::Convex { dense_weight: 0.0 }), ..plain() },
        ];
        let mut keys: Vec<_> = requests.iter().map(|request| numbers(request, defaults, false, 0)).collect();
        keys.push(numbers(&plain(), defaults, true, 0));
        keys.push(numbers(&plain(), Config { limit: 7, ..defaults }, false, 0));
        keys.push(numbers(&plain(), Config { tokens_max: 7, ..defaults }, false, 0));
        keys.push(numbers(&plain(), Config { candidates: 51, ..defaults }, false, 0));
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
