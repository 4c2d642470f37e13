//! What is counted of requests to other machines.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Labels of a request. Both have a few values; the host is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabels {
    /// Which part asked.
    pub part: &'static str,
    /// `ok`, `client_error`, `server_error`, or the kind of the failure.
    pub outcome: &'static str,
}

/// Metrics of outgoing HTTP. Cloning gives another handle to the same counters.
#[derive(Clone, Default)]
pub struct FetchMetrics {
    /// Requests, repetitions not counted.
    pub requests: Family<FetchLabels, Counter>,
}

impl FetchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "outgoing_requests",
            "Requests to other machines, by the part that sent them and how they ended",
            self.requests.clone(),
        );
    }
}

impl fmt::Debug for FetchMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchMetrics").finish_non_exhaustive()
    }
}
