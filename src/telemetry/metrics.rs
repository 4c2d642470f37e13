//! The registry of metrics, and the kinds of metrics that parts use.
//!
//! Each part has a struct of metrics, created by registering them; the node's composition holds them together. Metrics
//! are plain counters that cost nanoseconds; rendering happens on the admin thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

pub use prometheus_client::encoding::EncodeLabelSet;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// A number that goes up and down, with a fraction or infinite.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// A histogram by labels.
pub type Histograms<L> = Family<L, Histogram>;

/// Label of a collection's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CollectionLabels {
    /// Name of the collection.
    pub collection: String,
}

/// The metrics at `/metrics`, under the prefix `cairn`. Cloning gives another handle to the same registry.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Mutex<prometheus_client::registry::Registry>>,
}

impl Registry {
    /// A registry without metrics.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::new(Mutex::new(prometheus_client::registry::Registry::with_prefix("cairn"))) }
    }

    /// Registers a metric under a name, which is that on `/metrics` without prefix and suffix, and returns it.
    ///
    /// * `help`: its description, without a full stop.
    pub fn register<M: prometheus_client::registry::Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.shared.lock().register(name, help, metric.clone());
        metric
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A gauge of numbers with a fraction.
    pub fn float_gauge(&self, name: &str, help: &str) -> FloatGauge {
        self.register(name, help, FloatGauge::default())
    }

    /// A histogram of seconds.
    pub fn seconds(&self, name: &str, help: &str) -> Histogram {
        self.register(name, help, seconds())
    }

    /// The metrics in OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice; formatting into a string does not fail.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.shared.lock())?;
        Ok(text)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// An unregistered histogram of seconds, from 50 µs to about 13 s, doubling.
#[must_use]
pub fn seconds() -> Histogram {
    doubling(50e-6, 18)
}

/// An unregistered histogram.
///
/// * `least`: the upper bound of the lowest of `count` buckets; each of the others is twice the one before.
#[must_use]
pub fn doubling(least: f64, count: i32) -> Histogram {
    Histogram::new((0..count).map(|power| least * 2f64.powi(power)))
}
