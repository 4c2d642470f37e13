//! Logs and metrics: the tracing subscriber and the metric registry.
//!
//! Invariants: the subscriber is the only process-wide state, set once by `main`; logs go to standard error or to journald, so
//! that standard output carries answers alone (over stdio it carries the protocol). Metrics are plain counters that
//! cost nanoseconds; rendering happens on the admin thread.

mod extraction;
mod fetch;
mod gpu;
mod journal;

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Deserializer};
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry as Subscriber, reload};

pub use self::extraction::{ExtractionMetrics, RefusedLabels};
pub use self::fetch::{FetchLabels, FetchMetrics};
pub use self::gpu::{FallbackLabels, GpuMetrics};
use self::journal::Journal;
use crate::base::setting;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Entries of the journal under systemd, text on a terminal, JSON otherwise.
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
    /// Entries of journald with the event's fields as their fields; JSON where journald cannot be reached.
    Journal,
}

/// What is logged of which part, checked: levels, or parts of the program with levels, with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found '{found}', expected error, warn, info, debug, trace or off, or a part with its level such as cairn::store=debug"
)]
pub struct FilterError {
    /// The part of the text that cannot be understood.
    pub found: String,
}

impl FromStr for Filter {
    type Err = FilterError;

    /// tracing's syntax, without a word alone that is no level: tracing takes it for the name of a part, and shows nothing.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut directives = Vec::new();
        for found in text.split(',').map(str::trim) {
            let refused = || FilterError { found: found.to_owned() };
            let (part, level) = found.rsplit_once('=').map_or(("", found), |(part, level)| (part.trim(), level.trim()));
            let level = match level.to_ascii_lowercase().as_str() {
                // As syslog and Python call it.
                "warning" => "warn".to_owned(),
                level @ ("error" | "warn" | "info" | "debug" | "trace" | "off") => level.to_owned(),
                _ => return Err(refused()),
            };
            let directive = match (part, found.contains('=')) {
                (_, false) => level,
                ("", true) => return Err(refused()),
                (part, true) => format!("{part}={level}"),
            };
            directive.parse::<Directive>().map_err(|_| refused())?;
            directives.push(directive);
        }
        Ok(Self(directives.join(",")))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is logged and how, section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// See [`LogFormat`].
    pub format: LogFormat,
    /// Levels in tracing's syntax: `info`, or `warn,cairn::store=debug`.
    #[serde(rename = "level", deserialize_with = "level")]
    pub filter: String,
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let filter = setting::text(deserializer)?.parse::<Filter>().map_err(serde::de::Error::custom)?;
    Ok(filter.to_string())
}

/// Where the filter of the process's subscriber is changed.
static FILTER: OnceLock<reload::Handle<EnvFilter, Subscriber>> = OnceLock::new();

/// The protocol library greets every request at `info`, and writes each that it refuses, which its caller is told, at `warn` as its
/// own types: only a filter that names it shows that.
fn quiet(filter: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let quiet = if filter.contains("rmcp") { "" } else { ",rmcp=error" };
    format!("{filter}{quiet}").parse()
}

/// Changes what is logged from now on. Nothing happens without a subscriber, and with a text that is not a [`Filter`].
pub fn set_filter(filter: &str) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), quiet(filter)) {
        // The subscriber is never gone.
        let _ = handle.reload(filter);
    }
}

/// Sets the process's subscriber. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(config: &Config) -> Result<(), tracing_subscriber::filter::ParseError> {
    let (filter, handle) = reload::Layer::new(quiet(&config.filter)?);
    let format = match config.format {
        LogFormat::Auto if journal::is_connected() => LogFormat::Journal,
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        named => named,
    };
    let (journal, unreachable) = match format {
        LogFormat::Journal => {
            Journal::connect().map_or_else(|error| (None, Some(error)), |journal| (Some(journal), None))
        }
        _ => (None, None),
    };
    // Where nobody reads standard error, the library would panic as it says so.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let layer: Box<dyn Layer<Subscriber> + Send + Sync> = match (journal, format) {
        (Some(journal), _) => journal.boxed(),
        (None, LogFormat::Text) => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        (None, _) => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    // The error is "there is one already": the first stays.
    let is_first = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_ok();
    if is_first {
        // Set once, as the subscriber is.
        let _ = FILTER.set(handle);
    }
    if let Some(error) = unreachable.filter(|_| is_first) {
        tracing::warn!(%error, "journald cannot be reached; logs go to standard error");
    }
    Ok(())
}

/// Label of a tool call's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ToolLabels {
    /// Name of the tool.
    pub tool: &'static str,
    /// `ok` or `error`.
    pub outcome: &'static str,
}

/// The metrics of a node. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Tool calls by name and outcome.
    pub tool_calls: Family<ToolLabels, Counter>,
    /// Seconds from a tool call's arrival to its answer, by name and outcome; from 50 µs up.
    pub tool_seconds: Family<ToolLabels, Histogram>,
    /// Searches answered from the result cache.
    pub search_cache_hits: Counter,
    /// Searches that had to be computed.
    pub search_cache_misses: Counter,
    /// Seconds that searches and other reads waited for their turn; from 50 µs up.
    pub read_wait_seconds: Histogram,
    /// Requests refused because too many were in flight.
    pub requests_shed: Counter,
    /// Requests being answered.
    pub requests_in_flight: Gauge,
    /// Documents written (created, updated or deleted) since the start.
    pub documents_written: Counter,
    /// Passages written since the start.
    pub passages_written: Counter,
    /// Bytes of log segments that compaction wrote.
    pub compaction_bytes: Counter,
    /// Position of the last acknowledged record.
    pub log_lsn: Gauge<f64, AtomicU64>,
    /// Bytes of the log on disk.
    pub log_bytes: Gauge<f64, AtomicU64>,
    /// Documents, by collection name.
    pub documents: Family<CollectionLabels, Gauge>,
    /// Passages, by collection name.
    pub passages: Family<CollectionLabels, Gauge>,
    /// Passages not yet linked into the vector graph, by collection name.
    pub passages_unlinked: Family<CollectionLabels, Gauge>,
    /// Questions whose embedding was remembered.
    pub embedding_cache_hits: Counter,
    /// Questions that were embedded.
    pub embedding_cache_misses: Counter,
    /// Part of the ten nearest that the vector graph was found to find, by collection name.
    pub vector_recall: Family<CollectionLabels, Gauge<f64, AtomicU64>>,
    /// Words of questions that were remembered.
    pub word_cache_hits: Counter,
    /// Words of questions that had to be decoded.
    pub word_cache_misses: Counter,
    /// Memory for words of questions.
    pub word_cache_bytes: Gauge,
    /// Memory that the node may take.
    pub memory_max_bytes: Gauge,
    /// Memory of the vector graphs.
    pub memory_index_bytes: Gauge,
    /// Memory that the caches may take.
    pub memory_cache_bytes: Gauge,
    /// 1 while the node refuses writes.
    pub read_only: Gauge,
    /// Seconds since the newest snapshot that is there; infinite when there is none.
    pub snapshot_age: Gauge<f64, AtomicU64>,
    /// Seconds since a snapshot was last proved; infinite when none was.
    pub snapshot_verified_age: Gauge<f64, AtomicU64>,
    /// 1 when the place where snapshots go holds what this node put there; 0 when not, and before the first look.
    pub snapshot_target_up: Gauge,
    /// 1 when the last snapshot that was tried was taken, and when none was tried.
    pub snapshot_succeeded: Gauge,
    /// Seconds since that place was looked at; infinite before the first look.
    pub snapshot_target_seen_age: Gauge<f64, AtomicU64>,
    /// Snapshots of this node that are there.
    pub snapshots: Gauge,
    /// Snapshots of this node that should be there and are not.
    pub snapshots_missing: Gauge,
    /// Snapshots, proofs and looks that failed, by kind.
    pub snapshot_failures: Family<WorkLabels, Counter>,
    /// The processes that documents are read in.
    pub extraction: ExtractionMetrics,
    /// Of requests to other machines.
    pub fetch: FetchMetrics,
    /// The GPU.
    pub gpu: GpuMetrics,
}

/// Label of the metrics of work with snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WorkLabels {
    /// `create`, `verify` or `look`.
    pub work: &'static str,
}

/// Label of a collection's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CollectionLabels {
    /// Name of the collection.
    pub collection: String,
}

/// From 50 µs to about 13 s, doubling.
const BUCKETS: std::ops::Range<i32> = 0..18;

impl Metrics {
    /// Fresh counters, registered under the prefix `cairn`.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("cairn");
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS.map(|power| 50e-6 * 2f64.powi(power)));
        let metrics = Self {
            tool_calls: Family::default(),
            tool_seconds: Family::new_with_constructor(histogram),
            search_cache_hits: Counter::default(),
            search_cache_misses: Counter::default(),
            read_wait_seconds: histogram(),
            requests_shed: Counter::default(),
            requests_in_flight: Gauge::default(),
            documents_written: Counter::default(),
            passages_written: Counter::default(),
            compaction_bytes: Counter::default(),
            log_lsn: Gauge::default(),
            log_bytes: Gauge::default(),
            documents: Family::default(),
            passages: Family::default(),
            passages_unlinked: Family::default(),
            embedding_cache_hits: Counter::default(),
            embedding_cache_misses: Counter::default(),
            vector_recall: Family::default(),
            word_cache_hits: Counter::default(),
            word_cache_misses: Counter::default(),
            word_cache_bytes: Gauge::default(),
            memory_max_bytes: Gauge::default(),
            memory_index_bytes: Gauge::default(),
            memory_cache_bytes: Gauge::default(),
            read_only: Gauge::default(),
            snapshot_age: Gauge::default(),
            snapshot_verified_age: Gauge::default(),
            snapshot_target_up: Gauge::default(),
            snapshot_succeeded: Gauge::default(),
            snapshot_target_seen_age: Gauge::default(),
            snapshots: Gauge::default(),
            snapshots_missing: Gauge::default(),
            snapshot_failures: Family::default(),
            extraction: ExtractionMetrics::default(),
            fetch: FetchMetrics::default(),
            gpu: GpuMetrics::new(),
            registry: Arc::new(Mutex::new(Registry::default())),
        };
        registry.register("tool_calls", "Tool calls", metrics.tool_calls.clone());
        registry.register("tool_duration_seconds", "Time of a tool call inside the node", metrics.tool_seconds.clone());
        registry.register("search_cache_hits", "Searches answered from the cache", metrics.search_cache_hits.clone());
        registry.register("search_cache_misses", "Searches computed", metrics.search_cache_misses.clone());
        registry.register(
            "word_cache_hits",
            "Words of questions that were remembered",
            metrics.word_cache_hits.clone(),
        );
        registry.register(
            "word_cache_misses",
            "Words of questions that were decoded",
            metrics.word_cache_misses.clone(),
        );
        registry.register("word_cache_bytes", "Memory for words of questions", metrics.word_cache_bytes.clone());
        registry.register(
            "read_wait_seconds",
            "Time that a search or another read waited for its turn",
            metrics.read_wait_seconds.clone(),
        );
        registry.register("requests_shed", "Requests refused under load", metrics.requests_shed.clone());
        registry.register("requests_in_flight", "Requests being answered", metrics.requests_in_flight.clone());
        registry.register(
            "documents_written",
            "Documents created, updated or deleted",
            metrics.documents_written.clone(),
        );
        registry.register(
            "compaction_bytes",
            "Bytes of log segments that compaction wrote",
            metrics.compaction_bytes.clone(),
        );
        registry.register("passages_written", "Passages written", metrics.passages_written.clone());
        registry.register("log_lsn", "Position of the last acknowledged record", metrics.log_lsn.clone());
        registry.register("log_bytes", "Bytes of the log on disk", metrics.log_bytes.clone());
        registry.register("documents", "Documents in the collection", metrics.documents.clone());
        registry.register("passages", "Passages in the collection", metrics.passages.clone());
        registry.register(
            "passages_unlinked",
            "Passages not yet in the vector graph",
            metrics.passages_unlinked.clone(),
        );
        registry.register(
            "embedding_cache_hits",
            "Questions whose embedding was remembered",
            metrics.embedding_cache_hits.clone(),
        );
        registry.register(
            "embedding_cache_misses",
            "Questions that were embedded",
            metrics.embedding_cache_misses.clone(),
        );
        registry.register(
            "vector_recall",
            "Part of the ten nearest neighbours that the vector graph finds",
            metrics.vector_recall.clone(),
        );
        registry.register("memory_max_bytes", "Memory that the node may take", metrics.memory_max_bytes.clone());
        registry.register("memory_index_bytes", "Memory of the vector graphs", metrics.memory_index_bytes.clone());
        registry.register("memory_cache_bytes", "Memory that caches may take", metrics.memory_cache_bytes.clone());
        registry.register("read_only", "1 while writes are refused", metrics.read_only.clone());
        registry.register("snapshot_age_seconds", "Age of the newest snapshot", metrics.snapshot_age.clone());
        registry.register(
            "snapshot_verified_age_seconds",
            "Time since a snapshot was last proved",
            metrics.snapshot_verified_age.clone(),
        );
        registry.register(
            "snapshot_target_up",
            "1 while the place of the snapshots holds what this node put there",
            metrics.snapshot_target_up.clone(),
        );
        registry.register(
            "snapshot_succeeded",
            "1 while the last snapshot that was tried was taken",
            metrics.snapshot_succeeded.clone(),
        );
        registry.register(
            "snapshot_target_seen_age_seconds",
            "Time since the place of the snapshots was looked at",
            metrics.snapshot_target_seen_age.clone(),
        );
        registry.register("snapshots", "Snapshots of this node that are there", metrics.snapshots.clone());
        registry.register(
            "snapshots_missing",
            "Snapshots of this node that should be there and are not",
            metrics.snapshots_missing.clone(),
        );
        registry.register(
            "snapshot_failures",
            "Snapshots, proofs and looks that failed",
            metrics.snapshot_failures.clone(),
        );
        metrics.extraction.register(&mut registry);
        metrics.fetch.register(&mut registry);
        metrics.gpu.register(&mut registry);
        *metrics.registry.lock() = registry;
        metrics
    }

    /// The metrics in OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice; formatting into a string does not fail.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_words_and_parts_have_one() {
        for (text, expected) in [
            ("info", "info"),
            ("WARNING", "warn"),
            ("warn, cairn::store=debug", "warn,cairn::store=debug"),
            ("off", "off"),
            ("info,cairn::api=warning", "info,cairn::api=warn"),
            ("warn,[request{tool=search}]=trace", "warn,[request{tool=search}]=trace"),
        ] {
            assert_eq!(text.parse::<Filter>().map(|filter| filter.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "loud", "verbose,info", "info,", "info,cairn::store", "cairn::store=loud", "=debug", "1"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
