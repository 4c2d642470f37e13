//! Metrics of requests, and those that the admin listener serves.

use crate::telemetry::{Counter, Gauge, Registry};
use crate::{collection, mcp, snapshot};

/// The metrics of requests. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// Requests being answered.
    pub requests_in_flight: Gauge,
    /// Requests refused because too many were in flight: the counter of calls.
    pub requests_shed: Counter,
}

impl Metrics {
    /// Registers them.
    ///
    /// * `calls`: those of calls, which are refused for the same reason one step further on.
    #[must_use]
    pub fn register(registry: &Registry, calls: &mcp::Metrics) -> Self {
        Self {
            requests_in_flight: registry.gauge("requests_in_flight", "Requests being answered"),
            requests_shed: calls.requests_shed.clone(),
        }
    }
}

/// The metrics at `/metrics`, and the sources that update them first.
#[derive(Clone)]
pub struct ServedMetrics {
    /// All metrics.
    pub registry: Registry,
    /// Those of collections.
    pub collections: collection::Metrics,
    /// Those of snapshots.
    pub snapshots: snapshot::Metrics,
    /// Those of requests.
    pub requests: Metrics,
}
