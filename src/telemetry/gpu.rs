//! What is counted of the GPU.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::CollectionLabels;

/// Label of a question that the CPU answered though the GPU was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FallbackLabels {
    /// `late`, `failed`, `loading`, `busy`, `changed` or `full`.
    pub reason: &'static str,
}

/// The GPU's metrics. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct GpuMetrics {
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

impl GpuMetrics {
    pub(super) fn new() -> Self {
        // From 10 µs to about 5 s, doubling.
        let seconds = || Histogram::new((0..20).map(|power| 10e-6 * 2f64.powi(power)));
        Self {
            up: Gauge::default(),
            starts: Counter::default(),
            questions: Counter::default(),
            fallbacks: Family::default(),
            batch_questions: Histogram::new((0..9).map(|power| 2f64.powi(power))),
            queue_seconds: seconds(),
            batch_seconds: seconds(),
            kernel_seconds: seconds(),
            scanned_bytes: Counter::default(),
            transferred_bytes: Counter::default(),
            memory_bytes: Gauge::default(),
            collections: Family::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("gpu_up", "1 while a GPU is used", self.up.clone());
        registry.register("gpu_helper_starts", "GPU helpers that were started", self.starts.clone());
        registry.register("gpu_questions", "Questions that the GPU answered", self.questions.clone());
        registry.register(
            "gpu_fallbacks",
            "Questions that the CPU answered though the GPU was asked",
            self.fallbacks.clone(),
        );
        registry.register("gpu_batch_questions", "Questions of a batch", self.batch_questions.clone());
        registry.register(
            "gpu_queue_seconds",
            "Time that a question waited until its batch was sent",
            self.queue_seconds.clone(),
        );
        registry.register(
            "gpu_batch_seconds",
            "Time from sending a batch to having its answer",
            self.batch_seconds.clone(),
        );
        registry.register("gpu_kernel_seconds", "Time that the device worked on a batch", self.kernel_seconds.clone());
        registry.register(
            "gpu_scanned_bytes",
            "Bytes of vectors that the device looked at",
            self.scanned_bytes.clone(),
        );
        registry.register(
            "gpu_transferred_bytes",
            "Bytes of vectors that were handed over to the device",
            self.transferred_bytes.clone(),
        );
        registry.register("gpu_memory_bytes", "Device memory that vectors take", self.memory_bytes.clone());
        registry.register("gpu_collection", "1 where the GPU answers", self.collections.clone());
    }

    /// Counts questions that the CPU has to answer after all.
    pub fn fell_back(&self, reason: &'static str, questions: usize) {
        self.fallbacks.get_or_create(&FallbackLabels { reason }).inc_by(questions as u64);
    }
}
