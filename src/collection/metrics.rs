//! Metrics of collections and their log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Library, Searcher, WriterState};
use crate::extraction;
use crate::index::gpu;
use crate::telemetry::{CollectionLabels, Counter, Family, FloatGauge, Gauge, Registry};

/// The metrics of collections. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// Documents written (created, updated or deleted) since the start.
    pub documents_written: Counter,
    /// Passages written since the start.
    pub passages_written: Counter,
    /// Bytes of log segments that compaction wrote.
    pub compaction_bytes: Counter,
    /// Position of the last acknowledged record.
    pub log_lsn: FloatGauge,
    /// Bytes of the log on disk.
    pub log_bytes: FloatGauge,
    /// For how long deleted content should have been erased from the log.
    pub erasure_overdue: FloatGauge,
    /// 1 while the node refuses writes.
    pub read_only: Gauge,
    /// Documents, by collection name.
    pub documents: Family<CollectionLabels, Gauge>,
    /// Passages, by collection name.
    pub passages: Family<CollectionLabels, Gauge>,
    /// Passages not yet linked into the vector graph, by collection name.
    pub passages_unlinked: Family<CollectionLabels, Gauge>,
    /// Part of the ten nearest that the vector graph was found to find, by collection name.
    pub vector_recall: Family<CollectionLabels, FloatGauge>,
    /// Words of questions that were remembered.
    pub word_cache_hits: Counter,
    /// Words of questions that had to be decoded.
    pub word_cache_misses: Counter,
    /// Memory for words of questions.
    pub word_cache_bytes: Gauge,
    /// The processes that documents are read in.
    pub extraction: extraction::Metrics,
    /// The GPU.
    pub gpu: gpu::Metrics,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        Self {
            documents_written: registry.counter("documents_written", "Documents created, updated or deleted"),
            passages_written: registry.counter("passages_written", "Passages written"),
            compaction_bytes: registry.counter("compaction_bytes", "Bytes of log segments that compaction wrote"),
            log_lsn: registry.float_gauge("log_lsn", "Position of the last acknowledged record"),
            log_bytes: registry.float_gauge("log_bytes", "Bytes of the log on disk"),
            erasure_overdue: registry.float_gauge(
                "erasure_overdue_seconds",
                "For how long deleted content should have been erased from the log",
            ),
            read_only: registry.gauge("read_only", "1 while writes are refused"),
            documents: registry.register("documents", "Documents in the collection", Family::default()),
            passages: registry.register("passages", "Passages in the collection", Family::default()),
            passages_unlinked: registry.register(
                "passages_unlinked",
                "Passages not yet in the vector graph",
                Family::default(),
            ),
            vector_recall: registry.register(
                "vector_recall",
                "Part of the ten nearest neighbours that the vector graph finds",
                Family::default(),
            ),
            word_cache_hits: registry.counter("word_cache_hits", "Words of questions that were remembered"),
            word_cache_misses: registry.counter("word_cache_misses", "Words of questions that were decoded"),
            word_cache_bytes: registry.gauge("word_cache_bytes", "Memory for words of questions"),
            extraction: extraction::Metrics::register(registry),
            gpu: gpu::Metrics::register(registry),
        }
    }

    /// Sets values that are read on demand, such as sizes.
    pub fn observe(&self, library: &Library) {
        let log = library.log();
        self.log_lsn.set(log.last().0 as f64);
        self.log_bytes.set(log.bytes() as f64);
        self.erasure_overdue.set(library.erasure_overdue().as_secs_f64());
        self.read_only.set(i64::from(!matches!(log.state(), WriterState::Writable)));
        let (hits, misses) = library.words().hits_and_misses();
        self.word_cache_hits.inner().store(hits, Ordering::Relaxed);
        self.word_cache_misses.inner().store(misses, Ordering::Relaxed);
        self.word_cache_bytes.set(library.words().bytes().cast_signed());
        self.documents.clear();
        self.passages.clear();
        self.passages_unlinked.clear();
        self.vector_recall.clear();
        self.gpu.collections.clear();
        for info in library.all() {
            let labels = CollectionLabels { collection: info.name.clone() };
            self.documents.get_or_create(&labels).set(info.documents.cast_signed());
            self.passages.get_or_create(&labels).set(info.chunks.cast_signed());
            let views = library.views.read().get(&info.id).cloned();
            if let Some(searcher) = views.map(|views| Searcher::new(Arc::clone(&info), views)) {
                self.passages_unlinked.get_or_create(&labels).set(searcher.unlinked() as i64);
                if let Some(recall) = searcher.recall() {
                    self.vector_recall.get_or_create(&labels).set(recall.at_10);
                }
                if let Some(verdict) = searcher.device() {
                    self.gpu.collections.get_or_create(&labels).set(i64::from(verdict.by_gpu));
                }
            }
        }
    }
}

impl Default for Metrics {
    /// Metrics that nobody reads.
    fn default() -> Self {
        Self::register(&Registry::new())
    }
}
