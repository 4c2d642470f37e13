//! Metrics of searches.

use crate::telemetry::{Counter, Registry};

/// The metrics of searches. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// Searches answered from the result cache.
    pub search_cache_hits: Counter,
    /// Searches that had to be computed.
    pub search_cache_misses: Counter,
    /// Questions whose embedding was remembered.
    pub embedding_cache_hits: Counter,
    /// Questions that were embedded.
    pub embedding_cache_misses: Counter,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        Self {
            search_cache_hits: registry.counter("search_cache_hits", "Searches answered from the cache"),
            search_cache_misses: registry.counter("search_cache_misses", "Searches computed"),
            embedding_cache_hits: registry.counter("embedding_cache_hits", "Questions whose embedding was remembered"),
            embedding_cache_misses: registry.counter("embedding_cache_misses", "Questions that were embedded"),
        }
    }
}
