//! A cache of answers to repeated queries.
//!
//! The key contains the position of each collection's last change, so a write invalidates it. An answer is not cached
//! while its view is behind that position, nor beyond the first expiry of a document in it.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rustc_hash::FxHasher;

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
    /// * `filter`: the request's, within what the call reaches. With `searchers` it says all that two callers may see apart.
    pub(super) fn key(
        &self,
        request: &SearchRequest,
        defaults: Config,
        filter: Option<&Filter>,
        searchers: &[Searcher],
    ) -> Option<Digest> {
        self.answers.as_ref()?;
        let mut rest = FxHasher::default();
        (request.mode, request.detail, request.limit, request.cursor, request.tokens_max, request.shown)
            .hash(&mut rest);
        (defaults.limit, defaults.tokens_max, defaults.candidates).hash(&mut rest);
        request.min_score.map(f32::to_bits).hash(&mut rest);
        match request.fusion {
            None => 0u8.hash(&mut rest),
            Some(Fusion::Convex { dense_weight }) => (1u8, dense_weight.to_bits()).hash(&mut rest),
            Some(Fusion::ReciprocalRank { k }) => (2u8, k).hash(&mut rest),
        }
        let filter = filter.map(|filter| format!("{filter:?}")).unwrap_or_default();
        let mut views = Vec::with_capacity(searchers.len() * 16);
        for searcher in searchers {
            let info = searcher.collection();
            if searcher.lsn() < info.last_change || searcher.broken().is_some() {
                return None;
            }
            views.extend_from_slice(&info.id.0.0.to_le_bytes());
            views.extend_from_slice(&info.last_change.0.to_le_bytes());
        }
        let rest = rest.finish().to_le_bytes();
        Some(Digest::of_parts([request.query.as_bytes(), filter.as_bytes(), &views, &rest]))
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
