//! How much memory the caches may take: what the indexes leave of the node's budget.
//!
//! The vector graphs have to be in memory and everything else can be read again, so the graphs come first. Of what they leave half
//! goes to the caches, in proportion to what the settings want for each; the other half is for what is being written and for
//! the kernel's cache of the mapped files. Nothing is refused for want of memory: an index that is too large for its budget
//! leaves the caches nothing, and the log says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::ByteSize;
use crate::config::Config;
use crate::mcp::NodeTools;
use crate::task;
use crate::telemetry::Metrics;

/// What a node takes besides indexes and caches: the program, threads, connections, one writer of an index.
const OWN_BYTES: u64 = 96 << 20;

/// Bytes of each cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caches {
    answers: u64,
    words: u64,
    passages: u64,
}

impl Caches {
    fn total(self) -> u64 {
        self.answers + self.words + self.passages
    }

    /// What each gets where all may take `bytes`.
    fn within(self, bytes: u64) -> Self {
        let total = self.total();
        if total <= bytes {
            return self;
        }
        let part = |wanted: u64| (u128::from(wanted) * u128::from(bytes) / u128::from(total)) as u64;
        Self { answers: part(self.answers), words: part(self.words), passages: part(self.passages) }
    }
}

/// Divides the node's memory.
pub(super) struct Memory {
    max: u64,
    wanted: Caches,
    tools: Arc<NodeTools>,
    metrics: Metrics,
    /// The log says once that the indexes are too large.
    warned: AtomicBool,
}

impl Memory {
    pub(super) fn new(config: &Config, tools: Arc<NodeTools>, metrics: Metrics) -> Self {
        let max = budget(config);
        let wanted = Caches {
            answers: config.search.cache_bytes.0,
            words: config.search.word_cache_bytes.0,
            passages: config.search.passage_cache_bytes.0,
        };
        Self { max, wanted, tools, metrics, warned: AtomicBool::new(false) }
    }

    /// Gives each cache its part of what the indexes leave now, and mapped files back to the kernel where they go beyond the
    /// budget: they stay in its cache, and it may take them.
    pub(super) fn settle(&self) {
        let retrieval = self.tools.retrieval();
        let library = retrieval.library();
        let indexes = library.index_bytes();
        let caches = self.wanted.within(left(self.max, indexes) / 2);
        retrieval.set_cache_bytes(caches.answers);
        library.words().set_bytes(caches.words);
        library.passages().set_cache_bytes(caches.passages);
        let resident = task::resident();
        if resident.own + resident.mapped > self.max {
            library.release_mapped();
        }
        self.metrics.memory_max_bytes.set(self.max.min(i64::MAX as u64).cast_signed());
        self.metrics.memory_index_bytes.set(indexes.cast_signed());
        self.metrics.memory_cache_bytes.set(caches.total().cast_signed());
        if left(self.max, indexes) == 0 && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                indexes = %ByteSize(indexes),
                budget = %ByteSize(self.max),
                "the vector graphs leave no memory for anything else: give the node more (memory.max_bytes, or the limit of its \
                 container), or raise index.flat_max above the size of its collections, which makes searches slower"
            );
        }
    }
}

/// Bytes that the node may take.
pub(super) fn budget(config: &Config) -> u64 {
    match config.memory_max_bytes.0 {
        0 => task::memory_limit().unwrap_or(u64::MAX),
        set => set,
    }
}

fn left(max: u64, indexes: u64) -> u64 {
    max.saturating_sub(OWN_BYTES).saturating_sub(indexes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Caches = Caches { answers: 16 << 20, words: 128 << 20, passages: 24 << 20 };

    #[test]
    fn with_room_each_cache_gets_what_it_wants() {
        assert_eq!(WANTED.within(left(2 << 30, 300 << 20) / 2), WANTED);
    }

    #[test]
    fn what_the_indexes_take_is_taken_from_the_caches() {
        // 320 MiB, of which 96 are the node's own and 56 the graph's: half of the 168 that are left is half of what is wanted.
        let caches = WANTED.within(left(320 << 20, 56 << 20) / 2);
        assert_eq!(caches, Caches { answers: 8 << 20, words: 64 << 20, passages: 12 << 20 });
        assert_eq!(WANTED.within(left(320 << 20, 300 << 20) / 2).total(), 0);
    }

    proptest! {
        #[test]
        fn caches_keep_to_what_they_may_take(max: u64, indexes: u64, answers in 0..1u64 << 40, words in 0..1u64 << 40) {
            let (room, wanted) = (left(max, indexes) / 2, Caches { answers, words, passages: 24 << 20 });
            prop_assert!(wanted.within(room).total() <= room);
        }
    }
}
