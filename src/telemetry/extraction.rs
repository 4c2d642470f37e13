//! What is counted of the processes that documents are read in.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Label of a document that ended the process that read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// `memory`, `time` or `crash`.
    pub reason: &'static str,
}

/// Metrics of reading documents. Cloning gives another handle to the same counters.
#[derive(Clone, Default)]
pub struct ExtractionMetrics {
    /// Processes that were started.
    pub starts: Counter,
    /// Documents that ended one.
    pub refused: Family<RefusedLabels, Counter>,
}

impl ExtractionMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("parsers_started", "Processes started to read documents in", self.starts.clone());
        registry.register(
            "documents_refused",
            "Documents that took more than they may, or crashed their parser",
            self.refused.clone(),
        );
    }
}

impl fmt::Debug for ExtractionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtractionMetrics").finish_non_exhaustive()
    }
}
