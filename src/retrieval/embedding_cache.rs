//! Embeddings of questions that were asked before: with other filters, in other collections, or since something was written.
//!
//! An embedding depends on the model and the text alone, so nothing in it grows old.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::metrics::Metrics;
use crate::base::Digest;
use crate::embed::{self, EmbedError, Embedder};

/// Memory for embeddings: about two thousand of 256 numbers.
const BYTES: u64 = 2 << 20;

#[derive(Clone)]
struct EmbeddingWeighter;

impl Weighter<Digest, Arc<[f32]>> for EmbeddingWeighter {
    fn weight(&self, _: &Digest, embedding: &Arc<[f32]>) -> u64 {
        64 + size_of_val(&**embedding) as u64
    }
}

/// The cache.
pub(super) struct EmbeddingCache {
    embeddings: Cache<Digest, Arc<[f32]>, EmbeddingWeighter>,
    metrics: Metrics,
}

impl EmbeddingCache {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { embeddings: Cache::with_weighter(2_048, BYTES, EmbeddingWeighter), metrics }
    }

    /// The embedding of a question, remembered or made.
    pub(super) async fn embed(&self, model: &dyn Embedder, question: &str) -> Result<Arc<[f32]>, EmbedError> {
        let key = Digest::of_parts([model.info().name.as_bytes(), question.as_bytes()]);
        if let Some(known) = self.embeddings.get(&key) {
            self.metrics.embedding_cache_hits.inc();
            return Ok(known);
        }
        self.metrics.embedding_cache_misses.inc();
        let made: Arc<[f32]> = embed::embed_one(model, question).await?.into();
        self.embeddings.insert(key, Arc::clone(&made));
        Ok(made)
    }
}
