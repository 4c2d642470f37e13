//! Metrics of the processes that read documents.

use std::fmt;

use crate::telemetry::{Counter, EncodeLabelSet, Family, Registry};

/// Label of a document that ended the process that read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// `memory`, `time` or `crash`.
    pub reason: &'static str,
}

/// Metrics of reading documents. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// Processes that were started.
    pub starts: Counter,
    /// Documents that ended one.
    pub refused: Family<RefusedLabels, Counter>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        Self {
            starts: registry.counter("parsers_started", "Processes started to read documents in"),
            refused: registry.register(
                "documents_refused",
                "Documents that took more than they may, or crashed their parser",
                Family::default(),
            ),
        }
    }
}

impl Default for Metrics {
    /// Metrics that nobody reads.
    fn default() -> Self {
        Self::register(&Registry::new())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
