//! Metrics of reads.

use crate::telemetry::{Counter, Histogram, Registry};

/// The metrics of reads. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// Seconds that searches and other reads waited for their turn.
    pub read_wait_seconds: Histogram,
    /// Requests refused because too many were in flight.
    pub requests_shed: Counter,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        Self {
            read_wait_seconds: registry
                .seconds("read_wait_seconds", "Time that a search or another read waited for its turn"),
            requests_shed: registry.counter("requests_shed", "Requests refused under load"),
        }
    }
}
