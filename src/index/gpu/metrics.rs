//! Metrics of the GPU.

use crate::telemetry::{CollectionLabels, Counter, EncodeLabelSet, Family, Gauge, Histogram, Registry, doubling};

/// Label of a query that was sent to the GPU but answered by the CPU.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FallbackLabels {
    /// `late`, `failed`, `loading`, `busy`, `changed` or `full`.
    pub reason: &'static str,
}

/// The GPU's metrics. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// 1 while a device is open.
    pub up: Gauge,
    /// Helpers that were started.
    pub starts: Counter,
    /// Questions that the GPU answered.
    pub questions: Counter,
    /// Questions that the CPU answered though the GPU was asked.
    pub fallbacks: Family<FallbackLabels, Counter>,
    /// Questions of a batch.
    pub batch_questions: Histogram,
    /// Seconds that a question waited until its batch was sent.
    pub queue_seconds: Histogram,
    /// Seconds from sending a batch to having its answer.
    pub batch_seconds: Histogram,
    /// Seconds that the device worked on a batch.
    pub kernel_seconds: Histogram,
    /// Bytes of vectors that the device looked at, each batch all of them at least once.
    pub scanned_bytes: Counter,
    /// Bytes of vectors that were handed over.
    pub transferred_bytes: Counter,
    /// Bytes of the device's memory that vectors take.
    pub memory_bytes: Gauge,
    /// 1 where the GPU answers, by collection name.
    pub collections: Family<CollectionLabels, Gauge>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        // From 10 µs to about 5 s.
        let seconds = |name: &str, help: &str| registry.register(name, help, doubling(10e-6, 20));
        Self {
            up: registry.gauge("gpu_up", "1 while a GPU is used"),
            starts: registry.counter("gpu_helper_starts", "GPU helpers that were started"),
            questions: registry.counter("gpu_questions", "Questions that the GPU answered"),
            fallbacks: registry.register(
                "gpu_fallbacks",
                "Questions that the CPU answered though the GPU was asked",
                Family::default(),
            ),
            batch_questions: registry.register("gpu_batch_questions", "Questions of a batch", doubling(1.0, 9)),
            queue_seconds: seconds("gpu_queue_seconds", "Time that a question waited until its batch was sent"),
            batch_seconds: seconds("gpu_batch_seconds", "Time from sending a batch to having its answer"),
            kernel_seconds: seconds("gpu_kernel_seconds", "Time that the device worked on a batch"),
            scanned_bytes: registry.counter("gpu_scanned_bytes", "Bytes of vectors that the device looked at"),
            transferred_bytes: registry
                .counter("gpu_transferred_bytes", "Bytes of vectors that were handed over to the device"),
            memory_bytes: registry.gauge("gpu_memory_bytes", "Device memory that vectors take"),
            collections: registry.register("gpu_collection", "1 where the GPU answers", Family::default()),
        }
    }

    /// Counts queries that the CPU has to answer after all.
    pub fn fell_back(&self, reason: &'static str, questions: usize) {
        self.fallbacks.get_or_create(&FallbackLabels { reason }).inc_by(questions as u64);
    }
}

impl Default for Metrics {
    /// Metrics that nobody reads.
    fn default() -> Self {
        Self::register(&Registry::new())
    }
}
