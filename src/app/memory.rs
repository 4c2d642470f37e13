//! Divides the node's memory.
//!
//! The vector graphs must be in memory and everything else can be read again, so the graphs come first. The rest, apart
//! from the node itself, is for current work ([`crate::task::MemoryBudget`]): adding, catching up, proving. Half of
//! what is not reserved for work goes to the caches, in proportion to the configured sizes; the kernel uses the other
//! half for mapped files. Caches shrink before work starts that needs their share.
//!
//! Invariant: the sum of everything planned here is at most the node's limit. Searches are never refused for lack of
//! memory; work that does not fit waits, or is refused with the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::limits;
use super::metrics::MemoryMetrics;
use crate::base::ByteSize;
use crate::collection;
use crate::config::Config;
use crate::index::lexical::WRITER_BYTES_MIN;
use crate::mcp::NodeTools;
use crate::task::{self, MemoryBudget};

/// A node's memory besides everything that is planned: the program, threads, idle parsers, and what the allocator
/// retains.
const PROGRAM_BYTES: u64 = 24 << 20;
/// Data on its way to the writer of an index.
const PIPELINE_BYTES: u64 = 16 << 20;

/// The memory limits of the collections.
pub(super) fn of_collections(config: &Config) -> collection::Memory {
    let max = budget(config);
    let ample = collection::Memory::ample();
    let writer_bytes = usize::try_from(max / 16).unwrap_or(usize::MAX).clamp(WRITER_BYTES_MIN, ample.writer_bytes);
    let memory = collection::Memory {
        catalog_bytes: (max / 40).clamp(CATALOG_BYTES_MIN, ample.catalog_bytes),
        writer_bytes,
        catch_up_threads: usize::try_from(max / 8 / writer_bytes as u64).unwrap_or(usize::MAX).clamp(1, 4),
        ..ample
    };
    let shared_bytes = max.saturating_sub(own_bytes(config, &memory)).max(SHARED_BYTES_MIN);
    collection::Memory { shared_bytes, budget: MemoryBudget::new(shared_bytes), ..memory }
}

/// A node's memory besides indexes, caches and work.
fn own_bytes(config: &Config, memory: &collection::Memory) -> u64 {
    let listeners = limits::connections_bytes(config) + limits::bodies_together(config);
    PROGRAM_BYTES + PIPELINE_BYTES + memory.standing_bytes() + listeners
}

/// Minimum for indexes and work: even with a limit below the program's own memory, a node can add documents.
const SHARED_BYTES_MIN: u64 = 32 << 20;

/// Minimum for the catalog's pages.
const CATALOG_BYTES_MIN: u64 = 4 << 20;

/// Size of each cache in bytes.
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

    /// The size of each where all may use `bytes`.
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
    /// The part of it that is left for indexes, caches and work.
    spare: u64,
    wanted: Caches,
    tools: Arc<NodeTools>,
    metrics: MemoryMetrics,
    /// The log reported that the indexes are too large.
    warned: AtomicBool,
}

impl Memory {
    pub(super) fn new(config: &Config, tools: Arc<NodeTools>, metrics: MemoryMetrics) -> Self {
        let max = budget(config);
        let wanted = Caches {
            answers: config.search.cache_bytes,
            words: config.search.word_cache_bytes,
            passages: config.search.passage_cache_bytes,
        };
        let spare = max.saturating_sub(own_bytes(config, tools.retrieval().library().memory()));
        let giving = Arc::downgrade(&tools);
        let given = Mutex::new(None);
        tools.retrieval().library().memory().budget.on_change(move |held| {
            if let Some(tools) = giving.upgrade() {
                let caches = caches_beside(&tools, wanted, spare, held);
                // With enough memory this gives the same result for each document.
                if given.lock().replace(caches) == Some(caches) {
                    return;
                }
                tools.set_cache_bytes(caches.answers);
                tools.retrieval().library().words().set_bytes(caches.words);
                tools.retrieval().library().set_passage_cache_bytes(caches.passages);
            }
        });
        Self { max, spare, wanted, tools, metrics, warned: AtomicBool::new(false) }
    }

    /// Sizes the caches by what the indexes leave now, and releases mapped files beyond the budget to the kernel: they
    /// stay in its cache, and it may reclaim them.
    pub(super) fn rebalance(&self) {
        let retrieval = self.tools.retrieval();
        let library = retrieval.library();
        let indexes = library.index_bytes();
        let budget = &library.memory().budget;
        budget.set_max(library.room_bytes());
        let caches = caches_beside(&self.tools, self.wanted, self.spare, budget.reserved());
        let resident = task::resident();
        if resident.own + resident.mapped > self.max {
            library.release_mapped();
        }
        self.metrics.max_bytes.set(self.max.min(i64::MAX as u64).cast_signed());
        self.metrics.index_bytes.set(indexes.cast_signed());
        self.metrics.cache_bytes.set(caches.total().cast_signed());
        if self.spare <= indexes && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                indexes = %ByteSize(indexes),
                budget = %ByteSize(self.max),
                "the vector graphs leave no memory for anything else: give the node more (memory.max_bytes, or the limit of its \
                 container), or raise index.flat_max above the size of its collections, which makes searches slower"
            );
        }
    }
}

/// The node's memory limit in bytes.
pub(super) fn budget(config: &Config) -> u64 {
    match config.memory_max_bytes.0 {
        0 => task::memory_limit().unwrap_or(u64::MAX),
        set => set,
    }
}

/// The share of each cache in what the indexes and current work leave.
///
/// * `spare`: bytes for indexes, caches and work together.
/// * `held`: bytes reserved for work.
fn caches_beside(tools: &NodeTools, wanted: Caches, spare: u64, held: u64) -> Caches {
    let indexes = tools.retrieval().library().index_bytes();
    wanted.within(spare.saturating_sub(indexes).saturating_sub(held) / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Caches = Caches { answers: 16 << 20, words: 128 << 20, passages: 24 << 20 };

    #[test]
    fn with_room_each_cache_gets_what_it_wants() {
        assert_eq!(WANTED.within(800 << 20), WANTED);
    }

    #[test]
    fn what_is_too_little_is_divided_as_it_is_wanted() {
        assert_eq!(WANTED.within(84 << 20), Caches { answers: 8 << 20, words: 64 << 20, passages: 12 << 20 });
        assert_eq!(WANTED.within(0).total(), 0);
    }

    fn on(mib: u64) -> (Config, collection::Memory) {
        let mut config = Config::load(None, [], &crate::config::Overrides::default()).expect("valid");
        config.memory_max_bytes = ByteSize::mib(mib);
        config.server.request_bytes_max = ByteSize::mib(16);
        let memory = of_collections(&config);
        (config, memory)
    }

    #[test]
    fn what_is_planned_fits_into_the_limit() {
        for mib in [256, 320, 1 << 10, 4 << 10, 16 << 10] {
            let (config, memory) = on(mib);
            let own = own_bytes(&config, &memory);
            assert!(own <= (mib << 20) / 2, "{mib} MiB: {} of them are the node's own", ByteSize(own));
            assert_eq!(own + memory.shared_bytes, mib << 20);
        }
        // The smallest board holds 100,000 passages, whose graph needs 52 MiB, and files of 11 MB next to it.
        let (_, board) = on(320);
        assert!(board.room_bytes(52 << 20) > 110 << 20, "{board:?}");
        let (large, ample) = (on(16 << 10).1, collection::Memory::ample());
        assert_eq!((large.catalog_bytes, large.writer_bytes), (ample.catalog_bytes, ample.writer_bytes));
    }

    proptest! {
        #[test]
        fn caches_keep_to_what_they_may_take(room: u64, answers in 0..1u64 << 40, words in 0..1u64 << 40) {
            let wanted = Caches { answers, words, passages: 24 << 20 };
            prop_assert!(wanted.within(room).total() <= room);
        }
    }
}
