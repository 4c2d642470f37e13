//! Metrics of calls.

use crate::telemetry::{Counter, EncodeLabelSet, Family, Histogram, Histograms, Registry, seconds};

/// Label of a tool call's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ToolLabels {
    /// Name of the tool.
    pub tool: &'static str,
    /// `ok` or `error`.
    pub outcome: &'static str,
}

/// The metrics of calls. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// Tool calls by name and outcome.
    pub tool_calls: Family<ToolLabels, Counter>,
    /// Seconds from a tool call's arrival to its answer, by name and outcome.
    pub tool_seconds: Histograms<ToolLabels>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let tool_seconds = Histograms::new_with_constructor(seconds as fn() -> Histogram);
        Self {
            tool_calls: registry.register("tool_calls", "Tool calls", Family::default()),
            tool_seconds: registry.register(
                "tool_duration_seconds",
                "Time of a tool call inside the node",
                tool_seconds,
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
