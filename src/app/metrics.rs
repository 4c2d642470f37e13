//! The metrics of a node: a composition of those of its parts.

use crate::telemetry::{Gauge, Registry};
use crate::{api, calls, collection, fetch, mcp, retrieval, snapshot};

/// The metrics of a node. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// The registry of all of them.
    pub registry: Registry,
    pub(super) calls: calls::Metrics,
    pub(super) reads: mcp::Metrics,
    pub(super) fetch: fetch::Metrics,
    pub(super) searches: retrieval::Metrics,
    pub(super) requests: api::Metrics,
    pub(super) collections: collection::Metrics,
    pub(super) snapshots: snapshot::Metrics,
    pub(super) memory: MemoryMetrics,
}

impl Metrics {
    /// Fresh counters.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let reads = mcp::Metrics::register(&registry);
        Self {
            searches: retrieval::Metrics::register(&registry),
            requests: api::Metrics::register(&registry, &reads),
            collections: collection::Metrics::register(&registry),
            memory: MemoryMetrics::register(&registry),
            snapshots: snapshot::Metrics::register(&registry),
            calls: calls::Metrics::register(&registry),
            fetch: fetch::Metrics::register(&registry),
            reads,
            registry,
        }
    }

    /// The metrics that the admin listener serves.
    pub(super) fn served(&self) -> api::ServedMetrics {
        api::ServedMetrics {
            registry: self.registry.clone(),
            collections: self.collections.clone(),
            snapshots: self.snapshots.clone(),
            requests: self.requests.clone(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// How the node's memory is divided.
#[derive(Clone)]
pub(super) struct MemoryMetrics {
    /// Memory that the node may take.
    pub(super) max_bytes: Gauge,
    /// Memory of the vector graphs.
    pub(super) index_bytes: Gauge,
    /// Memory that the caches may take.
    pub(super) cache_bytes: Gauge,
}

impl MemoryMetrics {
    fn register(registry: &Registry) -> Self {
        Self {
            max_bytes: registry.gauge("memory_max_bytes", "Memory that the node may take"),
            index_bytes: registry.gauge("memory_index_bytes", "Memory of the vector graphs"),
            cache_bytes: registry.gauge("memory_cache_bytes", "Memory that caches may take"),
        }
    }
}
