//! Metrics of outgoing requests.

use std::fmt;

use crate::telemetry::{Counter, EncodeLabelSet, Family, Registry};

/// Labels of a request. Both have only a few values; the host is not included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabels {
    /// The part that made the request.
    pub part: &'static str,
    /// `ok`, `client_error`, `server_error`, or the kind of the failure.
    pub outcome: &'static str,
}

/// Metrics of outgoing HTTP. Cloning gives another handle to the same counters.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Requests, without repetitions.
    pub requests: Family<FetchLabels, Counter>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let help = "Requests to other machines, by the part that sent them and how they ended";
        Self { requests: registry.register("outgoing_requests", help, Family::default()) }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
